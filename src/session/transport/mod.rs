//! A stream of octets, in the clear or under TLS.

pub mod tls;

use std::io::{self, ErrorKind, Read, Write};

use super::Scratch;
use crate::base::failure::{Failure, FailureKind};
use crate::tls::{Acceptor, Connector};
use tls::{Client, Server, TlsStream};

/// A socket of a connection.
pub trait Stream: Read + Write {
    /// Tells the peer at once that it was heard, if the system meant to wait with that until there
    /// is something to say.
    fn acknowledge(&mut self) {}
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many octets were read. They need not have been payload.
    Some(usize),
    /// There is nothing to read now.
    Nothing,
    /// The peer will send no more.
    End,
}

/// A stream over `S`.
pub enum Transport<S> {
    /// In the clear.
    Plain(Plain<S>),
    /// Under TLS, as its client.
    TlsClient(Box<TlsStream<S, Client>>),
    /// Under TLS, as its server.
    TlsServer(Box<TlsStream<S, Server>>),
}

impl<S: Read + Write> Transport<S> {
    /// A stream in the clear that is connected.
    pub fn plain(stream: S) -> Self {
        let (unsent, is_connected) = (Unsent::default(), true);
        Self::Plain(Plain {
            stream,
            unsent,
            is_connected,
        })
    }

    /// A stream in the clear that is about to be connected.
    pub fn connecting(stream: S) -> Self {
        let (unsent, is_connected) = (Unsent::default(), false);
        Self::Plain(Plain {
            stream,
            unsent,
            is_connected,
        })
    }

    /// A stream under TLS to the peer that `connector` expects.
    pub fn tls(stream: S, connector: &Connector, scratch: &mut Scratch) -> Result<Self, Failure> {
        let tls = TlsStream::connect(stream, connector, scratch)?;
        Ok(Self::TlsClient(Box::new(tls)))
    }

    /// A stream under TLS that was accepted.
    pub fn accepted(stream: S, acceptor: &Acceptor) -> Result<Self, Failure> {
        let tls = TlsStream::accept(stream, acceptor)?;
        Ok(Self::TlsServer(Box::new(tls)))
    }

    /// Whether the peer is there and, under TLS, who it should be, so that payload can be sent.
    pub fn is_established(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_connected,
            Self::TlsClient(tls) => tls.is_established(),
            Self::TlsServer(tls) => tls.is_established(),
        }
    }

    /// Whether TCP is connected.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_connected,
            Self::TlsClient(tls) => tls.is_connected(),
            Self::TlsServer(tls) => tls.is_connected(),
        }
    }

    /// Whether nobody on the way can read along.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Whether the handshake took up an earlier session. `None` before it is over, and in the
    /// clear.
    pub fn is_resumed(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::TlsClient(tls) => tls.is_resumed(),
            Self::TlsServer(tls) => tls.is_resumed(),
        }
    }

    /// The certificate of the peer, if it has shown one.
    pub fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::TlsClient(tls) => tls.certificate(),
            Self::TlsServer(tls) => tls.certificate(),
        }
    }

    /// Returns whether `acceptor` admits the client at the other end. It admits every client in the
    /// clear.
    pub fn is_admitted_by(&self, acceptor: &Acceptor) -> bool {
        match self {
            Self::TlsServer(tls) => tls.is_admitted_by(acceptor),
            Self::Plain(_) | Self::TlsClient(_) => true,
        }
    }

    /// Reads once, and hands the payload to `take` piece by piece.
    pub fn receive(
        &mut self,
        scratch: &mut Scratch,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Received, Failure> {
        match self {
            Self::Plain(plain) => plain.receive(scratch, &mut take),
            Self::TlsClient(tls) => tls.receive(scratch, &mut take),
            Self::TlsServer(tls) => tls.receive(scratch, &mut take),
        }
    }

    /// Takes payload to be sent.
    pub fn send(&mut self, payload: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Plain(plain) => payload(&mut plain.unsent.bytes),
            Self::TlsClient(tls) => payload(tls.plaintext()),
            Self::TlsServer(tls) => payload(tls.plaintext()),
        }
    }

    /// Octets that wait to be sent.
    pub fn unsent_len(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.unsent.len(),
            Self::TlsClient(tls) => tls.unsent_len(),
            Self::TlsServer(tls) => tls.unsent_len(),
        }
    }

    /// Octets that are held for it.
    pub fn held_len(&self) -> usize {
        let torn = match self {
            Self::Plain(_) => 0,
            Self::TlsClient(tls) => tls.torn_len(),
            Self::TlsServer(tls) => tls.torn_len(),
        };
        torn + self.unsent_len()
    }

    /// Sends what waits, as far as the socket takes it. Returns the octets that it took.
    pub fn flush(&mut self, scratch: &mut Scratch) -> Result<usize, Failure> {
        match self {
            Self::Plain(plain) => plain
                .unsent
                .flush(&mut plain.stream)
                .map_err(|error| failed(&error, plain.is_connected)),
            Self::TlsClient(tls) => tls.flush(scratch),
            Self::TlsServer(tls) => tls.flush(scratch),
        }
    }

    /// Tells the peer that no more will come, if that can be done without waiting.
    pub fn close(&mut self, scratch: &mut Scratch) {
        match self {
            Self::Plain(_) => {}
            Self::TlsClient(tls) => tls.close(scratch),
            Self::TlsServer(tls) => tls.close(scratch),
        }
    }
}

