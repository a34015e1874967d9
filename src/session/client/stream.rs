//! A client's connection: queries come pipelined, responses go out as they are ready (RFC 7766).
//!
//! ```text
//!             end of stream                         every response is sent
//!   reading -----------------> answering received ------------------------> over
//!    |   ^                      queries
//!    v   | a response is sent
//!   full: the limit of waiting queries or of unsent responses is reached; nothing is read
//! ```
//!
//! A client that does not take its responses is not read, and is closed after the idle timeout: the
//! memory held for a client stays small. Messages other than queries do not count as activity;
//! several in a row, or many bytes without a query, are handled as the end of the stream.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use super::activity::Activity;
use super::framing::Framing;
use super::https::HandedOver;
use crate::base::failure::Failure;
use crate::base::origin::ClientProtocol;
use crate::base::time::Instant;
use crate::config::Limits;
use crate::session::transport::{Received, Transport};
use crate::session::{Scratch, Step};
use crate::tls::{self, Acceptor};

#[cfg(test)]
mod tests;

/// The result of handling a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The message is a query.
    pub is_query: bool,
    /// A response will follow.
    pub is_owed: bool,
    /// The proxy has room for another message.
    pub has_room: bool,
}

impl Taken {
    /// The result of input without a message, like an HTTP request that is rejected.
    const NOTHING: Self = Self {
        is_query: false,
        is_owed: false,
        has_room: true,
    };
}

/// A client's connection over `S`.
pub struct ClientStream<S> {
    transport: Transport<S>,
    peer: SocketAddr,
    /// The local address, if it is needed.
    local: Option<IpAddr>,
    /// The subject of the client's certificate, once the client has sent one.
    identity: Option<Box<str>>,
    /// The time at which the certificate expires, once it is known.
    expires_at: Option<Instant>,
    framing: Framing,
    counts: Counts,
    /// The arrival time of messages that could not be handed over yet.
    kept_since: Option<Instant>,
    /// The client has exceeded its rate: kept messages count as not yet received.
    is_held_back: bool,
    /// The last input of the client is still to be read, although other clients are not read any
    /// more.
    is_unread: bool,
    /// The client will send no more.
    is_ended: bool,
    unsent: UnsentKind,
    /// Bytes held for the client at the last [`ClientStream::account`].
    accounted: usize,
}

/// The output that a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnsentKind {
    /// Flights of the handshake.
    Handshake,
    /// Responses.
    Responses,
    /// Nothing, or TLS messages between responses.
    Control,
}

/// The input of a client since its last query.
#[derive(Clone, Copy, Debug, Default)]
struct Unasked {
    messages: usize,
    bytes: usize,
}

impl<S: Read + Write> ClientStream<S> {
    /// Creates the session of a connection accepted from `peer`. Messages follow their lengths (RFC
    /// 7766, RFC 7858).
    pub fn new(transport: Transport<S>, peer: SocketAddr, now: Instant) -> Self {
        Self::with_framing(Framing::length(), transport, peer, now)
    }

    /// Creates the session of a DNS over HTTPS connection (RFC 8484) accepted from `peer`.
    pub fn https(transport: Transport<S>, peer: SocketAddr, limits: &Limits, now: Instant) -> Self {
        Self::with_framing(Framing::https(limits), transport, peer, now)
    }

    fn with_framing(
        framing: Framing,
        transport: Transport<S>,
        peer: SocketAddr,
        now: Instant,
    ) -> Self {
        Self {
            transport,
            peer,
            local: None,
            identity: None,
            expires_at: None,
            framing,
            counts: Counts {
                inflight: 0,
                unasked: Unasked::default(),
                activity: Activity::new(now),
            },
            kept_since: None,
            is_held_back: false,
            is_unread: false,
            is_ended: false,
            unsent: UnsentKind::Handshake,
            accounted: 0,
        }
    }

    /// Returns the client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the stream of the connection.
    pub fn stream(&mut self) -> &mut S {
        self.transport.stream()
    }

    /// Sets the local address of the connection.
    pub fn set_local(&mut self, local: Option<IpAddr>) {
        self.local = local;
    }

    /// Returns the local address of the connection, if it was set.
    pub fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// Returns the subject of the client's certificate, if the client has sent one.
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Returns whether `acceptor` would admit the client now. A plain client is always admitted.
    pub fn is_admitted_by(&self, acceptor: &Acceptor) -> bool {
        self.transport.is_admitted_by(acceptor)
    }

    /// Returns the client's certificate, until [its expiry](Self::expire_at) is set.
    pub fn new_certificate(&self) -> Option<&[u8]> {
        if self.expires_at.is_some() {
            return None;
        }
        self.transport.certificate()
    }

