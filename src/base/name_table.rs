//! A set of domain names, each with a small number, in about nine bytes a name.
//!
//! The table holds a keyed hash of each name in place of the name: 56 bits of hash and 8 bits of
//! value in a slot of an open-addressed table. The slots are in the order of the hashes (linear
//! probing with sorted runs), so that a search for an absent name ends after a few slots although
//! the table is eight ninths full. A name that is not in the table is found by mistake with a
//! probability of the number of names / 2^56: 1 in 7 * 10^10 for a million names.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU8;
use std::sync::LazyLock;

use super::keyed_hash::fold;
use super::random::Random;
use crate::wire::name::{NAME_LEN_MAX, make_lowercase};

/// The secret key of the hash of a table: names come from files and clients that an attacker may
/// write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameTableKey([u64; 2]);

impl NameTableKey {
    /// Creates a random key.
    pub fn new(random: &mut Random) -> Self {
        Self([random.next_u64(), random.next_u64() | 1])
    }

    /// Returns the random key of this process. Tables with the same key, capacity and names are
    /// equal.
    pub fn of_process() -> Self {
        static KEY: LazyLock<NameTableKey> = LazyLock::new(|| {
            let word = || RandomState::new().build_hasher().finish();
            NameTableKey([word(), word() | 1])
        });
        *KEY
    }

    /// Returns the hash of a label below a name with the hash `above`.
    fn below(self, above: u64, label: &[u8]) -> u64 {
        let (words, rest) = label.as_chunks();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length separates a label from a longer one that ends in zero bytes.
        let len = u64::try_from(label.len()).expect("a label is short");
        let words = words.iter().chain([&last]);
        words.fold(above ^ len, |hash, word| {
            self.fold(hash ^ u64::from_le_bytes(*word))
        })
    }

    fn fold(self, word: u64) -> u64 {
        fold(word ^ self.0[0], self.0[1])
    }
}

/// A table of names. The default one has no room for a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameTable {
    key: NameTableKey,
    /// In the order of the hashes; 0 is an empty slot.
    slots: Box<[u64]>,
    /// The number of slots in which a search may start.
    homes: u64,
    len: usize,
}

/// The table has no room for another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableIsFull;

impl NameTable {
    /// Maximum number of names.
    pub const NAMES_MAX: usize = 5_000_000;

    /// Slots after the last one in which a search may start.
    const TAIL: usize = 256;

    /// Creates a table for this number of names, at most [`NameTable::NAMES_MAX`].
    pub fn with_capacity(names: usize, key: NameTableKey) -> Self {
        let homes = Self::homes(names);
        Self {
            key,
            slots: vec![0; homes + Self::TAIL].into_boxed_slice(),
            homes: u64::try_from(homes).expect("the number of names is bounded"),
            len: 0,
        }
    }

    fn homes(names: usize) -> usize {
        let names = names.min(Self::NAMES_MAX);
        names + names / 8 + 1
    }

    /// Returns the bytes that a table for this number of names takes.
    pub fn bytes(names: usize) -> usize {
        (Self::homes(names) + Self::TAIL) * size_of::<u64>()
    }

