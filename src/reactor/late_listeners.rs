//! Listeners whose address no interface of this host has yet, on a system that does not bind an
//! address in advance (`IP_FREEBIND`). A timer retries them until all are open.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use super::Reactor;
use super::listen::{ListenError, Listener, open};
use crate::base::time::Instant;
use crate::net::Net;

/// Pause before the first retry. Each further pause has twice the length, up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// Maximum pause between two retries.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The listeners that wait for their addresses, and the time of the next retry.
#[derive(Default)]
pub(super) struct LateListeners {
    waiting: Vec<LateListener>,
    retry_at: Option<Instant>,
    pause: Duration,
}

struct LateListener {
    listener: Listener,
    /// The last error.
    error: ListenError,
    /// The kind of error that was last logged.
    reported: Option<ErrorKind>,
}

impl LateListeners {
    /// Creates the state after the start, with the listeners that could not be opened.
    pub(super) fn new(late: Vec<(Listener, ListenError)>, now: Instant) -> Self {
        let waiting = late.into_iter().map(|(listener, error)| LateListener {
            listener,
            error,
            reported: None,
        });
        let waiting: Vec<_> = waiting.collect();
        Self {
            retry_at: (!waiting.is_empty()).then_some(now),
            waiting,
            pause: PAUSE_MIN,
        }
    }

    /// Returns the time of the next retry.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Logs the errors that are new, once for each address that is missing.
    fn report(&mut self) {
        let mut missing = BTreeSet::new();
        for late in &mut self.waiting {
            let ListenError {
                address,
                protocol,
                cause,
            } = &late.error;
            if late.reported.replace(cause.kind()) == Some(cause.kind()) {
                continue;
            }
            let seconds = PAUSE_MAX.as_secs();
            if !late.error.is_address_missing() {
                log::warn!(
                    "cannot listen on {address} ({protocol}): {cause}; retrying every {seconds} s"
                );
            } else if missing.insert(address.ip()) {
                log::warn!(
                    "no interface of this host has the address {} now, and this kernel does not \
                     bind it in advance (IP_FREEBIND); retrying every {seconds} s",
                    address.ip()
                );
            }
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Returns the errors of the listeners that wait for their addresses.
    pub fn late_listeners(&self) -> impl Iterator<Item = &ListenError> {
        self.late_listeners.waiting.iter().map(|late| &late.error)
    }

    /// Opens the listeners whose addresses the host now has, if a retry is due.
    pub(super) fn retry_listeners(&mut self) {
        let late = &mut self.late_listeners;
        if late.retry_at.is_none_or(|at| at > self.now) {
            return;
        }
        let (net, sessions) = (&mut self.net, &mut self.sessions);
        late.waiting.retain_mut(|late| {
            let opened = open(net, sessions, &late.listener);
            opened.map_err(|error| late.error = error).is_err()
        });
        late.report();
        late.retry_at = (!late.waiting.is_empty()).then_some(self.now + late.pause);
        late.pause = (late.pause * 2).min(PAUSE_MAX);
    }
}
