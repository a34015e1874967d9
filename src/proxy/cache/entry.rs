//! What is kept of an answer, and how it lies in the cells.
//!
//! ```text
//!   head │ name │ records │ where their TTLs are │ extended errors
//! ```
//!
//! Head and name have what the entry is found by. The records are those behind the question,
//! without OPT, so that they fit behind any question of the same length. Positions of TTLs count
//! from the first record.

use std::ops::Range;

use super::blocks::{CELL_ROOM, NONE};
use super::key::{Key, Kind};
use super::policy::{Extent, Keeping, soa};
use crate::wire::edns;
use crate::wire::question::Type;
use crate::wire::{Flags, Message, octets};

/// Flags of an answer that are true of it later, too; it is not authoritative any more.
const KEPT_FLAGS: Flags = Flags::QR.with(Flags::RA).with(Flags::AD).with(Flags::RCODE);

/// What is known of an entry without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The entry that came next, and the one that came before.
    pub(super) newer: u32,
    pub(super) older: u32,
    /// The hash that it is found under.
    pub(super) hash: u32,
    /// The tick in which it came.
    pub(super) came: u32,
    /// For how many seconds from then on it is fresh.
    pub(super) lifetime: u32,
    /// The tick from which on upstream is asked again: by a prefetch if the mark says so, and else
    /// by a query that is answered with this entry although it is stale. Zero: neither happened.
    pub(super) ask_from: u32,
    /// The flags of the answer and its response code.
    pub(super) flags: Flags,
    /// Records in the answer, authority and additional section.
    pub(super) counts: [u16; 3],
    /// Octets of the records.
    pub(super) records_len: u16,
    /// Octets of the extended errors, as options.
    pub(super) errors_len: u16,
    /// What it is of the name.
    pub(super) kind: Kind,
    /// Octets of the name.
    pub(super) name_len: u8,
    pub(super) marks: Marks,
}

/// Properties of an entry, one bit each, and how often it was of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(pub(super) u8);

impl Marks {
    /// It was of use since the hand came by.
    pub(super) const VISITED: Self = Self(1);
    /// It answers every name below, too.
    pub(super) const BELOW: Self = Self(2);
    /// It says that upstream failed.
    pub(super) const ERROR: Self = Self(4);
    /// Upstream was asked for it again before its end.
    pub(super) const ASKED_AGAIN: Self = Self(8);
    /// How often it was of use.
    const HITS: u8 = 0xc0;
    const HIT: u8 = 0x40;

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// How often it was of use: three is three or more.
    pub(super) fn hits(self) -> u8 {
        (self.0 & Self::HITS) / Self::HIT
    }

    pub(super) fn count_hit(&mut self) {
        if self.hits() < 3 {
            self.0 += Self::HIT;
        }
    }
}

/// Where the entries beside it, and the marks, are in an entry.
const NEWER_AT: usize = 0;
const OLDER_AT: usize = 4;
pub(super) const MARKS_AT: usize = 40;

impl Head {
    /// Octets of a head.
    pub(super) const LEN: usize = 41;

    /// Where the name is in an entry.
    pub(super) fn name_range(&self) -> Range<usize> {
        Self::LEN..Self::LEN + usize::from(self.name_len)
    }

    /// Where records and positions of TTLs are in an entry.
    pub(super) fn records_range(&self) -> Range<usize> {
        let start = self.name_range().end;
        let positions: usize = self.counts.iter().map(|count| usize::from(*count)).sum();
        start..start + usize::from(self.records_len) + positions * size_of::<u16>()
    }

    /// Where the records are in an entry, or this many octets of them.
    pub(super) fn records_start_range(&self, len_max: usize) -> Range<usize> {
        let start = self.name_range().end;
        start..start + usize::from(self.records_len).min(len_max)
    }

    /// Where the extended errors are in an entry.
    pub(super) fn errors_range(&self) -> Range<usize> {
        let start = self.records_range().end;
        start..start + usize::from(self.errors_len)
    }

    pub(super) fn read(octets: &[u8; CELL_ROOM]) -> Self {
        let long = |at: usize| {
            let octets = octets[at..at + 4].try_into().expect("four octets");
            u32::from_le_bytes(octets)
        };
        let short = |at: usize| u16::from_le_bytes([octets[at], octets[at + 1]]);
        Self {
            newer: long(NEWER_AT),
            older: long(OLDER_AT),
            hash: long(8),
            came: long(12),
            lifetime: long(16),
            ask_from: long(20),
            flags: Flags::from(short(24)),
            counts: [short(26), short(28), short(30)],
            records_len: short(32),
            errors_len: short(34),
            kind: Kind::of_bytes([octets[36], octets[37], octets[38]]),
            name_len: octets[39],
            marks: Marks(octets[MARKS_AT]),
        }
    }

