//! Faults of upstreams: the response to the client, the response to the next client, and the
//! queries that an unauthenticated upstream receives. Prints a table.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant, SystemTime};

use dotproxy::wire::{Message, Rcode};
use rustls::version::{TLS12, TLS13};

use crate::support::certificates::{Authority, Flaw};
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{
    PATIENCE, Program, await_that, free_port, output_of, read_framed, send_framed, spawn,
};

const ALWAYS: u64 = u64::MAX;

/// Time after which the proxy retries an unanswered query.
const ATTEMPT: Duration = Duration::from_secs(2);

/// A time below the deadline of a query, and far above the time of a failure that is detected at
/// once.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A fault, how often it occurs, the response code of the first client, and the maximum time of the
/// response on an idle machine.
struct Row(Fault, u64, Rcode, Duration);

const fn row(fault: Fault, times: u64, rcode: Rcode, milliseconds: u64) -> Row {
    Row(fault, times, rcode, Duration::from_millis(milliseconds))
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use End::{CloseNotify, Fin, Reset};
    use Fault::*;
    let (ok, failed) = (Rcode::NOERROR, Rcode::SERVFAIL);
    let drip = |milliseconds| Drip(Duration::from_millis(milliseconds));
    let late = AnswerLate(Duration::from_secs(6));
    vec![
        row(EndAtAccept(Fin), 1, ok, 500),
        row(EndAtAccept(Fin), ALWAYS, failed, 500),
        row(EndAtAccept(Reset), 1, ok, 500),
        row(EndAtAccept(Reset), ALWAYS, failed, 500),
        row(StallHandshake, 1, ok, 1_000),
        row(SpeakClearText, 1, failed, 500),
        row(Certificate(Flaw::Expired), 1, failed, 500),
        row(Certificate(Flaw::SelfSigned), 1, failed, 500),
        row(Certificate(Flaw::WrongName), 1, failed, 500),
        row(EndBeforeAnswer(Fin), 1, ok, 500),
        row(EndBeforeAnswer(Fin), ALWAYS, failed, 2_000),
        row(EndBeforeAnswer(Reset), 1, ok, 500),
        row(EndBeforeAnswer(CloseNotify), 1, ok, 500),
        row(EndWithinAnswer(Fin), 1, ok, 500),
        row(EndWithinAnswer(Reset), 1, ok, 500),
        row(EndWithinAnswer(CloseNotify), 1, ok, 500),
        row(EndAfterAnswer(Fin), 1, ok, 500),
        row(EndAfterAnswer(Reset), 1, ok, 500),
        row(EndAfterAnswer(CloseNotify), 1, ok, 500),
        row(drip(0), 1, ok, 500),
        row(drip(100), 1, ok, 2_500),
        row(drip(100), ALWAYS, failed, 5_000),
        row(TruncateFrame, 1, ok, 2_500),
        row(TruncateFrame, ALWAYS, failed, 5_000),
        row(ShortFrame(0), 1, ok, 500),
        row(ShortFrame(5), 1, ok, 500),
        row(ShortFrame(0), ALWAYS, failed, 2_000),
        row(AnswerTwice, 1, ok, 500),
        row(late, 1, ok, 2_500),
        row(late, ALWAYS, failed, 5_000),
        row(WrongId, 1, ok, 2_500),
        row(WrongId, ALWAYS, failed, 5_000),
        row(WrongQuestion, 1, ok, 2_500),
        row(WrongQuestion, ALWAYS, failed, 5_000),
        row(NoResponse, 1, ok, 2_500),
        row(NoResponse, ALWAYS, failed, 5_000),
        row(Garbage, 1, ok, 2_500),
        row(Garbage, ALWAYS, failed, 5_000),
        row(Malformed, 1, ok, 500),
        row(Malformed, ALWAYS, failed, 500),
        row(Silence, 1, ok, 2_500),
        row(Silence, ALWAYS, failed, 5_000),
        row(AnswerCode(2), 1, failed, 500),
        row(AnswerCode(5), 1, Rcode::REFUSED, 500),
        row(AnswerCode(3), 1, Rcode::NXDOMAIN, 500),
        row(Large(4_000), 1, ok, 500),
    ]
}

/// The result of a row.
struct Finding {
    name: String,
    first: String,
    next: String,
    leaked: u64,
    is_right: bool,
}

