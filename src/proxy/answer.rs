//! What becomes of a message from upstream: a response, a reason to look for a better one, or
//! nothing.
//!
//! An error that is trouble of the resolver which reports it may not be that of another one, so one
//! more is asked: if that has an answer, the first is known to be in trouble, and if not, the error
//! is the response. An answer that was cut short to fit a datagram is asked for on a connection.

use super::Proxy;
use super::counters::{Discard, Outcome};
use super::exchange::{Asker, Attempt, Poor};
use super::keys::{EndpointKey, ExchangeKey, LinkKey, PoolIndex};
use super::outbox::Outbox;
use crate::config::Scheme;
use crate::failure::FailureKind;
use crate::time::Instant;
use crate::wire::response::write_answer;
use crate::wire::{Flags, Header, Message, Opcode, Opt, Query, Rcode};

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// It is the response.
    All,
    /// It is cut short, which it would not be on a connection.
    Part,
    /// It is an error, which another upstream may not have.
    Nothing,
}

impl Proxy {
    /// Takes a message from upstream.
    pub fn handle_reply(&mut self, key: LinkKey, reply: &[u8], now: Instant, outbox: &mut Outbox) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        let header = Header::parse(reply);
        let placed = header.and_then(|header| Some((header, link.place(header.id)?)));
        let Some((header, place)) = placed else {
            self.counters.count_discard(Discard::UnknownId);
            return;
        };
        let Some(exchange_key) = link.sent()[place].exchange() else {
            self.counters.count_discard(Discard::Late);
            return self.on_late_answer(key, place, header.flags.rcode(), now);
        };
        let exchange = self.exchanges.get(exchange_key.0);
        let query = &exchange.expect("a link knows who still waits").query;
        match Message::parse(reply) {
            Ok(message) if answers(&message, query) => {
                self.on_right_answer(key, place, exchange_key, &message, now, outbox);
                self.after_answer(key, now, outbox);
            }
            Ok(_) => self.counters.count_discard(Discard::Mismatch),
            Err(_) => {
                self.counters.count_discard(Discard::Malformed);
                let id = link.sent()[place].id;
                let attempt = Attempt { link: key, id };
                link.on_useless_answer(place, now);
                self.lose_attempt(exchange_key, attempt, FailureKind::Protocol, now, outbox);
                self.after_answer(key, now, outbox);
            }
        }
    }

    /// An answer that nobody waits for tells how its upstream is doing.
    fn on_late_answer(&mut self, key: LinkKey, place: usize, rcode: Rcode, now: Instant) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let (endpoint, asked_at) = (link.endpoint, link.sent()[place].at);
        self.on_answer(key, place, !is_error(rcode), now);
        let was_wrong = self.upstreams.trouble(endpoint) == Some(FailureKind::BadAnswer);
        if was_wrong && is_error(rcode) {
            self.on_bad_answer(endpoint, asked_at, now);
        }
    }

    /// An answer has come to a query that waits for it.
    fn on_right_answer(
        &mut self,
        key: LinkKey,
        place: usize,
        exchange_key: ExchangeKey,
        answer: &Message<'_>,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let link = self.upstreams.link(key).expect("who answers is there");
        let (sent, endpoint) = (link.sent()[place], link.endpoint);
        let worth = worth(answer, link.scheme);
        self.on_answer(key, place, worth != Worth::Nothing, now);
        let exchange = self.exchanges.get_mut(exchange_key.0);
        let exchange = exchange.expect("who waits is there");
        exchange.on_attempt_lost(Attempt {
            link: key,
            id: sent.id,
        });
        if worth == Worth::All {
            let error_by = exchange.poor.take().and_then(|poor| poor.error_by);
            if let Some((endpoint, asked_at)) = error_by {
                self.on_bad_answer(endpoint, asked_at, now);
            }
            return self.deliver(exchange_key, answer, now, outbox);
        }
        let had_error = exchange
            .poor
            .as_ref()
            .is_some_and(|poor| poor.error_by.is_some());
        let is_error = worth == Worth::Nothing;
        exchange.poor = Some(Box::new(Poor {
            answer: answer.bytes().into(),
            error_by: is_error.then_some((endpoint, sent.at)),
        }));
        if is_error {
            exchange.wishes.not_at.insert(endpoint);
        } else {
            exchange.wishes.on_connection = true;
        }
        if exchange.is_relied_on() || exchange.is_waiting {
            return;
        }
        let may_be_sent = exchange.may_be_sent() && !had_error;
        let (pool, wishes) = (exchange.pool, exchange.wishes);
        if may_be_sent && (!is_error || self.upstreams.has_untried(pool, &wishes)) {
            self.dispatch(exchange_key, now, outbox);
        } else {
            self.deliver(exchange_key, answer, now, outbox);
        }
    }

    /// An address gave an error to a query that was sent then, and another had an answer.
    fn on_bad_answer(&mut self, endpoint: EndpointKey, asked_at: Instant, now: Instant) {
        let kind = FailureKind::BadAnswer;
        self.counters.count_failure(kind);
        // It may have been forgotten meanwhile.
        if let Some(scheme) = self.upstreams.scheme(endpoint) {
            self.on_failure(endpoint, scheme, &kind.into(), asked_at, now);
        }
    }

    /// A better answer does not come soon: those who wait for one to such an answer get what there
    /// is.
    pub(super) fn settle_for_poor(
        &mut self,
        pool: PoolIndex,
        is_such: impl Fn(&Poor) -> bool,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let has_such = |key: &&ExchangeKey| {
            let exchange = self.exchanges.get(key.0);
            let answer = exchange.and_then(|exchange| exchange.poor.as_deref());
            answer.is_some_and(&is_such)
        };
        let waiting = self.waiting_by_pool[pool.0].iter();
        let settled: Vec<ExchangeKey> = waiting.filter(has_such).copied().collect();
        for key in settled {
            // It was the answer of last resort, too.
            self.fail(key, Outcome::UpstreamFailed, now, outbox);
        }
    }

    /// Hands an answer to whoever asked.
    pub(super) fn deliver(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let exchange = self.exchange(key);
        let asker = exchange.asker;
        if let Asker::Client { origin, reception } = &asker {
            let owed = exchange.owed(reception);
            outbox.respond(*origin, |out| write_answer(out, &owed, answer));
        }
        let exchange = self.exchanges.get(key.0).expect("who is answered is there");
        self.memory.on_answer(exchange.query.question());
        self.end(key, Outcome::Answered, now, outbox);
        if let Asker::Ourselves(upstream, rr_type) = asker {
            self.on_addresses(upstream, rr_type, Some(answer), now, outbox);
        }
    }
}

/// Whether `reply` is a response to `query`, its id aside.
fn answers(reply: &Message<'_>, query: &Query) -> bool {
    let flags = reply.header().flags;
    flags.contains(Flags::QR)
        && flags.opcode() == Opcode::QUERY
        && reply
            .question()
            .is_some_and(|question| question.matches(query.question()))
}

fn worth(answer: &Message<'_>, scheme: Scheme) -> Worth {
    let flags = answer.header().flags;
    if is_error(flags.rcode()) && !answer.opt().as_ref().is_some_and(Opt::has_judgement) {
        Worth::Nothing
    } else if scheme == Scheme::Udp && flags.contains(Flags::TC) {
        Worth::Part
    } else {
        Worth::All
    }
}

/// Whether a resolver says with this code that it could not or would not answer.
fn is_error(rcode: Rcode) -> bool {
    matches!(
        rcode,
        Rcode::FORMERR | Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED
    )
}
