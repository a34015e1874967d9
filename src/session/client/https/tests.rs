use std::time::Duration;

use super::*;
use crate::base::time::Instant;
use crate::session::client::stream::{ClientStream, Taken};
use crate::session::testing::Pipe;
use crate::session::{Scratch, Step, Transport};

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A query for `a.` with the id 0x1234.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

/// The same query in base64url.
const QUERY_IN_BASE64: &str = "EjQBAAABAAAAAAAAAWEAAAEAAQ";

/// The output of the server.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A connection of a client, whose queries are answered on command.
struct Scene {
    pipe: Pipe,
    client: ClientStream<Pipe>,
    scratch: Scratch,
    limits: Limits,
    now: Instant,
    /// The queries that were handed over, and the times of their arrival in seconds.
    taken: Vec<(Vec<u8>, u64)>,
    has_room: bool,
    /// The bytes that were sent.
    output: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let scene = Self::before_preface();
        scene.pipe.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        scene.pipe.push(&frame(4, 0, 0, b""));
        scene
    }

    fn before_preface() -> Self {
        let pipe = Pipe::default();
        let peer = ([192, 0, 2, 1], 4711).into();
        let limits = Limits {
            tcp_client_inflight: 3,
            ..Limits::default()
        };
        let (transport, now) = (Transport::plain(pipe.clone()), Instant::default());
        Self {
            client: ClientStream::https(transport, peer, &limits, now),
            pipe,
            scratch: Scratch::new(),
            limits,
            now,
            taken: Vec::new(),
            has_room: true,
            output: Vec::new(),
        }
    }

    fn ready(&mut self) -> Result<Step, Failure> {
        self.now += Duration::from_secs(1);
        let (taken, has_room) = (&mut self.taken, self.has_room);
        let take = |message: &[u8], received_at: Instant| {
            taken.push((
                message.to_vec(),
                (received_at - Instant::default()).as_secs(),
            ));
            let is_query = message[2] & 0x80 == 0;
            Taken {
                is_query,
                is_owed: is_query,
                has_room,
            }
        };
        let step = self
            .client
            .ready(&mut self.scratch, &self.limits, self.now, take)?;
        self.flush();
        Ok(step)
    }

    fn flush(&mut self) {
        self.client.flush(&mut self.scratch, self.now).unwrap();
    }

    /// Sends a request without content.
    fn request(&self, stream: u32, method: &str, path: &str) {
        let block = head(method, path, &[]);
        let flags = END_HEADERS | END_STREAM;
        self.pipe.push(&frame(HEADERS, flags, stream, &block));
    }

    fn get(&self, stream: u32) {
        self.request(stream, "GET", &format!("/dns-query?dns={QUERY_IN_BASE64}"));
    }

    fn post(&self, stream: u32, content_type: &str, body: &[u8]) {
        let block = head("POST", "/dns-query", &[("content-type", content_type)]);
        self.pipe.push(&frame(HEADERS, END_HEADERS, stream, &block));
        self.pipe.push(&frame(DATA, END_STREAM, stream, body));
    }

    /// Answers the query that was handed over as the `nth`.
    fn answer(&mut self, nth: usize, tail: &[u8]) -> bool {
        let response = [&self.taken[nth].0[..2], tail].concat();
        let (scratch, limits) = (&mut self.scratch, &self.limits);
        let is_sent = self.client.send(&response, scratch, limits, self.now);
        self.flush();
        is_sent
    }

    /// Returns the frames that were sent, except SETTINGS and `WINDOW_UPDATE`.
    fn sent(&mut self) -> Vec<Frame> {
        self.output.extend(self.pipe.sent());
        let (mut rest, mut frames) = (&self.output[..], Vec::new());
        while let Some((head, tail)) = rest.split_at_checked(9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (payload, tail) = tail.split_at(usize::try_from(len).unwrap());
            frames.push(Frame {
                kind: head[3],
                stream: u32::from_be_bytes(head[5..9].try_into().unwrap()),
                payload: payload.to_vec(),
            });
            rest = tail;
        }
        frames.retain(|frame| ![4, 8].contains(&frame.kind));
        frames
    }

    /// Closes the connection. Returns the types and the streams of all frames that were sent.
    fn close(&mut self) -> Vec<(u8, u32)> {
        self.client.close(&mut self.scratch);
        let sent = self.sent().into_iter();
        sent.map(|frame| (frame.kind, frame.stream)).collect()
    }

    /// Returns the status code, the other fields and the content of each response, in the order of
    /// the heads.
    fn responses(&mut self) -> Vec<(u32, String, Vec<u8>)> {
        let frames = self.sent();
        let heads = frames.iter().filter(|frame| frame.kind == HEADERS);
        let response = |head: &Frame| {
            let fields = match head.payload.split_first() {
                Some((0x88, rest)) => format!("200{}", String::from_utf8_lossy(rest)),
                _ => String::from_utf8_lossy(&head.payload).into_owned(),
            };
            let data = frames.iter();
            let data = data.filter(|one| one.kind == DATA && one.stream == head.stream);
            let body = data.flat_map(|one| one.payload.clone()).collect();
            (head.stream, fields, body)
        };
        heads.map(response).collect()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [
        &[l0, l1, l2, kind, flags][..],
        &stream.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// Returns a header block of literals.
fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [
        (":method", method),
        (":scheme", "https"),
        (":path", path),
        (":authority", "dns.example"),
    ];
    let mut block = Vec::new();
    for (name, value) in pseudo.iter().chain(fields) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The part of a response after the id, with one answer with this TTL in seconds.
fn answer_tail(ttl: u32) -> Vec<u8> {
    [
        b"\x81\x80\0\x01\0\x01\0\0\0\0\x01a\0\0\x01\0\x01",
        &b"\xc0\x0c\0\x01\0\x01"[..],
        &ttl.to_be_bytes(),
        b"\0\x04\xc0\0\x02\x01",
    ]
    .concat()
}

#[test]
fn get_and_post_are_answered_with_the_id_and_the_ttl() {
    let mut scene = Scene::new();
    scene.get(1);
    scene.post(3, "application/dns-message", QUERY);
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert_eq!(scene.taken.len(), 2);
    assert_ne!(scene.taken[0].0[..2], scene.taken[1].0[..2]);
    for (message, _) in &scene.taken {
        assert_eq!(message[2..], QUERY[2..]);
    }
    // The later query is answered first.
    assert!(scene.answer(1, &answer_tail(300)));
    assert!(scene.answer(0, &answer_tail(7)));
    let responses = scene.responses();
    for ((stream, fields, body), (expected, ttl)) in responses.iter().zip([(3, 300), (1, 7)]) {
        assert_eq!(*stream, expected);
        assert_eq!(*body, [&b"\x12\x34"[..], &answer_tail(ttl)].concat());
        assert!(fields.starts_with("200"), "{fields}");
        assert!(fields.contains("application/dns-message"), "{fields}");
        assert!(fields.ends_with(&format!("max-age={ttl}")), "{fields}");
    }
    assert_eq!(responses.len(), 2);
    assert!(scene.client.is_quiet());
}

#[test]
fn head_has_no_content_and_padding_of_base64_is_accepted() {
    let mut scene = Scene::new();
    let (first, rest) = QUERY_IN_BASE64.split_at(1);
    assert_eq!(first, "E");
    let path = format!("/dns-query?a=b&dns=%45{rest}%3D=&c");
    scene.request(1, "HEAD", &path);
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert!(scene.answer(0, &answer_tail(7)));
    let responses = scene.responses();
    assert!(responses[0].1.starts_with("200") && responses[0].2.is_empty());
}

#[test]
fn requests_without_a_query_have_the_status_of_their_error() {
    let query = format!("/dns-query?dns={QUERY_IN_BASE64}");
    for (status, method, path) in [
        ("404", "GET", "/"),
        ("404", "GET", &query.replace("query", "queries")),
        ("404", "OPTIONS", "*"),
        ("400", "GET", "/dns-query"),
        ("400", "GET", "/dns-query?dns="),
        ("400", "GET", "/dns-query?dns=EjQ"),
        ("400", "GET", "/dns-query?dns=E+/="),
        ("400", "GET", "/dns-query?dns=%4"),
        ("400", "GET", "/dns-query?dns=%zzAA"),
        ("400", "GET", &format!("/dns-query?xdns={QUERY_IN_BASE64}")),
        ("405", "PUT", &query),
        ("405", "get", &query),
    ] {
        let mut scene = Scene::new();
        scene.request(1, method, path);
        assert_eq!(scene.ready(), Ok(Step::Drained));
        let (_, fields, body) = scene.responses().remove(0);
        assert!(fields.contains(status), "{method} {path}: {fields}");
        assert!(fields.contains("text/plain") && body.ends_with(b"\n"));
        assert_eq!(fields.contains("GET, HEAD, POST"), status == "405");
        assert!(scene.taken.is_empty() && scene.client.is_quiet());
    }
}

#[test]
fn content_that_is_no_query_has_the_status_of_its_error() {
    let mut reply = QUERY.to_vec();
    reply[2] |= 0x80;
    for (status, content_type, body) in [
        ("415", "text/plain", QUERY),
        ("400", "application/dns-message", b""),
        ("400", "application/dns-message", &QUERY[..11]),
        ("400", "application/dns-message", &reply),
    ] {
        let mut scene = Scene::new();
        scene.post(1, content_type, body);
        assert_eq!(scene.ready(), Ok(Step::Drained));
        let (_, fields, _) = scene.responses().remove(0);
        assert!(fields.contains(status), "{content_type}: {fields}");
        assert!(scene.client.is_quiet());
    }
    let mut scene = Scene::new();
    let fields = [
        ("content-type", "application/dns-message"),
        ("content-length", "65536"),
    ];
    let block = head("POST", "/dns-query", &fields);
    scene.pipe.push(&frame(HEADERS, END_HEADERS, 1, &block));
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert!(scene.responses()[0].1.contains("413"));
}

#[test]
fn full_proxy_leaves_requests_for_later() {
    let mut scene = Scene::new();
    scene.has_room = false;
    (0..3).for_each(|nth| scene.get(2 * nth + 1));
    assert_eq!(scene.ready(), Ok(Step::Full));
    assert_eq!(scene.taken.len(), 1);
    assert_eq!(scene.ready(), Ok(Step::Full));
    assert!(scene.client.account().1 > 2 * QUERY.len());
    scene.has_room = true;
    assert_eq!(scene.ready(), Ok(Step::Full));
    let received_at: Vec<_> = scene.taken.iter().map(|taken| taken.1).collect();
    assert_eq!(received_at, [1, 1, 1]);
    for nth in 0..3 {
        assert!(scene.answer(nth, &answer_tail(7)));
    }
    let streams = scene.responses().into_iter().map(|response| response.0);
    assert_eq!(streams.collect::<Vec<_>>(), [1, 3, 5]);
}

#[test]
fn requests_above_the_limit_are_refused_and_can_be_repeated() {
    let mut scene = Scene::new();
    (0..4).for_each(|nth| scene.get(2 * nth + 1));
    assert_eq!(scene.ready(), Ok(Step::Full));
    assert_eq!(scene.taken.len(), 3);
    let refused = Frame {
        kind: RST_STREAM,
        stream: 7,
        payload: vec![0, 0, 0, 7],
    };
    assert_eq!(scene.sent(), [refused]);
    assert!(scene.answer(0, &answer_tail(7)));
    scene.get(9);
    assert_eq!(scene.ready(), Ok(Step::Full));
    assert_eq!(scene.taken.len(), 4);
}

#[test]
fn client_that_resets_its_requests_gets_no_more_room() {
    let mut scene = Scene::new();
    for nth in 0..4 {
        scene.get(2 * nth + 1);
        let cancel = frame(RST_STREAM, 0, 2 * nth + 1, &[0, 0, 0, 8]);
        scene.pipe.push(&cancel);
        let _ = scene.ready();
    }
    assert_eq!(scene.taken.len(), 3);
    assert!(!scene.client.is_quiet());
    for nth in 0..3 {
        assert!(scene.answer(nth, &answer_tail(7)));
    }
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert_eq!(scene.taken.len(), 4);
    assert!(!scene.client.is_quiet());
    assert!(scene.answer(3, &answer_tail(7)));
    assert!(scene.client.is_quiet());
    assert!(scene.sent().is_empty());
}

#[test]
fn kept_request_that_is_reset_is_dropped() {
    let mut scene = Scene::new();
    scene.has_room = false;
    (0..3).for_each(|nth| scene.get(2 * nth + 1));
    scene.pipe.push(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
    assert_eq!(scene.ready(), Ok(Step::Full));
    scene.has_room = true;
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert_eq!(scene.taken.len(), 2);
}

#[test]
fn client_without_http2_gets_a_clear_response() {
    let mut scene = Scene::before_preface();
    scene.pipe.push(b"GET /dns-query?dns=AAAA HTTP/1.1\r\n\r\n");
    let failure = scene.ready().unwrap_err();
    assert_eq!(
        failure.to_string(),
        "HTTP/2 failed: the client does not use it"
    );
    let sent = String::from_utf8(scene.pipe.sent()).unwrap();
    let (head, text) = sent.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"));
    assert!(head.contains(&format!("content-length: {}\r\n", text.len())));
}

#[test]
fn error_of_http2_ends_the_connection_with_goaway() {
    let mut scene = Scene::new();
    scene.pipe.push(&frame(HEADERS, END_HEADERS, 2, &[0x82]));
    assert!(scene.ready().is_err());
    assert_eq!(scene.sent().last().unwrap().kind, GOAWAY);
}

#[test]
fn closed_connection_ends_with_goaway() {
    let mut scene = Scene::new();
    scene.get(1);
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert!(scene.answer(0, &answer_tail(7)));
    scene.client.close(&mut scene.scratch);
    let goaway = scene.sent().pop().unwrap();
    assert_eq!((goaway.kind, goaway.stream), (GOAWAY, 0));
    assert_eq!(goaway.payload, [0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn requests_that_are_not_handed_over_before_the_end_are_refused() {
    let mut scene = Scene::new();
    scene.has_room = false;
    (0..3).for_each(|nth| scene.get(2 * nth + 1));
    assert_eq!(scene.ready(), Ok(Step::Full));
    let sent = scene.close();
    assert_eq!(sent, [(GOAWAY, 0), (RST_STREAM, 3), (RST_STREAM, 5)]);
    assert_eq!(scene.sent()[1].payload, [0, 0, 0, 7]);
}

#[test]
fn incomplete_request_is_refused_at_the_end() {
    let mut scene = Scene::new();
    let block = head("POST", "/dns-query", &[]);
    scene.pipe.push(&frame(HEADERS, END_HEADERS, 1, &block));
    assert_eq!(scene.ready(), Ok(Step::Drained));
    let sent = scene.close();
    assert_eq!(sent, [(GOAWAY, 0), (RST_STREAM, 1)]);
    assert_eq!(scene.sent()[1].payload, [0, 0, 0, 7]);
}

#[test]
fn requests_of_further_pieces_are_kept() {
    let limits = Limits::default();
    let mut requests = HttpsRequests::new(&limits);
    let block = head("GET", &format!("/dns-query?dns={QUERY_IN_BASE64}"), &[]);
    let flags = END_HEADERS | END_STREAM;
    requests.keep(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    requests.keep(&frame(4, 0, 0, b""));
    requests.keep(&frame(HEADERS, flags, 1, &block));
    let mut taken = 0;
    let flow = requests.feed(&frame(HEADERS, flags, 3, &block), &mut |message| {
        taken += 1;
        assert_eq!(message.map(<[u8]>::len), Some(QUERY.len()));
        HandedOver {
            is_owed: true,
            flow: ControlFlow::Continue(()),
        }
    });
    assert_eq!((taken, flow), (2, ControlFlow::Continue(())));
    // After 65,536 queries the first id is used again, unless its query is still pending.
    requests.queries.next_id = requests.queries.pending[0].id;
    let _ = requests.feed(&frame(HEADERS, flags, 5, &block), &mut |_| HandedOver {
        is_owed: true,
        flow: ControlFlow::Continue(()),
    });
    let ids: Vec<_> = requests
        .queries
        .pending
        .iter()
        .map(|query| query.id)
        .collect();
    assert!(ids[2] != ids[0] && ids[2] != ids[1], "{ids:?}");
}

#[test]
fn consecutive_requests_without_a_query_end_the_connection() {
    let mut scene = Scene::new();
    let most = scene.limits.tcp_client_unasked_messages;
    for nth in 0..most {
        scene.request(u32::try_from(2 * nth + 1).unwrap(), "GET", "/");
        assert!(!scene.client.is_over());
        let _ = scene.ready();
    }
    assert!(scene.client.is_over());
    assert_eq!(scene.responses().len(), most);
    assert_eq!(scene.sent().last().unwrap().kind, GOAWAY);
}

#[test]
fn response_waits_for_the_window_of_the_client() {
    let mut scene = Scene::before_preface();
    scene.pipe.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // INITIAL_WINDOW_SIZE 10.
    scene.pipe.push(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 10]));
    scene.get(1);
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert!(scene.answer(0, &answer_tail(7)));
    assert_eq!(scene.responses()[0].2.len(), 10);
    assert!(!scene.client.is_quiet() && !scene.client.is_over());
    let waiting_at = scene.client.last_active();
    // A client that sends only control frames is not active.
    scene.pipe.push(&frame(6, 0, 0, &[0; 8]));
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert_eq!(scene.client.last_active(), waiting_at);
    scene.pipe.push(&frame(8, 0, 1, &[0, 0, 0, 90]));
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert_eq!(scene.responses()[0].2.len(), 2 + answer_tail(7).len());
    assert!(scene.client.last_active() > waiting_at);
    assert!(scene.client.is_quiet());
}

#[test]
fn client_that_reads_nothing_is_closed() {
    let mut scene = Scene::new();
    scene.limits.tcp_client_unsent = 100;
    scene.client = ClientStream::https(
        Transport::plain(scene.pipe.clone()),
        ([192, 0, 2, 1], 4711).into(),
        &scene.limits,
        scene.now,
    );
    scene.get(1);
    assert_eq!(scene.ready(), Ok(Step::Drained));
    assert!(!scene.answer(0, &[0; 200]));
}

#[test]
fn max_age_is_the_smallest_ttl_or_the_negative_ttl() {
    let message = |flags: &[u8; 2], records: &[&[u8]; 2]| {
        let count = |section: &[u8]| u8::from(!section.is_empty());
        let counts = [0, 1, 0, count(records[0]), 0, count(records[1]), 0, 0];
        [
            b"\0\0",
            &flags[..],
            &counts,
            b"\x01a\0\0\x01\0\x01",
            records[0],
            records[1],
        ]
        .concat()
    };
    let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x01";
    let soa = |ttl: u8, minimum: u8| {
        let mut soa = b"\0\0\x06\0\x01\0\0\0\0\0\x16\0\0".to_vec();
        soa[8] = ttl;
        soa.extend([0; 19]);
        soa.push(minimum);
        soa
    };
    let (no_error, no_name, failed) = (b"\x81\x80", b"\x81\x83", b"\x81\x82");
    let age = |flags: &[u8; 2], records: &[&[u8]; 2]| max_age(&message(flags, records));
    assert_eq!(age(no_error, &[address, b""]), 9);
    assert_eq!(age(no_error, &[b"", &soa(50, 40)]), 40);
    assert_eq!(age(no_name, &[b"", &soa(30, 40)]), 30);
    assert_eq!(age(no_name, &[address, &soa(50, 40)]), 9);
    assert_eq!(age(no_error, &[b"", b""]), 0);
    assert_eq!(age(failed, &[address, b""]), 0);
    assert_eq!(max_age(b"\0"), 0);
}
