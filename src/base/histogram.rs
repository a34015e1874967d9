//! Histograms of durations with fixed bounds.

use std::time::Duration;

/// Upper bounds in microseconds.
const MICROSECONDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];

/// A histogram of durations.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; Histogram::BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// The bounds, from the time of a cached answer to the timeout of most clients.
    pub const BOUNDS: [Duration; MICROSECONDS.len()] = {
        let mut bounds = [Duration::ZERO; MICROSECONDS.len()];
        let mut index = 0;
        while index < bounds.len() {
            bounds[index] = Duration::from_micros(MICROSECONDS[index]);
            index += 1;
        }
        bounds
    };

    /// Adds a duration.
    pub fn observe(&mut self, took: Duration) {
        // A linear search from the lowest bound is fast, since most answers come from the cache.
        let exceeded = Self::BOUNDS.iter().take_while(|bound| **bound < took);
        let index = exceeded.count();
        self.counts[index] += 1;
        self.sum += took;
    }

    /// Returns each bound with the number of durations within it.
    pub fn within(&self) -> impl Iterator<Item = (Duration, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self::BOUNDS.into_iter().zip(sums)
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_for_its_bound_and_all_higher_ones() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let within: Vec<u64> = histogram.within().map(|(_, count)| count).collect();
        assert_eq!(within[..3], [2, 3, 3]);
        assert_eq!(within[14], 4);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_micros(10_000_202));
    }

    #[test]
    fn bounds_ascend() {
        assert!(Histogram::BOUNDS.is_sorted());
    }
}
