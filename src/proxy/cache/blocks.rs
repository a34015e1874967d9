//! Memory for things of any length, all of it counted: chains of cells of one size.
//!
//! A general allocator rounds lengths, leaves holes and tells nobody. Here every octet is known
//! beforehand, whatever comes and goes. The system gives a cell its memory when it is first used.

use std::ops::Range;

/// Octets that a cell takes: a line of the processor's cache.
pub(super) const CELL_LEN: usize = 64;

/// Octets that a cell holds.
pub(super) const CELL_ROOM: usize = CELL_LEN - size_of::<u32>();

/// No cell.
pub(super) const NONE: u32 = u32::MAX;

/// Some octets, and where the chain goes on.
#[derive(Debug)]
#[repr(align(64))]
struct Cell {
    octets: [u8; CELL_ROOM],
    next: u32,
}

/// Cells, those in use and those that were.
#[derive(Debug)]
pub(super) struct Cells {
    all: Vec<Cell>,
    most: usize,
    /// The first of the cells that were given back.
    free: u32,
    free_len: usize,
}

impl Cells {
    /// At most so many cells, or none if the host does not have that much memory.
    pub(super) fn new(most: usize) -> Self {
        let mut cells = Vec::new();
        let result = cells.try_reserve_exact(most.min(NONE as usize));
        if let Err(error) = result {
            log::error!("no memory for known answers ({error}): a smaller --cache-size may do");
        }
        Self {
            most: cells.capacity(),
            all: cells,
            free: NONE,
            free_len: 0,
        }
    }

    /// Cells in a chain that holds so many octets.
    pub(super) fn needed_for(octets: usize) -> usize {
        octets.div_ceil(CELL_ROOM)
    }

    /// How many cells there may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Cells that are in use.
    pub(super) fn used(&self) -> usize {
        self.all.len() - self.free_len
    }

    /// Cells that can be had.
    pub(super) fn room(&self) -> usize {
        self.most - self.used()
    }

    /// Keeps octets, for which there must be [room](Cells::room), in whole cells. Returns the first
    /// cell.
    pub(super) fn store(&mut self, octets: &[[u8; CELL_ROOM]]) -> u32 {
        let mut first = NONE;
        let mut last = NONE;
        for part in octets {
            let place = self.take();
            self.all[place as usize] = Cell {
                octets: *part,
                next: NONE,
            };
            match last {
                NONE => first = place,
                last => self.all[last as usize].next = place,
            }
            last = place;
        }
        first
    }

    fn take(&mut self) -> u32 {
        if self.free == NONE {
            let place = u32::try_from(self.all.len()).expect("there are fewer cells");
            self.all.push(Cell {
                octets: [0; CELL_ROOM],
                next: NONE,
            });
            return place;
        }
        let place = self.free;
        self.free = self.all[place as usize].next;
        self.free_len -= 1;
        place
    }

    /// Gives a chain back.
    pub(super) fn release(&mut self, first: u32) {
        let mut last = first;
        self.free_len += 1;
        while self.all[last as usize].next != NONE {
            last = self.all[last as usize].next;
            self.free_len += 1;
        }
        self.all[last as usize].next = self.free;
        self.free = first;
    }

    /// What the first cell of a chain holds.
    pub(super) fn start(&self, first: u32) -> &[u8; CELL_ROOM] {
        &self.all[first as usize].octets
    }

    /// What the first cell of a chain holds.
    pub(super) fn start_mut(&mut self, first: u32) -> &mut [u8; CELL_ROOM] {
        &mut self.all[first as usize].octets
    }

    /// The octets between two positions in a chain, in parts.
    pub(super) fn read(&self, first: u32, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let (mut place, mut at, mut left) = (first, range.start, range.len());
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            while at >= CELL_ROOM {
                place = self.all[place as usize].next;
                at -= CELL_ROOM;
            }
            let part = &self.all[place as usize].octets[at..];
            let part = &part[..left.min(part.len())];
            left -= part.len();
            at += part.len();
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| at.to_le_bytes()[0] ^ seed).collect()
    }

    fn store(cells: &mut Cells, octets: &[u8]) -> u32 {
        let mut whole = octets.to_vec();
        whole.resize(Cells::needed_for(octets.len()) * CELL_ROOM, 0);
        cells.store(whole.as_chunks().0)
    }

    #[test]
    fn cell_is_a_line_of_the_cache() {
        assert_eq!(size_of::<Cell>(), CELL_LEN);
    }

    #[test]
    fn what_is_stored_can_be_read_in_part() {
        let mut cells = Cells::new(100);
        for len in [1, 59, 60, 61, 120, 500] {
            let whole = octets(7, len);
            let first = store(&mut cells, &whole);
            for range in [0..len, 0..1, len - 1..len, len / 3..len / 2, len / 2..len] {
                let read: Vec<u8> = cells
                    .read(first, range.clone())
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(read, whole[range]);
            }
            assert_eq!(cells.used(), Cells::needed_for(len));
            cells.release(first);
        }
    }

    #[test]
    fn cells_are_used_again() {
        let mut cells = Cells::new(20);
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            let len = 1 + usize::from(round) * 37 % 400;
            while cells.room() < Cells::needed_for(len) {
                let (first, _): (u32, Vec<u8>) = kept.remove(usize::from(round) % kept.len());
                cells.release(first);
            }
            let octets = octets(round, len);
            kept.push((store(&mut cells, &octets), octets));
            let used: usize = kept.iter().map(|(_, o)| Cells::needed_for(o.len())).sum();
            assert_eq!((cells.used(), cells.room()), (used, 20 - used));
            for (first, octets) in &kept {
                let read: Vec<u8> = cells
                    .read(*first, 0..octets.len())
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(&read, octets);
            }
        }
        assert!(cells.all.len() <= 20);
    }
}
