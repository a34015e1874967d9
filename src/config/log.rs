//! Settings of logs, dnstap and traces.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::parse_number;
use crate::base::address::{self, Address, parse_endpoint};

/// Settings of the query log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLogSettings {
    /// The destination.
    pub target: LogTarget,
    /// The sampling interval: one of `sample` queries is logged.
    pub sample: u32,
    /// The detail of client addresses.
    pub clients: ClientDetail,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// The destination of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file that lines are appended to.
    File(PathBuf),
}

/// The reader of dnstap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnstapTarget {
    /// The reader that listens on the Unix socket at this path.
    Local(PathBuf),
    /// The reader that listens on this TCP address.
    Tcp(SocketAddr),
}

impl FromStr for DnstapTarget {
    /// Description of the expected value.
    type Err = &'static str;

    /// Parses `unix:PATH` or `tcp:ADDRESS:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a socket like unix:/run/dnstap.sock or tcp:127.0.0.1:6000";
        match text.split_once(':').ok_or(EXPECTED)? {
            ("unix", path) if !path.is_empty() => Ok(Self::Local(path.into())),
            ("tcp", address) => parse_destination(address, EXPECTED).map(Self::Tcp),
            _ => Err(EXPECTED),
        }
    }
}

/// Parses `ADDRESS:PORT`, the address of one host, or returns a description of the expected value.
fn parse_destination(text: &str, expected: &'static str) -> Result<SocketAddr, &'static str> {
    match parse_endpoint(text) {
        _ if text.contains('@') => Err(expected),
        Some((address, _)) if !address.is_of_one_host() => Err("a unicast address"),
        Some((address, _)) if address.lacks_zone() => Err(Address::WITH_ZONE),
        Some((address, Some(port))) => Ok(address.with_port(port)),
        None if address::has_unknown_zone(text) => Err(Address::WITH_KNOWN_ZONE),
        _ => Err(expected),
    }
}

impl fmt::Display for DnstapTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Settings of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// The receiver of traces.
    pub collector: Collector,
    /// The share of queries that are traced.
    pub share: Share,
    /// The detail of client addresses.
    pub clients: ClientDetail,
    /// Attributes of the process.
    pub resource: ResourceSettings,
}

/// Attributes of the process in traces, from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSettings {
    /// Pairs of key and value.
    pub attributes: Vec<(String, String)>,
}

impl ResourceSettings {
    /// Reads `OTEL_RESOURCE_ATTRIBUTES` (`key=value`, separated by commas, with values in percent
    /// encoding) and `OTEL_SERVICE_NAME`, which has precedence for `service.name`. Returns the
    /// expected form if the former is invalid.
    pub fn parse(
        attributes: Option<&str>,
        service_name: Option<&str>,
    ) -> Result<Self, &'static str> {
        const EXPECTED: &str = "key=value, separated by commas, values in percent encoding";
        let mut all = Vec::new();
        let pairs = attributes.unwrap_or_default().split(',').map(str::trim);
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or(EXPECTED)?;
            let value = decoded(value.trim()).ok_or(EXPECTED)?;
            if key.trim().is_empty() {
                return Err(EXPECTED);
            }
            all.push((key.trim().to_owned(), value));
        }
        if let Some(name) = service_name.filter(|name| !name.is_empty()) {
            all.retain(|(key, _)| key != "service.name");
            all.push(("service.name".to_owned(), name.to_owned()));
        }
        Ok(Self { attributes: all })
    }
}

/// Returns a text whose percent encoding is decoded, or `None` if it is invalid.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend(parts.next()?.bytes());
    for part in parts {
        let digits = part.get(..2)?;
        let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        bytes.push(
            u8::from_str_radix(digits, 16)
                .ok()
                .filter(|_| is_hexadecimal)?,
        );
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).ok()
}

/// A collector that takes traces as OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// The address of the collector.
    pub address: SocketAddr,
    /// The path that traces are posted to.
    pub path: String,
}

impl FromStr for Collector {
    /// Description of the expected value.
    type Err = &'static str;

