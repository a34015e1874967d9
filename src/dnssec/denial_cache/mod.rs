//! The denial cache: verified NSEC and NSEC3 records, which deny names and types that were never
//! asked for (aggressive use, RFC 8198).
//!
//! The records of a zone are in canonical order, so that the record before a name is the only one
//! that may deny it. Names are compared by keys whose order is the canonical one. The table
//! has a maximum number of bytes. The record that is removed for a new one is chosen by the clock
//! algorithm: a record that was used since the hand passed it stays.

mod record;
mod span;
#[cfg(test)]
mod tests;

pub use record::ProvenRecord;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::denial::{Denials, HASH_ROUNDS_MAX, Nsec, Proof, wildcard_below};
use super::nsec3::{Hash, Nsec3, Parameters};
use crate::base::time::Instant;
use crate::wire::header::{Flags, HEADER_LEN, Header, Rcode};
use crate::wire::name::{make_lowercase, suffixes};
use crate::wire::question::{Question, Type};
use record::{RecordBody, RecordKey, key_of, write_sort_key};
use span::NsecSpan;

/// Bytes that a record takes beside its content: nodes of the tree and allocations.
const ENTRY_LEN: usize = 160;

/// Maximum number of names that are hashed for a question: the closest encloser of a name is
/// seldom farther above it.
const HASHES_MAX: usize = 8;

/// The place of a record: the number of its zone and its kind, which take [`PREFIX_LEN`] bytes, and
/// its key. The NSEC records of a zone are in the order of RFC 4034, section 6.1, its NSEC3 records
/// in the order of their hashes.
type Place = Box<[u8]>;

/// The length of the zone and the kind in a place.
const PREFIX_LEN: usize = 5;

/// Returns the place of a key.
fn place(zone: &Zone, is_hashed: bool, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(PREFIX_LEN + key.len() + 2);
    place.extend(zone.number.to_be_bytes());
    place.push(u8::from(is_hashed));
    place.extend_from_slice(key);
    place
}

/// A record with its signatures.
#[derive(Debug)]
struct Kept {
    owner: Box<[u8]>,
    records: Box<[u8]>,
    /// The sort key of the next name of an NSEC record.
    next: Option<Box<[u8]>>,
    until: Instant,
    /// The record was used since the hand passed it.
    is_used: Cell<bool>,
}

impl Kept {
    fn new(proven: ProvenRecord, next: Option<Box<[u8]>>, now: Instant) -> Self {
        Self {
            owner: proven.owner,
            next,
            records: proven.records,
            until: now + Duration::from_secs(proven.ttl.into()),
            // The hand may pass soon: the order of the records is not that of their age.
            is_used: Cell::new(true),
        }
    }

    fn len(&self, key_len: usize) -> usize {
        let next_len = self.next.as_ref().map_or(0, |next| next.len());
        ENTRY_LEN + key_len + self.owner.len() + self.records.len() + next_len
    }

    /// Returns the data of the record without its signatures.
    fn data(&self) -> &[u8] {
        RecordBody::split(&self.records).map_or(&[], |(fields, _)| fields.data)
    }
}

/// A zone with NSEC or NSEC3 records in the cache.
#[derive(Debug)]
struct Zone {
    number: u32,
    /// The pool whose answers the records are from.
    source: usize,
    soa: Kept,
    /// The number of NSEC and NSEC3 records.
    len: usize,
    /// The parameters of the last NSEC3 record.
    hash: Option<(u16, Box<[u8]>)>,
}

/// The denial cache. See the [module](self).
#[derive(Debug)]
pub struct DenialCache {
    len_max: usize,
    bytes: usize,
    /// By name in lower case.
    zones: HashMap<Box<[u8]>, Zone>,
    records: BTreeMap<Place, Kept>,
    /// The last place that the clock algorithm has passed.
    hand: Option<Place>,
    last_number: u32,
}

impl DenialCache {
    /// Creates an empty cache of at most `len_max` bytes.
    pub fn new(len_max: usize) -> Self {
        Self {
            len_max,
            bytes: 0,
            zones: HashMap::new(),
            records: BTreeMap::new(),
            hand: None,
            last_number: 0,
        }
    }

