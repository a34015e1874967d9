//! Removal of older entries that a newer reply contradicts or refreshes.
//!
//! A NOERROR or NXDOMAIN reply refreshes the data (RFC 8767, section 4), even if the reply itself
//! cannot be kept: its TTL is zero, it is too large, truncated, or its aliases do not lead to its
//! records. A verdict on the name also ends older entries; other errors end none.
//!
//! Entries for queries with and without DO come from the same data. A reply to one kind of query
//! therefore ends what is stale for the other kind, and what contradicts the existence of the name.
//! Entries for queries with CD are kept apart: those answers are not validated.

use super::key::{CacheKey, CacheLookup, Variant};
use super::{Cache, Marks, TICKS, ancestors};
use crate::base::time::Instant;
use crate::wire::question::CLASS_IN;
use crate::wire::{Flags, Message, Question, Rcode};

/// The types with entries that a denial of the name removes. Entries of other types end as soon as
/// they are stale, since the denial is newer.
const TYPES: [u16; 20] = [
    1, 28, 65, 2, 5, 6, 12, 13, 15, 16, 29, 33, 35, 43, 44, 48, 52, 64, 256, 257,
];

/// The statement of a reply about the name in its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameStatus {
    /// The name exists, with or without records of the type.
    Exists,
    /// The name does not exist.
    Denied,
    /// The name is bogus, blocked or the like (RFC 8914).
    Judged,
    /// Nothing: the reply is an error.
    Nothing,
}

impl NameStatus {
    pub(super) fn of(reply: &Message<'_>) -> Self {
        match reply.rcode() {
            Rcode::NOERROR => Self::Exists,
            // The target of an alias is denied, and the alias exists.
            Rcode::NXDOMAIN if reply.header().answers > 0 => Self::Exists,
            Rcode::NXDOMAIN => Self::Denied,
            rcode if rcode.extension() != 0 => Self::Nothing,
            _ if reply.opt().is_some_and(|opt| opt.has_judgement()) => Self::Judged,
            _ => Self::Nothing,
        }
    }
}

impl Cache {
    /// Removes the entries that a reply makes obsolete. The reply itself cannot be cached, since
    /// its query has no variant ([`Variant::of`]): it has options that are forwarded, for example,
    /// or a meta-type.
    pub(in crate::proxy) fn on_uncacheable_reply(
        &mut self,
        question: Question<'_>,
        flags: Flags,
        reply: &Message<'_>,
        now: Instant,
    ) {
        if !self.is_on() || question.class() != CLASS_IN || !flags.contains(Flags::RD) {
            return;
        }
        let variant = Variant::of_bits(false, flags.contains(Flags::CD));
        let lookup = CacheLookup::new(question.name(), variant, &self.hasher);
        self.end_older(question, lookup, NameStatus::of(reply), false, now);
    }

    /// Removes the entries that a reply to this question makes obsolete. If `is_own`, the reply is
    /// one for this variant, and no entry of the variant outlives it.
    pub(super) fn end_older(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        status: NameStatus,
        is_own: bool,
        now: Instant,
    ) {
        if status == NameStatus::Nothing {
            return;
        }
        if status != NameStatus::Denied && self.has_none(question, lookup) {
            return self.end_denials_above(question, lookup, status);
        }
        let is_judged = status == NameStatus::Judged;
        for variant in [lookup.variant(), lookup.variant().with_other_proof()] {
            let is_own = is_own && variant == lookup.variant();
            let lookup = lookup.in_variant(variant);
            if let Some(position) = self.store.find(CacheKey::of(question, lookup)) {
                let is_error = self.store.head(position).marks.contains(Marks::ERROR);
                if is_error && !is_judged {
                    // Other cached errors may also be obsolete.
                    self.on_recovery(now);
                }
                let is_over = is_error && !is_judged || !self.is_in_time(position, now);
                if is_own || is_over || status == NameStatus::Denied {
                    self.store.remove(position);
                }
            }
            if let Some(position) = self.store.find(CacheKey::of_denial(question, lookup))
                && (is_own || status == NameStatus::Exists || !self.is_in_time(position, now))
            {
                self.store.remove(position);
            }
            if status == NameStatus::Denied {
                self.remove_types(question, lookup);
            }
        }
        self.end_denials_above(question, lookup, status);
    }

    /// Returns whether one read of the index shows that the cache has no entry for the question in
    /// any variant and no denial of its name.
    pub(super) fn has_none(&self, question: Question<'_>, lookup: CacheLookup) -> bool {
        CacheKey::is_common(question.rr_type()) && !self.store.may_have_common(lookup)
    }

    /// Removes the cached NXDOMAIN of ancestors that the status of the name contradicts.
    fn end_denials_above(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        status: NameStatus,
    ) {
        if status == NameStatus::Exists {
            self.remove_denials_above(question, lookup.variant());
        }
    }

    /// Returns whether the lifetime of an entry is not over.
    fn is_in_time(&self, position: u32, now: Instant) -> bool {
        let head = self.store.head(position);
        self.tick(now).saturating_sub(head.received_at) < head.lifetime.saturating_mul(TICKS)
    }

    /// Removes the entries of the name for all common types.
    fn remove_types(&mut self, question: Question<'_>, lookup: CacheLookup) {
        for rr_type in TYPES {
            let key = CacheKey::of_type(question.name(), rr_type, lookup);
            if let Some(position) = self.store.find(key) {
                self.store.remove(position);
            }
        }
    }

    /// Removes the cached NXDOMAIN of ancestors that holds for all names below (RFC 8020), since
    /// the name in the question exists.
    fn remove_denials_above(&mut self, question: Question<'_>, variant: Variant) {
        if !self.store.has_subtree_denials() {
            return;
        }
        for name in ancestors(question) {
            let above = CacheLookup::new(name, variant.without_proof(), &self.hasher);
            if let Some(position) = self.store.find(CacheKey::of_name(name, above))
                && self.store.head(position).marks.contains(Marks::SUBTREE)
            {
                self.store.remove(position);
            }
        }
    }
}

#[cfg(test)]
mod tests;
