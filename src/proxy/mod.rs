//! The query engine: decides what happens to each query and performs no I/O.
//!
//! A [`Proxy`] takes events with the time of each and returns actions. It has no socket and no
//! clock, and all its randomness comes from a seed: the same calls return the same actions.
//!
//! A caller reports each event to a `handle_` method, performs the actions in the [`Outbox`] after
//! each call, and calls [`Proxy::handle_timeout`] at the time that [`Proxy::poll_timeout`] returns.
//! Every query for which [`Proxy::handle_query`] returns true gets exactly one [`Action::Respond`],
//! within [the deadline](crate::config::Timeouts::deadline), and ends with exactly one [`Outcome`].
//!
//! - `client`: admission of queries, rate limit, cookies, fairness between clients, names that are
//!   answered locally, and the completion of a query
//! - `cache`: the cache and the failure cache
//! - `exchange`: the life of one query: coalescing, dispatch, classification of replies,
//!   serve-stale and the trace
//! - `upstream`: routes, upstreams, endpoints and links, their selection, health and probes
//! - `validator`: DNSSEC validation of answers, and the queries of our own for it
//! - `followups`: the work that the end of an exchange or of a link leaves behind
//! - `question_table`: a bounded table by question, for values that expire
//! - `readiness`: the readiness check and its probes
//! - `reconfigure`: the change of settings while queries are in flight
//! - `actions`, `outcome`, `counters`, `keys`, `view`: the outbox, the outcomes of queries, the
//!   counters, the keys of the tables, and getters for exporters

mod actions;
mod cache;
mod client;
mod counters;
mod dns64;
mod exchange;
mod followups;
mod keys;
mod outcome;
mod question_table;
mod readiness;
mod reconfigure;
#[cfg(test)]
mod testing;
mod upstream;
mod validator;
mod view;

pub use actions::{Action, Destination, Outbox, Record};
pub use cache::{CacheUsage, Restored};
pub use client::admission::{ClientTransport, is_query};
pub use client::fairness::Room;
pub use counters::Counters;
pub use exchange::trace::{PeerAddr, StepEnd, StepKind, Trace, TraceStep};
pub use keys::{LinkKey, UpstreamIndex};
pub use outcome::{Discard, Outcome};
pub use readiness::Unready;
pub use upstream::{UpstreamView, explain_opening_failure, read_addresses};
pub use validator::DnssecCounters;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::arena::Arena;
use crate::base::failure::FailureKind;
use crate::base::lazy_queue::LazyQueue;
use crate::base::name_table::NameTableKey;
use crate::base::random::{Random, SEED_LEN};
use crate::base::time::{Instant, Validity};
use crate::block::BlockList;
use crate::config::Config;

use actions::Cx;
use cache::Cache;
use cache::failures::FailureCache;
use client::cookies::Cookies;
use client::fairness::QueryShares;
use client::log_throttle::LogThrottle;
use client::rate_limit::RateLimiter;
use client::shares::ClientHash;
use exchange::Exchange;
use exchange::coalesce::InFlight;
use exchange::fair_queue::{FairQueue, Waiter};
use exchange::postponed::PostponedAnswer;
use followups::Followups;
use keys::{ExchangeKey, PoolIndex};
use readiness::Probes;
use reconfigure::Topology;
use upstream::Upstreams;
use upstream::bad_answers::BadAnswers;
use upstream::bootstrap::Bootstrap;
use upstream::hedge_budget::Hedges;
use upstream::link::{Due, Link, Stage};
use upstream::loop_detection::LoopTests;
use upstream::routes::Routes;
use upstream::suspects::Suspects;
use validator::{Validator, cache_settings};

