//! The syntax of an upstream: `[SCHEME://]HOST[:PORT][/PATH][#NAME][,key=value]...`

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::pin::{PinRule, Pins};
use crate::base::address;
use crate::base::address::Address;
use crate::wire::name::Name;

/// The port of DNS over TLS (RFC 7858, section 3.1).
pub const TLS_PORT: u16 = 853;

/// The port of DNS over HTTPS (RFC 8484, section 8.1).
pub const HTTPS_PORT: u16 = 443;

/// The path of a DNS over HTTPS server if the URL has none, and of our own.
pub const DOH_PATH: &str = "/dns-query";

/// Maximum length of the path of a URL in bytes.
const PATH_LEN_MAX: usize = 255;

/// The port of plain DNS (RFC 1035, section 4.2).
pub const PLAIN_PORT: u16 = 53;

/// A resolver that queries are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The protocol.
    pub scheme: Scheme,
    /// The address or host name.
    pub host: Host,
    /// The path of the URL; empty unless the scheme is [`Scheme::Https`].
    pub path: String,
    /// The name in the server certificate if it differs from `host`.
    pub name: Option<String>,
    /// Domains that the upstream serves exclusively. An upstream without domains and files of
    /// domains serves all names that no other upstream serves exclusively.
    pub domains: Vec<Name>,
    /// Files with more of these domains.
    pub domains_files: Vec<PathBuf>,
    /// The pinned keys of the server certificate.
    pub pins: Pins,
    /// The client certificate for mutual TLS.
    pub identity: Option<Identity>,
    /// The answers for the domains of the upstream are validated, if DNSSEC validation is on.
    pub is_validated: bool,
    /// The upstream is queried only while no upstream of the same names without this setting is
    /// usable.
    pub is_fallback: bool,
}

/// The PEM files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The protocol to an upstream, as the scheme of its URL.
///
/// Clients have [`ClientProtocol`](crate::base::origin::ClientProtocol), which is a different set:
/// a client chooses its protocol, [`Scheme::Udp`] includes TCP after truncation, and either set can
/// grow alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484), over HTTP/2.
    Https,
    /// Plain DNS over TCP.
    Tcp,
    /// Plain DNS over UDP, and over TCP after truncation.
    Udp,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Tls => TLS_PORT,
            Self::Https => HTTPS_PORT,
            Self::Tcp | Self::Udp => PLAIN_PORT,
        }
    }

    /// Returns whether the protocol is encrypted and authenticates the upstream.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// The location of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A fixed address.
    Address(SocketAddr),
    /// A host name and a port.
    Name(Name, u16),
}

impl Upstream {
    /// Returns whether the upstream needs TLS settings of its own.
    pub fn has_own_terms(&self) -> bool {
        self.pins != Pins::default() || self.identity.is_some()
    }

    /// Returns the port of the upstream.
    pub fn port(&self) -> u16 {
        match &self.host {
            Host::Address(address) => address.port(),
            Host::Name(_, port) => *port,
        }
    }

    /// Returns a plain DNS server that is queried only for the addresses of upstreams.
    pub fn bootstrap(address: SocketAddr) -> Self {
        Self {
            scheme: Scheme::Udp,
            host: Host::Address(address),
            path: String::new(),
            name: None,
            domains: Vec::new(),
            domains_files: Vec::new(),
            pins: Pins::default(),
            identity: None,
            is_validated: false,
            is_fallback: false,
        }
    }

    /// Returns whether the upstream serves only the names at and below its domains.
    pub fn is_exclusive(&self) -> bool {
        !self.domains.is_empty() || !self.domains_files.is_empty()
    }

    /// Describes the queries that the upstream gets.
    pub fn queries(&self) -> String {
        let condition = if self.is_fallback {
            " while no other upstream is usable"
        } else {
            ""
        };
        format!("{}{condition}", self.names())
    }

    fn names(&self) -> String {
        if !self.is_exclusive() {
            return "any name".to_owned();
        }
        let domains = self.domains.iter().map(Name::to_string);
        let files = self.domains_files.iter();
        let files = files.map(|path| format!("the domains of {:?}", path.display()));
        let all: Vec<String> = domains.chain(files).collect();
        format!("names in {}", all.join(" and "))
    }
}

