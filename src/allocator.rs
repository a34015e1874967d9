//! Settings of the GNU allocator that return memory to the system after a burst, as other
//! allocators do by default.
//!
//! With its defaults it keeps more free memory each time large blocks are freed, and keeps free
//! memory between blocks that are in use.

/// Configures the allocator. Must be called before anything else.
pub(crate) fn set_up() {
    #[cfg(target_env = "gnu")]
    gnu::set_thresholds();
}

/// Returns all free memory to the system.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    gnu::trim();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "nothing wraps these calls")]
mod gnu {
    use nix::libc::{M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, malloc_trim, mallopt};

    pub(super) fn set_thresholds() {
        let bytes_by_setting = [
            // A block of at least this size is mapped separately and returned to the system when it
            // is freed.
            (M_MMAP_THRESHOLD, 16 * 1024),
            // Free memory above this size at the end of the heap is returned, except the padding,
            // by which the heap grows.
            (M_TRIM_THRESHOLD, 64 * 1024),
            (M_TOP_PAD, 16 * 1024),
        ];
        for (setting, bytes) in bytes_by_setting {
            // SAFETY: `mallopt` takes numbers and ignores invalid ones.
            unsafe { mallopt(setting, bytes) };
        }
    }

    pub(super) fn trim() {
        // SAFETY: `malloc_trim` touches free memory only.
        unsafe { malloc_trim(0) };
    }
}
