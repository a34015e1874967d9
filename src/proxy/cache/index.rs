//! Where the entry of a hash is: open addressing, so that a look takes a line of memory or two.
//!
//! Who stands where is ordered by how far it is from home (Robin Hood hashing), so that a look for
//! what is not there ends soon, however full the index is.

/// Places of entries by the hashes of their keys. Its size is fixed.
#[derive(Debug)]
pub(super) struct Index {
    /// Zero is empty; otherwise half of it is a hash, and the rest a place plus one.
    slots: Vec<u64>,
    len: usize,
}

impl Index {
    /// Octets of a slot.
    pub(super) const SLOT_LEN: usize = size_of::<u64>();

    /// An index of so many slots, a power of two.
    pub(super) fn new(slots: usize) -> Self {
        debug_assert!(slots.is_power_of_two());
        Self {
            slots: vec![0; slots],
            len: 0,
        }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is room for another place. Some slots stay empty, where a look ends.
    pub(super) fn has_room(&self) -> bool {
        (self.len + 1) * 8 <= self.slots.len() * 7
    }

    /// The place under this hash that is the one looked for.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        let mut distance = 0;
        loop {
            let (other, place) = read(self.slots[at])?;
            if self.distance(other, at) < distance {
                // It would stand here.
                return None;
            }
            if other == hash && is_it(place) {
                return Some(place);
            }
            at = self.after(at);
            distance += 1;
        }
    }

    /// Adds a place, for which there must be [room](Index::has_room). Those who are nearer to their
    /// home make room for those who are farther.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        let mut slot = write(hash, place);
        let mut at = self.home(hash);
        let mut distance = 0;
        while let Some((other, _)) = read(self.slots[at]) {
            let others = self.distance(other, at);
            if others < distance {
                std::mem::swap(&mut self.slots[at], &mut slot);
                distance = others;
            }
            at = self.after(at);
            distance += 1;
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    /// Takes a place out, which must be there. Those behind it that are not at home move up.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let slot = write(hash, place);
        let mut gap = self.home(hash);
        while self.slots[gap] != slot {
            gap = self.after(gap);
        }
        let mut next = self.after(gap);
        while let Some((other, _)) = read(self.slots[next])
            && self.distance(other, next) > 0
        {
            self.slots[gap] = self.slots[next];
            gap = next;
            next = self.after(gap);
        }
        self.slots[gap] = 0;
        self.len -= 1;
    }

    /// How far from its home a hash is here.
    fn distance(&self, hash: u32, at: usize) -> usize {
        at.wrapping_sub(self.home(hash)) & self.mask()
    }

    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & self.mask()
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }
}

/// The slot for a place under this hash.
fn write(hash: u32, place: u32) -> u64 {
    u64::from(hash) << 32 | (u64::from(place) + 1)
}

/// The hash and the place in a slot, unless it is empty.
fn read(slot: u64) -> Option<(u32, u32)> {
    let place = u32::try_from(slot & u64::from(u32::MAX)).expect("32 bits");
    let hash = u32::try_from(slot >> 32).expect("32 bits");
    Some((hash, place.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn index_finds_what_is_in_it_and_nothing_else(
            steps in proptest::collection::vec((0..40_u32, 0..4_u8), 1..400),
        ) {
            // Few hashes, so that many have the same home or the same hash.
            let hash = |place: u32| place % 7 * 5;
            let mut index = Index::new(32);
            let mut model = std::collections::BTreeSet::new();
            for (place, action) in steps {
                let is_insert = action > 0;
                if !is_insert && model.remove(&place) {
                    index.remove(hash(place), place);
                } else if is_insert && index.has_room() && model.insert(place) {
                    index.insert(hash(place), place);
                }
                prop_assert_eq!(index.len(), model.len());
                for other in 0..40 {
                    let found = index.find(hash(other), |found| found == other);
                    prop_assert_eq!(found.is_some(), model.contains(&other));
                }
            }
            prop_assert!(index.len() <= 28);
        }
    }
}
