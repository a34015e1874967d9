//! A byte stream, plain or under TLS.

mod socket_io;
pub mod tls;

pub use socket_io::Received;

use std::io::{Read, Write};
use std::net::IpAddr;

use super::Scratch;
use crate::base::failure::{Failure, FailureKind};
use crate::base::origin::ClientProtocol;
use crate::base::time::Validity;
use crate::tls::{Acceptor, Connector};
use socket_io::{Unsent, failed, read};
use tls::{ClientEnd, ServerEnd, TlsStream};

/// A connected stream socket.
pub trait Stream: Read + Write {
    /// Handles an event of the poller for the stream. `is_read_closed` is set if the peer will send
    /// no more, or if the socket has an error.
    fn on_event(&mut self, _is_read_closed: bool) {}

    /// Sends an acknowledgement at once, if the system would delay it until there is data to send.
    fn acknowledge(&mut self) {}

    /// Returns the local address of the connection, if it is an IP address.
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }
}

/// The properties of a session with a TLS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// The protocol version, like `TLS 1.3`.
    pub version: &'static str,
    /// The key exchange group, like `X25519`. A session that was resumed without one has none.
    pub key_exchange: Option<&'static str>,
    /// The validity period of the server's certificate, if it can be read.
    pub validity: Option<Validity>,
}

/// A stream over `S`.
pub enum Transport<S> {
    /// A plain stream.
    Plain(Plain<S>),
    /// A TLS stream, client side.
    TlsClient(Box<TlsStream<S, ClientEnd>>),
    /// A TLS stream, server side.
    TlsServer(Box<TlsStream<S, ServerEnd>>),
}

impl<S: Read + Write> Transport<S> {
    /// Creates a plain transport on a connected stream.
    pub fn plain(stream: S) -> Self {
        Self::new_plain(stream, true)
    }

    /// Creates a plain transport on a stream that is still connecting.
    pub fn connecting(stream: S) -> Self {
        Self::new_plain(stream, false)
    }

    fn new_plain(stream: S, is_connected: bool) -> Self {
        let unsent = Unsent::default();
        Self::Plain(Plain {
            stream,
            unsent,
            is_connected,
        })
    }

    /// Creates a TLS transport to the peer that `connector` expects.
    pub fn tls(stream: S, connector: &Connector, scratch: &mut Scratch) -> Result<Self, Failure> {
        let tls = TlsStream::connect(stream, connector, scratch)?;
        Ok(Self::TlsClient(Box::new(tls)))
    }

    /// Creates a TLS transport on an accepted stream, for a client with this protocol.
    pub fn accepted(
        stream: S,
        acceptor: &Acceptor,
        protocol: ClientProtocol,
    ) -> Result<Self, Failure> {
        let tls = TlsStream::accept(stream, acceptor, protocol)?;
        Ok(Self::TlsServer(Box::new(tls)))
    }

    /// Returns whether payload can be sent: TCP is connected and, under TLS, the peer is
    /// authenticated.
    pub fn is_established(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_connected,
            Self::TlsClient(tls) => tls.is_established(),
            Self::TlsServer(tls) => tls.is_established(),
        }
    }

    /// Returns whether TCP is connected.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_connected,
            Self::TlsClient(tls) => tls.is_connected(),
            Self::TlsServer(tls) => tls.is_connected(),
        }
    }

    /// Returns whether the stream is encrypted.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Returns whether the handshake resumed an earlier session. `None` during the handshake and
    /// for plain streams.
    pub fn is_resumed(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::TlsClient(tls) => tls.is_resumed(),
            Self::TlsServer(tls) => tls.is_resumed(),
        }
    }

    /// Returns the properties of the session with a TLS server. `None` during the handshake and for
    /// other streams.
    pub fn tls_session(&self) -> Option<TlsSession> {
        match self {
            Self::TlsClient(tls) => tls.session(),
            Self::Plain(_) | Self::TlsServer(_) => None,
        }
    }

    /// Returns whether a server has chosen HTTP/2 in the TLS handshake (ALPN).
    pub fn speaks_http2(&self) -> bool {
        match self {
            Self::TlsClient(tls) => tls.speaks_http2(),
            Self::Plain(_) | Self::TlsServer(_) => false,
        }
    }

    /// Returns the certificate of the peer, if the peer has sent one.
    pub fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::TlsClient(tls) => tls.certificate(),
            Self::TlsServer(tls) => tls.certificate(),
        }
    }

    /// Returns whether `acceptor` admits the client at the other end. A plain client is always
    /// admitted.
    pub fn is_admitted_by(&self, acceptor: &Acceptor) -> bool {
        match self {
            Self::TlsServer(tls) => tls.is_admitted_by(acceptor),
            Self::Plain(_) | Self::TlsClient(_) => true,
        }
    }

    /// Reads once and hands the payload to `take` in pieces.
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

    /// Appends payload to `received` until `parse` finds a value in it or nothing is left to read.
    /// Fails with `endless` after `bytes_max` bytes without a value, and if the peer ends its
    /// stream.
    pub(super) fn receive_until<T>(
        &mut self,
        scratch: &mut Scratch,
        received: &mut Vec<u8>,
        (bytes_max, endless): (usize, &str),
        mut parse: impl FnMut(&mut Vec<u8>) -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut bytes = 0;
        while bytes < bytes_max {
            let read = self.receive(scratch, |piece| received.extend_from_slice(piece))?;
            if let Some(value) = parse(received)? {
                return Ok(Some(value));
            }
            match read {
                Received::Some(len) => bytes += len,
                Received::Nothing => return Ok(None),
                Received::End => return Err(FailureKind::Closed.into()),
            }
        }
        Err(Failure::new(FailureKind::Protocol, endless))
    }

    /// Queues payload that `payload` appends to a buffer.
    pub fn send(&mut self, payload: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Plain(plain) => payload(&mut plain.unsent.bytes),
            Self::TlsClient(tls) => payload(tls.plaintext()),
            Self::TlsServer(tls) => payload(tls.plaintext()),
        }
    }

    /// Returns the number of unsent bytes.
    pub fn unsent_len(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.unsent.len(),
            Self::TlsClient(tls) => tls.unsent_len(),
            Self::TlsServer(tls) => tls.unsent_len(),
        }
    }

    /// Returns the number of bytes held in buffers.
    pub fn held_len(&self) -> usize {
        let torn = match self {
            Self::Plain(_) => 0,
            Self::TlsClient(tls) => tls.torn_len(),
            Self::TlsServer(tls) => tls.torn_len(),
        };
        torn + self.unsent_len()
    }

    /// Writes queued data, as far as the socket accepts it. Returns the number of bytes written.
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

    /// Sends the end of the stream to the peer, if that is possible without blocking.
    pub fn close(&mut self, scratch: &mut Scratch) {
        match self {
            Self::Plain(_) => {}
            Self::TlsClient(tls) => tls.close(scratch),
            Self::TlsServer(tls) => tls.close(scratch),
        }
    }
}

impl<S> Transport<S> {
    /// Returns the stream that carries the data.
    pub fn stream(&mut self) -> &mut S {
        match self {
            Self::Plain(plain) => &mut plain.stream,
            Self::TlsClient(tls) => tls.stream(),
            Self::TlsServer(tls) => tls.stream(),
        }
    }
}

/// A plain stream.
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
        // The first event from the poller means that the connection is established or has failed.
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

#[cfg(test)]
mod tests {
    use super::super::testing::Pipe;
    use super::*;

    #[test]
    fn unwritten_bytes_wait_for_the_next_flush() {
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
