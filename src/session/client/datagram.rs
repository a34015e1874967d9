//! A UDP socket that clients send their queries to.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::address::Address;
use crate::session::{Scratch, Step};

/// A UDP socket.
pub trait Datagram {
    /// Leaves later datagrams to other sockets that share the address. Returns whether that is
    /// possible. Datagrams that have already arrived still belong to this socket.
    fn leave(&mut self) -> bool {
        false
    }

    /// Receives a datagram into `buffer`. Returns its length, its source and, if the socket has
    /// more than one address, its destination.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)>;

    /// Sends one or more datagrams from the start of the slice and returns their number. On an
    /// error, nothing was sent, and the error concerns the first datagram. Adjacent datagrams to
    /// one client with equal lengths may cost as much as one datagram.
    fn send(&mut self, datagrams: &[Outgoing<'_>]) -> io::Result<usize>;
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// The destination.
    pub peer: &'a SocketAddr,
    /// The source address, if the socket has more than one.
    pub local: Option<&'a Address>,
}

impl Outgoing<'_> {
    const NONE: Self = Self {
        bytes: &[],
        peer: &SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        local: None,
    };
}

/// Maximum number of responses that are sorted and sent together.
const BATCH_LEN: usize = 64;

/// The session on a UDP socket.
#[derive(Debug)]
pub struct ClientDatagram<D> {
    socket: D,
    unsent: VecDeque<UnsentResponse>,
    unsent_len: usize,
    /// The poller reports when the socket has room.
    is_watched: bool,
    /// Later datagrams belong to other sockets.
    has_left: bool,
    dropped: u64,
}

/// A response that the socket did not accept.
#[derive(Debug)]
struct UnsentResponse {
    bytes: Box<[u8]>,
    peer: SocketAddr,
    local: Option<Address>,
}

impl UnsentResponse {
    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            bytes: &self.bytes,
            peer: &self.peer,
            local: self.local.as_ref(),
        }
    }
}

impl<D: Datagram> ClientDatagram<D> {
    /// Creates the session of a socket.
    pub fn new(socket: D) -> Self {
        Self {
            socket,
            unsent: VecDeque::new(),
            unsent_len: 0,
            is_watched: false,
            has_left: false,
            dropped: 0,
        }
    }

    /// Returns the number of responses that could not be sent.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Leaves later datagrams to other sockets, if that is possible.
    pub fn leave(&mut self) {
        self.has_left = self.socket.leave();
    }

    /// Returns whether later datagrams go to other sockets, so that the unread ones are the last.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// Returns whether a response waits for room in the socket.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Returns the socket and whether to watch it for room, if that has changed.
    pub fn poll_watch(&mut self) -> Option<(&mut D, bool)> {
        let is_watched = self.has_unsent();
        let was_watched = std::mem::replace(&mut self.is_watched, is_watched);
        (is_watched != was_watched).then_some((&mut self.socket, is_watched))
    }

    /// Hands at most `datagrams_max` datagrams to `take`: the payload, its source, its destination.
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
                // A delayed error of an earlier datagram, or a signal: there may be more to read.
                Err(error) => log::trace!("UDP receive: {error}"),
            }
        }
        Step::Again
    }

    /// Sends responses, now or when the socket has room. Responses to one client are adjacent, the
    /// longest first. At most `unsent_max` bytes wait; further responses are dropped and counted.
    pub fn send<'a>(&mut self, responses: impl Iterator<Item = Outgoing<'a>>, unsent_max: usize) {
        let mut responses = responses.fuse();
        let mut batch = [Outgoing::NONE; BATCH_LEN];
        loop {
            let batch = fill(&mut batch, &mut responses);
            if batch.is_empty() {
                return;
            }
            batch.sort_unstable_by(by_client);
            let sent = if self.unsent.is_empty() {
                self.send_now(batch)
            } else {
                0
            };
            for one in &batch[sent..] {
                self.keep(one, unsent_max);
            }
        }
    }

    fn keep(&mut self, response: &Outgoing<'_>, unsent_max: usize) {
        if self.unsent_len + response.bytes.len() > unsent_max {
            self.dropped += 1;
            return;
        }
        self.unsent_len += response.bytes.len();
        self.unsent.push_back(UnsentResponse {
            bytes: response.bytes.into(),
            peer: *response.peer,
            local: response.local.copied(),
        });
    }

    /// Sends waiting responses, as far as the socket accepts them.
    pub fn flush(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        let mut left = unsent.iter().map(UnsentResponse::outgoing);
        let mut batch = [Outgoing::NONE; BATCH_LEN];
        let mut done = 0;
        loop {
            let batch = fill(&mut batch, &mut left);
            let sent = self.send_now(batch);
            done += sent;
            if sent < BATCH_LEN {
                break;
            }
        }
        self.unsent = unsent;
        let bytes = |one: UnsentResponse| one.bytes.len();
        self.unsent_len -= self.unsent.drain(..done).map(bytes).sum::<usize>();
        if self.unsent.is_empty() {
            self.unsent.shrink_to(0);
        }
    }

    /// Sends as much as the socket accepts. Returns the number of finished datagrams: a datagram
    /// with a permanent error is dropped and counted.
    fn send_now(&mut self, datagrams: &[Outgoing<'_>]) -> usize {
        let mut done = 0;
        while done < datagrams.len() {
            done += match self.socket.send(&datagrams[done..]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.dropped += 1;
                    log::debug!("UDP response not sent: {error}");
                    1
                }
            };
        }
        done
    }
}

