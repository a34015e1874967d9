//! The health of an endpoint, judged by how its connections end.
//!
//! ```text
//!                  a connection fails                    its back-off is over
//!   well -------------------------------------> outage <---------------> under test
//!     ^                                          |   ^   a test fails        |
//!     |                  an answer               |   '-----------------------'
//!     '------------------------------------------'         the back-off grows
//! ```
//!
//! Healthy endpoints are queried first. During a back-off, no connection to the endpoint is opened.
//! If no other endpoint is left, the back-off is short. An endpoint that was only slow or wrong can
//! still be connected to: a resolver that is slow for one name may have the next one in its cache.
//! Failures with one cause, like the end of several connections at once, count once.

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use crate::base::failure::FailureKind;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::Timeouts;
use crate::wire::name::hash_lowercase;
use crate::wire::question::{Question, Type};

/// The health of an endpoint.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Health {
    outage: Option<Outage>,
    /// The opening time of the latest connection that came up.
    reached: Option<Instant>,
    /// True if the endpoint has ever answered.
    has_answered: bool,
    /// The end of the last outage and its number of failures: repeated outages cause longer
    /// back-offs.
    recovered: Option<(Instant, u32)>,
    bad_answers: BadAnswerStreak,
    /// The same for errors that no other upstream was asked about.
    errors: BadAnswerStreak,
    end_streak: EndStreak,
}

/// The ends of connections since the last answer that are attributed to one of their questions.
#[derive(Debug, Default)]
struct EndStreak {
    /// Hashes of the distinct names.
    names: Vec<u64>,
    ends: u8,
}

impl EndStreak {
    /// The number of ends since the last answer at which the outage is declared: this end is
    /// attributed to the endpoint, not to a question. So is the end that adds the last of
    /// [`BadAnswerStreak::NAMES_MAX`] distinct names.
    const ENDS_MAX: u8 = 8;
}

/// Consecutive questions that failed here and were answered by another upstream.
///
/// A single name may be broken, or a single type refused, while all others are answered. Failures
/// of types other than A and AAAA therefore count only if no answer has been useful for a while.
#[derive(Debug, Default)]
struct BadAnswerStreak {
    /// Hashes of the distinct names.
    names: Vec<u64>,
    last_useful: Option<Instant>,
}

impl BadAnswerStreak {
    /// The number of distinct names that fail in a row before an outage is recorded.
    const NAMES_MAX: usize = 3;

    /// Time without a useful answer after which failures of any type count.
    const USELESS: Duration = Duration::from_secs(1);

    /// Adds a failed question. Returns whether there are too many.
    fn add(&mut self, question: Question<'_>, now: Instant) -> bool {
        let is_address = matches!(question.rr_type(), Type::A | Type::AAAA);
        let is_recent = |at: Instant| now - at < Self::USELESS;
        if !is_address && self.last_useful.is_none_or(is_recent) {
            self.last_useful.get_or_insert(now);
            return false;
        }
        let name = hash_of(question.name());
        if !self.names.contains(&name) && self.names.len() < Self::NAMES_MAX {
            self.names.push(name);
        }
        self.are_too_many()
    }

    /// Returns whether so many questions have failed.
    fn are_too_many(&self) -> bool {
        self.names.len() >= Self::NAMES_MAX
    }

    fn on_useful_answer(&mut self, now: Instant) {
        self.last_useful = Some(now);
        self.names.clear();
    }
}

/// An outage of an endpoint.
#[derive(Debug)]
struct Outage {
    kind: FailureKind,
    /// The number of failures in a row.
    count: u32,
    /// The time of the first failure.
    since: Instant,
    /// The time of the last failure.
    at: Instant,
    pause: Duration,
    is_pause_over: bool,
    /// The time of the last failure or recovery test.
    tried_at: Instant,
    /// True if a recovery test has begun since the last failure.
    is_under_test: bool,
}

/// A change of health that is worth reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Change {
    /// No change.
    None,
    /// An outage began, or its cause changed.
    Outage,
    /// The outage ended.
    Recovery {
        /// The number of failures in a row before.
        failures: u32,
    },
}

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureClass {
    /// The endpoint is unreachable or failed authentication.
    Unreachable,
    /// The endpoint closed the connection, or sent invalid data, instead of answering.
    Unhelpful,
    /// The endpoint is connected and does not answer.
    Silent,
    /// The endpoint answers with errors where another upstream has an answer.
    Wrong,
    /// The endpoint sends queries back to this server.
    Looping,
}