impl fmt::Display for Upstream {
    /// Writes the upstream without its settings, in the shortest unambiguous form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Tls => {}
            Scheme::Https => f.write_str("https://")?,
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
        if self.path != DOH_PATH {
            f.write_str(&self.path)?;
        }
        match &self.name {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Upstream {
    /// Description of the expected value.
    type Err = Cow<'static, str>;

    /// Parses an upstream. `@PORT`, as in unbound and systemd, is equivalent to `:PORT`.
    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = match spec.split_once("://") {
            None => (Scheme::Tls, spec),
            Some((scheme, rest)) => (parse_scheme(scheme)?, rest),
        };
        let mut parts = rest.split(',');
        let authority = parts.next().unwrap_or_default();
        let mut settings = Settings::default();
        parts.try_for_each(|setting| settings.take(setting))?;
        if !scheme.is_encrypted() && settings.is_about_tls() {
            let expected =
                "no pins and no certificates with udp:// and tcp://, which are not encrypted";
            return Err(expected.into());
        }
        let pins = settings.pins()?;
        let identity = settings.identity()?;
        let (domains, domains_files) = (settings.domains, settings.domains_files);
        let is_exclusive = !domains.is_empty() || !domains_files.is_empty();
        let (is_validated, is_fallback) = (settings.is_validated, settings.is_fallback);
        if is_validated && !is_exclusive {
            return Err(
                "domain= with dnssec: --dnssec already validates upstreams without domain=".into(),
            );
        }
        let (authority, path, name) = split_url(authority, scheme)?;
        let name = match name {
            None => None,
            Some(_) if !scheme.is_encrypted() => {
                return Err("no #NAME with udp:// and tcp://, which have no certificate".into());
            }
            Some(name) if is_host_name(name) => {
                Some(name.strip_suffix('.').unwrap_or(name).to_owned())
            }
            Some(name) if name.contains([':', '@']) => {
                return Err("the port before #, like 9.9.9.9:853#dns.quad9.net".into());
            }
            Some(_) => return Err("a host name after #, like 9.9.9.9#dns.quad9.net".into()),
        };
        if !scheme.is_encrypted() && !is_exclusive {
            let expected = "domain= with udp:// and tcp://, which are not encrypted, like \
                            udp://10.0.0.53,domain=corp.example";
            return Err(expected.into());
        }
        Ok(Self {
            scheme,
            host: parse_host(authority, scheme.default_port())?,
            path,
            name,
            domains,
            domains_files,
            pins,
            identity,
            is_validated,
            is_fallback,
        })
    }
}

/// Parses the scheme of a URL, in upper or lower case (RFC 3986, section 3.1).
fn parse_scheme(text: &str) -> Result<Scheme, Cow<'static, str>> {
    let expected = "tls://, https://, tcp:// or udp://, or no scheme, which means tls://";
    let protocol = match text.to_ascii_lowercase().as_str() {
        "tls" => return Ok(Scheme::Tls),
        "https" => return Ok(Scheme::Https),
        "tcp" => return Ok(Scheme::Tcp),
        "udp" => return Ok(Scheme::Udp),
        "http" => "DNS over HTTP without TLS",
        "h3" => "HTTP/3",
        "quic" | "doq" => "DNS over QUIC",
        _ => return Err(expected.into()),
    };
    Err(format!("{expected}; {protocol} is not supported").into())
}

/// Splits a URL without its scheme into the host with its port, the path and the name. The name is
/// behind the path, or before it.
fn split_url(url: &str, scheme: Scheme) -> Result<(&str, String, Option<&str>), Cow<'static, str>> {
    fn split_path(text: &str) -> Option<(&str, &str)> {
        text.find('/').map(|at| text.split_at(at))
    }
    let (before, name) = match url.split_once('#') {
        None => (url, None),
        Some((before, name)) => (before, Some(name)),
    };
    if scheme != Scheme::Https {
        return Ok((before, String::new(), name));
    }
    let (host, path, name) = match (split_path(before), name.and_then(split_path)) {
        (None, Some((name, path))) => (before, path, Some(name)),
        (Some((host, path)), _) => (host, path, name),
        (None, None) => (before, DOH_PATH, name),
    };
    // Providers publish URI templates (RFC 8484, section 4.1), in which the variable is for GET.
    let path = path.strip_suffix("{?dns}").unwrap_or(path);
    let is_valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'"' | b'<');
    if path.len() > PATH_LEN_MAX || !path.bytes().all(is_valid) {
        return Err(
            format!("a path of at most {PATH_LEN_MAX} ASCII characters, like {DOH_PATH}").into(),
        );
    }
    Ok((host, path.to_owned(), name))
}

/// The expected form of a path that starts with `~`.
pub const WITHOUT_TILDE: &str = "a path without ~, which is not expanded";

