//! The options for the listeners and the upstreams.

use crate::base::address::parse_port;
use crate::config::upstream::is_certificate_name;
use crate::config::{KeyExchange, Network, Policy};
use crate::options::row::{Reload, Row, restore};
use crate::options::values::{
    parse_bootstrap, parse_choice, parse_http_listen, parse_listen, parse_path, parse_upstream,
};
use crate::options::warnings;

pub(super) const NETWORK: &[Row] = &[
    Row {
        short: "p",
        long: "port",
        value: "PORT",
        help: "UDP and TCP port for clients [53]",
        apply: |draft, value| {
            draft.port = Some(parse_port(value).ok_or("a port from 1 to 65535")?);
            Ok(())
        },
        // Restored with the addresses of --listen.
        reload: Reload::Applies,
    },
    Row {
        short: "l",
        long: "listen",
        value: "[ADDR][:PORT]",
        help: "address for clients, repeatable [every address]",
        apply: |draft, value| {
            let warning = parse_listen("listen", &mut draft.listen, value)?;
            draft.warn(warning);
            Ok(())
        },
        reload: Reload::Restores(|new, running| restore(&mut new.listen, &running.listen)),
    },
    Row {
        short: "",
        long: "allow",
        value: "NETWORK",
        help: "",
        apply: |draft, value| {
            let network: Network = value.parse()?;
            draft.warn(warnings::open_resolver(&network, value));
            draft.allowed.push(network);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "deny",
        value: "NETWORK",
        help: "client networks to allow or deny [private only]",
        apply: |draft, value| {
            draft.denied.push(value.parse()?);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "rate-limit",
        value: "QPS[/BURST]",
        help: "queries per second per client [no limit]",
        apply: |draft, value| {
            draft.config.rate_limit = Some(value.parse()?);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "u",
        long: "upstream",
        value: "SPEC",
        help: "upstream, like 1.1.1.1 or tls://dns.quad9.net",
        apply: parse_upstream,
        reload: Reload::Applies,
    },
    Row {
        short: "b",
        long: "bootstrap",
        value: "ADDR[:PORT]",
        help: "plain DNS server to resolve upstream host names",
        apply: parse_bootstrap,
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "policy",
        value: "NAME",
        help: "fastest, ordered or round-robin [fastest]",
        apply: |draft, value| {
            let choices = [
                ("fastest", Policy::Fastest),
                ("ordered", Policy::Ordered),
                ("round-robin", Policy::RoundRobin),
            ];
            parse_choice(&mut draft.config.policy, &choices, value)
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "ca-file",
        value: "FILE",
        help: "CA certificates for upstreams, PEM [built-in]",
        apply: |draft, value| parse_path(&mut draft.config.ca_file, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "clock-stamp",
        value: "FILE",
        help: "stores the last known time (hosts without RTC)",
        apply: |draft, value| parse_path(&mut draft.config.clock_stamp, value),
        reload: Reload::Restores(|new, running| {
            restore(&mut new.clock_stamp, &running.clock_stamp)
        }),
    },
    Row {
        short: "",
        long: "tls-listen",
        value: "[ADDR][:PORT]",
        help: "address for DNS-over-TLS clients, repeatable",
        apply: |draft, value| {
            let warning = parse_listen("tls-listen", &mut draft.tls_listen, value)?;
            draft.warn(warning);
            Ok(())
        },
        reload: Reload::Restores(|new, running| match (&mut new.tls, &running.tls) {
            (Some(new), Some(running)) => restore(&mut new.addresses, &running.addresses),
            // The row of `https-listen` restores the settings.
            (new, running) => {
                let either = new.as_ref().or(running.as_ref());
                either.is_some_and(|tls| !tls.addresses.is_empty())
            }
        }),
    },
    Row {
        short: "",
        long: "https-listen",
        value: "[ADDR][:PORT]",
        help: "address for DNS-over-HTTPS clients, repeatable",
        apply: |draft, value| {
            let warning = parse_listen("https-listen", &mut draft.https_listen, value)?;
            draft.warn(warning);
            Ok(())
        },
        reload: Reload::Restores(|new, running| match (&mut new.tls, &running.tls) {
            (Some(new), Some(running)) => {
                restore(&mut new.https_addresses, &running.https_addresses)
            }
            (new, running) => {
                let either = new.as_ref().or(running.as_ref());
                let differs = either.is_some_and(|tls| !tls.https_addresses.is_empty());
                restore(new, running);
                differs
            }
        }),
    },
    Row {
        short: "",
        long: "designated",
        value: "NAME",
        help: "announce DoT and DoH listeners to clients (DDR)",
        apply: |draft, value| {
            let expected = "a host name in the server certificate, like dns.home.example";
            let is_name = is_certificate_name(value) && !value.contains('_');
            let name = value.parse().ok().filter(|_| is_name);
            draft.config.designated = Some(name.ok_or(expected)?);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "http-listen",
        value: "[ADDR]:PORT",
        help: "HTTP address of /metrics, /healthz and /readyz",
        apply: |draft, value| parse_http_listen(&mut draft.config.http_listen, value),
        reload: Reload::Restores(|new, running| {
            restore(&mut new.http_listen, &running.http_listen)
        }),
    },
    Row {
        short: "",
        long: "tls-cert",
        value: "FILE",
        help: "",
        apply: |draft, value| parse_path(&mut draft.tls_cert, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "tls-key",
        value: "FILE",
        help: "server certificate chain for clients, and key",
        apply: |draft, value| parse_path(&mut draft.tls_key, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "tls-client-ca",
        value: "FILE",
        help: "CA for client authentication (mutual TLS), PEM",
        apply: |draft, value| parse_path(&mut draft.tls_client_ca, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "key-exchange",
        value: "GROUPS",
        help: "TLS key exchange: hybrid or classic [hybrid]",
        apply: |draft, value| {
            let choices = [
                ("hybrid", KeyExchange::Hybrid),
                ("classic", KeyExchange::Classic),
            ];
            parse_choice(&mut draft.config.key_exchange, &choices, value)
        },
        reload: Reload::Applies,
    },
];
