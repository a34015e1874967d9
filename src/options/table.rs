//! The table of options.

use std::time::Duration;

use log::LevelFilter;

use super::row::{Reload, Row, restore};
use super::values::{
    OFF, parse_bootstrap, parse_choice, parse_http_listen, parse_level, parse_limit, parse_listen,
    parse_path, parse_query_log, parse_trust_anchor, parse_ttl, parse_upstream,
};
use super::warnings;
use crate::base::address::parse_port;
use crate::config::budget::CACHE_MAX;
use crate::config::{
    Budget, ClientDetail, DnssecMode, KeyExchange, LogFormat, Network, Policy, Timeouts,
    parse_duration, parse_size,
};

/// The options of the command line that are also valid in an options file.
pub(super) const TABLE: &[Row] = &[
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
            (new, running) => restore(new, running),
        }),
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
    Row {
        short: "",
        long: "timeout",
        value: "DURATION",
        help: "time limit of a response, like 500ms [5s]",
        apply: |draft, value| {
            let range = Duration::from_millis(100)..=Duration::from_secs(3600);
            let timeout = parse_duration(value).filter(|timeout| range.contains(timeout));
            let expected = "a duration from 100ms to 1h, like 500ms or 5 (seconds)";
            draft.config.timeouts = Timeouts::for_query(timeout.ok_or(expected)?);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "max-tcp-clients",
        value: "N",
        help: "",
        apply: |draft, value| parse_limit(&mut draft.tcp_clients, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "max-inflight",
        value: "N",
        help: "limit on concurrent clients/queries [256, 4096]",
        apply: |draft, value| parse_limit(&mut draft.inflight, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "cache-size",
        value: "SIZE",
        help: "size of the cache, like 64k; 0 disables it [1m]",
        apply: |draft, value| {
            let size = parse_size(value).filter(|size| *size <= CACHE_MAX);
            let expected = "a size up to 1g, like 500k or 4m (without B), or 0";
            draft.cache_size = Some(size.ok_or(expected)?);
            draft.warn(warnings::few_bytes("cache-size", value));
            Ok(())
        },
        reload: Reload::Applies,
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
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "cache-min-ttl",
        value: "DURATION",
        help: "",
        apply: |draft, value| parse_ttl(&mut draft.config.cache.ttl_min, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "cache-max-ttl",
        value: "DURATION",
        help: "",
        apply: |draft, value| parse_ttl(&mut draft.config.cache.ttl_max, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "cache-max-negative-ttl",
        value: "DURATION",
        help: "bounds of TTLs in the cache [0s, 1d, 1h]",
        apply: |draft, value| parse_ttl(&mut draft.config.cache.negative_ttl_max, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "serve-stale",
        value: "DURATION",
        help: "time to serve stale answers on failure [1d]",
        apply: |draft, value| parse_ttl(&mut draft.config.cache.stale_max, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "prefetch",
        value: "",
        help: "refresh popular answers before they expire",
        apply: |draft, value| {
            draft.config.cache.prefetch = value != OFF;
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "dnssec",
        value: "MODE",
        help: "DNSSEC validation: off, log or on [off]",
        apply: |draft, value| {
            let choices = [
                ("off", DnssecMode::Off),
                ("log", DnssecMode::Log),
                ("on", DnssecMode::On),
            ];
            parse_choice(&mut draft.config.dnssec.mode, &choices, value)
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "trust-anchor",
        value: "FILE",
        help: "file of DS or DNSKEY records, repeatable [root]",
        apply: parse_trust_anchor,
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "negative-trust-anchor",
        value: "DOMAIN",
        help: "domain exempt from validation, repeatable",
        apply: |draft, value| {
            let domain = value.parse().map_err(|_| "a domain, like corp.example")?;
            draft.config.dnssec.negative_anchors.push(domain);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "log-format",
        value: "FORMAT",
        help: "text or json [text]",
        apply: |draft, value| {
            let choices = [("text", LogFormat::Text), ("json", LogFormat::Json)];
            parse_choice(&mut draft.config.log_format, &choices, value)
        },
        reload: Reload::Restores(|new, running| restore(&mut new.log_format, &running.log_format)),
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
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "query-log-clients",
        value: "MODE",
        help: "full, subnet or none [subnet]",
        apply: |draft, value| {
            let choices = [
                ("full", ClientDetail::Full),
                ("subnet", ClientDetail::Subnet),
                ("none", ClientDetail::None),
            ];
            parse_choice(&mut draft.query_log_clients, &choices, value)
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "dnstap",
        value: "SOCKET",
        help: "dnstap reader, unix:PATH or tcp:ADDR:PORT",
        apply: |draft, value| {
            draft.config.dnstap = Some(value.parse()?);
            Ok(())
        },
        reload: Reload::Restores(|new, running| restore(&mut new.dnstap, &running.dnstap)),
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
        reload: Reload::Restores(|new, running| match (&mut new.traces, &running.traces) {
            (Some(new), Some(running)) => restore(&mut new.collector, &running.collector),
            (new, running) => restore(new, running),
        }),
    },
    Row {
        short: "",
        long: "trace-sample",
        value: "RATIO",
        help: "fraction of queries to trace [0.01]",
        apply: |draft, value| {
            draft.trace_share = Some(value.parse()?);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "reload-interval",
        value: "DURATION",
        help: "check files for changes, then reload [never]",
        apply: |draft, value| {
            let range = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
            let interval = parse_duration(value);
            let interval = interval.filter(|some| some.is_zero() || range.contains(some));
            let interval = interval.ok_or("a duration from 1s to 365d, or 0 for never")?;
            draft.config.reload_interval = (!interval.is_zero()).then_some(interval);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "reuse-port",
        value: "",
        help: "share the port with other processes",
        apply: |draft, value| {
            draft.config.reuse_port = value != OFF;
            Ok(())
        },
        reload: Reload::Restores(|new, running| restore(&mut new.reuse_port, &running.reuse_port)),
    },
    Row {
        short: "",
        long: "user",
        value: "NAME[:GROUP]",
        help: "run as this user once the sockets are bound",
        apply: |draft, value| {
            draft.config.user = Some(value.parse()?);
            Ok(())
        },
        reload: Reload::Restores(|new, running| restore(&mut new.user, &running.user)),
    },
    Row {
        short: "",
        long: "no-sandbox",
        value: "",
        help: "disable sandbox (capabilities, files, ports)",
        apply: |draft, value| {
            draft.config.is_sandboxed = value == OFF;
            Ok(())
        },
        reload: Reload::Restores(|new, running| {
            restore(&mut new.is_sandboxed, &running.is_sandboxed)
        }),
    },
    Row {
        short: "",
        long: "log-level",
        value: "LEVEL",
        help: "error, warn, info, debug or trace [info]",
        apply: |draft, value| {
            draft.config.log_level = parse_level(value)?;
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "v",
        long: "verbose",
        value: "",
        help: "log level debug; -vv: trace",
        apply: |draft, value| {
            draft.verbosity = match draft.verbosity {
                _ if value == OFF => None,
                None => Some(LevelFilter::Debug),
                Some(_) => Some(LevelFilter::Trace),
            };
            Ok(())
        },
        reload: Reload::Applies,
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
