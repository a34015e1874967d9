//! The upstreams: their endpoints, the links to them, and the state learned about each.
//!
//! An upstream has one address or, if it is given by host name, several. Each address is an
//! endpoint with its own health: one address family may work while the other one fails. Upstreams
//! that serve the same names form a pool and are ranked in it. An upstream can be in several pools.
//!
//! - `routes`: the pool for a name (split horizon)
//! - `ranking`: the order in which endpoints are preferred
//! - `selection`: the endpoint and the link for a query
//! - `hedge_budget`: the share of queries that may be hedged
//! - `bootstrap`: the addresses of upstreams that are given by host name
//! - `endpoint`: one address
//! - `health`, `latency`: the state and the speed of an endpoint
//! - `idle_timeout`: the time for which an endpoint keeps idle connections
//! - `capacity`: the number of queries that one connection takes
//! - `answer_order`: evidence that the server works on several queries at a time
//! - `edns`: the level of EDNS that an endpoint accepts
//! - `learning`: updates of all of these after closes and answers
//! - `stats`: the counters of an upstream
//! - `link`: one connection, `link/timers`: its timers, `ids`: the ids of its queries
//! - `sent`: a query without an answer on a link
//! - `startup`: one connection to each upstream at the start
//! - `link_events`: reactions to closes, answers and missing answers
//! - `silence`: hedges and retries on a link that is slow to come up or to answer
//! - `explain_failure`: the reason why a connection could not be opened
//! - `probes`: queries of our own that test an endpoint
//! - `bad_answers`: questions that one upstream failed and another one answered
//! - `suspects`: questions that may be the reason why connections end
//! - `loop_detection`: upstreams that send queries back to this server

mod answer_order;
pub(super) mod bad_answers;
pub(super) mod bootstrap;
mod capacity;
mod edns;
mod endpoint;
mod explain_failure;
mod fallback;
mod health;
pub(super) mod hedge_budget;
mod http2_events;
mod idle_timeout;
mod ids;
mod latency;
mod learning;
pub(super) mod link;
pub(super) mod link_events;
pub(super) mod loop_detection;
pub(super) mod probes;
mod ranking;
pub(super) mod routes;
mod selection;
mod sent;
pub(super) mod silence;
mod startup;
mod stats;
pub(super) mod suspects;

pub use bootstrap::read_addresses;
pub(super) use capacity::ConnectionClose;
pub(super) use endpoint::Endpoint;
pub use explain_failure::explain_opening_failure;
pub(super) use health::backoff;
pub(super) use selection::{LinkChoice, LinkRequest, RecoveryTest};
pub use stats::UpstreamView;

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::arena::Arena;
use crate::base::failure::{Failure, FailureKind};
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::{Config, Limits, Policy, Scheme, Timeouts};

use super::actions::Destination;
use super::keys::{EndpointKey, LinkKey, PoolIndex, UpstreamIndex};
use answer_order::AnswerOrder;
use health::Change;
use link::{Link, Stage};
use stats::Stats;

/// The upstreams, endpoints and links.
#[derive(Debug)]
pub(super) struct Upstreams {
    policy: Policy,
    timeouts: Timeouts,
    limits: Limits,
    endpoints: Arena<EndpointKey, Endpoint>,
    pools: Vec<Pool>,
    /// The upstreams that are queried only while no other one of their pools is usable.
    fallbacks: Vec<UpstreamIndex>,
    links: Arena<LinkKey, Link>,
    /// The number of links that are being opened.
    links_opening: usize,
    /// Counters by upstream.
    stats: Vec<Stats>,
}

/// Facts about an answer apart from its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerFacts {
    /// Time since the query was sent.
    pub(super) took: Duration,
    /// True if the answer is useful to a client.
    pub(super) is_useful: bool,
    /// The order of the answer among those of the link.
    pub(super) order: AnswerOrder,
    /// True if the query used EDNS in full.
    pub(super) has_full_edns: bool,
}

