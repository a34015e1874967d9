//! Those who watch over the process: systemd, by its protocol, and whoever looks at a page.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::folder::Folder;
use crate::support::program::{Program, free_port, spawn};

/// The next thing that is told, one line for each.
fn told(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).expect("something is told");
    let text = str::from_utf8(&buffer[..len]).expect("text");
    text.lines().map(str::to_owned).collect()
}

/// The next thing that is told, signs of life aside.
fn told_besides(socket: &UnixDatagram) -> Vec<String> {
    loop {
        let lines = told(socket);
        if lines != ["WATCHDOG=1"] {
            return lines;
        }
    }
}

#[test]
fn whoever_has_started_it_is_told_how_it_is_doing() {
    let folder = Folder::new("supervision");
    let path = folder.file("notify");
    let socket = UnixDatagram::bind(&path).expect("a folder of ours");
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).expect("a timeout");
    let script = format!(
        "export NOTIFY_SOCKET={} WATCHDOG_USEC=600000 WATCHDOG_PID=$$; exec \"$@\"",
        path.display()
    );
    let mut program = Program::start_in(&script, &["--upstream=192.0.2.1".to_owned()]);
    assert_eq!(told_besides(&socket), ["READY=1"]);
    let since = Instant::now();
    for _ in 0..5 {
        assert_eq!(told(&socket), ["WATCHDOG=1"]);
    }
    // Each third of the time that it may take, and neither rarer nor all the time.
    let took = since.elapsed();
    assert!(took > Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    program.reload();
    let reloading = told_besides(&socket);
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(told_besides(&socket), ["READY=1"]);
    program.signal(Signal::SIGTERM);
    assert_eq!(told_besides(&socket), ["STOPPING=1"]);
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn probe_says_by_its_exit_code_whether_a_page_is_there() {
    let http = format!("127.0.0.1:{}", free_port());
    let program = Program::start(&[
        "--upstream=192.0.2.1".to_owned(),
        format!("--http-listen={http}"),
    ]);
    program.await_log("for HTTP");
    for (url, code, problem) in [
        (format!("http://{http}/healthz"), 0, ""),
        (
            format!("http://{http}/readyz"),
            1,
            "503 Service Unavailable",
        ),
        (format!("http://{http}/"), 1, "404 Not Found"),
        (format!("http://{http}"), 1, "404 Not Found"),
        (
            format!("http://127.0.0.1:{}/", free_port()),
            1,
            "Connection refused",
        ),
        (
            format!("https://{http}/"),
            1,
            "expected http://ADDRESS:PORT/PATH",
        ),
        (
            "http://localhost:80/".to_owned(),
            1,
            "expected http://ADDRESS:PORT/PATH",
        ),
        (
            format!("http://{http}/a b"),
            1,
            "expected http://ADDRESS:PORT/PATH",
        ),
    ] {
        let child = spawn(
            Command::new(env!("CARGO_BIN_EXE_dotproxy"))
                .args(["--probe", &url])
                .stdin(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(code), "{url}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains(problem), "{url}: {said}");
        assert_eq!(said.is_empty(), code == 0, "{url}: {said}");
    }
}
