//! Room for queries: the shares of the table of exchanges that clients and domains may hold.
//!
//! A client holds at most a quarter of the table, and so do the upstreams of a domain. If the table
//! or the part of a domain is full, a query of a client that holds less gets room: the newest query
//! of the client that holds most is refused instead. The queries that the cache sends for a client
//! count against that client.

use super::admission::{OVERLOADED, Refusal};
use super::shares::{ClientHash, LazyClientShares};
use crate::base::arena::Arena;
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::config::Limits;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::Exchange;
use crate::proxy::keys::{ExchangeKey, PoolIndex};
use crate::proxy::outcome::Outcome;

/// The room for another query of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Free,
    /// There is no room until a query has ended.
    Full,
    /// The client exceeds its rate limit.
    RateExceeded {
        /// The time at which the client is within the limit again.
        until: Instant,
    },
}

/// The queries that clients hold in the table and in the parts of it that are for a domain.
#[derive(Debug)]
pub(in crate::proxy) struct QueryShares {
    table: LazyClientShares,
    /// Queries to all pools that have a limit of their own.
    domains: LazyClientShares,
    /// `None` for a pool without a limit of its own.
    by_pool: Vec<Option<LazyClientShares>>,
}

impl QueryShares {
    /// Creates empty shares. `limited` states for each pool whether it has a limit of its
    /// own.
    pub(in crate::proxy) fn new(
        limited: impl Iterator<Item = bool>,
        limits: &Limits,
        hash: &ClientHash,
    ) -> Self {
        let pool = || LazyClientShares::new(few_of_pool(limits), hash.clone());
        Self {
            table: LazyClientShares::new(few_of_all(limits), hash.clone()),
            domains: LazyClientShares::new(few_of_domains(limits), hash.clone()),
            by_pool: limited.map(|is_one| is_one.then(pool)).collect(),
        }
    }

    /// Adds a query to the table. The query counts against a client unless it is one of our own.
    pub(in crate::proxy) fn add(
        &mut self,
        key: ExchangeKey,
        exchanges: &Arena<ExchangeKey, Exchange>,
    ) {
        let exchange = exchanges.get(key);
        let exchange = exchange.expect("a query that is added is in the table");
        let (Some(client), pool) = (exchange.holder, exchange.pool) else {
            return;
        };
        self.table.add(client, key, || queries(exchanges, |_| true));
        let Self {
            domains, by_pool, ..
        } = self;
        if by_pool[pool.0].is_some() {
            let is_domain = |pool: PoolIndex| by_pool[pool.0].is_some();
            domains.add(client, key, || queries(exchanges, is_domain));
        }
        if let Some(shares) = &mut by_pool[pool.0] {
            shares.add(client, key, || queries(exchanges, |one| one == pool));
        }
    }

    /// Removes a query that counts against a client.
    pub(in crate::proxy) fn remove(&mut self, pool: PoolIndex, key: ExchangeKey) {
        self.table.remove(key);
        if let Some(shares) = &mut self.by_pool[pool.0] {
            self.domains.remove(key);
            shares.remove(key);
        }
    }

    /// Counts every query of the table again, under new limits.
    pub(in crate::proxy) fn count(
        &mut self,
        limits: &Limits,
        exchanges: &Arena<ExchangeKey, Exchange>,
    ) {
        let all = queries(exchanges, |_| true);
        self.table.start_over(few_of_all(limits), all);
        let of_domains = queries(exchanges, |pool| self.by_pool[pool.0].is_some());
        self.domains.start_over(few_of_domains(limits), of_domains);
        for (index, shares) in self.by_pool.iter_mut().enumerate() {
            if let Some(shares) = shares {
                let all = queries(exchanges, |pool| pool == PoolIndex(index));
                shares.start_over(few_of_pool(limits), all);
            }
        }
    }
}

/// Returns the number of queries up to which the limit of a client cannot be exceeded.
fn few_of_all(limits: &Limits) -> usize {
    let few = limits.client_inflight_few;
    few.min(limits.client_inflight() - 1)
}

