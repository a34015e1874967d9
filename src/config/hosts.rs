//! Names and addresses of hosts files (`hosts(5)`), which are answered without an upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::wire::name::{Name, make_lowercase};

/// The names of all hosts files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The files.
    pub files: Vec<PathBuf>,
    /// In the order of the names, and then of the files.
    entries: Vec<HostEntry>,
}

/// A name with one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostEntry {
    name: Name,
    /// The place in the files.
    number: usize,
    address: IpAddr,
}

/// A line of a hosts file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedLine {
    /// The number of the line, from 1.
    pub number: usize,
    /// The part that cannot be used.
    pub text: String,
}

/// The lines of a hosts file that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnusedLines {
    /// The first one.
    pub first: Option<UnusedLine>,
    /// The number of parts that cannot be used.
    pub count: usize,
}

impl UnusedLines {
    /// Adds a part of the line with this number.
    pub fn add(&mut self, number: usize, text: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| UnusedLine {
            number,
            text: text.chars().take(64).collect(),
        });
    }
}

/// The files have more names than [`Hosts::NAMES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyNames;

impl Hosts {
    /// Maximum number of names of all files. A name with several addresses counts several times.
    pub const NAMES_MAX: usize = 10_000;

    /// Maximum number of addresses of a name: a response has room for them.
    pub const ADDRESSES_MAX: usize = 100;

    /// Adds the names of a file. Returns the lines that cannot be used.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyNames`] if the files have too many names.
    pub fn add(&mut self, text: &str) -> Result<UnusedLines, TooManyNames> {
        let mut unused = UnusedLines::default();
        // A byte order mark may begin a file in UTF-8.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, number) in text.lines().zip(1..) {
            let content = line.split('#').next().unwrap_or_default();
            let mut fields = content.split_whitespace();
            let Some(first) = fields.next() else {
                continue;
            };
            let Ok(address) = first.parse::<IpAddr>() else {
                unused.add(number, first);
                continue;
            };
            for field in fields {
                let Ok(name) = field.parse::<Name>() else {
                    unused.add(number, field);
                    continue;
                };
                let number = self.entries.len();
                if number >= Self::NAMES_MAX {
                    return Err(TooManyNames);
                }
                self.entries.push(HostEntry {
                    name,
                    number,
                    address,
                });
            }
        }
        self.entries.sort_unstable_by(|one, other| {
            let by_name = one.name.as_bytes().cmp(other.name.as_bytes());
            by_name.then(one.number.cmp(&other.number))
        });
        Ok(unused)
    }

    /// Returns whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of bytes that the names take.
    pub fn bytes(&self) -> usize {
        /// Bytes that the allocator takes for each name.
        const ALLOCATION: usize = 24;
        let names = self.entries.iter().map(|entry| &entry.name);
        names
            .map(|name| name.as_bytes().len() + size_of::<HostEntry>() + ALLOCATION)
            .sum()
    }

    /// Returns the addresses of a name, which is uncompressed, or `None` if no file has the name.
    /// A repeated address is returned once.
    pub fn addresses(&self, name: &[u8]) -> Option<Vec<IpAddr>> {
        let mut lower = name.to_vec();
        make_lowercase(&mut lower);
        let start = self
            .entries
            .partition_point(|entry| entry.name.as_bytes() < &lower);
        let of_name = self.entries[start..]
            .iter()
            .take_while(|entry| entry.name.as_bytes() == lower);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for HostEntry { address, .. } in of_name {
            if addresses.len() < Self::ADDRESSES_MAX && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        (!addresses.is_empty()).then_some(addresses)
    }

    /// Returns the canonical name of an address: the first one in the files.
    pub fn name_of(&self, address: IpAddr) -> Option<&Name> {
        let entries = self.entries.iter();
        let of_address = entries.filter(|entry| entry.address == address);
        let first = of_address.min_by_key(|entry| entry.number)?;
        Some(&first.name)
    }
}

