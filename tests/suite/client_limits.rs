//! Scenarios of the loop with TCP and TLS clients that take more than their share of connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::net::Signal;
use dotproxy::reactor::Turn;

use nix::libc::{EACCES, ECONNABORTED, EINVAL, EMFILE, ENOSYS, EOPNOTSUPP, EPERM};

use crate::loop_simulation::client_hello;
use crate::support::messages::query;
use crate::support::tcp_scene::{HTTP_SIDE, TLS_SIDE, TcpScene, framed, question};

/// Returns a message with the QR bit of a response.
fn response() -> Vec<u8> {
    let mut bytes = query(1, "www.example", 1, None);
    bytes[2] |= 0x80;
    framed(&bytes)
}

#[test]
fn messages_other_than_queries_do_not_extend_the_idle_timeout() {
    for message in [framed(b""), framed(b"x"), framed(&[0; 11]), response()] {
        let mut scene = TcpScene::new(&[]);
        let stream = scene.connect_tcp(0.0, 1);
        for nth in 0..20_u8 {
            scene.send(4.0 * f64::from(nth), stream, &message);
        }
        scene.run_until(40.0);
        let closed_at = scene
            .closed_at(stream)
            .expect("the loop closed the connection");
        assert!((9.9..10.2).contains(&closed_at), "{closed_at}, {message:?}");
    }
}

#[test]
fn message_sent_byte_by_byte_does_not_extend_the_idle_timeout() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect_tcp(0.0, 1);
    for (nth, byte) in (0..20_u8).zip(question(1)) {
        scene.send(4.0 * f64::from(nth), stream, &[byte]);
    }
    scene.run_until(40.0);
    let closed_at = scene
        .closed_at(stream)
        .expect("the loop closed the connection");
    assert!((9.9..10.2).contains(&closed_at), "{closed_at}");
}

#[test]
fn queries_extend_the_idle_timeout() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect_tcp(0.0, 1);
    for nth in 0..10_u8 {
        scene.send(
            6.0 * f64::from(nth),
            stream,
            &[&framed(b""), &question(1)[..]].concat(),
        );
    }
    scene.run_until(60.0);
    assert_eq!(scene.closed_at(stream), None);
    scene.run_until(70.0);
    let closed_at = scene
        .closed_at(stream)
        .expect("the loop closed the connection");
    assert!((63.9..64.2).contains(&closed_at), "{closed_at}");
}

#[test]
fn connection_is_closed_after_several_messages_other_than_queries() {
    for message in [framed(b""), framed(b"x"), response()] {
        let mut scene = TcpScene::new(&[]);
        let stream = scene.connect_tcp(0.0, 1);
        scene.send(
            1.0,
            stream,
            &[&question(1)[..], &message.repeat(100)].concat(),
        );
        scene.run_until(2.0);
        let closed_at = scene
            .closed_at(stream)
            .expect("the loop closed the connection");
        assert!(closed_at < 1.1, "{closed_at}, {message:?}");
        assert_eq!(
            scene.received(stream)[2..4],
            [0, 1],
            "the query is answered"
        );
    }
}

#[test]
fn flood_of_messages_other_than_queries_does_not_occupy_the_loop() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect_tcp(0.0, 1);
    scene.run_until(0.5);
    for millisecond in 0..1_000_u16 {
        let at = 1.0 + f64::from(millisecond) / 1000.0;
        scene.send(at, stream, &[0; 2_000]);
    }
    scene.run_until(3.0);
    assert!(scene.closed_at(stream).is_some_and(|at| at < 1.1));
}

#[test]
fn tls_handshake_has_a_timeout_also_while_it_waits_for_the_proxy() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect(0.0, 1, TLS_SIDE);
    scene.run_until(0.5);
    // Each byte arrives in the turn that looks for idle clients.
    for (nth, byte) in (1..8_u8).zip(client_hello()) {
        scene.send(10.0 * f64::from(nth), stream, &[byte]);
    }
    scene.run_until(65.0);
    let closed_at = scene
        .closed_at(stream)
        .expect("the loop closed the connection");
    assert!((9.9..10.5).contains(&closed_at), "{closed_at}");
}

#[test]
fn http_client_that_sends_its_request_byte_by_byte_is_closed() {
    let mut scene = TcpScene::new(&[]);
    let stream = scene.connect(0.0, 1, HTTP_SIDE);
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: bcdefghijklmnopqrstuvwxyz";
    for (nth, byte) in (0_u8..).zip(request) {
        scene.send(5.0 * f64::from(nth), stream, &[*byte]);
    }
    scene.run_until(200.0);
    let closed_at = scene
        .closed_at(stream)
        .expect("the loop closed the connection");
    assert!(closed_at < 10.2, "{closed_at}");
}

#[test]
fn http_client_without_a_request_is_closed_as_early_as_a_dns_client() {
    let mut scene = TcpScene::new(&[]);
    let silent = scene.connect(0.0, 1, HTTP_SIDE);
    let part = scene.connect(0.0, 1, HTTP_SIDE);
    scene.send(5.0, part, b"GET /healthz HT");
    // A monitor keeps its connection from one scrape to the next.
    let monitor = scene.connect(0.0, 1, HTTP_SIDE);
    for nth in 0..3_u8 {
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        scene.send(5.0 + 60.0 * f64::from(nth), monitor, request);
    }
    scene.run_until(150.0);
    for stream in [silent, part] {
        let closed_at = scene.closed_at(stream);
        let closed_at = closed_at.expect("the loop closed the connection");
        assert!((9.9..10.2).contains(&closed_at), "{closed_at}");
    }
    assert_eq!(scene.closed_at(monitor), None);
    scene.run_until(210.0);
    let closed_at = scene.closed_at(monitor);
    let closed_at = closed_at.expect("the loop closed the connection");
    assert!((199.9..200.2).contains(&closed_at), "{closed_at}");
}