/// Returns the number of queries to domains up to which the limit of a client cannot be exceeded.
fn few_of_domains(limits: &Limits) -> usize {
    limits.client_domains_inflight() - 1
}

/// Returns the number of queries to a pool up to which the limit of a client cannot be exceeded.
fn few_of_pool(limits: &Limits) -> usize {
    limits.client_domain_inflight() - 1
}

/// Returns the queries that count against clients, in the order of arrival, to the pools for which
/// `is_one` holds.
fn queries(
    exchanges: &Arena<ExchangeKey, Exchange>,
    is_one: impl Fn(PoolIndex) -> bool,
) -> Vec<(Subscriber, ExchangeKey)> {
    let to_pools = exchanges
        .iter()
        .filter(|(_, exchange)| is_one(exchange.pool));
    let all = to_pools.filter_map(|(key, exchange)| {
        let client = exchange.holder?;
        Some((exchange.asked_at, (client, key)))
    });
    let mut all: Vec<_> = all.collect();
    all.sort_unstable_by_key(|(asked_at, _)| *asked_at);
    all.into_iter().map(|(_, one)| one).collect()
}

impl Proxy {
    /// Returns whether there is room for another query of a client. A query without room is
    /// refused, so a session on a connection waits until there is room.
    pub fn room_for(&mut self, client: Subscriber, now: Instant) -> Room {
        let limiter = self.rate_limiter.as_ref();
        if let Some(until) = limiter.and_then(|limiter| limiter.exceeded_until(client, now)) {
            return Room::RateExceeded { until };
        }
        let pool = self.routes.for_others();
        let has_room = self.may_hold_any(client)
            && (self.has_capacity() || self.query_shares.table.newest_of_largest(client).is_some())
            && !pool.is_some_and(|pool| self.is_backed_up(pool, Some(client), now));
        if has_room { Room::Free } else { Room::Full }
    }

    /// Makes room for a query of a client to a pool, or returns the refusal: the client holds its
    /// part, or its earlier queries wait for so long that they would delay this one.
    pub(in crate::proxy) fn make_room(
        &mut self,
        client: Subscriber,
        pool: PoolIndex,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        if !self.is_within_limits(client, pool) || self.is_backed_up(pool, Some(client), cx.now) {
            return Err(OVERLOADED);
        }
        if let Some(shares) = &mut self.query_shares.by_pool[pool.0]
            && shares.len() >= self.config.limits.domain_inflight()
        {
            let newest = shares.newest_of_largest(client);
            self.shed(newest.ok_or(OVERLOADED)?, cx);
        }
        if !self.has_capacity() {
            let newest = self.query_shares.table.newest_of_largest(client);
            self.shed(newest.ok_or(OVERLOADED)?, cx);
        }
        if self.has_capacity() {
            Ok(())
        } else {
            Err(OVERLOADED)
        }
    }

    /// Returns whether a client may hold another query to a pool without a refusal of another
    /// query.
    pub(in crate::proxy) fn may_hold(&self, client: Subscriber, pool: PoolIndex) -> bool {
        let most = self.config.limits.domain_inflight();
        let has_room = |shares: &LazyClientShares| shares.len() < most;
        let shares = self.query_shares.by_pool[pool.0].as_ref();
        shares.is_none_or(has_room) && self.is_within_limits(client, pool)
    }

    /// Returns whether a client stays within its limits with another query to a pool.
    #[inline]
    fn is_within_limits(&self, client: Subscriber, pool: PoolIndex) -> bool {
        let (limits, shares) = (&self.config.limits, &self.query_shares);
        let is_within_pool = shares.by_pool[pool.0].as_ref().is_none_or(|of_pool| {
            of_pool.holds_at_most(client, limits.client_domain_inflight() - 1)
                && (shares.domains).holds_at_most(client, limits.client_domains_inflight() - 1)
        });
        is_within_pool && self.may_hold_any(client)
    }

    fn may_hold_any(&self, client: Subscriber) -> bool {
        let most = self.config.limits.client_inflight();
        self.query_shares.table.holds_at_most(client, most - 1)
    }

