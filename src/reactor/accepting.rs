//! The pause in accepting connections after an error that does not belong to one connection, and
//! its log line.

use std::io;
use std::time::Duration;

use crate::base::time::Instant;

/// Minimum time between two log lines about a lasting error.
const REPORT_PERIOD: Duration = Duration::from_secs(60);

/// The state of the pause in accepting connections.
#[derive(Debug, Default)]
pub(super) struct AcceptPause {
    until: Option<Instant>,
    /// Errors since the last report.
    suppressed: u64,
    report_at: Instant,
}

impl AcceptPause {
    /// Returns the time at which listeners accept again, during a pause.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Starts a pause because of an error.
    pub(super) fn start(&mut self, error: &io::Error, now: Instant, length: Duration) {
        self.until = Some(now + length);
        self.suppressed += 1;
        if now >= self.report_at {
            self.report_at = now + REPORT_PERIOD;
            let count = std::mem::take(&mut self.suppressed);
            log::warn!(
                event = "accept-failed", count = count;
                "cannot accept TCP clients: {error} ({count} since the last report); retrying \
                 every {} ms",
                length.as_millis()
            );
        }
    }

    /// Ends the pause.
    pub(super) fn end(&mut self) {
        self.until = None;
    }
}
