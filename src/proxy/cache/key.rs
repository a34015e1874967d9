//! What an answer is found by.

use std::hash::{DefaultHasher, Hasher};
use std::ops::RangeInclusive;

use crate::wire::edns::{self, DO};
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::{Flags, Message, Question};
use crate::wire::{name, octets};

/// What an answer depends on besides the question: whether the query asked for DNSSEC records, and
/// whether it asked not to validate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Variant(u8);

impl Variant {
    const DO: u8 = 1;
    const CD: u8 = 2;

    /// The variant of a query; `None` if its answer is for nobody else: the query has options that
    /// pass, is of another class, or asks for no type of data.
    pub(in crate::proxy) fn of(query: &Message<'_>) -> Option<Self> {
        let question = query.question()?;
        let flags = query.header().flags;
        let (rr_type, opt) = (question.rr_type(), query.opt());
        let is_data = rr_type.0 != 0 && !rr_type.is_meta();
        let is_plain =
            |opt: &edns::Opt<'_>| opt.flags & !DO == 0 && opt.passing_options().next().is_none();
        let is_common = question.class() == CLASS_IN
            && is_data
            && !flags.contains(Flags::Z)
            && opt.as_ref().is_none_or(is_plain);
        let wants_proof = opt.is_some_and(|opt| opt.flags & DO != 0);
        is_common.then_some(Self::of_bits(wants_proof, flags.contains(Flags::CD)))
    }

    /// That of queries in which DO and CD are so.
    pub(super) const fn of_bits(wants_proof: bool, is_unchecked: bool) -> Self {
        let proof = if wants_proof { Self::DO } else { 0 };
        let unchecked = if is_unchecked { Self::CD } else { 0 };
        Self(proof | unchecked)
    }

    /// The variant with the same CD and the other DO.
    pub(super) fn with_other_proof(self) -> Self {
        Self(self.0 ^ Self::DO)
    }

    /// The variant with the same CD and without DO.
    pub(super) fn without_proof(self) -> Self {
        Self(self.0 & !Self::DO)
    }
}

/// A query as the cache looks for it: its variant, and a hash of its name that nobody outside can
/// foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct CacheLookup {
    variant: Variant,
    name_hash: u64,
}

impl CacheLookup {
    /// What is sought where this name is asked for, by the keyed state that `hasher` has.
    pub(super) fn new(name: &[u8], variant: Variant, hasher: &DefaultHasher) -> Self {
        let mut hasher = hasher.clone();
        name::hash_lowercase(name, &mut hasher);
        Self {
            variant,
            name_hash: hasher.finish(),
        }
    }

    /// Whether DNSSEC records are part of the answer.
    pub(super) fn wants_proof(self) -> bool {
        self.variant.0 & Variant::DO != 0
    }

    /// The variant.
    pub(super) fn variant(self) -> Variant {
        self.variant
    }

    /// The same name in another variant.
    pub(super) fn in_variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// A number that tells a name, this type and the variant from others.
    pub(in crate::proxy) fn hash(self, rr_type: Type) -> u64 {
        let rest = u64::from(rr_type.0) << 8 | u64::from(self.variant.0);
        self.name_hash ^ (rest + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

const _: () = assert!(Key::COMMON.len() << 2 == Key::COMMON_HASHES as usize);

/// What an entry is found by: the name in any letters, and its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    name: &'a [u8],
    kind: Kind,
    hash: u32,
}

/// What an entry is of a name: the answer for a type, or for all if that is zero, and in which
/// variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    rr_type: u16,
    variant: Variant,
}

impl Kind {
    /// Octets of a kind.
    pub(super) const LEN: usize = 3;

    /// Its octets.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let [high, low] = self.rr_type.to_be_bytes();
        [high, low, self.variant.0]
    }

    /// The kind that has these octets.
    pub(super) fn of_bytes([high, low, variant]: [u8; Self::LEN]) -> Self {
        Self {
            rr_type: u16::from_be_bytes([high, low]),
            variant: Variant(variant),
        }
    }
}

impl<'a> Key<'a> {
    /// Types that names are asked for one after the other, and that of denials. For the same name
    /// they lie beside each other in the index.
    const COMMON: [u16; 4] = [0, 1, 28, 65];

    /// That of the answer to a question.
    pub(super) fn of(question: Question<'a>, sought: CacheLookup) -> Self {
        Self::new(question.name(), question.rr_type().0, sought)
    }

    /// That of the denial of a question's name.
    pub(super) fn of_denial(question: Question<'a>, sought: CacheLookup) -> Self {
        Self::of_name(question.name(), sought)
    }

    /// That of the denial of a name.
    pub(super) fn of_name(name: &'a [u8], sought: CacheLookup) -> Self {
        Self::new(name, 0, sought)
    }

    /// The key of the answer to a question for this type of a name.
    pub(super) fn of_type(name: &'a [u8], rr_type: u16, sought: CacheLookup) -> Self {
        Self::new(name, rr_type, sought)
    }

    /// Returns whether the hashes of keys for this type are in [`Key::common_hashes`].
    pub(super) fn is_common(rr_type: Type) -> bool {
        Self::COMMON.contains(&rr_type.0)
    }

    /// The hashes of the keys for common types and of the denial of a name, in all variants.
    pub(super) fn common_hashes(sought: CacheLookup) -> RangeInclusive<u32> {
        let hash = low_u32(sought.name_hash);
        let few = u32::from(Self::COMMON_HASHES) - 1;
        hash & !few..=hash | few
    }

    /// Hashes of a name for all common types and variants.
    const COMMON_HASHES: u8 = 16;

    fn new(name: &'a [u8], rr_type: u16, sought: CacheLookup) -> Self {
        let variant = sought.variant;
        let hash = match Self::COMMON.iter().position(|common| *common == rr_type) {
            Some(place) => {
                let which = place << 2 | usize::from(variant.0);
                sought.name_hash ^ which as u64
            }
            None => sought.hash(Type(rr_type)) >> 32,
        };
        Self {
            name,
            kind: Kind { rr_type, variant },
            hash: low_u32(hash),
        }
    }

    /// Its hash, whose upper part says where it lies.
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// What it is of the name.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    pub(super) fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Whether these parts, which have its length, are its name, whatever letters are small.
    pub(super) fn is_named<'b>(&self, mut parts: impl Iterator<Item = &'b [u8]>) -> bool {
        let mut name = self.name;
        parts.all(|part| {
            let start;
            (start, name) = name.split_at(part.len());
            octets::are_same(start, part) || start.eq_ignore_ascii_case(part)
        })
    }
}

/// The lower 32 bits.
fn low_u32(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("32 bits")
}
