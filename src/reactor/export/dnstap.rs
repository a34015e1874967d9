//! The dnstap exporter: gathers messages within a turn, sends them at its end, and drops them if
//! there is no reader or the reader is too slow.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::base::arena::Key;
use crate::base::failure::Failure;
use crate::base::time::Instant;
use crate::config::DnstapTarget;
use crate::net::Net;
use crate::reactor::{Reactor, Session, Slot, session_at};
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

    /// Adds a message that was exchanged with `peer`.
    pub(in crate::reactor) fn add(
        &mut self,
        kind: MessageKind,
        protocol: impl Into<SocketProtocol>,
        peer: SocketAddr,
        message: &[u8],
    ) {
        if self.session.is_none() || self.frames.len() > self.unsent_max {
            self.dropped += 1;
            return;
        }
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        frame(&mut self.frames, |out| {
            let time = time.unwrap_or_default();
            dnstap::write(out, kind, protocol.into(), peer, time, message);
        });
        self.count += 1;
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

    pub(in crate::reactor) fn step_tap(&mut self, key: Key) -> Result<Step, Failure> {
        let Some(Session::Tap(stream)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        let was_accepted = stream.is_accepted();
        stream.ready(&mut self.scratch)?;
        if stream.is_accepted()
            && !was_accepted
            && let Some(tap) = &mut self.tap
        {
            tap.is_reported = false;
            log::info!(event = "dnstap-connected"; "dnstap: {} takes messages", tap.target);
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
        match tap.session {
            Some(key) if is_taken => self.make_unflushed(key),
            _ => tap.dropped += count,
        }
    }

    /// Sends the end of the stream to the reader.
    pub(in crate::reactor) fn end_tap(&mut self) {
        self.send_tap();
        let key = self.tap.as_ref().and_then(|tap| tap.session);
        let session = key.and_then(|key| session_at(&mut self.sessions, key));
        if let Some(Session::Tap(stream)) = session {
            stream.stop();
            // The process ends: there is no later write.
            let _ = stream.flush(&mut self.scratch);
        }
    }

    pub(in crate::reactor) fn disconnect_tap(&mut self, reason: &str) {
        let Some(tap) = &mut self.tap else {
            return;
        };
        if let Some(key) = tap.session.take() {
            self.sessions.remove(key);
        }
        tap.connect_at = Some(self.now + self.config.timeouts.dnstap_pause);
        if !std::mem::replace(&mut tap.is_reported, true) {
            let target = &tap.target;
            log::warn!(event = "dnstap-lost"; "dnstap: {target}: {reason}; will be tried again");
        }
    }
}

/// The capacity in bytes that is kept from turn to turn.
const FRAMES_KEPT: usize = 16 * 1024;
