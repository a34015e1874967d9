//! Denial of existence: what the NSEC and NSEC3 records of a zone prove (RFC 4035, section 5.4; RFC
//! 5155, section 8; RFC 6840, section 4; RFC 9824).
//!
//! The signatures of the records must have been verified before, with keys of the zone.

use std::cmp::Ordering;

use super::limits;
use super::nsec3::{Hash, Nsec3, Parameters};
use super::type_bitmap::TypeBitmap;
use super::verify::SHA1_LEN;
use crate::wire::canonical::{compare_names, is_at_or_below, label_count};
use crate::wire::name::suffixes;
use crate::wire::question::Type;
use crate::wire::{Malformed, name};

/// The result of the search for a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The records prove it.
    Secure,
    /// The records prove that the answer need not be signed: an opt-out span may hold an unsigned
    /// delegation, or the iterations of NSEC3 are too many (RFC 9276, section 3.2).
    Insecure,
    /// The records do not prove it.
    Missing,
    /// The proof would take more than [`limits::NSEC3_HASH_ROUNDS`].
    TooCostly,
}

/// An NSEC record. Names are uncompressed.
#[derive(Clone, Copy, Debug)]
pub struct Nsec<'a> {
    /// The owner.
    pub owner: &'a [u8],
    /// The next name of the zone.
    pub next: &'a [u8],
    /// The types at the owner.
    pub types: TypeBitmap<'a>,
}

impl<'a> Nsec<'a> {
    /// Parses the data of an NSEC record with this owner.
    pub fn parse(owner: &'a [u8], data: &'a [u8]) -> Result<Self, Malformed> {
        let next_end = name::skip_uncompressed(data, 0)?;
        Ok(Self {
            owner,
            next: &data[..next_end],
            types: TypeBitmap::new(&data[next_end..]),
        })
    }

    /// Returns whether the record proves that a name of the zone has no records. Names below it may
    /// exist. The last record of a zone leads back to the apex.
    fn covers(&self, name: &[u8], zone: &[u8]) -> bool {
        let is_behind_owner = compare_names(self.owner, name) == Ordering::Less;
        let is_before_next = compare_names(name, self.next) == Ordering::Less;
        let is_last = self.next.eq_ignore_ascii_case(zone);
        let hides = self.types.hides_names_below() && is_at_or_below(name, self.owner);
        is_behind_owner && (is_before_next || is_last) && !hides
    }

    /// Returns whether the record denies other names than those directly behind its owner, which a
    /// server makes for one answer (RFC 4470; RFC 9824).
    pub(super) fn covers_other_names(&self) -> bool {
        self.next.strip_prefix(b"\x01\0") != Some(self.owner)
    }

    /// Returns the longest ancestor of a covered name that exists, as the record shows.
    fn closest_encloser<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        let exists = |ancestor: &&[u8]| {
            is_at_or_below(self.owner, ancestor) || is_at_or_below(self.next, ancestor)
        };
        suffixes(name).find(exists).unwrap_or(&[0])
    }
}

/// The length of a block of SHA-1 in bytes, and of the shortest padding.
const SHA1_BLOCK_LEN: usize = 64;
const SHA1_PADDING_LEN: usize = 9;

/// The records of one zone that may prove a denial.
#[derive(Debug)]
pub struct Denials<'a> {
    /// The zone whose keys signed the records, uncompressed.
    zone: &'a [u8],
    nsec: Vec<Nsec<'a>>,
    nsec3: Vec<Nsec3<'a>>,
    parameters: Option<Parameters<'a>>,
    hash_rounds_left: usize,
    /// The number of blocks that were hashed.
    hashed_blocks: usize,
}

impl<'a> Denials<'a> {
    /// Creates an empty collection for a zone.
    pub fn of(zone: &'a [u8]) -> Self {
        Self {
            zone,
            nsec: Vec::new(),
            nsec3: Vec::new(),
            parameters: None,
            hash_rounds_left: limits::NSEC3_HASH_ROUNDS,
            hashed_blocks: 0,
        }
    }

    /// Adds the record of this type, owner and data, whose signature by the zone is verified.
    /// Records that cannot be of the zone, or of another hash than the first NSEC3 record, are
    /// ignored.
    pub fn add(&mut self, rr_type: Type, owner: &'a [u8], data: &'a [u8]) {
        if !is_at_or_below(owner, self.zone) {
            return;
        }
        match rr_type {
            Type::NSEC => {
                let nsec = Nsec::parse(owner, data).ok();
                self.nsec
                    .extend(nsec.filter(|nsec| is_at_or_below(nsec.next, self.zone)));
            }
            Type::NSEC3 => {
                let Ok((nsec3, parameters)) = Nsec3::parse(owner, self.zone, data) else {
                    return;
                };
                if *self.parameters.get_or_insert(parameters) == parameters {
                    self.nsec3.push(nsec3);
                }
            }
            _ => {}
        }
    }

