//! A DoT server that injects faults as often as planned and counts its queries.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use super::certificates::{Authority, Flaw};
use super::messages::reply;
use super::program::{await_that, listen_again, read_framed};

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
    CloseNotify,
}

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Ends a connection as soon as it is accepted.
    EndAtAccept(End),
    /// Sends nothing at all.
    StallHandshake,
    /// Sends data that is not TLS.
    SpeakClearText,
    /// Sends a certificate that authenticates nothing.
    Certificate(Flaw),
    /// Ends the connection instead of answering.
    EndBeforeAnswer(End),
    /// Ends the connection in the middle of the answer.
    EndWithinAnswer(End),
    /// Ends the connection after the answer.
    EndAfterAnswer(End),
    /// Sends the answer byte by byte, each in its own record, with this pause in between.
    Drip(Duration),
    /// Stops in the middle of the answer.
    TruncateFrame,
    /// Sends a frame of this number of bytes instead.
    ShortFrame(usize),
    /// Answers twice.
    AnswerTwice,
    /// Answers after this time.
    AnswerLate(Duration),
    /// Answers after the next query.
    AnswerOutOfOrder,
    WrongId,
    WrongQuestion,
    /// Sends the query back.
    NoResponse,
    /// Sends random bytes.
    Garbage,
    /// Sends an answer with malformed records.
    Malformed,
    /// Answers with this code.
    AnswerCode(u8),
    /// Answers with this number of records.
    Large(u16),
    /// Sends no answer.
    Silence,
}

impl Fault {
    /// Returns whether the fault affects a connection, rather than a query.
    fn strikes_connection(self) -> bool {
        matches!(
            self,
            Self::EndAtAccept(_)
                | Self::StallHandshake
                | Self::SpeakClearText
                | Self::Certificate(_)
        )
    }
}

/// Event counters of the server.
#[derive(Debug, Default)]
pub struct Counts {
    pub connections: AtomicU64,
    pub handshakes: AtomicU64,
    pub resumed: AtomicU64,
    pub queries: AtomicU64,
    /// Queries that arrived before the server was authenticated.
    pub leaked: AtomicU64,
    pub open: AtomicU64,
}

struct Shared {
    /// The fault and its remaining number of occurrences.
    plan: Mutex<Option<(Fault, u64)>>,
    counts: Counts,
    right: Arc<ServerConfig>,
    flawed: BTreeMap<&'static str, Arc<ServerConfig>>,
    is_stopped: AtomicBool,
    /// Connections without traffic for this time after an answer are closed.
    idle: Mutex<Option<Duration>>,
    waits_for_acknowledgements: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// A DoT server with faults.
pub struct Faulty {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Faulty {
    /// Starts the server without a fault, on a port of 127.0.0.1.
    pub fn start(authority: &Authority, port: u16) -> Self {
        let right = authority.server(Flaw::None, &[&TLS13, &TLS12]);
        Self::start_with(authority, right, port)
    }

