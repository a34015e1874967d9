//! Names and addresses of hosts files (`hosts(5)`), which are answered without an upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::wire::name::{Name, make_lowercase};

/// The names of all hosts files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Names with an address each, in the order of the names. Addresses of a name keep the order of
    /// the files.
    names: Vec<(Name, IpAddr)>,
    /// Addresses, each with its canonical name: the first one in the files.
    pointers: Vec<(IpAddr, Name)>,
}

/// A line of a hosts file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedLine {
    /// The number of the line, from 1.
    pub number: usize,
    /// The part that cannot be used.
    pub text: String,
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
    pub fn add(&mut self, text: &str) -> Result<Vec<UnusedLine>, TooManyNames> {
        let mut unused = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let content = line.split('#').next().unwrap_or_default();
            let mut fields = content.split_whitespace();
            let Some(first) = fields.next() else {
                continue;
            };
            let mut reject = |text: &str| {
                let text = text.chars().take(64).collect();
                unused.push(UnusedLine { number, text });
            };
            let Ok(address) = first.parse::<IpAddr>() else {
                reject(first);
                continue;
            };
            for field in fields {
                let Ok(name) = field.parse::<Name>() else {
                    reject(field);
                    continue;
                };
                if self.names.len() >= Self::NAMES_MAX {
                    return Err(TooManyNames);
                }
                self.names.push((name.clone(), address));
                self.pointers.push((address, name));
            }
        }
        // Both sorts are stable, so that the order of the files decides.
        self.names
            .sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
        self.remove_repeated();
        self.pointers.sort_by_key(|(address, _)| *address);
        self.pointers.dedup_by_key(|(address, _)| *address);
        Ok(unused)
    }

    /// Removes repeated addresses of a name, and those beyond [`Hosts::ADDRESSES_MAX`].
    fn remove_repeated(&mut self) {
        let mut kept: Vec<(Name, IpAddr)> = Vec::with_capacity(self.names.len());
        let mut first = 0;
        for (name, address) in self.names.drain(..) {
            if kept.get(first).is_none_or(|(current, _)| *current != name) {
                first = kept.len();
            }
            let of_name = &kept[first..];
            let is_known = of_name.iter().any(|(_, known)| *known == address);
            if !is_known && of_name.len() < Self::ADDRESSES_MAX {
                kept.push((name, address));
            }
        }
        self.names = kept;
    }

    /// Returns whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the number of bytes that the names take.
    pub fn bytes(&self) -> usize {
        /// Bytes that the allocator takes for each name.
        const ALLOCATION: usize = 24;
        let of_name =
            |name: &Name| name.as_bytes().len() + size_of::<(Name, IpAddr)>() + ALLOCATION;
        let names = self.names.iter().map(|(name, _)| of_name(name));
        let pointers = self.pointers.iter().map(|(_, name)| of_name(name));
        names.chain(pointers).sum()
    }

    /// Returns the addresses of a name, which is uncompressed, or `None` if no file has the name.
    pub fn addresses(&self, name: &[u8]) -> Option<impl Iterator<Item = IpAddr> + Clone> {
        let mut lower = name.to_vec();
        make_lowercase(&mut lower);
        let start = self
            .names
            .partition_point(|(one, _)| one.as_bytes() < &lower);
        let is_same = move |(one, _): &&(Name, IpAddr)| one.as_bytes() == lower;
        let mut of_name = self.names[start..].iter();
        of_name.clone().next().filter(&is_same)?;
        let len = of_name.position(|entry| !is_same(&entry));
        let end = len.map_or(self.names.len(), |len| start + len);
        Some(self.names[start..end].iter().map(|(_, address)| *address))
    }

    /// Returns the canonical name of an address.
    pub fn name_of(&self, address: IpAddr) -> Option<&Name> {
        let place = self
            .pointers
            .binary_search_by_key(&address, |(one, _)| *one);
        Some(&self.pointers[place.ok()?].1)
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
        assert_eq!(hosts.add(text), Ok(Vec::new()));
        hosts
    }

    fn addresses(hosts: &Hosts, name: &str) -> Option<Vec<String>> {
        let name: Name = name.parse().unwrap();
        let addresses = hosts.addresses(name.as_bytes())?;
        Some(addresses.map(|address| address.to_string()).collect())
    }

    #[test]
    fn names_have_the_addresses_of_all_lines_in_their_order() {
        let hosts = hosts(
            "# a comment\n\n\
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
    fn lines_that_cannot_be_used_are_returned() {
        let mut hosts = Hosts::default();
        let text = "192.0.2.300 a\nfe80::1%eth0 b\n192.0.2.1\n192.0.2.1 c bad..name d\nname";
        let unused = hosts.add(text).unwrap();
        let unused: Vec<_> = unused
            .iter()
            .map(|it| (it.number, it.text.as_str()))
            .collect();
        assert_eq!(
            unused,
            [
                (1, "192.0.2.300"),
                (2, "fe80::1%eth0"),
                (4, "bad..name"),
                (5, "name")
            ]
        );
        assert!(addresses(&hosts, "c").is_some() && addresses(&hosts, "d").is_some());
    }

    #[test]
    fn number_of_names_and_of_their_addresses_is_bounded() {
        let line = |nth: usize| format!("10.0.{}.{} n{nth}\n", nth / 256, nth % 256);
        let mut hosts = Hosts::default();
        let text: String = (0..Hosts::NAMES_MAX).map(line).collect();
        assert_eq!(hosts.add(&text), Ok(Vec::new()));
        assert!(hosts.bytes() < 200 * Hosts::NAMES_MAX);
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
