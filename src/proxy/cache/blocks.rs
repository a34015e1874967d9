//! Memory for entries of any length: chains of blocks of one size, all of them counted.
//!
//! A general allocator rounds lengths and leaves holes, so its usage cannot be limited exactly. The
//! usage of blocks is known in advance. The kernel maps the memory of a block when the block is
//! first used.

use std::ops::Range;

/// The size of a block in bytes: a line of the processor's cache.
pub(super) const BLOCK_LEN: usize = 64;

/// The capacity of a block in bytes.
pub(super) const BLOCK_ROOM: usize = BLOCK_LEN - size_of::<u32>();

/// The index of no block.
pub(super) const NONE: u32 = u32::MAX;

/// A block of bytes and the index of the next block of its chain.
#[derive(Debug)]
#[repr(align(64))]
struct Block {
    bytes: [u8; BLOCK_ROOM],
    next: u32,
}

/// The blocks, in use and free.
#[derive(Debug)]
pub(super) struct Blocks {
    all: Vec<Block>,
    most: usize,
    /// The first block of the free list.
    free: u32,
    free_len: usize,
}

impl Blocks {
    /// Creates up to `most` blocks, or none if the host does not have enough memory.
    pub(super) fn new(most: usize) -> Self {
        let mut blocks = Vec::new();
        let result = blocks.try_reserve_exact(most.min(NONE as usize));
        if let Err(error) = result {
            log::error!("cannot allocate the cache: {error}: set a smaller --cache-size");
        }
        Self {
            most: blocks.capacity(),
            all: blocks,
            free: NONE,
            free_len: 0,
        }
    }

    /// Returns the number of blocks in a chain of `len` bytes.
    pub(super) fn needed_for(len: usize) -> usize {
        len.div_ceil(BLOCK_ROOM)
    }

    /// Returns the maximum number of blocks.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Returns the number of blocks in use.
    pub(super) fn used(&self) -> usize {
        self.all.len() - self.free_len
    }

    /// Returns the number of blocks that can still be used.
    pub(super) fn room(&self) -> usize {
        self.most - self.used()
    }

    /// Stores whole blocks of bytes, for which there must be [room](Blocks::room). Returns the
    /// first block.
    pub(super) fn store(&mut self, blocks: &[[u8; BLOCK_ROOM]]) -> u32 {
        let mut first = NONE;
        let mut last = NONE;
        for block in blocks {
            let position = self.take();
            self.all[position as usize] = Block {
                bytes: *block,
                next: NONE,
            };
            match last {
                NONE => first = position,
                last => self.all[last as usize].next = position,
            }
            last = position;
        }
        first
    }

    fn take(&mut self) -> u32 {
        if self.free == NONE {
            let position = u32::try_from(self.all.len()).expect("block indexes fit in 32 bits");
            self.all.push(Block {
                bytes: [0; BLOCK_ROOM],
                next: NONE,
            });
            return position;
        }
        let position = self.free;
        self.free = self.all[position as usize].next;
        self.free_len -= 1;
        position
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

    /// Returns the content of the first block of a chain.
    pub(super) fn start(&self, first: u32) -> &[u8; BLOCK_ROOM] {
        &self.all[first as usize].bytes
    }

    /// Returns the content of the first block of a chain, mutable.
    pub(super) fn start_mut(&mut self, first: u32) -> &mut [u8; BLOCK_ROOM] {
        &mut self.all[first as usize].bytes
    }

    /// Returns the bytes between two positions in a chain, in parts.
    pub(super) fn read(&self, first: u32, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let (mut position, mut at, mut left) = (first, range.start, range.len());
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            while at >= BLOCK_ROOM {
                position = self.all[position as usize].next;
                at -= BLOCK_ROOM;
            }
            let part = &self.all[position as usize].bytes[at..];
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

    fn store(blocks: &mut Blocks, bytes: &[u8]) -> u32 {
        let mut whole = bytes.to_vec();
        whole.resize(Blocks::needed_for(bytes.len()) * BLOCK_ROOM, 0);
        blocks.store(whole.as_chunks().0)
    }

    #[test]
    fn block_is_a_line_of_the_processor_cache() {
        assert_eq!(size_of::<Block>(), BLOCK_LEN);
    }

    #[test]
    fn stored_bytes_can_be_read_in_part() {
        let mut blocks = Blocks::new(100);
        for len in [1, 59, 60, 61, 120, 500] {
            let whole = pattern(7, len);
            let first = store(&mut blocks, &whole);
            for range in [0..len, 0..1, len - 1..len, len / 3..len / 2, len / 2..len] {
                let read: Vec<u8> = blocks
                    .read(first, range.clone())
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(read, whole[range]);
            }
            assert_eq!(blocks.used(), Blocks::needed_for(len));
            blocks.release(first);
        }
    }

    #[test]
    fn released_blocks_are_reused() {
        let mut blocks = Blocks::new(20);
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            let len = 1 + usize::from(round) * 37 % 400;
            while blocks.room() < Blocks::needed_for(len) {
                let (first, _): (u32, Vec<u8>) = kept.remove(usize::from(round) % kept.len());
                blocks.release(first);
            }
            let bytes = pattern(round, len);
            kept.push((store(&mut blocks, &bytes), bytes));
            let used: usize = kept.iter().map(|(_, o)| Blocks::needed_for(o.len())).sum();
            assert_eq!((blocks.used(), blocks.room()), (used, 20 - used));
            for (first, bytes) in &kept {
                let read: Vec<u8> = blocks
                    .read(*first, 0..bytes.len())
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(&read, bytes);
            }
        }
        assert!(blocks.all.len() <= 20);
    }
}
