//! The denial cache: verified NSEC and NSEC3 records, which deny names and types that were never
//! asked for (aggressive use, RFC 8198).
//!
//! The records of a zone are in canonical order, so that the record before a name is the only one
//! that may deny it. Every proof is checked by [`Denials`] as if an upstream had sent it. The table
//! has a maximum number of bytes. The record that is removed for a new one is chosen by the clock
//! algorithm: a record that was used since the hand passed it stays.

mod record;
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
use record::{RecordBody, RecordKey, key_of, sort_key};

/// Bytes that a record takes beside its content: nodes of the tree and allocations.
const ENTRY_LEN: usize = 160;

/// Maximum number of names that are hashed for a question: the closest encloser of a name is
/// seldom farther above it.
const HASHES_MAX: usize = 8;

/// The place of a record. The NSEC records of a zone are in the order of RFC 4034, section 6.1, its
/// NSEC3 records in the order of their hashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    zone: u32,
    is_hashed: bool,
    name: Box<[u8]>,
}

/// A record with its signatures.
#[derive(Debug)]
struct Kept {
    owner: Box<[u8]>,
    records: Box<[u8]>,
    until: Instant,
    /// The record was used since the hand passed it.
    is_used: Cell<bool>,
}

impl Kept {
    fn new(proven: ProvenRecord, now: Instant) -> Self {
        Self {
            owner: proven.owner,
            records: proven.records,
            until: now + Duration::from_secs(proven.ttl.into()),
            // The hand may pass soon: the order of the records is not that of their age.
            is_used: Cell::new(true),
        }
    }

    fn len(&self, key_len: usize) -> usize {
        ENTRY_LEN + key_len + self.owner.len() + self.records.len()
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
            let Some(RecordKey { name, hash }) = key_of(&proven) else {
                continue;
            };
            let is_hashed = hash.is_some();
            let soa = soa.as_ref().filter(|soa| soa.owner == proven.zone);
            let Some(zone) = self.zone_for(&proven.zone, soa, source, now) else {
                continue;
            };
            zone.hash = hash.or(zone.hash.take());
            let place = Place {
                zone: zone.number,
                is_hashed,
                name,
            };
            self.add(place, Kept::new(proven, now));
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
            let soa = Kept::new(soa.clone(), now);
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
        let len = kept.len(place.name.len());
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
    fn zone_of(&mut self, place: &Place, owner: &[u8]) -> Option<&mut Zone> {
        let is_its_zone = |zone: &Zone| zone.number == place.zone;
        let name = suffixes(owner).find(|name| self.zones.get(*name).is_some_and(is_its_zone));
        self.zones.get_mut(name?)
    }

    /// Counts the removal of a record. A zone without records is removed.
    fn forget(&mut self, place: &Place, kept: &Kept) {
        self.bytes -= kept.len(place.name.len());
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
                Some(place) => Bound::Excluded(place),
                None => Bound::Unbounded,
            };
            let next = self.records.range((behind, Bound::Unbounded)).next();
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

    /// Returns the answer to a question of class IN that verified records of this pool deny:
    /// NXDOMAIN, or NOERROR without records, with their proof if `wants_proof`. No TTL in it is
    /// higher than `ttl_max` seconds.
    pub fn deny(
        &self,
        question: Question<'_>,
        source: usize,
        (wants_proof, ttl_max): (bool, u32),
        now: Instant,
    ) -> Option<Vec<u8>> {
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
        let mut proof = SearchedProof {
            denials: Denials::of(zone_name),
            used: Vec::new(),
        };
        self.search_nsec(&mut proof, (zone, zone_name), &name, now);
        if proof.used.is_empty() {
            self.search_nsec3(&mut proof, (zone, zone_name), &name, now)?;
        }
        let rcode = if proof.denials.denies_name(&name) == Proof::Secure {
            Rcode::NXDOMAIN
        } else if proof.denials.denies_type(&name, question.rr_type()) == Proof::Secure {
            Rcode::NOERROR
        } else {
            return None;
        };
        proof.used.insert(0, soa);
        let until = proof.used.iter().map(|kept| kept.until).min()?;
        let ttl = u32::try_from((until - now).as_secs())
            .unwrap_or(ttl_max)
            .min(ttl_max);
        for kept in &proof.used {
            kept.is_used.set(true);
        }
        if !wants_proof {
            proof.used.truncate(1);
        }
        let zone_len = zone_name.len();
        (ttl > 0)
            .then(|| write_denial(question, (rcode, ttl), (&proof.used, wants_proof), zone_len))
    }

    /// Collects the NSEC records that may deny a name and the wildcard that would match it.
    fn search_nsec<'a>(
        &'a self,
        proof: &mut SearchedProof<'a>,
        (zone, zone_name): (&'a Zone, &[u8]),
        name: &[u8],
        now: Instant,
    ) {
        let Some(kept) = self.at_or_before(zone, false, sort_key(name), now) else {
            return;
        };
        let is_owner = *kept.owner == *name;
        let nsec = Nsec::parse(&kept.owner, kept.data());
        let nsec = nsec
            .ok()
            .filter(|nsec| is_owner || nsec.covers(name, zone_name));
        let Some(nsec) = nsec else {
            return;
        };
        proof.add(Type::NSEC, kept);
        if is_owner {
            return;
        }
        let wildcard = wildcard_below(nsec.closest_encloser(name));
        let covering = self.at_or_before(zone, false, sort_key(&wildcard), now);
        if let Some(covering) = covering {
            proof.add(Type::NSEC, covering);
        }
    }

    /// Collects the NSEC3 records that may deny a name and the wildcard that would match it. `None`
    /// if there are none.
    fn search_nsec3<'a>(
        &'a self,
        proof: &mut SearchedProof<'a>,
        (zone, zone_name): (&'a Zone, &[u8]),
        name: &[u8],
        now: Instant,
    ) -> Option<()> {
        let (iterations, salt) = zone.hash.as_ref()?;
        let iterations = *iterations;
        let parameters = Parameters { iterations, salt };
        let hashes_max = (HASH_ROUNDS_MAX / parameters.rounds()).min(HASHES_MAX);
        let mut find = |hash: Hash| {
            let kept = self.at_or_before(zone, true, hash.into(), now)?;
            proof.add(Type::NSEC3, kept);
            let (nsec3, _) = Nsec3::parse(&kept.owner, zone_name, kept.data()).ok()?;
            Some(nsec3.owner == hash)
        };
        for (nth, suffix) in suffixes(name).take(hashes_max).enumerate() {
            let is_encloser = find(parameters.hash(suffix))?;
            if is_encloser && nth > 0 {
                find(parameters.hash(&wildcard_below(suffix)))?;
            }
            if is_encloser {
                return Some(());
            }
        }
        None
    }

    /// Returns the last record of a part of a zone that is not behind `name`, unless it has
    /// expired. The last hash of a zone is before the first one.
    fn at_or_before(
        &self,
        zone: &Zone,
        is_hashed: bool,
        name: Box<[u8]>,
        now: Instant,
    ) -> Option<&Kept> {
        let zone = zone.number;
        let is_same =
            |(place, _): &(&Place, &Kept)| place.zone == zone && place.is_hashed == is_hashed;
        let upto = Place {
            zone,
            is_hashed,
            name,
        };
        let mut found = self.records.range(..=upto).next_back().filter(is_same);
        if found.is_none() && is_hashed {
            let name = Box::new([u8::MAX; size_of::<Hash>() + 1]);
            let last = Place {
                zone,
                is_hashed,
                name,
            };
            found = self.records.range(..last).next_back().filter(is_same);
        }
        let (_, kept) = found?;
        (now < kept.until).then_some(kept)
    }
}

/// Records of the cache that may prove a denial.
struct SearchedProof<'a> {
    denials: Denials<'a>,
    used: Vec<&'a Kept>,
}

