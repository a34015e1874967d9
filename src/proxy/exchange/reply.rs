//! Handling of a reply from upstream: it becomes the response, causes another attempt, or is
//! dropped.
//!
//! An error may be a fault of the upstream that reports it, so another upstream is asked. If that
//! upstream has an answer, the first one is known to be at fault; if no upstream has an answer, the
//! error is the response. A truncated answer to a datagram is asked for again over TCP. A malformed
//! or truncated answer on a connection is asked for once more, if necessary from the same upstream.
//! A query is also repeated after several replies with another question on its connection.
//!
//! A reply whose id is unknown may be late or a repetition. If such a message on a connection is no
//! reply at all, the frames of the stream are misread, and the connection is ended.

use super::Exchange;
use super::classify::{
    Reply, ReplyQuality, classify, is_reply, keepalive, quality, reduced_edns_level, shortened,
};
use super::retry::{AnswerSource, BadAnswer};
use super::trace::StepEnd;
use crate::base::failure::{Failure, FailureKind};
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::followups::Followup;
use crate::proxy::keys::{Attempt, EndpointKey, ExchangeKey, LinkKey, PoolIndex, UpstreamIndex};
use crate::proxy::outcome::{Discard, Outcome};
use crate::proxy::upstream::link::{Abandoned, QuestionHash, Sent, SentState};
use crate::wire::{Flags, Header, Message, Opcode};

const PROTOCOL: FailureKind = FailureKind::Protocol;

impl Proxy {
    /// Handles a message from upstream.
    pub fn handle_reply(&mut self, key: LinkKey, reply: &[u8], now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        self.on_reply(key, reply, cx);
        self.settle(cx);
    }

    fn on_reply(&mut self, key: LinkKey, reply: &[u8], cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        let header = Header::parse(reply);
        let placed = header.and_then(|header| Some((header, link.position(header.id)?)));
        let Some((header, position)) = placed else {
            let is_stream = link.scheme != Scheme::Udp;
            self.counters.count_discard(Discard::UnknownId);
            if is_stream && !is_reply(reply) {
                let detail = "message is not a DNS response";
                self.close(key, Failure::new(FailureKind::Protocol, detail), cx);
            }
            return;
        };
        let sent = link.sent()[position];
        // The stream of a reply over HTTP/2 has ended: no other reply can follow.
        let is_final = link.scheme == Scheme::Https;
        if !header.flags.contains(Flags::QR) && !is_final {
            return self.counters.count_discard(Discard::Mismatch);
        }
        let Some(exchange_key) = sent.exchange() else {
            self.on_late_reply(key, position, (header, reply), cx.now);
            return self.followups.on_room();
        };
        let (endpoint, scheme) = (link.endpoint, link.scheme);
        let exchange = self.exchanges.get(exchange_key);
        let query = &exchange
            .expect("an exchange in a link's table exists")
            .query;
        let parsed = Message::parse(reply);
        match classify(reply, parsed.as_ref().ok(), header, query, scheme) {
            Reply::Answer(message) => {
                self.on_matching_answer(key, position, exchange_key, message, cx);
            }
            Reply::Bare(header) => {
                let bytes = header.to_bytes();
                let message = Message::parse(&bytes).expect("a header without records");
                self.on_matching_answer(key, position, exchange_key, &message, cx);
            }
            // The datagram may be forged, and the genuine reply may still come (RFC 5452, section
            // 9.1).
            Reply::Mismatch if scheme == Scheme::Udp => {
                return self.counters.count_discard(Discard::Mismatch);
            }
            Reply::Malformed if scheme == Scheme::Udp => {
                return self.counters.count_discard(Discard::Malformed);
            }
            Reply::Mismatch if is_final => {
                self.counters.count_discard(Discard::Mismatch);
                self.on_unusable_reply((key, position), exchange_key, (PROTOCOL, None), cx);
            }
            Reply::Mismatch => {
                self.counters.count_discard(Discard::Mismatch);
                if !self.upstreams.on_unmatched(endpoint, cx.now) {
                    return;
                }
                let owed = Some(QuestionHash::of(query.question()));
                self.on_unusable_reply((key, position), exchange_key, (PROTOCOL, owed), cx);
            }
            Reply::Malformed => {
                self.counters.count_discard(Discard::Malformed);
                self.on_unusable_reply((key, position), exchange_key, (PROTOCOL, None), cx);
            }
        }
        self.followups.on_room();
    }

