//! The cache of answers.
//!
//! An entry has the bytes of a response behind the question, so that a response from the cache is a
//! copy with other TTLs. An entry depends on the question and on the [`Variant`] of the query. Data
//! of one client or one hop, such as OPT, is not cached.
//!
//! - `policy`: the cache policy: cacheable answers, their extent and their lifetime
//! - `key`: keys of entries
//! - `newer`: removal of entries that a newer reply makes obsolete
//! - `pauses`: pauses between queries upstream for one question
//! - `entry`: the layout of an entry
//! - `store`: the entries, within a memory budget that is never exceeded
//! - `saved`: entries as bytes, for the cache file
//! - `blocks`, `index`: the memory of the store and its hash index
//! - `failures`: the failure cache

mod blocks;
mod entry;
pub(super) mod failures;
mod index;
mod key;
mod newer;
mod pauses;
mod policy;
mod saved;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub(super) use key::{CacheLookup, Variant};
pub use saved::Restored;

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use crate::base::random::SEED_LEN;
use crate::base::time::Instant;
use crate::config::{CacheSettings, Timeouts};
use crate::wire::edns::{self, ExtendedError, ExtendedErrorCode};
use crate::wire::question::Type;
use crate::wire::response::{Asked, CUT_LOOKAHEAD_LEN, end_answer, end_cut_answer, start_answer};
use crate::wire::{Flags, MESSAGE_LEN_MAX, Message, Question, Rcode, byte_ops, name};

use entry::{Marks, Refresh};
use key::CacheKey;
use newer::NameStatus;
use pauses::prefetch_window;
use policy::{CachePolicy, Extent, policy_for};
use store::Store;

/// Ticks of the cache's clock per second: fine enough to divide a lifetime of a few seconds, and 32
/// bits last for 17 years.
const TICKS: u32 = 8;

/// The duration of a tick.
const TICK: Duration = Duration::from_millis(1000 / TICKS as u64);

/// The TTL of records in a stale answer, in seconds (RFC 8767, section 5).
const STALE_TTL: u32 = 30;

/// The maximum number of ancestors of a name, from the nearest upward, that are checked for a
/// denial.
const ANCESTORS_MAX: usize = 16;

/// A found entry, valid until the cache is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    position: u32,
    ttls: Ttls,
}

impl Entry {
    /// Returns whether the entry is stale.
    pub(super) fn is_stale(self) -> bool {
        self.ttls == Ttls::Stale
    }
}

/// The TTLs that records have in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ttls {
    /// The remaining TTL, this many seconds below the TTL at the start.
    Less(u32),
    /// The TTL of stale records.
    Stale,
}

impl Ttls {
    /// Returns the TTL in a response, in seconds, of a record that was cached with the TTL `kept`.
    fn of(self, kept: u32) -> u32 {
        match self {
            Self::Less(age) => kept.saturating_sub(age),
            Self::Stale => STALE_TTL,
        }
    }
}

/// The result of a cache lookup.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recall {
    /// A fresh answer.
    Fresh {
        entry: Entry,
        /// A prefetch is due: the answer has been used since it was cached, and expires soon.
        is_refresh_due: bool,
    },
    /// A cached error: upstream is not asked until its pause ends (RFC 9520).
    Failed(Entry),
    /// A stale answer, to be served if upstream has no answer.
    Stale(Entry),
    /// A stale answer that is served at once, since upstream had no answer a short time ago.
    StaleInUse {
        entry: Entry,
        /// Another query upstream is due.
        is_refresh_due: bool,
    },
    /// No entry.
    Nothing,
}

impl Recall {
    /// Returns the answer, fresh or stale.
    pub(in crate::proxy) fn answer(&self) -> Option<Entry> {
        match self {
            Self::Fresh { entry, .. } | Self::Stale(entry) | Self::StaleInUse { entry, .. } => {
                Some(*entry)
            }
            Self::Failed(_) | Self::Nothing => None,
        }
    }

    /// Returns whether no other entry can be better.
    fn is_final(&self) -> bool {
        matches!(self, Self::Fresh { .. } | Self::Failed(_))
    }
}

/// The result of adding an answer to the cache.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// The answer is cached.
    Yes(Entry),
    /// The answer is an error and was dropped for this better entry.
    Previous(Entry),
    /// The answer cannot be cached.
    No,
}

/// The usage of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUsage {
    /// The number of entries.
    pub entries: usize,
    /// Bytes of memory in use.
    pub bytes: usize,
    /// The number of entries that were evicted since the start.
    pub evicted: u64,
}

