//! One query's life, from its admission to its response.
//!
//! ```text
//!              no link has room             a link has room
//!   admitted ------------------> waiting ------------------> sent <---------.
//!       |                           |                        |  | the link ends, or the
//!       '---------------------------)----------------------->'  | attempt takes too long
//!                                   |                        |  |
//!         the deadline passes, or   |                        |  '--> waiting or sent again,
//!         no way is left: SERVFAIL <'------------------------|       three times in all
//!                                                            |
//!                                        the answer comes ---'--> response
//! ```
//!
//! Where another exchange asks the same already, an exchange that is admitted follows it: it waits
//! for the answer to that, up to its own deadline, and takes its own way if there is none.
//!
//! An attempt that takes too long stays open while another is made: the first valid answer wins. A
//! copy, sent to see whether another upstream is out of trouble, may win, too; nothing depends on
//! it. An answer that others may better, an error or one that is cut short, is kept while they are
//! asked, and is the response if they do not.

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
use super::client::admission::Reception;
use super::client::response::{Client, Completion};
use super::counters::Outcome;
use super::keys::{EndpointKey, ExchangeKey, LinkKey, PoolIndex, UpstreamIndex};
use preferences::{UpstreamSet, Wishes};
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
    /// It does not count as a try.
    is_copy: bool,
    /// There is no need for another.
    is_relied_on: bool,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A client.
    Client {
        /// Who it is.
        client: Client,
        /// How the client wants it.
        reception: Reception,
    },
    /// The cache, which has an answer that is no longer fresh, or soon will be.
    Cache,
    /// Somebody who wants to know whether upstream answers.
    Probe,
    /// The bootstrap, for addresses of this type that an upstream has.
    Bootstrap(UpstreamIndex, Type),
}

/// An error, or a reply that cannot be used, which another upstream may not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadAnswer {
    pub(super) by: EndpointKey,
    /// When the query was sent there.
    pub(super) sent_at: Instant,
    /// The reply was malformed, so it is no answer either.
    pub(super) is_malformed: bool,
}

/// One query that is being answered.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) asker: Purpose,
    /// The client that it counts for, be it that its client has a response by now.
    pub(super) holder: Option<Subscriber>,
    /// Who is asked.
    pub(super) pool: PoolIndex,
    /// The query, kept until it is answered so that it can be sent again.
    pub(super) query: Query,
    /// When it was asked.
    pub(super) asked_at: Instant,
    /// When the client is answered at the latest.
    pub(super) deadline: Instant,
    /// Whether it stands in the queue for a link.
    pub(super) is_waiting: bool,
    /// Since when it has, if it does.
    pub(super) waiting_since: Instant,
    /// What it would rather have after what went wrong.
    pub(super) wishes: Wishes,
    /// Why the last attempt failed, if one did.
    pub(super) last_failure: Option<FailureKind>,
    /// The response, unless a better comes.
    pub(super) poor: Option<Box<[u8]>>,
    /// The last error that came for an answer.
    pub(super) bad_answer: Option<BadAnswer>,
    /// Upstreams whose reply was malformed.
    pub(super) malformed_from: UpstreamSet,
    /// The endpoint that refused its EDNS, and how much of EDNS it is asked with instead.
    pub(super) reduced_edns: Option<(EndpointKey, EdnsLevel)>,
    /// Its datagrams were not answered, so it went on a connection.
    pub(super) is_stream_fallback: bool,
    /// Who gave the answer that it has.
    pub(super) answered_by: Option<UpstreamIndex>,
    /// An answer has come that none could better.
    pub(super) is_answered: bool,
    /// What it has in common with others, if its answer is for others, too.
    pub(super) sought: Option<CacheLookup>,
    /// Under what hash others find it to follow it, if they may.
    pub(super) leads_as: Option<u64>,
    /// Those that wait for its answer.
    pub(super) followers: Vec<ExchangeKey>,
    /// What notes its way.
    pub(super) tracer: Tracer,
    /// How often it has been sent without coming back as an error.
    tries: usize,
    /// How often it has come back so.
    errors: usize,
    /// How often it has been sent.
    times_sent: usize,
    /// How often an attempt has been returned.
    returns: usize,
    open: [Option<Open>; OPEN_MAX],
}

/// Attempts that may be open at a time: those that are made one after the other, and a copy to see
/// whether an upstream is out of trouble.
const OPEN_MAX: usize = Limits::ATTEMPTS + 1;

