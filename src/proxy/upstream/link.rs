//! The proxy's view of one connection to an upstream: its unanswered queries and its timer.
//!
//! ```text
//!            comes up             no answer for too long
//!   opening ----------> up ----------------------------> retired
//!      |                |                                   |
//!      | fails or       | fails or is idle                  | fails, or its last query is
//!      v takes too long v                                   v answered or abandoned
//!                            gone
//! ```
//!
//! A retired link takes no new query. Its last queries may still be answered; meanwhile they are
//! retried on other links. A datagram is also a link: it is up at once and takes one query, because
//! its source port helps to authenticate the answer (RFC 5452, section 4.5).

pub(in crate::proxy) use super::sent::{Sent, SentState};

use std::collections::VecDeque;
use std::time::Duration;

use super::ids::Ids;
use super::witness::{AnswerOrder, Witness};
use crate::base::failure::FailureKind;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::{Scheme, Timeouts};
use crate::proxy::keys::{EndpointKey, ExchangeKey};
use crate::wire::query::EdnsLevel;

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Stage {
    Opening,
    Up,
    Retired,
}

/// A timer of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Due {
    /// The link opens slowly: waiting queries should use another endpoint.
    Late,
    /// The link was not up within the handshake timeout.
    HandshakeTimeout,
    /// Nothing has arrived since a query was sent: a probe distinguishes a slow name from an
    /// unresponsive upstream.
    Probe {
        /// The time at which the query was sent.
        since: Instant,
    },
    /// The probe was not answered, perhaps because the upstream answers in order: another probe is
    /// sent on another link.
    ProbeBeside {
        /// The time at which the query was sent.
        since: Instant,
    },
    /// No answer has arrived since a query was sent, for too long.
    Stalled {
        /// The time at which the query was sent.
        since: Instant,
    },
    /// A query has been in flight for longer than is usual.
    Slow,
    /// A query has been in flight long enough for another attempt, while others were answered.
    Overdue,
    /// The idle timeout of the link has expired.
    Idle,
}

/// One connection to an upstream.
#[derive(Debug)]
pub(in crate::proxy) struct Link {
    pub(in crate::proxy) endpoint: EndpointKey,
    pub(in crate::proxy) scheme: Scheme,
    pub(in crate::proxy) stage: Stage,
    /// True if TCP is connected, even if the link is not up yet.
    pub(in crate::proxy) is_connected: bool,
    opened_at: Instant,
    up_since: Instant,
    /// The time after which opening the link is slow.
    late_at: Instant,
    is_late: bool,
    /// True if a query has become slow and no answer has arrived since.
    is_silent: bool,
    /// The time since which no query has been in flight.
    idle_since: Instant,
    last_answer: Option<Instant>,
    /// Unanswered queries in the order of sending.
    sent: VecDeque<Sent>,
    ids: Ids,
    waited_for: usize,
    /// The number of queries sent, including answered ones.
    sent_count: usize,
    witness: Witness,
    /// The number of answers received.
    answers: usize,
    /// The number of queries after which the link is drained and closed.
    queries_max: usize,
    /// The time of the last probe for silence on this link.
    probed_at: Option<Instant>,
    /// The time of the last such probe on another link.
    probed_beside_at: Option<Instant>,
    /// The idle timeout announced by the peer (RFC 7828).
    keepalive: Option<Duration>,
}

impl Link {
    /// Creates a link that is being opened and should be up at `late_at`.
    pub(in crate::proxy) fn new(
        endpoint: EndpointKey,
        scheme: Scheme,
        now: Instant,
        late_at: Instant,
    ) -> Self {
        Self {
            endpoint,
            scheme,
            stage: Stage::Opening,
            is_connected: false,
            opened_at: now,
            up_since: now,
            late_at,
            is_late: false,
            is_silent: false,
            idle_since: now,
            last_answer: None,
            sent: VecDeque::new(),
            ids: Ids::default(),
            waited_for: 0,
            sent_count: 0,
            witness: Witness::default(),
            answers: 0,
            queries_max: usize::MAX,
            probed_at: None,
            probed_beside_at: None,
            keepalive: None,
        }
    }

