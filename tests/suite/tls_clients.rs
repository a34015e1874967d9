//! TLS clients that are slow, silent or numerous: their cost and their effect on others are
//! limited.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::support::certificates::Authority;
use crate::support::faulty::{Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::http::metrics;
use crate::support::messages::{check_response, query};
use crate::support::program::{
    Program, await_that, connect_from, free_port, read_framed, send_framed,
};

struct Scene {
    authority: Authority,
    address: SocketAddr,
    program: Program,
    server: Faulty,
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Scene {
    fn new(label: &str, arguments: &[&str]) -> Self {
        Self::of_authority(Authority::new(label), arguments)
    }

    fn of_authority(authority: Authority, arguments: &[&str]) -> Self {
        let server = Faulty::start(&authority, 0);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let [certificate, key] = authority.server_files();
        let mut all = vec![
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            format!("--tls-listen={address}"),
            format!("--tls-cert={}", certificate.display()),
            format!("--tls-key={}", key.display()),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let program = Program::start(&all);
        program.await_log("(TLS)");
        Self {
            authority,
            address,
            program,
            server,
        }
    }

    /// Connects from 127.0.0.`last`.
    fn connect(&self, last: u8) -> TcpStream {
        connect_from(Ipv4Addr::new(127, 0, 0, last), self.address)
    }

    fn connect_tls(&self, last: u8) -> Tls {
        self.connect_with(self.authority.client(), last)
    }

    fn connect_with(&self, config: Arc<ClientConfig>, last: u8) -> Tls {
        let name = self.address.ip().into();
        let connection = ClientConnection::new(config, name);
        StreamOwned::new(connection.expect("a client"), self.connect(last))
    }

    /// Returns whether a query over UDP is answered.
    fn is_answered(&self, id: u16) -> bool {
        let query = query(id, "www.example", 1, None);
        let response = self.program.ask(&query);
        response.is_some_and(|response| check_response(&query, &response))
    }
}

fn is_served(tls: &mut Tls, id: u16) -> bool {
    let query = query(id, "www.example", 28, Some(1232));
    send_framed(tls, std::slice::from_ref(&query)).is_ok()
        && read_framed(tls).is_ok_and(|response| check_response(&query, &response))
}

#[test]
fn client_that_half_closes_gets_its_answers() {
    let scene = Scene::new("tls-half", &[]);
    let mut tls = scene.connect_tls(1);
    let queries: Vec<_> = (0..50)
        .map(|id| query(id, "www.example", 1, None))
        .collect();
    send_framed(&mut tls, &queries).expect("the peer reads");
    tls.conn.send_close_notify();
    tls.flush().expect("the peer reads");
    tls.sock
        .shutdown(Shutdown::Write)
        .expect("the test owns the socket");
    for _ in 0..50 {
        let response = read_framed(&mut tls).expect("a response");
        let id = usize::from(u16::from_be_bytes([response[0], response[1]]));
        assert!(check_response(&queries[id], &response));
    }
    // The program then ends the connection with a close alert.
    assert_eq!(tls.read(&mut [0; 1]).expect("a close alert"), 0);
}

#[test]
fn client_is_limited_whatever_the_size_of_its_records() {
    // No query ends before the check is complete.
    let scene = Scene::new("tls-records", &["--timeout=60s"]);
    scene.server.plan(Fault::Silence, u64::MAX);
    let mut tls = scene.connect_tls(1);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).expect("a handshake");
    }
    // Three queries per record, and many records at once.
    for id in (0..300).step_by(3) {
        let three = [0, 1, 2].map(|more| query(id + more, "www.example", 1, None));
        send_framed(&mut tls.conn.writer(), &three).expect("a buffer accepts data");
    }
    tls.flush().expect("the peer reads");
    // A full share of queries is read, and the others are not.
    let is_full = || scene.program.counters().contains(" tls=64 ");
    await_that("a full share is read", is_full);
    scene.program.await_reading();
    assert!(is_full(), "{}", scene.program.log());
}

#[test]
fn silent_and_slow_clients_are_replaced() {
    let scene = Scene::new("tls-slow", &["--max-tcp-clients=4"]);
    let mut hello = Vec::new();
    let mut connection = ClientConnection::new(scene.authority.client(), scene.address.ip().into())
        .expect("a client");
    connection
        .write_tls(&mut hello)
        .expect("a buffer accepts data");
    // One client sends nothing, one stops within its ClientHello, one stops after it.
    let silent = scene.connect(1);
    let mut slow = scene.connect(1);
    let mut halfway = scene.connect(1);
    halfway.write_all(&hello).expect("the peer reads");
    let mut served = scene.connect_tls(2);
    assert!(is_served(&mut served, 1));
    // The whole ClientHello would take more than twice the timeout of the program.
    let is_dripping = hello[..hello.len() - 1].iter().all(|byte| {
        std::thread::sleep(Duration::from_millis(100));
        slow.write_all(&[*byte]).is_ok()
    });
    assert!(!is_dripping, "the ClientHello has no timeout");
    for mut idle in [silent, halfway] {
        // The connection is closed with an alert or a reset.
        let end = idle.read_to_end(&mut Vec::new());
        assert!(end.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true));
    }
    assert!(is_served(&mut scene.connect_tls(2), 2));
}

