//! Adaptive busy polling: decides whether the loop polls for a moment before it sleeps.
//!
//! Sleep and wake-up cost some microseconds of processor time and more of latency. If the next
//! event arrives sooner, as with a client on the same host that waits for each response, polling is
//! cheaper than sleep. The waits show whether events arrive that soon: the loop polls only while
//! most recent waits were short, and a poll without an event counts twice.

use std::time::Duration;

/// The decision whether a wait begins with polling. See the [module](self).
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// There are several processors, so that another process can run during a poll.
    is_possible: bool,
    /// The number of short waits minus long ones, within bounds.
    score: u8,
}

/// The time that the loop polls before it sleeps.
pub(super) const POLL_TIME: Duration = Duration::from_micros(20);

/// Maximum length of a wait that polling could have covered: it includes a wake-up.
const SHORT_WAIT: Duration = Duration::from_micros(30);

const SCORE_MAX: u8 = 16;

/// Minimum score for polling.
const SCORE_MIN: u8 = 8;

/// The decrement of the score for a wait without an event within [`POLL_TIME`].
const LONG_WAIT_COST: u8 = 2;

impl BusyPoll {
    /// Creates the state for a loop that may run on `processors` processors.
    pub(super) fn new(processors: u32) -> Self {
        Self {
            is_possible: processors > 1,
            score: 0,
        }
    }

    /// Returns whether the next wait begins with polling.
    pub(super) fn is_on(&self) -> bool {
        self.is_possible && self.score >= SCORE_MIN
    }

    /// Updates the score with the time that the loop waited for an event.
    pub(super) fn on_wait(&mut self, waited: Duration) {
        let limit = if self.is_on() { POLL_TIME } else { SHORT_WAIT };
        self.score = if waited <= limit {
            SCORE_MAX.min(self.score + 1)
        } else {
            self.score.saturating_sub(LONG_WAIT_COST)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_waits(processors: u32, waits: impl IntoIterator<Item = u64>) -> bool {
        let mut busy_poll = BusyPoll::new(processors);
        for micros in waits {
            busy_poll.on_wait(Duration::from_micros(micros));
        }
        busy_poll.is_on()
    }

    #[test]
    fn short_waits_turn_polling_on_and_long_waits_turn_it_off() {
        assert!(!after_waits(2, []));
        assert!(after_waits(2, [10; 100]));
        assert!(!after_waits(2, [100; 100]));
        let then_long = |long| [10; 100].into_iter().chain(vec![100; long]);
        assert!(after_waits(2, then_long(1)));
        assert!(!after_waits(2, then_long(8)));
    }

    #[test]
    fn most_waits_have_to_be_short() {
        let of_three = |short: usize| {
            let waits = (0..300).map(move |n| if n % 3 < short { 10 } else { 100 });
            after_waits(2, waits)
        };
        assert!(!of_three(1));
        // A long wait counts twice.
        assert!(!of_three(2));
        let of_eight = (0..800).map(|n| if n % 8 < 7 { 10 } else { 100 });
        assert!(after_waits(2, of_eight));
    }

    #[test]
    fn wait_is_short_if_polling_covers_it() {
        // A wake-up is part of a wait without polling.
        assert!(after_waits(2, [25; 8]) && !after_waits(2, [35; 100]));
        let polled = |micros| [10; 100].into_iter().chain(vec![micros; 8]);
        assert!(after_waits(2, polled(20)) && !after_waits(2, polled(25)));
    }

    #[test]
    fn single_processor_is_never_polled_on() {
        assert!(!after_waits(1, [10; 100]));
    }
}