    /// Starts the server with another valid configuration.
    pub fn start_with(authority: &Authority, right: Arc<ServerConfig>, port: u16) -> Self {
        let listener = listen_again((Ipv4Addr::LOCALHOST, port).into());
        let address = listener.local_addr().expect("the socket is bound");
        let versions = [&TLS13, &TLS12];
        let flaws = [
            Flaw::Expired,
            Flaw::SelfSigned,
            Flaw::WrongName,
            Flaw::SteeringName,
            Flaw::ExpiresSoon,
        ];
        let shared = Arc::new(Shared {
            plan: Mutex::default(),
            counts: Counts::default(),
            right,
            flawed: flaws
                .map(|flaw| (name_of(flaw), authority.server(flaw, &versions)))
                .into(),
            is_stopped: AtomicBool::new(false),
            idle: Mutex::default(),
            waits_for_acknowledgements: AtomicBool::default(),
            streams: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if for_thread.is_stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// Plans this number of occurrences of a fault.
    pub fn plan(&self, fault: Fault, times: u64) {
        *self
            .shared
            .plan
            .lock()
            .expect("no thread panics with the lock") = Some((fault, times));
    }

    /// Ends the planned fault.
    pub fn recover(&self) {
        *self
            .shared
            .plan
            .lock()
            .expect("no thread panics with the lock") = None;
    }

    /// Closes connections that are idle for this time after an answer.
    pub fn set_idle(&self, idle: Duration) {
        *self
            .shared
            .idle
            .lock()
            .expect("no thread panics with the lock") = Some(idle);
    }

    /// Sends no answer before the previous one is acknowledged (RFC 896).
    pub fn wait_for_acknowledgements(&self) {
        let waits = &self.shared.waits_for_acknowledgements;
        waits.store(true, Ordering::Relaxed);
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Plans a fault for the next connection of a program that has just been started: ends the
    /// connection that the program opens at its start, and waits until it has closed that one.
    pub fn plan_for_next_connection(&self, fault: Fault, times: u64) {
        let open = || self.counts().open.load(Ordering::Relaxed);
        await_that("the program is connected", || {
            self.counts().handshakes.load(Ordering::Relaxed) == 1
        });
        self.plan(fault, times);
        self.end_all(End::Fin);
        await_that("the program has closed its connection", || open() == 0);
    }

    /// Ends every open connection.
    pub fn end_all(&self, end: End) {
        for stream in self
            .shared
            .streams
            .lock()
            .expect("no thread panics with the lock")
            .drain(..)
        {
            // The close alert needs the connection's keys, which the connection's thread has, so
            // the alert is planned.
            end_stream(&stream, end);
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.end_all(End::Fin);
    }
}

fn name_of(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::None => "right",
        Flaw::Expired => "expired",
        Flaw::SelfSigned => "self-signed",
        Flaw::WrongName => "wrong name",
        Flaw::SteeringName => "steering name",
        Flaw::ExpiresSoon => "expires soon",
    }
}

fn end_stream(stream: &TcpStream, end: End) {
    if end == End::Reset {
        // Closing with a linger time of zero sends a reset; a shutdown before would send FIN.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        let _ = SockRef::from(stream).shutdown(Shutdown::Read);
        return;
    }
    let _ = stream.shutdown(Shutdown::Both);
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

impl Shared {
    /// Returns the planned fault, if it occurs now.
    fn strike(&self, is_connection: bool) -> Option<Fault> {
        let mut plan = self.plan.lock().expect("no thread panics with the lock");
        let (fault, times) = plan.as_mut()?;
        if fault.strikes_connection() != is_connection || *times == 0 {
            return None;
        }
        *times -= 1;
        Some(*fault)
    }

    fn serve(&self, stream: TcpStream) {
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        let waits = self.waits_for_acknowledgements.load(Ordering::Relaxed);
        stream
            .set_nodelay(!waits)
            .expect("the test owns the socket");
        let copy = stream.try_clone().expect("a descriptor");
        self.streams
            .lock()
            .expect("no thread panics with the lock")
            .push(copy);
        let peer = stream.peer_addr().ok();
        self.serve_with(stream, self.strike(true));
        self.drop_copy(peer);
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn serve_with(&self, mut stream: TcpStream, fault: Option<Fault>) {
        let config = match fault {
            Some(Fault::EndAtAccept(end)) => return self.end(stream, end),
            Some(Fault::StallHandshake) => return self.listen_for_leaks(stream),
            Some(Fault::SpeakClearText) => {
                let _ = stream.write_all(b"220 mail.example.org ESMTP ready\r\n");
                return self.listen_for_leaks(stream);
            }
            Some(Fault::Certificate(flaw)) => &self.flawed[name_of(flaw)],
            _ => &self.right,
        };
        let connection = ServerConnection::new(Arc::clone(config)).expect("a server connection");
        let mut tls = StreamOwned::new(connection, stream);
        while tls.conn.is_handshaking() {
            if tls.conn.complete_io(&mut tls.sock).is_err() {
                return;
            }
        }
        self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
        let is_resumed = tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        self.counts
            .resumed
            .fetch_add(u64::from(is_resumed), Ordering::Relaxed);
        let mut held = None;
        while let Ok(query) = read_framed(&mut tls) {
            self.counts.queries.fetch_add(1, Ordering::Relaxed);
            if matches!(fault, Some(Fault::Certificate(_))) {
                self.counts.leaked.fetch_add(1, Ordering::Relaxed);
            }
            match self.strike(false) {
                Some(Fault::AnswerOutOfOrder) => held = Some(query),
                Some(fault) => {
                    if self.answer_with(&mut tls, &query, fault).is_none() {
                        return;
                    }
                }
                None => {
                    send(&mut tls, &reply(&query, 1));
                    // A connection is idle only after an answer: before one, the peer may be slow.
                    let idle = *self.idle.lock().expect("no thread panics with the lock");
                    tls.sock.set_read_timeout(idle).expect("a timeout");
                    if let Some(query) = held.take() {
                        send(&mut tls, &reply(&query, 1));
                    }
                }
            }
        }
    }

    /// Reads data without answering, and counts queries that should not arrive.
    fn listen_for_leaks(&self, mut stream: TcpStream) {
        let mut buffer = [0; 4096];
        while let Ok(len) = stream.read(&mut buffer) {
            if len == 0 {
                return;
            }
            let has_name = buffer[..len].windows(6).any(|window| window == b"secret");
            self.counts
                .leaked
                .fetch_add(u64::from(has_name), Ordering::Relaxed);
        }
    }

    /// Answers with a fault. Returns `None` when the connection has ended.
    fn answer_with(&self, tls: &mut Tls, query: &[u8], fault: Fault) -> Option<()> {
        let mut right = reply(query, 1);
        match fault {
            Fault::EndBeforeAnswer(end) => return self.end_tls(tls, end),
            Fault::EndWithinAnswer(end) => {
                send_bytes(tls, &frame(&right)[..20]);
                return self.end_tls(tls, end);
            }
            Fault::EndAfterAnswer(end) => {
                send(tls, &right);
                return self.end_tls(tls, end);
            }
            Fault::Drip(pause) => {
                for byte in frame(&right) {
                    send_bytes(tls, &[byte]);
                    std::thread::sleep(pause);
                }
            }
            Fault::TruncateFrame => send_bytes(tls, &frame(&right)[..20]),
            Fault::ShortFrame(len) => send(tls, &right[..len]),
            Fault::AnswerTwice => {
                send(tls, &right);
                send(tls, &right);
            }
            Fault::AnswerLate(delay) => {
                std::thread::sleep(delay);
                send(tls, &right);
            }
            Fault::WrongId => {
                right[0] ^= 0x55;
                send(tls, &right);
            }
            Fault::WrongQuestion => {
                right[13] ^= 1;
                send(tls, &right);
            }
            Fault::NoResponse => {
                right[2] &= 0x7f;
                send(tls, &right);
            }
            Fault::Garbage => send(tls, &[0xa5; 100]),
            Fault::Malformed => send(tls, &right[..right.len() - 3]),
            Fault::AnswerCode(rcode) => {
                let mut reply = reply(query, 0);
                reply[3] = reply[3] & 0xf0 | rcode;
                send(tls, &reply);
            }
            Fault::Large(records) => send(tls, &reply(query, records)),
            Fault::Silence => {}
            Fault::AnswerOutOfOrder
            | Fault::EndAtAccept(_)
            | Fault::StallHandshake
            | Fault::SpeakClearText
            | Fault::Certificate(_) => unreachable!("handled elsewhere"),
        }
        Some(())
    }

    fn end(&self, stream: TcpStream, end: End) {
        self.drop_copy(stream.peer_addr().ok());
        end_stream(&stream, end);
    }

    fn end_tls(&self, tls: &mut Tls, end: End) -> Option<()> {
        self.drop_copy(tls.sock.peer_addr().ok());
        if end == End::CloseNotify {
            tls.conn.send_close_notify();
            let _ = tls.flush();
            // Only the alert is sent: the connection stays open for a while.
            std::thread::sleep(Duration::from_millis(300));
        }
        end_stream(&tls.sock, end);
        None
    }

    /// Drops the copy of a stream, which would keep the stream open.
    fn drop_copy(&self, peer: Option<SocketAddr>) {
        let mut streams = self.streams.lock().expect("no thread panics with the lock");
        streams.retain(|copy| copy.peer_addr().ok() != peer);
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    dotproxy::wire::frame::write(&mut bytes, message);
    bytes
}

fn send(tls: &mut Tls, message: &[u8]) {
    send_bytes(tls, &frame(message));
}

fn send_bytes(tls: &mut Tls, bytes: &[u8]) {
    // The proxy may have closed the connection already.
    let _ = tls.write_all(bytes).and_then(|()| tls.flush());
}
