//! An HTTP/1.1 server connection (RFC 9112) for observers: GET and HEAD requests for pages.
//!
//! Requests are handled one after the other, the next when the response to the last has been sent.
//! After a request with a body the connection ends: later bytes are not read as another request. A
//! short body is skipped first, because the kernel discards sent responses if input is unread at
//! the close.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::http_fields::{self, allows_gzip, has_item};
use crate::base::failure::Failure;
use crate::base::time::Instant;
use crate::session::Scratch;
use crate::session::client::activity::Activity;
use crate::session::transport::{Received, Transport};

/// Maximum length of the head of a request, in bytes.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// Maximum length of a body that is skipped, in bytes.
const BODY_LEN_MAX: usize = 16 * 1024;

/// Maximum number of header fields in a request.
const FIELDS_MAX: usize = 48;

/// A request, to be answered by [`HttpStream::respond`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The path, without a query.
    pub path: String,
    /// The query behind the question mark, or an empty text.
    pub query: String,
    /// The forms of a response that the client accepts.
    pub accepts: Accepted,
    /// The response has no body (HEAD).
    is_for_head: bool,
    /// The connection stays open.
    is_kept: bool,
}

/// The forms of a response that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The `OpenMetrics` format.
    pub openmetrics: bool,
    /// A body that is compressed with gzip.
    pub gzip: bool,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Code and reason (RFC 9110, section 15).
    pub status: &'static str,
    /// The media type of the body.
    pub content_type: &'static str,
    /// More header fields, each with its line end.
    pub fields: &'static str,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl HttpResponse {
    /// Creates a response with one line of text.
    pub fn line(status: &'static str, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            fields: "",
            body: format!("{text}\n").into_bytes().into(),
        }
    }

    /// Creates a response with a body of this media type.
    pub fn of_type(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: "200 OK",
            content_type,
            fields: "",
            body: body.into().into(),
        }
    }
}

/// A connection over `S`.
pub struct HttpStream<S> {
    transport: Transport<S>,
    peer: SocketAddr,
    /// Input of unanswered requests.
    received: Vec<u8>,
    /// The connection ends once everything is sent.
    is_ending: bool,
    activity: Activity,
    /// Additional idle time after a request.
    kept_for: Duration,
    /// Bytes held for the connection at the last [`HttpStream::account`].
    accounted: usize,
}

/// The result of parsing the input.
enum Parsed<'a> {
    /// An incomplete head, or an incomplete body that is to be skipped.
    Part,
    /// A whole request: its length in bytes and its method.
    Whole {
        len: usize,
        method: &'a str,
        request: HttpRequest,
    },
    /// An invalid request, with its error response.
    Bad(HttpResponse),
}

impl<S: Read + Write> HttpStream<S> {
    /// Creates the session of a connection accepted from `peer`.
    pub fn new(stream: S, peer: SocketAddr, now: Instant) -> Self {
        Self {
            transport: Transport::plain(stream),
            peer,
            received: Vec::new(),
            is_ending: false,
            activity: Activity::new(now),
            kept_for: Duration::ZERO,
            accounted: 0,
        }
    }

    /// Returns the stream of the connection.
    pub fn stream(&mut self) -> &mut S {
        self.transport.stream()
    }

    /// Returns the client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the time at which the idle timeout begins: the time of the last whole request or of
    /// the last part of a response that counts, plus the time of [`HttpStream::keep_for`].
    pub fn last_active(&self) -> Instant {
        self.activity.last() + self.kept_for
    }

    /// Extends the idle timeout, because the client has sent a request and may send another one on
    /// the same connection.
    pub fn keep_for(&mut self, longer: Duration) {
        self.kept_for = longer;
    }

    /// Returns whether the session is finished.
    pub fn is_over(&self) -> bool {
        self.is_ending && self.transport.unsent_len() == 0
    }

    /// Counts the bytes that are held for the connection. Returns the previous and the new number.
    pub fn account(&mut self) -> (usize, usize) {
        let held = self.received.capacity() + self.transport.unsent_len();
        (std::mem::replace(&mut self.accounted, held), held)
    }

    /// Returns the number of bytes held at the last [`HttpStream::account`].
    pub fn accounted(&self) -> usize {
        self.accounted
    }

