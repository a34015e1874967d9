//! The metrics page.

use super::dnstap::Tap;
use super::otlp::Traces;
use crate::base::failure::FailureKind;
use crate::base::origin::ClientProtocol;
use crate::net::Net;
use crate::proxy::{Discard, Outcome, UpstreamView};
use crate::reactor::{Reactor, Session, Slot};
use crate::telemetry::logger;
use crate::telemetry::openmetrics::{Format, Page};
use crate::telemetry::proc_stats::Usage;
use crate::telemetry::query_log::QueryLog;
use crate::tls::{Acceptor, Connector};

impl<N: Net> Reactor<N> {
    pub(in crate::reactor) fn metrics(&mut self, format: Format) -> String {
        let usage = self.process.usage();
        let mut page = Page::new(format);
        page.gauge("dotproxy_build_info", "The version that runs.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.write_query_metrics(&mut page);
        self.write_cache_metrics(&mut page);
        self.write_upstream_metrics(&mut page);
        self.write_loop_metrics(&mut page);
        write_process_metrics(&mut page, usage);
        page.finish()
    }

    fn write_query_metrics(&self, page: &mut Page) {
        let counters = self.proxy.counters();
        let mut family = page.counter("dotproxy_queries", "Queries of clients.");
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
        let help = "Queries of clients by how they ended.";
        let mut family = page.counter("dotproxy_query_outcomes", help);
        for outcome in Outcome::ALL {
            family.sample(&[("outcome", outcome.label())], counters.outcome(outcome));
        }
        let help = "From a query of a client to its response.";
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
        let help = "Queries, connections and messages that were turned away.";
        let mut family = page.counter("dotproxy_rejected", help);
        for (reason, count) in rejected {
            family.sample(&[("reason", reason)], count);
        }
        page.gauge(
            "dotproxy_inflight_queries",
            "Queries that wait for an answer.",
        )
        .sample(&[], self.proxy.inflight());
        let help = "Queries that may wait for an answer.";
        page.gauge("dotproxy_inflight_queries_limit", help)
            .sample(&[], self.config.limits.inflight);
        page.gauge("dotproxy_tcp_clients", "Connections of clients.")
            .sample(&[], self.clients.len());
        page.gauge(
            "dotproxy_tcp_clients_limit",
            "Connections that clients may have.",
        )
        .sample(&[], self.config.limits.tcp_clients);
        let help = "When the certificate that clients are shown expires.";
        let mut family = page.gauge("dotproxy_certificate_expiry_timestamp_seconds", help);
        if let Some(own) = self.tls.acceptor.as_ref().and_then(Acceptor::own) {
            family.sample(&[], own.expires_at().as_secs());
        }
        let help = "Octets held for connections of clients.";
        page.gauge("dotproxy_tcp_clients_held_bytes", help)
            .sample(&[], self.clients.held());
        let help = "Responses over UDP that the system did not take.";
        page.counter("dotproxy_responses_dropped", help)
            .sample(&[], self.responses_dropped());
    }

    fn write_cache_metrics(&self, page: &mut Page) {
        let (counters, usage) = (self.proxy.counters(), self.proxy.cache_usage());
        let stale = counters.outcome(Outcome::Stale);
        for (name, help, count) in [
            (
                "dotproxy_cache_hits",
                "Queries whose answer was known and fresh.",
                counters.outcome(Outcome::Cached),
            ),
            (
                "dotproxy_cache_misses",
                "Queries whose answer might have been known and was not.",
                counters.misses,
            ),
            (
                "dotproxy_cache_stale",
                "Queries with an answer that was no longer fresh, for want of better.",
                stale,
            ),
            (
                "dotproxy_cache_refreshes",
                "Answers that were asked for again while they were known.",
                counters.refreshes,
            ),
            (
                "dotproxy_cache_evictions",
                "Answers that made room for others.",
                usage.evicted,
            ),
        ] {
            page.counter(name, help).sample(&[], count);
        }
        page.gauge("dotproxy_cache_entries", "Answers that are known.")
            .sample(&[], usage.entries);
        page.gauge("dotproxy_cache_bytes", "Octets that they take.")
            .sample(&[], usage.bytes);
        page.gauge("dotproxy_cache_limit_bytes", "Octets that they may take.")
            .sample(&[], self.config.cache.size);
    }

    fn write_upstream_metrics(&self, page: &mut Page) {
        let upstreams: Vec<UpstreamView<'_>> = self.proxy.upstreams(self.now).collect();
        let mut family = page.gauge(
            "dotproxy_upstream_up",
            "Whether an upstream can be used, as far as is known.",
        );
        for upstream in &upstreams {
            family.sample(&label(upstream), u8::from(upstream.is_up));
        }
        let help = "Queries sent to an upstream, those sent again included.";
        let mut family = page.counter("dotproxy_upstream_queries", help);
        for upstream in &upstreams {
            family.sample(&label(upstream), upstream.sent());
        }
        let help = "Queries sent to an upstream after another attempt.";
        let mut family = page.counter("dotproxy_upstream_retries", help);
        for upstream in &upstreams {
            family.sample(&label(upstream), upstream.retries());
        }
        let help = "From a query to an upstream to its answer.";
        let mut family = page.histogram("dotproxy_upstream_duration_seconds", help);
        for upstream in &upstreams {
            family.durations(&label(upstream), upstream.answers());
        }
        let help = "TLS handshakes with an upstream, with a new session or an earlier one.";
        let mut family = page.counter("dotproxy_upstream_handshakes", help);
        for upstream in &upstreams {
            let (full, resumed) = upstream.handshakes();
            for (kind, count) in [("full", full), ("resumed", resumed)] {
                family.sample(&[("upstream", upstream.label()), ("kind", kind)], count);
            }
        }
        let help = "What went wrong with an upstream.";
        let mut family = page.counter("dotproxy_upstream_failures", help);
        for upstream in &upstreams {
            for kind in FailureKind::ALL {
                let labels = [("upstream", upstream.label()), ("reason", kind.label())];
                family.sample(&labels, upstream.failures(kind));
            }
        }
        let help = "When the certificate that an upstream last showed expires.";
        let name = "dotproxy_upstream_certificate_expiry_timestamp_seconds";
        let mut family = page.gauge(name, help);
        for upstream in &upstreams {
            if let Some(at) = upstream.certificate_expires_at() {
                family.sample(&label(upstream), at.as_secs());
            }
        }
        let help = "After how long an upstream closes idle connections, where that was learned.";
        let mut family = page.gauge("dotproxy_upstream_idle_limit_seconds", help);
        for upstream in &upstreams {
            if let Some(limit) = upstream.idle_limit {
                family.seconds(&label(upstream), limit);
            }
        }
        let help = "Handshakes in which an upstream had another key than those that are pinned.";
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
                "Queries sent by another way, too, since the first was slow.",
                counters.hedges,
            ),
            (
                "dotproxy_copies",
                "Queries sent to see whether an upstream is out of trouble.",
                counters.copies,
            ),
            (
                "dotproxy_probes",
                "Queries of the program's own that test upstreams.",
                counters.probes,
            ),
        ] {
            page.counter(name, help).sample(&[], count);
        }
        let help = "Messages from upstream that were not used.";
        let mut family = page.counter("dotproxy_upstream_discarded", help);
        for reason in Discard::ALL {
            family.sample(&[("reason", reason.label())], counters.discard(reason));
        }
        page.gauge("dotproxy_upstream_connections", "Connections to upstreams.")
            .sample(&[], self.proxy.links());
    }

    fn write_loop_metrics(&self, page: &mut Page) {
        let help = "What a turn of the loop took, waiting aside.";
        page.histogram("dotproxy_loop_turn_duration_seconds", help)
            .durations(&[], &self.turns);
        page.counter(
            "dotproxy_log_dropped",
            "Lines of the log that were dropped because its reader was slow.",
        )
        .sample(&[], logger::dropped());
        let help = "Messages that no reader of dnstap took.";
        page.counter("dotproxy_dnstap_dropped", help)
            .sample(&[], self.tap.as_ref().map_or(0, Tap::dropped));
        let traces = self.traces.as_ref();
        let help = "Spans of traces that the collector took.";
        page.counter("dotproxy_trace_spans_posted", help)
            .sample(&[], traces.map_or(0, Traces::posted));
        let help = "Spans of traces that it did not.";
        page.counter("dotproxy_trace_spans_dropped", help)
            .sample(&[], traces.map_or(0, Traces::dropped));
        let help = "Lines of the query log that were dropped because its reader was slow.";
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

/// Writes the process metrics with the standard names of Prometheus.
fn write_process_metrics(page: &mut Page, usage: Usage) {
    if let Some(time) = usage.processor_time {
        let help = "Time of processors that was taken.";
        page.counter("process_cpu_seconds", help).seconds(&[], time);
    }
    page.gauge("process_start_time_seconds", "When the process started.")
        .seconds(&[], usage.started_at);
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Octets of memory.",
            usage.resident,
        ),
        (
            "process_virtual_memory_bytes",
            "Octets of addresses.",
            usage.virtual_memory,
        ),
        (
            "process_open_fds",
            "File descriptors that are open.",
            usage.open_descriptors,
        ),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            usage.descriptors_max,
        ),
    ] {
        if let Some(value) = value {
            page.gauge(name, help).sample(&[], value);
        }
    }
}