#[test]
fn client_that_sends_only_messages_other_than_queries_is_closed() {
    let scene = Scene::new("tls-no-query", &[]);
    let mut response = query(1, "www.example", 1, None);
    response[2] |= 0x80;
    for message in [Vec::new(), vec![0], response] {
        let flood = vec![message; 2_000];
        let started = Instant::now();
        let mut plain = scene.program.connect();
        let mut tls = scene.connect_tls(1);
        assert!(is_served(&mut tls, 1));
        // The program may close the connection before the last message is sent.
        let _ = send_framed(&mut plain, &flood);
        let _ = send_framed(&mut tls, &flood);
        let end = plain.read(&mut [0; 1]);
        assert!(matches!(end, Ok(0)) || is_reset(&end), "{end:?}");
        let end = tls.read(&mut [0; 1]);
        assert!(matches!(end, Ok(0)) || is_reset(&end), "{end:?}");
        // The idle timeout is ten seconds.
        let took = started.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    assert!(is_served(&mut scene.connect_tls(1), 2));
}

/// Returns whether the program has closed a connection because of unwanted data.
fn is_reset(read: &std::io::Result<usize>) -> bool {
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    read.as_ref()
        .is_err_and(|error| kinds.contains(&error.kind()))
}

#[test]
fn aborted_handshakes_do_not_affect_others() {
    let scene = Scene::new("tls-flood", &[]);
    assert!(scene.is_answered(1));
    let before = scene.program.own_kib();
    let config = scene.authority.client();
    for round in 0..400_u16 {
        let name = scene.address.ip().into();
        let connection = ClientConnection::new(Arc::clone(&config), name);
        let mut connection = connection.expect("a client");
        let mut stream = scene.connect(3);
        connection.write_tls(&mut stream).expect("the peer reads");
        if round % 2 == 0 {
            // The program has done the work of a handshake in vain.
            let _ = stream.read(&mut [0; 64]);
        }
        if round % 4 == 0 {
            assert!(scene.is_answered(round));
        }
    }
    await_that("the memory is released", || {
        scene.program.own_kib() < before + 512
    });
    assert!(is_served(&mut scene.connect_tls(3), 9));
}

/// A time at which no certificate of a test expires.
fn tomorrow() -> SystemTime {
    SystemTime::now() + Duration::from_secs(86_400)
}

#[test]
fn client_is_closed_when_its_authority_is_no_longer_trusted() {
    let [old, new] = ["old", "new"].map(|which| Authority::new(&format!("tls-ca-{which}")));
    let folder = Folder::new("tls-ca");
    let client_ca = folder.file("clients.pem");
    let both = [&old, &new].map(|authority| {
        std::fs::read_to_string(&authority.ca_file).expect("the test owns the file")
    });
    std::fs::write(&client_ca, both.concat()).expect("the folder of the test is writable");
    let option = format!("--tls-client-ca={}", client_ca.display());
    let scene = Scene::new("tls-ca-server", &[&option]);
    let client = |issuer, version| {
        let config = &scene.authority;
        scene.connect_with(config.client_certified_by(issuer, tomorrow(), version), 1)
    };
    let mut refused = [client(&old, &TLS13), client(&old, &TLS12)];
    let mut kept = client(&new, &TLS13);
    for tls in refused.iter_mut().chain([&mut kept]) {
        assert!(is_served(tls, 1));
    }
    // One client is in the middle of its handshake.
    let mut halfway = client(&old, &TLS13);
    halfway
        .conn
        .write_tls(&mut halfway.sock)
        .expect("the peer accepts data");
    while halfway.conn.wants_read() && !halfway.conn.wants_write() {
        halfway.conn.read_tls(&mut halfway.sock).expect("a hello");
        halfway.conn.process_new_packets().expect("a valid message");
    }
    std::fs::copy(&new.ca_file, &client_ca).expect("the folder of the test is writable");
    let log = scene.program.reload();
    assert!(!log.contains("ERROR"), "{log}");
    for tls in &mut refused {
        assert!(!is_served(tls, 2));
    }
    assert!(!is_served(&mut halfway, 2));
    assert!(is_served(&mut kept, 3));
    assert!(!is_served(&mut client(&old, &TLS13), 4));
    assert!(is_served(&mut client(&new, &TLS13), 5));
}

#[test]
fn client_without_a_certificate_is_closed_when_one_is_required() {
    let clients = Authority::new("tls-ca-added");
    let folder = Folder::new("tls-ca-added");
    let options = folder.file("options");
    std::fs::write(&options, "").expect("the folder of the test is writable");
    let scene = Scene::new(
        "tls-ca-added-server",
        &["-C", &options.display().to_string()],
    );
    let mut tls = scene.connect_tls(1);
    assert!(is_served(&mut tls, 1));
    let client_ca = folder.file("clients.pem");
    std::fs::copy(&clients.ca_file, &client_ca).expect("the folder of the test is writable");
    let line = format!("tls-client-ca = {}\n", client_ca.display());
    std::fs::write(&options, line).expect("the folder of the test is writable");
    let log = scene.program.reload();
    assert!(!log.contains("ERROR"), "{log}");
    assert!(!is_served(&mut tls, 2));
}

#[test]
fn session_is_not_resumed_once_the_certificate_of_its_client_has_expired() {
    let clients = Authority::new("tls-expiry");
    let option = format!("--tls-client-ca={}", clients.ca_file.display());
    let scene = Scene::new("tls-expiry-server", &[&option]);
    for version in [&TLS13, &TLS12] {
        // A busy machine may take longer than the first certificates are valid.
        let (config, end) = [5, 15, 45]
            .into_iter()
            .find_map(|seconds| {
                let end = SystemTime::now() + Duration::from_secs(seconds);
                let config = scene.authority.client_certified_by(&clients, end, version);
                let resumed = || {
                    let mut tls = scene.connect_with(Arc::clone(&config), 1);
                    is_served(&mut tls, 1).then(|| tls.conn.handshake_kind())
                };
                let kinds = [resumed()?, resumed()?];
                assert_eq!(
                    kinds,
                    [HandshakeKind::Full, HandshakeKind::Resumed].map(Some)
                );
                Some((config, end))
            })
            .expect("a certificate that is valid for long enough");
        // A connection is served until its client certificate expires.
        let mut connected = scene.connect_with(Arc::clone(&config), 1);
        let was_served = is_served(&mut connected, 2);
        // Certificates expire at a whole second.
        let end = end + Duration::from_secs(2);
        while let Ok(left) = end.duration_since(SystemTime::now()) {
            std::thread::sleep(left);
        }
        for id in 3..6 {
            let mut tls = scene.connect_with(Arc::clone(&config), 1);
            assert!(!is_served(&mut tls, id));
            assert_ne!(tls.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        }
        if was_served {
            assert!(!is_served(&mut connected, 6), "the certificate has expired");
        }
    }
}

#[test]
fn validity_of_the_own_certificate_is_in_the_metrics_and_the_log() {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let scene = Scene::new("tls-expiry", &[&format!("--http-listen={http}")]);
    let text = metrics(http);
    // The defaults of rcgen: the years 1975 and 4096.
    for (kind, time) in [("not_before", 157_766_400_u64), ("expiry", 67_090_118_400)] {
        let name = format!("dotproxy_certificate_{kind}_timestamp_seconds");
        let line = text.lines().find(|line| line.starts_with(&name));
        assert_eq!(line, Some(format!("{name} {time}").as_str()), "{text}");
    }
    assert!(!scene.program.log().contains("the certificate"));
}

#[test]
fn expired_own_certificate_causes_a_warning_at_the_start() {
    let scene = Scene::of_authority(Authority::expired("tls-expired"), &[]);
    let warning = "the certificate expired at 2001-01-01T00:00:00Z; system clock: 20";
    scene.program.await_log(warning);
    assert!(
        scene.program.log().contains("WARN"),
        "{}",
        scene.program.log()
    );
}

#[test]
fn client_that_mutual_tls_refuses_is_logged_once_a_minute() {
    let clients = Authority::new("tls-clients-ca");
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let client_ca = format!("--tls-client-ca={}", clients.ca_file.display());
    let listen = format!("--http-listen={http}");
    let scene = Scene::new("tls-refused", &[&client_ca, &listen, "--log-level=info"]);
    for id in 0..5 {
        assert!(!is_served(&mut scene.connect_tls(9), id));
    }
    scene.program.await_log("refused TLS client");
    let log = scene.program.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("refused TLS client"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    let text = "INFO  refused TLS client 127.0.0.9: the peer sent no certificate (1 since the last report)";
    assert!(lines[0].ends_with(text), "{}", lines[0]);
    let line = "dotproxy_rejected_total{reason=\"client-certificate\"} 5\n";
    await_that("the counter has this value", || {
        metrics(http).contains(line)
    });
}