/// Orders responses by client, the longest first. The port comes first, because clients usually
/// differ in their ports.
fn by_client(one: &Outgoing<'_>, other: &Outgoing<'_>) -> Ordering {
    let by_port = one.peer.port().cmp(&other.peer.port());
    by_port
        .then_with(|| one.peer.cmp(other.peer))
        .then_with(|| other.bytes.len().cmp(&one.bytes.len()))
}

/// Fills `batch` with the next responses, up to its capacity.
fn fill<'b, 'a>(
    batch: &'b mut [Outgoing<'a>],
    responses: &mut impl Iterator<Item = Outgoing<'a>>,
) -> &'b mut [Outgoing<'a>] {
    let mut len = 0;
    for (slot, response) in batch.iter_mut().zip(responses) {
        *slot = response;
        len += 1;
    }
    &mut batch[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that accepts a limited number of datagrams.
    #[derive(Default)]
    struct Socket {
        room: usize,
        sent: Vec<Vec<u8>>,
    }

    impl Datagram for Socket {
        fn receive(&mut self, _: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)> {
            Err(ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
            let before = self.sent.len();
            for datagram in datagrams.iter().take(self.room.min(2)) {
                if datagram.bytes == b"bad" {
                    break;
                }
                self.sent.push(datagram.bytes.to_vec());
            }
            let sent = self.sent.len() - before;
            self.room -= sent;
            match sent {
                0 if self.room == 0 => Err(ErrorKind::WouldBlock.into()),
                0 => Err(ErrorKind::PermissionDenied.into()),
                _ => Ok(sent),
            }
        }
    }

    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4711);

    fn responses<'a>(texts: &'a [&'a str]) -> impl Iterator<Item = Outgoing<'a>> {
        texts.iter().map(|text| Outgoing {
            bytes: text.as_bytes(),
            peer: &PEER,
            local: None,
        })
    }

    fn session(room: usize) -> ClientDatagram<Socket> {
        ClientDatagram::new(Socket {
            room,
            ..Socket::default()
        })
    }

    #[test]
    fn full_socket_keeps_responses_in_order_and_drops_those_beyond_the_limit() {
        let mut session = session(1);
        session.send(responses(&["one", "two"]), 6);
        session.send(responses(&["six", "ten"]), 6);
        assert_eq!(session.socket.sent, [b"one"]);
        assert_eq!(session.dropped(), 1);
        assert!(session.has_unsent());
        assert_eq!(session.poll_watch().map(|(_, watch)| watch), Some(true));
        assert!(session.poll_watch().is_none());
        session.socket.room = 5;
        session.flush();
        assert_eq!(session.poll_watch().map(|(_, watch)| watch), Some(false));
        assert_eq!(session.socket.sent, [b"one", b"two", b"six"]);
        assert!(!session.has_unsent());
        session.send(responses(&["ten"]), 6);
        assert_eq!(session.socket.sent.len(), 4);
    }

    #[test]
    fn responses_to_a_client_are_adjacent_and_the_longest_is_first() {
        let mut session = session(1_000);
        let others: SocketAddr = ([127, 0, 0, 1], 4710).into();
        let texts: Vec<String> = (0..70).map(|number| format!("{:1$}", 7, number)).collect();
        let mut turn = 0;
        let mixed = texts.iter().map(|text| {
            turn += 1;
            Outgoing {
                bytes: text.as_bytes(),
                peer: if turn % 2 == 0 { &others } else { &PEER },
                local: None,
            }
        });
        session.send(mixed, 0);
        let lens: Vec<_> = session.socket.sent.iter().map(Vec::len).collect();
        let down = |from: usize| (0..=from).rev().step_by(2);
        let first = down(63).chain(down(62).map(|len| len.max(1)));
        let rest = [69, 67, 65, 68, 66, 64];
        assert_eq!(lens, first.chain(rest).collect::<Vec<_>>());
    }

    #[test]
    fn iterator_of_responses_is_not_polled_after_its_end() {
        let mut session = session(1_000);
        let texts = ["one", "end", "two"];
        let until_end = responses(&texts).map_while(|one| (one.bytes != b"end").then_some(one));
        session.send(until_end, 0);
        assert_eq!(session.socket.sent, [b"one"]);
    }

    #[test]
    fn response_that_cannot_be_sent_is_dropped_and_the_next_are_sent() {
        let mut session = session(9);
        session.send(responses(&["one", "bad", "two", "six", "ten", "bad"]), 6);
        assert_eq!(session.socket.sent, [b"one", b"two", b"six", b"ten"]);
        assert_eq!((session.dropped(), session.has_unsent()), (2, false));
    }
}
