//! Explains why a connection could not be opened, by how far its opening had progressed.

use super::link::{Link, Stage};
use crate::base::failure::{Failure, FailureKind};
use crate::config::upstream::{HTTPS_PORT, PLAIN_PORT, TLS_PORT};
use crate::config::{KeyExchange, Scheme};

/// Returns `failure` of a link to this port, with the progress and the likely cause added if the
/// link was being opened under TLS with these groups for the key exchange.
pub(super) fn explain_failure(
    link: &Link,
    port: u16,
    key_exchange: KeyExchange,
    failure: &Failure,
) -> Failure {
    let mut failure = failure.clone();
    if link.stage != Stage::Opening || !link.scheme.is_encrypted() {
        return failure;
    }
    let (protocol, usual) = match link.scheme {
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
