//! The types at a name, as NSEC and NSEC3 list them.

use crate::wire::question::Type;

/// The place of RRSIG and NSEC in a bitmap.
const PROOF_WINDOW: u8 = 0;
const PROOF_BYTE: u8 = 5;
const PROOF_BITS: u8 = 0b11;

/// The types that exist at a name: the bitmap of an NSEC or NSEC3 record (RFC 4034, section 4.1.2).
#[derive(Clone, Copy, Debug)]
pub struct TypeBitmap<'a>(&'a [u8]);

impl<'a> TypeBitmap<'a> {
    /// Returns the bitmap with these bytes, which need not be well formed.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub(super) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns whether a type exists.
    pub fn contains(self, rr_type: Type) -> bool {
        let [window, low] = rr_type.0.to_be_bytes();
        let mut rest = self.0;
        while let [number, len, blocks @ ..] = rest {
            let Some((block, others)) = blocks.split_at_checked(usize::from(*len)) else {
                return false;
            };
            if *number == window {
                let byte = block.get(usize::from(low / 8));
                return byte.is_some_and(|byte| byte & 0x80 >> (low % 8) != 0);
            }
            rest = others;
        }
        false
    }

    /// Returns whether the name has no record, except the proof itself: compact denial gives empty
    /// non-terminals an NSEC or NSEC3 record of their own (RFC 9824, section 3.2). Elsewhere a name
    /// with an NSEC record has others (RFC 4035, section 2.3).
    fn is_of_empty_name(self) -> bool {
        let mut rest = self.0;
        while let [number, len, blocks @ ..] = rest {
            let Some((block, others)) = blocks.split_at_checked(usize::from(*len)) else {
                return false;
            };
            let mut bytes = block.iter().zip(0_u8..);
            let is_proof = |(byte, place): (&u8, u8)| match (*number, place) {
                (PROOF_WINDOW, PROOF_BYTE) => byte & !PROOF_BITS == 0,
                _ => *byte == 0,
            };
            if !bytes.all(is_proof) {
                return false;
            }
            rest = others;
        }
        rest.is_empty()
    }

    /// Returns whether the name is a delegation, and the record is of the zone above it.
    pub(super) fn is_delegation(self) -> bool {
        self.contains(Type::NS) && !self.contains(Type::SOA)
    }

    /// Returns whether the record proves that a type does not exist at its name. DS records are of
    /// the zone above, all others of the zone below a delegation (RFC 4035, section 5.2; RFC 6840,
    /// section 4.4). Any record answers a question for ANY, so that only an empty non-terminal
    /// denies it, or a name that does not exist (RFC 5155, section 7.1; RFC 9824, section 3).
    pub(super) fn denies(self, rr_type: Type, is_root: bool) -> bool {
        if rr_type == Type::ANY {
            return self.is_of_empty_name() || self.contains(Type::NXNAME);
        }
        let is_of_right_zone = if rr_type == Type::DS {
            is_root || !self.contains(Type::SOA)
        } else {
            !self.is_delegation()
        };
        is_of_right_zone && !self.contains(rr_type) && !self.contains(Type::CNAME)
    }

    /// Returns whether names below the name are not of this zone: they are below a delegation, or
    /// they are renamed (RFC 6840, section 4.1).
    pub(super) fn hides_names_below(self) -> bool {
        self.is_delegation() || self.contains(Type::DNAME)
    }
}
