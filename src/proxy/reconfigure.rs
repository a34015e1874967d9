//! The change of settings while queries are being answered.
//!
//! If the upstreams or the settings that apply to them change, all links are closed, and all
//! waiting queries are dispatched again, each with the time that it has left.

use std::cmp::Reverse;

use super::Proxy;
use super::actions::{Cx, Outbox};
use super::cache::failures::FailureCache;
use super::client::admission::NO_UPSTREAM;
use super::client::fairness::QueryShares;
use super::client::rate_limit::RateLimiter;
use super::client::shares::ClientHash;
use super::exchange::Purpose;
use super::exchange::coalesce::InFlight;
use super::exchange::fair_queue::FairQueue;
use super::keys::{ExchangeKey, LinkKey, PoolIndex, UpstreamIndex};
use super::outcome::Provenance;
use super::upstream::Upstreams;
use super::upstream::bad_answers::BadAnswers;
use super::upstream::bootstrap::Bootstrap;
use super::upstream::hedge_budget::Hedges;
use super::upstream::link::{Link, Stage};
use super::upstream::loop_detection::LoopTests;
use super::upstream::routes::Routes;
use super::upstream::suspects::{LinkEnd, Suspects};
use super::validator::{Validator, cache_settings};
use crate::base::time::Instant;
use crate::block::BlockList;
use crate::config::{Config, Host, Limits, Upstream};

/// The objects that depend on the configured upstreams, in their initial state.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) routes: Routes,
    pub(super) upstreams: Upstreams,
    pub(super) bootstrap: Bootstrap,
    pub(super) waiting_by_pool: Vec<FairQueue>,
    pub(super) query_shares: QueryShares,
    pub(super) validator: Option<Box<Validator>>,
}

impl Topology {
    pub(super) fn new(config: &Config, hash: &ClientHash) -> Self {
        let (routes, mut pools) = Routes::new(config);
        let for_addresses = PoolIndex(pools.len());
        let servers = config.bootstrap.iter().copied().map(Upstream::bootstrap);
        let all: Vec<Upstream> = config.upstreams.iter().cloned().chain(servers).collect();
        pools.push(
            (config.upstreams.len()..all.len())
                .map(UpstreamIndex)
                .collect(),
        );
        let waiting_by_pool = pools.iter().map(|_| FairQueue::new(hash.clone())).collect();
        let is_limited = |pool| pool != for_addresses && Some(pool) != routes.for_others();
        let limited = (0..pools.len()).map(|index| is_limited(PoolIndex(index)));
        let query_shares = QueryShares::new(limited, &config.limits, hash);
        let validated = pools.iter().enumerate().map(|(index, members)| {
            let is_validated = |upstream: &UpstreamIndex| all[upstream.0].is_validated;
            Some(PoolIndex(index)) == routes.for_others() || members.iter().any(is_validated)
        });
        let validator = Validator::new(config, validated.collect());
        let labels = labels(&all);
        let mut upstreams = Upstreams::new(config, labels, pools);
        for (index, upstream) in all.iter().enumerate() {
            if let Host::Address(address) = upstream.host {
                let label = upstream.to_string();
                upstreams.add(UpstreamIndex(index), upstream.scheme, address, label);
            }
        }
        Self {
            routes,
            upstreams,
            bootstrap: Bootstrap::new(config, for_addresses),
            waiting_by_pool,
            query_shares,
            validator,
        }
    }
}

/// Returns a unique label for each upstream.
fn labels(upstreams: &[Upstream]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for upstream in upstreams {
        let name = upstream.to_string();
        let mut label = name.clone();
        for number in 2.. {
            if !labels.contains(&label) {
                break;
            }
            label = format!("{name} ({number})");
        }
        labels.push(label);
    }
    labels
}

/// Returns the limits with those zeroed that do not concern upstreams.
fn upstream_limits(limits: &Limits) -> Limits {
    Limits {
        inflight: 0,
        tcp_clients: 0,
        ..*limits
    }
}

