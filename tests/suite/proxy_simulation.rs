//! Simulates the query engine against random events: clients with arbitrary queries, upstreams that
//! answer, send wrong replies, stall or close, and time that advances or jumps.
//!
//! The invariants are checked at every step. A seed determines the whole run.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::base::arena::Key;
use dotproxy::base::failure::{Failure, FailureKind};
use dotproxy::base::origin::{ClientProtocol, Origin};
use dotproxy::base::time::Instant;
use dotproxy::config::{Config, Scheme};
use dotproxy::proxy::{Action, ClientTransport, Destination, LinkKey, Outbox, Proxy};
use dotproxy::wire::{Flags, Message, Rcode};

use crate::support::configured;
use crate::support::messages::{address_reply, check_response, denial, query, reply, reply_for};
use crate::support::{Chance, SeedReport, seeds};

const STEPS: usize = 1_500;

/// The server that resolves `dns.example`.
const BOOTSTRAP: &str = "192.0.2.53:53";

/// The only upstream for names below `corp.example`.
const CORP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

#[test]
fn every_query_ends_once_with_a_valid_response() {
    for seed in seeds(1_000) {
        let _report = SeedReport {
            test: "proxy_simulation",
            seed,
        };
        World::new(seed).run();
    }
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in seeds(50) {
        let _report = SeedReport {
            test: "proxy_simulation",
            seed,
        };
        assert_eq!(World::new(seed).run(), World::new(seed).run());
    }
}

/// A query without a response so far.
struct Asked {
    query: Vec<u8>,
    at: Instant,
    /// The time at which the proxy received the query. A response at this time is never late.
    late_from: Instant,
}

struct Link {
    to: Destination,
    is_up: bool,
    /// Unanswered queries by id.
    /// The maximum number of pending queries (HTTP/2).
    pending_max: usize,
    /// The link takes no more queries (HTTP/2).
    is_draining: bool,
    pending: HashMap<u16, Vec<u8>>,
    /// Answered queries, for duplicate replies.
    answered: Vec<Vec<u8>>,
}

struct World {
    chance: Chance,
    config: Config,
    /// Upstreams for `corp.example` are configured.
    serves_corp: bool,
    proxy: Proxy,
    outbox: Outbox,
    now: Instant,
    /// Queries by the port of the client.
    asked: HashMap<u16, Asked>,
    /// All questions so far, in lower case.
    ever_asked: HashSet<Vec<u8>>,
    next_port: u16,
    links: Vec<(LinkKey, Link)>,
    /// Links that failed to open.
    unopened: Vec<LinkKey>,
    responses: u64,
    records: u64,
    trace: u64,
}

fn some_settings(inflight: usize, chance: &mut Chance) -> Config {
    let upstreams = chance.between(1, 3);
    let mut arguments = vec![format!("--max-inflight={inflight}")];
    let policy = chance.pick(&["fastest", "ordered", "round-robin"]);
    arguments.push(format!("--policy={policy}"));
    let size = chance.pick(&["0", "2k", "16k", "1m"]);
    arguments.push(format!("--cache-size={size}"));
    let stale = chance.pick(&["0s", "1m", "1d"]);
    arguments.push(format!("--serve-stale={stale}"));
    if chance.percent(50) {
        arguments.push("--prefetch".to_owned());
    }
    arguments.extend((1..=upstreams).map(|host| format!("-u192.0.2.{host}")));
    if chance.percent(40) {
        arguments.push("-utls://dns.example".to_owned());
        arguments.push(format!("-b{BOOTSTRAP}"));
    }
    if chance.percent(50) {
        arguments.push("-uhttps://192.0.2.4".to_owned());
    }
    for scheme in ["udp", "tcp", "tls", "https"] {
        if chance.percent(30) {
            arguments.push(format!("-u{scheme}://192.0.2.10,domain=corp.example"));
        }
    }
    configured(&arguments)
}

/// Returns the address of the client that uses a port. Some clients send many more queries than
/// others.
fn client(port: u16) -> Ipv4Addr {
    let host = (port % 16).min(9);
    Ipv4Addr::from_bits(0x7f00_0001 + u32::from(host))
}

