//! The layout of an entry in the blocks.
//!
//! ```text
//!   head │ name │ records │ positions of their TTLs │ extended errors
//! ```
//!
//! Head and name contain the key of the entry. The records are those behind the question, without
//! OPT, so that they fit behind any question of the same length. Positions of TTLs count from the
//! first record.

use std::ops::Range;

use super::blocks::{BLOCK_ROOM, NONE};
use super::key::{CacheKey, EntryKind};
use super::policy::{CachePolicy, Extent};
use crate::wire::edns;
use crate::wire::question::Type;
use crate::wire::{Flags, Message, byte_ops};

/// The flags of an answer that also hold for a cached answer, which is not authoritative.
const KEPT_FLAGS: Flags = Flags::QR.with(Flags::RA).with(Flags::AD).with(Flags::RCODE);

/// The fixed part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The neighbours of the entry in the order of insertion.
    pub(super) newer: u32,
    pub(super) older: u32,
    /// The hash of the key.
    pub(super) hash: u32,
    /// The tick in which the answer arrived.
    pub(super) received_at: u32,
    /// The lifetime in seconds, during which the answer is fresh.
    pub(super) lifetime: u32,
    /// The tick of [`Refresh`], or one of the values [`Self::NOT_ASKED`] and [`Self::PENDING`].
    retry_at: u32,
    /// The flags of the answer with its response code.
    pub(super) flags: Flags,
    /// The numbers of records in the answer, authority and additional section.
    pub(super) counts: [u16; 3],
    /// The length of the records in bytes.
    pub(super) records_len: u16,
    /// The length of the extended errors, as options, in bytes.
    pub(super) errors_len: u16,
    /// The kind of the entry.
    pub(super) kind: EntryKind,
    /// The length of the name in bytes.
    pub(super) name_len: u8,
    pub(super) marks: Marks,
}

/// Properties of an entry, one bit each, and a counter of its uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(pub(super) u8);

impl Marks {
    /// The entry was used since the hand passed it.
    pub(super) const VISITED: Self = Self(1);
    /// The entry also denies every name below its own.
    pub(super) const SUBTREE: Self = Self(2);
    /// The entry is an error.
    pub(super) const ERROR: Self = Self(4);
    /// Upstream was asked for the entry again before it expired: a prefetch.
    const PREFETCHED: Self = Self(8);
    /// The bits of the number of uses.
    const HITS: u8 = 0xc0;
    const HIT: u8 = 0x40;

    /// Returns only the marks of the use of the entry.
    pub(super) fn usage(self) -> Self {
        Self(self.0 & (Self::VISITED.0 | Self::HITS))
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Returns the number of uses, up to three.
    pub(super) fn hits(self) -> u8 {
        (self.0 & Self::HITS) / Self::HIT
    }

    pub(super) fn count_hit(&mut self) {
        if self.hits() < 3 {
            self.0 += Self::HIT;
        }
    }
}

/// The last query upstream for the answer of an entry that has not brought a new answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refresh {
    /// There was none.
    NotAsked,
    /// A prefetch waits for its answer.
    PrefetchPending,
    /// A prefetch failed. The next one begins in this tick at the earliest.
    PrefetchFailed { retry_at: u32 },
    /// The expired answer was served. Upstream is asked again in this tick at the earliest.
    StaleServed { retry_at: u32 },
}

impl Refresh {
    /// Returns whether a prefetch may begin in this tick.
    pub(super) fn may_prefetch(self, now: u32) -> bool {
        match self {
            Self::NotAsked => true,
            Self::PrefetchPending => false,
            Self::PrefetchFailed { retry_at } | Self::StaleServed { retry_at } => retry_at <= now,
        }
    }

    /// Returns whether upstream was asked before the answer expired.
    pub(super) fn is_prefetch(self) -> bool {
        matches!(self, Self::PrefetchPending | Self::PrefetchFailed { .. })
    }
}

/// Offsets of the neighbours and of the marks in an entry.
const NEWER_AT: usize = 0;
const OLDER_AT: usize = 4;
pub(super) const MARKS_AT: usize = 40;

impl Head {
    /// The length of a head in bytes.
    pub(super) const LEN: usize = 41;

