//! Selects the endpoint and the link for a query.

use super::capacity::ConnectionCapacity;
use super::endpoint::Endpoint;
use super::link::{Link, Stage};
use super::{EndpointKey, LinkKey, PoolIndex, Upstreams};
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::exchange::preferences::LinkPreferences;
use crate::proxy::keys::ExchangeKey;

/// The choice of a link for a query at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum LinkChoice {
    /// An existing link with room.
    Link(LinkKey),
    /// A new datagram to this endpoint.
    Datagram(EndpointKey),
    /// A new link with this protocol, once it is up.
    Open(EndpointKey, Scheme),
    /// A new isolated link with this protocol, once it is up.
    OpenIsolated(EndpointKey, Scheme),
    /// A link that will come up or get room.
    Soon,
    /// None, until the back-off of an endpoint ends at this time.
    Later(Option<Instant>),
}

/// A recovery test of an endpoint with an outage, while other endpoints serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum RecoveryTest {
    /// A copy of a query on this link.
    Copy(LinkKey),
    /// A copy of a query in a datagram.
    Datagram(EndpointKey),
    /// A new link.
    Open(EndpointKey, Scheme),
}

/// A query that needs a link.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct LinkRequest<'a> {
    pub(in crate::proxy) exchange: ExchangeKey,
    pub(in crate::proxy) preferences: &'a LinkPreferences,
    /// The client has few queries in flight, so the query may use the spare room of links.
    pub(in crate::proxy) may_use_spare: bool,
    /// The number of queries of the pool that would wait for a link, including this one.
    pub(in crate::proxy) demand: usize,
}

impl Upstreams {
    /// Chooses the link for a query. Healthy endpoints come first, and among them endpoints that
    /// have not failed this query; an endpoint with an outage is better than none. Otherwise the
    /// rank decides.
    pub(in crate::proxy) fn choose_link(
        &self,
        pool: PoolIndex,
        request: &LinkRequest<'_>,
        now: Instant,
    ) -> LinkChoice {
        let preferences = request.preferences;
        let all = || {
            let eligible = self.eligible(pool);
            eligible.filter(|(_, endpoint)| !preferences.exclude.contains(endpoint.upstream))
        };
        let has_failed_it = |endpoint: &Endpoint| preferences.avoid.contains(endpoint.upstream);
        let healthy = |has_failed: bool| {
            all().filter(move |(_, endpoint)| {
                has_failed_it(endpoint) == has_failed && self.is_healthy(endpoint)
            })
        };
        let mut all_healthy = healthy(false).chain(healthy(true));
        let choice = |(key, endpoint)| self.choose_link_to(key, endpoint, request, now);
        if let Some(choice) = all_healthy.find_map(choice) {
            return choice;
        }
        // Prefer an endpoint that has not failed this query, and the one with the oldest failure.
        let failing = all().filter_map(|(key, endpoint)| {
            let failed_at = endpoint.health.failed_at();
            let rank = (
                has_failed_it(endpoint),
                self.is_doubtful(endpoint),
                failed_at,
            );
            Some((rank, self.choose_link_to(key, endpoint, request, now)?))
        });
        let likeliest = failing.min_by_key(|(rank, _)| *rank);
        likeliest.map_or_else(
            || LinkChoice::Later(self.next_retry(pool)),
            |(_, choice)| choice,
        )
    }

    /// Returns whether another upstream can be asked about a failed query: a healthy one, or one
    /// with a recovery test that is due, which begins, or in progress. Recovery tests are due every
    /// second, and all failed queries may use the same one.
    pub(in crate::proxy) fn begin_retry_elsewhere(
        &mut self,
        pool: PoolIndex,
        preferences: &LinkPreferences,
        now: Instant,
    ) -> bool {
        let eligible = self.eligible(pool);
        let untried =
            eligible.filter(|(_, endpoint)| !preferences.exclude.contains(endpoint.upstream));
        let untried: Vec<EndpointKey> = untried.map(|(key, _)| key).collect();
        // The silence may be a pause: the answer may still arrive until an outage is recorded.
        let has_no_outage = |key: &EndpointKey| self.endpoint(*key).health.is_healthy();
        if untried.iter().any(has_no_outage) {
            return true;
        }
        let (pause_max, moment) = (self.timeouts.backoff_max_asked, self.timeouts.slow);
        let health = |key: &&EndpointKey| &self.endpoint(**key).health;
        if untried
            .iter()
            .any(|key| health(&key).is_under_test(now, moment))
        {
            return true;
        }
        let due = untried
            .iter()
            .find(|key| health(key).is_test_due(now, pause_max));
        if let Some(key) = due.copied() {
            self.endpoint_mut(key).health.on_test_started(now);
        }
        due.is_some()
    }

