//! The HTTP server for observers: metrics pages, health checks, and their clients.

use std::net::SocketAddr;

use crate::base::arena::{Arena, Key};
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::net::Net;
use crate::reactor::{Reactor, Session, Slot};
use crate::session::HttpStream;
use crate::session::observer::http_server::{Request, Response};
use crate::telemetry::openmetrics::Format;

impl<N: Net> Reactor<N> {
    pub(in crate::reactor) fn add_http(&mut self, stream: N::Stream, peer: SocketAddr) {
        let http = HttpStream::new(stream, peer, self.now);
        let key = self.sessions.insert(Slot::new(Session::Http(http)));
        let (sessions, subscriber) = (&self.sessions, Subscriber::of(peer.ip()));
        self.http_clients
            .add(key, subscriber, self.now, |key| sessions.contains(key));
        let to_close = |reactor: &Self| {
            let last_active = |key| http_last_active(&reactor.sessions, key);
            let clients = &reactor.http_clients;
            clients.to_close_for(key, subscriber, last_active)
        };
        while let Some(key) = to_close(self) {
            log::debug!("closing the longest idle HTTP client: too many connections");
            self.close_http(key);
        }
    }

    /// Answers one request, if one has arrived and the previous response has been sent.
    pub(in crate::reactor) fn step_http(&mut self, key: Key) {
        let Some(http) = self.sessions.get_mut(key).and_then(Slot::http) else {
            return;
        };
        match http.ready(&mut self.scratch, self.now) {
            Err(failure) => {
                log::debug!("HTTP client disconnected: {failure}");
                return self.close_http(key);
            }
            Ok(None) => {}
            Ok(Some(request)) => {
                let response = self.page(&request);
                let http = self.sessions.get_mut(key).and_then(Slot::http);
                http.expect("the HTTP session of the request exists")
                    .respond(&request, &response);
            }
        }
        self.make_unflushed(key);
    }

    pub(in crate::reactor) fn flush_http(&mut self, key: Key) {
        let Some(http) = self.sessions.get_mut(key).and_then(Slot::http) else {
            return;
        };
        let Ok(may_go_on) = http.flush(&mut self.scratch, self.now) else {
            return self.close_http(key);
        };
        let is_over = http.is_over();
        let may_hold = self.http_clients.on_held(http.account());
        if is_over || !may_hold {
            self.close_http(key);
        } else if may_go_on {
            self.make_runnable(key);
        }
    }

    pub(in crate::reactor) fn close_http(&mut self, key: Key) {
        let Some(mut slot) = self.sessions.remove(key) else {
            return;
        };
        self.schedule_trim();
        if let Some(http) = slot.http() {
            let subscriber = Subscriber::of(http.peer().ip());
            self.http_clients.remove(subscriber, http.accounted());
            if self.accept_pause.until().is_some() {
                self.resume_listeners();
            }
        }
    }

    pub(in crate::reactor) fn close_idle_http(&mut self) {
        loop {
            let sessions = &self.sessions;
            let last_active = |key| http_last_active(sessions, key);
            let Some((key, _)) = self.http_clients.pop_expired(self.now, last_active) else {
                return;
            };
            self.close_http(key);
        }
    }

    fn page(&mut self, request: &Request) -> Response {
        match request.path.as_str() {
            "/healthz" => Response::line("200 OK", "ok"),
            "/readyz" => self.readiness(),
            "/metrics" => {
                if self.finish_at.is_none() {
                    self.proxy.on_metrics_read(self.now, &mut self.outbox);
                }
                let format = if request.takes_openmetrics {
                    Format::OpenMetrics
                } else {
                    Format::Prometheus
                };
                Response {
                    status: "200 OK",
                    content_type: format.content_type(),
                    body: self.metrics(format),
                }
            }
            _ => Response::line(
                "404 Not Found",
                "not found: try /metrics, /healthz or /readyz",
            ),
        }
    }

    fn readiness(&mut self) -> Response {
        if self.finish_at.is_some() {
            return Response::line("503 Service Unavailable", "shutting down");
        }
        match self.proxy.check_readiness(self.now, &mut self.outbox) {
            Ok(()) => Response::line("200 OK", "ok"),
            Err(reason) => Response::line("503 Service Unavailable", &reason.to_string()),
        }
    }
}

fn http_last_active<N: Net>(sessions: &Arena<Key, Slot<N>>, key: Key) -> Option<Instant> {
    match &sessions.get(key)?.session {
        Session::Http(http) => Some(http.last_active()),
        _ => None,
    }
}
