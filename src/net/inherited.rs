//! Sockets inherited from a service manager: systemd or another program with its protocol
//! (`sd_listen_fds(3)`).

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use listenfd::ListenFd;
use socket2::{Protocol, Socket, Type};

use crate::config::InheritedSocket;

/// The inherited sockets that are not in use yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, Type, Socket)>,
}

impl Inherited {
    /// Returns the sockets that the environment announces. `variable` returns a variable of the
    /// environment. An invalid number of sockets is ignored with a warning.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let mut inherited = Self::default();
        if let Some(count) = invalid_count(variable) {
            let count = count.display();
            log::warn!(
                "LISTEN_FDS: {count:?}: expected the number of sockets, at most {}: no inherited \
                 socket is used",
                u16::MAX
            );
            return Ok(inherited);
        }
        let mut descriptors = ListenFd::from_env();
        for index in 0..descriptors.len() {
            let socket = if let Ok(listener) = descriptors.take_tcp_listener(index) {
                listener.map(Socket::from)
            } else if let Ok(socket) = descriptors.take_udp_socket(index) {
                socket.map(Socket::from)
            } else {
                let number = descriptors.take_raw_fd(index)?.unwrap_or_default();
                let problem = if is_open(number) {
                    "neither a TCP nor a UDP socket"
                } else {
                    "not open"
                };
                return Err(unusable(number, problem));
            };
            if let Some(socket) = socket {
                inherited.add(socket)?;
            }
        }
        Ok(inherited)
    }

    /// Adds a socket. A second socket with the same address and kind is an error, because it would
    /// not be served.
    fn add(&mut self, socket: Socket) -> io::Result<()> {
        let kind = socket.r#type()?;
        if let Some(problem) = problem(&socket, kind)? {
            return Err(unusable(socket.as_raw_fd(), problem));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        if self.position(address, kind).is_some() {
            let problem = format!("two sockets have the address {address}");
            return Err(io::Error::other(problem));
        }
        self.sockets.push((address, kind, socket));
        Ok(())
    }

    /// Returns the addresses of the sockets.
    pub fn sockets(&self) -> Vec<InheritedSocket> {
        let mut sockets: Vec<InheritedSocket> = Vec::new();
        for (address, kind, _) in &self.sockets {
            let has_udp = *kind == Type::DGRAM;
            let same = sockets.iter_mut().find(|socket| socket.address == *address);
            match same {
                Some(socket) if has_udp => socket.has_udp = true,
                Some(socket) => socket.has_tcp = true,
                None => sockets.push(InheritedSocket {
                    address: *address,
                    has_udp,
                    has_tcp: !has_udp,
                }),
            }
        }
        sockets
    }

    /// Removes and returns the socket of this kind at `address`, if there is one.
    pub(super) fn take(&mut self, address: SocketAddr, kind: Type) -> Option<Socket> {
        let position = self.position(address, kind)?;
        Some(self.sockets.swap_remove(position).2)
    }

    fn position(&self, address: SocketAddr, kind: Type) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        sockets.position(|(own, own_kind, _)| (*own, *own_kind) == (address, kind))
    }
}

/// Returns the value of `LISTEN_FDS` if it is for this process and is no number of sockets.
fn invalid_count(variable: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    let count = variable("LISTEN_FDS").filter(|count| !count.is_empty())?;
    let number = |text: &OsString| text.to_str()?.parse::<u32>().ok();
    let pid = variable("LISTEN_PID").filter(|pid| !pid.is_empty());
    let is_ours = pid.is_none_or(|pid| number(&pid) == Some(std::process::id()));
    let is_valid = number(&count).is_some_and(|count| count <= u16::MAX.into());
    (is_ours && !is_valid).then_some(count)
}

/// Returns whether a descriptor is open, or cannot be looked up.
fn is_open(number: RawFd) -> bool {
    let is_link = |number: RawFd| Path::new(&format!("/proc/self/fd/{number}")).is_symlink();
    // Without /proc, no descriptor has a link there, not even standard error.
    is_link(number) || !is_link(2)
}

