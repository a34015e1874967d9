//! What is known of an upstream from how its connections end.
//!
//! ```text
//!                  a connection fails                    its pause is over
//!   well ------------------------------------> in trouble <-------------> on trial
//!     ^                                          |    ^  a trial fails       |
//!     |   it answers, or, if it could not be     |    '----------------------'
//!     '---- reached, it is connected again ------'           the pause grows
//! ```
//!
//! Whoever is well is asked first. While one in trouble pauses, no connection is opened to it.
//! Where nobody else is left the pause is short, and for one that was only slow or wrong there is
//! none: a resolver that looks long for one name may have the next at hand. Failures that come from
//! one event, like the end of several connections at once, count once.

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use crate::base::failure::FailureKind;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::Timeouts;
use crate::wire::name::hash_lowercase;
use crate::wire::question::{Question, Type};

/// How an upstream is doing.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Health {
    trouble: Option<Outage>,
    /// When the latest connection was opened that came up.
    reached: Option<Instant>,
    /// It has ever answered.
    has_answered: bool,
    /// When the last trouble ended, and after how many failures: one that comes and goes is
    /// believed less and less.
    recovered: Option<(Instant, u32)>,
    bad_answers: BadAnswerRow,
}

/// Questions that failed in a row, each of which another upstream answered.
///
/// One name may be broken, and one type refused, where all others are answered. Failures of other
/// types than A and AAAA therefore count only if no answer has been of use for a while.
#[derive(Debug, Default)]
struct BadAnswerRow {
    /// Hashes of the different names.
    names: Vec<u64>,
    last_useful: Option<Instant>,
}

impl BadAnswerRow {
    /// Different names that fail in a row before the upstream is in trouble.
    const NAMES_MAX: usize = 3;

    /// How long no answer has been of use before failures of any type count.
    const USELESS: Duration = Duration::from_secs(1);

    /// Adds a failed question. Returns whether there are too many.
    fn add(&mut self, question: Question<'_>, now: Instant) -> bool {
        let is_address = matches!(question.rr_type(), Type::A | Type::AAAA);
        let is_recent = |at: Instant| now - at < Self::USELESS;
        if !is_address && self.last_useful.is_none_or(is_recent) {
            self.last_useful.get_or_insert(now);
            return false;
        }
        let mut hasher = DefaultHasher::new();
        hash_lowercase(question.name(), &mut hasher);
        let name = hasher.finish();
        if !self.names.contains(&name) && self.names.len() < Self::NAMES_MAX {
            self.names.push(name);
        }
        self.names.len() >= Self::NAMES_MAX
    }

    fn on_useful_answer(&mut self, now: Instant) {
        self.last_useful = Some(now);
        self.names.clear();
    }
}

/// What is wrong with an upstream.
#[derive(Debug)]
struct Outage {
    kind: FailureKind,
    /// Failures in a row.
    count: u32,
    /// When the first of them was counted.
    since: Instant,
    /// When the last of them was counted.
    at: Instant,
    pause: Duration,
    is_pause_over: bool,
    /// When it was last seen to be in trouble, or tried.
    tried_at: Instant,
    /// It has been tried since it was last seen to be in trouble.
    is_on_trial: bool,
}

/// What is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Change {
    /// Nothing new.
    None,
    /// Something is wrong, or something else than before.
    Outage,
    /// All is well again.
    Recovery {
        /// Failures in a row before.
        failures: u32,
    },
}

/// What a failure says of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureClass {
    /// It cannot be reached, or is not who it should be.
    Unreachable,
    /// It was connected, and closed or sent nonsense instead of an answer.
    Unhelpful,
    /// It is connected and says nothing.
    Silent,
    /// It answers, but with errors where others have an answer.
    Wrong,
    /// It sends queries back to this server.
    Looping,
}

