//! The HTTP server for observers: metrics pages, health checks, and their clients.

use super::status;
use crate::base::arena::Key;
use crate::base::failure::Failure;
use crate::net::Net;
use crate::reactor::{Reactor, Session, last_active_at, session_at};
use crate::session::Step;
use crate::session::observer::http_server::{HttpRequest, HttpResponse};
use crate::telemetry::openmetrics::Format;

impl<N: Net> Reactor<N> {
    /// Answers one request, if one has arrived and the previous response has been sent.
    pub(in crate::reactor) fn step_http(&mut self, key: Key) -> Result<Step, Failure> {
        let Some(Session::Http(http)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        if let Some(request) = http.ready(&mut self.scratch, self.now)? {
            let response = self.page(&request);
            if let Some(Session::Http(http)) = session_at(&mut self.sessions, key) {
                http.respond(&request, &response);
                http.keep_for(self.config.timeouts.http_kept);
            }
        }
        self.make_unflushed(key);
        Ok(Step::Drained)
    }

    pub(in crate::reactor) fn close_idle_http(&mut self) {
        loop {
            let last_active = |key| last_active_at(&self.sessions, key);
            let Some((key, _)) = self.http_clients.pop_expired(self.now, last_active) else {
                return;
            };
            self.close_client(key);
        }
    }

    fn page(&mut self, request: &HttpRequest) -> HttpResponse {
        match request.path.as_str() {
            "/healthz" => HttpResponse::line("200 OK", "ok"),
            "/readyz" if request.query.split('&').any(|item| item == "latch") => self.latch(),
            "/readyz" => self.readiness(),
            "/metrics" => {
                self.probe_for_metrics();
                let format = if request.accepts.openmetrics {
                    Format::OpenMetrics
                } else {
                    Format::Prometheus
                };
                HttpResponse::of_type(format.content_type(), self.metrics(format))
            }
            "/" => status::page(request),
            "/status.json" => {
                self.probe_for_metrics();
                HttpResponse {
                    fields: status::DATA_FIELDS,
                    ..HttpResponse::of_type("application/json", self.status())
                }
            }
            _ => HttpResponse::line(
                "404 Not Found",
                "not found: try /, /status.json, /metrics, /healthz or /readyz",
            ),
        }
    }

    /// Probes the upstreams whose state may be out of date.
    fn probe_for_metrics(&mut self) {
        if self.finish_at.is_none() {
            self.proxy.on_metrics_read(self.now, &mut self.outbox);
        }
    }

    /// Answers `/readyz?latch`: ready forever once it was ready, so that an outage of the upstreams
    /// does not take the cache away from clients.
    fn latch(&mut self) -> HttpResponse {
        if self.finish_at.is_none() && self.proxy.was_ready() {
            return HttpResponse::line("200 OK", "ok");
        }
        self.readiness()
    }

    fn readiness(&mut self) -> HttpResponse {
        if self.finish_at.is_some() {
            return HttpResponse::line("503 Service Unavailable", "shutting down");
        }
        match self.proxy.check_readiness(self.now, &mut self.outbox) {
            Ok(()) => HttpResponse::line("200 OK", "ok"),
            Err(reason) => HttpResponse::line("503 Service Unavailable", &reason.to_string()),
        }
    }
}
