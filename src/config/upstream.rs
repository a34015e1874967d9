//! An upstream as it is written: `[SCHEME://]HOST[:PORT][#NAME][,key=value]...`

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::address;
use crate::wire::name::Name;

/// The port of DNS over TLS (RFC 7858, section 3.1).
const TLS_PORT: u16 = 853;

/// The port of DNS in the clear (RFC 1035, section 4.2).
pub const PLAIN_PORT: u16 = 53;

/// A resolver that queries are carried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is.
    pub host: Host,
    /// The name that its certificate must carry, if that is not what `host` says.
    pub name: Option<String>,
    /// It is asked for names at and below these alone. Without any, for all that no other upstream
    /// has to itself.
    pub domains: Vec<Name>,
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Under TLS (RFC 7858).
    Tls,
    /// On a connection in the clear.
    Tcp,
    /// In datagrams, and on a connection in the clear where an answer does not fit one.
    Udp,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Tls => TLS_PORT,
            Self::Tcp | Self::Udp => PLAIN_PORT,
        }
    }
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// At this address.
    Address(SocketAddr),
    /// At the addresses that this name has.
    Name(Name, u16),
}

impl Upstream {
    /// A server that is asked in the clear, and only for the addresses of upstreams.
    pub fn bootstrap(address: SocketAddr) -> Self {
        Self {
            scheme: Scheme::Udp,
            host: Host::Address(address),
            name: None,
            domains: Vec::new(),
        }
    }
}

impl fmt::Display for Upstream {
    /// The upstream without its settings, in the shortest spelling that says all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Tls => {}
            Scheme::Tcp => f.write_str("tcp://")?,
            Scheme::Udp => f.write_str("udp://")?,
        }
        match &self.host {
            Host::Address(address) => write!(f, "{address}")?,
            Host::Name(name, port) => {
                let name = name.to_string();
                write!(f, "{}:{port}", name.trim_end_matches('.'))?;
            }
        }
        match &self.name {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Upstream {
    /// What was expected instead.
    type Err = &'static str;

    /// Reads an upstream; `@PORT` as unbound and systemd write it is as good as `:PORT`.
    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = match spec.split_once("://") {
            None => (Scheme::Tls, spec),
            Some(("tls", rest)) => (Scheme::Tls, rest),
            Some(("tcp", rest)) => (Scheme::Tcp, rest),
            Some(("udp", rest)) => (Scheme::Udp, rest),
            Some(_) => return Err("tls://, tcp:// or udp://, or no scheme, which is TLS"),
        };
        let mut parts = rest.split(',');
        let place = parts.next().unwrap_or_default();
        let domains = parts.map(parse_setting).collect::<Result<Vec<_>, _>>()?;
        let (place, name) = match place.split_once('#') {
            None => (place, None),
            Some(_) if scheme != Scheme::Tls => {
                return Err("no name behind #, which is that of a certificate, without TLS");
            }
            Some((place, name)) if is_host_name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                (place, Some(name.to_owned()))
            }
            Some(_) => return Err("a host name behind #, like 9.9.9.9#dns.quad9.net"),
        };
        if scheme != Scheme::Tls && domains.is_empty() {
            return Err(
                "domain= with udp:// and tcp://, which are clear text, like \
                        udp://10.0.0.53,domain=corp.example",
            );
        }
        Ok(Self {
            scheme,
            host: parse_host(place, scheme.default_port())?,
            name,
            domains,
        })
    }
}

fn parse_setting(setting: &str) -> Result<Name, &'static str> {
    let Some(("domain", domain)) = setting.split_once('=') else {
        return Err("no other setting than domain=, like 10.0.0.53,domain=corp.example");
    };
    let expected = "a domain behind domain=, like corp.example";
    domain.parse().map_err(|_| expected)
}

fn parse_host(place: &str, default_port: u16) -> Result<Host, &'static str> {
    if let Some((address, port)) = address::parse_endpoint(place) {
        if address.ip.is_unspecified() || address.ip.is_multicast() {
            return Err("the address of one host");
        }
        if address.lacks_zone() {
            return Err("a link-local address with its interface, like fe80::1%eth0");
        }
        let port = port.unwrap_or(default_port);
        return Ok(Host::Address(address.with_port(port)));
    }
    let expected = "an address or a host name, like 1.1.1.1, [2606:4700:4700::1111]:853 or \
                    tls://dns.quad9.net";
    let (name, port) = match place.split_once([':', '@']) {
        Some((name, port)) => (name, address::parse_port(port).ok_or(expected)?),
        None => (place, default_port),
    };
    if !is_host_name(name) || is_number(name) {
        return Err(expected);
    }
    Ok(Host::Name(name.parse().map_err(|_| expected)?, port))
}

