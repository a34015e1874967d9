//! Scenarios of the query engine with scripted upstreams, in simulated time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::base::arena::Key;
use dotproxy::base::failure::{Failure, FailureKind};
use dotproxy::base::origin::{ClientProtocol, Origin};
use dotproxy::base::time::Instant;
use dotproxy::config::Scheme;
use dotproxy::proxy::{Action, ClientTransport, Destination, LinkKey, Outbox, Proxy};
use dotproxy::wire::edns::{EdnsOption, OptionCode};
use dotproxy::wire::header::HEADER_LEN;
use dotproxy::wire::record::Record;
use dotproxy::wire::{Flags, Message, Rcode};

use super::configured;
use super::messages::{address_reply, error_reply, query, reply, reply_for};

pub const CONNECTING: Duration = Duration::from_millis(30);
pub const ANSWERING: Duration = Duration::from_millis(20);
const PROMPTLY: Duration = Duration::from_millis(2);

/// Time from the end of a loss on the network to the retransmission.
const RETRANSMITTING: Duration = Duration::from_millis(500);

/// The behaviour of an upstream at one of its addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Behaviour {
    /// Answers; names that start with "slow" after this time, or never.
    Answers { slow: Option<Duration> },
    /// Answers everything after this time.
    Takes(Duration),
    /// Answers each name after the milliseconds that the name starts with: `200ms-7.example`.
    TakesWhatNamesSay,
    /// Answers, and closes connections that are idle for this time.
    ClosesIdle(Duration),
    /// Answers this number of queries on a connection, then none.
    Stalls { after: usize },
    /// The same as `Stalls`, with prompt answers.
    StallsPromptly { after: usize },
    /// Closes the connection instead of answering.
    Closes,
    /// Ends the connection in this way, `after` a query for a name that starts with "bad", never
    /// answers names that start with "never", and answers others after `takes`.
    EndsOnBad {
        kind: FailureKind,
        after: Duration,
        takes: Duration,
    },
    /// Accepts connections and never answers.
    NeverAnswers,
    /// Drops all packets. Connections retransmit them later.
    DropsPackets,
    /// Rejects connections.
    Refuses,
    /// Answers, except names that start with "flood".
    IgnoresFlood,
    /// Ends each connection with a TLS alert after the handshake.
    EndsAfterHandshake,
    /// Has a certificate of another server.
    Impostor,
    /// Accepts one connection at a time.
    TakesOne,
    /// Answers everything with this code.
    Says(Rcode),
    /// Answers names that start with "bad" with this code.
    SaysOfBad(Rcode),
    /// Truncates every answer in a datagram, and also on connections if `on_connections`.
    Cuts { on_connections: bool },
    /// Loses every n-th datagram.
    Loses { every: usize },
    /// Resolves `dns.example`.
    Resolves,
    /// Sends this reply to names that start with "bad", and answers others.
    OfBad(Reply),
    /// Answers after `takes`, and closes each connection after this number of answers, whatever
    /// queries are pending.
    ClosesAfter { answers: usize, takes: Duration },
    /// Closes each connection after `answers` answers, each of which takes `takes`, and closes
    /// connections beyond `connections` as soon as they are up. If `stalls`, every connection but
    /// the first stays open for two seconds without further answers if a query arrives while
    /// another is pending.
    LimitsClients {
        connections: usize,
        answers: usize,
        takes: Duration,
        stalls: bool,
    },
    /// Answers after `takes`, and drops queries that arrive on a connection meanwhile, unless their
    /// number on the connection is a multiple of `reads`.
    DropsPipelined { takes: Duration, reads: usize },
    /// Sends a defective reply to every query.
    Defective(Defect),
    /// Sends a defective reply to queries for names that start with "bad".
    DefectiveForBad(Defect),
    /// Sends a defective datagram before each valid one.
    DefectiveFirst(Defect),
    /// Answers queries of this type with this code.
    SaysOfType(u16, Rcode),
    /// Answers every query that has an OPT record with FORMERR, without OPT, and with the question
    /// section unless `is_bare`.
    NoEdns { is_bare: bool },
    /// Answers every query with an EDNS option with FORMERR, with or without OPT.
    NoOptions { has_opt: bool },
    /// Answers and asks with edns-tcp-keepalive for the end of the connection (RFC 7828).
    EndsKeepalive,
    /// Answers on connections and drops every datagram.
    StreamsOnly,
    /// Resolves `dns.example`, on connections only.
    ResolvesOnStreams,
    /// Resolves `dns.example`, and answers a query with OPT with FORMERR.
    ResolvesWithoutEdns,
    /// Answers the queries of a connection in order; names that start with "slow" take this time.
    InOrder { slow: Duration },
    /// Rejects datagrams, and answers on connections (and resolves `dns.example`).
    RejectsDatagrams,
    /// Sends every query back to the proxy, as a client with its own EDNS options.
    Loops,
    /// Sends every query for `corp.example` and names below it back, and answers others.
    LoopsCorp,
}

