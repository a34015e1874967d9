//! The life of one query, from its admission to its response.
//!
//! ```text
//!              no link has room             a link has room
//!   admitted ------------------> waiting ------------------> sent <---------.
//!       |                           |                        |  | the link closes, or the
//!       '---------------------------)----------------------->'  | attempt is overdue
//!                                   |                        |  |
//!         the deadline passes, or   |                        |  '--> waiting or sent again,
//!         no upstream: SERVFAIL    <'------------------------|       three times in all
//!                                                            |
//!                                        an answer arrives --'--> response
//! ```
//!
//! If another exchange already asks the same question, an admitted exchange follows that exchange:
//! it waits for the answer, up to its own deadline, and is dispatched itself if there is no answer.
//!
//! An overdue attempt stays open while another one is made: the first valid answer wins. A copy,
//! which tests an endpoint in outage, may also win; nothing depends on a copy. An error or a
//! truncated answer is kept while another attempt is made, and becomes the response if that attempt
//! brings nothing better.

pub(in crate::proxy) mod classify;
pub(in crate::proxy) mod coalesce;
pub(in crate::proxy) mod dispatch;
pub(in crate::proxy) mod preferences;
pub(in crate::proxy) mod reply;
pub(in crate::proxy) mod serve_stale;
pub(in crate::proxy) mod trace;
pub(in crate::proxy) mod turns;

use crate::base::failure::FailureKind;
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::config::Limits;
use crate::wire::Query;
use crate::wire::query::EdnsLevel;
use crate::wire::question::Type;
use crate::wire::response::Asked;

use super::cache::CacheLookup;
use super::client::admission::{Protocol, Reception};
use super::client::response::{Client, Completion};
use super::counters::Outcome;
use super::keys::{EndpointKey, ExchangeKey, LinkKey, PoolIndex, UpstreamIndex};
use preferences::{RoutePreferences, UpstreamSet};
use trace::Tracer;

/// A query that was sent and may still be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) link: LinkKey,
    pub(super) id: u16,
}

/// An attempt that has not been lost.
#[derive(Clone, Copy, Debug)]
struct Open {
    attempt: Attempt,
    /// The attempt does not count as a try.
    is_copy: bool,
    /// No other attempt is needed as long as this one is open.
    is_relied_on: bool,
}

/// The reason for an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A client.
    Client {
        /// The client and its query.
        client: Client,
        /// The form of the response that the client accepts.
        reception: Reception,
    },
    /// The refresh of an answer in the cache that is stale or expires soon.
    Cache,
    /// A probe that tests whether upstream answers.
    Probe,
    /// The bootstrap of an upstream's addresses of this type.
    Bootstrap(UpstreamIndex, Type),
}

/// An error or an unusable reply, which another upstream may not give.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadAnswer {
    pub(super) by: EndpointKey,
    /// The time at which the query was sent to the endpoint.
    pub(super) sent_at: Instant,
    /// The reply was malformed, so it does not count as an answer.
    pub(super) is_malformed: bool,
}

/// A query that is being answered.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) purpose: Purpose,
    /// The client that the exchange counts against, even after the client has its response.
    pub(super) holder: Option<Subscriber>,
    /// The pool of upstreams that may answer the query.
    pub(super) pool: PoolIndex,
    /// The query, kept until it is answered so that it can be sent again.
    pub(super) query: Query,
    /// The time at which the exchange was created.
    pub(super) asked_at: Instant,
    /// The latest time of the response.
    pub(super) deadline: Instant,
    /// The exchange is in the queue for a link.
    pub(super) is_waiting: bool,
    /// The time at which the exchange entered that queue, if it is in the queue.
    pub(super) waiting_since: Instant,
    /// The preferences for an upstream after failed attempts.
    pub(super) preferences: RoutePreferences,
    /// The reason why the last attempt failed, if one did.
    pub(super) last_failure: Option<FailureKind>,
    /// The fallback response, used if no better answer comes.
    pub(super) fallback: Option<Box<[u8]>>,
    /// The last error that came as an answer.
    pub(super) bad_answer: Option<BadAnswer>,
    /// Upstreams that sent a malformed or truncated reply on a connection.
    pub(super) unusable_from: UpstreamSet,
    /// The endpoint that rejected the EDNS of the query, and the EDNS that the query has there
    /// instead.
    pub(super) reduced_edns: Option<(EndpointKey, EdnsLevel)>,
    /// The query was sent over TCP because its datagrams were not answered.
    pub(super) is_stream_fallback: bool,
    /// The upstream that gave the answer.
    pub(super) answered_by: Option<UpstreamIndex>,
    /// A final answer has come.
    pub(super) is_answered: bool,
    /// The cache lookup of the query, if its answer may be shared.
    pub(super) lookup: Option<CacheLookup>,
    /// The hash under which other exchanges find this one to follow it, if they may.
    pub(super) leads_as: Option<u64>,
    /// The exchanges that follow this one.
    pub(super) followers: Vec<ExchangeKey>,
    /// The trace of the exchange.
    pub(super) tracer: Tracer,
    /// The number of attempts that count as tries: neither returned nor ended in an error.
    tries: usize,
    /// The number of attempts that have ended in an error.
    errors: usize,
    /// The number of times that the query was sent.
    times_sent: usize,
    /// The number of returned attempts that were not counted as tries.
    returns: usize,
    open: [Option<Open>; OPEN_MAX],
}

