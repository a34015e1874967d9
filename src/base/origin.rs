//! The origin of a query, which is the destination of its response.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

use super::address::Address;
use super::arena::Key;

/// The return path to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The session that received the query.
    pub session: Key,
    /// The client's address.
    pub peer: SocketAddr,
    /// The local address that received the query, if the session serves more than one.
    pub local: Option<Address>,
}

/// The protocol of a client that sends DNS queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientProtocol {
    /// Plain UDP.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS over TCP (RFC 7858).
    Tls,
    /// HTTP/2 over TLS (RFC 8484).
    Https,
}

impl ClientProtocol {
    /// All protocols in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https];

    /// Returns the name for counters and records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
        }
    }

    /// Returns whether messages travel under TLS.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// A subscriber, the unit of limits per client: an IPv4 address, or the first 56 bits of an IPv6
/// address, which is the typical prefix of a subscriber of an access network (RIPE-690).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(NonZeroU64);

impl Subscriber {
    const IS_V4: u64 = 1 << 63;
    const IS_V6: u64 = 1 << 62;

    /// Returns the subscriber with this address.
    pub fn of(ip: IpAddr) -> Self {
        let bits = match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()) | Self::IS_V4,
            IpAddr::V6(ip) => {
                let prefix = u64::try_from(ip.to_bits() >> 72).expect("56 bits fit a u64");
                prefix | Self::IS_V6
            }
        };
        Self(NonZeroU64::new(bits).expect("one of the two upper bits is set"))
    }
}
