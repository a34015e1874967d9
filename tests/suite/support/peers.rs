//! The peers in a simulated network: resolvers and clients with random behaviour.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::wire::Message;
use dotproxy::wire::frame;
use dotproxy::wire::header::HEADER_LEN;
use rustls::{ServerConfig, ServerConnection};

use super::messages::{address_reply, check_response, query, reply};
use super::network::{Fate, Peers, StreamId, World};

/// The behaviour of a resolver: the percentages of its deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRates {
    pub refuses: u64,
    pub loses: u64,
    pub spoils_handshake: u64,
    pub spoils_answer: u64,
    pub hangs_up: u64,
    pub is_slow: u64,
    /// Milliseconds after which the resolver ends every connection; 0: never.
    pub lifetime: u64,
    /// The resolver has no valid certificate.
    pub is_impostor: bool,
}

impl FaultRates {
    pub const HEALTHY: Self = Self {
        refuses: 0,
        loses: 0,
        spoils_handshake: 0,
        spoils_answer: 0,
        hangs_up: 0,
        is_slow: 0,
        lifetime: 0,
        is_impostor: false,
    };
}

/// The certificates of resolvers.
#[derive(Clone)]
pub struct ResolverCertificates {
    pub right: Arc<ServerConfig>,
    pub wrong: Arc<ServerConfig>,
}

/// A connection of the proxy to a resolver.
struct Served {
    rates: FaultRates,
    /// `None` if the resolver does not use TLS.
    tls: Option<ServerConnection>,
    /// The resolver uses plain DNS.
    is_plain: bool,
    received: Vec<u8>,
    dripping: VecDeque<u8>,
    /// The resolver stopped within a message.
    is_torn: bool,
    is_over: bool,
}

/// The behaviour of a TCP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends queries, reads the answers, stays connected.
    Patient,
    /// Ends its stream after its last query.
    HalfCloses,
    /// Resets the connection.
    Aborts,
    /// Reads nothing.
    NeverReads,
    /// Sends data that is not DNS.
    Babbles,
}

struct TcpClient {
    kind: Kind,
    asked: BTreeMap<u16, Vec<u8>>,
    received: Vec<u8>,
}

struct UdpQuery {
    bytes: Vec<u8>,
    at: Instant,
}

/// All peers of the proxy.
pub struct SimulatedPeers {
    resolver_certificates: ResolverCertificates,
    /// The longest time from a query over UDP to its response.
    patience: Duration,
    rates_by_address: BTreeMap<SocketAddr, FaultRates>,
    /// A plain resolver, which must receive only queries for names below `secret.net`.
    pub plain: Option<SocketAddr>,
    /// A resolver that knows the addresses of all others.
    pub bootstrap: Option<SocketAddr>,
    served: BTreeMap<StreamId, Served>,
    clients: BTreeMap<StreamId, TcpClient>,
    udp: BTreeMap<SocketAddr, UdpQuery>,
    reminders: BTreeMap<u64, Reminder>,
    next_reminder: u64,
    next_port: u16,
    pub answers: u64,
    pub errors: u64,
    pub handshakes: u64,
    /// A hash of all events.
    pub trace: u64,
}

enum Reminder {
    /// A reply of a resolver.
    Reply(StreamId, Vec<u8>),
    /// Part of a reply, without the rest.
    Torn(StreamId, Vec<u8>),
    /// A reply that is sent byte by byte, unless it is long.
    Drip(StreamId, Vec<u8>),
    DripOn(StreamId),
    Close(StreamId),
    Hangup(StreamId),
    Reset(StreamId),
    AskUdp(SocketAddr),
    TcpPiece(StreamId, Vec<u8>),
    TcpEnd(StreamId),
    TcpAbort(StreamId),
}

