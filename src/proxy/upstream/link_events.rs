//! Reactions to the events of a link: closes, answers and missing answers.

use super::AnswerFacts;
use super::explain_failure::explain_failure;
use super::link::{Abandoned, Link, Stage};
use super::suspects::{EndReason, LinkEnd};
use crate::base::failure::{Failure, FailureKind};
use crate::base::time::Instant;
use crate::config::{Scheme, Timeouts};
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::exchange::{Exchange, Purpose};
use crate::proxy::followups::Followup;
use crate::proxy::keys::{Attempt, EndpointKey, ExchangeKey, LinkKey, PoolIndex, UpstreamIndex};
use crate::proxy::outcome::Outcome;
use crate::wire::query::EdnsLevel;

impl Proxy {
    /// Records that a link ended or could not be opened, for a reason on the side of the peer.
    pub fn handle_link_down(
        &mut self,
        key: LinkKey,
        failure: &Failure,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let cx = &mut Cx { now, outbox };
        self.on_link_down(key, failure, cx);
        self.settle(cx);
    }

    fn on_link_down(&mut self, key: LinkKey, failure: &Failure, cx: &mut Cx<'_>) {
        let is_isolated = self.upstreams.is_isolated(key);
        let Some(link) = self.upstreams.remove(key) else {
            return;
        };
        let was_opening = link.stage == Stage::Opening;
        let was_idle = link.sent().is_empty();
        // The silence of a retired link was judged when the link was retired.
        let is_judged = link.stage == Stage::Retired && failure.kind == FailureKind::Stalled;
        let counts = !is_judged
            && (was_opening
                || failure.kind != FailureKind::Closed
                || !(was_idle || link.has_answered()));
        let endpoint = self.upstreams.endpoint(link.endpoint);
        let (upstream, port) = (endpoint.upstream, endpoint.address.port());
        let failure = &explain_failure(&link, port, self.config.key_exchange, failure);
        // A loop is counted once, even if it ends several links.
        if failure.kind != FailureKind::Loop && !is_judged {
            self.count_failure(upstream, failure.kind);
        }
        let reason = self.end_reason((key, &link), failure.kind, is_isolated, cx.now);
        let may_be_due_to_oldest = self.upstreams.may_be_due_to_oldest(&link, cx.now);
        if failure.kind == FailureKind::Closed
            && link.scheme != Scheme::Udp
            && link.stage == Stage::Up
            && !is_isolated
        {
            self.upstreams
                .on_closed(&link, may_be_due_to_oldest, cx.now);
        }
        if counts && reason == EndReason::Endpoint {
            self.on_failure(
                link.endpoint,
                link.scheme,
                failure,
                link.opened_at(),
                cx.now,
            );
        } else {
            let label = self.upstreams.endpoint(link.endpoint).label();
            log::debug!("upstream {label}: {failure}");
        }
        if was_opening {
            self.trace_failed_handshake(&link, failure.kind, cx.now);
        }
        let end = LinkEnd {
            reason,
            kind: failure.kind,
            is_isolated,
            may_be_due_to_oldest,
        };
        self.resend_queries_of(key, &link, end, cx);
        if end.kind == FailureKind::Closed && may_be_due_to_oldest && !is_isolated {
            self.probe_second_connection(link.endpoint, cx);
        }
        if is_isolated && reason == EndReason::Query {
            self.probe_if_silent(link.endpoint, link.opened_at(), cx);
        }
        if was_opening || link.scheme == Scheme::Udp {
            for pool in self.upstreams.pools_of(upstream) {
                if link.scheme == Scheme::Tcp {
                    self.return_to_datagrams(link.endpoint, pool, cx.now);
                }
                self.retry_after_error(pool, upstream, cx);
                self.deliver_truncated(pool, cx);
                self.fail_waiting_if_unreachable(pool, cx);
            }
        }
        self.followups.on_room();
    }

