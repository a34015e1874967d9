//! Simulations of the loop with an upstream that sends frames with a wrong length.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::wire::frame::Deframer;
use dotproxy::wire::{Header, Message, Rcode};

use crate::loop_simulation::reactor_in;
use crate::support::messages::{query, reply};
use crate::support::network::{Fate, Peers, StreamId, World};
use crate::support::{Chance, configured};

const CLIENT_SIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53);
const QUERIES: u16 = 400;
const GAP: Duration = Duration::from_millis(10);

/// The frames of the upstream.
#[derive(Clone, Copy)]
enum Frames {
    /// The length of every n-th frame differs from the length of its message by this number.
    WrongBy { bytes: i32, every: usize },
    /// Every frame is sent twice.
    Twice,
}

/// Clients, and an upstream with such frames.
struct Upstream {
    kind: Frames,
    /// Replies have an OPT record, which ends in zeros.
    has_opt: bool,
    connections: usize,
    frames: usize,
    deframers: BTreeMap<StreamId, Deframer>,
    /// The time of each query without a response, by the port of the client.
    asked: BTreeMap<u16, Instant>,
    longest: Duration,
    failed: usize,
}

impl Peers for Upstream {
    fn on_connect(&mut self, _: &mut World, _: StreamId, _: SocketAddr) -> Fate {
        self.connections += 1;
        Fate::Accepted
    }

    fn on_bytes(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {
        let mut deframer = self.deframers.remove(&stream).unwrap_or_default();
        let _ = deframer.feed(bytes, |query| {
            let bytes = self.reply(query);
            world.send(stream, Duration::from_millis(20), bytes);
            ControlFlow::Continue(())
        });
        self.deframers.insert(stream, deframer);
    }

    fn on_datagram(&mut self, world: &mut World, _: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let asked_at = self.asked.remove(&to.port());
        let asked_at = asked_at.expect("each query has one response");
        self.longest = self.longest.max(world.now - asked_at);
        let rcode = Header::parse(bytes).expect("a response").flags.rcode();
        self.failed += usize::from(rcode != Rcode::NOERROR);
    }
}

impl Upstream {
    /// Returns the bytes that answer a query.
    fn reply(&mut self, query: &[u8]) -> Vec<u8> {
        self.frames += 1;
        let mut reply = reply(query, 1);
        if !self.has_opt {
            let end = Message::parse(&reply).expect("well formed").records_end();
            reply.truncate(end);
            reply[11] = 0;
        }
        let wrong_by = match self.kind {
            Frames::WrongBy { bytes, every } if self.frames.is_multiple_of(every) => bytes,
            Frames::WrongBy { .. } | Frames::Twice => 0,
        };
        let length = i32::try_from(reply.len()).expect("a short reply") + wrong_by;
        let length = u16::try_from(length).expect("the length of a message");
        let frame = [&length.to_be_bytes()[..], &reply].concat();
        match self.kind {
            Frames::Twice => frame.repeat(2),
            Frames::WrongBy { .. } => frame,
        }
    }
}

/// The results of a run.
#[derive(Debug)]
struct Findings {
    failed: usize,
    /// The longest time from a query to its response.
    longest: Duration,
    /// The number of connections to the upstream.
    connections: usize,
}

/// Runs queries over four seconds.
fn run(kind: Frames, has_opt: bool) -> Findings {
    let mut world = World::new(Chance::new(7));
    let mut upstream = Upstream {
        kind,
        has_opt,
        connections: 0,
        frames: 0,
        deframers: BTreeMap::new(),
        asked: BTreeMap::new(),
        longest: Duration::ZERO,
        failed: 0,
    };
    for nth in 0..QUERIES {
        let after = Duration::from_secs(1) + GAP * u32::from(nth);
        let from = SocketAddr::from(([127, 0, 0, 1], 4_000 + nth));
        let bytes = query(nth, &format!("n{nth}.example"), 1, Some(1_232));
        world.send_datagram(from, CLIENT_SIDE, after, bytes);
        upstream.asked.insert(from.port(), world.now + after);
    }
    let config = configured(&["-utcp://192.0.2.1,domain=example"]);
    let mut reactor = reactor_in(world, upstream, &config, 7);
    while !reactor.net_mut().world.borrow().is_over {
        reactor.turn().expect("this poller does not fail");
    }
    let upstream = &reactor.net_mut().peers;
    assert!(upstream.asked.is_empty(), "queries have no response");
    Findings {
        failed: upstream.failed,
        longest: upstream.longest,
        connections: upstream.connections,
    }
}

#[test]
fn frame_of_wrong_length_fails_no_query_and_delays_few() {
    let short = [-1, -2, -5, -13, -20, -40];
    let long = [1, 2, 7, 13, 30, 100, 300, 2_000, 20_000];
    for every in [200, 50, 20] {
        for bytes in short.into_iter().chain(long) {
            for has_opt in [true, false] {
                let findings = run(Frames::WrongBy { bytes, every }, has_opt);
                let case = format!("every {every}, wrong by {bytes}, OPT {has_opt}: {findings:?}");
                assert_eq!(findings.failed, 0, "{case}");
                assert!(findings.longest < Duration::from_millis(200), "{case}");
                let most = 2 * usize::from(QUERIES) / every + 3;
                assert!(findings.connections <= most, "{case}");
            }
        }
    }
}

#[test]
fn repeated_replies_do_not_end_the_connection() {
    let healthy = Frames::WrongBy { bytes: 0, every: 1 };
    let connections = [healthy, Frames::Twice].map(|kind| run(kind, true).connections);
    assert_eq!(connections[0], connections[1]);
}