    /// Values of `retry_at` that are not a tick.
    const NOT_ASKED: u32 = 0;
    const PENDING: u32 = u32::MAX;

    /// Returns the last query upstream for this answer.
    pub(super) fn refresh(&self) -> Refresh {
        let is_prefetch = self.marks.contains(Marks::PREFETCHED);
        match self.retry_at {
            Self::NOT_ASKED => Refresh::NotAsked,
            Self::PENDING if is_prefetch => Refresh::PrefetchPending,
            retry_at if is_prefetch => Refresh::PrefetchFailed { retry_at },
            retry_at => Refresh::StaleServed { retry_at },
        }
    }

    /// Records the last query upstream for this answer.
    pub(super) fn set_refresh(&mut self, refresh: Refresh) {
        self.retry_at = match refresh {
            Refresh::NotAsked => Self::NOT_ASKED,
            Refresh::PrefetchPending => Self::PENDING,
            Refresh::PrefetchFailed { retry_at } | Refresh::StaleServed { retry_at } => retry_at,
        };
        if refresh.is_prefetch() {
            self.marks.insert(Marks::PREFETCHED);
        } else {
            self.marks.remove(Marks::PREFETCHED);
        }
    }

    /// Returns the range of the name in an entry.
    pub(super) fn name_range(&self) -> Range<usize> {
        Self::LEN..Self::LEN + usize::from(self.name_len)
    }

    /// Returns the range of the records and of the positions of their TTLs in an entry.
    pub(super) fn records_range(&self) -> Range<usize> {
        let start = self.name_range().end;
        let positions: usize = self.counts.iter().map(|count| usize::from(*count)).sum();
        start..start + usize::from(self.records_len) + positions * size_of::<u16>()
    }

    /// Returns the range of the records in an entry, cut to `len_max` bytes.
    pub(super) fn records_start_range(&self, len_max: usize) -> Range<usize> {
        let start = self.name_range().end;
        start..start + usize::from(self.records_len).min(len_max)
    }

    /// Returns the range of the extended errors in an entry.
    pub(super) fn errors_range(&self) -> Range<usize> {
        let start = self.records_range().end;
        start..start + usize::from(self.errors_len)
    }

    pub(super) fn read(bytes: &[u8; BLOCK_ROOM]) -> Self {
        let long = |at: usize| {
            let field = bytes[at..at + 4].try_into().expect("a range of four bytes");
            u32::from_le_bytes(field)
        };
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            newer: long(NEWER_AT),
            older: long(OLDER_AT),
            hash: long(8),
            received_at: long(12),
            lifetime: long(16),
            retry_at: long(20),
            flags: Flags::from(short(24)),
            counts: [short(26), short(28), short(30)],
            records_len: short(32),
            errors_len: short(34),
            kind: EntryKind::of_bytes([bytes[36], bytes[37], bytes[38]]),
            name_len: bytes[39],
            marks: Marks(bytes[MARKS_AT]),
        }
    }

    pub(super) fn write(&self, bytes: &mut [u8; Self::LEN]) {
        let mut long = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        long(NEWER_AT, self.newer);
        long(OLDER_AT, self.older);
        long(8, self.hash);
        long(12, self.received_at);
        long(16, self.lifetime);
        long(20, self.retry_at);
        let mut short = |at: usize, value: u16| {
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        };
        short(24, self.flags.to_u16());
        short(26, self.counts[0]);
        short(28, self.counts[1]);
        short(30, self.counts[2]);
        short(32, self.records_len);
        short(34, self.errors_len);
        bytes[36..][..EntryKind::LEN].copy_from_slice(&self.kind.to_bytes());
        bytes[39] = self.name_len;
        bytes[MARKS_AT] = self.marks.0;
    }

    /// Sets the next newer entry in a head.
    pub(super) fn set_newer(bytes: &mut [u8; BLOCK_ROOM], newer: u32) {
        bytes[NEWER_AT..NEWER_AT + 4].copy_from_slice(&newer.to_le_bytes());
    }

    /// Sets the next older entry in a head.
    pub(super) fn set_older(bytes: &mut [u8; BLOCK_ROOM], older: u32) {
        bytes[OLDER_AT..OLDER_AT + 4].copy_from_slice(&older.to_le_bytes());
    }
}