    /// Sets the time at which the client's certificate expires.
    pub fn expire_at(&mut self, expires_at: Instant) {
        self.expires_at = Some(expires_at);
    }

    /// Returns whether the client's certificate has expired.
    pub fn has_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns the time at which the client last sent a whole query or took enough of a response.
    pub fn last_active(&self) -> Instant {
        self.counts.activity.last()
    }

    /// Returns whether the client waits for a response.
    pub fn is_waiting(&self) -> bool {
        self.counts.inflight > 0
    }

    /// Returns whether the session is finished.
    pub fn is_over(&self) -> bool {
        self.is_ended && self.is_answered()
    }

    /// Returns whether no response is pending and no input is [deferred](Self::defer_reading).
    pub fn is_quiet(&self) -> bool {
        self.is_answered() && !self.framing.has_waiting()
    }

    /// Returns whether responses wait for the window of an HTTP/2 client, which must be read until
    /// it opens the window.
    pub fn has_waiting(&self) -> bool {
        self.framing.has_waiting()
    }

    /// Returns whether every response is sent, except those that wait for the window of an HTTP/2
    /// client, which can be opened only as long as the client is read.
    fn is_answered(&self) -> bool {
        let has_all = self.counts.inflight == 0 && self.transport.unsent_len() == 0;
        has_all && self.kept_since.is_none() && !self.is_unread
    }

    /// Records that the last input of the client must be read later, when there is room.
    pub fn defer_reading(&mut self) {
        self.is_unread = true;
    }

    /// Returns whether the last input is still deferred.
    pub fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// Records that the client has exceeded its rate: kept messages get the time at which they are
    /// handed over as their arrival time.
    pub fn hold_back(&mut self) {
        self.is_held_back = self.kept_since.is_some();
    }

    /// Counts the bytes that are held for this client. Returns the previous and the new number.
    pub fn account(&mut self) -> (usize, usize) {
        let held = self.framing.held_len() + self.transport.held_len();
        (std::mem::replace(&mut self.accounted, held), held)
    }

    /// Returns the number of bytes held at the last [`ClientStream::account`].
    pub fn accounted(&self) -> usize {
        self.accounted
    }

    /// Returns the protocol of the connection.
    pub fn protocol(&self) -> ClientProtocol {
        if self.framing.is_https() {
            ClientProtocol::Https
        } else if self.transport.is_encrypted() {
            ClientProtocol::Tls
        } else {
            ClientProtocol::Tcp
        }
    }

    /// Returns whether the next step belongs to a TLS handshake, which may take a signature.
    pub fn is_handshaking(&self) -> bool {
        self.transport.is_encrypted() && !self.transport.is_established() && !self.is_ended
    }

    /// Tells an HTTP/2 client that no further requests will be handled (RFC 9113, section 6.8). The
    /// client can send them elsewhere.
    pub fn shut_down(&mut self) {
        self.framing.shut_down();
        self.send_output();
    }

    /// Sends the end of the stream to the client.
    pub fn close(&mut self, scratch: &mut Scratch) {
        self.framing.end();
        self.framing.send_output(&mut self.transport);
        let _ = self.transport.flush(scratch);
        self.transport.close(scratch);
    }

