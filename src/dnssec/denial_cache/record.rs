//! The records of the denial cache.

use std::cell::Cell;
use std::time::Duration;

use super::sort_key::{SortKey, shared_len};
use crate::base::time::Instant;
use crate::dnssec::denial::Nsec;
use crate::dnssec::nsec3::{Hash, Nsec3};
use crate::dnssec::type_bitmap::TypeBitmap;
use crate::wire::question::Type;
use crate::wire::record::Record;

/// A verified record that a denial may need: SOA, NSEC or NSEC3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenRecord {
    /// The zone that signs, in lower case.
    pub zone: Box<[u8]>,
    /// The owner, in lower case.
    pub owner: Box<[u8]>,
    /// The type.
    pub rr_type: Type,
    /// The number of seconds for which the record may be used.
    pub ttl: u32,
    /// The record and its signatures without their owner. Names in them are not compressed.
    pub records: Box<[u8]>,
}

impl ProvenRecord {
    /// Returns the data of the record without its signatures.
    fn data(&self) -> &[u8] {
        split(&self.records).map_or(&[], |(record, _)| &record[FIXED_LEN..])
    }
}

/// The length of type, class, TTL and length of a record.
const FIXED_LEN: usize = Record::FIXED_LEN;

/// Splits the first record without its owner from others.
fn split(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = records.get(FIXED_LEN - 2..)?.first_chunk().copied()?;
    records.split_at_checked(FIXED_LEN + usize::from(u16::from_be_bytes(len)))
}

/// The parameters of the hash in NSEC3 records: iterations and salt.
pub(super) type HashParameters = (u16, Box<[u8]>);

/// A record in the cache, with its signatures.
#[derive(Debug)]
pub(super) struct CachedRecord {
    pub(super) until: Instant,
    /// The record was used since the hand of the clock algorithm passed it.
    pub(super) is_used: Cell<bool>,
    /// The length of the owner as a message has it: labels, and a pointer to the zone.
    owner_len: u8,
    /// The number of records: one, and its signatures.
    count: u16,
    /// The ends of the first parts of `bytes`.
    key_end: u16,
    next_end: u16,
    record_end: u16,
    /// The start of the type bitmap in `bytes`.
    types_start: u16,
    /// `key of the owner | key of the next name or hash | record | signatures`: the record and its
    /// signatures as a message has them, each with its owner. The key of a name is the part of its
    /// [`SortKey`] below the zone.
    bytes: Box<[u8]>,
}

impl CachedRecord {
    /// Returns an SOA record, unless it is too long.
    pub(super) fn of_soa(proven: &ProvenRecord, now: Instant) -> Option<Self> {
        Self::new(proven, (&[], &[]), &[], now)
    }

    /// Returns an NSEC or NSEC3 record of the zone with this sort key, and the parameters of its
    /// hash. Returns `None` if the record covers no other names, is opt-out, or has too many
    /// iterations.
    pub(super) fn of_denial(
        proven: &ProvenRecord,
        zone_key: &[u8],
        now: Instant,
    ) -> Option<(Self, Option<HashParameters>)> {
        let data = proven.data();
        if proven.rr_type == Type::NSEC {
            let nsec = Nsec::parse(&proven.owner, data).ok()?;
            let (owner, next) = (SortKey::of(nsec.owner), SortKey::of(nsec.next));
            let keys = (
                owner.as_bytes().strip_prefix(zone_key)?,
                next.as_bytes().strip_prefix(zone_key)?,
            );
            let record = Self::new(proven, keys, nsec.types.as_bytes(), now);
            return record
                .filter(|_| nsec.covers_other_names())
                .map(|record| (record, None));
        }
        let (nsec3, parameters) = Nsec3::parse(&proven.owner, &proven.zone, data).ok()?;
        // Unsigned delegations may be in an opt-out span (RFC 5155, section 9.2).
        if nsec3.is_opt_out || nsec3.is_narrow() || parameters.has_too_many_iterations() {
            return None;
        }
        let keys = (&nsec3.owner[..], &nsec3.next[..]);
        let record = Self::new(proven, keys, nsec3.types.as_bytes(), now)?;
        Some((
            record,
            Some((parameters.iterations, parameters.salt.into())),
        ))
    }

