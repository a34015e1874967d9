//! Monotonic time as a plain number that the caller supplies.
//!
//! Nothing below the network layer reads a clock. The loop reads the clock once per turn and passes
//! the value down, so that every decision can be replayed.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// The validity period of a certificate, in time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The begin of the period. A begin before 1970 is zero.
    pub begins_at: Duration,
    /// The end of the period.
    pub expires_at: Duration,
}

impl Validity {
    /// Returns whether the certificate is valid at this time since 1970.
    pub fn includes(self, now: Duration) -> bool {
        (self.begins_at..=self.expires_at).contains(&now)
    }
}

/// A point on the monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    nanoseconds: u64,
}

impl Instant {
    /// Returns the instant `since_start` after the arbitrary start.
    pub fn after_start(since_start: Duration) -> Self {
        Self {
            nanoseconds: nanoseconds(since_start),
        }
    }

    /// Returns the time from `earlier` to this instant, or zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds.saturating_sub(earlier.nanoseconds))
    }

    /// Returns the instant `duration` before this one, or the start if there is none.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self {
            nanoseconds: self.nanoseconds.saturating_sub(nanoseconds(duration)),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self {
            nanoseconds: self.nanoseconds.saturating_add(nanoseconds(duration)),
        }
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_go_below_zero() {
        let early = Instant::after_start(Duration::from_secs(1));
        let late = early + Duration::from_millis(5);
        assert_eq!(late - early, Duration::from_millis(5));
        assert_eq!(early - late, Duration::ZERO);
    }

    #[test]
    fn addition_saturates() {
        let end = Instant::after_start(Duration::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
    }
}
