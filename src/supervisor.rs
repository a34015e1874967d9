//! Whoever has started the process and watches over it: systemd, or somebody else who speaks its
//! protocol (`sd_notify(3)`, `sd_watchdog_enabled(3)`), or nobody.

use std::cell::Cell;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

use crate::time::Instant;

/// The way to tell it how the process is doing.
#[derive(Debug, Default)]
pub struct Supervisor {
    /// How often it wants to hear that the process is alive, if it does.
    interval: Option<Duration>,
    /// When it is told next.
    due: Cell<Instant>,
}

impl Supervisor {
    /// The one that the environment tells of.
    pub fn from_environment() -> Self {
        Self {
            // Early enough for a loop that is busy.
            interval: sd_notify::watchdog_enabled()
                .filter(|longest| !longest.is_zero())
                .map(|longest| longest / 3),
            due: Cell::default(),
        }
    }

    /// The process does what it was started for.
    pub fn tell_ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// It is about to do that in another way.
    pub fn tell_reloading(&self) {
        // What the library has for this overflows on hosts with 32 bits.
        match clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) {
            Ok(now) => {
                let now = i128::try_from(now.as_micros()).unwrap_or(i128::MAX);
                tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now)]);
            }
            Err(error) => log::debug!("no time for whoever has started this: {error}"),
        }
    }

    /// It is about to end.
    pub fn tell_stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// It is alive, which is told if it is time to. Returns when it is next.
    pub fn tell_alive(&self, now: Instant) -> Option<Instant> {
        let interval = self.interval?;
        if self.due.get() <= now {
            tell(&[NotifyState::Watchdog]);
            self.due.set(now + interval);
        }
        Some(self.due.get())
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("cannot tell whoever has started this how it is doing: {error}");
    }
}
