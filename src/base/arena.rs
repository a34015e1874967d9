//! A slab with generational keys: a key that outlives its value finds nothing instead of a later
//! value in the same slot.
//!
//! Sockets, links and exchanges are in arenas and refer to each other by key: 32 bits for the slot
//! and 32 bits for the generation, on every host. The poller returns a `usize` with an event, a
//! [`Token`], which has 16 bits of each on a 32-bit host.

use std::collections::VecDeque;
use std::fmt;
use std::mem;

/// Number of bits in a key, and in a token, that hold the slot.
const KEY_HALF: u32 = u64::BITS / 2;
const TOKEN_HALF: u32 = usize::BITS / 2;
const TOKEN_MASK: usize = (1 << TOKEN_HALF) - 1;

/// Maximum number of values in an arena; tokens cannot address more.
pub const CAPACITY_MAX: usize = if TOKEN_MASK < 1 << 20 {
    TOKEN_MASK
} else {
    1 << 20
};

/// The key of a value in an [`Arena`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    packed: u64,
}

impl Key {
    fn new(index: usize, generation: u32) -> Self {
        Self {
            packed: u64::from(generation) << KEY_HALF | index as u64,
        }
    }

    /// Creates a key from a number, for callers without an arena.
    pub fn from_usize(number: usize) -> Self {
        Self {
            packed: number as u64,
        }
    }

    /// Returns the slot of the value: a small number that later values reuse.
    pub fn index(self) -> usize {
        let index = self.packed & u64::from(u32::MAX);
        usize::try_from(index).expect("a slot number fits a usize")
    }

    fn generation(self) -> u32 {
        u32::try_from(self.packed >> KEY_HALF).expect("the shift leaves 32 bits")
    }

    /// Returns the token of the value.
    pub fn token(self) -> Token {
        Token::new(self.index(), self.generation())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// The identifier of a value for a poller. On a 32-bit host, the value that takes the same slot
/// 65,536 values later has the same token, so an event may reach the wrong value. That is harmless:
/// an event only says that something may be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    packed: usize,
}

impl Token {
    fn new(index: usize, generation: u32) -> Self {
        Self {
            packed: (generation as usize & TOKEN_MASK) << TOKEN_HALF | index,
        }
    }

    /// Returns the token as one word.
    pub fn to_usize(self) -> usize {
        self.packed
    }

    /// Restores a token from the result of [`Token::to_usize`].
    pub fn from_usize(packed: usize) -> Self {
        Self { packed }
    }
}

/// A table of values by [`Key`].
#[derive(Debug)]
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// The slot for the next value: the last one vacated, or a new one.
    next: usize,
    len: usize,
    generation: u32,
}

#[derive(Debug)]
enum Slot<T> {
    /// The slot vacated before this one, or the length of the table.
    Vacant {
        next: usize,
    },
    Taken {
        generation: u32,
        value: T,
    },
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            next: 0,
            len: 0,
            generation: 0,
        }
    }
}

impl<T> Arena<T> {
    /// The number of slots that an empty table may keep.
    const KEPT: usize = 64;

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the key of the next value. No earlier value in its slot had the same key, until the
    /// 32-bit generation wraps.
    pub fn next_key(&self) -> Key {
        Key::new(self.next, self.generation.wrapping_add(1))
    }

    /// Returns the key of the value with this token, unless the value is gone.
    pub fn key_of(&self, token: Token) -> Option<Key> {
        let index = token.packed & TOKEN_MASK;
        match self.slots.get(index)? {
            Slot::Taken { generation, .. } if Token::new(index, *generation) == token => {
                Some(Key::new(index, *generation))
            }
            _ => None,
        }
    }

