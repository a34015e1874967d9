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
                socket.set_nonblocking(true)?;
                let address = socket.local_addr()?.as_socket();
                let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
                inherited.sockets.push((address, socket.r#type()?, socket));
            }
        }
        Ok(inherited)
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
        let mut sockets = self.sockets.iter();
        let place = sockets.position(|(own, own_kind, _)| (*own, *own_kind) == (address, kind))?;
        Some(self.sockets.swap_remove(place).2)
    }
}
