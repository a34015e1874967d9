//! Answers that are known already.
//!
//! An answer is kept as the octets that a response to the same question has behind it, so that a
//! response is a copy with other TTLs. It depends on the question and on what else the query asked
//! for, its [`Variant`]. What belongs to one client or one hop, OPT above all, is not kept.
//!
//! - `keeping`: which answers are kept, for what, and for how long
//! - `key`: what an answer is found by
//! - `newer`: what a newer reply ends
//! - `pauses`: when upstream is asked again for what is known
//! - `entry`: what is kept of one
//! - `store`: all of them, within a budget that is never exceeded
//! - `cells`, `index`: its memory, and the way to an entry

mod blocks;
mod entry;
pub(super) mod failures;
mod index;
mod key;
mod newer;
mod pauses;
mod policy;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub(super) use key::{CacheLookup, Variant};

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use crate::base::random::SEED_LEN;
use crate::base::time::Instant;
use crate::config::{CacheSettings, Timeouts};
use crate::wire::edns::{self, ExtendedError, ExtendedErrorCode};
use crate::wire::response::{Asked, CUT_LOOKAHEAD_LEN, end_answer, end_cut_answer, start_answer};
use crate::wire::{Message, Question, Rcode, name, octets};

use entry::Marks;
use key::Key;
use newer::NameStatus;
use pauses::{ASKED, prefetch_window};
use policy::{Extent, Keeping, keeping};
use store::Store;

/// Ticks of the cache's clock in a second: a lifetime of a few seconds is divided finely enough, and
/// 32 bits last for 17 years.
const TICKS: u32 = 8;

/// A tick.
const TICK: Duration = Duration::from_millis(1000 / TICKS as u64);

/// Seconds for which a client may keep an answer that is no longer fresh (RFC 8767, section 5).
const STALE_TTL: u32 = 30;

/// Names above one that may have been denied with all that is below: those nearest to it.
const ANCESTORS_MAX: usize = 16;

/// An entry that was found, until the cache is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    place: u32,
    ttls: Ttls,
}

impl Entry {
    /// Whether it is no longer fresh.
    pub(super) fn is_stale(self) -> bool {
        self.ttls == Ttls::Stale
    }
}

/// The TTLs that records have in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ttls {
    /// Less by so many seconds.
    Less(u32),
    /// That of records that are no longer fresh.
    Stale,
}

impl Ttls {
    /// The TTL in a response of a record that is kept with this one, in seconds.
    fn of(self, kept: u32) -> u32 {
        match self {
            Self::Less(age) => kept.saturating_sub(age),
            Self::Stale => STALE_TTL,
        }
    }
}

/// What the cache has for a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recall {
    /// An answer.
    Fresh {
        entry: Entry,
        /// Upstream should be asked again: the answer is much wanted and its end is near.
        is_ask_due: bool,
    },
    /// An error, during whose pause upstream is not asked (RFC 9520).
    Failed(Entry),
    /// An answer that is no longer fresh, if upstream has none.
    Stale(Entry),
    /// An answer that is no longer fresh, since upstream had none a short time ago.
    StaleInUse {
        entry: Entry,
        /// Upstream should be asked again.
        is_ask_due: bool,
    },
    /// Nothing.
    Nothing,
}

impl Recall {
    /// Returns whether no other entry can be better.
    fn is_final(&self) -> bool {
        matches!(self, Self::Fresh { .. } | Self::Failed(_))
    }
}

/// What has become of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// It is an entry.
    Yes(Entry),
    /// It is an error, and there is something better.
    Previous(Entry),
    /// It is for who asked alone.
    No,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUsage {
    /// Answers that are known.
    pub entries: usize,
    /// Octets of memory that they take.
    pub octets: usize,
    /// Answers that had to go for others since the start.
    pub evicted: u64,
}

impl fmt::Display for CacheUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            entries,
            octets,
            evicted,
        } = self;
        write!(f, "entries={entries} octets={octets} evicted={evicted}")
    }
}

/// The answers that are known. See the [module](self).
#[derive(Debug)]
pub(super) struct Cache {
    settings: CacheSettings,
    timeouts: Timeouts,
    store: Store,
    /// Keyed, so that clients cannot choose names that get in each other's way.
    hasher: DefaultHasher,
    /// The tick in which things last changed for the better: errors from before are void, and
    /// what stands in since before may do so no longer.
    better_since: u32,
    /// Ticks that the host has slept, in which our clock stood still.
    asleep: u32,
    scratch: Vec<u8>,
}

impl Cache {
    /// An empty cache.
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
            better_since: 0,
            asleep: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether there is a cache at all.
    pub(super) fn is_on(&self) -> bool {
        self.store.has_cells()
    }

    /// What it holds, and what that takes.
    pub(super) fn usage(&self) -> CacheUsage {
        self.store.usage()
    }

