//! Simulates the whole loop over a random network: real sessions and TLS, fragmented streams,
//! resets, latency, resolvers that send wrong replies, clients that misbehave, and a clock that
//! jumps.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use dotproxy::config::Config;
use dotproxy::net::Signal;
use dotproxy::reactor::{Reactor, Turn};
use dotproxy::tls;
use dotproxy::tls::clock::Clock;
use rustls::ClientConnection;
use rustls::version::{TLS12, TLS13};

use crate::support::certificates::{Authority, Flaw};
use crate::support::messages::query;
use crate::support::network::{Peers, SimNet, StreamId, World};
use crate::support::peers::{FaultRates, Kind, ResolverCertificates, SimulatedPeers};
use crate::support::{Chance, SeedReport, configured, seeds};

#[test]
fn every_query_gets_one_response_and_all_resources_are_released() {
    let mut responses = 0;
    for seed in seeds(1_000) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let mut chance = Chance::new(seed);
        let rates_by_address = (0..chance.between(1, 3))
            .map(|_| random_fault_rates(&mut chance))
            .collect();
        let lack = if chance.percent(20) {
            chance.between(0, 3_000)
        } else {
            0
        };
        let no_descriptors_for = Duration::from_millis(lack);
        let plain = chance.percent(40).then(|| random_fault_rates(&mut chance));
        let scene = Scene {
            no_descriptors_for,
            plain,
            is_named: chance.percent(30),
            ..Scene::new(seed, rates_by_address)
        };
        responses += simulate(scene).responses();
    }
    assert!(responses > 0);
}

#[test]
fn healthy_resolver_leaves_no_query_unanswered() {
    for seed in seeds(200) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let world = simulate(Scene {
            plain: Some(FaultRates::HEALTHY),
            is_named: seed % 2 == 0,
            ..Scene::new(seed, vec![FaultRates::HEALTHY])
        });
        assert_eq!(world.errors, 0);
    }
}

#[test]
fn lost_datagrams_fail_few_queries() {
    let (mut answers, mut errors) = (0, 0);
    for seed in seeds(200) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let plain = FaultRates {
            loses: 3,
            ..FaultRates::HEALTHY
        };
        let world = simulate(Scene {
            plain: Some(plain),
            ..Scene::new(seed, vec![FaultRates::HEALTHY])
        });
        answers += world.answers;
        errors += world.errors;
    }
    // A query fails if it or its answer is lost three times.
    assert!(errors * 1_000 <= answers, "{errors} beside {answers}");
}

#[test]
fn resolver_with_short_connections_fails_no_query() {
    for seed in seeds(200) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let lifetime = Chance::new(seed).between(300, 1_500);
        let rates = FaultRates {
            lifetime,
            ..FaultRates::HEALTHY
        };
        let world = simulate(Scene::new(seed, vec![rates]));
        assert_eq!(world.errors, 0);
    }
}

#[test]
fn impostor_gets_no_query() {
    for seed in seeds(100) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let rates = FaultRates {
            is_impostor: true,
            ..FaultRates::HEALTHY
        };
        let world = simulate(Scene::new(seed, vec![rates]));
        assert_eq!(world.answers, 0);
    }
}

#[test]
fn second_resolver_replaces_an_unreachable_one() {
    for seed in seeds(100) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let absent = FaultRates {
            refuses: 100,
            ..FaultRates::HEALTHY
        };
        let impostor = FaultRates {
            is_impostor: true,
            ..FaultRates::HEALTHY
        };
        let world = simulate(Scene::new(
            seed,
            vec![absent, impostor, FaultRates::HEALTHY],
        ));
        assert_eq!(world.errors, 0);
    }
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in seeds(50) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let rates_by_address = || {
            let mut chance = Chance::new(seed);
            vec![
                random_fault_rates(&mut chance),
                random_fault_rates(&mut chance),
            ]
        };
        assert_eq!(
            simulate(Scene::new(seed, rates_by_address())).trace,
            simulate(Scene::new(seed, rates_by_address())).trace
        );
    }
}

#[test]
fn shutdown_answers_pending_queries() {
    for seed in seeds(200) {
        let _report = SeedReport {
            test: "loop_simulation",
            seed,
        };
        let mut chance = Chance::new(seed);
        let at = Duration::from_millis(chance.between(0, 3_000));
        let rates_by_address = vec![random_fault_rates(&mut chance)];
        let signals = vec![(at, Signal::Report), (at, Signal::Finish)];
        simulate(Scene {
            signals,
            ..Scene::new(seed, rates_by_address)
        });
    }
}

