//! Access to sockets and the clock: [`Net`] is the interface of the loop, [`mio`] implements it
//! with its own [`udp`] sockets and [`short_reads`], and [`inherited`] has the sockets of a service
//! manager.
//!
//! Tests implement [`Net`] with a simulated network and clock.

mod busy_poll;
pub mod inherited;
pub mod mio;
pub mod short_reads;
pub mod udp;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::libc::{
    EAFNOSUPPORT, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENONET,
    ENOPROTOOPT, EOPNOTSUPP, EPROTO,
};

use crate::base::arena::{Key, Token};
use crate::base::time::Instant;
use crate::session::{Datagram, Stream};

/// An event that the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket may have become readable or writable. Readiness is reported once: if a reader stops
    /// early, there is no second event.
    Ready {
        /// The token of the socket's key.
        token: Token,
        /// The peer of a stream will send no more, or the socket has an error.
        is_read_closed: bool,
    },
    /// The process received a signal.
    Signal(Signal),
    /// The host was suspended and has resumed.
    Resumed {
        /// The length of the suspension, by the boot clock.
        slept: Duration,
    },
}

impl Event {
    /// Returns the event of a socket that has become readable and stays open.
    pub fn readable(token: Token) -> Self {
        Self::Ready {
            token,
            is_read_closed: false,
        }
    }
}

/// A signal that the program handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To finish and end: SIGTERM, SIGINT.
    Finish,
    /// To read settings and files again: SIGHUP.
    Reload,
    /// To log the counters: SIGUSR1.
    Report,
}

/// A network and a clock. Every socket is nonblocking and is registered under the key of its
/// creation until it is dropped.
pub trait Net {
    /// A TCP connection.
    type Stream: Stream;
    /// A listening TCP socket.
    type Listener;
    /// A UDP socket.
    type Datagram: Datagram;

    /// Returns the current time. Within the loop, the time is that of the turn.
    fn now(&self) -> Instant;

    /// Waits until a socket is ready or `timeout` has passed, appends the events to `events`, and
    /// returns the time.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Instant>;

    /// Waits for `length`, so that more sockets get ready. Does not wait if the system has no
    /// timers for such short pauses.
    fn pause(&mut self, length: Duration);

    /// Creates a UDP socket bound to `address`. It is reported when it is readable, and when it is
    /// writable only while it is [watched](Net::watch_room). Fails with `AddrNotAvailable` if the
    /// host lacks the address and the system does not bind it in advance.
    fn bind(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Datagram>;

    /// Starts or stops reporting that a UDP socket has room.
    fn watch_room(
        &mut self,
        socket: &mut Self::Datagram,
        key: Key,
        is_watched: bool,
    ) -> io::Result<()>;

    /// Creates a TCP socket that listens on `address`. Fails like [`Net::bind`].
    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Listener>;

    /// Accepts the next connection of `listener`. Returns the connection and the client's address.
    fn accept(
        &mut self,
        listener: &Self::Listener,
        key: Key,
    ) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Creates a UDP socket on an unpredictable port that sends to `peer` and receives from `peer`
    /// only.
    fn connect_datagram(&mut self, peer: SocketAddr, key: Key) -> io::Result<Self::Datagram>;

    /// Connects to the Unix socket at `path`.
    fn connect_local(&mut self, path: &Path, key: Key) -> io::Result<Self::Stream>;

    /// Starts to connect to `peer`. Later reads and writes report the success or failure.
    fn connect(&mut self, peer: SocketAddr, key: Key) -> io::Result<Self::Stream>;
}

/// Returns whether accepting failed because of the connection that would have been the next, so
/// that the one behind it can be accepted at once (`accept(2)`). All other errors may last.
pub fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            ECONNABORTED
                | ECONNRESET
                | EHOSTDOWN
                | EHOSTUNREACH
                | ENETDOWN
                | ENETUNREACH
                | ENONET
                | ENOPROTOOPT
                | EOPNOTSUPP
                | EPROTO
        )
    )
}

/// Returns whether a socket could not be opened because the host lacks its address family.
pub fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT)
}
