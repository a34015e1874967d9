//! The way to the sockets and to the clock: [`Net`] says what the loop needs, [`mio`] provides it,
//! with [`udp`] sockets of its own, of those that are [`inherited`] if there are any.
//!
//! Tests provide a network of their own, with a clock that jumps.

mod busy_poll;
pub mod inherited;
pub mod mio;
pub mod udp;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::libc::{
    EADDRNOTAVAIL, EAFNOSUPPORT, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, ENETDOWN,
    ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPROTO,
};

use crate::base::arena::{Key, Token};
use crate::base::time::Instant;
use crate::session::{Datagram, Stream};

/// Something that the loop has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The socket whose key has this token may have become readable or writable. It is reported
    /// once: a reader that stops before there is nothing more is not told again.
    Ready(Token),
    /// Someone wants something of the process.
    Signal(Signal),
    /// The host was suspended and goes on.
    Resumed {
        /// For how long, by a clock that ours is not.
        slept: Duration,
    },
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To finish and end: SIGTERM, SIGINT.
    Finish,
    /// To read settings and files again: SIGHUP.
    Reload,
    /// To log the counters: SIGUSR1.
    Report,
}

/// A network and a clock. Every socket is nonblocking and registered under the key that it is made
/// with, until it is dropped.
pub trait Net {
    /// A TCP connection.
    type Stream: Stream;
    /// A TCP socket that listens.
    type Listener;
    /// A UDP socket.
    type Datagram: Datagram;

    /// The time now. Within the loop, the time is that of the turn.
    fn now(&self) -> Instant;

    /// Waits until something is ready or `timeout` is over, appends what is ready to `events`, and
    /// returns the time.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Instant>;

    /// Lets so much time pass, in which more gets ready; none where the system cannot wait for so
    /// little.
    fn pause(&mut self, length: Duration);

    /// A UDP socket bound to `address`. It is reported when it can be read, and when it can be
    /// written only while it is [watched](Net::watch_room).
    fn bind(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Datagram>;

    /// From now on reports, or no longer reports, that a UDP socket has room for what is sent.
    fn watch_room(
        &mut self,
        socket: &mut Self::Datagram,
        key: Key,
        is_watched: bool,
    ) -> io::Result<()>;

    /// A TCP socket that listens on `address`.
    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Listener>;

    /// The next connection to `listener`, and where it comes from.
    fn accept(
        &mut self,
        listener: &Self::Listener,
        key: Key,
    ) -> io::Result<(Self::Stream, SocketAddr)>;

    /// A UDP socket on a port that nobody can foresee, which sends to `peer` and receives from it
    /// alone.
    fn connect_datagram(&mut self, peer: SocketAddr, key: Key) -> io::Result<Self::Datagram>;

    /// Connects to the local socket that has a path.
    fn connect_local(&mut self, path: &Path, key: Key) -> io::Result<Self::Stream>;

    /// Starts to connect to `peer`. Whether that succeeds shows in reading and writing.
    fn connect(&mut self, peer: SocketAddr, key: Key) -> io::Result<Self::Stream>;
}

/// Whether accepting failed because of the connection that would have been the next, so that the
/// one behind it can be accepted at once (`accept(2)`). All other errors may last.
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

/// Whether an IPv6 address could not be had because the host has none.
pub fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}
