//! The records of the denial cache, and their order.

use crate::dnssec::denial::Nsec;
use crate::dnssec::nsec3::Nsec3;
use crate::wire::name::suffixes;
use crate::wire::question::Type;

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

/// The fields of a record behind its owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordBody<'a> {
    /// Type and class.
    pub(super) start: &'a [u8],
    pub(super) data: &'a [u8],
}

impl<'a> RecordBody<'a> {
    /// Reads the first record, and returns the rest.
    pub(super) fn split(records: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (start, rest) = records.split_at_checked(4)?;
        let (_ttl, rest) = rest.split_at_checked(4)?;
        let (len, rest) = rest.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        Some((Self { start, data }, rest))
    }
}

/// The key of an NSEC or NSEC3 record in its zone.
pub(super) struct RecordKey {
    /// The [`sort_key`] of the owner, or the hash in the owner.
    pub(super) name: Box<[u8]>,
    /// The [`sort_key`] of the next name of an NSEC record.
    pub(super) next: Option<Box<[u8]>>,
    /// The iterations and the salt of NSEC3.
    pub(super) hash: Option<(u16, Box<[u8]>)>,
}

/// Returns the key of a record in its zone, and the parameters of its hash, if the record may deny
/// names that were not asked for.
pub(super) fn key_of(proven: &ProvenRecord) -> Option<RecordKey> {
    let (fields, _) = RecordBody::split(&proven.records)?;
    if proven.rr_type == Type::NSEC {
        let nsec = Nsec::parse(&proven.owner, fields.data).ok()?;
        let is_of_use = nsec.covers_other_names();
        return is_of_use.then(|| RecordKey {
            name: sort_key(&proven.owner),
            next: Some(sort_key(&nsec.next.to_ascii_lowercase())),
            hash: None,
        });
    }
    let (nsec3, parameters) = Nsec3::parse(&proven.owner, &proven.zone, fields.data).ok()?;
    // Unsigned delegations may be in an opt-out span (RFC 5155, section 9.2).
    let is_of_use =
        !nsec3.is_opt_out && !nsec3.is_narrow() && !parameters.has_too_many_iterations();
    let hash = (parameters.iterations, parameters.salt.into());
    is_of_use.then(|| RecordKey {
        name: nsec3.owner.into(),
        next: None,
        hash: Some(hash),
    })
}

/// Returns the [sort key](write_sort_key) of a name.
pub(super) fn sort_key(name: &[u8]) -> Box<[u8]> {
    let mut key = Vec::with_capacity(name.len());
    write_sort_key(&mut key, name);
    key.into()
}

/// Appends bytes whose order is the canonical order of names (RFC 4034, section 6.1): the labels of
/// a lower-case name from the last to the first, each with an end that is lower than any byte.
pub(super) fn write_sort_key(key: &mut Vec<u8>, name: &[u8]) {
    let mut starts = [0_u8; 128];
    let mut count = 0;
    for suffix in suffixes(name).filter(|suffix| suffix.len() > 1) {
        let start = u8::try_from(name.len() - suffix.len()).unwrap_or(u8::MAX);
        if let Some(place) = starts.get_mut(count) {
            *place = start;
            count += 1;
        }
    }
    key.reserve(name.len());
    for start in starts[..count].iter().rev() {
        let label = &name[usize::from(*start)..];
        let label = label.get(1..=usize::from(label[0])).unwrap_or(&[]);
        if label.iter().all(|byte| *byte > 1) {
            key.extend_from_slice(label);
        } else {
            for byte in label {
                match byte {
                    0 | 1 => key.extend([1, byte + 1]),
                    _ => key.push(*byte),
                }
            }
        }
        key.push(0);
    }
}
