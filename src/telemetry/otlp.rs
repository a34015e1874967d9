//! Spans of traced queries in the JSON encoding of OTLP (OTLP specification 1.x, "OTLP/HTTP";
//! fields: opentelemetry-proto, `trace.proto`). Attributes have the names of OpenTelemetry's
//! semantic conventions if there are any; other names begin with `dotproxy`.
//!
//! ```text
//!   query                           from the client's query to the response
//!     cache                         the result of the cache lookup
//!     shared wait                   for the answer to another query for the same question
//!     connection wait               for a connection with room
//!     handshake                     until a connection is up or has failed
//!     upstream query                from an attempt to its reply
//!     retry, copy                   the same, for a retry or a copy of the query
//! ```

use std::fmt;
use std::time::Duration;

use super::anonymize::shown;
use super::json::{List, Object};
use super::resource::Resource;
use crate::base::origin::ClientProtocol;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::{ClientDetail, Scheme};
use crate::proxy::{Outcome, PeerAddr, Record, StepEnd, StepKind, Trace, TraceStep};
use crate::wire::Question;

/// The content type of a request to the collector.
pub const CONTENT_TYPE: &str = "application/json";

/// The kinds of spans.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// The status of a span that is an error.
const ERROR: u8 = 2;

/// A finished query and its trace.
#[derive(Debug)]
pub struct FinishedQuery<'a> {
    /// The record of the query.
    pub record: &'a Record,
    /// The steps of the query.
    pub trace: &'a Trace,
    /// The question, if it could be parsed.
    pub question: Option<&'a [u8]>,
    /// The name of the upstream that replied.
    pub upstream: Option<&'a str>,
    /// The detail of client addresses.
    pub clients: ClientDetail,
    /// The end of the query.
    pub ended: Instant,
    /// The end of the query, in time since 1970.
    pub ended_at: Duration,
}

/// Returns the number of spans of a query.
pub fn spans_of(record: &Record, trace: &Trace) -> u64 {
    1 + u64::from(cache_result(record.outcome).is_some()) + trace.steps.len() as u64
}

/// Spans, as comma-separated items of a JSON list.
#[derive(Debug, Default)]
pub struct Spans {
    items: Vec<u8>,
    count: u64,
}

impl Spans {
    /// Returns the number of spans.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the length of the spans in bytes.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there are no spans.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds the spans of a query.
    pub fn add(&mut self, told: &FinishedQuery<'_>, random: &mut Random) {
        let trace: [u8; 16] = id(random);
        let query: [u8; 8] = id(random);
        told.write_query(self.next(), (&trace, &query));
        if let Some(result) = cache_result(told.record.outcome) {
            let moment = (told.ended_at, told.ended_at);
            let head = SpanHead::of("cache", INTERNAL, moment);
            head.write(
                self.next(),
                (&trace, &id(random)),
                Some(&query),
                None,
                |attributes| {
                    attributes.text("dotproxy.cache.result", result);
                },
            );
        }
        for step in &told.trace.steps {
            told.write_step(step, self.next(), (&trace, &id(random)), &query);
        }
    }

    /// Returns the buffer for the next span.
    fn next(&mut self) -> &mut Vec<u8> {
        if !self.items.is_empty() {
            self.items.push(b',');
        }
        self.count += 1;
        &mut self.items
    }

    /// Returns the request with all spans (`ExportTraceServiceRequest`).
    pub fn request(&self, resource: &Resource) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.items.len() + 512);
        Object::start(&mut out)
            .nested("resourceSpans", |out| {
                let mut resources = List::start(out);
                Object::start(resources.item())
                    .nested("resource", |out| write_resource(resource, out))
                    .nested("scopeSpans", |out| self.write_scope(out))
                    .end();
                resources.end();
            })
            .end();
        out
    }

    fn write_scope(&self, out: &mut Vec<u8>) {
        let mut scopes = List::start(out);
        Object::start(scopes.item())
            .nested("scope", |out| {
                Object::start(out)
                    .text("name", "dotproxy")
                    .text("version", env!("CARGO_PKG_VERSION"))
                    .end();
            })
            .nested("spans", |out| {
                out.push(b'[');
                out.extend_from_slice(&self.items);
                out.push(b']');
            })
            .end();
        scopes.end();
    }
}