/// The query engine. See the [module](self).
#[derive(Debug)]
pub struct Proxy {
    config: Config,
    cookies: Cookies,
    rate_limiter: Option<RateLimiter>,
    exchanges: Arena<ExchangeKey, Exchange>,
    /// Every exchange in the order of the deadlines.
    by_deadline: LazyQueue<(Instant, ExchangeKey)>,
    /// The queues of the exchanges that wait for a link.
    waiting_by_pool: Vec<FairQueue>,
    /// The queries that each client holds, against the limits of clients and domains.
    query_shares: QueryShares,
    /// Exchanges with a stale answer, by the time at which that answer becomes the response.
    by_stale_deadline: LazyQueue<(Instant, ExchangeKey)>,
    /// Answers some of whose responses wait for room in the outbox.
    postponed: VecDeque<PostponedAnswer>,
    /// The number of exchanges without a client.
    without_client: usize,
    in_flight: InFlight,
    followups: Followups,
    block_list: Option<BlockList>,
    cache: Cache,
    routes: Routes,
    upstreams: Upstreams,
    bootstrap: Bootstrap,
    hedges: Hedges,
    failures: FailureCache,
    bad_answers: BadAnswers,
    /// Upstreams that have not been connected to since the start.
    unconnected: Vec<UpstreamIndex>,
    /// Queries could be answered before the last reload.
    was_ready: bool,
    suspects: Suspects,
    validator: Option<Box<Validator>>,
    loop_tests: LoopTests,
    probes: Probes,
    log_throttle: LogThrottle,
    random: Random,
    spare_buffers: Vec<Vec<u8>>,
    counters: Counters,
}

