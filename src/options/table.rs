//! The table of options.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::draft::Draft;
use crate::address::{Address, parse_endpoint, parse_port};
use crate::arena;
use crate::config::budget::CACHE_MAX;
use crate::config::upstream::PLAIN_PORT;
use crate::config::{
    Budget, ClientDetail, LogFormat, LogTarget, Policy, parse_duration, parse_number, parse_size,
};

/// An option of the program, wherever it stands.
pub(super) struct Row {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    /// What its value is called; empty for an option without one.
    pub(super) value: &'static str,
    /// Empty where it shares the help of the next row.
    pub(super) help: &'static str,
    /// Takes the value over, or says what was expected.
    pub(super) apply: fn(&mut Draft, &str) -> Result<(), &'static str>,
}

/// Options that stand in a file as well as on the command line.
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
        apply: |draft, value| parse_listen(&mut draft.listen, value),
    },
    Row {
        short: "",
        long: "allow",
        value: "NETWORK",
        help: "",
        apply: |draft, value| {
            draft.allowed.push(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "deny",
        value: "NETWORK",
        help: "who may ask, who not [only private networks]",
        apply: |draft, value| {
            draft.denied.push(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "rate-limit",
        value: "QPS[/BURST]",
        help: "queries a second for each client [no limit]",
        apply: |draft, value| {
            draft.rate_limit = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "u",
        long: "upstream",
        value: "SPEC",
        help: "resolver, like 1.1.1.1 or tls://dns.quad9.net",
        apply: |draft, value| {
            draft.upstreams.push(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "b",
        long: "bootstrap",
        value: "ADDR[:PORT]",
        help: "plain DNS server that knows hosts of upstreams",
        apply: |draft, value| {
            let endpoint = parse_endpoint(value).filter(|(address, _)| !address.lacks_zone());
            let (address, port) = endpoint.ok_or("an IP address like 192.168.1.1 or [::1]:53")?;
            let port = port.unwrap_or(PLAIN_PORT);
            draft.bootstrap.push(address.with_port(port));
            Ok(())
        },
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
                _ => return Err("fastest, ordered or round-robin"),
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "ca-file",
        value: "FILE",
        help: "PEM roots to trust [built-in Mozilla roots]",
        apply: |draft, value| parse_path(&mut draft.ca_file, value),
    },
    Row {
        short: "",
        long: "clock-stamp",
        value: "FILE",
        help: "keeps the time where the clock has no battery",
        apply: |draft, value| parse_path(&mut draft.clock_stamp, value),
    },
    Row {
        short: "",
        long: "tls-listen",
        value: "ADDR[:PORT]",
        help: "address for clients under TLS, repeatable",
        apply: |draft, value| parse_listen(&mut draft.tls_listen, value),
    },
    Row {
        short: "",
        long: "http-listen",
        value: "ADDR:PORT",
        help: "/metrics, /healthz and /readyz, repeatable",
        apply: |draft, value| {
            let endpoint = parse_endpoint(value).filter(|(address, _)| !address.lacks_zone());
            let Some((address, Some(port))) = endpoint else {
                return Err("an address and a port like 127.0.0.1:9153");
            };
            let address = address.with_port(port);
            // The entry point of the image may say the same.
            if !draft.http_listen.contains(&address) {
                draft.http_listen.push(address);
            }
            Ok(())
        },
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
        help: "PEM chain that they are shown, and its key",
        apply: |draft, value| parse_path(&mut draft.tls_key, value),
    },
    Row {
        short: "",
        long: "tls-client-ca",
        value: "FILE",
        help: "PEM roots of certificates that they must have",
        apply: |draft, value| parse_path(&mut draft.tls_client_ca, value),
    },
    Row {
        short: "",
        long: "timeout",
        value: "DURATION",
        help: "longest wait for a response, like 500ms [5s]",
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
        help: "how many at the same time [256, 4096]",
        apply: |draft, value| parse_limit(&mut draft.inflight, value),
    },
    Row {
        short: "",
        long: "cache-size",
        value: "SIZE",
        help: "memory for known answers, like 64k, or 0 [1m]",
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
        help: "memory for it all, like 8m; the rest follows",
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
        help: "how long answers are known [0s, 1d, 1h]",
        apply: |draft, value| parse_ttl(&mut draft.cache.negative_ttl_max, value),
    },
    Row {
        short: "",
        long: "serve-stale",
        value: "DURATION",
        help: "how long after that, if upstream fails [1d]",
        apply: |draft, value| parse_ttl(&mut draft.cache.stale_max, value),
    },
    Row {
        short: "",
        long: "prefetch",
        value: "",
        help: "ask again for popular answers before their end",
        apply: |draft, _| {
            draft.cache.prefetch = true;
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
                _ => return Err("text or json"),
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "query-log",
        value: "FILE",
        help: "JSON a query, -: standard output; FILE,sample=N",
        apply: |draft, value| {
            let (target, sample) = match value.rsplit_once(",sample=") {
                Some((target, sample)) => (target, parse_number(sample).filter(|n| *n > 0)),
                None => (value, Some(1)),
            };
            draft.query_log = match (target, sample) {
                ("", _) | (_, None) => return Err("a file, like /var/log/dns.json,sample=10"),
                ("-", Some(sample)) => Some((LogTarget::Stdout, sample)),
                (path, Some(sample)) => Some((LogTarget::File(path.into()), sample)),
            };
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
                _ => return Err("full, subnet or none"),
            };
            Ok(())
        },
    },
    Row {
        short: "",
        long: "dnstap",
        value: "SOCKET",
        help: "every message, to unix:PATH or tcp:ADDR:PORT",
        apply: |draft, value| {
            draft.dnstap = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "otlp",
        value: "http://ADDR:PORT",
        help: "traces, to a collector of OpenTelemetry",
        apply: |draft, value| {
            draft.collector = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "trace-sample",
        value: "RATIO",
        help: "how many queries are traced [0.01]",
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
        apply: |draft, _| {
            draft.reuse_port = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "user",
        value: "NAME[:GROUP]",
        help: "who to become once the sockets are bound",
        apply: |draft, value| {
            draft.user = Some(value.parse()?);
            Ok(())
        },
    },
    Row {
        short: "",
        long: "no-sandbox",
        value: "",
        help: "keep capabilities, files and ports after that",
        apply: |draft, _| {
            draft.no_sandbox = true;
            Ok(())
        },
    },
    Row {
        short: "",
        long: "log-level",
        value: "LEVEL",
        help: "error, warn, info, debug or trace [info]",
        apply: |draft, value| {
            draft.log_level = match value {
                "error" => LevelFilter::Error,
                "warn" => LevelFilter::Warn,
                "info" => LevelFilter::Info,
                "debug" => LevelFilter::Debug,
                "trace" => LevelFilter::Trace,
                _ => return Err("error, warn, info, debug or trace"),
            };
            Ok(())
        },
    },
    Row {
        short: "v",
        long: "verbose",
        value: "",
        help: "log debug messages, too; -vv: trace messages",
        apply: |draft, _| {
            draft.verbosity = match draft.verbosity {
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
        "read options from FILE, option=value a line",
    ),
    (
        "",
        "check-conf",
        "",
        "check options and files, then exit 0 or 2",
    ),
    (
        "",
        "probe",
        "URL",
        "exit 0 if the status of URL is 200, else 1",
    ),
    ("h", "help", "", ""),
    ("V", "version", "", "print this; print the version"),
];

fn parse_listen(listen: &mut Vec<(Address, Option<u16>)>, value: &str) -> Result<(), &'static str> {
    let expected = "an IP address like 127.0.0.1, 127.0.0.1:5353 or [::1]:53";
    let endpoint = parse_endpoint(value).ok_or(expected)?;
    if endpoint.0.lacks_zone() {
        return Err(Address::WITH_ZONE);
    }
    listen.push(endpoint);
    Ok(())
}

fn parse_path(path: &mut Option<PathBuf>, value: &str) -> Result<(), &'static str> {
    *path = (!value.is_empty()).then(|| value.into());
    path.is_some().then_some(()).ok_or("a file")
}

fn parse_limit(limit: &mut Option<usize>, value: &str) -> Result<(), &'static str> {
    const MAX: usize = 60_000;
    const { assert!(MAX < arena::CAPACITY_MAX) };
    let number = parse_number(value).filter(|number| (1..=MAX).contains(number));
    *limit = Some(number.ok_or("a number from 1 to 60000")?);
    Ok(())
}

fn parse_ttl(ttl: &mut Duration, value: &str) -> Result<(), &'static str> {
    const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let duration = parse_duration(value).filter(|duration| *duration <= MAX);
    *ttl = duration.ok_or("a duration up to 365d, like 30s or 1h")?;
    Ok(())
}