    /// Goes on with these settings. Forgets all answers, and gives their memory back.
    pub(super) fn reconfigure(&mut self, settings: &CacheSettings, timeouts: &Timeouts) {
        self.settings = *settings;
        self.timeouts = *timeouts;
        self.store.start_over(settings.size);
    }

    /// Takes note that what upstream could not answer before, it may now.
    pub(super) fn on_recovery(&mut self, now: Instant) {
        self.better_since = self.tick(now);
    }

    /// Takes note that the host has slept for so long.
    pub(super) fn on_sleep(&mut self, slept: Duration) {
        self.asleep = self.asleep.saturating_add(ticks(slept));
    }

    /// The current tick, counting those in which the host slept. None is zero.
    fn tick(&self, now: Instant) -> u32 {
        let awake = ticks(now - Instant::default());
        awake.saturating_add(self.asleep).saturating_add(1)
    }

    /// What is sought for a query; `None` if its answer is not known and will not be.
    pub(super) fn sought(&self, query: &Message<'_>) -> Option<CacheLookup> {
        let question = query.question().filter(|_| self.is_on())?;
        let variant = Variant::of(query)?;
        Some(CacheLookup::new(question.name(), variant, &self.hasher))
    }

    /// What there is for this query. An answer that is fresh is taken to be of use.
    pub(super) fn recall(
        &mut self,
        question: Question<'_>,
        sought: CacheLookup,
        now: Instant,
    ) -> Recall {
        let exact = self.store.find(Key::of(question, sought));
        if exact.is_none() && self.has_none(question, sought) {
            return Recall::Nothing;
        }
        let recall = self.recall_at(exact, now);
        if recall.is_final() {
            return recall;
        }
        let denial = self.store.find(Key::of_denial(question, sought));
        // A denial of the name came later: what takes its place takes it away.
        let stale = match self.recall_at(denial, now) {
            Recall::Nothing => recall,
            later if later.is_final() => return later,
            later => later,
        };
        self.recall_error_of_others(question, sought, now, stale)
    }

    /// What there is for this query if its own variant has nothing, or this that is stale: an error
    /// for the variant with the other DO holds for both.
    fn recall_error_of_others(
        &self,
        question: Question<'_>,
        sought: CacheLookup,
        now: Instant,
        stale: Recall,
    ) -> Recall {
        let other = sought.in_variant(sought.variant().with_other_proof());
        let place = self.store.find(Key::of(question, other));
        let Some(Recall::Failed(error)) = place.map(|place| self.judge(place, now)) else {
            return stale;
        };
        match stale {
            Recall::Stale(entry) | Recall::StaleInUse { entry, .. } => Recall::StaleInUse {
                entry,
                is_ask_due: false,
            },
            _ => Recall::Failed(error),
        }
    }

    /// The denial of a name above that of this question, which is one of the question's name, too
    /// (RFC 8020), if there is one. Only names count that `is_alike`.
    pub(super) fn denial_above(
        &mut self,
        question: Question<'_>,
        sought: CacheLookup,
        now: Instant,
        is_alike: impl Fn(&[u8]) -> bool,
    ) -> Option<Entry> {
        if !self.store.has_below() || sought.wants_proof() {
            return None;
        }
        let ancestors = name::suffixes(question.name()).skip(1).take(ANCESTORS_MAX);
        for name in ancestors.filter(|name| name.len() > 1) {
            let above = CacheLookup::new(name, sought.variant(), &self.hasher);
            let Some(place) = self.store.find(Key::of_name(name, above)) else {
                continue;
            };
            let is_for_all = self.store.head(place).marks.contains(Marks::BELOW);
            if let Recall::Fresh { entry, .. } = self.judge(place, now)
                && is_for_all
                && is_alike(name)
            {
                self.touch(place);
                return Some(entry);
            }
        }
        None
    }

    /// Judges an entry if there is one. Counts the use of an entry that is the answer.
    fn recall_at(&mut self, place: Option<u32>, now: Instant) -> Recall {
        let Some(place) = place else {
            return Recall::Nothing;
        };
        let recall = self.judge(place, now);
        if recall.is_final() {
            self.touch(place);
        }
        recall
    }

    /// What an entry is good for by now.
    fn judge(&self, place: u32, at: Instant) -> Recall {
        let head = self.store.head(place);
        let now = self.tick(at);
        let age = now.saturating_sub(head.came);
        let lifetime = head.lifetime.saturating_mul(TICKS);
        let is_error = head.marks.contains(Marks::ERROR);
        if age < lifetime {
            let ttls = Ttls::Less(age / TICKS);
            let entry = Entry { place, ttls };
            if is_error {
                let is_void =
                    head.came <= self.better_since && age >= ticks(self.timeouts.failed_min);
                return if is_void {
                    Recall::Nothing
                } else {
                    Recall::Failed(entry)
                };
            }
            let is_ask_due = self.settings.prefetch
                && lifetime - age <= prefetch_window(lifetime)
                && head.marks.hits() > 0
                && head.ask_from <= now;
            return Recall::Fresh { entry, is_ask_due };
        }
        if is_error || age - lifetime >= ticks(self.settings.stale_max) {
            return Recall::Nothing;
        }
        let ttls = Ttls::Stale;
        let entry = Entry { place, ttls };
        match head.ask_from {
            0 => Recall::Stale(entry),
            from if head.marks.contains(Marks::ASKED_AGAIN) => {
                if from > now && from != ASKED {
                    Recall::StaleInUse {
                        entry,
                        is_ask_due: false,
                    }
                } else {
                    Recall::Stale(entry)
                }
            }
            from => Recall::StaleInUse {
                entry,
                is_ask_due: from <= now
                    || from <= self.better_since.saturating_add(self.stale_pause()),
            },
        }
    }

