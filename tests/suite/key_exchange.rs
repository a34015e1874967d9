//! The post-quantum key exchange, as an upstream and as a client sees it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustls::crypto::SupportedKxGroup;
use rustls::version::TLS13;
use rustls::{HandshakeKind, NamedGroup, ServerConnection};

use crate::support::certificates::{Authority, Flaw};
use crate::support::http::metrics;
use crate::support::program::{PATIENCE, Program, connect_from, free_port};

/// The number of X25519MLKEM768, and the lengths of its shares.
const HYBRID: [u8; 2] = [0x11, 0xec];
const CLIENT_SHARE_LEN: [u8; 2] = 1_216_u16.to_be_bytes();
const SERVER_SHARE_LEN: [u8; 2] = 1_120_u16.to_be_bytes();

/// Returns the record with the `ClientHello` of a program with these arguments.
fn client_hello(arguments: &[&str]) -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("the listener has an address");
    let mut all = vec![format!("--upstream={address}")];
    all.extend(arguments.iter().map(ToString::to_string));
    let _program = Program::start(&all);
    let (mut stream, _) = listener
        .accept()
        .expect("the program connects at its start");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    read_record(&mut stream)
}

/// Reads a TLS record.
fn read_record(stream: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).expect("a record");
    let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + len, 0);
    stream.read_exact(&mut record[5..]).expect("a record");
    record
}

/// Returns the position of these bytes.
fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// A program that serves clients over TLS.
struct Server {
    authority: Authority,
    address: SocketAddr,
    program: Program,
}

impl Server {
    fn start(label: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(label);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let [certificate, key] = authority.server_files();
        let mut all = vec![
            "--upstream=192.0.2.1".to_owned(),
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
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = connect_from(Ipv4Addr::LOCALHOST, self.address);
        stream.set_nodelay(true).expect("a TCP socket");
        stream
    }
}

#[test]
fn hello_in_two_pieces_is_answered_wherever_it_is_cut() {
    let hello = client_hello(&[]);
    assert!(hello.len() > 1_300, "{} bytes", hello.len());
    let server = Server::start("hello-pieces", &[]);
    let share = [&[0, 0x33, 4, 0x64][..], &HYBRID, &SERVER_SHARE_LEN].concat();
    for cut in 1..hello.len() {
        let mut stream = server.connect();
        stream
            .write_all(&hello[..cut])
            .expect("the program listens");
        server.program.await_reading();
        stream.write_all(&hello[cut..]).expect("the program reads");
        let reply = read_record(&mut stream);
        assert!(find(&reply, &share).is_some(), "cut at {cut}: {reply:?}");
    }
}

#[test]
fn invalid_share_ends_in_an_alert() {
    let hello = client_hello(&[]);
    let share = [&HYBRID[..], &CLIENT_SHARE_LEN].concat();
    let start = find(&hello, &share).expect("the hello has a hybrid share") + share.len();
    let server = Server::start("hello-invalid", &[]);
    // The first and the last coefficients of the encapsulation key, and an X25519 key of low order.
    for (part, byte) in [(0..3, 0xff), (1_149..1_152, 0xff), (1_184..1_216, 0)] {
        let mut hello = hello.clone();
        hello[start..][part].fill(byte);
        let mut stream = server.connect();
        stream.write_all(&hello).expect("the program listens");
        // Fatal, illegal_parameter.
        assert_eq!(read_record(&mut stream), [21, 3, 3, 0, 2, 2, 47]);
        let end = stream.read(&mut [0]).map_err(|error| error.kind());
        assert!(
            matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
            "{end:?}"
        );
    }
    server.program.await_log("misbehaved");
}

#[test]
fn server_without_the_group_needs_no_additional_round_trip() {
    let authority = Authority::new("hello-classic");
    for (arguments, has_hybrid) in [(&[][..], true), (&["--key-exchange=classic"], false)] {
        let hello = client_hello(arguments);
        assert_eq!(find(&hello, &HYBRID).is_some(), has_hybrid);
        // A segment of Ethernet, with IPv6 and a time stamp.
        assert_eq!(hello.len() > 1_428, has_hybrid, "{} bytes", hello.len());
        let mut server =
            ServerConnection::new(authority.server(Flaw::None, &[&TLS13])).expect("a server");
        server
            .read_tls(&mut &hello[..])
            .expect("the memory is readable");
        server.process_new_packets().expect("the hello is accepted");
        let mut flight = Vec::new();
        server
            .write_tls(&mut flight)
            .expect("the memory is writable");
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        let group = server
            .negotiated_key_exchange_group()
            .map(SupportedKxGroup::name);
        assert_eq!(group, Some(NamedGroup::X25519));
    }
}

#[test]
fn group_is_in_the_log_and_the_metrics() {
    for (of_server, of_client, group) in [
        ("hybrid", "hybrid", "X25519MLKEM768"),
        ("hybrid", "classic", "X25519"),
        ("classic", "hybrid", "X25519"),
    ] {
        let server = Server::start("group", &[&format!("--key-exchange={of_server}")]);
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let program = Program::start(&[
            format!("--upstream={}", server.address),
            format!("--ca-file={}", server.authority.ca_file.display()),
            format!("--key-exchange={of_client}"),
            format!("--http-listen={http}"),
        ]);
        program.await_log(&format!("(TLS 1.3, {group}, certificate valid "));
        let text = metrics(http);
        let upstream = server.address;
        let line = format!(
            "\ndotproxy_upstream_key_exchange{{upstream=\"{upstream}\",group=\"{group}\"}} 1\n"
        );
        assert!(text.contains(&line), "{of_server}, {of_client}: {text}");
    }
}
