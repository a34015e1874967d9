//! Queries that failed of late, so that a storm of retries costs nothing (RFC 9520).
//!
//! Clients that get SERVFAIL ask again, and whoever asks for them does so as well. For a second a
//! failure is therefore told again without asking anybody; each time that the query fails again,
//! for twice as long. So that the end of the trouble does not go unnoticed, two queries a second
//! are asked all the same, and when anything changes for the better all is forgotten.

use std::collections::HashMap;
use std::time::Duration;

use super::keys::PoolIndex;
use crate::config::{Limits, Timeouts};
use crate::time::Instant;
use crate::wire::Question;
use crate::wire::edns::ExtendedError;

/// What failed.
#[derive(Debug)]
pub(super) struct Memory {
    pause_min: Duration,
    pause_max: Duration,
    len_max: usize,
    /// By the question in small letters.
    failure_by_question: HashMap<Box<[u8]>, Failed>,
    ask_at: Instant,
    /// When things last changed for the better.
    better_since_by_pool: HashMap<PoolIndex, Instant>,
}

#[derive(Debug)]
struct Failed {
    /// Who was asked.
    pool: PoolIndex,
    reason: ExtendedError,
    pause: Duration,
    until: Instant,
    /// When it failed last.
    at: Instant,
}

impl Memory {
    pub(super) fn new(timeouts: &Timeouts, limits: &Limits) -> Self {
        Self {
            pause_min: timeouts.failed_min,
            pause_max: timeouts.failed_max,
            len_max: limits.failures_remembered,
            failure_by_question: HashMap::new(),
            ask_at: Instant::default(),
            better_since_by_pool: HashMap::new(),
        }
    }

    /// Takes note that a query which was asked then of this pool has failed for this reason. Where
    /// things have changed since, that says nothing.
    pub(super) fn on_failure(
        &mut self,
        question: Question<'_>,
        (pool, asked_at): (PoolIndex, Instant),
        reason: ExtendedError,
        now: Instant,
    ) {
        let better_since = self.better_since_by_pool.get(&pool);
        if better_since.is_some_and(|since| asked_at < *since) {
            return;
        }
        let key = key(question);
        let earlier = self.failure_by_question.get(&key);
        // Who asked before it was known to fail has met the same failure, not another.
        if earlier.is_some_and(|failed| asked_at < failed.at) {
            return;
        }
        let longer = |failed: &Failed| (failed.pause * 2).min(self.pause_max);
        let pause = earlier.map_or(self.pause_min, longer);
        if earlier.is_none() && self.failure_by_question.len() >= self.len_max {
            self.failure_by_question
                .retain(|_, failed| failed.until > now);
            if self.failure_by_question.len() >= self.len_max {
                return;
            }
        }
        let failed = Failed {
            pool,
            reason,
            pause,
            until: now + pause,
            at: now,
        };
        self.failure_by_question.insert(key, failed);
    }

    /// Why this query would fail now; `None` if it should be asked.
    pub(super) fn recall(&mut self, question: Question<'_>, now: Instant) -> Option<ExtendedError> {
        if self.failure_by_question.is_empty() {
            return None;
        }
        let failed = self.failure_by_question.get_mut(&key(question))?;
        if failed.until > now && self.ask_at > now {
            return Some(failed.reason);
        }
        // The others wait for what comes of this one.
        failed.until = failed.until.max(now + self.pause_min);
        self.ask_at = now + self.pause_min / 2;
        None
    }

    /// Takes note that a query was answered.
    pub(super) fn on_answer(&mut self, question: Question<'_>) {
        if !self.failure_by_question.is_empty() {
            self.failure_by_question.remove(&key(question));
        }
    }

    /// Something has changed for the better in a pool.
    pub(super) fn forget(&mut self, pool: PoolIndex, now: Instant) {
        self.better_since_by_pool.insert(pool, now);
        self.failure_by_question
            .retain(|_, failed| failed.pool != pool);
        self.failure_by_question.shrink_to_fit();
    }
}