/// The maximum number of open attempts: those of [`Limits::ATTEMPTS`] and a copy that tests an
/// endpoint in outage.
const OPEN_MAX: usize = Limits::ATTEMPTS + 1;

impl Exchange {
    pub(super) fn new(
        purpose: Purpose,
        pool: PoolIndex,
        query: Query,
        (now, deadline): (Instant, Instant),
    ) -> Self {
        Self {
            asked_at: now,
            purpose,
            holder: None,
            pool,
            query,
            deadline,
            is_waiting: false,
            waiting_since: deadline,
            preferences: RoutePreferences::default(),
            last_failure: None,
            fallback: None,
            bad_answer: None,
            unusable_from: UpstreamSet::default(),
            reduced_edns: None,
            is_stream_fallback: false,
            answered_by: None,
            is_answered: false,
            lookup: None,
            leads_as: None,
            followers: Vec::new(),
            tracer: Tracer::default(),
            tries: 0,
            errors: 0,
            times_sent: 0,
            returns: 0,
            open: [None; OPEN_MAX],
        }
    }

    /// Resets the exchange to its unsent state in `pool`.
    pub(super) fn start_over(&mut self, pool: PoolIndex, now: Instant) {
        self.tracer.on_start_over(now);
        self.pool = pool;
        self.is_waiting = false;
        self.preferences = RoutePreferences::default();
        self.last_failure = None;
        self.fallback = None;
        self.bad_answer = None;
        self.unusable_from = UpstreamSet::default();
        self.reduced_edns = None;
        self.is_stream_fallback = false;
        self.answered_by = None;
        self.leads_as = None;
        self.followers.clear();
        (self.tries, self.errors, self.returns) = (0, 0, 0);
        self.times_sent = 0;
        self.open = [None; OPEN_MAX];
    }

    /// Returns the number of times that the query was sent.
    pub(super) fn times_sent(&self) -> usize {
        self.times_sent
    }

    /// Returns whether the query may be sent once more. Attempts that ended in an error are counted
    /// apart, so that an upstream that answers with errors does not get the query again and again.
    pub(super) fn may_be_sent(&self) -> bool {
        self.tries < Limits::ATTEMPTS && self.errors < Limits::ATTEMPTS
    }

    /// Returns whether the next try is the last one.
    pub(super) fn is_last_try(&self) -> bool {
        self.tries + 1 == Limits::ATTEMPTS
    }

    /// Returns whether the query may also be sent as a copy.
    pub(super) fn may_be_copied(&self) -> bool {
        self.open.iter().filter(|open| open.is_some()).count() < OPEN_MAX - self.tries_left()
    }

    fn tries_left(&self) -> usize {
        Limits::ATTEMPTS - self.tries
    }

    /// Returns whether upstream was asked, for this exchange or for the one that it follows.
    pub(super) fn was_sent(&self) -> bool {
        let follows = self.lookup.is_some() && self.leads_as.is_none();
        self.times_sent() > 0 || follows
    }

    /// Returns whether a client waits for the answer.
    pub(super) fn is_for_client(&self) -> bool {
        matches!(self.purpose, Purpose::Client { .. })
    }

    /// Returns whether a client waits for the answer on a connection.
    pub(super) fn is_for_stream_client(&self) -> bool {
        let Purpose::Client { client, .. } = &self.purpose else {
            return false;
        };
        client.protocol != Protocol::Udp
    }

    /// Returns whether an error has come as an answer.
    pub(super) fn has_error(&self) -> bool {
        self.bad_answer.is_some()
    }

    /// Returns whether an earlier failure is recorded, so that an answer affects the health of an
    /// endpoint.
    pub(super) fn has_history(&self) -> bool {
        self.bad_answer.is_some() || self.reduced_edns.is_some() || self.is_stream_fallback
    }

    /// Returns whether a truncated answer has come that is not an error.
    pub(super) fn has_truncated(&self) -> bool {
        self.fallback.is_some() && self.bad_answer.is_none()
    }

    /// Records that the query was sent.
    pub(super) fn on_sent(&mut self, attempt: Attempt) {
        self.tries += 1;
        self.times_sent += 1;
        self.add_open(attempt, false);
    }

    /// Records that a copy of the query was sent.
    pub(super) fn on_copied(&mut self, attempt: Attempt) {
        self.add_open(attempt, true);
    }

    fn add_open(&mut self, attempt: Attempt, is_copy: bool) {
        let free = self.open.iter_mut().find(|open| open.is_none());
        *free.expect("every attempt and one copy have a slot") = Some(Open {
            attempt,
            is_copy,
            is_relied_on: !is_copy,
        });
    }

