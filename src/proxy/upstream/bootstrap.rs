//! The addresses of upstreams that are given by host name.
//!
//! The proxy queries the servers of the option `--bootstrap` for the addresses: once at start-up,
//! and later when a client query arrives after the addresses expired or a connection to one failed.
//! Expired addresses stay in use until new ones are known. The upstream has to authenticate itself
//! in any case.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Upstreams, backoff};
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::{Config, Host, Scheme};
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::{Exchange, Purpose};
use crate::proxy::keys::{EndpointKey, LinkKey, PoolIndex, UpstreamIndex};
use crate::wire::name::Name;
use crate::wire::question::Type;
use crate::wire::{Message, Query};

/// The upstreams that are given by host name.
#[derive(Debug)]
pub(in crate::proxy) struct Bootstrap {
    /// The pool of bootstrap servers.
    servers: PoolIndex,
    hosts: Vec<Hosted>,
}

/// An upstream that is given by host name.
#[derive(Debug)]
struct Hosted {
    upstream: UpstreamIndex,
    label: String,
    scheme: Scheme,
    name: Name,
    port: u16,
    /// Address types with an unanswered query.
    asked: Vec<Type>,
    asked_at: Instant,
    /// The TTL of the addresses learned since the last queries.
    lifetime: Option<Duration>,
    /// The time of the next queries; `None` while queries are unanswered.
    ask_at: Option<Instant>,
    /// The number of consecutive lookups that failed or led to unreachable addresses.
    failures: u32,
}

/// The address types that are queried at once.
const TYPES: [Type; 2] = [Type::A, Type::AAAA];

impl Bootstrap {
    /// Collects the upstreams of `config` with a host name, to be looked up through `servers`.
    pub(in crate::proxy) fn new(config: &Config, servers: PoolIndex) -> Self {
        let hosted = |(index, upstream): (usize, &crate::config::Upstream)| {
            let Host::Name(name, port) = &upstream.host else {
                return None;
            };
            Some(Hosted {
                upstream: UpstreamIndex(index),
                label: upstream.to_string(),
                scheme: upstream.scheme,
                name: name.clone(),
                port: *port,
                asked: Vec::new(),
                asked_at: Instant::default(),
                lifetime: None,
                ask_at: Some(Instant::default()),
                failures: 0,
            })
        };
        let upstreams = config.upstreams.iter().enumerate();
        let hosts = upstreams.filter_map(hosted).collect();
        Self { servers, hosts }
    }

    /// Returns the number of unanswered bootstrap queries.
    pub(in crate::proxy) fn asked(&self) -> usize {
        self.hosts.iter().map(|host| host.asked.len()).sum()
    }

    /// Returns when a lookup is due regardless of waiting queries, which is only at start-up.
    pub(in crate::proxy) fn start_at(&self) -> Option<Instant> {
        let mut moments = self.hosts.iter().filter_map(|host| host.ask_at);
        moments.find(|at| *at == Instant::default())
    }

    /// Returns when an upstream of a pool without an address is looked up again.
    pub(in crate::proxy) fn retry_at(
        &self,
        upstreams: &Upstreams,
        pool: PoolIndex,
    ) -> Option<Instant> {
        self.missing(upstreams, pool)
            .filter_map(|host| host.ask_at)
            .min()
    }

    /// Returns the upstreams of a pool that have no address.
    fn missing(&self, upstreams: &Upstreams, pool: PoolIndex) -> impl Iterator<Item = &Hosted> {
        let members = self
            .hosts
            .iter()
            .filter(move |host| upstreams.is_member(pool, host.upstream));
        members.filter(|host| upstreams.addresses(host.upstream).next().is_none())
    }
}

impl Proxy {
    /// Starts the lookups that are due, for upstreams with waiting queries and for the pool
    /// `queried`, which has got a query.
    #[inline]
    pub(in crate::proxy) fn ask_for_addresses(
        &mut self,
        queried: Option<PoolIndex>,
        cx: &mut Cx<'_>,
    ) {
        if !self.bootstrap.hosts.is_empty() {
            self.ask_for_addresses_of_hosts(queried, cx);
        }
    }

