//! The failure cache: questions that recently failed without a reply. Retries from clients are not
//! forwarded meanwhile (RFC 9520).
//!
//! Clients that get SERVFAIL retry. A failure is therefore repeated for one second without a query
//! upstream; each time that the question fails again, for twice as long, up to 30 seconds. When an
//! upstream recovers, only the first second holds. While an upstream of the pool is in outage, a
//! probe with another name detects the recovery (`client::query`).
//!
//! After that time, one query retests the question: it is sent, and the others fail until it ends.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::time::Instant;
use crate::config::{Limits, Timeouts};
use crate::proxy::keys::PoolIndex;
use crate::proxy::question_table::QuestionTable;
use crate::wire::Question;
use crate::wire::edns::ExtendedError;

/// The failure cache.
#[derive(Debug)]
pub(in crate::proxy) struct FailureCache {
    pause_min: Duration,
    pause_max: Duration,
    failures: QuestionTable<Failed>,
    /// The time of the next probe of a pool that detects a recovery.
    probe_at_by_pool: HashMap<PoolIndex, Instant>,
    /// The time of the last recovery of a pool.
    recovered_at_by_pool: HashMap<PoolIndex, Instant>,
}

#[derive(Debug)]
struct Failed {
    /// The pool that was asked.
    pool: PoolIndex,
    reason: ExtendedError,
    pause: Duration,
    until: Instant,
    /// The deadline of the query that retests the question; in the past if there is none.
    retested_until: Instant,
    /// The time of the last failure.
    at: Instant,
}

impl FailureCache {
    pub(in crate::proxy) fn new(timeouts: &Timeouts, limits: &Limits) -> Self {
        Self {
            pause_min: timeouts.failed_min,
            pause_max: timeouts.failed_max,
            failures: QuestionTable::new(limits.failures_remembered),
            probe_at_by_pool: HashMap::new(),
            recovered_at_by_pool: HashMap::new(),
        }
    }

    /// Records that a query sent to this pool has failed for this reason. Ignores a query from
    /// before a recovery of the pool.
    pub(in crate::proxy) fn on_failure(
        &mut self,
        question: Question<'_>,
        (pool, asked_at): (PoolIndex, Instant),
        reason: ExtendedError,
        now: Instant,
    ) {
        let recovered_at = self.recovered_at_by_pool.get(&pool);
        if recovered_at.is_some_and(|at| asked_at < *at) {
            return;
        }
        let earlier = self.failures.get_mut(question);
        // A query from before the recorded failure met the same failure, not another one.
        if earlier.as_ref().is_some_and(|failed| asked_at < failed.at) {
            return;
        }
        let longer = |failed: &mut Failed| (failed.pause * 2).min(self.pause_max);
        let pause = earlier.map_or(self.pause_min, longer);
        let failed = Failed {
            pool,
            reason,
            pause,
            until: now + pause,
            retested_until: now,
            at: now,
        };
        self.failures
            .insert(question, failed, |failed| failed.until > now);
    }

    /// Returns the reason of a cached failure, or `None` if the query should be sent. For a while
    /// after the failure has expired, only a query that `may_retest` the question is sent.
    pub(in crate::proxy) fn recall(
        &self,
        question: Question<'_>,
        may_retest: bool,
        now: Instant,
    ) -> Option<ExtendedError> {
        let failed = self.failures.get(question)?;
        let until = if may_retest {
            failed.until
        } else {
            failed.until + self.pause_max
        };
        (until > now || failed.retested_until > now).then_some(failed.reason)
    }

    /// Begins a retest if the question of a query that is about to be sent has failed: other
    /// queries for the question fail until [`end_retest`](Self::end_retest), at the latest until
    /// the deadline of this one. Returns whether a retest has begun.
    #[inline]
    pub(in crate::proxy) fn begin_retest(
        &mut self,
        question: Question<'_>,
        deadline: Instant,
    ) -> bool {
        let failed = self.failures.get_mut(question);
        failed
            .map(|failed| failed.retested_until = deadline)
            .is_some()
    }

    /// Ends the retest of a question. Without another failure or an answer, the next query retests
    /// the question.
    pub(in crate::proxy) fn end_retest(&mut self, question: Question<'_>) {
        if let Some(failed) = self.failures.get_mut(question) {
            failed.retested_until = Instant::default();
        }
    }