impl Outage {
    /// Returns the back-off, limited to `pause_max`. The limit does not apply to a loop, since each
    /// test would loop too.
    fn pause_within(&self, pause_max: Duration) -> Duration {
        match self.kind {
            FailureKind::Loop => self.pause,
            _ => self.pause.min(pause_max),
        }
    }
}

impl FailureClass {
    fn of(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Connect
            | FailureKind::Authentication
            | FailureKind::Tls
            | FailureKind::ConnectTimeout
            | FailureKind::HandshakeTimeout
            | FailureKind::NoAddress => Self::Unreachable,
            FailureKind::Closed | FailureKind::Protocol | FailureKind::Http2 => Self::Unhelpful,
            FailureKind::Stalled => Self::Silent,
            FailureKind::BadAnswer => Self::Wrong,
            FailureKind::Loop => Self::Looping,
        }
    }

    /// Returns how often the first back-off has doubled after `count` failures in a row. `None`
    /// means no back-off: a peer may have closed while the query was in flight, or fail for one
    /// name.
    fn doublings(self, count: u32) -> Option<u32> {
        match self {
            Self::Unreachable | Self::Silent => Some(count - 1),
            // The longest back-off: a loop lasts until the operator ends it.
            Self::Looping => Some(u32::BITS),
            Self::Unhelpful | Self::Wrong if count == 1 => None,
            Self::Unhelpful | Self::Wrong => Some(count.saturating_sub(3)),
        }
    }
}

impl Health {
    /// Returns whether there is no outage.
    pub(in crate::proxy) fn is_healthy(&self) -> bool {
        self.outage.is_none()
    }

    /// Returns whether there has been no outage for some time.
    pub(in crate::proxy) fn is_steady(&self, now: Instant, timeouts: &Timeouts) -> bool {
        let is_past = |at: Instant| now >= at + timeouts.backoff_max;
        self.is_healthy() && self.recovered.is_none_or(|(at, _)| is_past(at))
    }

    /// Returns the cause of the outage.
    pub(in crate::proxy) fn last_failure(&self) -> Option<FailureKind> {
        Some(self.outage.as_ref()?.kind)
    }

    /// Returns whether there is an outage in which no connection came up, or none with an answer.
    pub(in crate::proxy) fn is_unreachable(&self) -> bool {
        let kind = self.last_failure();
        kind.is_some_and(|kind| FailureClass::of(kind) == FailureClass::Unreachable)
    }

    /// Returns whether queries should keep waiting after a failed connection: the upstream has
    /// answered before, so it may be restarting. A failed authentication is no sign of a restart.
    pub(in crate::proxy) fn is_hopeful(&self, now: Instant, timeouts: &Timeouts) -> bool {
        let is_young = |outage: &Outage| {
            outage.kind != FailureKind::Authentication && now < outage.since + timeouts.query
        };
        self.has_answered && self.outage.as_ref().is_none_or(is_young)
    }

    /// Returns the time before which no connection may be opened, with a back-off of at most
    /// `pause_max`.
    pub(in crate::proxy) fn closed_until(&self, pause_max: Duration) -> Option<Instant> {
        let outage = self.outage.as_ref()?;
        let is_closed = match FailureClass::of(outage.kind) {
            FailureClass::Unreachable | FailureClass::Unhelpful | FailureClass::Looping => {
                !outage.is_pause_over
            }
            FailureClass::Silent | FailureClass::Wrong => false,
        };
        is_closed.then(|| outage.at + outage.pause_within(pause_max))
    }

    /// Ends the back-off if it is over, with a back-off of at most `pause_max`.
    pub(in crate::proxy) fn end_pause(&mut self, now: Instant, pause_max: Duration) {
        if let Some(outage) = &mut self.outage {
            outage.is_pause_over |= outage.at + outage.pause_within(pause_max) <= now;
        }
    }

    /// Returns whether it is time for a recovery test, with a back-off of at most `pause_max`.
    pub(in crate::proxy) fn is_test_due(&self, now: Instant, pause_max: Duration) -> bool {
        let is_due = |outage: &Outage| outage.tried_at + outage.pause_within(pause_max) <= now;
        self.outage.as_ref().is_some_and(is_due)
    }

    /// Returns the time of the last failure of the outage.
    pub(in crate::proxy) fn failed_at(&self) -> Option<Instant> {
        Some(self.outage.as_ref()?.at)
    }

