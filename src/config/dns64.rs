//! The prefix of DNS64 (`--dns64`): IPv4 addresses as IPv6 addresses (RFC 6052).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv6 prefix in which IPv4 addresses are embedded (RFC 6052, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns64Prefix {
    octets: [u8; 16],
    /// The number of octets in the prefix.
    len: usize,
}

/// The well-known prefix `64:ff9b::/96` (RFC 6052, section 2.1).
const WELL_KNOWN: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// The octet that is zero in every address (RFC 6052, section 2.2).
const ZERO_OCTET: usize = 8;

const EXPECTED: &str = "an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, like 64:ff9b::/96";

impl Dns64Prefix {
    /// Returns the IPv6 address for an IPv4 address. `None` if the prefix is the well-known one and
    /// the IPv4 address is not global (RFC 6052, section 3.1).
    pub fn embed(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        if Ipv6Addr::from(self.octets) == WELL_KNOWN && !is_global(address) {
            return None;
        }
        Some(self.embed_any(address))
    }

    /// Returns the IPv6 address for an IPv4 address, which may be one of a private network.
    pub fn embed_any(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.octets;
        for (place, octet) in self.places().zip(address.octets()) {
            octets[place] = octet;
        }
        octets.into()
    }

    /// Returns the IPv4 address in an IPv6 address with this prefix.
    pub fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let mut embedded = [0; 4];
        for (octet, place) in embedded.iter_mut().zip(self.places()) {
            *octet = octets[place];
        }
        let embedded = Ipv4Addr::from(embedded);
        // The octets behind the IPv4 address are zero.
        (self.embed_any(embedded) == address).then_some(embedded)
    }

    /// Returns the places of the octets of an IPv4 address.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        (self.len..16).filter(|place| *place != ZERO_OCTET).take(4)
    }
}

impl FromStr for Dns64Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').ok_or(EXPECTED)?;
        let address: Ipv6Addr = address.parse().map_err(|_| EXPECTED)?;
        let len = match bits {
            "32" | "40" | "48" | "56" | "64" | "96" => {
                bits.parse::<usize>().map_err(|_| EXPECTED)?
            }
            _ => return Err(EXPECTED),
        } / 8;
        let octets = address.octets();
        if octets[len..].iter().any(|octet| *octet != 0) {
            return Err("a prefix without bits behind its length");
        }
        if octets[ZERO_OCTET] != 0 {
            return Err("a prefix whose bits 64 to 71 are zero (RFC 6052)");
        }
        Ok(Self { octets, len })
    }
}

impl fmt::Display for Dns64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from(self.octets), self.len * 8)
    }
}

/// Returns whether an IPv4 address belongs to one host of the Internet.
fn is_global(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    let is_protocol = (first, second, third) == (192, 0, 0);
    let is_benchmark = first == 198 && second & 0xfe == 18;
    !(first == 0
        || first >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_benchmark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Dns64Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_embedded_as_in_the_examples_of_rfc_6052() {
        let address: Ipv4Addr = "192.0.2.33".parse().unwrap();
        for (text, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
        ] {
            let embedded = prefix(text).embed(address).unwrap();
            assert_eq!(embedded, expected.parse::<Ipv6Addr>().unwrap(), "{text}");
            assert_eq!(prefix(text).extract(embedded), Some(address), "{text}");
            assert_eq!(prefix(text).to_string(), text);
        }
    }

    #[test]
    fn other_addresses_are_not_extracted() {
        for (text, address) in [
            ("64:ff9b::/96", "64:ff9c::1.2.3.4"),
            ("2001:db8::/32", "2001:db8:c000:221:1::"),
            ("2001:db8::/32", "2001:db8:c000:221::1"),
        ] {
            assert_eq!(prefix(text).extract(address.parse().unwrap()), None);
        }
    }

    #[test]
    fn well_known_prefix_has_only_global_addresses() {
        let embed = |text: &str, address: &str| {
            let embedded = prefix(text).embed(address.parse().unwrap());
            embedded.map(|address| address.to_string())
        };
        assert_eq!(
            embed("64:ff9b::/96", "1.1.1.1").as_deref(),
            Some("64:ff9b::101:101")
        );
        for address in [
            "10.0.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "255.255.255.255",
        ] {
            assert_eq!(embed("64:ff9b::/96", address), None, "{address}");
            assert!(embed("64:ff9b:1::/96", address).is_some(), "{address}");
        }
    }

    #[test]
    fn other_prefixes_are_errors() {
        for text in [
            "",
            "64:ff9b::",
            "64:ff9b::/95",
            "64:ff9b::/128",
            "64:ff9b::1/96",
            "10.0.0.0/8",
            "2001:db8:1::/32",
            "2001:db8:0:0:100::/96",
            "64:ff9b::/+96",
            "x/96",
        ] {
            assert!(text.parse::<Dns64Prefix>().is_err(), "{text}");
        }
    }
}
