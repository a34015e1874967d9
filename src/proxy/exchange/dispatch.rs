//! Dispatch of a query: to a link, to the queue for a link, or to an error.

use super::coalesce::Coalescing;
use super::fair_queue::Cursor;
use super::preferences::UpstreamSet;
use super::trace::{StepEnd, StepKind};
use super::{Exchange, Purpose};
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::keys::{Attempt, EndpointKey, ExchangeKey, LinkKey, PoolIndex};
use crate::proxy::upstream::{LinkChoice, LinkRequest, RecoveryTest};
use crate::wire::query::EdnsLevel;
use crate::wire::{Flags, Query};

impl Proxy {
    /// Adds an exchange and starts to look for its answer.
    pub(in crate::proxy) fn start(&mut self, exchange: Exchange, cx: &mut Cx<'_>) -> ExchangeKey {
        let deadline = exchange.deadline;
        self.without_client += usize::from(!exchange.is_for_client());
        let key = self.exchanges.insert(exchange);
        self.query_shares.add(key, &self.exchanges);
        let exchanges = &self.exchanges;
        self.by_deadline.push_ranked(
            (deadline, key),
            |(deadline, _)| *deadline,
            exchanges.len(),
            |(_, key)| exchanges.contains(*key),
        );
        self.coalesce_or_dispatch(key, cx);
        key
    }

    /// Attaches a query to an exchange for the same question, or dispatches it.
    pub(in crate::proxy) fn coalesce_or_dispatch(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) {
        let has_followed = self.exchanges[key].coalescing == Coalescing::Following;
        if !self.coalesce(key, cx.now) {
            if self.config.dns64.is_some() && self.begin_reverse_mapping(key, cx) {
                return;
            }
            self.upstreams.rotate_ranking(self.exchanges[key].pool);
            let exchange = &mut self.exchanges[key];
            // A query has little time that waited before it was read, or followed one that failed
            // alone. A query that followed a silent one had its time.
            let had_time_since = if has_followed {
                exchange.asked_at
            } else {
                cx.now
            };
            let is_late = exchange.deadline - had_time_since < self.config.timeouts.attempt
                && exchange.is_for_answer();
            exchange.retry.set_late(is_late);
            let remembered = if self.bad_answers.is_empty() {
                UpstreamSet::default()
            } else {
                self.bad_answers
                    .avoid_or_test(exchange.query.question(), cx.now)
            };
            exchange.preferences.avoid = remembered.with(exchange.purpose.avoided());
            if !self.suspects.is_empty() {
                let at = self.suspects.recall(exchange.query.question(), cx.now);
                exchange.preferences.isolated_at = at.unwrap_or_default();
            }
            self.dispatch(key, cx);
        }
    }

    /// Returns whether a query that was sent on a link can be hedged on another link. A hedge that
    /// costs a try is not sent to an upstream that has not answered the query: a better link may
    /// exist a little later.
    pub(in crate::proxy) fn can_hedge(
        &self,
        key: ExchangeKey,
        link: LinkKey,
        now: Instant,
    ) -> bool {
        let exchange = &self.exchanges[key];
        let mut preferences = exchange.preferences;
        if exchange.attempts.does_hedge_cost_try() {
            preferences.exclude = preferences.exclude.with(preferences.avoid);
        }
        let request = LinkRequest {
            exchange: key,
            preferences: &preferences,
            may_use_spare: false,
            demand: self.waiting_by_pool[exchange.pool.0].len() + 1,
        };
        match self.upstreams.choose_link(exchange.pool, &request, now) {
            LinkChoice::Link(other) => other != link,
            LinkChoice::Datagram(_)
            | LinkChoice::Open(..)
            | LinkChoice::OpenIsolated(..)
            | LinkChoice::Soon => true,
            LinkChoice::Later(_) => false,
        }
    }

    /// Sends a query, queues it for a link, or gives it up if no link will be up in time.
    pub(in crate::proxy) fn dispatch(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) {
        match self.choose_link(key, cx.now) {
            LinkChoice::Link(link) => {
                self.send(key, link, cx);
                self.test_recovery(key, link, cx);
            }
            LinkChoice::Datagram(endpoint) => {
                let link = self.open(endpoint, Scheme::Udp, cx);
                self.send(key, link, cx);
                self.test_recovery(key, link, cx);
            }
            LinkChoice::Open(endpoint, scheme) => {
                self.open(endpoint, scheme, cx);
                self.wait(key, cx.now);
            }
            LinkChoice::OpenIsolated(endpoint, scheme) => {
                self.open_isolated(key, (endpoint, scheme), cx);
                self.wait(key, cx.now);
            }
            LinkChoice::Soon => self.wait(key, cx.now),
            LinkChoice::Later(Some(at)) if at < self.exchanges[key].deadline => {
                self.wait(key, cx.now);
            }
            LinkChoice::Later(_) => self.give_up(key, cx),
        }
    }