    /// Returns whether queries should wait although no link can be chosen for them now.
    pub(in crate::proxy) fn is_hopeful(&self, pool: PoolIndex, now: Instant) -> bool {
        let is_hopeful = |endpoint: &Endpoint| endpoint.health.is_hopeful(now, &self.timeouts);
        self.eligible(pool)
            .any(|(_, endpoint)| is_hopeful(endpoint))
    }

    /// Returns the cause of the last failure if an endpoint of the pool has an outage.
    pub(in crate::proxy) fn last_failure(&self, pool: PoolIndex) -> Option<FailureKind> {
        let last_failure = |endpoint: &Endpoint| endpoint.health.last_failure();
        self.eligible(pool)
            .find_map(|(_, endpoint)| last_failure(endpoint))
    }

    /// Returns the time at which the next back-off in the pool ends, if queries wait for it.
    pub(in crate::proxy) fn next_retry(&self, pool: PoolIndex) -> Option<Instant> {
        let pause_max = self.timeouts.backoff_max_asked;
        let closed_until = |endpoint: &Endpoint| endpoint.health.closed_until(pause_max);
        self.eligible(pool)
            .filter_map(|(_, endpoint)| closed_until(endpoint))
            .min()
    }

    /// Ends the back-offs that are over, if queries wait for that.
    pub(in crate::proxy) fn end_pauses(&mut self, pool: PoolIndex, now: Instant) {
        for key in &self.pools[pool.0].ranking {
            if let Some(endpoint) = self.endpoints.get_mut(*key) {
                endpoint
                    .health
                    .end_pause(now, self.timeouts.backoff_max_asked);
            }
        }
    }

    /// Returns whether any link of a pool that may be used has room.
    pub(in crate::proxy) fn has_room(&self, pool: PoolIndex, now: Instant) -> bool {
        let mut eligible = self.eligible(pool);
        eligible.any(|(_, endpoint)| {
            let scheme = endpoint.scheme_for(false, now);
            scheme == Scheme::Udp && self.has_room_for_datagram(endpoint, false)
                || self.least_busy_link(endpoint, scheme, false, now).is_some()
        })
    }

    /// Returns the time since which any link of a pool that may be used has been up.
    pub(in crate::proxy) fn up_since(&self, pool: PoolIndex) -> Option<Instant> {
        let links = self.eligible(pool);
        let links = links.flat_map(|(_, endpoint)| &endpoint.links);
        let links = links.filter_map(|key| self.link(*key));
        let up = links.filter(|link| link.stage == Stage::Up);
        up.map(Link::up_since).min()
    }

    /// Returns the endpoints of a pool that may be queried, the best first: fallbacks only if no
    /// other endpoint is usable.
    fn eligible(&self, pool: PoolIndex) -> impl Iterator<Item = (EndpointKey, &Endpoint)> {
        let ranking = self.pools[pool.0].ranking.iter();
        let ranked = ranking.map(|key| (*key, self.endpoint(*key)));
        ranked.filter(move |(_, endpoint)| !endpoint.is_fallback || self.needs_fallback(pool))
    }

