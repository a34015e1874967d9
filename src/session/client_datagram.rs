//! A UDP socket that clients send their queries to.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use super::{Scratch, Step};
use crate::address::Address;

/// A UDP socket.
pub trait Datagram {
    /// Receives a datagram into `buffer`: its length, who sent it, and, where the socket has more
    /// than one address, which of them it was sent to.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)>;

    /// Sends a datagram to `peer`, from the address `local` if that is given.
    fn send(&mut self, datagram: &[u8], peer: SocketAddr, local: Option<Address>)
    -> io::Result<()>;
}

/// The session on a UDP socket.
#[derive(Debug)]
pub struct ClientDatagram<D> {
    socket: D,
    unsent: VecDeque<Unsent>,
    unsent_len: usize,
    dropped: u64,
}

/// A response that the socket did not take.
#[derive(Debug)]
struct Unsent {
    datagram: Box<[u8]>,
    peer: SocketAddr,
    local: Option<Address>,
}

impl<D: Datagram> ClientDatagram<D> {
    /// The session of a socket.
    pub fn new(socket: D) -> Self {
        Self {
            socket,
            unsent: VecDeque::new(),
            unsent_len: 0,
            dropped: 0,
        }
    }

    /// Responses that could not be sent.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a response waits for room in the socket.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Hands at most `datagrams_max` datagrams to `take`: the bytes, who sent them, to which
    /// address.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        datagrams_max: usize,
        mut take: impl FnMut(&[u8], SocketAddr, Option<Address>),
    ) -> Step {
        for _ in 0..datagrams_max {
            match self.socket.receive(&mut scratch.incoming) {
                Ok((len, peer, local)) => take(&scratch.incoming[..len], peer, local),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Drained,
                // An error of some earlier datagram, or a signal: there may be more to read.
                Err(error) => log::trace!("UDP receive: {error}"),
            }
        }
        Step::Again
    }

    /// Sends a response, at once or when the socket takes it. At most `unsent_max` octets wait;
    /// beyond, the response is dropped and counted.
    pub fn send(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        local: Option<Address>,
        unsent_max: usize,
    ) {
        if self.unsent.is_empty() {
            match self.socket.send(datagram, peer, local) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return self.on_sent(result),
            }
        }
        if self.unsent_len + datagram.len() > unsent_max {
            self.dropped += 1;
            return;
        }
        self.unsent_len += datagram.len();
        self.unsent.push_back(Unsent {
            datagram: datagram.into(),
            peer,
            local,
        });
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) {
        while let Some(Unsent {
            datagram,
            peer,
            local,
        }) = self.unsent.front()
        {
            let result = self.socket.send(datagram, *peer, *local);
            if result
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            {
                return;
            }
            self.unsent_len -= datagram.len();
            self.unsent.pop_front();
            self.on_sent(result);
        }
        self.unsent.shrink_to(0);
    }

    fn on_sent(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.dropped += 1;
            log::debug!("UDP response not sent: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes so many datagrams.
    #[derive(Default)]
    struct Socket {
        room: usize,
        sent: Vec<Vec<u8>>,
    }

    impl Datagram for Socket {
        fn receive(&mut self, _: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)> {
            Err(ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, datagram: &[u8], _: SocketAddr, _: Option<Address>) -> io::Result<()> {
            if self.room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= 1;
            self.sent.push(datagram.to_vec());
            Ok(())
        }
    }

    #[test]
    fn full_socket_keeps_responses_in_order_and_drops_those_beyond_the_limit() {
        let peer = ([127, 0, 0, 1], 4711).into();
        let mut session = ClientDatagram::new(Socket {
            room: 1,
            ..Socket::default()
        });
        for datagram in [b"one", b"two", b"six", b"ten"] {
            session.send(datagram, peer, None, 6);
        }
        assert_eq!(session.socket.sent, [b"one"]);
        assert_eq!(session.dropped(), 1);
        assert!(session.has_unsent());
        session.socket.room = 5;
        session.flush();
        assert_eq!(session.socket.sent, [b"one", b"two", b"six"]);
        assert!(!session.has_unsent());
        session.send(b"ten", peer, None, 6);
        assert_eq!(session.socket.sent.len(), 4);
    }
}
