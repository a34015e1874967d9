//! Collectors of traces that disconnect, are busy or do not read.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::certificates::Authority;
use crate::support::faulty::Faulty;
use crate::support::messages::{check_response, query};
use crate::support::program::{
    PATIENCE, Program, await_that, connect_from, free_port, listen_again,
};

struct Scene {
    _server: Faulty,
    program: Program,
    collector: SocketAddr,
    http: SocketAddr,
}

impl Scene {
    fn new(label: &str) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let collector = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let program = Program::start(&[
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            "--cache-size=1m".to_owned(),
            format!("--otlp=http://{collector}"),
            "--trace-sample=1".to_owned(),
            format!("--http-listen={http}"),
        ]);
        program.await_log("(HTTP)");
        Self {
            _server: server,
            program,
            collector,
            http,
        }
    }

    fn ask(&self, id: u16) {
        let query = query(id, "www.example", 1, None);
        let response = self.program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }

    fn listen(&self) -> TcpListener {
        listen_again(self.collector)
    }

    /// Returns the value of a counter.
    fn count(&self, name: &str) -> u64 {
        let mut stream = connect_from(Ipv4Addr::LOCALHOST, self.http);
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("the peer accepts data");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("a page");
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("a sample").parse().expect("a number")
    }

    fn posted(&self) -> u64 {
        self.count("dotproxy_trace_spans_posted_total")
    }

    fn dropped(&self) -> u64 {
        self.count("dotproxy_trace_spans_dropped_total")
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("the program connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Reads the body of the next request.
fn take_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let mut lines = head.lines();
    let len = lines.find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; len.expect("a length").parse().expect("a number")];
    stream.read_exact(&mut body).expect("a body");
    String::from_utf8(body).expect("text")
}

fn spans(request: &str) -> u64 {
    request.matches("\"traceId\"").count() as u64
}

fn answer(stream: &mut TcpStream, status: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    stream
        .write_all(head.as_bytes())
        .expect("the peer accepts data");
}

#[test]
fn collector_can_disconnect_and_reconnect() {
    let scene = Scene::new("traces-again");
    scene.ask(1);
    scene.program.await_log("Connection refused");
    let mut listener = scene.listen();
    let mut all = 0;
    for _ in 0..2 {
        let mut stream = accept(&listener);
        let request = take_request(&mut stream);
        // The collector disconnects without a response, so the request is repeated.
        drop((stream, listener));
        listener = scene.listen();
        let mut stream = accept(&listener);
        assert_eq!(take_request(&mut stream), request);
        answer(&mut stream, "200 OK");
        all += spans(&request);
        await_that("the events are counted", || scene.posted() == all);
        scene.ask(2);
    }
    assert_eq!(scene.dropped(), 0);
}

#[test]
fn busy_collector_is_retried_and_rejected_spans_are_not() {
    let scene = Scene::new("traces-busy");
    let listener = scene.listen();
    scene.ask(1);
    let mut stream = accept(&listener);
    let request = take_request(&mut stream);
    answer(&mut stream, "503 Service Unavailable\r\nRetry-After: 2");
    let since = std::time::Instant::now();
    assert_eq!(take_request(&mut stream), request);
    assert!(since.elapsed() > Duration::from_millis(1_500));
    answer(&mut stream, "400 Bad Request");
    scene
        .program
        .await_log("HTTP status 400; traces are dropped");
    assert_eq!((scene.posted(), scene.dropped()), (0, spans(&request)));
    // On the same connection.
    scene.ask(2);
    let request = take_request(&mut stream);
    answer(&mut stream, "202 Accepted");
    await_that("the events are counted", || {
        scene.posted() == spans(&request)
    });
}

#[test]
fn collector_that_does_not_read_costs_only_the_buffer() {
    let scene = Scene::new("traces-stuck");
    let listener = scene.listen();
    scene.ask(1);
    let mut stream = accept(&listener);
    let before = scene.program.own_kib();
    for id in 0..3_000 {
        scene.ask(id);
    }
    let more = scene.program.own_kib() - before;
    assert!(more < 1_500, "{more} KiB");
    assert!(scene.dropped() > 1_000);
    for _ in 0..2 {
        take_request(&mut stream);
        answer(&mut stream, "200 OK");
    }
    await_that("the memory is released", || {
        scene.program.own_kib() < before + 300
    });
}

#[test]
fn collector_can_close_without_a_response() {
    let scene = Scene::new("traces-closed");
    let listener = scene.listen();
    let mut all = 0;
    for id in 0..3 {
        scene.ask(id);
        let mut stream = accept(&listener);
        all += spans(&take_request(&mut stream));
        answer(&mut stream, "200 OK");
        drop(stream);
        await_that("the events are counted", || scene.posted() == all);
    }
    assert!(!scene.program.log().contains("; retrying"));
}

#[test]
fn buffered_spans_are_sent_at_shutdown() {
    let mut scene = Scene::new("traces-end");
    let listener = scene.listen();
    scene.ask(1);
    scene.program.signal(Signal::SIGTERM);
    let mut stream = accept(&listener);
    assert!(spans(&take_request(&mut stream)) > 1);
    // The program waits for the response.
    std::thread::sleep(Duration::from_millis(300));
    assert!(scene.program.is_running());
    answer(&mut stream, "200 OK");
    assert_eq!(scene.program.wait(), Some(0));
}
