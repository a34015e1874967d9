//! What is logged, and where.

use std::fmt;
use std::path::PathBuf;

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
