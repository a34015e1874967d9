//! The HTTP endpoint: metrics, liveness and readiness.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::certificates::Authority;
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, await_that, connect_from, free_port};

struct Scene {
    server: Faulty,
    program: Program,
    http: SocketAddr,
}

impl Scene {
    fn new(label: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut all = vec![
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            format!("--http-listen={http}"),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let program = Program::start(&all);
        program.await_log("(HTTP)");
        Self {
            server,
            program,
            http,
        }
    }

    fn connect(&self) -> TcpStream {
        connect_from(Ipv4Addr::LOCALHOST, self.http)
    }

    /// Returns the status and body of a page.
    fn get(&self, path: &str) -> (u16, String) {
        get_on(&mut self.connect(), path)
    }

    fn status(&self, path: &str) -> u16 {
        self.get(path).0
    }

    /// Returns the value of a sample.
    fn sample(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics");
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    fn is_answered(&self, id: u16) -> bool {
        let query = query(id, "www.example", 1, None);
        let response = self.program.ask(&query).expect("a response");
        check_response(&query, &response) && matches!(response[3] & 15, 0)
    }
}

fn get_on(stream: &mut TcpStream, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("the peer accepts data");
    let response = read_response(stream).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// Reads a response of the length in its header, or `None` if the connection ends.
fn read_response(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let (_, len) = head.split_once("Content-Length: ")?;
            let len: usize = len.split("\r\n").next()?.parse().ok()?;
            if body.len() >= len {
                return Some(text);
            }
        }
        let mut bytes = [0; 4096];
        let len = stream.read(&mut bytes).ok().filter(|len| *len > 0)?;
        text.push_str(str::from_utf8(&bytes[..len]).expect("text"));
    }
}

#[test]
fn readiness_follows_the_upstream_without_a_client() {
    let scene = Scene::new("http-ready", &["--timeout=60s"]);
    assert_eq!(scene.status("/healthz"), 200);
    assert_eq!(scene.status("/readyz"), 503, "no query has been answered");
    await_that("the program is ready", || scene.status("/readyz") == 200);
    for fault in [Fault::EndAtAccept(End::Reset), Fault::Silence] {
        scene.server.plan(fault, u64::MAX);
        scene.server.end_all(End::Fin);
        await_that("the program is not ready", || {
            scene.status("/readyz") == 503
        });
        assert_eq!(scene.status("/healthz"), 200);
        scene.server.recover();
        await_that("the program is ready again", || {
            scene.status("/readyz") == 200
        });
    }
    // During shutdown, the program is not ready.
    scene.server.plan(Fault::Silence, u64::MAX);
    let query = query(1, "www.example", 1, None);
    assert!(
        scene
            .program
            .ask_within(&query, Duration::from_millis(100))
            .is_none()
    );
    let mut open = scene.connect();
    assert_eq!(get_on(&mut open, "/readyz").0, 200);
    scene.program.signal(Signal::SIGTERM);
    scene.program.await_log("shutting down");
    let (status, reason) = get_on(&mut open, "/readyz");
    assert_eq!((status, reason.as_str()), (503, "shutting down\n"));
}

#[test]
fn latch_stays_ready_during_an_outage_and_after_a_reload() {
    let scene = Scene::new("http-latch", &["--timeout=60s"]);
    scene.server.plan(Fault::Silence, u64::MAX);
    assert_eq!(scene.status("/readyz?latch"), 503, "nothing was answered");
    assert_eq!(scene.sample("dotproxy_ready"), Some(0.0));
    scene.server.recover();
    await_that("the latch is set", || scene.status("/readyz?latch") == 200);
    assert_eq!(scene.sample("dotproxy_ready"), Some(1.0));
    scene.server.plan(Fault::EndAtAccept(End::Reset), u64::MAX);
    scene.server.end_all(End::Fin);
    await_that("the program is not ready", || {
        scene.status("/readyz") == 503
    });
    assert_eq!(scene.sample("dotproxy_ready"), Some(0.0));
    for target in ["/readyz?latch", "/readyz?x=1&latch", "/readyz?latch&x"] {
        assert_eq!(scene.status(target), 200, "{target}");
    }
    for target in ["/readyz?x", "/readyz?latched", "/readyz?"] {
        assert_eq!(scene.status(target), 503, "{target}");
    }
    scene.program.reload();
    assert_eq!(scene.status("/readyz?latch"), 200);
}

#[test]
fn metrics_count_events_exactly() {
    let scene = Scene::new("http-count", &["--cache-size=1m"]);
    for id in 0..7 {
        assert!(scene.is_answered(id));
    }
    let denied = [0_u8; 12];
    assert!(scene.program.ask(&denied).is_some(), "FORMERR");
    let upstream = format!("{{upstream=\"{}\"}}", scene.server.address);
    for (name, value) in [
        ("dotproxy_queries_total{transport=\"udp\"}", 8.0),
        ("dotproxy_queries_total{transport=\"tcp\"}", 0.0),
        ("dotproxy_responses_total{rcode=\"NOERROR\"}", 7.0),
        ("dotproxy_responses_total{rcode=\"FORMERR\"}", 1.0),
        ("dotproxy_query_outcomes_total{outcome=\"cached\"}", 6.0),
        ("dotproxy_query_outcomes_total{outcome=\"answered\"}", 1.0),
        ("dotproxy_query_duration_seconds_count", 8.0),
        ("dotproxy_rejected_total{reason=\"malformed\"}", 1.0),
        ("dotproxy_cache_hits_total", 6.0),
        ("dotproxy_cache_misses_total", 1.0),
        ("dotproxy_cache_entries", 1.0),
        ("dotproxy_inflight_queries", 0.0),
        ("dotproxy_build_info{version=\"0.1.0\"}", 1.0),
        (&format!("dotproxy_upstream_queries_total{upstream}"), 1.0),
        (
            &format!("dotproxy_upstream_duration_seconds_count{upstream}"),
            1.0,
        ),
        (&format!("dotproxy_upstream_up{upstream}"), 1.0),
    ] {
        assert_eq!(scene.sample(name), Some(value), "{name}");
    }
    let expiry = format!("dotproxy_upstream_certificate_expiry_timestamp_seconds{upstream}");
    assert!(scene.sample(&expiry) > Some(1.7e9));
    let begin = "dotproxy_upstream_certificate_not_before_timestamp_seconds";
    let begin = scene.sample(&format!("{begin}{upstream}"));
    assert!(begin.is_some() && begin < scene.sample(&expiry));
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(scene.sample(name) > Some(1.0), "{name}");
    }
    assert!(scene.sample("process_cpu_seconds_total") > Some(0.0));
    assert!(scene.sample("dotproxy_loop_turn_duration_seconds_count") > Some(1.0));
}

