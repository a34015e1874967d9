//! Probes: queries of our own that test whether an endpoint answers.

use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::dispatch::write_query;
use crate::proxy::exchange::preferences::UpstreamSet;
use crate::proxy::exchange::{Exchange, Purpose};
use crate::proxy::keys::{LinkKey, PoolIndex, UpstreamIndex};
use crate::proxy::upstream::link::QuestionHash;
use crate::wire::Query;
use crate::wire::question::Type;

impl Proxy {
    /// Sends a probe because no answer has arrived on a link since a query was sent: the answer
    /// distinguishes a slow name from an unresponsive upstream.
    pub(in crate::proxy) fn probe_silent_link(
        &mut self,
        key: LinkKey,
        since: Instant,
        cx: &mut Cx<'_>,
    ) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        link.on_probed(cx.now);
        let is_busy = link.scheme != Scheme::Udp && link.has_several_silent();
        let endpoint = link.endpoint;
        let upstream = self.upstreams.endpoint(endpoint);
        // A lost datagram is also silent; the endpoint may be answering others.
        if upstream.scheme == Scheme::Udp && !upstream.is_silent_since(since) {
            return;
        }
        let failure = upstream.last_failure();
        if failure == Some(FailureKind::Loop) || self.may_loop(key) {
            self.test_for_loop(key, cx);
        }
        let pool = self.upstreams.pools_with(endpoint).first().copied();
        // In an outage, other queries are the test, unless unanswered names fill the link.
        let may_be_over = failure == Some(FailureKind::Stalled) && is_busy;
        let is_probed = failure.is_none()
            || may_be_over && self.upstreams.reserve_outage_probe(endpoint, cx.now);
        if is_probed {
            self.probe_on_link(key, pool, cx);
        }
    }

    /// Sends a probe on a link that came up and has no query, if its endpoint could not be reached
    /// before: the answer ends the outage.
    pub(in crate::proxy) fn probe_new_link(&mut self, key: LinkKey, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let endpoint = link.endpoint;
        let is_unused = link.sent().is_empty() && link.takes_queries();
        if is_unused && self.upstreams.endpoint(endpoint).is_unreachable() {
            let pool = self.upstreams.pools_with(endpoint).first().copied();
            self.probe_on_link(key, pool, cx);
        }
    }

    fn probe_on_link(&mut self, key: LinkKey, pool: Option<PoolIndex>, cx: &mut Cx<'_>) {
        let query = Query::new(&self.routes.probe_name(pool), Type::NS);
        self.send_probe(key, &query, cx);
    }

    /// Sends another probe on a new link after the probe on a silent link was not answered, perhaps
    /// because the upstream answers the queries of a connection in order.
    pub(in crate::proxy) fn probe_beside(&mut self, key: LinkKey, since: Instant, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        link.on_probed_beside(cx.now);
        // A single slow name does not delay several questions at the same time.
        let is_one_question = !link.has_several_silent();
        let endpoint = link.endpoint;
        let address = self.upstreams.endpoint(endpoint);
        let upstream = address.upstream;
        let pool = self.upstreams.pools_with(endpoint).first().copied();
        let is_silent = address.is_silent_since(since) && address.last_failure().is_none();
        if let Some(pool) = pool.filter(|_| is_silent && is_one_question) {
            self.start_probe(pool, upstream, cx);
        }
    }

    /// Starts an exchange that probes an upstream on a new link.
    pub(super) fn start_probe(
        &mut self,
        pool: PoolIndex,
        upstream: UpstreamIndex,
        cx: &mut Cx<'_>,
    ) {
        let query = Query::new(&self.routes.probe_name(Some(pool)), Type::NS);
        let deadline = cx.now + self.config.timeouts.attempt;
        let mut exchange = Exchange::new(Purpose::Probe, pool, query, (cx.now, deadline));
        exchange.preferences.min_up_since = cx.now;
        exchange.preferences.exclude = UpstreamSet::all_but(upstream);
        self.start(exchange, cx);
    }

    /// Sends a probe, for which no exchange waits: on this link, or on another one if a link takes
    /// one query. Returns whether the probe was sent.
    pub(in crate::proxy) fn send_probe(
        &mut self,
        key: LinkKey,
        query: &Query,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(link) = self.upstreams.link(key) else {
            return false;
        };
        let (endpoint, scheme) = (link.endpoint, link.scheme);
        let key = match scheme {
            Scheme::Udp if self.upstreams.has_room_for_probe(endpoint) => {
                self.open(endpoint, Scheme::Udp, cx)
            }
            Scheme::Udp => return false,
            Scheme::Https if !link.has_stream() => return false,
            Scheme::Tcp | Scheme::Tls | Scheme::Https => key,
        };
        let edns = self.upstreams.endpoint(endpoint).edns_level(cx.now);
        let link = self
            .upstreams
            .link_mut(key)
            .expect("the link was found or opened above");
        let question = QuestionHash::of(query.question());
        let id = link.send_probe(question, edns, cx.now, &mut self.random);
        link.on_probed(cx.now);
        cx.outbox.send(key, |out| {
            write_query(query, id, (scheme, edns), false, out);
        });
        self.counters.sent += 1;
        self.counters.probes += 1;
        self.upstreams.stats_mut(key).sent += 1;
        true
    }
}