impl Proxy {
    /// Applies new settings. The cache and the failure cache start empty. Returns the number of
    /// links that are closed.
    pub fn reconfigure(&mut self, config: &Config, now: Instant, outbox: &mut Outbox) -> usize {
        let cx = &mut Cx { now, outbox };
        self.was_ready = self.was_ready();
        self.unconnected = Vec::new();
        let before = std::mem::replace(&mut self.config, config.clone());
        self.cache
            .reconfigure(&cache_settings(config), &config.timeouts);
        self.failures = FailureCache::new(&config.timeouts, &config.limits);
        self.bad_answers = BadAnswers::new(&config.timeouts, &config.limits);
        self.suspects = Suspects::new(&config.limits);
        self.loop_tests = LoopTests::default();
        if config.rate_limit != before.rate_limit {
            let seed = self.random.next_seed();
            let limiter = |limit| RateLimiter::new(limit, &seed);
            self.rate_limiter = config.rate_limit.map(limiter);
        }
        let is_same_topology = config.upstreams == before.upstreams
            && config.domains == before.domains
            && config.bootstrap == before.bootstrap
            && config.policy == before.policy
            && config.timeouts == before.timeouts
            && config.dnssec == before.dnssec
            && upstream_limits(&config.limits) == upstream_limits(&before.limits);
        if is_same_topology {
            self.query_shares.count(&config.limits, &self.exchanges);
            self.forget_zones();
            0
        } else {
            let closed = self.change_topology(cx);
            self.settle(cx);
            closed
        }
    }

    /// Replaces the block list.
    pub fn set_block_list(&mut self, list: Option<BlockList>) {
        self.block_list = list;
    }

    /// Retires the links of these upstreams because their certificates are judged by other rules
    /// now, or another client certificate is presented to them. The links take no new query.
    /// Answers to queries that were sent may still arrive; queries that wait for a handshake are
    /// sent on new links. Returns the number of retired links.
    pub fn retire_links(
        &mut self,
        upstreams: &[UpstreamIndex],
        now: Instant,
        outbox: &mut Outbox,
    ) -> usize {
        let cx = &mut Cx { now, outbox };
        let is_concerned = |link: &Link| {
            let upstream = self.upstreams.endpoint(link.endpoint).upstream;
            link.stage != Stage::Retired && upstreams.contains(&upstream)
        };
        let links = self
            .upstreams
            .links()
            .filter(|(_, link)| is_concerned(link));
        let (opening, up): (Vec<_>, Vec<_>) = links
            .map(|(key, link)| (key, link.stage == Stage::Opening))
            .partition(|(_, is_opening)| *is_opening);
        let keys = |links: Vec<(LinkKey, bool)>| links.into_iter().map(|(key, _)| key).collect();
        let (opening, up): (Vec<LinkKey>, Vec<LinkKey>) = (keys(opening), keys(up));
        let retired = opening.len() + up.len();
        // All links are removed first, so that no query of one is sent on another.
        let mut ended: Vec<(LinkKey, Option<Link>)> = opening
            .into_iter()
            .map(|key| (key, self.upstreams.remove(key)))
            .collect();
        for key in &up {
            if let Some(oldest) = self.upstreams.retire(*key) {
                ended.push((oldest, self.upstreams.remove(oldest)));
            }
        }
        for (key, link) in ended {
            cx.outbox.close(key);
            if let Some(link) = link {
                self.resend_queries_of(key, &link, LinkEnd::RETIRED, cx);
            }
        }
        for key in up {
            self.close_if_done(key, cx.outbox);
        }
        self.followups.on_room();
        self.settle(cx);
        retired
    }