    /// Out of line, so that a query without such an upstream costs only the check.
    #[inline(never)]
    fn ask_for_addresses_of_hosts(&mut self, queried: Option<PoolIndex>, cx: &mut Cx<'_>) {
        for index in 0..self.bootstrap.hosts.len() {
            let host = &self.bootstrap.hosts[index];
            if host.ask_at.is_none_or(|at| at > cx.now) {
                continue;
            }
            let mut pools = self.upstreams.pools_of(host.upstream).into_iter();
            let is_wanted = host.ask_at == Some(Instant::default())
                || pools
                    .any(|pool| queried == Some(pool) || !self.waiting_by_pool[pool.0].is_empty());
            if !is_wanted {
                continue;
            }
            let host = &mut self.bootstrap.hosts[index];
            (host.asked_at, host.ask_at, host.lifetime) = (cx.now, None, None);
            host.asked = TYPES.to_vec();
            for rr_type in TYPES {
                let host = &self.bootstrap.hosts[index];
                let purpose = Purpose::Bootstrap(host.upstream, rr_type);
                let query = Query::new(&host.name, rr_type);
                let deadline = cx.now + self.config.timeouts.deadline;
                let exchange =
                    Exchange::new(purpose, self.bootstrap.servers, query, (cx.now, deadline));
                self.start(exchange, cx);
            }
        }
    }

    /// Returns when an upstream of a pool that has no address may get one: `now` during the lookup.
    pub(in crate::proxy) fn next_address(&self, pool: PoolIndex, now: Instant) -> Option<Instant> {
        let missing = self.bootstrap.missing(&self.upstreams, pool);
        missing.map(|host| host.ask_at.unwrap_or(now)).min()
    }

    /// Records that a connection to this endpoint failed: the upstream's address may have changed.
    pub(in crate::proxy) fn doubt_address(&mut self, endpoint: EndpointKey, kind: FailureKind) {
        let may_have_changed = matches!(
            kind,
            FailureKind::Connect
                | FailureKind::Authentication
                | FailureKind::ConnectTimeout
                | FailureKind::HandshakeTimeout
        );
        let Some(host) = self.host_of(endpoint).filter(|_| may_have_changed) else {
            return;
        };
        let host = &mut self.bootstrap.hosts[host];
        let pause = backoff(host.failures, &self.config.timeouts, &mut self.random);
        let soon = host.asked_at + pause;
        if host.ask_at.is_some_and(|at| at > soon) {
            host.ask_at = Some(soon);
            host.failures += 1;
        }
    }

    /// Records that an address is correct.
    pub(in crate::proxy) fn trust_address(&mut self, endpoint: EndpointKey) {
        if let Some(host) = self.host_of(endpoint) {
            self.bootstrap.hosts[host].failures = 0;
        }
    }

    fn host_of(&self, endpoint: EndpointKey) -> Option<usize> {
        if self.bootstrap.hosts.is_empty() {
            return None;
        }
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let mut hosts = self.bootstrap.hosts.iter();
        hosts.position(|host| host.upstream == upstream)
    }