    /// Returns the bytes that this table takes.
    pub fn bytes_taken(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Returns the number of names.
    pub fn names(&self) -> usize {
        self.len
    }

    /// Adds an uncompressed name. `choose` gets the value that the name has in the table, and
    /// returns the new one.
    ///
    /// # Errors
    ///
    /// Returns [`TableIsFull`] if there are more names than the table was created for.
    pub fn insert(
        &mut self,
        name: &[u8],
        choose: impl FnOnce(Option<NonZeroU8>) -> NonZeroU8,
    ) -> Result<(), TableIsFull> {
        let mut of_name = None;
        self.visit(name, |hash| of_name = Some(hash));
        let hash = of_name.unwrap_or_default();
        let slot = |value: NonZeroU8| hash << 8 | u64::from(value.get());
        let at = self.position(hash);
        if let Some(known) = self.slots.get_mut(at)
            && *known >> 8 == hash
            && let Some(value) = value_of(*known)
        {
            *known = slot(choose(Some(value)));
            return Ok(());
        }
        if self.len + Self::TAIL >= self.slots.len() {
            return Err(TableIsFull);
        }
        let mut moved = self.slots.get(at..).unwrap_or_default().iter();
        let len = moved.position(|slot| *slot == 0).ok_or(TableIsFull)?;
        self.slots.copy_within(at..at + len, at + 1);
        self.slots[at] = slot(choose(None));
        self.len += 1;
        Ok(())
    }

    /// Returns the highest value of an uncompressed name and the names above it.
    pub fn highest(&self, name: &[u8]) -> Option<NonZeroU8> {
        let mut highest = None;
        self.visit(name, |hash| highest = highest.max(self.value(hash)));
        highest
    }

    /// Returns the value of the longest name that is an uncompressed name or above it.
    pub fn longest(&self, name: &[u8]) -> Option<NonZeroU8> {
        let mut longest = None;
        self.visit(name, |hash| longest = self.value(hash).or(longest));
        longest
    }

    fn value(&self, hash: u64) -> Option<NonZeroU8> {
        let slot = self.slots.get(self.position(hash));
        slot.filter(|slot| **slot >> 8 == hash)
            .and_then(|slot| value_of(*slot))
    }

    /// Calls `action` with the hash of the top-level domain of a name, and so on down to the hash
    /// of the whole name. The root has no hash.
    fn visit(&self, name: &[u8], mut action: impl FnMut(u64)) {
        let mut lower = [0; NAME_LEN_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else {
            return;
        };
        lower.copy_from_slice(name);
        make_lowercase(lower);
        let mut starts = [0_u8; NAME_LEN_MAX / 2];
        let (mut labels, mut at) = (0, 0_u8);
        while let Some(len @ 1..) = lower.get(usize::from(at))
            && let Some(start) = starts.get_mut(labels)
        {
            *start = at;
            at = at.saturating_add(1).saturating_add(*len);
            labels += 1;
        }
        let mut hash = 0;
        for start in starts[..labels].iter().rev() {
            let (len, rest) = lower[usize::from(*start)..].split_at(1);
            let label = rest.get(..usize::from(len[0])).unwrap_or(rest);
            hash = self.key.below(hash, label);
            action(self.key.fold(hash) >> 8);
        }
    }

    /// Returns the position of the first slot whose hash is not lower, or of an empty slot before
    /// it.
    fn position(&self, hash: u64) -> usize {
        let home = ((hash >> 24) * self.homes) >> 32;
        let home = usize::try_from(home).expect("a home is a position");
        let after = self.slots[home..].iter();
        let higher = after
            .take_while(|slot| **slot != 0 && **slot >> 8 < hash)
            .count();
        home + higher
    }
}

fn value_of(slot: u64) -> Option<NonZeroU8> {
    NonZeroU8::new(slot.to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SEED_LEN;
    use crate::wire::name::Name;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn table(names: usize, seed: u8) -> NameTable {
        let key = NameTableKey::new(&mut Random::new(&[seed; SEED_LEN]));
        NameTable::with_capacity(names, key)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Adds a name, which keeps the higher one of two values.
    fn add(table: &mut NameTable, text: &str, number: u8) -> Result<(), TableIsFull> {
        let value = NonZeroU8::new(number).unwrap();
        let highest = |known: Option<NonZeroU8>| known.map_or(value, |known| known.max(value));
        table.insert(name(text).as_bytes(), highest)
    }

    #[test]
    fn name_and_the_names_below_it_are_found() {
        let mut table = table(3, 1);
        for (text, number) in [("example.com", 1), ("a.example.com", 2), ("zip", 3)] {
            add(&mut table, text, number).unwrap();
        }
        let highest = |text: &str| table.highest(name(text).as_bytes()).map(NonZeroU8::get);
        assert_eq!(highest("example.com"), Some(1));
        assert_eq!(highest("b.example.com"), Some(1));
        assert_eq!(highest("b.a.example.com"), Some(2));
        assert_eq!(highest("some.zip"), Some(3));
        for other in ["com", "example", "xexample.com", "example.com.org", "zi"] {
            assert_eq!(highest(other), None, "{other}");
        }
        assert_eq!(
            table
                .highest(b"\x01A\x07eXample\x03cOm\0")
                .map(NonZeroU8::get),
            Some(2)
        );
        assert_eq!(table.highest(b"\0"), None);
    }

    #[test]
    fn higher_value_of_a_repeated_name_stays() {
        let mut table = table(1, 2);
        for number in [3, 9, 5] {
            add(&mut table, "a", number).unwrap();
        }
        let highest = table.highest(b"\x01a\0").map(NonZeroU8::get);
        assert_eq!((table.names(), highest), (1, Some(9)));
    }

    #[test]
    fn table_that_is_full_refuses_names() {
        let mut table = table(100, 3);
        let added =
            (0..1_000).take_while(|nth| add(&mut table, &format!("n{nth}.example"), 1).is_ok());
        let added = added.count();
        assert!((100..=113).contains(&added), "{added}");
        for nth in 0..added {
            let name = name(&format!("n{nth}.example"));
            assert!(table.highest(name.as_bytes()).is_some(), "{nth}");
        }
    }

    #[test]
    fn many_names_take_ten_bytes_each() {
        const NAMES: usize = 200_000;
        let mut table = table(NAMES, 4);
        for nth in 0..NAMES {
            add(&mut table, &format!("n{nth}.example"), 7).unwrap();
        }
        assert_eq!(table.names(), NAMES);
        assert_eq!(table.slots.len() * 8, NameTable::bytes(NAMES));
        assert!(NameTable::bytes(NAMES) < 10 * NAMES);
        for nth in 0..NAMES {
            let here = name(&format!("n{nth}.example"));
            assert!(table.highest(here.as_bytes()).is_some(), "{nth}");
            let other = name(&format!("m{nth}.example"));
            assert!(table.highest(other.as_bytes()).is_none(), "{nth}");
        }
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_map(
            names in btree_map("([ab]{1,9}\\.){0,3}[ab]{1,2}", 1..255_u8, 0..40),
            asked in vec("([ab]{1,9}\\.){0,4}[ab]{1,2}", 0..40),
            seed: u8,
        ) {
            let mut table = table(names.len(), seed);
            for (text, number) in &names {
                add(&mut table, text, *number).unwrap();
            }
            for text in asked.iter().chain(names.keys()) {
                let ends = text.match_indices('.').map(|(at, _)| &text[at + 1..]);
                let known = ends.chain([text.as_str()]);
                let known = known.filter_map(|end| Some((end, *names.get(end)?)));
                let known: Vec<(&str, u8)> = known.collect();
                let found = table.highest(name(text).as_bytes()).map(NonZeroU8::get);
                prop_assert_eq!(found, known.iter().map(|(_, value)| *value).max(), "{}", text);
                let longest = known.iter().max_by_key(|(end, _)| end.len());
                let found = table.longest(name(text).as_bytes()).map(NonZeroU8::get);
                prop_assert_eq!(found, longest.map(|(_, value)| *value), "{}", text);
            }
        }

        #[test]
        fn no_bytes_of_a_name_panic(bytes in vec(any::<u8>(), 0..300)) {
            let mut table = table(1, 5);
            let _ = table.insert(&bytes, |_| NonZeroU8::MIN);
            let _ = (table.highest(&bytes), table.longest(&bytes));
        }
    }
}