fn write_resource(resource: &Resource, out: &mut Vec<u8>) {
    Object::start(out)
        .nested("attributes", |out| {
            let mut attributes = Attributes(List::start(out));
            for (key, value) in resource.attributes() {
                attributes.text(key, value);
            }
            attributes.number("process.pid", std::process::id());
            attributes.0.end();
        })
        .end();
}

impl FinishedQuery<'_> {
    fn write_query(&self, out: &mut Vec<u8>, ids: SpanIds<'_>) {
        let record = self.record;
        let time = (self.ended_at.saturating_sub(record.took), self.ended_at);
        let error = is_error(record.outcome).then(|| record.outcome.label());
        SpanHead::of("query", SERVER, time).write(out, ids, None, error, |attributes| {
            let question = self.question;
            if let Some(question) = question.and_then(|bytes| Question::parse(bytes, 0).ok()) {
                attributes
                    .text("dns.question.name", without_dot(&question))
                    .text("dotproxy.question.type", question.rr_type());
            }
            if let Some(rcode) = record.rcode {
                attributes.text("dotproxy.response.code", rcode);
            }
            let transport = match record.protocol {
                ClientProtocol::Udp => "udp",
                ClientProtocol::Tcp | ClientProtocol::Tls | ClientProtocol::Https => "tcp",
            };
            attributes
                .text("network.protocol.name", "dns")
                .text("network.transport", transport)
                .truth("dotproxy.tls", record.protocol.is_encrypted());
            if let Some(client) = shown(record.origin.peer.ip(), self.clients) {
                attributes.text("client.address", client);
            }
            attributes.text("dotproxy.outcome", record.outcome.label());
            if let Some(security) = record.security {
                attributes.text("dotproxy.dnssec", security.label());
            }
            if let Some(upstream) = self.upstream {
                attributes.text("dotproxy.upstream", upstream);
            }
            attributes.number("dotproxy.response.size", record.response_len);
        });
    }

    fn write_step(&self, step: &TraceStep, out: &mut Vec<u8>, ids: SpanIds<'_>, query: &[u8]) {
        let until = step.end.map_or(self.ended, |(at, _)| at);
        let time = (self.since_1970(step.from), self.since_1970(until));
        let (name, kind, to) = match step.kind {
            StepKind::Cache => ("cache", INTERNAL, None),
            StepKind::Sharing => ("shared wait", INTERNAL, None),
            StepKind::Validation => ("validate", INTERNAL, None),
            StepKind::Waiting => ("connection wait", INTERNAL, None),
            StepKind::Handshake(to) => ("handshake", CLIENT, Some(to)),
            StepKind::Attempt {
                to, is_copy: true, ..
            } => ("copy", CLIENT, Some(to)),
            StepKind::Attempt { to, before: 0, .. } => ("upstream query", CLIENT, Some(to)),
            StepKind::Attempt { to, .. } => ("retry", CLIENT, Some(to)),
        };
        let error = match step.end {
            Some((_, StepEnd::Failed(kind))) => Some(kind.label()),
            Some((_, StepEnd::Reconfigured)) => Some("reconfigured"),
            Some((_, StepEnd::Done | StepEnd::Answered(_))) | None => None,
        };
        SpanHead::of(name, kind, time).write(out, ids, Some(query), error, |attributes| {
            if let Some(to) = to {
                write_place(to, attributes);
            }
            match (step.kind, step.end) {
                (StepKind::Cache, _) => {
                    attributes.text("dotproxy.cache.result", "miss");
                }
                (_, Some((_, StepEnd::Answered(rcode)))) => {
                    attributes.text("dotproxy.response.code", rcode);
                }
                // Another reply came first, or the deadline of the client passed.
                (StepKind::Attempt { .. }, None) => {
                    attributes.truth("dotproxy.abandoned", true);
                }
                _ => {}
            }
        });
    }

    fn since_1970(&self, instant: Instant) -> Duration {
        self.ended_at.saturating_sub(self.ended - instant)
    }
}

