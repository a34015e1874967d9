//! A slab with generational keys: a key that outlives its value finds nothing instead of a later
//! value in the same slot.
//!
//! Sockets, links and exchanges are in arenas and refer to each other by key: 32 bits for the slot
//! and 32 bits for the generation, on every host. The poller returns a `usize` with an event, a
//! [`Token`], which has 16 bits of each on a 32-bit host.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use slab::Slab;

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

/// A key of one kind of value, such as the key of a link, over the [`Key`] of its table.
pub trait TypedKey: Copy {
    /// Returns the typed form of a key of the table.
    fn from_key(key: Key) -> Self;

    /// Returns the key of the table.
    fn key(self) -> Key;
}

impl TypedKey for Key {
    fn from_key(key: Key) -> Self {
        key
    }

    fn key(self) -> Key {
        self
    }
}

/// A table of values by key, on a [`Slab`]. Indexing with the key of a value that is gone panics.
#[derive(Debug)]
pub struct Arena<K, V> {
    slots: Slab<ArenaSlot<V>>,
    /// The generation of the newest value of the whole table.
    generation: u32,
    keys: PhantomData<K>,
}

#[derive(Debug)]
struct ArenaSlot<V> {
    generation: u32,
    value: V,
}

impl<K, V> Default for Arena<K, V> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            generation: 0,
            keys: PhantomData,
        }
    }
}

impl<K: TypedKey, V> Arena<K, V> {
    /// The number of slots that an empty table may keep.
    const KEPT: usize = 64;

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the key of the next value. No earlier value in its slot had the same key, until the
    /// 32-bit generation wraps.
    pub fn next_key(&self) -> K {
        let generation = self.generation.wrapping_add(1);
        K::from_key(Key::new(self.slots.vacant_key(), generation))
    }

    /// Returns the key of the value with this token, unless the value is gone.
    pub fn key_of(&self, token: Token) -> Option<K> {
        let index = token.packed & TOKEN_MASK;
        let generation = self.slots.get(index)?.generation;
        let is_live = Token::new(index, generation) == token;
        is_live.then(|| K::from_key(Key::new(index, generation)))
    }

    /// Adds a value.
    pub fn insert(&mut self, value: V) -> K {
        let generation = self.generation.wrapping_add(1);
        self.generation = generation;
        let index = self.slots.insert(ArenaSlot { generation, value });
        assert!(
            index < CAPACITY_MAX,
            "every table has a limit below the arena's"
        );
        K::from_key(Key::new(index, generation))
    }

    /// Returns the value of this key, unless it is gone.
    #[inline]
    pub fn get(&self, key: K) -> Option<&V> {
        let key = key.key();
        let slot = self.slots.get(key.index())?;
        (slot.generation == key.generation()).then_some(&slot.value)
    }

    /// Returns the value of this key mutably, unless it is gone.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let key = key.key();
        let slot = self.slots.get_mut(key.index())?;
        (slot.generation == key.generation()).then_some(&mut slot.value)
    }

    /// Returns whether the value of this key exists.
    pub fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Removes and returns the value of this key. A large table that becomes empty releases its
    /// memory.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.get(key)?;
        let slot = self.slots.try_remove(key.key().index())?;
        self.release_if_empty();
        Some(slot.value)
    }

    /// Removes and drops the value of this key, unless it is gone. A large value is copied once
    /// less than by [`Arena::remove`].
    pub fn discard(&mut self, key: K) {
        if self.contains(key) {
            drop(self.slots.try_remove(key.key().index()));
            self.release_if_empty();
        }
    }

    fn release_if_empty(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > Self::KEPT {
            self.slots = Slab::new();
        }
    }

    /// Returns all keys and values in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let slots = self.slots.iter();
        slots.map(|(index, slot)| (K::from_key(Key::new(index, slot.generation)), &slot.value))
    }
}

impl<K: TypedKey, V> Index<K> for Arena<K, V> {
    type Output = V;

    #[inline]
    fn index(&self, key: K) -> &V {
        self.get(key).expect("a key in use is of a live value")
    }
}

impl<K: TypedKey, V> IndexMut<K> for Arena<K, V> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut V {
        self.get_mut(key).expect("a key in use is of a live value")
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
        let mut arena = Arena::<Key, _>::default();
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
        let mut arena = Arena::<Key, _>::default();
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
        let mut arena = Arena::<Key, _>::default();
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
        let mut arena = Arena::<Key, _>::default();
        let keys: Vec<Key> = (0..1000).map(|value| arena.insert(value)).collect();
        for key in keys {
            arena.remove(key);
        }
        assert_eq!(arena.slots.capacity(), 0);
    }

    proptest! {
        #[test]
        fn arena_behaves_like_a_map(steps in vec((0..5_u8, any::<prop::sample::Index>()), 0..400)) {
            let mut arena = Arena::<Key, _>::default();
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
                    prop_assert_eq!(arena.remove(key), gone);
                    prop_assert_eq!(arena.remove(key), None);
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
}
