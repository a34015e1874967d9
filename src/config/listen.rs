//! The listeners for plain DNS: addresses, or sockets that the process was started with.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The listeners for plain DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All addresses: IPv4 and, if the host has it, IPv6.
    Everywhere {
        /// UDP and TCP port.
        port: u16,
    },
    /// The given addresses.
    Addresses(Vec<SocketAddr>),
    /// Sockets that the process was started with.
    Inherited(Vec<InheritedSocket>),
}

/// The address of inherited sockets and their types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedSocket {
    /// The address.
    pub address: SocketAddr,
    /// True if a UDP socket is bound.
    pub has_udp: bool,
    /// True if a TCP socket is bound.
    pub has_tcp: bool,
}

impl Listen {
    /// Returns the addresses to bind.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Everywhere { port } => Self::everywhere(*port).into(),
            Self::Addresses(addresses) => addresses.clone(),
            Self::Inherited(sockets) => sockets.iter().map(|socket| socket.address).collect(),
        }
    }

    /// Returns the addresses and the types of the sockets that are bound there.
    pub fn sockets(&self) -> Vec<InheritedSocket> {
        if let Self::Inherited(sockets) = self {
            return sockets.clone();
        }
        let both = |address| InheritedSocket {
            address,
            has_udp: true,
            has_tcp: true,
        };
        self.addresses().into_iter().map(both).collect()
    }

    /// Returns whether inherited sockets serve all these addresses. The wildcard address of IPv6
    /// may serve IPv4 as well.
    pub(super) fn is_served_by(&self, sockets: &[InheritedSocket]) -> bool {
        let serves = |own: &SocketAddr, address: &SocketAddr| {
            let is_dual_stack = own.ip().is_unspecified() && own.is_ipv6();
            Self::covers(own, address) || is_dual_stack && own.port() == address.port()
        };
        let is_served = |address| sockets.iter().any(|own| serves(&own.address, address));
        match self {
            // The sockets decide which addresses have this port.
            Self::Everywhere { port } => sockets.iter().any(|own| own.address.port() == *port),
            _ => self.addresses().iter().all(is_served),
        }
    }

    /// Returns the wildcard addresses of both families.
    pub fn everywhere(port: u16) -> [SocketAddr; 2] {
        [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ]
    }

    /// Returns whether `address` is equal to `other` or is a wildcard address that covers it.
    pub fn covers(address: &SocketAddr, other: &SocketAddr) -> bool {
        let is_everywhere = address.ip().is_unspecified() && address.is_ipv4() == other.is_ipv4();
        address == other || is_everywhere && address.port() == other.port()
    }

    /// Returns an address that cannot be bound because another one is equal or a wildcard that
    /// covers it.
    pub fn covered_twice(addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let others = |index: usize| {
            let others = addresses.iter().enumerate();
            others.filter(move |(other, _)| *other != index)
        };
        let is_covered = |(index, address): &(usize, &SocketAddr)| {
            others(*index).any(|(_, other)| Self::covers(other, address))
        };
        let mut placed = addresses.iter().enumerate();
        placed.find(is_covered).map(|(_, address)| *address)
    }

    /// Returns whether a message sent to `address` on this host reaches one of these listening
    /// addresses. A wildcard address is reached by the addresses of this host, which `is_own`
    /// tells.
    pub fn reaches(
        addresses: &[SocketAddr],
        address: &SocketAddr,
        is_own: impl Fn(&SocketAddr) -> bool,
    ) -> bool {
        let ip = address.ip().to_canonical();
        let mut canonical = *address;
        if address.ip() != ip {
            canonical.set_ip(ip);
        }
        addresses.iter().any(|own| {
            let own_ip = own.ip().to_canonical();
            // A wildcard address does not cover the other address family.
            let is_same_family = own_ip.is_ipv4() == ip.is_ipv4();
            let is_everywhere = is_same_family && own_ip.is_unspecified();
            own.port() == address.port() && (own_ip == ip || is_everywhere && is_own(&canonical))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_that_overlap_are_found() {
        let covered = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|a| a.parse().unwrap());
            let addresses: Vec<SocketAddr> = addresses.collect();
            Listen::covered_twice(&addresses).map(|address| address.to_string())
        };
        let some = |address: &str| Some(address.to_owned());
        assert_eq!(covered(&["127.0.0.1:53", "127.0.0.1:54", "[::]:53"]), None);
        assert_eq!(covered(&["[::1]:53", "[::1]:53"]), some("[::1]:53"));
        assert_eq!(
            covered(&["0.0.0.0:53", "127.0.0.1:53"]),
            some("127.0.0.1:53")
        );
        assert_eq!(covered(&["[fe80::1%1]:53", "[fe80::1%2]:53"]), None);
        let twice = ["[fe80::1%2]:53", "[fe80::1%2]:53"];
        assert_eq!(covered(&twice), some(twice[0]));
        let everywhere = Listen::Everywhere { port: 53 }.addresses();
        assert_eq!(Listen::covered_twice(&everywhere), None);
    }
}
