//! One query to a plain upstream over UDP, and its reply.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::base::failure::{Failure, FailureKind};
use crate::session::client::datagram::{Datagram, Outgoing};
use crate::session::{Scratch, Step};

/// The session on a UDP socket that is connected to an upstream.
#[derive(Debug)]
pub struct UpstreamDatagram<D> {
    socket: D,
    peer: SocketAddr,
}

impl<D: Datagram> UpstreamDatagram<D> {
    /// Creates the session of a socket that receives from `peer` only.
    pub fn new(socket: D, peer: SocketAddr) -> Self {
        Self { socket, peer }
    }

    /// Hands at most `datagrams_max` datagrams to `on_message`. The session ends after an error.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        datagrams_max: usize,
        mut on_message: impl FnMut(&[u8]),
    ) -> Result<Step, Failure> {
        for _ in 0..datagrams_max {
            match self.socket.receive(&mut scratch.incoming) {
                Ok((len, _, _)) => on_message(&scratch.incoming[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(Step::Again)
    }

    /// Sends a message. The session ends after an error.
    pub fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        let query = Outgoing {
            bytes: message,
            peer: &self.peer,
            local: None,
        };
        match self.socket.send(&[query]) {
            // A full socket counts as a lost datagram: the retry of the exchange handles the loss.
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(failed(&error)),
            _ => Ok(()),
        }
    }
}

/// Converts an error of the socket: the upstream does not listen, or there is no route.
fn failed(error: &io::Error) -> Failure {
    Failure::new(FailureKind::Connect, error)
}
