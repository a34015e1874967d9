//! The latency of an endpoint, estimated from its recent answers.
//!
//! There are two values: the usual latency, by which upstreams are compared, and the latency that
//! is rarely exceeded, which distinguishes a slow answer from a missing one. Names that a resolver
//! has cached and names that it has to resolve differ by a factor of a hundred, so the second value
//! is not derived from the first: it is a quantile of a decaying histogram.

use std::time::Duration;

use super::Upstreams;
use super::link::Link;

/// The latency of the recent answers of an endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Latency {
    usual: Option<Duration>,
    /// Answers by duration: two buckets per doubling, from one millisecond on.
    answers_by_bucket: [u8; BUCKETS],
    answers: u16,
}

/// The number of buckets. The last one holds all durations above eight seconds.
const BUCKETS: usize = 27;

/// The number of answers after which older ones count half.
const ANSWERS_MAX: u16 = 200;

/// The number of answers that the rarely exceeded latency requires.
const ANSWERS_MIN: u16 = 10;

impl Latency {
    /// Records the latency of an answer.
    pub(super) fn on_answer(&mut self, took: Duration) {
        self.usual = Some(match self.usual {
            None => took,
            Some(usual) => (usual * 7 + took) / 8,
        });
        if self.answers == ANSWERS_MAX {
            for count in &mut self.answers_by_bucket {
                *count /= 2;
            }
            self.answers = self
                .answers_by_bucket
                .iter()
                .map(|count| u16::from(*count))
                .sum();
        }
        self.answers_by_bucket[bucket(took)] += 1;
        self.answers += 1;
    }

    /// Returns the usual latency of recent answers, if there was one.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// Returns the latency that one in twenty recent answers exceeded, rounded up, if there were
    /// enough answers.
    pub(super) fn rarely_exceeded(&self) -> Option<Duration> {
        if self.answers < ANSWERS_MIN {
            return None;
        }
        let mut slower = 0;
        let by_bucket = self.answers_by_bucket.iter().enumerate().rev();
        for (index, count) in by_bucket {
            slower += u16::from(*count);
            if slower * 20 > self.answers {
                return Some(end(index));
            }
        }
        None
    }
}

fn bucket(took: Duration) -> usize {
    let milliseconds = took.as_millis();
    let Some(doublings) = milliseconds.checked_ilog2() else {
        return 0;
    };
    let is_in_first_half = took.as_micros() < 1_500 << doublings;
    let index = 2 * doublings as usize + if is_in_first_half { 1 } else { 2 };
    index.min(BUCKETS - 1)
}

/// Returns the exclusive upper bound of a bucket: 1, 1.5, 2, 3, 4, 6, 8 ms and so on.
fn end(index: usize) -> Duration {
    let doublings = u32::try_from(index / 2).expect("the number of buckets is small");
    let octave = Duration::from_millis(1 << doublings);
    match index % 2 {
        0 => octave,
        _ => octave * 3 / 2,
    }
}

impl Upstreams {
    /// Returns the time after which a query on a link is slow.
    pub(in crate::proxy) fn slow_after(&self, link: &Link) -> Duration {
        match self.endpoint(link.endpoint).latency.rarely_exceeded() {
            Some(rare) => (rare * 4).clamp(self.timeouts.slow_min, self.timeouts.attempt),
            None => self.timeouts.slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(milliseconds: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::default();
        for took in milliseconds {
            latency.on_answer(Duration::from_millis(took));
        }
        latency
    }

    #[test]
    fn latency_is_unknown_without_answers() {
        assert_eq!(latency([]).usual(), None);
        assert_eq!(latency([5; 9]).rarely_exceeded(), None);
        assert_eq!(latency([5]).usual(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn usual_follows() {
        let mixed = latency([10; 50].into_iter().chain([100; 50]));
        let usual = mixed.usual().unwrap().as_millis();
        assert!((99..=100).contains(&usual), "{usual}");
    }

    #[test]
    fn one_in_twenty_answers_may_exceed_the_limit() {
        let bound = |slow: usize| {
            let answers = (0..200).map(|nth| if nth % 100 < slow { 700 } else { 10 });
            latency(answers).rarely_exceeded().unwrap().as_millis()
        };
        assert_eq!(bound(4), 12);
        assert_eq!(bound(10), 768);
    }

    #[test]
    fn old_answers_are_forgotten() {
        let latency = latency((0..3_200).map(|nth| if nth < 200 { 900 } else { 10 }));
        assert_eq!(latency.rarely_exceeded(), Some(Duration::from_millis(12)));
    }

    #[test]
    fn bucket_of_a_duration_ends_after_it() {
        for tenths in 0..90_000 {
            let took = Duration::from_micros(tenths * 100);
            let index = bucket(took);
            assert!(took < end(index) || index == BUCKETS - 1);
            assert!(index == 0 || took >= end(index - 1));
        }
    }
}
