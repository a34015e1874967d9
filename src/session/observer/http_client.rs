//! An HTTP/1.1 client (RFC 9112) that posts documents to a collector.
//!
//! One document is posted at a time. The body of a response is skipped; if the response does not
//! give the length of its body, the connection ends with the body.

use std::fmt::Display;
use std::io::{Read, Write};
use std::time::Duration;

use super::http_fields;
use crate::base::failure::{Failure, FailureKind};
use crate::session::Scratch;
use crate::session::transport::Transport;

/// Maximum length of the head of a response, in bytes.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// Maximum length of a body that is skipped, in bytes.
const BODY_LEN_MAX: usize = 64 * 1024;

/// Maximum number of header fields in a response.
const FIELDS_MAX: usize = 48;

/// Maximum number of bytes read in one call: more than a response with its interim responses has.
const SAID_MAX: usize = 256 * 1024;

/// The answer of the collector to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code (RFC 9110, section 15).
    pub status: u16,
    /// The delay before a retry, if the response gives one in seconds (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    /// The connection can be used for another document.
    pub is_kept: bool,
}

/// A connection over `S`.
pub struct HttpClient<S> {
    transport: Transport<S>,
    received: Vec<u8>,
    /// A document was posted and has no answer yet.
    is_waiting: bool,
}

impl<S: Read + Write> HttpClient<S> {
    /// Creates the session of a connection that is still connecting.
    pub fn new(stream: S) -> Self {
        Self {
            transport: Transport::connecting(stream),
            received: Vec::new(),
            is_waiting: false,
        }
    }

    /// Returns the stream of the connection.
    pub fn stream(&mut self) -> &mut S {
        self.transport.stream()
    }

    /// Posts a document. The previous document must have been answered.
    pub fn post(&mut self, host: impl Display, path: &str, content_type: &str, body: &[u8]) {
        let program = concat!("dotproxy/", env!("CARGO_PKG_VERSION"));
        let len = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {program}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {len}\r\n\r\n"
        );
        self.transport.send(|out| {
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(body);
        });
        self.is_waiting = true;
    }

    /// Reads input. Returns the answer to the document, once.
    pub fn ready(&mut self, scratch: &mut Scratch) -> Result<Option<Answer>, Failure> {
        let is_waiting = self.is_waiting;
        let limit = (SAID_MAX, "incomplete HTTP response");
        let received = &mut self.received;
        let answer = self
            .transport
            .receive_until(scratch, received, limit, |received| {
                if !is_waiting && !received.is_empty() {
                    let detail = "HTTP response without a request";
                    return Err(Failure::new(FailureKind::Protocol, detail));
                }
                parse(received)
            })?;
        if answer.is_some() {
            self.is_waiting = false;
            self.received = Vec::new();
        }
        Ok(answer)
    }

    /// Writes queued data, as far as the socket accepts it.
    pub fn flush(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        self.transport.flush(scratch).map(drop)
    }
}

