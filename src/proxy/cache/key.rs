//! Keys of cache entries.

use std::hash::{DefaultHasher, Hasher};
use std::ops::RangeInclusive;

use crate::wire::edns::{self, DO};
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::{Flags, Message, Question};
use crate::wire::{byte_ops, name};

/// The properties of a query, besides the question, that its answer depends on: DO (the query asks
/// for DNSSEC records) and CD (the query asks for no validation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Variant(u8);

/// Returns whether answers to questions of this type can be cached. Type 0 is reserved (RFC 6895,
/// section 3.1), and stands for the denial of all types in a [`CacheKey`].
pub(super) fn is_data(rr_type: Type) -> bool {
    rr_type.0 != 0 && !rr_type.is_meta()
}

impl Variant {
    const DO: u8 = 1;
    const CD: u8 = 2;

    /// Returns the variant of a query, or `None` if its answer cannot be shared: the query has
    /// options that are forwarded or unknown flags, is of another class than IN, or has type 0 or a
    /// meta-type.
    pub(in crate::proxy) fn of(query: &Message<'_>) -> Option<Self> {
        let question = query.question()?;
        let flags = query.header().flags;
        let (rr_type, opt) = (question.rr_type(), query.opt());
        let is_plain =
            |opt: &edns::Opt<'_>| opt.flags & !DO == 0 && opt.passing_options().next().is_none();
        let is_common = question.class() == CLASS_IN
            && is_data(rr_type)
            && !flags.contains(Flags::Z)
            && opt.as_ref().is_none_or(is_plain);
        let wants_proof = opt.is_some_and(|opt| opt.flags & DO != 0);
        is_common.then_some(Self::of_bits(wants_proof, flags.contains(Flags::CD)))
    }

    /// Returns the variant of queries with these values of DO and CD.
    pub(super) const fn of_bits(wants_proof: bool, is_unchecked: bool) -> Self {
        let proof = if wants_proof { Self::DO } else { 0 };
        let unchecked = if is_unchecked { Self::CD } else { 0 };
        Self(proof | unchecked)
    }

    /// Returns the variant as bits.
    pub(super) fn to_bits(self) -> u8 {
        self.0
    }

    /// Returns the variant of these bits; others are ignored.
    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits & (Self::DO | Self::CD))
    }

    /// Returns the variant with the same CD and the other DO.
    pub(super) fn with_other_proof(self) -> Self {
        Self(self.0 ^ Self::DO)
    }

    /// Returns the variant with the same CD and without DO.
    pub(super) fn without_proof(self) -> Self {
        Self(self.0 & !Self::DO)
    }
}

/// The part of the key that all lookups for a query share: its variant, and a hash of its name that
/// a client cannot predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct CacheLookup {
    variant: Variant,
    name_hash: u64,
}

impl CacheLookup {
    /// Creates the lookup of a name, hashed with the key in `hasher`.
    pub(super) fn new(name: &[u8], variant: Variant, hasher: &DefaultHasher) -> Self {
        let mut hasher = hasher.clone();
        name::hash_lowercase(name, &mut hasher);
        Self {
            variant,
            name_hash: hasher.finish(),
        }
    }

    /// Returns whether the answer includes DNSSEC records.
    pub(in crate::proxy) fn wants_proof(self) -> bool {
        self.variant.0 & Variant::DO != 0
    }

    /// Returns the variant.
    pub(super) fn variant(self) -> Variant {
        self.variant
    }

    /// Returns the lookup of the same name in another variant.
    pub(super) fn in_variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// Returns a hash of the name, this type and the variant.
    pub(in crate::proxy) fn hash(self, rr_type: Type) -> u64 {
        let rest = u64::from(rr_type.0) << 8 | u64::from(self.variant.0);
        self.name_hash ^ (rest + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

const _: () = assert!(CacheKey::COMMON.len() << 2 == CacheKey::COMMON_HASHES as usize);

/// The key of an entry: the name, in any letter case, and the kind of the entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheKey<'a> {
    name: &'a [u8],
    kind: EntryKind,
    hash: u32,
}

/// The kind of an entry of a name: the type, which is zero for a denial of all types, and the
/// variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryKind {
    rr_type: u16,
    variant: Variant,
}

impl EntryKind {
    /// The length of a kind in bytes.
    pub(super) const LEN: usize = 3;