    pub(in crate::proxy) fn send(&mut self, key: ExchangeKey, link_key: LinkKey, cx: &mut Cx<'_>) {
        let attempt = self.enqueue_on_link(key, link_key, cx);
        self.trace_sent(key, attempt, false, cx.now);
        let exchange = &mut self.exchanges[key];
        exchange.attempts.on_sent(attempt);
        let pool = exchange.pool;
        if exchange.attempts.times_sent() == 1 {
            self.counters.probes += u64::from(matches!(exchange.purpose, Purpose::Probe));
            self.hedges.on_sent();
            self.upstreams.on_first_attempt(pool, link_key);
        } else {
            self.counters.retries += 1;
            self.upstreams.stats_mut(link_key).retries += 1;
        }
    }

    /// Tests another endpoint after a query was sent on the link `busy`, if an outage of that
    /// endpoint may be over. The test sends a copy, so that the query does not depend on that
    /// endpoint.
    fn test_recovery(&mut self, key: ExchangeKey, busy: LinkKey, cx: &mut Cx<'_>) {
        let exchange = &self.exchanges[key];
        let pool = exchange.pool;
        if self.upstreams.has_one_endpoint(pool) || !exchange.preferences.isolated_at.is_empty() {
            return;
        }
        let may_copy = exchange.attempts.may_be_copied();
        let hedges = &mut self.hedges;
        let test =
            self.upstreams
                .begin_recovery_test(pool, busy, may_copy, || hedges.take(), cx.now);
        let link = match test {
            Some(RecoveryTest::Open(endpoint, scheme)) => {
                self.open(endpoint, scheme, cx);
                return;
            }
            Some(RecoveryTest::Copy(link)) => link,
            Some(RecoveryTest::Datagram(endpoint)) => self.open(endpoint, Scheme::Udp, cx),
            None => return,
        };
        let attempt = self.enqueue_on_link(key, link, cx);
        self.trace_sent(key, attempt, true, cx.now);
        let exchange = &mut self.exchanges[key];
        exchange.attempts.on_copied(attempt);
        self.counters.copies += 1;
    }

    fn enqueue_on_link(&mut self, key: ExchangeKey, link_key: LinkKey, cx: &mut Cx<'_>) -> Attempt {
        let link = self.upstreams.link(link_key);
        let link = link.expect("a chosen link is live");
        let (scheme, endpoint) = (link.scheme, link.endpoint);
        let exchange = &self.exchanges[key];
        let edns = self.edns_for(exchange, endpoint, cx.now);
        let validator = self.validator.as_ref();
        let has_cd = validator.is_some_and(|validator| validator.decides_for(exchange.pool));
        let link = self.upstreams.link_mut(link_key).expect("the link exists");
        let id = link.send(key, edns, cx.now, &mut self.random);
        let query = &exchange.query;
        cx.outbox.send(link_key, |out| {
            write_query(query, id, (scheme, edns), has_cd, out);
        });
        self.counters.sent += 1;
        self.upstreams.stats_mut(link_key).sent += 1;
        Attempt { link: link_key, id }
    }

    /// Returns how much of EDNS a query uses at an endpoint. A query that needs DNSSEC records
    /// needs an OPT record.
    fn edns_for(&self, exchange: &Exchange, endpoint: EndpointKey, now: Instant) -> EdnsLevel {
        let reduced = exchange.retry.reduced_edns(endpoint);
        let learned = || self.upstreams.endpoint(endpoint).edns_level(now);
        match reduced.unwrap_or_else(learned) {
            EdnsLevel::Off if self.needs_dnssec(exchange) => EdnsLevel::NoOptions,
            level => level,
        }
    }

    /// Returns whether the query of an exchange needs the DNSSEC records of its answer.
    pub(super) fn needs_dnssec(&self, exchange: &Exchange) -> bool {
        let validator = self.validator.as_ref();
        exchange.query.wants_dnssec()
            && validator.is_none_or(|validator| validator.needs_dnssec(exchange))
    }

    pub(in crate::proxy) fn open(
        &mut self,
        endpoint: EndpointKey,
        scheme: Scheme,
        cx: &mut Cx<'_>,
    ) -> LinkKey {
        let (link, to) = self.upstreams.open(endpoint, scheme, cx.now);
        cx.outbox.open(link, to);
        link
    }