/// A reply of an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reply {
    pub rcode: Rcode,
    /// The TTL of the records of an answer.
    pub ttl: u32,
    /// The extended error of an error.
    pub reason: Option<u16>,
    /// The time after which the reply is sent.
    pub after: Duration,
}

impl Reply {
    /// Returns an answer with records of this TTL.
    pub fn answer(ttl: u32) -> Self {
        Self {
            ttl,
            ..Self::error(Rcode::NOERROR, None)
        }
    }

    /// Returns an error with this extended error.
    pub fn error(rcode: Rcode, reason: Option<u16>) -> Self {
        Self {
            rcode,
            ttl: 0,
            reason,
            after: ANSWERING,
        }
    }

    /// Returns the same reply after this number of milliseconds.
    pub fn after(self, milliseconds: u64) -> Self {
        Self {
            after: Duration::from_millis(milliseconds),
            ..self
        }
    }

    fn to_bytes(self, query: &[u8]) -> Vec<u8> {
        if self.rcode == Rcode::NOERROR {
            reply_for(query, 1, self.ttl)
        } else {
            error_reply(query, self.rcode, self.reason)
        }
    }
}

/// A defect of a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Defect {
    /// A header without a question section, with this code.
    HeaderOnly(Rcode),
    /// A header that counts one question, and ends there, with this code.
    QuestionMissing(Rcode),
    /// Two OPT records.
    TwoOpts,
    /// An EDNS option that is longer than its OPT record.
    OptionOverruns,
    /// An OPT record in the answer section.
    OptInAnswer,
    /// Two questions.
    TwoQuestions,
    /// A record that ends before its data does.
    RecordCut,
    /// TC on a connection.
    TruncatedOnStream,
    /// A question for another type.
    OtherQuestion,
    /// The opcode NOTIFY.
    OtherOpcode,
}

impl Defect {
    pub const MALFORMED: [Self; 5] = [
        Self::TwoOpts,
        Self::OptionOverruns,
        Self::OptInAnswer,
        Self::TwoQuestions,
        Self::RecordCut,
    ];

    /// Makes the valid reply to `query` defective.
    fn apply(self, query: &[u8], mut right: Vec<u8>) -> Vec<u8> {
        let header_with = |rcode: Rcode, questions: u8| {
            let code = u8::try_from(rcode.to_u16()).expect("four bits");
            let mut header = vec![query[0], query[1], 0x81, 0x80 | code];
            header.extend([0, questions, 0, 0, 0, 0, 0, 0]);
            header
        };
        match self {
            Self::HeaderOnly(rcode) => return header_with(rcode, 0),
            Self::QuestionMissing(rcode) => return header_with(rcode, 1),
            Self::TwoOpts => {
                right[11] += 1;
                right.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
            }
            Self::OptionOverruns => {
                let end = Message::parse(&right).expect("well formed").records_end();
                right.truncate(end);
                right.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x05\0\x03\0\x09x");
            }
            Self::OptInAnswer => (right[7], right[11]) = (right[7] + right[11], 0),
            Self::TwoQuestions => {
                let question = Message::parse(&right).expect("well formed").question();
                let question = question.expect("a question").as_bytes().to_vec();
                right[5] = 2;
                right.splice(12..12, question);
            }
            Self::RecordCut => right.truncate(right.len() - 3),
            Self::TruncatedOnStream => right[2] |= 2,
            Self::OtherQuestion => {
                let question = Message::parse(&right).expect("well formed").question();
                let len = question.expect("a question").as_bytes().len();
                right[HEADER_LEN + len - 3] ^= 0x80;
            }
            Self::OtherOpcode => right[2] |= 0x20,
        }
        right
    }
}

pub const GOOD: Behaviour = Behaviour::Answers { slow: None };

pub fn slow(milliseconds: u64) -> Behaviour {
    Behaviour::Answers {
        slow: Some(Duration::from_millis(milliseconds)),
    }
}

