//! The status page (`/`) and its data (`/status.json`), which name neither clients nor queries.
//!
//! The page is one file, `status.html`, which the build compresses. Its script reads the data every
//! two seconds and computes rates from the differences, so the program keeps no history.

use crate::base::failure::FailureKind;
use crate::base::origin::ClientProtocol;
use crate::base::time::Validity;
use crate::block::BlockList;
use crate::config::DnssecMode;
use crate::net::Net;
use crate::proxy::{Outcome, UpstreamView};
use crate::reactor::Reactor;
use crate::session::observer::http_server::{HttpRequest, HttpResponse};
use crate::telemetry::json::{List, Object};
use crate::tls::clock::system_time;

/// The page, compressed with gzip.
const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/status.html.gz"));

/// The header fields of the page. The policy allows the script and the style of the page, by their
/// SHA-256 digests, and requests to this server only. A test computes the digests.
const PAGE_FIELDS: &str = "Content-Encoding: gzip\r\n\
    Vary: Accept-Encoding\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\n\
    Content-Security-Policy: default-src 'none'; connect-src 'self'; img-src data:; \
    script-src 'sha256-twNahFdT7xmSwv78fkGIAir8g438UbSVb9WbcXbKsrM='; \
    style-src 'sha256-5x9FrumYbPb4/P8cUk9CKsuk70Ik2xejMfui08A/ro0='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";

/// The header fields of the data: other sites must not load it.
pub(super) const DATA_FIELDS: &str = "X-Content-Type-Options: nosniff\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n";

/// Returns the response with the page.
pub(super) fn page(request: &HttpRequest) -> HttpResponse {
    if !request.accepts.gzip {
        let text = "this page is only available with gzip compression (curl --compressed); \
                    /status.json has the same data without it";
        return HttpResponse::line("406 Not Acceptable", text);
    }
    HttpResponse {
        status: "200 OK",
        content_type: "text/html; charset=utf-8",
        fields: PAGE_FIELDS,
        body: PAGE.into(),
    }
}

impl<N: Net> Reactor<N> {
    /// Returns the data of the status page as JSON.
    pub(super) fn status(&mut self) -> Vec<u8> {
        let usage = self.process.usage();
        let now = system_time();
        let mut out = Vec::new();
        let mut object = Object::start(&mut out);
        let reason = match self.finish_at {
            Some(_) => Some("shutting down".to_owned()),
            None => self
                .proxy
                .readiness()
                .err()
                .map(|reason| reason.to_string()),
        };
        object
            .text("version", env!("CARGO_PKG_VERSION"))
            .plain("time", now.as_secs())
            .plain("uptime_seconds", (self.now - self.started_at).as_secs())
            .plain("ready", reason.is_none());
        if let Some(reason) = reason {
            object.text("reason", reason);
        }
        object
            .nested("queries", |out| self.write_query_status(out))
            .nested("responses", |out| self.write_response_status(out))
            .nested("outcomes", |out| self.write_outcome_status(out))
            .nested("cache", |out| self.write_cache_status(out))
            .nested("memory", |out| {
                let mut memory = Object::start(out);
                if let Some(resident) = usage.resident {
                    memory.plain("resident_bytes", resident);
                }
                if let Some(limit) = self.config.memory_limit {
                    memory.plain("limit_bytes", limit);
                }
                memory.end();
            });
        if self.config.dnssec.mode != DnssecMode::Off {
            object.nested("dnssec", |out| self.write_dnssec_status(out));
        }
        object.nested("upstreams", |out| self.write_upstream_status(out));
        object.end_line();
        out
    }

    fn write_query_status(&self, out: &mut Vec<u8>) {
        let counters = self.proxy.counters();
        let mut queries = Object::start(out);
        for protocol in ClientProtocol::ALL {
            queries.plain(protocol.label(), counters.queries(protocol));
        }
        queries
            .plain("answered", counters.durations.count())
            .plain("answered_seconds", counters.durations.sum().as_secs_f64())
            .plain("inflight", self.proxy.inflight())
            .plain("inflight_limit", self.config.limits.inflight)
            .plain("tcp_clients", self.clients.len())
            .plain("tcp_clients_limit", self.config.limits.tcp_clients)
            .end();
    }