    /// Returns the failure of a link that did not come up in time.
    pub(in crate::proxy) fn timeout_kind(&self) -> FailureKind {
        if self.is_connected {
            FailureKind::HandshakeTimeout
        } else {
            FailureKind::ConnectTimeout
        }
    }

    /// Limits the total number of queries on the link.
    pub(in crate::proxy) fn limit_queries(&mut self, queries_max: usize) {
        self.queries_max = self.queries_max.min(queries_max);
    }

    /// Records the idle timeout announced by the peer (edns-tcp-keepalive, RFC 7828, section
    /// 3.2.2). Zero drains the connection: it takes no new query and closes after the last answer.
    pub(in crate::proxy) fn on_keepalive(&mut self, timeout: Duration) {
        if timeout.is_zero() {
            self.limit_queries(self.sent_count);
        }
        self.keepalive = Some(timeout);
    }

    /// Returns the idle timeout announced by the peer.
    pub(in crate::proxy) fn keepalive(&self) -> Option<Duration> {
        self.keepalive
    }

    /// Returns whether the link is up and takes another query.
    pub(in crate::proxy) fn takes_queries(&self) -> bool {
        self.stage == Stage::Up && self.sent_count < self.queries_max
    }

    /// Returns whether the link has come up and is not silent.
    pub(in crate::proxy) fn is_working(&self) -> bool {
        self.stage != Stage::Opening && !self.is_silent
    }

    /// Returns whether several queries of exchanges are in flight that no answer followed.
    pub(in crate::proxy) fn has_several_silent(&self) -> bool {
        let of_exchanges = self
            .sent
            .iter()
            .filter(|sent| sent.state != SentState::Probe);
        of_exchanges
            .filter(|sent| Some(sent.at) >= self.last_answer)
            .nth(2)
            .is_some()
    }

    /// Returns the time of the last answer.
    pub(in crate::proxy) fn last_answer(&self) -> Option<Instant> {
        self.last_answer
    }

    /// Returns the number of answers received.
    pub(in crate::proxy) fn answers(&self) -> usize {
        self.answers
    }

    /// Returns the time at which opening the link began.
    pub(in crate::proxy) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Returns the time at which the link came up.
    pub(in crate::proxy) fn up_since(&self) -> Instant {
        self.up_since
    }

    /// Returns whether opening the link is slow.
    pub(in crate::proxy) fn is_late(&self) -> bool {
        self.is_late && self.stage == Stage::Opening
    }

    /// Returns whether another link may be better.
    pub(in crate::proxy) fn is_doubtful(&self) -> bool {
        self.is_late() || self.is_silent
    }

    /// Returns whether a query has been in flight for `long`.
    pub(in crate::proxy) fn has_waited(&self, long: Duration, now: Instant) -> bool {
        self.sent
            .front()
            .is_some_and(|oldest| now - oldest.at >= long)
    }

    /// Records that opening the link is slow.
    pub(in crate::proxy) fn note_late(&mut self) {
        self.is_late = true;
    }

    /// Returns the time since which no query has been in flight.
    pub(in crate::proxy) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Returns the number of queries that exchanges wait for.
    pub(in crate::proxy) fn waited_for(&self) -> usize {
        self.waited_for
    }

    /// Returns the number of abandoned queries that may still be answered.
    pub(in crate::proxy) fn abandoned(&self) -> usize {
        self.sent.len() - self.waited_for
    }

