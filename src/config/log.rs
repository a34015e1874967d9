//! What is logged, and where.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

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