impl SimulatedPeers {
    pub fn new(
        resolver_certificates: ResolverCertificates,
        patience: Duration,
        rates_by_address: BTreeMap<SocketAddr, FaultRates>,
    ) -> Self {
        Self {
            resolver_certificates,
            patience,
            rates_by_address,
            plain: None,
            bootstrap: None,
            served: BTreeMap::new(),
            clients: BTreeMap::new(),
            udp: BTreeMap::new(),
            reminders: BTreeMap::new(),
            next_reminder: 0,
            next_port: 1024,
            answers: 0,
            errors: 0,
            handshakes: 0,
            trace: 0,
        }
    }

    /// Schedules a query of a UDP client to `server`.
    pub fn plan_udp_query(&mut self, world: &mut World, server: SocketAddr, delay: Duration) {
        self.plan(world, delay, Reminder::AskUdp(server));
    }

    /// Schedules a TCP client of this kind that connects to `server` and sends this number of
    /// queries.
    pub fn plan_tcp_client(
        &mut self,
        world: &mut World,
        server: SocketAddr,
        delay: Duration,
        kind: Kind,
        queries: u16,
    ) {
        let window = if kind == Kind::NeverReads {
            500
        } else {
            20_000
        };
        let from = self.client_address();
        let stream = world.connect(from, server, delay, window);
        if kind == Kind::NeverReads {
            world.ignore(stream);
        }
        let mut client = TcpClient {
            kind,
            asked: BTreeMap::new(),
            received: Vec::new(),
        };
        let mut bytes = Vec::new();
        for id in 0..queries {
            let query = some_query(world, id);
            frame::write(&mut bytes, &query);
            client.asked.insert(id, query);
        }
        if kind == Kind::Babbles {
            bytes.iter_mut().skip(2).for_each(|byte| *byte ^= 0xa5);
        }
        let mut at = delay + Duration::from_millis(20);
        while !bytes.is_empty() {
            let len = if world.chance.percent(60) {
                bytes.len()
            } else {
                1 + world.chance.below(bytes.len())
            };
            let rest = bytes.split_off(len);
            self.plan(world, at, Reminder::TcpPiece(stream, bytes));
            bytes = rest;
            at += Duration::from_micros(world.chance.between(1, 40_000));
        }
        match kind {
            Kind::HalfCloses => self.plan(world, at, Reminder::TcpEnd(stream)),
            Kind::Aborts => self.plan(world, at, Reminder::TcpAbort(stream)),
            _ => {}
        }
        self.clients.insert(stream, client);
    }

    /// Checks that no well-behaved client still waits for a response.
    pub fn check_end(&self) {
        assert!(
            self.udp.is_empty(),
            "{} UDP queries without a response",
            self.udp.len()
        );
        for client in self.clients.values() {
            if matches!(client.kind, Kind::Patient | Kind::HalfCloses) {
                assert!(
                    client.asked.is_empty(),
                    "{:?}: {} queries without a response",
                    client.kind,
                    client.asked.len()
                );
            }
        }
    }

