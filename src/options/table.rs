//! The table of options.

use std::time::Duration;

use log::LevelFilter;

use super::draft::Draft;
use super::values::{
    Applied, OFF, parse_bootstrap, parse_http_listen, parse_level, parse_limit, parse_listen,
    parse_path, parse_query_log, parse_ttl, parse_upstream,
};
use super::warnings;
use crate::base::address::parse_port;
use crate::config::budget::CACHE_MAX;
use crate::config::{Budget, ClientDetail, LogFormat, Network, Policy, parse_duration, parse_size};

/// An option of the command line and the options file.
pub(super) struct Row {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    /// The name of the value; empty for an option without a value.
    pub(super) value: &'static str,
    /// The help text; empty if the option shares the help of the next row.
    pub(super) help: &'static str,
    /// Parses and stores the value, or returns a description of the expected value.
    pub(super) apply: fn(&mut Draft, &str) -> Applied,
}

/// The options of the command line that are also valid in an options file.
pub(super) const TABLE: &[Row] = &[
    Row {
        short: "p",
        long: "port",
        value: "PORT",
        help: "UDP and TCP port for clients [53]",
        apply: |draft, value| {
            draft.port = parse_port(value).ok_or("a port from 1 to 65535")?;
            Ok(())
        },
    },
    Row {
        short: "l",
        long: "listen",
        value: "ADDR[:PORT]",
        help: "address for clients, repeatable [every address]",
        apply: |draft, value| {
            let warning = parse_listen("listen", &mut draft.listen, value)?;
            draft.warn(warning);
            Ok(())
        },
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
    },
    Row {
        short: "",
        long: "rate-limit",
        value: "QPS[/BURST]",
        help: "queries per second per client [no limit]",
        apply: |draft, value| {
            draft.rate_limit = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "u",
        long: "upstream",
        value: "SPEC",
        help: "upstream, like 1.1.1.1 or tls://dns.quad9.net",
        apply: parse_upstream,
    },
    Row {
        short: "b",
        long: "bootstrap",
        value: "ADDR[:PORT]",
        help: "plain DNS server to resolve upstream host names",
        apply: parse_bootstrap,
    },
    Row {
        short: "",
        long: "policy",
        value: "NAME",
        help: "fastest, ordered or round-robin [fastest]",
        apply: |draft, value| {
            draft.policy = match value {
                "fastest" => Policy::Fastest,
                "ordered" => Policy::Ordered,
                "round-robin" => Policy::RoundRobin,
                _ => return Err("fastest, ordered or round-robin".into()),
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "ca-file",
        value: "FILE",
        help: "CA certificates for upstreams, PEM [built-in]",
        apply: |draft, value| parse_path(&mut draft.ca_file, value),
    },
    Row {
        short: "",
        long: "clock-stamp",
        value: "FILE",
        help: "stores the time, for hosts without an RTC",
        apply: |draft, value| parse_path(&mut draft.clock_stamp, value),
    },
    Row {
        short: "",
        long: "tls-listen",
        value: "ADDR[:PORT]",
        help: "address for DNS-over-TLS clients, repeatable",
        apply: |draft, value| {
            let warning = parse_listen("tls-listen", &mut draft.tls_listen, value)?;
            draft.warn(warning);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "http-listen",
        value: "ADDR:PORT",
        help: "HTTP address of /metrics, /healthz and /readyz",
        apply: |draft, value| parse_http_listen(&mut draft.http_listen, value),
    },
    Row {
        short: "",
        long: "tls-cert",
        value: "FILE",
        help: "",
        apply: |draft, value| parse_path(&mut draft.tls_cert, value),
    },
    Row {
        short: "",
        long: "tls-key",
        value: "FILE",
        help: "server certificate chain for clients, and key",
        apply: |draft, value| parse_path(&mut draft.tls_key, value),
    },
    Row {
        short: "",
        long: "tls-client-ca",
        value: "FILE",
        help: "CA for client authentication (mutual TLS), PEM",
        apply: |draft, value| parse_path(&mut draft.tls_client_ca, value),
    },
    Row {
        short: "",
        long: "timeout",
        value: "DURATION",
        help: "time limit of a response, like 500ms [5s]",
        apply: |draft, value| {
            let range = Duration::from_millis(100)..=Duration::from_secs(3600);
            let timeout = parse_duration(value).filter(|timeout| range.contains(timeout));
            draft.timeout = timeout.ok_or("a duration from 100ms to 1h, like 500ms or 5s")?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "max-tcp-clients",
        value: "N",
        help: "",
        apply: |draft, value| parse_limit(&mut draft.tcp_clients, value),
    },
    Row {
        short: "",
        long: "max-inflight",
        value: "N",
        help: "limit on concurrent clients/queries [256, 4096]",
        apply: |draft, value| parse_limit(&mut draft.inflight, value),
    },
    Row {
        short: "",
        long: "cache-size",
        value: "SIZE",
        help: "size of the cache, like 64k; 0 disables it [1m]",
        apply: |draft, value| {
            let size = parse_size(value).filter(|size| *size <= CACHE_MAX);
            draft.cache_size = Some(size.ok_or("a size up to 1g, like 500k or 4m, or 0")?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "memory-limit",
        value: "SIZE",
        help: "memory limit, sets the other limits, like 8m",
        apply: |draft, value| {
            let budget = parse_size(value).and_then(Budget::of);
            draft.memory_limit = Some(budget.ok_or(Budget::EXPECTED)?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "cache-min-ttl",
        value: "DURATION",
        help: "",
        apply: |draft, value| parse_ttl(&mut draft.cache.ttl_min, value),
    },
    Row {
        short: "",
        long: "cache-max-ttl",
        value: "DURATION",
        help: "",
        apply: |draft, value| parse_ttl(&mut draft.cache.ttl_max, value),
    },
    Row {
        short: "",
        long: "cache-max-negative-ttl",
        value: "DURATION",
        help: "bounds of TTLs in the cache [0s, 1d, 1h]",
        apply: |draft, value| parse_ttl(&mut draft.cache.negative_ttl_max, value),
    },
    Row {
        short: "",
        long: "serve-stale",
        value: "DURATION",
        help: "time to serve stale answers on failure [1d]",
        apply: |draft, value| parse_ttl(&mut draft.cache.stale_max, value),
    },
    Row {
        short: "",
        long: "prefetch",
        value: "",
        help: "refresh popular answers before they expire",
        apply: |draft, value| {
            draft.cache.prefetch = value != OFF;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "log-format",
        value: "FORMAT",
        help: "text or json [text]",
        apply: |draft, value| {
            draft.log_format = match value {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("text or json".into()),
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "query-log",
        value: "FILE",
        help: "JSON query log, - for stdout; FILE,sample=N",
        apply: |draft, value| {
            draft.query_log = parse_query_log(value)?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "query-log-clients",
        value: "MODE",
        help: "full, subnet or none [subnet]",
        apply: |draft, value| {
            draft.query_log_clients = match value {
                "full" => ClientDetail::Full,
                "subnet" => ClientDetail::Subnet,
                "none" => ClientDetail::None,
                _ => return Err("full, subnet or none".into()),
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "dnstap",
        value: "SOCKET",
        help: "dnstap reader, unix:PATH or tcp:ADDR:PORT",
        apply: |draft, value| {
            draft.dnstap = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "otlp",
        value: "http://ADDR:PORT",
        help: "OpenTelemetry collector for traces",
        apply: |draft, value| {
            draft.collector = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "trace-sample",
        value: "RATIO",
        help: "fraction of queries to trace [0.01]",
        apply: |draft, value| {
            draft.trace_share = value.parse()?;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "reuse-port",
        value: "",
        help: "share the port with other processes",
        apply: |draft, value| {
            draft.reuse_port = value != OFF;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "user",
        value: "NAME[:GROUP]",
        help: "run as this user once the sockets are bound",
        apply: |draft, value| {
            draft.user = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "no-sandbox",
        value: "",
        help: "keep capabilities, files and ports unrestricted",
        apply: |draft, value| {
            draft.no_sandbox = value != OFF;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "log-level",
        value: "LEVEL",
        help: "error, warn, info, debug or trace [info]",
        apply: |draft, value| {
            draft.log_level = parse_level(value)?;
            Ok(())
        },
    },
    Row {
        short: "v",
        long: "verbose",
        value: "",
        help: "log level debug; -vv: trace",
        apply: |draft, value| {
            draft.verbosity = match draft.verbosity {
                _ if value == OFF => LevelFilter::Off,
                LevelFilter::Off => LevelFilter::Debug,
                _ => LevelFilter::Trace,
            };
            Ok(())
        },
    },
];

/// Options of the command line alone, with their help.
pub(super) const COMMANDS: &[(&str, &str, &str, &str)] = &[
    (
        "C",
        "conf-file",
        "FILE",
        "read options from FILE, one per line",
    ),
    (
        "",
        "check-conf",
        "",
        "check options and files, then exit with 0 or 2",
    ),
    (
        "",
        "probe",
        "URL",
        "request URL; exit with 0 on status 200, else 1",
    ),
    ("h", "help", "", ""),
    ("V", "version", "", "print this help; print the version"),
];
