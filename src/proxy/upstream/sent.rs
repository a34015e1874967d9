//! A query that was sent on a link and has no answer.

use std::hash::{DefaultHasher, Hasher as _};

use crate::base::time::Instant;
use crate::proxy::keys::ExchangeKey;
use crate::wire::Question;
use crate::wire::name::hash_lowercase;
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
    Abandoned(Abandoned),
    /// The query is a probe with this question, for which no exchange waits.
    Probe(QuestionHash),
}

/// A query for which no exchange waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Abandoned {
    pub(in crate::proxy) question: QuestionHash,
    /// True if another upstream answered the query.
    pub(in crate::proxy) is_answered: bool,
}

/// A hash of a question, regardless of letter case. It distinguishes the answer to a query whose
/// exchange is gone from a reply to another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct QuestionHash(u32);

impl QuestionHash {
    pub(in crate::proxy) fn of(question: Question<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        hash_lowercase(question.as_bytes(), &mut hasher);
        // The upper half is as good as the lower one.
        Self((hasher.finish() >> 32) as u32)
    }
}

impl Sent {
    /// Returns the question of a query for which no exchange waits.
    pub(in crate::proxy) fn unawaited_question(&self) -> Option<QuestionHash> {
        match self.state {
            SentState::Abandoned(abandoned) => Some(abandoned.question),
            SentState::Probe(question) => Some(question),
            SentState::InTime(_) | SentState::Slow(_) | SentState::Overdue(_) => None,
        }
    }

    /// Returns the exchange that waits for the answer.
    pub(in crate::proxy) fn exchange(&self) -> Option<ExchangeKey> {
        match self.state {
            SentState::InTime(key) | SentState::Slow(key) | SentState::Overdue(key) => Some(key),
            SentState::Abandoned(_) | SentState::Probe(_) => None,
        }
    }
}