impl Proxy {
    /// Creates a proxy without links and with an empty cache.
    pub fn new(config: &Config, seed: &[u8; SEED_LEN]) -> Self {
        let mut random = Random::new(seed);
        let topology = Topology::new(config, &ClientHash::new(&mut random));
        Self {
            config: config.clone(),
            cookies: Cookies::new(&mut random),
            rate_limiter: config.rate_limit.map(|limit| RateLimiter::new(limit, seed)),
            exchanges: Arena::default(),
            by_deadline: LazyQueue::default(),
            waiting_by_pool: topology.waiting_by_pool,
            query_shares: topology.query_shares,
            by_stale_deadline: LazyQueue::default(),
            postponed: VecDeque::new(),
            without_client: 0,
            in_flight: InFlight::default(),
            followups: Followups::default(),
            block_list: None,
            cache: Cache::new(&cache_settings(config), &config.timeouts, seed),
            routes: topology.routes,
            upstreams: topology.upstreams,
            bootstrap: topology.bootstrap,
            hedges: Hedges::new(&config.limits),
            failures: FailureCache::new(&config.timeouts, &config.limits),
            bad_answers: BadAnswers::new(&config.timeouts, &config.limits),
            unconnected: Vec::new(),
            was_ready: false,
            suspects: Suspects::new(&config.limits),
            validator: topology.validator,
            loop_tests: LoopTests::default(),
            probes: Probes::default(),
            log_throttle: LogThrottle::default(),
            random,
            spare_buffers: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Returns the number of queries that hold room in the table, including those for the cache.
    fn under_way(&self) -> usize {
        self.exchanges.len() - self.bootstrap.asked()
    }

    /// Returns a random key for a table of names.
    pub fn new_name_table_key(&mut self) -> NameTableKey {
        NameTableKey::new(&mut self.random)
    }

    /// Writes the answers in the cache. Returns their number.
    ///
    /// # Errors
    ///
    /// Returns the error of the writer.
    pub fn save_cache(&self, now: Instant, out: &mut dyn Write) -> io::Result<usize> {
        self.cache.save(now, out)
    }

    /// Adds answers that [`Proxy::save_cache`] wrote `elapsed` ago to the cache. If that time is
    /// unknown, all of them are expired.
    ///
    /// # Errors
    ///
    /// Returns the error of the reader, or [`io::ErrorKind::InvalidData`] for other bytes. The
    /// cache is empty then.
    pub fn restore_cache(
        &mut self,
        input: &mut dyn Read,
        elapsed: Option<Duration>,
        now: Instant,
    ) -> io::Result<Restored> {
        let restored = self.cache.restore(input, elapsed, now);
        restored.inspect_err(|_| self.clear_cache())
    }

    /// Removes all answers from the cache.
    pub fn clear_cache(&mut self) {
        let settings = cache_settings(&self.config);
        self.cache.reconfigure(&settings, &self.config.timeouts);
    }

    /// Releases the buffers that are kept for the next queries.
    pub fn release_spare(&mut self) {
        self.spare_buffers = Vec::new();
    }

    /// Records that a link is connected and that its peer, under TLS, is authenticated by a full or
    /// a resumed handshake. Returns the label of the endpoint and the time that the connection took
    /// if it is the endpoint's first one.
    pub fn handle_link_up(
        &mut self,
        key: LinkKey,
        is_resumed: bool,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Option<(&str, Duration)> {
        let cx = &mut Cx { now, outbox };
        let (endpoint, took_first) = self.upstreams.on_up(key, cx.now)?;
        if self
            .upstreams
            .link(key)
            .is_some_and(|link| link.scheme.is_encrypted())
        {
            let (session, counter) = if is_resumed {
                ("resumed", &mut self.counters.resumed_handshakes)
            } else {
                ("new", &mut self.counters.full_handshakes)
            };
            *counter += 1;
            self.upstreams.stats_mut(key).count_handshake(is_resumed);
            let label = self.upstreams.endpoint(endpoint).label();
            log::debug!("upstream {label}: connected, session {session}");
        }
        self.trust_address(endpoint);
        self.followups.on_room();
        self.settle(cx);
        self.probe_new_link(key, cx);
        Some((self.upstreams.endpoint(endpoint).label(), took_first?))
    }

    /// Records that mutual TLS refused a client, with the reason.
    pub fn handle_refused_certificate(&mut self, ip: IpAddr, reason: &str, now: Instant) {
        self.counters.refused_certificates += 1;
        self.log_throttle.on_refused_certificate(ip, reason, now);
    }

    /// Records that TCP is connected on a link that is being opened.
    pub fn handle_link_connected(&mut self, key: LinkKey) {
        if let Some(link) = self.upstreams.link_mut(key) {
            link.is_connected = true;
        }
    }

    /// Records the certificate of a link's peer. `wall_clock` is the time since 1970.
    pub fn handle_certificate(&mut self, key: LinkKey, validity: Validity, wall_clock: Duration) {
        if self.upstreams.link(key).is_some() {
            let stats = self.upstreams.stats_mut(key);
            stats.on_certificate(validity, wall_clock);
        }
    }

    /// Records the key exchange group of a link's TLS handshake.
    pub fn handle_key_exchange(&mut self, key: LinkKey, group: &'static str) {
        if self.upstreams.link(key).is_some() {
            self.upstreams.stats_mut(key).key_exchange = Some(group);
        }
    }

    /// Handles the end of a suspension of the host. Connections are unlikely to have survived the
    /// suspension, so links without queries are closed, and the queries of the other links are also
    /// sent on new links.
    pub fn handle_resume(&mut self, slept: Duration, now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        self.cache.on_sleep(slept);
        self.forget_zones();
        log::info!(event = "resumed"; "the host was suspended: reconnecting");
        let up = self.upstreams.links();
        let up = up.filter(|(_, link)| link.stage == Stage::Up);
        let up: Vec<LinkKey> = up.map(|(key, _)| key).collect();
        for key in up {
            self.retire(key, cx);
            while self.retry_overdue(key, cx) {}
            self.close_if_done(key, cx.outbox);
        }
        self.settle(cx);
    }

    /// Returns the time at which [`Proxy::handle_timeout`] has work to do.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let exchanges = &self.exchanges;
        let first = self.by_deadline.front(|(_, key)| exchanges.contains(*key));
        let deadline = first.map(|(deadline, _)| *deadline);
        let link = self
            .upstreams
            .links()
            .filter_map(|(_, link)| Some(self.next_due(link)?.0))
            .min();
        let stale = self.next_stale().map(|(at, _)| at);
        let start = self.bootstrap.start_at();
        let probe = self.next_probe();
        let retry = self.next_retry();
        let postponed = self.postponed_since();
        let validations = self.validations_wait_since();
        let late_verdict = self.next_late_verdict().map(|(at, _)| at);
        let moments = [
            postponed,
            validations,
            late_verdict,
            deadline,
            link,
            stale,
            start,
            probe,
            retry,
        ];
        moments.into_iter().flatten().min()
    }

    /// Returns the time at which a waiting exchange may get an endpoint that cannot be used now.
    fn next_retry(&self) -> Option<Instant> {
        let pools = self.pools();
        let waited_for = pools.filter(|pool| !self.waiting_by_pool[pool.0].is_empty());
        let moments = waited_for.flat_map(|pool| {
            let asked_at = self.bootstrap.retry_at(&self.upstreams, pool);
            [self.upstreams.next_retry(pool), asked_at]
        });
        moments.flatten().min()
    }

    /// Handles all expired timers.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        self.answer_postponed(cx);
        self.run_validations(cx);
        while let Some((key, due)) = self.first_due(cx.now) {
            match due {
                Due::Late => self.on_late(key, cx),
                Due::HandshakeTimeout => {
                    let link = self.upstreams.link(key);
                    let kind = link.map_or(FailureKind::ConnectTimeout, Link::timeout_kind);
                    self.close(key, kind, cx);
                }
                Due::Probe { since } => self.probe_silent_link(key, since, cx),
                Due::ProbeBeside { since } => self.probe_beside(key, since, cx),
                Due::Stalled { since } => self.on_stalled(key, since, cx),
                Due::Slow => self.hedge(key, cx),
                Due::Overdue => drop(self.retry_overdue(key, cx)),
                Due::Idle => {
                    self.upstreams.remove(key);
                    cx.outbox.close(key);
                }
            }
        }
        self.serve_stale_due(cx);
        self.end_late_validations(cx);
        while let Some(key) = self.first_expired(cx.now) {
            let outcome = if self.exchanges[key].was_sent() {
                Outcome::TimedOut
            } else {
                Outcome::UpstreamFailed
            };
            self.fail(key, outcome, cx);
        }
        for pool in self.pools() {
            self.upstreams.end_pauses(pool, cx.now);
        }
        self.probe_if_due(cx);
        self.followups.on_room();
        self.settle(cx);
    }

    fn pools(&self) -> impl Iterator<Item = PoolIndex> + use<> {
        (0..self.waiting_by_pool.len()).map(PoolIndex)
    }

    /// Returns whether queries of a client have waited for room, on links that are up, for longer
    /// than the timeout of an attempt. Suspects, which wait for isolated links, do not count.
    fn is_backed_up(&mut self, pool: PoolIndex, waiter: Waiter, now: Instant) -> bool {
        let exchanges = &self.exchanges;
        let waiting = &mut self.waiting_by_pool[pool.0];
        if waiting
            .first_of(waiter, |key| exchanges.contains(key))
            .is_none()
        {
            return false;
        }
        let live = waiting.entries_of(waiter);
        let mut live = live.filter_map(|key| exchanges.get(key));
        let Some(first) = live.find(|exchange| exchange.preferences.isolated_at.is_empty()) else {
            return false;
        };
        let waiting_since = first.waiting_since;
        let up_since = self.upstreams.up_since(pool);
        up_since.is_some_and(|since| now - since.max(waiting_since) > self.config.timeouts.attempt)
    }

    fn next_due(&self, link: &Link) -> Option<(Instant, Due)> {
        link.next_due(
            &self.config.timeouts,
            self.upstreams.slow_after(link),
            self.upstreams.idle_limit(link),
        )
    }

    fn first_due(&self, now: Instant) -> Option<(LinkKey, Due)> {
        self.upstreams.links().find_map(|(key, link)| {
            let (at, due) = self.next_due(link)?;
            (at <= now).then_some((key, due))
        })
    }

    fn first_expired(&mut self, now: Instant) -> Option<ExchangeKey> {
        let exchanges = &self.exchanges;
        let (deadline, key) = *self
            .by_deadline
            .front(|(_, key)| exchanges.contains(*key))?;
        (deadline <= now).then_some(key)
    }
}