impl Exchange {
    pub(super) fn new(
        asker: Purpose,
        pool: PoolIndex,
        query: Query,
        (now, deadline): (Instant, Instant),
    ) -> Self {
        Self {
            asked_at: now,
            asker,
            holder: None,
            pool,
            query,
            deadline,
            is_waiting: false,
            waiting_since: deadline,
            wishes: Wishes::default(),
            last_failure: None,
            poor: None,
            bad_answer: None,
            malformed_from: UpstreamSet::default(),
            reduced_edns: None,
            is_stream_fallback: false,
            answered_by: None,
            is_answered: false,
            sought: None,
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

    /// Has it as it was before it was sent, for this pool.
    pub(super) fn start_over(&mut self, pool: PoolIndex, now: Instant) {
        self.tracer.on_start_over(now);
        self.pool = pool;
        self.is_waiting = false;
        self.wishes = Wishes::default();
        self.last_failure = None;
        self.poor = None;
        self.bad_answer = None;
        self.malformed_from = UpstreamSet::default();
        self.reduced_edns = None;
        self.is_stream_fallback = false;
        self.answered_by = None;
        self.leads_as = None;
        self.followers.clear();
        (self.tries, self.errors, self.returns) = (0, 0, 0);
        self.times_sent = 0;
        self.open = [None; OPEN_MAX];
    }

    /// How often the query has been sent.
    pub(super) fn times_sent(&self) -> usize {
        self.times_sent
    }

    /// Whether the query may be sent once more. Who has answered, be it with an error, is not
    /// pestered with it, so that counts apart.
    pub(super) fn may_be_sent(&self) -> bool {
        self.tries < Limits::ATTEMPTS && self.errors < Limits::ATTEMPTS
    }

    /// Whether it may be sent once more and then no more.
    pub(super) fn is_last_try(&self) -> bool {
        self.tries + 1 == Limits::ATTEMPTS
    }

    /// Whether it may be sent as a copy besides.
    pub(super) fn may_be_copied(&self) -> bool {
        self.open.iter().filter(|open| open.is_some()).count() < OPEN_MAX - self.tries_left()
    }

    fn tries_left(&self) -> usize {
        Limits::ATTEMPTS - self.tries
    }

    /// Whether upstream was asked, be it for another that this one follows.
    pub(super) fn was_sent(&self) -> bool {
        let follows = self.sought.is_some() && self.leads_as.is_none();
        self.times_sent() > 0 || follows
    }

    /// Whether a client waits for it.
    pub(super) fn is_for_client(&self) -> bool {
        matches!(self.asker, Purpose::Client { .. })
    }

    /// Whether an answer has come that is an error.
    pub(super) fn has_error(&self) -> bool {
        self.bad_answer.is_some()
    }

    /// Whether something went wrong before that an answer says more about.
    pub(super) fn has_history(&self) -> bool {
        self.bad_answer.is_some() || self.reduced_edns.is_some() || self.is_stream_fallback
    }

    /// Whether an answer has come that is truncated, and no error.
    pub(super) fn has_truncated(&self) -> bool {
        self.poor.is_some() && self.bad_answer.is_none()
    }

    /// Notes that the query was sent.
    pub(super) fn on_sent(&mut self, attempt: Attempt) {
        self.tries += 1;
        self.times_sent += 1;
        self.note_open(attempt, false);
    }

    /// Notes that a copy of the query was sent.
    pub(super) fn on_copied(&mut self, attempt: Attempt) {
        self.note_open(attempt, true);
    }

    fn note_open(&mut self, attempt: Attempt, is_copy: bool) {
        let free = self.open.iter_mut().find(|open| open.is_none());
        *free.expect("there is a place for every attempt and one copy") = Some(Open {
            attempt,
            is_copy,
            is_relied_on: !is_copy,
        });
    }

    /// Notes that an attempt has taken too long to wait for it alone.
    pub(super) fn on_overdue(&mut self, attempt: Attempt) {
        for open in self.open.iter_mut().flatten() {
            open.is_relied_on &= open.attempt != attempt;
        }
    }

    /// Notes that an attempt will not be answered any more.
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

    /// Notes that an attempt, or a copy, has come back as an error.
    pub(super) fn on_error(&mut self, attempt: Attempt) {
        let mut open = self.open.iter().flatten();
        if open.any(|open| open.attempt == attempt && !open.is_copy) {
            self.tries -= 1;
            self.errors += 1;
        }
        self.on_attempt_lost(attempt);
    }

    /// The attempts that may still be answered.
    pub(super) fn open_attempts(&self) -> impl Iterator<Item = Attempt> + use<> {
        self.open.into_iter().flatten().map(|open| open.attempt)
    }

    /// Whether an attempt is under way that may well be answered.
    pub(super) fn is_relied_on(&self) -> bool {
        self.open.iter().flatten().any(|open| open.is_relied_on)
    }

    /// The end of the query, and what the response owes it, if it is a client's.
    pub(super) fn ending(&self, outcome: Outcome) -> Option<(Completion<'_>, Asked<'_>)> {
        let Purpose::Client { client, reception } = &self.asker else {
            return None;
        };
        let question = self.query.question();
        let ending = Completion {
            client: *client,
            question: Some(question),
            outcome,
            upstream: self.answered_by,
            trace: self.tracer.trace(),
        };
        let owed = reception.asked(self.query.id(), self.query.flags(), question);
        Some((ending, owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Key;

    fn exchange() -> Exchange {
        let asker = Purpose::Bootstrap(UpstreamIndex(0), Type::A);
        let query = Query::new(&"a.example".parse().unwrap(), Type::A);
        let now = Instant::default();
        Exchange::new(asker, PoolIndex(0), query, (now, now))
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
    fn errors_are_no_tries_but_three_are_enough() {
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
    fn returned_attempt_is_no_try_and_returns_are_bounded() {
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
    fn copy_counts_for_nothing() {
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
