//! The denial cache: verified NSEC and NSEC3 records, which deny names and types that were never
//! asked for (aggressive use, RFC 8198).
//!
//! The records of a zone are in canonical order, so that the record before a name is the only one
//! that may deny it. Names are compared by [sort keys](sort_key). The cache has a maximum number of
//! bytes. The record that is removed for a new one is chosen by the clock algorithm: a record that
//! was used since the hand passed it stays.

mod denial;
#[cfg(test)]
mod model_tests;
mod record;
mod sort_key;
#[cfg(test)]
mod tests;
mod zone;

pub use denial::Denial;
pub use record::ProvenRecord;

use crate::base::time::Instant;
use crate::wire::question::{Question, Type};
use record::CachedRecord;
use sort_key::{SortKey, shared_len};
use zone::Zone;

/// Maximum number of bytes: a new record is inserted into the sorted records of its zone, which
/// takes longer the more there are (up to 50 µs).
const LEN_MAX: usize = 16 << 20;

/// The denial cache. See the [module](self).
#[derive(Debug)]
pub struct DenialCache {
    len_max: usize,
    bytes: usize,
    /// In the order of their keys.
    zones: Vec<Zone>,
    /// The hand of the clock algorithm: the positions of the next zone and of the next record in
    /// it. They are those of other ones after an insertion, which matters little.
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

    /// Adds the verified records of an answer of the pool `source`. Records of a zone without SOA
    /// record are ignored, as are those that deny no more than one name.
    pub fn insert(&mut self, records: &[ProvenRecord], source: usize, now: Instant) {
        for proven in records.iter().filter(|one| one.rr_type != Type::SOA) {
            let is_soa = |one: &&ProvenRecord| {
                one.rr_type == Type::SOA && one.zone == proven.zone && one.owner == one.zone
            };
            let soa = records.iter().find(is_soa);
            self.add(proven, soa, source, now);
        }
        while self.bytes > self.len_max {
            self.evict();
        }
    }

    /// Adds a record to its zone. A zone that is new, of another pool, or hashed in another way, is
    /// added in place of the earlier one.
    fn add(
        &mut self,
        proven: &ProvenRecord,
        soa: Option<&ProvenRecord>,
        source: usize,
        now: Instant,
    ) -> Option<()> {
        let key = SortKey::of(&proven.zone);
        let key = key.as_bytes();
        let (record, hash) = CachedRecord::of_denial(proven, key, now)?;
        let soa = soa.and_then(|soa| CachedRecord::of_soa(soa, now));
        let found = self.zones.binary_search_by(|zone| zone.key().cmp(key));
        let position = found.unwrap_or_else(|position| position);
        if found.is_ok() && self.zones[position].has_origin(source, hash.as_ref()) {
            let zone = &mut self.zones[position];
            self.bytes -= zone.bytes();
            if let Some(soa) = soa {
                zone.set_soa(soa);
            }
        } else {
            let zone = Zone::new((&proven.zone, key), source, soa?, hash);
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

    /// Removes the next record that was not used since the hand passed it, and its zone if that has
    /// no other one.
    fn evict(&mut self) {
        while !self.zones.is_empty() {
            let (position, place) = self.hand;
            let Some(zone) = self.zones.get_mut(position) else {
                self.hand = (0, 0);
                continue;
            };
            match zone.take_use(place) {
                None => self.hand = (position + 1, 0),
                Some(true) => self.hand.1 += 1,
                Some(false) => {
                    self.bytes -= zone.bytes();
                    zone.remove(place);
                    if zone.len() == 0 {
                        self.zones.remove(position);
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
        source: usize,
        ttl_max: u32,
        now: Instant,
    ) -> Option<Denial<'_>> {
        let rr_type = question.rr_type();
        if self.is_empty() || !may_deny(rr_type) {
            return None;
        }
        let name = question.name();
        let key = SortKey::of(name);
        let zone = self.zone_above(key.as_bytes())?;
        if !zone.has_source(source) {
            return None;
        }
        let (rcode, records) = zone.deny((name, key), rr_type, now)?;
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
            // The zone is beside the name: the next one to try is at or above both.
            key = &key[..shared];
        }
    }
}

/// Returns whether questions of a type are answered from the cache: not those for DS, which are of
/// the zone above, nor those for the records of proofs.
fn may_deny(rr_type: Type) -> bool {
    let others = [Type::DS, Type::ANY, Type::RRSIG, Type::NSEC, Type::NSEC3];
    !others.contains(&rr_type)
}
