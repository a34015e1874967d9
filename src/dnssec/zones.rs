//! The known zones: the status of each zone between a trust anchor and the names below it.
//!
//! The table has a maximum number of bytes. The entry that is removed for a new one is chosen by
//! the clock algorithm: an entry that was used since the hand passed it stays.

use std::fmt;
use std::time::Duration;

use super::limits;
use crate::base::time::Instant;
use crate::wire::edns::ExtendedErrorCode;
use crate::wire::name::{NAME_LEN_MAX, write_presentation};
use crate::wire::question::Type;

/// Minimum lifetime of the status of a zone, even if the TTL of its records is lower.
pub const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// Maximum lifetime of the status of a zone, even if the TTL of its records is higher.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes that an allocation takes besides its content.
const ALLOCATION_LEN: usize = 16;
/// Maximum number of bytes that the status of a zone takes in the table. A table has to have room
/// for them: a validation cannot go on with a status that is not in the table.
pub const ENTRY_LEN_MAX: usize = {
    let keys = limits::KEYS_OF_ZONE * RECORD_LEN + limits::KEYS_OF_ZONE_LEN;
    let ds = limits::DS_OF_ZONE * (RECORD_LEN + DS_LEN_MAX);
    assert!(ds <= keys && NAME_LEN_MAX <= keys);
    size_of::<Entry>() + 2 * ALLOCATION_LEN + NAME_LEN_MAX + keys
};
/// Bytes that a record takes besides its content.
const RECORD_LEN: usize = size_of::<Box<[u8]>>() + ALLOCATION_LEN;
/// Maximum length of the data of a DS record that is supported: SHA-384.
const DS_LEN_MAX: usize = 4 + 48;
/// Number of entries for which the table grows.
const GROWTH: usize = 16;

/// The reason why records are bogus, or why they could not be validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The extended error (RFC 8914, section 4).
    pub code: ExtendedErrorCode,
    /// The owner of the records, uncompressed.
    pub name: Box<[u8]>,
    /// The type of the records.
    pub rr_type: Type,
}

impl Problem {
    /// Creates the problem that a limit was reached at records of this owner and type.
    pub fn limit_reached(name: &[u8], rr_type: Type) -> Self {
        Self {
            code: ExtendedErrorCode(5),
            name: name.into(),
            rr_type,
        }
    }

    /// Returns the meaning of the code (RFC 8914, section 4).
    pub fn code_text(&self) -> &'static str {
        match self.code.0 {
            6 => "bogus signature or proof",
            7 => "signature expired",
            8 => "signature not yet valid",
            9 => "DNSKEY missing",
            10 => "RRSIGs missing",
            12 => "NSEC missing",
            _ => "indeterminate",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(f, &self.name)?;
        write!(f, "/{}", self.rr_type)
    }
}

/// The knowledge about a name at which a zone may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneStatus {
    /// A signed zone starts there. The data of its DNSKEY records is trusted.
    Secure(Box<[Box<[u8]>]>),
    /// A signed zone starts there, and its keys are not known yet. The data of its DS records is
    /// trusted.
    Delegated(Box<[Box<[u8]>]>),
    /// The zone that starts there is not signed, or only with algorithms or key lengths that are
    /// not supported.
    Insecure,
    /// No zone starts there.
    NotDelegated,
    /// The keys of the zone cannot be verified.
    Bogus(Problem),
}

impl ZoneStatus {
    fn is_bogus(&self) -> bool {
        matches!(self, Self::Bogus(_))
    }

