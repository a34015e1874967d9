//! Upstreams in the clear: what is sent to them, and what is believed of them.

use std::collections::HashSet;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dotproxy::wire::{Flags, Message};

use crate::support::messages::{check_response, query, reply};
use crate::support::program::{Program, free_port, read_framed, send_framed};

/// What a server in the clear does with a query.
#[derive(Clone, Copy)]
enum Manner {
    Answers,
    /// Sends what it should not, each time as something else, and then the answer.
    LiesFirst,
    /// Lets every query come twice.
    LosesFirst,
    /// Cuts answers in datagrams short; on connections it answers.
    Cuts,
}

/// A server of the tests' own.
struct Server {
    address: SocketAddr,
    /// Where each query came from, and the query.
    seen: Receiver<(SocketAddr, Vec<u8>)>,
}

impl Server {
    fn start(manner: Manner) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let socket = UdpSocket::bind(address).expect("a free port");
        let listener = TcpListener::bind(address).expect("a free port");
        let (sender, seen) = channel();
        let on_connections = sender.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                while let Ok(query) = read_framed(&mut stream) {
                    let peer = stream.peer_addr().expect("it is connected");
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
                match manner {
                    Manner::LosesFirst if is_new => continue,
                    Manner::LiesFirst => lies(&right, peer).iter().for_each(|lie| send(lie)),
                    Manner::Cuts => {
                        let mut cut = reply(&query, 0);
                        cut[2] |= 2;
                        send(&cut);
                        continue;
                    }
                    Manner::Answers | Manner::LosesFirst => {}
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

/// What an impostor, or a broken server, may send before the answer.
fn lies(right: &[u8], peer: SocketAddr) -> Vec<Vec<u8>> {
    let mut lies = vec![right.to_vec(); 4];
    lies[0][0] ^= 0x55;
    lies[1][13] ^= 1;
    lies[2][2] &= 0x7f;
    lies[3][2] ^= 0x10;
    for lie in &mut lies {
        let end = lie.len() - 1;
        lie[end] ^= 1;
    }
    // The right answer, but from elsewhere.
    let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let _ = elsewhere.send_to(right, peer);
    lies.push(vec![0; 3]);
    lies
}

fn program(server: &Server) -> Program {
    Program::start(&[
        // Nobody is there, and nobody should be asked.
        format!("--upstream=127.0.0.1:{}", free_port()),
        format!("--upstream=udp://{},domain=corp.example", server.address),
    ])
}

#[test]
fn every_query_has_a_port_and_an_id_that_nobody_foresees() {
    let server = Server::start(Manner::Answers);
    let program = program(&server);
    for id in 0..300 {
        let query = query(id, "www.Corp.example", 1, None);
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }
    let seen = server.seen();
    // One whose answer is delayed is sent again.
    assert!(seen.len() >= 300, "{} queries", seen.len());
    let ports: HashSet<u16> = seen.iter().map(|(peer, _)| peer.port()).collect();
    let ids: HashSet<[u8; 2]> = seen.iter().map(|(_, query)| [query[0], query[1]]).collect();
    // Of 300 draws from 28,000 ports one or two repeat.
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
fn what_does_not_answer_the_query_is_not_believed() {
    let server = Server::start(Manner::LiesFirst);
    let program = program(&server);
    for id in 0..20 {
        let query = query(id, "www.corp.example", 1, Some(1232));
        let start = Instant::now();
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
        // Where a busy machine delays the answer, the query is sent again.
        let sent = server.seen().len();
        let is_quick = start.elapsed() < Duration::from_millis(50);
        assert!(sent == 1 || !is_quick, "query {id} is sent {sent} times");
    }
}

#[test]
fn query_that_gets_lost_is_sent_again_from_another_port() {
    let server = Server::start(Manner::LosesFirst);
    let program = program(&server);
    for name in ["a.corp.example", "b.corp.example", "c.corp.example"] {
        let query = query(7, name, 1, Some(1232));
        let response = program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
        // Silence is also tested with queries for the domain itself.
        let mut seen = server.seen();
        seen.retain(|(_, query)| {
            let question = Message::parse(query).expect("well formed").question();
            question.expect("a question").to_string() != "corp.example. NS"
        });
        assert!(seen.len() >= 2, "it is lost once");
        assert_ne!(seen[0].0, seen[1].0, "the same port");
        assert_ne!(seen[0].1[..2], seen[1].1[..2], "the same id");
    }
}

#[test]
fn answer_that_does_not_fit_comes_on_a_connection() {
    let server = Server::start(Manner::Cuts);
    let program = program(&server);
    let query = query(7, "www.corp.example", 1, Some(1232));
    for over_tcp in [true, false] {
        let response = if over_tcp {
            let mut stream = program.connect();
            send_framed(&mut stream, std::slice::from_ref(&query)).expect("it reads");
            read_framed(&mut stream).expect("a response")
        } else {
            program.ask(&query).expect("a response")
        };
        assert!(check_response(&query, &response));
        let header = Message::parse(&response).expect("whole").header();
        assert_eq!(header.answers, 60);
        assert!(!header.flags.contains(Flags::TC));
    }
}

#[test]
fn connection_in_the_clear_is_opened_when_it_is_needed_and_kept() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let program = Program::start(&[format!("--upstream=tcp://{address},domain=corp.example")]);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        for _ in 0..3 {
            let query = read_framed(&mut stream).expect("a query");
            send_framed(&mut stream, &[reply(&query, 1)]).expect("it reads");
        }
        // Whatever else is sent would be read now.
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
    assert!(!check_response(&other, &response), "it is nobody's");
    assert!(server.join().expect("it served"), "more was sent");
}
