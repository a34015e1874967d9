//! The program end to end: queries, overload, lack of resources, and shutdown.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dotproxy::wire::edns::{OptWriter, OptionCode};
use dotproxy::wire::{Flags, Message, Rcode};
use nix::sys::signal::Signal;

use crate::support::certificates::Authority;
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{
    PATIENCE, Program, await_that, connect_from, datagrams_from, free_port, output_of, read_framed,
    send_framed, spawn,
};

/// An upstream, and the program in front of it.
struct Scene {
    program: Program,
    server: Faulty,
    authority: Authority,
}

impl Scene {
    fn new(label: &str) -> Self {
        Self::with(label, "exec \"$@\"", &[])
    }

    fn with(label: &str, script: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let mut all = vec![
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let program = Program::start_in(script, &all);
        Self {
            program,
            server,
            authority,
        }
    }

    /// Sends a query over UDP. Returns whether an answer arrived.
    fn is_answered(&self, id: u16) -> bool {
        let query = query(id, "www.example", 1, Some(1232));
        self.program
            .ask(&query)
            .is_some_and(|response| check_response(&query, &response))
    }
}

#[test]
fn upstream_that_closes_every_second_fails_no_query() {
    let scene = Scene::new("closes");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.connect(scene.program.address).expect("an address");
    let receiver = socket.try_clone().expect("a descriptor");
    receiver
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    let (rate, seconds) = (500, 20);
    let responses = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&responses);
    let answered = std::thread::spawn(move || {
        let mut response = [0; 2048];
        let mut answered = 0;
        for _ in 0..rate * seconds {
            let len = receiver.recv(&mut response).expect("a response");
            let header = Message::parse(&response[..len])
                .expect("a well-formed message")
                .header();
            answered += usize::from(header.flags.rcode() == Rcode::NOERROR);
            counter.fetch_add(1, Ordering::Relaxed);
        }
        answered
    });
    let mut next = Instant::now();
    let ends = [End::Fin, End::Reset, End::CloseNotify];
    for number in 0..rate * seconds {
        if number % rate == rate / 2 {
            let end = ends[number as usize / rate as usize % ends.len()];
            scene.server.plan(Fault::EndBeforeAnswer(end), 1);
        }
        let id = u16::try_from(number).expect("below 65,536");
        socket
            .send(&query(id, "www.example", 1, None))
            .expect("loopback accepts datagrams");
        // A late query does not shorten later intervals, and pending responses fit the socket
        // buffer.
        next = next.max(Instant::now()) + Duration::from_secs(1) / rate;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        await_that("responses arrive", || {
            number < responses.load(Ordering::Relaxed) + 100
        });
    }
    let answered = answered.join().expect("a number");
    let asked = (rate * seconds) as usize;
    println!("{answered} of {asked} answered");
    assert!((asked - answered) * 1000 <= asked, "{answered} of {asked}");
    let counts = scene.server.counts();
    assert!(counts.connections.load(Ordering::Relaxed) >= 20);
    assert!(
        counts.resumed.load(Ordering::Relaxed) > 0,
        "sessions are resumed"
    );
}

#[test]
fn upstream_that_closes_idle_links_fails_no_query() {
    let scene = Scene::new("idle");
    scene.server.set_idle(Duration::from_millis(20));
    let connections = || scene.server.counts().connections.load(Ordering::Relaxed);
    let mut id = 0;
    while connections() <= 100 {
        assert!(scene.is_answered(id), "query {id}");
        // Some queries arrive just when the upstream closes the link.
        std::thread::sleep(Duration::from_millis(18 + u64::from(id) % 8));
        id += 1;
    }
    println!("{id} queries answered over {} connections", connections());
}

