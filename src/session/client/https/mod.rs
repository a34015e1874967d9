//! The requests of a DNS over HTTPS client (RFC 8484), over HTTP/2.
//!
//! Clients send queries with the id 0, so that HTTP caches can store the responses (section 4.1).
//! While a query is pending, it has an id that is unique on the connection. The response to the
//! client has the id that the client sent.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::base::failure::{Failure, FailureKind};
use crate::config::Limits;
use crate::config::upstream::DOH_PATH;
use crate::session::http2::{
    DNS_MESSAGE, Http2Connection, Http2Event, Http2Limits, Http2Method, NotSent, RequestFields,
    ResponseHead, StreamId,
};
use crate::wire::header::HEADER_LEN;
use crate::wire::{Message, Rcode};

#[cfg(test)]
mod tests;

/// The media type of the text of an error.
const TEXT: &str = "text/plain; charset=utf-8";

/// The response to a client that does not start with the preface of HTTP/2. It may have sent an
/// HTTP/1.1 request.
const VERSION_NOT_SUPPORTED: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 44\r\nconnection: close\r\n\r\n\
    DNS over HTTPS needs HTTP/2 (ALPN value h2)\n";

/// The decoder of base64url (RFC 8484, section 6). Padding is optional.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The result of handing over a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandedOver {
    /// A response will follow.
    pub(super) is_owed: bool,
    /// `Continue` if more messages can be handed over.
    pub(super) flow: ControlFlow<()>,
}

/// An error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rejection {
    status: u16,
    allow: Option<&'static str>,
    text: &'static str,
}

impl Rejection {
    const fn new(status: u16, text: &'static str) -> Self {
        let allow = None;
        Self {
            status,
            allow,
            text,
        }
    }
}

const BAD_REQUEST: Rejection = Rejection::new(400, "expected a DNS query\n");
const NO_QUERY: Rejection = Rejection::new(
    400,
    "expected a DNS query in base64url: /dns-query?dns=...\n",
);
const NOT_FOUND: Rejection = Rejection::new(404, "not found: DNS queries go to /dns-query\n");
const METHOD_NOT_ALLOWED: Rejection = Rejection {
    status: 405,
    allow: Some("GET, HEAD, POST"),
    text: "expected the method GET or POST\n",
};
const CONTENT_TOO_LARGE: Rejection = Rejection::new(413, "a DNS query has at most 65535 bytes\n");
const UNSUPPORTED_MEDIA_TYPE: Rejection =
    Rejection::new(415, "expected the content type application/dns-message\n");

/// A query that was handed over.
#[derive(Debug)]
struct PendingQuery {
    /// The id with which the query was handed over.
    id: u16,
    /// The id that the client has sent.
    client_id: u16,
    /// The stream of the response. If the client resets it, the response is dropped.
    stream: StreamId,
}

/// The queries of a connection.
#[derive(Debug, Default)]
struct QueryTable {
    /// The queries whose responses are awaited.
    pending: Vec<PendingQuery>,
    /// The queries that could not be handed over yet.
    kept: VecDeque<(StreamId, Box<[u8]>)>,
    kept_len: usize,
    next_id: u16,
    /// The responses to requests without a query. They are sent when the input is handled.
    rejected: Vec<(StreamId, Rejection)>,
}

impl QueryTable {
    /// Keeps a query that cannot be handed over yet.
    fn keep(&mut self, stream: StreamId, message: Vec<u8>) {
        self.kept_len += message.len();
        self.kept.push_back((stream, message.into()));
    }

    fn take_kept(&mut self) -> Option<(StreamId, Box<[u8]>)> {
        let (stream, message) = self.kept.pop_front()?;
        self.kept_len -= message.len();
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
        Some((stream, message))
    }

