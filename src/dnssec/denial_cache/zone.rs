//! A zone in the denial cache, and what its records deny.

use super::record::{CachedRecord, HashParameters};
use super::response::Records;
use super::shrink;
use super::sort_key::SortKey;
use crate::base::time::Instant;
use crate::dnssec::denial::wildcard_below;
use crate::dnssec::limits;
use crate::dnssec::nsec3::{Hash, Parameters};
use crate::wire::header::Rcode;
use crate::wire::name::suffixes;
use crate::wire::question::Type;

/// Bytes that a zone takes besides its key and its SOA record.
const ZONE_LEN: usize = size_of::<Zone>() + 2 * ALLOCATION_LEN;
/// Bytes that a record takes besides its content: the entry with room for others, and allocations.
const RECORD_LEN: usize =
    2 * size_of::<RecordEntry>() + size_of::<CachedRecord>() + 2 * ALLOCATION_LEN;
/// Bytes that an allocation takes besides its content.
const ALLOCATION_LEN: usize = 16;

/// The NSEC or NSEC3 records of a denial.
type ProofRecords<'a> = [Option<&'a CachedRecord>; 3];

/// A record, and the first bytes of its key, which decide most comparisons.
#[derive(Debug)]
struct RecordEntry {
    prefix: u64,
    record: Box<CachedRecord>,
}

/// A zone with NSEC or NSEC3 records in the cache.
#[derive(Debug)]
pub(super) struct Zone {
    key: Box<[u8]>,
    name_len: usize,
    /// The pool whose answers the records are from.
    pool: usize,
    soa: CachedRecord,
    /// The parameters of the hash. Names are not hashed in a zone with NSEC records.
    hash: Option<HashParameters>,
    /// In the order of their keys, which is that of RFC 4034, section 6.1, or that of their hashes.
    entries: Vec<RecordEntry>,
    bytes: usize,
}

impl Zone {
    /// Creates a zone with this name and sort key.
    pub(super) fn new(
        (name, key): (&[u8], &[u8]),
        pool: usize,
        soa: CachedRecord,
        hash: Option<HashParameters>,
    ) -> Self {
        Self {
            bytes: ZONE_LEN + key.len() + soa.len(),
            key: key.into(),
            name_len: name.len(),
            pool,
            soa,
            hash,
            entries: Vec::new(),
        }
    }

    /// Returns the sort key of the name.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Returns the length of the name in a message.
    pub(super) fn name_len(&self) -> usize {
        self.name_len
    }

    /// Returns the number of NSEC and NSEC3 records.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of bytes in use, counted anew.
    #[cfg(test)]
    pub(super) fn bytes_in_full(&self) -> usize {
        let records = self.entries.iter();
        let records: usize = records.map(|entry| RECORD_LEN + entry.record.len()).sum();
        ZONE_LEN + self.key.len() + self.soa.len() + records
    }

    /// Returns whether the records are from this pool.
    pub(super) fn is_from_pool(&self, pool: usize) -> bool {
        self.pool == pool
    }

    /// Returns whether the records are from this pool and use these hash parameters.
    pub(super) fn has_pool_and_hash(&self, pool: usize, hash: Option<&HashParameters>) -> bool {
        self.pool == pool && self.hash.as_ref() == hash
    }

    pub(super) fn set_soa(&mut self, soa: CachedRecord) {
        self.bytes = self.bytes - self.soa.len() + soa.len();
        self.soa = soa;
    }

    /// Adds a record, in place of an earlier one with the same owner.
    pub(super) fn insert(&mut self, record: CachedRecord) {
        self.bytes += RECORD_LEN + record.len();
        let after = self.after(record.key());
        let record = Box::new(record);
        if let Some(entry) = self.entries[..after].last_mut()
            && entry.record.key() == record.key()
        {
            self.bytes -= RECORD_LEN + entry.record.len();
            entry.record = record;
        } else {
            let prefix = prefix(record.key());
            self.entries.insert(after, RecordEntry { prefix, record });
        }
    }

    /// Removes the record at this position.
    pub(super) fn remove(&mut self, position: usize) {
        let entry = self.entries.remove(position);
        self.bytes -= RECORD_LEN + entry.record.len();
        shrink(&mut self.entries);
    }

    /// Returns whether the record at a position was used since the last call, or `None` if there is
    /// no record.
    pub(super) fn take_use(&mut self, position: usize) -> Option<bool> {
        let entry = self.entries.get(position)?;
        Some(entry.record.is_used.replace(false))
    }

    /// Returns the response code for a name at or below the zone, and the records that prove it,
    /// of which none has expired.
    pub(super) fn deny(
        &self,
        (name, key): (&[u8], &mut SortKey),
        rr_type: Type,
        now: Instant,
    ) -> Option<(Rcode, Records<'_>)> {
        let (rcode, [first, second, third]) = match &self.hash {
            None => self.deny_by_nsec(key, rr_type)?,
            Some(hash) => self.deny_by_nsec3(hash, name, rr_type)?,
        };
        let records = [Some(&self.soa), first, second, third];
        let is_valid = |record: &&CachedRecord| now < record.until;
        let are_valid = records.iter().flatten().all(is_valid);
        are_valid.then_some((rcode, records))
    }

