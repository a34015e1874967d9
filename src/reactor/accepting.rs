//! The pause in accepting connections after an error that is not that of one connection, and its
//! line in the log.

use std::io;
use std::time::Duration;

use crate::base::time::Instant;

/// An error that lasts is logged once in this period.
const REPORT_PERIOD: Duration = Duration::from_secs(60);

/// The state of accepting.
#[derive(Debug, Default)]
pub(super) struct AcceptPause {
    until: Option<Instant>,
    /// Errors since the last report.
    suppressed: u64,
    report_at: Instant,
}

impl AcceptPause {
    /// The time at which listeners try again, during a pause.
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
                "cannot accept TCP clients for now: {error} ({count} since the last report); \
                 trying again every {} ms",
                length.as_millis()
            );
        }
    }

    /// Ends the pause.
    pub(super) fn end(&mut self) {
        self.until = None;
    }
}
