//! Days in the life of a proxy whose upstreams are slow, silent, gone, restarted or too small, in
//! simulated time: how many clients have their answer, and how soon.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::arena::Key;
use dotproxy::failure::{Failure, FailureKind};
use dotproxy::options::{self, Command};
use dotproxy::origin::Origin;
use dotproxy::proxy::{Action, LinkKey, Outbox, Proxy, Transport};
use dotproxy::time::Instant;
use dotproxy::wire::Message;

use support::Chance;
use support::messages::{query, reply};

const CONNECTING: Duration = Duration::from_millis(30);
const ANSWERING: Duration = Duration::from_millis(20);

/// What an upstream does.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Answers; names that start with "slow" after so long, or never.
    Answers { slow: Option<Duration> },
    /// Answers everything after so long.
    Takes(Duration),
    /// Answers, and closes connections that nobody has used for so long.
    ClosesIdle(Duration),
    /// Answers so many queries on a connection, then none.
    Stalls { after: usize },
    /// Closes the connection instead of answering.
    Closes,
    /// Can be connected to, and says nothing.
    Mute,
    /// Cannot be reached, and nobody says so.
    Hole,
    /// Cannot be reached.
    Refuses,
    /// Is somebody else.
    Impostor,
    /// Takes one connection at a time.
    TakesOne,
}

const GOOD: Manner = Manner::Answers { slow: None };

fn slow(milliseconds: u64) -> Manner {
    Manner::Answers {
        slow: Some(Duration::from_millis(milliseconds)),
    }
}

enum Event {
    Query(&'static str),
    Up(LinkKey),
    Down(LinkKey, FailureKind),
    Reply(LinkKey, Vec<u8>),
    /// A link is closed unless it has been sent more queries than these.
    IdleEnd(LinkKey, usize),
    /// The host was suspended, and no connection has survived that.
    Resumed,
    Turns(usize, Manner),
}

/// A response, and when it came.
struct Response {
    name: &'static str,
    asked_at: Instant,
    waited: Duration,
    is_answer: bool,
}

struct World {
    proxy: Proxy,
    outbox: Outbox,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    manners: Vec<Manner>,
    /// The upstream of each link that is open.
    links: HashMap<usize, (LinkKey, usize)>,
    /// Queries that each link was sent.
    sent_by_link: HashMap<usize, usize>,
    /// Queries that each upstream was sent.
    sent: Vec<usize>,
    asked: HashMap<u16, (&'static str, Instant)>,
    next_port: u16,
    responses: Vec<Response>,
}

impl World {
    fn new(manners: &[Manner]) -> Self {
        Self::with("fastest", manners)
    }