/// Upstreams that serve the same names.
#[derive(Debug)]
struct Pool {
    members: Vec<UpstreamIndex>,
    /// Endpoints in the order of preference.
    ranking: Vec<EndpointKey>,
    /// True if the last query went to a fallback.
    uses_fallback: bool,
}

impl Upstreams {
    /// Creates the upstreams of these pools, without addresses.
    pub(super) fn new(
        config: &Config,
        labels: impl IntoIterator<Item = String>,
        pools: impl IntoIterator<Item = Vec<UpstreamIndex>>,
    ) -> Self {
        let pool = |members| Pool {
            members,
            ranking: Vec::new(),
            uses_fallback: false,
        };
        let upstreams = config.upstreams.iter().enumerate();
        let fallbacks = upstreams.filter(|(_, upstream)| upstream.is_fallback);
        Self {
            policy: config.policy,
            timeouts: config.timeouts,
            limits: config.limits,
            endpoints: Arena::default(),
            pools: pools.into_iter().map(pool).collect(),
            fallbacks: fallbacks.map(|(index, _)| UpstreamIndex(index)).collect(),
            links: Arena::default(),
            links_opening: 0,
            stats: labels.into_iter().map(Stats::new).collect(),
        }
    }

    /// Replaces the upstreams by `others` after all links are gone. Keys of links are not reused.
    pub(super) fn start_over(&mut self, others: Self) {
        let links = std::mem::take(&mut self.links);
        *self = Self { links, ..others };
    }

    /// Adds an address behind the other addresses of its upstream. Fallbacks are behind all others.
    pub(super) fn add(
        &mut self,
        upstream: UpstreamIndex,
        scheme: Scheme,
        address: SocketAddr,
        label: String,
    ) {
        self.sweep();
        let place_of = |upstream| (self.fallbacks.contains(&upstream), upstream);
        let place = place_of(upstream);
        let mut endpoint = Endpoint::new(upstream, scheme, address, label);
        endpoint.is_fallback = place.0;
        let key = self.endpoints.insert(endpoint);
        let endpoints = &self.endpoints;
        let place_of = |key: &EndpointKey| endpoints.get(*key).map(|e| place_of(e.upstream));
        for pool in &mut self.pools {
            if !pool.members.contains(&upstream) {
                continue;
            }
            let own = pool
                .ranking
                .iter()
                .rposition(|k| place_of(k) == Some(place));
            let later = pool.ranking.iter().position(|k| place_of(k) > Some(place));
            let rank = own.map(|own| own + 1).or(later);
            pool.ranking.insert(rank.unwrap_or(pool.ranking.len()), key);
        }
    }