    /// Returns whether an endpoint has no outage and is not doubtful.
    fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        endpoint.health.is_healthy() && !self.is_doubtful(endpoint)
    }

    /// Returns whether every link to an endpoint is late or silent, or one is silent since its last
    /// answer.
    fn is_doubtful(&self, endpoint: &Endpoint) -> bool {
        let mut doubtful = 0;
        for link in endpoint.links.iter().filter_map(|key| self.link(*key)) {
            if link.is_silent()
                && let Some(since) = link.silent_since()
                && endpoint.is_silent_since(since)
            {
                return true;
            }
            doubtful += usize::from(link.is_doubtful());
        }
        doubtful > 0 && doubtful == endpoint.links.len()
    }

    /// Chooses the link for a query at one endpoint. Returns `None` if no link of the endpoint can
    /// take the query, now or soon.
    fn choose_link_to(
        &self,
        key: EndpointKey,
        endpoint: &Endpoint,
        request: &LinkRequest<'_>,
        now: Instant,
    ) -> Option<LinkChoice> {
        let LinkRequest {
            exchange,
            preferences,
            may_use_spare,
            demand,
        } = *request;
        let scheme = endpoint.scheme_for(preferences.needs_stream, now);
        // Healthy endpoints were considered before, so none is left: the short back-off applies.
        let closed_until = endpoint
            .health
            .closed_until(self.timeouts.backoff_max_asked);
        // The health of datagrams does not apply to connections.
        let is_other_kind = scheme != endpoint.scheme;
        let may_be_opened = is_other_kind || closed_until.is_none_or(|until| until <= now);
        if scheme == Scheme::Udp {
            let has_room = self.has_room_for_datagram(endpoint, may_use_spare);
            return match (may_be_opened, has_room) {
                (true, true) => Some(LinkChoice::Datagram(key)),
                (true, false) => Some(LinkChoice::Soon),
                (false, _) => None,
            };
        }
        if preferences.isolated_at.contains(endpoint.upstream)
            && let Ok(choice) =
                self.choose_isolated_link((key, endpoint), scheme, exchange, may_be_opened, now)
        {
            return choice;
        }
        let is_good =
            |link: &Link| !link.is_doubtful() && link.up_since() >= preferences.min_up_since;
        if let Some(link) = self.link_with_room(endpoint, scheme, is_good, now) {
            return Some(LinkChoice::Link(link));
        }
        let links = || self.links_of(endpoint, scheme).map(|(_, link)| link);
        let is_opening = |link: &&Link| link.stage == Stage::Opening && !link.is_late();
        let opening = links().filter(is_opening).count();
        // If each link takes few queries, links are opened for all waiting ones.
        let room_by_link = endpoint.capacity.known_inflight_max(now);
        let room = opening.saturating_mul(room_by_link.unwrap_or(usize::MAX));
        if opening > 0 && room >= demand {
            return Some(LinkChoice::Soon);
        }
        if may_be_opened && links().count() < self.links_per_address(endpoint, now) {
            let may_handshake = self.links_opening < self.limits.handshakes;
            return Some(if may_handshake {
                LinkChoice::Open(key, scheme)
            } else {
                LinkChoice::Soon
            });
        }
        match self.least_busy_link(endpoint, scheme, may_use_spare, now) {
            Some(link) => Some(LinkChoice::Link(link)),
            None => links().next().map(|_| LinkChoice::Soon),
        }
    }

    /// Returns how many connections to an endpoint may be open: more if each takes few queries.
    fn links_per_address(&self, endpoint: &Endpoint, now: Instant) -> usize {
        let most = match endpoint.capacity.known_inflight_max(now) {
            Some(few) if few < self.limits.link_inflight => self.limits.small_links_per_address,
            _ => self.limits.links_per_address,
        };
        let taken = endpoint.capacity.connections_max(now);
        taken.map_or(most, |taken| most.min(taken))
    }

    /// Returns the oldest suitable link with room: filling it first gathers queries in few TLS
    /// records and lets the other links become idle. A link that answers promptly has more room.
    fn link_with_room(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
        is_good: impl Fn(&Link) -> bool,
        now: Instant,
    ) -> Option<LinkKey> {
        let prompt = self.timeouts.prompt;
        let is_prompt = endpoint.latency.usual().is_some_and(|usual| usual < prompt);
        let is_worth_more = |link: &Link| is_prompt && !link.has_waited(prompt, now);
        let capacity = &endpoint.capacity;
        let has_room = |link: &Link| self.takes_more(link, capacity, is_worth_more(link), 0, now);
        let mut links = self.links_of(endpoint, scheme);
        let (key, _) = links.find(|(_, link)| has_room(link) && is_good(link))?;
        Some(key)
    }

    /// Returns the link for a query if no link has room. A link that may be dead is not filled. A
    /// query of a client with few queries does not wait for the queries of a client with many.
    fn least_busy_link(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
        may_use_spare: bool,
        now: Instant,
    ) -> Option<LinkKey> {
        let links = self.links_of(endpoint, scheme);
        let capacity = &endpoint.capacity;
        let is_alive = |link: &Link| link.has_answered() && !link.is_doubtful();
        let spare = if may_use_spare {
            self.limits.link_spare
        } else {
            0
        };
        let takes_more = |link: &Link| self.takes_more(link, capacity, is_alive(link), spare, now);
        let usable = links.filter(|(_, link)| takes_more(link));
        let (key, _) = usable.min_by_key(|(_, link)| link.waited_for())?;
        Some(key)
    }

    fn takes_more(
        &self,
        link: &Link,
        capacity: &ConnectionCapacity,
        is_worth_more: bool,
        spare: usize,
        now: Instant,
    ) -> bool {
        let most = match (capacity.is_serial(now), is_worth_more) {
            (true, _) => 1,
            (false, true) => self.limits.link_inflight_max + spare,
            (false, false) => self.limits.link_inflight,
        };
        link.scheme != Scheme::Udp
            && link.takes_queries()
            && link.waited_for() < most
            && link.sent().len() < capacity.streams_max(now)
    }

    /// Returns whether another datagram to an endpoint may be in flight.
    pub(in crate::proxy) fn has_room_for_datagram_to(&self, key: EndpointKey) -> bool {
        self.has_room_for_datagram(self.endpoint(key), false)
    }

    /// Returns whether another probe to an endpoint may be in flight. Probes have room of their
    /// own, since unanswered queries fill the room of the endpoints that probes test.
    pub(in crate::proxy) fn has_room_for_probe(&self, key: EndpointKey) -> bool {
        let endpoint = self.endpoint(key);
        let sent = self.links_of(endpoint, Scheme::Udp).count();
        let limits = &self.limits;
        let for_queries = limits.datagrams_per_address + limits.datagrams_spare;
        sent < for_queries + limits.probe_datagrams_per_address
    }

    fn has_room_for_datagram(&self, endpoint: &Endpoint, may_use_spare: bool) -> bool {
        let sent = self.links_of(endpoint, Scheme::Udp).count();
        let limits = &self.limits;
        let spare = if may_use_spare {
            limits.datagrams_spare
        } else {
            0
        };
        endpoint.scheme == Scheme::Udp && sent < limits.datagrams_per_address + spare
    }

    pub(super) fn links_of(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
    ) -> impl Iterator<Item = (LinkKey, &Link)> {
        let links = endpoint
            .links
            .iter()
            .filter_map(|key| Some((*key, self.link(*key)?)));
        links.filter(move |(_, link)| link.scheme == scheme)
    }

    /// Returns whether a pool has one endpoint at most.
    pub(in crate::proxy) fn has_one_endpoint(&self, pool: PoolIndex) -> bool {
        self.pools[pool.0].ranking.len() < 2
    }

    /// Begins the next recovery test in a pool that the endpoint of the link `busy` serves. The
    /// test shows whether the outage of another endpoint is over or, if latency decides the rank
    /// and `reserve` grants it, how fast that endpoint is. Unless `may_copy`, it sends no query. A
    /// fallback that is not in use is only connected to.
    pub(in crate::proxy) fn begin_recovery_test(
        &mut self,
        pool: PoolIndex,
        busy: LinkKey,
        may_copy: bool,
        reserve: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<RecoveryTest> {
        let busy = self.link(busy)?.endpoint;
        let ranking = &self.pools[pool.0].ranking;
        let others = || ranking.iter().copied().filter(|key| *key != busy);
        let is_steady = |key: &EndpointKey| {
            let endpoint = self.endpoint(*key);
            self.is_healthy(endpoint)
                && endpoint.health.is_steady(now, &self.timeouts)
                && !endpoint.is_fallback
        };
        let pause_max = if ranking.iter().any(is_steady) {
            self.timeouts.backoff_max
        } else {
            self.timeouts.backoff_max_asked
        };
        let is_test_due =
            |key: &EndpointKey| self.endpoint(*key).health.is_test_due(now, pause_max);
        let is_unknown = |key: &EndpointKey| {
            let endpoint = self.endpoint(*key);
            !self.has_outage(*key) && endpoint.explore_at <= now && self.are_compared(*key, busy)
        };
        let is_reserve = |key: &EndpointKey| self.is_reserve(*key, busy);
        let is_unchecked = |key: &EndpointKey| {
            is_reserve(key) && !self.has_outage(*key) && self.is_connection_due(*key, now)
        };
        let test_of = |key: EndpointKey| {
            let may_copy = may_copy && !is_reserve(&key);
            Some((key, self.recovery_test_of(key, may_copy, now)?))
        };
        let mut due = others().filter(|key| is_test_due(key) || is_unchecked(key));
        let due = due.find_map(test_of);
        let is_due = due.is_some();
        let (key, test) = due.or_else(|| others().filter(is_unknown).find_map(test_of))?;
        if !is_due && !reserve() {
            return None;
        }
        if let RecoveryTest::Open(..) = test {
            return Some(test);
        }
        let latency_known = self.timeouts.latency_known;
        let endpoint = self.endpoint_mut(key);
        endpoint.health.on_test_started(now);
        endpoint.explore_at = now + latency_known;
        Some(test)
    }

    /// Returns the recovery test of an endpoint that is possible now, if there is one.
    fn recovery_test_of(
        &self,
        key: EndpointKey,
        may_copy: bool,
        now: Instant,
    ) -> Option<RecoveryTest> {
        let endpoint = self.endpoint(key);
        let scheme = endpoint.scheme;
        if scheme == Scheme::Udp {
            let has_room = may_copy && self.has_room_for_datagram(endpoint, false);
            return has_room.then_some(RecoveryTest::Datagram(key));
        }
        if let Some(link) = self.least_busy_link(endpoint, scheme, false, now) {
            return may_copy.then_some(RecoveryTest::Copy(link));
        }
        let may_open = endpoint.links.is_empty() && self.links_opening < self.limits.handshakes;
        may_open.then_some(RecoveryTest::Open(key, scheme))
    }
}
