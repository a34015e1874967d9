//! The response with a denial.

use std::iter;

use super::record::CachedRecord;
use crate::wire::header::{Flags, HEADER_LEN, Rcode};
#[cfg(test)]
use crate::wire::question::Question;
#[cfg(test)]
use crate::wire::response::STREAM_LEN_MAX;
use crate::wire::response::{Asked, end_answer, end_cut_answer, start_answer};

/// Maximum number of records in a denial: SOA, and the NSEC3 records for the closest encloser, the
/// name below it and the wildcard.
pub(super) const RECORDS_MAX: usize = 4;

/// The bits of a pointer to a name (RFC 1035, section 4.1.4).
const POINTER: u16 = 0xc000;

/// The length of the name of the root.
const ROOT_LEN: usize = 1;

/// The records of a denial. The first one is the SOA record, and the others are the proof.
pub(super) type Records<'a> = [Option<&'a CachedRecord>; RECORDS_MAX];

/// A denial of a name or of a type by verified records.
#[derive(Debug)]
pub struct Denial<'a> {
    rcode: Rcode,
    ttl: u32,
    /// A pointer to the name of the zone, unless that is the root.
    zone: Option<[u8; 2]>,
    zone_len: usize,
    records: Records<'a>,
}

impl<'a> Denial<'a> {
    /// Creates a denial of a name in the zone whose name has this length.
    pub(super) fn new(
        rcode: Rcode,
        ttl: u32,
        (name, zone_len): (&[u8], usize),
        records: Records<'a>,
    ) -> Self {
        // The end of the name in the question is the name of the zone.
        let zone_at = HEADER_LEN + name.len().saturating_sub(zone_len);
        let pointer = u16::try_from(zone_at).unwrap_or_default() | POINTER;
        Self {
            rcode,
            ttl,
            zone: (zone_len > ROOT_LEN).then_some(pointer.to_be_bytes()),
            zone_len,
            records,
        }
    }

    /// Returns the response code: NXDOMAIN or NOERROR.
    pub fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// Returns the length of the name of the zone that denies, uncompressed.
    pub fn zone_len(&self) -> usize {
        self.zone_len
    }

    /// Appends the response, with the proof if `wants_proof`. The records are authentic.
    pub fn write(&self, out: &mut Vec<u8>, asked: &Asked<'_>, wants_proof: bool) {
        let used = if wants_proof { RECORDS_MAX } else { 1 };
        let records = || self.records[..used].iter().flatten();
        let count = records().map(|record| record.count(wants_proof)).sum();
        let flags = (Flags::QR | Flags::RA | Flags::AD).with_rcode(self.rcode);
        let start = start_answer(out, asked, flags, [0, count, 0]);
        let records_start = out.len();
        for record in records() {
            record.write(out, wants_proof, (self.zone, self.ttl));
        }
        if out.len() - records_start <= asked.records_len_max() {
            end_answer(out, start, asked, iter::empty(), None);
        } else {
            end_cut_answer(out, start, asked, [0, count, 0], |ttl| ttl);
        }
    }

    /// Returns the response to a query that requests the proof or only understands AD.
    #[cfg(test)]
    pub(in crate::dnssec) fn to_message(
        &self,
        question: Question<'_>,
        wants_proof: bool,
    ) -> Vec<u8> {
        let asked = Asked {
            id: 0,
            flags: Flags::AD,
            question: Some(question),
            opt: None,
            len_max: STREAM_LEN_MAX,
        };
        let mut out = Vec::new();
        self.write(&mut out, &asked, wants_proof);
        out
    }
}