    fn open_isolated(&mut self, key: ExchangeKey, to: (EndpointKey, Scheme), cx: &mut Cx<'_>) {
        let (link, to) = self.upstreams.open_isolated(to, key, cx.now);
        cx.outbox.open(link, to);
    }

    fn wait(&mut self, key: ExchangeKey, now: Instant) {
        let exchange = &mut self.exchanges[key];
        if !exchange.is_waiting {
            exchange.is_waiting = true;
            exchange.waiting_since = now;
            exchange.tracer.on_wait(StepKind::Waiting, now);
            let waiting = &mut self.waiting_by_pool[exchange.pool.0];
            let (waiter, exchanges) = (exchange.holder, &self.exchanges);
            let is_live = |key: ExchangeKey| exchanges.contains(key);
            waiting.push(waiter, key, exchanges.len(), is_live);
        }
    }

    pub(in crate::proxy) fn first_waiting(&mut self, pool: PoolIndex) -> Option<ExchangeKey> {
        let exchanges = &self.exchanges;
        let waiting = &mut self.waiting_by_pool[pool.0];
        waiting.first(|key| {
            exchanges
                .get(key)
                .is_some_and(|exchange| exchange.is_waiting)
        })
    }

    /// Removes the exchange at this position from the queue of a pool. Returns the position of the
    /// next one.
    fn stop_waiting(
        &mut self,
        cursor: Cursor,
        pool: PoolIndex,
        key: ExchangeKey,
        now: Instant,
    ) -> Cursor {
        let next = self.waiting_by_pool[pool.0].take(cursor, true);
        let exchange = &mut self.exchanges[key];
        exchange.is_waiting = false;
        exchange.tracer.on_wait_end(now);
        next
    }

    /// Dispatches the queries in the queue of a pool, fairly among their clients, as long as there
    /// is room.
    pub(in crate::proxy) fn serve_waiting(&mut self, pool: PoolIndex, cx: &mut Cx<'_>) {
        let mut cursor = Cursor::default();
        for _ in 0..self.waiting_by_pool[pool.0].len() {
            let waiting = &mut self.waiting_by_pool[pool.0];
            let demand = waiting.len();
            let Some(key) = waiting.get(cursor) else {
                break;
            };
            let is_live = |exchange: &Exchange| exchange.is_waiting;
            if !self.exchanges.get(key).is_some_and(is_live) {
                cursor = waiting.take(cursor, false);
                continue;
            }
            let choice = self.choose_link_for_demand(key, demand, cx.now);
            let exchange = &self.exchanges[key];
            let lacks_room =
                exchange.preferences.are_none() && !self.upstreams.has_room(pool, cx.now);
            match choice {
                // Upstreams that this exchange excludes may have room for others.
                LinkChoice::Later(at) if at.is_some_and(|at| at < exchange.deadline) => {
                    if exchange.preferences.exclude.is_empty() {
                        break;
                    }
                    cursor = self.waiting_by_pool[pool.0].after(cursor);
                }
                LinkChoice::Soon if lacks_room && self.has_few(exchange.holder) => break,
                // A client with few queries may have room although this client has none.
                LinkChoice::Soon if lacks_room => cursor = cursor.next_line(),
                // The exchange has preferences that others may not have, and keeps its position.
                LinkChoice::Soon => cursor = self.waiting_by_pool[pool.0].after(cursor),
                // One link is enough unless each accepts few queries.
                LinkChoice::Open(endpoint, scheme) => {
                    self.open(endpoint, scheme, cx);
                }
                LinkChoice::OpenIsolated(endpoint, scheme) => {
                    self.open_isolated(key, (endpoint, scheme), cx);
                    cursor = self.waiting_by_pool[pool.0].after(cursor);
                }
                LinkChoice::Link(_) | LinkChoice::Datagram(_) | LinkChoice::Later(_) => {
                    cursor = self.stop_waiting(cursor, pool, key, cx.now);
                    self.dispatch(key, cx);
                }
            }
        }
    }

    /// [`Proxy::serve_waiting`] for every pool.
    pub(in crate::proxy) fn serve_all_waiting(&mut self, cx: &mut Cx<'_>) {
        for pool in self.pools() {
            if !self.waiting_by_pool[pool.0].is_empty() {
                self.serve_waiting(pool, cx);
            }
        }
    }