pub enum Event {
    Query(&'static str),
    /// A query without OPT.
    PlainQuery(&'static str),
    /// A query over TCP.
    StreamQuery(&'static str),
    /// A query for this name and type.
    QueryOfType(&'static str, u16),
    /// A forwarder sends a query for this question back.
    Returned(Vec<u8>),
    /// A link is being opened.
    Opens(LinkKey, Destination),
    Up(LinkKey),
    Down(LinkKey, FailureKind),
    Reply(LinkKey, Vec<u8>),
    /// A retransmitted query arrives.
    Arrives(LinkKey, Vec<u8>),
    /// A link is closed unless more than this number of queries were sent on it.
    IdleEnd(LinkKey, usize),
    /// The host was suspended, and all connections are lost.
    Resumed,
    BehaviourChange(u8, Behaviour),
    /// `dns.example` has these addresses from this time.
    Moves(Vec<IpAddr>),
}

/// A response, and its time.
pub struct Response {
    pub name: &'static str,
    pub asked_at: Instant,
    pub waited: Duration,
    pub rcode: Rcode,
    pub is_cut: bool,
    /// The TTL of the first record in the answer section.
    pub ttl: Option<u32>,
    /// The first extended error.
    pub error: Option<u16>,
}

impl Response {
    pub fn is_answer(&self) -> bool {
        self.rcode == Rcode::NOERROR
    }
}

pub struct World {
    pub proxy: Proxy,
    outbox: Outbox,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    /// Behaviours by the last byte of the address.
    behaviours: BTreeMap<u8, Behaviour>,
    /// The addresses of `dns.example`. Their TTL in seconds follows.
    addresses: Vec<IpAddr>,
    pub ttl: u32,
    /// The destination of each open link.
    links: HashMap<usize, (LinkKey, Destination)>,
    /// Links with a lost opening packet.
    lost: Vec<LinkKey>,
    /// Queries that were lost on a connection, which retransmits them.
    lost_queries: Vec<(LinkKey, Vec<u8>)>,
    /// The number of queries on each link.
    sent_by_link: HashMap<usize, usize>,
    /// The time until which the peer of a link processes a query and drops others.
    busy_until_by_link: HashMap<usize, Instant>,
    /// The connection of the first query.
    first_link: Option<LinkKey>,
    /// The questions that each address received, in order.
    pub questions: Vec<(u8, String)>,
    /// The maximum number of links that were open at the same time.
    pub links_max: usize,
    /// The number of queries that each address received.
    pub sent: BTreeMap<u8, usize>,
    /// The times of the queries for names that start with "bad".
    pub bad_sent_at: Vec<Instant>,
    /// The addresses of all connections.
    pub connected_to: BTreeSet<u8>,
    /// The messages to plain upstreams, with their destinations.
    pub in_the_clear: Vec<(u8, Vec<u8>)>,
    asked: HashMap<u16, (&'static str, Instant)>,
    next_port: u16,
    pub responses: Vec<Response>,
    /// True for each upstream that is up.
    are_up: Vec<bool>,
    /// The times at which outages began and ended.
    pub outages: Vec<Instant>,
    pub recoveries: Vec<Instant>,
}

impl World {
    pub fn new(behaviours: &[Behaviour]) -> Self {
        Self::with("fastest", behaviours)
    }

    /// Returns a proxy with TLS upstreams at 192.0.2.1 and up.
    pub fn with(policy: &str, behaviours: &[Behaviour]) -> Self {
        let mut arguments = vec![format!("--policy={policy}")];
        arguments.extend((1..=behaviours.len()).map(|host| format!("-u192.0.2.{host}")));
        let mut world = Self::started(&arguments);
        for (host, behaviour) in (1..).zip(behaviours) {
            world.set_behaviour(host, *behaviour);
        }
        world
    }

    /// Returns a proxy with these arguments.
    pub fn started<A: ToString>(arguments: &[A]) -> Self {
        // Later arguments override earlier ones.
        let mut given = vec!["--cache-size=0".to_owned()];
        given.extend(arguments.iter().map(ToString::to_string));
        Self {
            proxy: Proxy::new(&configured(&given), &[9; 32]),
            outbox: Outbox::default(),
            now: at(0.0),
            events: BTreeMap::new(),
            next_event: 0,
            behaviours: BTreeMap::new(),
            addresses: Vec::new(),
            ttl: 300,
            links: HashMap::new(),
            lost: Vec::new(),
            lost_queries: Vec::new(),
            sent_by_link: HashMap::new(),
            busy_until_by_link: HashMap::new(),
            first_link: None,
            questions: Vec::new(),
            links_max: 0,
            sent: BTreeMap::new(),
            bad_sent_at: Vec::new(),
            connected_to: BTreeSet::new(),
            in_the_clear: Vec::new(),
            asked: HashMap::new(),
            next_port: 0,
            responses: Vec::new(),
            are_up: Vec::new(),
            outages: Vec::new(),
            recoveries: Vec::new(),
        }
    }

    pub fn plan(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// Schedules queries for a name at this rate between two times.
    pub fn ask(&mut self, name: &'static str, per_second: f64, from: f64, to: f64) {
        let mut number = 0.0;
        while number < ((to - from) * per_second).round() {
            self.plan(at(from + number / per_second), Event::Query(name));
            number += 1.0;
        }
    }

    /// Schedules queries of a type for this number of different names, one each `gap` seconds.
    pub fn ask_names(&mut self, stem: &str, rr_type: u16, from: f64, count: u32, gap: f64) {
        for number in 0..count {
            let name = Box::leak(format!("{stem}{number}.example").into_boxed_str());
            let time = at(from + gap * f64::from(number));
            self.plan(time, Event::QueryOfType(name, rr_type));
        }
    }

    /// Sets the behaviour of an address at the start.
    pub fn set_behaviour(&mut self, host: u8, behaviour: Behaviour) {
        self.behaviours.insert(host, behaviour);
    }

    /// Changes the behaviour of an address at this time.
    pub fn change_behaviour(&mut self, host: u8, time: f64, behaviour: Behaviour) {
        self.plan(at(time), Event::BehaviourChange(host, behaviour));
    }

    /// Sets the addresses of `dns.example` at the start.
    pub fn set_addresses(&mut self, addresses: &[&str]) {
        self.addresses = parsed(addresses);
    }

    /// Changes the addresses of `dns.example` at this time.
    pub fn move_to(&mut self, time: f64, addresses: &[&str]) {
        self.plan(at(time), Event::Moves(parsed(addresses)));
    }

    /// Connects to the upstreams, as the program does at the start.
    pub fn connect_at_start(&mut self) {
        self.proxy.connect_at_start(self.now, &mut self.outbox);
        self.perform();
    }

    /// Runs all events. Returns the responses to queries for `name`.
    pub fn run(&mut self, name: &str) -> Vec<&Response> {
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
                self.handle_event(event);
            }
            self.perform();
            self.record_health();
        }
        assert!(self.asked.is_empty(), "queries have no response");
        assert_eq!((self.proxy.inflight(), self.proxy.links()), (0, 0));
        let named = self.responses.iter();
        named.filter(|response| response.name == name).collect()
    }

    /// Records the outages that have begun and ended.
    fn record_health(&mut self) {
        let upstreams = self.proxy.upstreams(self.now);
        let are_up: Vec<bool> = upstreams.map(|upstream| upstream.is_up).collect();
        for (was_up, is_up) in self.are_up.iter().zip(&are_up) {
            match (was_up, is_up) {
                (true, false) => self.outages.push(self.now),
                (false, true) => self.recoveries.push(self.now),
                _ => {}
            }
        }
        self.are_up = are_up;
    }

    /// Returns the number of queries that an address received.
    pub fn sent_to(&self, host: u8) -> usize {
        self.sent.get(&host).copied().unwrap_or(0)
    }

    fn handle_event(&mut self, event: Event) {
        let (now, outbox) = (self.now, &mut self.outbox);
        match event {
            Event::PlainQuery(name) => self.query(name, 1, None, ClientTransport::Udp),
            Event::StreamQuery(name) => {
                let transport = ClientTransport::Stream {
                    idle: Duration::from_secs(10),
                    received_at: now,
                    protocol: ClientProtocol::Tcp,
                };
                self.query(name, 1, Some(1232), transport);
            }
            Event::Returned(question) => {
                self.next_port = self.next_port.wrapping_add(1);
                let port = self.next_port;
                self.asked.insert(port, ("returned", now));
                let origin = Origin {
                    session: Key::from_usize(7),
                    peer: SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port)),
                    local: None,
                };
                let mut bytes = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                bytes.extend(question);
                self.proxy
                    .handle_query(origin, ClientTransport::Udp, &bytes, now, outbox);
            }
            Event::Query(name) => self.handle_event(Event::QueryOfType(name, 1)),
            Event::QueryOfType(name, rr_type) => {
                let size = (!name.starts_with("plain")).then_some(1232);
                self.query(name, rr_type, size, ClientTransport::Udp);
            }
            Event::Opens(link, to) => {
                if self
                    .links
                    .get(&link.index())
                    .is_some_and(|open| open.0 == link)
                {
                    self.connect(link, to);
                }
            }
            Event::Up(link) => {
                self.proxy.handle_link_up(link, false, now, outbox);
            }
            Event::Down(link, kind) => {
                self.links.retain(|_, (open, _)| *open != link);
                self.proxy.handle_link_down(link, &kind.into(), now, outbox);
            }
            Event::Reply(link, bytes) => self.proxy.handle_reply(link, &bytes, now, outbox),
            Event::Arrives(link, query) => self.on_send(link, &query),
            Event::IdleEnd(link, sent) => {
                let is_its = self.links.get(&link.index()).is_some_and(|l| l.0 == link);
                if is_its && self.sent_by_link[&link.index()] == sent {
                    self.handle_event(Event::Down(link, FailureKind::Closed));
                }
            }
            Event::Resumed => {
                self.links.clear();
                let slept = Duration::from_secs(3_600);
                self.proxy.handle_resume(slept, now, outbox);
            }
            Event::BehaviourChange(host, behaviour) => {
                let before = self.behaviours.insert(host, behaviour);
                if behaviour == Behaviour::Refuses {
                    self.reset_links(host);
                }
                if before == Some(Behaviour::DropsPackets) {
                    self.retransmit(host);
                }
            }
            Event::Moves(addresses) => self.addresses = addresses,
        }
    }

    /// Sends a query of a client, with an OPT record of this size or none.
    fn query(
        &mut self,
        name: &'static str,
        rr_type: u16,
        size: Option<u16>,
        transport: ClientTransport,
    ) {
        self.next_port = self.next_port.wrapping_add(1);
        let port = self.next_port;
        assert!(self.asked.insert(port, (name, self.now)).is_none());
        // A single client may use only a quarter of the query table.
        let host = if name.starts_with("flood") {
            200
        } else {
            u8::try_from(port % 8).expect("a number below 8")
        };
        let origin = Origin {
            session: Key::from_usize(7),
            peer: SocketAddr::from((Ipv4Addr::new(127, 0, 1, host), port)),
            local: None,
        };
        let bytes = query(port, name, rr_type, size);
        self.proxy
            .handle_query(origin, transport, &bytes, self.now, &mut self.outbox);
    }

    /// Retransmits packets that were lost on the way to an address.
    fn retransmit(&mut self, host: u8) {
        let links = self.links.values();
        let lost = links.filter(|(link, to)| number(to) == host && self.lost.contains(link));
        let mut lost: Vec<(LinkKey, Destination)> = lost.copied().collect();
        lost.sort_by_key(|(link, _)| link.index());
        for (link, to) in lost {
            self.lost.retain(|other| *other != link);
            self.plan(self.now + RETRANSMITTING, Event::Opens(link, to));
        }
        for (link, query) in std::mem::take(&mut self.lost_queries) {
            self.plan(self.now + RETRANSMITTING, Event::Arrives(link, query));
        }
    }

    /// Kills the process at an address.
    fn reset_links(&mut self, host: u8) {
        let is_its = |to: &Destination| number(to) == host && to.scheme != Scheme::Udp;
        let its = self.links.values().filter(|(_, to)| is_its(to));
        let mut its: Vec<LinkKey> = its.map(|(link, _)| *link).collect();
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
                        let (name, asked_at) = asked.expect("each query has one response");
                        let flags = response.header().flags;
                        let ttl = |record: Record| record.ttl(response.bytes());
                        let error = |option: EdnsOption<'_>| match option.code {
                            OptionCode::EXTENDED_ERROR => {
                                Some(u16::from_be_bytes([option.data[0], option.data[1]]))
                            }
                            OptionCode::COOKIE => None,
                            other => panic!("{other:?}"),
                        };
                        let mut options = response.opt().into_iter().flat_map(|opt| opt.options());
                        self.responses.push(Response {
                            name,
                            asked_at,
                            waited: self.now - asked_at,
                            rcode: flags.rcode(),
                            is_cut: flags.contains(Flags::TC),
                            ttl: response.answers().next().map(ttl),
                            error: options.find_map(error),
                        });
                    }
                    Action::Send { link, message } => {
                        self.on_send(*link, outbox.bytes(message));
                    }
                    Action::OpenLink { link, to } => self.on_open(*link, *to),
                    Action::CloseLink { link } => drop(self.links.remove(&link.index())),
                }
            }
        }
    }

    fn on_send(&mut self, link: LinkKey, bytes: &[u8]) {
        let open = self.links.get(&link.index()).copied();
        let Some((_, to)) = open.filter(|(open, _)| *open == link) else {
            return;
        };
        let host = number(&to);
        let behaviour = self
            .behaviours
            .get(&host)
            .copied()
            .expect("the address has an upstream");
        let question = Message::parse(bytes).expect("well formed").question();
        if question.is_some_and(|question| question.name()[1..].starts_with(b"bad")) {
            self.bad_sent_at.push(self.now);
        }
        let sent_there = self.sent.entry(host).or_default();
        *sent_there += 1;
        let is_lost =
            matches!(behaviour, Behaviour::Loses { every } if sent_there.is_multiple_of(every));
        let sent = self.sent_by_link.entry(link.index()).or_default();
        *sent += 1;
        let sent = *sent;
        let question = Message::parse(bytes).expect("well formed").question();
        let question = question.expect("a question").to_string();
        let name = question.clone();
        self.questions.push((host, question));
        let question = Message::parse(bytes).expect("well formed").question();
        let question = question.expect("a question");
        if behaviour == Behaviour::Loops
            || behaviour == Behaviour::LoopsCorp && is_in_corp(question.name())
        {
            let question = question.as_bytes().to_vec();
            self.plan(self.now + PROMPTLY, Event::Returned(question));
        }
        if to.scheme == Scheme::Tls {
            // For an upstream that refuses options, padding is omitted together with all other
            // options.
            let opt = Message::parse(bytes).expect("well formed").opt();
            let has_options = opt.is_some_and(|opt| opt.options().next().is_some());
            let is_padded = bytes.len().is_multiple_of(128);
            assert!(is_padded || !has_options, "{}", bytes.len());
        } else {
            self.in_the_clear.push((host, bytes.to_vec()));
        }
        match behaviour {
            Behaviour::DropsPackets if to.scheme != Scheme::Udp => {
                self.lost_queries.push((link, bytes.to_vec()));
            }
            Behaviour::ClosesIdle(after) => self.plan(self.now + after, Event::IdleEnd(link, sent)),
            Behaviour::Closes => {
                self.plan(self.now + ANSWERING, Event::Down(link, FailureKind::Closed));
            }
            Behaviour::EndsOnBad { kind, after, .. } if name.contains("bad") => {
                return self.plan(self.now + after, Event::Down(link, kind));
            }
            // The host reports an unreachable port.
            Behaviour::Refuses => {
                self.plan(
                    self.now + ANSWERING,
                    Event::Down(link, FailureKind::Connect),
                );
            }
            _ => {}
        }
        if !self.is_read(behaviour, link, &to, sent, bytes) {
            return;
        }
        if let Behaviour::InOrder { slow } = behaviour {
            let name = Message::parse(bytes).expect("well formed").question();
            let name = name.expect("a question").name();
            let is_slow = name.get(1..5) == Some(b"slow");
            let takes = if is_slow { slow } else { ANSWERING };
            let free_at = self.busy_until_by_link.entry(link.index()).or_default();
            *free_at = (*free_at).max(self.now) + takes;
            let at = *free_at;
            return self.plan(at, Event::Reply(link, reply(bytes, 1)));
        }
        if behaviour == Behaviour::RejectsDatagrams && to.scheme == Scheme::Udp {
            let at = self.now + PROMPTLY;
            return self.plan(at, Event::Down(link, FailureKind::Connect));
        }
        if let Behaviour::DefectiveFirst(defect) = behaviour {
            let defective = defect.apply(bytes, reply(bytes, 1));
            for _ in 0..3 {
                self.plan(self.now + PROMPTLY, Event::Reply(link, defective.clone()));
            }
        }
        if let Some((delay, reply)) = self.reply(behaviour, &to, sent, bytes).filter(|_| !is_lost) {
            self.plan(self.now + delay, Event::Reply(link, reply));
        }
        if let Behaviour::ClosesAfter { answers, takes }
        | Behaviour::LimitsClients { answers, takes, .. } = behaviour
            && sent == answers
            && to.scheme != Scheme::Udp
        {
            self.plan(self.now + takes, Event::Down(link, FailureKind::Closed));
        }
    }

    /// Returns whether an upstream of this behaviour reads a query on a connection while it
    /// processes another.
    fn is_read(
        &mut self,
        behaviour: Behaviour,
        link: LinkKey,
        to: &Destination,
        sent: usize,
        bytes: &[u8],
    ) -> bool {
        if let Behaviour::DropsPipelined { takes, reads } = behaviour {
            let busy_until = self.busy_until_by_link.entry(link.index()).or_default();
            if to.scheme != Scheme::Udp && *busy_until > self.now {
                if !sent.is_multiple_of(reads) {
                    return false;
                }
                let at = *busy_until + takes;
                self.plan(at, Event::Reply(link, reply(bytes, 1)));
                return false;
            }
            *busy_until = self.now + takes;
        }
        if let Behaviour::LimitsClients {
            takes,
            stalls: true,
            ..
        } = behaviour
            && to.scheme != Scheme::Udp
        {
            let is_first = *self.first_link.get_or_insert(link) == link;
            let busy_until = self.busy_until_by_link.entry(link.index()).or_default();
            if *busy_until > self.now && !is_first {
                let end = self.now + Duration::from_secs(2);
                *busy_until = end;
                self.plan(end, Event::Down(link, FailureKind::Closed));
                return false;
            }
            *busy_until = self.now + takes;
        }
        true
    }

    /// Returns the reply of an address to a query, and its delay.
    #[expect(clippy::too_many_lines, reason = "there is one arm for each behaviour")]
    fn reply(
        &self,
        behaviour: Behaviour,
        to: &Destination,
        sent: usize,
        query: &[u8],
    ) -> Option<(Duration, Vec<u8>)> {
        let message = Message::parse(query).expect("well formed");
        let name = message.question().expect("a question").name();
        let right = reply(query, 1);
        let with_code = |rcode: Rcode| {
            let mut reply = reply(query, 0);
            reply[3] = reply[3] & 0xf0 | u8::try_from(rcode.to_u16()).expect("four bits");
            reply
        };
        let answer = |reply| Some((ANSWERING, reply));
        let is_bad = name[1..].starts_with(b"bad");
        let rr_type = message.question().expect("a question").rr_type();
        match behaviour {
            Behaviour::ClosesAfter { takes, .. }
            | Behaviour::LimitsClients { takes, .. }
            | Behaviour::DropsPipelined { takes, .. }
                if to.scheme == Scheme::Udp =>
            {
                let mut cut = reply(query, 0);
                cut[2] |= 2;
                Some((takes, cut))
            }
            Behaviour::ClosesAfter { answers, takes }
            | Behaviour::LimitsClients { answers, takes, .. } => {
                (sent <= answers).then_some((takes, right))
            }
            Behaviour::DropsPipelined { takes, .. } => Some((takes, right)),
            Behaviour::Defective(defect) => answer(defect.apply(query, right)),
            Behaviour::DefectiveForBad(defect) if is_bad => answer(defect.apply(query, right)),
            Behaviour::SaysOfType(bad, rcode) if rr_type.0 == bad => answer(with_code(rcode)),
            Behaviour::NoEdns { is_bare } if message.opt().is_some() => {
                answer(without_opt(with_code(Rcode::FORMERR), is_bare))
            }
            Behaviour::NoOptions { has_opt }
                if message
                    .opt()
                    .is_some_and(|opt| opt.options().next().is_some()) =>
            {
                let reply = with_code(Rcode::FORMERR);
                answer(if has_opt {
                    reply
                } else {
                    without_opt(reply, false)
                })
            }
            Behaviour::LoopsCorp if is_in_corp(name) => None,
            Behaviour::EndsKeepalive => answer(with_keepalive(right)),
            Behaviour::ResolvesWithoutEdns if message.opt().is_some() => {
                answer(without_opt(with_code(Rcode::FORMERR), true))
            }
            Behaviour::StreamsOnly | Behaviour::ResolvesOnStreams if to.scheme == Scheme::Udp => {
                None
            }
            Behaviour::EndsOnBad { .. } if name[1..].starts_with(b"never") => None,
            Behaviour::IgnoresFlood if name[1..].starts_with(b"flood") => None,
            Behaviour::Takes(delay) | Behaviour::EndsOnBad { takes: delay, .. } => {
                Some((delay, right))
            }
            Behaviour::TakesWhatNamesSay => {
                let digits = name[1..].iter().take_while(|byte| byte.is_ascii_digit());
                let milliseconds = digits.fold(0, |sum, digit| 10 * sum + u64::from(digit - b'0'));
                Some((Duration::from_millis(milliseconds), right))
            }
            Behaviour::Stalls { after } => (sent <= after).then_some((ANSWERING, right)),
            Behaviour::StallsPromptly { after } => (sent <= after).then_some((PROMPTLY, right)),
            Behaviour::Answers { slow } if name[1..].starts_with(b"slow") => {
                slow.map(|slow| (slow, right))
            }
            Behaviour::Says(rcode) => answer(with_code(rcode)),
            Behaviour::OfBad(reply) if is_bad => Some((reply.after, reply.to_bytes(query))),
            Behaviour::SaysOfBad(rcode) if is_bad => answer(with_code(rcode)),
            Behaviour::Cuts { .. } if to.scheme == Scheme::Udp => {
                let mut cut = reply(query, 0);
                cut[2] |= 2;
                answer(cut)
            }
            Behaviour::RejectsDatagrams if name != b"\x03dns\x07example\0" => answer(right),
            Behaviour::RejectsDatagrams
            | Behaviour::Resolves
            | Behaviour::ResolvesOnStreams
            | Behaviour::ResolvesWithoutEdns => {
                answer(address_reply(query, &self.addresses, self.ttl))
            }
            Behaviour::Answers { .. }
            | Behaviour::IgnoresFlood
            | Behaviour::LoopsCorp
            | Behaviour::TakesOne
            | Behaviour::ClosesIdle(_)
            | Behaviour::SaysOfBad(_)
            | Behaviour::OfBad(_)
            | Behaviour::SaysOfType(..)
            | Behaviour::DefectiveForBad(_)
            | Behaviour::DefectiveFirst(_)
            | Behaviour::NoEdns { .. }
            | Behaviour::NoOptions { .. }
            | Behaviour::StreamsOnly
            | Behaviour::Loses { .. }
            | Behaviour::Cuts { .. } => answer(right),
            Behaviour::Loops
            | Behaviour::InOrder { .. }
            | Behaviour::Closes
            | Behaviour::NeverAnswers
            | Behaviour::DropsPackets
            | Behaviour::Refuses
            | Behaviour::EndsAfterHandshake
            | Behaviour::Impostor => None,
        }
    }

    fn on_open(&mut self, link: LinkKey, to: Destination) {
        self.links.insert(link.index(), (link, to));
        self.links_max = self.links_max.max(self.links.len());
        self.sent_by_link.insert(link.index(), 0);
        self.busy_until_by_link.remove(&link.index());
        if to.scheme != Scheme::Udp {
            self.connect(link, to);
        }
    }

    fn connect(&mut self, link: LinkKey, to: Destination) {
        let host = number(&to);
        self.connected_to.insert(host);
        let others = self.links.values().filter(|(other, _)| *other != link);
        let others = others.filter(|(_, other)| number(other) == host && other.scheme == to.scheme);
        let others = others.count();
        let is_first = others == 0;
        let event = match self
            .behaviours
            .get(&host)
            .copied()
            .expect("the address has an upstream")
        {
            Behaviour::DropsPackets => return self.lost.push(link),
            Behaviour::Impostor => Event::Down(link, FailureKind::Authentication),
            Behaviour::EndsAfterHandshake => {
                let soon = self.now + CONNECTING + Duration::from_millis(1);
                self.plan(soon, Event::Down(link, FailureKind::Tls));
                Event::Up(link)
            }
            Behaviour::TakesOne if !is_first => Event::Down(link, FailureKind::Connect),
            Behaviour::Refuses
            | Behaviour::Cuts {
                on_connections: false,
            } => Event::Down(link, FailureKind::Connect),
            Behaviour::LimitsClients { connections, .. } if others >= connections => {
                let soon = self.now + CONNECTING + Duration::from_millis(1);
                self.plan(soon, Event::Down(link, FailureKind::Closed));
                Event::Up(link)
            }
            _ => Event::Up(link),
        };
        self.plan(self.now + CONNECTING, event);
    }
}

