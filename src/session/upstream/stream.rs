//! A TCP or TLS connection to an upstream: the handshake, then messages both ways.
//!
//! If the upstream sends a frame with a wrong length, every later byte is misread: replies become
//! part of another message, which may be long. Such a connection is ended as soon as an incomplete
//! message shows it.

use std::ops::ControlFlow;

use super::acknowledgement::Acknowledgement;
use crate::base::failure::{Failure, FailureKind};
use crate::session::transport::{Received, TlsSession, Transport};
use crate::session::{Scratch, Step, Stream};
use crate::wire::frame::{self, Deframer, LENGTH_LEN};
use crate::wire::header::HEADER_LEN;
use crate::wire::{Header, Message};

/// An event on a connection to an upstream.
#[derive(Debug, PartialEq, Eq)]
pub enum UpstreamEvent<'a> {
    /// The peer is authenticated, if that is required: queries can be sent.
    Up {
        /// The handshake resumed an earlier TLS session.
        is_resumed: bool,
        /// The TLS session, unless the connection is plain TCP.
        tls: Option<TlsSession>,
    },
    /// A message from the upstream.
    Message(&'a [u8]),
    /// HTTP/2: the maximum number of queries in flight has changed.
    StreamsMax(usize),
    /// HTTP/2: the upstream accepts no more queries on this connection (GOAWAY).
    Draining,
    /// HTTP/2: the upstream has not processed the query with this id.
    Refused(u16),
    /// HTTP/2: the upstream has reset the stream of the query with this id.
    Reset(u16),
    /// HTTP/2: the response to a query has no DNS message.
    NoMessage {
        /// The id of the query.
        id: u16,
        /// The status code (RFC 9110, section 15).
        status: u16,
    },
}

/// A connection to an upstream over `S`.
pub struct UpstreamStream<S> {
    transport: Transport<S>,
    deframer: Deframer,
    is_up: bool,
    acknowledgement: Acknowledgement,
    /// The last read completed no message.
    is_part: bool,
    /// The number of bytes of an incomplete message that start the next check of its frame.
    check_from: usize,
    /// The number of empty frames since the last message.
    empty_frames: u8,
}

/// Maximum number of empty frames in a row: some servers send one before a reply. More, or one
/// right behind a message, are a sign that the stream is misread.
const EMPTY_FRAMES_MAX: u8 = 3;

impl<S: Stream> UpstreamStream<S> {
    /// Creates the session of a new transport.
    pub fn new(transport: Transport<S>) -> Self {
        Self {
            transport,
            deframer: Deframer::default(),
            is_up: false,
            acknowledgement: Acknowledgement::default(),
            is_part: false,
            check_from: HEADER_LEN,
            empty_frames: 0,
        }
    }

    /// Reads at most about `bytes_max` bytes and hands events to the caller. The connection ends
    /// after an error.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        bytes_max: usize,
        mut on_event: impl FnMut(UpstreamEvent<'_>),
    ) -> Result<Step, Failure> {
        let mut bytes = 0;
        while bytes < bytes_max {
            let mut flow = ControlFlow::Continue(());
            let mut is_part = true;
            let received = self.transport.receive(scratch, |piece| {
                if flow.is_continue() {
                    let mut may_be_empty = self.deframer.incomplete().is_empty();
                    flow = self.deframer.feed(piece, |message| {
                        if message.is_empty()
                            && may_be_empty
                            && self.empty_frames < EMPTY_FRAMES_MAX
                        {
                            self.empty_frames += 1;
                            return ControlFlow::Continue(());
                        }
                        if message.len() < HEADER_LEN {
                            return ControlFlow::Break(());
                        }
                        (may_be_empty, self.empty_frames) = (false, 0);
                        is_part = false;
                        on_event(UpstreamEvent::Message(message));
                        ControlFlow::Continue(())
                    });
                }
            })?;
            if flow.is_break() {
                let detail = "DNS message shorter than its header";
                return Err(Failure::new(FailureKind::Protocol, detail));
            }
            if !self.is_up && self.transport.is_established() {
                self.is_up = true;
                let is_resumed = self.transport.is_resumed().unwrap_or(false);
                on_event(UpstreamEvent::Up {
                    is_resumed,
                    tls: self.transport.tls_session(),
                });
            }
            match received {
                Received::Some(len) => {
                    bytes += len;
                    if self.is_up {
                        self.acknowledgement.on_received();
                    }
                    self.is_part = is_part;
                    if !is_part {
                        self.check_from = HEADER_LEN;
                    }
                }
                Received::Nothing if self.is_out_of_step() => {
                    let detail = "length prefix does not match the message";
                    return Err(Failure::new(FailureKind::Protocol, detail));
                }
                Received::Nothing => return Ok(Step::Drained),
                Received::End => return Err(FailureKind::Closed.into()),
            }
        }
        Ok(Step::Again)
    }