fn write_place((scheme, address): PeerAddr, attributes: &mut Attributes<'_>) {
    let transport = match scheme {
        Scheme::Udp => "udp",
        Scheme::Tcp | Scheme::Tls | Scheme::Https => "tcp",
    };
    attributes
        .text("server.address", address.ip())
        .number("server.port", address.port())
        .text("network.transport", transport)
        .truth("dotproxy.tls", scheme.is_encrypted());
}

/// Returns the name of a question without its final dot, as OpenTelemetry has names.
fn without_dot(question: &Question<'_>) -> String {
    let name = question.shown_name().to_string();
    match name.strip_suffix('.') {
        Some(short) if !short.is_empty() => short.to_owned(),
        _ => name,
    }
}

/// Returns the result of the cache lookup.
fn cache_result(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Cached => Some("hit"),
        Outcome::Stale => Some("stale"),
        _ => None,
    }
}

/// Returns whether the outcome is a failure of the proxy or an upstream.
fn is_error(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Shed | Outcome::UpstreamFailed | Outcome::TimedOut | Outcome::Bogus
    )
}

/// The ids of a trace and of a span.
type SpanIds<'a> = (&'a [u8; 16], &'a [u8; 8]);

/// Returns a random id that is not zero: zero is invalid.
fn id<const LEN: usize>(random: &mut Random) -> [u8; LEN] {
    let seed = random.next_seed();
    let mut id = [0; LEN];
    id.copy_from_slice(&seed[..LEN]);
    id[LEN - 1] |= 1;
    id
}

/// The common fields of spans.
struct SpanHead {
    name: &'static str,
    kind: u8,
    /// Begin and end, since 1970.
    time: (Duration, Duration),
}

impl SpanHead {
    fn of(name: &'static str, kind: u8, time: (Duration, Duration)) -> Self {
        Self { name, kind, time }
    }

    fn write(
        &self,
        out: &mut Vec<u8>,
        (trace, span): SpanIds<'_>,
        parent: Option<&[u8]>,
        error: Option<&str>,
        attribute: impl FnOnce(&mut Attributes<'_>),
    ) {
        let mut object = Object::start(out);
        object.text("traceId", Hex(trace)).text("spanId", Hex(span));
        if let Some(parent) = parent {
            object.text("parentSpanId", Hex(parent));
        }
        object
            .text("name", self.name)
            .plain("kind", self.kind)
            .text("startTimeUnixNano", self.time.0.as_nanos())
            .text("endTimeUnixNano", self.time.1.as_nanos())
            .nested("attributes", |out| {
                let mut attributes = Attributes(List::start(out));
                attribute(&mut attributes);
                if let Some(error) = error {
                    attributes.text("error.type", error);
                }
                attributes.0.end();
            });
        if let Some(error) = error {
            object.nested("status", |out| {
                Object::start(out)
                    .plain("code", ERROR)
                    .text("message", error)
                    .end();
            });
        }
        object.end();
    }
}

/// The attributes of a span or of the program (`KeyValue`).
struct Attributes<'a>(List<'a>);

