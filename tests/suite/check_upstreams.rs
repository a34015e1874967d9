//! `--check-upstreams` in front of faulty servers. `scripts/check_upstreams_test.py` has real ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dotproxy::wire::edns::{OptWriter, OptionCode};
use dotproxy::wire::{Message, Rcode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::version::{TLS12, TLS13};

use crate::support::certificates::{Authority, Flaw};
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::messages::{address_reply, error_reply, reply};
use crate::support::program::{await_that, free_port, output_of, read_framed, send_framed, spawn};

/// The result of a check.
struct Checked {
    code: Option<i32>,
    out: String,
    err: String,
}

fn check(arguments: &[String]) -> Checked {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dotproxy"));
    let output = output_of(command.arg("--check-upstreams").args(arguments));
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    Checked {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Checks upstreams and asserts that the JSON has these parts.
fn assert_json(arguments: &[String], code: i32, parts: &[&str]) {
    let json = ["--log-format=json".to_owned()];
    let checked = check(&[arguments, &json].concat());
    assert_eq!(checked.code, Some(code), "{}", checked.err);
    let is_warning = |line: &str| line.starts_with("dotproxy: warning: ");
    assert!(checked.err.lines().all(is_warning), "{}", checked.err);
    assert_eq!(checked.out.lines().count(), 1, "{}", checked.out);
    for part in parts {
        let out = &checked.out;
        assert!(out.contains(part), "{out} lacks {part}");
    }
}

fn loaded(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn of_server(authority: &Authority, upstream: impl ToString) -> Vec<String> {
    let ca_file = authority.ca_file.display();
    vec![
        format!("--ca-file={ca_file}"),
        format!("--upstream={}", upstream.to_string()),
    ]
}

#[test]
fn table_shows_a_server_that_works() {
    let authority = Authority::new("check-works");
    let server = Faulty::start(&authority, 0);
    let checked = check(&of_server(&authority, server.address));
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""));
    let tables: Vec<_> = checked.out.split("\n\n").collect();
    let [connections, support] = tables[..] else {
        panic!("expected two tables: {}", checked.out);
    };
    let words = |table: &str| -> Vec<String> {
        let row = table.lines().nth(1).expect("a row");
        row.split_whitespace().map(str::to_owned).collect()
    };
    let address = server.address.to_string();
    let words_of_connection = words(connections);
    assert_eq!(words_of_connection[..4], [&address, &address, "yes", "1.3"]);
    let [_, _, _, _, _, _, "ms", _, "ms", _, "ms"] = words_of_connection
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()[..]
    else {
        panic!("expected three times: {connections}");
    };
    // The name of the certificate has spaces.
    assert!(support.contains("  rcgen self signed cert  "), "{support}");
    assert!(words(support).ends_with(&["64", "no", "no", "1232", "no"].map(str::to_owned)));
    let counts = server.counts();
    assert_eq!(loaded(&counts.handshakes), 2);
    assert_eq!(loaded(&counts.resumed), 1);
    assert_eq!(loaded(&counts.queries), 2 + 64);
}

#[test]
fn each_address_starts_with_a_full_handshake_and_tls_1_2_is_shown() {
    let authority = Authority::new("check-full");
    // The servers share their sessions.
    let config = authority.server(Flaw::None, &[&TLS12]);
    let servers = [0; 2].map(|_| Faulty::start_with(&authority, Arc::clone(&config), 0));
    let mut arguments = of_server(&authority, servers[0].address);
    arguments.push(format!("-u{}", servers[1].address));
    assert_json(
        &arguments,
        0,
        &[
            "\"works\":true,\"failed\":0",
            "\"TLS 1.2\"",
            "\"resumed\":true",
        ],
    );
    for server in servers {
        let counts = server.counts();
        assert_eq!(
            (loaded(&counts.handshakes), loaded(&counts.resumed)),
            (2, 1)
        );
    }
}

#[test]
fn server_that_does_not_resume_is_shown() {
    let authority = Authority::new("check-full-only");
    let mut config = (*authority.server(Flaw::None, &[&TLS13])).clone();
    config.send_tls13_tickets = 0;
    let server = Faulty::start_with(&authority, config.into(), 0);
    assert_json(
        &of_server(&authority, server.address),
        0,
        &["\"resumed\":false", "\"pipelined\":64"],
    );
}

#[test]
fn failures_have_their_reasons() {
    let authority = Authority::new("check-failures");
    for (fault, reason) in [
        (Fault::Certificate(Flaw::Expired), "authentication failed: "),
        (
            Fault::Certificate(Flaw::WrongName),
            "authentication failed: ",
        ),
        (
            Fault::Certificate(Flaw::SelfSigned),
            "authentication failed: ",
        ),
        (
            Fault::SpeakClearText,
            "TLS failed: the peer does not speak TLS",
        ),
        (
            Fault::EndAtAccept(End::Fin),
            "connection closed by upstream: within the TLS handshake",
        ),
        (Fault::AnswerCode(5), "replied REFUSED to . NS"),
        (
            Fault::EndBeforeAnswer(End::Reset),
            "connection closed by upstream",
        ),
        (Fault::Malformed, "malformed DNS message"),
    ] {
        let server = Faulty::start(&authority, 0);
        server.plan(fault, u64::MAX);
        let arguments = of_server(&authority, server.address);
        let checked = check(&arguments);
        let text = format!("{0} at {0}: {reason}", server.address);
        assert!(checked.out.contains(&text), "{fault:?}: {}", checked.out);
        let end = "dotproxy: --check-upstreams: 1 of 1 upstream failed\n";
        assert_eq!((checked.code, checked.err.as_str()), (Some(1), end));
        assert_eq!(loaded(&server.counts().leaked), 0);
    }
}

#[test]
fn silent_server_fails_after_the_timeout() {
    let authority = Authority::new("check-silent");
    let server = Faulty::start(&authority, 0);
    for (fault, reason) in [
        (
            Fault::StallHandshake,
            "handshake timeout: TCP connected, no TLS reply",
        ),
        (Fault::Silence, "no answer"),
    ] {
        server.plan(fault, u64::MAX);
        let mut arguments = of_server(&authority, server.address);
        arguments.push("--timeout=1s".to_owned());
        assert_json(&arguments, 1, &["\"works\":false,\"failed\":1", reason]);
    }
}

#[test]
fn server_that_closes_after_each_answer_works_and_is_not_pipelined() {
    let authority = Authority::new("check-closes");
    let server = Faulty::start(&authority, 0);
    server.plan(Fault::EndAfterAnswer(End::Fin), u64::MAX);
    let arguments = of_server(&authority, server.address);
    assert_json(&arguments, 0, &["\"works\":true", "\"pipelined\":1"]);
}

#[test]
fn pins_that_only_report_cause_a_warning() {
    let authority = Authority::new("check-pins");
    let server = Faulty::start(&authority, 0);
    let upstream = |pin| format!("{},pin-sha256={pin},pin-report", server.address);
    let warning = "no key matches a pin; accepted because of pin-report";
    let right = check(&of_server(&authority, upstream(authority.server_pin())));
    assert_eq!(right.code, Some(0));
    assert!(!right.out.contains(warning), "{}", right.out);
    let other = Authority::new("check-other-pins").pin();
    assert_json(&of_server(&authority, upstream(other)), 0, &[warning]);
}

/// Starts a server for UDP and TCP on a port of 127.0.0.1, and returns its address. `reply` may
/// return nothing, which is silence. Without `has_tcp`, it refuses connections.
fn plain_server(has_tcp: bool, reply: fn(&[u8], bool) -> Option<Vec<u8>>) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let udp = UdpSocket::bind(address).expect("the port is free");
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, peer)) = udp.recv_from(&mut buffer) {
            if let Some(reply) = reply(&buffer[..len], false) {
                udp.send_to(&reply, peer)
                    .expect("loopback accepts datagrams");
            }
        }
    });
    if has_tcp {
        let listener = TcpListener::bind(address).expect("the port is free");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    while let Ok(query) = read_framed(&mut stream) {
                        let replies: Vec<_> = reply(&query, true).into_iter().collect();
                        if send_framed(&mut stream, &replies).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    address
}

fn plain_upstream(address: SocketAddr) -> Vec<String> {
    vec![format!("--upstream=udp://{address},domain=corp.example")]
}

#[test]
fn server_over_udp_that_refuses_tcp_works_with_a_warning() {
    let server = plain_server(false, |query, _| Some(reply(query, 1)));
    let warning = "TCP, needed for truncated answers: connection failed";
    assert_json(&plain_upstream(server), 0, &["\"works\":true", warning]);
}

#[test]
fn server_that_answers_over_tcp_only_works_with_a_warning() {
    let server = plain_server(true, |query, is_tcp| is_tcp.then(|| reply(query, 1)));
    let mut arguments = plain_upstream(server);
    arguments.push("--timeout=1s".to_owned());
    let warning = "\"warnings\":[\"UDP: no answer\"]";
    assert_json(&arguments, 0, &["\"works\":true", warning]);
}

#[test]
fn truncated_reply_is_completed_over_tcp() {
    let server = plain_server(true, |query, is_tcp| {
        let mut reply = reply(query, 1);
        reply[2] |= if is_tcp { 0 } else { 2 };
        // The answer is signed.
        reply[3] |= if is_tcp { 0x20 } else { 0 };
        Some(reply)
    });
    let parts = ["\"dnssec_validates\":true", "\"warnings\":[]"];
    assert_json(&plain_upstream(server), 0, &parts);
}

#[test]
fn server_that_does_not_answer_over_tcp_works_with_a_warning() {
    let server = plain_server(true, |query, is_tcp| (!is_tcp).then(|| reply(query, 1)));
    let mut arguments = plain_upstream(server);
    arguments.push("--timeout=1s".to_owned());
    let warning = "TCP, needed for truncated answers: no answer";
    assert_json(&arguments, 0, &["\"works\":true", warning]);
}

#[test]
fn lost_datagram_is_sent_again() {
    static QUERIES: AtomicU64 = AtomicU64::new(0);
    let server = plain_server(true, |query, is_tcp| {
        let is_lost = !is_tcp && QUERIES.fetch_add(1, Ordering::Relaxed) == 0;
        (!is_lost).then(|| reply(query, 1))
    });
    assert_json(&plain_upstream(server), 0, &["\"works\":true"]);
    assert_eq!(QUERIES.load(Ordering::Relaxed), 3);
}

#[test]
fn server_without_edns_is_queried_again_without_it() {
    let server = plain_server(true, |query, _| {
        let message = Message::parse(query).expect("the program sends valid queries");
        let mut reply = match message.opt() {
            Some(_) => error_reply(query, Rcode::FORMERR, None),
            None => reply(query, 1),
        };
        // Without OPT, which is at the end.
        let end = Message::parse(&reply).expect("a valid reply").records_end();
        reply.truncate(end);
        reply[11] = 0;
        Some(reply)
    });
    let checked = check(&plain_upstream(server));
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    let row = checked.out.lines().last().expect("a row");
    let words: Vec<_> = row.split_whitespace().collect();
    // Certificate, days, pipelined, DNSSEC twice, EDNS, client subnet.
    assert_eq!(words[2..], ["-", "-", "64", "-", "-", "no", "no"], "{row}");
}

#[test]
fn client_subnet_in_the_reply_is_support() {
    let server = plain_server(true, |query, _| {
        let message = Message::parse(query).expect("the program sends valid queries");
        let subnet = message.opt().and_then(|opt| {
            let mut options = opt.options();
            options.find(|option| option.code == OptionCode::CLIENT_SUBNET)
        });
        let mut reply = reply(query, 1);
        if let Some(subnet) = subnet {
            // It reveals no address.
            assert_eq!(subnet.data, [0, 1, 0, 0]);
            let start = Message::parse(&reply).expect("a valid reply").records_end();
            reply.truncate(start);
            let mut opt = OptWriter::start(&mut reply, 4096, 0, 0);
            opt.option(OptionCode::CLIENT_SUBNET, subnet.data);
            opt.finish();
        }
        Some(reply)
    });
    let parts = ["\"client_subnet\":true", "\"edns_size\":1232"];
    assert_json(&plain_upstream(server), 0, &parts);
}

#[test]
fn forged_replies_are_ignored() {
    let server = plain_server(true, |query, _| {
        let mut reply = error_reply(query, Rcode::REFUSED, None);
        reply[0] ^= 1;
        Some(reply)
    });
    let mut arguments = plain_upstream(server);
    arguments.push("--timeout=1s".to_owned());
    assert_json(
        &arguments,
        1,
        &["\"error\":\"no answer\"", "UDP: no answer"],
    );
}

#[test]
fn endless_replies_to_other_queries_end_with_the_timeout() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("the socket is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Ok(query) = read_framed(&mut stream) else {
                continue;
            };
            let mut other = reply(&query, 1);
            other[0] ^= 1;
            let replies = vec![other; 1000];
            while send_framed(&mut stream, &replies).is_ok() {}
        }
    });
    let arguments = [
        format!("--upstream=tcp://{address},domain=corp.example"),
        "--timeout=1s".to_owned(),
    ];
    assert_json(&arguments, 1, &["\"error\":\"no answer\""]);
}

