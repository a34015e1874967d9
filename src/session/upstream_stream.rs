//! A connection to an upstream: TLS, then messages both ways.

use std::ops::ControlFlow;
use std::time::Duration;

use super::transport::{Received, Transport};
use super::{Scratch, Step, Stream};
use crate::failure::{Failure, FailureKind};
use crate::tls;
use crate::wire::frame::{self, Deframer};
use crate::wire::header::HEADER_LEN;

/// What came on a connection upstream.
#[derive(Debug, PartialEq, Eq)]
pub enum UpstreamEvent<'a> {
    /// The peer is who it should be: queries can be sent.
    Up {
        /// The handshake took up an earlier session.
        is_resumed: bool,
        /// When the certificate of the peer expires, in time since 1970.
        expires_at: Option<Duration>,
    },
    /// A message.
    Message(&'a [u8]),
}

/// A connection to an upstream over `S`.
pub struct UpstreamStream<S> {
    transport: Transport<S>,
    deframer: Deframer,
    is_up: bool,
}

impl<S: Stream> UpstreamStream<S> {
    /// The session on a transport that has just been made.
    pub fn new(transport: Transport<S>) -> Self {
        Self {
            transport,
            deframer: Deframer::default(),
            is_up: false,
        }
    }

    /// Reads at most about `octets_max`, and tells what came. After an error the connection is
    /// over.
    ///
    /// What is no whole message yet is acknowledged at once: a peer that has more to send may wait
    /// for that (RFC 896), be it after a ticket or after the length of a message.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        octets_max: usize,
        mut on_event: impl FnMut(UpstreamEvent<'_>),
    ) -> Result<Step, Failure> {
        let mut octets = 0;
        let mut is_owed_more = false;
        while octets < octets_max {
            let mut flow = ControlFlow::Continue(());
            let mut is_part = true;
            let received = self.transport.receive(scratch, |piece| {
                if flow.is_continue() {
                    flow = self.deframer.feed(piece, |message| {
                        if message.len() < HEADER_LEN {
                            return ControlFlow::Break(());
                        }
                        is_part = false;
                        on_event(UpstreamEvent::Message(message));
                        ControlFlow::Continue(())
                    });
                }
            })?;
            if flow.is_break() {
                let detail = "a message shorter than its header";
                return Err(Failure::new(FailureKind::Protocol, detail));
            }
            if !self.is_up && self.transport.is_established() {
                self.is_up = true;
                let is_resumed = self.transport.is_resumed().unwrap_or(false);
                let certificate = self.transport.certificate();
                on_event(UpstreamEvent::Up {
                    is_resumed,
                    expires_at: certificate.and_then(tls::expires_at),
                });
            }
            match received {
                Received::Some(len) => {
                    octets += len;
                    is_owed_more = self.is_up && is_part;
                }
                Received::Nothing => {
                    if is_owed_more {
                        self.transport.acknowledge();
                    }
                    return Ok(Step::Drained);
                }
                Received::End => return Err(FailureKind::Closed.into()),
            }
        }
        Ok(Step::Again)
    }

    /// Takes a message to be sent.
    pub fn send(&mut self, message: &[u8]) {
        self.transport.send(|out| frame::write(out, message));
    }

    /// Sends what waits, as far as the socket takes it. After an error the connection is over.
    pub fn flush(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        self.transport.flush(scratch).map(|_| ())
    }

    /// Tells the peer that this is the end.
    pub fn close(&mut self, scratch: &mut Scratch) {
        self.transport.close(scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Pipe;
    use super::*;

    fn events(pipe: &Pipe) -> (Vec<String>, Result<Step, Failure>) {
        let mut stream = UpstreamStream::new(Transport::plain(pipe.clone()));
        let mut events = Vec::new();
        let step = stream.ready(&mut Scratch::new(), 1000, |event| {
            events.push(match event {
                UpstreamEvent::Up { .. } => "up".to_owned(),
                UpstreamEvent::Message(message) => message.len().to_string(),
            });
        });
        (events, step)
    }

    #[test]
    fn messages_are_handed_on_before_the_end_is_noticed() {
        let pipe = Pipe::default();
        let mut octets = Vec::new();
        frame::write(&mut octets, &[1; 12]);
        frame::write(&mut octets, &[2; 40]);
        pipe.push(&octets);
        pipe.end();
        let (events, step) = events(&pipe);
        assert_eq!(events, ["12", "40", "up"]);
        assert_eq!(step, Err(FailureKind::Closed.into()));
    }

    #[test]
    fn part_of_a_message_is_acknowledged_at_once() {
        let pipe = Pipe::default();
        let mut stream = UpstreamStream::new(Transport::plain(pipe.clone()));
        let mut ready = |octets: &[u8]| {
            pipe.push(octets);
            let step = stream.ready(&mut Scratch::new(), 1000, |_| {});
            assert_eq!(step, Ok(Step::Drained));
            pipe.acknowledged()
        };
        let mut octets = Vec::new();
        frame::write(&mut octets, &[1; 12]);
        assert_eq!(ready(b""), 0);
        assert_eq!((ready(&octets), ready(&octets[..2])), (0, 1));
        assert_eq!((ready(&octets[2..]), ready(b"")), (1, 1));
    }

    #[test]
    fn message_without_a_header_ends_the_connection() {
        for len in [0, 5, 11] {
            let pipe = Pipe::default();
            let mut octets = Vec::new();
            frame::write(&mut octets, &vec![0; len]);
            frame::write(&mut octets, &[2; 40]);
            pipe.push(&octets);
            let (events, step) = events(&pipe);
            assert_eq!(events, [""; 0], "{len} octets");
            assert_eq!(step.unwrap_err().kind, FailureKind::Protocol);
        }
    }
}
