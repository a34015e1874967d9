//! NSEC3 records (RFC 5155).

use super::limits;
use super::type_bitmap::TypeBitmap;
use super::verify::{SHA1_LEN, sha1};
use crate::wire::{Malformed, name};

/// The only hash algorithm: SHA-1.
const SHA1: u8 = 1;
/// Length of a hash in a label: base32 holds five bits in a character.
const LABEL_LEN: usize = 32;
const OPT_OUT: u8 = 1;

/// The hash of a name.
pub(super) type Hash = [u8; SHA1_LEN];

/// The parameters of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) iterations: u16,
    pub(super) salt: &'a [u8],
}

impl Parameters<'_> {
    pub(super) fn has_too_many_iterations(&self) -> bool {
        self.iterations > limits::NSEC3_ITERATIONS
    }

    /// Returns the number of hash computations for a name.
    pub(super) fn rounds(&self) -> usize {
        usize::from(self.iterations) + 1
    }

    /// Returns the hash of an uncompressed name (RFC 5155, section 5).
    pub(super) fn hash(&self, name: &[u8]) -> Hash {
        let mut input = name.to_vec();
        name::make_lowercase(&mut input);
        let mut hash = [0; SHA1_LEN];
        for _ in 0..=self.iterations {
            input.extend_from_slice(self.salt);
            hash = sha1(&input);
            input.clear();
            input.extend_from_slice(&hash);
        }
        hash
    }
}

/// An NSEC3 record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nsec3<'a> {
    /// The hash of the name to which the record belongs.
    pub(super) owner: Hash,
    /// The next hash of the zone.
    pub(super) next: Hash,
    /// Unsigned delegations may exist between both hashes.
    pub(super) is_opt_out: bool,
    /// The types at the name.
    pub(super) types: TypeBitmap<'a>,
}

impl<'a> Nsec3<'a> {
    /// Parses the data of an NSEC3 record, whose owner is directly below the apex of its zone.
    /// Records with unknown flags or hash algorithms are malformed (RFC 5155, section 8.1 and 8.2).
    pub(super) fn parse(
        owner: &[u8],
        zone: &[u8],
        data: &'a [u8],
    ) -> Result<(Self, Parameters<'a>), Malformed> {
        let [SHA1, flags @ 0..=OPT_OUT, high, low, salt_len, rest @ ..] = data else {
            return Err(Malformed);
        };
        let (salt, rest) = rest
            .split_at_checked(usize::from(*salt_len))
            .ok_or(Malformed)?;
        let [len, rest @ ..] = rest else {
            return Err(Malformed);
        };
        let (next, types) = rest.split_at_checked(usize::from(*len)).ok_or(Malformed)?;
        let nsec3 = Self {
            owner: hash_of_label(owner, zone).ok_or(Malformed)?,
            next: next.try_into().map_err(|_| Malformed)?,
            is_opt_out: flags & OPT_OUT != 0,
            types: TypeBitmap::new(types),
        };
        let parameters = Parameters {
            iterations: u16::from_be_bytes([*high, *low]),
            salt,
        };
        Ok((nsec3, parameters))
    }

    /// Returns whether the span is so short that it denies one name alone: a server made the record
    /// for one answer (RFC 7129, appendix B). The span of the only record of a zone is the longest.
    pub(super) fn is_narrow(&self) -> bool {
        self.owner != self.next && self.owner[..SHA1_LEN / 2] == self.next[..SHA1_LEN / 2]
    }

    /// Returns whether no name of the zone has this hash. The last record of a zone leads to the
    /// first.
    pub(super) fn covers(&self, hash: &Hash) -> bool {
        if self.owner < self.next {
            self.owner < *hash && *hash < self.next
        } else {
            self.owner < *hash || *hash < self.next
        }
    }
}

/// Returns the hash in the first label of an owner, which is directly below `zone`: base32 with the
/// extended hex alphabet (RFC 4648, section 7).
fn hash_of_label(owner: &[u8], zone: &[u8]) -> Option<Hash> {
    let (len, rest) = owner.split_first()?;
    let (label, parent) = rest.split_at_checked(usize::from(*len))?;
    if label.len() != LABEL_LEN || !parent.eq_ignore_ascii_case(zone) {
        return None;
    }
    let mut hash = [0; SHA1_LEN];
    for (characters, bytes) in label.chunks(8).zip(hash.chunks_mut(5)) {
        let mut block = 0_u64;
        for character in characters {
            let value = match character.to_ascii_lowercase() {
                digit @ b'0'..=b'9' => digit - b'0',
                letter @ b'a'..=b'v' => letter - b'a' + 10,
                _ => return None,
            };
            block = block << 5 | u64::from(value);
        }
        bytes.copy_from_slice(&block.to_be_bytes()[3..]);
    }
    Some(hash)
}