    /// Returns the type, which is zero for a denial of all types.
    pub(super) fn rr_type(self) -> Type {
        Type(self.rr_type)
    }

    /// Returns the variant.
    pub(super) fn variant(self) -> Variant {
        self.variant
    }

    /// Returns the kind as bytes.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let [high, low] = self.rr_type.to_be_bytes();
        [high, low, self.variant.0]
    }

    /// Returns the kind from its bytes.
    pub(super) fn of_bytes([high, low, variant]: [u8; Self::LEN]) -> Self {
        Self {
            rr_type: u16::from_be_bytes([high, low]),
            variant: Variant(variant),
        }
    }
}

impl<'a> CacheKey<'a> {
    /// The types that are often asked for the same name, and that of denials. The keys of these
    /// types are adjacent in the index.
    const COMMON: [u16; 4] = [0, 1, 28, 65];

    /// Returns the key of the answer to a question.
    pub(super) fn of(question: Question<'a>, lookup: CacheLookup) -> Self {
        Self::new(question.name(), question.rr_type().0, lookup)
    }

    /// Returns the key of the denial of a question's name.
    pub(super) fn of_denial(question: Question<'a>, lookup: CacheLookup) -> Self {
        Self::of_name(question.name(), lookup)
    }

    /// Returns the key of the denial of a name.
    pub(super) fn of_name(name: &'a [u8], lookup: CacheLookup) -> Self {
        Self::new(name, 0, lookup)
    }

    /// Returns the key of the answer to a question for this type of a name.
    pub(super) fn of_type(name: &'a [u8], rr_type: u16, lookup: CacheLookup) -> Self {
        Self::new(name, rr_type, lookup)
    }

    /// Returns whether the hashes of keys for this type are in [`CacheKey::common_hashes`].
    pub(super) fn is_common(rr_type: Type) -> bool {
        Self::COMMON.contains(&rr_type.0)
    }

    /// Returns the hashes of the keys for common types and of the denial of a name, in all
    /// variants.
    pub(super) fn common_hashes(lookup: CacheLookup) -> RangeInclusive<u32> {
        let hash = low_u32(lookup.name_hash);
        let few = u32::from(Self::COMMON_HASHES) - 1;
        hash & !few..=hash | few
    }

    /// The number of hashes of a name for all common types and variants.
    const COMMON_HASHES: u8 = 16;

    fn new(name: &'a [u8], rr_type: u16, lookup: CacheLookup) -> Self {
        let variant = lookup.variant;
        let hash = match Self::COMMON.iter().position(|common| *common == rr_type) {
            Some(position) => {
                let which = position << 2 | usize::from(variant.0);
                lookup.name_hash ^ which as u64
            }
            None => lookup.hash(Type(rr_type)) >> 32,
        };
        Self {
            name,
            kind: EntryKind { rr_type, variant },
            hash: low_u32(hash),
        }
    }

    /// Returns the hash. Its upper bits determine the home slot in the index.
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// Returns the kind.
    pub(super) fn kind(&self) -> EntryKind {
        self.kind
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Returns whether these parts, which have the length of the name, equal it in any letter case.
    pub(super) fn is_named<'b>(&self, mut parts: impl Iterator<Item = &'b [u8]>) -> bool {
        let mut name = self.name;
        parts.all(|part| {
            let start;
            (start, name) = name.split_at(part.len());
            byte_ops::are_same(start, part) || start.eq_ignore_ascii_case(part)
        })
    }
}

/// Returns the lower 32 bits.
fn low_u32(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("a masked number has 32 bits")
}