/// Writes the bytes of an entry, with room for its head, and returns the head. Returns `None` if a
/// length exceeds the format or a denial has no valid SOA.
pub(super) fn compose(
    out: &mut Vec<u8>,
    key: CacheKey<'_>,
    answer: &Message<'_>,
    policy: &CachePolicy,
    received_at: u32,
) -> Option<Head> {
    out.clear();
    byte_ops::append(out, &[0; Head::LEN]);
    byte_ops::append(out, key.name());
    let (records_len, counts) = if policy.extent == Extent::Subtree {
        write_denial(out, answer, policy)?
    } else {
        write_records(out, answer, policy)
    };
    let errors_start = out.len();
    if let Some(opt) = answer.opt() {
        edns::write_options(out, opt.extended_errors());
    }
    let mut marks = Marks(0);
    if policy.extent == Extent::Subtree {
        marks.insert(Marks::SUBTREE);
    }
    if policy.is_error {
        marks.insert(Marks::ERROR);
    }
    Some(Head {
        newer: NONE,
        older: NONE,
        hash: 0,
        received_at,
        lifetime: policy.lifetime,
        retry_at: Head::NOT_ASKED,
        flags: answer.header().flags & KEPT_FLAGS,
        counts,
        records_len: u16::try_from(records_len).ok()?,
        errors_len: u16::try_from(out.len() - errors_start).ok()?,
        kind: key.kind(),
        name_len: u8::try_from(key.name().len()).ok()?,
        marks,
    })
}

/// Appends the records of an answer and the positions of their TTLs.
fn write_records(
    out: &mut Vec<u8>,
    answer: &Message<'_>,
    policy: &CachePolicy,
) -> (usize, [u16; 3]) {
    let bytes = answer.bytes();
    let (first, end) = (answer.records_start(), answer.records_end());
    let start = out.len();
    byte_ops::append(out, &bytes[first..end]);
    for record in answer.records(first, end) {
        let ttl = match record.rr_type {
            Type::SOA if policy.is_denial => policy.lifetime,
            _ => policy.clamp_ttl(record.ttl(bytes)),
        };
        put_ttl(out, start, record.ttl_at() - first, ttl);
    }
    (end - first, answer.record_counts())
}

/// Appends the denial of a name and all names below it: one uncompressed record, which fits behind
/// any question.
fn write_denial(
    out: &mut Vec<u8>,
    answer: &Message<'_>,
    policy: &CachePolicy,
) -> Option<(usize, [u16; 3])> {
    let start = out.len();
    let soa = answer.soa()?;
    let ttl_at = soa.write_uncompressed_soa(answer.bytes(), out).ok()?;
    let records_len = out.len() - start;
    put_ttl(out, start, ttl_at - start, policy.lifetime);
    Some((records_len, [0, 1, 0]))
}

/// Writes a TTL at its position behind `start`, and appends that position.
fn put_ttl(out: &mut Vec<u8>, start: usize, position: usize, ttl: u32) {
    out[start + position..][..size_of::<u32>()].copy_from_slice(&ttl.to_be_bytes());
    let position = u16::try_from(position).expect("a position in a message fits in 16 bits");
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
            received_at: 0x3132_3334,
            lifetime: 0x4142_4344,
            retry_at: 0x5152_5354,
            flags: Flags::QR | Flags::AD,
            counts: [0x6162, 0x7172, 0x8182],
            records_len: 0x9192,
            errors_len: 0xa1a2,
            kind: EntryKind::of_bytes([0xb1, 0xb2, 0xb3]),
            name_len: 0xc1,
            marks,
        };
        let (retry_at, mut used) = (7, head);
        for refresh in [
            Refresh::PrefetchPending,
            Refresh::StaleServed { retry_at },
            Refresh::PrefetchFailed { retry_at },
            Refresh::NotAsked,
        ] {
            used.set_refresh(refresh);
            assert_eq!(used.refresh(), refresh);
        }
        let mut bytes = [0; BLOCK_ROOM];
        head.write(bytes.first_chunk_mut().unwrap());
        assert_eq!(Head::read(&bytes), head);
        assert!(bytes[Head::LEN..].iter().all(|byte| *byte == 0));
        assert!(bytes[..Head::LEN].iter().all(|byte| *byte != 0));
    }
}