    /// Creates a record. `types` is the type bitmap, which ends the data.
    fn new(
        proven: &ProvenRecord,
        (key, next): (&[u8], &[u8]),
        types: &[u8],
        now: Instant,
    ) -> Option<Self> {
        let labels_len = proven.owner.len().checked_sub(proven.zone.len())?;
        let owner = [&proven.owner[..labels_len], owner_end(&proven.zone)].concat();
        let mut bytes = [key, next].concat();
        let next_end = bytes.len();
        let (mut record_end, mut types_start, mut count) = (0, 0, 0);
        let mut rest = &proven.records[..];
        while let Some((record, others)) = split(rest) {
            bytes.extend_from_slice(&owner);
            bytes.extend_from_slice(record);
            if count == 0 {
                record_end = bytes.len();
                types_start = record_end - types.len();
            }
            count += 1;
            rest = others;
        }
        let end = |end: usize| u16::try_from(end).ok();
        end(bytes.len())?;
        Some(Self {
            until: now + Duration::from_secs(proven.ttl.into()),
            // A new record may be the next one at the hand, so it starts as used.
            is_used: Cell::new(true),
            owner_len: u8::try_from(owner.len()).ok()?,
            count,
            key_end: end(key.len())?,
            next_end: end(next_end)?,
            record_end: end(record_end)?,
            types_start: end(types_start)?,
            bytes: bytes.into(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the key of the owner: its order is that of the records of a zone.
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..usize::from(self.key_end)]
    }

    /// Returns the key of the next name or hash.
    fn next(&self) -> &[u8] {
        &self.bytes[usize::from(self.key_end)..usize::from(self.next_end)]
    }

    /// Returns the types at the owner.
    pub(super) fn types(&self) -> TypeBitmap<'_> {
        TypeBitmap::new(&self.bytes[usize::from(self.types_start)..usize::from(self.record_end)])
    }

    /// Returns whether an NSEC record proves that a name has no records, whose key is higher than
    /// that of the owner. Names below it may exist. The next name of the last record is the apex.
    pub(super) fn covers_later(&self, key: &[u8]) -> bool {
        let next = self.next();
        let is_between = key < next || next.is_empty();
        is_between && !(key.starts_with(self.key()) && self.types().hides_names_below())
    }

    /// Returns whether a covered name exists without records, since the next name is below it.
    pub(super) fn is_empty_non_terminal(&self, key: &[u8]) -> bool {
        self.next().starts_with(key)
    }

    /// Returns the length of the key of the longest ancestor of a covered name that exists.
    pub(super) fn closest_encloser_len(&self, key: &[u8]) -> usize {
        shared_len(key, self.key()).max(shared_len(key, self.next()))
    }

    /// Returns whether an NSEC3 record proves that no name has a hash. The next hash of the last
    /// record is the first one.
    pub(super) fn covers_hash(&self, hash: &Hash) -> bool {
        let (owner, next, hash) = (self.key(), self.next(), &hash[..]);
        if owner < next {
            owner < hash && hash < next
        } else {
            owner < hash || hash < next
        }
    }

    /// Returns the number of records that [`CachedRecord::write`] appends.
    pub(super) fn count(&self, wants_proof: bool) -> u16 {
        if wants_proof { self.count } else { 1 }
    }

    /// Appends the record with this TTL, and its signatures if `wants_proof`. The pointer to the
    /// name of its zone is `None` for the root, whose name is shorter.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        wants_proof: bool,
        (zone, ttl): (Option<[u8; 2]>, u32),
    ) {
        let mut start = out.len();
        let records = &self.bytes[usize::from(self.next_end)..];
        let record_len = usize::from(self.record_end - self.next_end);
        out.extend_from_slice(if wants_proof {
            records
        } else {
            &records[..record_len]
        });
        while start < out.len() {
            let fixed = start + usize::from(self.owner_len);
            if let Some(pointer) = zone {
                out[fixed - 2..fixed].copy_from_slice(&pointer);
            }
            out[fixed + 4..fixed + 8].copy_from_slice(&ttl.to_be_bytes());
            let data_len = u16::from_be_bytes([out[fixed + 8], out[fixed + 9]]);
            start = fixed + FIXED_LEN + usize::from(data_len);
        }
    }
}

/// Returns the end of an owner: the room for a pointer to the zone, or the name of the root.
fn owner_end(zone: &[u8]) -> &'static [u8] {
    match zone {
        [_] => &[0],
        _ => &[0, 0],
    }
}
