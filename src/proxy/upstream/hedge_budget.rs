//! The budget of hedges: the share of queries that may be sent a second time while the first
//! attempt is unanswered.
//!
//! A hedge hides a slow link from a client, but if all upstreams are slow, hedges would double
//! their load. The budget is therefore a share of the queries. Unused hedges are saved up to a
//! limit.

use crate::config::Limits;

/// The hedge budget.
#[derive(Debug)]
pub(in crate::proxy) struct Hedges {
    /// The remaining budget in hundredths of a query.
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

    /// Records the first attempt of a query.
    pub(in crate::proxy) fn on_sent(&mut self) {
        self.left = (self.left + self.earned).min(self.left_max);
    }

    /// Takes a hedge from the budget. Returns whether one was left.
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
    fn hedges_stay_within_their_share() {
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
    fn saved_hedges_are_limited() {
        let limits = Limits::default();
        let mut hedges = Hedges::new(&limits);
        (0..100_000).for_each(|_| hedges.on_sent());
        let taken = (0..100_000).filter(|_| hedges.take()).count();
        assert_eq!(taken, limits.hedges_saved);
    }
}