impl Attributes<'_> {
    fn text(&mut self, key: &str, value: impl fmt::Display) -> &mut Self {
        self.add(key, |object| {
            object.text("stringValue", value);
        })
    }

    /// Adds a number, as a text: OTLP writes 64-bit numbers as texts in JSON.
    fn number(&mut self, key: &str, value: impl fmt::Display) -> &mut Self {
        self.add(key, |object| {
            object.text("intValue", value);
        })
    }

    fn truth(&mut self, key: &str, value: bool) -> &mut Self {
        self.add(key, |object| {
            object.plain("boolValue", value);
        })
    }

    fn add(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        Object::start(self.0.item())
            .text("key", key)
            .nested("value", |out| {
                let mut value = Object::start(out);
                write(&mut value);
                value.end();
            })
            .end();
        self
    }
}

/// An id in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Key;
    use crate::base::origin::Origin;
    use crate::config::ResourceSettings;
    use crate::wire::Rcode;

    fn record(outcome: Outcome) -> Record {
        Record {
            origin: Origin {
                session: Key::from_usize(1),
                peer: ([192, 0, 2, 7], 4711).into(),
                local: None,
            },
            protocol: ClientProtocol::Tls,
            question: None,
            outcome,
            rcode: Some(Rcode::NOERROR),
            response_len: 88,
            took: Duration::from_millis(3),
            upstream: None,
            security: None,
            trace: None,
        }
    }

    /// Returns the request for one query with this record, with zeroes for the digits of ids, and
    /// the number of spans.
    fn request(record: &Record) -> (String, u64) {
        let bytes = b"\x03www\x01\"\x00\x00\x01\x00\x01";
        let trace = Trace::default();
        let told = FinishedQuery {
            record,
            trace: &trace,
            question: Some(bytes),
            upstream: Some("192.0.2.1:853"),
            clients: ClientDetail::Subnet,
            ended: Instant::after_start(Duration::from_secs(100)),
            ended_at: Duration::from_secs(1_600_000_000),
        };
        let mut spans = Spans::default();
        spans.add(&told, &mut Random::new(&[7; 32]));
        let resource = Resource::new(&ResourceSettings::default(), &mut Random::new(&[8; 32]));
        let text = String::from_utf8(spans.request(&resource)).unwrap();
        (text, spans.count())
    }

    #[test]
    fn cache_hit_has_two_spans() {
        let record = record(Outcome::Cached);
        let (text, count) = request(&record);
        assert_eq!((count, spans_of(&record, &Trace::default())), (2, 2));
        for part in [
            r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"dotproxy"}},"#,
            r#""name":"query","kind":2,"startTimeUnixNano":"1599999999997000000","endTimeUnixNano":"1600000000000000000","attributes":["#,
            r#"{"key":"dns.question.name","value":{"stringValue":"www.\""}}"#,
            r#"{"key":"client.address","value":{"stringValue":"192.0.2.0/24"}}"#,
            r#"{"key":"dotproxy.tls","value":{"boolValue":true}}"#,
            r#"{"key":"dotproxy.response.size","value":{"intValue":"88"}}]},{"traceId":""#,
            r#""name":"cache","kind":1,"startTimeUnixNano":"1600000000000000000","#,
            r#""attributes":[{"key":"dotproxy.cache.result","value":{"stringValue":"hit"}}]}]}]}]}"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("status"));
    }

    #[test]
    fn failed_query_is_an_error() {
        let (text, count) = request(&record(Outcome::TimedOut));
        assert_eq!(count, 1);
        let part = r#"{"key":"error.type","value":{"stringValue":"timed-out"}}],"status":{"code":2,"message":"timed-out"}}]"#;
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn ids_are_unique_and_have_their_length() {
        let mut random = Random::new(&[7; 32]);
        let ids: Vec<[u8; 8]> = (0..1_000).map(|_| id(&mut random)).collect();
        let mut shown: Vec<String> = ids.iter().map(|id| Hex(id).to_string()).collect();
        assert!(shown.iter().all(|id| id.len() == 16));
        shown.sort_unstable();
        shown.dedup();
        assert_eq!(shown.len(), 1_000);
    }
}