fn key(question: Question<'_>) -> Box<[u8]> {
    question.as_bytes().to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::edns::ExtendedErrorCode;

    const REASON: ExtendedError = ExtendedError {
        code: ExtendedErrorCode::NETWORK_ERROR,
        text: "why",
    };

    struct Scene {
        memory: Memory,
    }

    impl Scene {
        fn new() -> Self {
            let timeouts = Timeouts::for_query(Timeouts::QUERY);
            Self {
                memory: Memory::new(&timeouts, &Limits::default()),
            }
        }

        /// Names in capital letters are for another pool.
        fn fail(&mut self, letter: u8, now: f64) {
            let bytes = [1, letter, 0, 0, 1, 0, 1];
            let pool = PoolIndex(usize::from(letter.is_ascii_uppercase()));
            self.memory
                .on_failure(question(&bytes), (pool, at(now - 0.5)), REASON, at(now));
            // Who asks next is not one of those that are let through.
            self.memory.ask_at = at(1_000.0);
        }

        fn recalls(&mut self, letter: u8, now: f64) -> bool {
            let bytes = [1, letter, 0, 0, 1, 0, 1];
            self.memory.recall(question(&bytes), at(now)) == Some(REASON)
        }
    }

    fn question(bytes: &[u8]) -> Question<'_> {
        Question::parse(bytes, 0).unwrap()
    }

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn failure_is_remembered_for_a_second_and_then_for_longer() {
        let mut scene = Scene::new();
        assert!(!scene.recalls(b'a', 1.0));
        scene.fail(b'a', 1.0);
        assert!(scene.recalls(b'A', 1.9) && !scene.recalls(b'b', 1.9));
        assert!(!scene.recalls(b'a', 2.0));
        for (failed, remembered) in [(10.0, 2.0), (20.0, 4.0), (30.0, 8.0), (40.0, 16.0)] {
            scene.fail(b'a', failed);
            assert!(scene.recalls(b'a', failed + remembered - 0.1), "{failed}");
            assert!(!scene.recalls(b'a', failed + remembered), "{failed}");
        }
        scene.fail(b'a', 100.0);
        scene.fail(b'a', 200.0);
        assert!(scene.recalls(b'a', 229.9) && !scene.recalls(b'a', 230.0));
    }

    #[test]
    fn queries_that_fail_together_are_one_failure() {
        let mut scene = Scene::new();
        (0..10).for_each(|_| scene.fail(b'a', 1.0));
        assert!(scene.recalls(b'a', 1.9) && !scene.recalls(b'a', 2.0));
    }

    #[test]
    fn two_queries_a_second_are_asked_all_the_same() {
        let mut scene = Scene::new();
        (0..10).for_each(|_| scene.fail(b'a', 1.0));
        scene.memory.ask_at = at(0.0);
        let asked = (0..100).filter(|nth| !scene.recalls(b'a', 1.0 + 0.1 * f64::from(*nth)));
        assert_eq!(asked.count(), 20);
    }

    #[test]
    fn one_query_asks_whether_the_failure_is_over_and_others_wait_for_it() {
        let mut scene = Scene::new();
        scene.fail(b'a', 1.0);
        assert!(!scene.recalls(b'a', 2.0));
        assert!(scene.recalls(b'a', 2.4));
    }

    #[test]
    fn answer_ends_what_is_remembered_of_its_question() {
        let mut scene = Scene::new();
        for letter in *b"aba" {
            scene.fail(letter, 1.0);
        }
        scene.memory.on_answer(question(b"\x01A\0\0\x01\0\x01"));
        assert!(!scene.recalls(b'a', 1.5) && scene.recalls(b'b', 1.5));
        scene.fail(b'a', 5.0);
        assert!(!scene.recalls(b'a', 6.5), "it is as new");
    }

    #[test]
    fn what_was_asked_before_things_changed_is_not_remembered() {
        let mut scene = Scene::new();
        scene.memory.forget(PoolIndex(0), at(10.0));
        scene.fail(b'a', 10.4);
        scene.fail(b'B', 10.4);
        scene.fail(b'c', 10.6);
        assert!(!scene.recalls(b'a', 10.7));
        scene.memory.ask_at = at(1_000.0);
        assert!(scene.recalls(b'b', 10.7) && scene.recalls(b'c', 10.7));
    }

    #[test]
    fn memory_is_bounded_and_can_be_lost() {
        let mut scene = Scene::new();
        scene.memory.len_max = 2;
        for letter in b'a'..b'f' {
            scene.fail(letter, 1.0);
        }
        assert_eq!(scene.memory.failure_by_question.len(), 2);
        scene.fail(b'x', 5.0);
        assert!(scene.recalls(b'x', 5.5));
        scene.fail(b'Y', 5.0);
        scene.memory.forget(PoolIndex(0), at(5.0));
        assert!(!scene.recalls(b'x', 5.5) && scene.recalls(b'y', 5.5));
        scene.memory.forget(PoolIndex(1), at(5.0));
        assert_eq!(scene.memory.failure_by_question.capacity(), 0);
    }
}