    /// Returns whether a client has few queries in flight. Queries of our own are always few.
    pub(in crate::proxy) fn has_few(&self, holder: Option<Subscriber>) -> bool {
        let few = self.config.limits.client_inflight_few;
        holder.is_none_or(|client| self.query_shares.table.holds_at_most(client, few))
    }

    /// Returns whether the table has room for another query.
    fn has_capacity(&self) -> bool {
        self.under_way() < self.config.limits.inflight
    }

    /// Refuses an accepted query to make room for another one. The query gets its fallback response
    /// or a stale answer if it has one.
    fn shed(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) {
        let exchange = &self.exchanges[key];
        if exchange.retry.has_fallback() {
            let client = exchange.holder;
            self.fail_alone(key, |follower| follower.holder != client);
            return self.fail(key, Outcome::Shed, cx);
        }
        if exchange.is_for_client() {
            // Upstream may still answer the queries of other clients.
            self.exchanges[key].retry.set_fails_alone();
            if self.end_with_stale(key, cx) {
                return;
            }
            self.respond_refused(key, &OVERLOADED, cx);
        }
        self.end(key, Outcome::Shed, cx.now);
    }

    /// Responds to the client of an accepted query with a refusal.
    pub(in crate::proxy) fn respond_refused(
        &mut self,
        key: ExchangeKey,
        refusal: &Refusal,
        cx: &mut Cx<'_>,
    ) {
        let exchange = &self.exchanges[key];
        if let Some((completion, asked)) = exchange.completion(refusal.outcome) {
            let error = (refusal.rcode, Some(refusal.error));
            completion.respond_error(&asked, error, &mut self.counters, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LazyClientShares, OVERLOADED};
    use crate::proxy::testing::Scene;
    use crate::proxy::{Action, ClientTransport, LinkKey};
    use crate::wire::{Message, Rcode};
    use std::net::IpAddr;
    use std::time::Duration;

    /// Room for 40 queries, of which a client may hold 10.
    const SMALL: &[&str] = &["-u192.0.2.1", "--max-inflight=40"];

    /// The same room, and an upstream for the names below `corp`.
    const SPLIT: &[&str] = &[
        "-u192.0.2.1",
        "-uudp://192.0.2.2,domain=corp",
        "--max-inflight=40",
    ];

    const A: [u8; 4] = [127, 0, 0, 2];
    const B: [u8; 4] = [127, 0, 0, 3];

    fn client(nth: u8) -> [u8; 4] {
        [10, 0, 0, nth]
    }

    fn query(name: &str) -> Vec<u8> {
        let mut bytes = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.extend(b"\0\0\x01\0\x01");
        bytes
    }

    fn name_in(query: &[u8]) -> String {
        let message = Message::parse(query).unwrap();
        message.question().unwrap().to_string()
    }

    impl Scene {
        /// Sends a query of a client for a name. Returns the clients that were refused at once,
        /// with the names that they had asked for.
        fn ask_as(&mut self, client: [u8; 4], name: &str) -> Vec<(IpAddr, String)> {
            assert!(self.offer_from(client, &query(name), ClientTransport::Udp));
            self.refused()
        }

        /// Sends a query of a client that is answered from the cache.
        fn hit(&mut self, client: [u8; 4], name: &str) {
            assert!(self.offer_from(client, &query(name), ClientTransport::Udp));
            let is_response = |action: &Action| matches!(action, Action::Respond { .. });
            assert!(self.outbox.actions().iter().any(is_response));
        }

        fn refused(&self) -> Vec<(IpAddr, String)> {
            let refused = self.outbox.actions().iter().filter_map(|action| {
                let Action::Respond { origin, message } = action else {
                    return None;
                };
                let bytes = self.outbox.bytes(message);
                let rcode = Message::parse(bytes).unwrap().header().flags.rcode();
                assert_eq!(rcode, Rcode::SERVFAIL);
                Some((origin.peer.ip(), name_in(bytes)))
            });
            refused.collect()
        }

        /// Sends queries of a client for new names. Returns the number of refusals.
        fn flood(&mut self, client: [u8; 4], below: &str, names: usize) -> usize {
            let mut refused = 0;
            for nth in 0..names {
                let [.., last] = client;
                refused += self.ask_as(client, &format!("n{nth}-{last}.{below}")).len();
            }
            refused
        }

        /// Sends queries of a client until the links are full and more queries wait. Returns the
        /// queries that were sent upstream.
        fn fill_links(&mut self, client: [u8; 4]) -> Vec<(LinkKey, Vec<u8>)> {
            let (mut sent, mut links) = (Vec::new(), Vec::new());
            for nth in 0..2_000 {
                self.ask_as(client, &format!("n{nth}.example"));
                self.bring_up();
                for one in self.sent() {
                    if links.contains(&one.0) {
                        sent.push(one);
                    } else {
                        // The link accepts all that it can after its first answer.
                        links.push(one.0);
                        self.now += Duration::from_millis(50);
                        self.answer_one(one);
                        sent.extend(self.sent());
                    }
                }
            }
            let limits = self.proxy.config.limits;
            let room = limits.links_per_address * limits.link_inflight_max;
            assert_eq!(sent.len(), room, "further queries wait");
            sent
        }

        /// Answers a query that was sent on a link. The outbox has the resulting actions.
        fn answer_one(&mut self, (link, mut bytes): (LinkKey, Vec<u8>)) {
            bytes.truncate(Message::parse(&bytes).unwrap().records_start());
            (bytes[2], bytes[3], bytes[7], bytes[11]) = (0x81, 0x80, 1, 0);
            bytes.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            outbox.clear();
            proxy.handle_reply(link, &bytes, self.now, outbox);
        }
    }

    #[test]
    fn client_holds_a_quarter_of_the_table() {
        let mut scene = Scene::with(SMALL);
        assert_eq!(scene.flood(A, "example", 30), 20);
        assert_eq!(scene.proxy.inflight(), 10);
        assert_eq!(scene.flood(B, "example", 10), 0);
        assert_eq!(scene.proxy.inflight(), 20);
    }

    #[test]
    fn coalesced_queries_count_for_each_client_that_waits() {
        let mut scene = Scene::with(SMALL);
        let refused: usize = (0..30).map(|_| scene.ask_as(A, "example").len()).sum();
        assert_eq!(refused, 20);
        assert!(scene.ask_as(B, "example").is_empty());
        assert_eq!(scene.proxy.inflight(), 11);
    }

    #[test]
    fn table_for_one_query_accepts_one() {
        let mut scene = Scene::with(&["-u192.0.2.1", "--max-inflight=1"]);
        assert_eq!(scene.flood(A, "example", 2), 1);
        assert_eq!(scene.flood(B, "example", 1), 1);
        assert_eq!(scene.proxy.inflight(), 1);
    }

    #[test]
    fn full_table_refuses_the_newest_query_of_the_client_that_holds_most() {
        let mut scene = Scene::with(SMALL);
        for nth in [1, 2, 3] {
            assert_eq!(scene.flood(client(nth), "example", 9), 0);
        }
        assert_eq!(scene.flood(A, "example", 10), 0);
        for nth in [11, 12, 13] {
            assert_eq!(scene.flood(client(nth), "example", 1), 0);
        }
        assert_eq!(scene.proxy.inflight(), 40);
        let refused = scene.ask_as(B, "other.example");
        assert_eq!(refused, [(A.into(), "n9-2.example. A".to_owned())]);
        assert_eq!(scene.proxy.inflight(), 40);
        // A client that holds as much as any other has to wait for its own queries.
        assert_eq!(
            scene.ask_as(A, "more.example"),
            [(A.into(), "more.example. A".to_owned())]
        );
    }

    #[test]
    fn table_full_of_single_queries_refuses_the_newest() {
        let mut scene = Scene::with(SMALL);
        for nth in 0..40 {
            assert_eq!(scene.flood(client(nth), "example", 1), 0);
        }
        assert_eq!(
            scene.ask_as(A, "example"),
            [(A.into(), "example. A".to_owned())]
        );
    }

    /// Creates a scene in which the name failed, and its failure is not cached any more.
    fn scene_after_failure(name: &str) -> Scene {
        let mut scene = Scene::with(SMALL);
        let query = query(name);
        let question = Message::parse(&query).unwrap().question().unwrap();
        let by = (scene.proxy.routes.main_pool(), scene.now);
        let error = OVERLOADED.error;
        let failures = &mut scene.proxy.failures;
        failures.on_failure(question, by, error, scene.now);
        assert!(failures.recall(question, true, scene.now).is_some());
        scene.now += Duration::from_secs(2);
        scene
    }

    #[test]
    fn refused_query_for_a_failed_question_does_not_fail_those_of_other_clients() {
        let mut scene = scene_after_failure("www.example");
        assert_eq!(scene.flood(A, "example", 10), 0);
        assert_eq!(scene.ask_as(A, "www.example").len(), 1, "A holds its part");
        assert!(scene.ask_as(B, "www.example").is_empty());
    }

    #[test]
    fn retest_of_a_failed_question_that_is_shed_does_not_fail_later_queries() {
        let mut scene = scene_after_failure("www.example");
        for nth in [1, 2, 3] {
            assert_eq!(scene.flood(client(nth), "example", 9), 0);
        }
        assert_eq!(scene.flood(A, "example", 9), 0);
        assert!(scene.ask_as(A, "www.example").is_empty());
        let refused = scene.ask_as(client(4), "www.example");
        assert_eq!(refused.len(), 1, "another query tests the question");
        for nth in [11, 12, 13] {
            assert_eq!(scene.flood(client(nth), "example", 1), 0);
        }
        let refused = scene.ask_as(B, "other.example");
        assert_eq!(refused, [(A.into(), "www.example. A".to_owned())]);
        let refused = scene.ask_as(client(14), "www.example");
        let is_same = |(_, name): &(IpAddr, String)| name == "www.example. A";
        assert!(!refused.iter().any(is_same), "{refused:?}");
    }

    #[test]
    fn refresh_that_is_shed_is_repeated_before_the_answer_expires() {
        let mut scene = Scene::with(&["-u192.0.2.1", "--max-inflight=40", "--prefetch"]);
        let started = scene.now;
        scene.ask_as(A, "www.example");
        scene.bring_up();
        let first = scene.sent().remove(0);
        scene.answer_one(first);
        scene.hit(A, "www.example");
        // The answer expires after 60 seconds.
        scene.now = started + Duration::from_millis(54_100);
        assert_eq!(scene.flood(A, "example", 9), 0);
        scene.hit(A, "www.example");
        assert_eq!(scene.proxy.counters.refreshes, 1);
        for nth in [1, 2, 3] {
            assert_eq!(scene.flood(client(nth), "example", 9), 0);
        }
        assert_eq!(scene.flood(client(4), "example", 3), 0);
        assert_eq!(scene.proxy.under_way(), 40);
        assert!(scene.ask_as(B, "other.example").is_empty());
        let (clients, all) = (scene.proxy.inflight(), scene.proxy.under_way());
        assert_eq!((clients, all), (40, 40), "the refresh was shed");
        scene.now = started + Duration::from_millis(59_500);
        scene.outbox.clear();
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        assert_eq!(scene.proxy.inflight(), 0);
        scene.hit(A, "www.example");
        assert_eq!(scene.proxy.counters.refreshes, 2);
    }

    #[test]
    fn query_that_is_too_long_sheds_no_other() {
        let mut scene = Scene::with(SMALL);
        for nth in 0..4 {
            assert_eq!(scene.flood(client(nth), "example", 10), 0);
        }
        scene.proxy.config.limits.forwarded_query = 20;
        assert!(scene.offer_from(B, &query("www.example"), ClientTransport::Udp));
        let [Action::Respond { origin, .. }] = scene.outbox.actions() else {
            panic!("{:?}", scene.outbox.actions());
        };
        assert_eq!(origin.peer.ip(), IpAddr::from(B));
        assert_eq!(scene.proxy.inflight(), 40);
    }

    #[test]
    fn query_that_was_shed_ends_its_attempts() {
        let mut scene = Scene::with(SMALL);
        scene.ask_as(client(1), "first.example");
        scene.bring_up();
        let first = scene.sent().remove(0);
        scene.answer_one(first);
        for nth in 1..5 {
            assert_eq!(scene.flood(client(nth), "example", 10), 0);
        }
        let waited_for = |scene: &Scene| {
            let links = scene.proxy.upstreams.links();
            links.map(|(_, link)| link.waited_for()).sum::<usize>()
        };
        assert_eq!(waited_for(&scene), 40);
        let evicted = scene.ask_as(B, "example");
        assert_eq!(evicted.len(), 1);
        assert_eq!(waited_for(&scene), 40);
        let sent = scene.sent();
        assert_eq!(sent.len(), 1, "the query of the other client is sent");
        scene.answer_one(sent[0].clone());
        assert_eq!(scene.proxy.inflight(), 39);
    }

    #[test]
    fn names_of_a_domain_hold_a_quarter_of_the_table() {
        let mut scene = Scene::with(SPLIT);
        for nth in 0..20 {
            scene.flood(client(nth), "corp", 5);
        }
        assert_eq!(scene.proxy.inflight(), 10);
        for nth in 0..20 {
            assert_eq!(scene.flood(client(nth), "example", 1), 0);
        }
    }

    #[test]
    fn full_part_of_a_domain_refuses_the_newest_query_of_the_client_that_holds_most_of_it() {
        let mut scene = Scene::with(SPLIT);
        // One client holds more queries, but to another pool.
        assert_eq!(scene.flood(client(99), "example", 5), 0);
        assert_eq!(scene.flood(A, "corp", 2), 0);
        for nth in 10..18 {
            assert_eq!(scene.flood(client(nth), "corp", 1), 0);
        }
        assert_eq!(scene.proxy.inflight(), 15);
        let refused = scene.ask_as(B, "other.corp");
        assert_eq!(refused, [(A.into(), "n1-2.corp. A".to_owned())]);
        assert_eq!(scene.proxy.inflight(), 15);
        // All clients hold one query each.
        let refused = scene.ask_as(client(1), "more.corp");
        assert_eq!(refused, [(client(1).into(), "more.corp. A".to_owned())]);
    }

    #[test]
    fn client_that_floods_a_domain_still_asks_for_other_names() {
        let mut scene = Scene::with(SPLIT);
        assert!(scene.flood(A, "corp", 100) >= 90);
        assert_eq!(scene.flood(A, "example", 3), 0);
    }

    #[test]
    fn client_that_floods_several_domains_still_asks_for_other_names() {
        let mut scene = Scene::with(&[
            "-u192.0.2.1",
            "-uudp://192.0.2.2,domain=corp",
            "-uudp://192.0.2.3,domain=lan",
            "-uudp://192.0.2.4,domain=home",
            "-uudp://192.0.2.5,domain=site",
            "--max-inflight=64",
        ]);
        // A client holds at most 16 queries: four for each domain, twelve for all domains.
        let refused = ["corp", "lan", "home", "site"].map(|domain| scene.flood(A, domain, 50));
        assert_eq!(refused, [46, 46, 46, 50]);
        assert_eq!(scene.flood(A, "example", 4), 0);
        assert_eq!(scene.flood(A, "more.example", 1), 1);
    }

    #[test]
    fn queries_that_have_ended_count_against_no_client() {
        let mut scene = Scene::with(SPLIT);
        scene.flood(A, "corp", 2);
        scene.flood(A, "example", 2);
        scene.now += Duration::from_secs(60);
        scene.outbox.clear();
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        assert_eq!(scene.proxy.inflight(), 0);
        let query_shares = &scene.proxy.query_shares;
        let parts = query_shares.by_pool.iter().flatten();
        let held: Vec<_> = parts.map(LazyClientShares::len).collect();
        assert_eq!(held, [0]);
        assert_eq!(
            (query_shares.table.len(), query_shares.domains.len()),
            (0, 0)
        );
    }

    #[test]
    fn queries_wait_for_links_in_turn_of_their_clients() {
        let mut scene = Scene::with(&["-u192.0.2.1", "--max-inflight=20000"]);
        scene.proxy.config.limits.client_inflight_few = 0;
        let sent = scene.fill_links(A);
        scene.ask_as(B, "other.example");
        assert!(
            scene.sent().is_empty(),
            "the query of the other client waits"
        );
        let mut names = Vec::new();
        for one in sent.into_iter().take(2) {
            scene.answer_one(one);
            let sent = scene.sent();
            names.extend(sent.into_iter().map(|(_, query)| name_in(&query)));
        }
        assert!(names.contains(&"other.example. A".to_owned()), "{names:?}");
    }

    #[test]
    fn client_with_few_queries_does_not_wait_for_one_with_many() {
        let mut scene = Scene::with(&["-u192.0.2.1", "--max-inflight=20000"]);
        let sent = scene.fill_links(A);
        let others = 1_000;
        let limits = scene.proxy.config.limits;
        let mut at_once = 0;
        for nth in 0..others {
            let nth: u32 = nth;
            scene.ask_as(client(nth.to_be_bytes()[3]), &format!("o{nth}.example"));
            at_once += scene.sent().len();
        }
        let spare = limits.links_per_address * limits.link_spare;
        assert_eq!(at_once, spare, "further queries wait");
        // Spare room that becomes free is for them again, although the links are full.
        let mut names = Vec::new();
        for one in sent.into_iter().take(9) {
            scene.answer_one(one);
            names.extend(scene.sent().into_iter().map(|(_, query)| name_in(&query)));
        }
        assert_eq!(names.len(), 9);
        assert!(names.iter().all(|name| name.starts_with('o')), "{names:?}");
    }

    #[test]
    fn queue_of_one_client_does_not_refuse_another() {
        let mut scene = Scene::with(&["-u192.0.2.1", "--timeout=60s"]);
        for nth in 0..600 {
            scene.ask_as(A, &format!("n{nth}.example"));
            scene.bring_up();
        }
        scene.now += Duration::from_secs(3);
        assert_eq!(scene.ask_as(A, "late.example").len(), 1);
        assert!(scene.ask_as(B, "other.example").is_empty());
    }

    #[test]
    fn shed_query_does_not_extend_the_use_of_a_stale_answer() {
        let mut scene = Scene::with(SMALL);
        scene.ask_as(A, "stale.example");
        scene.bring_up();
        for one in scene.sent() {
            scene.answer_one(one);
        }
        for _ in 0..8 {
            scene.outbox.clear();
            scene.now += Duration::from_secs(10);
            scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
            scene.offer_from(B, &query("keep.example"), ClientTransport::Udp);
            scene.bring_up();
            for one in scene.sent() {
                scene.answer_one(one);
            }
        }
        for nth in [1, 2, 3] {
            assert_eq!(scene.flood(client(nth), "example", 9), 0);
        }
        // The last query is the newest one of the client that holds most.
        assert_eq!(scene.flood(A, "example", 9), 0);
        assert_eq!(scene.ask_as(A, "stale.example"), []);
        let mut nth = 11;
        while scene.proxy.inflight() < 40 {
            assert_eq!(scene.flood(client(nth), "example", 1), 0);
            nth += 1;
        }
        assert!(scene.offer_from(B, &query("other.example"), ClientTransport::Udp));
        assert_eq!(scene.rcodes(), [Rcode::NOERROR]);
        scene.proxy.config.limits.inflight = 1_000;
        scene.now += Duration::from_millis(300);
        assert!(scene.offer_from(B, &query("stale.example"), ClientTransport::Udp));
        assert_eq!(scene.rcodes(), []);
        let sent: Vec<String> = scene
            .sent()
            .iter()
            .map(|(_, query)| name_in(query))
            .collect();
        assert!(sent.contains(&"stale.example. A".to_owned()), "{sent:?}");
    }
}