impl fmt::Display for CacheUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            entries,
            bytes,
            evicted,
        } = self;
        write!(f, "entries={entries} bytes={bytes} evicted={evicted}")
    }
}

/// The cache. See the [module](self).
#[derive(Debug)]
pub(super) struct Cache {
    settings: CacheSettings,
    timeouts: Timeouts,
    store: Store,
    /// A hasher with a secret key, so that clients cannot choose names with equal hashes.
    hasher: DefaultHasher,
    /// The tick of the last recovery: cached errors from before it are ignored, and stale answers
    /// in use since before it are asked for again.
    recovered_at: u32,
    /// Ticks by which the clock of the cache is ahead of [`Instant`]: the host was suspended and the
    /// clock stood still, or answers in a cache file are older than the process.
    clock_lead: u32,
    scratch: Vec<u8>,
}

impl Cache {
    /// Creates an empty cache.
    pub(super) fn new(
        settings: &CacheSettings,
        timeouts: &Timeouts,
        seed: &[u8; SEED_LEN],
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(seed);
        Self {
            settings: *settings,
            timeouts: *timeouts,
            store: Store::new(settings.size),
            hasher,
            recovered_at: 0,
            clock_lead: 0,
            scratch: Vec::new(),
        }
    }

    /// Returns whether the cache has any memory.
    pub(super) fn is_on(&self) -> bool {
        self.store.has_blocks()
    }

    /// Returns the usage of the cache.
    pub(super) fn usage(&self) -> CacheUsage {
        self.store.usage()
    }

    /// Applies new settings, removes all entries and releases their memory.
    pub(super) fn reconfigure(&mut self, settings: &CacheSettings, timeouts: &Timeouts) {
        self.settings = *settings;
        self.timeouts = *timeouts;
        self.store.start_over(settings.size);
    }

    /// Records a recovery: upstream may be able to answer questions that failed before.
    pub(super) fn on_recovery(&mut self, now: Instant) {
        self.recovered_at = self.tick(now);
    }

    /// Records that the host was suspended for this duration.
    pub(super) fn on_sleep(&mut self, slept: Duration) {
        self.clock_lead = self.clock_lead.saturating_add(ticks(slept));
    }

    /// Returns the current tick. No tick is zero.
    fn tick(&self, now: Instant) -> u32 {
        let awake = ticks(now - Instant::default());
        awake.saturating_add(self.clock_lead).saturating_add(1)
    }

    /// Computes the lookup for a query; `None` if its answer cannot be cached.
    pub(super) fn lookup_for(&self, query: &Message<'_>) -> Option<CacheLookup> {
        if !self.is_on() {
            return None;
        }
        let (question, variant) = (query.question()?, Variant::of(query)?);
        Some(CacheLookup::new(question.name(), variant, &self.hasher))
    }

    /// Computes the lookup for a query of our own for an uncompressed name.
    pub(super) fn lookup_of(&self, name: &[u8]) -> Option<CacheLookup> {
        let variant = Variant::of_bits(false, false);
        self.is_on()
            .then(|| CacheLookup::new(name, variant, &self.hasher))
    }

    /// Returns a fresh answer as a message.
    pub(super) fn fresh_answer(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let Recall::Fresh { entry, .. } = self.recall(question, lookup, now) else {
            return None;
        };
        let asked = Asked {
            id: 0,
            flags: Flags::AD,
            question: Some(question),
            opt: None,
            len_max: MESSAGE_LEN_MAX,
        };
        let mut message = Vec::new();
        self.write(entry, &asked, &mut message);
        Some(message)
    }

    /// Looks up the answer to a query. A fresh answer counts as used.
    pub(super) fn recall(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
    ) -> Recall {
        let exact = self.store.find(CacheKey::of(question, lookup));
        if exact.is_none() && self.has_none(question, lookup) {
            return Recall::Nothing;
        }
        let recall = self.recall_at(exact, now);
        if recall.is_final() {
            return recall;
        }
        // The denial of the name may be by a zone that starts there, and DS is of the zone above.
        let denial = match question.rr_type() {
            Type::DS => None,
            _ => self.store.find(CacheKey::of_denial(question, lookup)),
        };
        // If both entries exist, the denial of the name is newer: an answer to the question removes
        // the denial.
        let stale = match self.recall_at(denial, now) {
            Recall::Nothing => recall,
            later if later.is_final() => return later,
            later => later,
        };
        self.recall_error_of_others(question, lookup, now, stale)
    }

