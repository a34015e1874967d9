//! The memory of the cache, and what has to go for something new.
//!
//! What goes is found by SIEVE (Zhang and others, NSDI 2024): a hand goes from the oldest entry to
//! the newest, over and over, and takes away what has not been of use since it came by. New entries
//! come where the hand is going, so it might never arrive, and what was of use long ago would stay:
//! once it has taken many, it starts again.

use std::ops::Range;

use super::CacheUsage;
use super::blocks::{CELL_LEN, CELL_ROOM, Cells, NONE};
use super::entry::{Head, MARKS_AT, Marks};
use super::index::Index;
use super::key::{CacheLookup, Key};
use crate::wire::octets;

/// Entries that the hand goes past before it takes one that has been of use.
const STEPS_MAX: usize = 256;

/// How many times as many as there are the hand takes before it starts again.
const TAKEN_MAX: usize = 8;

/// An entry may take this part of all cells.
const PART_MAX: usize = 8;

/// Octets of the index for an entry.
const PLACE_LEN: usize = Index::size(1_000_000) / 1_000_000;

/// The least that an entry takes, which has two cells or more.
const ENTRY_LEN: usize = 2 * CELL_LEN + PLACE_LEN;

/// Entries by key, within a budget. An entry is known by the place of its first cell.
#[derive(Debug)]
pub(super) struct Store {
    cells: Cells,
    index: Index,
    newest: u32,
    oldest: u32,
    /// Where the hand looks next: at the oldest, if nowhere.
    hand: u32,
    /// Entries that the hand has taken since it started.
    taken: usize,
    /// Entries that answer every name below theirs.
    below: usize,
    evicted: u64,
}

impl Store {
    /// Room for so many octets, all that it takes included.
    pub(super) fn new(size: usize) -> Self {
        let entries = size / ENTRY_LEN;
        let cells = size.saturating_sub(Index::size(entries)) / CELL_LEN;
        Self {
            cells: Cells::new(cells),
            index: Index::new(entries),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            taken: 0,
            below: 0,
            evicted: 0,
        }
    }

    /// Whether there is room for anything at all.
    pub(super) fn has_cells(&self) -> bool {
        self.cells.most() > 0
    }

    /// What it holds, and what that takes.
    pub(super) fn usage(&self) -> CacheUsage {
        CacheUsage {
            entries: self.index.len(),
            octets: self.cells.used() * CELL_LEN + self.index.len() * PLACE_LEN,
            evicted: self.evicted,
        }
    }

    /// Forgets everything, and gives the memory back. Has room for so many octets from now on.
    pub(super) fn start_over(&mut self, size: usize) {
        *self = Self {
            evicted: self.evicted,
            ..Self::new(size)
        };
    }

    /// Whether an entry answers every name below its own.
    pub(super) fn has_below(&self) -> bool {
        self.below > 0
    }

    /// The entry of a key.
    pub(super) fn find(&self, key: Key<'_>) -> Option<u32> {
        self.index.find(key.hash(), |place| {
            let head = self.head(place);
            let range = head.name_range();
            head.kind == key.kind()
                && range.len() == key.name().len()
                && key.is_named(self.read(place, range))
        })
    }

    /// Returns whether an entry of a name that is sought may exist, in any variant, for a common
    /// type or as the denial of the name.
    pub(super) fn may_have_common(&self, sought: CacheLookup) -> bool {
        self.index.has_any(Key::common_hashes(sought))
    }

    /// What is known of an entry.
    pub(super) fn head(&self, place: u32) -> Head {
        Head::read(self.cells.start(place))
    }

    /// The octets of an entry, in parts.
    pub(super) fn read(&self, place: u32, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.cells.read(place, range)
    }

    /// Changes what is known of an entry.
    pub(super) fn update(&mut self, place: u32, change: impl FnOnce(&mut Head)) {
        let octets = self.cells.start_mut(place);
        let mut head = Head::read(octets);
        change(&mut head);
        head.write(octets.first_chunk_mut().expect("a cell holds a head"));
    }

    /// Changes the properties of an entry.
    pub(super) fn mark(&mut self, place: u32, change: impl FnOnce(&mut Marks)) {
        let octets = self.cells.start_mut(place);
        let mut marks = Marks(octets[MARKS_AT]);
        change(&mut marks);
        octets[MARKS_AT] = marks.0;
    }

    /// Whether an entry of so many octets can be kept.
    pub(super) fn takes(&self, octets: usize) -> bool {
        Cells::needed_for(octets) <= self.cells.most() / PART_MAX
    }

    /// Keeps an entry under this hash, for which others may have to go. Its octets begin with room
    /// for its head. It must be one that the store [takes](Store::takes).
    pub(super) fn add(&mut self, hash: u32, mut head: Head, entry: &mut Vec<u8>) -> u32 {
        let needed = Cells::needed_for(entry.len());
        while self.cells.room() < needed || !self.index.has_room() {
            self.evict();
        }
        (head.hash, head.newer, head.older) = (hash, NONE, self.newest);
        head.write(entry.first_chunk_mut().expect("there is room for it"));
        let rest = needed * CELL_ROOM - entry.len();
        octets::append(entry, &[0; CELL_ROOM][..rest]);
        let place = self.cells.store(entry.as_chunks().0);
        match self.newest {
            NONE => self.oldest = place,
            newest => Head::set_newer(self.cells.start_mut(newest), place),
        }
        self.newest = place;
        self.index.insert(head.hash, place);
        self.below += usize::from(head.marks.contains(Marks::BELOW));
        place
    }

    fn evict(&mut self) {
        if self.taken >= TAKEN_MAX * self.index.len() {
            self.hand = NONE;
        }
        for _ in 0..STEPS_MAX {
            let place = self.at_hand();
            let head = self.head(place);
            if !head.marks.contains(Marks::VISITED) {
                break;
            }
            self.mark(place, |marks| marks.remove(Marks::VISITED));
            self.hand = head.newer;
        }
        let place = self.at_hand();
        self.remove(place);
        self.taken += 1;
        self.evicted += 1;
    }

    /// What the hand looks at: it starts again from the end.
    fn at_hand(&mut self) -> u32 {
        if self.hand == NONE {
            self.hand = self.oldest;
            self.taken = 0;
        }
        self.hand
    }

    /// Takes an entry away.
    pub(super) fn remove(&mut self, place: u32) {
        let head = self.head(place);
        self.index.remove(head.hash, place);
        match head.older {
            NONE => self.oldest = head.newer,
            older => Head::set_newer(self.cells.start_mut(older), head.newer),
        }
        match head.newer {
            NONE => self.newest = head.older,
            newer => Head::set_older(self.cells.start_mut(newer), head.older),
        }
        if self.hand == place {
            self.hand = head.newer;
        }
        self.below -= usize::from(head.marks.contains(Marks::BELOW));
        self.cells.release(place);
    }
}