    /// Hands over a query with an id that no other has.
    fn hand_over(
        &mut self,
        stream: StreamId,
        message: &mut [u8],
        hand_over: &mut dyn FnMut(Option<&[u8]>) -> HandedOver,
    ) -> ControlFlow<()> {
        while self.pending.iter().any(|query| query.id == self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let client_id = replace_id(message, id);
        let HandedOver { is_owed, flow } = hand_over(Some(message));
        if is_owed {
            self.pending.push(PendingQuery {
                id,
                client_id,
                stream,
            });
        } else {
            self.rejected.push((stream, BAD_REQUEST));
        }
        flow
    }

    /// Drops the kept query of a stream whose response is not needed any more. A pending query still
    /// counts until it is answered: a client that resets its streams gets no more room.
    fn drop_kept(&mut self, reset: StreamId) {
        if let Some(at) = self.kept.iter().position(|(stream, _)| *stream == reset) {
            let removed = self.kept.remove(at);
            self.kept_len -= removed.map_or(0, |(_, message)| message.len());
        }
    }
}

/// The requests and responses of a connection.
#[derive(Debug)]
pub(super) struct HttpsRequests {
    http2: Http2Connection,
    queries: QueryTable,
    failure: Option<Failure>,
    /// The output instead of that of HTTP/2, for a client that does not speak it.
    refusal: &'static [u8],
    /// A response that waited for the window of the client is in the output.
    has_progress: bool,
}

impl HttpsRequests {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            http2: Http2Connection::server(Http2Limits {
                streams_max: u32::try_from(limits.tcp_client_inflight).unwrap_or(u32::MAX),
                unsent_len_max: limits.tcp_client_unsent,
                ..Http2Limits::default()
            }),
            queries: QueryTable::default(),
            failure: None,
            refusal: &[],
            has_progress: false,
        }
    }

    /// Hands over the queries that were kept, and then those in `piece`, until `hand_over` breaks.
    /// The rest is kept. `hand_over` gets `None` for a request without a query.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        hand_over: &mut dyn FnMut(Option<&[u8]>) -> HandedOver,
    ) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue()
            && let Some((stream, mut message)) = self.queries.take_kept()
        {
            flow = self.queries.hand_over(stream, &mut message, hand_over);
        }
        self.receive(piece, flow, hand_over)
    }

    /// Keeps the queries in `piece`.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        let full = ControlFlow::Break(());
        let _ = self.receive(piece, full, &mut |_| HandedOver {
            is_owed: false,
            flow: full,
        });
    }

    fn receive(
        &mut self,
        piece: &[u8],
        mut flow: ControlFlow<()>,
        hand_over: &mut dyn FnMut(Option<&[u8]>) -> HandedOver,
    ) -> ControlFlow<()> {
        let waiting_len = self.http2.waiting_len();
        let queries = &mut self.queries;
        let received = self.http2.receive(piece, |event| match event {
            Http2Event::Request {
                stream,
                fields,
                body,
            } => match query_of(fields, body) {
                Ok(message) if flow.is_break() => queries.keep(stream, message),
                Ok(mut message) => flow = queries.hand_over(stream, &mut message, hand_over),
                Err(rejection) => {
                    queries.rejected.push((stream, rejection));
                    if hand_over(None).flow.is_break() {
                        flow = ControlFlow::Break(());
                    }
                }
            },
            Http2Event::Reset { stream } => queries.drop_kept(stream),
            // A client that sends GOAWAY accepts the responses to its requests. The other events
            // occur only in the client role.
            Http2Event::GoAway { .. }
            | Http2Event::Response { .. }
            | Http2Event::Refused { .. }
            | Http2Event::Failed { .. } => {}
        });
        self.has_progress |= self.http2.waiting_len() < waiting_len;
        if let Err(error) = received {
            self.fail(error.detail);
        }
        for (stream, rejection) in std::mem::take(&mut self.queries.rejected) {
            let head = ResponseHead {
                status: rejection.status,
                content_type: Some(TEXT),
                max_age_s: None,
                allow: rejection.allow,
            };
            // A stream that was reset, or whose client reads nothing, needs no text.
            let _ = self.http2.respond(stream, &head, rejection.text.as_bytes());
        }
        flow
    }

    fn fail(&mut self, detail: &str) {
        let detail = if self.http2.has_preface() {
            detail
        } else {
            self.refusal = VERSION_NOT_SUPPORTED;
            "the client does not use it"
        };
        self.failure = Some(Failure::new(FailureKind::Http2, detail));
    }

    /// Sends a response to the query with its id. Returns `false` if the client leaves too much
    /// unread. `buffer` has room for the message.
    pub(super) fn respond(&mut self, message: &[u8], buffer: &mut [u8]) -> bool {
        let id = message.first_chunk().copied().map(u16::from_be_bytes);
        let mut pending = self.queries.pending.iter();
        let Some(at) = pending.position(|query| Some(query.id) == id) else {
            return true;
        };
        let query = self.queries.pending.swap_remove(at);
        if self.queries.pending.is_empty() {
            self.queries.pending = Vec::new();
        }
        let Some(response) = buffer.get_mut(..message.len()) else {
            return true;
        };
        response.copy_from_slice(message);
        replace_id(response, query.client_id);
        let head = ResponseHead {
            status: 200,
            content_type: Some(DNS_MESSAGE),
            max_age_s: Some(max_age(response)),
            allow: None,
        };
        self.http2.respond(query.stream, &head, response) != Err(NotSent::NoRoom)
    }

    pub(super) fn has_output(&self) -> bool {
        !self.refusal.is_empty() || self.http2.has_preface() && self.http2.has_output()
    }

    /// Appends the output to `out`.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        if self.http2.has_preface() {
            self.http2.take_output(out);
        }
        out.extend_from_slice(std::mem::take(&mut self.refusal));
    }

    /// Returns whether the output has had a response that waited for a window, since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Sends GOAWAY. The requests that were received are still answered.
    pub(super) fn shut_down(&mut self) {
        self.http2.shut_down();
    }

    /// Sends GOAWAY, and refuses the requests that are incomplete or whose queries were not handed
    /// over.
    pub(super) fn end(&mut self) {
        self.http2.shut_down();
        while let Some((stream, _)) = self.queries.take_kept() {
            self.http2.refuse(stream);
        }
        self.http2.refuse_incomplete();
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.http2.waiting_len() > 0
    }

    pub(super) fn held_len(&self) -> usize {
        let pending_len = self.queries.pending.capacity() * size_of::<PendingQuery>();
        let kept_len = self.queries.kept.capacity() * size_of::<(StreamId, Box<[u8]>)>();
        self.http2.allocated_len() + pending_len + kept_len + self.queries.kept_len
    }
}

