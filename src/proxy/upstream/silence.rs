//! Silence: what happens to the queries of a link that is slow to come up or to answer. A query is
//! hedged first, then retried; a link without answers is retired.

use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::keys::{Attempt, LinkKey};

impl Proxy {
    /// Handles a link that is slow to come up: its waiting queries use another endpoint, or fail
    /// with the error that they have.
    pub(in crate::proxy) fn on_late(&mut self, key: LinkKey, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        link.note_late();
        let endpoint = link.endpoint;
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        for pool in self.upstreams.pools_of(upstream) {
            self.retry_after_error(pool, upstream, cx);
        }
    }

    /// Handles a link without any answer since `since`: retires the link and retries its queries
    /// elsewhere. The link is kept while the queries may still be answered.
    pub(in crate::proxy) fn on_stalled(&mut self, key: LinkKey, since: Instant, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let (endpoint, scheme) = (link.endpoint, link.scheme);
        let is_outage = self.is_outage(key, since);
        let address = self.upstreams.endpoint(endpoint);
        if is_outage {
            let failure = address.stalled();
            self.count_failure(address.upstream, failure.kind);
            self.on_failure(endpoint, scheme, &failure, since, cx.now);
            self.test_for_loop(key, cx);
        }
        self.retire(key, cx);
        while self.retry_overdue(key, cx) {}
        self.close_if_done(key, cx.outbox);
    }

    /// Returns whether silence on a link since `since` means that its endpoint does not answer. One
    /// slow question or one lost datagram is no outage while other links are answered.
    pub(super) fn is_outage(&self, key: LinkKey, since: Instant) -> bool {
        self.upstreams.link(key).is_some_and(|link| {
            self.upstreams
                .endpoint(link.endpoint)
                .is_silent_since(since)
                || link.has_several_silent()
        })
    }

    /// Hedges a query that takes longer than is usual, within the hedge budget. If no answer has
    /// arrived since, the link may be dead, and all its queries are hedged.
    pub(in crate::proxy) fn hedge(&mut self, key: LinkKey, cx: &mut Cx<'_>) {
        while let Some(link) = self.upstreams.link_mut(key) {
            let endpoint = link.endpoint;
            let Some((id, exchange_key)) = link.note_slow() else {
                return;
            };
            let (is_silent, scheme) = (link.is_silent(), link.scheme);
            let position = link.position(id).expect("a slow query was sent");
            if scheme != Scheme::Udp && link.is_overtaken(position) {
                self.upstreams.on_pipelined_silence(endpoint, false, cx.now);
            }
            if !is_silent || scheme == Scheme::Udp {
                self.test_domain_for_loop(key, exchange_key, cx);
            }
            let attempt = Attempt { link: key, id };
            let upstream = self.upstreams.endpoint(endpoint).upstream;
            let exchange = &mut self.exchanges[exchange_key];
            exchange.preferences.avoid.insert(upstream);
            self.prefer_stream(exchange_key, scheme, false);
            let exchange = &self.exchanges[exchange_key];
            let may_be_sent = exchange.attempts.may_be_sent() && !exchange.is_waiting;
            if exchange.has_error() && self.upstreams.has_outage(endpoint) {
                // The attempt was made and did not end the outage.
                self.exchanges[exchange_key].attempts.on_overdue(attempt);
                self.ask_elsewhere(exchange_key, upstream, cx);
            } else if may_be_sent && self.can_hedge(exchange_key, key, cx.now) && self.hedges.take()
            {
                self.counters.hedges += 1;
                self.exchanges[exchange_key].attempts.on_hedged(attempt);
                self.dispatch(exchange_key, cx);
            }
            if !is_silent {
                return;
            }
        }
    }

    /// Makes another attempt for the oldest overdue query of a link. Returns whether there was one.
    pub(in crate::proxy) fn retry_overdue(&mut self, key: LinkKey, cx: &mut Cx<'_>) -> bool {
        let Some(link) = self.upstreams.link_mut(key) else {
            return false;
        };
        let (endpoint, scheme) = (link.endpoint, link.scheme);
        let Some((id, exchange_key)) = link.note_overdue() else {
            return false;
        };
        let is_overtaken = link
            .position(id)
            .is_some_and(|position| link.is_overtaken(position));
        if scheme != Scheme::Udp && is_overtaken {
            self.upstreams.on_pipelined_silence(endpoint, true, cx.now);
        }
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let exchange = &mut self.exchanges[exchange_key];
        exchange.attempts.on_overdue(Attempt { link: key, id });
        exchange.last_failure = Some(FailureKind::Stalled);
        self.prefer_stream(exchange_key, scheme, false);
        let exchange = &self.exchanges[exchange_key];
        if exchange.has_pending_attempt() {
            return true;
        }
        if exchange.has_error() {
            self.ask_elsewhere(exchange_key, upstream, cx);
        } else if exchange.attempts.may_be_sent() {
            self.dispatch(exchange_key, cx);
        }
        true
    }
}