    /// Retries the queries of a link that has ended. A close after an answer is progress and costs
    /// a try only for the oldest query, which may be the reason for the close (RFC 7766, section
    /// 6.2.4). A close because of too many connections costs no try, nor does a close without an
    /// answer if another connection was answered since the closed one was opened. A malformed frame
    /// is like a close. The end of an isolated link always costs a try.
    pub(in crate::proxy) fn resend_queries_of(
        &mut self,
        key: LinkKey,
        link: &Link,
        end: LinkEnd,
        cx: &mut Cx<'_>,
    ) {
        let is_turned_away = end.reason == EndReason::Surplus;
        let is_by_peer = link.is_ended_by_peer(end.kind);
        // One of the queries may be the reason for the end.
        let may_be_due_to_query = is_by_peer && !is_turned_away;
        // An isolated link has only the query that may be the reason, so its end costs a try.
        let is_shared_end = is_by_peer && !end.is_isolated;
        let endpoint = self.upstreams.endpoint(link.endpoint);
        let has_others = endpoint
            .last_answer
            .is_some_and(|at| at >= link.opened_at());
        let mut is_uncounted =
            is_turned_away || is_shared_end && !link.has_answered() && has_others;
        for sent in link.sent() {
            let Some(exchange_key) = sent.exchange() else {
                continue;
            };
            let attempt = Attempt {
                link: key,
                id: sent.id,
            };
            if let Some(exchange) = self.exchanges.get_mut(exchange_key) {
                if !is_turned_away {
                    exchange.preferences.min_up_since = cx.now;
                }
                if is_uncounted || may_be_due_to_query && self.is_ambiguous(exchange_key, link, end)
                {
                    let attempts = &mut self.exchanges[exchange_key].attempts;
                    attempts.on_uncounted_end(attempt);
                }
                if may_be_due_to_query {
                    self.on_link_ended(exchange_key, link, sent.at, end, cx.now);
                }
                if link.scheme == Scheme::Udp && end.kind == FailureKind::Connect {
                    let upstream = self.upstreams.endpoint(link.endpoint).upstream;
                    let preferences = &mut self.exchanges[exchange_key].preferences;
                    preferences.avoid.insert(upstream);
                    self.prefer_stream(exchange_key, Scheme::Udp, true);
                }
            }
            // Only the oldest query may be the reason for a close after answers.
            is_uncounted |= is_shared_end && link.has_answered();
            self.lose_attempt(exchange_key, attempt, end.kind, cx);
        }
    }

    /// Records that no exchange waits for this query any more. `outcome` is the outcome of the
    /// exchange.
    pub(in crate::proxy) fn abandon(
        &mut self,
        attempt: Attempt,
        outcome: Outcome,
        abandoned: Abandoned,
        now: Instant,
    ) {
        let Some(link) = self.upstreams.link_mut(attempt.link) else {
            return;
        };
        let silence = link.abandon(attempt.id, abandoned, now);
        // The query may have been sent shortly before its deadline.
        let is_unresponsive =
            outcome == Outcome::TimedOut && silence >= self.config.timeouts.attempt / 4;
        let link = attempt.link;
        self.followups.push(Followup::Judge {
            link,
            is_unresponsive,
        });
    }

