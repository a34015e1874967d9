//! The proxy's view of one connection to an upstream: its state and its unanswered queries. Its
//! timers are in `timers`, and the state that only HTTP/2 has in `http2`.
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

mod http2;
#[cfg(test)]
mod tests;
mod timers;

pub(in crate::proxy) use super::sent::{Abandoned, QuestionHash, Sent, SentState};
pub(in crate::proxy) use timers::Due;

use std::collections::VecDeque;
use std::time::Duration;

use super::answer_order::{AnswerOrder, AnswerOrderEvidence};
use super::capacity::ConnectionClose;
use super::ids::Ids;
use crate::base::failure::FailureKind;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::keys::{EndpointKey, ExchangeKey};
use crate::wire::query::EdnsLevel;
use http2::Http2State;

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Stage {
    Opening,
    Up,
    Retired,
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
    /// The time at which the newest answered query was sent; the default without an answer.
    newest_answered: Instant,
    /// Unanswered queries in the order of sending.
    sent: VecDeque<Sent>,
    ids: Ids,
    waited_for: usize,
    /// The number of queries sent, including answered ones.
    sent_count: usize,
    order_evidence: AnswerOrderEvidence,
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
    http2: Http2State,
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
            newest_answered: Instant::default(),
            sent: VecDeque::new(),
            ids: Ids::default(),
            waited_for: 0,
            sent_count: 0,
            order_evidence: AnswerOrderEvidence::default(),
            answers: 0,
            queries_max: usize::MAX,
            probed_at: None,
            probed_beside_at: None,
            keepalive: None,
            http2: Http2State::new(scheme),
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
            self.drain();
        }
        self.keepalive = Some(timeout);
    }

    /// Takes no new query, so that the link is closed after its last answer.
    pub(in crate::proxy) fn drain(&mut self) {
        self.limit_queries(self.sent_count);
    }

    /// Returns whether the peer takes no further query.
    pub(in crate::proxy) fn is_draining(&self) -> bool {
        self.sent_count >= self.queries_max
    }

    /// Returns the key of the endpoint.
    pub(in crate::proxy) fn endpoint_key(&self) -> EndpointKey {
        self.endpoint
    }

    /// Returns the idle timeout announced by the peer.
    pub(in crate::proxy) fn keepalive(&self) -> Option<Duration> {
        self.keepalive
    }

    /// Returns whether the link is up and takes another query.
    pub(in crate::proxy) fn takes_queries(&self) -> bool {
        self.stage == Stage::Up && self.has_stream()
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
            .filter(|sent| !matches!(sent.state, SentState::Probe(_)));
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

    /// Returns whether another upstream answered most of the abandoned queries.
    pub(in crate::proxy) fn are_most_answered_elsewhere(&self) -> bool {
        let is_answered = |sent: &&Sent| match sent.state {
            SentState::Abandoned(abandoned) => abandoned.is_answered,
            _ => false,
        };
        2 * self.sent.iter().filter(is_answered).count() > self.abandoned()
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
        question: QuestionHash,
        edns: EdnsLevel,
        now: Instant,
        random: &mut Random,
    ) -> u16 {
        self.push_sent(SentState::Probe(question), edns, now, random)
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
        self.order_evidence.on_sent(self.sent.len());
        self.sent.push_back(Sent {
            id,
            at: now,
            state,
            edns,
        });
        id
    }

    /// Returns the position of the query with this id among the queries [sent](Link::sent).
    pub(in crate::proxy) fn position(&self, id: u16) -> Option<usize> {
        self.sent.iter().position(|sent| sent.id == id)
    }

    /// Records an answer to the query at `position`. Returns the time that the answer took.
    pub(in crate::proxy) fn on_answer(&mut self, position: usize, now: Instant) -> Duration {
        let sent_at = self.sent[position].at;
        let took = now - sent_at;
        self.newest_answered = self.newest_answered.max(sent_at);
        self.last_answer = Some(now);
        self.answers += 1;
        self.http2.on_answer();
        self.is_silent = false;
        self.remove_sent(position, now);
        took
    }

    /// Returns the close of this link by the upstream at `now`.
    pub(in crate::proxy) fn close_at(&self, now: Instant) -> ConnectionClose {
        ConnectionClose {
            answers: self.answers(),
            since_answer: now - self.last_answer().unwrap_or(now),
            owes_answers: self.waited_for() > 0,
            is_telling: self.scheme != Scheme::Https || self.is_going_away(),
            opened_at: self.opened_at(),
            at: now,
        }
    }

    /// Removes the query at `position`, whose answer has arrived.
    pub(in crate::proxy) fn remove_sent(&mut self, position: usize, now: Instant) {
        let Some(sent) = self.sent.remove(position) else {
            return;
        };
        self.order_evidence.on_removed(position);
        self.ids.give_back(sent.id);
        if sent.exchange().is_some() {
            self.on_one_less(now);
        }
    }

    /// Records that no exchange waits for the query with this id any more. Returns how long a query
    /// on this link has been in flight without any later answer.
    pub(in crate::proxy) fn abandon(
        &mut self,
        id: u16,
        abandoned: Abandoned,
        now: Instant,
    ) -> Duration {
        let Some(position) = self.position(id) else {
            return Duration::ZERO;
        };
        let silent_since = self.silent_since();
        let sent = &mut self.sent[position];
        if sent.exchange().is_some() {
            sent.state = SentState::Abandoned(abandoned);
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

    /// Returns the start of the silence of the link: the time at which its oldest query without a
    /// later answer was sent. Abandoned queries count too, since the upstream still owes the answer.
    pub(in crate::proxy) fn silent_since(&self) -> Option<Instant> {
        let mut sent = self.sent.iter().map(|sent| sent.at);
        sent.find(|at| self.last_answer.is_none_or(|answer| answer <= *at))
    }

    /// Returns the order of an answer to the query at `position` that has just arrived. A datagram has
    /// one query, so its answer is the first.
    pub(in crate::proxy) fn order_of_answer(&self, position: usize) -> AnswerOrder {
        if self.scheme == Scheme::Udp {
            AnswerOrder::First
        } else if self.order_evidence.is_concurrent() {
            AnswerOrder::Concurrent
        } else if self.is_overtaken(position) {
            AnswerOrder::Overtaken
        } else {
            AnswerOrder::First
        }
    }

    /// Returns whether the query at `position` was sent before the last answer to another one.
    pub(in crate::proxy) fn is_overtaken(&self, position: usize) -> bool {
        self.last_answer > Some(self.sent[position].at)
    }

    /// Returns the number of waiting queries that were not sent before the newest answered one.
    pub(in crate::proxy) fn waiting_behind_answers(&self) -> usize {
        let newest_first = self.sent.iter().rev();
        let behind = newest_first.take_while(|sent| sent.at >= self.newest_answered);
        behind.filter(|sent| sent.exchange().is_some()).count()
    }

    /// Returns whether no answer has arrived since a query became slow.
    pub(in crate::proxy) fn is_silent(&self) -> bool {
        self.is_silent
    }
}
