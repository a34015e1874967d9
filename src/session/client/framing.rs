//! The framing of the messages on a client's connection: length prefixes, or HTTP requests and
//! responses.

use std::ops::ControlFlow;

use super::https::{HandedOver, HttpsRequests};
use crate::base::failure::Failure;
use crate::config::Limits;
use crate::session::Scratch;
use crate::session::transport::Transport;
use crate::wire::frame::{self, Deframer};

/// The framing of a connection.
pub(super) enum Framing {
    /// Each message follows its length (RFC 7766, RFC 7858).
    Length(Deframer),
    /// Each message is an HTTP request or response (RFC 8484).
    Https(Box<HttpsRequests>),
}

impl Framing {
    pub(super) fn length() -> Self {
        Self::Length(Deframer::default())
    }

    pub(super) fn https(limits: &Limits) -> Self {
        Self::Https(Box::new(HttpsRequests::new(limits)))
    }

    pub(super) fn is_https(&self) -> bool {
        matches!(self, Self::Https(_))
    }

    /// Hands over the messages that were kept, and then those in `piece`, until `hand_over` breaks.
    /// The rest is kept. `hand_over` gets `None` for a request without a message.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        mut hand_over: impl FnMut(Option<&[u8]>) -> HandedOver,
    ) -> ControlFlow<()> {
        match self {
            Self::Length(deframer) => deframer.feed(piece, |message| hand_over(Some(message)).flow),
            Self::Https(requests) => requests.feed(piece, &mut hand_over),
        }
    }

    /// Keeps the messages in `piece` while none can be handed over.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        match self {
            Self::Length(deframer) => deframer.keep(piece),
            Self::Https(requests) => requests.keep(piece),
        }
    }

    /// Appends a response to the output. Returns `false` if the client leaves too much unread.
    #[must_use]
    pub(super) fn respond<S: std::io::Read + std::io::Write>(
        &mut self,
        message: &[u8],
        transport: &mut Transport<S>,
        scratch: &mut Scratch,
    ) -> bool {
        match self {
            Self::Length(_) => {
                transport.send(|out| frame::write(out, message));
                true
            }
            Self::Https(requests) => {
                let has_room = requests.respond(message, scratch.message_buffer());
                self.send_output(transport);
                has_room
            }
        }
    }

    /// Moves output that is not a response, and responses that have waited for a window, to the
    /// transport. Returns whether there were such responses.
    pub(super) fn send_output<S: std::io::Read + std::io::Write>(
        &mut self,
        transport: &mut Transport<S>,
    ) -> bool {
        match self {
            Self::Https(requests) if requests.has_output() => {
                transport.send(|out| requests.take_output(out));
                requests.take_progress()
            }
            Self::Length(_) | Self::Https(_) => false,
        }
    }

    /// Returns the failure of the connection, if it has failed.
    pub(super) fn failure(&mut self) -> Result<(), Failure> {
        match self {
            Self::Length(_) => Ok(()),
            Self::Https(requests) => requests.failure().map_or(Ok(()), Err),
        }
    }

    /// Tells an HTTP/2 client that no further requests will be handled (GOAWAY).
    pub(super) fn shut_down(&mut self) {
        if let Self::Https(requests) = self {
            requests.shut_down();
        }
    }

    /// Drops the messages that were not handed over. HTTP/2 clients get GOAWAY.
    pub(super) fn end(&mut self) {
        match self {
            Self::Length(deframer) => *deframer = Deframer::default(),
            Self::Https(requests) => requests.end(),
        }
    }

    /// Returns whether responses wait for the client to accept more bytes of HTTP/2 content.
    pub(super) fn has_waiting(&self) -> bool {
        match self {
            Self::Length(_) => false,
            Self::Https(requests) => requests.has_waiting(),
        }
    }

    /// Returns the number of bytes held.
    pub(super) fn held_len(&self) -> usize {
        match self {
            Self::Length(deframer) => deframer.len(),
            Self::Https(requests) => requests.held_len(),
        }
    }
}