fn serves_corp(config: &Config) -> bool {
    let mut upstreams = config.upstreams.iter();
    upstreams.any(|upstream| !upstream.domains.is_empty())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let inflight = *chance.pick(&[1, 20, 300, 4096]);
        let config = some_settings(inflight, &mut chance);
        let key = [u8::try_from(seed % 256).expect("a byte"); 32];
        Self {
            proxy: Proxy::new(&config, &key),
            serves_corp: serves_corp(&config),
            config,
            chance,
            outbox: Outbox::new(true),
            now: Instant::default() + Duration::from_secs(1),
            asked: HashMap::new(),
            ever_asked: HashSet::new(),
            next_port: 0,
            links: Vec::new(),
            unopened: Vec::new(),
            responses: 0,
            records: 0,
            trace: 0,
        }
    }

    fn run(mut self) -> u64 {
        // The weights of the event kinds in this run.
        let mut weights: Vec<u64> = (0..9).map(|_| self.chance.between(0, 10)).collect();
        weights[0] += 5;
        for _ in 0..STEPS {
            self.step(&weights);
        }
        self.run_until_idle();
        assert_eq!(self.proxy.inflight(), 0, "queries are left");
        assert_eq!(self.proxy.links(), 0, "links are left");
        assert!(
            self.asked.is_empty(),
            "{} queries have no response",
            self.asked.len()
        );
        assert_eq!(self.proxy.poll_timeout(), None, "a timer is left");
        let counters = self.proxy.counters();
        assert_eq!(counters.ended(), self.responses);
        let queries = ClientProtocol::ALL.map(|protocol| counters.queries(protocol));
        assert_eq!(queries.iter().sum::<u64>(), self.responses);
        let by_code = counters.responses().map(|(_, count)| count);
        assert_eq!(by_code.sum::<u64>(), self.responses);
        assert_eq!(counters.durations.count(), self.responses);
        assert_eq!(self.records, self.responses);
        self.trace
    }

    fn step(&mut self, weights: &[u64]) {
        let mut choice = self.chance.next() % weights.iter().sum::<u64>();
        let mut event = 0;
        while choice >= weights[event] {
            choice -= weights[event];
            event += 1;
        }
        match event {
            0 => (0..self.chance.between(1, 20)).for_each(|_| self.ask()),
            1 => self.bring_link_up(),
            2 => (0..self.chance.between(1, 30)).for_each(|_| self.send_valid_reply()),
            3 => self.send_invalid_reply(),
            4 => self.break_link(),
            8 => self.send_http2_event(),
            5 => self.advance(Duration::from_micros(
                self.chance.clone().between(1, 50_000),
            )),
            6 => self.advance(Duration::from_millis(
                self.chance.clone().between(100, 3_000),
            )),
            _ if self.chance.percent(3) => self.advance(Duration::from_secs(100)),
            _ if self.chance.percent(3) => {
                let slept = Duration::from_secs(self.chance.between(0, 100_000));
                self.proxy.handle_resume(slept, self.now, &mut self.outbox);
                self.perform_actions();
            }
            _ if self.chance.percent(3) => self.reconfigure(),
            _ => {}
        }
        self.chance.next();
    }

    fn reconfigure(&mut self) {
        self.config = some_settings(self.config.limits.inflight, &mut self.chance);
        self.serves_corp = serves_corp(&self.config);
        self.proxy
            .reconfigure(&self.config, self.now, &mut self.outbox);
        self.perform_actions();
    }

    fn ask(&mut self) {
        let labels = [
            "www.example",
            "WWW.Example",
            "a.b.c.d.example.org",
            "B.c.d.example.org",
            "mail.example",
            "x",
            "x.test",
            "intra.corp.example",
            "Mail.Corp.Example",
        ];
        let name = *self.chance.pick(&labels);
        let id = self.chance.between(0, 65_535);
        let id = u16::try_from(id).expect("16 bits");
        let size = *self.chance.pick(&[None, Some(512), Some(1232), Some(4096)]);
        let bytes = query(id, name, *self.chance.pick(&[1, 28, 16]), size);
        // Some queries waited for others of their connection, and some exceeded their deadline.
        let waited_ms = *self.chance.pick(&[0, 0, 0, 10, 3_000, 4_899, 4_900, 9_000]);
        let waited = Duration::from_millis(waited_ms);
        let received_at =
            Instant::default() + (self.now - Instant::default()).saturating_sub(waited);
        let (transport, at) = if self.chance.percent(50) {
            (ClientTransport::Udp, self.now)
        } else {
            let idle = Duration::from_secs(10);
            (
                ClientTransport::Stream {
                    idle,
                    received_at,
                    protocol: ClientProtocol::Tcp,
                },
                received_at,
            )
        };
        while self.asked.contains_key(&self.next_port) {
            self.next_port = self.next_port.wrapping_add(1);
        }
        let port = self.next_port;
        self.next_port = port.wrapping_add(1);
        let origin = Origin {
            session: Key::from_usize(7),
            peer: SocketAddr::from((client(port), port)),
            local: None,
        };
        if let Some(question) = Message::parse(&bytes).ok().and_then(|m| m.question()) {
            let question = question.as_bytes().to_ascii_lowercase();
            self.ever_asked.insert(question);
        }
        self.asked.insert(
            port,
            Asked {
                query: bytes.clone(),
                at,
                late_from: self.now,
            },
        );
        let is_owed =
            self.proxy
                .handle_query(origin, transport, &bytes, self.now, &mut self.outbox);
        assert!(is_owed);
        self.perform_actions();
        assert!(self.proxy.inflight() <= self.config.limits.inflight);
        let waits = |asked: &&u16| client(**asked) == client(port);
        let held = self.asked.keys().filter(waits).count();
        assert!(held <= self.config.limits.client_inflight());
        assert!(self.proxy.cache_usage().bytes <= self.config.cache.size);
    }

    fn some_link(&mut self, is_up: bool) -> Option<usize> {
        let among: Vec<usize> = (0..self.links.len())
            .filter(|place| self.links[*place].1.is_up == is_up)
            .collect();
        if among.is_empty() {
            None
        } else {
            Some(*self.chance.pick(&among))
        }
    }

    fn bring_link_up(&mut self) {
        let Some(place) = self.some_link(false) else {
            return;
        };
        let (key, link) = &mut self.links[place];
        link.is_up = true;
        let is_resumed = self.chance.percent(50);
        self.proxy
            .handle_link_up(*key, is_resumed, self.now, &mut self.outbox);
        self.perform_actions();
    }

    fn send_valid_reply(&mut self) {
        let Some(place) = self.some_link(true) else {
            return;
        };
        let Some((key, bytes)) = self.take_pending(place) else {
            return;
        };
        if self.links[place].1.to.address == BOOTSTRAP.parse().expect("an address") {
            let reply = self.addresses(&bytes);
            return self.deliver_reply(key, &reply);
        }
        let ttl = *self.chance.pick(&[0, 1, 30, 300, 300, 86_400, u32::MAX]);
        let reply = if self.chance.percent(25) {
            let nothing = Flags::default().with_rcode(Rcode::NXDOMAIN);
            let flags = [Flags::default(), nothing, nothing | Flags::AD];
            denial(&bytes, *self.chance.pick(&flags), ttl)
        } else {
            let records = *self.chance.pick(&[0, 1, 2, 40, 1_000]);
            reply_for(&bytes, records, ttl)
        };
        self.deliver_reply(key, &reply);
    }

    /// Returns a reply with random addresses of `dns.example`.
    fn addresses(&mut self, query: &[u8]) -> Vec<u8> {
        let ttl = *self.chance.pick(&[0, 1, 100, u32::MAX]);
        let hosts = (0..self.chance.below(6)).map(|_| self.chance.below(9) + 100);
        let addresses: Vec<IpAddr> = hosts
            .flat_map(|host| [format!("192.0.2.{host}"), format!("2001:db8::{host}")])
            .map(|text| text.parse().expect("an address"))
            .collect();
        address_reply(query, &addresses, ttl)
    }

    fn take_pending(&mut self, place: usize) -> Option<(LinkKey, Vec<u8>)> {
        let (key, link) = &mut self.links[place];
        let mut ids: Vec<u16> = link.pending.keys().copied().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return None;
        }
        let id = *self.chance.pick(&ids);
        let bytes = link.pending.remove(&id).expect("the query is pending");
        link.answered.push(bytes.clone());
        Some((*key, bytes))
    }

    fn send_invalid_reply(&mut self) {
        let Some(place) = self.some_link(true) else {
            return;
        };
        let key = self.links[place].0;
        let answered = &self.links[place].1.answered;
        if self.chance.percent(30) && !answered.is_empty() {
            // Sends a duplicate.
            let earlier: &Vec<u8> = self.chance.pick(answered);
            let bytes = reply(earlier, 1);
            let id = u16::from_be_bytes([bytes[0], bytes[1]]);
            if !self.links[place].1.pending.contains_key(&id) {
                self.deliver_reply(key, &bytes);
            }
            return;
        }
        let mut ids: Vec<u16> = self.links[place].1.pending.keys().copied().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return self.deliver_reply(key, &[7; 30]);
        }
        let id = *self.chance.pick(&ids);
        // Later replies with this id are not checked, because its use depends on whether a client
        // still waits.
        let pending = &mut self.links[place].1.pending;
        let mut wrong = reply(&pending.remove(&id).expect("the query is pending"), 1);
        match self.chance.below(8) {
            6 => wrong[3] |= u8::try_from(self.chance.below(6)).expect("a code"),
            7 => wrong[2] |= 2,
            0 => wrong[2] &= 0x7f,
            1 => wrong[13] ^= 1,
            2 => wrong[2] ^= 0x10,
            3 => wrong[0] ^= 0xff,
            4 => wrong.truncate(wrong.len() - self.chance.below(40) - 1),
            _ => wrong[4..12].fill(0),
        }
        let id = u16::from_be_bytes([wrong[0], wrong[1]]);
        if self.links[place].1.pending.contains_key(&id) {
            return;
        }
        self.deliver_reply(key, &wrong);
    }

    fn deliver_reply(&mut self, key: LinkKey, bytes: &[u8]) {
        self.proxy
            .handle_reply(key, bytes, self.now, &mut self.outbox);
        self.perform_actions();
    }

    fn break_link(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let place = self.chance.below(self.links.len());
        let (key, _) = self.links.remove(place);
        let failure = Failure::from(*self.chance.pick(&FailureKind::ALL));
        self.proxy
            .handle_link_down(key, &failure, self.now, &mut self.outbox);
        self.perform_actions();
    }

    /// Sends an event of HTTP/2 on a link, if there is one.
    fn send_http2_event(&mut self) {
        let Some(place) = self.some_link(true) else {
            return;
        };
        let (key, link) = &mut self.links[place];
        let key = *key;
        if link.to.scheme != Scheme::Https {
            return;
        }
        let (now, outbox) = (self.now, &mut self.outbox);
        match self.chance.below(6) {
            0 if self.chance.percent(30) => {
                link.is_draining = true;
                self.proxy.handle_draining(key, now, outbox);
            }
            0 | 1 => {
                let streams_max = *self.chance.pick(&[0, 1, 2, 7, 100]);
                link.pending_max = streams_max.max(link.pending.len());
                self.proxy.handle_streams_max(key, streams_max, now, outbox);
            }
            kind => {
                let mut ids: Vec<u16> = link.pending.keys().copied().collect();
                ids.sort_unstable();
                if ids.is_empty() {
                    return;
                }
                let id = *self.chance.pick(&ids);
                link.pending.remove(&id);
                if kind == 2 {
                    let status = *self.chance.pick(&[200, 404, 503]);
                    self.proxy.handle_no_message(key, (id, status), now, outbox);
                } else {
                    self.proxy.handle_reset(key, id, kind == 3, now, outbox);
                }
            }
        }
        self.perform_actions();
    }

    /// Advances the time from one timer to the next.
    fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = self.proxy.poll_timeout().filter(|due| *due <= end);
            self.now = due.unwrap_or(end).max(self.now);
            let inflight = self.proxy.inflight();
            self.proxy.handle_timeout(self.now, &mut self.outbox);
            self.perform_actions();
            if due.is_none() {
                return;
            }
            let next = self.proxy.poll_timeout();
            // Responses that did not fit the outbox are still due.
            let is_less = self.proxy.inflight() < inflight;
            assert!(
                is_less || next.is_none_or(|next| next > self.now),
                "an expired timer did not fire"
            );
        }
    }

    /// Stops the clients and the upstreams, and runs until no query is left.
    fn run_until_idle(&mut self) {
        self.advance(Duration::from_secs(60));
    }

    /// Performs the actions of the proxy and checks that they are allowed.
    fn perform_actions(&mut self) {
        while !self.outbox.is_empty() {
            let outbox = std::mem::replace(&mut self.outbox, Outbox::new(true));
            self.check_records(&outbox);
            for action in outbox.actions() {
                self.note(&format!("{:?} {action:?}", self.now));
                match action {
                    Action::Respond { origin, message } => {
                        self.on_response(origin, outbox.bytes(message));
                    }
                    Action::Send { link, message } => self.on_send(*link, outbox.bytes(message)),
                    Action::OpenLink { link, to } => self.on_open(*link, *to),
                    Action::CloseLink { link } => {
                        let before = self.links.len();
                        self.links.retain(|(key, _)| key != link);
                        let is_closed = self.links.len() < before;
                        let was_open = !self.unopened.contains(link);
                        assert_eq!(is_closed, was_open, "closed what was not open");
                    }
                }
            }
        }
    }

    /// Checks that each response has a record with the same contents.
    fn check_records(&mut self, outbox: &Outbox) {
        let responses = outbox.actions().iter();
        let responses = responses.filter_map(|action| match action {
            Action::Respond { origin, message } => Some((origin, outbox.bytes(message))),
            _ => None,
        });
        let mut records = outbox.records().iter();
        for (origin, bytes) in responses {
            let record = records.next().expect("one for each response");
            let message = Message::parse(bytes).expect("well formed");
            assert_eq!((record.origin, record.response_len), (*origin, bytes.len()));
            assert_eq!(record.rcode, Some(message.header().flags.rcode()));
            let question = record.question.as_ref().map(|range| outbox.bytes(range));
            let expected = message.question().expect("one question");
            assert_eq!(question, Some(expected.as_bytes()));
            self.records += 1;
        }
        assert!(records.next().is_none());
    }

    fn on_response(&mut self, origin: &Origin, bytes: &[u8]) {
        let asked = self
            .asked
            .remove(&origin.peer.port())
            .expect("each query has one response");
        check_response(&asked.query, bytes);
        let deadline = asked.at + self.config.timeouts.deadline;
        assert!(
            self.now <= deadline.max(asked.late_from),
            "{:?} is too late",
            self.now - asked.at
        );
        self.responses += 1;
    }

    fn on_send(&mut self, key: LinkKey, bytes: &[u8]) {
        let message = Message::parse(bytes).expect("well formed");
        let question = message.question().expect("one question");
        if self.unopened.contains(&key) {
            // The proxy sent the query together with the request to open the link.
            return;
        }
        let mut links = self.links.iter_mut();
        let (_, link) = links.find(|(known, _)| *known == key).expect("open");
        assert!(link.is_up, "sent before the peer was authenticated");
        let to = link.to;
        let taken = link.pending.insert(message.header().id, bytes.to_vec());
        assert!(taken.is_none(), "the id is in use on this link");
        let limits = &self.config.limits;
        let most = match to.scheme {
            Scheme::Udp => 1,
            Scheme::Tcp | Scheme::Tls | Scheme::Https => {
                limits.link_inflight_max + limits.link_spare + limits.link_abandoned + 1
            }
        };
        assert!(link.pending.len() + link.answered.len() <= most || to.scheme != Scheme::Udp);
        assert!(link.pending.len() <= most.min(link.pending_max));
        assert!(!link.is_draining, "sent after GOAWAY");
        // A damaged reply may look as if the upstream refused EDNS.
        let has_options = message
            .opt()
            .is_some_and(|opt| opt.options().next().is_some());
        assert!(
            bytes.len().is_multiple_of(128) || !to.scheme.is_encrypted() || !has_options,
            "not padded"
        );
        if to.address == BOOTSTRAP.parse().expect("an address") {
            let asked = question.to_string();
            let is_test = asked == ". NS" || asked.starts_with("loop-test-");
            return assert!(asked.starts_with("dns.example. A") || is_test, "{asked}");
        }
        let name = question.name().to_ascii_lowercase();
        let is_corp = self.serves_corp && name.ends_with(b"\x04corp\x07example\0");
        assert_eq!(
            is_corp,
            to.address.ip() == CORP,
            "the query was sent to a wrong upstream"
        );
        // A prefetched question has no waiting client, but a client has asked the question before.
        let asked = question.as_bytes().to_ascii_lowercase();
        // A probe for the domain tests whether an upstream has recovered.
        let domain: &[u8] = if is_corp {
            b"\x04corp\x07example\0"
        } else {
            b"\0"
        };
        let is_probe = asked == [domain, b"\0\x02\0\x01"].concat();
        let is_probe = is_probe || asked[1..].starts_with(b"loop-test-");
        assert!(
            self.ever_asked.contains(&asked) || is_probe,
            "no client has asked this question"
        );
    }

    fn on_open(&mut self, key: LinkKey, to: Destination) {
        let link = Link {
            to,
            is_up: to.scheme == Scheme::Udp,
            pending: HashMap::new(),
            pending_max: usize::MAX,
            is_draining: false,
            answered: Vec::new(),
        };
        self.links.push((key, link));
        let limits = &self.config.limits;
        let opening = self.links.iter().filter(|(_, link)| !link.is_up);
        assert!(
            opening.clone().count() <= limits.handshakes,
            "too many handshakes"
        );
        let streams = limits.links_per_address.max(limits.small_links_per_address);
        let datagrams = limits.datagrams_per_address
            + limits.datagrams_spare
            + limits.probe_datagrams_per_address;
        let same = opening.filter(|(_, link)| link.to == to);
        assert!(same.count() <= streams);
        let same = self.links.iter().filter(|(_, link)| link.to == to);
        assert!(same.count() <= 2 * (streams + datagrams));
        if self.chance.percent(10) {
            // There is no network.
            self.links.pop();
            self.unopened.push(key);
            let failure = Failure::from(FailureKind::Connect);
            self.proxy
                .handle_link_down(key, &failure, self.now, &mut self.outbox);
        }
    }

    fn note(&mut self, line: &str) {
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