    /// Handles a reply on a connection that is malformed or missing or, if the answer to its query
    /// is still `owed`, does not match the query. Replies that do not match are no answers, so an
    /// upstream that sends no others is silent.
    pub(in crate::proxy) fn on_unusable_reply(
        &mut self,
        (key, position): (LinkKey, usize),
        exchange_key: ExchangeKey,
        (kind, owed): (FailureKind, Option<QuestionHash>),
        cx: &mut Cx<'_>,
    ) {
        let link = self.upstreams.link_mut(key).expect("the link exists");
        let (sent, endpoint) = (link.sent()[position], link.endpoint);
        if let Some(question) = owed {
            let abandoned = Abandoned {
                question,
                is_answered: false,
            };
            link.abandon(sent.id, abandoned, cx.now);
            self.followups.push(Followup::Judge {
                link: key,
                is_unresponsive: false,
            });
        } else {
            link.remove_sent(position, cx.now);
            self.followups.on_link_answered(key, link);
        }
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        self.count_failure(upstream, kind);
        let attempt = Attempt {
            link: key,
            id: sent.id,
        };
        let exchange = &mut self.exchanges[exchange_key];
        exchange.last_failure = Some(kind);
        exchange.attempts.on_error(attempt);
        let end = StepEnd::Failed(kind);
        exchange.tracer.on_attempt_end(attempt, end, cx.now);
        exchange.retry.set_bad_answer(BadAnswer {
            by: endpoint,
            sent_at: sent.at,
            is_malformed: true,
        });
        self.ask_once_more(exchange_key, upstream, cx);
    }

    /// Asks once more after an unusable answer on a connection: another upstream or, if there is
    /// none, this one.
    fn ask_once_more(&mut self, key: ExchangeKey, upstream: UpstreamIndex, cx: &mut Cx<'_>) {
        let exchange = &mut self.exchanges[key];
        let is_first = exchange.retry.add_unusable(upstream);
        if exchange.has_pending_attempt() {
            return;
        }
        if is_first && exchange.attempts.may_be_sent() {
            exchange.preferences.avoid.insert(upstream);
            self.dispatch(key, cx);
        } else {
            self.ask_elsewhere(key, upstream, cx);
        }
    }

