//! Where a query came from, which is where its response goes.

use std::net::{IpAddr, SocketAddr};

use super::address::Address;
use super::arena::Key;

/// The way back to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The session that the query came through.
    pub session: Key,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client asked, where the session serves more than one.
    pub local: Option<Address>,
}

/// Who counts as one where what each may have is limited: the address of IPv4, or the first 56 bits
/// of that of IPv6, which is what a subscriber of an access network has (RIPE-690).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(u64);

impl Subscriber {
    const IS_V4: u64 = 1 << 63;

    /// The subscriber with this address.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()) | Self::IS_V4,
            IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 72).expect("it is 56 bits"),
        })
    }
}
