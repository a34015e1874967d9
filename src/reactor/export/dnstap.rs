//! The dnstap exporter: gathers messages within a turn, sends them at its end, and drops them if
//! there is no reader or the reader is too slow.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::base::arena::Key;
use crate::base::time::Instant;
use crate::config::{DnstapTarget, Scheme};
use crate::net::Net;
use crate::proxy::Protocol;
use crate::reactor::{Reactor, Session, Slot};
use crate::session::FrameStream;
use crate::session::observer::frame_stream::frame;
use crate::telemetry::dnstap::{self, Kind, SocketProtocol};

/// The gathered messages and the connection to the reader.
#[derive(Debug)]
pub(in crate::reactor) struct Tap {
    target: DnstapTarget,
    /// Maximum number of bytes that are gathered, and that wait for the reader.
    unsent_max: usize,
    frames: Vec<u8>,
    count: u64,
    dropped: u64,
    /// The connection to the reader, if there is one.
    session: Option<Key>,
    /// The time of the next connection attempt, without a reader.
    connect_at: Option<Instant>,
    /// The absence of a reader has been logged.
    is_reported: bool,
}

impl Tap {
    /// Creates an exporter to `target` with at most `unsent_max` waiting bytes.
    pub(in crate::reactor) fn new(target: DnstapTarget, unsent_max: usize, now: Instant) -> Self {
        Self {
            target,
            unsent_max,
            frames: Vec::new(),
            count: 0,
            dropped: 0,
            session: None,
            connect_at: Some(now),
            is_reported: false,
        }
    }

    /// Returns the time of the next connection attempt.
    pub(in crate::reactor) fn next_due(&self) -> Option<Instant> {
        self.connect_at
    }

    /// Returns the number of messages that the reader did not get.
    pub(in crate::reactor) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a query of a client.
    pub(in crate::reactor) fn on_query(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        message: &[u8],
    ) {
        self.add(
            Kind::ClientQuery,
            socket_protocol(protocol),
            client,
            message,
        );
    }

    /// Adds the response to a client's query.
    pub(in crate::reactor) fn on_response(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        message: &[u8],
    ) {
        self.add(
            Kind::ClientResponse,
            socket_protocol(protocol),
            client,
            message,
        );
    }

    /// Adds a message to or from an upstream.
    pub(in crate::reactor) fn on_forwarded(
        &mut self,
        kind: Kind,
        to: (Scheme, SocketAddr),
        message: &[u8],
    ) {
        let protocol = match to.0 {
            Scheme::Udp => SocketProtocol::Udp,
            Scheme::Tcp => SocketProtocol::Tcp,
            Scheme::Tls => SocketProtocol::Tls,
        };
        self.add(kind, protocol, to.1, message);
    }

    fn add(&mut self, kind: Kind, protocol: SocketProtocol, peer: SocketAddr, message: &[u8]) {
        if self.session.is_none() || self.frames.len() > self.unsent_max {
            self.dropped += 1;
            return;
        }
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        frame(&mut self.frames, |out| {
            dnstap::write(out, kind, protocol, peer, time.unwrap_or_default(), message);
        });
        self.count += 1;
    }
}

fn socket_protocol(protocol: Protocol) -> SocketProtocol {
    match protocol {
        Protocol::Udp => SocketProtocol::Udp,
        Protocol::Tcp => SocketProtocol::Tcp,
        Protocol::Tls => SocketProtocol::Tls,
    }
}

impl<N: Net> Reactor<N> {
    /// Connects to the reader if an attempt is due.
    pub(in crate::reactor) fn connect_tap(&mut self) {
        let now = self.now;
        let is_due = |tap: &&mut Tap| tap.connect_at.is_some_and(|at| at <= now);
        let Some(tap) = self.tap.as_mut().filter(is_due) else {
            return;
        };
        let key = self.sessions.next_key();
        let stream = match &tap.target {
            DnstapTarget::Local(path) => self.net.connect_local(path, key),
            DnstapTarget::Tcp(address) => self.net.connect(*address, key),
        };
        match stream {
            Ok(stream) => {
                let session = Session::Tap(FrameStream::new(stream));
                tap.connect_at = None;
                tap.session = Some(self.sessions.insert(Slot::new(session)));
                self.make_unflushed(key);
            }
            Err(error) => self.disconnect_tap(&error.to_string()),
        }
    }

    pub(in crate::reactor) fn step_tap(&mut self, key: Key) {
        if let Some(stream) = self.sessions.get_mut(key).and_then(Slot::tap) {
            let was_accepted = stream.is_accepted();
            if let Err(failure) = stream.ready(&mut self.scratch) {
                return self.disconnect_tap(&failure.to_string());
            }
            if let Some(tap) = self
                .tap
                .as_mut()
                .filter(|_| stream.is_accepted() && !was_accepted)
            {
                tap.is_reported = false;
                log::info!(event = "dnstap-connected"; "dnstap: connected to {}", tap.target);
            }
            self.make_unflushed(key);
        }
    }

    pub(in crate::reactor) fn flush_tap(&mut self, key: Key) {
        if let Some(stream) = self.sessions.get_mut(key).and_then(Slot::tap)
            && let Err(failure) = stream.flush(&mut self.scratch)
        {
            self.disconnect_tap(&failure.to_string());
        }
    }

    /// Sends the gathered messages to the reader.
    pub(in crate::reactor) fn send_tap(&mut self) {
        let Some(tap) = self.tap.as_mut().filter(|tap| tap.count > 0) else {
            return;
        };
        let stream = tap.session.and_then(|key| self.sessions.get_mut(key));
        let stream = stream.and_then(Slot::tap);
        let count = std::mem::take(&mut tap.count);
        let is_taken = stream.is_some_and(|stream| {
            stream.send(tap.unsent_max, |out| out.extend_from_slice(&tap.frames))
        });
        tap.frames.clear();
        tap.frames.shrink_to(FRAMES_KEPT);
        if is_taken {
            let key = tap.session.expect("a tap that took frames has a session");
            self.make_unflushed(key);
        } else {
            tap.dropped += count;
        }
    }

    /// Sends the end of the stream to the reader.
    pub(in crate::reactor) fn end_tap(&mut self) {
        self.send_tap();
        let key = self.tap.as_ref().and_then(|tap| tap.session);
        let slot = key.and_then(|key| self.sessions.get_mut(key));
        if let Some(stream) = slot.and_then(Slot::tap) {
            stream.stop();
            // The process ends: there is no later write.
            let _ = stream.flush(&mut self.scratch);
        }
    }

    fn disconnect_tap(&mut self, reason: &str) {
        let Some(tap) = &mut self.tap else {
            return;
        };
        if let Some(key) = tap.session.take() {
            self.sessions.remove(key);
        }
        tap.connect_at = Some(self.now + self.config.timeouts.dnstap_pause);
        if !std::mem::replace(&mut tap.is_reported, true) {
            let target = &tap.target;
            log::warn!(event = "dnstap-lost"; "dnstap: {target}: {reason}; retrying");
        }
    }
}

/// The capacity in bytes that is kept from turn to turn.
const FRAMES_KEPT: usize = 16 * 1024;
