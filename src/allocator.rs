//! The GNU allocator gives memory back when a burst is over, as others do of themselves.
//!
//! Left alone, it keeps more free memory each time it sees large pieces come and go, and whatever
//! is free between pieces that are in use.

/// To be called before anything else.
pub(crate) fn set_up() {
    #[cfg(target_env = "gnu")]
    gnu::set_thresholds();
}

/// Gives memory that is free back to the system, wherever it lies.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    gnu::trim();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "nothing wraps these calls")]
mod gnu {
    use nix::libc::{M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, malloc_trim, mallopt};

    pub(super) fn set_thresholds() {
        let octets_by_setting = [
            // From here on, a piece is the system's own and goes back to it at once.
            (M_MMAP_THRESHOLD, 16 * 1024),
            // So much that is free at the end of the rest goes back, but for as much as is taken
            // at a time.
            (M_TRIM_THRESHOLD, 64 * 1024),
            (M_TOP_PAD, 16 * 1024),
        ];
        for (setting, octets) in octets_by_setting {
            // SAFETY: it takes numbers, and those that it does not like it leaves alone.
            unsafe { mallopt(setting, octets) };
        }
    }

    pub(super) fn trim() {
        // SAFETY: it touches nothing but memory that is free.
        unsafe { malloc_trim(0) };
    }
}
