//! The outcome of a query, and the reason why a reply was not used.

use super::keys::UpstreamIndex;
use crate::dnssec::validation::SecurityKind;

/// The origin of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Provenance {
    /// The upstream that gave the answer.
    pub(super) upstream: Option<UpstreamIndex>,
    /// The verdict of the validator, if the answer was validated.
    pub(super) security: Option<SecurityKind>,
}

/// The outcome of a query. Every query has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered by upstream, with any response code.
    Answered,
    /// Answered locally: a special-use name, or a name of a hosts file or of our listeners.
    AnsweredHere,
    /// Answered locally: the name is on a block list.
    Blocked,
    /// Answered from the cache.
    Cached,
    /// Answered from the cache with a stale answer, since upstream had none.
    Stale,
    /// FORMERR: the query could not be parsed.
    Malformed,
    /// NOTIMP: the opcode was not QUERY.
    NotImplemented,
    /// BADVERS: the query used a later version of EDNS.
    BadVersion,
    /// REFUSED: the proxy does not forward such queries.
    Refused,
    /// REFUSED: the client's address is not allowed.
    Denied,
    /// TC: the client exceeded the rate limit and may retry over TCP.
    Slipped,
    /// No response: the client exceeded the rate limit.
    RateLimited,
    /// SERVFAIL: too many queries waited already.
    Shed,
    /// SERVFAIL: upstream could not be reached or gave no usable answer.
    UpstreamFailed,
    /// SERVFAIL: there was no answer in time.
    TimedOut,
    /// SERVFAIL: the answer failed DNSSEC validation.
    Bogus,
}

impl Outcome {
    /// All outcomes in the order of declaration.
    pub const ALL: [Self; 16] = [
        Self::Answered,
        Self::AnsweredHere,
        Self::Blocked,
        Self::Cached,
        Self::Stale,
        Self::Malformed,
        Self::NotImplemented,
        Self::BadVersion,
        Self::Refused,
        Self::Denied,
        Self::Slipped,
        Self::RateLimited,
        Self::Shed,
        Self::UpstreamFailed,
        Self::TimedOut,
        Self::Bogus,
    ];

    /// Returns the name for counters and records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::AnsweredHere => "answered-here",
            Self::Blocked => "blocked",
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::Malformed => "malformed",
            Self::NotImplemented => "not-implemented",
            Self::BadVersion => "bad-version",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::Slipped => "slipped",
            Self::RateLimited => "rate-limited",
            Self::Shed => "shed",
            Self::UpstreamFailed => "upstream-failed",
            Self::TimedOut => "timed-out",
            Self::Bogus => "bogus",
        }
    }
}

/// The reason why a message from upstream was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// No query on this link had its id.
    UnknownId,
    /// The message was not a response, or it answered another question.
    Mismatch,
    /// The message could not be parsed.
    Malformed,
    /// The query had been answered or given up.
    Late,
}

impl Discard {
    /// All reasons in the order of declaration.
    pub const ALL: [Self; 4] = [Self::UnknownId, Self::Mismatch, Self::Malformed, Self::Late];

    /// Returns the name for counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownId => "unknown-id",
            Self::Mismatch => "mismatch",
            Self::Malformed => "malformed",
            Self::Late => "late",
        }
    }
}
