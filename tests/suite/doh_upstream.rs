//! Upstreams over HTTPS, in front of a server that uses HTTP/2 in unusual ways.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dotproxy::session::http2::{
    Http2Connection, Http2Event, Http2Limits, Http2Method, ResponseHead, StreamId,
};
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::certificates::{Authority, Flaw};
use crate::support::messages::{check_response, query, reply};
use crate::support::program::{PATIENCE, Program, datagrams_from};

/// The behaviour of a server.
#[derive(Clone, Copy)]
struct Plan {
    /// The number of responses before GOAWAY.
    responses_max: usize,
    /// GOAWAY leaves the requests that have no response yet unprocessed, by closing the connection.
    cuts_off: bool,
    streams_max: u32,
    /// The first request of each name that has a 3 is reset.
    resets: bool,
    status: u16,
    content_type: &'static str,
    /// The response has another question.
    is_for_other: bool,
    /// The maximum number of bytes of a write, and of a TLS record.
    piece_len: usize,
    alpn: Option<&'static [u8]>,
}

const GOOD: Plan = Plan {
    responses_max: usize::MAX,
    cuts_off: false,
    streams_max: 100,
    resets: false,
    status: 200,
    content_type: "application/dns-message",
    is_for_other: false,
    piece_len: usize::MAX,
    alpn: Some(b"h2"),
};

/// A server of DNS over HTTPS.
struct DohServer {
    address: SocketAddr,
    authority: Arc<Authority>,
    connections: Arc<AtomicUsize>,
    /// The paths, authorities and ids of the requests.
    requests: Arc<Mutex<Vec<(String, String, u16)>>>,
}

impl DohServer {
    fn start(plan: Plan) -> Self {
        let authority = Arc::new(Authority::new("doh"));
        let mut config = Arc::unwrap_or_clone(authority.server(Flaw::None, &[&TLS13]));
        config.alpn_protocols = plan.alpn.into_iter().map(<[u8]>::to_vec).collect();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("the listener has an address"),
            authority,
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (server.connections.clone(), server.requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::Relaxed);
                let (config, requests) = (Arc::clone(&config), Arc::clone(&requests));
                thread::spawn(move || serve(stream, config, plan, &requests));
            }
        });
        server
    }

    fn upstream(&self) -> [String; 2] {
        [
            format!("--upstream=https://{}/q?a=b", self.address),
            format!("--ca-file={}", self.authority.ca_file.display()),
        ]
    }

    fn requests(&self) -> usize {
        self.requests.lock().expect("no thread has panicked").len()
    }
}

type Requests = Mutex<Vec<(String, String, u16)>>;

/// Serves a connection until it ends.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, plan: Plan, requests: &Requests) {
    stream.set_nodelay(true).expect("a TCP socket");
    let tls = ServerConnection::new(config).expect("a server connection is created");
    let mut tls = StreamOwned::new(tls, stream);
    let limits = Http2Limits {
        streams_max: plan.streams_max,
        ..Http2Limits::default()
    };
    let mut http2 = Http2Connection::server(limits);
    let mut asked: Vec<(StreamId, Vec<u8>)> = Vec::new();
    // A retry uses the same connection.
    let mut seen = HashSet::new();
    let mut buffer = [0; 16_384];
    let mut responses = 0;
    loop {
        let mut output = Vec::new();
        http2.take_output(&mut output);
        for piece in output.chunks(plan.piece_len) {
            if tls.write_all(piece).and_then(|()| tls.flush()).is_err() {
                return;
            }
        }
        if http2.is_ending() && (http2.open_streams() == 0 || plan.cuts_off) {
            tls.conn.send_close_notify();
            let _ = tls.flush();
            return;
        }
        let len = match tls.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => len,
        };
        let received = http2.receive(&buffer[..len], |event| {
            if let Http2Event::Request {
                stream,
                fields,
                body,
            } = event
            {
                assert!(fields.method == Http2Method::Post && fields.is_dns_message);
                let id = u16::from_be_bytes([body[0], body[1]]);
                let request = (fields.path().to_owned(), fields.authority().to_owned(), id);
                requests
                    .lock()
                    .expect("no thread has panicked")
                    .push(request);
                asked.push((stream, body.to_vec()));
            }
        });
        assert_eq!(received, Ok(()));
        // The last request of a read is answered first.
        for (stream, query) in std::mem::take(&mut asked).into_iter().rev() {
            let name = &query[12..];
            if plan.resets && name[..8].contains(&b'3') && seen.insert(name.to_vec()) {
                http2.cancel(stream);
                continue;
            }
            if responses == plan.responses_max {
                http2.shut_down();
                if plan.cuts_off {
                    break;
                }
            }
            responses += 1;
            let head = ResponseHead {
                status: plan.status,
                content_type: Some(plan.content_type),
                max_age_s: None,
                allow: None,
            };
            let mut content = reply(&query, 1);
            if plan.is_for_other {
                content[13] ^= 1;
            }
            let sent = http2.respond(stream, &head, &content);
            assert_eq!(sent, Ok(()));
        }
    }
}