#[test]
fn burst_of_queries_is_not_delayed() {
    let server = SocketAddr::from(([127, 0, 0, 1], 853));
    for queries in [5, 60, 300] {
        let config = configuration(&[server], false, false);
        let patience = config.timeouts.deadline;
        let rates_by_address = BTreeMap::from([(server, FaultRates::HEALTHY)]);
        let mut world = World::new(Chance::new(7));
        let mut cast =
            SimulatedPeers::new(resolver_certificates().clone(), patience, rates_by_address);
        let client_side = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
        for _ in 0..queries {
            cast.plan_udp_query(&mut world, client_side, Duration::from_secs(1));
        }
        let mut reactor = reactor_in(world, cast, &config, 7);
        run_to_the_end(&mut reactor);
        let pauses = reactor.net_mut().world.borrow().pauses;
        assert_eq!(pauses, 0, "{queries} queries");
    }
}

#[test]
fn steady_load_of_many_queries_is_batched() {
    let server = SocketAddr::from(([127, 0, 0, 1], 853));
    let config = configuration(&[server], false, false);
    let mut world = World::new(Chance::new(7));
    let client_side = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
    for millisecond in 0..100 {
        // One turn does not read all of these.
        for nth in 0..100 {
            // An opcode that is not implemented is answered at once.
            let mut bytes = query(nth, "www.example", 1, None);
            bytes[2] = 2 << 3;
            let client = SocketAddr::from(([127, 0, 0, 1], 4000 + nth));
            let after = Duration::from_millis(1_000 + millisecond);
            world.send_datagram(client, client_side, after, bytes);
        }
    }
    let mut reactor = reactor_in(world, Listeners::default(), &config, 7);
    run_to_the_end(&mut reactor);
    assert_eq!(reactor.net_mut().peers.responses, 10_000);
    let world = reactor.net_mut().world.borrow();
    // Trials alone would give fewer pauses.
    let pauses = world.pauses;
    assert!(pauses > 50, "{pauses} pauses in 100 bursts");
    assert_eq!(world.pauses_before_input, 0);
}

#[test]
fn first_responses_leave_before_the_last_queries_are_read() {
    let server = SocketAddr::from(([127, 0, 0, 1], 853));
    // The number of queued datagrams, and the maximum that is read before a response leaves.
    for (queries, most) in [(4, 2), (8, 4), (16, 8), (40, 16)] {
        let config = configuration(&[server], false, false);
        let mut world = World::new(Chance::new(7));
        let client_side = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
        for nth in 0..queries {
            // An opcode that is not implemented is answered at once.
            let mut bytes = query(nth, "www.example", 1, None);
            bytes[2] = 2 << 3;
            let client = SocketAddr::from(([127, 0, 0, 1], 4000 + nth));
            world.send_datagram(client, client_side, Duration::from_secs(1), bytes);
        }
        let mut reactor = reactor_in(world, Listeners::default(), &config, 7);
        run_to_the_end(&mut reactor);
        assert_eq!(reactor.net_mut().peers.responses, queries);
        let unsent = reactor.net_mut().world.borrow().received_since_sent_max;
        assert_eq!(unsent, most, "{queries} queries");
    }
}

const TLS_SIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8853);

/// Returns a configuration with a listener for TLS clients.
fn configured_for_tls_clients() -> Config {
    let [certificate, key] = authority().server_files();
    configured(&[
        "-u127.0.0.1:853".to_owned(),
        format!("--tls-listen={TLS_SIDE}"),
        format!("--tls-cert={}", certificate.display()),
        format!("--tls-key={}", key.display()),
    ])
}

#[test]
fn client_handshakes_run_one_by_one_after_responses() {
    let client_side = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
    let config = configured_for_tls_clients();
    let mut world = World::new(Chance::new(7));
    let streams: Vec<StreamId> = (0..12)
        .map(|nth| {
            let from = SocketAddr::from(([127, 0, 0, 1], 5000 + nth));
            world.connect(from, TLS_SIDE, Duration::from_millis(500), 60_000)
        })
        .collect();
    // All clients send their ClientHello at the same time as one query.
    let together = Duration::from_secs(1);
    for stream in &streams {
        world.send(*stream, together, client_hello());
    }
    let mut bytes = query(1, "www.example", 1, None);
    bytes[2] = 2 << 3;
    let client = SocketAddr::from(([127, 0, 0, 1], 4000));
    world.send_datagram(client, client_side, together, bytes);
    let hello_at = world.now + together;

    let mut reactor = reactor_in(world, Listeners::default(), &config, 7);
    let mut read_before = 0;
    while read_before < streams.len() {
        reactor.turn().expect("this poller does not fail");
        let world = reactor.net_mut().world.borrow();
        let sent_before = streams
            .iter()
            .filter_map(|stream| world.sent_before_read(*stream));
        let sent_before: Vec<usize> = sent_before.collect();
        let read = sent_before.len();
        assert!(
            read <= read_before + 1,
            "{read} handshakes, {read_before} before this turn"
        );
        assert!(
            sent_before.iter().all(|sent| *sent == 1),
            "the response waits for handshakes"
        );
        assert!(
            world.now <= hello_at + Duration::from_millis(1),
            "handshakes do not wait"
        );
        read_before = read;
    }
}

