//! Plain upstreams: the queries that they receive and the replies that the proxy accepts.

use std::collections::HashSet;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dotproxy::wire::{Flags, Message};

use crate::support::messages::{check_response, query, reply};
use crate::support::program::{Program, free_port, read_framed, send_framed};

/// The behaviour of a plain server.
#[derive(Clone, Copy)]
enum Behaviour {
    Answers,
    /// Sends invalid replies of several kinds, and then the answer.
    ForgesFirst,
    /// Drops the first query for each name.
    LosesFirst,
    /// Truncates answers in datagrams and sends whole answers on connections.
    Cuts,
}

/// A plain server.
struct Server {
    address: SocketAddr,
    /// Each query with the address that it came from.
    seen: Receiver<(SocketAddr, Vec<u8>)>,
}

impl Server {
    fn start(behaviour: Behaviour) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let socket = UdpSocket::bind(address).expect("a free port");
        let listener = TcpListener::bind(address).expect("a free port");
        let (sender, seen) = channel();
        let on_connections = sender.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                while let Ok(query) = read_framed(&mut stream) {
                    let peer = stream.peer_addr().expect("the socket is connected");
                    let _ = on_connections.send((peer, query.clone()));
                    let _ = send_framed(&mut stream, &[reply(&query, 60)]);
                }
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            let mut names = HashSet::new();
            while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                let query = buffer[..len].to_vec();
                if sender.send((peer, query.clone())).is_err() {
                    return;
                }
                let message = Message::parse(&query).expect("well formed");
                let name = message.question().expect("a question").name().to_vec();
                let is_new = names.insert(name);
                let right = reply(&query, 1);
                let send = |message: &[u8]| drop(socket.send_to(message, peer));
                match behaviour {
                    Behaviour::LosesFirst if is_new => continue,
                    Behaviour::ForgesFirst => forged_replies(&right, peer)
                        .iter()
                        .for_each(|forged| send(forged)),
                    Behaviour::Cuts => {
                        let mut cut = reply(&query, 0);
                        cut[2] |= 2;
                        send(&cut);
                        continue;
                    }
                    Behaviour::Answers | Behaviour::LosesFirst => {}
                }
                send(&right);
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.seen.try_iter().collect()
    }
}

/// Returns replies that an attacker or a broken server may send before the answer.
fn forged_replies(right: &[u8], peer: SocketAddr) -> Vec<Vec<u8>> {
    let mut forged_replies = vec![right.to_vec(); 4];
    forged_replies[0][0] ^= 0x55;
    forged_replies[1][13] ^= 1;
    forged_replies[2][2] &= 0x7f;
    forged_replies[3][2] ^= 0x10;
    for forged in &mut forged_replies {
        let end = forged.len() - 1;
        forged[end] ^= 1;
    }
    // The right answer, from another address.
    let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let _ = elsewhere.send_to(right, peer);
    forged_replies.push(vec![0; 3]);
    forged_replies
}

fn program(server: &Server) -> Program {
    Program::start(&[
        // No server listens on this address, and it must receive no query.
        format!("--upstream=127.0.0.1:{}", free_port()),
        format!("--upstream=udp://{},domain=corp.example", server.address),
    ])
}

#[test]
fn every_query_has_an_unpredictable_port_and_id() {
    let server = Server::start(Behaviour::Answers);
    let program = program(&server);
    for id in 0..300 {
        let query = query(id, "www.Corp.example", 1, None);
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }
    let seen = server.seen();
    // The proxy retries a query when its answer is delayed.
    assert!(seen.len() >= 300, "{} queries", seen.len());
    let ports: HashSet<u16> = seen.iter().map(|(peer, _)| peer.port()).collect();
    let ids: HashSet<[u8; 2]> = seen.iter().map(|(_, query)| [query[0], query[1]]).collect();
    // Among 300 random draws from 28,000 ports, one or two repeat.
    assert!(ports.len() > 285, "{} ports", ports.len());
    assert!(ids.len() > 285, "{} ids", ids.len());
    for (_, query) in seen {
        let message = Message::parse(&query).expect("well formed");
        let name = message.question().expect("a question").name();
        assert_eq!(name, b"\x03www\x04Corp\x07example\0");
        assert_eq!(message.opt().map(|opt| opt.options().count()), Some(0));
    }
}

#[test]
fn reply_that_does_not_match_the_query_is_dropped() {
    let server = Server::start(Behaviour::ForgesFirst);
    let program = program(&server);
    for id in 0..20 {
        let query = query(id, "www.corp.example", 1, Some(1232));
        let start = Instant::now();
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
        // If a busy machine delays the answer, the query is retried.
        let sent = server.seen().len();
        let is_quick = start.elapsed() < Duration::from_millis(50);
        assert!(sent == 1 || !is_quick, "query {id} is sent {sent} times");
    }
}

#[test]
fn lost_query_is_retried_from_another_port() {
    let server = Server::start(Behaviour::LosesFirst);
    let program = program(&server);
    for name in ["a.corp.example", "b.corp.example", "c.corp.example"] {
        let query = query(7, name, 1, Some(1232));
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
        // After silence, probes for the domain itself are also sent.
        let mut seen = server.seen();
        seen.retain(|(_, query)| {
            let question = Message::parse(query).expect("well formed").question();
            question.expect("a question").to_string() != "corp.example. NS"
        });
        assert!(seen.len() >= 2, "the first query is lost");
        assert_ne!(seen[0].0, seen[1].0, "the same port");
        assert_ne!(seen[0].1[..2], seen[1].1[..2], "the same id");
    }
}

#[test]
fn truncated_answer_is_fetched_over_tcp() {
    let server = Server::start(Behaviour::Cuts);
    let program = program(&server);
    let query = query(7, "www.corp.example", 1, Some(1232));
    for over_tcp in [true, false] {
        let response = if over_tcp {
            let mut stream = program.connect();
            send_framed(&mut stream, std::slice::from_ref(&query)).expect("the peer reads");
            read_framed(&mut stream).expect("a response")
        } else {
            program.ask(&query).expect("a response")
        };
        assert!(check_response(&query, &response));
        let header = Message::parse(&response)
            .expect("a well-formed message")
            .header();
        assert_eq!(header.answers, 60);
        assert!(!header.flags.contains(Flags::TC));
    }
}

#[test]
fn plain_connection_is_opened_on_demand_and_reused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("the socket is bound");
    let program = Program::start(&[format!("--upstream=tcp://{address},domain=corp.example")]);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        for _ in 0..3 {
            let query = read_framed(&mut stream).expect("a query");
            send_framed(&mut stream, &[reply(&query, 1)]).expect("the peer reads");
        }
        // This read would return any further bytes.
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        stream.read(&mut [0; 1]).is_err()
    });
    for id in 0..3 {
        let query = query(id, "www.corp.example", 1, Some(1232));
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }
    let other = query(9, "www.example", 1, Some(1232));
    let response = program.ask(&other).expect("a response");
    assert!(
        !check_response(&other, &response),
        "a name without a route has an answer"
    );
    assert!(
        server.join().expect("the server does not panic"),
        "the connection has further data"
    );
}