    /// Returns whether the link can be closed: it takes no new query, and no exchange waits for an
    /// answer. A datagram link that is up waits for its answer in any case.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        match self.stage {
            Stage::Retired => self.waited_for == 0,
            Stage::Opening => false,
            Stage::Up if self.scheme == Scheme::Udp => self.sent.is_empty(),
            Stage::Up => self.waited_for == 0 && !self.takes_queries(),
        }
    }

    /// Returns whether any answer has arrived.
    pub(in crate::proxy) fn has_answered(&self) -> bool {
        self.last_answer.is_some()
    }

    /// Returns the unanswered queries, oldest first.
    pub(in crate::proxy) fn sent(&self) -> &VecDeque<Sent> {
        &self.sent
    }

    /// Records that the peer is connected and authenticated.
    pub(in crate::proxy) fn on_up(&mut self, now: Instant) {
        self.stage = Stage::Up;
        self.up_since = now;
        self.idle_since = now;
    }

    /// Adds a query and returns its id, which is unpredictable and unique on this link.
    pub(in crate::proxy) fn send(
        &mut self,
        key: ExchangeKey,
        edns: EdnsLevel,
        now: Instant,
        random: &mut Random,
    ) -> u16 {
        self.waited_for += 1;
        self.push_sent(SentState::InTime(key), edns, now, random)
    }

    /// Adds a probe, which no exchange waits for, and returns its id.
    pub(in crate::proxy) fn send_probe(
        &mut self,
        edns: EdnsLevel,
        now: Instant,
        random: &mut Random,
    ) -> u16 {
        self.push_sent(SentState::Probe, edns, now, random)
    }

    #[inline]
    fn push_sent(
        &mut self,
        state: SentState,
        edns: EdnsLevel,
        now: Instant,
        random: &mut Random,
    ) -> u16 {
        let id = self.ids.take(random);
        self.sent_count += 1;
        self.witness.on_sent(self.sent.len());
        self.sent.push_back(Sent {
            id,
            at: now,
            state,
            edns,
        });
        id
    }

    /// Records that a probe was sent on this link because of silence.
    pub(in crate::proxy) fn on_probed(&mut self, now: Instant) {
        self.probed_at = Some(now);
    }

    /// Records that a probe was sent on another link because of silence on this one.
    pub(in crate::proxy) fn on_probed_beside(&mut self, now: Instant) {
        self.probed_beside_at = Some(now);
    }

    /// Returns the next timer for silence since `since`.
    fn due_of_silence(&self, since: Instant, slow: Duration, attempt: Duration) -> (Instant, Due) {
        let quarter = attempt / 4;
        let recent = |at: Option<Instant>| at.filter(|at| *at >= since);
        match (recent(self.probed_at), recent(self.probed_beside_at)) {
            (None, _) => (since + slow.min(quarter), Due::Probe { since }),
            (Some(at), None) if self.scheme != Scheme::Udp => {
                (at + quarter, Due::ProbeBeside { since })
            }
            // The last probe has time for an answer even if its timer was late.
            (at, beside_at) => {
                let last = at.max(beside_at).unwrap_or(since);
                let at = (since + attempt).max(last + 2 * quarter);
                (at, Due::Stalled { since })
            }
        }
    }

    /// Returns the position of the query with this id among the queries [sent](Link::sent).
    pub(in crate::proxy) fn place(&self, id: u16) -> Option<usize> {
        self.sent.iter().position(|sent| sent.id == id)
    }

    /// Records an answer to the query at `place`. Returns the time that the answer took.
    pub(in crate::proxy) fn on_answer(&mut self, place: usize, now: Instant) -> Duration {
        let took = now - self.sent[place].at;
        self.last_answer = Some(now);
        self.answers += 1;
        self.is_silent = false;
        self.on_useless_answer(place, now);
        took
    }

    /// Records an unusable answer to the query at `place`.
    pub(in crate::proxy) fn on_useless_answer(&mut self, place: usize, now: Instant) {
        let Some(sent) = self.sent.remove(place) else {
            return;
        };
        self.witness.on_removed(place);
        self.ids.give_back(sent.id);
        if sent.exchange().is_some() {
            self.on_one_less(now);
        }
    }

    /// Records that no exchange waits for the query with this id any more, and whether another
    /// upstream answered the query. Returns how long a query on this link has been in flight
    /// without any later answer.
    pub(in crate::proxy) fn abandon(
        &mut self,
        id: u16,
        is_answered: bool,
        now: Instant,
    ) -> Duration {
        let Some(place) = self.place(id) else {
            return Duration::ZERO;
        };
        let silent_since = self.silent_since();
        let sent = &mut self.sent[place];
        if sent.exchange().is_some() {
            sent.state = SentState::Abandoned { is_answered };
            self.on_one_less(now);
        }
        silent_since.map_or(Duration::ZERO, |since| now - since)
    }

    fn on_one_less(&mut self, now: Instant) {
        self.waited_for -= 1;
        if self.waited_for == 0 {
            self.idle_since = now;
        }
        if self.sent.is_empty() {
            self.sent.shrink_to(8);
        }
    }

    /// Returns the next timer and its time. A query is slow after `slow`; a link without queries is
    /// kept for `idle`.
    pub(in crate::proxy) fn next_due(
        &self,
        timeouts: &Timeouts,
        slow: Duration,
        idle: Duration,
    ) -> Option<(Instant, Due)> {
        match self.stage {
            Stage::Opening if !self.is_late => Some((self.late_at, Due::Late)),
            Stage::Opening => Some((self.opened_at + timeouts.handshake, Due::HandshakeTimeout)),
            Stage::Up => {
                let first = |matches: fn(&SentState) -> bool| {
                    let mut sent = self.sent.iter();
                    sent.find(|sent| matches(&sent.state)).map(|sent| sent.at)
                };
                let slow_from = first(|state| matches!(state, SentState::InTime(_)));
                let overdue_from =
                    first(|state| matches!(state, SentState::InTime(_) | SentState::Slow(_)));
                let silent = self.silent_since();
                let silent = silent.map(|since| self.due_of_silence(since, slow, timeouts.attempt));
                let slow = slow_from.map(|from| (from + slow, Due::Slow));
                let overdue = overdue_from.map(|from| (from + timeouts.attempt, Due::Overdue));
                // A datagram is never idle: either an answer is outstanding, or the link is done.
                let is_idle = self.waited_for == 0 && self.scheme != Scheme::Udp;
                let idle = is_idle.then_some((self.idle_since + idle, Due::Idle));
                let all = [silent, slow, overdue, idle].into_iter().flatten();
                all.min_by_key(|(at, _)| *at)
            }
            Stage::Retired => None,
        }
    }

    /// Returns when the oldest query was sent that was neither answered nor followed by an answer.
    /// Abandoned queries count too, since the upstream still owes the answer.
    pub(in crate::proxy) fn silent_since(&self) -> Option<Instant> {
        let mut sent = self.sent.iter().map(|sent| sent.at);
        sent.find(|at| self.last_answer.is_none_or(|answer| answer <= *at))
    }

    /// Returns the order of an answer to the query at `place` that has just arrived. A datagram has
    /// one query, so its answer is the first.
    pub(in crate::proxy) fn order_of_answer(&self, place: usize) -> AnswerOrder {
        if self.scheme == Scheme::Udp {
            AnswerOrder::First
        } else if self.witness.is_concurrent() {
            AnswerOrder::Concurrent
        } else if self.is_overtaken(place) {
            AnswerOrder::Overtaken
        } else {
            AnswerOrder::First
        }
    }

    /// Returns whether the query at `place` was sent before the last answer to another one.
    pub(in crate::proxy) fn is_overtaken(&self, place: usize) -> bool {
        self.last_answer > Some(self.sent[place].at)
    }

    /// Marks the oldest query that has become slow. Returns its id and its exchange.
    pub(in crate::proxy) fn note_slow(&mut self) -> Option<(u16, ExchangeKey)> {
        let (sent, key) = self.sent.iter_mut().find_map(|sent| match sent.state {
            SentState::InTime(key) => Some((sent, key)),
            _ => None,
        })?;
        sent.state = SentState::Slow(key);
        let (id, at) = (sent.id, sent.at);
        self.is_silent |= self.last_answer.is_none_or(|answer| answer <= at);
        Some((id, key))
    }

    /// Returns whether no answer has arrived since a query became slow.
    pub(in crate::proxy) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Marks the oldest query that is overdue and not marked yet. Returns its id and its exchange.
    pub(in crate::proxy) fn note_overdue(&mut self) -> Option<(u16, ExchangeKey)> {
        self.sent.iter_mut().find_map(|sent| match sent.state {
            SentState::InTime(key) | SentState::Slow(key) => {
                sent.state = SentState::Overdue(key);
                Some((sent.id, key))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Arena;

    fn endpoint() -> EndpointKey {
        Arena::default().insert(())
    }

    const ATTEMPT: Duration = Duration::from_secs(2);
    const SLOW: Duration = Duration::from_millis(200);
    const IDLE: Duration = Duration::from_secs(20);

    fn at(seconds: f64) -> Instant {
        Instant::after_start(Duration::from_secs_f64(seconds))
    }

    fn timeouts() -> Timeouts {
        Timeouts::for_query(Duration::from_secs(5))
    }

    struct Scene {
        link: Link,
        random: Random,
        exchanges: Arena<ExchangeKey, ()>,
    }

    impl Scene {
        fn up() -> Self {
            let mut link = Link::new(endpoint(), Scheme::Tls, at(0.0), at(0.5));
            link.on_up(at(0.0));
            Self {
                link,
                random: Random::new(&[7; 32]),
                exchanges: Arena::default(),
            }
        }

        fn send(&mut self, now: f64) -> u16 {
            let key = self.exchanges.insert(());
            let edns = EdnsLevel::Full;
            self.link.send(key, edns, at(now), &mut self.random)
        }

        fn probe(&mut self, now: f64) {
            self.link.on_probed(at(now));
            self.link.on_probed_beside(at(now));
        }

        fn answer(&mut self, id: u16, now: f64) {
            let place = self.link.place(id).unwrap();
            self.link.on_answer(place, at(now));
        }

        fn due(&self) -> (Instant, Due) {
            self.link
                .next_due(&timeouts(), SLOW, IDLE)
                .expect("a timer is set")
        }
    }

    fn stalled_since(seconds: f64) -> (Instant, Due) {
        let since = at(seconds);
        (since + ATTEMPT, Due::Stalled { since })
    }

    #[test]
    fn stall_starts_at_the_oldest_query_without_a_later_answer() {
        let mut scene = Scene::up();
        let first = scene.send(1.0);
        scene.send(2.5);
        while scene.link.note_slow().is_some() {}
        scene.probe(1.2);
        assert_eq!(scene.due(), stalled_since(1.0));
        scene.answer(first, 2.0);
        scene.probe(2.7);
        assert_eq!(scene.due(), stalled_since(2.5));
    }

    #[test]
    fn silent_link_is_probed_before_it_is_stalled() {
        let mut scene = Scene::up();
        scene.send(1.0);
        let probe = |since, due| {
            let since = at(since);
            (since + due, Due::Probe { since })
        };
        assert_eq!(scene.due(), probe(1.0, SLOW));
        scene.link.note_slow();
        scene.link.on_probed(at(1.3));
        let beside = Due::ProbeBeside { since: at(1.0) };
        assert_eq!(scene.due(), (at(1.3) + ATTEMPT / 4, beside));
        // A timer that is late leaves the probe half an attempt for its answer.
        scene.link.on_probed_beside(at(2.5));
        assert_eq!(scene.due(), (at(1.0) + ATTEMPT, Due::Overdue));
        scene.link.note_overdue();
        let stalled = Due::Stalled { since: at(1.0) };
        assert_eq!(scene.due(), (at(2.5) + ATTEMPT / 2, stalled));
        let edns = EdnsLevel::Full;
        let id = scene.link.send_probe(edns, at(2.5), &mut scene.random);
        scene.answer(id, 2.6);
        assert_eq!(scene.link.next_due(&timeouts(), SLOW, IDLE), None);
        // The next silence is a new one.
        scene.send(4.0);
        assert_eq!(scene.due(), probe(4.0, SLOW));
    }

    #[test]
    fn link_at_its_query_limit_is_done_after_the_last_answer() {
        let mut scene = Scene::up();
        scene.link.limit_queries(2);
        let ids = [scene.send(1.0), scene.send(1.0)];
        assert!(!scene.link.takes_queries() && !scene.link.is_done());
        for id in ids {
            scene.answer(id, 1.1);
        }
        assert!(scene.link.is_done());
    }

    #[test]
    fn keepalive_of_zero_drains_a_link() {
        let mut scene = Scene::up();
        let id = scene.send(1.0);
        scene.link.on_keepalive(Duration::from_secs(3));
        assert!(scene.link.takes_queries());
        scene.link.on_keepalive(Duration::ZERO);
        assert!(!scene.link.takes_queries() && !scene.link.is_done());
        scene.answer(id, 1.1);
        assert!(scene.link.is_done());
    }

    #[test]
    fn query_is_slow_and_then_overdue_while_others_are_answered() {
        let mut scene = Scene::up();
        let first = scene.send(1.0);
        let second = scene.send(1.5);
        scene.answer(second, 1.6);
        assert_eq!(scene.due(), (at(1.0) + SLOW, Due::Slow));
        assert_eq!(scene.link.note_slow().map(|(id, _)| id), Some(first));
        assert!(!scene.link.is_silent());
        assert_eq!(scene.due(), (at(1.0) + ATTEMPT, Due::Overdue));
        assert_eq!(scene.link.note_overdue().map(|(id, _)| id), Some(first));
        assert_eq!(scene.link.next_due(&timeouts(), SLOW, IDLE), None);
    }

    #[test]
    fn link_is_silent_from_a_slow_query_to_the_next_answer() {
        let mut scene = Scene::up();
        scene.send(1.0);
        let second = scene.send(1.1);
        scene.link.note_slow();
        assert!(scene.link.is_silent() && scene.link.is_doubtful());
        scene.answer(second, 1.4);
        assert!(!scene.link.is_silent());
    }

    #[test]
    fn query_answered_by_another_upstream_is_still_silent() {
        let mut scene = Scene::up();
        let id = scene.send(1.0);
        scene.link.abandon(id, true, at(1.2));
        scene.probe(1.2);
        assert_eq!(scene.due(), stalled_since(1.0));
    }

    #[test]
    fn idle_time_starts_at_the_last_query() {
        let mut scene = Scene::up();
        assert_eq!(scene.due(), (at(0.0) + IDLE, Due::Idle));
        let id = scene.send(1.0);
        scene.answer(id, 1.5);
        assert_eq!(scene.due(), (at(1.5) + IDLE, Due::Idle));
    }

    #[test]
    fn datagram_is_never_idle() {
        let mut scene = Scene::up();
        scene.link.scheme = Scheme::Udp;
        assert!(scene.link.is_done());
        let id = scene.send(1.0);
        scene.link.abandon(id, true, at(1.1));
        let idle = Duration::from_millis(10);
        scene.probe(1.2);
        let due = scene.link.next_due(&timeouts(), SLOW, idle);
        assert_eq!(due, Some(stalled_since(1.0)));
        assert!(!scene.link.is_done());
    }

    #[test]
    fn id_of_an_abandoned_query_is_not_reused() {
        let mut scene = Scene::up();
        let id = scene.send(3.0);
        scene.link.abandon(id, false, at(4.0));
        assert_eq!(scene.link.abandoned(), 1);
        assert!(scene.link.place(id).is_some());
    }

    #[test]
    fn link_without_queries_releases_its_queue() {
        let mut scene = Scene::up();
        let ids: Vec<u16> = (0..1_000).map(|_| scene.send(0.0)).collect();
        for id in ids {
            scene.answer(id, 1.0);
        }
        assert!(scene.link.sent.capacity() <= 8);
    }

    #[test]
    fn opening_has_its_own_timeouts() {
        let mut link = Link::new(endpoint(), Scheme::Tls, at(1.0), at(1.5));
        let due = link.next_due(&timeouts(), SLOW, IDLE);
        assert_eq!(due, Some((at(1.5), Due::Late)));
        link.note_late();
        let due = link.next_due(&timeouts(), SLOW, IDLE);
        assert_eq!(due, Some((at(4.0), Due::HandshakeTimeout)));
    }
}
