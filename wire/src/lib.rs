//! Bytes of DNS messages, and nothing else: no socket, no clock, no policy.
//!
//! Parsing does not copy, and does not allocate for ordinary messages: [`Message::parse`] walks the
//! records of a message once, follows every name to its end, and stores positions. Writing appends
//! to a buffer that the caller owns. For any input, parsing returns a value or [`Malformed`] and
//! never panics.
//!
//! - [`header`]: the twelve bytes at the start of every message
//! - [`name`], [`question`], [`record`]: the parts after the header
//! - `data`: the form of the data of records, by type
//! - [`edns`]: the OPT record and its options
//! - [`message`]: a whole message, checked
//! - [`query`]: the upstream query for a client's query
//! - [`response`]: the response to a client
//! - [`frame`]: messages on a stream
//! - [`canonical`]: the form of names and records over which DNSSEC signs
//! - [`without_proof`]: removal of the records that only DNSSEC needs
//! - [`byte_ops`]: copies and comparisons of short byte strings
//! - [`steps`]: a counter for tests that bound the cost of walks

#![forbid(unsafe_code)]

pub mod byte_ops;
pub mod canonical;
mod data;
pub mod edns;
pub mod frame;
pub mod header;
pub mod message;
pub mod name;
mod names;
pub mod query;
pub mod question;
pub mod record;
pub mod record_writer;
pub mod response;
pub mod steps;
pub mod without_proof;

pub use edns::Opt;
pub use header::{Flags, Header, Opcode, Rcode};
pub use message::Message;
pub use query::Query;
pub use question::Question;

use std::fmt;

/// Maximum length of a message in bytes: the length field of a stream has 16 bits (RFC 1035,
/// section 4.2.2).
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// The error for bytes that do not have the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed DNS message")
    }
}

impl std::error::Error for Malformed {}

/// Reads the 16-bit number at `at`, in network order.
fn read_u16(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let pair = bytes.get(at..).and_then(|rest| rest.first_chunk());
    pair.map(|pair| u16::from_be_bytes(*pair)).ok_or(Malformed)
}

/// Appends a 16-bit number in network order, byte by byte, which is faster than a copy here.
fn push_u16(out: &mut Vec<u8>, number: u16) {
    let [high, low] = number.to_be_bytes();
    out.push(high);
    out.push(low);
}