    /// Returns whether a name does not exist, and no wildcard matches it (NXDOMAIN).
    pub fn denies_name(&mut self, name: &[u8]) -> Proof {
        if !is_at_or_below(name, self.zone) {
            return Proof::Missing;
        }
        if self.nsec_denies_name(name) {
            return Proof::Secure;
        }
        self.with_nsec3(|denials| {
            let (encloser, is_opt_out) = denials.closest_encloser(name)?;
            let wildcard = denials.hash(&wildcard_below(encloser))?;
            let Some(covering) = denials.covering(&wildcard) else {
                return Err(Proof::Missing);
            };
            Ok(if is_opt_out || covering.is_opt_out {
                Proof::Insecure
            } else {
                Proof::Secure
            })
        })
    }

    /// Returns whether a name, or the wildcard that matches it, has no record of a type
    /// (NODATA). An empty non-terminal has no record at all.
    pub fn denies_type(&mut self, name: &[u8], rr_type: Type) -> Proof {
        if !is_at_or_below(name, self.zone) {
            return Proof::Missing;
        }
        if self.nsec_denies_type(name, rr_type) {
            return Proof::Secure;
        }
        let is_root = name == [0];
        self.with_nsec3(|denials| {
            let hash = denials.hash(name)?;
            if let Some(matching) = denials.matching(&hash) {
                return Ok(proof(matching.types.denies(rr_type, is_root)));
            }
            let (encloser, is_opt_out) = denials.closest_encloser(name)?;
            if is_opt_out && rr_type == Type::DS {
                return Ok(Proof::Insecure);
            }
            let wildcard = denials.hash(&wildcard_below(encloser))?;
            let Some(matching) = denials.matching(&wildcard) else {
                return Err(if is_opt_out {
                    Proof::Insecure
                } else {
                    Proof::Missing
                });
            };
            if !matching.types.denies(rr_type, false) {
                return Err(Proof::Missing);
            }
            Ok(if is_opt_out {
                Proof::Insecure
            } else {
                Proof::Secure
            })
        })
    }

    /// Returns whether the name itself does not exist, so that the records of the wildcard below
    /// its ancestor with `labels` labels stand for it (RFC 4035, section 5.3.4).
    pub fn denies_expanded(&mut self, name: &[u8], labels: usize) -> Proof {
        let beyond = label_count(name).saturating_sub(labels + 1);
        let Some(next_closer) = suffixes(name).nth(beyond) else {
            return Proof::Missing;
        };
        let mut nsec = self.nsec.iter();
        if nsec.any(|nsec| {
            nsec.covers(name, self.zone) && label_count(nsec.closest_encloser(name)) == labels
        }) {
            return Proof::Secure;
        }
        self.with_nsec3(|denials| {
            let hash = denials.hash(next_closer)?;
            let covering = denials.covering(&hash).ok_or(Proof::Missing)?;
            Ok(if covering.is_opt_out {
                Proof::Insecure
            } else {
                Proof::Secure
            })
        })
    }

    /// Returns whether a delegation at this name is not signed: NS exists there, DS does not, or an
    /// opt-out span may hold it. A name that is no delegation has no such proof.
    pub fn denies_signed_delegation(&mut self, name: &[u8]) -> Proof {
        if !is_at_or_below(name, self.zone) || name.eq_ignore_ascii_case(self.zone) {
            return Proof::Missing;
        }
        let is_unsigned =
            |types: TypeBitmap<'_>| types.is_delegation() && !types.contains(Type::DS);
        let mut nsec = self.nsec.iter();
        if nsec.any(|nsec| nsec.owner.eq_ignore_ascii_case(name) && is_unsigned(nsec.types)) {
            return Proof::Secure;
        }
        self.with_nsec3(|denials| {
            let hash = denials.hash(name)?;
            if let Some(matching) = denials.matching(&hash) {
                return Ok(proof(is_unsigned(matching.types)));
            }
            let (_, is_opt_out) = denials.closest_encloser(name)?;
            Ok(if is_opt_out {
                Proof::Insecure
            } else {
                Proof::Missing
            })
        })
    }

