//! Log lines about connections: the first one to an endpoint, and failures of clients.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::counted::counted;
use crate::base::failure::{Failure, FailureKind};
use crate::base::origin::ClientProtocol;
use crate::session::transport::TlsSession;

/// Logs the first connection to an endpoint.
pub(super) fn log_connected(label: &str, took: Duration, tls: Option<TlsSession>, now: Duration) {
    let properties = match tls {
        Some(tls) => {
            let key_exchange = tls.key_exchange.map(str::to_owned);
            let validity = tls.validity.map(|validity| {
                let left = validity.expires_at.saturating_sub(now);
                match left.as_secs() / 86_400 {
                    0 => "certificate valid less than a day".to_owned(),
                    days => format!("certificate valid {}", counted(days, "day", "days")),
                }
            });
            let parts = [Some(tls.version.to_owned()), key_exchange, validity];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            parts.join(", ")
        }
        None => "TCP, not encrypted".to_owned(),
    };
    let took = describe_duration(took);
    log::info!(
        event = "upstream-connected", upstream = label;
        "upstream {label}: connected in {took} ({properties})"
    );
}

fn describe_duration(took: Duration) -> String {
    match took.as_millis() {
        0 => "less than 1 ms".to_owned(),
        ms => format!("{ms} ms"),
    }
}

/// Logs the failure of a client's connection. The text of a close names the client.
pub(super) fn log_client_failure(peer: SocketAddr, protocol: ClientProtocol, failure: &Failure) {
    let text = match failure.kind {
        FailureKind::Closed => "connection closed by client",
        kind => kind.text(),
    };
    let (separator, detail) = match failure.detail.as_ref() {
        "" => ("", ""),
        detail => (": ", detail),
    };
    log::debug!(
        "client {peer} ({}): {text}{separator}{detail}",
        protocol.label()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_within_a_millisecond_took_less_than_one() {
        let text = |us| describe_duration(Duration::from_micros(us));
        assert_eq!(text(999), "less than 1 ms");
        assert_eq!(text(1999), "1 ms");
    }
}