fn is_host_name(text: &str) -> bool {
    text.parse::<Name>().is_ok()
}

/// Whether this was meant to be an IPv4 address: no top-level domain is a number (RFC 3696, section
/// 2).
fn is_number(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is understood, and its domains.
    fn read(spec: &str) -> Result<(String, String), &'static str> {
        let upstream: Upstream = spec.parse()?;
        let domains: Vec<_> = upstream.domains.iter().map(Name::to_string).collect();
        Ok((upstream.to_string(), domains.join(" ")))
    }

    #[test]
    fn every_spelling_is_understood() {
        let is = |spec: &str, understood: &str| {
            let read = read(spec).map(|(upstream, _)| upstream);
            assert_eq!(read.as_deref(), Ok(understood), "{spec}");
        };
        is("1.1.1.1", "1.1.1.1:853");
        is("1.1.1.1:8853", "1.1.1.1:8853");
        is("1.1.1.1@8853", "1.1.1.1:8853");
        is("tls://1.1.1.1", "1.1.1.1:853");
        let v6 = "[2606:4700:4700::1111]:853";
        is("2606:4700:4700::1111", v6);
        is("[2606:4700:4700::1111]", v6);
        is(v6, v6);
        is("2606:4700:4700::1111@853", v6);
        is("fe80::1%2", "[fe80::1%2]:853");
        is("fe80::1%lo", "[fe80::1%1]:853");
        is("1.1.1.1#a.b.", "1.1.1.1:853#a.b");
        let named = "1.1.1.1:853#cloudflare-dns.com";
        is("1.1.1.1#cloudflare-dns.com", named);
        is(named, named);
        is("1.1.1.1@853#cloudflare-dns.com", named);
        is("tls://[::1]:1#a.b", "[::1]:1#a.b");
        is("tls://dns.Quad9.net", "dns.quad9.net:853");
        is("dns.quad9.net", "dns.quad9.net:853");
        is("tls://dns.quad9.net.:8853", "dns.quad9.net:8853");
        is(
            "dns.quad9.net@8853#other.name",
            "dns.quad9.net:8853#other.name",
        );
    }

    #[test]
    fn clear_text_is_for_domains() {
        let both = |upstream: &str, domains: &str| Ok((upstream.to_owned(), domains.to_owned()));
        assert_eq!(
            read("udp://10.0.0.53,domain=Corp.example"),
            both("udp://10.0.0.53:53", "corp.example.")
        );
        assert_eq!(
            read("tcp://[fd00::53]:5353,domain=a.b,domain=c"),
            both("tcp://[fd00::53]:5353", "a.b. c.")
        );
        assert_eq!(
            read("udp://dns.corp.example,domain=corp.example"),
            both("udp://dns.corp.example:53", "corp.example.")
        );
        assert_eq!(
            read("10.0.0.53#dns.corp.example,domain=corp.example"),
            both("10.0.0.53:853#dns.corp.example", "corp.example.")
        );
        for spec in ["udp://10.0.0.53", "tcp://10.0.0.53", "udp://a.example"] {
            let expected = read(spec).unwrap_err();
            assert!(expected.starts_with("domain="), "{spec}: {expected}");
        }
        assert!(read("udp://10.0.0.53#name,domain=a").is_err());
    }

    #[test]
    fn what_is_no_upstream_is_refused() {
        for spec in [
            "",
            "#name",
            "1.1.1",
            "1.1.1.1.1",
            "1.1.1.1:",
            "1.1.1.1:0",
            "1.1.1.1:65536",
            "1.1.1.1:+53",
            "1.1.1.1#",
            "1.1.1.1#a..b",
            "1.1.1.1#a b",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[1.1.1.1]",
            "::1:853:",
            "https://1.1.1.1",
            "tls://",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "1.1.1.1:853:853",
            "fe80::1",
            "fe80::1%nosuch0",
            "dns.quad9.net:",
            "dns.quad9.net:0",
            "dns..net",
            "dns.quad9.net/dns-query",
            "1.1.1.1,pin-only",
            "1.1.1.1,domain",
            "1.1.1.1,domain=",
            "1.1.1.1,domain=.",
            "1.1.1.1,domain=a b",
            "1.1.1.1,",
        ] {
            assert!(read(spec).is_err(), "{spec}");
        }
    }
}
