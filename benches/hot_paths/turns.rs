//! Whole turns of the loop, over simulated sockets that always have queries and accept responses at
//! once.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use dotproxy::base::address::Address;
use dotproxy::base::arena::Key;
use dotproxy::base::time::Instant;
use dotproxy::net::{Event, Net};
use dotproxy::options::{self, Command};
use dotproxy::reactor::Reactor;
use dotproxy::session::Stream;
use dotproxy::session::client::datagram::{Datagram, Outgoing};
use dotproxy::tls;
use dotproxy::tls::clock::Clock;

use crate::Once;
use crate::messages::{query, reply};

/// The number of queries of a turn, less than the limit per turn.
pub(crate) const BURST: u32 = 63;

/// A network in which the same queries from eight clients arrive in every turn, and a plain
/// upstream replies at once.
struct Network {
    clients: Option<Key>,
    upstream: Option<Key>,
    now: Instant,
}

enum Socket {
    Clients { query: Vec<u8>, left: u32 },
    Upstream { answers: Vec<Vec<u8>> },
}

impl Datagram for Socket {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)> {
        let (message, port) = match self {
            Self::Clients { left: left @ 0, .. } => {
                *left = BURST;
                return Err(ErrorKind::WouldBlock.into());
            }
            Self::Clients { query, left } => {
                *left -= 1;
                (query.clone(), 4000 + left.trailing_zeros())
            }
            Self::Upstream { answers } => (answers.pop().ok_or(ErrorKind::WouldBlock)?, 53),
        };
        buffer[..message.len()].copy_from_slice(&message);
        let port = u16::try_from(port).expect("a small number");
        Ok((
            message.len(),
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            None,
        ))
    }

    fn send(&mut self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        if let Self::Upstream { answers } = self {
            answers.push(reply(datagrams[0].bytes, 1));
            return Ok(1);
        }
        let has_answer = |one: &Outgoing<'_>| one.bytes[7] == 1;
        assert!(datagrams.iter().all(has_answer));
        Ok(datagrams.len())
    }
}

/// A connection type that is never used.
struct Never;

impl Read for Never {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("the network has no connections")
    }
}

impl Write for Never {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        unreachable!("the network has no connections")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Never {}

impl Net for Network {
    type Stream = Never;
    type Listener = ();
    type Datagram = Socket;

    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Instant> {
        let keys = [self.clients, self.upstream];
        let keys = keys.into_iter().flatten();
        events.extend(keys.map(|key| Event::readable(key.token())));
        Ok(self.now)
    }

    fn pause(&mut self, _: Duration) {}

    fn bind(&mut self, _: SocketAddr, key: Key) -> io::Result<Socket> {
        self.clients = Some(key);
        Ok(Socket::Clients {
            query: query(1, "www.hot.example.net", 1, Some(1232)),
            left: BURST,
        })
    }

    fn watch_room(&mut self, _: &mut Socket, _: Key, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn listen(&mut self, _: SocketAddr, _: Key) -> io::Result<()> {
        Ok(())
    }

    fn accept(&mut self, (): &(), _: Key) -> io::Result<(Never, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect_datagram(&mut self, _: SocketAddr, key: Key) -> io::Result<Socket> {
        self.upstream = Some(key);
        let answers = Vec::new();
        Ok(Socket::Upstream { answers })
    }

    fn connect_local(&mut self, _: &Path, _: Key) -> io::Result<Never> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn connect(&mut self, _: SocketAddr, _: Key) -> io::Result<Never> {
        Err(ErrorKind::ConnectionRefused.into())
    }
}

/// Benchmarks answers from the cache.
pub(crate) fn cached() -> Once {
    turns(&[])
}

/// Benchmarks the same with a query log.
pub(crate) fn logged() -> Once {
    turns(&["--query-log", "/dev/null"])
}

fn turns(more: &[&str]) -> Once {
    // Replies of a plain upstream are cached like others.
    let arguments = [
        "-l127.0.0.1",
        "-uudp://192.0.2.1,domain=example.net",
        "-u192.0.2.2",
    ];
    let arguments = [&arguments, more].concat();
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let Ok(Command::Run(config)) = options::parse(&arguments) else {
        panic!("{arguments:?}");
    };
    let network = Network {
        clients: None,
        upstream: None,
        now: Instant::after_start(Duration::from_secs(100)),
    };
    let clock = Clock::new(None);
    let tls = tls::set_up(&config, &clock).expect("no TLS file can fail");
    let reactor = Reactor::new(network, &config, tls, clock, &[7; 32]);
    let mut reactor = reactor.expect("every simulated address is free");
    reactor.open_query_log().expect("/dev/null exists");
    // The reply arrives in the first turn.
    for _ in 0..3 {
        reactor.turn().expect("the simulated network has no errors");
    }
    Box::new(move || {
        reactor.turn().expect("the simulated network has no errors");
    })
}