    /// Starts over with the upstreams of the settings. Returns the number of links that are closed.
    fn change_topology(&mut self, cx: &mut Cx<'_>) -> usize {
        let links: Vec<LinkKey> = self.upstreams.links().map(|(key, _)| key).collect();
        let closed = links.len();
        for key in links {
            self.upstreams.remove(key);
            cx.outbox.close(key);
        }
        let topology = Topology::new(&self.config, &ClientHash::new(&mut self.random));
        self.upstreams.start_over(topology.upstreams);
        self.routes = topology.routes;
        self.bootstrap = topology.bootstrap;
        self.waiting_by_pool = topology.waiting_by_pool;
        self.query_shares = topology.query_shares;
        self.validator = topology.validator;
        self.in_flight = InFlight::default();
        self.hedges = Hedges::new(&self.config.limits);
        self.postponed.clear();
        let keys = self.exchanges.iter().map(|(key, _)| key);
        let mut keys: Vec<ExchangeKey> = keys.collect();
        // The exchange with the latest deadline comes first, so that the others can follow it.
        keys.sort_unstable_by_key(|key| Reverse(self.exchanges[*key].deadline));
        keys.retain(|key| self.start_over(*key, cx));
        self.query_shares
            .count(&self.config.limits, &self.exchanges);
        for key in keys {
            self.coalesce_or_dispatch(key, cx);
        }
        self.followups.on_room();
        closed
    }

    /// Resets an exchange for the new upstreams. Returns whether it is still to be answered.
    fn start_over(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) -> bool {
        let exchange = &self.exchanges[key];
        let pool = self.routes.pool(exchange.query.question().name());
        match (exchange.purpose, pool) {
            (Purpose::Client { .. }, Some(pool)) => {
                let is_shared = self.cache.is_on();
                let exchange = &mut self.exchanges[key];
                exchange.start_over(pool, cx.now);
                let validator = self.validator.as_ref();
                let is_validated = validator.is_some_and(|validator| validator.validates(pool));
                let is_asked = exchange.wants_proof();
                exchange.query.set_dnssec(is_validated || is_asked);
                exchange.lookup.take_if(|_| !is_shared);
                return true;
            }
            (Purpose::Client { .. }, None) => {
                // Upstreams have other indexes now.
                self.exchanges[key].set_provenance(Provenance::default());
                self.respond_refused(key, &NO_UPSTREAM, cx);
            }
            (
                Purpose::Cache
                | Purpose::Mapping(_)
                | Purpose::Probe
                | Purpose::Bootstrap(..)
                | Purpose::Validation { .. },
                _,
            ) => {
                self.without_client -= 1;
            }
        }
        self.exchanges.remove(key);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, config};
    use super::super::{Action, ClientTransport, UpstreamIndex};
    use super::*;
    use crate::base::arena::{Key, TypedKey};
    use crate::base::failure::FailureKind;
    use crate::config::Scheme;
    use crate::wire::Rcode;
    use crate::wire::query::EdnsLevel;
    use std::time::Duration;

    fn query(name: u8) -> [u8; 19] {
        let mut query = *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01?\0\0\x01\0\x01";
        query[13] = name;
        query
    }

    impl Scene {
        fn reconfigure(&mut self, arguments: &[&str]) {
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            outbox.clear();
            proxy.reconfigure(&config(arguments), self.now, outbox);
        }

        fn retire_links(&mut self, upstreams: &[usize]) {
            let upstreams: Vec<_> = upstreams.iter().copied().map(UpstreamIndex).collect();
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            outbox.clear();
            proxy.retire_links(&upstreams, self.now, outbox);
        }

        fn bring_up_link(&mut self, link: LinkKey) {
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            outbox.clear();
            proxy.handle_link_up(link, false, self.now, outbox);
        }

        fn closed(&self) -> Vec<LinkKey> {
            let link = |action: &Action| match action {
                Action::CloseLink { link } => Some(*link),
                _ => None,
            };
            self.outbox.actions().iter().filter_map(link).collect()
        }

        fn opened(&self) -> Vec<String> {
            let address = |action: &Action| match action {
                Action::OpenLink { to, .. } => Some(to.address.to_string()),
                _ => None,
            };
            self.outbox.actions().iter().filter_map(address).collect()
        }
    }

    #[test]
    fn upstream_of_an_answer_is_forgotten_if_upstreams_change() {
        let mut scene = Scene::with(&["-u192.0.2.1", "-u192.0.2.2"]);
        scene.outbox = Outbox::new(true);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        let under_way = scene.proxy.exchanges.iter().next();
        let key = under_way.map(|(key, _)| key).unwrap();
        scene.proxy.exchanges[key].answered_by = Some(UpstreamIndex(1));
        scene.reconfigure(&["-u192.0.2.3,domain=b"]);
        let records = scene.outbox.records().iter();
        let upstreams: Vec<_> = records.map(|record| record.upstream).collect();
        assert_eq!(upstreams, [None]);
    }