impl Outage {
    /// The pause, where at most so long a pause is kept. A loop is not tested more often because
    /// queries wait: each test would go round.
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
            | FailureKind::HandshakeTimeout
            | FailureKind::NoAddress => Self::Unreachable,
            FailureKind::Closed | FailureKind::Protocol => Self::Unhelpful,
            FailureKind::Stalled => Self::Silent,
            FailureKind::BadAnswer => Self::Wrong,
            FailureKind::Loop => Self::Looping,
        }
    }

    /// How often the first pause has doubled after so many failures in a row. `None` is no pause: a
    /// peer may have closed just as the query was on its way, or have trouble with one name.
    fn doublings(self, count: u32) -> Option<u32> {
        match self {
            Self::Unreachable | Self::Silent => Some(count - 1),
            // The longest pause: a loop lasts until the operator ends it.
            Self::Looping => Some(u32::BITS),
            Self::Unhelpful | Self::Wrong if count == 1 => None,
            Self::Unhelpful | Self::Wrong => Some(count.saturating_sub(3)),
        }
    }
}

impl Health {
    /// Whether nothing is known to be wrong.
    pub(in crate::proxy) fn is_well(&self) -> bool {
        self.trouble.is_none()
    }

    /// Whether nothing has been wrong for some time.
    pub(in crate::proxy) fn is_steady(&self, now: Instant, timeouts: &Timeouts) -> bool {
        let is_past = |at: Instant| now >= at + timeouts.backoff_max;
        self.is_well() && self.recovered.is_none_or(|(at, _)| is_past(at))
    }

    /// What went wrong last, if something is wrong.
    pub(in crate::proxy) fn last_failure(&self) -> Option<FailureKind> {
        Some(self.trouble.as_ref()?.kind)
    }

    /// Whether a failed connection is no reason yet to give up the queries that wait: the upstream
    /// has answered before, so this may be a restart.
    pub(in crate::proxy) fn is_hopeful(&self, now: Instant, timeouts: &Timeouts) -> bool {
        let is_young = |trouble: &Outage| now < trouble.since + timeouts.query;
        self.has_answered && self.trouble.as_ref().is_none_or(is_young)
    }

    /// While it is earlier than this, no connection may be opened, if at most so long a pause is
    /// kept.
    pub(in crate::proxy) fn closed_until(&self, pause_max: Duration) -> Option<Instant> {
        let trouble = self.trouble.as_ref()?;
        let is_closed = match FailureClass::of(trouble.kind) {
            FailureClass::Unreachable | FailureClass::Unhelpful | FailureClass::Looping => {
                !trouble.is_pause_over
            }
            FailureClass::Silent | FailureClass::Wrong => false,
        };
        is_closed.then(|| trouble.at + trouble.pause_within(pause_max))
    }

    /// Ends the pause if it is over, where at most so long a pause is kept.
    pub(in crate::proxy) fn end_pause(&mut self, now: Instant, pause_max: Duration) {
        if let Some(trouble) = &mut self.trouble {
            trouble.is_pause_over |= trouble.at + trouble.pause_within(pause_max) <= now;
        }
    }

    /// Whether it is time to see if the trouble is over.
    /// At most so long a pause is kept.
    pub(in crate::proxy) fn is_trial_due(&self, now: Instant, pause_max: Duration) -> bool {
        let is_due = |trouble: &Outage| trouble.tried_at + trouble.pause_within(pause_max) <= now;
        self.trouble.as_ref().is_some_and(is_due)
    }

    /// When something was last seen to be wrong, if it is.
    pub(in crate::proxy) fn failed_at(&self) -> Option<Instant> {
        Some(self.trouble.as_ref()?.at)
    }