    /// Returns the number of NSEC and NSEC3 records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether the cache has no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the number of bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the verified records of an answer of the pool `source`. Records of a zone without SOA
    /// record are ignored, as are those that deny no more than one name.
    pub fn insert(&mut self, records: Vec<ProvenRecord>, source: usize, now: Instant) {
        let is_soa = |record: &ProvenRecord| record.rr_type == Type::SOA;
        let (soa, denials): (Vec<_>, Vec<_>) = records.into_iter().partition(is_soa);
        let soa = soa.into_iter().find(|record| record.owner == record.zone);
        for proven in denials {
            let Some(RecordKey { name, next, hash }) = key_of(&proven) else {
                continue;
            };
            let is_hashed = hash.is_some();
            let soa = soa.as_ref().filter(|soa| soa.owner == proven.zone);
            let Some(zone) = self.zone_for(&proven.zone, soa, source, now) else {
                continue;
            };
            zone.hash = hash.or(zone.hash.take());
            let place = place(zone, is_hashed, &name);
            self.add(place.into(), Kept::new(proven, next, now));
        }
    }

    /// Returns the zone with this name, with a new SOA record if there is one. A zone that is new,
    /// or of another pool, is added.
    fn zone_for(
        &mut self,
        name: &[u8],
        soa: Option<&ProvenRecord>,
        source: usize,
        now: Instant,
    ) -> Option<&mut Zone> {
        let is_known = self
            .zones
            .get(name)
            .is_some_and(|zone| zone.source == source);
        if let Some(soa) = soa {
            let soa = Kept::new(soa.clone(), None, now);
            self.bytes += soa.len(name.len());
            if is_known && let Some(zone) = self.zones.get_mut(name) {
                self.bytes -= zone.soa.len(name.len());
                zone.soa = soa;
            } else {
                self.last_number = self.last_number.wrapping_add(1);
                let zone = Zone {
                    number: self.last_number,
                    source,
                    soa,
                    len: 0,
                    hash: None,
                };
                // The records of an earlier zone are no longer found, and are removed when the
                // hand passes them.
                let earlier = self.zones.insert(name.into(), zone);
                self.bytes -= earlier.map_or(0, |zone| zone.soa.len(name.len()));
            }
        } else if !is_known {
            return None;
        }
        self.zones.get_mut(name)
    }

    fn add(&mut self, place: Place, kept: Kept) {
        let len = kept.len(place.len());
        self.bytes += len;
        if let Some(zone) = self.zone_of(&place, &kept.owner) {
            zone.len += 1;
        }
        if let Some(earlier) = self.records.insert(place.clone(), kept) {
            self.forget(&place, &earlier);
        }
        while self.bytes > self.len_max {
            self.evict();
        }
    }

    /// Returns the zone of a record.
    fn zone_of(&mut self, place: &[u8], owner: &[u8]) -> Option<&mut Zone> {
        let is_its_zone = |zone: &Zone| place.starts_with(&zone.number.to_be_bytes());
        let name = suffixes(owner).find(|name| self.zones.get(*name).is_some_and(is_its_zone));
        self.zones.get_mut(name?)
    }

    /// Counts the removal of a record. A zone without records is removed.
    fn forget(&mut self, place: &[u8], kept: &Kept) {
        self.bytes -= kept.len(place.len());
        let Some(zone) = self.zone_of(place, &kept.owner) else {
            return;
        };
        zone.len -= 1;
        if zone.len == 0 {
            let name = zone.soa.owner.clone();
            self.bytes -= zone.soa.len(name.len());
            self.zones.remove(&name);
        }
    }

    /// Removes the next record that was not used since the hand passed it.
    fn evict(&mut self) {
        loop {
            let behind = match &self.hand {
                Some(place) => Bound::Excluded(&place[..]),
                None => Bound::Unbounded,
            };
            let behind = (behind, Bound::Unbounded);
            let next = self.records.range::<[u8], _>(behind).next();
            let Some((place, kept)) = next else {
                if self.hand.take().is_none() {
                    return;
                }
                continue;
            };
            let (place, is_unused) = (place.clone(), !kept.is_used.replace(false));
            self.hand = Some(place.clone());
            if is_unused {
                if let Some(kept) = self.records.remove(&place) {
                    self.forget(&place, &kept);
                }
                return;
            }
        }
    }

