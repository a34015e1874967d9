//! The number of queries that each client holds of a limited table, and its newest query.
//!
//! While a table has few queries, they are only counted, which costs almost nothing: no client can
//! exceed its limit. Beyond that number each query is in the list of its client. The ranking of
//! clients by their queries is kept only while the table is full: it is built when the client that
//! holds most is needed, and dropped when half of the queries of that moment are left.

use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, Hasher};

use crate::base::arena::{Arena, Key};
use crate::base::keyed_hash::fold;
use crate::base::origin::Subscriber;
use crate::base::random::Random;
use crate::proxy::keys::ExchangeKey;

/// A hash table by client, for this module and `exchange::fair_queue`.
pub(in crate::proxy) type ByClient<C, T> = HashMap<C, T, ClientHash>;

/// A table that only counts its queries while they are few.
#[derive(Debug)]
pub(in crate::proxy) struct LazyClientShares {
    len: usize,
    /// The number of queries up to which they are only counted.
    few: usize,
    hash: ClientHash,
    shares: Option<ClientShares>,
}

impl LazyClientShares {
    /// Creates a table without queries. Up to `few` queries are only counted.
    pub(in crate::proxy) fn new(few: usize, hash: ClientHash) -> Self {
        Self {
            len: 0,
            few,
            hash,
            shares: None,
        }
    }

    /// Returns the number of queries.
    pub(in crate::proxy) fn len(&self) -> usize {
        self.len
    }

    /// Adds a query of a client, as its newest. `all` returns every query of the table, this one
    /// included, in the order of arrival.
    pub(in crate::proxy) fn add(
        &mut self,
        client: Subscriber,
        query: ExchangeKey,
        all: impl FnOnce() -> Vec<(Subscriber, ExchangeKey)>,
    ) {
        self.len += 1;
        match &mut self.shares {
            Some(shares) => shares.add(client, query),
            None if self.len > self.few => self.build(all()),
            None => {}
        }
    }

    /// Removes a query.
    pub(in crate::proxy) fn remove(&mut self, query: ExchangeKey) {
        self.len -= 1;
        if let Some(shares) = &mut self.shares {
            shares.remove(query);
            if self.len <= self.few / 2 {
                self.shares = None;
            }
        }
    }

    /// Starts again with all these queries, the oldest first. Up to `few` queries are only counted.
    pub(in crate::proxy) fn start_over(&mut self, few: usize, all: Vec<(Subscriber, ExchangeKey)>) {
        (self.few, self.len, self.shares) = (few, all.len(), None);
        if self.len > few {
            self.build(all);
        }
    }

    #[cold]
    fn build(&mut self, all: Vec<(Subscriber, ExchangeKey)>) {
        let mut shares = ClientShares::new(self.hash.clone());
        for (client, query) in all {
            shares.add(client, query);
        }
        self.shares = Some(shares);
    }

    /// Returns whether a client holds at most `most` queries. `most` must not be below `few`.
    pub(in crate::proxy) fn holds_at_most(&self, client: Subscriber, most: usize) -> bool {
        self.len <= most
            || self
                .shares
                .as_ref()
                .is_some_and(|shares| shares.held_by(client) <= most)
    }

    /// Returns [`ClientShares::newest_of_largest`] if there are more than `few` queries.
    pub(in crate::proxy) fn newest_of_largest(
        &mut self,
        client: Subscriber,
    ) -> Option<ExchangeKey> {
        self.shares.as_mut()?.newest_of_largest(client)
    }
}

/// The queries of each client. Each query is in the table at most once.
#[derive(Debug)]
pub(in crate::proxy) struct ClientShares {
    holders: Arena<Key, Holder>,
    holder_by_client: ByClient<Subscriber, Key>,
    /// The client of the last query, since the next one is often from the same client.
    last: Option<(Subscriber, Key)>,
    /// The nodes by the index of the query in its own table.
    nodes: Vec<Option<Node>>,
    /// The number of queries.
    len: usize,
    ranking: Option<Ranking>,
}

/// A client and its queries.
#[derive(Debug)]
struct Holder {
    client: Subscriber,
    held: usize,
    newest: Option<usize>,
}

/// A query in the list of its client.
#[derive(Clone, Copy, Debug)]
struct Node {
    query: ExchangeKey,
    holder: Key,
    older: Option<usize>,
    newer: Option<usize>,
}

/// The clients by the number of their queries.
///
/// Each client has an entry with its number of queries or a higher number. A number that is too
/// high is corrected when the entry becomes the first.
#[derive(Debug)]
struct Ranking {
    entries: BinaryHeap<(usize, Key)>,
    /// The number of queries at the time when the ranking was built.
    built_at: usize,
}

impl ClientShares {
    /// The number of clients without queries, and of empty nodes, that are kept.
    const SLACK: usize = 64;

    /// Creates a table without queries.
    fn new(hash: ClientHash) -> Self {
        Self {
            holders: Arena::default(),
            holder_by_client: HashMap::with_hasher(hash),
            last: None,
            nodes: Vec::new(),
            len: 0,
            ranking: None,
        }
    }