    /// Adds a value.
    pub fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        assert!(
            key.index() < CAPACITY_MAX,
            "every table has a limit below the arena's"
        );
        let generation = key.generation();
        self.generation = generation;
        if let Some(slot) = self.slots.get_mut(self.next) {
            if let Slot::Vacant { next } = *slot {
                self.next = next;
            }
            // The vacant slot has nothing to drop; `forget` avoids a second move of the value.
            mem::forget(mem::replace(slot, Slot::Taken { generation, value }));
        } else {
            self.slots.push(Slot::Taken { generation, value });
            self.next = self.slots.len();
        }
        self.len += 1;
        key
    }

    /// Returns the value of this key, unless it is gone.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index())? {
            Slot::Taken { generation, value } if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// Returns the value of this key mutably, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index())? {
            Slot::Taken { generation, value } if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// Returns whether the value of this key exists.
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// Removes and returns the value of this key. A large table that becomes empty releases its
    /// memory.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let vacant = Slot::Vacant { next: self.next };
        let slot = mem::replace(&mut self.slots[key.index()], vacant);
        self.on_left(key);
        match slot {
            Slot::Taken { value, .. } => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// Drops the value of this key in place, which avoids the move of [`Arena::remove`].
    pub fn discard(&mut self, key: Key) {
        if self.contains(key) {
            self.slots[key.index()] = Slot::Vacant { next: self.next };
            self.on_left(key);
        }
    }

    fn on_left(&mut self, key: Key) {
        self.next = key.index();
        self.len -= 1;
        if self.len == 0 && self.slots.capacity() > Self::KEPT {
            self.slots = Vec::new();
            self.next = 0;
        }
    }

    /// Returns all keys and values in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| match slot {
            Slot::Taken { generation, value } => Some((Key::new(index, *generation), value)),
            Slot::Vacant { .. } => None,
        })
    }
}

/// A queue, first in, first out, with entries that may lapse while they wait.
///
/// Removing an entry from the middle costs nothing: `pop` and its callers check whether the entry
/// is live. Lapsed entries are swept when they could make up more than half of the queue, so the
/// length stays within twice the number of live entries, and the cost of an entry is constant.
#[derive(Debug)]
pub struct LazyQueue<T> {
    entries: VecDeque<T>,
}

impl<T> Default for LazyQueue<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
        }
    }
}

impl<T> LazyQueue<T> {
    /// The number of entries that may lapse before the first sweep.
    const SLACK: usize = 64;

    /// Appends an entry. `holding` is an upper bound of the number of live entries, this one
    /// included, and `is_live` identifies them.
    pub fn push(&mut self, entry: T, holding: usize, is_live: impl FnMut(&T) -> bool) {
        self.sweep(holding, is_live);
        self.entries.push_back(entry);
    }

    /// Inserts an entry in order of rank: after the last entry with a rank that is not greater,
    /// which is nearly always the end. See [`LazyQueue::push`].
    pub fn push_ranked<R: Ord>(
        &mut self,
        entry: T,
        rank: impl Fn(&T) -> R,
        holding: usize,
        is_live: impl FnMut(&T) -> bool,
    ) {
        self.sweep(holding, is_live);
        let own = rank(&entry);
        let place = match self.entries.back() {
            Some(last) if rank(last) > own => self.entries.partition_point(|e| rank(e) <= own),
            _ => self.entries.len(),
        };
        self.entries.insert(place, entry);
    }

    fn sweep(&mut self, holding: usize, is_live: impl FnMut(&T) -> bool) {
        if self.entries.len() >= 2 * holding + Self::SLACK {
            self.entries.retain(is_live);
            self.entries.shrink_to(2 * holding + Self::SLACK);
        }
    }

    /// Returns the first live entry, and drops the lapsed entries before it.
    pub fn front(&mut self, mut is_live: impl FnMut(&T) -> bool) -> Option<&T> {
        while self.entries.front().is_some_and(|entry| !is_live(entry)) {
            self.pop();
        }
        self.entries.front()
    }

    /// Returns all entries in order, live or lapsed.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    /// Returns the entry at a position, live or lapsed.
    pub fn get(&self, position: usize) -> Option<&T> {
        self.entries.get(position)
    }

    /// Removes the entry at a position, live or lapsed.
    pub fn take(&mut self, position: usize) -> Option<T> {
        match position {
            0 => self.pop(),
            _ => self.entries.remove(position),
        }
    }

    /// Removes the first entry, live or lapsed. A long queue that becomes empty releases its
    /// memory.
    pub fn pop(&mut self) -> Option<T> {
        let first = self.entries.pop_front();
        if self.entries.is_empty() {
            self.entries.shrink_to(Self::SLACK);
        }
        first
    }

