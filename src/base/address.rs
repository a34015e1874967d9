//! IP addresses with the zone that link-local addresses require, in text and for the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};

/// An IP address and its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The IP address.
    pub ip: IpAddr,
    /// The index of the interface of a link-local address, otherwise zero (RFC 4007, section 6).
    pub zone: u32,
}

impl Address {
    /// The expected form of an address that [lacks its zone](Self::lacks_zone).
    pub const WITH_ZONE: &str = "a link-local address with its interface, like fe80::1%eth0";

    /// The expected form of an address that [has an unknown zone](has_unknown_zone).
    pub const WITH_KNOWN_ZONE: &str = "an existing interface after % (`ip link` lists them)";

    /// The expected form of a port that [is invalid](has_invalid_port).
    pub const WITH_PORT: &str = "a port from 1 to 65535 after the address";

    /// Returns the address `ip` of a datagram that was received on `interface`.
    pub fn on_interface(ip: Ipv6Addr, interface: u32) -> Self {
        let zone = if ip.is_unicast_link_local() {
            interface
        } else {
            0
        };
        Self {
            ip: ip.into(),
            zone,
        }
    }

    /// Returns whether the address is link-local and has no zone.
    pub fn lacks_zone(&self) -> bool {
        matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) && self.zone == 0
    }

    /// Returns whether packets to this address reach many hosts: multicast, or the broadcast
    /// address (RFC 919, section 7).
    pub fn is_of_many_hosts(&self) -> bool {
        match self.ip.to_canonical() {
            IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_multicast(),
        }
    }

    /// Returns whether this can be the address of one host.
    pub fn is_of_one_host(&self) -> bool {
        !self.is_of_many_hosts() && !self.ip.to_canonical().is_unspecified()
    }

    /// Returns this address with a port.
    pub fn with_port(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.zone).into(),
        }
    }
}

impl<A: Into<IpAddr>> From<A> for Address {
    fn from(ip: A) -> Self {
        Self {
            ip: ip.into(),
            zone: 0,
        }
    }
}

/// Parses `ADDRESS`, `ADDRESS:PORT` or `ADDRESS@PORT`. An IPv6 address before `:PORT` is in
/// brackets. It can have a zone, the name or number of an interface (`fe80::1%eth0`).
pub fn parse_endpoint(text: &str) -> Option<(Address, Option<u16>)> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']')?;
            let port = match behind {
                "" => None,
                _ => Some(behind.strip_prefix([':', '@'])?),
            };
            (parse_ipv6(address)?, port)
        }
        None => match text.split_once('@') {
            Some((address, port)) => (parse_ip(address)?, Some(port)),
            None => match text.split_once(':') {
                Some((address, port)) if !port.contains(':') => (parse_ip(address)?, Some(port)),
                _ => (parse_ip(text)?, None),
            },
        },
    };
    let port = match port {
        Some(port) => Some(parse_port(port)?),
        None => None,
    };
    Some((address, port))
}

/// Returns whether an endpoint is invalid because its port is no number from 1 to 65535.
pub fn has_invalid_port(text: &str) -> bool {
    let Some((address, port)) = text.rsplit_once([':', '@']) else {
        return false;
    };
    // An IPv6 address has a port only after brackets or `@`.
    let is_at = text[address.len()..].starts_with('@');
    let has_port = is_at || !address.contains(':') || address.ends_with(']');
    has_port && parse_endpoint(address).is_some() && parse_port(port).is_none()
}

/// Returns whether an endpoint is invalid because no interface has the name after `%`.
pub fn has_unknown_zone(text: &str) -> bool {
    let text = text.strip_prefix('[').unwrap_or(text);
    let Some((ip, rest)) = text.split_once('%') else {
        return false;
    };
    let zone = rest.split([']', '@', ':']).next().unwrap_or_default();
    ip.parse::<Ipv6Addr>().is_ok() && parse_ipv6(&format!("{ip}%{zone}")).is_none()
}

/// Returns whether this is the broadcast address of a network of this host.
pub fn is_broadcast_here(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip.to_canonical() else {
        return false;
    };
    let mut interfaces = getifaddrs().into_iter().flatten();
    interfaces.any(|interface| {
        let broadcast = interface.broadcast;
        let broadcast = broadcast.and_then(|address| Some(address.as_sockaddr_in()?.ip()));
        let own = interface.address;
        let own = own.and_then(|address| Some(address.as_sockaddr_in()?.ip()));
        // An address without a network, as on a tunnel, may be its own broadcast address.
        broadcast == Some(ip) && own != Some(ip)
    })
}

/// Returns whether this is an address of this host: the kernel then sends from the same address.
/// Nothing is sent. In contrast to the list of interfaces, this works within the sandbox, and,
/// unlike an attempt to bind the address, it is correct where `ip_nonlocal_bind` is set.
pub fn is_of_this_host(address: &SocketAddr) -> bool {
    let own = || {
        let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, None).ok()?;
        socket.connect(&(*address).into()).ok()?;
        socket.local_addr().ok()?.as_socket()
    };
    address.ip().is_loopback() || own().is_some_and(|own| own.ip() == address.ip())
}

/// Parses a port from 1 to 65535.
pub fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

fn parse_ip(text: &str) -> Option<Address> {
    match text.parse::<Ipv4Addr>() {
        Ok(ip) => Some(ip.into()),
        Err(_) => parse_ipv6(text),
    }
}

fn parse_ipv6(text: &str) -> Option<Address> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => {
            let number = zone.parse().ok();
            (ip, number.or_else(|| if_nametoindex(zone).ok())?)
        }
        None => (text, 0),
    };
    let ip = IpAddr::V6(ip.parse().ok()?);
    Some(Address { ip, zone })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Option<u16>)> {
        let (address, port) = parse_endpoint(text)?;
        Some((address.with_port(1).to_string(), port))
    }

    #[test]
    fn endpoints_are_parsed_with_and_without_a_port() {
        let is = |address: &str, port| Some((address.to_owned(), port));
        assert_eq!(read("192.0.2.1"), is("192.0.2.1:1", None));
        assert_eq!(read("192.0.2.1:53"), is("192.0.2.1:1", Some(53)));
        assert_eq!(read("192.0.2.1@53"), is("192.0.2.1:1", Some(53)));
        assert_eq!(read("::1"), is("[::1]:1", None));
        assert_eq!(read("[::1]"), is("[::1]:1", None));
        assert_eq!(read("[::1]:53"), is("[::1]:1", Some(53)));
        assert_eq!(read("[fe80::1%2]@53"), is("[fe80::1%2]:1", Some(53)));
    }

    #[test]
    fn zone_is_for_link_local_addresses() {
        let zone = |ip: &str| Address::on_interface(ip.parse().unwrap(), 7).zone;
        assert_eq!(zone("fe80::1"), 7);
        assert_eq!(zone("2001:db8::1"), 0);
        assert_eq!(zone("fd00::1"), 0);
    }
}
