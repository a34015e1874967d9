//! The life of one query, from its admission to its response.
//!
//! ```text
//!              no link has room             a link has room
//!   admitted ------------------> waiting ------------------> sent <---------.
//!       |                           |                        |  | the link closes, or the
//!       '---------------------------)----------------------->'  | attempt is overdue
//!                                   |                        |  |
//!         the deadline passes, or   |                        |  '--> waiting or sent again,
//!         no upstream: SERVFAIL    <'------------------------|       at most three tries
//!                                                            |
//!                                        an answer arrives --'--> response
//! ```
//!
//! If another exchange already asks the same question, an admitted exchange follows that exchange:
//! it waits for the answer, up to its own deadline, and is dispatched itself if there is no answer.
//!
//! Some attempts do not count as tries: see `attempts`.
//!
//! An overdue attempt stays open while another one is made: the first valid answer wins. The first
//! hedge takes over the try of the attempt that it hedges. A copy, which tests an endpoint in
//! outage, may also win; nothing depends on a copy. An error or a truncated answer is kept while
//! another attempt is made, and becomes the response if that attempt brings nothing better.

pub(in crate::proxy) mod attempts;
pub(in crate::proxy) mod classify;
pub(in crate::proxy) mod coalesce;
pub(in crate::proxy) mod deliver;
pub(in crate::proxy) mod dispatch;
pub(in crate::proxy) mod end;
pub(in crate::proxy) mod fair_queue;
pub(in crate::proxy) mod postponed;
pub(in crate::proxy) mod preferences;
pub(in crate::proxy) mod reply;
pub(in crate::proxy) mod retry;
pub(in crate::proxy) mod serve_stale;
pub(in crate::proxy) mod trace;

use crate::base::failure::FailureKind;
use crate::base::origin::{ClientProtocol, Subscriber};
use crate::base::time::Instant;
use crate::dnssec::validation::SecurityKind;
use crate::wire::question::Type;
use crate::wire::response::Asked;
use crate::wire::{Message, Query, Rcode};

use super::cache::CacheLookup;
use super::client::admission::Reception;
use super::client::response::{Client, Completion};
use super::dns64::Mapping;
use super::keys::{ExchangeKey, PoolIndex, UpstreamIndex};
use super::outcome::{Outcome, Provenance};
use super::validator::Parked;
use attempts::Attempts;
use coalesce::Coalescing;
use preferences::{LinkPreferences, UpstreamSet};
use retry::Retry;
use trace::Tracer;

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
    /// A question whose answer is mapped for this exchange (DNS64).
    Mapping(ExchangeKey),
    /// The bootstrap of an upstream's addresses of this type.
    Bootstrap(UpstreamIndex, Type),
    /// A question for the validation of another answer.
    Validation {
        /// The number of questions for which it is needed in turn.
        depth: u8,
        /// Upstreams to avoid: their answers to the queries that need it could not be verified.
        avoid: UpstreamSet,
        /// The client that it counts against: that of the query that needed it first.
        client: Option<Subscriber>,
    },
}

impl Purpose {
    /// Returns the upstreams that an exchange with this purpose avoids from the start.
    pub(super) fn avoided(&self) -> UpstreamSet {
        match self {
            Self::Validation { avoid, .. } => *avoid,
            _ => UpstreamSet::default(),
        }
    }
}

