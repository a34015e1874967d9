//! The metrics page.

use std::time::Duration;

use super::dnstap::Tap;
use super::otlp::Traces;
use crate::base::failure::FailureKind;
use crate::base::origin::ClientProtocol;
use crate::base::time::Validity;
use crate::block::BlockList;
use crate::net::Net;
use crate::proxy::{Discard, Outcome, UpstreamView};
use crate::reactor::{Reactor, Session, Slot};
use crate::telemetry::logger;
use crate::telemetry::openmetrics::{Format, Page};
use crate::telemetry::proc_stats::Usage;
use crate::telemetry::query_log::QueryLog;
use crate::tls::{Acceptor, Connector, OwnCertificate};

impl<N: Net> Reactor<N> {
    pub(in crate::reactor) fn metrics(&mut self, format: Format) -> String {
        let usage = self.process.usage();
        let mut page = Page::new(format);
        page.gauge("dotproxy_build_info", "Version of the program.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.write_query_metrics(&mut page);
        self.write_local_metrics(&mut page);
        self.write_cache_metrics(&mut page);
        self.write_dnssec_metrics(&mut page);
        self.write_upstream_metrics(&mut page);
        self.write_loop_metrics(&mut page);
        write_process_metrics(&mut page, usage);
        page.finish()
    }

    fn write_query_metrics(&self, page: &mut Page) {
        let counters = self.proxy.counters();
        let mut family = page.counter("dotproxy_queries", "Queries from clients.");
        for protocol in ClientProtocol::ALL {
            family.sample(
                &[("transport", protocol.label())],
                counters.queries(protocol),
            );
        }
        let mut family = page.counter("dotproxy_responses", "Responses to clients by code.");
        for (rcode, count) in counters.responses() {
            family.sample(&[("rcode", &rcode.to_string())], count);
        }
        let help = "Queries from clients by outcome.";
        let mut family = page.counter("dotproxy_query_outcomes", help);
        for outcome in Outcome::ALL {
            family.sample(&[("outcome", outcome.label())], counters.outcome(outcome));
        }
        let help = "Time from a client's query to its response.";
        page.histogram("dotproxy_query_duration_seconds", help)
            .durations(&[], &counters.durations);
        let rejected = [
            ("denied", counters.outcome(Outcome::Denied)),
            ("denied-connection", counters.denied_connections),
            ("client-certificate", counters.refused_certificates),
            ("rate-limited", counters.outcome(Outcome::RateLimited)),
            ("slipped", counters.outcome(Outcome::Slipped)),
            ("refused", counters.outcome(Outcome::Refused)),
            ("malformed", counters.outcome(Outcome::Malformed)),
            ("not-implemented", counters.outcome(Outcome::NotImplemented)),
            ("bad-version", counters.outcome(Outcome::BadVersion)),
            ("shed", counters.outcome(Outcome::Shed)),
            ("no-query", counters.ignored),
        ];
        let help = "Rejected queries, connections and messages.";
        let mut family = page.counter("dotproxy_rejected", help);
        for (reason, count) in rejected {
            family.sample(&[("reason", reason)], count);
        }
        page.gauge("dotproxy_inflight_queries", "Queries in flight.")
            .sample(&[], self.proxy.inflight());
        let help = "Maximum number of queries in flight (--max-inflight).";
        page.gauge("dotproxy_inflight_queries_limit", help)
            .sample(&[], self.config.limits.inflight);
        page.gauge(
            "dotproxy_tcp_clients",
            "TCP and TLS connections of clients.",
        )
        .sample(&[], self.clients.len());
        page.gauge(
            "dotproxy_tcp_clients_limit",
            "Maximum number of TCP and TLS connections of clients (--max-tcp-clients).",
        )
        .sample(&[], self.config.limits.tcp_clients);
        self.write_own_certificate_metrics(page);
        let help = "Bytes buffered for connections of clients.";
        page.gauge("dotproxy_tcp_clients_held_bytes", help)
            .sample(&[], self.clients.held());
        let help = "UDP responses dropped because the socket buffer was full.";
        page.counter("dotproxy_responses_dropped", help)
            .sample(&[], self.responses_dropped());
    }

    fn write_own_certificate_metrics(&self, page: &mut Page) {
        let own = self.tls.acceptor.as_ref().and_then(Acceptor::own);
        let validity = own.map(OwnCertificate::validity);
        let help = "Expiry of the server certificate presented to clients (--tls-cert).";
        let mut family = page.gauge("dotproxy_certificate_expiry_timestamp_seconds", help);
        if let Some(validity) = validity {
            family.sample(&[], validity.expires_at.as_secs());
        }
        let help = "Start of the validity period of the server certificate presented to clients.";
        let mut family = page.gauge("dotproxy_certificate_not_before_timestamp_seconds", help);
        if let Some(validity) = validity {
            family.sample(&[], validity.begins_at.as_secs());
        }
    }

    fn write_dnssec_metrics(&self, page: &mut Page) {
        let dnssec = &self.proxy.counters().dnssec;
        let help = "Validated answers, by verdict.";
        let mut family = page.counter("dotproxy_dnssec_verdicts", help);
        for (verdict, count) in dnssec.verdicts() {
            family.sample(&[("verdict", verdict)], count);
        }
        let help = "Bogus and indeterminate answers, by reason.";
        let mut family = page.counter("dotproxy_dnssec_failures", help);
        for (reason, count) in dnssec.failures() {
            family.sample(&[("reason", reason)], count);
        }
        let help = "Verified signatures, by result.";
        page.counter("dotproxy_dnssec_signatures", help)
            .sample(&[("result", "valid")], dnssec.valid_signatures)
            .sample(&[("result", "invalid")], dnssec.invalid_signatures);
        let help = "Queries for the keys of zones, by type.";
        page.counter("dotproxy_dnssec_queries", help)
            .sample(&[("type", "DS")], dnssec.ds_questions)
            .sample(&[("type", "DNSKEY")], dnssec.dnskey_questions);
        let (zones, bytes) = self.proxy.known_zones();
        let help = "Names whose zone status is cached: signed, unsigned, bogus, or not a zone.";
        page.gauge("dotproxy_dnssec_known_zones", help)
            .sample(&[], zones);
        let help = "Bytes of memory of these entries.";
        page.gauge("dotproxy_dnssec_known_zones_bytes", help)
            .sample(&[], bytes);
        let help = "Keys of the root zone by tag: 1 if a trust anchor matches the key.";
        let mut family = page.gauge("dotproxy_dnssec_root_key", help);
        for (tag, is_anchored) in self.proxy.root_keys() {
            family.sample(&[("tag", &tag.to_string())], u8::from(*is_anchored));
        }
        let help = "Queries answered from cached NSEC and NSEC3 records (RFC 8198).";
        page.counter("dotproxy_dnssec_synthesized", help)
            .sample(&[], dnssec.synthesized);
        let (denials, bytes) = self.proxy.cached_denials();
        page.gauge("dotproxy_dnssec_denials", "Cached NSEC and NSEC3 records.")
            .sample(&[], denials);
        let help = "Bytes of memory of these records, with the SOA records of their zones.";
        page.gauge("dotproxy_dnssec_denials_bytes", help)
            .sample(&[], bytes);
    }

    fn write_local_metrics(&self, page: &mut Page) {
        let counters = self.proxy.counters();
        let help = "Queries answered with a local name: a special-use name or one of a hosts file.";
        page.counter("dotproxy_local_answers", help)
            .sample(&[], counters.outcome(Outcome::AnsweredHere));
        let help = "Queries for the names of block lists (--block).";
        page.counter("dotproxy_blocked", help)
            .sample(&[], counters.outcome(Outcome::Blocked));
        let list = self.proxy.block_list();
        let help = "Names of the block lists in use, with the exceptions.";
        page.gauge("dotproxy_block_list_names", help)
            .sample(&[], list.map_or(0, BlockList::names));
        page.gauge(
            "dotproxy_block_list_bytes",
            "Bytes of memory of these names.",
        )
        .sample(&[], list.map_or(0, BlockList::bytes));
    }

    fn write_cache_metrics(&self, page: &mut Page) {
        let (counters, usage) = (self.proxy.counters(), self.proxy.cache_usage());
        let stale = counters.outcome(Outcome::Stale);
        for (name, help, count) in [
            (
                "dotproxy_cache_hits",
                "Queries answered with a fresh cache entry.",
                counters.outcome(Outcome::Cached),
            ),
            (
                "dotproxy_cache_misses",
                "Cacheable queries without a cache entry.",
                counters.misses,
            ),
            (
                "dotproxy_cache_stale",
                "Queries answered with a stale cache entry.",
                stale,
            ),
            (
                "dotproxy_cache_refreshes",
                "Refreshes of cache entries.",
                counters.refreshes,
            ),
            (
                "dotproxy_cache_evictions",
                "Cache entries evicted to make room.",
                usage.evicted,
            ),
        ] {
            page.counter(name, help).sample(&[], count);
        }
        page.gauge("dotproxy_cache_entries", "Cache entries.")
            .sample(&[], usage.entries);
        page.gauge("dotproxy_cache_bytes", "Bytes used by the cache.")
            .sample(&[], usage.bytes);
        page.gauge(
            "dotproxy_cache_limit_bytes",
            "Maximum size of the cache in bytes (--cache-size).",
        )
        .sample(&[], self.settings_beside_block_lists().cache.size);
    }

    fn write_upstream_metrics(&self, page: &mut Page) {
        let upstreams: Vec<UpstreamView<'_>> = self.proxy.upstreams(self.now).collect();
        page.gauge(
            "dotproxy_ready",
            "1 if queries can be answered, as in /readyz.",
        )
        .sample(&[], u8::from(self.proxy.readiness().is_ok()));
        page.gauge(
            "dotproxy_fallbacks_in_use",
            "Groups of upstreams whose last query went to a fallback.",
        )
        .sample(&[], self.proxy.fallbacks_in_use());
        let mut family = page.gauge(
            "dotproxy_upstream_up",
            "1 if the upstream is available, 0 during an outage.",
        );
        for upstream in &upstreams {
            family.sample(&label(upstream), u8::from(upstream.is_up));
        }
        let help = "Queries sent to the upstream, including retries.";
        let mut family = page.counter("dotproxy_upstream_queries", help);
        for upstream in &upstreams {
            family.sample(&label(upstream), upstream.sent());
        }
        let help = "Queries sent to the upstream as retries.";
        let mut family = page.counter("dotproxy_upstream_retries", help);
        for upstream in &upstreams {
            family.sample(&label(upstream), upstream.retries());
        }
        let help = "Time from a query to the upstream to its reply.";
        let mut family = page.histogram("dotproxy_upstream_duration_seconds", help);
        for upstream in &upstreams {
            family.durations(&label(upstream), upstream.answers());
        }
        let help = "TLS handshakes with the upstream, full or resumed.";
        let mut family = page.counter("dotproxy_upstream_handshakes", help);
        for upstream in &upstreams {
            let (full, resumed) = upstream.handshakes();
            for (kind, count) in [("full", full), ("resumed", resumed)] {
                family.sample(&[("upstream", upstream.label()), ("kind", kind)], count);
            }
        }
        let help = "Failures of the upstream by reason.";
        let mut family = page.counter("dotproxy_upstream_failures", help);
        for upstream in &upstreams {
            for kind in FailureKind::ALL {
                let labels = [("upstream", upstream.label()), ("reason", kind.label())];
                family.sample(&labels, upstream.failures(kind));
            }
        }
        write_certificate_metrics(page, &upstreams);
        write_key_exchanges(page, &upstreams);
        let help = "Learned idle timeout of the upstream's connections.";
        let mut family = page.gauge("dotproxy_upstream_idle_limit_seconds", help);
        for upstream in &upstreams {
            if let Some(limit) = upstream.idle_limit {
                family.seconds(&label(upstream), limit);
            }
        }
        let help = "TLS handshakes in which no pin matched the key of the upstream.";
        let mut family = page.counter("dotproxy_upstream_pin_mismatches", help);
        for (upstream, connector) in upstreams.iter().zip(&self.tls.connectors) {
            let mismatches = connector.as_ref().map_or(0, Connector::pin_mismatches);
            family.sample(&label(upstream), mismatches);
        }
        self.write_attempt_metrics(page);
    }

    fn write_attempt_metrics(&self, page: &mut Page) {
        let counters = self.proxy.counters();
        for (name, help, count) in [
            (
                "dotproxy_hedges",
                "Hedges: second attempts while the first was slow.",
                counters.hedges,
            ),
            (
                "dotproxy_copies",
                "Copies of queries that test an upstream in an outage.",
                counters.copies,
            ),
            (
                "dotproxy_probes",
                "Probes: test queries of the program to upstreams.",
                counters.probes,
            ),
        ] {
            page.counter(name, help).sample(&[], count);
        }
        let help = "Discarded messages from upstreams.";
        let mut family = page.counter("dotproxy_upstream_discarded", help);
        for reason in Discard::ALL {
            family.sample(&[("reason", reason.label())], counters.discard(reason));
        }
        page.gauge("dotproxy_upstream_connections", "Connections to upstreams.")
            .sample(&[], self.proxy.links());
    }

    fn write_loop_metrics(&self, page: &mut Page) {
        let help = "Time of a turn of the event loop, without waiting.";
        page.histogram("dotproxy_loop_turn_duration_seconds", help)
            .durations(&[], &self.turns);
        page.counter(
            "dotproxy_log_dropped",
            "Log lines dropped because the reader was slow.",
        )
        .sample(&[], logger::dropped());
        let help = "dnstap messages dropped.";
        page.counter("dotproxy_dnstap_dropped", help)
            .sample(&[], self.tap.as_ref().map_or(0, Tap::dropped));
        let traces = self.traces.as_ref();
        let help = "Trace spans accepted by the collector.";
        page.counter("dotproxy_trace_spans_posted", help)
            .sample(&[], traces.map_or(0, Traces::posted));
        let help = "Trace spans dropped.";
        page.counter("dotproxy_trace_spans_dropped", help)
            .sample(&[], traces.map_or(0, Traces::dropped));
        let help = "Query log lines dropped because the reader was slow.";
        page.counter("dotproxy_query_log_dropped", help)
            .sample(&[], self.query_log.as_ref().map_or(0, QueryLog::dropped));
    }

    /// Returns the number of UDP responses that the system did not accept.
    pub(in crate::reactor) fn responses_dropped(&self) -> u64 {
        let dropped = |slot: &Slot<N>| match &slot.session {
            Session::Datagram(datagram) => datagram.dropped(),
            _ => 0,
        };
        self.sessions.iter().map(|(_, slot)| dropped(slot)).sum()
    }
}

fn label<'a>(upstream: &UpstreamView<'a>) -> [(&'static str, &'a str); 1] {
    [("upstream", upstream.label())]
}

