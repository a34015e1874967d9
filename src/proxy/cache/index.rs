//! The hash index of the store: a table in the order of hashes, so that a lookup reads one or two
//! lines of memory.
//!
//! The index of the home slot of a hash is proportional to the hash value. If the home slot is
//! taken, an entry is placed as near below it as the order allows. A lookup therefore goes down
//! from the home slot and ends at the first lower hash (Amble and Knuth, Ordered Hash Tables,
//! 1974).

use std::ops::RangeInclusive;

/// Entries by the hashes of their keys. The size is fixed.
#[derive(Debug)]
pub(super) struct Index {
    /// The slots. Zero is an empty slot; otherwise one half is the hash, and the other half is the
    /// index of a block plus one. The first slot is always empty and ends every lookup.
    slots: Vec<u64>,
    /// The lowest home slot. If all slots below it are taken, which is very unlikely, entries are
    /// evicted.
    lowest: usize,
    len: usize,
    most: usize,
}

impl Index {
    /// Creates an index for `most` entries.
    pub(super) fn new(most: usize) -> Self {
        Self {
            slots: vec![0; Self::size(most) / size_of::<u64>()],
            lowest: Self::lowest(most),
            len: 0,
            most,
        }
    }

    /// Returns the size in bytes of an index for `most` entries. At least a quarter of the slots is
    /// empty, so that a lookup passes one or two slots.
    pub(super) const fn size(most: usize) -> usize {
        (Self::lowest(most) + most + most / 3 + 1) * size_of::<u64>()
    }

    const fn lowest(most: usize) -> usize {
        if most < 64 { most + 1 } else { 64 }
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is room for another entry.
    pub(super) fn has_room(&self) -> bool {
        self.len < self.most && self.slots[1] == 0
    }

    /// Returns the entry under this hash for which `is_match` holds.
    pub(super) fn find(&self, hash: u32, mut is_match: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let (other, position) = read(self.slots[at])?;
            if other < hash {
                return None;
            }
            if other == hash && is_match(position) {
                return Some(position);
            }
            at -= 1;
        }
    }

    /// Returns whether an entry is under one of these hashes.
    pub(super) fn has_any(&self, hashes: RangeInclusive<u32>) -> bool {
        let (least, most) = hashes.into_inner();
        let mut at = self.home(most);
        loop {
            match read(self.slots[at]) {
                Some((hash, _)) if hash <= most => return hash >= least,
                // The home of a lower hash may be further down.
                None if at <= self.home(least) => return false,
                _ => at -= 1,
            }
        }
    }

    /// Adds an entry, for which there must be [room](Index::has_room). Entries with lower hashes
    /// move down.
    pub(super) fn insert(&mut self, hash: u32, position: u32) {
        let mut slot = write(hash, position);
        let mut at = self.home(hash);
        while self.slots[at] > slot {
            at -= 1;
        }
        while self.slots[at] != 0 {
            std::mem::swap(&mut self.slots[at], &mut slot);
            at -= 1;
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    /// Removes an entry, which must exist. Entries below that are not in their home slot move up.
    pub(super) fn remove(&mut self, hash: u32, position: u32) {
        let slot = write(hash, position);
        let mut gap = self.home(hash);
        while self.slots[gap] != slot {
            gap -= 1;
        }
        while let Some((other, _)) = read(self.slots[gap - 1])
            && self.home(other) >= gap
        {
            self.slots[gap] = self.slots[gap - 1];
            gap -= 1;
        }
        self.slots[gap] = 0;
        self.len -= 1;
    }

    fn home(&self, hash: u32) -> usize {
        let homes = (self.slots.len() - self.lowest) as u64;
        let home = (u64::from(hash) * homes) >> 32;
        self.lowest + usize::try_from(home).expect("a home slot is below the number of slots")
    }
}

/// Returns the slot value of an entry under this hash.
fn write(hash: u32, position: u32) -> u64 {
    u64::from(hash) << 32 | (u64::from(position) + 1)
}

/// Returns the hash and the entry in a slot, unless the slot is empty.
fn read(slot: u64) -> Option<(u32, u32)> {
    let position = u32::try_from(slot & u64::from(u32::MAX)).expect("half of a slot has 32 bits");
    let hash = u32::try_from(slot >> 32).expect("half of a slot has 32 bits");
    Some((hash, position.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn index_finds_exactly_its_entries(
            steps in proptest::collection::vec((0..40_u32, 0..4_u8), 1..400),
        ) {
            // Few hashes, so that many entries share a hash or a home slot, including the lowest
            // and the highest.
            let hash = |position: u32| (position % 7).wrapping_mul(u32::MAX / 6 + 1 - position % 2);
            let mut index = Index::new(28);
            let mut model = std::collections::BTreeSet::new();
            for (position, action) in steps {
                let is_insert = action > 0;
                if !is_insert && model.remove(&position) {
                    index.remove(hash(position), position);
                } else if is_insert && index.has_room() && model.insert(position) {
                    index.insert(hash(position), position);
                }
                prop_assert_eq!(index.len(), model.len());
                let has_hash = |hashes: &RangeInclusive<u32>| {
                    model.iter().any(|position| hashes.contains(&hash(*position)))
                };
                for other in 0..40 {
                    let hashes = hash(other)..=hash(other).saturating_add(5);
                    prop_assert_eq!(index.has_any(hashes.clone()), has_hash(&hashes));
                    let found = index.find(hash(other), |found| found == other);
                    prop_assert_eq!(found.is_some(), model.contains(&other));
                }
            }
            prop_assert!(index.len() <= 28);
        }
    }

    #[test]
    fn index_has_no_room_if_the_slots_below_a_home_are_full() {
        let mut index = Index::new(1000);
        let mut position = 0;
        while index.has_room() {
            index.insert(0, position);
            position += 1;
        }
        assert_eq!(index.len(), 64);
        for position in 0..64 {
            assert_eq!(index.find(0, |found| found == position), Some(position));
        }
        assert_eq!(index.find(0, |found| found == 64), None);
        index.remove(0, 7);
        assert!(index.has_room());
    }
}