    /// Returns the denial of the name or the type in a question of class IN by verified records of
    /// this pool, with their proof if `wants_proof`. No TTL in it is higher than `ttl_max` seconds.
    pub fn deny(
        &self,
        question: Question<'_>,
        source: usize,
        (wants_proof, ttl_max): (bool, u32),
        now: Instant,
    ) -> Option<Denial> {
        if self.is_empty() || !may_deny(question.rr_type()) {
            return None;
        }
        let mut name: Box<[u8]> = question.name().into();
        make_lowercase(&mut name);
        let found = suffixes(&name).find_map(|suffix| Some((suffix, self.zones.get(suffix)?)));
        let (zone_name, zone) = found?;
        if zone.source != source {
            return None;
        }
        let soa = Some(&zone.soa).filter(|soa| now < soa.until)?;
        let rr_type = question.rr_type();
        let (rcode, mut used) = self
            .deny_by_nsec(zone, &name, rr_type, now)
            .or_else(|| self.deny_by_nsec3((zone, zone_name), &name, rr_type, now))?;
        used.insert(0, soa);
        let until = used.iter().map(|kept| kept.until).min()?;
        let ttl = u32::try_from((until - now).as_secs()).unwrap_or(ttl_max);
        let ttl = ttl.min(ttl_max);
        for kept in &used {
            kept.is_used.set(true);
        }
        if !wants_proof {
            used.truncate(1);
        }
        let zone_len = zone_name.len();
        (ttl > 0).then(|| Denial::write(question, (rcode, ttl), (&used, wants_proof), zone_len))
    }

    /// Returns the response code for a name, and the NSEC records that prove it (RFC 4035, section
    /// 5.4): the record before the name, and the one before the wildcard that would match it.
    fn deny_by_nsec(
        &self,
        zone: &Zone,
        name: &[u8],
        rr_type: Type,
        now: Instant,
    ) -> Option<(Rcode, Vec<&Kept>)> {
        let mut key = place(zone, false, &[]);
        write_sort_key(&mut key, name);
        let (first, first_kept) = self.span_before(zone, &key, now)?;
        let name = &key[PREFIX_LEN..];
        if first.owner == name {
            let is_root = name.is_empty();
            let is_denied = first.types.denies(rr_type, is_root);
            return is_denied.then(|| (Rcode::NOERROR, vec![first_kept]));
        }
        if !first.covers(name) {
            return None;
        }
        if first.is_empty_non_terminal(name) {
            return Some((Rcode::NOERROR, vec![first_kept]));
        }
        let encloser_len = first.closest_encloser(name).len();
        key.truncate(PREFIX_LEN + encloser_len);
        key.extend_from_slice(b"*\0");
        let (second, second_kept) = self.span_before(zone, &key, now)?;
        let wildcard = &key[PREFIX_LEN..];
        let rcode = if second.owner == wildcard {
            let is_denied = second.types.denies(rr_type, false);
            is_denied.then_some(Rcode::NOERROR)?
        } else {
            let is_denied = second.covers(wildcard) && !second.is_empty_non_terminal(wildcard);
            is_denied.then_some(Rcode::NXDOMAIN)?
        };
        let mut used = vec![first_kept];
        if !std::ptr::eq(first_kept, second_kept) {
            used.push(second_kept);
        }
        Some((rcode, used))
    }

    /// Returns the NSEC record of a zone with the last owner that is not behind a place.
    fn span_before(&self, zone: &Zone, upto: &[u8], now: Instant) -> Option<(NsecSpan<'_>, &Kept)> {
        let (place, kept) = self.at_or_before(upto, now)?;
        let nsec = Nsec::parse(&kept.owner, kept.data()).ok()?;
        let span = NsecSpan {
            owner: &place[PREFIX_LEN..],
            next: kept.next.as_deref()?,
            is_last: nsec.next.eq_ignore_ascii_case(&zone.soa.owner),
            types: nsec.types,
        };
        Some((span, kept))
    }

    /// Returns the response code for a name, and the NSEC3 records that prove it, which
    /// [`Denials`] checks.
    fn deny_by_nsec3<'a>(
        &'a self,
        (zone, zone_name): (&'a Zone, &[u8]),
        name: &[u8],
        rr_type: Type,
        now: Instant,
    ) -> Option<(Rcode, Vec<&'a Kept>)> {
        let (iterations, salt) = zone.hash.as_ref()?;
        let iterations = *iterations;
        let parameters = Parameters { iterations, salt };
        let hashes_max = (HASH_ROUNDS_MAX / parameters.rounds()).min(HASHES_MAX);
        let (mut used, mut denials): (Vec<&Kept>, _) = (Vec::new(), Denials::of(zone_name));
        let mut find = |hash: Hash| {
            let (_, kept) = self.hash_at_or_before(zone, &hash, now)?;
            if !used.iter().any(|one| std::ptr::eq(*one, kept)) {
                denials.add(Type::NSEC3, &kept.owner, kept.data());
                used.push(kept);
            }
            let (nsec3, _) = Nsec3::parse(&kept.owner, zone_name, kept.data()).ok()?;
            Some(nsec3.owner == hash)
        };
        for (nth, suffix) in suffixes(name).take(hashes_max).enumerate() {
            if !find(parameters.hash(suffix))? {
                continue;
            }
            if nth > 0 {
                find(parameters.hash(&wildcard_below(suffix)))?;
            }
            break;
        }
        if denials.denies_name(name) == Proof::Secure {
            Some((Rcode::NXDOMAIN, used))
        } else {
            let is_denied = denials.denies_type(name, rr_type) == Proof::Secure;
            is_denied.then_some((Rcode::NOERROR, used))
        }
    }