#[test]
fn upstream_by_name_works_at_one_of_its_addresses() {
    let authority = Authority::new("check-bootstrap");
    let server = Faulty::start(&authority, 0);
    // Truncated over UDP, so that the addresses come over TCP.
    let bootstrap = plain_server(true, |query, is_tcp| {
        let addresses = [127, 0, 0, 1].map(|last| IpAddr::from([127, 0, 0, last]));
        let mut reply = address_reply(query, &addresses[1..4], 300);
        if !is_tcp {
            reply = error_reply(query, Rcode::NOERROR, None);
            reply[2] |= 2;
        }
        Some(reply)
    });
    let port = server.address.port();
    let mut arguments = of_server(&authority, "");
    arguments[1] = format!(
        "--upstream=dns.example:{port},pin-only,pin-sha256={}",
        authority.server_pin()
    );
    arguments.push(format!("--bootstrap={bootstrap}"));
    assert_json(
        &arguments,
        0,
        &[
            "{\"works\":true,\"failed\":0",
            &format!("\"address\":\"127.0.0.0:{port}\",\"works\":false"),
            &format!("\"address\":\"127.0.0.1:{port}\",\"works\":true"),
        ],
    );
}

#[test]
fn name_without_an_address_is_a_failure() {
    let bootstrap = plain_server(true, |query, _| Some(address_reply(query, &[], 300)));
    let arguments = [
        "--upstream=dns.example".to_owned(),
        format!("--bootstrap={bootstrap}"),
    ];
    let checked = check(&arguments);
    assert_eq!(checked.code, Some(1));
    let text = format!("dns.example:853: --bootstrap: {bootstrap}: no A or AAAA record\n");
    assert!(checked.out.ends_with(&text), "{}", checked.out);
}