#[test]
fn every_fault_ends_one_query_and_does_not_affect_the_next() {
    let authority = Authority::new("faulty-upstream");
    let rows = rows();
    // Rows that wait for a timeout run together; of the others, a few at a time occupy the
    // processors.
    let (quick, slow): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.3 < ATTEMPT);
    let mut findings: Vec<Finding> = Vec::new();
    for some in quick.chunks(6).chain([&slow[..]]) {
        findings.extend(std::thread::scope(|scope| {
            let authority = &authority;
            let mut threads = Vec::new();
            for row in some {
                threads.push(scope.spawn(move || examine(authority, row)));
            }
            let finding = |thread: ScopedJoinHandle<'_, _>| thread.join().expect("a finding");
            threads.into_iter().map(finding).collect::<Vec<_>>()
        }));
    }
    println!(
        "{:44} {:20} {:20} leaked",
        "upstream", "client", "next client"
    );
    for Finding {
        name,
        first,
        next,
        leaked,
        ..
    } in &findings
    {
        println!("{name:44} {first:20} {next:20} {leaked}");
    }
    let wrong = findings.iter().filter(|finding| !finding.is_right);
    let wrong: Vec<&str> = wrong.map(|finding| finding.name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn examine(authority: &Authority, row: &Row) -> Finding {
    let Row(fault, times, rcode, within) = row;
    let server = Faulty::start(authority, 0);
    let program = program(authority, &server);
    server.plan_for_next_connection(*fault, *times);

    let first = ask(&program, "first.secret.example");
    server.recover();
    let next = ask(&program, "next.secret.example");

    let leaked = server.counts().leaked.load(Ordering::Relaxed);
    // On a busy machine, an immediate response still arrives before the deadline. Simulations
    // measure the exact times.
    let patience = if *within < ATTEMPT { AT_ONCE } else { PATIENCE };
    let is_truncated = matches!(fault, Fault::Large(_));
    let is_right = first.rcode == Some(*rcode)
        && first.is_truncated == is_truncated
        && first.after <= patience
        && next.rcode == Some(Rcode::NOERROR)
        && leaked == 0;
    let often = if *times == ALWAYS { "always" } else { "once" };
    Finding {
        name: format!(
            "{fault:?}, {often}{}",
            if is_right { "" } else { "  <-- WRONG" }
        ),
        first: first.to_string(),
        next: next.to_string(),
        leaked,
        is_right,
    }
}

fn program(authority: &Authority, server: &Faulty) -> Program {
    Program::start(&[
        format!("--upstream={}", server.address),
        format!("--ca-file={}", authority.ca_file.display()),
    ])
}

/// The response of a client.
struct Answer {
    rcode: Option<Rcode>,
    is_truncated: bool,
    after: Duration,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rcode = match self.rcode.map(Rcode::to_u16) {
            None => "nothing".to_owned(),
            Some(0) => "NOERROR".to_owned(),
            Some(2) => "SERVFAIL".to_owned(),
            Some(3) => "NXDOMAIN".to_owned(),
            Some(5) => "REFUSED".to_owned(),
            Some(number) => format!("RCODE {number}"),
        };
        let truncated = if self.is_truncated { " TC" } else { "" };
        write!(f, "{rcode}{truncated} {} ms", self.after.as_millis())
    }
}

fn ask(program: &Program, name: &str) -> Answer {
    let query = query(4711, name, 1, Some(1232));
    let start = Instant::now();
    let response = program.ask(&query);
    let after = start.elapsed();
    if let Some(response) = &response {
        check_response(&query, response);
    }
    let header = response.as_deref().map(|response| {
        Message::parse(response)
            .expect("a well-formed message")
            .header()
    });
    Answer {
        rcode: header.map(|header| header.flags.rcode()),
        is_truncated: header.is_some_and(|header| header.flags.contains(dotproxy::wire::Flags::TC)),
        after,
    }
}

#[test]
fn refused_connection_fails_at_once_and_the_next_query_reconnects() {
    let authority = Authority::new("faulty-refused");
    let port = free_port();
    let program = Program::start(&[
        format!("--upstream=127.0.0.1:{port}"),
        format!("--ca-file={}", authority.ca_file.display()),
    ]);
    let first = ask(&program, "first.secret.example");
    assert_eq!(first.rcode, Some(Rcode::SERVFAIL));
    assert!(first.after < AT_ONCE, "{first}");

    let _server = Faulty::start(&authority, port);
    let next = ask(&program, "next.secret.example");
    assert_eq!(next.rcode, Some(Rcode::NOERROR));
}

#[test]
fn tls_1_1_is_refused_without_a_query() {
    let authority = Authority::new("faulty-tls11");
    let folder = Folder::new("faulty-tls11");
    let port = free_port();
    let mut server = openssl_server(port, &folder);
    let program = Program::start(&[
        format!("--upstream=127.0.0.1:{port}"),
        format!("--ca-file={}", authority.ca_file.display()),
    ]);
    let first = ask(&program, "first.secret.example");
    assert_eq!(first.rcode, Some(Rcode::SERVFAIL));
    assert!(first.after < AT_ONCE, "{first}");
    program.await_log("TLS failed");
    server.kill().expect("the process runs");
    server.wait().expect("the process is a child of this test");

    let _server = Faulty::start(&authority, port);
    assert_eq!(
        ask(&program, "next.secret.example").rcode,
        Some(Rcode::NOERROR)
    );
}