/// Sends queries from one client, a number of them at once. Returns the number of good answers, and
/// of other responses.
fn ask(program: &Program, count: u16, at_once: usize) -> (usize, usize) {
    let socket: UdpSocket = datagrams_from(Ipv4Addr::LOCALHOST, PATIENCE);
    socket.connect(program.address).expect("a UDP socket");
    let (mut next, mut good, mut bad) = (0, 0, 0);
    let mut pending: Vec<Vec<u8>> = Vec::new();
    let mut buffer = [0; 4096];
    while good + bad < usize::from(count) {
        while next < count && pending.len() < at_once {
            let query = query(next, &format!("n{next}.example"), 1, Some(1232));
            socket.send(&query).expect("the program listens");
            pending.push(query);
            next += 1;
        }
        let len = socket
            .recv(&mut buffer)
            .expect("every query has a response");
        let response = &buffer[..len];
        let place = pending.iter().position(|query| query[..2] == response[..2]);
        let query = pending.swap_remove(place.expect("a response to one of the queries"));
        if check_response(&query, response) && response[3].is_multiple_of(16) {
            good += 1;
        } else {
            bad += 1;
        }
    }
    (good, bad)
}

fn start(server: &DohServer, more: &[&str]) -> Program {
    let mut arguments = server.upstream().to_vec();
    arguments.extend(more.iter().map(ToString::to_string));
    let program = Program::start(&arguments);
    program.await_log(": connected in ");
    program
}

#[test]
fn requests_have_the_path_and_the_id_zero() {
    let server = DohServer::start(GOOD);
    let program = start(&server, &[]);
    assert_eq!(ask(&program, 20, 5), (20, 0));
    let requests = server.requests.lock().expect("no thread has panicked");
    let expected = ("/q?a=b".to_owned(), server.address.to_string(), 0);
    assert!(
        requests.iter().all(|request| *request == expected),
        "{requests:?}"
    );
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn unusual_servers_answer_every_query() {
    for (label, plan) in [
        (
            "GOAWAY after 10 responses",
            Plan {
                responses_max: 10,
                ..GOOD
            },
        ),
        (
            "close with unprocessed requests",
            Plan {
                responses_max: 10,
                cuts_off: true,
                ..GOOD
            },
        ),
        (
            "3 streams",
            Plan {
                streams_max: 3,
                ..GOOD
            },
        ),
        (
            "1 stream",
            Plan {
                streams_max: 1,
                ..GOOD
            },
        ),
        (
            "one request of 7 is reset",
            Plan {
                resets: true,
                ..GOOD
            },
        ),
        (
            "frames byte by byte",
            Plan {
                piece_len: 1,
                ..GOOD
            },
        ),
    ] {
        let server = DohServer::start(plan);
        let program = start(&server, &[]);
        assert_eq!(
            ask(&program, 200, 20),
            (200, 0),
            "{label}\n{}",
            program.log()
        );
    }
}

#[test]
fn error_of_one_upstream_is_answered_by_another() {
    for (plan, warning) in [
        (
            Plan {
                status: 404,
                ..GOOD
            },
            "HTTP status 404: check the path of the URL",
        ),
        (
            Plan {
                status: 503,
                ..GOOD
            },
            "HTTP status 503",
        ),
        (
            Plan {
                content_type: "text/html",
                ..GOOD
            },
            "HTTP status 200: the body is not application/dns-message",
        ),
    ] {
        let bad = DohServer::start(plan);
        let program = start(&bad, &[]);
        assert_eq!(ask(&program, 3, 1), (0, 3));
        program.await_log(warning);
        // The client gets the reason as well (RFC 8914).
        let response = program.ask(&query(1, "other.example", 1, Some(1232)));
        let response = response.expect("a response");
        let text = format!("HTTP status {} without a DNS message", plan.status);
        let is_text = |part: &[u8]| part == text.as_bytes();
        assert!(response.windows(text.len()).any(is_text), "{response:?}");
        let good = DohServer::start(GOOD);
        let both = good.authority.ca_file.with_extension("both");
        let read = |server: &DohServer| {
            std::fs::read_to_string(&server.authority.ca_file).expect("the CA file exists")
        };
        std::fs::write(&both, read(&bad) + &read(&good)).expect("the folder is writable");
        let program = Program::start(&[
            bad.upstream()[0].clone(),
            good.upstream()[0].clone(),
            format!("--ca-file={}", both.display()),
            "--policy=ordered".to_owned(),
        ]);
        assert_eq!(ask(&program, 50, 5), (50, 0));
        assert!(good.requests() >= 50);
    }
}

#[test]
fn answer_to_another_question_fails_at_once() {
    let server = DohServer::start(Plan {
        is_for_other: true,
        ..GOOD
    });
    // The stream has ended, so there is nothing to wait for.
    let program = start(&server, &["--timeout=1h"]);
    assert_eq!(ask(&program, 1, 1), (0, 1));
}

#[test]
fn server_without_http2_is_refused() {
    for alpn in [None, Some(&b"http/1.1"[..])] {
        let server = DohServer::start(Plan { alpn, ..GOOD });
        let program = Program::start(&server.upstream());
        assert_eq!(ask(&program, 1, 1), (0, 1));
        program.await_log("does not offer HTTP/2 (ALPN)");
        assert_eq!(server.requests(), 0);
    }
}

#[test]
fn port_853_is_blocked_and_443_is_not() {
    let server = DohServer::start(GOOD);
    // A listener whose queue is full drops the segments of further connections.
    let blocked = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = blocked.local_addr().expect("the listener has an address");
    let fill = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
    let mut held = Vec::new();
    while let Ok(stream) = fill() {
        held.push(stream);
    }
    let [upstream, ca_file] = server.upstream();
    let program = Program::start(&[format!("--upstream={address}"), upstream, ca_file]);
    let start = Instant::now();
    assert_eq!(ask(&program, 100, 10), (100, 0));
    assert!(start.elapsed() < PATIENCE);
    let error = fill().map_err(|error| error.kind()).err();
    assert_eq!(error, Some(ErrorKind::TimedOut), "the port is blocked");
}