impl<S: Stream> Transport<S> {
    /// [`Stream::acknowledge`].
    pub fn acknowledge(&mut self) {
        match self {
            Self::Plain(plain) => plain.stream.acknowledge(),
            Self::TlsClient(tls) => tls.stream().acknowledge(),
            Self::TlsServer(tls) => tls.stream().acknowledge(),
        }
    }
}

/// A stream in the clear.
pub struct Plain<S> {
    stream: S,
    unsent: Unsent,
    is_connected: bool,
}

impl<S: Read + Write> Plain<S> {
    fn receive(
        &mut self,
        scratch: &mut Scratch,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<Received, Failure> {
        let buffer = &mut scratch.incoming[..Scratch::READ_LEN_MAX];
        let read = read(&mut self.stream, buffer);
        let read = read.map_err(|error| failed(&error, self.is_connected))?;
        // The poller first speaks up when the connection has come about or failed.
        self.is_connected = true;
        match read {
            None => Ok(Received::Nothing),
            Some(0) => Ok(Received::End),
            Some(len) => {
                take(&buffer[..len]);
                Ok(Received::Some(len))
            }
        }
    }
}

/// Octets that were to be written and did not fit.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the socket takes; returns how much that was.
    pub(super) fn flush(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        if self.len() == 0 {
            return Ok(0);
        }
        let taken = write(stream, &self.bytes[self.written..])?;
        self.written += taken;
        // What has been written is kept no longer than it is less than what has not.
        if self.written >= self.len() {
            self.bytes.drain(..self.written);
            self.bytes.shrink_to(0);
            self.written = 0;
        }
        Ok(taken)
    }
}

/// Reads once; `None` when there is nothing now.
pub(super) fn read(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(buffer) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes until all is taken or the stream takes no more; returns how much it took.
pub(super) fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => taken += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// What an error of the socket means for a connection that has or has not come about.
pub(super) fn failed(error: &io::Error, is_connected: bool) -> Failure {
    let kind = match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            FailureKind::Closed
        }
        _ if is_connected => FailureKind::Closed,
        _ => FailureKind::Connect,
    };
    Failure::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Pipe;
    use super::*;

    #[test]
    fn what_the_socket_took_is_not_kept() {
        let (pipe, message) = (Pipe::default(), vec![0; 60_000]);
        let mut unsent = Unsent::default();
        pipe.set_window(0);
        for _ in 0..64 {
            unsent.bytes.extend(&message);
            pipe.set_window(message.len() - 1);
            unsent.flush(&mut pipe.clone()).unwrap();
        }
        assert_eq!(unsent.len(), 64);
        assert!(unsent.bytes.capacity() < 2 * message.len());
    }

    #[test]
    fn full_socket_keeps_the_rest_for_later() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut transport = Transport::plain(pipe.clone());
        pipe.set_window(5);
        transport.send(|out| out.extend(b"eleven more"));
        assert_eq!(transport.flush(&mut scratch), Ok(5));
        assert_eq!(transport.unsent_len(), 6);
        pipe.set_window(100);
        assert_eq!(transport.flush(&mut scratch), Ok(6));
        assert_eq!(pipe.sent(), b"eleven more");
    }
}