    /// Retires a link that let a query time out and has answered nothing since (`is_unresponsive`),
    /// or that has too many outstanding answers.
    pub(in crate::proxy) fn judge_link(
        &mut self,
        key: LinkKey,
        is_unresponsive: bool,
        cx: &mut Cx<'_>,
    ) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let is_behind = link.abandoned() > self.config.limits.link_abandoned;
        let (endpoint, scheme, since) = (link.endpoint, link.scheme, link.silent_since());
        if link.stage == Stage::Up && (is_unresponsive || is_behind) {
            // Names that are never answered fill a link and are not an outage. Without another
            // sign of an outage, a probe on the link has to be unanswered as well.
            let Timeouts { slow, attempt, .. } = self.config.timeouts;
            let address = self.upstreams.endpoint(endpoint);
            let is_failing = link.are_most_answered_elsewhere() || address.last_failure().is_some();
            let is_outage = |since: &Instant| {
                let is_long = if is_failing {
                    cx.now - *since > slow
                } else {
                    link.has_unanswered_probe(*since, attempt / 2, cx.now)
                };
                is_long && self.is_outage(key, *since)
            };
            if let Some(since) = since.filter(is_outage) {
                let failure = address.stalled();
                self.on_failure(endpoint, scheme, &failure, since, cx.now);
            }
            self.retire(key, cx);
        }
        self.close_if_done(key, cx.outbox);
    }

    /// Closes a retired link if no exchange waits for its queries.
    pub(in crate::proxy) fn close_if_done(&mut self, key: LinkKey, outbox: &mut Outbox) {
        if self.upstreams.link(key).is_some_and(Link::is_done) {
            self.upstreams.remove(key);
            outbox.close(key);
        }
    }

    /// Closes a link after a failure of the peer, unless it is closed already.
    pub(in crate::proxy) fn close(
        &mut self,
        key: LinkKey,
        failure: impl Into<Failure>,
        cx: &mut Cx<'_>,
    ) {
        if self.upstreams.link(key).is_some() {
            cx.outbox.close(key);
            self.on_link_down(key, &failure.into(), cx);
        }
    }

    /// Retires a link.
    pub(in crate::proxy) fn retire(&mut self, key: LinkKey, cx: &mut Cx<'_>) {
        if let Some(one_too_many) = self.upstreams.retire(key) {
            // A handshake that is given up makes room for another one only when it has ended.
            self.close_if_done(key, cx.outbox);
            let close = Followup::Close(one_too_many, FailureKind::Stalled);
            self.followups.push(close);
        }
    }

    /// Records an answer to the query at `position` on a link, which `is_useful` if it helps a
    /// client. Returns the upstream.
    pub(in crate::proxy) fn on_answer(
        &mut self,
        key: LinkKey,
        position: usize,
        is_useful: bool,
        now: Instant,
    ) -> UpstreamIndex {
        let link = self.upstreams.link_mut(key);
        let link = link.expect("a link that answers exists");
        let answer = AnswerFacts {
            is_useful,
            order: link.order_of_answer(position),
            has_full_edns: link.sent()[position].edns == EdnsLevel::Full,
            took: link.on_answer(position, now),
        };
        let (endpoint, opened_at) = (link.endpoint, link.opened_at());
        let (scheme, is_first) = (link.scheme, link.answers() == 1);
        self.followups.on_link_answered(key, link);
        let upstreams = &mut self.upstreams;
        if is_first && scheme != Scheme::Udp {
            upstreams.on_first_answer(endpoint, scheme, now);
        }
        let (upstream, is_recovered) = upstreams.on_answer(endpoint, opened_at, answer, now);
        if is_recovered {
            self.forget_failures(endpoint, now);
        }
        upstream
    }

    /// Forgets cached failures after the outage of an endpoint has ended, since they may not recur.
    pub(in crate::proxy) fn forget_failures(&mut self, endpoint: EndpointKey, now: Instant) {
        for pool in self.upstreams.pools_with(endpoint) {
            self.failures.forget(pool, now);
        }
        self.suspects.forget();
        self.cache.on_recovery(now);
    }

    /// Chooses the protocol of the next attempt after a query was not answered on a link of this
    /// protocol. If the query was sent in a datagram and every upstream of the pool was sent one,
    /// the next attempt uses a connection, since a firewall may block UDP port 53. A bootstrap
    /// query switches at once, and so does every query if the datagram was rejected; other queries
    /// switch after a second datagram, since the network may have lost the first.
    pub(super) fn prefer_stream(&mut self, key: ExchangeKey, scheme: Scheme, is_rejected: bool) {
        let exchange = &mut self.exchanges[key];
        let is_one_enough = is_rejected || matches!(exchange.purpose, Purpose::Bootstrap(..));
        let had_datagrams = exchange.attempts.times_sent() >= if is_one_enough { 1 } else { 2 };
        let tried = exchange.preferences.avoid;
        if scheme == Scheme::Udp
            && had_datagrams
            && !exchange.retry.is_stream_fallback()
            && self.upstreams.is_covered(exchange.pool, tried)
        {
            exchange.retry.set_stream_fallback();
            exchange.preferences.needs_stream = true;
        }
    }

    /// Moves the queries that wait for a TCP connection back to datagrams after the connection
    /// failed.
    pub(in crate::proxy) fn return_to_datagrams(
        &mut self,
        endpoint: EndpointKey,
        pool: PoolIndex,
        now: Instant,
    ) {
        let is_fallback = |exchange: &Exchange| {
            exchange.retry.is_stream_fallback() && !exchange.retry.has_fallback()
        };
        for key in self.waiting_with(pool, is_fallback) {
            self.exchanges[key].preferences.needs_stream = false;
        }
        self.upstreams.set_datagrams_lost(endpoint, false, now);
    }

    pub(in crate::proxy) fn count_failure(&mut self, upstream: UpstreamIndex, kind: FailureKind) {
        self.counters.count_failure(kind);
        self.upstreams.stats_of_mut(upstream).failures[kind as usize] += 1;
    }

    /// Records a failure since `since` of links with this protocol to an endpoint.
    pub(in crate::proxy) fn on_failure(
        &mut self,
        endpoint: EndpointKey,
        scheme: Scheme,
        failure: &Failure,
        since: Instant,
        now: Instant,
    ) {
        self.upstreams
            .on_failure(endpoint, scheme, failure, since, now, &mut self.random);
        self.doubt_address(endpoint, failure.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::Scene;
    use crate::proxy::{Action, ClientTransport};
    use std::time::Duration;

    const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    impl Scene {
        /// Answers the query with this name among those that were sent. Returns the names of the
        /// clients' queries that have a response.
        fn answer_named(&mut self, sent: &[(LinkKey, Vec<u8>)], name: u8) -> Vec<u8> {
            let one = sent.iter().find(|(_, query)| query[13] == name);
            let (link, query) = one.expect("the query was sent");
            let mut reply = query[..19].to_vec();
            (reply[2], reply[3], reply[11]) = (0x81, 0x80, 0);
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            outbox.clear();
            proxy.handle_reply(*link, &reply, self.now, outbox);
            self.names_answered()
        }

        fn names_answered(&self) -> Vec<u8> {
            let names = self.outbox.actions().iter().filter_map(|action| {
                let Action::Respond { message, .. } = action else {
                    return None;
                };
                Some(self.outbox.bytes(message)[13])
            });
            names.collect()
        }
    }

    #[test]
    fn query_behind_closes_after_answers_loses_no_try() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        let named = |name: u8| {
            let mut query = QUERY.to_vec();
            query[13] = name;
            query
        };
        // The oldest query of each connection may be the reason for the close, and the next one is
        // not.
        let link_of = |sent: &[(LinkKey, Vec<u8>)], name: u8| {
            let one = sent.iter().find(|(_, query)| query[13] == name);
            one.expect("the query was sent").0
        };
        let mut sent = Vec::new();
        for (nth, (answers, names)) in [(12, b'a'..), (8, b'm'..), (5, b'2'..), (3, b'7'..)]
            .into_iter()
            .enumerate()
        {
            let fresh = if sent.is_empty() { &b"01"[..] } else { b"" };
            for name in fresh.iter().copied().chain(names.clone().take(answers)) {
                scene.ask(&named(name), ClientTransport::Udp);
                scene.bring_up();
                sent.extend(scene.sent());
            }
            scene.now += Duration::from_millis(5);
            for name in names.take(answers) {
                assert_eq!(scene.answer_named(&sent, name), [name]);
            }
            let link = link_of(&sent, b'1');
            let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
            outbox.clear();
            proxy.handle_link_down(link, &FailureKind::Closed.into(), scene.now, outbox);
            assert_eq!(scene.names_answered(), []);
            scene.bring_up();
            sent = scene.sent();
            if nth == 1 {
                // Two connections were closed with this query as their oldest one.
                assert_ne!(link_of(&sent, b'0'), link_of(&sent, b'1'));
                assert_eq!(scene.answer_named(&sent, b'0'), b"0");
            }
        }
        assert_eq!(scene.answer_named(&sent, b'1'), [b'1']);
    }

    #[test]
    fn surplus_link_that_is_done_is_closed_once() {
        let mut scene = Scene::with(&["-u", "192.0.2.1"]);
        scene.ask(QUERY, ClientTransport::Udp);
        let first = scene.opened_last();
        let endpoint = scene
            .proxy
            .upstreams
            .link(first)
            .expect("the link is open")
            .endpoint;
        let links_max = scene.proxy.config.limits.links_per_address;
        let mut links = Vec::new();
        for _ in 0..=links_max {
            scene.now += Duration::from_secs(1);
            let (now, outbox) = (scene.now, &mut scene.outbox);
            let cx = &mut Cx { now, outbox };
            links.push(scene.proxy.open(endpoint, Scheme::Tls, cx));
        }
        scene.bring_up();
        scene.outbox.clear();
        // The oldest is retired last, when there are too many.
        for link in links.iter().rev() {
            let (now, outbox) = (scene.now, &mut scene.outbox);
            scene.proxy.retire(*link, &mut Cx { now, outbox });
        }
        let actions = scene.outbox.actions().iter();
        let is_close = |action: &&Action| matches!(action, Action::CloseLink { .. });
        assert_eq!(actions.filter(is_close).count(), 1);
    }

    #[test]
    fn extended_error_of_a_timeout_tells_how_far_the_connection_came() {
        for (is_connected, expected) in [
            (false, "TCP connection to upstream timed out"),
            (true, "TLS handshake with upstream timed out"),
        ] {
            let mut scene = Scene::with(&["-u", "192.0.2.1"]);
            let query = [&QUERY[..11], &[1], &QUERY[12..]].concat();
            let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
            scene.ask(&[&query[..], opt].concat(), ClientTransport::Udp);
            let link = scene.opened_last();
            if is_connected {
                scene.proxy.handle_link_connected(link);
            }
            scene.now += Duration::from_secs(3);
            scene.outbox.clear();
            scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
            let mut actions = scene.outbox.actions().iter();
            let response = actions.find_map(|action| match action {
                Action::Respond { message, .. } => Some(scene.outbox.bytes(message)),
                _ => None,
            });
            let response = String::from_utf8_lossy(response.expect("SERVFAIL")).into_owned();
            assert!(response.contains(expected), "{response:?}");
        }
    }
}
