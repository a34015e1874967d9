//! A slab whose keys carry a generation, so that a key outliving its value misses instead of
//! hitting whatever took the place.
//!
//! Sockets, links and exchanges live in arenas and refer to each other by key: 32 bits for the
//! place and 32 for the generation, on every host. What the poller hands back with an event is a
//! `usize`, a [`Token`]: on a 32-bit host it has 16 bits of each.

use std::collections::VecDeque;
use std::fmt;
use std::mem;

/// Bits of a key, and of a token, that are the place.
const KEY_HALF: u32 = u64::BITS / 2;
const TOKEN_HALF: u32 = usize::BITS / 2;
const TOKEN_MASK: usize = (1 << TOKEN_HALF) - 1;

/// Values an arena can hold at the same time; beyond it, tokens could not name them.
pub const CAPACITY_MAX: usize = if TOKEN_MASK < 1 << 20 {
    TOKEN_MASK
} else {
    1 << 20
};

/// The name of a value in an [`Arena`].
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

    /// A key by number, for callers without an arena.
    pub fn from_usize(number: usize) -> Self {
        Self {
            packed: number as u64,
        }
    }

    /// The place of the value: small, and used again by later values.
    pub fn index(self) -> usize {
        let index = self.packed & u64::from(u32::MAX);
        usize::try_from(index).expect("a place in a table fits a usize")
    }

    fn generation(self) -> u32 {
        u32::try_from(self.packed >> KEY_HALF).expect("half of the bits are left")
    }

    /// The token of the value.
    pub fn token(self) -> Token {
        Token::new(self.index(), self.generation())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// The name of a value for a poller. On a 32-bit host it is also that of the value which takes the
/// place 65,536 values later, so that an event may come to the wrong one: an event says only that
/// something may be ready, which does no harm.
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

    /// The token as one word.
    pub fn to_usize(self) -> usize {
        self.packed
    }

    /// The token that [`Token::to_usize`] gave.
    pub fn from_usize(packed: usize) -> Self {
        Self { packed }
    }
}

/// Values by [`Key`].
#[derive(Debug)]
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// The slot that the next value takes: the one that was left last, or a new one.
    next: usize,
    len: usize,
    generation: u32,
}

#[derive(Debug)]
enum Slot<T> {
    /// The slot that was left before this one, or the length of the table.
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
    /// Slots that a table without values may keep.
    const KEPT: usize = 64;

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key that the next value will have. No earlier value of its place had it (until the
    /// generation, 32 bits, comes round).
    pub fn next_key(&self) -> Key {
        Key::new(self.next, self.generation.wrapping_add(1))
    }

    /// The key of the value that has this token, unless it is gone.
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
            // Nothing is there to be dropped, which spares the value a second move.
            mem::forget(mem::replace(slot, Slot::Taken { generation, value }));
        } else {
            self.slots.push(Slot::Taken { generation, value });
            self.next = self.slots.len();
        }
        self.len += 1;
        key
    }

    /// The value of this key, unless it is gone.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index())? {
            Slot::Taken { generation, value } if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// The value of this key, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index())? {
            Slot::Taken { generation, value } if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// Whether the value of this key is still here.
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// Takes the value of this key out. When the last value leaves a table that has grown large,
    /// its memory goes back.
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

    /// [`Arena::remove`] for a value that nobody wants any more, which is not moved.
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

    /// Every key and value, by place.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| match slot {
            Slot::Taken { generation, value } => Some((Key::new(index, *generation), value)),
            Slot::Vacant { .. } => None,
        })
    }
}

/// First in, first out, for entries that may lapse while they wait.
///
/// Taking an entry out of the middle costs nothing: whoever pops asks whether the entry still
/// holds. What has lapsed is swept when it could make up more than half of the queue, so the length
/// stays within twice the number of entries that hold, and the cost of an entry stays constant.
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
    /// Entries that may lapse before the first sweep.
    const SLACK: usize = 64;

    /// Adds an entry at the end. `holding` is an upper bound of the entries that still hold, this
    /// one included, and `is_live` tells them.
    pub fn push(&mut self, entry: T, holding: usize, is_live: impl FnMut(&T) -> bool) {
        self.sweep(holding, is_live);
        self.entries.push_back(entry);
    }

    /// Adds an entry in order of rank: behind the last entry whose rank is no greater, which is
    /// nearly always the last of all. See [`LazyQueue::push`].
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

    /// The first entry that holds; what has lapsed before it is dropped.
    pub fn front(&mut self, mut is_live: impl FnMut(&T) -> bool) -> Option<&T> {
        while self.entries.front().is_some_and(|entry| !is_live(entry)) {
            self.pop();
        }
        self.entries.front()
    }

    /// Every entry in turn, whether it holds or not.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    /// Returns the entry at a position, whether it holds or not.
    pub fn get(&self, position: usize) -> Option<&T> {
        self.entries.get(position)
    }

    /// Takes out the entry at a position, whether it holds or not.
    pub fn take(&mut self, position: usize) -> Option<T> {
        match position {
            0 => self.pop(),
            _ => self.entries.remove(position),
        }
    }

    /// Takes the first entry out, whether it holds or not. When the last leaves a queue that has
    /// grown long, its memory goes back.
    pub fn pop(&mut self) -> Option<T> {
        let first = self.entries.pop_front();
        if self.entries.is_empty() {
            self.entries.shrink_to(Self::SLACK);
        }
        first
    }

    /// The number of entries, lapsed ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry, not even a lapsed one.
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
    fn stale_key_misses_the_value_that_took_its_place() {
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
    fn key_survives_the_way_through_a_token() {
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
    fn key_misses_the_value_that_takes_its_place_65536_values_later() {
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
        // The poller knows no more than a word.
        let is_shared = usize::BITS == 32;
        assert_eq!(value.token() == old.token(), is_shared);
        assert_eq!(arena.key_of(value.token()), Some(value));
    }

    #[test]
    fn empty_arena_gives_its_memory_back() {
        let mut arena = Arena::default();
        let keys: Vec<Key> = (0..1000).map(|value| arena.insert(value)).collect();
        for key in keys {
            arena.remove(key);
        }
        assert_eq!(arena.slots.capacity(), 0);
    }

    proptest! {
        #[test]
        fn arena_does_what_a_map_does(steps in vec((0..6_u8, any::<prop::sample::Index>()), 0..400)) {
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
    fn fifo_drops_lapsed_entries_and_stays_short() {
        let mut fifo = LazyQueue::default();
        for entry in 0..10_000 {
            fifo.push(entry, 1, |&e| e >= entry);
            assert!(fifo.len() <= 2 + LazyQueue::<u32>::SLACK);
        }
        assert_eq!(fifo.front(|&e| e >= 9_999), Some(&9_999));
        assert_eq!(fifo.len(), 1);
    }

    #[test]
    fn empty_fifo_gives_its_memory_back() {
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
    fn ranked_entries_come_out_in_order_and_equals_in_turn() {
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
