//! The log in JSON.

use std::net::UdpSocket;
use std::process::{Command, Stdio};

use crate::support::certificates::Authority;
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, spawn};

/// Returns the members of a line after its time.
fn event(log: &str, name: &str) -> String {
    let mut lines = log.lines().rev();
    let event = format!("\"event\":\"{name}\"");
    let line = lines.find(|line| line.contains(&event));
    let line = line.unwrap_or_else(|| panic!("no {name} in {log}"));
    let (time, rest) = line.split_once("Z\",").expect("a time");
    assert!(
        time.starts_with("{\"time\":\"20") && time.len() == 32,
        "{time}"
    );
    rest.to_owned()
}

#[test]
fn events_have_their_own_members() {
    let authority = Authority::new("json-log");
    let server = Faulty::start(&authority, 0);
    let program = Program::start(&[
        format!("--upstream={}", server.address),
        format!("--ca-file={}", authority.ca_file.display()),
        "--log-format=json".to_owned(),
        "--deny=127.0.0.9".to_owned(),
        "--rate-limit=1/1".to_owned(),
    ]);
    let listening = event(&program.log(), "listening");
    let expected = format!(
        "\"level\":\"info\",\"event\":\"listening\",\"address\":\"{0}\",\"message\":\"listening on {0}\"}}",
        program.address
    );
    assert_eq!(listening, expected);
    let query = query(1, "www.example", 1, None);
    assert!(check_response(
        &query,
        &program.ask(&query).expect("a response")
    ));
    // The client exceeds its rate, another client is not in --allow, and the upstream fails. On a
    // busy machine one of the queries may be late enough to be answered.
    let often = ["127.0.0.1:0"; 5];
    for address in often.iter().chain(&["127.0.0.9:0"]) {
        let socket = UdpSocket::bind(address).expect("a free port");
        socket
            .send_to(&query, program.address)
            .expect("loopback accepts datagrams");
    }
    program.await_log("\"event\":\"denied-client\"");
    let log = program.log();
    let denied = event(&log, "denied-client");
    assert!(
        denied.contains("\"client\":\"127.0.0.9\",\"count\":1,"),
        "{denied}"
    );
    let limited = event(&log, "rate-limited");
    assert!(
        limited.contains("\"client\":\"127.0.0.1\",\"count\":1,"),
        "{limited}"
    );
    server.plan(Fault::EndAtAccept(End::Reset), u64::MAX);
    server.end_all(End::Reset);
    // Responses to earlier queries may still arrive.
    program.await_log("connection closed by upstream");
    let socket = UdpSocket::bind("127.0.0.2:0").expect("a free port");
    socket
        .send_to(&query, program.address)
        .expect("loopback accepts datagrams");
    program.await_log("\"event\":\"upstream-down\"");
    let down = event(&program.log(), "upstream-down");
    let upstream = server.address;
    let members = format!("\"upstream\":\"{upstream}\",\"reason\":\"");
    assert!(
        down.starts_with("\"level\":\"warn\"") && down.contains(&members),
        "{down}"
    );
    server.recover();
    let socket = UdpSocket::bind("127.0.0.3:0").expect("a free port");
    socket
        .send_to(&query, program.address)
        .expect("loopback accepts datagrams");
    program.await_log("\"event\":\"upstream-up\"");
}

#[test]
fn error_at_the_start_is_an_event() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = taken
        .local_addr()
        .expect("the socket is bound")
        .port()
        .to_string();
    let child = spawn(
        Command::new(env!("CARGO_BIN_EXE_dotproxy"))
            .args([
                "-u192.0.2.1",
                "-l127.0.0.1",
                "--log-format=json",
                "-p",
                &port,
            ])
            .stderr(Stdio::piped()),
    );
    let output = child
        .wait_with_output()
        .expect("the process is a child of this test");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).expect("text");
    let failed = event(&log, "failed");
    assert!(
        failed.starts_with("\"level\":\"error\",\"event\":\"failed\",\"message\":\"cannot listen")
    );
    assert!(failed.contains("sport = :"), "what to do: {failed}");
}