impl<'a> SearchedProof<'a> {
    fn add(&mut self, rr_type: Type, kept: &'a Kept) {
        if !self.used.iter().any(|used| std::ptr::eq(*used, kept)) {
            self.denials.add(rr_type, &kept.owner, kept.data());
            self.used.push(kept);
        }
    }
}

/// Returns whether questions of a type are answered from the cache: not those for DS, which are of
/// the zone above, nor those for the records of proofs.
fn may_deny(rr_type: Type) -> bool {
    let others = [Type::DS, Type::ANY, Type::RRSIG, Type::NSEC, Type::NSEC3];
    !others.contains(&rr_type)
}

/// Returns an answer to a question with these records, and their signatures if `wants_proof`, in
/// its authority section. The end of the name in the question is the name of the zone.
fn write_denial(
    question: Question<'_>,
    (rcode, ttl): (Rcode, u32),
    (used, wants_proof): (&[&Kept], bool),
    zone_len: usize,
) -> Vec<u8> {
    let mut out = vec![0; HEADER_LEN];
    out.extend_from_slice(question.as_bytes());
    let zone_at = HEADER_LEN + question.name().len() - zone_len;
    let pointer = u16::try_from(zone_at).unwrap_or_default() | 0xc000;
    // The root is shorter than a pointer.
    let zone = if zone_len > 1 {
        pointer.to_be_bytes().to_vec()
    } else {
        vec![0]
    };
    let mut authorities = 0;
    for kept in used {
        let mut rest = &kept.records[..];
        while let Some((fields, behind)) = RecordBody::split(rest) {
            let labels_len = kept.owner.len().saturating_sub(zone_len);
            out.extend_from_slice(&kept.owner[..labels_len]);
            out.extend_from_slice(&zone);
            out.extend_from_slice(fields.start);
            out.extend(ttl.to_be_bytes());
            out.extend(
                u16::try_from(fields.data.len())
                    .unwrap_or_default()
                    .to_be_bytes(),
            );
            out.extend_from_slice(fields.data);
            authorities += 1;
            rest = if wants_proof { behind } else { &[] };
        }
    }
    let flags = Flags::QR | Flags::RA | Flags::AD;
    let header = Header {
        id: 0,
        flags: flags.with_rcode(rcode),
        questions: 1,
        answers: 0,
        authorities,
        additionals: 0,
    };
    out[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    out
}