    /// Records that a recovery test has begun: the next one is due after another back-off.
    pub(in crate::proxy) fn on_test_started(&mut self, now: Instant) {
        if let Some(outage) = &mut self.outage {
            outage.tried_at = now;
            outage.is_under_test = true;
        }
    }

    /// Returns whether a recovery test began at most `moment` ago.
    pub(in crate::proxy) fn is_under_test(&self, now: Instant, moment: Duration) -> bool {
        let is_fresh = |outage: &Outage| outage.tried_at + moment >= now;
        let outage = self.outage.as_ref();
        outage.is_some_and(|outage| outage.is_under_test && is_fresh(outage))
    }

    /// Records an error of this endpoint.
    pub(in crate::proxy) fn on_error(&mut self, question: Question<'_>, now: Instant) {
        self.errors.add(question, now);
    }

    /// Returns whether there is no outage, and several distinct questions in a row have not failed.
    pub(in crate::proxy) fn is_useful(&self) -> bool {
        self.is_healthy() && !self.errors.are_too_many()
    }

    /// Records a question that failed here and was answered by another upstream. Returns whether
    /// the endpoint has an outage: either several distinct questions have failed in a row, or there
    /// was an outage before.
    pub(in crate::proxy) fn on_bad_answer(&mut self, question: Question<'_>, now: Instant) -> bool {
        let are_too_many = self.bad_answers.add(question, now);
        are_too_many || !self.is_healthy()
    }

    /// Records that the endpoint ended a connection that had unanswered questions with these names,
    /// the oldest first. Returns whether one of the names is blamed and not the endpoint: always if
    /// the endpoint `works_otherwise`. If not, a name is blamed only if the endpoint has answered
    /// before, has no outage, and has ended few connections since its last answer.
    pub(in crate::proxy) fn on_link_ended<'a>(
        &mut self,
        names: impl Iterator<Item = &'a [u8]>,
        works_otherwise: bool,
    ) -> bool {
        let names: Vec<u64> = names.map(hash_of).collect();
        let Some(oldest) = names.first() else {
            return false;
        };
        if works_otherwise {
            return true;
        }
        if !self.has_answered || !self.is_healthy() {
            return false;
        }
        let streak = &mut self.end_streak;
        if !names.iter().any(|name| streak.names.contains(name)) {
            streak.names.push(*oldest);
        }
        streak.ends += 1;
        let is_outage =
            streak.names.len() >= BadAnswerStreak::NAMES_MAX || streak.ends >= EndStreak::ENDS_MAX;
        if is_outage {
            *streak = EndStreak::default();
        }
        !is_outage
    }

    /// Records a failure. `since` is the start of the failure: the time at which the connection was
    /// opened or, if nothing arrived, at which the query was sent. A failure that belongs to one
    /// already counted is ignored, and so is a failed connection attempt if a connection that was
    /// opened later has come up.
    pub(in crate::proxy) fn on_failure(
        &mut self,
        kind: FailureKind,
        since: Instant,
        now: Instant,
        timeouts: &Timeouts,
        random: &mut Random,
    ) -> Change {
        let earlier = self.outage.as_ref();
        let is_counted = earlier.is_some_and(|outage| since < outage.at);
        let is_disproved = FailureClass::of(kind) == FailureClass::Unreachable
            && self.reached.is_some_and(|later| since < later);
        if is_counted || is_disproved {
            return Change::None;
        }
        // A loop ends with an answer; until then silence is part of the loop.
        let kind = match earlier {
            Some(outage) if outage.kind == FailureKind::Loop => FailureKind::Loop,
            _ => kind,
        };
        let remembered = self
            .recovered
            .filter(|(at, _)| now - *at < timeouts.backoff_max);
        let before = match (earlier, remembered) {
            (Some(outage), _) => outage.count,
            (None, Some((_, count))) => count,
            (None, None) => 0,
        };
        let count = before.saturating_add(1);
        let doublings = FailureClass::of(kind).doublings(count);
        let pause = doublings.map_or(Duration::ZERO, |doublings| {
            backoff(doublings, timeouts, random)
        });
        let is_news = earlier.is_none_or(|outage| outage.kind != kind || outage.pause.is_zero());
        let change = if is_news && !pause.is_zero() {
            Change::Outage
        } else {
            Change::None
        };
        self.outage = Some(Outage {
            kind,
            count,
            since: earlier.map_or(now, |outage| outage.since),
            at: now,
            pause,
            is_pause_over: false,
            tried_at: now,
            is_under_test: false,
        });
        change
    }

    /// Records that a connection came up that was opened at `opened_at`. If that was after the last
    /// failure, the back-off is over. The outage itself ends with an answer, since the peer may
    /// refuse this client after the handshake (RFC 8446, section 4.4.2.4).
    pub(in crate::proxy) fn on_up(&mut self, opened_at: Instant) {
        self.reached = self.reached.max(Some(opened_at));
        if let Some(outage) = &mut self.outage
            && FailureClass::of(outage.kind) == FailureClass::Unreachable
        {
            outage.is_pause_over |= opened_at >= outage.at;
        }
    }

    /// Records an answer on a connection that was opened at `opened_at`, and whether the answer was
    /// useful. An old connection does not disprove a failure of newer ones.
    pub(in crate::proxy) fn on_answer(
        &mut self,
        opened_at: Instant,
        is_useful: bool,
        now: Instant,
    ) -> Change {
        self.has_answered = true;
        if self.end_streak.ends > 0 {
            self.end_streak = EndStreak::default();
        }
        if is_useful {
            self.bad_answers.on_useful_answer(now);
            self.errors.on_useful_answer(now);
        }
        self.end_if(now, |outage| match FailureClass::of(outage.kind) {
            FailureClass::Silent => true,
            FailureClass::Wrong => is_useful,
            FailureClass::Unreachable | FailureClass::Unhelpful => opened_at >= outage.at,
            // In a loop, errors come back as answers.
            FailureClass::Looping => is_useful && opened_at >= outage.at,
        })
    }

    fn end_if(&mut self, now: Instant, ends: impl FnOnce(&Outage) -> bool) -> Change {
        let Some(outage) = self.outage.take_if(|outage| ends(outage)) else {
            return Change::None;
        };
        if outage.pause.is_zero() {
            return Change::None;
        }
        self.recovered = Some((now, outage.count));
        Change::Recovery {
            failures: outage.count,
        }
    }
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_lowercase(name, &mut hasher);
    hasher.finish()
}

