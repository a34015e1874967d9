//! Searches in block lists.

use std::hint::black_box;
use std::num::NonZeroU8;

use dotproxy::base::name_table::{NameTable, NameTableKey};
use dotproxy::base::random::{Random, SEED_LEN};
use dotproxy::wire::name::Name;

use crate::Once;

/// Number of blocked names.
const NAMES: usize = 1_000_000;

/// Searches a table of a million names for a name that is not in it, and the names above it.
pub(crate) fn search() -> Once {
    let key = NameTableKey::new(&mut Random::new(&[1; SEED_LEN]));
    let mut table = NameTable::with_capacity(NAMES, key);
    for nth in 0..NAMES {
        let name: Name = format!("ads{nth}.example{}.com", nth % 1_000)
            .parse()
            .expect("a valid name");
        let value = NonZeroU8::MIN;
        table
            .insert(name.as_bytes(), |_| value)
            .expect("the table has room");
    }
    let name: Name = "www.hot.example.net".parse().expect("a valid name");
    Box::new(move || {
        black_box(table.highest(black_box(name.as_bytes())));
    })
}
