//! A query that was sent on a link and has no answer.

use crate::base::time::Instant;
use crate::proxy::keys::ExchangeKey;
use crate::wire::query::EdnsLevel;

/// A query that was sent on a link and not answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Sent {
    pub(in crate::proxy) id: u16,
    pub(in crate::proxy) at: Instant,
    pub(in crate::proxy) state: SentState,
    /// The level of EDNS that the query used.
    pub(in crate::proxy) edns: EdnsLevel,
}

/// The state of a query in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum SentState {
    /// The exchange waits for the answer.
    InTime(ExchangeKey),
    /// The exchange has waited for longer than is usual.
    Slow(ExchangeKey),
    /// The exchange may use another attempt: it has waited for the timeout of an attempt, the link
    /// has stalled, or the host was suspended. This attempt may still be answered.
    Overdue(ExchangeKey),
    /// No exchange waits any more. The id is not reused while the answer may still arrive.
    Abandoned {
        /// True if another upstream answered the query.
        is_answered: bool,
    },
    /// The query is a probe, for which no exchange waits.
    Probe,
}

impl Sent {
    /// Returns the exchange that waits for the answer.
    pub(in crate::proxy) fn exchange(&self) -> Option<ExchangeKey> {
        match self.state {
            SentState::InTime(key) | SentState::Slow(key) | SentState::Overdue(key) => Some(key),
            SentState::Abandoned { .. } | SentState::Probe => None,
        }
    }
}