    /// Handles the loss of an attempt: makes another attempt, unless one is open, or gives up.
    pub(in crate::proxy) fn lose_attempt(
        &mut self,
        key: ExchangeKey,
        attempt: Attempt,
        failure: FailureKind,
        cx: &mut Cx<'_>,
    ) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        exchange.attempts.on_lost(attempt);
        exchange.last_failure = Some(failure);
        let end = StepEnd::Failed(failure);
        exchange.tracer.on_attempt_end(attempt, end, cx.now);
        if exchange.has_pending_attempt() {
            return;
        }
        if exchange.attempts.may_be_sent() {
            self.dispatch(key, cx);
        } else {
            self.give_up(key, cx);
        }
    }

    /// Gives up the exchanges in the queue of a pool if no endpoint can be used and none will be
    /// soon.
    pub(in crate::proxy) fn fail_waiting_if_unreachable(
        &mut self,
        pool: PoolIndex,
        cx: &mut Cx<'_>,
    ) {
        if self.upstreams.is_hopeful(pool, cx.now) {
            return;
        }
        while let Some(key) = self.first_waiting(pool) {
            if !matches!(self.choose_link(key, cx.now), LinkChoice::Later(_)) {
                break;
            }
            self.stop_waiting(Cursor::default(), pool, key, cx.now);
            self.give_up(key, cx);
        }
    }

    /// Chooses the link for a query. A query without a usable endpoint may get one when an address
    /// of an upstream is known.
    pub(in crate::proxy) fn choose_link(&self, key: ExchangeKey, now: Instant) -> LinkChoice {
        let demand = self.waiting_by_pool[self.exchanges[key].pool.0].len() + 1;
        self.choose_link_for_demand(key, demand, now)
    }

    /// Chooses the link for a query if `demand` queries would wait for a link, this one included.
    fn choose_link_for_demand(&self, key: ExchangeKey, demand: usize, now: Instant) -> LinkChoice {
        let exchange = &self.exchanges[key];
        let request = LinkRequest {
            exchange: key,
            preferences: &exchange.preferences,
            may_use_spare: self.has_few(exchange.holder),
            demand,
        };
        let pool = exchange.pool;
        match self.upstreams.choose_link(pool, &request, now) {
            LinkChoice::Later(retry_at) => {
                let moments = [retry_at, self.next_address(pool, now)];
                LinkChoice::Later(moments.into_iter().flatten().min())
            }
            choice => choice,
        }
    }
}