    fn write_response_status(&self, out: &mut Vec<u8>) {
        let mut responses = Object::start(out);
        for (rcode, count) in self.proxy.counters().responses() {
            responses.plain(&rcode.to_string(), count);
        }
        responses.end();
    }

    fn write_outcome_status(&self, out: &mut Vec<u8>) {
        let mut outcomes = Object::start(out);
        for outcome in Outcome::ALL {
            let count = self.proxy.counters().outcome(outcome);
            if count > 0 {
                outcomes.plain(outcome.label(), count);
            }
        }
        outcomes.end();
    }

    fn write_cache_status(&self, out: &mut Vec<u8>) {
        let (counters, usage) = (self.proxy.counters(), self.proxy.cache_usage());
        Object::start(out)
            .plain("hits", counters.outcome(Outcome::Cached))
            .plain("stale", counters.outcome(Outcome::Stale))
            .plain("misses", counters.misses)
            .plain("entries", usage.entries)
            .plain("bytes", usage.bytes)
            .plain("limit_bytes", self.settings_beside_block_lists().cache.size)
            .plain(
                "blocked_names",
                self.proxy.block_list().map_or(0, BlockList::names),
            )
            .end();
    }

    fn write_dnssec_status(&self, out: &mut Vec<u8>) {
        let mut dnssec = Object::start(out);
        for (verdict, count) in self.proxy.counters().dnssec.verdicts() {
            dnssec.plain(verdict, count);
        }
        dnssec.end();
    }

    fn write_upstream_status(&self, out: &mut Vec<u8>) {
        let mut list = List::start(out);
        let upstreams = self.proxy.upstreams(self.now).zip(&self.config.upstreams);
        for (view, settings) in upstreams {
            write_upstream(&view, settings.is_fallback, list.item());
        }
        list.end();
    }
}

fn write_upstream(view: &UpstreamView<'_>, is_fallback: bool, out: &mut Vec<u8>) {
    let failures = FailureKind::ALL.map(|kind| view.failures(kind));
    let mut upstream = Object::start(out);
    upstream
        .text("name", view.label())
        .plain("up", view.is_up)
        .plain("fallback", is_fallback)
        .plain("queries", view.sent())
        .plain("retries", view.retries())
        .plain("failures", failures.iter().sum::<u64>())
        .plain("answers", view.answers().count())
        .plain("answers_seconds", view.answers().sum().as_secs_f64());
    if let Some(group) = view.key_exchange() {
        upstream.text("key_exchange", group);
    }
    if let Some(Validity { expires_at, .. }) = view.certificate() {
        upstream.plain("certificate_expires_at", expires_at.as_secs());
    }
    upstream.end();
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ring::digest::{SHA256, digest};

    use super::*;

    const HTML: &str = include_str!("status.html");

    /// Returns the digest of the content of the only element with this name.
    fn digest_of(element: &str) -> String {
        let (start, end) = (format!("<{element}>"), format!("</{element}>"));
        assert_eq!(HTML.matches(&start).count(), 1);
        let (_, rest) = HTML.split_once(&start).unwrap();
        let (content, _) = rest.split_once(&end).unwrap();
        STANDARD.encode(digest(&SHA256, content.as_bytes()))
    }

    #[test]
    fn policy_allows_the_script_and_the_style_of_the_page_only() {
        for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
            let source = format!("{directive} 'sha256-{}';", digest_of(element));
            assert!(PAGE_FIELDS.contains(&source), "expected {source}");
        }
    }

    #[test]
    fn page_is_one_small_file() {
        assert!(HTML.len() <= 32 * 1024, "{} bytes", HTML.len());
        let html = HTML.replace("http://www.w3.org/2000/svg", "");
        for reference in [
            "http://",
            "https://",
            " src=",
            "@import",
            "url(",
            "innerHTML",
        ] {
            assert!(!html.contains(reference), "{reference}");
        }
    }
}