/// Writes the validity period of each upstream's certificate.
fn write_certificate_metrics(page: &mut Page, upstreams: &[UpstreamView<'_>]) {
    let expires_at: fn(Validity) -> Duration = |validity| validity.expires_at;
    let begins_at: fn(Validity) -> Duration = |validity| validity.begins_at;
    for (name, help, time) in [
        (
            "dotproxy_upstream_certificate_expiry_timestamp_seconds",
            "Expiry of the certificate of the upstream that was accepted last.",
            expires_at,
        ),
        (
            "dotproxy_upstream_certificate_not_before_timestamp_seconds",
            "Start of the validity period of the certificate of the upstream that was accepted \
             last.",
            begins_at,
        ),
    ] {
        let mut family = page.gauge(name, help);
        for upstream in upstreams {
            if let Some(certificate) = upstream.certificate() {
                family.sample(&label(upstream), time(certificate).as_secs());
            }
        }
    }
}

/// Writes the key exchange group of each upstream.
fn write_key_exchanges(page: &mut Page, upstreams: &[UpstreamView<'_>]) {
    let help = "Key exchange group of the last TLS handshake with the upstream.";
    let mut family = page.gauge("dotproxy_upstream_key_exchange", help);
    for upstream in upstreams {
        if let Some(group) = upstream.key_exchange() {
            family.sample(&[("upstream", upstream.label()), ("group", group)], 1);
        }
    }
}

/// Writes the process metrics with the standard names of Prometheus.
fn write_process_metrics(page: &mut Page, usage: Usage) {
    if let Some(time) = usage.processor_time {
        let help = "CPU time of the process.";
        page.counter("process_cpu_seconds", help).seconds(&[], time);
    }
    page.gauge("process_start_time_seconds", "Start time of the process.")
        .seconds(&[], usage.started_at);
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Resident memory in bytes.",
            usage.resident,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory in bytes.",
            usage.virtual_memory,
        ),
        (
            "process_open_fds",
            "Open file descriptors.",
            usage.open_descriptors,
        ),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            usage.descriptors_max,
        ),
    ] {
        if let Some(value) = value {
            page.gauge(name, help).sample(&[], value);
        }
    }
}
