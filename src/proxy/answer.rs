//! What becomes of a message from upstream: a response, a reason to look for a better one, or
//! nothing.
//!
//! An error that is trouble of the resolver which reports it may not be that of another one, so
//! others are asked: if one has an answer, the first is known to be in trouble, and if none has,
//! the error is the response. An answer that was cut short to fit a datagram is asked for on a
//! connection.

use std::iter;

use super::Proxy;
use super::cache::Kept;
use super::counters::{Discard, Outcome};
use super::exchange::{Asker, Attempt, Poor};
use super::keys::{EndpointKey, ExchangeKey, LinkKey, PoolIndex, UpstreamIndex};
use super::outbox::Outbox;
use super::trace::StepEnd;
use super::upstream::link::SentState;
use crate::config::Scheme;
use crate::failure::FailureKind;
use crate::time::Instant;
use crate::wire::edns::ExtendedErrorCode;
use crate::wire::query::UDP_SIZE;
use crate::wire::response::write_answer;
use crate::wire::{Flags, Header, Message, Opcode, Query, Rcode};

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
            self.on_late_answer(key, place, header.flags.rcode(), now);
            return self.close_if_done(key, outbox);
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
        let (endpoint, sent) = (link.endpoint, link.sent()[place]);
        self.on_answer(key, place, !is_error(rcode), now);
        let is_answered = sent.state == SentState::Abandoned { is_answered: true };
        if is_answered && is_error(rcode) {
            self.on_bad_answer(endpoint, sent.at, now);
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
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let exchange = self.exchange_mut(exchange_key);
        exchange.answered_by = Some(upstream);
        let attempt = Attempt {
            link: key,
            id: sent.id,
        };
        let end = StepEnd::Answered(answer.header().flags.rcode());
        exchange.tracer.on_attempt_end(attempt, end, now);
        if worth == Worth::All {
            exchange.on_attempt_lost(attempt);
            exchange.is_answered = true;
            let error_by = exchange.poor.take().and_then(|poor| poor.error_by);
            if let Some((endpoint, asked_at)) = error_by {
                self.on_bad_answer(endpoint, asked_at, now);
            }
            return self.deliver(exchange_key, answer, now, outbox);
        }
        let is_error = worth == Worth::Nothing;
        exchange.poor = Some(Box::new(Poor {
            answer: shortened(answer),
            error_by: is_error.then_some((endpoint, sent.at)),
        }));
        if is_error {
            exchange.on_error(attempt);
        } else {
            exchange.on_attempt_lost(attempt);
            exchange.wishes.on_connection = true;
        }
        let may_be_sent = exchange.may_be_sent();
        if exchange.is_relied_on() || exchange.is_waiting {
            return;
        }
        if is_error {
            self.ask_elsewhere(exchange_key, upstream, now, outbox);
        } else if may_be_sent {
            self.dispatch(exchange_key, now, outbox);
        } else {
            self.deliver(exchange_key, answer, now, outbox);
        }
    }

    /// Looks for another opinion than that of this upstream, which had an error or nothing to say.
    /// Without one, the error that there is is the response.
    pub(super) fn ask_elsewhere(
        &mut self,
        key: ExchangeKey,
        upstream: UpstreamIndex,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let exchange = self.exchange_mut(key);
        exchange.wishes.not_at_all.insert(upstream);
        let (may_be_sent, is_waiting) = (exchange.may_be_sent(), exchange.is_waiting);
        let (pool, wishes) = (exchange.pool, exchange.wishes);
        if !may_be_sent || !self.upstreams.has_other_opinion(pool, &wishes, now) {
            self.fail(key, Outcome::UpstreamFailed, now, outbox);
        } else if !is_waiting {
            self.dispatch(key, now, outbox);
        }
    }

    /// An address gave an error to a query that was sent then, and another had an answer.
    fn on_bad_answer(&mut self, endpoint: EndpointKey, asked_at: Instant, now: Instant) {
        let kind = FailureKind::BadAnswer;
        // It may have been forgotten meanwhile.
        if let Some(scheme) = self.upstreams.scheme(endpoint) {
            self.count_failure(self.upstreams.endpoint(endpoint).upstream, kind);
            self.on_failure(endpoint, scheme, &kind.into(), asked_at, now);
        }
    }

    /// An upstream cannot be connected to, or not soon: those who have an error and wait for
    /// another opinion look elsewhere.
    pub(super) fn reconsider_errors(
        &mut self,
        pool: PoolIndex,
        upstream: UpstreamIndex,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        for key in self.waiting_with(pool, |poor| poor.error_by.is_some()) {
            // One may be answered by what comes of another.
            if self.exchanges.contains(key.0) {
                self.ask_elsewhere(key, upstream, now, outbox);
            }
        }
    }

    /// A connection could not be had: those who have an answer that is cut short get that.
    pub(super) fn settle_for_part(&mut self, pool: PoolIndex, now: Instant, outbox: &mut Outbox) {
        for key in self.waiting_with(pool, |poor| poor.error_by.is_none()) {
            if self.exchanges.contains(key.0) {
                self.fail(key, Outcome::UpstreamFailed, now, outbox);
            }
        }
    }

    /// Who waits for a better answer than one of this kind.
    fn waiting_with(&self, pool: PoolIndex, is_such: impl Fn(&Poor) -> bool) -> Vec<ExchangeKey> {
        let has_such = |key: &&ExchangeKey| {
            let exchange = self.exchanges.get(key.0);
            let answer = exchange.and_then(|exchange| exchange.poor.as_deref());
            answer.is_some_and(&is_such)
        };
        let waiting = self.waiting_by_pool[pool.0].iter();
        waiting.filter(has_such).copied().collect()
    }

    /// Hands an answer to whoever asked.
    pub(super) fn deliver(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let exchange = self.exchanges.get_mut(key.0);
        let exchange = exchange.expect("who is answered is there");
        let bootstrap = match exchange.asker {
            Asker::Bootstrap(upstream, rr_type) => Some((upstream, rr_type)),
            _ => None,
        };
        let question = exchange.query.question();
        if !is_error(answer.header().flags.rcode()) {
            self.memory.on_answer(question, now);
        }
        let kept = match exchange.sought {
            Some(sought) => self.cache.keep(question, sought, answer, now),
            None if exchange.is_for_client() => {
                let flags = exchange.query.flags();
                self.cache.on_reply_apart(question, flags, answer, now);
                Kept::No
            }
            None => Kept::No,
        };
        let outcome = match kept {
            Kept::Better(entry) if entry.is_stale() => Outcome::Stale,
            _ => Outcome::Answered,
        };
        let answered_by = exchange.answered_by;
        let mut followers = std::mem::take(&mut exchange.followers);
        followers.retain(|key| self.exchanges.contains(key.0));
        // Everybody has a response before anybody ends, since that may change the cache.
        self.respond(key, answer, kept, outcome, now, outbox);
        let mut answered = 0;
        while answered < followers.len() && !outbox.is_long() {
            let follower = followers[answered];
            self.exchange_mut(follower).answered_by = answered_by;
            self.respond(follower, answer, kept, outcome, now, outbox);
            answered += 1;
        }
        let later = followers.split_off(answered);
        for key in iter::once(key).chain(followers) {
            self.end(key, outcome, now, outbox);
        }
        self.postpone(later, answer, answered_by, now, outbox);
        if let Some((upstream, rr_type)) = bootstrap {
            self.on_addresses(upstream, rr_type, Some(answer), now, outbox);
        }
    }

    /// Leaves these to a later time, when there is room for their responses: the first of them has
    /// the answer, and the others follow it.
    fn postpone(
        &mut self,
        mut later: Vec<ExchangeKey>,
        answer: &Message<'_>,
        answered_by: Option<UpstreamIndex>,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        if later.is_empty() {
            return;
        }
        if self.postponed.len() >= self.config.limits.answers_postponed {
            // They find it in the cache, or ask once more.
            return self.seek_all(later, now, outbox);
        }
        let first = later.swap_remove(0);
        let exchange = self.exchange_mut(first);
        exchange.answered_by = answered_by;
        exchange.poor = Some(Box::new(Poor {
            answer: answer.bytes().into(),
            error_by: None,
        }));
        exchange.followers = later;
        self.postponed.push_back((now, first));
    }

    /// Since when responses wait for room, if some do.
    pub(super) fn postponed_since(&self) -> Option<Instant> {
        self.postponed.front().map(|(since, _)| *since)
    }

    /// Answers those for whom there was no room, as far as there is now.
    pub(super) fn answer_postponed(&mut self, now: Instant, outbox: &mut Outbox) {
        while !outbox.is_long()
            && let Some((_, key)) = self.postponed.pop_front()
        {
            if self.exchanges.contains(key.0) {
                self.fail(key, Outcome::UpstreamFailed, now, outbox);
            }
        }
        if self.postponed.is_empty() {
            self.postponed.shrink_to(0);
        }
    }

    /// Sends the client, if one asked, this answer or what there is of it in the cache.
    fn respond(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        kept: Kept,
        outcome: Outcome,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        if let Kept::Yes(entry) | Kept::Better(entry) = kept {
            return self.respond_from_cache(key, entry, outcome, now, outbox);
        }
        let exchange = self.exchanges.get(key.0).expect("who asks is there");
        if let Some((ending, owed)) = exchange.ending(outcome) {
            ending.respond(&mut self.counters, now, outbox, |out| {
                write_answer(out, &owed, answer);
            });
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

/// An answer as it is kept while a better is looked for: of a long one, be it an error or cut short
/// all the same, hardly more than that.
fn shortened(answer: &Message<'_>) -> Box<[u8]> {
    match answer.question() {
        Some(question) if answer.bytes().len() > usize::from(UDP_SIZE) => {
            let header = Header {
                answers: 0,
                authorities: 0,
                additionals: 0,
                ..answer.header()
            };
            [&header.to_bytes()[..], question.as_bytes()]
                .concat()
                .into()
        }
        _ => answer.bytes().into(),
    }
}

fn worth(answer: &Message<'_>, scheme: Scheme) -> Worth {
    let flags = answer.header().flags;
    if is_error(flags.rcode()) && !is_verdict(answer) {
        Worth::Nothing
    } else if scheme == Scheme::Udp && flags.contains(Flags::TC) {
        Worth::Part
    } else {
        Worth::All
    }
}

/// Whether an error is a verdict on the name, which is believed at once. REFUSED with the extended
/// error Prohibited is not: it says that the upstream does not serve this client (RFC 8914, section
/// 4.19), and another upstream may.
fn is_verdict(answer: &Message<'_>) -> bool {
    let is_refusal = answer.header().flags.rcode() == Rcode::REFUSED;
    let is_verdict = |code: ExtendedErrorCode| {
        code.is_judgement() && !(is_refusal && code == ExtendedErrorCode::PROHIBITED)
    };
    answer
        .opt()
        .is_some_and(|opt| opt.error_codes().any(is_verdict))
}

/// Whether a resolver says with this code that it could not or would not answer.
fn is_error(rcode: Rcode) -> bool {
    matches!(
        rcode,
        Rcode::FORMERR | Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::edns::{ExtendedError, OptWriter};

    fn worth_of(flags: Flags, rcode: Rcode, reason: u16, scheme: Scheme) -> Worth {
        let header = Header {
            id: 0,
            flags: (Flags::QR | flags).with_rcode(rcode),
            questions: 1,
            answers: 0,
            authorities: 0,
            additionals: 1,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(b"\x01a\0\0\x01\0\x01");
        let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
        writer.extended_error(ExtendedError {
            code: ExtendedErrorCode(reason),
            text: "why",
        });
        writer.finish();
        worth(&Message::parse(&bytes).unwrap(), scheme)
    }

    #[test]
    fn error_is_worth_something_if_it_is_a_verdict_on_the_name() {
        let of = |rcode, reason| worth_of(Flags::default(), rcode, reason, Scheme::Tls);
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
            assert_eq!(of(rcode, 22), Worth::Nothing);
            assert_eq!(of(rcode, 6), Worth::All, "bogus");
            assert_eq!(of(rcode, 15), Worth::All, "blocked");
            assert_eq!(of(rcode, 16), Worth::All, "censored");
            assert_eq!(of(rcode, 17), Worth::All, "filtered");
        }
        assert_eq!(of(Rcode::SERVFAIL, 18), Worth::All, "prohibited");
        assert_eq!(of(Rcode::REFUSED, 18), Worth::Nothing, "for this client");
        assert_eq!(of(Rcode::FORMERR, 0), Worth::Nothing);
        assert_eq!(of(Rcode::NOTIMP, 0), Worth::Nothing);
        assert_eq!(of(Rcode::NXDOMAIN, 0), Worth::All);
        assert_eq!(of(Rcode::NOERROR, 22), Worth::All);
    }

    #[test]
    fn what_is_cut_short_to_fit_a_datagram_is_a_part() {
        let of = |scheme| worth_of(Flags::TC, Rcode::NOERROR, 0, scheme);
        assert_eq!(of(Scheme::Udp), Worth::Part);
        assert_eq!(of(Scheme::Tcp), Worth::All);
        assert_eq!(of(Scheme::Tls), Worth::All);
    }
}
