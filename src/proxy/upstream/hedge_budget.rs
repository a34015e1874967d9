//! How many queries may be sent a second time although the first may still be answered.
//!
//! A second query hides a slow link from a client, but on a day when everything is slow it would
//! double the load of those who are slow because of it. So there is a share, which quiet times save
//! up to a limit.

use crate::config::Limits;

/// The share that is left.
#[derive(Debug)]
pub(in crate::proxy) struct Hedges {
    /// In hundredths of a query.
    left: usize,
    earned: usize,
    left_max: usize,
}

const WHOLE: usize = 100;

impl Hedges {
    pub(in crate::proxy) fn new(limits: &Limits) -> Self {
        let left_max = limits.hedges_saved * WHOLE;
        Self {
            left: left_max,
            earned: limits.hedges_per_hundred,
            left_max,
        }
    }

    /// Takes note that a query was sent for the first time.
    pub(in crate::proxy) fn on_sent(&mut self) {
        self.left = (self.left + self.earned).min(self.left_max);
    }

    /// Takes one, if there is one left.
    pub(in crate::proxy) fn take(&mut self) -> bool {
        let left = self.left.checked_sub(WHOLE);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_kept_whatever_is_asked() {
        let limits = Limits::default();
        let mut hedges = Hedges::new(&limits);
        let mut taken = 0;
        for _ in 0..100_000 {
            hedges.on_sent();
            taken += usize::from(hedges.take());
        }
        let share = 100_000 * limits.hedges_per_hundred / 100;
        assert!(
            (share..=share + limits.hedges_saved).contains(&taken),
            "{taken}"
        );
    }

    #[test]
    fn quiet_times_save_no_more_than_the_limit() {
        let limits = Limits::default();
        let mut hedges = Hedges::new(&limits);
        (0..100_000).for_each(|_| hedges.on_sent());
        let taken = (0..100_000).filter(|_| hedges.take()).count();
        assert_eq!(taken, limits.hedges_saved);
    }
}