#[test]
fn longest_idle_connection_of_the_largest_client_is_replaced() {
    let mut scene = TcpScene::new(&["--max-tcp-clients=8"]);
    let many: Vec<_> = (0..5).map(|_| scene.connect_tcp(0.0, 1)).collect();
    let few: Vec<_> = (0..3).map(|_| scene.connect_tcp(0.0, 2)).collect();
    // All connections are active; those of the other address are active half as often.
    for tenth in 0..30_u8 {
        for (nth, stream) in (0_u8..).zip(many.iter().chain(&few)) {
            if nth < 5 || tenth % 2 == 0 {
                let place = if nth == 3 {
                    0.001
                } else {
                    0.01 + f64::from(nth) / 1000.0
                };
                scene.send(f64::from(tenth) / 10.0 + place, *stream, &question(1));
            }
        }
    }
    // At this time, the connections of the other address are idle for longest.
    let newcomer = scene.connect_tcp(2.15, 3);
    scene.send(2.16, newcomer, &question(77));
    scene.run_until(2.9);
    assert_eq!(
        scene.received(newcomer)[2..4],
        [0, 77],
        "the new client is served"
    );
    let closed: Vec<_> = many
        .iter()
        .chain(&few)
        .map(|it| scene.closed_at(*it))
        .collect();
    let gone: Vec<_> = (0..8).filter(|nth| closed[*nth].is_some()).collect();
    assert_eq!(gone, [3], "{closed:?}");
}

#[test]
fn two_addresses_with_all_connections_do_not_exclude_another_client() {
    for side in [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53)), HTTP_SIDE] {
        let mut scene = TcpScene::new(&["--max-tcp-clients=16"]);
        let get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        let ask = if side == HTTP_SIDE { get } else { question(5) };
        let held: Vec<_> = (0..16)
            .map(|nth| scene.connect(0.0, 1 + nth % 2, side))
            .collect();
        for tenth in 0..50_u8 {
            for stream in &held {
                scene.send(f64::from(tenth) / 10.0, *stream, &ask);
            }
        }
        // Each closed connection is opened again at once.
        for tenth in 10..50_u8 {
            scene.connect(f64::from(tenth) / 10.0, 1 + tenth % 2, side);
        }
        let others: Vec<_> = (0..5)
            .map(|nth| scene.connect(2.0, 10 + nth, side))
            .collect();
        for stream in &others {
            scene.send(2.15, *stream, &ask);
        }
        scene.run_until(5.0);
        for stream in others {
            assert!(!scene.received(stream).is_empty(), "{side}");
        }
    }
}

#[test]
fn refused_clients_close_no_connection() {
    let mut scene = TcpScene::new(&["--max-tcp-clients=4", "--deny=127.0.0.9"]);
    let held: Vec<_> = (0..4)
        .map(|nth| scene.connect_tcp(0.0, 1 + nth % 2))
        .collect();
    for tenth in 0..10_u8 {
        for stream in &held {
            scene.send(f64::from(tenth) / 10.0, *stream, &question(1));
        }
    }
    let denied = scene.connect_tcp(0.5, 9);
    scene.run_until(0.95);
    assert!(scene.closed_at(denied).is_some());
    for stream in held {
        assert_eq!(scene.closed_at(stream), None);
    }
}

#[test]
fn lasting_error_of_accept_pauses_the_loop_and_does_not_block_shutdown() {
    for errno in [
        EPERM,
        EACCES,
        ENOSYS,
        EINVAL,
        EMFILE,
        // ECONNABORTED concerns one connection, but is returned without end.
        ECONNABORTED,
        EOPNOTSUPP,
        9_999,
    ] {
        let mut scene = TcpScene::new(&["--timeout=2s"]);
        scene.world(|world| world.accept_error = Some(errno));
        scene.connect_tcp(1.0, 1);
        let mut turns = 0;
        scene.world(|world| world.remind(Duration::from_secs(11), 0));
        let end = scene.start + Duration::from_secs(11);
        while scene.world(|world| world.now < end) {
            scene.turn();
            turns += 1;
            assert!(turns < 300, "the loop does not pause, error {errno}");
        }
        scene.world(|world| world.signal(Duration::ZERO, Signal::Finish));
        let mut turn = Turn::GoOn;
        while turn != Turn::Finished {
            turn = scene.turn();
            turns += 1;
            assert!(turns < 400, "the loop does not end, error {errno}");
        }
    }
}

#[test]
fn endless_connections_do_not_block_shutdown() {
    let mut scene = TcpScene::new(&[]);
    scene.run_until(0.5);
    scene.world(|world| world.accepts_for_ever = true);
    scene.world(|world| world.signal(Duration::from_secs(1), Signal::Finish));
    let mut turns = 0;
    while scene.turn() != Turn::Finished {
        turns += 1;
        assert!(turns < 1_000, "the loop does not end");
    }
}