    /// Returns the result of a lookup that found nothing or only a stale answer. A cached error for
    /// the variant with the other DO also holds for this one.
    fn recall_error_of_others(
        &self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
        stale: Recall,
    ) -> Recall {
        let other = lookup.in_variant(lookup.variant().with_other_proof());
        let position = self.store.find(CacheKey::of(question, other));
        let Some(Recall::Failed(error)) = position.map(|position| self.judge(position, now)) else {
            return stale;
        };
        match stale {
            Recall::Stale(entry) | Recall::StaleInUse { entry, .. } => Recall::StaleInUse {
                entry,
                is_refresh_due: false,
            },
            _ => Recall::Failed(error),
        }
    }

    /// Returns the denial of an ancestor of the question's name, which also denies the name itself
    /// (RFC 8020). An ancestor counts only if `is_alike` holds for it.
    pub(super) fn denial_above(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
        is_alike: impl Fn(&[u8]) -> bool,
    ) -> Option<Entry> {
        if !self.store.has_subtree_denials() || lookup.wants_proof() {
            return None;
        }
        for name in ancestors(question) {
            let above = CacheLookup::new(name, lookup.variant(), &self.hasher);
            let Some(position) = self.store.find(CacheKey::of_name(name, above)) else {
                continue;
            };
            let is_for_all = self.store.head(position).marks.contains(Marks::SUBTREE);
            if let Recall::Fresh { entry, .. } = self.judge(position, now)
                && is_for_all
                && is_alike(name)
            {
                self.touch(position);
                return Some(entry);
            }
        }
        None
    }

    /// Judges an entry if there is one. Counts the use of a final result.
    fn recall_at(&mut self, position: Option<u32>, now: Instant) -> Recall {
        let Some(position) = position else {
            return Recall::Nothing;
        };
        let recall = self.judge(position, now);
        if recall.is_final() {
            self.touch(position);
        }
        recall
    }

    /// Returns the result of a lookup that found this entry.
    fn judge(&self, position: u32, at: Instant) -> Recall {
        let head = self.store.head(position);
        let now = self.tick(at);
        let age = now.saturating_sub(head.received_at);
        let lifetime = head.lifetime.saturating_mul(TICKS);
        let is_error = head.marks.contains(Marks::ERROR);
        if age < lifetime {
            let ttls = Ttls::Less(age / TICKS);
            let entry = Entry { position, ttls };
            if is_error {
                let is_void =
                    head.received_at <= self.recovered_at && age >= ticks(self.timeouts.failed_min);
                return if is_void {
                    Recall::Nothing
                } else {
                    Recall::Failed(entry)
                };
            }
            let is_refresh_due = self.settings.prefetch
                && lifetime - age <= prefetch_window(lifetime)
                && head.marks.hits() > 0
                && head.refresh().may_prefetch(now);
            return Recall::Fresh {
                entry,
                is_refresh_due,
            };
        }
        if is_error || age - lifetime >= ticks(self.settings.stale_max) {
            return Recall::Nothing;
        }
        let ttls = Ttls::Stale;
        let entry = Entry { position, ttls };
        match head.refresh() {
            Refresh::PrefetchFailed { retry_at } if retry_at > now => Recall::StaleInUse {
                entry,
                is_refresh_due: false,
            },
            Refresh::StaleServed { retry_at } => Recall::StaleInUse {
                entry,
                is_refresh_due: retry_at <= now
                    || retry_at <= self.recovered_at.saturating_add(self.stale_pause()),
            },
            _ => Recall::Stale(entry),
        }
    }

    /// Records that an entry was used.
    fn touch(&mut self, position: u32) {
        self.store.mark(position, |marks| {
            marks.insert(Marks::VISITED);
            marks.count_hit();
        });
    }

    /// Returns whether an answer is authentic (AD) as long as it is not stale.
    pub(super) fn has_ad(&self, entry: Entry) -> bool {
        self.store.head(entry.position).flags.contains(Flags::AD) && !entry.is_stale()
    }

