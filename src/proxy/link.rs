//! One connection to an upstream as the proxy sees it: what was asked on it and when.
//!
//! ```text
//!            comes up             a query got no answer in time,
//!   opening ----------> up        nor did any after it
//!      |                |  \---------------------------> retired
//!      | fails or       | fails, stalls or is idle          | its last query is
//!      v takes too long v                                   v answered or given up
//!                            gone
//! ```
//!
//! A link that is retired takes no new query. Its last ones may still be answered; meanwhile others
//! go another way.

use std::time::Duration;

use crate::config::Timeouts;
use crate::random::Random;
use crate::time::Instant;

use super::keys::{ExchangeKey, UpstreamIndex};

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Up,
    Retired,
}

/// A query that was sent on a link and not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) id: u16,
    at: Instant,
    pub(super) state: SentState,
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SentState {
    /// This exchange.
    InTime(ExchangeKey),
    /// This exchange, which has looked for another way since.
    Overdue(ExchangeKey),
    /// Nobody any more. The id is not used again while the answer may still come.
    Abandoned,
}

impl Sent {
    /// The exchange that waits, if one does.
    pub(super) fn exchange(&self) -> Option<ExchangeKey> {
        match self.state {
            SentState::InTime(key) | SentState::Overdue(key) => Some(key),
            SentState::Abandoned => None,
        }
    }
}

/// What a link wants done at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It is not up in time.
    HandshakeTimeout,
    /// Queries wait and nothing comes.
    Stalled,
    /// A query has waited long enough for another attempt.
    Overdue,
    /// Nobody has used it for some time.
    Idle,
}

/// One connection to an upstream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) upstream: UpstreamIndex,
    pub(super) stage: Stage,
    /// Since when it has been opening or, if that is later, up.
    stage_since: Instant,
    /// Since when no query has waited, if none does.
    idle_since: Instant,
    last_read: Instant,
    last_answer: Option<Instant>,
    /// In the order of sending.
    sent: Vec<Sent>,
    waited_for: usize,
}

impl Link {
    pub(super) fn new(upstream: UpstreamIndex, now: Instant) -> Self {
        Self {
            upstream,
            stage: Stage::Opening,
            stage_since: now,
            idle_since: now,
            last_read: now,
            last_answer: None,
            sent: Vec::new(),
            waited_for: 0,
        }
    }

    /// When it came up.
    pub(super) fn up_since(&self) -> Instant {
        self.stage_since
    }

    /// Queries that somebody waits for.
    pub(super) fn waited_for(&self) -> usize {
        self.waited_for
    }

    /// Queries that nobody waits for any more and that may still be answered.
    pub(super) fn abandoned(&self) -> usize {
        self.sent.len() - self.waited_for
    }

    /// Whether an answer has ever come.
    pub(super) fn has_answered(&self) -> bool {
        self.last_answer.is_some()
    }

    /// The queries that were sent and not answered, oldest first.
    pub(super) fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// Notes that the peer is connected and authenticated.
    pub(super) fn on_up(&mut self, now: Instant) {
        self.stage = Stage::Up;
        self.stage_since = now;
        self.idle_since = now;
        self.last_read = now;
    }

    /// Notes that something came, be it no whole answer.
    pub(super) fn on_read(&mut self, now: Instant) {
        self.last_read = now;
    }

    /// Takes a query on board and gives it an id that no other on this link has, and that nobody
    /// can foresee.
    pub(super) fn send(&mut self, key: ExchangeKey, now: Instant, random: &mut Random) -> u16 {
        let id = loop {
            let id = random.next_u16();
            if self.place(id).is_none() {
                break id;
            }
        };
        self.sent.push(Sent {
            id,
            at: now,
            state: SentState::InTime(key),
        });
        self.waited_for += 1;
        id
    }

    /// Where the query of this id stands among those [sent](Link::sent).
    pub(super) fn place(&self, id: u16) -> Option<usize> {
        self.sent.iter().position(|sent| sent.id == id)
    }

    /// Notes that the query at `place` was answered.
    pub(super) fn on_answer(&mut self, place: usize, now: Instant) {
        self.last_answer = Some(now);
        self.on_useless_answer(place, now);
    }

    /// Notes that the query at `place` got an answer that cannot be used.
    pub(super) fn on_useless_answer(&mut self, place: usize, now: Instant) {
        let sent = self.sent.remove(place);
        if sent.exchange().is_some() {
            self.on_one_less(now);
        }
    }