#[test]
fn bootstrap_server_that_fails_before_another_one_is_a_warning() {
    let authority = Authority::new("check-bootstrap-failure");
    let server = Faulty::start(&authority, 0);
    let failing = plain_server(true, |query, _| {
        Some(error_reply(query, Rcode::SERVFAIL, None))
    });
    let bootstrap = plain_server(true, |query, _| {
        Some(address_reply(query, &[IpAddr::from([127, 0, 0, 1])], 300))
    });
    let port = server.address.port();
    let arguments = [
        format!("--ca-file={}", authority.ca_file.display()),
        format!(
            "--upstream=dns.example:{port},pin-only,pin-sha256={}",
            authority.server_pin()
        ),
        format!("--bootstrap={failing}"),
        format!("--bootstrap={bootstrap}"),
    ];
    let warning = format!("\"warnings\":[\"--bootstrap: {failing}: replied SERVFAIL\"]");
    assert_json(&arguments, 0, &["\"works\":true", &warning]);
}

#[test]
fn errors_on_the_second_connection_are_not_answers() {
    let server = plain_server(true, |query, is_tcp| {
        Some(if is_tcp {
            error_reply(query, Rcode::SERVFAIL, None)
        } else {
            reply(query, 1)
        })
    });
    let warning = "TCP, needed for truncated answers: no answer";
    assert_json(&plain_upstream(server), 0, &["\"pipelined\":0", warning]);
}

