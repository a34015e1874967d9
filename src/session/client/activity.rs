//! The time of a client's last activity that keeps its connection open.

use crate::base::time::Instant;

/// Minimum number of response bytes that a client must take to count as active, unless it takes all
/// remaining bytes. Otherwise a client that takes one byte at a time could hold its slot for days.
const TAKEN_LEN_MIN: usize = 4 * 1024;

/// The last activity of a client.
#[derive(Debug)]
pub(in crate::session) struct Activity {
    last: Instant,
    /// Bytes taken since the last activity, too few to count.
    taken: usize,
}

impl Activity {
    /// Returns the activity of a client that has just connected.
    pub(in crate::session) fn new(now: Instant) -> Self {
        Self {
            last: now,
            taken: 0,
        }
    }

    /// Returns the time of the last activity.
    pub(in crate::session) fn last(&self) -> Instant {
        self.last
    }

    /// Records an activity.
    pub(in crate::session) fn note(&mut self, now: Instant) {
        self.last = now;
        self.taken = 0;
    }

    /// Records that the client took `len` bytes of its responses, and whether these were the rest.
    pub(in crate::session) fn note_taken(&mut self, len: usize, is_rest: bool, now: Instant) {
        self.taken += len;
        if self.taken >= TAKEN_LEN_MIN || is_rest && len > 0 {
            self.note(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn few_bytes_taken_are_activity_only_if_they_are_the_rest() {
        let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
        let mut activity = Activity::new(at(0));
        for second in 1..100 {
            activity.note_taken(1, false, at(second));
        }
        assert_eq!(activity.last(), at(0));
        activity.note_taken(TAKEN_LEN_MIN - 99, false, at(100));
        assert_eq!(activity.last(), at(100));
        activity.note_taken(1, false, at(101));
        activity.note_taken(0, true, at(102));
        assert_eq!(activity.last(), at(100));
        activity.note_taken(1, true, at(103));
        assert_eq!(activity.last(), at(103));
    }
}