    /// Returns the number of entries, including lapsed ones.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no entry, live or lapsed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn stale_key_misses_the_next_value_in_its_slot() {
        let mut arena = Arena::default();
        let old = arena.insert("old");
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new");
        assert_eq!(new.index(), old.index());
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.remove(old), None);
        assert_eq!(arena.get(new), Some(&"new"));
    }

    #[test]
    fn token_restores_the_key() {
        let mut arena = Arena::default();
        for value in 0..5 {
            let key = arena.insert(value);
            let token = Token::from_usize(key.token().to_usize());
            assert_eq!(arena.key_of(token), Some(key));
            assert_eq!(arena.get(key), Some(&value));
            if value % 2 == 0 {
                arena.remove(key);
                assert_eq!(arena.key_of(token), None);
            }
        }
    }

    #[test]
    fn key_misses_the_value_in_its_slot_65536_values_later() {
        let mut arena = Arena::default();
        let mut value = arena.insert(0);
        let old = value;
        for number in 1..=65_536 {
            arena.remove(value);
            value = arena.insert(number);
        }
        assert_eq!(value.index(), old.index());
        assert_ne!(value, old);
        assert_eq!(arena.get(old), None);
        // The poller returns one word only.
        let is_shared = usize::BITS == 32;
        assert_eq!(value.token() == old.token(), is_shared);
        assert_eq!(arena.key_of(value.token()), Some(value));
    }

    #[test]
    fn empty_arena_releases_its_memory() {
        let mut arena = Arena::default();
        let keys: Vec<Key> = (0..1000).map(|value| arena.insert(value)).collect();
        for key in keys {
            arena.remove(key);
        }
        assert_eq!(arena.slots.capacity(), 0);
    }

    proptest! {
        #[test]
        fn arena_behaves_like_a_map(steps in vec((0..6_u8, any::<prop::sample::Index>()), 0..400)) {
            let mut arena = Arena::default();
            let mut model = BTreeMap::new();
            for (value, (step, which)) in steps.into_iter().enumerate() {
                if step < 3 || model.is_empty() {
                    let next = arena.next_key();
                    prop_assert_eq!(arena.insert(value), next);
                    prop_assert_eq!(model.insert(next, value), None);
                } else {
                    let at = which.index(model.len());
                    let key = *model.keys().nth(at).unwrap();
                    let gone = model.remove(&key);
                    if step < 5 {
                        prop_assert_eq!(arena.remove(key), gone);
                    } else {
                        arena.discard(key);
                    }
                    arena.discard(key);
                    prop_assert_eq!(arena.get(key), None);
                }
                let held: BTreeMap<Key, usize> = arena.iter().map(|(k, v)| (k, *v)).collect();
                prop_assert_eq!(&held, &model);
                prop_assert_eq!(arena.len(), model.len());
                for (key, value) in &model {
                    prop_assert_eq!(arena.get(*key), Some(value));
                }
            }
        }
    }

    #[test]
    fn queue_drops_lapsed_entries_and_stays_short() {
        let mut fifo = LazyQueue::default();
        for entry in 0..10_000 {
            fifo.push(entry, 1, |&e| e >= entry);
            assert!(fifo.len() <= 2 + LazyQueue::<u32>::SLACK);
        }
        assert_eq!(fifo.front(|&e| e >= 9_999), Some(&9_999));
        assert_eq!(fifo.len(), 1);
    }

    #[test]
    fn empty_queue_releases_its_memory() {
        let drains: [fn(&mut LazyQueue<u64>); 2] = [
            |fifo| assert!(fifo.front(|_| false).is_none()),
            |fifo| while fifo.pop().is_some() {},
        ];
        for drain in drains {
            let mut fifo = LazyQueue::default();
            (0..10_000).for_each(|entry| fifo.push(entry, 10_000, |_| true));
            drain(&mut fifo);
            assert!(fifo.entries.capacity() <= 2 * LazyQueue::<u64>::SLACK);
        }
    }

    #[test]
    fn ranked_entries_are_sorted_and_ties_are_first_in_first_out() {
        let mut fifo = LazyQueue::default();
        for entry in [(2, 'a'), (5, 'b'), (3, 'c'), (5, 'd'), (1, 'e'), (3, 'f')] {
            fifo.push_ranked(entry, |entry| entry.0, 10, |_| true);
        }
        let order: String = std::iter::from_fn(|| fifo.pop())
            .map(|entry| entry.1)
            .collect();
        assert_eq!(order, "eacfbd");
    }
}
