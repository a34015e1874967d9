//! Tests of connections: frames in, events and frames out.

mod client;
mod floods;
mod flow;
mod pair;
mod server;

use super::frame::{ACK, END_HEADERS, END_STREAM, FrameHead, FrameKind, PADDED, PREFACE, PRIORITY};
use super::*;

/// The fields `:method: POST`, `:scheme: https`, `:path: /`, `:authority: a` and the type of DNS
/// messages.
const POST: &[u8] = b"\x83\x87\x84\x01\x01a\x0f\x10\x17application/dns-message";
/// The same fields of a GET request, without a type.
const GET: &[u8] = b"\x82\x87\x84\x01\x01a";
/// The fields `:status: 200` and the type of DNS messages.
const OK: &[u8] = b"\x88\x0f\x10\x17application/dns-message";

const LAST: u8 = END_HEADERS | END_STREAM;

/// Returns a frame.
fn frame(kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut bytes = Vec::new();
    FrameHead {
        len,
        kind,
        flags,
        stream,
    }
    .write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(FrameKind::Data, flags, stream, payload)
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(FrameKind::Headers, flags, stream, block)
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(FrameKind::Settings, 0, 0, &payload)
}

fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(FrameKind::RstStream, 0, stream, &code.to_be_bytes())
}

fn window_update(stream: u32, len: u32) -> Vec<u8> {
    frame(FrameKind::WindowUpdate, 0, stream, &len.to_be_bytes())
}

fn go_away(last_stream: u32, code: u32) -> Vec<u8> {
    let payload = [last_stream.to_be_bytes(), code.to_be_bytes()].concat();
    frame(FrameKind::GoAway, 0, 0, &payload)
}

/// Returns a field as a literal without indexing.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let len = |text: &str| u8::try_from(text.len()).expect("a short text");
    let mut bytes = vec![0, len(name)];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(len(value));
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// Returns the frames in the output as text, without settings, acknowledgements of settings and the
/// client's preface.
fn frames(output: &[u8]) -> Vec<String> {
    let mut bytes = output.strip_prefix(PREFACE).unwrap_or(output);
    let mut frames = Vec::new();
    while let Some(head) = FrameHead::parse(bytes) {
        let payload = &bytes[9..9 + head.len];
        bytes = &bytes[9 + head.len..];
        let number = |at: usize| {
            let number = payload[at..].first_chunk().expect("a whole payload");
            u32::from_be_bytes(*number)
        };
        let end = if head.has(END_STREAM) { " end" } else { "" };
        let stream = head.stream;
        frames.push(match head.kind {
            FrameKind::Settings => continue,
            FrameKind::Data => format!("data {stream} {}{end}", head.len),
            FrameKind::Headers => format!("headers {stream}{end}"),
            FrameKind::RstStream => format!("reset {stream} {}", number(0)),
            FrameKind::WindowUpdate => format!("window {stream} {}", number(0)),
            FrameKind::GoAway => format!("goaway {} {}", number(0), number(4)),
            FrameKind::Ping if head.has(ACK) => "pong".to_owned(),
            kind => format!("{kind:?}"),
        });
    }
    assert!(bytes.is_empty(), "the output ends with a whole frame");
    frames
}

fn text(event: Http2Event<'_>) -> String {
    let content = |body: &[u8]| match body.len() {
        0..=9 => String::from_utf8_lossy(body).into_owned(),
        len => len.to_string(),
    };
    match event {
        Http2Event::Request {
            stream,
            fields,
            body,
        } => {
            let RequestFields {
                method,
                is_dns_message,
                is_too_long,
                ..
            } = fields;
            let mark = if *is_too_long { " too long" } else { "" };
            let dns = if *is_dns_message { " dns" } else { "" };
            let (id, path, body) = (stream.get(), fields.path(), content(body));
            format!("{method:?} {id} {path}{dns}{mark} {body}")
        }
        Http2Event::Reset { stream } => format!("reset {}", stream.get()),
        Http2Event::Response {
            stream,
            status,
            is_dns_message,
            body,
        } => {
            let dns = if is_dns_message { " dns" } else { "" };
            format!("{status} {}{dns} {}", stream.get(), content(body))
        }
        Http2Event::Refused { stream } => format!("refused {}", stream.get()),
        Http2Event::Failed { stream } => format!("failed {}", stream.get()),
        Http2Event::GoAway { last_stream, code } => format!("goaway {last_stream} {code}"),
    }
}

