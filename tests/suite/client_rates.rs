//! Scenarios of the loop with clients on connections that exceed `--rate-limit`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::options::{self, Command};
use dotproxy::reactor::Reactor;
use dotproxy::tls;
use dotproxy::tls::clock::Clock;
use dotproxy::wire::{Header, Message, Rcode};

use crate::support::Chance;
use crate::support::messages::query;
use crate::support::network::{Peers, SimNet, StreamId, World};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53);

/// A TCP client that pipelines its queries and reads the responses.
#[derive(Default)]
struct Client {
    received: Vec<u8>,
    /// The time of each response.
    responses: Vec<Instant>,
}

#[derive(Default)]
struct Clients {
    client_by_stream: BTreeMap<StreamId, Client>,
}

impl Peers for Clients {
    fn on_bytes(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {
        let client = self.client_by_stream.get_mut(&stream);
        let client = client.expect("only clients are written to");
        client.received.extend(bytes);
        while let [high, low, rest @ ..] = &client.received[..]
            && let len = usize::from(u16::from_be_bytes([*high, *low]))
            && let Some(message) = rest.get(..len)
        {
            let header = Header::parse(message).expect("a response");
            assert_eq!(header.flags.rcode(), Rcode::NOERROR, "no query fails");
            client.responses.push(world.now);
            client.received.drain(..len + 2);
        }
    }
    /// Answers a query of the proxy as the upstream.
    fn on_datagram(&mut self, world: &mut World, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let end = Message::parse(bytes).expect("a query").records_start();
        let mut reply = bytes[..end].to_vec();
        (reply[2], reply[3], reply[11]) = (0x81, 0x80, 0);
        world.send_datagram(to, from, Duration::from_millis(1), reply);
    }
}

/// A simulated network with clients, and the proxy with a rate limit.
struct Scene {
    world: World,
    peers: Clients,
}

impl Scene {
    fn new() -> Self {
        Self {
            world: World::new(Chance::new(7)),
            peers: Clients::default(),
        }
    }

    /// Connects a client after a delay and sends this number of queries for different names.
    fn connect(&mut self, from: SocketAddr, after: Duration, queries: u16) -> StreamId {
        let stream = self.world.connect(from, SERVER, after, 60_000);
        let mut bytes = Vec::new();
        for id in 0..queries {
            let query = query(id, &format!("n{id}-{}.example", from.port()), 1, None);
            let len = u16::try_from(query.len()).expect("a query is short");
            bytes.extend(len.to_be_bytes());
            bytes.extend(query);
        }
        self.world
            .send(stream, after + Duration::from_millis(5), bytes);
        let clients = &mut self.peers.client_by_stream;
        clients.insert(stream, Client::default());
        stream
    }

    /// Runs until no event is left. Returns the responses of each client.
    fn run(self, rate: &str) -> BTreeMap<StreamId, Vec<Instant>> {
        let upstream = "-uudp://192.0.2.1,domain=example".to_owned();
        let arguments = [upstream, format!("--rate-limit={rate}")];
        let Ok(Command::Run(config)) = options::parse(&arguments) else {
            panic!("the options are right");
        };
        let net = SimNet::new(self.world, self.peers);
        let tls = tls::set_up(&config, &Clock::new(None)).expect("no files are named");
        let reactor = Reactor::new(net, &config, tls, Clock::new(None), &[7; 32]);
        let mut reactor = reactor.expect("addresses to listen on");
        let mut turns = 0;
        while !reactor.net_mut().world.borrow().is_over {
            reactor.turn().expect("this poller does not fail");
            turns += 1;
            assert!(turns < 20_000, "the loop does not come to rest");
        }
        assert_eq!(reactor.held(), 0);
        let clients = std::mem::take(&mut reactor.net_mut().peers.client_by_stream);
        let responses = |(stream, client): (StreamId, Client)| (stream, client.responses);
        clients.into_iter().map(responses).collect()
    }
}

fn from(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, host], port))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn client_over_its_rate_is_read_at_its_rate() {
    let mut scene = Scene::new();
    let fast = scene.connect(from(2, 5000), seconds(1), 105);
    let other = scene.connect(from(3, 5000), seconds(3), 5);
    let responses = scene.run("10/5");
    // Five queries at once and a hundred at ten per second take longer than any deadline of a
    // query.
    let fast = &responses[&fast];
    assert_eq!(fast.len(), 105, "every query is answered");
    let took = fast[104] - fast[4];
    // The first answers may take some milliseconds longer than the last one.
    let least = Duration::from_millis(9_990);
    assert!((least..seconds(11)).contains(&took), "{took:?}");
    let other = &responses[&other];
    assert_eq!(other.len(), 5);
    assert!(other[4] - other[0] < Duration::from_millis(10));
}

#[test]
fn connections_of_a_client_share_its_rate() {
    let mut scene = Scene::new();
    let many: Vec<StreamId> = (0..100)
        .map(|nth| scene.connect(from(2, 5000 + nth), seconds(1), 4))
        .collect();
    let other = scene.connect(from(3, 5000), seconds(2), 50);
    let responses = scene.run("100/50");
    let all: Vec<Instant> = many.iter().flat_map(|one| responses[one].clone()).collect();
    assert_eq!(all.len(), 400, "every query is answered");
    let first = all.iter().min().expect("the queries have responses");
    let took = *all.iter().max().expect("the queries have responses") - *first;
    assert!(
        (Duration::from_millis(3_490)..seconds(4)).contains(&took),
        "{took:?}"
    );
    let within_a_second = all.iter().filter(|at| **at - *first < seconds(1)).count();
    assert!(within_a_second <= 150, "{within_a_second}");
    // The connections take turns.
    let served = |one: &&StreamId| responses[*one].iter().any(|at| *at - *first < seconds(1));
    assert!(many.iter().filter(served).count() >= 50);
    let other = &responses[&other];
    assert_eq!(other.len(), 50);
    assert!(other[49] - other[0] < Duration::from_millis(10));
}