    /// Returns the response code for a name, and the NSEC records that prove it (RFC 4035, section
    /// 5.4): the record before the name, and the one before the wildcard that would match it.
    fn deny_by_nsec(&self, key: &mut SortKey, rr_type: Type) -> Option<(Rcode, ProofRecords<'_>)> {
        let apex_len = self.key.len();
        let name = &key.as_bytes()[apex_len..];
        let first = self.at_or_before(name)?;
        let no_data = |record: &CachedRecord| record.types().denies(rr_type, false);
        if first.key() == name {
            return no_data(first).then_some((Rcode::NOERROR, [Some(first), None, None]));
        }
        if !first.covers_later(name) {
            return None;
        }
        if first.is_empty_non_terminal(name) {
            return Some((Rcode::NOERROR, [Some(first), None, None]));
        }
        let encloser_len = first.closest_encloser_len(name);
        key.set_wildcard_below(apex_len + encloser_len);
        let wildcard = &key.as_bytes()[apex_len..];
        let second = self.at_or_before(wildcard)?;
        let rcode = if second.key() == wildcard {
            no_data(second).then_some(Rcode::NOERROR)?
        } else {
            let is_denied =
                second.covers_later(wildcard) && !second.is_empty_non_terminal(wildcard);
            is_denied.then_some(Rcode::NXDOMAIN)?
        };
        // There is no third record.
        Some((rcode, distinct([first, second, second])))
    }

    /// Returns the response code for a name, and the NSEC3 records that prove it (RFC 5155, section
    /// 8): those of the closest encloser, of the name below it, and of the wildcard below it.
    fn deny_by_nsec3(
        &self,
        (iterations, salt): &HashParameters,
        name: &[u8],
        rr_type: Type,
    ) -> Option<(Rcode, ProofRecords<'_>)> {
        let parameters = Parameters {
            iterations: *iterations,
            salt,
        };
        let no_data = |record: &CachedRecord| record.types().denies(rr_type, false);
        let hashes_max = limits::NSEC3_HASH_ROUNDS / parameters.rounds();
        let hashes_max = hashes_max.min(limits::DENIAL_CACHE_HASHES);
        let is_in_zone = |ancestor: &&[u8]| ancestor.len() >= self.name_len;
        let mut below = None;
        for ancestor in suffixes(name).take_while(is_in_zone).take(hashes_max) {
            let hash = parameters.hash(ancestor);
            let record = self.matching_or_before(&hash)?;
            if record.key() != hash {
                below = Some((hash, record));
                continue;
            }
            let Some((next_closer_hash, next_closer)) = below else {
                return no_data(record).then_some((Rcode::NOERROR, [Some(record), None, None]));
            };
            if record.types().hides_names_below() || !next_closer.covers_hash(&next_closer_hash) {
                return None;
            }
            let hash = parameters.hash(&wildcard_below(ancestor));
            let wildcard = self.matching_or_before(&hash)?;
            let rcode = if wildcard.key() == hash {
                no_data(wildcard).then_some(Rcode::NOERROR)?
            } else {
                wildcard.covers_hash(&hash).then_some(Rcode::NXDOMAIN)?
            };
            return Some((rcode, distinct([record, next_closer, wildcard])));
        }
        None
    }

    /// Returns the NSEC3 record that matches a hash or is before it. The record before the first
    /// one is the last one.
    fn matching_or_before(&self, hash: &Hash) -> Option<&CachedRecord> {
        let last = || self.entries.last().map(|entry| &*entry.record);
        self.at_or_before(hash).or_else(last)
    }

    /// Returns the record with this key, or else the one before it.
    fn at_or_before(&self, key: &[u8]) -> Option<&CachedRecord> {
        let entry = self.entries[..self.after(key)].last()?;
        Some(&entry.record)
    }

    /// Returns the position after all records whose keys are at most `key`.
    fn after(&self, key: &[u8]) -> usize {
        let prefix = prefix(key);
        // This search compares only numbers in the vector itself, so it reads no record.
        let start = self.entries.partition_point(|entry| entry.prefix < prefix);
        let has_prefix = |entry: &RecordEntry| entry.prefix == prefix;
        let rest = &self.entries[start..];
        if !rest.first().is_some_and(has_prefix) {
            return start;
        }
        start + rest.partition_point(|entry| has_prefix(entry) && entry.record.key() <= key)
    }
}

/// Returns the first bytes of a key as a number of the same order.
fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; size_of::<u64>()];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

/// Returns these records without repetitions.
fn distinct([first, second, third]: [&CachedRecord; 3]) -> ProofRecords<'_> {
    let is_new = |record: &&CachedRecord, others: &[&CachedRecord]| {
        others.iter().all(|other| !std::ptr::eq(*record, *other))
    };
    [
        Some(first),
        Some(second).filter(|record| is_new(record, &[first])),
        Some(third).filter(|record| is_new(record, &[first, second])),
    ]
}
