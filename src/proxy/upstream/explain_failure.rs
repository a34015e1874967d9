//! Explains why a connection could not be opened, by how far its opening had progressed.

use super::link::{Link, Stage};
use crate::base::failure::{Failure, FailureKind};
use crate::config::upstream::PLAIN_PORT;
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
    if link.stage != Stage::Opening || link.scheme != Scheme::Tls {
        return failure;
    }
    let (progress, is_answered) = match failure.kind {
        FailureKind::HandshakeTimeout => ("TCP connected, no TLS reply", true),
        FailureKind::ConnectTimeout => ("TCP did not connect", false),
        FailureKind::Closed => ("within the TLS handshake", true),
        kind => ("", kind == FailureKind::Tls),
    };
    add(&mut failure.detail, progress);
    if failure.kind == FailureKind::HandshakeTimeout && port != PLAIN_PORT {
        add(
            &mut failure.detail,
            "check the port (DNS over TLS uses 853), and whether the upstream limits connections",
        );
        if key_exchange == KeyExchange::Hybrid {
            add(
                &mut failure.detail,
                "if a middlebox drops the long ClientHello, set --key-exchange classic",
            );
        }
    }
    if is_answered && port == PLAIN_PORT {
        add(
            &mut failure.detail,
            "port 53 is the port of plain DNS, use port 853 for DNS over TLS",
        );
    }
    failure
}

fn add(detail: &mut String, part: &str) {
    if !detail.is_empty() && !part.is_empty() {
        detail.push_str("; ");
    }
    detail.push_str(part);
}
