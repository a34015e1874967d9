//! Sockets as state machines: partial reads, message framing, TLS, and nothing about DNS beyond
//! where a message ends.
//!
//! There is one session for each socket. Each works on something that reads and writes without
//! blocking, whatever that is, so that tests drive it through memory. None knows of another, of the
//! poller or of the clock; what a message means is decided elsewhere.
//!
//! The contract is the same for all. `ready` is called when the socket may have become readable or
//! writable, and again as long as it returns [`Step::Again`]: the poller reports an edge once, so
//! whoever stops early has to be asked again. It hands every whole message to its caller. `send`
//! takes a message to be sent, and `flush` sends as much as the socket takes.

pub mod client;
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
pub use upstream::datagram::UpstreamDatagram;
pub use upstream::stream::UpstreamStream;

/// Where a session stands after it has been called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has read all there is, and waits for the socket.
    Drained,
    /// It has read as much as it may at a time; there can be more.
    Again,
    /// It has messages that it cannot hand on before responses have gone out.
    Full,
}

/// Memory that sessions work in while they are called, one for all of them.
#[derive(Debug)]
pub struct Scratch {
    incoming: Box<[u8]>,
    outgoing: Vec<u8>,
}

impl Scratch {
    /// Octets of the largest read: a datagram or a message with its length comes whole.
    const READ_LEN_MAX: usize = 64 * 1024;
    /// Octets of torn TLS records and handshake messages that a read may complete.
    const TORN_LEN_MAX: usize = 80 * 1024;
    /// Octets of the largest TLS record, generously.
    const RECORD_LEN_MAX: usize = 17 * 1024;

    /// The memory; the system provides it as it is touched.
    pub fn new() -> Self {
        Self {
            incoming: vec![0; Self::TORN_LEN_MAX + Self::READ_LEN_MAX].into(),
            outgoing: vec![0; Self::RECORD_LEN_MAX],
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