    /// Returns the number of queries of a client.
    fn held_by(&self, client: Subscriber) -> usize {
        let holder = self.find(client).and_then(|key| self.holders.get(key));
        holder.map_or(0, |holder| holder.held)
    }

    /// Adds a query of a client, as its newest.
    fn add(&mut self, client: Subscriber, query: ExchangeKey) {
        let key = self.find(client).unwrap_or_else(|| self.add_holder(client));
        self.last = Some((client, key));
        let index = query.0.index();
        let holder = self.holders.get_mut(key);
        let holder = holder.expect("a client that is found has an entry");
        holder.held += 1;
        let held = holder.held;
        let older = holder.newest.replace(index);
        if let Some(older) = older.and_then(|older| self.nodes[older].as_mut()) {
            older.newer = Some(index);
        }
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, None);
        }
        self.nodes[index] = Some(Node {
            query,
            holder: key,
            older,
            newer: None,
        });
        self.len += 1;
        if let Some(ranking) = &mut self.ranking {
            ranking.entries.push((held, key));
            if ranking.entries.len() > 2 * self.holders.len() + Self::SLACK {
                self.rank();
            }
        }
    }

    /// Removes a query, if it is held.
    fn remove(&mut self, query: ExchangeKey) {
        let slot = self.nodes.get_mut(query.0.index());
        let Some(node) = slot.and_then(|slot| slot.take_if(|node| node.query == query)) else {
            return;
        };
        if let Some(older) = node.older.and_then(|older| self.nodes[older].as_mut()) {
            older.newer = node.newer;
        }
        let holder = self.holders.get_mut(node.holder);
        let holder = holder.expect("a client with queries has an entry");
        holder.held -= 1;
        match node.newer.and_then(|newer| self.nodes[newer].as_mut()) {
            Some(newer) => newer.older = node.older,
            None => holder.newest = node.older,
        }
        self.len -= 1;
        self.ranking
            .take_if(|ranking| self.len <= ranking.built_at / 2);
        if self.len == 0 && self.nodes.len().max(self.holders.len()) > Self::SLACK {
            self.nodes = Vec::new();
            self.forget_idle();
        }
    }

    /// Returns the newest query of the client that holds most, if that client holds more than
    /// `client` would with another query.
    fn newest_of_largest(&mut self, client: Subscriber) -> Option<ExchangeKey> {
        let own = self.held_by(client);
        let largest = self.largest()?;
        let largest = self.holders.get(largest)?;
        if largest.held <= own + 1 {
            return None;
        }
        Some(self.nodes[largest.newest?]?.query)
    }

    fn largest(&mut self) -> Option<Key> {
        if self.ranking.is_none() {
            self.rank();
        }
        let entries = &mut self.ranking.as_mut()?.entries;
        loop {
            let (recorded, key) = *entries.peek()?;
            let held = self.holders.get(key).map_or(0, |holder| holder.held);
            if held == recorded {
                return Some(key);
            }
            entries.pop();
            if held > 0 {
                entries.push((held, key));
            }
        }
    }

    fn rank(&mut self) {
        let holders = self.holders.iter();
        let entries = holders.filter(|(_, holder)| holder.held > 0);
        self.ranking = Some(Ranking {
            entries: entries.map(|(key, holder)| (holder.held, key)).collect(),
            built_at: self.len,
        });
    }

    fn find(&self, client: Subscriber) -> Option<Key> {
        match self.last {
            Some((last, key)) if last == client => Some(key),
            _ => self.holder_by_client.get(&client).copied(),
        }
    }

    fn add_holder(&mut self, client: Subscriber) -> Key {
        if self.holders.len() >= 2 * self.len + Self::SLACK {
            self.forget_idle();
        }
        let key = self.holders.insert(Holder {
            client,
            held: 0,
            newest: None,
        });
        self.holder_by_client.insert(client, key);
        key
    }

    /// Removes clients without queries.
    fn forget_idle(&mut self) {
        let idle = self.holders.iter().filter(|(_, holder)| holder.held == 0);
        let idle: Vec<(Key, Subscriber)> = idle.map(|(key, idle)| (key, idle.client)).collect();
        for (key, client) in idle {
            self.holders.remove(key);
            self.holder_by_client.remove(&client);
        }
        self.holder_by_client.shrink_to(Self::SLACK);
        self.last = None;
    }
}

/// A hash of clients with a secret key, since clients choose their addresses.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct ClientHash {
    key: [u64; 2],
}

impl ClientHash {
    /// Creates a hash with a key from `random`.
    pub(in crate::proxy) fn new(random: &mut Random) -> Self {
        Self {
            key: [random.next_u64(), random.next_u64() | 1],
        }
    }
}

impl BuildHasher for ClientHash {
    type Hasher = ClientHasher;

    fn build_hasher(&self) -> ClientHasher {
        ClientHasher {
            state: self.key[0],
            factor: self.key[1],
        }
    }
}

/// A hasher for the words of a client: both halves of the product with a secret number.
#[derive(Debug)]
pub(in crate::proxy) struct ClientHasher {
    state: u64,
    factor: u64,
}

