//! Memory for entries of any length: chains of cells of one size, all of them counted.
//!
//! A general allocator rounds lengths and leaves holes, so its usage cannot be limited exactly. The
//! usage of cells is known in advance. The kernel maps the memory of a cell when it is first used.

use std::ops::Range;

/// The size of a cell in bytes: a line of the processor's cache.
pub(super) const CELL_LEN: usize = 64;

/// The capacity of a cell in bytes.
pub(super) const CELL_ROOM: usize = CELL_LEN - size_of::<u32>();

/// The index of no cell.
pub(super) const NONE: u32 = u32::MAX;

/// A block of bytes and the index of the next cell of its chain.
#[derive(Debug)]
#[repr(align(64))]
struct Cell {
    bytes: [u8; CELL_ROOM],
    next: u32,
}

/// The cells, in use and free.
#[derive(Debug)]
pub(super) struct Cells {
    all: Vec<Cell>,
    most: usize,
    /// The first cell of the free list.
    free: u32,
    free_len: usize,
}

impl Cells {
    /// Creates up to `most` cells, or none if the host does not have enough memory.
    pub(super) fn new(most: usize) -> Self {
        let mut cells = Vec::new();
        let result = cells.try_reserve_exact(most.min(NONE as usize));
        if let Err(error) = result {
            log::error!("cannot allocate the cache: {error}: set a smaller --cache-size");
        }
        Self {
            most: cells.capacity(),
            all: cells,
            free: NONE,
            free_len: 0,
        }
    }

    /// Returns the number of cells in a chain of `len` bytes.
    pub(super) fn needed_for(len: usize) -> usize {
        len.div_ceil(CELL_ROOM)
    }

    /// Returns the maximum number of cells.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Returns the number of cells in use.
    pub(super) fn used(&self) -> usize {
        self.all.len() - self.free_len
    }

    /// Returns the number of cells that can still be used.
    pub(super) fn room(&self) -> usize {
        self.most - self.used()
    }

    /// Stores whole cells of bytes, for which there must be [room](Cells::room). Returns the first
    /// cell.
    pub(super) fn store(&mut self, blocks: &[[u8; CELL_ROOM]]) -> u32 {
        let mut first = NONE;
        let mut last = NONE;
        for block in blocks {
            let place = self.take();
            self.all[place as usize] = Cell {
                bytes: *block,
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
            let place = u32::try_from(self.all.len()).expect("cell indexes fit in 32 bits");
            self.all.push(Cell {
                bytes: [0; CELL_ROOM],
                next: NONE,
            });
            return place;
        }
        let place = self.free;
        self.free = self.all[place as usize].next;
        self.free_len -= 1;
        place
    }

    /// Releases a chain.
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

    /// Returns the content of the first cell of a chain.
    pub(super) fn start(&self, first: u32) -> &[u8; CELL_ROOM] {
        &self.all[first as usize].bytes
    }

    /// Returns the content of the first cell of a chain, mutable.
    pub(super) fn start_mut(&mut self, first: u32) -> &mut [u8; CELL_ROOM] {
        &mut self.all[first as usize].bytes
    }

    /// Returns the bytes between two positions in a chain, in parts.
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
            let part = &self.all[place as usize].bytes[at..];
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

    fn pattern(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| at.to_le_bytes()[0] ^ seed).collect()
    }

    fn store(cells: &mut Cells, bytes: &[u8]) -> u32 {
        let mut whole = bytes.to_vec();
        whole.resize(Cells::needed_for(bytes.len()) * CELL_ROOM, 0);
        cells.store(whole.as_chunks().0)
    }

    #[test]
    fn cell_is_a_line_of_the_processor_cache() {
        assert_eq!(size_of::<Cell>(), CELL_LEN);
    }

    #[test]
    fn stored_bytes_can_be_read_in_part() {
        let mut cells = Cells::new(100);
        for len in [1, 59, 60, 61, 120, 500] {
            let whole = pattern(7, len);
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
    fn released_cells_are_reused() {
        let mut cells = Cells::new(20);
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            let len = 1 + usize::from(round) * 37 % 400;
            while cells.room() < Cells::needed_for(len) {
                let (first, _): (u32, Vec<u8>) = kept.remove(usize::from(round) % kept.len());
                cells.release(first);
            }
            let bytes = pattern(round, len);
            kept.push((store(&mut cells, &bytes), bytes));
            let used: usize = kept.iter().map(|(_, o)| Cells::needed_for(o.len())).sum();
            assert_eq!((cells.used(), cells.room()), (used, 20 - used));
            for (first, bytes) in &kept {
                let read: Vec<u8> = cells
                    .read(*first, 0..bytes.len())
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(&read, bytes);
            }
        }
        assert!(cells.all.len() <= 20);
    }
}
