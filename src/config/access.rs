//! The access control list (ACL) of clients, and their rate limits.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::parse_number;

/// A network: the addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    family: AddressFamily,
    /// Length of the prefix in bits.
    len: u8,
    /// The prefix, left-aligned and padded with zeros.
    bits: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AddressFamily {
    V4,
    V6,
}

/// Returns the family of an address and its bits, left-aligned. An IPv4-mapped IPv6 address counts
/// as IPv4 (RFC 4291, section 2.5.5.2).
fn bits(ip: IpAddr) -> (AddressFamily, u128) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (AddressFamily::V4, u128::from(ip.to_bits()) << 96),
        IpAddr::V6(ip) => (AddressFamily::V6, ip.to_bits()),
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(len))
        .unwrap_or_default()
}

impl Network {
    const fn v4(ip: [u8; 4], len: u8) -> Self {
        Self {
            family: AddressFamily::V4,
            len,
            bits: (u32::from_be_bytes(ip) as u128) << 96,
        }
    }

    const fn v6(start: u16, len: u8) -> Self {
        Self {
            family: AddressFamily::V6,
            len,
            bits: (start as u128) << 112,
        }
    }
}

impl Network {
    /// Returns whether the network is not private and larger than the network of any one operator:
    /// a /8 of IPv4 and a /16 of IPv6 are the largest that registries have assigned.
    pub fn is_much_of_the_internet(&self) -> bool {
        let len_min = match self.family {
            AddressFamily::V4 => 8,
            AddressFamily::V6 => 16,
        };
        let is_within = |outer: &Self| {
            let is_longer = outer.family == self.family && outer.len <= self.len;
            is_longer && self.bits & mask(outer.len) == outer.bits
        };
        self.len < len_min && !NEIGHBOURS.iter().any(is_within)
    }
}

impl FromStr for Network {
    type Err = &'static str;

    /// Parses `ADDRESS/LENGTH` (RFC 4632, section 3.1; RFC 4291, section 2.3) or an address.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "a network like 192.168.0.0/16 or fd00::/8, or an address";
        let (ip, len) = match text.split_once('/') {
            Some((ip, len)) => (ip, Some(parse_number(len).ok_or(EXPECTED)?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| EXPECTED)?;
        let (family, bits) = bits(ip);
        // The 96 bits before an IPv4-mapped address are not part of the prefix.
        let (len_min, len_max) = match (ip, family) {
            (IpAddr::V4(_), _) => (0, 32),
            (IpAddr::V6(_), AddressFamily::V4) => (96, 128),
            (IpAddr::V6(_), AddressFamily::V6) => (0, 128),
        };
        let len = len.unwrap_or(len_max);
        if !(len_min..=len_max).contains(&len) {
            return Err("a prefix length from 0 to 32 (IPv6: 0 to 128)");
        }
        let len = len - len_min;
        if bits & !mask(len) != 0 {
            return Err("a network whose host bits are zero, like 192.168.0.0/16, or an address");
        }
        Ok(Self { family, len, bits })
    }
}

/// The access rules: the longest matching prefix decides. An address without a match is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Verdicts by length of the prefix, the longest first.
    by_len: Vec<Verdicts>,
}

/// The verdicts on networks of one length, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdicts {
    family: AddressFamily,
    mask: u128,
    by_bits: Vec<(u128, bool)>,
}

/// The networks of this host and its neighbours: loopback, private use (RFC 1918), link-local (RFC
/// 3927, RFC 4291), shared address space (RFC 6598), unique local (RFC 4193).
pub const NEIGHBOURS: &[Network] = &[
    Network::v4([127, 0, 0, 0], 8),
    Network::v4([10, 0, 0, 0], 8),
    Network::v4([172, 16, 0, 0], 12),
    Network::v4([192, 168, 0, 0], 16),
    Network::v4([169, 254, 0, 0], 16),
    Network::v4([100, 64, 0, 0], 10),
    Network {
        family: AddressFamily::V6,
        len: 128,
        bits: Ipv6Addr::LOCALHOST.to_bits(),
    },
    Network::v6(0xfe80, 10),
    Network::v6(0xfc00, 7),
];

impl Access {
    /// Creates rules that allow `allowed`, or the [neighbours](NEIGHBOURS) if it is empty, and deny
    /// `denied`. A network in both is denied.
    pub fn new(allowed: &[Network], denied: &[Network]) -> Self {
        let allowed = if allowed.is_empty() {
            NEIGHBOURS
        } else {
            allowed
        };
        let denied = denied.iter().map(|network| (*network, false));
        let allowed = allowed.iter().map(|network| (*network, true));
        let mut verdicts: Vec<(Network, bool)> = denied.chain(allowed).collect();
        // A network that is both denied and allowed is denied.
        verdicts.sort_unstable();
        verdicts.dedup_by_key(|(network, _)| *network);
        let mut by_len: Vec<Verdicts> = verdicts
            .chunk_by(|(one, _), (other, _)| (one.family, one.len) == (other.family, other.len))
            .map(|alike| Verdicts {
                family: alike[0].0.family,
                mask: mask(alike[0].0.len),
                by_bits: alike
                    .iter()
                    .map(|(network, verdict)| (network.bits, *verdict))
                    .collect(),
            })
            .collect();
        by_len.reverse();
        Self { by_len }
    }