/// Returns the address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035, section
/// 3.5; RFC 3596, section 2.5).
pub fn address_of_pointer(name: &[u8]) -> Option<IpAddr> {
    const IPV4: &[u8] = b"\x07in-addr\x04arpa\0";
    const IPV6: &[u8] = b"\x03ip6\x04arpa\0";
    let below = |zone: &[u8]| {
        let (labels, end) = name.split_at_checked(name.len().checked_sub(zone.len())?)?;
        end.eq_ignore_ascii_case(zone).then_some(labels)
    };
    if let Some(mut labels) = below(IPV4) {
        let mut octets = [0; 4];
        for octet in octets.iter_mut().rev() {
            let (len, rest) = labels.split_first()?;
            let (label, others) = rest.split_at_checked(usize::from(*len))?;
            let has_zero = label.len() > 1 && label.starts_with(b"0");
            let is_number = label.iter().all(u8::is_ascii_digit) && !has_zero;
            *octet = str::from_utf8(label)
                .ok()
                .filter(|_| is_number)?
                .parse()
                .ok()?;
            labels = others;
        }
        return labels.is_empty().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = below(IPV6)?;
    let mut bits: u128 = 0;
    let mut nibbles = labels.chunks_exact(2).rev();
    if labels.len() != 64 {
        return None;
    }
    nibbles.try_for_each(|label| {
        let [1, digit] = label else {
            return None;
        };
        let nibble = char::from(*digit).to_digit(16)?;
        bits = bits << 4 | u128::from(nibble);
        Some(())
    })?;
    Some(Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::suffixes;

    fn hosts(text: &str) -> Hosts {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.add(text), Ok(UnusedLines::default()));
        hosts
    }

    fn addresses(hosts: &Hosts, name: &str) -> Option<Vec<String>> {
        let name: Name = name.parse().unwrap();
        let addresses = hosts.addresses(name.as_bytes())?;
        Some(addresses.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn names_have_the_addresses_of_all_lines_in_their_order() {
        let hosts = hosts(
            "\u{feff}192.168.1.3 first.lan\n# a comment\n\n\
             192.168.1.1\trouter.lan router  # the gateway\n\
             fd00::1 router.lan.\r\n\
             192.168.1.2 NAS.lan\n\
             10.0.0.1 router.lan\n\
             192.168.1.1 router.lan\n",
        );
        let router = addresses(&hosts, "Router.LAN").unwrap();
        assert_eq!(router, ["192.168.1.1", "fd00::1", "10.0.0.1"]);
        assert_eq!(addresses(&hosts, "router").unwrap(), ["192.168.1.1"]);
        assert_eq!(addresses(&hosts, "nas.lan").unwrap(), ["192.168.1.2"]);
        assert_eq!(addresses(&hosts, "first.lan").unwrap(), ["192.168.1.3"]);
        for other in ["lan", "a.router.lan", "aaa", "zzz", "route"] {
            assert_eq!(addresses(&hosts, other), None, "{other}");
        }
    }

    #[test]
    fn address_has_its_first_name() {
        let mut hosts = hosts("192.0.2.1 first second\n192.0.2.1 third\n");
        hosts.add("192.0.2.1 fourth\n::1 loopback").unwrap();
        let name_of = |address: &str| {
            let name = hosts.name_of(address.parse().unwrap());
            name.map(ToString::to_string)
        };
        assert_eq!(name_of("192.0.2.1").as_deref(), Some("first."));
        assert_eq!(name_of("::1").as_deref(), Some("loopback."));
        assert_eq!(name_of("192.0.2.2"), None);
    }

    #[test]
    fn lines_that_cannot_be_used_are_counted() {
        let mut hosts = Hosts::default();
        let text = "192.0.2.300 a\nfe80::1%eth0 b\n192.0.2.1\n192.0.2.1 c bad..name d\nname";
        let unused = hosts.add(text).unwrap();
        let first = unused.first.unwrap();
        assert_eq!(
            (first.number, first.text.as_str(), unused.count),
            (1, "192.0.2.300", 4)
        );
        assert!(addresses(&hosts, "c").is_some() && addresses(&hosts, "d").is_some());
    }

    #[test]
    fn number_of_names_and_of_their_addresses_is_bounded() {
        let line = |nth: usize| format!("10.0.{}.{} n{nth}\n", nth / 256, nth % 256);
        let mut hosts = Hosts::default();
        let text: String = (0..Hosts::NAMES_MAX).map(line).collect();
        assert_eq!(hosts.add(&text), Ok(UnusedLines::default()));
        assert!(hosts.bytes() < 120 * Hosts::NAMES_MAX);
        assert_eq!(hosts.add("::1 one-more"), Err(TooManyNames));
        let mut hosts = Hosts::default();
        let line = |nth: usize| format!("10.0.{}.{} same\n", nth / 256, nth % 256);
        hosts
            .add(&(0..1_000).map(line).collect::<String>())
            .unwrap();
        assert_eq!(
            addresses(&hosts, "same").unwrap().len(),
            Hosts::ADDRESSES_MAX
        );
    }

    #[test]
    fn name_of_an_address_is_parsed() {
        let parse = |name: &str| {
            let name: Name = name.parse().unwrap();
            address_of_pointer(name.as_bytes()).map(|address| address.to_string())
        };
        assert_eq!(
            parse("2.1.168.192.IN-ADDR.arpa").as_deref(),
            Some("192.168.1.2")
        );
        for wrong in [
            "1.168.192.in-addr.arpa",
            "9.2.1.168.192.in-addr.arpa",
            "in-addr.arpa",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for wrong in [
            "02.1.168.192",
            "256.1.168.192",
            "-.1.168.192",
            "x.1.168.192",
        ] {
            assert_eq!(parse(&format!("{wrong}.in-addr.arpa")), None, "{wrong}");
        }
        let ipv6 = format!("f.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
        assert_eq!(parse(&ipv6).as_deref(), Some("2001:db8::f"));
        assert_eq!(parse(&ipv6.replace("f.0", "g.0")), None);
        assert_eq!(parse(&ipv6.replace("f.0", "ff.0")), None);
        let whole: Name = ipv6.parse().unwrap();
        let parents = suffixes(whole.as_bytes()).skip(1);
        assert!(
            parents
                .into_iter()
                .all(|name| address_of_pointer(name).is_none())
        );
    }
}
