//! Bytes of DNS messages, and nothing else: no socket, no clock, no decision.
//!
//! Reading does not copy, and allocates for no ordinary message: [`Message::parse`] walks the
//! records of a message once, follows every name to its end, and remembers where things stand.
//! Writing appends to a buffer that the caller owns. Whatever the bytes are, reading ends in a
//! value or in [`Malformed`], never in a panic.
//!
//! - [`header`]: the twelve octets that every message starts with
//! - [`name`], [`question`], [`record`]: what follows them
//! - `data`: the form that the data of records has, type by type
//! - [`edns`]: the OPT record and its options
//! - [`message`]: a whole message, checked
//! - [`query`]: the query that goes upstream for a client's
//! - [`response`]: the response that a client gets
//! - [`frame`]: messages on a stream
//! - [`octets`]: few of them, copied and compared
//! - [`steps`]: a counter for tests that bound the cost of walks

#![forbid(unsafe_code)]

mod data;
pub mod edns;
pub mod frame;
pub mod header;
pub mod message;
pub mod name;
mod names;
pub mod octets;
pub mod query;
pub mod question;
pub mod record;
pub mod response;
pub mod steps;

pub use edns::Opt;
pub use header::{Flags, Header, Opcode, Rcode};
pub use message::Message;
pub use query::Query;
pub use question::Question;

use std::fmt;

/// Octets in the largest message: the length field of a stream has 16 bits (RFC 1035, section
/// 4.2.2).
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// The bytes do not form what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed DNS message")
    }
}

impl std::error::Error for Malformed {}

/// The 16-bit number at `at`, in network order.
fn read_u16(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let pair = bytes.get(at..).and_then(|rest| rest.first_chunk());
    pair.map(|pair| u16::from_be_bytes(*pair)).ok_or(Malformed)
}

/// Appends a 16-bit number in network order: octet by octet, which for so few costs less than a
/// copy.
fn push_u16(out: &mut Vec<u8>, number: u16) {
    let [high, low] = number.to_be_bytes();
    out.push(high);
    out.push(low);
}
