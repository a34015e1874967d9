//! The level of EDNS that an upstream accepts, learned from its errors (RFC 6891, section 6.2.2).

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::query::EdnsLevel;

/// The level of EDNS that one endpoint accepts.
#[derive(Debug, Default)]
pub(super) struct EdnsSupport {
    reduced: Option<(EdnsLevel, Instant)>,
    /// The time of the last answer to a query with EDNS in full.
    full_answer: Option<Instant>,
}

impl EdnsSupport {
    /// Time for which an endpoint is queried with a reduced level before the full one is tried
    /// again.
    const VALID: Duration = Duration::from_secs(900);

    /// Records that a query with this level of EDNS was answered after one with a higher level was
    /// refused. Returns whether the level is new.
    pub(super) fn on_reduced_answer(&mut self, level: EdnsLevel, now: Instant) -> bool {
        let before = self.level(now);
        self.reduced = Some((level, now));
        before != level
    }

    /// Records that a query with EDNS in full was answered.
    pub(super) fn on_full_answer(&mut self, now: Instant) {
        self.full_answer = Some(now);
    }

    /// Returns whether an error may be about EDNS. It is not if queries with EDNS in full have been
    /// answered recently.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.full_answer.is_none_or(|at| now - at >= Self::VALID)
    }

    /// Returns the level of EDNS for a query to this endpoint.
    pub(super) fn level(&self, now: Instant) -> EdnsLevel {
        match self.reduced {
            Some((level, at)) if now - at < Self::VALID => level,
            _ => EdnsLevel::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_level_is_used_for_a_while() {
        let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
        let mut support = EdnsSupport::default();
        assert_eq!(support.level(at(0)), EdnsLevel::Full);
        assert!(support.on_reduced_answer(EdnsLevel::Off, at(1)));
        assert!(!support.on_reduced_answer(EdnsLevel::Off, at(2)));
        assert_eq!(support.level(at(901)), EdnsLevel::Off);
        assert_eq!(support.level(at(902)), EdnsLevel::Full);
        assert!(support.is_in_doubt(at(902)));
        support.on_full_answer(at(903));
        assert!(!support.is_in_doubt(at(1802)) && support.is_in_doubt(at(1803)));
    }
}
