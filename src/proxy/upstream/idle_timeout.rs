//! The time for which an upstream keeps idle connections, learned from when it closes them.
//!
//! A query that is sent while the connection is being closed has to be sent again. A proxy that
//! stops using the connection a little earlier avoids that.

use std::time::Duration;

use crate::base::time::Instant;

/// The estimated idle timeout of an endpoint.
#[derive(Debug, Default)]
pub(super) struct IdleTimeoutEstimate {
    /// The idle time of the connection that the endpoint last closed.
    last: Option<Duration>,
    learned: Option<Learned>,
}

#[derive(Debug)]
struct Learned {
    limit: Duration,
    at: Instant,
}

impl IdleTimeoutEstimate {
    /// Time after which the estimate expires, since it prevents its own verification.
    const VALID: Duration = Duration::from_secs(3600);

    /// The shortest idle timeout; a connection that is closed earlier indicates a restart.
    const LEAST: Duration = Duration::from_secs(1);

    /// Records that a connection was closed after it had been idle for `idle`. Two closes that
    /// agree set the estimate.
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

    /// Returns the estimated idle timeout, unless it has expired.
    pub(super) fn learned(&self, now: Instant) -> Option<Duration> {
        let learned = self.learned.as_ref();
        let valid = learned.filter(|learned| now - learned.at < Self::VALID);
        valid.map(|learned| learned.limit)
    }

    /// Returns for how long an idle connection may still be used, at most `most`.
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
        let mut estimate = IdleTimeoutEstimate::default();
        for idle in closed_after_ms {
            estimate.on_closed(Duration::from_millis(*idle), at(1));
        }
        estimate.limit(MOST, at(1)).as_millis()
    }

    #[test]
    fn two_closes_that_agree_set_the_estimate() {
        assert_eq!(limit_ms(&[]), 20_000);
        assert_eq!(limit_ms(&[10_000]), 20_000);
        assert_eq!(limit_ms(&[10_000, 3_000]), 20_000);
        assert_eq!(limit_ms(&[10_500, 10_000]), 9_000);
        assert_eq!(limit_ms(&[10_000, 3_000, 3_100]), 2_700);
    }

    #[test]
    fn restarts_set_no_estimate() {
        assert_eq!(limit_ms(&[5, 5, 5]), 20_000);
    }

    #[test]
    fn estimate_expires() {
        let mut estimate = IdleTimeoutEstimate::default();
        estimate.on_closed(Duration::from_secs(5), at(1));
        estimate.on_closed(Duration::from_secs(5), at(10));
        assert!(estimate.limit(MOST, at(3_600)) < MOST);
        assert_eq!(estimate.limit(MOST, at(3_700)), MOST);
    }
}