/// Adds an OPT record to a reply that asks for the end of the connection (RFC 7828).
fn with_keepalive(mut reply: Vec<u8>) -> Vec<u8> {
    let end = Message::parse(&reply).expect("well formed").records_end();
    reply.truncate(end);
    reply.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x06\0\x0b\0\x02\0\0");
    reply
}

/// Removes the OPT record and, if `is_bare`, the question from a reply.
fn without_opt(mut reply: Vec<u8>, is_bare: bool) -> Vec<u8> {
    let opt_start = Message::parse(&reply).expect("well formed").records_end();
    reply.truncate(if is_bare { 12 } else { opt_start });
    (reply[5], reply[11]) = (u8::from(!is_bare), 0);
    reply
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    let addresses = addresses
        .iter()
        .map(|text| text.parse().expect("an address"));
    addresses.collect()
}

fn is_in_corp(name: &[u8]) -> bool {
    name.ends_with(b"\x04corp\x07example\0")
}

/// Returns the last byte of an address.
fn number(to: &Destination) -> u8 {
    match to.address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

pub fn at(seconds: f64) -> Instant {
    Instant::after_start(Duration::from_secs_f64(100.0 + seconds))
}

pub fn failed(responses: &[&Response]) -> usize {
    responses.iter().filter(|r| !r.is_answer()).count()
}

pub fn slower_than(responses: &[&Response], seconds: f64) -> usize {
    let limit = Duration::from_secs_f64(seconds);
    responses.iter().filter(|r| r.waited > limit).count()
}
