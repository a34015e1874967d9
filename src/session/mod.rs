//! Sockets as state machines: partial reads, message framing, HTTP/2 and TLS. Sessions know only
//! the framing of DNS messages, with two exceptions: [`upstream::stream`] also parses the start of
//! an incomplete reply, to detect a wrong length prefix, and [`upstream::http2`] sets the id.
//!
//! There is one session for each socket. A session works on any non-blocking reader and writer, so
//! tests drive sessions through memory. Sessions do not know each other, the poller or the clock;
//! the proxy interprets messages.
//!
//! All sessions have the same contract. `ready` is called when the socket may have become readable
//! or writable, and again while it returns [`Step::Again`]: the poller is edge-triggered, so a
//! session that stops early must be called again. `ready` hands every whole message to its caller.
//! `send` queues a message, and `flush` writes as much as the socket accepts; a datagram is sent at
//! once and waits only if the socket is full. After an error of either the session is closed.

pub mod client;
pub mod http2;
pub mod observer;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod upstream;

pub use client::datagram::{ClientDatagram, Datagram};
pub use client::stream::ClientStream;
pub use observer::frame_stream::FrameStream;
pub use observer::http_client::HttpClient;
pub use observer::http_server::HttpStream;
pub use transport::{Stream, Transport};
pub use upstream::UpstreamConnection;
pub use upstream::datagram::UpstreamDatagram;
pub use upstream::http2::UpstreamHttp2;
pub use upstream::stream::UpstreamStream;

/// The state of a session after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The session has read everything and waits for the socket.
    Drained,
    /// The session has read its limit per call; there can be more data.
    Again,
    /// The session has messages that it cannot hand over before responses have been sent.
    Full,
}

/// Working memory that all sessions share during calls.
#[derive(Debug)]
pub struct Scratch {
    incoming: Box<[u8]>,
    outgoing: Vec<u8>,
}

impl Scratch {
    /// Maximum number of bytes of a read: a datagram or a message with its length fits.
    const READ_LEN_MAX: usize = 64 * 1024;
    /// Maximum number of bytes of partial TLS records and handshake messages before a read.
    const TORN_LEN_MAX: usize = 80 * 1024;
    /// Upper bound of the length of a TLS record.
    const RECORD_LEN_MAX: usize = 17 * 1024;

    /// Allocates the memory; the system provides pages when they are touched.
    pub fn new() -> Self {
        Self {
            incoming: vec![0; Self::TORN_LEN_MAX + Self::READ_LEN_MAX].into(),
            outgoing: vec![0; Self::RECORD_LEN_MAX],
        }
    }

    /// Returns a buffer for a message of any length, which the next read overwrites.
    fn message_buffer(&mut self) -> &mut [u8] {
        &mut self.incoming[..Self::READ_LEN_MAX]
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
