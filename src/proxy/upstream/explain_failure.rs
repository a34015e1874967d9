//! Explains why a connection could not be opened, by how far its opening had progressed.

use super::link::{Link, Stage};
use crate::base::failure::{Failure, FailureKind};
use crate::config::upstream::{HTTPS_PORT, PLAIN_PORT, TLS_PORT};
use crate::config::{KeyExchange, Scheme};

/// Returns the failure of a link to this port, explained if the link was being opened.
pub(super) fn explain_failure(
    link: &Link,
    port: u16,
    key_exchange: KeyExchange,
    failure: &Failure,
) -> Failure {
    if link.stage == Stage::Opening {
        explain_opening_failure(link.scheme, port, key_exchange, failure)
    } else {
        failure.clone()
    }
}

/// Returns a failure to open a connection with this protocol to this port. Under TLS, the progress
/// and the likely cause are added; the key exchange offered these groups.
pub fn explain_opening_failure(
    scheme: Scheme,
    port: u16,
    key_exchange: KeyExchange,
    failure: &Failure,
) -> Failure {
    let mut failure = failure.clone();
    if !scheme.is_encrypted() {
        return failure;
    }
    let (protocol, usual) = match scheme {
        Scheme::Https => ("DNS over HTTPS", HTTPS_PORT),
        _ => ("DNS over TLS", TLS_PORT),
    };
    let (progress, is_answered) = match failure.kind {
        FailureKind::HandshakeTimeout => ("TCP connected, no TLS reply", true),
        FailureKind::ConnectTimeout => ("TCP did not connect", false),
        FailureKind::Closed => ("within the TLS handshake", true),
        kind => ("", kind == FailureKind::Tls),
    };
    add(&mut failure.detail, progress);
    if failure.kind == FailureKind::HandshakeTimeout && port != PLAIN_PORT {
        let hint = format!(
            "check the port ({protocol} uses {usual}), and whether the upstream limits connections"
        );
        add(&mut failure.detail, &hint);
        if key_exchange == KeyExchange::Hybrid {
            add(
                &mut failure.detail,
                "if a middlebox drops the long ClientHello, set --key-exchange classic",
            );
        }
    }
    if is_answered && port == PLAIN_PORT {
        let hint = format!("port 53 is the port of plain DNS, use port {usual} for {protocol}");
        add(&mut failure.detail, &hint);
    }
    failure
}

fn add(detail: &mut String, part: &str) {
    if !detail.is_empty() && !part.is_empty() {
        detail.push_str("; ");
    }
    detail.push_str(part);
}