/// Parses the answer from a response, if the response has arrived with its body.
fn parse(received: &mut Vec<u8>) -> Result<Option<Answer>, Failure> {
    let failed = |detail: &str| Err(Failure::new(FailureKind::Protocol, detail));
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let len = match response.parse(received) {
            Ok(httparse::Status::Complete(len)) if len <= HEAD_LEN_MAX => len,
            Ok(httparse::Status::Partial) if received.len() <= HEAD_LEN_MAX => return Ok(None),
            Ok(_) => return failed("HTTP response header too large"),
            Err(error) => return failed(&format!("invalid HTTP response: {error}")),
        };
        let status = response.code.unwrap_or_default();
        if (100..200).contains(&status) {
            // An interim response: the final one follows (RFC 9110, section 15.2).
            received.drain(..len);
            continue;
        }
        let field = |name| http_fields::text(response.headers, name);
        let Ok(body_len) = http_fields::content_length(response.headers) else {
            return failed("invalid Content-Length in the HTTP response");
        };
        let is_chunked = http_fields::count(response.headers, "transfer-encoding") > 0;
        let retry_after =
            field("retry-after").and_then(|text| http_fields::number(text.as_bytes()));
        let body_len = match (status, body_len) {
            (204 | 304, _) => Some(0),
            (_, body_len) => body_len
                .and_then(|len| usize::try_from(len).ok())
                .filter(|len| *len <= BODY_LEN_MAX && !is_chunked),
        };
        if body_len.is_some_and(|body_len| received.len() < len + body_len) {
            return Ok(None);
        }
        let is_closing =
            field("connection").is_some_and(|options| http_fields::has_item(options, "close"));
        return Ok(Some(Answer {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            is_kept: response.version == Some(1)
                && !is_closing
                && body_len.is_some_and(|body_len| received.len() == len + body_len),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Pipe;

    struct Scene {
        pipe: Pipe,
        client: HttpClient<Pipe>,
        scratch: Scratch,
    }

    impl Scene {
        /// Creates a client that has posted a document.
        fn new() -> Self {
            let pipe = Pipe::default();
            let mut scene = Self {
                client: HttpClient::new(pipe.clone()),
                pipe,
                scratch: Scratch::new(),
            };
            scene
                .client
                .post("a.example:80", "/b", "text/plain", b"document");
            scene.client.flush(&mut scene.scratch).unwrap();
            scene
        }

        /// Returns the answers to a response that arrives a few bytes at a time.
        fn take(&mut self, bytes: &[u8]) -> Result<Vec<Answer>, FailureKind> {
            let mut answers = Vec::new();
            for piece in bytes.chunks(9) {
                self.pipe.push(piece);
                let answer = self.client.ready(&mut self.scratch);
                answers.extend(answer.map_err(|failure| failure.kind)?);
            }
            Ok(answers)
        }
    }

    fn answer(status: u16, retry_after: Option<u64>, is_kept: bool) -> Vec<Answer> {
        let retry_after = retry_after.map(Duration::from_secs);
        vec![Answer {
            status,
            retry_after,
            is_kept,
        }]
    }

    #[test]
    fn documents_are_posted_one_after_the_other() {
        let mut scene = Scene::new();
        let head = "POST /b HTTP/1.1\r\nHost: a.example:80\r\nUser-Agent: dotproxy/0.1.0\r\n\
                    Content-Type: text/plain\r\nContent-Length: 8\r\n\r\ndocument";
        assert_eq!(scene.pipe.sent(), head.as_bytes());
        let taken = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"partialSuccess\":{}}";
        assert_eq!(scene.take(taken), Ok(answer(200, None, true)));
        scene.client.post("a.example", "/c", "text/plain", b"");
        let refused = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nretry-after: 7\r\n\
                        content-length: 0\r\n\r\n";
        assert_eq!(scene.take(refused), Ok(answer(503, Some(7), true)));
        assert_eq!(scene.take(b"HTTP/1.1 408"), Err(FailureKind::Protocol));
    }

    #[test]
    fn connection_ends_with_a_body_of_unknown_length() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            let answers = Scene::new().take(head.as_bytes());
            assert_eq!(answers, Ok(answer(200, None, false)));
        }
    }

    #[test]
    fn invalid_responses_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(HEAD_LEN_MAX));
        for bytes in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 20x OK\r\n\r\n", &long] {
            let failure = Scene::new().take(bytes.as_bytes());
            assert_eq!(failure, Err(FailureKind::Protocol), "{bytes:.40}");
        }
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        for fields in [
            "Content-Length: 0\r\nContent-Length: 5\r\n",
            "Content-Length: 0, 5\r\n",
            "Content-Length: +0\r\n",
            "Content-Length: what\r\n",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let failure = Scene::new().take(head.as_bytes());
            assert_eq!(failure, Err(FailureKind::Protocol), "{fields}");
        }
        let taken = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: +7\r\n\r\n";
        assert_eq!(Scene::new().take(taken), Ok(answer(503, None, true)));
    }

    #[test]
    fn endless_interim_responses_are_refused() {
        let mut scene = Scene::new();
        scene
            .pipe
            .push(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000));
        let failure = scene.client.ready(&mut scene.scratch).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
    }
}