    /// Reserves a probe of this pool, at a rate of up to two per second. Returns whether it may be
    /// sent now.
    pub(in crate::proxy) fn reserve_probe(&mut self, pool: PoolIndex, now: Instant) -> bool {
        let probe_at = self.probe_at_by_pool.entry(pool).or_default();
        let is_due = *probe_at <= now;
        if is_due {
            *probe_at = now + self.pause_min / 2;
        }
        is_due
    }

    /// Records that a question was answered.
    pub(in crate::proxy) fn on_answer(&mut self, question: Question<'_>, now: Instant) {
        if self.failures.is_empty() {
            return;
        }
        self.failures.remove_if(question, |_| true);
        let pause_max = self.pause_max;
        let is_live = |failed: &Failed| failed.until + pause_max > now;
        self.failures.sweep_every(SWEEP_PAUSE, now, is_live);
    }

    /// Records that an upstream of a pool has addresses: questions that failed for lack of one may
    /// be asked at once.
    pub(in crate::proxy) fn on_addresses(&mut self, pool: PoolIndex, now: Instant) {
        self.recovered_at_by_pool.insert(pool, now);
        self.failures.sweep(|failed| failed.pool != pool);
    }

    /// Records a recovery of a pool: its questions may be asked again a second after they failed.
    /// The pauses continue to grow if they fail again.
    pub(in crate::proxy) fn forget(&mut self, pool: PoolIndex, now: Instant) {
        self.recovered_at_by_pool.insert(pool, now);
        let failures = self.failures.values_mut();
        for failed in failures.filter(|failed| failed.pool == pool) {
            failed.until = failed.until.min(failed.at + self.pause_min);
            // The query of a retest may have been lost in the outage.
            failed.retested_until = Instant::default();
        }
    }
}

