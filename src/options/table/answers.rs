//! The options for the limits, the cache and DNSSEC validation.

use std::time::Duration;

use crate::config::budget::CACHE_MAX;
use crate::config::{BlockAnswer, Budget, DnssecMode, Timeouts, parse_duration, parse_size};
use crate::options::row::{Reload, Row, restore};
use crate::options::values::{
    OFF, parse_block_file, parse_choice, parse_hosts, parse_limit, parse_path, parse_trust_anchor,
    parse_ttl,
};
use crate::options::warnings;

pub(super) const ANSWERS: &[Row] = &[
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
        long: "cache-file",
        value: "FILE",
        help: "keeps the cache across a restart",
        apply: |draft, value| parse_path(&mut draft.config.cache_file, value),
        reload: Reload::Restores(|new, running| restore(&mut new.cache_file, &running.cache_file)),
    },
    Row {
        short: "",
        long: "memory-limit",
        value: "SIZE",
        help: "memory limit, sets the other limits, like 8m",
        apply: |draft, value| {
            let limit = parse_size(value);
            let budget = limit.and_then(Budget::of);
            draft.memory_limit = Some(budget.ok_or(Budget::EXPECTED)?);
            draft.config.memory_limit = limit;
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
        long: "hosts",
        value: "FILE",
        help: "answer names and addresses of a hosts file",
        apply: parse_hosts,
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "dns64",
        value: "PREFIX",
        help: "make AAAA records of A records (RFC 6147)",
        apply: |draft, value| {
            draft.config.dns64 = Some(value.parse()?);
            Ok(())
        },
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "block",
        value: "FILE",
        help: "block list: one name per line, repeatable",
        apply: |draft, value| parse_block_file(&mut draft.config.block.files, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "allow-names",
        value: "FILE",
        help: "names that are never blocked, repeatable",
        apply: |draft, value| parse_block_file(&mut draft.config.block.allow_files, value),
        reload: Reload::Applies,
    },
    Row {
        short: "",
        long: "block-answer",
        value: "ANSWER",
        help: "blocked: nxdomain, nodata or zero [nxdomain]",
        apply: |draft, value| {
            let choices = [
                ("nxdomain", BlockAnswer::NoName),
                ("nodata", BlockAnswer::NoData),
                ("zero", BlockAnswer::Zero),
            ];
            parse_choice(&mut draft.config.block.answer, &choices, value)
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
];