    fn with(policy: &str, manners: &[Manner]) -> Self {
        let mut arguments = vec![format!("--policy={policy}")];
        arguments.extend((1..=manners.len()).map(|host| format!("-u192.0.2.{host}")));
        let Ok(Command::Run(config)) = options::parse(&arguments) else {
            panic!("{arguments:?}");
        };
        Self {
            proxy: Proxy::new(&config, &[9; 32]),
            outbox: Outbox::default(),
            now: at(0.0),
            events: BTreeMap::new(),
            next_event: 0,
            manners: manners.to_vec(),
            links: HashMap::new(),
            sent_by_link: HashMap::new(),
            sent: vec![0; manners.len()],
            asked: HashMap::new(),
            next_port: 0,
            responses: Vec::new(),
        }
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// Lets clients ask for a name so many times a second between two times.
    fn ask(&mut self, name: &'static str, per_second: f64, from: f64, to: f64) {
        let mut time = from;
        while time < to {
            self.plan(at(time), Event::Query(name));
            time += 1.0 / per_second;
        }
    }

    /// Lets an upstream be another from then on.
    fn turn(&mut self, upstream: usize, time: f64, manner: Manner) {
        self.plan(at(time), Event::Turns(upstream, manner));
    }

    /// Lets everything happen, and looks at the responses to queries for `name`.
    fn run(&mut self, name: &str) -> Vec<&Response> {
        loop {
            let due = self.proxy.poll_timeout();
            let next = self.events.keys().next().map(|(at, _)| *at);
            let Some(time) = [due, next].into_iter().flatten().min() else {
                break;
            };
            self.now = time.max(self.now);
            if due.is_some_and(|due| due <= self.now) {
                self.proxy.handle_timeout(self.now, &mut self.outbox);
            } else if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
            self.perform();
        }
        assert!(self.asked.is_empty(), "queries have no response");
        let named = self.responses.iter();
        named.filter(|response| response.name == name).collect()
    }

    fn happen(&mut self, event: Event) {
        let (now, outbox) = (self.now, &mut self.outbox);
        match event {
            Event::Query(name) => {
                self.next_port = self.next_port.wrapping_add(1);
                let port = self.next_port;
                assert!(self.asked.insert(port, (name, now)).is_none());
                let origin = Origin {
                    session: Key::from_usize(7),
                    peer: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    local: None,
                };
                let bytes = query(port, name, 1, Some(1232));
                self.proxy
                    .handle_query(origin, Transport::Udp, &bytes, now, outbox);
            }
            Event::Up(link) => self.proxy.handle_link_up(link, false, now, outbox),
            Event::Down(link, kind) => {
                self.links.retain(|_, (open, _)| *open != link);
                self.proxy.handle_link_down(link, &kind.into(), now, outbox);
            }
            Event::Reply(link, bytes) => self.proxy.handle_reply(link, &bytes, now, outbox),
            Event::IdleEnd(link, sent) => {
                let is_its = self.links.get(&link.index()).is_some_and(|l| l.0 == link);
                if is_its && self.sent_by_link[&link.index()] == sent {
                    self.happen(Event::Down(link, FailureKind::Closed));
                }
            }
            Event::Resumed => {
                self.links.clear();
                self.proxy.handle_resume(now, outbox);
            }
            Event::Turns(upstream, manner) => {
                self.manners[upstream] = manner;
                if manner == Manner::Refuses {
                    self.reset_links(upstream);
                }
            }
        }
    }

    /// The process of an upstream is killed.
    fn reset_links(&mut self, upstream: usize) {
        let mut its: Vec<LinkKey> = self
            .links
            .values()
            .filter(|(_, of)| *of == upstream)
            .map(|(link, _)| *link)
            .collect();
        its.sort_by_key(|link| link.index());
        for link in its {
            self.links.remove(&link.index());
            let failure = Failure::from(FailureKind::Closed);
            self.proxy
                .handle_link_down(link, &failure, self.now, &mut self.outbox);
        }
    }

    fn perform(&mut self) {
        while !self.outbox.is_empty() {
            let outbox = std::mem::take(&mut self.outbox);
            for action in outbox.actions() {
                match action {
                    Action::Respond { origin, message } => {
                        let response = Message::parse(outbox.bytes(message)).expect("well formed");
                        let asked = self.asked.remove(&origin.peer.port());
                        let (name, asked_at) = asked.expect("one response a query");
                        self.responses.push(Response {
                            name,
                            asked_at,
                            waited: self.now - asked_at,
                            is_answer: response.header().flags.rcode().to_u16() == 0,
                        });
                    }
                    Action::Send { link, message } => {
                        self.on_send(*link, outbox.bytes(message));
                    }
                    Action::OpenLink { link, upstream } => self.on_open(*link, upstream.0),
                    Action::CloseLink { link } => drop(self.links.remove(&link.index())),
                }
            }
        }
    }

    fn on_send(&mut self, link: LinkKey, bytes: &[u8]) {
        let Some((_, upstream)) = self.links.get(&link.index()).copied() else {
            return;
        };
        let message = Message::parse(bytes).expect("well formed");
        let is_slow = message.question().expect("a question").name()[1..].starts_with(b"slow");
        self.sent[upstream] += 1;
        let sent = self.sent_by_link.entry(link.index()).or_default();
        *sent += 1;
        let sent = *sent;
        if let Manner::ClosesIdle(after) = self.manners[upstream] {
            self.plan(self.now + after, Event::IdleEnd(link, sent));
        }
        if self.manners[upstream] == Manner::Closes {
            self.plan(self.now + ANSWERING, Event::Down(link, FailureKind::Closed));
        }
        let delay = match self.manners[upstream] {
            Manner::Takes(delay) => Some(delay),
            Manner::Stalls { after } => (sent <= after).then_some(ANSWERING),
            Manner::Answers { slow } if is_slow => slow,
            Manner::Answers { .. } | Manner::TakesOne | Manner::ClosesIdle(_) => Some(ANSWERING),
            _ => None,
        };
        if let Some(delay) = delay {
            self.plan(self.now + delay, Event::Reply(link, reply(bytes, 1)));
        }
    }

    fn on_open(&mut self, link: LinkKey, upstream: usize) {
        let is_first = self.links.values().all(|(_, of)| *of != upstream);
        self.links.insert(link.index(), (link, upstream));
        self.sent_by_link.insert(link.index(), 0);
        let event = match self.manners[upstream] {
            Manner::Hole => return,
            Manner::Impostor => Event::Down(link, FailureKind::Authentication),
            Manner::TakesOne if !is_first => Event::Down(link, FailureKind::Connect),
            Manner::Refuses => Event::Down(link, FailureKind::Connect),
            _ => Event::Up(link),
        };
        self.plan(self.now + CONNECTING, event);
    }
}

fn at(seconds: f64) -> Instant {
    Instant::after_start(Duration::from_secs_f64(100.0 + seconds))
}

fn failed(responses: &[&Response]) -> usize {
    responses.iter().filter(|r| !r.is_answer).count()
}

fn slower_than(responses: &[&Response], seconds: f64) -> usize {
    let limit = Duration::from_secs_f64(seconds);
    responses.iter().filter(|r| r.waited > limit).count()
}

#[test]
fn name_that_is_never_answered_harms_no_other() {
    for manners in [&[GOOD][..], &[GOOD, GOOD]] {
        let mut world = World::new(manners);
        world.ask("slow.example", 1.0 / 6.0, 0.0, 1_200.0);
        world.ask("www.example", 1.0 / 61.0, 1.7, 1_200.0);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        assert_eq!(slower_than(&responses, 0.2), 0);
    }
}

#[test]
fn slow_answer_is_waited_for() {
    for milliseconds in [2_500, 4_500] {
        let mut world = World::new(&[slow(milliseconds)]);
        world.ask("slow.example", 1.0 / 6.0, 0.0, 600.0);
        let responses = world.run("slow.example");
        assert_eq!(failed(&responses), 0, "{milliseconds} ms");
    }
}

#[test]
fn second_upstream_serves_while_the_first_does_not() {
    let firsts = [
        Manner::Mute,
        Manner::Hole,
        Manner::Refuses,
        Manner::Impostor,
    ];
    for (first, policy) in firsts
        .into_iter()
        .flat_map(|f| [(f, "fastest"), (f, "ordered")])
    {
        for gap in [0.01, 0.25, 3.0, 10.0] {
            let mut world = World::with(policy, &[first, GOOD]);
            world.ask("www.example", 1.0 / gap, 0.0, 200.0 * gap);
            let responses = world.run("www.example");
            assert_eq!(failed(&responses), 0);
            assert_eq!(slower_than(&responses, 0.4), 0, "{policy}, every {gap} s");
            let found_out = slower_than(&responses, 0.2);
            assert!(found_out <= 32, "{found_out} waited, every {gap} s");
        }
    }
}

/// What a client sees of two upstreams, one of which does this: at 300 queries a second for 20 s,
/// every query is answered, one in a hundred in 400 ms at the most, and half of them at once. Of all
/// that is sent, few are second queries.
fn check_chaos(policy: &str, label: &str, first: Manner, turns: &[(f64, Manner)]) {
    let mut world = World::with(policy, &[first, GOOD]);
    world.ask("www.example", 300.0, 0.0, 20.0);
    for (time, manner) in turns {
        world.turn(0, *time, *manner);
    }
    let mut responses = world.run("www.example");
    responses.sort_by_key(|response| response.waited);
    let waited = |percent: usize| responses[responses.len() * percent / 100].waited;
    let (half, most) = (waited(50), waited(99));
    println!(
        "{policy:12} {label:24} median {half:9.1?} p99 {most:9.1?} slowest {:9.1?}",
        responses.last().expect("there are responses").waited
    );
    assert_eq!(failed(&responses), 0, "{label}");
    assert!(half <= Duration::from_millis(30), "{label}: {half:?}");
    assert!(most <= Duration::from_millis(400), "{label}: {most:?}");
    let counters = world.proxy.counters();
    let second = counters.hedges + counters.copies;
    assert!(second * 100 <= 5 * 6_000 + 10_000, "{label}: {second}");
}

#[test]
fn upstream_can_do_what_it_likes_while_another_is_well() {
    let flaps: Vec<_> = (1..10)
        .map(|n| {
            (
                2.0 * f64::from(n),
                if n % 2 == 1 { Manner::Refuses } else { GOOD },
            )
        })
        .collect();
    for policy in ["fastest", "ordered", "round-robin"] {
        check_chaos(policy, "refuses", Manner::Refuses, &[]);
        check_chaos(policy, "black hole", Manner::Hole, &[]);
        check_chaos(policy, "never answers", Manner::Mute, &[]);
        check_chaos(policy, "is somebody else", Manner::Impostor, &[]);
        check_chaos(
            policy,
            "stalls after 100 answers",
            Manner::Stalls { after: 100 },
            &[],
        );
        check_chaos(policy, "flaps", GOOD, &flaps);
        check_chaos(policy, "falls silent", GOOD, &[(5.0, Manner::Mute)]);
    }
    let slow = Manner::Takes(Duration::from_millis(300));
    check_chaos("fastest", "300 ms slow", slow, &[]);
    check_chaos("fastest", "becomes slow", GOOD, &[(5.0, slow)]);
}

#[test]
fn fastest_finds_who_is_faster_now() {
    let slow = Manner::Takes(Duration::from_millis(100));
    let mut world = World::new(&[GOOD, slow, slow]);
    world.ask("www.example", 50.0, 0.0, 200.0);
    world.turn(0, 50.0, slow);
    world.turn(2, 100.0, GOOD);
    let responses = world.run("www.example");
    let late: Vec<_> = responses
        .into_iter()
        .filter(|r| r.asked_at > at(150.0))
        .collect();
    assert_eq!(slower_than(&late, 0.05), 0);
}

#[test]
fn one_of_three_that_is_well_is_enough() {
    let moods = [
        GOOD,
        GOOD,
        Manner::Mute,
        Manner::Hole,
        Manner::Refuses,
        Manner::Stalls { after: 50 },
        Manner::Takes(Duration::from_millis(250)),
    ];
    let (mut asked, mut late) = (0, 0);
    for seed in 0..8 {
        let mut chance = Chance::new(seed);
        let mut world = World::new(&[GOOD, GOOD, GOOD]);
        world.ask("www.example", 100.0, 0.0, 300.0);
        let mut now = [GOOD; 3];
        let mut time = 0.0;
        while time < 300.0 {
            time += f64::from(u32::try_from(chance.between(1_000, 5_000)).expect("small")) / 1e3;
            let one = chance.below(3);
            let is_other_well = (0..3).any(|other| other != one && now[other] == GOOD);
            now[one] = if is_other_well {
                *chance.pick(&moods)
            } else {
                GOOD
            };
            world.turn(one, time, now[one]);
        }
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0, "seed {seed}");
        asked += responses.len();
        late += slower_than(&responses, 1.0);
    }
    assert!(
        late * 100 < asked,
        "{late} of {asked} took more than a second"
    );
}

#[test]
fn round_robin_spreads_and_ordered_does_not() {
    for (policy, shares) in [
        ("round-robin", [1_000, 1_000, 1_000]),
        ("ordered", [3_000, 0, 0]),
    ] {
        let mut world = World::with(policy, &[GOOD, GOOD, GOOD]);
        world.ask("www.example", 100.0, 0.0, 30.0);
        world.run("www.example");
        for (sent, share) in world.sent.iter().zip(shares) {
            assert!(sent.abs_diff(share) <= 20, "{policy}: {:?}", world.sent);
        }
    }
}

#[test]
fn idle_limit_of_an_upstream_is_learned() {
    let mut world = World::new(&[Manner::ClosesIdle(Duration::from_secs(5))]);
    world.ask("www.example", 1.0 / 7.0, 0.0, 1_000.0);
    assert_eq!(failed(&world.run("www.example")), 0);
    let closed = world.proxy.counters().failure(FailureKind::Closed);
    assert_eq!(closed, 2, "connections that the upstream closed");
}

#[test]
fn suspension_costs_no_query() {
    let mut world = World::new(&[GOOD]);
    world.ask("www.example", 10.0, 0.0, 5.0);
    world.plan(at(5.01), Event::Query("www.example"));
    world.plan(at(5.02), Event::Resumed);
    world.ask("www.example", 10.0, 5.03, 10.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.1), 0);
}

#[test]
fn query_is_sent_twice_only_so_often() {
    // Everything is slow at once, and another upstream would be there.
    let slow = Manner::Takes(Duration::from_millis(1_500));
    let mut world = World::new(&[GOOD, GOOD]);
    world.ask("www.example", 50.0, 0.0, 100.0);
    world.turn(0, 20.0, slow);
    world.turn(1, 20.0, slow);
    assert_eq!(failed(&world.run("www.example")), 0);
    let counters = world.proxy.counters();
    assert!(
        counters.hedges + counters.copies <= 5_000 / 20 + 100,
        "{counters}"
    );
}

#[test]
fn third_upstream_serves_when_two_are_holes() {
    let mut world = World::new(&[Manner::Hole, Manner::Hole, GOOD]);
    world.ask("www.example", 4.0, 0.0, 300.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(slower_than(&responses, 0.2) <= 5);
}

#[test]
fn first_upstream_serves_again_when_it_has_recovered() {
    for trouble in [Manner::Mute, Manner::Hole, Manner::Refuses] {
        let mut world = World::new(&[GOOD, GOOD]);
        world.ask("www.example", 20.0, 0.0, 100.0);
        world.turn(0, 10.0, trouble);
        world.turn(0, 40.0, GOOD);
        world.turn(1, 80.0, Manner::Refuses);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        let late = responses.iter().filter(|r| r.asked_at > at(75.0));
        assert_eq!(slower_than(&late.copied().collect::<Vec<_>>(), 0.2), 0);
    }
}

#[test]
fn restart_of_the_only_upstream_costs_no_query() {
    for down in [0.1, 1.0, 3.0] {
        let mut world = World::new(&[GOOD]);
        world.ask("www.example", 400.0, 0.0, 10.0);
        world.turn(0, 5.0, Manner::Refuses);
        world.turn(0, 5.0 + down, GOOD);
        assert_eq!(failed(&world.run("www.example")), 0, "down for {down} s");
    }
}

#[test]
fn answers_flow_again_within_a_second_of_the_return() {
    for trouble in [Manner::Refuses, Manner::Mute, Manner::Impostor] {
        let mut world = World::new(&[GOOD]);
        world.ask("www.example", 50.0, 0.0, 100.0);
        world.turn(0, 10.0, Manner::Refuses);
        world.turn(0, 10.1, trouble);
        world.turn(0, 70.0, GOOD);
        let responses = world.run("www.example");
        let after = responses.iter().filter(|r| r.asked_at > at(71.0));
        assert_eq!(failed(&after.copied().collect::<Vec<_>>()), 0);
    }
}

#[test]
fn end_of_an_outage_is_the_end_for_every_name() {
    for trouble in [Manner::Refuses, Manner::Mute] {
        let mut world = World::new(&[GOOD]);
        for name in ["a.example", "b.example", "c.example", "d.example"] {
            world.ask(name, 10.0, 0.0, 60.0);
        }
        world.turn(0, 10.0, trouble);
        world.turn(0, 40.0, GOOD);
        world.run("");
        let after = |r: &&Response| r.asked_at > at(41.0);
        let after: Vec<&Response> = world.responses.iter().filter(after).collect();
        assert_eq!(failed(&after), 0);
    }
}

#[test]
fn queries_of_a_silent_moment_are_sent_again() {
    // More than may be sent twice before they have failed.
    let mut world = World::new(&[GOOD]);
    world.ask("www.example", 10.0, 0.0, 10.0);
    world.ask("www.example", 3_000.0, 5.0, 5.1);
    world.turn(0, 4.95, Manner::Mute);
    world.turn(0, 5.2, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 2.2), 0);
}

#[test]
fn upstream_that_closes_instead_of_answering_is_left_alone() {
    let mut world = World::with("ordered", &[Manner::Closes, GOOD]);
    world.ask("www.example", 100.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(world.sent[0] < 60, "{:?}", world.sent);
}

#[test]
fn long_outage_is_told_soon() {
    let mut world = World::new(&[Manner::Refuses]);
    world.ask("www.example", 50.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 1.1), 0);
}

#[test]
fn storm_of_retries_is_answered_without_asking() {
    let mut world = World::new(&[Manner::Mute]);
    world.ask("www.example", 100.0, 0.0, 60.0);
    let responses = world.run("www.example");
    let at_once = responses.len() - slower_than(&responses, 0.001);
    assert!(at_once > 5_000, "{at_once}");
    // Queries of the first seconds, and then two a second, each three times at the most.
    assert!(world.sent[0] < 1_500, "{:?}", world.sent);
}

#[test]
fn impostor_is_told_soon() {
    let mut world = World::new(&[Manner::Impostor]);
    world.ask("www.example", 10.0, 0.0, 20.0);
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 1.1), 0);
    assert_eq!(slower_than(&responses[..1], 0.1), 0);
}

#[test]
fn more_than_upstream_can_take_leaves_it_doing_what_it_can() {
    // Four links with 64 queries of 900 ms each come to 284 answers a second.
    let mut world = World::new(&[slow(900)]);
    world.ask("slow.example", 400.0, 0.0, 60.0);
    let responses = world.run("slow.example");
    let settled = responses.iter().filter(|r| r.asked_at > at(30.0));
    let answered = settled.filter(|r| r.is_answer).count();
    assert!(answered > 30 * 270, "{} a second", answered / 30);
}

#[test]
fn upstream_that_takes_one_connection_is_not_pestered() {
    let mut world = World::new(&[Manner::TakesOne]);
    world.ask("www.example", 5_000.0, 0.0, 10.0);
    world.run("www.example");
    let failures = world.proxy.counters().failure(FailureKind::Connect);
    assert!(failures <= 12, "{failures} connections refused");
}
