//! Sockets that the process was started with, by systemd or whoever else speaks its protocol
//! (`sd_listen_fds(3)`).

use std::io;
use std::net::SocketAddr;

use listenfd::ListenFd;
use socket2::{Socket, Type};

use crate::config::Place;

/// The sockets, until somebody takes them.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, Type, Socket)>,
}

impl Inherited {
    /// Those that the environment tells of.
    pub fn from_environment() -> io::Result<Self> {
        let mut inherited = Self::default();
        let mut descriptors = ListenFd::from_env();
        for index in 0..descriptors.len() {
            let socket = match descriptors.take_tcp_listener(index) {
                Ok(listener) => listener.map(Socket::from),
                // What is no such socket may be the other kind.
                Err(_) => descriptors.take_udp_socket(index)?.map(Socket::from),
            };
            if let Some(socket) = socket {
                inherited.add(socket)?;
            }
        }
        Ok(inherited)
    }

    /// A second one at the same place would be served by nobody.
    fn add(&mut self, socket: Socket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let kind = socket.r#type()?;
        if self.position(address, kind).is_some() {
            let problem = format!("two of them have the address {address}");
            return Err(io::Error::other(problem));
        }
        self.sockets.push((address, kind, socket));
        Ok(())
    }

    /// Where they are bound.
    pub fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for (address, kind, _) in &self.sockets {
            let has_udp = *kind == Type::DGRAM;
            let same = places.iter_mut().find(|place| place.address == *address);
            match same {
                Some(place) if has_udp => place.has_udp = true,
                Some(place) => place.has_tcp = true,
                None => places.push(Place {
                    address: *address,
                    has_udp,
                    has_tcp: !has_udp,
                }),
            }
        }
        places
    }

    /// Takes the one of this kind that is bound there, if there is one.
    pub(super) fn take(&mut self, address: SocketAddr, kind: Type) -> Option<Socket> {
        let position = self.position(address, kind)?;
        Some(self.sockets.swap_remove(position).2)
    }

    fn position(&self, address: SocketAddr, kind: Type) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        sockets.position(|(own, own_kind, _)| (*own, *own_kind) == (address, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use socket2::Domain;

    fn bound_to(address: SocketAddr, kind: Type) -> Socket {
        let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket
    }

    #[test]
    fn second_socket_of_a_kind_at_one_place_is_an_error() {
        let mut inherited = Inherited::default();
        let first = bound_to("127.0.0.1:0".parse().unwrap(), Type::DGRAM);
        let address = first.local_addr().unwrap().as_socket().unwrap();
        inherited.add(first).unwrap();
        inherited.add(bound_to(address, Type::STREAM)).unwrap();
        let error = inherited.add(bound_to(address, Type::DGRAM)).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(inherited.places().len(), 1);
    }
}
