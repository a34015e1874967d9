//! Log messages about an upstream that cannot be used: the cause and the remedy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::certificates::{Authority, Flaw};
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::query;
use crate::support::program::{Program, await_that, free_port, output_of, spawn};

/// Starts the program with such an upstream and sends a query. Returns the log line with the error.
fn warning_line(arguments: &[String]) -> String {
    let program = Program::start(arguments);
    program.ask(&query(1, "www.example", 1, None));
    await_that("the log names the error", || {
        program.log().contains("WARN  upstream")
    });
    let log = program.log();
    let line = log.lines().find(|line| line.contains("WARN  upstream"));
    line.expect("the log has the line").to_owned()
}

fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{line:?} lacks {part:?}");
    }
}

#[test]
fn timeout_after_tcp_connected_is_told_from_no_connection() {
    let authority = Authority::new("silent-tls");
    let server = Faulty::start(&authority, 0);
    server.plan(Fault::StallHandshake, u64::MAX);
    let text = "handshake timeout: TCP connected, no TLS reply; check the port (DNS over TLS uses \
                853), and whether the upstream limits connections";
    for (groups, is_long) in [("hybrid", true), ("classic", false)] {
        let line = warning_line(&[
            format!("--upstream={}", server.address),
            "--timeout=1s".to_owned(),
            format!("--key-exchange={groups}"),
        ]);
        assert_says(&line, &[text]);
        assert!(!line.contains("port 53"), "{line}");
        let hint = "if a middlebox drops the long ClientHello, set --key-exchange classic";
        assert_eq!(line.contains(hint), is_long, "{line}");
    }
}

#[test]
fn response_says_that_tcp_connected_and_tls_got_no_reply() {
    let authority = Authority::new("silent-tls-ede");
    let server = Faulty::start(&authority, 0);
    server.plan(Fault::StallHandshake, u64::MAX);
    let upstream = format!("--upstream={}", server.address);
    let program = Program::start(&[upstream, "--timeout=1s".to_owned()]);
    let response = program.ask(&query(1, "www.example", 1, Some(1232)));
    let response = response.expect("SERVFAIL");
    let text = String::from_utf8_lossy(&response);
    assert!(
        text.contains("TLS handshake with upstream timed out"),
        "{text:?}"
    );
}

#[test]
fn start_says_which_names_an_upstream_will_be_asked_for() {
    let program = Program::start(&[
        "-u192.0.2.1".to_owned(),
        "-u192.0.2.3,domain=a.b".to_owned(),
    ]);
    program.await_log("upstream 192.0.2.3:853: will be queried for names in a.b.");
    program.await_log("upstream 192.0.2.1:853: will be queried for any name");
}

