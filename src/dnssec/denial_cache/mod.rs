//! The denial cache: verified NSEC and NSEC3 records, which deny names and types that were never
//! asked for (aggressive use, RFC 8198).
//!
//! The NSEC records of a zone are in canonical order, its NSEC3 records in the order of their
//! hashes: only the record at or before a name, or its hash, can match or cover it. Names are
//! compared by sort keys (`sort_key`). [`denial`](super::denial) judges the same records with names
//! in place of keys, for the answers of upstreams; the tests compare the two.
//!
//! The cache has a maximum number of bytes. The record that is removed for a new one is chosen by
//! the clock algorithm: a record that was used since the hand passed it stays.

#[cfg(test)]
mod model_tests;
mod record;
mod response;
mod sort_key;
#[cfg(test)]
mod tests;
mod zone;

pub use record::ProvenRecord;
pub use response::Denial;

use crate::base::time::Instant;
use crate::wire::question::{Question, Type};
use record::CachedRecord;
use sort_key::{SortKey, shared_len};
use zone::Zone;

/// Maximum number of bytes. It limits the time of an insertion, which moves the later records of
/// the zone.
const LEN_MAX: usize = 16 << 20;

/// Maximum number of records that the hand passes for one eviction. Then a record is removed even
/// if it was used.
const PASSED_MAX: usize = 64;

/// The denial cache. See the [module](self).
#[derive(Debug)]
pub struct DenialCache {
    len_max: usize,
    bytes: usize,
    /// In the order of their keys.
    zones: Vec<Zone>,
    /// The hand of the clock algorithm: the positions of the next zone and of the next record in
    /// it. An insertion may shift them by one; the algorithm tolerates this.
    hand: (usize, usize),
}

impl DenialCache {
    /// Creates an empty cache of at most `len_max` bytes.
    pub fn new(len_max: usize) -> Self {
        Self {
            len_max: len_max.min(LEN_MAX),
            bytes: 0,
            zones: Vec::new(),
            hand: (0, 0),
        }
    }

    /// Returns the number of NSEC and NSEC3 records.
    pub fn len(&self) -> usize {
        self.zones.iter().map(Zone::len).sum()
    }

    /// Returns whether the cache has no record.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Returns the number of bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the verified records of an answer of the pool `pool`. A zone is added only if the answer
    /// has its SOA record; a known zone keeps its SOA record. Records that deny no other names,
    /// opt-out records and hashes with too many iterations are ignored.
    pub fn insert(&mut self, records: &[ProvenRecord], pool: usize, now: Instant) {
        for proven in records.iter().filter(|one| one.rr_type != Type::SOA) {
            let is_soa = |one: &&ProvenRecord| {
                one.rr_type == Type::SOA && one.zone == proven.zone && one.owner == one.zone
            };
            let soa = records.iter().find(is_soa);
            self.add(proven, soa, pool, now);
        }
        while self.bytes > self.len_max {
            self.evict();
        }
    }

    /// Adds a record to its zone. A zone that is not in the cache is added. If its pool or hash
    /// parameters differ, it replaces the cached zone.
    fn add(
        &mut self,
        proven: &ProvenRecord,
        soa: Option<&ProvenRecord>,
        pool: usize,
        now: Instant,
    ) -> Option<()> {
        let key = SortKey::of(&proven.zone);
        let key = key.as_bytes();
        let (record, hash) = CachedRecord::of_denial(proven, key, now)?;
        let soa = soa.and_then(|soa| CachedRecord::of_soa(soa, now));
        let found = self.zones.binary_search_by(|zone| zone.key().cmp(key));
        let position = found.unwrap_or_else(|position| position);
        if found.is_ok() && self.zones[position].has_pool_and_hash(pool, hash.as_ref()) {
            let zone = &mut self.zones[position];
            self.bytes -= zone.bytes();
            if let Some(soa) = soa {
                zone.set_soa(soa);
            }
        } else {
            let zone = Zone::new((&proven.zone, key), pool, soa?, hash);
            if found.is_ok() {
                self.bytes -= self.zones[position].bytes();
                self.zones[position] = zone;
            } else {
                self.zones.insert(position, zone);
            }
        }
        let zone = &mut self.zones[position];
        zone.insert(record);
        self.bytes += zone.bytes();
        Some(())
    }

    /// Removes the next record that was not used since the hand passed it. Removes the zone too if
    /// it has no other record.
    fn evict(&mut self) {
        let mut passed = 0;
        while !self.zones.is_empty() {
            let (position, place) = self.hand;
            let Some(zone) = self.zones.get_mut(position) else {
                self.hand = (0, 0);
                continue;
            };
            match zone.take_use(place) {
                None => self.hand = (position + 1, 0),
                Some(true) if passed < PASSED_MAX => {
                    passed += 1;
                    self.hand.1 += 1;
                }
                Some(_) => {
                    self.bytes -= zone.bytes();
                    zone.remove(place);
                    if zone.len() == 0 {
                        self.zones.remove(position);
                        shrink(&mut self.zones);
                        self.hand.1 = 0;
                    } else {
                        self.bytes += zone.bytes();
                    }
                    return;
                }
            }
        }
    }

    /// Returns the denial of the name or the type in a question of class IN by verified records of
    /// this pool. No TTL in it is higher than `ttl_max` seconds.
    pub fn deny(
        &self,
        question: Question<'_>,
        pool: usize,
        ttl_max: u32,
        now: Instant,
    ) -> Option<Denial<'_>> {
        let rr_type = question.rr_type();
        if self.is_empty() || !may_deny(rr_type) {
            return None;
        }
        let name = question.name();
        let mut key = SortKey::of(name);
        let zone = self.zone_above(key.as_bytes())?;
        if !zone.is_from_pool(pool) {
            return None;
        }
        let (rcode, records) = zone.deny((name, &mut key), rr_type, now)?;
        let until = records.iter().flatten().map(|record| record.until).min()?;
        let ttl = u32::try_from((until - now).as_secs());
        let ttl = ttl.unwrap_or(ttl_max).min(ttl_max);
        if ttl == 0 {
            return None;
        }
        for record in records.iter().flatten() {
            record.is_used.set(true);
        }
        Some(Denial::new(rcode, ttl, (name, zone.name_len()), records))
    }

    /// Returns the nearest zone at or above the name with this sort key.
    fn zone_above(&self, mut key: &[u8]) -> Option<&Zone> {
        loop {
            let after = self.zones.partition_point(|zone| zone.key() <= key);
            let zone = self.zones[..after].last()?;
            let shared = shared_len(key, zone.key());
            if shared == zone.key().len() {
                return Some(zone);
            }
            // The zone is not above the name: the next one to try is at or above both.
            key = &key[..shared];
        }
    }
}

/// Returns the vector's memory if most of it is unused.
fn shrink<T>(vec: &mut Vec<T>) {
    if vec.capacity() > SHRINK_MIN.max(3 * vec.len()) {
        vec.shrink_to(2 * vec.len());
    }
}

/// The least capacity of a vector that is made smaller.
const SHRINK_MIN: usize = 8;

/// Returns whether questions of a type are answered from the cache: not DS, which belongs to the
/// parent zone; not RRSIG, NSEC and NSEC3, which make up the proofs; and not ANY.
fn may_deny(rr_type: Type) -> bool {
    let others = [Type::DS, Type::ANY, Type::RRSIG, Type::NSEC, Type::NSEC3];
    !others.contains(&rr_type)
}