    fn len(&self) -> usize {
        match self {
            Self::Secure(records) | Self::Delegated(records) => {
                let records = records.iter().map(|record| RECORD_LEN + record.len());
                ALLOCATION_LEN + records.sum::<usize>()
            }
            Self::Bogus(problem) => ALLOCATION_LEN + problem.name.len(),
            Self::Insecure | Self::NotDelegated => 0,
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    status: ZoneStatus,
    /// The pool of upstreams whose answers show the status.
    pool: usize,
    until: Instant,
    /// The entry was used since the hand passed it.
    is_used: bool,
}

impl Entry {
    fn len(&self) -> usize {
        size_of::<Self>() + ALLOCATION_LEN + self.name.len() + self.status.len()
    }
}

/// The known zones, by name in lower case.
#[derive(Debug)]
pub struct KnownZones {
    len_max: usize,
    bytes: usize,
    /// In the order of their names, byte by byte.
    entries: Vec<Entry>,
    /// The position of the entry that is the next one to be removed unless it was used. An
    /// insertion may shift it by one; the algorithm tolerates this.
    hand: usize,
}

impl KnownZones {
    /// Creates an empty table of at most `len_max` bytes.
    pub fn new(len_max: usize) -> Self {
        Self {
            len_max,
            bytes: 0,
            entries: Vec::new(),
            hand: 0,
        }
    }

    /// Returns the number of names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no name is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what is known of a name in lower case, for answers of the pool with this index. What
    /// is proven holds for all pools; that a zone is bogus may be the fault of the upstreams.
    pub fn get(&mut self, name: &[u8], pool: usize, now: Instant) -> Option<&ZoneStatus> {
        let position = self.position(name).ok()?;
        if self.entries[position].until <= now {
            self.remove(position);
            return None;
        }
        let entry = &mut self.entries[position];
        if entry.status.is_bogus() && entry.pool != pool {
            return None;
        }
        entry.is_used = true;
        Some(&entry.status)
    }

    /// Sets what is known of a name in lower case by an answer of the pool with this index.
    pub fn insert(&mut self, name: &[u8], pool: usize, status: ZoneStatus, until: Instant) {
        if let Ok(position) = self.position(name) {
            let known = &self.entries[position];
            let is_final = matches!(
                known.status,
                ZoneStatus::Secure(_) | ZoneStatus::Insecure | ZoneStatus::NotDelegated
            );
            let is_of_other_pool = known.pool != pool && known.until + LIFETIME_MIN > until;
            if status.is_bogus() && is_final && is_of_other_pool {
                // What the other pool has proven is still valid.
                return;
            }
            self.remove(position);
        }
        let entry = Entry {
            name: name.into(),
            status,
            pool,
            until,
            is_used: false,
        };
        let len = entry.len();
        if len > self.len_max {
            return;
        }
        while self.bytes + len > self.len_max {
            self.evict();
        }
        self.bytes += len;
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
        }
        let (Ok(position) | Err(position)) = self.position(name);
        self.entries.insert(position, entry);
    }

    /// Returns the position of the entry of a name, or else the one at which it is to be inserted.
    fn position(&self, name: &[u8]) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| (*entry.name).cmp(name))
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.len_max);
    }

    fn evict(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let Some(entry) = self.entries.get_mut(self.hand) else {
                return;
            };
            if !std::mem::take(&mut entry.is_used) {
                return self.remove(self.hand);
            }
            self.hand += 1;
        }
    }

    fn remove(&mut self, position: usize) {
        self.bytes -= self.entries.remove(position).len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    fn name(number: u16) -> Vec<u8> {
        let [high, low] = number.to_be_bytes();
        vec![2, high, low, 0]
    }

    #[test]
    fn status_ends_with_its_lifetime() {
        let mut zones = KnownZones::new(1 << 16);
        zones.insert(&name(1), 0, ZoneStatus::Insecure, at(10));
        assert_eq!(zones.get(&name(1), 0, at(9)), Some(&ZoneStatus::Insecure));
        assert_eq!(zones.get(&name(1), 0, at(10)), None);
        assert_eq!((zones.len(), zones.bytes()), (0, 0));
    }

    #[test]
    fn newer_status_replaces_the_older_one() {
        let mut zones = KnownZones::new(1 << 16);
        zones.insert(&name(1), 0, ZoneStatus::Insecure, at(10));
        zones.insert(&name(1), 0, ZoneStatus::NotDelegated, at(10));
        assert_eq!(
            zones.get(&name(1), 0, at(9)),
            Some(&ZoneStatus::NotDelegated)
        );
        assert_eq!(zones.len(), 1);
    }

    #[test]
    fn bogus_zone_of_one_pool_is_unknown_to_another() {
        let mut zones = KnownZones::new(1 << 16);
        let bogus = ZoneStatus::Bogus(Problem::limit_reached(&name(1), Type::DNSKEY));
        zones.insert(&name(1), 0, bogus.clone(), at(10));
        assert_eq!(zones.get(&name(1), 1, at(9)), None);
        assert_eq!(zones.get(&name(1), 0, at(9)), Some(&bogus));
        zones.insert(&name(1), 1, ZoneStatus::Insecure, at(10));
        assert_eq!(zones.get(&name(1), 0, at(9)), Some(&ZoneStatus::Insecure));
    }

    #[test]
    fn bogus_zone_of_one_pool_does_not_displace_what_is_proven() {
        let mut zones = KnownZones::new(1 << 16);
        let proven = ZoneStatus::Secure(Box::new([vec![7; 68].into()]));
        zones.insert(&name(1), 0, proven.clone(), at(10));
        let bogus = ZoneStatus::Bogus(Problem::limit_reached(&name(1), Type::DNSKEY));
        zones.insert(&name(1), 1, bogus, at(10));
        assert_eq!(zones.get(&name(1), 0, at(9)), Some(&proven));
    }

    #[test]
    fn full_table_keeps_what_is_used() {
        let mut zones = KnownZones::new(8 << 10);
        for number in 0..1_000 {
            zones.insert(&name(number), 0, ZoneStatus::Insecure, at(10));
            assert_eq!(zones.get(&name(0), 0, at(1)), Some(&ZoneStatus::Insecure));
            assert!(zones.bytes() <= 8 << 10);
        }
        assert!(zones.len() > 40, "{}", zones.len());
        for number in 1..900 {
            assert_eq!(zones.get(&name(number), 0, at(1)), None, "{number}");
        }
        assert_eq!(zones.get(&name(999), 0, at(1)), Some(&ZoneStatus::Insecure));
    }

    #[test]
    fn table_of_80_kib_holds_250_zones_with_two_keys() {
        let mut zones = KnownZones::new(80 << 10);
        let key: Box<[u8]> = vec![0; 4 + 64].into();
        for number in 0..250 {
            let name = [&name(number)[..3], b"\x07example\x03com\0"].concat();
            let keys = Box::new([key.clone(), key.clone()]);
            zones.insert(&name, 0, ZoneStatus::Secure(keys), at(10));
        }
        assert_eq!(zones.len(), 250);
    }

    #[test]
    fn smallest_table_has_room_for_every_status() {
        let keys: Box<[Box<[u8]>]> = (0..limits::KEYS_OF_ZONE)
            .map(|_| vec![0; limits::KEYS_OF_ZONE_LEN / limits::KEYS_OF_ZONE].into())
            .collect();
        let longest = vec![0; NAME_LEN_MAX];
        let mut zones = KnownZones::new(ENTRY_LEN_MAX);
        zones.insert(&name(1), 0, ZoneStatus::Insecure, at(10));
        zones.insert(&longest, 0, ZoneStatus::Secure(keys), at(10));
        assert!(zones.get(&longest, 0, at(1)).is_some());
        assert_eq!(zones.bytes(), ENTRY_LEN_MAX);
    }

    #[test]
    fn status_larger_than_the_table_is_ignored() {
        let mut zones = KnownZones::new(1_000);
        zones.insert(&name(1), 0, ZoneStatus::Insecure, at(10));
        let keys: Box<[Box<[u8]>]> = Box::new([vec![0; 2_000].into()]);
        zones.insert(&name(2), 0, ZoneStatus::Secure(keys), at(10));
        assert_eq!(zones.get(&name(2), 0, at(1)), None);
        assert_eq!(zones.len(), 1);
    }
}