    /// Notes that nobody waits for the query of this id any more. Returns whether any answer came
    /// after it was sent.
    pub(super) fn abandon(&mut self, id: u16, now: Instant) -> bool {
        let Some(place) = self.place(id) else {
            return true;
        };
        let sent = &mut self.sent[place];
        let has_answered_since = self.last_answer.is_some_and(|answer| answer > sent.at);
        if sent.exchange().is_some() {
            sent.state = SentState::Abandoned;
            self.on_one_less(now);
        }
        has_answered_since
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

    /// The next thing that time brings, and when. `idle` is how long it is kept without queries.
    pub(super) fn next_due(&self, timeouts: &Timeouts, idle: Duration) -> (Instant, Due) {
        if self.stage == Stage::Opening {
            return (self.stage_since + timeouts.handshake, Due::HandshakeTimeout);
        }
        let mut waiting = self.sent.iter().filter(|sent| sent.exchange().is_some());
        let Some(oldest) = waiting.next() else {
            return (self.idle_since + idle, Due::Idle);
        };
        let stalled = (
            oldest.at.max(self.last_read) + timeouts.attempt,
            Due::Stalled,
        );
        let in_time = |sent: &&Sent| matches!(sent.state, SentState::InTime(_));
        match std::iter::once(oldest).chain(waiting).find(in_time) {
            Some(sent) if sent.at + timeouts.attempt < stalled.0 => {
                (sent.at + timeouts.attempt, Due::Overdue)
            }
            _ => stalled,
        }
    }

    /// Takes note of the oldest query that was not answered in time and not noted before. Returns
    /// who waits for it, and whether any answer came after it was sent.
    pub(super) fn note_overdue(&mut self) -> Option<(ExchangeKey, bool)> {
        let last_answer = self.last_answer;
        self.sent.iter_mut().find_map(|sent| match sent.state {
            SentState::InTime(key) => {
                sent.state = SentState::Overdue(key);
                Some((key, last_answer.is_some_and(|answer| answer > sent.at)))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    const ATTEMPT: Duration = Duration::from_secs(2);
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
        exchanges: Arena<()>,
    }

    impl Scene {
        fn up() -> Self {
            let mut link = Link::new(UpstreamIndex(0), at(0.0));
            link.on_up(at(0.0));
            Self {
                link,
                random: Random::new(&[7; 32]),
                exchanges: Arena::default(),
            }
        }

        fn send(&mut self, now: f64) -> u16 {
            let key = ExchangeKey(self.exchanges.insert(()));
            self.link.send(key, at(now), &mut self.random)
        }

        fn answer(&mut self, id: u16, now: f64) {
            self.link.on_read(at(now));
            let place = self.link.place(id).unwrap();
            self.link.on_answer(place, at(now));
        }

        fn due(&self) -> (Instant, Due) {
            self.link.next_due(&timeouts(), IDLE)
        }
    }

    #[test]
    fn ids_differ_from_all_that_are_out() {
        let mut scene = Scene::up();
        let mut ids: Vec<u16> = (0..20_000).map(|_| scene.send(0.0)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 20_000);
    }

    #[test]
    fn stall_runs_from_the_oldest_query_and_reads_alone_reset_it() {
        let mut scene = Scene::up();
        scene.send(1.0);
        scene.send(2.9);
        assert_eq!(scene.due(), (at(1.0) + ATTEMPT, Due::Stalled));
        scene.link.on_read(at(2.5));
        assert_eq!(scene.due(), (at(1.0) + ATTEMPT, Due::Overdue));
        assert_eq!(
            scene.link.note_overdue().map(|(_, answers)| answers),
            Some(false)
        );
        assert_eq!(scene.due(), (at(2.5) + ATTEMPT, Due::Stalled));
    }

    #[test]
    fn answer_after_an_overdue_query_clears_the_link() {
        let mut scene = Scene::up();
        scene.send(1.0);
        let second = scene.send(1.5);
        scene.answer(second, 2.0);
        assert_eq!(
            scene.link.note_overdue().map(|(_, answers)| answers),
            Some(true)
        );
    }

    #[test]
    fn idle_runs_from_the_last_query() {
        let mut scene = Scene::up();
        assert_eq!(scene.due(), (at(0.0) + IDLE, Due::Idle));
        let id = scene.send(1.0);
        scene.answer(id, 1.5);
        assert_eq!(scene.due(), (at(1.5) + IDLE, Due::Idle));
        let id = scene.send(3.0);
        scene.link.abandon(id, at(4.0));
        assert_eq!(scene.due(), (at(4.0) + IDLE, Due::Idle));
        assert_eq!(scene.link.abandoned(), 1);
        assert!(scene.link.place(id).is_some());
    }

    #[test]
    fn opening_has_its_own_limit() {
        let link = Link::new(UpstreamIndex(0), at(1.0));
        let due = link.next_due(&timeouts(), IDLE);
        assert_eq!(due, (at(4.0), Due::HandshakeTimeout));
    }
}