/// The comma-separated settings of an upstream.
#[derive(Default)]
struct Settings {
    domains: Vec<Name>,
    domains_files: Vec<PathBuf>,
    pins: Pins,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    is_validated: bool,
    is_fallback: bool,
}

impl Settings {
    fn take(&mut self, setting: &str) -> Result<(), Cow<'static, str>> {
        match setting.split_once('=').unwrap_or((setting, "")) {
            ("domain", domain) if domain.starts_with("*.") => {
                let domain = domain.trim_start_matches("*.");
                let expected =
                    format!("a domain without \"*.\", since {domain} includes all names below it");
                return Err(expected.into());
            }
            ("domain", domain) => {
                let expected = "a domain after domain=, like corp.example";
                self.domains.push(domain.parse().map_err(|_| expected)?);
            }
            ("pin-sha256", pin) => self.pins.pins.push(pin.parse()?),
            (key @ ("dnssec" | "fallback" | "pin-only" | "pin-report"), _) if setting != key => {
                return Err(format!("{key} without a value, not {setting:?}").into());
            }
            ("dnssec", _) => self.is_validated = true,
            ("fallback", _) => self.is_fallback = true,
            ("pin-only", _) => self.set_rule(PinRule::Instead)?,
            ("pin-report", _) => self.set_rule(PinRule::Report)?,
            ("client-cert" | "client-key" | "domains-file", path) if path.starts_with("~/") => {
                return Err(WITHOUT_TILDE.into());
            }
            ("domains-file", path) if !path.is_empty() => {
                let is_new = !self.domains_files.iter().any(|known| known == path);
                self.domains_files.extend(is_new.then(|| path.into()));
            }
            ("client-cert", path) if !path.is_empty() => self.certificate = Some(path.into()),
            ("client-key", path) if !path.is_empty() => self.key = Some(path.into()),
            ("client-cert" | "client-key" | "domains-file", _) => {
                return Err(format!("a file after {setting:?}").into());
            }
            _ if address::parse_endpoint(setting.trim()).is_some() => {
                return Err(
                    format!("one upstream: repeat the option for {:?}", setting.trim()).into(),
                );
            }
            (key, _) => {
                let expected = format!(
                    "one of the settings domain=, domains-file=, pin-sha256=, pin-only, \
                     pin-report, client-cert=, client-key=, dnssec and fallback after the comma, \
                     not {key:?}"
                );
                return Err(expected.into());
            }
        }
        Ok(())
    }

    fn set_rule(&mut self, rule: PinRule) -> Result<(), &'static str> {
        if ![PinRule::Besides, rule].contains(&self.pins.rule) {
            return Err("either pin-only or pin-report, not both");
        }
        self.pins.rule = rule;
        Ok(())
    }

    fn is_about_tls(&self) -> bool {
        self.pins != Pins::default() || self.certificate.is_some() || self.key.is_some()
    }

    fn pins(&mut self) -> Result<Pins, &'static str> {
        let pins = std::mem::take(&mut self.pins);
        if pins.pins.is_empty() && pins.rule != PinRule::Besides {
            return Err("pin-sha256= together with pin-only or pin-report");
        }
        Ok(pins)
    }

    fn identity(&mut self) -> Result<Option<Identity>, &'static str> {
        match (self.certificate.take(), self.key.take()) {
            (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
            (None, None) => Ok(None),
            _ => Err("both client-cert= and client-key="),
        }
    }
}

fn parse_host(authority: &str, default_port: u16) -> Result<Host, &'static str> {
    if let Some((address, port)) = address::parse_endpoint(authority) {
        if !address.is_of_one_host() {
            return Err("a unicast address");
        }
        if address.lacks_zone() {
            return Err(Address::WITH_ZONE);
        }
        let port = port.unwrap_or(default_port);
        return Ok(Host::Address(address.with_port(port)));
    }
    if address::has_unknown_zone(authority) {
        return Err(Address::WITH_KNOWN_ZONE);
    }
    if address::has_invalid_port(authority) {
        return Err(Address::WITH_PORT);
    }
    let expected = "an address or a host name, like 1.1.1.1, [2606:4700:4700::1111]:853 or \
                    tls://dns.quad9.net";
    let (name, port) = match authority.split_once([':', '@']) {
        Some((name, _)) if !is_host_name(name) => return Err(expected),
        Some((name, port)) => (name, address::parse_port(port).ok_or(Address::WITH_PORT)?),
        None => (authority, default_port),
    };
    if !is_host_name(name) || is_number(name) {
        return Err(expected);
    }
    Ok(Host::Name(name.parse().map_err(|_| expected)?, port))
}