impl Hasher for ClientHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("clients are hashed as numbers");
    }

    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.factor);
    }

    fn write_isize(&mut self, variant: isize) {
        self.write_u64(u64::from(variant != 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SEED_LEN;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn shares() -> ClientShares {
        ClientShares::new(ClientHash::new(&mut Random::new(&[7; SEED_LEN])))
    }

    fn client(nth: u32) -> Subscriber {
        Subscriber::of(std::net::Ipv4Addr::from_bits(0x0a00_0000 + nth).into())
    }

    #[test]
    fn memory_is_released_when_the_last_query_ends() {
        let (mut shares, mut table) = (shares(), Arena::default());
        let keys: Vec<ExchangeKey> = (0..4_000).map(|_| table.insert(())).collect();
        for (nth, key) in (0..).zip(&keys) {
            shares.add(client(nth), *key);
        }
        for key in keys {
            shares.remove(key);
        }
        assert_eq!((shares.len, shares.holders.len()), (0, 0));
        assert_eq!(shares.nodes.capacity(), 0);
        assert!(shares.holder_by_client.capacity() <= 2 * ClientShares::SLACK);
    }

    #[test]
    fn queries_are_only_counted_while_they_are_few() {
        let hash = ClientHash::new(&mut Random::new(&[7; SEED_LEN]));
        let (mut shares, mut table) = (LazyClientShares::new(4, hash), Arena::default());
        let mut all = Vec::new();
        for nth in 0..6 {
            let one = (client(nth / 4), table.insert(()));
            all.push(one);
            shares.add(one.0, one.1, || all.clone());
            assert_eq!(shares.shares.is_some(), nth >= 4);
        }
        assert!(shares.holds_at_most(client(0), 4) && !shares.holds_at_most(client(0), 3));
        assert_eq!(shares.newest_of_largest(client(2)), Some(all[3].1));
        for (nth, (_, query)) in all.iter().enumerate() {
            shares.remove(*query);
            assert_eq!(shares.shares.is_some(), shares.len() > 2, "{nth}");
        }
        shares.start_over(0, all[..1].to_vec());
        assert!(!shares.holds_at_most(client(0), 0) && shares.holds_at_most(client(1), 0));
    }

    #[test]
    fn memory_of_clients_without_queries_is_released() {
        let (mut shares, mut table) = (shares(), Arena::default());
        // One client always holds a query: the table is never empty.
        shares.add(client(100_000), table.insert(()));
        for nth in 0..100_000 {
            let key = table.insert(());
            shares.add(client(nth), key);
            shares.remove(key);
            table.remove(key);
        }
        assert!(shares.holders.len() <= 2 * ClientShares::SLACK);
        assert!(shares.holder_by_client.capacity() <= 4 * ClientShares::SLACK);
    }

    #[test]
    fn full_table_costs_no_more_than_its_changes() {
        let (mut shares, mut table) = (shares(), Arena::default());
        for nth in 0..1_000 {
            shares.add(client(nth % 10), table.insert(()));
        }
        for nth in 0..10_000 {
            let newest = shares
                .newest_of_largest(client(99))
                .expect("ten clients hold more queries");
            shares.remove(newest);
            table.remove(newest);
            shares.add(client(nth % 10), table.insert(()));
            let entries = &shares.ranking.as_ref().expect("the table is full").entries;
            assert!(entries.len() <= 2 * shares.holders.len() + ClientShares::SLACK);
        }
    }

    proptest! {
        #[test]
        fn shares_agree_with_a_list_of_queries(
            steps in vec((0..5_u8, 0..4_u32, any::<prop::sample::Index>()), 0..300)
        ) {
            let (mut shares, mut table) = (shares(), Arena::default());
            // Every query with its client, in the order of arrival.
            let mut model: Vec<(u32, ExchangeKey)> = Vec::new();
            for (step, nth, which) in steps {
                match step {
                    0..3 => {
                        let key = table.insert(());
                        shares.add(client(nth), key);
                        model.push((nth, key));
                    }
                    3 if !model.is_empty() => {
                        let (_, key) = model.remove(which.index(model.len()));
                        shares.remove(key);
                        // A query that is not held changes nothing.
                        shares.remove(key);
                        table.remove(key);
                    }
                    _ => {
                        let held = |nth| model.iter().filter(|(one, _)| *one == nth).count();
                        let most = (0..4).map(held).max().unwrap();
                        let newest = |nth| model.iter().rev().find(|(one, _)| *one == nth);
                        let largest = (0..4).filter(|one| held(*one) == most);
                        let expected: Vec<_> = largest.filter_map(newest).collect();
                        match shares.newest_of_largest(client(nth)) {
                            Some(found) => {
                                prop_assert!(most > held(nth) + 1);
                                prop_assert!(expected.iter().any(|(_, key)| *key == found));
                            }
                            None => prop_assert!(most <= held(nth) + 1),
                        }
                    }
                }
                prop_assert_eq!(shares.len, model.len());
                for nth in 0..4 {
                    let held = model.iter().filter(|(one, _)| *one == nth).count();
                    prop_assert_eq!(shares.held_by(client(nth)), held);
                }
            }
        }
    }
}