/// Returns why a socket cannot serve clients, if it cannot.
fn problem(socket: &Socket, kind: Type) -> io::Result<Option<&'static str>> {
    let is_bound = || -> io::Result<bool> {
        let address = socket.local_addr()?.as_socket();
        Ok(address.is_some_and(|address| address.port() != 0))
    };
    let is_connected = || socket.peer_addr().is_ok();
    let of_tcp = [Some(Protocol::TCP), Some(Protocol::MPTCP)];
    Ok(match (kind, socket.protocol()?) {
        (Type::STREAM, protocol) if of_tcp.contains(&protocol) => {
            if is_connected() {
                Some("a TCP connection (systemd: Accept=no)")
            } else if !socket.is_listener()? {
                Some("a TCP socket that does not listen")
            } else {
                None
            }
        }
        (Type::DGRAM, Some(Protocol::UDP)) => {
            if is_connected() {
                Some("a UDP socket that is connected to one client")
            } else if !is_bound()? {
                Some("a UDP socket that is not bound to a port")
            } else {
                None
            }
        }
        _ => Some("neither a TCP nor a UDP socket"),
    })
}

fn unusable(number: RawFd, problem: &str) -> io::Error {
    io::Error::other(format!(
        "descriptor {number} is {problem}; expected a TCP socket that listens (systemd: \
         ListenStream=) or a UDP socket that is bound and not connected (ListenDatagram=)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use socket2::Domain;

    fn open(kind: Type) -> Socket {
        let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
    }

    fn bound_to(address: SocketAddr, kind: Type) -> io::Result<Socket> {
        let socket = open(kind);
        socket.bind(&address.into())?;
        if kind == Type::STREAM {
            socket.listen(1)?;
        }
        Ok(socket)
    }

    fn bound(kind: Type) -> Socket {
        bound_to("127.0.0.1:0".parse().unwrap(), kind).unwrap()
    }

    fn address_of(socket: &Socket) -> SocketAddr {
        socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// Opens a UDP and a TCP socket with the same address. A port that is free for UDP may be in
    /// use for TCP by another test.
    fn bound_together() -> [Socket; 2] {
        loop {
            let udp = bound(Type::DGRAM);
            if let Ok(tcp) = bound_to(address_of(&udp), Type::STREAM) {
                return [udp, tcp];
            }
        }
    }

    #[test]
    fn second_socket_of_a_kind_and_address_is_an_error() {
        let mut inherited = Inherited::default();
        let [udp, tcp] = bound_together();
        let address = address_of(&udp);
        inherited.add(udp).unwrap();
        inherited.add(tcp).unwrap();
        let second = bound_to(address, Type::DGRAM).unwrap();
        let error = inherited.add(second).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(inherited.sockets().len(), 1);
    }

    #[test]
    fn socket_that_cannot_serve_clients_is_an_error() {
        let listener = bound(Type::STREAM);
        let to_listener = |kind| {
            let socket = open(kind);
            socket.connect(&address_of(&listener).into()).unwrap();
            socket
        };
        let bound_only = open(Type::STREAM);
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        bound_only.bind(&anywhere.into()).unwrap();
        let local = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        for (socket, problem) in [
            (open(Type::STREAM), "a TCP socket that does not listen"),
            (bound_only, "a TCP socket that does not listen"),
            (to_listener(Type::STREAM), "a TCP connection"),
            (
                open(Type::DGRAM),
                "a UDP socket that is not bound to a port",
            ),
            (
                to_listener(Type::DGRAM),
                "a UDP socket that is connected to one client",
            ),
            (local, "neither a TCP nor a UDP socket"),
        ] {
            let number = socket.as_raw_fd();
            let error = Inherited::default().add(socket).unwrap_err().to_string();
            let start = format!("descriptor {number} is {problem}");
            assert!(error.starts_with(&start), "{error}");
            for option in ["(systemd: ListenStream=)", "(ListenDatagram=)"] {
                assert!(error.contains(option), "{error}");
            }
        }
        Inherited::default().add(listener).unwrap();
        Inherited::default().add(bound(Type::DGRAM)).unwrap();
    }
}