    /// Returns the next request, if it has arrived.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<Option<HttpRequest>, Failure> {
        while !self.is_ending && self.transport.unsent_len() == 0 {
            match parse(&self.received) {
                Parsed::Whole {
                    len,
                    method,
                    request,
                } => {
                    let is_known = matches!(method, "GET" | "HEAD");
                    self.received.drain(..len);
                    self.received.shrink_to(HEAD_LEN_MAX);
                    self.activity.note(now);
                    if is_known {
                        return Ok(Some(request));
                    }
                    let text = "only GET and HEAD are supported";
                    let response = HttpResponse::line("405 Method Not Allowed", text);
                    self.respond(&request, &response);
                    break;
                }
                Parsed::Bad(response) => {
                    self.is_ending = true;
                    send(&mut self.transport, &response, true, true);
                    break;
                }
                Parsed::Part => {}
            }
            let received = &mut self.received;
            let read = self
                .transport
                .receive(scratch, |piece| received.extend_from_slice(piece))?;
            match read {
                Received::Some(_) => {}
                Received::Nothing => break,
                Received::End => self.is_ending = true,
            }
        }
        Ok(None)
    }

    /// Queues the response to a request.
    pub fn respond(&mut self, request: &HttpRequest, response: &HttpResponse) {
        self.is_ending |= !request.is_kept;
        let has_body = !request.is_for_head;
        send(&mut self.transport, response, has_body, self.is_ending);
    }

    /// Writes queued data, as far as the socket accepts it. Returns whether everything is sent and
    /// another request may have arrived.
    pub fn flush(&mut self, scratch: &mut Scratch, now: Instant) -> Result<bool, Failure> {
        let taken = self.transport.flush(scratch)?;
        let is_rest = self.transport.unsent_len() == 0;
        self.activity.note_taken(taken, is_rest, now);
        Ok(taken > 0 && is_rest && !self.is_ending)
    }
}

fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let bad = |text| Parsed::Bad(HttpResponse::line("400 Bad Request", text));
    let too_large = || {
        let text = "expected a request header of at most 8192 bytes and 48 fields";
        Parsed::Bad(HttpResponse::line(
            "431 Request Header Fields Too Large",
            text,
        ))
    };
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_LEN_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_LEN_MAX => return Parsed::Part,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return too_large(),
        Err(_) => return bad("invalid HTTP request"),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return bad("invalid HTTP request");
    };
    let field = |name| http_fields::text(request.headers, name);
    let count = |name| http_fields::count(request.headers, name);
    // RFC 9112, section 3.2.
    if count("host") > 1 || minor >= 1 && count("host") == 0 {
        return bad("a request must have one Host field");
    }
    let Ok(body_len) = http_fields::content_length(request.headers) else {
        return bad("invalid Content-Length");
    };
    let is_encoded = count("transfer-encoding") > 0;
    if is_encoded && body_len.is_some() {
        return bad("a request must not have both Content-Length and Transfer-Encoding");
    }
    let has_body = is_encoded || body_len.is_some_and(|len| len > 0);
    let body_len = body_len.and_then(|len| usize::try_from(len).ok());
    // A client that sent Expect waits for 100 (Continue) and not for a response.
    let len = match body_len {
        Some(body_len) if body_len <= BODY_LEN_MAX && count("expect") == 0 => len + body_len,
        _ => len,
    };
    if bytes.len() < len {
        return Parsed::Part;
    }
    let is_closing = field("connection").is_some_and(|options| has_item(options, "close"));
    let accept = field("accept").unwrap_or_default();
    let (path, query) = path_and_query(target);
    let request = HttpRequest {
        path: path.to_owned(),
        query: query.to_owned(),
        accepts: Accepted {
            openmetrics: has_item(accept, "application/openmetrics-text"),
            gzip: field("accept-encoding").is_some_and(allows_gzip),
        },
        is_for_head: method == "HEAD",
        is_kept: minor >= 1 && !has_body && !is_closing,
    };
    Parsed::Whole {
        len,
        method,
        request,
    }
}

/// Returns the path and the query of a request target, which can be a whole URI (RFC 9112, section
/// 3.2.2).
fn path_and_query(target: &str) -> (&str, &str) {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    path.split_once('?').unwrap_or((path, ""))
}

