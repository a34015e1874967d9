//! What is logged, and where.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::parse_number;

/// Where and how a line is written for each query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLogSettings {
    /// Where it is written.
    pub target: LogTarget,
    /// It is written for one query of so many.
    pub sample: u32,
    /// What it says of clients.
    pub clients: ClientDetail,
}

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// An object of JSON each.
    Json,
}

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Who reads dnstap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnstapTarget {
    /// Whoever listens on the local socket with this path.
    Local(PathBuf),
    /// Whoever listens there.
    Tcp(SocketAddr),
}

impl FromStr for DnstapTarget {
    /// What was expected instead.
    type Err = &'static str;

    /// Reads `unix:PATH` or `tcp:ADDRESS:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a socket like unix:/run/dnstap.sock or tcp:127.0.0.1:6000";
        match text.split_once(':').ok_or(EXPECTED)? {
            ("unix", path) if !path.is_empty() => Ok(Self::Local(path.into())),
            ("tcp", address) => address.parse().map(Self::Tcp).map_err(|_| EXPECTED),
            _ => Err(EXPECTED),
        }
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

/// Who is told of traces, and of which queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Who is told.
    pub collector: Collector,
    /// How many queries are followed.
    pub share: Share,
    /// What is said of clients.
    pub clients: ClientDetail,
}

/// Who takes traces as OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path that traces are posted to.
    pub path: String,
}

impl FromStr for Collector {
    /// What was expected instead.
    type Err = &'static str;

    /// Reads `http://ADDRESS:PORT`, with what is in front of `/v1/traces` there if something is
    /// (OTLP specification, "OTLP/HTTP Request").
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "the address of a collector, like http://127.0.0.1:4318";
        let rest = text.strip_prefix("http://").ok_or(EXPECTED)?;
        let (address, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_visible = |octet: u8| octet.is_ascii_graphic() && !b"?#".contains(&octet);
        if !base.bytes().all(is_visible) {
            return Err(EXPECTED);
        }
        Ok(Self {
            address: address.parse().map_err(|_| EXPECTED)?,
            path: format!("{}/v1/traces", base.trim_end_matches('/')),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// A share of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    billionths: u64,
}

impl Share {
    /// One in a hundred.
    pub const PERCENT: Self = Self {
        billionths: 10_000_000,
    };

    /// Whether somebody who has drawn this number, each as likely as the others, belongs to it.
    pub fn has(self, drawn: u32) -> bool {
        u128::from(drawn) * 1_000_000_000 < u128::from(self.billionths) << 32
    }
}

impl FromStr for Share {
    /// What was expected instead.
    type Err = &'static str;

    /// Reads a number from 0 to 1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        // What stands behind the ninth digit is next to nothing.
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

/// What is told of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientDetail {
    /// Its address.
    Full,
    /// The network that it is in: the first 24 bits of an IPv4 address, 56 of an IPv6 address.
    #[default]
    Subnet,
    /// Nothing.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collector_has_a_path_for_traces() {
        let shown = |text: &str| {
            let collector: Result<Collector, _> = text.parse();
            collector.ok().map(|collector| collector.to_string())
        };
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            (
                "http://10.0.0.1:80/otlp/",
                "http://10.0.0.1:80/otlp/v1/traces",
            ),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected));
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
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn share_is_of_all_that_can_be_drawn() {
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