    #[test]
    fn every_upstream_has_a_unique_label() {
        let config = config(&[
            "-u192.0.2.1,domain=a",
            "-u192.0.2.1,domain=b",
            "-u192.0.2.1",
        ]);
        let same = "192.0.2.1:853";
        let expected = [
            same.to_owned(),
            format!("{same} (2)"),
            format!("{same} (3)"),
        ];
        assert_eq!(labels(&config.upstreams), expected);
    }

    #[test]
    fn queries_in_flight_are_answered_by_the_new_upstream() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.bring_up();
        let (old_link, sent) = scene.sent().remove(0);
        // The first of these queries coalesces, and the second one waits for room.
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.ask(&query(b'b'), ClientTransport::Udp);
        scene.reconfigure(&["-u192.0.2.2"]);
        assert_eq!(scene.opened(), ["192.0.2.2:853"]);
        assert_eq!(scene.reply_to(old_link, &sent), 0);
        assert_eq!(scene.proxy.inflight(), 3);
        scene.reconfigure(&["-u192.0.2.3"]);
        scene.bring_up();
        let sent = scene.sent();
        assert_eq!(sent.len(), 2, "two exchanges coalesce");
        let responses = sent
            .iter()
            .map(|(link, query)| scene.reply_to(*link, query));
        assert_eq!(responses.sum::<usize>(), 3);
        assert_eq!(scene.proxy.links(), 1);
    }

    #[test]
    fn reconfiguration_does_not_extend_a_deadline() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.now += Duration::from_secs(4);
        scene.reconfigure(&["-u192.0.2.2"]);
        scene.now += Duration::from_secs(1);
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        assert_eq!(scene.rcodes(), [Rcode::SERVFAIL]);
    }

    #[test]
    fn links_stay_open_if_upstream_settings_do_not_change() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.bring_up();
        let (link, sent) = scene.sent().remove(0);
        scene.reconfigure(&["-u192.0.2.1", "--cache-size=0", "--deny=127.0.0.1"]);
        assert!(scene.outbox.is_empty());
        assert_eq!(scene.reply_to(link, &sent), 1);
        scene.ask(&query(b'b'), ClientTransport::Udp);
        assert_eq!(scene.rcodes(), [Rcode::REFUSED]);
    }

    #[test]
    fn link_gets_no_new_query_after_its_trust_has_changed() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.bring_up();
        let (old, sent) = scene.sent().remove(0);
        scene.retire_links(&[0]);
        assert!(scene.outbox.is_empty(), "a link with a query stays open");
        scene.ask(&query(b'b'), ClientTransport::Udp);
        let new = scene.opened_last();
        assert_ne!(new, old);
        assert_eq!(scene.reply_to(old, &sent), 1);
        assert_eq!(scene.closed(), [old]);
        // A link without queries is closed at once.
        scene.bring_up_link(new);
        let (new, sent) = scene.sent().remove(0);
        assert_eq!(scene.reply_to(new, &sent), 1);
        scene.retire_links(&[0]);
        assert_eq!(scene.closed(), [new]);
        assert_eq!(scene.proxy.links(), 0);
    }

    #[test]
    fn queries_of_a_handshake_under_other_trust_are_sent_on_a_new_link() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        let old = scene.opened_last();
        for _ in 0..10 {
            let before = scene.opened_last();
            scene.retire_links(&[0]);
            assert_eq!(scene.closed(), [before]);
        }
        let new = scene.opened_last();
        assert_ne!(new, old);
        scene.bring_up_link(new);
        let (link, sent) = scene.sent().remove(0);
        assert_eq!(link, new);
        assert_eq!(scene.reply_to(new, &sent), 1);
        let counters = scene.proxy.counters();
        let failed = FailureKind::ALL.map(|kind| counters.failure(kind));
        assert_eq!(failed.iter().sum::<u64>(), 0, "nothing has failed");
    }

    #[test]
    fn queries_of_links_that_changes_of_trust_close_are_sent_again() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        let mut sent = Vec::new();
        let mut closed = 0;
        // Each link has a query when it is retired. If too many links are retired, the oldest is
        // closed. The queries lose more links than a query has tries.
        for name in 0..30 {
            scene.now += Duration::from_millis(1);
            scene.ask(&query(name), ClientTransport::Udp);
            scene.bring_up();
            sent.extend(scene.sent());
            scene.retire_links(&[0]);
            let links = scene.closed();
            closed += links.len();
            sent.retain(|(link, _)| !links.contains(link));
            scene.bring_up();
            sent.extend(scene.sent());
        }
        assert!(closed > 20, "{closed} links");
        let responses = sent
            .iter()
            .map(|(link, query)| scene.reply_to(*link, query));
        assert_eq!(responses.sum::<usize>(), 30);
        assert_eq!(scene.proxy.inflight(), 0);
    }

    #[test]
    fn links_stay_if_their_trust_has_not_changed() {
        let mut scene = Scene::with(&["-u192.0.2.1,domain=a", "-u192.0.2.2"]);
        scene.ask(&query(b'b'), ClientTransport::Udp);
        scene.bring_up();
        let (link, sent) = scene.sent().remove(0);
        scene.retire_links(&[0]);
        assert!(scene.outbox.is_empty());
        assert_eq!(scene.reply_to(link, &sent), 1);
        scene.ask(&query(b'c'), ClientTransport::Udp);
        assert_eq!(scene.sent().remove(0).0, link);
    }

    #[test]
    fn name_without_an_upstream_after_a_change_is_refused() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        scene.reconfigure(&["-u192.0.2.1,domain=b"]);
        assert_eq!(scene.rcodes(), [Rcode::REFUSED, Rcode::REFUSED]);
        assert_eq!(scene.proxy.inflight(), 0);
        assert_eq!(scene.proxy.poll_timeout(), None);
    }

    #[test]
    fn surplus_links_that_are_retired_together_are_each_closed_once() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        let first = scene.opened_last();
        let endpoint = scene.proxy.upstreams.link(first).unwrap().endpoint;
        let links_max = scene.proxy.config.limits.links_per_address;
        let mut links = vec![first];
        for round in 0..2 {
            while links.len() < (round + 1) * links_max {
                scene.now += Duration::from_secs(1);
                let (now, outbox) = (scene.now, &mut scene.outbox);
                let cx = &mut Cx { now, outbox };
                links.push(scene.proxy.open(endpoint, Scheme::Tls, cx));
            }
            scene.bring_up();
            for link in &links[round * links_max..] {
                // A link with an open query is not done, so it stays when it is retired.
                let gone = ExchangeKey::from_key(Key::from_usize(99));
                let link = scene.proxy.upstreams.link_mut(*link).unwrap();
                link.send(gone, EdnsLevel::Full, scene.now, &mut scene.proxy.random);
            }
            scene.retire_links(&[0]);
            let closed = scene.closed();
            let expected = if round == 0 { 0 } else { links_max };
            assert_eq!(closed.len(), expected, "{closed:?}");
            assert!(closed.iter().all(|link| links[..links_max].contains(link)));
        }
        let links = scene.proxy.upstreams.links();
        let retired = links.filter(|(_, link)| link.stage == Stage::Retired);
        assert_eq!(retired.count(), links_max);
    }

    #[test]
    fn cache_and_rate_limit_follow_the_settings() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.reconfigure(&["-u192.0.2.1", "--cache-size=0", "--rate-limit=1/1"]);
        scene.ask(&query(b'a'), ClientTransport::Udp);
        assert!(!scene.proxy.cache.is_on());
        assert!(!scene.offer(&query(b'b'), ClientTransport::Udp));
        scene.reconfigure(&["-u192.0.2.1"]);
        scene.ask(&query(b'c'), ClientTransport::Udp);
        assert!(scene.rcodes().is_empty() && scene.proxy.cache.is_on());
    }
}