    /// Handles the answer to a bootstrap query for addresses of this type. `None` means that there
    /// is no answer.
    pub(in crate::proxy) fn on_addresses(
        &mut self,
        upstream: UpstreamIndex,
        rr_type: Type,
        answer: Option<&Message<'_>>,
        cx: &mut Cx<'_>,
    ) {
        let hosts = &mut self.bootstrap.hosts;
        let index = hosts.iter().position(|host| host.upstream == upstream);
        let index = index.expect("the upstream of a bootstrap query exists");
        let host = &mut hosts[index];
        host.asked.retain(|asked| *asked != rr_type);
        let (addresses, lifetime) = answer
            .map(|answer| read_addresses(answer, rr_type))
            .unwrap_or_default();
        if !addresses.is_empty() {
            host.lifetime = Some(host.lifetime.map_or(lifetime, |other| other.min(lifetime)));
            self.set_addresses(index, rr_type, &addresses, cx);
        }
        let host = &mut self.bootstrap.hosts[index];
        if !host.asked.is_empty() {
            return;
        }
        if let Some(lifetime) = host.lifetime {
            host.ask_at = Some(cx.now + lifetime);
            return;
        }
        let is_lost = self.upstreams.addresses(upstream).next().is_none();
        let pause = backoff(host.failures, &self.config.timeouts, &mut self.random);
        let pause_max = if is_lost {
            self.config.timeouts.backoff_max_asked
        } else {
            self.config.timeouts.backoff_max
        };
        host.ask_at = Some(cx.now + pause.min(pause_max));
        host.failures += 1;
        let level = if is_lost && host.failures == 1 {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        let (label, servers) = (&host.label, &self.config.bootstrap);
        let servers: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
        log::log!(
            level,
            "upstream {label}: --bootstrap found no address at {}; later queries will look it up \
             again",
            servers.join(", ")
        );
        self.count_failure(upstream, FailureKind::NoAddress);
        for pool in self.upstreams.pools_of(upstream) {
            self.fail_waiting_if_unreachable(pool, cx);
        }
    }

    /// Sets the addresses of this type of an upstream.
    fn set_addresses(
        &mut self,
        index: usize,
        rr_type: Type,
        addresses: &[IpAddr],
        cx: &mut Cx<'_>,
    ) {
        let host = &self.bootstrap.hosts[index];
        let (upstream, scheme, port) = (host.upstream, host.scheme, host.port);
        let most = self.config.limits.addresses_per_upstream / TYPES.len();
        let wanted = addresses.iter().take(most);
        let wanted: Vec<_> = wanted.map(|ip| SocketAddr::new(*ip, port)).collect();
        let known: Vec<_> = self.upstreams.addresses(upstream).collect();
        let is_of_type = |address: &SocketAddr| address.is_ipv4() == (rr_type == Type::A);
        let gone = known.iter().filter(|(_, address)| is_of_type(address));
        let gone: Vec<_> = gone
            .filter(|(_, address)| !wanted.contains(address))
            .collect();
        let is_new = |address: &&SocketAddr| known.iter().all(|(_, known)| known != *address);
        let new: Vec<_> = wanted.iter().filter(is_new).collect();
        if gone.is_empty() && new.is_empty() {
            return;
        }
        let listed: Vec<_> = wanted
            .iter()
            .map(|address| address.ip().to_string())
            .collect();
        log::info!("upstream {}: resolved to {}", host.label, listed.join(", "));
        for address in new {
            let label = format!("{} at {}", self.bootstrap.hosts[index].label, address.ip());
            self.upstreams.add(upstream, scheme, *address, label);
        }
        let gone = gone
            .iter()
            .flat_map(|(key, _)| self.upstreams.discard(*key));
        let gone: Vec<LinkKey> = gone.collect();
        for link in gone {
            self.retire(link, cx);
            self.close_if_done(link, cx.outbox);
        }
        for pool in self.upstreams.pools_of(upstream) {
            self.failures.on_addresses(pool, cx.now);
        }
    }
}

/// Returns the addresses in an answer and their TTL, limited to between a minute and a day.
pub fn read_addresses(answer: &Message<'_>, rr_type: Type) -> (Vec<IpAddr>, Duration) {
    let mut addresses = Vec::new();
    let mut seconds = 86_400;
    for record in answer.answers().filter(|record| record.rr_type == rr_type) {
        let address = record.address(answer.bytes());
        let is_host = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        if let Some(address) = address.filter(|ip| is_host(ip) && !addresses.contains(ip)) {
            addresses.push(address);
            seconds = seconds.min(record.ttl(answer.bytes()));
        }
    }
    (addresses, Duration::from_secs(seconds.max(60).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the result for an answer to a question for A with these records: type, TTL and data.
    fn answer(records: &[(u16, u32, &[u8])]) -> (Vec<IpAddr>, u64) {
        let count = u8::try_from(records.len()).unwrap();
        let mut bytes = vec![0, 0, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
        bytes.extend(b"\x03dns\0\0\x01\0\x01");
        for (rr_type, ttl, data) in records {
            bytes.extend(b"\xc0\x0c");
            bytes.extend(rr_type.to_be_bytes());
            bytes.extend(b"\0\x01");
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(*data);
        }
        let (addresses, lifetime) = read_addresses(&Message::parse(&bytes).unwrap(), Type::A);
        (addresses, lifetime.as_secs())
    }

    #[test]
    fn duplicate_addresses_are_removed() {
        let found = answer(&[
            (5, 10, b"\xc0\x0c"),
            (1, 500, &[192, 0, 2, 1]),
            (1, 300, &[192, 0, 2, 2]),
            (1, 400, &[192, 0, 2, 1]),
            (1, 10, &[0, 0, 0, 0]),
            (1, 10, &[224, 0, 0, 1]),
            (28, 10, &[0x20; 16]),
        ]);
        let expected = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        assert_eq!(found, (expected.to_vec(), 300));
    }

    #[test]
    fn ttl_of_addresses_is_between_a_minute_and_a_day() {
        let lifetime = |ttl| answer(&[(1, ttl, &[192, 0, 2, 1])]).1;
        assert_eq!(lifetime(0), 60);
        assert_eq!(lifetime(1_000), 1_000);
        assert_eq!(lifetime(1_000_000), 86_400);
    }
}