    fn client_address(&mut self) -> SocketAddr {
        self.next_port += 1;
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.next_port))
    }

    fn plan(&mut self, world: &mut World, delay: Duration, reminder: Reminder) {
        self.next_reminder += 1;
        self.reminders.insert(self.next_reminder, reminder);
        world.remind(delay, self.next_reminder);
    }

    fn note(&mut self, world: &World, what: &str) {
        for byte in format!("{:?} {what}", world.now).bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Schedules the end of a connection by a resolver, in a random way.
    fn plan_end(&mut self, world: &mut World, stream: StreamId, delay: Duration) {
        let end = match world.chance.below(3) {
            0 => Reminder::Close(stream),
            1 => Reminder::Hangup(stream),
            _ => Reminder::Reset(stream),
        };
        self.plan(world, delay, end);
    }

    /// Handles a query at a resolver according to its behaviour.
    fn serve(&mut self, world: &mut World, stream: StreamId, query: &[u8]) {
        let rates = self.served[&stream].rates;
        assert!(!rates.is_impostor, "a query reached an impostor");
        let delay = if world.chance.percent(rates.is_slow) {
            Duration::from_millis(world.chance.between(500, 6_000))
        } else {
            Duration::from_micros(world.chance.between(100, 80_000))
        };
        let records = if world.chance.percent(1) {
            3_000
        } else {
            *world.chance.pick(&[1, 1, 2, 60])
        };
        let right = reply(query, records);
        if world.chance.percent(rates.hangs_up) {
            self.plan_end(world, stream, delay);
        }
        let mut framed = Vec::new();
        if !world.chance.percent(rates.spoils_answer) {
            frame::write(&mut framed, &right);
            return self.plan(world, delay, Reminder::Reply(stream, framed));
        }
        let mut wrong = right.clone();
        match world.chance.below(12) {
            0 => {}
            1 => wrong[0] ^= 0x55,
            2 => wrong[2] &= 0x7f,
            3 => wrong[13] ^= 1,
            4 => wrong.truncate(HEADER_LEN + 3),
            5 => wrong[HEADER_LEN..].fill(0xc0),
            6 => wrong[3] |= 2,
            7 => wrong.clear(),
            8 => wrong.truncate(5),
            9 => frame::write(&mut framed, &right),
            10 => {
                frame::write(&mut framed, &right);
                framed.truncate(framed.len() / 2);
                self.plan(world, delay, Reminder::Torn(stream, framed));
                return self.plan(world, delay + delay, Reminder::Close(stream));
            }
            _ => {
                frame::write(&mut framed, &right);
                return self.plan(world, delay, Reminder::Drip(stream, framed));
            }
        }
        if wrong != right || !framed.is_empty() {
            frame::write(&mut framed, &wrong);
            self.plan(world, delay, Reminder::Reply(stream, framed));
        }
    }

    /// Handles a query in a datagram at a resolver.
    fn serve_datagram(
        &mut self,
        world: &mut World,
        from: SocketAddr,
        to: SocketAddr,
        query: &[u8],
    ) {
        check_in_the_clear(query);
        let rates = self.rates_by_address[&to];
        if world.chance.percent(rates.loses) {
            return;
        }
        if world.chance.percent(rates.refuses) {
            return world.send_datagram(to, from, SERVER_LATENCY, Vec::new());
        }
        let delay = if world.chance.percent(rates.is_slow) {
            Duration::from_millis(world.chance.between(500, 6_000))
        } else {
            Duration::from_micros(world.chance.between(100, 80_000))
        };
        let mut reply = match *world.chance.pick(&[1, 1, 1, 2, 200]) {
            // The reply does not fit a datagram.
            200 => {
                let mut cut = reply(query, 0);
                cut[2] |= 2;
                cut
            }
            records => reply(query, records),
        };
        if world.chance.percent(rates.spoils_answer) {
            match world.chance.below(6) {
                0 => reply[0] ^= 0x55,
                1 => reply[2] &= 0x7f,
                2 => reply[13] ^= 1,
                3 => reply.truncate(HEADER_LEN + 3),
                4 => reply[3] |= 2,
                // A forged reply of an off-path attacker.
                _ => {
                    let other = SocketAddr::from(([127, 0, 0, 66], 53));
                    return world.send_datagram(other, from, delay, reply);
                }
            }
        }
        world.send_datagram(to, from, delay, reply);
    }

    /// Sends some of the addresses of the resolvers.
    fn send_addresses(
        &mut self,
        world: &mut World,
        from: SocketAddr,
        to: SocketAddr,
        query: &[u8],
    ) {
        let question = Message::parse(query).expect("well formed").question();
        let asked = question.expect("a question").to_string();
        if asked == ". NS" || asked.starts_with("loop-test-") {
            return world.send_datagram(to, from, SERVER_LATENCY, reply(query, 0));
        }
        assert!(asked.starts_with("dot.example. A"), "{asked}");
        let others = self
            .rates_by_address
            .keys()
            .filter(|ip| Some(**ip) != self.plain);
        let mut addresses: Vec<_> = others.map(SocketAddr::ip).collect();
        let first = world.chance.below(addresses.len());
        addresses.rotate_left(first);
        let reply = address_reply(query, &addresses, 60);
        if world.chance.percent(95) {
            world.send_datagram(to, from, SERVER_LATENCY, reply);
        }
    }

    fn flush_tls(&mut self, world: &mut World, stream: StreamId) {
        let Some(tls) = self
            .served
            .get_mut(&stream)
            .and_then(|served| served.tls.as_mut())
        else {
            return;
        };
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes)
                .expect("writing to memory cannot fail");
        }
        if !bytes.is_empty() {
            world.send(stream, SERVER_LATENCY, bytes);
        }
    }

    fn on_bytes_for_server(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {
        let served = self.served.get_mut(&stream).expect("a resolver's stream");
        if served.is_over {
            return;
        }
        let rates = served.rates;
        if served.is_plain {
            served.received.extend_from_slice(bytes);
            let mut queries = Vec::new();
            take_frames(&mut served.received, |query| queries.push(query.to_vec()));
            for query in queries {
                check_in_the_clear(&query);
                self.serve(world, stream, &query);
            }
            return;
        }
        let Some(tls) = &mut served.tls else {
            let has_name = bytes
                .windows(6)
                .any(|window| window.eq_ignore_ascii_case(b"secret"));
            assert!(!has_name, "a query in the clear");
            return;
        };
        let was_handshaking = tls.is_handshaking();
        if was_handshaking && world.chance.percent(rates.spoils_handshake) {
            served.is_over = true;
            match world.chance.below(4) {
                0 => {}
                1 => world.end(stream, SERVER_LATENCY),
                2 => world.reset(stream, SERVER_LATENCY),
                _ => world.send(
                    stream,
                    SERVER_LATENCY,
                    b"220 mail.example ESMTP\r\n".to_vec(),
                ),
            }
            return;
        }
        let mut rest = bytes;
        let mut queries = Vec::new();
        while !rest.is_empty() {
            tls.read_tls(&mut rest)
                .expect("reading from memory cannot fail");
            let Ok(state) = tls.process_new_packets() else {
                served.is_over = true;
                break;
            };
            let mut payload = vec![0; state.plaintext_bytes_to_read()];
            tls.reader()
                .read_exact(&mut payload)
                .expect("rustls reported this number of bytes");
            served.received.append(&mut payload);
        }
        self.handshakes += u64::from(was_handshaking && !tls.is_handshaking());
        take_frames(&mut served.received, |query| queries.push(query.to_vec()));
        self.flush_tls(world, stream);
        for query in queries {
            self.serve(world, stream, &query);
        }
    }

    fn on_bytes_for_client(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {
        let client = self.clients.get_mut(&stream).expect("a client's stream");
        client.received.extend_from_slice(bytes);
        let mut responses = Vec::new();
        take_frames(&mut client.received, |response| {
            responses.push(response.to_vec());
        });
        for response in responses {
            let client = self.clients.get_mut(&stream).expect("a client's stream");
            if client.kind == Kind::Babbles {
                continue;
            }
            let id = u16::from_be_bytes([response[0], response[1]]);
            let query = client
                .asked
                .remove(&id)
                .expect("each query has one response");
            let is_answer = check_response(&query, &response);
            self.count(is_answer);
            self.note(world, &format!("tcp {stream} {id} {is_answer}"));
        }
    }

    /// Sends bytes of a resolver, after those that are still dripping.
    fn send_to_proxy(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {
        let served = self.served.get_mut(&stream).expect("a resolver's stream");
        if served.is_over || served.is_torn {
            return;
        }
        if !served.dripping.is_empty() {
            served.dripping.extend(bytes);
        } else if served.is_plain {
            world.send(stream, SERVER_LATENCY, bytes.to_vec());
        } else if let Some(tls) = &mut served.tls {
            tls.writer()
                .write_all(bytes)
                .expect("writing to memory cannot fail");
            self.flush_tls(world, stream);
        }
    }

    fn count(&mut self, is_answer: bool) {
        self.answers += u64::from(is_answer);
        self.errors += u64::from(!is_answer);
    }
}

/// Checks that a plain query is for an allowed name.
fn check_in_the_clear(query: &[u8]) {
    let question = Message::parse(query).expect("well formed").question();
    let asked = question.expect("a question").to_string().to_lowercase();
    // A probe for the domain tests whether its upstream has recovered.
    let is_known = asked.contains(".secret.net. ") || asked == "secret.net. ns";
    assert!(is_known, "{asked} in the clear");
}

const SERVER_LATENCY: Duration = Duration::from_micros(700);

fn some_query(world: &mut World, id: u16) -> Vec<u8> {
    let names = [
        "www.secret.example",
        "WwW.sEcret.eXample",
        "mail.secret.org",
        "a.b.c.d.e.f.secret.net",
    ];
    let name = format!(
        "x{}.{}",
        world.chance.below(5_000),
        world.chance.pick(&names)
    );
    let size = *world.chance.pick(&[None, Some(512), Some(1232)]);
    query(id, &name, *world.chance.pick(&[1, 28]), size)
}

fn take_frames(received: &mut Vec<u8>, mut take: impl FnMut(&[u8])) {
    while let Some(length) = received.first_chunk() {
        let end = 2 + usize::from(u16::from_be_bytes(*length));
        if received.len() < end {
            return;
        }
        take(&received[2..end]);
        received.drain(..end);
    }
}

impl Peers for SimulatedPeers {
    fn on_connect(&mut self, world: &mut World, stream: StreamId, to: SocketAddr) -> Fate {
        let Some(rates) = self.rates_by_address.get(&to).copied() else {
            // The bootstrap server supports only datagrams.
            assert_eq!(Some(to), self.bootstrap, "an address that the options name");
            return Fate::Refused;
        };
        let is_plain = self.plain == Some(to);
        let speaks_tls = !is_plain && !world.chance.percent(rates.spoils_handshake / 4);
        let config = if rates.is_impostor {
            &self.resolver_certificates.wrong
        } else {
            &self.resolver_certificates.right
        };
        let tls = speaks_tls.then(|| {
            let mut tls = ServerConnection::new(Arc::clone(config)).expect("a server connection");
            tls.set_buffer_limit(None);
            tls
        });
        self.served.insert(
            stream,
            Served {
                rates,
                tls,
                is_plain,
                received: Vec::new(),
                dripping: VecDeque::new(),
                is_torn: false,
                is_over: false,
            },
        );
        if world.chance.percent(rates.loses) {
            Fate::Lost
        } else if world.chance.percent(rates.refuses) {
            Fate::Refused
        } else {
            Fate::Accepted
        }
    }

    fn on_open(&mut self, world: &mut World, stream: StreamId) {
        let Some(served) = self.served.get(&stream) else {
            return;
        };
        if served.rates.lifetime > 0 {
            let lifetime = Duration::from_millis(served.rates.lifetime);
            self.plan_end(world, stream, lifetime);
        } else if served.tls.is_none() && !served.is_plain {
            world.send(stream, SERVER_LATENCY, b"SSH-2.0-OpenSSH_9.2\r\n".to_vec());
        }
    }

    fn on_bytes(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {
        if self.served.contains_key(&stream) {
            self.on_bytes_for_server(world, stream, bytes);
        } else {
            self.on_bytes_for_client(world, stream, bytes);
        }
    }

    fn on_closed(&mut self, world: &mut World, stream: StreamId) {
        self.note(world, &format!("closed {stream}"));
        if let Some(served) = self.served.get_mut(&stream) {
            served.is_over = true;
        } else if let Some(client) = self.clients.get(&stream)
            && matches!(client.kind, Kind::Patient | Kind::HalfCloses)
        {
            assert!(client.asked.is_empty(), "closed on a client that waits");
        }
    }

    fn on_datagram(&mut self, world: &mut World, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if self.bootstrap == Some(to) {
            return self.send_addresses(world, from, to, bytes);
        }
        if self.plain == Some(to) {
            return self.serve_datagram(world, from, to, bytes);
        }
        let asked = self.udp.remove(&to).expect("each query has one response");
        let is_answer = check_response(&asked.bytes, bytes);
        assert!(bytes.len() <= 1232);
        let waited = world.now - asked.at;
        assert!(waited <= self.patience, "a response after {waited:?}");
        self.count(is_answer);
        self.note(world, &format!("udp {to} {is_answer}"));
    }

    fn on_reminder(&mut self, world: &mut World, reminder: u64) {
        let reminder = self
            .reminders
            .remove(&reminder)
            .expect("the reminder was planned");
        match reminder {
            Reminder::Reply(stream, bytes) => self.send_to_proxy(world, stream, &bytes),
            Reminder::Torn(stream, bytes) => {
                self.send_to_proxy(world, stream, &bytes);
                let served = self.served.get_mut(&stream).expect("a resolver's stream");
                served.is_torn = true;
            }
            Reminder::Drip(stream, bytes) => {
                let served = self.served.get_mut(&stream).expect("a resolver's stream");
                served.dripping.extend(bytes);
                self.plan(world, Duration::ZERO, Reminder::DripOn(stream));
            }
            Reminder::DripOn(stream) => {
                let served = self.served.get_mut(&stream).expect("a resolver's stream");
                let len = if served.dripping.len() > 500 { 500 } else { 1 };
                let len = len.min(served.dripping.len());
                let bytes: Vec<u8> = served.dripping.drain(..len).collect();
                if !bytes.is_empty() {
                    let rest = std::mem::take(&mut served.dripping);
                    self.send_to_proxy(world, stream, &bytes);
                    let served = self.served.get_mut(&stream).expect("a resolver's stream");
                    served.dripping = rest;
                    self.plan(world, Duration::from_millis(3), Reminder::DripOn(stream));
                }
            }
            Reminder::Close(stream) => {
                let served = self.served.get_mut(&stream).expect("a resolver's stream");
                if served.is_plain {
                    world.end(stream, SERVER_LATENCY);
                } else if let Some(tls) = served.tls.as_mut().filter(|_| !served.is_over) {
                    tls.send_close_notify();
                    self.flush_tls(world, stream);
                }
                self.served
                    .get_mut(&stream)
                    .expect("a resolver's stream")
                    .is_over = true;
            }
            Reminder::Hangup(stream) => {
                self.served
                    .get_mut(&stream)
                    .expect("a resolver's stream")
                    .is_over = true;
                world.end(stream, SERVER_LATENCY);
            }
            Reminder::Reset(stream) => {
                self.served
                    .get_mut(&stream)
                    .expect("a resolver's stream")
                    .is_over = true;
                world.reset(stream, SERVER_LATENCY);
            }
            Reminder::AskUdp(server) => {
                let from = self.client_address();
                let id = u16::try_from(world.chance.below(65_536)).expect("16 bits");
                let bytes = some_query(world, id);
                world.send_datagram(from, server, Duration::ZERO, bytes.clone());
                self.udp.insert(
                    from,
                    UdpQuery {
                        bytes,
                        at: world.now,
                    },
                );
            }
            Reminder::TcpPiece(stream, bytes) => world.send(stream, Duration::ZERO, bytes),
            Reminder::TcpEnd(stream) => world.end(stream, Duration::ZERO),
            Reminder::TcpAbort(stream) => world.reset(stream, Duration::ZERO),
        }
    }
}