    /// Updates the health of the upstream from a reply that no exchange waits for.
    fn on_late_reply(
        &mut self,
        key: LinkKey,
        position: usize,
        (header, reply): (Header, &[u8]),
        now: Instant,
    ) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let (endpoint, sent, scheme) = (link.endpoint, link.sent()[position], link.scheme);
        let parsed = Message::parse(reply);
        let question = parsed.as_ref().ok().and_then(Message::question);
        let is_other = question.map(QuestionHash::of) != sent.unawaited_question();
        if header.flags.opcode() != Opcode::QUERY || question.is_some() && is_other {
            if scheme != Scheme::Udp {
                self.upstreams.on_unmatched(endpoint, now);
            }
            return self.counters.count_discard(Discard::Mismatch);
        }
        let abandoned = match sent.state {
            SentState::Abandoned(abandoned) => Some(abandoned),
            _ => None,
        };
        if abandoned.is_some() {
            self.counters.count_discard(Discard::Late);
        }
        let is_useful = parsed.is_ok_and(|reply| {
            reply.question().is_some() && quality(&reply, scheme) == ReplyQuality::Final
        });
        self.on_answer(key, position, is_useful, now);
        let is_answered = abandoned.is_some_and(|abandoned| abandoned.is_answered);
        if is_answered && !is_useful && self.upstreams.has_outage(endpoint) {
            self.on_bad_answer_in_outage(endpoint, sent.at, now);
        }
    }

    /// Handles an answer to a query that waits for it.
    fn on_matching_answer(
        &mut self,
        key: LinkKey,
        position: usize,
        exchange_key: ExchangeKey,
        answer: &Message<'_>,
        cx: &mut Cx<'_>,
    ) {
        let link = self.upstreams.link_mut(key).expect("the link exists");
        let (sent, endpoint, scheme) = (link.sent()[position], link.endpoint, link.scheme);
        if let Some(timeout) = keepalive(answer, scheme) {
            link.on_keepalive(timeout);
        }
        let quality = quality(answer, scheme);
        let is_error = quality.is_error();
        let upstream = self.on_answer(key, position, !is_error, cx.now);
        let exchange = &mut self.exchanges[exchange_key];
        exchange.answered_by = Some(upstream);
        let id = sent.id;
        let attempt = Attempt { link: key, id };
        let end = StepEnd::Answered(answer.header().flags.rcode());
        exchange.tracer.on_attempt_end(attempt, end, cx.now);
        if quality == ReplyQuality::Final {
            exchange.attempts.on_lost(attempt);
            exchange.is_answered = true;
            let source = || AnswerSource {
                endpoint,
                upstream,
                scheme,
                edns: sent.edns,
                sent_at: sent.at,
            };
            if self.validator.is_some() {
                return self.validate(exchange_key, answer, source(), cx);
            }
            self.on_accepted(exchange_key, source, cx.now);
            return self.deliver(exchange_key, answer, cx);
        }
        self.on_unusable_answer(attempt, sent, exchange_key, (answer, quality), cx);
    }

    /// Handles an error, or a truncated answer, to a query that waits for it: asks again, with a
    /// reduced EDNS level, over a connection or elsewhere, and keeps the answer as the fallback
    /// response.
    fn on_unusable_answer(
        &mut self,
        attempt: Attempt,
        sent: Sent,
        exchange_key: ExchangeKey,
        (answer, quality): (&Message<'_>, ReplyQuality),
        cx: &mut Cx<'_>,
    ) {
        let link = self.upstreams.link(attempt.link);
        let link = link.expect("a link that answers exists");
        let (endpoint, scheme) = (link.endpoint, link.scheme);
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let is_error = quality.is_error();
        let is_in_doubt = self.upstreams.endpoint(endpoint).is_edns_in_doubt(cx.now);
        let needs_dnssec = self.needs_dnssec(&self.exchanges[exchange_key]);
        let doubt = (is_in_doubt, needs_dnssec);
        let exchange = &mut self.exchanges[exchange_key];
        if is_error
            && let Some(edns) =
                reduced_edns_level(answer, &exchange.query, sent.edns, scheme, doubt)
        {
            exchange.retry.reduce_edns(endpoint, edns);
            exchange.attempts.on_error(attempt);
            if exchange.attempts.may_be_sent() && !exchange.has_pending_attempt() {
                return self.ask_again(exchange_key, attempt.link, endpoint, cx);
            }
        }
        exchange.retry.set_fallback(shortened(answer));
        if is_error {
            exchange.retry.set_bad_answer(BadAnswer {
                by: endpoint,
                sent_at: sent.at,
                is_malformed: false,
            });
            exchange.attempts.on_error(attempt);
            let question = exchange.query.question();
            self.upstreams.on_error(endpoint, question, cx.now);
        } else {
            exchange.attempts.on_uncounted_end(attempt);
            exchange.preferences.needs_stream = true;
        }
        let exchange = &self.exchanges[exchange_key];
        let may_be_sent = exchange.attempts.may_be_sent();
        if quality == ReplyQuality::TruncatedStream {
            return self.ask_once_more(exchange_key, upstream, cx);
        }
        if exchange.has_pending_attempt() {
            return;
        }
        if is_error {
            self.ask_elsewhere(exchange_key, upstream, cx);
        } else if may_be_sent {
            self.dispatch(exchange_key, cx);
        } else {
            self.deliver_unchecked(exchange_key, answer, cx);
        }
    }

    /// Asks another upstream than the one that gave an error or a malformed reply. If there is
    /// none, the error is the response, unless an attempt may still be answered.
    pub(in crate::proxy) fn ask_elsewhere(
        &mut self,
        key: ExchangeKey,
        upstream: UpstreamIndex,
        cx: &mut Cx<'_>,
    ) {
        self.exchanges[key].preferences.exclude.insert(upstream);
        if !self.begin_retry(key, cx.now) {
            self.give_up(key, cx);
        } else if !self.exchanges[key].is_waiting {
            self.dispatch(key, cx);
        }
    }

    /// Returns whether a query may be sent once more, to an upstream that it does not exclude. A
    /// recovery test of that upstream may begin.
    pub(in crate::proxy) fn begin_retry(&mut self, key: ExchangeKey, now: Instant) -> bool {
        let exchange = &self.exchanges[key];
        let (pool, preferences) = (exchange.pool, &exchange.preferences);
        exchange.attempts.may_be_sent()
            && self.upstreams.begin_retry_elsewhere(pool, preferences, now)
    }

    /// Records that an answer becomes the response.
    #[inline]
    pub(in crate::proxy) fn on_accepted(
        &mut self,
        key: ExchangeKey,
        source: impl FnOnce() -> AnswerSource,
        now: Instant,
    ) {
        let exchange = &mut self.exchanges[key];
        exchange.retry.take_fallback();
        if exchange.has_history() || !self.bad_answers.is_empty() {
            self.on_good_answer(key, &source(), now);
        }
    }

    /// Updates the health of the endpoint that gave a good answer after failed attempts, and of the
    /// upstream that failed before.
    fn on_good_answer(&mut self, key: ExchangeKey, source: &AnswerSource, now: Instant) {
        let (endpoint, scheme, edns) = (source.endpoint, source.scheme, source.edns);
        if let Some(close) = self.exchanges[key].retry.take_close(endpoint) {
            self.upstreams.learn_queries_max(endpoint, close, now);
        }
        let exchange = &self.exchanges[key];
        if exchange.retry.is_stream_fallback() {
            let are_lost = scheme == Scheme::Tcp;
            self.upstreams.set_datagrams_lost(endpoint, are_lost, now);
        }
        // The options of a client's query must not decide the EDNS of other clients' queries.
        if exchange.retry.reduced_edns(endpoint) == Some(edns) && !exchange.query.has_options() {
            self.upstreams.on_reduced_answer(endpoint, edns, now);
        }
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let question = exchange.query.question();
        self.bad_answers.on_answer(question, upstream);
        self.suspects.on_answer(question, upstream);
        let Some(bad_answer) = exchange.retry.bad_answer().filter(|bad| bad.by != endpoint) else {
            return;
        };
        // The endpoint may have been removed meanwhile.
        let Some(failed_endpoint) = self.upstreams.find_endpoint(bad_answer.by) else {
            return;
        };
        let failed = failed_endpoint.upstream;
        if failed != upstream {
            self.bad_answers.add(question, failed, now);
        }
        if self.upstreams.on_bad_answer(bad_answer.by, question, now) {
            self.on_bad_answer_in_outage(bad_answer.by, bad_answer.sent_at, now);
        } else if !bad_answer.is_malformed {
            self.count_failure(failed, FailureKind::BadAnswer);
        }
    }

    /// Records that an endpoint in outage gave an error to a query of that time, while another
    /// endpoint had an answer.
    fn on_bad_answer_in_outage(&mut self, endpoint: EndpointKey, sent_at: Instant, now: Instant) {
        let kind = FailureKind::BadAnswer;
        if let Some(scheme) = self.upstreams.scheme(endpoint) {
            self.count_failure(self.upstreams.endpoint(endpoint).upstream, kind);
            self.on_failure(endpoint, scheme, &kind.into(), sent_at, now);
        }
    }

    /// Asks the same endpoint again with a reduced EDNS level, on the same link if that link
    /// accepts another query.
    fn ask_again(
        &mut self,
        key: ExchangeKey,
        link_key: LinkKey,
        endpoint: EndpointKey,
        cx: &mut Cx<'_>,
    ) {
        let link = self.upstreams.link(link_key);
        match link
            .filter(|link| link.takes_queries())
            .map(|link| link.scheme)
        {
            Some(Scheme::Udp) if self.upstreams.has_room_for_datagram_to(endpoint) => {
                let link = self.open(endpoint, Scheme::Udp, cx);
                self.send(key, link, cx);
            }
            Some(Scheme::Tcp | Scheme::Tls | Scheme::Https) => self.send(key, link_key, cx),
            Some(Scheme::Udp) | None => self.dispatch(key, cx),
        }
    }

    /// Retries exchanges that have an error and wait for a link, because this upstream cannot be
    /// connected to, or not soon. They ask another upstream.
    pub(in crate::proxy) fn retry_after_error(
        &mut self,
        pool: PoolIndex,
        upstream: UpstreamIndex,
        cx: &mut Cx<'_>,
    ) {
        for key in self.waiting_with(pool, Exchange::has_error) {
            // An exchange may be answered as a consequence of an earlier one in this list.
            if self.exchanges.contains(key) {
                self.ask_elsewhere(key, upstream, cx);
            }
        }
    }

    /// Responds with the truncated answer to exchanges that have one, because no connection could
    /// be opened.
    pub(in crate::proxy) fn deliver_truncated(&mut self, pool: PoolIndex, cx: &mut Cx<'_>) {
        for key in self.waiting_with(pool, Exchange::has_truncated) {
            if self.exchanges.contains(key) {
                self.fail(key, Outcome::UpstreamFailed, cx);
            }
        }
    }

    /// Returns the exchanges that wait for a link of a pool and for which `is_such` holds.
    pub(in crate::proxy) fn waiting_with(
        &self,
        pool: PoolIndex,
        is_such: impl Fn(&Exchange) -> bool,
    ) -> Vec<ExchangeKey> {
        let is_one = |key: &ExchangeKey| {
            let exchange = self.exchanges.get(*key);
            exchange.is_some_and(|exchange| exchange.is_waiting && is_such(exchange))
        };
        let waiting = self.waiting_by_pool[pool.0].iter();
        waiting.filter(is_one).collect()
    }
}