#[test]
fn error_says_nothing_about_the_upstream() {
    let server = plain_server(true, |query, _| {
        Some(error_reply(query, Rcode::REFUSED, None))
    });
    let checked = check(&plain_upstream(server));
    let row = checked
        .out
        .split("\n\n")
        .nth(1)
        .and_then(|table| table.lines().nth(1));
    let words: Vec<_> = row.expect("a row").split_whitespace().collect();
    assert_eq!(words[2..], ["-"; 7], "{}", checked.out);
}

#[test]
fn answers_without_signatures_fail_if_dnssec_needs_them() {
    let authority = Authority::new("check-dnssec");
    let server = Faulty::start(&authority, 0);
    for (mode, code) in [("on", 1), ("log", 0), ("off", 0)] {
        let mut arguments = of_server(&authority, server.address);
        arguments.push(format!("--dnssec={mode}"));
        let checked = check(&arguments);
        assert_eq!(checked.code, Some(code), "{mode}: {}", checked.out);
        let problem = "replied without signatures (RRSIG), which --dnssec on needs";
        assert_eq!(checked.out.contains(problem), code == 1, "{}", checked.out);
    }
}

#[test]
fn unusable_settings_are_usage_errors() {
    for (arguments, problem) in [
        (vec![], "--upstream: "),
        (
            vec!["-u1.1.1.1", "--ca-file=/nonexistent/ca.pem"],
            "--ca-file: ",
        ),
        (
            vec!["-u1.1.1.1", "--check-conf"],
            "--check-upstreams: expected without --check-conf",
        ),
    ] {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let checked = check(&arguments);
        assert_eq!((checked.code, checked.out.as_str()), (Some(2), ""));
        assert!(checked.err.contains(problem), "{}", checked.err);
    }
}

#[test]
fn signal_ends_the_check() {
    let authority = Authority::new("check-signal");
    let server = Faulty::start(&authority, 0);
    server.plan(Fault::StallHandshake, u64::MAX);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dotproxy"));
    command
        .arg("--check-upstreams")
        .arg("--timeout=600s")
        .args(of_server(&authority, server.address))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = spawn(&mut command);
    await_that("the program has connected", || {
        loaded(&server.counts().open) == 1
    });
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("the program runs");
    let output = child.wait_with_output().expect("the process is a child");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, "dotproxy: --check-upstreams: interrupted\n");
}