#[test]
fn client_handshake_is_deferred_for_some_turns_while_queries_are_left_to_read() {
    let config = configured_for_tls_clients();
    let of_a_turn = config.limits.datagrams_per_turn;
    let mut world = World::new(Chance::new(7));
    let from = SocketAddr::from(([127, 0, 0, 1], 5000));
    let stream = world.connect(from, TLS_SIDE, Duration::from_millis(500), 60_000);
    let together = Duration::from_secs(1);
    world.send(stream, together, client_hello());
    let client_side = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
    let mut bytes = query(1, "www.example", 1, None);
    bytes[2] = 2 << 3;
    for _ in 0..30 * of_a_turn {
        world.send_datagram(from, client_side, together, bytes.clone());
    }
    let mut reactor = reactor_in(world, Listeners::default(), &config, 7);
    run_to_the_end(&mut reactor);
    let world = reactor.net_mut().world.borrow();
    let sent = world.sent_before_read(stream).expect("the loop has read");
    let turns = sent / of_a_turn;
    assert!((5..=10).contains(&turns), "after {turns} turns of queries");
}

/// Returns the first message of a TLS client.
pub(crate) fn client_hello() -> Vec<u8> {
    let name = "127.0.0.1".try_into().expect("an address");
    let connection = ClientConnection::new(authority().client(), name);
    let mut bytes = Vec::new();
    let mut connection = connection.expect("a configuration");
    connection
        .write_tls(&mut bytes)
        .expect("writing to memory cannot fail");
    bytes
}

/// Clients that only count their responses.
#[derive(Default)]
struct Listeners {
    responses: u16,
}

impl Peers for Listeners {
    fn on_datagram(&mut self, _: &mut World, _: SocketAddr, _: SocketAddr, _: &[u8]) {
        self.responses += 1;
    }
}

fn run_to_the_end<P: Peers>(reactor: &mut Reactor<SimNet<P>>) {
    while !reactor.net_mut().world.borrow().is_over {
        reactor.turn().expect("this poller does not fail");
    }
}

fn random_fault_rates(chance: &mut Chance) -> FaultRates {
    let mut degree = || *chance.pick(&[0, 0, 0, 1, 10, 50, 100]);
    FaultRates {
        refuses: degree(),
        loses: degree(),
        spoils_handshake: degree(),
        spoils_answer: degree(),
        hangs_up: degree(),
        is_slow: degree(),
        lifetime: 10 * degree(),
        is_impostor: chance.percent(5),
    }
}

/// The parameters of a simulation.
struct Scene {
    seed: u64,
    rates_by_address: Vec<FaultRates>,
    signals: Vec<(Duration, Signal)>,
    /// The process has no file descriptors left at first.
    no_descriptors_for: Duration,
    /// A plain resolver for its own names.
    plain: Option<FaultRates>,
    /// The TLS resolvers are configured by host name.
    is_named: bool,
}

impl Scene {
    fn new(seed: u64, rates_by_address: Vec<FaultRates>) -> Self {
        Self {
            seed,
            rates_by_address,
            signals: Vec::new(),
            no_descriptors_for: Duration::ZERO,
            plain: None,
            is_named: false,
        }
    }
}

struct Outcome {
    answers: u64,
    errors: u64,
    trace: u64,
}

impl Outcome {
    fn responses(&self) -> u64 {
        self.answers + self.errors
    }
}