/// The processing of one question, until its response.
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
    pub(super) preferences: LinkPreferences,
    /// The reason why the last attempt failed, if one did.
    pub(super) last_failure: Option<FailureKind>,
    /// The results of earlier attempts, such as a fallback response.
    pub(super) retry: Retry,
    /// The upstream that gave the answer.
    pub(super) answered_by: Option<UpstreamIndex>,
    /// The verdict of the validator, if the answer was validated.
    pub(super) security: Option<SecurityKind>,
    /// A final answer has arrived.
    pub(super) is_answered: bool,
    /// Other queries for the question fail until this exchange ends (RFC 9520).
    pub(super) is_retest: bool,
    /// The cache lookup of the query, if its answer may be shared.
    pub(super) lookup: Option<CacheLookup>,
    /// The relation to other exchanges for the same question.
    pub(super) coalescing: Coalescing,
    /// The exchanges that follow this one.
    pub(super) followers: Vec<ExchangeKey>,
    /// The trace of the exchange.
    pub(super) tracer: Tracer,
    /// The attempts to have the query answered.
    pub(super) attempts: Attempts,
    /// The answer that is being validated.
    pub(super) parked: Option<Box<Parked>>,
    /// The mapping of the answer, if it has begun (DNS64).
    pub(super) mapping: Option<Box<Mapping>>,
}

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
            preferences: LinkPreferences::default(),
            last_failure: None,
            retry: Retry::default(),
            answered_by: None,
            security: None,
            is_answered: false,
            is_retest: false,
            lookup: None,
            coalescing: Coalescing::Alone,
            followers: Vec::new(),
            tracer: Tracer::default(),
            attempts: Attempts::default(),
            parked: None,
            mapping: None,
        }
    }

    /// Resets the exchange to its unsent state in `pool`.
    pub(super) fn start_over(&mut self, pool: PoolIndex, now: Instant) {
        self.tracer.on_start_over(now);
        self.pool = pool;
        self.is_waiting = false;
        self.preferences = LinkPreferences::default();
        self.last_failure = None;
        self.retry = Retry::default();
        self.set_provenance(Provenance::default());
        self.is_retest = false;
        self.coalescing = Coalescing::Alone;
        self.followers.clear();
        self.attempts = Attempts::default();
        self.parked = None;
        self.mapping = None;
    }

    /// Returns whether upstream was asked, for this exchange or for the one that it follows.
    pub(super) fn was_sent(&self) -> bool {
        self.attempts.times_sent() > 0 || self.coalescing == Coalescing::Following
    }

    /// Returns whether the exchange needs no other attempt now: an open attempt is likely to be
    /// answered, or the exchange is in the queue for a link.
    pub(super) fn has_pending_attempt(&self) -> bool {
        self.attempts.is_relied_on() || self.is_waiting
    }

    /// Returns whether this response is the SERVFAIL for an answer that failed DNSSEC validation.
    pub(super) fn is_rejected(&self, response: &Message<'_>) -> bool {
        let security = self.security;
        matches!(
            security,
            Some(SecurityKind::Bogus | SecurityKind::Indeterminate)
        ) && response.rcode() == Rcode::SERVFAIL
    }

    /// Returns the origin of the answer.
    pub(super) fn provenance(&self) -> Provenance {
        Provenance {
            upstream: self.answered_by,
            security: self.security,
        }
    }

    /// Sets the origin of the answer.
    pub(super) fn set_provenance(&mut self, provenance: Provenance) {
        self.answered_by = provenance.upstream;
        self.security = provenance.security;
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
        client.protocol != ClientProtocol::Udp
    }

    /// Returns whether the answer is for a client or for the cache.
    pub(super) fn is_for_answer(&self) -> bool {
        matches!(
            self.purpose,
            Purpose::Client { .. } | Purpose::Cache | Purpose::Mapping(_)
        )
    }

    /// Returns whether the response is to have DNSSEC records.
    pub(super) fn wants_proof(&self) -> bool {
        match &self.purpose {
            Purpose::Client { reception, .. } => reception.wants_dnssec(),
            _ => self.lookup.is_some_and(CacheLookup::wants_proof),
        }
    }

    /// Returns whether an answer is being validated.
    pub(super) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Returns whether an error has arrived as an answer.
    pub(super) fn has_error(&self) -> bool {
        self.retry.bad_answer().is_some()
    }

    /// Returns whether an earlier failure is recorded, so that an answer affects the health of an
    /// endpoint.
    pub(super) fn has_history(&self) -> bool {
        self.retry.is_some() || !self.preferences.isolated_at.is_empty()
    }

    /// Returns whether a truncated answer has arrived that is not an error.
    pub(super) fn has_truncated(&self) -> bool {
        self.retry.has_fallback() && !self.has_error()
    }

    /// Returns the completion of a client's query and the properties of its response, or `None` if
    /// there is no client.
    #[inline]
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
            security: self.security,
            trace: self.tracer.trace(),
        };
        let asked = reception.asked(self.query.id(), self.query.flags(), question);
        Some((completion, asked))
    }
}
