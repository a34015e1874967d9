//! Block lists: names that are answered here, without an upstream.
//!
//! - `line`: the forms of a line of a list
//! - `loader`: reads the files of the lists in bounded steps

mod line;
mod loader;

use std::num::NonZeroU8;

use crate::base::name_table::NameTable;

pub use loader::{Loader, Loading};

/// The value of an exception, the highest one: it wins over the lists that block its name.
const EXCEPTION: NonZeroU8 = NonZeroU8::MAX;

/// The names of all lists.
#[derive(Debug)]
pub struct BlockList {
    table: NameTable,
    /// The names of the files without their folders.
    labels: Vec<String>,
}

impl BlockList {
    /// Returns the label of the file that blocks an uncompressed name: the first file with the
    /// name, or with a name above it, unless an exception has one of these names.
    pub fn blocking(&self, name: &[u8]) -> Option<&str> {
        let value = self.table.highest(name)?;
        let label = self.labels.get(file_of(value)?)?;
        Some(label)
    }

    /// Returns the number of names, with the exceptions.
    pub fn names(&self) -> usize {
        self.table.names()
    }

    /// Returns the number of bytes that the names take.
    pub fn bytes(&self) -> usize {
        self.table.bytes_taken()
    }
}

/// Returns the value of the names of the file with this index: the first file has the highest one.
fn value_of(file: usize) -> NonZeroU8 {
    let below = u8::try_from(file + 1).unwrap_or(u8::MAX);
    NonZeroU8::new(EXCEPTION.get() - below).unwrap_or(NonZeroU8::MIN)
}

/// Returns the index of the file whose names have this value, or `None` for an exception.
fn file_of(value: NonZeroU8) -> Option<usize> {
    let below = EXCEPTION.get() - value.get();
    usize::from(below).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::block::BlockSettings;

    #[test]
    fn each_file_has_its_own_value() {
        for file in 0..BlockSettings::FILES_MAX {
            assert_eq!(file_of(value_of(file)), Some(file));
        }
        assert!(value_of(0) > value_of(1));
        assert_eq!(file_of(EXCEPTION), None);
    }
}