    /// Returns whether a client with this address may send queries.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let (family, bits) = bits(ip);
        let mut verdicts = self.by_len.iter().filter(|alike| alike.family == family);
        let verdict = verdicts.find_map(|alike| {
            let bits = bits & alike.mask;
            let index = alike.by_bits.binary_search_by_key(&bits, |(bits, _)| *bits);
            Some(alike.by_bits[index.ok()?].1)
        });
        verdict.unwrap_or(false)
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::new(&[], &[])
    }
}

/// The rate limit of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Sustained queries per second, not zero.
    pub per_second: u32,
    /// Maximum burst of queries, not zero.
    pub burst: u32,
}

impl FromStr for RateLimit {
    type Err = &'static str;

    /// Parses `QPS` or `QPS/BURST`. The default burst is the number of queries per second.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let number = |text| parse_number(text).filter(|number| (1..=1_000_000).contains(number));
        let (rate, burst) = text.split_once('/').unwrap_or((text, text));
        match (number(rate), number(burst)) {
            (Some(per_second), Some(burst)) => Ok(Self { per_second, burst }),
            _ => Err("queries per second from 1 to 1000000, and optionally a burst, like 100/500"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &str) -> Vec<Network> {
        let texts = texts.split_whitespace();
        texts.map(|text| text.parse().expect(text)).collect()
    }

    fn allowed<'a>(access: &Access, ips: &'a str) -> Vec<&'a str> {
        let ips = ips.split_whitespace();
        ips.filter(|ip| access.allows(ip.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_neighbours_are_allowed_by_default() {
        let access = Access::default();
        let neighbours = "127.0.0.1 127.255.255.255 10.0.0.1 172.16.0.1 172.31.255.255 192.168.7.7 \
                          169.254.1.1 100.64.0.1 100.127.255.255 ::1 fe80::1 febf::1 fc00::1 \
                          fdff:ffff::1 ::ffff:10.1.2.3";
        assert_eq!(allowed(&access, neighbours).join(" "), neighbours);
        let strangers = "126.255.255.255 128.0.0.0 9.9.9.9 11.0.0.0 172.15.255.255 172.32.0.0 \
                         192.167.255.255 192.169.0.0 100.63.255.255 100.128.0.0 0.0.0.0 \
                         255.255.255.255 :: ::2 fec0::1 fbff::1 fe00::1 2001:db8::1 ::ffff:9.9.9.9";
        assert!(allowed(&access, strangers).is_empty());
    }

    #[test]
    fn longest_prefix_decides_and_denial_wins_a_tie() {
        let access = Access::new(
            &networks("10.0.0.0/8 10.1.2.0/24 203.0.113.7 2001:db8::/32 10.9.0.0/16"),
            &networks("10.1.0.0/16 2001:db8:1::/48 10.9.0.0/16"),
        );
        let ips = "10.0.0.1 10.1.0.1 10.1.2.3 10.1.3.1 203.0.113.7 203.0.113.8 2001:db8::1 \
                   2001:db8:1::1 10.9.1.1 127.0.0.1 ::1";
        let expected = ["10.0.0.1", "10.1.2.3", "203.0.113.7", "2001:db8::1"];
        assert_eq!(allowed(&access, ips), expected);
        let access = Access::new(&[], &networks("127.0.0.9"));
        assert_eq!(
            allowed(&access, "127.0.0.9 127.0.0.8 ::ffff:127.0.0.9"),
            ["127.0.0.8"]
        );
    }

    #[test]
    fn network_of_length_zero_holds_a_whole_family() {
        let ips = "9.9.9.9 ::ffff:9.9.9.9 2001:db8::1 ::1";
        let v4 = Access::new(&networks("0.0.0.0/0"), &[]);
        assert_eq!(allowed(&v4, ips), ["9.9.9.9", "::ffff:9.9.9.9"]);
        let mapped = Access::new(&networks("::ffff:0:0/96"), &[]);
        assert_eq!(mapped, v4);
        let v6 = Access::new(&networks("::/0"), &[]);
        assert_eq!(allowed(&v6, ips), ["2001:db8::1", "::1"]);
    }

    #[test]
    fn default_burst_is_the_rate_per_second() {
        let rate = |text: &str| text.parse::<RateLimit>().ok();
        let is = |per_second, burst| Some(RateLimit { per_second, burst });
        assert_eq!(rate("100"), is(100, 100));
        assert_eq!(rate("1/1000000"), is(1, 1_000_000));
        for text in [
            "", "0", "/", "5/", "/5", "5/0", "1000001", "+5", "1/2/3", "x",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn networks_are_parsed_strictly() {
        let wrong = "/ 10 10.0.0.0/ 10.0.0.0/33 10.0.0.0/+8 10.0.0.0/8/8 10.0.0.0/256 10.0.0.1/8 \
                     ::/129 fe80::1/64 fe80::1%1 ::ffff:10.0.0.0/95 ::ffff:10.0.0.0/8 host";
        for text in wrong.split_whitespace().chain([""]) {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!(networks("::ffff:10.0.0.0/104"), networks("10.0.0.0/8"));
        assert_eq!(networks("::1"), networks("::1/128"));
    }
}
