//! Failures of upstream connections.

use std::fmt;

use crate::wire::edns::{ExtendedError, ExtendedErrorCode};

/// A failure of an upstream connection or of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The specific cause, for the log. May be empty.
    pub detail: String,
}

impl Failure {
    /// Creates a failure with its specific cause.
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

/// The kind of a failure. Each kind is handled, counted and reported to clients separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The connection could not be established.
    Connect,
    /// The peer could not be authenticated as the configured resolver.
    Authentication,
    /// The TLS handshake failed for another reason, or a record could not be decrypted.
    Tls,
    /// TCP did not connect in time.
    ConnectTimeout,
    /// TCP connected, and the TLS handshake did not end in time.
    HandshakeTimeout,
    /// The peer closed the connection: end of stream, reset or close alert.
    Closed,
    /// The data that the peer sent over TLS is not DNS.
    Protocol,
    /// The peer violated HTTP/2 or exceeded a limit, or its response has no DNS message.
    Http2,
    /// Queries waited and no answer arrived.
    Stalled,
    /// The upstream answers with errors where another upstream has an answer.
    BadAnswer,
    /// No address is known for the upstream's host name.
    NoAddress,
    /// The upstream sends queries back to this server.
    Loop,
}

impl FailureKind {
    /// All kinds in the order of declaration.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::Authentication,
        Self::Tls,
        Self::ConnectTimeout,
        Self::HandshakeTimeout,
        Self::Closed,
        Self::Protocol,
        Self::Http2,
        Self::Stalled,
        Self::BadAnswer,
        Self::NoAddress,
        Self::Loop,
    ];

    /// Returns a word for counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Authentication => "authentication",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect-timeout",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Http2 => "http2",
            Self::Stalled => "stalled",
            Self::BadAnswer => "bad-answer",
            Self::NoAddress => "no-address",
            Self::Loop => "loop",
        }
    }

    /// Returns a short description for logs.
    pub fn text(self) -> &'static str {
        match self {
            Self::Connect => "connection failed",
            Self::Authentication => "authentication failed",
            Self::Tls => "TLS failed",
            Self::ConnectTimeout => "connect timeout",
            Self::HandshakeTimeout => "handshake timeout",
            Self::Closed => "connection closed by upstream",
            Self::Protocol => "malformed DNS message",
            Self::Http2 => "HTTP/2 failed",
            Self::Stalled => "no answer",
            Self::BadAnswer => "error replies to questions that another upstream answers",
            Self::NoAddress => "no known address",
            Self::Loop => {
                "forwarding loop: queries come back to this server: correct --upstream, or the \
                 settings of the upstream"
            }
        }
    }

    /// Returns the extended DNS error for a query that failed with this kind.
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
            Self::ConnectTimeout => (
                ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
                "TCP connection to upstream timed out",
            ),
            Self::HandshakeTimeout => (
                ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
                "TLS handshake with upstream timed out",
            ),
            Self::Closed => (
                ExtendedErrorCode::NETWORK_ERROR,
                "upstream closed the connection",
            ),
            Self::Protocol => (
                ExtendedErrorCode::NETWORK_ERROR,
                "upstream answers are malformed",
            ),
            Self::Http2 => (
                ExtendedErrorCode::NETWORK_ERROR,
                "HTTP/2 with upstream failed",
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
                "upstream address unknown",
            ),
            Self::Loop => (ExtendedErrorCode::OTHER, "forwarding loop"),
        };
        ExtendedError { code, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_loop_has_advice() {
        assert_eq!(
            Failure::from(FailureKind::Loop).to_string(),
            "forwarding loop: queries come back to this server: correct --upstream, or the \
             settings of the upstream"
        );
    }
}