#[test]
fn links_are_opened_under_load_and_closed_when_idle() {
    let scene = Scene::new("depth");
    scene
        .server
        .plan(Fault::AnswerLate(Duration::from_millis(30)), u64::MAX);
    // Sequential queries need only one link.
    for id in 0..10 {
        assert!(scene.is_answered(id));
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for id in 0..300 {
        let bytes = query(id, "www.example", 1, None);
        socket
            .send_to(&bytes, scene.program.address)
            .expect("loopback accepts datagrams");
        if id % 100 == 99 {
            scene.program.await_reading();
        }
    }
    let mut response = [0; 2048];
    for _ in 0..300 {
        socket.recv(&mut response).expect("a response");
    }
    let counts = scene.server.counts();
    assert_eq!(counts.connections.load(Ordering::Relaxed), 4);
    await_that("one link is left", || {
        counts.open.load(Ordering::Relaxed) == 1
    });
    scene.server.recover();
    assert!(scene.is_answered(1));
    assert_eq!(counts.connections.load(Ordering::Relaxed), 4);
}

#[test]
fn second_of_two_answers_is_not_delayed_by_nagle() {
    let scene = Scene::new("nagle");
    scene.server.wait_for_acknowledgements();
    let mut stream = scene.program.connect();
    let mut waits = Vec::new();
    for id in (0..200).step_by(2) {
        let queries = [id, id + 1].map(|id| query(id, &format!("www{id}.example"), 1, None));
        send_framed(&mut stream, &queries).expect("the peer reads");
        read_framed(&mut stream).expect("a response");
        let start = Instant::now();
        read_framed(&mut stream).expect("a response");
        waits.push(start.elapsed());
    }
    // Delayed acknowledgements cost 40 ms per pair. A busy machine delays some answers.
    let quick = waits.iter().filter(|wait| wait.as_millis() < 30).count();
    println!("the second of {quick} in a hundred pairs came soon");
    assert!(quick > 50, "{waits:?}");
}

#[test]
fn pipelined_queries_are_answered_after_a_half_close() {
    let scene = Scene::new("pipeline");
    let mut stream = scene.program.connect();
    let queries: Vec<_> = (0..500)
        .map(|id| query(id, "www.Example", 28, Some(1232)))
        .collect();
    let mut writer = stream.try_clone().expect("a descriptor");
    let sent = queries.clone();
    let writer = std::thread::spawn(move || {
        send_framed(&mut writer, &sent).expect("the peer reads");
        writer
            .shutdown(Shutdown::Write)
            .expect("the socket is connected");
    });
    let mut seen = vec![false; queries.len()];
    for _ in 0..queries.len() {
        let response = read_framed(&mut stream).expect("a response");
        let id = usize::from(u16::from_be_bytes([response[0], response[1]]));
        assert!(check_response(&queries[id], &response));
        assert!(!std::mem::replace(&mut seen[id], true), "twice");
    }
    assert_eq!(stream.read(&mut [0; 1]).expect("an orderly end"), 0);
    writer.join().expect("the writer does not panic");
}

#[test]
fn pipelined_queries_beyond_the_limit_are_answered_in_time() {
    let scene = Scene::with("in-time", "exec \"$@\"", &["--timeout=2s"]);
    scene.server.plan(Fault::Silence, u64::MAX);
    let queries: Vec<_> = (0..300)
        .map(|id| query(id, "www.example", 1, None))
        .collect();
    let mut stream = scene.program.connect();
    let start = Instant::now();
    send_framed(&mut stream, &queries).expect("the peer reads");
    for _ in &queries {
        let response = read_framed(&mut stream).expect("a response");
        let id = usize::from(u16::from_be_bytes([response[0], response[1]]));
        assert!(!check_response(&queries[id], &response));
    }
    // If the queries were answered in batches of one limit, the test would take five times as long.
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
}

#[test]
fn client_that_never_reads_is_closed_and_does_not_affect_others() {
    let scene = Scene::new("never-reads");
    scene.server.plan(Fault::Large(1_000), u64::MAX);
    assert!(scene.is_answered(1));
    let before = scene.program.resident_kib();
    let descriptors = scene.program.descriptors();
    let mut stream = scene.program.connect();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("a timeout");
    let queries: Vec<_> = (0..10_000)
        .map(|id| query(id, "www.example", 1, None))
        .collect();
    // The program may stop reading before the last query.
    let _ = send_framed(&mut stream, &queries);
    let mut most = 0;
    await_that("the client is disconnected", || {
        assert!(scene.is_answered(2));
        most = most.max(scene.program.resident_kib());
        std::thread::sleep(Duration::from_millis(50));
        scene.program.descriptors() <= descriptors
    });
    println!("{most} KiB at most, {before} KiB before");
    assert!(most < before + 8_192, "{most} KiB after {before} KiB");
    assert!(scene.is_answered(3));
}

#[test]
fn memory_is_released_after_bursts() {
    let scene = Scene::new("bursts");
    assert!(scene.is_answered(1));
    let before = scene.program.own_kib();
    // With this number of sockets, the responses to each fit its buffer.
    let sockets = [(); 20].map(|()| datagrams_from(Ipv4Addr::LOCALHOST, PATIENCE));
    let mut after = Vec::new();
    for _ in 0..4 {
        // One late answer on each connection; further queries wait behind it.
        let late = Fault::AnswerLate(Duration::from_millis(600));
        scene.server.plan(late, 4);
        for id in 0..100 {
            let bytes = query(id, "www.example", 1, None);
            for socket in &sockets {
                let result = socket.send_to(&bytes, scene.program.address);
                result.expect("loopback accepts datagrams");
            }
            // The queries fit the buffer of the program's socket.
            if id % 5 == 4 {
                scene.program.await_reading();
            }
        }
        for socket in &sockets {
            for _ in 0..100 {
                socket.recv(&mut [0; 2048]).expect("a response");
            }
        }
        // The burst ends after a second without queries.
        await_that("the memory is released", || {
            scene.program.own_kib() < before + 256
        });
        after.push(scene.program.own_kib());
    }
    println!("{before} KiB before, {after:?} KiB after each");
}

#[test]
fn lack_of_descriptors_affects_neither_udp_nor_processor_time() {
    let scene = Scene::with("descriptors", "ulimit -n 64; exec \"$@\"", &[]);
    scene
        .program
        .await_log("the limit of 64 file descriptors allows ");
    scene
        .program
        .await_log(": raise it with `ulimit -n` (systemd: LimitNOFILE=) to ");
    let crowd: Vec<TcpStream> = (0..200).map(|_| scene.program.connect()).collect();
    let before = scene.program.processor_time();
    let start = Instant::now();
    let mut id = 0;
    while start.elapsed() < Duration::from_secs(2) {
        assert!(scene.is_answered(id));
        id += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let used = scene.program.processor_time().saturating_sub(before);
    println!("{used:?} of processor time in 2 s with {id} queries");
    assert!(used < Duration::from_millis(200), "{used:?}");
    drop(crowd);
    let query = query(9, "www.example", 1, None);
    let mut stream = scene.program.connect();
    send_framed(&mut stream, std::slice::from_ref(&query)).expect("the peer reads");
    let response = read_framed(&mut stream).expect("a client without queries has no share");
    assert!(check_response(&query, &response));
}

#[test]
fn lasting_error_of_accept_neither_uses_the_processor_nor_blocks_shutdown() {
    let folder = Folder::new("accept-error");
    let calls = folder.file("calls");
    // The tracer is a separate process, so that signals and the exit code are those of the program.
    let script = format!(
        "exec strace -D -o {} -e trace=accept4 -e inject=accept4:error=EPERM \"$@\"",
        calls.display()
    );
    let mut scene = Scene::with("accept-error", &script, &[]);
    let start = Instant::now();
    let _waiting = scene.program.connect();
    scene.program.await_log("cannot accept TCP clients");
    for id in 0..50 {
        assert!(scene.is_answered(id));
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.program.signal(Signal::SIGTERM);
    assert_eq!(scene.program.wait(), Some(0));
    let read = || std::fs::read_to_string(&calls).expect("strace writes its output");
    await_that("strace has recorded the exit", || {
        read().contains("exited with 0")
    });
    let calls = read();
    let (made, seconds) = (calls.matches("accept4(").count(), start.elapsed().as_secs());
    assert!(calls.contains("EPERM"), "{calls}");
    assert!(
        made < 20 + 20 * usize::try_from(seconds).expect("a small number"),
        "{made} calls"
    );
    assert_eq!(
        scene
            .program
            .log()
            .matches("cannot accept TCP clients")
            .count(),
        1
    );
}

#[test]
fn idle_tcp_connection_is_replaced_by_a_new_one() {
    let scene = Scene::with("slots", "exec \"$@\"", &["--max-tcp-clients=4"]);
    let connect = |last| scene.program.connect_from(Ipv4Addr::new(127, 0, 0, last));
    let idle: Vec<TcpStream> = [1, 1, 1, 2].map(connect).into();
    // One address may not hold all connections.
    assert!(matches!(connect(1).read(&mut [0]), Ok(0) | Err(_)));
    let query = query(5, "www.example", 1, None);
    let mut fifth = connect(2);
    send_framed(&mut fifth, std::slice::from_ref(&query)).expect("the kernel buffers the query");
    assert!(check_response(
        &query,
        &read_framed(&mut fifth).expect("a response")
    ));
    drop(idle);
}

#[test]
fn two_addresses_with_all_connections_do_not_exclude_another_client() {
    let scene = Scene::with("two-addresses", "exec \"$@\"", &["--max-tcp-clients=8"]);
    let address = scene.program.address;
    let ask = |stream: &mut TcpStream, id| {
        let query = query(id, "www.example", 1, None);
        send_framed(stream, std::slice::from_ref(&query))?;
        read_framed(stream).map(|response| check_response(&query, &response))
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let holders = [1, 2].map(|last| {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            let connect = || connect_from(Ipv4Addr::new(127, 0, 0, last), address);
            let mut held: Vec<TcpStream> = (0..6).map(|_| connect()).collect();
            while !is_over.load(Ordering::Relaxed) {
                for stream in &mut held {
                    // Each closed connection is opened again at once.
                    if ask(stream, 1).is_err() {
                        *stream = connect();
                    }
                }
            }
        })
    });
    let is_full = || scene.program.counters().contains("tcp-clients=8");
    await_that("every connection is taken", is_full);
    for id in 0..50 {
        let mut other = scene.program.connect_from(Ipv4Addr::new(127, 0, 0, 3));
        assert!(ask(&mut other, id).expect("a response"));
    }
    is_over.store(true, Ordering::Relaxed);
    for holder in holders {
        holder.join().expect("the thread does not panic");
    }
}

#[test]
fn keepalive_option_has_the_idle_timeout() {
    let scene = Scene::new("keepalive");
    let mut bytes = query(3, "www.example", 1, None);
    bytes[11] = 1;
    let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
    writer.option(OptionCode::TCP_KEEPALIVE, &[]);
    writer.finish();
    let mut stream = scene.program.connect();
    let start = Instant::now();
    send_framed(&mut stream, &[bytes]).expect("the peer reads");
    let response = read_framed(&mut stream).expect("a response");
    let opt = Message::parse(&response)
        .expect("a well-formed message")
        .opt()
        .expect("the query has an OPT record");
    let idle = opt
        .options()
        .find(|option| option.code == OptionCode::TCP_KEEPALIVE);
    assert_eq!(
        idle.map(|option| option.data),
        Some(&100_u16.to_be_bytes()[..])
    );
    assert_eq!(stream.read(&mut [0; 1]).expect("an orderly end"), 0);
    assert!(
        start.elapsed() > Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn response_has_the_source_address_of_the_query() {
    let authority = Authority::new("addresses");
    let server = Faulty::start(&authority, 0);
    let port = free_port();
    let mut program = spawn(
        Command::new(env!("CARGO_BIN_EXE_dotproxy"))
            .args(["-p", &port.to_string()])
            .args(["-u", &server.address.to_string()])
            .arg("--ca-file")
            .arg(&authority.ca_file)
            .stderr(Stdio::null()),
    );
    let v4 = |host| SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for address in [v4(1), v4(2), v4(77), v6] {
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let query = query(6, "www.example", 1, None);
        let ask = || {
            // The socket is not connected, so a response from another address would also arrive.
            let socket = UdpSocket::bind(any).expect("a socket");
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .expect("a timeout");
            socket
                .send_to(&query, address)
                .expect("loopback accepts datagrams");
            let mut response = [0; 2048];
            let (len, from) = socket.recv_from(&mut response).ok()?;
            assert_eq!(from, address);
            Some(check_response(&query, &response[..len]))
        };
        await_that(&format!("{address} answers"), || ask() == Some(true));
    }
    program.kill().expect("the process runs");
    program.wait().expect("the process is a child of this test");
}

/// Returns the response code, and the number of the extended error if the response has one.
fn read_rcode_and_reason(response: &[u8]) -> (u16, Option<u16>) {
    let message = Message::parse(response).expect("a well-formed message");
    let opt = message.opt();
    let extension = opt.map_or(0, |opt| opt.rcode_extension);
    let reason = opt.and_then(|opt| opt.options().find(|o| o.code == OptionCode::EXTENDED_ERROR));
    let rcode = message.header().flags.rcode().with_extension(extension);
    assert!(message.header().flags.contains(Flags::QR));
    (
        rcode.to_u16(),
        reason.map(|option| u16::from_be_bytes([option.data[0], option.data[1]])),
    )
}

#[test]
fn local_errors_have_codes_and_extended_errors() {
    let scene = Scene::new("errors");
    let plain = query(8, "www.example", 1, Some(1232));
    let rcode_and_reason = |bytes: &[u8]| {
        let response = scene.program.ask(bytes).expect("a response");
        read_rcode_and_reason(&response)
    };
    let changed = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at] = value;
        bytes
    };
    let type_at = plain.len() - 11 - 12 - 3;
    assert_eq!(plain[type_at], 1);
    assert_eq!(rcode_and_reason(&plain), (0, None));
    assert_eq!(rcode_and_reason(&changed(2, 0x29)), (4, Some(21)));
    assert_eq!(rcode_and_reason(&changed(type_at, 252)), (5, Some(21)));
    assert_eq!(rcode_and_reason(&changed(type_at, 128)), (1, Some(30)));
    assert_eq!(
        rcode_and_reason(&changed(plain.len() - 12 - 5, 1)),
        (16, Some(21))
    );
    assert_eq!(rcode_and_reason(&plain[..20]), (1, None));
    assert_eq!(
        scene
            .program
            .ask_within(&changed(2, 0x81), Duration::from_millis(200)),
        None
    );
    assert_eq!(
        scene
            .program
            .ask_within(&plain[..11], Duration::from_millis(200)),
        None
    );
    scene
        .server
        .plan(Fault::EndBeforeAnswer(End::Fin), u64::MAX);
    assert_eq!(rcode_and_reason(&plain), (2, Some(23)));
}

#[test]
fn denied_client_is_refused_and_nothing_is_sent_upstream() {
    let scene = Scene::with("denied", "exec \"$@\"", &["--deny=127.0.0.9"]);
    let query = query(1, "www.example", 1, Some(1232));
    let stranger = datagrams_from(Ipv4Addr::new(127, 0, 0, 9), PATIENCE);
    let sent = stranger.send_to(&query, scene.program.address);
    sent.expect("loopback accepts datagrams");
    let mut response = [0; 2048];
    let len = stranger.recv(&mut response).expect("a response");
    let response = &response[..len];
    assert_eq!(read_rcode_and_reason(response), (5, Some(18)));
    assert!(len <= query.len(), "{len} bytes for {}", query.len());

    let mut stream = scene.program.connect_from(Ipv4Addr::new(127, 0, 0, 9));
    // The program closes the connection before it reads anything.
    let end = stream.read(&mut [0; 2]).expect("an end");
    assert_eq!(end, 0);

    let counts = scene.server.counts();
    assert_eq!(counts.queries.load(Ordering::Relaxed), 0);
    assert!(scene.is_answered(2));
    scene.program.signal(Signal::SIGUSR1);
    scene.program.await_log("denied=1");
    scene.program.await_log("tcp-clients-denied=1");
}

#[test]
fn client_that_floods_is_rate_limited_and_does_not_affect_others() {
    let scene = Scene::with("floods", "exec \"$@\"", &["--rate-limit=100"]);
    assert!(scene.is_answered(1));
    let before = scene.program.own_kib();
    let flood = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).expect("a socket");
    flood
        .set_nonblocking(true)
        .expect("the test owns the socket");
    let question = query(7, "www.example", 1, None);
    let (mut sent, mut whole, mut cut) = (0, 0, 0);
    let start = Instant::now();
    for turn in 1_u16.. {
        for _ in 0..100 {
            sent += u32::from(flood.send_to(&question, scene.program.address).is_ok());
        }
        // The program has read all these queries when it answers another client, which stays below
        // the rate.
        assert!(scene.is_answered(turn));
        let mut response = [0; 2048];
        while let Ok(len) = flood.recv(&mut response) {
            let message = Message::parse(&response[..len]).expect("a well-formed message");
            if message.header().flags.contains(Flags::TC) {
                assert_eq!(len, question.len());
                cut += 1;
            } else {
                assert!(check_response(&question, &response[..len]));
                whole += 1;
            }
        }
        if whole >= 200 || start.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{sent} sent in {seconds:.1} s, {whole} answered, {cut} cut");
    assert!(
        f64::from(whole) <= 101.0 + 100.0 * seconds,
        "{whole} answered"
    );
    assert!(whole >= 200);
    // Every second query beyond the rate gets a truncated response; the last responses may be
    // missing.
    assert!(cut <= (sent - whole) / 2 + 1 && cut > (sent - whole) / 4);
    let grown = scene.program.own_kib() - before;
    assert!(grown < 256, "{grown} KiB");

    // Over TCP the client may send more queries at once.
    let mut stream = scene.program.connect_from(Ipv4Addr::new(127, 0, 0, 9));
    send_framed(&mut stream, &vec![question.clone(); 300]).expect("the peer reads");
    for _ in 0..300 {
        let response = read_framed(&mut stream).expect("a response");
        assert!(check_response(&question, &response));
    }
}

/// Sends a query. Returns the query and its response, if one arrives.
type Ask<'a> = dyn FnMut(&[u8]) -> Option<(Vec<u8>, Vec<u8>)> + 'a;

#[test]
fn cookie_proves_the_address_of_a_client() {
    let scene = Scene::with("cookies", "exec \"$@\"", &["--rate-limit=1/2"]);
    let client_at = |ip: Ipv4Addr| {
        let socket = datagrams_from(ip, Duration::from_millis(200));
        let address = scene.program.address;
        let mut id = 0_u16;
        // Returns the query, with a new id, and its response, if one arrives soon.
        move |query: &[u8]| {
            id += 1;
            let query = [&id.to_be_bytes(), &query[2..]].concat();
            socket
                .send_to(&query, address)
                .expect("loopback accepts datagrams");
            let mut response = vec![0; 2048];
            loop {
                let len = socket.recv(&mut response).ok()?;
                if response[..2] == query[..2] {
                    response.truncate(len);
                    return Some((query, response));
                }
            }
        }
    };
    let is_cut = |response: &[u8]| {
        let header = Message::parse(response)
            .expect("a well-formed message")
            .header();
        header.flags.contains(Flags::TC)
    };
    let is_answer =
        |query: &[u8], response: &[u8]| !is_cut(response) && check_response(query, response);
    // Repeats the query until an answer arrives.
    let answer = |ask: &mut Ask<'_>, query: &[u8]| {
        await_that("a query is answered", || {
            ask(query).is_some_and(|(query, response)| is_answer(&query, &response))
        });
    };
    // Repeats the query until another response arrives. On a busy machine more queries fit the
    // rate.
    let refusal = |ask: &mut Ask<'_>, query: &[u8]| {
        let mut found = None;
        await_that("a query is refused", || {
            found = ask(query).filter(|(query, response)| !is_answer(query, response));
            found.is_some()
        });
        found.expect("the query was refused").1
    };
    let mut ask = client_at(Ipv4Addr::new(127, 0, 0, 9));
    let without = query(1, "www.example", 1, None);
    let first = query(2, "www.example", 1, Some(1232));
    let cookie_at = first.len() - 8;
    answer(&mut ask, &without);
    // A client without a cookie has used up the rate of the address.
    assert!(is_cut(&refusal(&mut ask, &without)));
    let response = refusal(&mut ask, &first);
    assert_eq!(read_rcode_and_reason(&response), (23, None));
    assert!(response.len() <= first.len() + 16);
    let message = Message::parse(&response).expect("a well-formed message");
    let cookie = message
        .opt()
        .expect("the response has the option")
        .cookie()
        .expect("a valid cookie");
    let server_part = cookie
        .expect("the response has the option")
        .server
        .expect("the cookie has a server part");

    // With its cookie, the client is served.
    let mut second = [&first[..], server_part].concat();
    second[cookie_at - 1] += 16;
    second[cookie_at - 5] += 16;
    answer(&mut ask, &second);
    // The rate limit also applies to queries with a cookie.
    assert!(is_cut(&refusal(&mut ask, &second)));

    // Another client cannot use the cookie.
    let mut other = client_at(Ipv4Addr::new(127, 0, 0, 10));
    answer(&mut other, &without);
    assert!(is_cut(&refusal(&mut other, &without)));
    let response = refusal(&mut other, &second);
    assert_eq!(read_rcode_and_reason(&response), (23, None));
}

