//! The connection of an exporter to its reader. There is one at a time; after its loss the next
//! attempt follows a pause, and a lasting problem is logged once.

use crate::base::arena::Key;
use crate::base::time::Instant;
use crate::net::Net;
use crate::reactor::Reactor;

/// An exporter that has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reactor) enum Exporter {
    Dnstap,
    Traces,
}

/// The connection of an exporter, and the number of records that its reader did not get.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// The session of the connection, if there is one.
    pub(super) session: Option<Key>,
    /// The time before which the reader is not tried again.
    pub(super) pause_until: Instant,
    /// The last reported problem; empty if there is none.
    problem: String,
    pub(super) dropped: u64,
}

impl Connection {
    /// Returns whether a problem has been reported and the reader has accepted nothing since.
    pub(super) fn has_problem(&self) -> bool {
        !self.problem.is_empty()
    }

    /// Records a problem. Returns whether it differs from the last one.
    pub(super) fn on_problem(&mut self, problem: &str) -> bool {
        let is_new = self.problem != problem;
        problem.clone_into(&mut self.problem);
        is_new
    }

    /// Records that the reader has accepted something. Returns whether a problem was reported
    /// before.
    pub(super) fn on_accepted(&mut self) -> bool {
        !std::mem::take(&mut self.problem).is_empty()
    }
}

impl<N: Net> Reactor<N> {
    /// Closes the connection of an exporter, which was lost for this reason or could not be made.
    pub(in crate::reactor) fn disconnect_exporter(&mut self, exporter: Exporter, reason: &str) {
        let (now, timeouts) = (self.now, &self.config.timeouts);
        let connection = match exporter {
            Exporter::Dnstap => self.tap.as_mut().map(|tap| {
                tap.on_lost(reason, now + timeouts.dnstap_pause);
                &mut tap.connection
            }),
            Exporter::Traces => self.traces.as_mut().map(|traces| {
                traces.on_lost(reason, now + timeouts.traces_pause);
                &mut traces.connection
            }),
        };
        if let Some(key) = connection.and_then(|connection| connection.session.take()) {
            self.sessions.remove(key);
        }
        self.schedule_trim();
    }
}