    /// Takes note that an entry was of use.
    fn touch(&mut self, place: u32) {
        self.store.mark(place, |marks| {
            marks.insert(Marks::VISITED);
            marks.count_hit();
        });
    }

    /// Appends the response with this answer, at most of the length that is asked for.
    pub(super) fn write(&self, entry: Entry, asked: &Asked<'_>, out: &mut Vec<u8>) {
        let head = self.store.head(entry.place);
        let start = start_answer(out, asked, head.flags, head.counts);
        let records_start = out.len();
        let records_len_max = asked.records_len_max();
        if usize::from(head.records_len) > records_len_max {
            let read_len = records_len_max + CUT_LOOKAHEAD_LEN;
            for part in self
                .store
                .read(entry.place, head.records_start_range(read_len))
            {
                octets::append(out, part);
            }
            let ttl = |ttl| entry.ttls.of(ttl);
            return end_cut_answer(out, start, asked, head.counts, ttl);
        }
        let records_end = records_start + usize::from(head.records_len);
        for part in self.store.read(entry.place, head.records_range()) {
            octets::append(out, part);
        }
        for at in (records_end..out.len()).step_by(size_of::<u16>()) {
            let position = u16::from_le_bytes([out[at], out[at + 1]]);
            let ttl = out[records_start + usize::from(position)..].first_chunk_mut();
            let ttl = ttl.expect("a TTL has four octets");
            *ttl = entry.ttls.of(u32::from_be_bytes(*ttl)).to_be_bytes();
        }
        out.truncate(records_end);
        let mut errors = Vec::new();
        for part in self.store.read(entry.place, head.errors_range()) {
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

    /// Keeps the answer to a question, if it can be kept. Ends what the answer makes obsolete in any
    /// case.
    pub(super) fn keep(
        &mut self,
        question: Question<'_>,
        sought: CacheLookup,
        answer: &Message<'_>,
        now: Instant,
    ) -> Kept {
        let news = NameStatus::of(answer);
        let keeping = keeping(answer, question, sought.wants_proof(), &self.settings);
        if news == NameStatus::Nothing
            && let Some(better) = self.better_than_error(question, sought, now)
        {
            return Kept::Previous(better);
        }
        let keeping = match keeping {
            Some(error) if error.is_error => {
                let lifetime = self.pause_after_error(question, sought, now);
                Some(Keeping { lifetime, ..error })
            }
            other => other,
        };
        self.end_older(question, sought, news, true, now);
        let Some(keeping) = keeping else {
            return Kept::No;
        };
        let key = match keeping.extent {
            Extent::Question => Key::of(question, sought),
            Extent::Name | Extent::Subtree => Key::of_denial(question, sought),
        };
        // The pause of an error is not shortened by the tick that has begun.
        let came = if keeping.is_error {
            self.tick(now + TICK.saturating_sub(Duration::from_nanos(1)))
        } else {
            self.tick(now)
        };
        let head = entry::compose(&mut self.scratch, key, answer, &keeping, came);
        let Some(head) = head.filter(|_| self.store.takes(self.scratch.len())) else {
            return Kept::No;
        };
        if news == NameStatus::Nothing {
            for key in keys(question, sought) {
                if let Some(place) = self.store.find(key) {
                    self.store.remove(place);
                }
            }
        }
        let place = self.store.add(key.hash(), head, &mut self.scratch);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
        let ttls = Ttls::Less(0);
        Kept::Yes(Entry { place, ttls })
    }
}

/// The keys that an answer may be under, the more likely first.
fn keys(question: Question<'_>, sought: CacheLookup) -> [Key<'_>; 2] {
    [Key::of(question, sought), Key::of_denial(question, sought)]
}

/// Whole seconds.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Whole ticks.
fn ticks(duration: Duration) -> u32 {
    let begun = u64::from(duration.subsec_nanos() / TICK.subsec_nanos());
    let whole = duration.as_secs().saturating_mul(TICKS.into());
    u32::try_from(whole.saturating_add(begun)).unwrap_or(u32::MAX)
}

/// Octets of scratch space that stay; what a long answer took beyond goes back.
const SCRATCH_KEPT: usize = 4096;