/// The time between removals of expired entries.
const SWEEP_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::edns::ExtendedErrorCode;

    const REASON: ExtendedError = ExtendedError {
        code: ExtendedErrorCode::NETWORK_ERROR,
        text: "why",
    };

    struct Scene {
        failures: FailureCache,
    }

    impl Scene {
        fn new() -> Self {
            let timeouts = Timeouts::for_query(Timeouts::QUERY);
            Self {
                failures: FailureCache::new(&timeouts, &Limits::default()),
            }
        }

        /// Records a failure. Names in capital letters are for another pool.
        fn fail(&mut self, letter: u8, now: f64) {
            let bytes = [1, letter, 0, 0, 1, 0, 1];
            let pool = PoolIndex(usize::from(letter.is_ascii_uppercase()));
            self.failures
                .on_failure(question(&bytes), (pool, at(now - 0.5)), REASON, at(now));
        }

        fn recalls(&mut self, letter: u8, now: f64) -> bool {
            let bytes = [1, letter, 0, 0, 1, 0, 1];
            self.failures.recall(question(&bytes), true, at(now)) == Some(REASON)
        }

        /// Sends a query, with a deadline of five seconds, if the failure of its question is not
        /// cached. Returns whether the query is sent.
        fn asks(&mut self, letter: u8, now: f64) -> bool {
            let bytes = [1, letter, 0, 0, 1, 0, 1];
            let is_sent = !self.recalls(letter, now);
            if is_sent {
                self.failures.begin_retest(question(&bytes), at(now + 5.0));
            }
            is_sent
        }
    }

    fn question(bytes: &[u8]) -> Question<'_> {
        Question::parse(bytes, 0).unwrap()
    }

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn failure_is_cached_for_a_second_and_then_for_longer() {
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
    fn failure_of_a_type_is_not_that_of_a_type_whose_number_is_its_letter_in_upper_case() {
        let mut scene = Scene::new();
        let of_type = |rr_type: u8| [1, b'a', 0, 0, rr_type, 0, 1];
        let failed = of_type(b'a');
        let by = (PoolIndex(0), at(0.5));
        scene
            .failures
            .on_failure(question(&failed), by, REASON, at(1.0));
        // HTTPS is type 65, an upper-case letter.
        let https = of_type(b'A');
        assert_eq!(scene.failures.recall(question(&https), true, at(1.5)), None);
        assert!(
            scene
                .failures
                .recall(question(&failed), true, at(1.5))
                .is_some()
        );
    }

    #[test]
    fn queries_that_fail_together_count_as_one_failure() {
        let mut scene = Scene::new();
        (0..10).for_each(|_| scene.fail(b'a', 1.0));
        assert!(scene.recalls(b'a', 1.9) && !scene.recalls(b'a', 2.0));
    }

    #[test]
    fn question_is_asked_only_after_its_pause_while_it_fails() {
        let mut scene = Scene::new();
        let mut asked = Vec::new();
        for nth in 0..1_000 {
            let now = 1.0 + f64::from(nth) / 10.0;
            if scene.asks(b'a', now) {
                asked.push(nth);
                scene.fail(b'a', now);
            }
        }
        assert_eq!(asked, [0, 10, 30, 70, 150, 310, 610, 910]);
    }

    #[test]
    fn probes_for_a_recovery_are_limited_to_two_per_second() {
        let mut scene = Scene::new();
        let probes = (0..100).filter(|nth| {
            scene
                .failures
                .reserve_probe(PoolIndex(0), at(0.1 * f64::from(*nth)))
        });
        assert_eq!(probes.count(), 20);
    }

    #[test]
    fn one_query_tests_a_failed_question_while_the_others_fail() {
        let mut scene = Scene::new();
        scene.fail(b'a', 1.0);
        assert!(scene.asks(b'a', 2.0));
        assert!(scene.recalls(b'a', 2.4) && scene.recalls(b'a', 6.8));
        assert!(scene.asks(b'a', 7.0), "the deadline of the test has passed");
        assert!(!scene.asks(b'a', 7.1));
        scene.failures.end_retest(question(b"\x01A\0\0\x01\0\x01"));
        assert!(scene.asks(b'a', 7.2), "the test ended without a result");
    }

    #[test]
    fn answer_removes_the_failure_of_its_question() {
        let mut scene = Scene::new();
        for letter in *b"aba" {
            scene.fail(letter, 1.0);
        }
        scene
            .failures
            .on_answer(question(b"\x01A\0\0\x01\0\x01"), at(1.2));
        assert!(!scene.recalls(b'a', 1.5) && scene.recalls(b'b', 1.5));
        scene.fail(b'a', 5.0);
        assert!(
            !scene.recalls(b'a', 6.5),
            "the pause starts again at one second"
        );
    }

    #[test]
    fn failure_of_a_query_from_before_a_recovery_is_not_cached() {
        let mut scene = Scene::new();
        scene.failures.forget(PoolIndex(0), at(10.0));
        scene.fail(b'a', 10.4);
        scene.fail(b'B', 10.4);
        scene.fail(b'c', 10.6);
        assert!(!scene.recalls(b'a', 10.7));
        assert!(scene.recalls(b'b', 10.7) && scene.recalls(b'c', 10.7));
    }

    #[test]
    fn failure_cache_is_bounded_and_swept() {
        let mut scene = Scene::new();
        scene.failures.failures = QuestionTable::new(2);
        for letter in b'a'..b'f' {
            scene.fail(letter, 1.0);
        }
        assert_eq!(scene.failures.failures.values_mut().count(), 2);
        scene.fail(b'x', 5.0);
        assert!(scene.recalls(b'x', 5.5));
        scene.fail(b'Y', 5.0);
        let answered = question(b"\x01z\0\0\x01\0\x01");
        // The next pause of an expired failure depends on it.
        scene.failures.on_answer(answered, at(20.0));
        assert_eq!(scene.failures.failures.values_mut().count(), 2);
        scene.failures.on_answer(answered, at(100.0));
        assert!(scene.failures.failures.is_empty());
    }

    #[test]
    fn recovery_ends_pauses_after_their_first_second_and_they_go_on_growing() {
        let mut scene = Scene::new();
        for now in [1.0, 2.0, 4.0] {
            scene.fail(b'a', now);
            scene.fail(b'Y', now);
        }
        scene.failures.forget(PoolIndex(0), at(4.2));
        assert!(scene.recalls(b'a', 4.9) && !scene.recalls(b'a', 5.0));
        assert!(scene.recalls(b'y', 7.9));
        scene.fail(b'a', 5.1);
        assert!(scene.recalls(b'a', 13.0) && !scene.recalls(b'a', 13.1));
    }
}