#[test]
fn second_upstream_is_used_when_the_first_is_down() {
    let authority = Authority::new("second");
    let server = Faulty::start(&authority, 0);
    let program = Program::start(&[
        format!("--upstream=127.0.0.1:{}", free_port()),
        format!("--upstream={}", server.address),
        format!("--ca-file={}", authority.ca_file.display()),
    ]);
    for id in 0..20 {
        let query = query(id, "www.example", 1, None);
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }
}

#[test]
fn certificate_name_is_verified_if_configured() {
    let authority = Authority::new("names");
    let server = Faulty::start(&authority, 0);
    for (name, is_right) in [
        ("dot.example", true),
        ("127.0.0.1", true),
        ("other.example", false),
    ] {
        let program = Program::start(&[
            format!("--upstream={}#{name}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
        ]);
        let query = query(1, "www.example", 1, None);
        let response = program.ask(&query).expect("a response");
        assert_eq!(check_response(&query, &response), is_right, "{name}");
    }
    // The built-in roots do not include this authority.
    let program = Program::start(&[format!("--upstream={}#dot.example", server.address)]);
    let query = query(1, "www.example", 1, None);
    assert!(!check_response(
        &query,
        &program.ask(&query).expect("a response")
    ));
    program.await_log("authentication failed");
    assert_eq!(server.counts().leaked.load(Ordering::Relaxed), 0);
}

#[test]
fn queries_are_answered_with_a_clock_of_1970() {
    let script = "export FAKETIME='@1970-01-02 00:00:00'; \
                  export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1); exec \"$@\"";
    let scene = Scene::with("clock", script, &[]);
    assert!(scene.is_answered(1));
    scene.program.await_log("the system clock is behind");
}

#[test]
fn sigterm_answers_pending_queries_and_exits_with_zero() {
    let mut scene = Scene::new("sigterm");
    assert!(scene.is_answered(1));
    scene
        .server
        .plan(Fault::AnswerLate(Duration::from_millis(700)), u64::MAX);
    let query = query(2, "www.example", 1, None);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
        .send_to(&query, scene.program.address)
        .expect("loopback accepts datagrams");
    let mut stream = scene.program.connect();
    send_framed(&mut stream, std::slice::from_ref(&query)).expect("the peer reads");
    scene.program.await_reading();
    scene.program.signal(Signal::SIGTERM);
    let mut response = [0; 2048];
    let len = socket.recv(&mut response).expect("a response");
    assert!(check_response(&query, &response[..len]));
    assert!(check_response(
        &query,
        &read_framed(&mut stream).expect("a response")
    ));
    assert_eq!(scene.program.wait(), Some(0));
}

#[test]
fn sigterm_answers_queries_behind_the_pipelining_limit() {
    let mut scene = Scene::new("sigterm-kept");
    assert!(scene.is_answered(1));
    scene
        .server
        .plan(Fault::AnswerLate(Duration::from_millis(700)), 1);
    let queries: Vec<_> = (0..150)
        .map(|id| query(id, "www.example", 1, None))
        .collect();
    let mut stream = scene.program.connect();
    send_framed(&mut stream, &queries).expect("the peer reads");
    scene.program.await_reading();
    scene.program.signal(Signal::SIGTERM);
    for _ in &queries {
        let response = read_framed(&mut stream).expect("a response");
        let id = usize::from(u16::from_be_bytes([response[0], response[1]]));
        assert!(check_response(&queries[id], &response));
    }
    assert_eq!(scene.program.wait(), Some(0));
}

#[test]
fn sigterm_answers_parked_clients() {
    let mut scene = Scene::with("sigterm-room", "exec \"$@\"", &["--max-inflight=1"]);
    assert!(scene.is_answered(1));
    let late = Fault::AnswerLate(Duration::from_millis(300));
    scene.server.plan(late, u64::MAX);
    let mut streams = [1, 2, 3].map(|number| {
        let query = query(number, &format!("www{number}.example"), 1, None);
        let mut stream = scene.program.connect();
        send_framed(&mut stream, std::slice::from_ref(&query)).expect("the peer reads");
        (query, stream)
    });
    scene.program.await_reading();
    scene.program.signal(Signal::SIGTERM);
    for (query, stream) in &mut streams {
        let response = read_framed(stream).expect("a response");
        assert!(check_response(query, &response));
    }
    assert_eq!(scene.program.wait(), Some(0));
}

#[test]
fn sigint_ends_queries_that_the_upstream_never_answers() {
    let mut scene = Scene::with("sigint", "exec \"$@\"", &["--timeout=1s"]);
    scene.server.plan(Fault::Silence, u64::MAX);
    let query = query(2, "www.example", 1, None);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
        .send_to(&query, scene.program.address)
        .expect("loopback accepts datagrams");
    scene.program.await_reading();
    scene.program.signal(Signal::SIGINT);
    assert_eq!(scene.program.wait(), Some(0));
    let mut response = [0; 2048];
    let len = socket.recv(&mut response).expect("a response");
    assert!(!check_response(&query, &response[..len]));
}

#[test]
fn sigusr1_logs_the_counters() {
    let scene = Scene::new("sigusr1");
    assert!(scene.is_answered(1));
    scene.program.signal(Signal::SIGUSR1);
    scene
        .program
        .await_log("queries udp=1 tcp=0 tls=0 ignored=0; outcomes answered=1");
}

#[test]
fn reader_of_the_log_can_stop_or_disconnect() {
    let authority = Authority::new("log-reader");
    let server = Faulty::start(&authority, 0);
    for goes_away in [true, false] {
        let port = free_port();
        let mut program = spawn(
            Command::new(env!("CARGO_BIN_EXE_dotproxy"))
                .args(["-vv", "-l", "127.0.0.1", "-p", &port.to_string()])
                .args(["-u", &server.address.to_string()])
                .arg("--ca-file")
                .arg(&authority.ca_file)
                .stderr(Stdio::piped()),
        );
        let reader = program.stderr.take().expect("standard error is piped");
        let reader = (!goes_away).then_some(reader);
        let query = query(4, &format!("{}.example", "long-label".repeat(5)), 1, None);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.connect(("127.0.0.1", port)).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut response = [0; 2048];
        let mut ask = || {
            let _ = socket.send(&query);
            socket.recv(&mut response).is_ok()
        };
        await_that("the program answers", &mut ask);
        // At this level each query has a line: far more lines than a pipe holds.
        let missing = (0..3_000).filter(|_| !ask()).count();
        assert_eq!(missing, 0, "the reader goes away: {goes_away}");
        assert!(
            program
                .try_wait()
                .expect("the process is a child of this test")
                .is_none()
        );
        drop(reader);
        program.kill().expect("the process runs");
        program.wait().expect("the process is a child of this test");
    }
}

#[test]
fn exit_code_and_message_name_the_error() {
    let run = |arguments: &[&str]| {
        let output = output_of(Command::new(env!("CARGO_BIN_EXE_dotproxy")).args(arguments));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("--upstream"));
    assert_eq!(
        run(&["-V"]).1,
        format!("dotproxy {}\n", env!("CARGO_PKG_VERSION"))
    );

    let (code, out, error) = run(&["-p", "53x", "-u", "1.1.1.1"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(
        error,
        "dotproxy: --port: \"53x\": expected a port from 1 to 65535\n"
    );
    assert_eq!(run(&[]).0, Some(2));

    assert_eq!(run(&["--check-conf", "-u", "1.1.1.1"]).0, Some(0));
    let (code, _, error) = run(&["--check-conf", "-u", "1.1.1.1", "--ca-file", "/nonexistent"]);
    assert_eq!(code, Some(2));
    assert!(
        error.contains("--ca-file") && error.contains("/nonexistent"),
        "{error}"
    );

    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let port = taken
        .local_addr()
        .expect("the socket is bound")
        .port()
        .to_string();
    let (code, _, error) = run(&["-l", "127.0.0.1", "-p", &port, "-u", "127.0.0.1"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!("127.0.0.1:{port} (UDP)")),
        "{error}"
    );
    assert!(error.contains("ss -lnptu"), "{error}");
}

#[test]
fn queries_beyond_the_limit_are_refused_at_once() {
    let scene = Scene::with(
        "inflight",
        "exec \"$@\"",
        &["--max-inflight=40", "--timeout=60s"],
    );
    scene.server.plan(Fault::Silence, u64::MAX);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for id in 0..15 {
        let bytes = query(id, "www.example", 1, Some(1232));
        socket
            .send_to(&bytes, scene.program.address)
            .expect("loopback accepts datagrams");
    }
    let mut response = [0; 2048];
    for id in 10..15 {
        let len = socket.recv(&mut response).expect("a response at once");
        let message = Message::parse(&response[..len]).expect("a well-formed message");
        assert_eq!(message.header().id, id);
        assert_eq!(message.header().flags.rcode(), Rcode::SERVFAIL);
    }
    scene.program.await_reading();
    socket
        .set_nonblocking(true)
        .expect("the test owns the socket");
    assert!(
        socket.recv(&mut response).is_err(),
        "the other queries wait"
    );
    // A client on a connection waits for room.
    let query = query(99, "www.example", 1, None);
    let mut stream = scene.program.connect();
    stream.write_all(&[]).expect("the socket is connected");
    send_framed(&mut stream, std::slice::from_ref(&query)).expect("the peer reads");
    scene.server.recover();
    assert!(check_response(
        &query,
        &read_framed(&mut stream).expect("a response")
    ));
    let _ = &scene.authority;
}
