//! Supervision of the process: the protocol of systemd, and probes of a page.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::folder::Folder;
use crate::support::messages::query;
use crate::support::program::{PATIENCE, Program, await_reading, datagrams_from, free_port, spawn};

/// Binds the notification socket. Returns the socket and its path.
fn listener(folder: &Folder) -> (UnixDatagram, PathBuf) {
    let path = folder.file("notify");
    let socket = UnixDatagram::bind(&path).expect("the folder of the test is writable");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (socket, path)
}

/// Receives the next message. Returns its lines.
fn received(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).expect("a notification arrives");
    let text = str::from_utf8(&buffer[..len]).expect("text");
    text.lines().map(str::to_owned).collect()
}

/// Receives the next message other than watchdog messages.
fn received_besides_watchdog(socket: &UnixDatagram) -> Vec<String> {
    loop {
        let lines = received(socket);
        if lines != ["WATCHDOG=1"] {
            return lines;
        }
    }
}

#[test]
fn service_manager_is_notified_of_state_changes() {
    let folder = Folder::new("supervision");
    let (socket, path) = listener(&folder);
    let script = format!(
        "export NOTIFY_SOCKET={} WATCHDOG_USEC=600000 WATCHDOG_PID=$$; exec \"$@\"",
        path.display()
    );
    let since = Instant::now();
    let mut program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
    assert_eq!(received_besides_watchdog(&socket), ["READY=1"]);
    for _ in 0..5 {
        assert_eq!(received(&socket), ["WATCHDOG=1"]);
    }
    // A watchdog message is sent after each third of the timeout, and not more often.
    let took = since.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
    program.reload();
    let reloading = received_besides_watchdog(&socket);
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(received_besides_watchdog(&socket), ["READY=1"]);
    program.signal(Signal::SIGTERM);
    assert_eq!(received_besides_watchdog(&socket), ["STOPPING=1"]);
    assert_eq!(program.wait(), Some(0));
}

/// Linux 6.12 and later deny a confined process access to unconnected abstract sockets.
#[test]
fn abstract_notify_socket_gets_every_message() {
    let name = format!("dotproxy-supervision-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("an unused name");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let script =
        format!("export NOTIFY_SOCKET=@{name} WATCHDOG_USEC=600000 WATCHDOG_PID=$$; exec \"$@\"");
    let mut program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
    assert_eq!(received_besides_watchdog(&socket), ["READY=1"]);
    assert_eq!(received(&socket), ["WATCHDOG=1"]);
    program.reload();
    assert_eq!(received_besides_watchdog(&socket)[0], "RELOADING=1");
    assert_eq!(received_besides_watchdog(&socket), ["READY=1"]);
    program.signal(Signal::SIGTERM);
    assert_eq!(received_besides_watchdog(&socket), ["STOPPING=1"]);
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn notify_socket_can_be_bound_again() {
    let folder = Folder::new("supervision-anew");
    let (socket, path) = listener(&folder);
    let script = format!("export NOTIFY_SOCKET={}; exec \"$@\"", path.display());
    let program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
    assert_eq!(received(&socket), ["READY=1"]);
    // A process that another test starts may have a copy of the socket.
    socket.shutdown(Shutdown::Both).expect("the socket is open");
    drop(socket);
    std::fs::remove_file(&path).expect("the folder of the test is writable");
    let (socket, _) = listener(&folder);
    program.reload();
    assert_eq!(received(&socket)[0], "RELOADING=1");
    assert_eq!(received(&socket), ["READY=1"]);
}

#[test]
fn full_notify_socket_does_not_block_the_program() {
    let folder = Folder::new("supervision-full");
    let (socket, path) = listener(&folder);
    // Each sending socket has its own limit besides that of the receiver.
    let is_sent = || {
        let other = UnixDatagram::unbound().expect("a socket");
        other.set_nonblocking(true).expect("an owned socket");
        other.send_to(b"", &path).is_ok()
    };
    while is_sent() {}
    let script = format!("export NOTIFY_SOCKET={}; exec \"$@\"", path.display());
    let program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
    let query = query(1, "localhost", 1, None);
    let response = program.ask(&query).expect("a response");
    assert_eq!(response[3] & 15, 0);
    let mut said = received(&socket);
    while said.is_empty() {
        said = received(&socket);
    }
    assert_eq!(said, ["READY=1"]);
}

#[test]
fn unusable_notify_socket_is_a_warning() {
    let folder = Folder::new("supervision-unusable");
    let path = |name: &str| folder.file(name).display().to_string();
    let (missing, too_long) = (path("missing"), format!("/{}", "a".repeat(200)));
    let directory = path("").trim_end_matches('/').to_owned();
    std::fs::write(path("file"), "").expect("the folder of the test is writable");
    for (value, cause) in [
        (missing.as_str(), "No such file or directory"),
        ("run/notify", "expected an absolute path, or @NAME"),
        ("vsock:2:1", "expected an absolute path, or @NAME"),
        (&too_long, "shorter than"),
        (&directory, "expected a Unix socket, found a directory"),
        (
            &path("file"),
            "expected a Unix socket, found a regular file",
        ),
        ("@dotproxy-no-such-socket", "Connection refused"),
    ] {
        let script = format!("export NOTIFY_SOCKET={value}; exec \"$@\"");
        let program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
        program.await_log("sandbox: ");
        let log = program.log();
        let expected = format!("NOTIFY_SOCKET: {value:?}: ");
        let line = log.lines().find(|line| line.contains(&expected));
        let line = line.unwrap_or_else(|| panic!("{expected}: {log}"));
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains(cause), "{line} lacks {cause}");
    }
    let script = "export NOTIFY_SOCKET=; exec \"$@\"";
    let program = Program::start_in(script, &["--upstream=192.0.2.1".to_owned()]);
    program.await_log("sandbox: ");
    assert!(!program.log().contains("NOTIFY_SOCKET"));
}

#[test]
fn number_of_inherited_sockets_that_is_no_number_is_a_warning() {
    for (value, pid, is_warned) in [
        ("abc", "$$", true),
        ("-1", "$$", true),
        ("2000000000", "", true),
        ("99999999999999999999", "$$", true),
        // For another process, or none.
        ("abc", "1", false),
        ("", "$$", false),
        ("0", "$$", false),
    ] {
        let script = format!("LISTEN_FDS={value} LISTEN_PID={pid} exec \"$@\"");
        let program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
        program.await_log("sandbox: ");
        let log = program.log();
        let expected = format!("LISTEN_FDS: {value:?}: expected the number of sockets");
        let line = log.lines().find(|line| line.contains("LISTEN_FDS"));
        assert_eq!(line.is_some(), is_warned, "{value}: {log}");
        assert!(
            line.is_none_or(|line| line.contains(&expected) && line.contains("WARN")),
            "{log}"
        );
    }
}

#[test]
fn queries_during_shutdown_are_rejected_at_once() {
    // A server that accepts connections and never answers keeps queries waiting.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let upstream = silent.local_addr().expect("the socket is bound");
    // Once on a specific address, and once on the wildcard address, of which another address is
    // queried.
    for (listen, asked) in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2")] {
        let port = free_port();
        let mut program = Program::start(&[
            format!("--upstream={upstream}"),
            format!("--listen={listen}:{port}"),
            "--timeout=2s".to_owned(),
        ]);
        program.await_log(&format!("listening on {listen}:{port}"));
        let connect = || {
            let socket = datagrams_from(Ipv4Addr::LOCALHOST, PATIENCE);
            socket
                .connect((asked, port))
                .expect("the address is reachable");
            socket
        };
        let (early, late) = (connect(), connect());
        let query = query(1, "www.example", 1, None);
        early.send(&query).expect("the peer accepts data");
        let asked_address = early.peer_addr().expect("the socket is connected");
        await_reading(asked_address);
        program.signal(Signal::SIGTERM);
        program.await_log("shutting down");
        let mut response = [0; 512];
        let refused = late.send(&query).and_then(|_| late.recv(&mut response));
        let refused = refused.expect_err("the listener is closed");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // The connected socket accepts only responses from the address of the query.
        early.recv(&mut response).expect("a response");
        assert_eq!(
            (&response[..2], response[3] & 15),
            (&query[..2], 2),
            "SERVFAIL"
        );
        assert_eq!(program.wait(), Some(0));
    }
}

