//! Scenarios of the loop with TCP, TLS and HTTP clients over a simulated network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::net::Signal;
use dotproxy::reactor::{Reactor, Turn};

use super::certificates::Authority;
use super::messages::query;
use super::network::{Peers, SimNet, StreamId, World};
use super::{Chance, configured};
use crate::loop_simulation::reactor_in;

const UPSTREAM: &str = "-u127.0.0.1:853";
pub const TLS_SIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8853);
pub const HTTP_SIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Peers that record the loop's operations on their connections.
#[derive(Default)]
struct Watchers {
    closed_at: BTreeMap<StreamId, Instant>,
    received: BTreeMap<StreamId, Vec<u8>>,
}

impl Peers for Watchers {
    fn on_bytes(&mut self, _: &mut World, stream: StreamId, bytes: &[u8]) {
        self.received.entry(stream).or_default().extend(bytes);
    }
    fn on_closed(&mut self, world: &mut World, stream: StreamId) {
        self.closed_at.insert(stream, world.now);
    }
}

/// A loop and its clients. Times are in seconds since the start of the simulation.
pub struct TcpScene {
    pub start: Instant,
    reactor: Box<Reactor<SimNet<Watchers>>>,
    ports: u16,
}

impl TcpScene {
    pub fn new(arguments: &[&str]) -> Self {
        let [certificate, key] = files();
        let mut all = vec![
            UPSTREAM.to_owned(),
            format!("--tls-listen={TLS_SIDE}"),
            format!("--tls-cert={}", certificate.display()),
            format!("--tls-key={}", key.display()),
            format!("--http-listen={HTTP_SIDE}"),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let world = World::new(Chance::new(7));
        let start = world.now;
        Self {
            start,
            reactor: reactor_in(world, Watchers::default(), &configured(&all), 7),
            ports: 0,
        }
    }

    pub fn world<T>(&mut self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.reactor.net_mut().world.borrow_mut())
    }

    fn after(&mut self, seconds: f64) -> Duration {
        let start = self.start;
        let at = start + Duration::from_secs_f64(seconds);
        self.world(|world| at - world.now)
    }

    /// Connects from 127.0.0.`host` at this second.
    pub fn connect(&mut self, seconds: f64, host: u8, to: SocketAddr) -> StreamId {
        self.ports += 1;
        let from = SocketAddr::from(([127, 0, 0, host], 5000 + self.ports));
        let after = self.after(seconds);
        self.world(|world| world.connect(from, to, after, 60_000))
    }

    pub fn connect_tcp(&mut self, seconds: f64, host: u8) -> StreamId {
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
        self.connect(seconds, host, everywhere)
    }

    pub fn send(&mut self, seconds: f64, stream: StreamId, bytes: &[u8]) {
        let after = self.after(seconds);
        self.world(|world| world.send(stream, after, bytes.to_vec()));
    }

    /// Ends the stream of a client at this second.
    pub fn end(&mut self, seconds: f64, stream: StreamId) {
        let after = self.after(seconds);
        self.world(|world| world.end(stream, after));
    }

    /// Raises a signal at this second.
    pub fn signal(&mut self, seconds: f64, signal: Signal) {
        let after = self.after(seconds);
        self.world(|world| world.signal(after, signal));
    }

    /// Runs one turn of the loop.
    pub fn turn(&mut self) -> Turn {
        self.reactor.turn().expect("this poller does not fail")
    }

    /// Runs the loop until this second.
    pub fn run_until(&mut self, seconds: f64) {
        let after = self.after(seconds);
        self.world(|world| world.remind(after, 0));
        let end = self.start + Duration::from_secs_f64(seconds);
        let mut turns = 0;
        while self.world(|world| world.now < end) {
            self.turn();
            turns += 1;
            assert!(turns < 100_000, "the loop does not come to rest");
        }
    }

    /// Returns the second at which the loop closed a connection.
    pub fn closed_at(&mut self, stream: StreamId) -> Option<f64> {
        let start = self.start;
        let closed_at = &self.reactor.net_mut().peers.closed_at;
        closed_at.get(&stream).map(|at| (*at - start).as_secs_f64())
    }

    pub fn received(&mut self, stream: StreamId) -> Vec<u8> {
        let received = &self.reactor.net_mut().peers.received;
        received.get(&stream).cloned().unwrap_or_default()
    }
}

/// Returns the paths of the certificate and its key.
fn files() -> &'static [PathBuf; 2] {
    static FILES: OnceLock<(Authority, [PathBuf; 2])> = OnceLock::new();
    let make = || {
        let authority = Authority::new("client-limits");
        let files = authority.server_files();
        (authority, files)
    };
    &FILES.get_or_init(make).1
}

/// Returns a message with its length in front.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    dotproxy::wire::frame::write(&mut bytes, message);
    bytes
}

/// Returns a query that is answered at once, because its opcode is not implemented.
pub fn question(id: u16) -> Vec<u8> {
    let mut bytes = query(id, "www.example", 1, None);
    bytes[2] = 2 << 3;
    framed(&bytes)
}
