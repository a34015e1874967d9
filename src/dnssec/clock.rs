//! The time by which signatures are judged.

/// The time by which signatures are judged, in seconds since 1970.
///
/// The clock of a host may be wrong: a board without a battery starts in 1970, and it has to
/// resolve the names of time servers. So a signature is expired only if it ended before a moment
/// that has surely passed, and its start counts only if the clock of the host is later than that
/// moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignatureClock {
    /// A moment that has passed.
    pub lower_bound: u64,
    /// The clock of the host.
    pub system: u64,
}

/// Maximum tolerance in seconds for a wrong clock.
const TOLERANCE_MAX: u32 = 3_600;

/// The relation of a signature's validity period to the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeliness {
    /// The signature is valid for this number of seconds.
    Valid(u32),
    /// The signature has expired.
    Expired,
    /// The signature is not valid yet.
    NotYetValid,
}

impl SignatureClock {
    /// Judges the validity period of a signature. Times are modulo 2^32 (RFC 4034, section 3.1.5).
    /// The tolerance is a tenth of the period, at most an hour. A period that ends before it begins
    /// has expired.
    pub fn judge(&self, inception: u32, expiration: u32) -> Timeliness {
        let Ok(period) = u32::try_from(signed_distance(inception, expiration)) else {
            return Timeliness::Expired;
        };
        let tolerance = (period / 10).min(TOLERANCE_MAX);
        let now = self.lower_bound.max(self.system);
        // A clock behind the lower bound cannot tell how much time has passed since.
        let left = signed_distance(low_bits(now), expiration);
        if left < -i64::from(tolerance) {
            return Timeliness::Expired;
        }
        let is_plausible = self.system >= self.lower_bound;
        let since = signed_distance(inception, low_bits(self.system));
        if is_plausible && since < -i64::from(tolerance) {
            return Timeliness::NotYetValid;
        }
        Timeliness::Valid(u32::try_from(left).unwrap_or_default())
    }
}

/// Returns how much later `to` is than `from`, if the distance is below 2^31 (RFC 1982).
fn signed_distance(from: u32, to: u32) -> i64 {
    let distance = to.wrapping_sub(from);
    if distance < 1 << 31 {
        i64::from(distance)
    } else {
        i64::from(distance) - (1 << 32)
    }
}

fn low_bits(seconds: u64) -> u32 {
    u32::try_from(seconds & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u32 = 86_400;

    fn judge(system: u64, lower_bound: u64, inception: u32, expiration: u32) -> Timeliness {
        let clock = SignatureClock {
            lower_bound,
            system,
        };
        clock.judge(inception, expiration)
    }

    #[test]
    fn tolerance_is_a_tenth_of_the_period_and_at_most_an_hour() {
        let (start, end) = (1_000_000, 1_000_000 + 30 * DAY);
        let at = |now: u32| judge(now.into(), 0, start, end);
        assert_eq!(at(start), Timeliness::Valid(30 * DAY));
        assert_eq!(at(end), Timeliness::Valid(0));
        assert_eq!(at(end + 3_600), Timeliness::Valid(0));
        assert_eq!(at(end + 3_601), Timeliness::Expired);
        assert_eq!(at(start - 3_600), Timeliness::Valid(30 * DAY + 3_600));
        assert_eq!(at(start - 3_601), Timeliness::NotYetValid);
        let short = |now: u32| judge(now.into(), 0, start, start + 600);
        assert_eq!(short(start + 660), Timeliness::Valid(0));
        assert_eq!(short(start + 661), Timeliness::Expired);
        assert_eq!(short(start - 61), Timeliness::NotYetValid);
    }

    #[test]
    fn clock_that_is_behind_does_not_decide_the_start() {
        let (start, end) = (1_700_000_000, 1_700_000_000 + 30 * DAY);
        // The host starts in 1970, and the program was built before the signature was made.
        let built = 1_690_000_000;
        let valid = judge(5, built, start, end);
        assert_eq!(valid, Timeliness::Valid(10_000_000 + 30 * DAY));
        assert_eq!(judge(built, built, start, end), Timeliness::NotYetValid);
        assert_eq!(judge(5, built, 1_000, 2_000), Timeliness::Expired);
    }

    #[test]
    fn period_that_ends_before_it_begins_is_never_valid() {
        let now = 1_700_000_000;
        for (start, end) in [(now + 2_000, now + 1_000), (now - 1_000, now - 2_000)] {
            let judged = judge(now.into(), 0, start, end);
            assert_eq!(judged, Timeliness::Expired, "{start} to {end}");
        }
        assert_eq!(judge(now.into(), 0, now, now), Timeliness::Valid(0));
    }

    #[test]
    fn times_continue_after_2106() {
        let late = u64::from(u32::MAX) + 100;
        let valid = judge(late, 0, u32::MAX - 1_000, 5_000);
        assert_eq!(valid, Timeliness::Valid(4_901));
    }
}