    /// Parses `http://ADDRESS:PORT`, optionally followed by a path, with or without `/v1/traces` at
    /// its end (OTLP specification, "OTLP/HTTP Request").
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "http://, an IP address and a port (not https, no host name), \
                                like http://127.0.0.1:4318";
        const TRACES: &str = "/v1/traces";
        let rest = text.strip_prefix("http://").ok_or(EXPECTED)?;
        let (address, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_visible = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !base.bytes().all(is_visible) {
            return Err(EXPECTED);
        }
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix(TRACES).unwrap_or(base);
        Ok(Self {
            address: parse_destination(address, EXPECTED)?,
            path: format!("{base}{TRACES}"),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// A sampling ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    billionths: u64,
}

impl Share {
    /// A ratio of 1 %.
    pub const PERCENT: Self = Self {
        billionths: 10_000_000,
    };

    /// Returns whether the uniformly drawn number `drawn` is in the sample.
    pub fn has(self, drawn: u32) -> bool {
        u128::from(drawn) * 1_000_000_000 < u128::from(self.billionths) << 32
    }
}

impl FromStr for Share {
    /// Description of the expected value.
    type Err = &'static str;

    /// Parses a number from 0 to 1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        // Digits after the ninth are negligible.
        let digits = fraction.get(..9).unwrap_or(fraction);
        let fraction = parse_number::<u64>(&format!("{digits:0<9}"));
        let billionths = match (whole, fraction) {
            ("0", Some(fraction)) => Some(fraction),
            ("", Some(fraction)) if !digits.is_empty() => Some(fraction),
            ("1", Some(0)) => Some(1_000_000_000),
            _ => None,
        };
        let billionths = billionths.ok_or("a number from 0 to 1, like 0.01")?;
        Ok(Self { billionths })
    }
}

/// The detail of client addresses in logs and traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientDetail {
    /// The full address.
    Full,
    /// The subnet: the first 24 bits of an IPv4 address, 56 bits of an IPv6 address.
    #[default]
    Subnet,
    /// No address.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_attributes_are_parsed_and_decoded() {
        let pairs = |settings: ResourceSettings| settings.attributes;
        let of = |attributes, name| ResourceSettings::parse(attributes, name).map(pairs);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(of(None, None), Ok(vec![]));
        assert_eq!(of(Some(""), Some("")), Ok(vec![]));
        assert_eq!(
            of(Some(" a = 1 ,b=x%2Cy%3d%C3%BC,,"), None),
            Ok(vec![pair("a", "1"), pair("b", "x,y=\u{fc}")])
        );
        assert_eq!(
            of(Some("service.name=x,a=1"), Some("dns")),
            Ok(vec![pair("a", "1"), pair("service.name", "dns")])
        );
        for wrong in ["a", "=1", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", "a=1,b"] {
            assert!(of(Some(wrong), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn collector_has_a_path_for_traces() {
        let printed = |text: &str| {
            let collector: Result<Collector, _> = text.parse();
            collector.ok().map(|collector| collector.to_string())
        };
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
            (
                "http://10.0.0.1:80/otlp/v1/traces/",
                "http://10.0.0.1:80/otlp/v1/traces",
            ),
            (
                "http://10.0.0.1:80/otlp/",
                "http://10.0.0.1:80/otlp/v1/traces",
            ),
        ] {
            assert_eq!(printed(text).as_deref(), Some(expected));
        }
        for text in [
            "https://127.0.0.1:4318",
            "127.0.0.1:4318",
            "http://collector:4318",
            "http://127.0.0.1",
            "http://127.0.0.1:4318/a b",
            "http://127.0.0.1:4318/a?b",
            "http://127.0.0.1:4318/\r\n",
        ] {
            assert_eq!(printed(text), None, "{text}");
        }
    }

    #[test]
    fn share_covers_the_range_of_drawn_numbers() {
        let share = |text: &str| text.parse::<Share>();
        for text in ["0.01", ".01", "0.0100000000001"] {
            assert_eq!(share(text), Ok(Share::PERCENT), "{text}");
        }
        let (all, none, half) = (share("1"), share("0"), share("0.5"));
        assert!(all.is_ok_and(|all| all.has(u32::MAX)));
        assert!(none.is_ok_and(|none| !none.has(0)));
        assert!(half.is_ok_and(|half| half.has((1 << 31) - 1) && !half.has(1 << 31)));
        for text in [
            "", ".", "-0.1", "1.1", "2", "nan", "1%", "0.1e1", "0.+1", "0. 1",
        ] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