/// Returns the back-off after `doublings`: a random time between three quarters and the whole of
/// it, so that proxies do not retry in step.
pub(in crate::proxy) fn backoff(
    doublings: u32,
    timeouts: &Timeouts,
    random: &mut Random,
) -> Duration {
    let whole = timeouts
        .backoff_min
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    let whole = whole.min(timeouts.backoff_max);
    let quarter = whole / 4;
    whole.saturating_sub(quarter) + quarter * u32::from(random.next_u16()) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        health: Health,
        timeouts: Timeouts,
        random: Random,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                health: Health::default(),
                timeouts: Timeouts::for_query(Timeouts::QUERY),
                random: Random::new(&[1; 32]),
            }
        }

        /// Records a failure since `since`. Returns the back-off in seconds.
        fn fail(&mut self, kind: FailureKind, since: f64, now: f64) -> f64 {
            self.health
                .on_failure(kind, at(since), at(now), &self.timeouts, &mut self.random);
            let outage = self
                .health
                .outage
                .as_ref()
                .expect("a failure causes an outage");
            outage.pause.as_secs_f64()
        }

        fn is_closed(&self, now: f64) -> bool {
            let until = self.health.closed_until(self.timeouts.backoff_max);
            until.is_some_and(|until| until > at(now))
        }

        fn count(&self) -> u32 {
            self.health.outage.as_ref().map_or(0, |outage| outage.count)
        }
    }

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let timeouts = Timeouts::for_query(Timeouts::QUERY);
        let mut random = Random::new(&[1; 32]);
        for (doublings, seconds) in [(0, 0.5), (1, 1.0), (2, 2.0), (6, 30.0), (40, 30.0)] {
            for _ in 0..100 {
                let pause = backoff(doublings, &timeouts, &mut random).as_secs_f64();
                assert!(
                    pause <= seconds && pause >= 0.75 * seconds,
                    "{doublings}: {pause}"
                );
            }
        }
    }

    #[test]
    fn connections_that_end_together_count_once() {
        let mut scene = Scene::new();
        scene.fail(FailureKind::Connect, 0.0, 1.0);
        scene.fail(FailureKind::Connect, 0.5, 1.0);
        assert_eq!(scene.count(), 1);
        scene.fail(FailureKind::Connect, 1.5, 1.6);
        assert_eq!(scene.count(), 2);
    }

    #[test]
    fn first_close_causes_no_backoff() {
        let mut scene = Scene::new();
        for (now, whole) in [(1.0, 0.0), (2.0, 0.5), (3.0, 0.5), (4.0, 1.0), (5.0, 2.0)] {
            let pause = scene.fail(FailureKind::Closed, now, now);
            assert!((0.75 * whole..=whole).contains(&pause), "{now}: {pause}");
            assert_eq!(scene.is_closed(now), whole > 0.0);
        }
    }

    #[test]
    fn backoff_is_short_without_another_endpoint() {
        let mut scene = Scene::new();
        for now in [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] {
            scene.fail(FailureKind::Connect, now, now);
        }
        assert!(scene.is_closed(15.0));
        let short = scene.health.closed_until(Duration::from_secs(1));
        assert_eq!(short, Some(at(7.0)));
    }

    #[test]
    fn silence_does_not_prevent_connections() {
        let mut scene = Scene::new();
        for now in [1.0, 2.0, 3.0, 4.0, 5.0] {
            scene.fail(FailureKind::Stalled, now, now);
        }
        assert!(!scene.is_closed(5.0));
        assert!(!scene.health.is_healthy());
        let is_due = |scene: &Scene, now, pause_max_s| {
            let pause_max = Duration::from_secs(pause_max_s);
            scene.health.is_test_due(at(now), pause_max)
        };
        assert!(!is_due(&scene, 10.9, 30) && is_due(&scene, 13.0, 30));
        assert!(!is_due(&scene, 5.9, 1) && is_due(&scene, 6.0, 1));
        scene.health.on_test_started(at(13.0));
        assert!(!is_due(&scene, 14.0, 30) && is_due(&scene, 14.0, 1));
        let change = scene.health.on_answer(at(0.0), true, at(14.0));
        assert_eq!(change, Change::Recovery { failures: 5 });
        assert!(scene.health.is_healthy());
    }

    #[test]
    fn only_later_connections_disprove_a_failure() {
        let mut scene = Scene::new();
        scene.fail(FailureKind::Connect, 1.0, 1.0);
        scene.health.on_answer(at(0.5), true, at(1.5));
        assert!(!scene.health.is_healthy());
        scene.health.on_answer(at(2.0), true, at(2.5));
        assert!(scene.health.is_healthy());
    }

    #[test]
    fn connection_ends_the_backoff_and_its_answer_the_outage() {
        let mut scene = Scene::new();
        scene.fail(FailureKind::Connect, 1.0, 1.0);
        scene.health.on_up(at(1.1));
        assert!(!scene.is_closed(1.2) && !scene.health.is_healthy());
        // A TLS server refuses a client after the handshake.
        scene.fail(FailureKind::Tls, 1.1, 1.2);
        assert!(scene.is_closed(1.3) && scene.count() == 2);
        scene.health.on_up(at(3.0));
        let change = scene.health.on_answer(at(3.0), true, at(3.2));
        assert_eq!(change, Change::Recovery { failures: 2 });
    }

    #[test]
    fn late_failure_is_ignored_after_a_newer_connection_came_up() {
        let mut scene = Scene::new();
        scene.health.on_up(at(2.0));
        let (timeouts, random) = (&scene.timeouts, &mut scene.random);
        let mut fail = |health: &mut Health, kind, since, now| {
            health.on_failure(kind, at(since), at(now), timeouts, random);
            !health.is_healthy()
        };
        let health = &mut scene.health;
        assert!(!fail(health, FailureKind::HandshakeTimeout, 1.0, 4.0));
        assert!(fail(health, FailureKind::HandshakeTimeout, 2.1, 5.0));
        // A connection that comes up does not prove that queries are answered.
        health.on_up(at(6.0));
        assert!(fail(health, FailureKind::Stalled, 5.5, 7.5));
    }

    #[test]
    fn outage_that_recurs_soon_continues_its_backoff() {
        let mut scene = Scene::new();
        for now in [1.0, 2.0, 3.0] {
            scene.fail(FailureKind::Stalled, now, now);
        }
        scene.health.on_answer(at(4.0), true, at(4.0));
        let pause = scene.fail(FailureKind::Stalled, 10.0, 10.0);
        assert!(pause >= 3.0, "{pause}");
        scene.health.on_answer(at(15.0), true, at(15.0));
        let pause = scene.fail(FailureKind::Stalled, 100.0, 100.0);
        assert!(pause <= 0.5, "{pause}");
    }

    /// Returns whether the last of these names and types, which fail at these seconds, causes an
    /// outage.
    fn is_outage(failures: &[(u8, u16, f64)], useful: Option<f64>) -> bool {
        let mut health = Health::default();
        if let Some(time) = useful {
            health.on_answer(at(0.0), true, at(time));
        }
        let mut is_outage = false;
        for (name, rr_type, time) in failures {
            let mut bytes = vec![1, *name, 0];
            bytes.extend(rr_type.to_be_bytes());
            bytes.extend([0, 1]);
            let question = Question::parse(&bytes, 0).unwrap();
            is_outage = health.on_bad_answer(question, at(*time));
        }
        is_outage
    }

    #[test]
    fn several_names_in_a_row_are_an_outage_and_one_name_or_type_is_not() {
        let (a, aaaa, https) = (1, 28, 65);
        assert!(is_outage(
            &[(b'a', a, 1.0), (b'b', aaaa, 1.1), (b'c', a, 1.2)],
            None
        ));
        let one_name = [
            (b'a', a, 1.0),
            (b'A', aaaa, 1.1),
            (b'a', https, 1.2),
            (b'a', a, 3.0),
        ];
        assert!(!is_outage(&one_name, Some(0.5)));
        let one_type: Vec<_> = (b'a'..=b'z').map(|name| (name, https, 1.4)).collect();
        assert!(!is_outage(&one_type, Some(0.5)));
        // A mail server asks for types other than addresses, and gets no answer at all.
        let mail: Vec<_> = (b'a'..=b'z')
            .map(|name| (name, 15, f64::from(name - b'a')))
            .collect();
        assert!(is_outage(&mail, None));
    }

    #[test]
    fn useful_answer_resets_the_failed_names() {
        let mut health = Health::default();
        let question = |name: u8| [1, name, 0, 0, 1, 0, 1];
        for name in b'a'..=b'z' {
            let bytes = question(name);
            let question = Question::parse(&bytes, 0).unwrap();
            assert!(!health.on_bad_answer(question, at(f64::from(name))));
            health.on_answer(at(0.0), true, at(f64::from(name)));
        }
    }

    #[test]
    fn loop_ends_with_an_answer_and_is_tested_rarely() {
        let mut scene = Scene::new();
        let pause = scene.fail(FailureKind::Loop, 1.0, 1.0);
        assert!(pause > 20.0, "{pause}");
        let soon = Duration::from_secs(1);
        assert!(scene.health.closed_until(soon) > Some(at(20.0)));
        scene.health.on_up(at(40.0));
        assert!(!scene.health.is_healthy());
        scene.fail(FailureKind::Stalled, 40.2, 42.2);
        assert_eq!(scene.health.last_failure(), Some(FailureKind::Loop));
        scene.health.on_answer(at(90.0), true, at(90.1));
        assert!(scene.health.is_healthy());
    }

    #[test]
    fn outage_is_reported_once_for_each_cause() {
        let mut scene = Scene::new();
        let mut is_reported = |kind, now| {
            let (timeouts, random) = (&scene.timeouts, &mut scene.random);
            let change = scene
                .health
                .on_failure(kind, at(now), at(now), timeouts, random);
            change == Change::Outage
        };
        assert!(is_reported(FailureKind::Connect, 1.0));
        assert!(!is_reported(FailureKind::Connect, 2.0));
        assert!(is_reported(FailureKind::Authentication, 3.0));
        assert!(!is_reported(FailureKind::Authentication, 4.0));
    }

    #[test]
    fn endpoint_that_never_answered_is_not_hopeful() {
        let mut scene = Scene::new();
        scene.fail(FailureKind::Connect, 1.0, 1.0);
        assert!(!scene.health.is_hopeful(at(1.0), &scene.timeouts));
        scene.health.on_answer(at(2.0), true, at(2.5));
        scene.fail(FailureKind::Connect, 3.0, 3.0);
        scene.fail(FailureKind::Connect, 5.0, 5.0);
        assert!(scene.health.is_hopeful(at(7.9), &scene.timeouts));
        assert!(!scene.health.is_hopeful(at(8.0), &scene.timeouts));
    }

    #[test]
    fn endpoint_that_fails_authentication_is_not_hopeful() {
        let mut scene = Scene::new();
        scene.health.on_answer(at(2.0), true, at(2.5));
        scene.fail(FailureKind::Authentication, 3.0, 3.0);
        assert!(!scene.health.is_hopeful(at(3.0), &scene.timeouts));
    }
}