    /// Takes note that a trial has begun: the next is due after another pause.
    pub(in crate::proxy) fn on_trial(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.tried_at = now;
            trouble.is_on_trial = true;
        }
    }

    /// Whether it has been on trial for no longer than a moment.
    pub(in crate::proxy) fn is_on_trial(&self, now: Instant, moment: Duration) -> bool {
        let is_fresh = |trouble: &Outage| trouble.tried_at + moment >= now;
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.is_on_trial && is_fresh(trouble))
    }

    /// Records a question that failed here where another upstream had an answer. Returns whether
    /// that means trouble: it does if several different questions have failed in a row, or if the
    /// upstream is in trouble anyway.
    pub(in crate::proxy) fn on_bad_answer(&mut self, question: Question<'_>, now: Instant) -> bool {
        let are_too_many = self.bad_answers.add(question, now);
        are_too_many || !self.is_well()
    }

    /// Takes note of a failure. `since` is the time from which on it went wrong: when the
    /// connection was opened or, if nothing came, when the query was sent. One that is part of what
    /// was counted before is not counted, nor a connection that has not come up where one that was
    /// opened later has.
    pub(in crate::proxy) fn on_failure(
        &mut self,
        kind: FailureKind,
        since: Instant,
        now: Instant,
        timeouts: &Timeouts,
        random: &mut Random,
    ) -> Change {
        let earlier = self.trouble.as_ref();
        let is_counted = earlier.is_some_and(|trouble| since < trouble.at);
        let is_disproved = FailureClass::of(kind) == FailureClass::Unreachable
            && self.reached.is_some_and(|later| since < later);
        if is_counted || is_disproved {
            return Change::None;
        }
        // A loop is over when an answer comes, and until then silence is part of it.
        let kind = match earlier {
            Some(trouble) if trouble.kind == FailureKind::Loop => FailureKind::Loop,
            _ => kind,
        };
        let remembered = self
            .recovered
            .filter(|(at, _)| now - *at < timeouts.backoff_max);
        let before = match (earlier, remembered) {
            (Some(trouble), _) => trouble.count,
            (None, Some((_, count))) => count,
            (None, None) => 0,
        };
        let count = before.saturating_add(1);
        let doublings = FailureClass::of(kind).doublings(count);
        let pause = doublings.map_or(Duration::ZERO, |doublings| {
            backoff(doublings, timeouts, random)
        });
        let is_news = earlier.is_none_or(|trouble| trouble.kind != kind || trouble.pause.is_zero());
        let change = if is_news && !pause.is_zero() {
            Change::Outage
        } else {
            Change::None
        };
        self.trouble = Some(Outage {
            kind,
            count,
            since: earlier.map_or(now, |trouble| trouble.since),
            at: now,
            pause,
            is_pause_over: false,
            tried_at: now,
            is_on_trial: false,
        });
        change
    }

    /// Takes note that a connection came up which was opened then.
    pub(in crate::proxy) fn on_up(&mut self, opened_at: Instant, now: Instant) -> Change {
        self.reached = self.reached.max(Some(opened_at));
        self.end_if(now, |trouble| {
            FailureClass::of(trouble.kind) == FailureClass::Unreachable
        })
    }

    /// Takes note of an answer on a connection that was opened then, and whether it was of use. Of
    /// what connections opened since have met, earlier ones know nothing.
    pub(in crate::proxy) fn on_answer(
        &mut self,
        opened_at: Instant,
        is_useful: bool,
        now: Instant,
    ) -> Change {
        self.has_answered = true;
        if is_useful {
            self.bad_answers.on_useful_answer(now);
        }
        self.end_if(now, |trouble| match FailureClass::of(trouble.kind) {
            FailureClass::Silent => true,
            FailureClass::Wrong => is_useful,
            FailureClass::Unreachable | FailureClass::Unhelpful => opened_at >= trouble.at,
            // In a loop, errors come back as answers.
            FailureClass::Looping => is_useful && opened_at >= trouble.at,
        })
    }

    fn end_if(&mut self, now: Instant, ends: impl FnOnce(&Outage) -> bool) -> Change {
        let Some(trouble) = self.trouble.take_if(|trouble| ends(trouble)) else {
            return Change::None;
        };
        if trouble.pause.is_zero() {
            return Change::None;
        }
        self.recovered = Some((now, trouble.count));
        Change::Recovery {
            failures: trouble.count,
        }
    }
}

