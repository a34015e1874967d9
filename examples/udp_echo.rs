//! The minimum cost of a query: a loop like dotproxy's that sends every datagram back as a response
//! and does nothing else. `scripts/bench.py` runs it for comparison.
//!
//! `udp_echo PORT` listens on that port of 127.0.0.1.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use dotproxy::wire::header::HEADER_LEN;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| io::Error::other("expected a port"))?;
    let mut socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut socket, Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(1);
    let mut buffer = [0; 4096];
    loop {
        poll.poll(&mut events, None)?;
        while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
            if len >= HEADER_LEN {
                // A response with one answer in its header.
                buffer[2] |= 0x80;
                buffer[7] = 1;
                // A datagram that does not fit is lost, as on any network.
                let _ = socket.send_to(&buffer[..len], peer);
            }
        }
    }
}