    /// Returns whether the records say by compact denial that a name does not exist, with NOERROR
    /// as the response code (RFC 9824, section 3.4).
    pub fn has_compact_denial(&self, name: &[u8]) -> bool {
        let mut nsec = self.nsec.iter();
        nsec.any(|nsec| nsec.owner.eq_ignore_ascii_case(name) && nsec.types.contains(Type::NXNAME))
    }

    fn nsec_denies_name(&self, name: &[u8]) -> bool {
        self.nsec.iter().any(|nsec| {
            // An empty non-terminal exists.
            if !nsec.covers(name, self.zone) || is_at_or_below(nsec.next, name) {
                return false;
            }
            let wildcard = wildcard_below(nsec.closest_encloser(name));
            self.nsec.iter().any(|other| {
                other.covers(&wildcard, self.zone) && !is_at_or_below(other.next, &wildcard)
            })
        })
    }

    fn nsec_denies_type(&self, name: &[u8], rr_type: Type) -> bool {
        self.nsec.iter().any(|nsec| {
            if nsec.owner.eq_ignore_ascii_case(name) {
                return nsec.types.denies(rr_type, name == [0]);
            }
            if !nsec.covers(name, self.zone) {
                return false;
            }
            if is_at_or_below(nsec.next, name) {
                return true;
            }
            let wildcard = wildcard_below(nsec.closest_encloser(name));
            self.nsec.iter().any(|other| {
                other.owner.eq_ignore_ascii_case(&wildcard) && other.types.denies(rr_type, false)
            })
        })
    }

    /// Returns the cost of the hashes until now, in units of an RSA-2048 verification.
    pub(super) fn cost(&self) -> u32 {
        let cost = self.hashed_blocks.div_ceil(limits::HASHED_BLOCKS_OF_COST);
        u32::try_from(cost).unwrap_or(u32::MAX)
    }

    /// Searches for a proof by NSEC3 records, if there are any.
    fn with_nsec3(&mut self, search: impl FnOnce(&mut Self) -> Result<Proof, Proof>) -> Proof {
        match self.parameters {
            None => Proof::Missing,
            Some(parameters) if parameters.has_too_many_iterations() => Proof::Insecure,
            Some(_) => search(self).unwrap_or_else(|proof| proof),
        }
    }

    /// Returns the longest ancestor of a name that exists, and whether the span that denies the
    /// name below it is an opt-out span (RFC 5155, section 8.3).
    fn closest_encloser<'n>(&mut self, name: &'n [u8]) -> Result<(&'n [u8], bool), Proof> {
        let mut next_closer = self.hash(name)?;
        for ancestor in suffixes(name).skip(1) {
            if !is_at_or_below(ancestor, self.zone) {
                break;
            }
            let hash = self.hash(ancestor)?;
            if let Some(matching) = self.matching(&hash) {
                let covering = self.covering(&next_closer).ok_or(Proof::Missing)?;
                return if matching.types.hides_names_below() {
                    Err(Proof::Missing)
                } else {
                    Ok((ancestor, covering.is_opt_out))
                };
            }
            next_closer = hash;
        }
        Err(Proof::Missing)
    }

    /// Hashes a name, if that is not too costly.
    fn hash(&mut self, name: &[u8]) -> Result<Hash, Proof> {
        let parameters = self.parameters.as_ref().ok_or(Proof::Missing)?;
        let left = self.hash_rounds_left.checked_sub(parameters.rounds());
        self.hash_rounds_left = left.ok_or(Proof::TooCostly)?;
        let len = name.len().max(SHA1_LEN) + parameters.salt.len() + SHA1_PADDING_LEN;
        let blocks = len.div_ceil(SHA1_BLOCK_LEN);
        self.hashed_blocks += parameters.rounds() * blocks;
        Ok(parameters.hash(name))
    }

    fn matching(&self, hash: &Hash) -> Option<&Nsec3<'a>> {
        self.nsec3.iter().find(|nsec3| nsec3.owner == *hash)
    }

    fn covering(&self, hash: &Hash) -> Option<&Nsec3<'a>> {
        self.nsec3.iter().find(|nsec3| nsec3.covers(hash))
    }
}

fn proof(is_proven: bool) -> Proof {
    if is_proven {
        Proof::Secure
    } else {
        Proof::Missing
    }
}

/// Returns the wildcard directly below a name. A wildcard that is longer than a name may be is no
/// name of any zone.
pub(super) fn wildcard_below(name: &[u8]) -> Vec<u8> {
    [b"\x01*", name].concat()
}

#[cfg(test)]
mod tests;
