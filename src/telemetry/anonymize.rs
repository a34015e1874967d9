//! Anonymization of client addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::ClientDetail;

/// Returns a client's address with the configured detail.
pub fn shown(ip: IpAddr, detail: ClientDetail) -> Option<impl fmt::Display> {
    match (detail, ip.to_canonical()) {
        (ClientDetail::None, _) => None,
        (ClientDetail::Full, ip) => Some(Shown { ip, len: None }),
        (ClientDetail::Subnet, IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            let ip = IpAddr::from([a, b, c, 0]);
            Some(Shown { ip, len: Some(24) })
        }
        (ClientDetail::Subnet, IpAddr::V6(ip)) => {
            let bits = ip.to_bits() >> 72 << 72;
            let ip = IpAddr::from(Ipv6Addr::from_bits(bits));
            Some(Shown { ip, len: Some(56) })
        }
    }
}

/// An address, or its network.
struct Shown {
    ip: IpAddr,
    len: Option<u8>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len {
            Some(len) => write!(f, "{}/{len}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_address_has_the_configured_detail() {
        let shown = |ip: &str, detail| {
            let shown = shown(ip.parse().unwrap(), detail);
            shown.map(|shown| shown.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(shown("192.0.2.7", ClientDetail::Full), some("192.0.2.7"));
        assert_eq!(
            shown("::ffff:192.0.2.7", ClientDetail::Subnet),
            some("192.0.2.0/24")
        );
        assert_eq!(
            shown("2001:db8:1:2ff::1", ClientDetail::Subnet),
            some("2001:db8:1:200::/56")
        );
        assert_eq!(shown("192.0.2.7", ClientDetail::None), None);
    }
}