#[test]
fn unsuitable_inherited_socket_stops_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("the socket is bound").port();
    for (opened, problem) in [
        (format!("3<>/dev/tcp/127.0.0.1/{port}"), "a TCP connection"),
        (
            format!("3<>/dev/udp/127.0.0.1/{port}"),
            "a UDP socket that is connected to one client",
        ),
        ("3</dev/null".to_owned(), "neither a TCP nor a UDP socket"),
        ("3<&-".to_owned(), "not open"),
    ] {
        let script = format!("exec {opened}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"");
        let child = spawn(
            Command::new("bash")
                .args([
                    "-c",
                    &script,
                    "bash",
                    env!("CARGO_BIN_EXE_dotproxy"),
                    "-u192.0.2.1",
                ])
                .stdin(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let output = child.wait_with_output().expect("the program exits");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        let problem = format!("cannot use the inherited sockets: descriptor 3 is {problem}");
        assert!(said.contains(&problem), "{said}");
    }
}

#[test]
fn exit_code_of_probe_reports_the_page() {
    let http = format!("127.0.0.1:{}", free_port());
    let program = Program::start(&[
        "--upstream=192.0.2.1".to_owned(),
        format!("--http-listen={http}"),
    ]);
    program.await_log("(HTTP)");
    for (url, code, problem) in [
        (format!("http://{http}/healthz"), 0, ""),
        (
            format!("http://{http}/readyz"),
            1,
            "503 Service Unavailable",
        ),
        (format!("http://{http}/a"), 1, "404 Not Found"),
        (format!("http://{http}"), 1, "406 Not Acceptable"),
        (
            format!("http://127.0.0.1:{}/", free_port()),
            1,
            "Connection refused",
        ),
        (
            format!("https://{http}/"),
            2,
            "expected http://ADDRESS:PORT/PATH",
        ),
        (
            "http://localhost:80/".to_owned(),
            2,
            "expected http://ADDRESS:PORT/PATH",
        ),
        (
            format!("http://{http}/a b"),
            2,
            "expected http://ADDRESS:PORT/PATH",
        ),
    ] {
        let child = spawn(
            Command::new(env!("CARGO_BIN_EXE_dotproxy"))
                .args(["--probe", &url])
                .stdin(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let output = child.wait_with_output().expect("the program exits");
        assert_eq!(output.status.code(), Some(code), "{url}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains(problem), "{url}: {said}");
        assert_eq!(said.is_empty(), code == 0, "{url}: {said}");
    }
}
