//! A counter of the steps that walks over a message take, for tests and fuzz targets that hold
//! these against the length of the message. Other builds do not count.

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

/// The steps that this thread has taken since the last call.
#[cfg(any(test, fuzzing))]
pub fn take() -> u64 {
    STEPS.take()
}
