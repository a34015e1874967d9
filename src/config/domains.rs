//! The domains of upstreams (`domain=`, `domains-file=`).

use std::num::NonZeroU8;

use crate::base::name_table::{NameTable, NameTableKey, TableIsFull};
use crate::wire::name::Name;

/// The upstreams that serve the names at and below each domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    table: NameTable,
    groups: Vec<DomainGroup>,
    /// The sum of the checksums of all domains with their upstreams, in any order.
    checksum: u64,
}

/// Upstreams that serve the same domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainGroup {
    /// The indexes of the upstreams, in order.
    pub upstreams: Vec<usize>,
    /// One of the domains.
    pub domain: Name,
}

/// A domain cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainsFull {
    /// There are more domains than the table was created for.
    Names,
    /// There are more than [`Domains::GROUPS_MAX`] groups of upstreams.
    Groups,
}

impl Domains {
    /// Maximum number of domains.
    pub const NAMES_MAX: usize = 500_000;

    /// Maximum number of groups: each has a number in the table of names.
    pub const GROUPS_MAX: usize = 250;

    /// Creates a table for this number of domains.
    pub fn with_capacity(names: usize) -> Self {
        let table = || NameTable::with_capacity(names, NameTableKey::of_process());
        Self {
            table: if names == 0 {
                NameTable::default()
            } else {
                table()
            },
            groups: Vec::new(),
            checksum: 0,
        }
    }

    /// Adds a domain of these upstreams, which are in order. If the domain has other upstreams, all
    /// of them serve it.
    ///
    /// # Errors
    ///
    /// Returns [`DomainsFull`] if there are too many domains or groups of upstreams.
    pub fn add(&mut self, domain: &Name, upstreams: &[usize]) -> Result<(), DomainsFull> {
        let mut added = checksum(FNV_OFFSET, domain.as_bytes());
        for index in upstreams {
            added = checksum(added, &index.to_le_bytes());
        }
        self.checksum = self.checksum.wrapping_add(added);
        let groups = &mut self.groups;
        let mut group = None;
        let added = self.table.insert(domain.as_bytes(), |known| {
            let others = known.and_then(|known| groups.get(index_of(known)));
            let mut upstreams = upstreams.to_vec();
            upstreams.extend(others.iter().flat_map(|others| &others.upstreams));
            upstreams.sort_unstable();
            upstreams.dedup();
            group = group_of(groups, upstreams, domain);
            group.or(known).unwrap_or(NonZeroU8::MIN)
        });
        added.map_err(|TableIsFull| DomainsFull::Names)?;
        group.map(|_| ()).ok_or(DomainsFull::Groups)
    }

    /// Returns a checksum that differs if domains or their upstreams differ, in this or another run
    /// of the program.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Returns the groups of upstreams.
    pub fn groups(&self) -> &[DomainGroup] {
        &self.groups
    }

    /// Returns the index of the group that serves an uncompressed name: the longest domain decides.
    #[inline]
    pub fn group(&self, name: &[u8]) -> Option<usize> {
        if self.groups.is_empty() {
            return None;
        }
        self.table.longest(name).map(index_of)
    }

    /// Returns the number of bytes that the domains take.
    pub fn bytes(&self) -> usize {
        self.table.bytes_taken()
    }
}

/// The first value of an FNV-1a checksum.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Returns the FNV-1a checksum of these bytes behind others.
fn checksum(before: u64, bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(before, step)
}

/// Returns the number of the group of these upstreams, which is added if there is room.
fn group_of(
    groups: &mut Vec<DomainGroup>,
    upstreams: Vec<usize>,
    domain: &Name,
) -> Option<NonZeroU8> {
    let known = groups.iter().position(|group| group.upstreams == upstreams);
    let index = known.unwrap_or(groups.len());
    let number = u8::try_from(index + 1).ok().and_then(NonZeroU8::new)?;
    if known.is_none() {
        if index >= Domains::GROUPS_MAX {
            return None;
        }
        let domain = domain.clone();
        groups.push(DomainGroup { upstreams, domain });
    }
    Some(number)
}

fn index_of(number: NonZeroU8) -> usize {
    usize::from(number.get() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn upstreams<'a>(domains: &'a Domains, text: &str) -> &'a [usize] {
        let group = domains.group(name(text).as_bytes());
        group.map_or(&[], |group| &domains.groups()[group].upstreams)
    }

    #[test]
    fn domain_of_several_upstreams_belongs_to_all_of_them() {
        let mut domains = Domains::with_capacity(3);
        for (text, upstream) in [("a.example", 1), ("b.example", 1), ("b.example", 0)] {
            domains.add(&name(text), &[upstream]).unwrap();
        }
        assert_eq!(upstreams(&domains, "a.example"), [1]);
        assert_eq!(upstreams(&domains, "x.b.example"), [0, 1]);
        assert_eq!(upstreams(&domains, "example"), [0; 0]);
    }

    #[test]
    fn equal_domains_are_equal_in_every_order() {
        let names = ["a.example", "b.example", "c.example"].map(name);
        let mut both = [&[0, 1, 2], &[2, 0, 1]].map(|order| {
            let mut domains = Domains::with_capacity(3);
            for nth in order {
                domains.add(&names[*nth], &[0]).unwrap();
            }
            domains.groups[0].domain = Name::root();
            domains
        });
        assert_eq!(both[0], both[1]);
        both[0] = Domains::with_capacity(3);
        assert_ne!(both[0], both[1]);
    }

    #[test]
    fn limits_of_domains_and_groups_are_errors() {
        let mut domains = Domains::with_capacity(1_000);
        for group in 0..Domains::GROUPS_MAX {
            domains.add(&name(&format!("n{group}")), &[group]).unwrap();
        }
        assert_eq!(domains.add(&name("a"), &[999]), Err(DomainsFull::Groups));
        assert_eq!(domains.add(&name("n1"), &[999]), Err(DomainsFull::Groups));
        assert_eq!(upstreams(&domains, "n1"), [1]);
        let mut full = Domains::with_capacity(0);
        let mut names = (0..1_000).map(|nth| full.add(&name(&format!("n{nth}")), &[0]));
        assert!(names.any(|added| added == Err(DomainsFull::Names)));
        assert_eq!(Domains::default().group(b"\x01a\0"), None);
    }
}
