//! Settings of block lists (`--block`, `--allow-names`, `--block-answer`).

use std::path::PathBuf;

/// The files with blocked names, and the answer for these names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSettings {
    /// Files with names to block.
    pub files: Vec<PathBuf>,
    /// Files with names that no list blocks.
    pub allow_files: Vec<PathBuf>,
    /// The answer for a blocked name.
    pub answer: BlockAnswer,
    /// Maximum number of bytes that the lists and the cache may take together, from
    /// `--memory-limit`.
    pub room: Option<usize>,
}

impl BlockSettings {
    /// Maximum number of files: each has a number in the table of names.
    pub const FILES_MAX: usize = 100;

    /// Returns the size of a cache of `size` bytes beside lists of `bytes`.
    pub fn cache_size_beside(&self, bytes: usize, size: usize) -> usize {
        // A reload has the old and the new lists in memory for a moment.
        let most = self
            .room
            .map_or(size, |room| room.saturating_sub(2 * bytes));
        size.min(most)
    }
}

/// The answer for a blocked name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockAnswer {
    /// NXDOMAIN: the name does not exist.
    #[default]
    NoName,
    /// NODATA: the name exists without records.
    NoData,
    /// The unspecified address: `0.0.0.0` for A, `::` for AAAA, and NODATA for other types.
    Zero,
}
