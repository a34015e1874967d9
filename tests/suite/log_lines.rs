//! The text log: each event is one line, whatever text from outside the line quotes.

use std::net::UdpSocket;
use std::process::{Command, Stdio};

use crate::support::certificates::{Authority, Flaw};
use crate::support::faulty::{Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::query;
use crate::support::program::{Program, await_that, run_to_end, spawn};

/// Returns whether a character ends a line, controls a terminal or changes the direction of text.
fn is_steering(character: char) -> bool {
    let is_bidi = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || ('\u{202a}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character);
    character.is_control() || is_bidi || matches!(character, '\u{2028}' | '\u{2029}')
}

fn assert_steers_nothing(log: &str) {
    for line in log.lines() {
        assert!(!line.contains(is_steering), "{line:?}");
    }
}

#[test]
fn name_in_a_certificate_stays_within_its_line() {
    for format in ["text", "json"] {
        let authority = Authority::new("log-lines");
        let server = Faulty::start(&authority, 0);
        server.plan(Fault::Certificate(Flaw::SteeringName), u64::MAX);
        let program = Program::start(&[
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            format!("--log-format={format}"),
        ]);
        program.ask(&query(1, "www.example", 1, None));
        await_that("the log names the reason", || {
            program.log().contains("certificate is for")
        });
        let log = program.log();
        let lines = log.lines();
        let forged = lines.filter(|line| line.starts_with("2026-01-01T00:00:00Z"));
        assert_eq!(forged.count(), 0, "{log}");
        assert!(log.contains("forged\\u"), "the name is in the log: {log}");
        assert_steers_nothing(&log);
    }
}

#[test]
fn refused_connection_has_advice() {
    for upstream in ["127.0.0.1:9", "tcp://127.0.0.1:9,domain=example"] {
        let program = Program::start(&[format!("--upstream={upstream}")]);
        program.ask(&query(1, "www.example", 1, None));
        program.await_log(
            "127.0.0.1:9: connection failed: Connection refused (os error 111): check the address \
             and the port; later queries will retry it",
        );
    }
}

#[test]
fn option_value_stays_within_its_line() {
    let steering = "x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}31m\u{202e}\u{2028}";
    let long = [
        format!("--{steering}"),
        format!("--{steering}=1"),
        format!("--upstream={steering}"),
        format!("--ca-file=/nonexistent/{steering}"),
        format!("--query-log=/nonexistent/{steering}"),
        format!("--tls-cert={steering}"),
        format!("--user={steering}"),
        format!("--conf-file=/nonexistent/{steering}"),
        format!("--probe=http://127.0.0.1:1/{steering}"),
        format!("--probe={steering}"),
        steering.to_owned(),
    ];
    for argument in &long {
        let mut arguments = vec!["-u192.0.2.1", "-l127.0.0.1", "-p1"];
        arguments.push(argument);
        let (code, text) = run_to_end(&arguments);
        assert!(matches!(code, Some(1 | 2)), "{argument:?}: {code:?}");
        let line = text.strip_suffix('\n').expect("a whole line");
        // The program may have logged other lines before the error.
        let last = line.lines().last().expect("a line");
        assert!(last.starts_with("dotproxy: "), "{text:?}");
        assert!(!line.contains("\n2026-01-01"), "{text:?}");
        assert_steers_nothing(line);
    }
}

/// Starts the program with `JOURNAL_STREAM` set to this device and inode, as shell expressions.
fn start_under_journal(stream: &str, arguments: &[String]) -> Program {
    let script = format!("export JOURNAL_STREAM=\"{stream}\"; exec \"$@\"");
    Program::start_in(&script, arguments)
}

const STDERR: &str = "$(stat -L -c %d:%i /proc/self/fd/2)";

#[test]
fn lines_for_the_journal_have_priorities_and_no_time() {
    let upstream = ["--upstream=127.0.0.1:9".to_owned()];
    let program = start_under_journal(STDERR, &upstream);
    program.ask(&query(1, "www.example", 1, None));
    program.await_log("connection failed");
    for line in program.log().lines() {
        let (priority, text) = line.split_at(3);
        assert!(["<3>", "<4>", "<6>", "<7>"].contains(&priority), "{line:?}");
        assert!(!text.starts_with("20"), "no time: {line:?}");
    }
    assert!(
        program.log().contains("<6>INFO  listening on"),
        "{}",
        program.log()
    );
    assert!(
        program.log().contains("<4>WARN  upstream"),
        "{}",
        program.log()
    );
}

#[test]
fn json_lines_for_the_journal_have_priorities_and_their_time() {
    let arguments = ["--upstream=127.0.0.1:9", "--log-format=json"].map(str::to_owned);
    let program = start_under_journal(STDERR, &arguments);
    let log = program.log();
    assert!(log.starts_with("<6>{\"time\":\""), "{log}");
    // As root without `--user`, the program logs a warning.
    let is_right =
        |line: &str| ["<4>", "<6>"].contains(&&line[..3]) && line[3..].starts_with("{\"time\":\"");
    assert!(log.lines().all(is_right), "{log}");
}

#[test]
fn journal_stream_of_another_file_changes_nothing() {
    let upstream = ["--upstream=127.0.0.1:9".to_owned()];
    for stream in ["$(stat -L -c %d:%i /dev/null)", "1:", "", "x"] {
        let program = start_under_journal(stream, &upstream);
        let log = program.log();
        assert!(
            log.lines().all(|line| line.starts_with("20")),
            "{stream}: {log}"
        );
    }
}

#[test]
fn failure_at_the_start_has_a_priority_for_the_journal() {
    let script = format!("export JOURNAL_STREAM=\"{STDERR}\"; exec \"$@\"");
    let child = spawn(
        Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_dotproxy"), "-p0"])
            .stderr(Stdio::piped()),
    );
    let output = child
        .wait_with_output()
        .expect("the process is a child of this test");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.starts_with("<3>dotproxy: --port"), "{text}");
}

/// Starts the program in front of a healthy server.
fn started(label: &str, arguments: &[&str]) -> (Program, Faulty, Authority) {
    let authority = Authority::new(label);
    let server = Faulty::start(&authority, 0);
    let mut all = vec![
        format!("--upstream={}", server.address),
        format!("--ca-file={}", authority.ca_file.display()),
    ];
    all.extend(arguments.iter().map(ToString::to_string));
    (Program::start(&all), server, authority)
}

#[test]
fn answered_query_is_a_trace_line_with_client_upstream_and_duration() {
    let (program, server, _authority) = started("trace-lines", &["-v"]);
    let socket = std::net::UdpSocket::bind("127.0.0.7:0").expect("an address of this host");
    let client = socket.local_addr().expect("the socket is bound");
    let query = query(1, "www.example", 28, None);
    socket
        .send_to(&query, program.address)
        .expect("loopback accepts datagrams");
    socket.recv(&mut [0; 512]).expect("a response");
    program.await_log("TRACE query");
    let log = program.log();
    let line = log
        .lines()
        .find(|line| line.contains("TRACE query"))
        .expect("the log has the line");
    let start = format!(
        "query of {client} over udp: www.example. AAAA: NOERROR (answered), upstream {}, ",
        server.address
    );
    let (_, rest) = line
        .split_once(&start)
        .unwrap_or_else(|| panic!("{line:?}: {start:?}"));
    let duration = rest.strip_suffix(" ms").expect("a unit");
    assert!(duration.parse::<f64>().is_ok_and(|ms| ms > 0.0), "{line}");
    // A query that is answered locally has no upstream.
    program.await_reading();
    program.await_log("localhost. A: NOERROR (answered-here), upstream none, ");
}

#[test]
fn trace_lines_come_and_go_with_the_level() {
    let folder = Folder::new("trace-level");
    let file = folder.file("options");
    std::fs::write(&file, "log-level = info\n").expect("the folder of the test is writable");
    let conf = format!("-C{}", file.display());
    let authority = Authority::new("trace-level");
    let server = Faulty::start(&authority, 0);
    let program = Program::start_in(
        // Without the -v that all other tests have.
        "shift_v() { for a; do shift; [ \"$a\" = -v ] || set -- \"$@\" \"$a\"; done; exec \"$@\"; }; \
         shift_v \"$@\"",
        &[
            conf,
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
        ],
    );
    program.await_reading();
    assert!(!program.log().contains(" query of "), "{}", program.log());
    std::fs::write(&file, "log-level = trace\n").expect("the folder of the test is writable");
    program.reload();
    program.await_reading();
    program.await_log(" query of ");
    std::fs::write(&file, "log-level = info\n").expect("the folder of the test is writable");
    program.reload();
    let before = program.log().matches(" query of ").count();
    program.await_reading();
    assert_eq!(program.log().matches(" query of ").count(), before);
}

#[test]
fn answered_query_has_members_in_json() {
    let (program, server, _authority) = started("trace-json", &["--log-format=json", "-v"]);
    program.ask(&query(1, "www.example", 1, None));
    program.await_log("\"event\":\"query\"");
    let log = program.log();
    let line = log
        .lines()
        .find(|line| line.contains("\"event\":\"query\""))
        .expect("the log has the line");
    for member in [
        "\"level\":\"trace\"".to_owned(),
        "\"client\":\"127.0.0.1:".to_owned(),
        "\"transport\":\"udp\"".to_owned(),
        "\"name\":\"www.example.\",\"type\":\"A\"".to_owned(),
        "\"rcode\":\"NOERROR\"".to_owned(),
        format!("\"upstream\":\"{}\"", server.address),
        "\"ms\":".to_owned(),
    ] {
        assert!(line.contains(&member), "{line} lacks {member}");
    }
}

#[test]
fn failed_lookup_names_the_servers() {
    let no_server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = no_server.local_addr().unwrap();
    drop(no_server);
    let program = Program::start(&[
        "--upstream=dns.example#dns.example".to_owned(),
        format!("--bootstrap={address}"),
    ]);
    let right = format!(
        "dns.example:853#dns.example: --bootstrap found no address at {address}; later queries \
         will look it up again"
    );
    program.ask(&query(1, "www.example", 1, None));
    await_that("the log names the server", || {
        program.log().contains(&right)
    });
}

#[test]
fn listener_at_an_address_of_no_interface_is_logged() {
    let address = "192.0.2.77:5300";
    let program = Program::start(&[
        "--upstream=192.0.2.1".to_owned(),
        format!("--listen={address}"),
    ]);
    program.await_log(&format!(
        "WARN  {address} is bound in advance: no interface of this host has the address \
         192.0.2.77 now; clients are served there as soon as an interface has it"
    ));
}
