//! What an answer is found by.

use std::hash::{DefaultHasher, Hasher};

use crate::wire::edns::{self, DO};
use crate::wire::name::NAME_LEN_MAX;
use crate::wire::question::CLASS_IN;
use crate::wire::{Flags, Message, Question};

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

    /// Whether DNSSEC records are part of the answer.
    pub(super) fn wants_proof(self) -> bool {
        self.0 & Self::DO != 0
    }
}

/// What an entry is found by: the name in small letters, the type or zero for all, and the variant.
pub(super) struct Key {
    octets: [u8; NAME_LEN_MAX + 3],
    len: usize,
}

impl Key {
    /// That of the answer to a question.
    pub(super) fn of(question: Question<'_>, variant: Variant) -> Self {
        Self::new(question.name(), question.rr_type().0, variant)
    }

    /// That of the denial of a question's name.
    pub(super) fn of_denial(question: Question<'_>, variant: Variant) -> Self {
        Self::of_name(question.name(), variant)
    }

    /// That of the denial of a name.
    pub(super) fn of_name(name: &[u8], variant: Variant) -> Self {
        Self::new(name, 0, variant)
    }

    fn new(name: &[u8], rr_type: u16, variant: Variant) -> Self {
        let mut octets = [0; NAME_LEN_MAX + 3];
        let (start, end) = octets.split_at_mut(name.len());
        start.copy_from_slice(name);
        start.make_ascii_lowercase();
        end[..2].copy_from_slice(&rr_type.to_be_bytes());
        end[2] = variant.0;
        let len = name.len() + 3;
        Self { octets, len }
    }

    /// Its octets.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// Its hash, with the keyed state that `hasher` has.
    pub(super) fn hash(&self, hasher: &DefaultHasher) -> u64 {
        let mut hasher = hasher.clone();
        hasher.write(self.as_bytes());
        hasher.finish()
    }
}