/// A connection with a scripted peer.
struct TestEnd {
    connection: Http2Connection,
    events: Vec<String>,
}

impl TestEnd {
    /// Returns a server whose client has sent its preface and settings.
    fn server(limits: Http2Limits) -> Self {
        let mut end = Self::new(Http2Connection::server(limits));
        end.receive_all(&[PREFACE.to_vec(), settings(&[])]);
        end.output();
        end
    }

    /// Returns a client whose server has sent its settings.
    fn client(limits: Http2Limits) -> Self {
        let mut end = Self::new(Http2Connection::client(limits, request_head()));
        end.receive_all(&[settings(&[])]);
        end.output();
        end
    }

    /// Returns a client that has sent a number of requests with the body `abc`.
    fn client_with_requests(number: usize) -> Self {
        Self::client_with(number, Http2Limits::default())
    }

    fn client_with(number: usize, limits: Http2Limits) -> Self {
        let mut end = Self::client(limits);
        for _ in 0..number {
            end.request(b"abc").expect("room for a request");
        }
        end.output();
        end
    }

    fn new(connection: Http2Connection) -> Self {
        let events = Vec::new();
        Self { connection, events }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        let on_event = |event: Http2Event<'_>| self.events.push(text(event));
        let result = self.connection.receive(bytes, on_event);
        result.map_err(|error| error.code)
    }

    fn receive_all(&mut self, frames: &[Vec<u8>]) {
        assert_eq!(self.receive(&frames.concat()), Ok(()));
    }

    fn request(&mut self, body: &[u8]) -> Result<StreamId, NotSent> {
        self.connection.request(body)
    }

    fn respond(&mut self, stream: u32, body: &[u8]) -> Result<(), NotSent> {
        self.connection.respond(StreamId(stream), &ok_head(), body)
    }

    /// Returns the new events.
    fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// Returns the new frames in the output.
    fn output(&mut self) -> Vec<String> {
        let mut output = Vec::new();
        self.connection.take_output(&mut output);
        frames(&output)
    }
}

fn request_head() -> RequestHead {
    RequestHead::new("https", "dns.example", "/dns-query", &[]).expect("a valid head")
}

fn ok_head() -> ResponseHead<'static> {
    ResponseHead {
        status: 200,
        content_type: Some("application/dns-message"),
        max_age_s: Some(3600),
        allow: None,
    }
}

/// Checks that a connection ends with an error after the frames.
fn assert_ends(mut end: TestEnd, frames: &[Vec<u8>], code: ErrorCode) {
    let result = end.receive(&frames.concat());
    assert_eq!(result, Err(code), "{frames:?}");
    let output = end.output();
    let expected = format!(" {}", code as u32);
    let last = output.last().expect("a frame");
    assert!(
        last.starts_with("goaway") && last.ends_with(&expected),
        "{output:?}"
    );
    assert_eq!(end.receive(b""), Err(code));
    assert_eq!(end.output(), [""; 0]);
    assert!(end.connection.open_streams() == 0 && end.connection.allocated_len() == 0);
}

/// Checks the events and the output after the frames.
fn assert_output(mut end: TestEnd, input: &[Vec<u8>], events: &[&str], output: &[&str]) {
    assert_eq!(end.receive(&input.concat()), Ok(()), "{input:?}");
    assert_eq!(end.events(), events, "{input:?}");
    assert_eq!(end.output(), output, "{input:?}");
}
