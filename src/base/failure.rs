//! Why a connection upstream ended, or could not be had.

use std::fmt;

use crate::wire::edns::{ExtendedError, ExtendedErrorCode};

/// The end of a connection upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of end it is.
    pub kind: FailureKind,
    /// The particular cause, for the log. May be empty.
    pub detail: String,
}

impl Failure {
    /// A failure with its particular cause.
    pub fn new(kind: FailureKind, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            detail: detail.to_string(),
        }
    }
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self {
            kind,
            detail: String::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.detail)
    }
}

/// The kinds of ends, which are handled, counted and told to clients each in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection came about.
    Connect,
    /// The peer could not prove to be the resolver that was configured.
    Authentication,
    /// The handshake failed otherwise, or what came could not be decrypted.
    Tls,
    /// Connection and handshake took too long.
    HandshakeTimeout,
    /// The peer closed: end of stream, reset or close alert.
    Closed,
    /// What came through TLS was no DNS.
    Protocol,
    /// Queries waited and nothing at all came.
    Stalled,
    /// It answers with errors where another upstream has an answer.
    BadAnswer,
    /// No address is known for the upstream's host name.
    NoAddress,
    /// The upstream sends queries back to this server.
    Loop,
}

impl FailureKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Authentication,
        Self::Tls,
        Self::HandshakeTimeout,
        Self::Closed,
        Self::Protocol,
        Self::Stalled,
        Self::BadAnswer,
        Self::NoAddress,
        Self::Loop,
    ];

    /// One word, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Authentication => "authentication",
            Self::Tls => "tls",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Stalled => "stalled",
            Self::BadAnswer => "bad-answer",
            Self::NoAddress => "no-address",
            Self::Loop => "loop",
        }
    }

    /// A few words, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Connect => "connection failed",
            Self::Authentication => "authentication failed",
            Self::Tls => "TLS failed",
            Self::HandshakeTimeout => "handshake timeout",
            Self::Closed => "connection closed by upstream",
            Self::Protocol => "not DNS",
            Self::Stalled => "no answers",
            Self::BadAnswer => "errors where others have answers",
            Self::NoAddress => "no address",
            Self::Loop => "forwarding loop, queries come back to this server",
        }
    }

    /// What a client is told whose query failed for it.
    pub fn extended_error(self) -> ExtendedError {
        let (code, text) = match self {
            Self::Connect => (
                ExtendedErrorCode::NETWORK_ERROR,
                "cannot connect to upstream",
            ),
            Self::Authentication => (
                ExtendedErrorCode::NETWORK_ERROR,
                "upstream failed authentication",
            ),
            Self::Tls => (ExtendedErrorCode::NETWORK_ERROR, "TLS with upstream failed"),
            Self::HandshakeTimeout => (
                ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
                "no connection to upstream in time",
            ),
            Self::Closed => (
                ExtendedErrorCode::NETWORK_ERROR,
                "upstream closed the connection",
            ),
            Self::Protocol => (
                ExtendedErrorCode::NETWORK_ERROR,
                "upstream answers are malformed",
            ),
            Self::Stalled => (
                ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
                "upstream does not answer",
            ),
            Self::BadAnswer => (
                ExtendedErrorCode::NETWORK_ERROR,
                "upstream answers with errors",
            ),
            Self::NoAddress => (
                ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
                "the address of upstream is not known",
            ),
            Self::Loop => (ExtendedErrorCode::OTHER, "forwarding loop"),
        };
        ExtendedError { code, text }
    }
}