#[test]
fn each_upstream_is_connected_at_the_start_and_gets_no_query() {
    let authority = Authority::new("start-connects");
    let (first, second) = (Faulty::start(&authority, 0), Faulty::start(&authority, 0));
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let resets = Faulty::start(&authority, 0);
    resets.plan(Fault::EndAtAccept(End::Reset), u64::MAX);
    let program = Program::start(&[
        format!("--upstream={}", first.address),
        format!("--upstream={},domain=corp.example", second.address),
        format!("--upstream={closed}"),
        format!("--upstream={}", resets.address),
        format!("--ca-file={}", authority.ca_file.display()),
    ]);
    for server in [&first, &second] {
        program.await_log(&format!("upstream {}: connected in ", server.address));
    }
    program.await_log(" ms (TLS 1.3, X25519, certificate valid ");
    program.await_log(&format!("WARN  upstream {closed}: "));
    program.await_log(&format!("WARN  upstream {}: ", resets.address));
    for server in [&first, &second] {
        assert_eq!(server.counts().queries.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn port_of_plain_dns_is_logged() {
    // The program never queries this server: the address is one of this host. Another run of the
    // tests has another address.
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 53, high, low);
    let listener = TcpListener::bind((own, 53)).expect("the tests run as root");
    let upstream = format!("--upstream={own}:53");
    let hint = "port 53 is the port of plain DNS, use port 853 for DNS over TLS";
    let line = warning_line(&[upstream.clone(), "--timeout=1s".to_owned()]);
    assert_says(&line, &[&format!("TCP connected, no TLS reply; {hint}")]);
    // Other servers close the connection or answer with data that is not TLS.
    std::thread::spawn(move || {
        use std::io::Write;
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut stream = stream;
            if number > 1 {
                let _ = stream.write_all(b"\0\x0cxxxxxxxxxxxx");
            }
        }
    });
    let line = warning_line(&[upstream, "--timeout=1s".to_owned()]);
    assert_says(&line, &[hint]);
}

#[test]
fn end_within_the_handshake_is_logged() {
    let authority = Authority::new("closed-tls");
    let server = Faulty::start(&authority, 0);
    server.plan(Fault::EndAtAccept(End::Fin), u64::MAX);
    let upstream = format!("--upstream={}", server.address);
    let line = warning_line(&[upstream]);
    assert_says(
        &line,
        &["connection closed by upstream: within the TLS handshake"],
    );
}

#[test]
fn advice_for_an_unknown_authority_depends_on_the_options() {
    let authority = Authority::new("right-ca");
    let other = Authority::new("wrong-ca");
    let server = Faulty::start(&authority, 0);
    let upstream = format!("--upstream={}", server.address);
    let line = warning_line(std::slice::from_ref(&upstream));
    assert_says(&line, &["not signed by a trusted CA", "set --ca-file"]);
    let line = warning_line(&[upstream, format!("--ca-file={}", other.ca_file.display())]);
    assert_says(&line, &["not signed by a CA in --ca-file"]);
    assert!(!line.contains("set --ca-file"), "{line}");
}

#[test]
fn log_names_the_source_of_the_time() {
    let authority = Authority::new("late-clock");
    let folder = Folder::new("late-clock");
    let stamp = folder.file("stamp");
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set after 1970");
    let later = since_1970 + Duration::from_secs(200 * 86_400);
    std::fs::write(&stamp, format!("{}\n", later.as_secs()))
        .expect("the folder of the test is writable");
    let server = Faulty::start(&authority, 0);
    server.plan(Fault::Certificate(Flaw::ExpiresSoon), u64::MAX);
    let line = warning_line(&[
        format!("--upstream={}", server.address),
        format!("--ca-file={}", authority.ca_file.display()),
        format!("--clock-stamp={}", stamp.display()),
    ]);
    // The date may change during the test.
    let says = |time| line.contains(&format!("system clock: {}", day(time)));
    assert!(
        says(since_1970) || says(since_1970 + Duration::from_secs(86_400)),
        "{line}"
    );
    assert_says(
        &line,
        &[
            "certificate expired at",
            "verified at",
            &day(later),
            "set the clock",
        ],
    );
}

/// Returns the date of a time since 1970, in the format of coreutils.
fn day(since_1970: Duration) -> String {
    let time = format!("@{}", since_1970.as_secs());
    let output = output_of(Command::new("date").args(["-u", "-d", &time, "+%F"]));
    let text = String::from_utf8(output.stdout).expect("a date");
    text.trim().to_owned()
}

/// `openssl s_server`, stopped when dropped.
struct OpensslServer {
    child: Child,
    address: SocketAddr,
}

impl OpensslServer {
    fn start(folder: &Folder, new_key: &[&str], arguments: &[&str]) -> Self {
        let names = "subjectAltName=IP:127.0.0.1";
        Self::start_with(folder, new_key, names, arguments)
    }

    /// Starts the server with a certificate that has this extension.
    fn start_with(folder: &Folder, new_key: &[&str], extension: &str, arguments: &[&str]) -> Self {
        let (key, certificate) = (folder.file("key"), folder.file("cert"));
        let made = output_of(
            Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=a"])
                .args(["-addext", extension])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .args(new_key)
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&certificate),
        );
        assert!(made.status.success(), "{made:?}");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let child = spawn(
            Command::new("openssl")
                .args(["s_server", "-quiet", "-accept", &address.to_string()])
                .arg("-cert")
                .arg(&certificate)
                .arg("-key")
                .arg(&key)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let server = Self { child, address };
        await_that("the program listens", || {
            TcpStream::connect(address).is_ok()
        });
        server
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P521: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"];

#[test]
fn unsupported_algorithms_are_named() {
    for (label, new_key, arguments) in [
        ("p521", &P521[..], &[][..]),
        ("p521-12", &P521[..], &["-tls1_2"][..]),
        ("ed448", &["-newkey", "ed448"][..], &[][..]),
        (
            "rsa-kx",
            &["-newkey", "rsa:2048"][..],
            &["-tls1_2", "-cipher", "kRSA"][..],
        ),
    ] {
        let folder = Folder::new(&format!("openssl-{label}"));
        let server = OpensslServer::start(&folder, new_key, arguments);
        let line = warning_line(&[
            format!("--upstream={}", server.address),
            format!("--ca-file={}", folder.file("cert").display()),
        ]);
        let parts = ["P-521", "Ed448", "RSA key exchange", "not supported"];
        assert_says(&line, &parts);
    }
}

#[test]
fn unsupported_own_key_is_named() {
    for (label, new_key) in [
        ("own-p521", &P521[..]),
        ("own-ed448", &["-newkey", "ed448"][..]),
    ] {
        let folder = Folder::new(label);
        drop(OpensslServer::start(&folder, new_key, &[]));
        let output = output_of(
            Command::new(env!("CARGO_BIN_EXE_dotproxy"))
                .args([
                    "-u192.0.2.1",
                    "--check-conf",
                    "--tls-listen=127.0.0.1",
                    "--tls-cert",
                ])
                .arg(folder.file("cert"))
                .arg("--tls-key")
                .arg(folder.file("key")),
        );
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_says(
            &text,
            &["--tls-key", "P-256", "P-521", "Ed448", "not supported"],
        );
    }
}

#[test]
fn refused_or_missing_client_certificate_is_named() {
    let required: &[&str] = &["-Verify", "1", "-verify_return_error"];
    let of_tls12 = [required, &["-tls1_2"]].concat();
    let (refused, missing) = (
        "the upstream does not accept the certificate of client-cert=",
        "set client-cert= and client-key= if the upstream requires a client certificate",
    );
    let other = Authority::new("client-certificate");
    let [certificate, key] = other.server_files();
    let shown = format!(
        ",client-cert={},client-key={}",
        certificate.display(),
        key.display()
    );
    for (label, arguments) in [("mtls-12", of_tls12.as_slice()), ("mtls-13", required)] {
        for (settings, advice) in [("", missing), (shown.as_str(), refused)] {
            let folder = Folder::new(label);
            let server = OpensslServer::start(&folder, &P256, arguments);
            let program = Program::start(&[
                format!("--upstream={}{settings}", server.address),
                format!("--ca-file={}", folder.file("cert").display()),
            ]);
            program.ask(&query(1, "www.example", 1, None));
            let alert = "TLS failed: the peer sent the alert ";
            program.await_log(alert);
            let log = program.log();
            let line = log.lines().find(|line| line.contains(alert));
            assert_says(line.expect("the log has the line"), &["WARN", advice]);
        }
    }
}

#[test]
fn certificate_without_names_is_described() {
    let folder = Folder::new("openssl-no-names");
    let names = "keyUsage=digitalSignature";
    let server = OpensslServer::start_with(&folder, &P256, names, &[]);
    let line = warning_line(&[
        format!("--upstream={}#dns.test", server.address),
        format!("--ca-file={}", folder.file("cert").display()),
    ]);
    assert_says(
        &line,
        &["certificate has no names (subjectAltName)", "dns.test"],
    );
    assert!(!line.contains("after #"), "{line}");
}