    /// Removes an address from its upstream. Returns the links to it, which have to be retired.
    pub(super) fn discard(&mut self, key: EndpointKey) -> Vec<LinkKey> {
        for pool in &mut self.pools {
            pool.ranking.retain(|ranked| *ranked != key);
        }
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return Vec::new();
        };
        endpoint.is_listed = false;
        let isolated = endpoint.isolated.iter().map(|(link, _)| *link);
        endpoint.links.iter().copied().chain(isolated).collect()
    }

    /// Drops endpoints that are no longer listed and have no link.
    fn sweep(&mut self) {
        let gone = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.is_gone());
        let gone: Vec<EndpointKey> = gone.map(|(key, _)| key).collect();
        for key in gone {
            self.endpoints.remove(key);
        }
    }

    /// Returns the addresses of an upstream.
    pub(super) fn addresses(
        &self,
        upstream: UpstreamIndex,
    ) -> impl Iterator<Item = (EndpointKey, SocketAddr)> {
        let listed = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.is_listed);
        let its = listed.filter(move |(_, endpoint)| endpoint.upstream == upstream);
        its.map(|(key, endpoint)| (key, endpoint.address))
    }

    /// Returns an endpoint that is listed or has links.
    pub(super) fn endpoint(&self, key: EndpointKey) -> &Endpoint {
        let endpoint = self.endpoints.get(key);
        endpoint.expect("an endpoint exists while it has links")
    }

    fn endpoint_mut(&mut self, key: EndpointKey) -> &mut Endpoint {
        let endpoint = self.endpoints.get_mut(key);
        endpoint.expect("an endpoint exists while it has links")
    }

    /// Returns the protocol of an endpoint, unless the endpoint is gone.
    pub(super) fn scheme(&self, key: EndpointKey) -> Option<Scheme> {
        Some(self.endpoints.get(key)?.scheme)
    }

    pub(super) fn link(&self, key: LinkKey) -> Option<&Link> {
        self.links.get(key)
    }

    pub(super) fn link_mut(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.links.get_mut(key)
    }

    /// Returns the number of links.
    pub(super) fn links_len(&self) -> usize {
        self.links.len()
    }

    /// Returns all links in no particular order.
    pub(super) fn links(&self) -> impl Iterator<Item = (LinkKey, &Link)> {
        self.links.iter()
    }

    /// Returns whether an upstream is in a pool.
    pub(super) fn is_member(&self, pool: PoolIndex, upstream: UpstreamIndex) -> bool {
        self.pools[pool.0].members.contains(&upstream)
    }

    /// Returns the pools of an upstream.
    pub(super) fn pools_of(&self, upstream: UpstreamIndex) -> Vec<PoolIndex> {
        let pools = (0..self.pools.len()).map(PoolIndex);
        pools
            .filter(|pool| self.is_member(*pool, upstream))
            .collect()
    }

    /// Returns the pools of an endpoint.
    pub(super) fn pools_with(&self, key: EndpointKey) -> Vec<PoolIndex> {
        self.pools_of(self.endpoint(key).upstream)
    }

    /// Returns whether another handshake may begin.
    pub(super) fn may_handshake(&self) -> bool {
        self.links_opening < self.limits.handshakes
    }

    /// Adds a link that is to be opened. A datagram link is up at once.
    pub(super) fn open(
        &mut self,
        key: EndpointKey,
        scheme: Scheme,
        now: Instant,
    ) -> (LinkKey, Destination) {
        let endpoint = self.endpoint(key);
        let usual = endpoint.handshake_time.unwrap_or_default();
        let Timeouts {
            opening, handshake, ..
        } = self.timeouts;
        let late_at = now + (usual * 3).clamp(opening, handshake);
        let destination = Destination {
            upstream: endpoint.upstream,
            scheme,
            address: endpoint.address,
        };
        let mut link = Link::new(key, scheme, now, late_at);
        if scheme == Scheme::Udp {
            link.on_up(now);
        } else {
            link.limit_queries(endpoint.capacity.queries_max(now));
            self.links_opening += 1;
        }
        let link = self.links.insert(link);
        let endpoint = self.endpoint_mut(key);
        endpoint.links.push(link);
        endpoint.opened_at = Some(now);
        (link, destination)
    }

    /// Records that a link came up. Returns its endpoint, and the time that the connection took if
    /// it is the endpoint's first one, or `None` if the link was up already.
    pub(super) fn on_up(
        &mut self,
        key: LinkKey,
        now: Instant,
    ) -> Option<(EndpointKey, Option<Duration>)> {
        let link = self.links.get_mut(key)?;
        if link.stage != Stage::Opening {
            return None;
        }
        link.on_up(now);
        self.links_opening -= 1;
        let (key, opened_at, scheme) = (link.endpoint, link.opened_at(), link.scheme);
        self.on_connected(key, scheme);
        let endpoint = self.endpoint_mut(key);
        let took = now - opened_at;
        let took_first = endpoint.handshake_time.is_none().then_some(took);
        endpoint.handshake_time = Some(took);
        endpoint.health.on_up(opened_at);
        Some((key, took_first))
    }

    /// Retires a link. Returns the oldest retired link of the endpoint if there are too many.
    pub(super) fn retire(&mut self, key: LinkKey) -> Option<LinkKey> {
        let link = self.links.get_mut(key)?;
        self.links_opening -= usize::from(link.stage == Stage::Opening);
        link.stage = Stage::Retired;
        let (of, scheme) = (link.endpoint, link.scheme);
        let endpoint = self.endpoint_mut(of);
        endpoint.retired += usize::from(endpoint.unlist(key));
        let is_retired = |link: &Link| {
            link.endpoint == of && link.scheme == scheme && link.stage == Stage::Retired
        };
        let retired = || self.links().filter(|(_, link)| is_retired(link));
        let too_many = retired().count() > self.links_max(scheme);
        let oldest = retired().min_by_key(|(_, link)| link.opened_at())?;
        too_many.then_some(oldest.0)
    }

    /// Returns how many links to one endpoint may take queries.
    fn links_max(&self, scheme: Scheme) -> usize {
        match scheme {
            Scheme::Tls | Scheme::Https | Scheme::Tcp => self.limits.links_per_address,
            Scheme::Udp => self.limits.datagrams_per_address,
        }
    }

    /// Removes a link.
    pub(super) fn remove(&mut self, key: LinkKey) -> Option<Link> {
        let link = self.links.remove(key)?;
        self.links_opening -= usize::from(link.stage == Stage::Opening);
        let endpoint = self.endpoint_mut(link.endpoint);
        endpoint.unlist(key);
        endpoint.retired -= usize::from(link.stage == Stage::Retired);
        Some(link)
    }

    /// Returns the idle timeout of a link, which is short while its endpoint has another link.
    pub(super) fn idle_limit(&self, link: &Link) -> Duration {
        let is_up = |other: &&Link| other.stage == Stage::Up && other.scheme == link.scheme;
        let endpoint = self.endpoint(link.endpoint);
        let links = endpoint.links.iter().filter_map(|key| self.link(*key));
        let most = match links.filter(is_up).count() {
            0 | 1 => self.timeouts.link_idle,
            _ => self.timeouts.spare_link_idle,
        };
        let most = link
            .keepalive()
            .map_or(most, |keepalive| most.min(keepalive));
        endpoint.idle_timeout.limit(most, link.idle_since())
    }

    /// Returns the time of the last answer of any upstream in a pool.
    pub(super) fn last_answer(&self, pool: PoolIndex) -> Option<Instant> {
        let ranking = self.pools[pool.0].ranking.iter();
        ranking
            .filter_map(|key| self.endpoint(*key).last_answer)
            .max()
    }

    /// Returns whether any endpoint of a pool has no outage.
    pub(super) fn is_usable(&self, pool: PoolIndex) -> bool {
        let mut ranking = self.pools[pool.0].ranking.iter();
        ranking.any(|key| self.endpoint(*key).health.is_healthy())
    }

    /// Returns whether an endpoint has an outage.
    pub(super) fn has_outage(&self, key: EndpointKey) -> bool {
        !self.endpoint(key).health.is_healthy()
    }

    /// Returns whether any endpoint of a pool has an outage.
    pub(super) fn has_outage_in(&self, pool: PoolIndex) -> bool {
        let mut ranking = self.pools[pool.0].ranking.iter();
        ranking.any(|key| !self.endpoint(*key).health.is_healthy())
    }

    /// Returns the links to an endpoint, retired ones included.
    pub(super) fn links_to(&self, key: EndpointKey) -> Vec<LinkKey> {
        let links = self.links().filter(|(_, link)| link.endpoint == key);
        links.map(|(link, _)| link).collect()
    }

    /// Returns an endpoint by its key, unless it is gone.
    pub(super) fn find_endpoint(&self, key: EndpointKey) -> Option<&Endpoint> {
        self.endpoints.get(key)
    }

    /// Records an answer on a link that was opened at `opened_at`. Returns the upstream, and
    /// whether the answer ends an outage.
    pub(super) fn on_answer(
        &mut self,
        key: EndpointKey,
        opened_at: Instant,
        answer: AnswerFacts,
        now: Instant,
    ) -> (UpstreamIndex, bool) {
        let latency_known = self.timeouts.latency_known;
        let AnswerFacts {
            took,
            is_useful,
            order,
            has_full_edns,
        } = answer;
        let endpoint = self.endpoints.get_mut(key);
        let endpoint = endpoint.expect("an endpoint exists while it has links");
        let upstream = endpoint.upstream;
        self.stats[upstream.0].answers.observe(took);
        let was_healthy = endpoint.health.is_healthy();
        let change = endpoint.health.on_answer(opened_at, is_useful, now);
        let is_recovered = endpoint.health.is_healthy() && !was_healthy;
        endpoint.log_recovery(change);
        endpoint.latency.on_answer(took);
        match order {
            AnswerOrder::First => {}
            AnswerOrder::Overtaken => endpoint.capacity.on_pipelined_answer(now),
            AnswerOrder::Concurrent => endpoint.capacity.on_concurrent_answer(now),
        }
        if is_useful && has_full_edns {
            endpoint.edns.on_full_answer(now);
        }
        endpoint.last_answer = Some(now);
        endpoint.explore_at = now + latency_known;
        self.rank(key);
        (upstream, is_recovered)
    }

    /// Records a failure since `since` of links with this protocol to an endpoint. A failure of the
    /// TCP connections for large answers does not affect the health for datagrams.
    pub(super) fn on_failure(
        &mut self,
        key: EndpointKey,
        scheme: Scheme,
        failure: &Failure,
        since: Instant,
        now: Instant,
        random: &mut Random,
    ) {
        let timeouts = self.timeouts;
        let endpoint = self.endpoint_mut(key);
        if scheme != endpoint.scheme {
            return log::debug!("upstream {}, over TCP: {failure}", endpoint.label());
        }
        let health = &mut endpoint.health;
        let change = health.on_failure(failure.kind, since, now, &timeouts, random);
        // The first connection is made at the start, and its failure shows wrong settings.
        let is_first = endpoint.handshake_time.is_none() && !endpoint.has_failed;
        endpoint.has_failed = true;
        let level = if is_first || matches!(change, Change::Outage) {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        let event = match (change, failure.kind) {
            (Change::Outage, FailureKind::Authentication) => "authentication-failure",
            (Change::Outage, _) => "upstream-down",
            _ => "upstream-failure",
        };
        let label = endpoint.label();
        log::log!(
            level,
            event = event, upstream = label, reason = failure.kind.label();
            "upstream {label}: {failure}; later queries will retry it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Command};

    #[test]
    fn unlisted_endpoint_is_dropped_with_its_last_link() {
        let Ok(Command::Run(config)) = options::parse(&["-u192.0.2.1".to_owned()]) else {
            panic!("the option is valid");
        };
        let mut upstreams = Upstreams::new(&config, [String::new()], [vec![UpstreamIndex(0)]]);
        let now = Instant::default();
        let mut last = None;
        for port in 1..1_000 {
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            let label = String::new();
            upstreams.add(UpstreamIndex(0), Scheme::Tls, address, label);
            let (key, _) = upstreams.addresses(UpstreamIndex(0)).next().unwrap();
            let (link, _) = upstreams.open(key, Scheme::Tls, now);
            assert_eq!(upstreams.discard(key), [link]);
            assert!(upstreams.endpoints.contains(key), "the endpoint has a link");
            upstreams.retire(link);
            // Later the link ends.
            let before = last.replace(link);
            before.and_then(|link| upstreams.remove(link));
        }
        assert!(
            upstreams.endpoints.len() <= 3,
            "{}",
            upstreams.endpoints.len()
        );
        assert_eq!(upstreams.links_opening, 0);
    }
}
