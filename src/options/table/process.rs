//! The options for the logs, the exports and the process.

use std::time::Duration;

use log::LevelFilter;

use crate::config::{ClientDetail, LogFormat, parse_duration};
use crate::options::row::{Reload, Row, restore};
use crate::options::values::{OFF, parse_choice, parse_level, parse_query_log};

pub(super) const PROCESS: &[Row] = &[
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
