//! The entries of the cache and their eviction.
//!
//! Eviction is SIEVE (Zhang and others, NSDI 2024): a hand moves from the oldest entry to the
//! newest, over and over, and evicts entries that were not used since it passed them. New entries
//! are added ahead of the hand, so the hand might never reach the end, and entries that were used
//! long ago would stay: after many evictions it starts again at the oldest entry.

use std::ops::Range;

use super::CacheUsage;
use super::blocks::{BLOCK_LEN, BLOCK_ROOM, Blocks, NONE};
use super::entry::{Head, MARKS_AT, Marks};
use super::index::Index;
use super::key::{CacheKey, CacheLookup};
use crate::wire::byte_ops;

/// The maximum number of used entries that the hand passes before it evicts one.
const STEPS_MAX: usize = 256;

/// The number of evictions in a round, per entry in the store, after which the hand starts again at
/// the oldest entry.
const ROUND_EVICTIONS_PER_ENTRY_MAX: usize = 8;

/// An entry may take this fraction of all blocks: 1/8.
const PART_MAX: usize = 8;

/// Bytes of the index per entry.
const INDEX_SLOT_LEN: usize = Index::size(1_000_000) / 1_000_000;

/// The minimum length of an entry, which has two blocks or more, in bytes.
const ENTRY_LEN: usize = 2 * BLOCK_LEN + INDEX_SLOT_LEN;

/// Entries by key, within a memory budget. An entry is identified by the index of its first block.
#[derive(Debug)]
pub(super) struct Store {
    blocks: Blocks,
    index: Index,
    newest: u32,
    oldest: u32,
    /// The next entry for the hand, or `NONE` for the oldest.
    hand: u32,
    /// The number of evictions since the hand started at the oldest entry.
    evicted_in_round: usize,
    /// The number of entries that deny every name below theirs.
    subtree_denials: usize,
    evicted: u64,
}

impl Store {
    /// Creates a store of `size` bytes, all overhead included.
    pub(super) fn new(size: usize) -> Self {
        let entries = size / ENTRY_LEN;
        let blocks = size.saturating_sub(Index::size(entries)) / BLOCK_LEN;
        Self {
            blocks: Blocks::new(blocks),
            index: Index::new(entries),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            evicted_in_round: 0,
            subtree_denials: 0,
            evicted: 0,
        }
    }

    /// Returns whether the store has any memory.
    pub(super) fn has_blocks(&self) -> bool {
        self.blocks.most() > 0
    }

    /// Returns the usage of the store.
    pub(super) fn usage(&self) -> CacheUsage {
        CacheUsage {
            entries: self.index.len(),
            bytes: self.blocks.used() * BLOCK_LEN + self.index.len() * INDEX_SLOT_LEN,
            evicted: self.evicted,
        }
    }

    /// Removes everything, releases the memory, and continues with a budget of `size` bytes.
    pub(super) fn start_over(&mut self, size: usize) {
        *self = Self {
            evicted: self.evicted,
            ..Self::new(size)
        };
    }

    /// Returns whether an entry denies every name below its own.
    pub(super) fn has_subtree_denials(&self) -> bool {
        self.subtree_denials > 0
    }

    /// Returns the entry of a key.
    pub(super) fn find(&self, key: CacheKey<'_>) -> Option<u32> {
        self.index.find(key.hash(), |position| {
            let head = self.head(position);
            let range = head.name_range();
            head.kind == key.kind()
                && range.len() == key.name().len()
                && key.is_named(self.read(position, range))
        })
    }

    /// Returns whether an entry for the name of a lookup may exist, in any variant, for a common
    /// type or as the denial of the name.
    pub(super) fn may_have_common(&self, lookup: CacheLookup) -> bool {
        self.index.has_any(CacheKey::common_hashes(lookup))
    }

    /// Returns the head of an entry.
    pub(super) fn head(&self, position: u32) -> Head {
        Head::read(self.blocks.start(position))
    }

    /// Returns all entries in the order of insertion.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = u32> {
        let known = |position: u32| (position != NONE).then_some(position);
        std::iter::successors(known(self.oldest), move |position| {
            known(self.head(*position).newer)
        })
    }

    /// Returns the bytes of an entry in a range, in parts.
    pub(super) fn read(&self, position: u32, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.blocks.read(position, range)
    }

    /// Changes the head of an entry.
    pub(super) fn update(&mut self, position: u32, change: impl FnOnce(&mut Head)) {
        let bytes = self.blocks.start_mut(position);
        let mut head = Head::read(bytes);
        change(&mut head);
        head.write(bytes.first_chunk_mut().expect("a block holds a head"));
    }

    /// Changes the marks of an entry.
    pub(super) fn mark(&mut self, position: u32, change: impl FnOnce(&mut Marks)) {
        let bytes = self.blocks.start_mut(position);
        let mut marks = Marks(bytes[MARKS_AT]);
        change(&mut marks);
        bytes[MARKS_AT] = marks.0;
    }

    /// Returns whether an entry of this length in bytes is not too large.
    pub(super) fn takes(&self, len: usize) -> bool {
        Blocks::needed_for(len) <= self.blocks.most() / PART_MAX
    }

    /// Adds an entry under this hash and evicts others if there is no room. The bytes of `entry`
    /// begin with room for its head. The store must [accept](Store::takes) its length.
    pub(super) fn add(&mut self, hash: u32, mut head: Head, entry: &mut Vec<u8>) -> u32 {
        let needed = Blocks::needed_for(entry.len());
        while self.blocks.room() < needed || !self.index.has_room() {
            self.evict();
        }
        (head.hash, head.newer, head.older) = (hash, NONE, self.newest);
        head.write(
            entry
                .first_chunk_mut()
                .expect("an entry begins with room for its head"),
        );
        let rest = needed * BLOCK_ROOM - entry.len();
        byte_ops::append(entry, &[0; BLOCK_ROOM][..rest]);
        let position = self.blocks.store(entry.as_chunks().0);
        match self.newest {
            NONE => self.oldest = position,
            newest => Head::set_newer(self.blocks.start_mut(newest), position),
        }
        self.newest = position;
        self.index.insert(head.hash, position);
        self.subtree_denials += usize::from(head.marks.contains(Marks::SUBTREE));
        position
    }

    fn evict(&mut self) {
        if self.evicted_in_round >= ROUND_EVICTIONS_PER_ENTRY_MAX * self.index.len() {
            self.hand = NONE;
        }
        for _ in 0..STEPS_MAX {
            let position = self.at_hand();
            let head = self.head(position);
            if !head.marks.contains(Marks::VISITED) {
                break;
            }
            self.mark(position, |marks| marks.remove(Marks::VISITED));
            self.hand = head.newer;
        }
        let position = self.at_hand();
        self.remove(position);
        self.evicted_in_round += 1;
        self.evicted += 1;
    }

    /// Returns the entry at the hand, which starts again at the oldest entry after the newest one.
    fn at_hand(&mut self) -> u32 {
        if self.hand == NONE {
            self.hand = self.oldest;
            self.evicted_in_round = 0;
        }
        self.hand
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, position: u32) {
        let head = self.head(position);
        self.index.remove(head.hash, position);
        match head.older {
            NONE => self.oldest = head.newer,
            older => Head::set_newer(self.blocks.start_mut(older), head.newer),
        }
        match head.newer {
            NONE => self.newest = head.older,
            newer => Head::set_older(self.blocks.start_mut(newer), head.older),
        }
        if self.hand == position {
            self.hand = head.newer;
        }
        self.subtree_denials -= usize::from(head.marks.contains(Marks::SUBTREE));
        self.blocks.release(position);
    }
}
