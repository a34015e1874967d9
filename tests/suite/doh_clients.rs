//! Clients over HTTPS, through the whole program.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use dotproxy::session::http2::{Http2Connection, Http2Event, Http2Limits, RequestHead};
use nix::sys::signal::Signal;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::support::certificates::Authority;
use crate::support::faulty::{Fault, Faulty};
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, await_that, connect_from, free_port};

struct Scene {
    /// Trusts the certificate of the program, and keeps sessions.
    trust: Arc<ClientConfig>,
    https: SocketAddr,
    tls: SocketAddr,
    program: Program,
    server: Faulty,
}

impl Scene {
    fn new(label: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (https, tls) = (address(), address());
        let [certificate, key] = authority.server_files();
        let mut all = vec![
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            format!("--https-listen={https}"),
            format!("--tls-listen={tls}"),
            format!("--tls-cert={}", certificate.display()),
            format!("--tls-key={}", key.display()),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let program = Program::start(&all);
        program.await_log("(HTTPS)");
        Self {
            trust: authority.client(),
            https,
            tls,
            program,
            server,
        }
    }

    /// Connects from 127.0.0.`last`, and offers these protocols (ALPN).
    fn connect(&self, to: SocketAddr, alpn: &[&[u8]], last: u8) -> Tls {
        let mut config = ClientConfig::clone(&self.trust);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let connection = ClientConnection::new(Arc::new(config), to.ip().into());
        let stream = connect_from(Ipv4Addr::new(127, 0, 0, last), to);
        StreamOwned::new(connection.expect("a client"), stream)
    }

    fn client(&self, last: u8) -> DohClient {
        let head = RequestHead::new("https", "dns.example", "/dns-query", &[]);
        DohClient {
            tls: self.connect(self.https, &[b"h2"], last),
            http2: Http2Connection::client(Http2Limits::default(), head.expect("valid fields")),
            events: Vec::new(),
        }
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The last events of a client.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// The stream, the status and the content.
    Response(u32, u16, Vec<u8>),
    /// The stream was not processed.
    Refused(u32),
    GoAway(u32),
}

struct DohClient {
    tls: Tls,
    http2: Http2Connection,
    events: Vec<Event>,
}

impl DohClient {
    /// Queues a query. Returns its stream, unless the server allows no more.
    fn ask(&mut self, message: &[u8]) -> Option<u32> {
        let stream = self.http2.request(message).ok()?;
        Some(stream.get())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut output = Vec::new();
        self.http2.take_output(&mut output);
        self.tls.write_all(&output)?;
        self.tls.flush()
    }

    /// Sends what is queued and reads once. Returns the number of bytes.
    fn exchange(&mut self) -> std::io::Result<usize> {
        self.flush()?;
        let mut buffer = [0; 16_384];
        let len = self.tls.read(&mut buffer)?;
        let events = &mut self.events;
        let received = self.http2.receive(&buffer[..len], |event| match event {
            Http2Event::Response {
                stream,
                status,
                body,
                ..
            } => events.push(Event::Response(stream.get(), status, body.to_vec())),
            Http2Event::Refused { stream } => events.push(Event::Refused(stream.get())),
            Http2Event::GoAway { code, .. } => events.push(Event::GoAway(code)),
            other => panic!("{other:?}"),
        });
        received.expect("the server keeps to the protocol");
        Ok(len)
    }

    /// Reads until the next events.
    fn next(&mut self) -> Vec<Event> {
        while self.events.is_empty() {
            assert_ne!(self.exchange().expect("an open connection"), 0);
        }
        std::mem::take(&mut self.events)
    }

    /// Returns whether a query is answered.
    fn is_served(&mut self, id: u16) -> bool {
        let query = query(id, "www.example", 1, None);
        if self.ask(&query).is_none() {
            return false;
        }
        while self.events.is_empty() {
            if !self.exchange().is_ok_and(|len| len > 0) {
                return false;
            }
        }
        let events = std::mem::take(&mut self.events);
        matches!(&events[..], [Event::Response(_, 200, body)] if check_response(&query, body))
    }
}

#[test]
fn many_queries_are_answered_over_one_connection() {
    let scene = Scene::new("doh-many", &["--cache-size=0"]);
    let mut client = scene.client(1);
    let mut sent = HashMap::new();
    let (mut next, mut answered) = (0, 0);
    while answered < 1_000 {
        // The queries have the id 0, as RFC 8484 recommends.
        while next < 1_000 && sent.len() < 60 {
            let query = query(0, &format!("n{next}.example"), 1, Some(1232));
            let stream = client.ask(&query).expect("the server allows 64 streams");
            sent.insert(stream, query);
            next += 1;
        }
        for event in client.next() {
            let Event::Response(stream, 200, body) = event else {
                panic!("{event:?}");
            };
            let query = sent.remove(&stream).expect("one response for each query");
            assert!(check_response(&query, &body));
            answered += 1;
        }
    }
    assert!(scene.program.counters().contains(" https=1000 "));
}

#[test]
fn client_is_limited_like_others() {
    // No query ends before the check is complete.
    let scene = Scene::new("doh-limit", &["--timeout=60s"]);
    scene.server.plan(Fault::Silence, u64::MAX);
    let mut client = scene.client(1);
    // The client has not read the limit on streams yet.
    for id in 0..100 {
        let query = query(id, &format!("n{id}.example"), 1, None);
        client
            .ask(&query)
            .expect("the default of HTTP/2 is no limit");
    }
    client.flush().expect("the peer reads");
    let is_full = || scene.program.counters().contains(" https=64 ");
    await_that("a full share is read", is_full);
    scene.program.await_reading();
    assert!(is_full(), "{}", scene.program.log());
}

#[test]
fn shutdown_answers_pending_requests_and_sends_goaway() {
    let mut scene = Scene::new("doh-shutdown", &["--timeout=60s"]);
    let late = Duration::from_millis(500);
    scene.server.plan(Fault::AnswerLate(late), 1);
    let mut client = scene.client(1);
    let query = query(7, "www.example", 1, None);
    client.ask(&query).expect("a stream");
    client.flush().expect("the peer reads");
    await_that("the query is read", || {
        scene.program.counters().contains(" https=1 ")
    });
    scene.program.signal(Signal::SIGTERM);
    // GOAWAY comes at once, so that the client sends further queries elsewhere.
    assert_eq!(client.next(), [Event::GoAway(0)]);
    let mut events = client.next();
    while client.exchange().is_ok_and(|len| len > 0) {}
    events.append(&mut client.events);
    let [Event::Response(_, 200, body)] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(check_response(&query, body));
    assert_eq!(scene.program.wait(), Some(0));
}

#[test]
fn client_that_opens_its_window_during_the_shutdown_gets_its_response() {
    let mut scene = Scene::new("doh-window", &[]);
    let mut tls = scene.connect(scene.https, &[b"h2"], 1);
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let len = u32::try_from(payload.len())
            .expect("a short payload")
            .to_be_bytes();
        let head = [len[1], len[2], len[3], kind, flags];
        [&head[..], &stream.to_be_bytes(), payload].concat()
    };
    let mut block = b"\x83\x87\x04\x0a/dns-query\x01\x01a\x0f\x10\x17".to_vec();
    block.extend(b"application/dns-message");
    let query = query(1, "www.example", 1, None);
    let request = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        // INITIAL_WINDOW_SIZE 0.
        frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frame(1, 4, 1, &block),
        frame(0, 1, 1, &query),
    ];
    tls.write_all(&request.concat()).expect("the peer reads");
    let mut received = Vec::new();
    let mut read_until = |tls: &mut Tls, part: &[u8]| {
        let mut buffer = [0; 4096];
        while !received.windows(part.len()).any(|window| window == part) {
            let len = tls.read(&mut buffer).expect("an open connection");
            assert_ne!(len, 0, "the connection has ended");
            received.extend_from_slice(&buffer[..len]);
        }
    };
    read_until(&mut tls, b"max-age");
    scene.program.signal(Signal::SIGTERM);
    // GOAWAY with the last stream 1 and the code 0.
    read_until(&mut tls, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    tls.write_all(&frame(8, 0, 1, &[0, 0, 4, 0]))
        .expect("the peer reads");
    read_until(&mut tls, &query[12..]);
    assert_eq!(scene.program.wait(), Some(0));
}

#[test]
fn listeners_select_their_own_protocol() {
    let scene = Scene::new("doh-alpn", &[]);
    for (address, alpn, selected) in [
        (
            scene.https,
            &[&b"h2"[..], b"http/1.1"][..],
            Some(&b"h2"[..]),
        ),
        (scene.https, &[b"dot"], None),
        (scene.https, &[b"http/1.1"], None),
        (scene.tls, &[b"dot"], Some(b"dot")),
        (scene.tls, &[b"h2"], None),
    ] {
        let mut tls = scene.connect(address, alpn, 1);
        while tls.conn.is_handshaking() && tls.conn.complete_io(&mut tls.sock).is_ok() {}
        assert_eq!(tls.conn.alpn_protocol(), selected, "{alpn:?}");
        assert_eq!(tls.conn.is_handshaking(), selected.is_none());
    }
    // A client without ALPN that sends HTTP/1.1 gets a response that it understands.
    let mut tls = scene.connect(scene.https, &[], 1);
    tls.write_all(b"GET /dns-query?dns=AAAA HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the peer reads");
    let mut response = Vec::new();
    let _ = tls.read_to_end(&mut response);
    let response = String::from_utf8_lossy(&response);
    assert!(response.starts_with("HTTP/1.1 505 "), "{response}");
}

#[test]
fn session_of_a_client_is_resumed() {
    let scene = Scene::new("doh-resumed", &[]);
    let kinds = [0, 1].map(|id| {
        let mut client = scene.client(1);
        assert!(client.is_served(id));
        client.tls.conn.handshake_kind()
    });
    assert_ne!(kinds[0], Some(HandshakeKind::Resumed));
    assert_eq!(kinds[1], Some(HandshakeKind::Resumed));
}
