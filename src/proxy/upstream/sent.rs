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
    /// How much of EDNS the query used.
    pub(in crate::proxy) edns: EdnsLevel,
}

/// What waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum SentState {
    /// This exchange.
    InTime(ExchangeKey),
    /// This exchange, for longer than is usual.
    Slow(ExchangeKey),
    /// This exchange, for so long that it has looked for another way.
    Overdue(ExchangeKey),
    /// Nothing. The id is not used again while the answer may still arrive.
    Abandoned {
        /// Another upstream had an answer.
        is_answered: bool,
    },
    /// No exchange: the query is a probe that tests the upstream.
    Probe,
}

impl Sent {
    /// The exchange that waits, if one does.
    pub(in crate::proxy) fn exchange(&self) -> Option<ExchangeKey> {
        match self.state {
            SentState::InTime(key) | SentState::Slow(key) | SentState::Overdue(key) => Some(key),
            SentState::Abandoned { .. } | SentState::Probe => None,
        }
    }
}
