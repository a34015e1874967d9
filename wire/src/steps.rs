//! A counter of the steps that walks over a message take. Tests and fuzz targets compare it with
//! the length of the message. Other builds do not count.

#[cfg(any(test, fuzzing))]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts a step.
#[inline]
pub fn count() {
    #[cfg(any(test, fuzzing))]
    STEPS.set(STEPS.get() + 1);
}

/// Returns the steps that this thread has taken since the last call.
#[cfg(any(test, fuzzing))]
pub fn take() -> u64 {
    STEPS.take()
}