/// Returns the query in a request.
fn query_of(fields: &RequestFields, body: &[u8]) -> Result<Vec<u8>, Rejection> {
    let (path, parameters) = fields.path().split_once('?').unwrap_or((fields.path(), ""));
    if path != DOH_PATH && fields.method != Http2Method::Connect {
        return Err(NOT_FOUND);
    }
    let query = match fields.method {
        Http2Method::Get | Http2Method::Head => {
            let mut values = parameters
                .split('&')
                .filter_map(|it| it.strip_prefix("dns="));
            let value = values.next().ok_or(NO_QUERY)?;
            decode(value).ok_or(NO_QUERY)?
        }
        Http2Method::Post if fields.is_too_long => return Err(CONTENT_TOO_LARGE),
        Http2Method::Post if !fields.is_dns_message => return Err(UNSUPPORTED_MEDIA_TYPE),
        Http2Method::Post => body.to_vec(),
        Http2Method::Connect | Http2Method::Other => return Err(METHOD_NOT_ALLOWED),
    };
    if query.len() < HEADER_LEN {
        return Err(BAD_REQUEST);
    }
    Ok(query)
}

/// Decodes base64url. A client may percent-encode each character (RFC 3986, section 2.1).
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        decoded.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        decoded.push_str(rest);
    }
    let text = decoded.as_str();
    let mut bytes = vec![0; base64::decoded_len_estimate(text.len())];
    let len = BASE64.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// Replaces the id of a message. Returns the previous one.
fn replace_id(message: &mut [u8], id: u16) -> u16 {
    match message.first_chunk_mut() {
        Some(place) => u16::from_be_bytes(std::mem::replace(place, id.to_be_bytes())),
        None => id,
    }
}

/// Returns the time in seconds for which an HTTP cache may store a response: the smallest TTL of
/// the answer, or the negative TTL (RFC 8484, section 5.1; RFC 2308, section 5).
fn max_age(response: &[u8]) -> u32 {
    let Ok(message) = Message::parse(response) else {
        return 0;
    };
    if !matches!(message.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
        return 0;
    }
    let of_answers = message.answers().map(|record| record.ttl(response));
    let negative = message.negative_ttl();
    of_answers.chain(negative).min().unwrap_or(0)
}
