//! The dnstap exporter: gathers messages within a turn, sends them at its end, and drops them if
//! there is no reader or the reader is too slow.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::connection::{Connection, Exporter};
use crate::base::arena::Key;
use crate::base::failure::Failure;
use crate::base::origin::ClientProtocol;
use crate::base::time::Instant;
use crate::config::DnstapTarget;
use crate::net::Net;
use crate::proxy::{LinkKey, Proxy, is_query};
use crate::reactor::{Reactor, Session, Slot, session_at};
use crate::session::client::datagram::Outgoing;
use crate::session::observer::frame_stream::frame;
use crate::session::{FrameStream, Step};
use crate::telemetry::dnstap::{self, MessageKind, SocketProtocol};

/// The gathered messages and the connection to the reader.
#[derive(Debug)]
pub(in crate::reactor) struct Tap {
    target: DnstapTarget,
    /// Maximum number of bytes that are gathered, and that wait for the reader.
    unsent_max: usize,
    frames: Vec<u8>,
    count: u64,
    pub(super) connection: Connection,
}

impl Tap {
    /// Creates an exporter to `target` with at most `unsent_max` waiting bytes.
    pub(in crate::reactor) fn new(target: DnstapTarget, unsent_max: usize) -> Self {
        Self {
            target,
            unsent_max,
            frames: Vec::new(),
            count: 0,
            connection: Connection::default(),
        }
    }

    /// Returns the time of the next connection attempt.
    pub(in crate::reactor) fn next_due(&self) -> Option<Instant> {
        let connection = &self.connection;
        connection
            .session
            .is_none()
            .then_some(connection.pause_until)
    }

    /// Returns the number of messages that the reader did not get.
    pub(in crate::reactor) fn dropped(&self) -> u64 {
        self.connection.dropped
    }

    /// Adds a message that was exchanged with `peer`.
    fn add(
        &mut self,
        kind: MessageKind,
        protocol: impl Into<SocketProtocol>,
        peer: SocketAddr,
        message: &[u8],
    ) {
        if self.connection.session.is_none() || self.frames.len() > self.unsent_max {
            self.connection.dropped += 1;
            return;
        }
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        frame(&mut self.frames, |out| {
            let time = time.unwrap_or_default();
            dnstap::write(out, kind, protocol.into(), peer, time, message);
        });
        self.count += 1;
    }

    /// Logs the loss of the reader, once, and waits until the next attempt.
    pub(super) fn on_lost(&mut self, reason: &str, until: Instant) {
        self.connection.pause_until = until;
        let had_problem = self.connection.has_problem();
        self.connection.on_problem(reason);
        if !had_problem {
            let target = &self.target;
            log::warn!(event = "dnstap-lost"; "dnstap: {target}: {reason}; retrying");
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Connects to the reader if an attempt is due.
    pub(in crate::reactor) fn connect_tap(&mut self) {
        let now = self.now;
        let is_due = |tap: &&mut Tap| tap.next_due().is_some_and(|at| at <= now);
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
                tap.connection.session = Some(self.sessions.insert(Slot::new(session)));
                self.make_unflushed(key);
            }
            Err(error) => self.disconnect_exporter(Exporter::Dnstap, &error.to_string()),
        }
    }

    pub(in crate::reactor) fn step_tap(&mut self, key: Key) -> Result<Step, Failure> {
        let Some(Session::Tap(stream)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        if stream.ready(&mut self.scratch)?
            && let Some(tap) = &mut self.tap
        {
            tap.connection.on_accepted();
            log::info!(event = "dnstap-connected"; "dnstap: connected to {}", tap.target);
        }
        self.make_unflushed(key);
        Ok(Step::Drained)
    }

    /// Sends the gathered messages to the reader.
    pub(in crate::reactor) fn send_tap(&mut self) {
        let Some(tap) = self.tap.as_mut().filter(|tap| tap.count > 0) else {
            return;
        };
        let count = std::mem::take(&mut tap.count);
        let session = tap
            .connection
            .session
            .and_then(|key| session_at(&mut self.sessions, key));
        let is_taken = match session {
            Some(Session::Tap(stream)) => {
                stream.send(tap.unsent_max, |out| out.extend_from_slice(&tap.frames))
            }
            _ => false,
        };
        tap.frames.clear();
        tap.frames.shrink_to(FRAMES_KEPT);
        match tap.connection.session {
            Some(key) if is_taken => self.make_unflushed(key),
            _ => tap.connection.dropped += count,
        }
    }

    /// Sends the end of the stream to the reader.
    pub(in crate::reactor) fn end_tap(&mut self) {
        self.send_tap();
        let key = self.tap.as_ref().and_then(|tap| tap.connection.session);
        let session = key.and_then(|key| session_at(&mut self.sessions, key));
        if let Some(Session::Tap(stream)) = session {
            stream.stop();
            // The process ends: there is no later write.
            let _ = stream.flush(&mut self.scratch);
        }
    }
}

/// Adds a message of a client to the tap, if there is one and the message is a query.
pub(in crate::reactor) fn tap_query(
    tap: &mut Option<Tap>,
    protocol: ClientProtocol,
    client: SocketAddr,
    message: &[u8],
) {
    if let Some(tap) = tap
        && is_query(message)
    {
        tap.add(MessageKind::ClientQuery, protocol, client, message);
    }
}

/// Adds responses to clients to the tap, if there is one.
pub(in crate::reactor) fn tap_responses<'a>(
    tap: &mut Option<Tap>,
    protocol: ClientProtocol,
    responses: impl Iterator<Item = Outgoing<'a>>,
) {
    if let Some(tap) = tap {
        responses.for_each(|one| {
            tap.add(MessageKind::ClientResponse, protocol, *one.peer, one.bytes);
        });
    }
}

/// Adds a message to or from the upstream of a link to the tap, if there is one.
pub(in crate::reactor) fn tap_forwarded(
    tap: &mut Option<Tap>,
    kind: MessageKind,
    (proxy, link): (&Proxy, LinkKey),
    message: &[u8],
) {
    if let Some(tap) = tap
        && let Some((scheme, upstream)) = proxy.link_peer(link)
    {
        tap.add(kind, scheme, upstream, message);
    }
}

/// The capacity in bytes that is kept from turn to turn.
const FRAMES_KEPT: usize = 16 * 1024;
