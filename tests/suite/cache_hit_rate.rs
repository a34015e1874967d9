//! Compares the hit rate of a small cache with that of an LRU cache of the same memory.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::base::arena::Key;
use dotproxy::base::origin::Origin;
use dotproxy::base::time::Instant;
use dotproxy::proxy::{Action, ClientTransport, LinkKey, Outbox, Outcome, Proxy};

use crate::support::Chance;
use crate::support::configured;
use crate::support::messages::{query, reply};

const NAMES: usize = 100_000;
const QUERIES: u64 = 400_000;

/// Draws names by a Zipf distribution: the n-th name is drawn 1/n times as often as the first.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(names: usize) -> Self {
        let mut sum = 0.0;
        let weights =
            (1..=names).map(|rank| 1.0 / f64::from(u32::try_from(rank).expect("a small number")));
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        let sums = sums.collect();
        Self { sums }
    }

    fn next(&self, chance: &mut Chance) -> usize {
        let part = f64::from(u32::try_from(chance.between(0, 1 << 31)).expect("31 bits"));
        let at = part / f64::from(1_u32 << 31) * self.sums[self.sums.len() - 1];
        self.sums.partition_point(|sum| *sum < at).min(NAMES - 1)
    }
}

/// A proxy with an upstream that answers at once.
struct World {
    proxy: Proxy,
    outbox: Outbox,
    now: Instant,
}

impl World {
    fn new(size: &str) -> Self {
        let config = configured(&[format!("--cache-size={size}"), "-u192.0.2.1".to_owned()]);
        Self {
            proxy: Proxy::new(&config, &[7; 32]),
            outbox: Outbox::default(),
            now: Instant::after_start(Duration::from_secs(100)),
        }
    }

    fn ask(&mut self, name: usize) {
        let bytes = query(1, &format!("name{name}.example"), 1, None);
        let origin = Origin {
            session: Key::from_usize(7),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)),
            local: None,
        };
        let (now, proxy) = (self.now, &mut self.proxy);
        proxy.handle_query(origin, ClientTransport::Udp, &bytes, now, &mut self.outbox);
        while !self.outbox.is_empty() {
            let outbox = std::mem::take(&mut self.outbox);
            for action in outbox.actions() {
                let proxy = &mut self.proxy;
                match action {
                    Action::OpenLink { link, .. } => {
                        proxy.handle_link_up(*link, false, now, &mut self.outbox);
                    }
                    Action::Send { link, message } => {
                        let link: LinkKey = *link;
                        let reply = reply(outbox.bytes(message), 1);
                        proxy.handle_reply(link, &reply, now, &mut self.outbox);
                    }
                    Action::Respond { .. } | Action::CloseLink { .. } => {}
                }
            }
        }
    }

    fn hits(&self) -> u64 {
        self.proxy.counters().outcome(Outcome::Cached)
    }
}

/// An LRU cache of names.
#[derive(Default)]
struct LeastRecentlyUsed {
    used_at: HashMap<usize, u64>,
    by_use: BTreeMap<u64, usize>,
    uses: u64,
    hits: u64,
}

impl LeastRecentlyUsed {
    fn ask(&mut self, name: usize, most: usize) {
        self.uses += 1;
        if let Some(used_at) = self.used_at.insert(name, self.uses) {
            self.hits += 1;
            self.by_use.remove(&used_at);
        }
        self.by_use.insert(self.uses, name);
        while self.by_use.len() > most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.used_at.remove(&oldest);
        }
    }
}

#[test]
fn hit_rate_is_at_least_that_of_lru() {
    let zipf = Zipf::new(NAMES);
    for size in ["100k", "1m", "4m"] {
        let mut chance = Chance::new(1);
        let mut world = World::new(size);
        // Both caches hold as many entries as fit the same memory.
        let trace: Vec<usize> = (0..QUERIES).map(|_| zipf.next(&mut chance)).collect();
        for name in &trace {
            world.ask(*name);
        }
        let usage = world.proxy.cache_usage();
        let mut other = LeastRecentlyUsed::default();
        for name in &trace {
            other.ask(*name, usage.entries);
        }
        let percent = |hits: u64| hits * 10_000 / QUERIES;
        let (own, others) = (percent(world.hits()), percent(other.hits));
        println!("{size}: {usage}; hits per 10,000: {own}, least recently used: {others}");
        assert!(own >= others, "{own} and {others}");
    }
}