fn send<S: Read + Write>(
    transport: &mut Transport<S>,
    response: &HttpResponse,
    has_body: bool,
    is_last: bool,
) {
    let HttpResponse {
        status,
        content_type,
        fields,
        body,
    } = response;
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut head = format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\n{fields}",
        body.len()
    );
    if status.starts_with("405") {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    if is_last {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    transport.send(|out| {
        out.extend_from_slice(head.as_bytes());
        if has_body {
            out.extend_from_slice(body);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Pipe;

    /// Returns the output for the input `bytes`, and whether the connection is over.
    fn exchange(bytes: &[u8]) -> (String, bool) {
        let pipe = Pipe::default();
        let now = Instant::default();
        let mut http = HttpStream::new(pipe.clone(), ([127, 0, 0, 1], 4711).into(), now);
        let mut scratch = Scratch::new();
        for piece in bytes.chunks(7) {
            pipe.push(piece);
            loop {
                if let Some(request) = http.ready(&mut scratch, now).unwrap() {
                    http.respond(&request, &answer(&request));
                }
                if !http.flush(&mut scratch, now).unwrap() {
                    break;
                }
            }
        }
        let sent = String::from_utf8(pipe.sent()).unwrap();
        let lines = sent.lines().filter(|line| !line.starts_with("Date: "));
        (lines.collect::<Vec<_>>().join("\n"), http.is_over())
    }

    fn answer(request: &HttpRequest) -> HttpResponse {
        let format = if request.accepts.openmetrics {
            " (open)"
        } else {
            ""
        };
        HttpResponse::line("200 OK", &format!("{}{format}", request.path))
    }

    fn ok(len: usize) -> String {
        format!(
            "HTTP/1.1 200 OK\nContent-Type: text/plain; charset=utf-8\nContent-Length: {len}\n\
             Cache-Control: no-store\n"
        )
    }

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let requests = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b?c=d HTTP/1.1\r\nhost: x\r\n\
                         Accept: text/html, application/openmetrics-text;version=1.0.0\r\n\r\n";
        let expected = format!("{}\n/a\n{}\n/b (open)", ok(3), ok(10));
        assert_eq!(exchange(requests), (expected, false));
    }

    #[test]
    fn connection_is_closed_after_a_request_for_it() {
        for request in [
            "GET /a HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n",
            "GET /a HTTP/1.0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nGET",
            "GET http://x/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 16385\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nGET",
            "GET /a?b=http://c/d HTTP/1.0\r\n\r\n",
        ] {
            let expected = format!("{}Connection: close\n\n/a", ok(3));
            assert_eq!(exchange(request.as_bytes()), (expected, true), "{request}");
        }
    }

    #[test]
    fn short_body_comes_before_the_response() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 16384\r\n\r\n";
        let mut bytes = head.as_bytes().to_vec();
        bytes.resize(head.len() + 16_383, b'a');
        assert_eq!(exchange(&bytes), (String::new(), false));
        bytes.push(b'a');
        let (sent, is_over) = exchange(&bytes);
        assert!(sent.starts_with("HTTP/1.1 405 ") && is_over, "{sent}");
    }

    #[test]
    fn response_to_head_has_the_length_of_the_body() {
        let (sent, is_over) = exchange(b"HEAD /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!((sent.as_str(), is_over), (ok(3).as_str(), false));
    }

    #[test]
    fn invalid_requests_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_LEN_MAX));
        let field = "A: b\r\n".repeat(FIELDS_MAX + 1);
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n");
        for (bytes, status, is_over) in [
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "405", false),
            ("GET / HTTP/1.1\r\n\r\n", "400", true),
            ("GET / HTTP/2.0\r\n\r\n", "400", true),
            ("\x16\x03\x01\0\0\r\n\r\n", "400", true),
            (long.as_str(), "431", true),
            (many.as_str(), "431", true),
        ] {
            let (sent, was_over) = exchange(bytes.as_bytes());
            assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")), "{sent}");
            assert_eq!(was_over, is_over, "{sent}");
            assert_eq!(sent.contains("\nAllow: GET, HEAD\n"), status == "405");
            let names_limits = sent.contains("at most 8192 bytes and 48 fields");
            assert_eq!(names_limits, status == "431", "{sent}");
        }
    }

    #[test]
    fn limits_of_a_request_are_those_of_the_error() {
        let request = |value_len: usize, fields: usize| {
            let (value, fields) = ("a".repeat(value_len), "A: b\r\n".repeat(fields - 2));
            format!("GET / HTTP/1.1\r\nHost: x\r\nB: {value}\r\n{fields}\r\n")
        };
        let long = |len| request(len - request(0, 2).len(), 2);
        for (request, status) in [
            (long(8192), "200"),
            (long(8193), "431"),
            (request(1, 48), "200"),
            (request(1, 49), "431"),
        ] {
            let (sent, _) = exchange(request.as_bytes());
            assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")), "{sent}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 0\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 4\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: -0\r\n",
            "Content-Length: 1 3\r\n",
            "Content-Length: what\r\n",
            "Content-Length:\r\n",
            "Content-Length : 3\r\n",
            "Content-Length: \u{a0}3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: \u{ff}\r\nContent-Length: 3\r\n",
            "Host: y\r\n",
        ] {
            let request = format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\nGET");
            let latin1: Vec<u8> = request.chars().map(|c| u8::try_from(c).unwrap()).collect();
            let (sent, is_over) = exchange(&latin1);
            assert!(
                sent.starts_with("HTTP/1.1 400 ") && is_over,
                "{fields}: {sent}"
            );
        }
    }

    #[test]
    fn no_request_is_read_while_a_response_is_unsent() {
        let pipe = Pipe::default();
        let now = Instant::default();
        let mut http = HttpStream::new(pipe.clone(), ([127, 0, 0, 1], 4711).into(), now);
        let mut scratch = Scratch::new();
        pipe.set_window(10);
        pipe.push(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
        for _ in 0..3 {
            if let Some(request) = http.ready(&mut scratch, now).unwrap() {
                assert_eq!(request.path, "/a");
                http.respond(&request, &answer(&request));
            }
            assert_eq!(http.flush(&mut scratch, now), Ok(false));
        }
        let (_, held) = http.account();
        assert!(held < 3 * HEAD_LEN_MAX, "{held}");
    }
}