/// The pause after so many doublings: between three and four quarters of it, by chance, so that not
/// all proxies of a place come back at the same time.
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

        /// The pause in seconds, for a failure since then.
        fn fail(&mut self, kind: FailureKind, since: f64, now: f64) -> f64 {
            self.health
                .on_failure(kind, at(since), at(now), &self.timeouts, &mut self.random);
            let trouble = self.health.trouble.as_ref().expect("it failed");
            trouble.pause.as_secs_f64()
        }

        fn is_closed(&self, now: f64) -> bool {
            let until = self.health.closed_until(self.timeouts.backoff_max);
            until.is_some_and(|until| until > at(now))
        }

        fn count(&self) -> u32 {
            self.health
                .trouble
                .as_ref()
                .map_or(0, |trouble| trouble.count)
        }
    }

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn pause_doubles_up_to_its_limit() {
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
    fn first_close_costs_no_pause() {
        let mut scene = Scene::new();
        for (now, whole) in [(1.0, 0.0), (2.0, 0.5), (3.0, 0.5), (4.0, 1.0), (5.0, 2.0)] {
            let pause = scene.fail(FailureKind::Closed, now, now);
            assert!((0.75 * whole..=whole).contains(&pause), "{now}: {pause}");
            assert_eq!(scene.is_closed(now), whole > 0.0);
        }
    }

    #[test]
    fn pause_is_short_where_nobody_else_is_left() {
        let mut scene = Scene::new();
        for now in [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] {
            scene.fail(FailureKind::Connect, now, now);
        }
        assert!(scene.is_closed(15.0));
        let short = scene.health.closed_until(Duration::from_secs(1));
        assert_eq!(short, Some(at(7.0)));
    }

    #[test]
    fn silence_keeps_nobody_from_connecting() {
        let mut scene = Scene::new();
        for now in [1.0, 2.0, 3.0, 4.0, 5.0] {
            scene.fail(FailureKind::Stalled, now, now);
        }
        assert!(!scene.is_closed(5.0));
        assert!(!scene.health.is_well());
        let is_due = |scene: &Scene, now, pause_max_s| {
            let pause_max = Duration::from_secs(pause_max_s);
            scene.health.is_trial_due(at(now), pause_max)
        };
        assert!(!is_due(&scene, 10.9, 30) && is_due(&scene, 13.0, 30));
        assert!(!is_due(&scene, 5.9, 1) && is_due(&scene, 6.0, 1));
        scene.health.on_trial(at(13.0));
        assert!(!is_due(&scene, 14.0, 30) && is_due(&scene, 14.0, 1));
        let change = scene.health.on_answer(at(0.0), true, at(14.0));
        assert_eq!(change, Change::Recovery { failures: 5 });
        assert!(scene.health.is_well());
    }

    #[test]
    fn only_later_connections_disprove_a_failure() {
        let mut scene = Scene::new();
        scene.fail(FailureKind::Connect, 1.0, 1.0);
        scene.health.on_answer(at(0.5), true, at(1.5));
        assert!(!scene.health.is_well());
        scene.health.on_answer(at(2.0), true, at(2.5));
        assert!(scene.health.is_well());

        scene.fail(FailureKind::Connect, 3.0, 3.0);
        scene.health.on_up(at(8.0), at(9.0));
        assert!(scene.health.is_well());
        scene.fail(FailureKind::Protocol, 9.5, 9.5);
        scene.health.on_up(at(9.6), at(9.7));
        assert!(!scene.health.is_well());
    }

    #[test]
    fn connection_that_fails_late_says_nothing_where_a_later_one_came_up() {
        let mut scene = Scene::new();
        scene.health.on_up(at(2.0), at(2.1));
        let (timeouts, random) = (&scene.timeouts, &mut scene.random);
        let mut fail = |health: &mut Health, kind, since, now| {
            health.on_failure(kind, at(since), at(now), timeouts, random);
            !health.is_well()
        };
        let health = &mut scene.health;
        assert!(!fail(health, FailureKind::HandshakeTimeout, 1.0, 4.0));
        assert!(fail(health, FailureKind::HandshakeTimeout, 2.1, 5.0));
        // That a connection comes up does not mean that it is answered.
        health.on_up(at(6.0), at(6.1));
        assert!(fail(health, FailureKind::Stalled, 5.5, 7.5));
    }

    #[test]
    fn trouble_that_comes_back_soon_is_no_news() {
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

    /// Whether the last of these names and types, which fail at these seconds, means trouble.
    fn is_trouble(failures: &[(u8, u16, f64)], useful: Option<f64>) -> bool {
        let mut health = Health::default();
        if let Some(time) = useful {
            health.on_answer(at(0.0), true, at(time));
        }
        let mut is_trouble = false;
        for (name, rr_type, time) in failures {
            let mut bytes = vec![1, *name, 0];
            bytes.extend(rr_type.to_be_bytes());
            bytes.extend([0, 1]);
            let question = Question::parse(&bytes, 0).unwrap();
            is_trouble = health.on_bad_answer(question, at(*time));
        }
        is_trouble
    }

    #[test]
    fn several_names_in_a_row_are_trouble_and_one_name_or_one_type_is_not() {
        let (a, aaaa, https) = (1, 28, 65);
        assert!(is_trouble(
            &[(b'a', a, 1.0), (b'b', aaaa, 1.1), (b'c', a, 1.2)],
            None
        ));
        let one_name = [
            (b'a', a, 1.0),
            (b'A', aaaa, 1.1),
            (b'a', https, 1.2),
            (b'a', a, 3.0),
        ];
        assert!(!is_trouble(&one_name, Some(0.5)));
        let one_type: Vec<_> = (b'a'..=b'z').map(|name| (name, https, 1.4)).collect();
        assert!(!is_trouble(&one_type, Some(0.5)));
        // A mail server asks for other types than addresses, and gets no answer at all.
        let mail: Vec<_> = (b'a'..=b'z')
            .map(|name| (name, 15, f64::from(name - b'a')))
            .collect();
        assert!(is_trouble(&mail, None));
    }

    #[test]
    fn useful_answer_ends_the_row() {
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
        scene.health.on_up(at(40.0), at(40.1));
        assert!(!scene.health.is_well());
        scene.fail(FailureKind::Stalled, 40.2, 42.2);
        assert_eq!(scene.health.last_failure(), Some(FailureKind::Loop));
        scene.health.on_answer(at(90.0), true, at(90.1));
        assert!(scene.health.is_well());
    }

    #[test]
    fn trouble_is_told_once_and_again_when_it_is_another() {
        let mut scene = Scene::new();
        let mut told = |kind, now| {
            let (timeouts, random) = (&scene.timeouts, &mut scene.random);
            let change = scene
                .health
                .on_failure(kind, at(now), at(now), timeouts, random);
            change == Change::Outage
        };
        assert!(told(FailureKind::Connect, 1.0));
        assert!(!told(FailureKind::Connect, 2.0));
        assert!(told(FailureKind::Authentication, 3.0));
        assert!(!told(FailureKind::Authentication, 4.0));
    }

    #[test]
    fn hope_is_for_those_who_have_answered_and_does_not_last() {
        let mut scene = Scene::new();
        scene.fail(FailureKind::Connect, 1.0, 1.0);
        assert!(!scene.health.is_hopeful(at(1.0), &scene.timeouts));
        scene.health.on_answer(at(2.0), true, at(2.5));
        scene.fail(FailureKind::Connect, 3.0, 3.0);
        scene.fail(FailureKind::Connect, 5.0, 5.0);
        assert!(scene.health.is_hopeful(at(7.9), &scene.timeouts));
        assert!(!scene.health.is_hopeful(at(8.0), &scene.timeouts));
    }
}