/// Appends a query in the form that goes to an upstream: padded under encryption, and with CD if it
/// `has_cd`.
#[inline]
pub(in crate::proxy) fn write_query(
    query: &Query,
    id: u16,
    (scheme, edns): (Scheme, EdnsLevel),
    has_cd: bool,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    match (scheme, edns) {
        (Scheme::Tls | Scheme::Https, EdnsLevel::Full) => query.write_padded(out, id),
        (_, level) => query.write_reduced(out, id, level),
    }
    if has_cd {
        let [_, low] = Flags::CD.to_u16().to_be_bytes();
        out[start + 3] |= low;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::origin::ClientProtocol;
    use crate::proxy::testing::Scene;
    use crate::proxy::{Action, ClientTransport, UpstreamIndex};
    use crate::wire::edns::{ExtendedErrorCode, OptionCode};
    use crate::wire::query::PLAIN_QUERY_LEN_MAX;
    use crate::wire::{Message, Rcode};
    use std::time::Duration;

    fn scene() -> Scene {
        Scene::with(&["-u192.0.2.1"])
    }

    impl Scene {
        /// Returns the response code and extended error if the only action is a response.
        fn refusal(&self) -> Option<(Rcode, ExtendedErrorCode)> {
            let [Action::Respond { message, .. }] = self.outbox.actions() else {
                return None;
            };
            let message = Message::parse(self.outbox.bytes(message)).unwrap();
            let mut options = message.opt()?.options();
            let reason = options.find(|option| option.code == OptionCode::EXTENDED_ERROR)?;
            let code = u16::from_be_bytes([reason.data[0], reason.data[1]]);
            Some((message.header().flags.rcode(), ExtendedErrorCode(code)))
        }

        fn link(&self) -> LinkKey {
            match self.outbox.actions() {
                [Action::OpenLink { link, .. }] => *link,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Builds a query with a forwarded EDNS option of `len` bytes.
    fn query(len: u16) -> Vec<u8> {
        let mut bytes = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03www\0\0\x01\0\x01".to_vec();
        bytes.extend(b"\0\0\x29\x04\xd0\0\0\0\0");
        bytes.extend((len + 4).to_be_bytes());
        bytes.extend(65_001_u16.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(len), 7);
        bytes
    }

    #[test]
    fn query_after_its_deadline_is_not_sent() {
        let mut scene = scene();
        let idle = Duration::from_secs(10);
        let late = ClientTransport::Stream {
            idle,
            received_at: Instant::after_start(Duration::from_secs(95)),
            protocol: ClientProtocol::Tcp,
        };
        scene.ask(&query(0), late);
        let expected = (Rcode::SERVFAIL, ExtendedErrorCode::NO_REACHABLE_AUTHORITY);
        assert_eq!(scene.refusal(), Some(expected));
        let received_at = Instant::after_start(Duration::from_secs(97));
        scene.ask(
            &query(0),
            ClientTransport::Stream {
                idle,
                received_at,
                protocol: ClientProtocol::Tcp,
            },
        );
        scene.link();
    }

    #[test]
    fn query_that_is_too_long_is_refused() {
        let mut scene = scene();
        scene.ask(&query(5_000), ClientTransport::Udp);
        let expected = (Rcode::REFUSED, ExtendedErrorCode::NOT_SUPPORTED);
        assert_eq!(scene.refusal(), Some(expected));
        scene.ask(&query(4_000), ClientTransport::Udp);
        scene.link();
    }

    #[test]
    fn repeated_query_after_a_failure_gets_a_cached_error() {
        let mut scene = scene();
        let kind = FailureKind::Connect;
        scene.ask(&query(0), ClientTransport::Udp);
        let link = scene.link();
        scene.outbox.clear();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_down(link, &kind.into(), scene.now, outbox);
        let expected = (Rcode::SERVFAIL, kind.extended_error().code);
        assert_eq!(scene.refusal(), Some(expected));
        scene.ask(&query(0), ClientTransport::Udp);
        let expected = (Rcode::SERVFAIL, ExtendedErrorCode::CACHED_ERROR);
        assert_eq!(scene.refusal(), Some(expected));
    }

    #[test]
    fn recovery_test_waits_for_a_query_that_may_be_copied() {
        for (scheme, name) in [(Scheme::Udp, "udp"), (Scheme::Tcp, "tcp")] {
            let [first, second] =
                [1, 2].map(|host| format!("-u{name}://192.0.2.{host},domain=corp"));
            let mut scene = Scene::with(&[&first, &second, "--policy=fastest"]);
            let (pool, now) = (scene.proxy.routes.main_pool(), scene.now);
            let [busy, _] = [0, 1].map(|upstream| {
                let upstreams = &mut scene.proxy.upstreams;
                let address = upstreams.addresses(UpstreamIndex(upstream)).next();
                let (endpoint, _) = address.unwrap();
                let (link, _) = upstreams.open(endpoint, scheme, now);
                let outbox = &mut scene.outbox;
                scene.proxy.handle_link_up(link, false, now, outbox);
                link
            });
            let upstreams = &mut scene.proxy.upstreams;
            let mut reserved = 0;
            let mut begins = |may_copy| {
                let reserve = || {
                    reserved += 1;
                    true
                };
                let test = upstreams.begin_recovery_test(pool, busy, may_copy, reserve, now);
                test.is_some()
            };
            assert!(!begins(false), "{name}");
            assert!(begins(true), "{name}");
            assert!(!begins(true), "{name}: the endpoint is being tested");
            assert_eq!(reserved, 1, "{name}");
        }
    }

    #[test]
    fn prompt_upstream_gets_queries_on_one_link() {
        for (milliseconds, expected) in [(5, 1), (15, 4)] {
            let mut scene = scene();
            let mut links = std::collections::BTreeSet::new();
            let mut query = query(0);
            // RD is cleared, so that no two of these queries coalesce.
            query[2] = 0;
            for nth in 0..200 {
                scene.ask(&query, ClientTransport::Udp);
                scene.bring_up();
                let (link, mut answer) = scene.sent().remove(0);
                links.insert(link.0);
                if nth == 0 {
                    answer[2] |= 0x80;
                    scene.now += Duration::from_millis(milliseconds);
                    let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
                    proxy.handle_reply(link, &answer, scene.now, outbox);
                }
            }
            assert_eq!(links.len(), expected, "{milliseconds} ms");
        }
    }

    #[test]
    fn buffers_of_many_long_queries_are_released() {
        let mut scene = scene();
        for _ in 0..1_000 {
            scene.ask(&query(4_000), ClientTransport::Udp);
        }
        scene.outbox.clear();
        let end = scene.now + Duration::from_secs(5);
        scene.proxy.handle_timeout(end, &mut scene.outbox);
        assert_eq!(scene.proxy.inflight(), 0);
        let buffers = &scene.proxy.spare_buffers;
        assert_eq!(buffers.len(), scene.proxy.config.limits.spare_buffers);
        assert!(buffers.iter().all(|b| b.capacity() <= PLAIN_QUERY_LEN_MAX));
    }
}
