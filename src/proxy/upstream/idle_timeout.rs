//! For how long an upstream keeps connections that nobody uses, learned from when it closes them.
//!
//! A query that is sent just as the connection is closed has to be sent again. Whoever stops using
//! a connection somewhat earlier is spared that.

use std::time::Duration;

use crate::base::time::Instant;

/// What is known of an upstream's patience.
#[derive(Debug, Default)]
pub(super) struct IdleTimeoutEstimate {
    /// After how long it last closed an idle connection.
    last: Option<Duration>,
    learned: Option<Learned>,
}

#[derive(Debug)]
struct Learned {
    limit: Duration,
    at: Instant,
}

impl IdleTimeoutEstimate {
    /// What was learned is forgotten after so long, since nobody tries it any more.
    const VALID: Duration = Duration::from_secs(3600);

    /// Less is a restart rather than a limit.
    const LEAST: Duration = Duration::from_secs(1);

    /// Takes note that a connection was closed that had been idle for so long. It takes two that
    /// agree to learn from.
    pub(super) fn on_closed(&mut self, idle: Duration, now: Instant) {
        if idle < Self::LEAST {
            return;
        }
        let last = self.last.replace(idle);
        let agrees = |last: &Duration| *last < idle * 5 / 4 && idle < *last * 5 / 4;
        if let Some(last) = last.filter(agrees) {
            let limit = last.min(idle);
            self.learned = Some(Learned { limit, at: now });
        }
    }

    /// After how long connections are closed, if that was learned of late.
    pub(super) fn learned(&self, now: Instant) -> Option<Duration> {
        let learned = self.learned.as_ref();
        let valid = learned.filter(|learned| now - learned.at < Self::VALID);
        valid.map(|learned| learned.limit)
    }

    /// For how long a connection may be idle and still be used, if `most` is the longest that is
    /// wanted.
    pub(super) fn limit(&self, most: Duration, now: Instant) -> Duration {
        let learned = self.learned(now);
        learned.map_or(most, |limit| most.min(limit * 9 / 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    fn limit_ms(closed_after_ms: &[u64]) -> u128 {
        let mut patience = IdleTimeoutEstimate::default();
        for idle in closed_after_ms {
            patience.on_closed(Duration::from_millis(*idle), at(1));
        }
        patience.limit(MOST, at(1)).as_millis()
    }

    #[test]
    fn two_that_agree_teach() {
        assert_eq!(limit_ms(&[]), 20_000);
        assert_eq!(limit_ms(&[10_000]), 20_000);
        assert_eq!(limit_ms(&[10_000, 3_000]), 20_000);
        assert_eq!(limit_ms(&[10_500, 10_000]), 9_000);
        assert_eq!(limit_ms(&[10_000, 3_000, 3_100]), 2_700);
    }

    #[test]
    fn restarts_teach_nothing() {
        assert_eq!(limit_ms(&[5, 5, 5]), 20_000);
    }

    #[test]
    fn what_was_learned_is_forgotten() {
        let mut patience = IdleTimeoutEstimate::default();
        patience.on_closed(Duration::from_secs(5), at(1));
        patience.on_closed(Duration::from_secs(5), at(10));
        assert!(patience.limit(MOST, at(3_600)) < MOST);
        assert_eq!(patience.limit(MOST, at(3_700)), MOST);
    }
}