/// Runs one simulation: a few seconds of queries, then until no event is left.
fn simulate(scene: Scene) -> Outcome {
    let Scene {
        seed,
        rates_by_address,
        signals,
        ..
    } = scene;
    let servers: Vec<SocketAddr> = (1..=rates_by_address.len())
        .map(|host| {
            SocketAddr::from((
                [127, 0, 0, u8::try_from(host).expect("a small number")],
                853,
            ))
        })
        .collect();
    let config = configuration(&servers, scene.plain.is_some(), scene.is_named);
    let mut rates_by_address = servers
        .into_iter()
        .zip(rates_by_address)
        .collect::<BTreeMap<_, _>>();
    // Plain upstreams have no authentication.
    let plain = scene.plain.map(|rates| FaultRates {
        is_impostor: false,
        ..rates
    });
    rates_by_address.extend(plain.map(|rates| (PLAIN, rates)));
    let mut world = World::new(Chance::new(seed));
    let lack = scene.no_descriptors_for;
    world.no_descriptors_until = world.now + lack;
    let patience = config.timeouts.deadline + Duration::from_millis(3);
    let mut cast = SimulatedPeers::new(resolver_certificates().clone(), patience, rates_by_address);
    cast.plain = scene.plain.map(|_| PLAIN);
    cast.bootstrap = scene.is_named.then_some(BOOTSTRAP);
    plan_clients(&mut world, &mut cast, !signals.is_empty());
    for (at, signal) in &signals {
        world.signal(*at, *signal);
    }
    let mut reactor = reactor_in(world, cast, &config, seed);
    let listening = reactor.sessions();

    let mut turns = 0;
    loop {
        let turn = reactor.turn().expect("this poller does not fail");
        turns += 1;
        assert!(turns < 2_000_000, "the loop does not come to rest");
        let is_over = reactor.net_mut().world.borrow().is_over;
        if turn == Turn::Finished || is_over {
            assert_eq!(turn == Turn::Finished, !signals.is_empty());
            break;
        }
    }
    assert_eq!(reactor.proxy().inflight(), 0);
    assert_eq!(reactor.held(), 0, "buffers are not empty");
    if signals.is_empty() {
        assert_eq!(reactor.proxy().links(), 0, "links are left");
        assert_eq!(reactor.sessions(), listening, "sockets are left");
        assert_eq!(reactor.net_mut().world.borrow().open_streams(), 0);
        reactor.net_mut().peers.check_end();
    }
    let cast = &reactor.net_mut().peers;
    Outcome {
        answers: cast.answers,
        errors: cast.errors,
        trace: cast.trace,
    }
}

pub(crate) fn reactor_in<P: Peers>(
    world: World,
    peers: P,
    config: &Config,
    seed: u64,
) -> Box<Reactor<SimNet<P>>> {
    let net = SimNet::new(world, peers);
    let tls = tls::set_up(config, &Clock::new(None)).expect("the authority's file");
    let key = [u8::try_from(seed % 256).expect("a byte"); 32];
    Reactor::new(net, config, tls, Clock::new(None), &key).expect("addresses to listen on")
}

const PLAIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 53);
const BOOTSTRAP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 54);

fn configuration(servers: &[SocketAddr], has_plain: bool, is_named: bool) -> Config {
    let mut arguments = vec![format!("--ca-file={}", authority().ca_file.display())];
    if is_named {
        arguments.push("-utls://dot.example".to_owned());
        arguments.push(format!("-b{BOOTSTRAP}"));
    } else {
        let servers = servers.iter();
        arguments.extend(servers.map(|server| format!("-u{server}#dot.example")));
    }
    if has_plain {
        arguments.push(format!("-uudp://{PLAIN},domain=secret.net"));
    }
    configured(&arguments)
}

fn plan_clients(world: &mut World, cast: &mut SimulatedPeers, for_finish: bool) {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 53));
    let some_time = |world: &mut World| Duration::from_micros(world.chance.between(0, 5_000_000));
    for _ in 0..*world.chance.clone().pick(&[0, 10, 100, 600]) {
        let at = some_time(world);
        let server = if world.chance.percent(80) { v4 } else { v6 };
        cast.plan_udp_query(world, server, at);
    }
    if for_finish {
        return;
    }
    let burst = some_time(world);
    for _ in 0..*world.chance.clone().pick(&[0, 200]) {
        cast.plan_udp_query(world, v4, burst);
    }
    let kinds = [
        Kind::Patient,
        Kind::Patient,
        Kind::HalfCloses,
        Kind::Aborts,
        Kind::NeverReads,
        Kind::Babbles,
    ];
    for _ in 0..world.chance.between(1, 12) {
        let at = some_time(world);
        let kind = *world.chance.pick(&kinds);
        let queries = *world.chance.pick(&[1, 1, 5, 40, 300]);
        cast.plan_tcp_client(world, v4, at, kind, queries);
    }
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("loop-simulation"))
}

fn resolver_certificates() -> &'static ResolverCertificates {
    static RESOLVER_CERTIFICATES: OnceLock<ResolverCertificates> = OnceLock::new();
    RESOLVER_CERTIFICATES.get_or_init(|| ResolverCertificates {
        right: authority().server(Flaw::None, &[&TLS13, &TLS12]),
        wrong: authority().server(Flaw::WrongName, &[&TLS13, &TLS12]),
    })
}