/// A real server that supports no version above TLS 1.1.
fn openssl_server(port: u16, folder: &Folder) -> Child {
    let (key, certificate) = (folder.file("key"), folder.file("certificate"));
    let made = output_of(
        Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
            ])
            .args(["-subj", "/CN=127.0.0.1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    );
    assert!(made.status.success(), "{made:?}");
    let server = spawn(
        Command::new("openssl")
            .args(["s_server", "-quiet", "-tls1_1"])
            .args(["-cipher", "ALL:@SECLEVEL=0"])
            .args(["-accept", &port.to_string()])
            .arg("-key")
            .arg(&key)
            .arg("-cert")
            .arg(&certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    await_that("the program listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    server
}

#[test]
fn answers_out_of_order_reach_the_right_clients() {
    let authority = Authority::new("faulty-order");
    let server = Faulty::start(&authority, 0);
    let program = program(&authority, &server);
    server.plan(Fault::AnswerOutOfOrder, 1);
    let queries = [
        query(1, "one.example", 1, None),
        query(2, "two.example", 1, None),
    ];
    let mut stream = program.connect();
    send_framed(&mut stream, &queries).expect("the peer reads");
    let second = read_framed(&mut stream).expect("a response");
    assert!(check_response(&queries[1], &second));
    let first = read_framed(&mut stream).expect("a response");
    assert!(check_response(&queries[0], &first));
}

#[test]
fn queries_after_the_end_of_a_connection_are_answered() {
    let authority = Authority::new("faulty-one-answer");
    for end in [End::Fin, End::Reset, End::CloseNotify] {
        let server = Faulty::start(&authority, 0);
        let program = program(&authority, &server);
        server.plan(Fault::EndAfterAnswer(end), ALWAYS);
        let name = |number| format!("name{number}.example");
        let queries: Vec<_> = (0..20).map(|id| query(id, &name(id), 1, None)).collect();
        let mut stream = program.connect();
        send_framed(&mut stream, &queries).expect("the peer reads");
        for _ in &queries {
            let response = read_framed(&mut stream).expect("a response");
            let header = Message::parse(&response)
                .expect("a well-formed message")
                .header();
            assert_eq!(header.flags.rcode(), Rcode::NOERROR, "{end:?}");
            assert!(check_response(&queries[usize::from(header.id)], &response));
        }
    }
}

#[test]
fn largest_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let authority = Authority::new("faulty-large");
    let server = Faulty::start(&authority, 0);
    let program = program(&authority, &server);
    server.plan(Fault::Large(4_090), ALWAYS);
    let query = query(7, "large.example", 1, Some(4096));
    let over_udp = program.ask(&query).expect("a response");
    assert!(check_response(&query, &over_udp));
    let header = Message::parse(&over_udp)
        .expect("a well-formed message")
        .header();
    assert!(header.flags.contains(dotproxy::wire::Flags::TC));
    assert!(over_udp.len() <= 1232);

    let mut stream = program.connect();
    send_framed(&mut stream, std::slice::from_ref(&query)).expect("the peer reads");
    let over_tcp = read_framed(&mut stream).expect("a response");
    assert!(check_response(&query, &over_tcp));
    assert_eq!(
        Message::parse(&over_tcp)
            .expect("a well-formed message")
            .header()
            .answers,
        4_090
    );
    assert!(over_tcp.len() > 65_000);
}

#[test]
fn session_is_not_resumed_once_the_certificate_of_the_upstream_has_expired() {
    let authority = Authority::new("faulty-expiry");
    for version in [&TLS13, &TLS12] {
        // A busy machine may take longer than the first certificates are valid.
        let (server, program, end) = [5, 15, 45]
            .into_iter()
            .find_map(|seconds| {
                let end = SystemTime::now() + Duration::from_secs(seconds);
                let config = authority.server_until(end, version);
                let server = Faulty::start_with(&authority, config, 0);
                // Each query opens a new connection.
                server.plan(Fault::EndAfterAnswer(End::CloseNotify), u64::MAX);
                let program = Program::start(&[
                    format!("--upstream={}", server.address),
                    format!("--ca-file={}", authority.ca_file.display()),
                ]);
                let is_in_time = (1..4).all(|id| is_answered(&program, id));
                let resumed = server.counts().resumed.load(Ordering::Relaxed);
                (is_in_time && resumed > 0).then_some((server, program, end))
            })
            .expect("a certificate that is valid for long enough");
        // Certificates expire at a whole second.
        let end = end + Duration::from_secs(2);
        while let Ok(left) = end.duration_since(SystemTime::now()) {
            std::thread::sleep(left);
        }
        let before = server.counts().resumed.load(Ordering::Relaxed);
        assert!(!is_answered(&program, 4));
        program.await_log("authentication failed: certificate expired");
        let after = server.counts().resumed.load(Ordering::Relaxed);
        assert_eq!(after, before);
    }
}

fn is_answered(program: &Program, id: u16) -> bool {
    let query = query(id, "www.example", 1, None);
    check_response(&query, &program.ask(&query).expect("a response"))
}