/// Returns whether the text is a host name.
pub fn is_host_name(text: &str) -> bool {
    text.parse::<Name>().is_ok()
}

/// Returns whether the text is a name that a certificate can have: a host name, and no address.
pub fn is_certificate_name(text: &str) -> bool {
    is_host_name(text) && !is_number(text)
}

/// Returns whether `name` was meant as an IPv4 address: no top-level domain is numeric (RFC 3696,
/// section 2).
fn is_number(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the canonical form of an upstream, and its domains.
    fn read(spec: &str) -> Result<(String, String), Cow<'static, str>> {
        let upstream: Upstream = spec.parse()?;
        let domains: Vec<_> = upstream.domains.iter().map(Name::to_string).collect();
        Ok((upstream.to_string(), domains.join(" ")))
    }

    #[test]
    fn all_forms_of_an_upstream_are_parsed() {
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
        is("https://1.1.1.1", "https://1.1.1.1:443");
        is("https://1.1.1.1/dns-query", "https://1.1.1.1:443");
        is("https://1.1.1.1/dns-query{?dns}", "https://1.1.1.1:443");
        is("HTTPS://1.1.1.1:8443/", "https://1.1.1.1:8443/");
        is("https://[::1]/a/B?c=d", "https://[::1]:443/a/B?c=d");
        let named = "https://1.1.1.1:443/a#cloudflare-dns.com";
        is("https://1.1.1.1/a#cloudflare-dns.com", named);
        is("https://1.1.1.1#cloudflare-dns.com/a", named);
        is(
            "https://dns.Quad9.net/dns-query",
            "https://dns.quad9.net:443",
        );
        is("dns.quad9.net", "dns.quad9.net:853");
        is("tls://dns.quad9.net.:8853", "dns.quad9.net:8853");
        is(
            "dns.quad9.net@8853#other.name",
            "dns.quad9.net:8853#other.name",
        );
    }

    #[test]
    fn plain_upstream_requires_a_domain() {
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
    fn pins_are_parsed() {
        let pin = |byte| super::super::Pin([byte; 32]).to_string();
        let (one, other) = (pin(1), pin(2));
        let pins = |settings: &str| -> Result<Pins, Cow<'static, str>> {
            Ok(format!("1.1.1.1{settings}").parse::<Upstream>()?.pins)
        };
        let is = |settings: &str, count: usize, rule| {
            let pins = pins(settings).map(|pins| (pins.pins.len(), pins.rule));
            assert_eq!(pins, Ok((count, rule)), "{settings}");
        };
        is("", 0, PinRule::Besides);
        is(&format!(",pin-sha256={one}"), 1, PinRule::Besides);
        let both = format!(",pin-sha256={one},domain=a,pin-sha256={other}");
        is(&both, 2, PinRule::Besides);
        is(&format!("{both},pin-only"), 2, PinRule::Instead);
        is(&format!(",pin-report{both}"), 2, PinRule::Report);
        for settings in [
            ",pin-sha256=".to_owned(),
            ",pin-sha256".to_owned(),
            ",pin-only".to_owned(),
            ",pin-report".to_owned(),
            format!("{both},pin-only,pin-report"),
            format!("{both},pin-only=yes"),
            format!(",pin-sha1={one}"),
        ] {
            assert!(pins(&settings).is_err(), "{settings}");
        }
        assert!(read(&format!("udp://10.0.0.53,domain=a,pin-sha256={one}")).is_err());
    }

    #[test]
    fn client_certificate_requires_its_key() {
        let identity = |settings: &str| {
            let upstream: Upstream = format!("1.1.1.1{settings}").parse()?;
            Ok::<_, Cow<str>>(upstream.identity)
        };
        let both = identity(",client-cert=a/b.pem,client-key=c")
            .unwrap()
            .unwrap();
        assert_eq!(both.certificate, PathBuf::from("a/b.pem"));
        assert_eq!(both.key, PathBuf::from("c"));
        assert_eq!(identity(""), Ok(None));
        assert!(identity(",client-cert=a").is_err() && identity(",client-key=a").is_err());
        assert!(identity(",client-cert=,client-key=a").is_err());
        assert!(read("tcp://10.0.0.53,domain=a,client-cert=a,client-key=b").is_err());
    }

    #[test]
    fn invalid_upstream_is_refused() {
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
            "http://1.1.1.1",
            "https://",
            "https:///dns-query",
            "https://1.1.1.1/a b",
            "https://1.1.1.1/{x}",
            "https://1.1.1.1/dns-query#a#b",
            "https://1.1.1.1/\u{e9}",
            "tls://1.1.1.1/dns-query",
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
