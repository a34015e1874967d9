//! Queries for the same that come while one is being answered: they wait for that answer.
//!
//! Each is an exchange of its own, with its own deadline, that follows the first. If that one
//! fails, the last to come leads.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Proxy;
use super::exchange::Exchange;
use super::keys::ExchangeKey;
use super::outbox::Outbox;
use crate::time::Instant;

/// The exchanges that others may follow, by a hash of what they ask.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    by_hash: HashMap<u64, ExchangeKey, BuildHasherDefault<AsItIs>>,
}

impl Leaders {
    fn shrink(&mut self) {
        if self.by_hash.is_empty() && self.by_hash.capacity() > 64 {
            self.by_hash.shrink_to_fit();
        }
    }
}

/// Takes a hash for what it is.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("hashes are numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Proxy {
    /// Lets an exchange follow one that asks the same, if there is one, and others follow it if
    /// there is none. Returns whether it follows.
    pub(super) fn follow(&mut self, key: ExchangeKey) -> bool {
        let exchange = self.exchange(key);
        let Some(variant) = exchange.variant else {
            return false;
        };
        let question = exchange.query.question();
        let hash = self.cache.hash(question, variant);
        let leader = self.leaders.by_hash.get(&hash).copied();
        let asks_same = |leader: &Exchange| {
            leader.variant == Some(variant) && leader.query.question().matches(question)
        };
        match leader.filter(|leader| asks_same(self.exchange(*leader))) {
            Some(leader) => {
                self.exchange_mut(leader).followers.push(key);
                true
            }
            // Another question may have the same hash, and the place.
            None if leader.is_some() => false,
            None => {
                self.leaders.by_hash.insert(hash, key);
                self.exchange_mut(key).leads_as = Some(hash);
                false
            }
        }
    }

    /// Takes note that an exchange which has ended leads no more. Those that followed and have got
    /// nothing from it look for an answer themselves.
    pub(super) fn hand_over(&mut self, ended: &mut Exchange, now: Instant, outbox: &mut Outbox) {
        if let Some(hash) = ended.leads_as {
            self.leaders.by_hash.remove(&hash);
            self.leaders.shrink();
        }
        let mut followers = std::mem::take(&mut ended.followers);
        followers.retain(|key| self.exchanges.contains(key.0));
        // The last to come has the most time left, so that the others can follow it.
        followers.reverse();
        for key in followers {
            self.seek(key, now, outbox);
        }
    }
}