    /// Hands whole messages to `take`, each with its arrival time, while the proxy has room and the
    /// client takes its responses.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        limits: &Limits,
        now: Instant,
        mut take: impl FnMut(&[u8], Instant) -> Taken,
    ) -> Result<Step, Failure> {
        if self.must_wait(limits) || self.take_kept(limits, now, &mut take) == Step::Full {
            return Ok(Step::Full);
        }
        let mut bytes = 0;
        while self.kept_since.is_none() && !self.is_ended && bytes < limits.stream_bytes_per_turn {
            let received = self.transport.receive(scratch, |piece| {
                // Under TLS one read can give several pieces.
                if self.kept_since.is_some() {
                    return self.framing.keep(piece);
                }
                let flow = self.framing.feed(piece, |message| {
                    let taken = message.map_or(Taken::NOTHING, |message| take(message, now));
                    self.counts.on_taken(taken, limits, now)
                });
                if flow.is_break() {
                    self.kept_since = Some(now);
                }
            })?;
            self.finish_input(scratch)?;
            if self.identity.is_none() {
                let certificate = self.transport.certificate();
                self.identity = certificate.and_then(tls::subject).map(Into::into);
            }
            match received {
                Received::Some(len) => {
                    bytes += len;
                    self.counts.unasked.bytes += len;
                }
                Received::Nothing => {
                    self.is_unread = false;
                    return Ok(Step::Drained);
                }
                Received::End => (self.is_unread, self.is_ended) = (false, true),
            }
            self.end_without_query(limits);
        }
        Ok(if self.kept_since.is_some() {
            Step::Full
        } else if self.is_ended {
            Step::Drained
        } else {
            Step::Again
        })
    }

    /// Hands over kept messages like [`ClientStream::ready`], but reads nothing.
    pub fn take_kept(
        &mut self,
        limits: &Limits,
        now: Instant,
        mut take: impl FnMut(&[u8], Instant) -> Taken,
    ) -> Step {
        let Some(since) = self.kept_since else {
            return Step::Drained;
        };
        if self.must_wait(limits) {
            return Step::Full;
        }
        let since = if std::mem::take(&mut self.is_held_back) {
            now
        } else {
            since
        };
        self.kept_since = Some(since);
        let flow = self.framing.feed(&[], |message| {
            let taken = message.map_or(Taken::NOTHING, |message| take(message, since));
            self.counts.on_taken(taken, limits, now)
        });
        self.send_output();
        if flow.is_continue() {
            self.kept_since = None;
        }
        self.end_without_query(limits);
        if self.kept_since.is_some() {
            Step::Full
        } else {
            Step::Drained
        }
    }

    /// Moves the output of HTTP/2 to the transport. Sends it if the connection has failed.
    fn finish_input(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        self.send_output();
        let result = self.framing.failure();
        if result.is_err() {
            // GOAWAY tells the client why the connection ends.
            let _ = self.transport.flush(scratch);
        }
        result
    }

    fn send_output(&mut self) {
        if self.framing.send_output(&mut self.transport) {
            self.unsent = UnsentKind::Responses;
        }
    }

    /// Stops reading a client that has sent too much without a query. Pending responses are still
    /// sent.
    fn end_without_query(&mut self, limits: &Limits) {
        let Unasked { messages, bytes } = self.counts.unasked;
        if messages >= limits.tcp_client_unasked_messages
            || bytes > limits.tcp_client_unasked_bytes && self.kept_since.is_none()
        {
            let (peer, protocol) = (self.peer, self.protocol().label());
            log::debug!(
                "client {peer} ({protocol}): closing the connection: too many messages or too \
                 much data without a DNS query"
            );
            self.framing.end();
            self.send_output();
            self.kept_since = None;
            (self.is_unread, self.is_ended) = (false, true);
        }
    }

    /// Queues a response. Returns `false` if the client leaves so many bytes unread that it must be
    /// closed.
    pub fn send(
        &mut self,
        message: &[u8],
        scratch: &mut Scratch,
        limits: &Limits,
        now: Instant,
    ) -> bool {
        self.counts.inflight = self.counts.inflight.saturating_sub(1);
        self.unsent = UnsentKind::Responses;
        let transport = &mut self.transport;
        if !self.framing.respond(message, transport, scratch) {
            return false;
        }
        let has_much = |client: &Self| client.transport.unsent_len() > limits.tcp_client_unsent;
        // The bytes may never have been offered to the client.
        !has_much(self) || self.flush(scratch, now).is_ok() && !has_much(self)
    }

    /// Writes queued data, as far as the client takes it.
    pub fn flush(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), Failure> {
        let taken = self.transport.flush(scratch)?;
        let is_rest = self.transport.unsent_len() == 0;
        match self.unsent {
            UnsentKind::Responses => self.counts.activity.note_taken(taken, is_rest, now),
            UnsentKind::Handshake if taken > 0 => self.counts.activity.note(now),
            UnsentKind::Handshake | UnsentKind::Control => {}
        }
        if is_rest && self.transport.is_established() {
            self.unsent = UnsentKind::Control;
        }
        Ok(())
    }

    /// Returns whether there are kept messages that can be handed over now.
    pub fn can_go_on(&self, limits: &Limits) -> bool {
        self.kept_since.is_some() && !self.must_wait(limits)
    }

    /// Returns whether responses must be sent before more input is read.
    fn must_wait(&self, limits: &Limits) -> bool {
        self.counts.inflight >= limits.tcp_client_inflight || self.transport.unsent_len() > 0
    }
}

/// The part of the state that a message changes, apart from the buffer that contains the message.
struct Counts {
    /// The number of queries without a response.
    inflight: usize,
    /// Input since the last query.
    unasked: Unasked,
    activity: Activity,
}

impl Counts {
    fn on_taken(&mut self, taken: Taken, limits: &Limits, now: Instant) -> HandedOver {
        if taken.is_query {
            self.unasked = Unasked::default();
            self.activity.note(now);
        } else {
            self.unasked.messages += 1;
        }
        self.inflight += usize::from(taken.is_owed);
        let may_go_on = self.unasked.messages < limits.tcp_client_unasked_messages;
        let has_room = taken.has_room && self.inflight < limits.tcp_client_inflight;
        HandedOver {
            is_owed: taken.is_owed,
            flow: if has_room && may_go_on {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            },
        }
    }
}