    /// Returns the NSEC3 record of a zone that matches or covers a hash. The last hash of a zone is
    /// before the first one.
    fn hash_at_or_before(&self, zone: &Zone, hash: &Hash, now: Instant) -> Option<(&Place, &Kept)> {
        let found = self.at_or_before(&place(zone, true, hash), now);
        let last = place(zone, true, &[u8::MAX; size_of::<Hash>() + 1]);
        found.or_else(|| self.at_or_before(&last, now))
    }

    /// Returns the last record of the same zone and kind that is not behind a place, unless it has
    /// expired.
    fn at_or_before(&self, upto: &[u8], now: Instant) -> Option<(&Place, &Kept)> {
        let range = (Bound::Unbounded, Bound::Included(upto));
        let found = self.records.range::<[u8], _>(range).next_back();
        found.filter(|(place, kept)| place[..PREFIX_LEN] == upto[..PREFIX_LEN] && now < kept.until)
    }
}

/// Returns whether questions of a type are answered from the cache: not those for DS, which are of
/// the zone above, nor those for the records of proofs.
fn may_deny(rr_type: Type) -> bool {
    let others = [Type::DS, Type::ANY, Type::RRSIG, Type::NSEC, Type::NSEC3];
    !others.contains(&rr_type)
}

/// A denial: the response code and the records of the authority section.
#[derive(Debug)]
pub struct Denial {
    /// The response code: NXDOMAIN or NOERROR.
    pub rcode: Rcode,
    /// The number of records.
    pub count: u16,
    /// The records. Their owners are compressed by pointers to the name in the question.
    pub records: Vec<u8>,
}

impl Denial {
    /// Returns the flags of an answer with the denial, which is authentic.
    pub fn flags(&self) -> Flags {
        (Flags::QR | Flags::RA | Flags::AD).with_rcode(self.rcode)
    }

    /// Returns the answer to the question.
    pub fn to_message(&self, question: Question<'_>) -> Vec<u8> {
        let header = Header {
            id: 0,
            flags: self.flags(),
            questions: 1,
            answers: 0,
            authorities: self.count,
            additionals: 0,
        };
        [&header.to_bytes()[..], question.as_bytes(), &self.records].concat()
    }

    /// Writes these records, and their signatures if `wants_proof`. The end of the name in the
    /// question is the name of the zone.
    fn write(
        question: Question<'_>,
        (rcode, ttl): (Rcode, u32),
        (used, wants_proof): (&[&Kept], bool),
        zone_len: usize,
    ) -> Self {
        let records_len: usize = used.iter().map(|kept| kept.records.len()).sum();
        let mut out = Vec::with_capacity(question.as_bytes().len() + records_len);
        let zone_at = HEADER_LEN + question.name().len() - zone_len;
        let pointer = u16::try_from(zone_at).unwrap_or_default() | 0xc000;
        // The root is shorter than a pointer.
        let pointer = pointer.to_be_bytes();
        let zone = if zone_len > 1 { &pointer[..] } else { &[0] };
        let mut count = 0;
        for kept in used {
            let mut rest = &kept.records[..];
            while let Some((body, behind)) = RecordBody::split(rest) {
                let labels_len = kept.owner.len().saturating_sub(zone_len);
                out.extend_from_slice(&kept.owner[..labels_len]);
                out.extend_from_slice(zone);
                out.extend_from_slice(body.start);
                out.extend(ttl.to_be_bytes());
                let len = u16::try_from(body.data.len()).unwrap_or_default();
                out.extend(len.to_be_bytes());
                out.extend_from_slice(body.data);
                count += 1;
                rest = if wants_proof { behind } else { &[] };
            }
        }
        Self {
            rcode,
            count,
            records: out,
        }
    }
}
