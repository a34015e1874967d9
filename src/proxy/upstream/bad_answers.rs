//! Questions that one upstream failed and another one answered.
//!
//! Such a question goes to another upstream first, so that it does not take two attempts each time.
//! `upstream/health.rs` decides what the failures mean for the health of the upstream.

use std::time::Duration;

use crate::base::time::Instant;
use crate::config::{Limits, Timeouts};
use crate::proxy::exchange::preferences::UpstreamSet;
use crate::proxy::keys::UpstreamIndex;
use crate::proxy::question_table::QuestionTable;
use crate::wire::Question;

/// The upstreams that failed a question recently, by question.
#[derive(Debug)]
pub(in crate::proxy) struct BadAnswers {
    pause_min: Duration,
    pause_max: Duration,
    avoided: QuestionTable<AvoidedUpstreams>,
}

#[derive(Debug)]
struct AvoidedUpstreams {
    upstreams: UpstreamSet,
    /// Time for which the upstreams are avoided. It doubles with each failure.
    pause: Duration,
    until: Instant,
}

impl BadAnswers {
    pub(in crate::proxy) fn new(timeouts: &Timeouts, limits: &Limits) -> Self {
        Self {
            pause_min: timeouts.failed_min,
            pause_max: timeouts.failed_max,
            avoided: QuestionTable::new(limits.bad_answers_remembered),
        }
    }

    /// Records that an upstream failed a question that another one answered.
    pub(in crate::proxy) fn add(
        &mut self,
        question: Question<'_>,
        upstream: UpstreamIndex,
        now: Instant,
    ) {
        if let Some(earlier) = self.avoided.get_mut(question) {
            earlier.upstreams.insert(upstream);
            let is_old = now > earlier.until + self.pause_max;
            earlier.pause = if is_old {
                self.pause_min
            } else {
                (earlier.pause * 2).min(self.pause_max)
            };
            earlier.until = now + earlier.pause;
            return;
        }
        let avoided = AvoidedUpstreams {
            upstreams: UpstreamSet::of(upstream),
            pause: self.pause_min,
            until: now + self.pause_min,
        };
        self.avoided
            .insert(question, avoided, |one| one.until > now);
    }

    /// Returns the upstreams that a query for this question avoids. After each pause, returns none
    /// for one query, which thereby tests the upstreams, and starts a short pause, so that later
    /// queries still avoid them until the result of the test is known.
    pub(in crate::proxy) fn avoid_or_test(
        &mut self,
        question: Question<'_>,
        now: Instant,
    ) -> UpstreamSet {
        let Some(avoided) = self.avoided.get_mut(question) else {
            return UpstreamSet::default();
        };
        if avoided.until > now {
            return avoided.upstreams;
        }
        avoided.until = now + self.pause_min;
        UpstreamSet::default()
    }

    /// Returns whether no question is remembered.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.avoided.is_empty()
    }

    /// Records that an upstream answered a question.
    pub(in crate::proxy) fn on_answer(&mut self, question: Question<'_>, upstream: UpstreamIndex) {
        self.avoided
            .remove_if(question, |avoided| avoided.upstreams.contains(upstream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(seconds))
    }

    fn question(bytes: &[u8]) -> Question<'_> {
        Question::parse(bytes, 0).unwrap()
    }

    struct Scene(BadAnswers);

    impl Scene {
        fn new(len_max: usize) -> Self {
            let limits = Limits {
                bad_answers_remembered: len_max,
                ..Limits::default()
            };
            Self(BadAnswers::new(
                &Timeouts::for_query(Timeouts::QUERY),
                &limits,
            ))
        }

        fn fail(&mut self, name: u8, upstream: usize, now: f64) {
            let bytes = [1, name, 0, 0, 1, 0, 1];
            let upstream = UpstreamIndex(upstream);
            self.0.add(question(&bytes), upstream, at(now));
        }

        fn avoids(&mut self, name: u8, upstream: usize, now: f64) -> bool {
            let bytes = [1, name, 0, 0, 1, 0, 1];
            let set = self.0.avoid_or_test(question(&bytes), at(now));
            set.contains(UpstreamIndex(upstream))
        }
    }

    #[test]
    fn upstream_is_avoided_for_one_question_and_for_longer_each_time() {
        let mut scene = Scene::new(10);
        scene.fail(b'a', 0, 1.0);
        assert!(scene.avoids(b'A', 0, 1.9) && !scene.avoids(b'a', 1, 1.9));
        assert!(!scene.avoids(b'b', 0, 1.9));
        assert!(!scene.avoids(b'a', 0, 2.0), "one query tests the upstream");
        assert!(
            scene.avoids(b'a', 0, 2.1),
            "other queries wait for the result of the test"
        );
        scene.fail(b'a', 0, 2.2);
        assert!(scene.avoids(b'a', 0, 4.1) && !scene.avoids(b'a', 0, 4.3));
    }

    #[test]
    fn answer_clears_the_entry() {
        let mut scene = Scene::new(10);
        scene.fail(b'a', 0, 1.0);
        let bytes = [1, b'a', 0, 0, 1, 0, 1];
        scene.0.on_answer(question(&bytes), UpstreamIndex(1));
        assert!(scene.avoids(b'a', 0, 1.1));
        scene.0.on_answer(question(&bytes), UpstreamIndex(0));
        assert!(!scene.avoids(b'a', 0, 1.1));
        assert!(scene.0.is_empty());
    }

    #[test]
    fn table_is_bounded() {
        let mut scene = Scene::new(2);
        for name in b'a'..b'e' {
            scene.fail(name, 0, 1.0);
        }
        let avoided = (b'a'..b'e').filter(|name| scene.avoids(*name, 0, 1.1));
        assert_eq!(avoided.count(), 2);
        scene.fail(b'x', 0, 9.0);
        assert!(scene.avoids(b'x', 0, 9.1));
    }
}