    /// Returns whether the start of an incomplete message shows that the length of its frame, or of
    /// an earlier one, is wrong: it is not the start of a reply, or it is a whole reply with the
    /// next frame behind it. A message is checked again when it has doubled, so that a long one in
    /// small pieces is parsed only a few times.
    fn is_out_of_step(&mut self) -> bool {
        let part = self.deframer.incomplete();
        if part.len() < self.check_from {
            return false;
        }
        self.check_from = 2 * part.len();
        let starts_reply = |bytes| Header::parse(bytes).is_some_and(|h| h.may_be_reply());
        if !starts_reply(part) {
            return true;
        }
        let Ok(message) = Message::parse(part) else {
            return false;
        };
        let next = part.get(message.end() + LENGTH_LEN..);
        next.is_some_and(starts_reply)
    }

    /// Returns the stream of the connection.
    pub fn stream(&mut self) -> &mut S {
        self.transport.stream()
    }

    /// Returns the certificate of the upstream, if it has sent one.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.transport.certificate()
    }

    /// Returns whether TCP is connected while the handshake has not ended.
    pub fn is_connected_only(&self) -> bool {
        !self.is_up && self.transport.is_connected()
    }

    /// Returns whether the next step belongs to a TLS handshake, which may take a signature.
    pub fn is_handshaking(&self) -> bool {
        !self.is_up && self.transport.is_encrypted()
    }

    /// Queues a message.
    pub fn send(&mut self, message: &[u8]) {
        self.transport.send(|out| frame::write(out, message));
    }

    /// Sends queued data, as far as the socket accepts it. `awaited` is the number of replies that
    /// are awaited. The connection ends after an error.
    pub fn flush(&mut self, scratch: &mut Scratch, awaited: usize) -> Result<(), Failure> {
        let sent = self.transport.flush(scratch)?;
        if self.acknowledgement.on_sent(sent, awaited, self.is_part) {
            self.transport.stream().acknowledge();
        }
        Ok(())
    }

    /// Returns whether received data is to be acknowledged soon, if no query follows.
    pub fn owes_acknowledgement(&self) -> bool {
        self.acknowledgement.is_owed()
    }

    /// Acknowledges received data, unless that is no longer necessary.
    pub fn acknowledge(&mut self) {
        if self.acknowledgement.take() {
            self.transport.stream().acknowledge();
        }
    }

    /// Sends the end of the stream to the peer.
    pub fn close(&mut self, scratch: &mut Scratch) {
        self.transport.close(scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Pipe;

    fn events(pipe: &Pipe) -> (Vec<String>, Result<Step, Failure>) {
        let mut stream = UpstreamStream::new(Transport::plain(pipe.clone()));
        let mut events = Vec::new();
        let step = stream.ready(&mut Scratch::new(), 1000, |event| {
            events.push(match event {
                UpstreamEvent::Up { .. } => "up".to_owned(),
                UpstreamEvent::Message(message) => message.len().to_string(),
                event => format!("{event:?}"),
            });
        });
        (events, step)
    }

    #[test]
    fn messages_are_handed_over_before_the_end_of_stream() {
        let pipe = Pipe::default();
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &[1; 12]);
        frame::write(&mut bytes, &[2; 40]);
        pipe.push(&bytes);
        pipe.end();
        let (events, step) = events(&pipe);
        assert_eq!(events, ["12", "40", "up"]);
        assert_eq!(step, Err(FailureKind::Closed.into()));
    }

    #[test]
    fn input_is_acknowledged_early_while_few_replies_are_awaited() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut stream = UpstreamStream::new(Transport::plain(pipe.clone()));
        let mut turn = |bytes: &[u8], queries: usize, awaited: usize| {
            pipe.push(bytes);
            let step = stream.ready(&mut scratch, 1000, |_| {});
            assert_eq!(step, Ok(Step::Drained));
            (0..queries).for_each(|_| stream.send(&[3; 12]));
            stream.flush(&mut scratch, awaited).unwrap();
            pipe.acknowledged()
        };
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &[1; 12]);
        assert_eq!((turn(b"", 0, 0), turn(&bytes, 0, 0)), (0, 0));
        assert_eq!((turn(&bytes[..2], 0, 1), turn(b"", 0, 1)), (1, 1));
        assert_eq!(turn(&bytes[2..], 0, 0), 1);
        // The reply to one query of two, the reply to one query of many, and a reply that a query
        // acknowledges.
        assert_eq!((turn(&bytes, 0, 1), turn(b"", 0, 1)), (2, 2));
        assert_eq!((turn(&bytes, 0, 9), turn(&bytes, 1, 2)), (2, 2));
        // Later, if no query has followed.
        assert_eq!(turn(&bytes, 0, 9), 2);
        stream.acknowledge();
        stream.acknowledge();
        assert_eq!(pipe.acknowledged(), 3);
    }

    /// Returns a reply to a query for the name "a", without records.
    fn short_reply() -> [u8; 19] {
        *b"\0\x07\x81\x80\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01"
    }

    #[test]
    fn incomplete_message_that_is_no_reply_ends_the_connection() {
        let (reply, mut query) = (short_reply(), short_reply());
        query[2] &= 0x7f;
        for (message, is_ended) in [(reply, false), (query, true)] {
            let pipe = Pipe::default();
            pipe.push(&[&[1, 0][..], &message[..11]].concat());
            assert_eq!(events(&pipe).1, Ok(Step::Drained));
            pipe.push(&[&[1, 0][..], &message[..]].concat());
            let (events, step) = events(&pipe);
            assert_eq!(events, ["up"]);
            let kind = step.err().map(|failure| failure.kind);
            assert_eq!(kind, is_ended.then_some(FailureKind::Protocol));
        }
    }

    #[test]
    fn frame_that_contains_the_next_frame_ends_the_connection() {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &short_reply());
        frame::write(&mut bytes, &short_reply());
        bytes[0] = 1;
        for (len, is_ended) in [(21, false), (34, false), (35, true), (42, true)] {
            let pipe = Pipe::default();
            pipe.push(&bytes[..len]);
            let (_, step) = events(&pipe);
            assert_eq!(step.is_err(), is_ended, "{len} bytes");
        }
    }

    #[test]
    fn long_reply_in_pieces_does_not_end_the_connection() {
        let mut message = short_reply().to_vec();
        message[7] = 200;
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x01";
        (0..200).for_each(|_| message.extend(record));
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &message);
        frame::write(&mut bytes, &message);
        let (pipe, mut scratch, mut count) = (Pipe::default(), Scratch::new(), 0);
        let mut stream = UpstreamStream::new(Transport::plain(pipe.clone()));
        for piece in bytes.chunks(7) {
            pipe.push(piece);
            let step = stream.ready(&mut scratch, 1000, |event| {
                count += usize::from(event == UpstreamEvent::Message(&message));
            });
            assert_eq!(step, Ok(Step::Drained));
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn message_without_a_header_ends_the_connection() {
        for len in [1, 5, 11] {
            let pipe = Pipe::default();
            let mut bytes = Vec::new();
            frame::write(&mut bytes, &vec![0; len]);
            frame::write(&mut bytes, &[2; 40]);
            pipe.push(&bytes);
            let (events, step) = events(&pipe);
            assert_eq!(events, [""; 0], "{len} bytes");
            assert_eq!(step.unwrap_err().kind, FailureKind::Protocol);
        }
    }

    #[test]
    fn few_empty_frames_before_a_reply_are_skipped() {
        let mut reply = Vec::new();
        frame::write(&mut reply, &short_reply());
        let empty = |number: usize| vec![0; number * LENGTH_LEN];
        for (pieces, is_skipped) in [
            ([[empty(1), reply.clone()], [empty(3), reply.clone()]], true),
            ([[empty(4), reply.clone()], [empty(0), empty(0)]], false),
            (
                [[reply.clone(), empty(1)], [reply.clone(), empty(0)]],
                false,
            ),
        ] {
            let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
            let mut stream = UpstreamStream::new(Transport::plain(pipe.clone()));
            let (mut count, mut is_ended) = (0, false);
            for piece in &pieces {
                pipe.push(&piece.concat());
                let step = stream.ready(&mut scratch, 1000, |event| {
                    count += usize::from(matches!(event, UpstreamEvent::Message(_)));
                });
                is_ended |= step.is_err();
                if is_ended {
                    break;
                }
            }
            assert_eq!(
                (count == 2, is_ended),
                (is_skipped, !is_skipped),
                "{pieces:?}"
            );
        }
    }
}