    /// Appends the response with this answer, cut to the length that the client accepts.
    pub(super) fn write(&self, entry: Entry, asked: &Asked<'_>, out: &mut Vec<u8>) {
        let head = self.store.head(entry.position);
        let mut flags = head.flags;
        if entry.is_stale() {
            // The signatures may have expired with the TTL (RFC 4035, section 5.3.3).
            flags = flags.without(Flags::AD);
        }
        let start = start_answer(out, asked, flags, head.counts);
        let records_start = out.len();
        let records_len_max = asked.records_len_max();
        if usize::from(head.records_len) > records_len_max {
            let read_len = records_len_max + CUT_LOOKAHEAD_LEN;
            for part in self
                .store
                .read(entry.position, head.records_start_range(read_len))
            {
                byte_ops::append(out, part);
            }
            let ttl = |ttl| entry.ttls.of(ttl);
            return end_cut_answer(out, start, asked, head.counts, ttl);
        }
        let records_end = records_start + usize::from(head.records_len);
        for part in self.store.read(entry.position, head.records_range()) {
            byte_ops::append(out, part);
        }
        for at in (records_end..out.len()).step_by(size_of::<u16>()) {
            let position = u16::from_le_bytes([out[at], out[at + 1]]);
            let ttl = out[records_start + usize::from(position)..].first_chunk_mut();
            let ttl = ttl.expect("a TTL has four bytes");
            *ttl = entry.ttls.of(u32::from_be_bytes(*ttl)).to_be_bytes();
        }
        out.truncate(records_end);
        let mut errors = Vec::new();
        for part in self.store.read(entry.position, head.errors_range()) {
            errors.extend_from_slice(part);
        }
        let stale = entry.is_stale().then(|| ExtendedError {
            code: match head.flags.rcode() {
                Rcode::NXDOMAIN => ExtendedErrorCode::STALE_NXDOMAIN,
                _ => ExtendedErrorCode::STALE_ANSWER,
            },
            text: "",
        });
        end_answer(out, start, asked, edns::options(&errors), stale);
    }

    /// Adds the answer to a question, if it can be cached. In any case removes the entries that the
    /// answer makes obsolete.
    pub(super) fn keep(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        answer: &Message<'_>,
        now: Instant,
    ) -> Kept {
        let status = NameStatus::of(answer);
        let policy = policy_for(answer, question, lookup.wants_proof(), &self.settings);
        if status == NameStatus::Nothing
            && let Some(better) = self.better_than_error(question, lookup, now)
        {
            return Kept::Previous(better);
        }
        let policy = match policy {
            Some(error) if error.is_error => {
                let lifetime = self.pause_after_error(question, lookup, now);
                Some(CachePolicy { lifetime, ..error })
            }
            other => other,
        };
        self.end_older(question, lookup, status, true, now);
        let Some(policy) = policy else {
            return Kept::No;
        };
        let key = key_for(policy.extent, question, lookup);
        // The pause of an error starts at the next tick, so that it is not shortened.
        let received_at = if policy.is_error {
            self.tick(now + TICK.saturating_sub(Duration::from_nanos(1)))
        } else {
            self.tick(now)
        };
        let head = entry::compose(&mut self.scratch, key, answer, &policy, received_at);
        let Some(head) = head else {
            return Kept::No;
        };
        if !self.store.takes(self.scratch.len()) {
            return Kept::No;
        }
        if status == NameStatus::Nothing {
            for key in keys(question, lookup) {
                if let Some(position) = self.store.find(key) {
                    self.store.remove(position);
                }
            }
        }
        let position = self.store.add(key.hash(), head, &mut self.scratch);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
        let ttls = Ttls::Less(0);
        Kept::Yes(Entry { position, ttls })
    }
}

/// Returns the nearest ancestors of the name in a question whose denials are looked up, from the
/// parent on, without the root.
fn ancestors(question: Question<'_>) -> impl Iterator<Item = &[u8]> {
    let ancestors = name::suffixes(question.name()).skip(1).take(ANCESTORS_MAX);
    ancestors.filter(|name| name.len() > 1)
}

/// Returns the key of an answer of this extent.
fn key_for(extent: Extent, question: Question<'_>, lookup: CacheLookup) -> CacheKey<'_> {
    match extent {
        Extent::Question => CacheKey::of(question, lookup),
        Extent::Name | Extent::Subtree => CacheKey::of_denial(question, lookup),
    }
}

/// Returns the keys that an answer to the question may have, the more likely one first.
fn keys(question: Question<'_>, lookup: CacheLookup) -> [CacheKey<'_>; 2] {
    [
        CacheKey::of(question, lookup),
        CacheKey::of_denial(question, lookup),
    ]
}

/// Returns the whole seconds of a duration.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Returns the whole ticks of a duration.
fn ticks(duration: Duration) -> u32 {
    let begun = u64::from(duration.subsec_nanos() / TICK.subsec_nanos());
    let whole = duration.as_secs().saturating_mul(TICKS.into());
    u32::try_from(whole.saturating_add(begun)).unwrap_or(u32::MAX)
}

/// The number of bytes of scratch space that are kept. What a long answer took beyond them is
/// released.
const SCRATCH_KEPT: usize = 4096;