    pub(super) fn write(&self, octets: &mut [u8; Self::LEN]) {
        let mut long = |at: usize, value: u32| {
            octets[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        long(NEWER_AT, self.newer);
        long(OLDER_AT, self.older);
        long(8, self.hash);
        long(12, self.came);
        long(16, self.lifetime);
        long(20, self.ask_from);
        let mut short = |at: usize, value: u16| {
            octets[at..at + 2].copy_from_slice(&value.to_le_bytes());
        };
        short(24, self.flags.to_u16());
        short(26, self.counts[0]);
        short(28, self.counts[1]);
        short(30, self.counts[2]);
        short(32, self.records_len);
        short(34, self.errors_len);
        octets[36..][..Kind::LEN].copy_from_slice(&self.kind.to_bytes());
        octets[39] = self.name_len;
        octets[MARKS_AT] = self.marks.0;
    }

    /// Writes which entry came next.
    pub(super) fn set_newer(octets: &mut [u8; CELL_ROOM], newer: u32) {
        octets[NEWER_AT..NEWER_AT + 4].copy_from_slice(&newer.to_le_bytes());
    }

    /// Writes which entry came before.
    pub(super) fn set_older(octets: &mut [u8; CELL_ROOM], older: u32) {
        octets[OLDER_AT..OLDER_AT + 4].copy_from_slice(&older.to_le_bytes());
    }
}

/// Writes the octets of an entry, with room for its head, which is returned. `None` if the answer
/// is not one that can be kept after all.
pub(super) fn compose(
    out: &mut Vec<u8>,
    key: Key<'_>,
    answer: &Message<'_>,
    keeping: &Keeping,
    came: u32,
) -> Option<Head> {
    out.clear();
    octets::append(out, &[0; Head::LEN]);
    octets::append(out, key.name());
    let (records_len, counts) = if keeping.extent == Extent::Subtree {
        write_denial(out, answer, keeping)?
    } else {
        write_records(out, answer, keeping)
    };
    let errors_start = out.len();
    if let Some(opt) = answer.opt() {
        edns::write_options(out, opt.extended_errors());
    }
    let mut marks = Marks(0);
    if keeping.extent == Extent::Subtree {
        marks.insert(Marks::BELOW);
    }
    if keeping.is_error {
        marks.insert(Marks::ERROR);
    }
    Some(Head {
        newer: NONE,
        older: NONE,
        hash: 0,
        came,
        lifetime: keeping.lifetime,
        ask_from: 0,
        flags: answer.header().flags & KEPT_FLAGS,
        counts,
        records_len: u16::try_from(records_len).ok()?,
        errors_len: u16::try_from(out.len() - errors_start).ok()?,
        kind: key.kind(),
        name_len: u8::try_from(key.name().len()).ok()?,
        marks,
    })
}

/// Appends the records of an answer, and where their TTLs are.
fn write_records(out: &mut Vec<u8>, answer: &Message<'_>, keeping: &Keeping) -> (usize, [u16; 3]) {
    let bytes = answer.bytes();
    let (first, end) = (answer.records_start(), answer.records_end());
    let start = out.len();
    octets::append(out, &bytes[first..end]);
    let (least, most) = keeping.ttls;
    for record in answer.records(first, end) {
        let ttl = match record.rr_type {
            Type::SOA if keeping.is_denial => keeping.lifetime,
            _ => record.ttl(bytes).max(least).min(most),
        };
        put_ttl(out, start, record.ttl_at() - first, ttl);
    }
    (end - first, answer.record_counts())
}

/// Appends what denies a name and all that is below it: one record that is uncompressed, so that it
/// fits behind any question.
fn write_denial(
    out: &mut Vec<u8>,
    answer: &Message<'_>,
    keeping: &Keeping,
) -> Option<(usize, [u16; 3])> {
    let start = out.len();
    let soa = soa(answer)?;
    let ttl_at = soa.write_uncompressed_soa(answer.bytes(), out).ok()?;
    let records_len = out.len() - start;
    put_ttl(out, start, ttl_at - start, keeping.lifetime);
    Some((records_len, [0, 1, 0]))
}

/// Puts a TTL in its position behind `start`, and that position at the end.
fn put_ttl(out: &mut Vec<u8>, start: usize, position: usize, ttl: u32) {
    out[start + position..][..size_of::<u32>()].copy_from_slice(&ttl.to_be_bytes());
    let position = u16::try_from(position).expect("a message has no more octets");
    let [low, high] = position.to_le_bytes();
    out.push(low);
    out.push(high);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_read_as_it_was_written() {
        let mut marks = Marks::ERROR;
        for hits in [1, 2, 3, 3] {
            marks.count_hit();
            assert_eq!(marks.hits(), hits);
        }
        assert!(marks.contains(Marks::ERROR) && !marks.contains(Marks::VISITED));
        let head = Head {
            newer: 0x0102_0304,
            older: 0x1112_1314,
            hash: 0x2122_2324,
            came: 0x3132_3334,
            lifetime: 0x4142_4344,
            ask_from: 0x5152_5354,
            flags: Flags::QR | Flags::AD,
            counts: [0x6162, 0x7172, 0x8182],
            records_len: 0x9192,
            errors_len: 0xa1a2,
            kind: Kind::of_bytes([0xb1, 0xb2, 0xb3]),
            name_len: 0xc1,
            marks,
        };
        let mut octets = [0; CELL_ROOM];
        head.write(octets.first_chunk_mut().unwrap());
        assert_eq!(Head::read(&octets), head);
        assert!(octets[Head::LEN..].iter().all(|octet| *octet == 0));
        assert!(octets[..Head::LEN].iter().all(|octet| *octet != 0));
    }
}