    /// Records that an attempt is overdue, so that another one may be made.
    pub(super) fn on_overdue(&mut self, attempt: Attempt) {
        for open in self.open.iter_mut().flatten() {
            open.is_relied_on &= open.attempt != attempt;
        }
    }

    /// Records that an attempt will not be answered any more.
    pub(super) fn on_attempt_lost(&mut self, attempt: Attempt) {
        for open in &mut self.open {
            open.take_if(|open| open.attempt == attempt);
        }
    }

    /// Records that an attempt was lost when its connection ended after answers to other queries:
    /// the upstream works, so the attempt is not counted (RFC 7766, section 6.2.4).
    pub(super) fn on_attempt_returned(&mut self, attempt: Attempt) {
        let mut open = self.open.iter().flatten();
        let is_counted = open.any(|open| open.attempt == attempt && !open.is_copy);
        if is_counted && self.returns < Limits::RETURNS {
            self.tries -= 1;
            self.returns += 1;
        }
        self.on_attempt_lost(attempt);
    }

    /// Records that an attempt, or a copy, ended in an error.
    pub(super) fn on_error(&mut self, attempt: Attempt) {
        let mut open = self.open.iter().flatten();
        if open.any(|open| open.attempt == attempt && !open.is_copy) {
            self.tries -= 1;
            self.errors += 1;
        }
        self.on_attempt_lost(attempt);
    }

    /// Returns the attempts that may still be answered.
    pub(super) fn open_attempts(&self) -> impl Iterator<Item = Attempt> + use<> {
        self.open.into_iter().flatten().map(|open| open.attempt)
    }

    /// Returns whether an open attempt is likely to be answered.
    pub(super) fn is_relied_on(&self) -> bool {
        self.open.iter().flatten().any(|open| open.is_relied_on)
    }

    /// Returns the completion of a client's query and the properties of its response, or `None` if
    /// there is no client.
    pub(super) fn completion(&self, outcome: Outcome) -> Option<(Completion<'_>, Asked<'_>)> {
        let Purpose::Client { client, reception } = &self.purpose else {
            return None;
        };
        let question = self.query.question();
        let completion = Completion {
            client: *client,
            question: Some(question),
            outcome,
            upstream: self.answered_by,
            trace: self.tracer.trace(),
        };
        let asked = reception.asked(self.query.id(), self.query.flags(), question);
        Some((completion, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Key;

    fn exchange() -> Exchange {
        let purpose = Purpose::Bootstrap(UpstreamIndex(0), Type::A);
        let query = Query::new(&"a.example".parse().unwrap(), Type::A);
        let now = Instant::default();
        Exchange::new(purpose, PoolIndex(0), query, (now, now))
    }

    fn attempt(id: u16) -> Attempt {
        let link = LinkKey(Key::from_usize(1));
        Attempt { link, id }
    }

    #[test]
    fn query_is_tried_three_times() {
        let mut exchange = exchange();
        for id in 0..3 {
            assert!(exchange.may_be_sent());
            assert_eq!(exchange.is_last_try(), id == 2);
            exchange.on_sent(attempt(id));
            exchange.on_attempt_lost(attempt(id));
        }
        assert!(!exchange.may_be_sent());
        assert_eq!(exchange.times_sent(), 3);
    }

    #[test]
    fn errors_do_not_count_as_tries_and_are_limited_to_three() {
        let mut exchange = exchange();
        exchange.on_sent(attempt(0));
        exchange.on_attempt_lost(attempt(0));
        for id in 1..4 {
            assert!(exchange.may_be_sent());
            exchange.on_sent(attempt(id));
            exchange.on_error(attempt(id));
        }
        assert!(!exchange.may_be_sent());
        assert_eq!(exchange.times_sent(), 4);
    }

    #[test]
    fn returned_attempt_does_not_count_as_try_and_returns_are_bounded() {
        let mut exchange = exchange();
        let mut sent = 0;
        while exchange.may_be_sent() {
            exchange.on_sent(attempt(sent));
            exchange.on_attempt_returned(attempt(sent));
            sent += 1;
        }
        assert_eq!(usize::from(sent), Limits::RETURNS + Limits::ATTEMPTS);
        assert_eq!(exchange.times_sent(), usize::from(sent));
    }

    #[test]
    fn copy_counts_neither_as_try_nor_as_error() {
        let mut exchange = exchange();
        exchange.on_sent(attempt(0));
        assert!(exchange.may_be_copied());
        exchange.on_copied(attempt(1));
        assert!(exchange.is_relied_on() && !exchange.may_be_copied());
        exchange.on_error(attempt(1));
        assert_eq!((exchange.times_sent(), exchange.errors), (1, 0));
        exchange.on_overdue(attempt(0));
        assert!(!exchange.is_relied_on());
        assert_eq!(exchange.open_attempts().count(), 1);
    }
}