#[test]
fn metrics_are_in_the_requested_format() {
    let scene = Scene::new("http-format", &[]);
    let mut stream = scene.connect();
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n"
    )
    .expect("the peer accepts data");
    let page = read_response(&mut stream).expect("a response");
    assert!(page.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0;"));
    assert!(page.contains("\n# TYPE dotproxy_queries counter\n") && page.ends_with("\n# EOF\n"));
    let (status, page) = get_on(&mut stream, "/metrics");
    assert_eq!(status, 200);
    assert!(page.contains("\n# TYPE dotproxy_queries_total counter\n"));
    assert_eq!(get_on(&mut stream, "/nowhere").0, 404);
    write!(stream, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("the peer accepts data");
    let refusal = read_response(&mut stream).expect("a response");
    assert!(refusal.starts_with("HTTP/1.1 405 "), "{refusal}");
}

#[test]
fn status_page_is_compressed_and_its_data_is_json() {
    let scene = Scene::new("http-status", &["--memory-limit=16m", "--dnssec=log"]);
    assert!(scene.is_answered(1));
    let mut stream = scene.connect();
    let (status, text) = get_on(&mut stream, "/");
    assert!(status == 406 && text.contains("/status.json"), "{text}");
    let head = "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: br, gzip;q=0.5";
    write!(stream, "{head}\r\n\r\n").expect("the peer accepts data");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a response");
    for field in [
        "HTTP/1.1 200 ",
        "\r\nContent-Type: text/html; charset=utf-8\r\n",
        "\r\nContent-Encoding: gzip\r\n",
        "\r\nContent-Security-Policy: default-src 'none'; ",
    ] {
        assert!(page.contains(field), "expected {field}: {page}");
    }
    let (status, data) = scene.get("/status.json");
    assert_eq!(status, 200);
    let name = format!("\"name\":\"{}\",\"up\":true", scene.server.address);
    for part in [
        "\"ready\":true",
        "\"queries\":{\"udp\":1,\"tcp\":0,",
        "\"responses\":{\"NOERROR\":1}",
        "\"outcomes\":{\"answered\":1}",
        "\"limit_bytes\":16777216",
        "\"dnssec\":{\"secure\":",
        "\"key_exchange\":\"X25519",
        &name,
    ] {
        assert!(data.contains(part), "expected {part}: {data}");
    }
    assert!(!data.contains("www.example"), "{data}");
}

#[test]
fn silent_and_slow_http_clients_do_not_affect_others() {
    let scene = Scene::new("http-slow", &[]);
    assert!(scene.is_answered(1));
    let before = scene.program.own_kib();
    // More connections than the limit allows, from several addresses.
    let mut slow: Vec<TcpStream> = Vec::new();
    for round in 0..40_u8 {
        let mut stream = connect_from(Ipv4Addr::new(127, 0, 1, round / 8 + 1), scene.http);
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
        // Some clients send requests and read nothing, some send part of a request, some send
        // nothing.
        let part = [request.as_str(), "GET /metr", ""][usize::from(round % 3)];
        let _ = stream.write_all(part.as_bytes());
        slow.push(stream);
    }
    assert!(scene.is_answered(2));
    await_that("other clients are served", || {
        let mut stream = connect_from(Ipv4Addr::new(127, 0, 2, 1), scene.http);
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
            && read_response(&mut stream).is_some_and(|text| text.contains(" 200 "))
    });
    drop(slow);
    await_that("the memory is released", || {
        scene.program.own_kib() < before + 300
    });
}
