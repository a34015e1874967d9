//! A client's connection: queries come pipelined, responses go out as they are ready (RFC 7766).
//!
//! ```text
//!             end of stream                     every response is sent
//!   reading -----------------> answering what ------------------------> over
//!    |   ^                      has come
//!    v   | a response is sent
//!   full: as many queries wait as may, or responses are not taken; nothing is read
//! ```
//!
//! A client that does not read its responses is not read either, and closed when it is idle for too
//! long: whatever it sends, what is held for it stays small.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;

use super::transport::{Received, Transport};
use super::{Scratch, Step};
use crate::config::Limits;
use crate::failure::Failure;
use crate::time::Instant;
use crate::wire::frame::{self, Deframer};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// A response will follow.
    pub is_owed: bool,
    /// Another message can be taken.
    pub has_room: bool,
}

/// A client's connection over `S`.
pub struct ClientStream<S> {
    transport: Transport<S>,
    peer: SocketAddr,
    deframer: Deframer,
    /// Responses that are owed.
    inflight: usize,
    /// Messages may be kept that could not be handed on.
    is_full: bool,
    /// No more will come from the client.
    is_ended: bool,
    last_active: Instant,
    /// Octets that were held for it when last counted.
    accounted: usize,
}

impl<S: Read + Write> ClientStream<S> {
    /// The session of a connection that was accepted from `peer`.
    pub fn new(transport: Transport<S>, peer: SocketAddr, now: Instant) -> Self {
        Self {
            transport,
            peer,
            deframer: Deframer::default(),
            inflight: 0,
            is_full: false,
            is_ended: false,
            last_active: now,
            accounted: 0,
        }
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the client last sent a whole query or took some of a response.
    pub fn last_active(&self) -> Instant {
        self.last_active
    }

    /// Whether the client waits for a response.
    pub fn is_waiting(&self) -> bool {
        self.inflight > 0
    }

    /// Whether there is nothing more to do for this client.
    pub fn is_over(&self) -> bool {
        self.is_ended && self.is_quiet()
    }

    /// Whether no response is owed or on its way.
    pub fn is_quiet(&self) -> bool {
        self.inflight == 0 && self.transport.unsent_len() == 0 && !self.is_full
    }

    /// Counts the octets that are held for this client: how many there were when last counted, and
    /// how many there are.
    pub fn account(&mut self) -> (usize, usize) {
        let held = self.deframer.len() + self.transport.unsent_len();
        (std::mem::replace(&mut self.accounted, held), held)
    }

    /// The octets that were held when last counted.
    pub fn accounted(&self) -> usize {
        self.accounted
    }

    /// Hands whole messages to `take`, as long as it has room and the client takes its responses.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        limits: &Limits,
        now: Instant,
        mut take: impl FnMut(&[u8]) -> Taken,
    ) -> Result<Step, Failure> {
        let mut take_message = |stream: &mut Counts<'_>, message: &[u8]| {
            let taken = take(message);
            *stream.last_active = now;
            *stream.inflight += usize::from(taken.is_owed);
            if taken.has_room && *stream.inflight < limits.tcp_client_inflight {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        if self.must_wait(limits) {
            return Ok(Step::Full);
        }
        if self.is_full {
            let mut counts = Counts {
                inflight: &mut self.inflight,
                last_active: &mut self.last_active,
            };
            let flow = self
                .deframer
                .feed(&[], |message| take_message(&mut counts, message));
            self.is_full = flow.is_break();
        }
        let mut octets = 0;
        while !self.is_full && !self.is_ended && octets < limits.stream_octets_per_turn {
            let mut counts = Counts {
                inflight: &mut self.inflight,
                last_active: &mut self.last_active,
            };
            let received = self.transport.receive(scratch, |piece| {
                octets += piece.len();
                let flow = self
                    .deframer
                    .feed(piece, |message| take_message(&mut counts, message));
                self.is_full |= flow.is_break();
            })?;
            match received {
                Received::Some => {}
                Received::Nothing => return Ok(Step::Drained),
                Received::End => self.is_ended = true,
            }
        }
        Ok(match (self.is_full, self.is_ended) {
            (true, _) => Step::Full,
            (false, true) => Step::Drained,
            (false, false) => Step::Again,
        })
    }

    /// Takes a response to be sent. `false` when the client leaves so much that it is given up.
    pub fn send(&mut self, message: &[u8], limits: &Limits) -> bool {
        self.inflight = self.inflight.saturating_sub(1);
        self.transport.send(|out| frame::write(out, message));
        self.transport.unsent_len() <= limits.tcp_client_unsent
    }

    /// Sends what waits, as far as the client takes it.
    pub fn flush(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), Failure> {
        if self.transport.flush(scratch)? > 0 {
            self.last_active = now;
        }
        Ok(())
    }

    /// Whether messages are kept that could be handed on now.
    pub fn can_go_on(&self, limits: &Limits) -> bool {
        self.is_full && !self.must_wait(limits)
    }

    /// Whether the client has to take responses before it is read further.
    fn must_wait(&self, limits: &Limits) -> bool {
        self.inflight >= limits.tcp_client_inflight || self.transport.unsent_len() > 0
    }
}

/// What taking a message changes, apart from the buffers that it stands in.
struct Counts<'a> {
    inflight: &'a mut usize,
    last_active: &'a mut Instant,
}
