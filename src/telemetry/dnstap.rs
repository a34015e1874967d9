//! The dnstap format (dnstap.info): one Protocol Buffers message for each DNS message, with the few
//! fields that are written here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::origin::ClientProtocol;
use crate::config::Scheme;

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A query from a client.
    ClientQuery = 5,
    /// A response to a client.
    ClientResponse = 6,
    /// A query to an upstream.
    ForwarderQuery = 7,
    /// A reply from an upstream.
    ForwarderResponse = 8,
}

impl MessageKind {
    fn is_query(self) -> bool {
        matches!(self, Self::ClientQuery | Self::ForwarderQuery)
    }

    fn is_of_client(self) -> bool {
        matches!(self, Self::ClientQuery | Self::ClientResponse)
    }
}

/// The transport protocol of a message, with the numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketProtocol {
    /// UDP.
    Udp = 1,
    /// TCP without TLS.
    Tcp = 2,
    /// TLS.
    Tls = 3,
    /// HTTPS.
    Https = 4,
}

impl From<ClientProtocol> for SocketProtocol {
    fn from(protocol: ClientProtocol) -> Self {
        match protocol {
            ClientProtocol::Udp => Self::Udp,
            ClientProtocol::Tcp => Self::Tcp,
            ClientProtocol::Tls => Self::Tls,
            ClientProtocol::Https => Self::Https,
        }
    }
}

impl From<Scheme> for SocketProtocol {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Udp => Self::Udp,
            Scheme::Tcp => Self::Tcp,
            Scheme::Tls => Self::Tls,
            Scheme::Https => Self::Https,
        }
    }
}

/// Wire types (Protocol Buffers, "Encoding").
const VARINT: u32 = 0;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// The fields of `Dnstap` that are written.
mod outer {
    pub(super) const VERSION: u32 = 2;
    pub(super) const MESSAGE: u32 = 14;
    pub(super) const TYPE: u32 = 15;
}

/// The fields of `Message` that are written.
mod inner {
    pub(super) const TYPE: u32 = 1;
    pub(super) const SOCKET_FAMILY: u32 = 2;
    pub(super) const SOCKET_PROTOCOL: u32 = 3;
    pub(super) const QUERY_ADDRESS: u32 = 4;
    pub(super) const RESPONSE_ADDRESS: u32 = 5;
    pub(super) const QUERY_PORT: u32 = 6;
    pub(super) const RESPONSE_PORT: u32 = 7;
    pub(super) const QUERY_SECONDS: u32 = 8;
    pub(super) const QUERY_NANOSECONDS: u32 = 9;
    pub(super) const QUERY_MESSAGE: u32 = 10;
    pub(super) const RESPONSE_SECONDS: u32 = 12;
    pub(super) const RESPONSE_NANOSECONDS: u32 = 13;
    pub(super) const RESPONSE_MESSAGE: u32 = 14;
}

/// Appends a message that was exchanged with `peer` at `time` since 1970.
pub fn write(
    out: &mut Vec<u8>,
    kind: MessageKind,
    protocol: SocketProtocol,
    peer: SocketAddr,
    time: Duration,
    message: &[u8],
) {
    let program = concat!("dotproxy ", env!("CARGO_PKG_VERSION"));
    bytes(out, outer::VERSION, program.as_bytes());
    // The only type is MESSAGE.
    number(out, outer::TYPE, 1);
    // The length prefix has a fixed width: a message has at most 64 KiB.
    key(out, outer::MESSAGE, BYTES);
    let start = out.len();
    out.extend_from_slice(&[0; LEN_LEN]);
    write_message(out, kind, protocol, peer, time, message);
    let len = out.len() - start - LEN_LEN;
    let len = u32::try_from(len).expect("messages are short");
    out[start..start + LEN_LEN].copy_from_slice(&padded_varint(len));
}

fn write_message(
    out: &mut Vec<u8>,
    kind: MessageKind,
    protocol: SocketProtocol,
    peer: SocketAddr,
    time: Duration,
    message: &[u8],
) {
    number(out, inner::TYPE, kind as u64);
    number(out, inner::SOCKET_PROTOCOL, protocol as u64);
    let (address, port) = if kind.is_of_client() {
        (inner::QUERY_ADDRESS, inner::QUERY_PORT)
    } else {
        (inner::RESPONSE_ADDRESS, inner::RESPONSE_PORT)
    };
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => {
            number(out, inner::SOCKET_FAMILY, 1);
            bytes(out, address, &ip.octets());
        }
        IpAddr::V6(ip) => {
            number(out, inner::SOCKET_FAMILY, 2);
            bytes(out, address, &ip.octets());
        }
    }
    number(out, port, peer.port().into());
    let (seconds, nanoseconds, text) = if kind.is_query() {
        (
            inner::QUERY_SECONDS,
            inner::QUERY_NANOSECONDS,
            inner::QUERY_MESSAGE,
        )
    } else {
        (
            inner::RESPONSE_SECONDS,
            inner::RESPONSE_NANOSECONDS,
            inner::RESPONSE_MESSAGE,
        )
    };
    number(out, seconds, time.as_secs());
    key(out, nanoseconds, FIXED32);
    out.extend_from_slice(&time.subsec_nanos().to_le_bytes());
    bytes(out, text, message);
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, (field << 3 | wire_type).into());
}

fn number(out: &mut Vec<u8>, field: u32, number: u64) {
    key(out, field, VARINT);
    varint(out, number);
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    key(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Width in bytes of a length prefix that is written before the length is known.
const LEN_LEN: usize = 3;

/// Encodes a number below 2^21 with a fixed number of bytes.
fn padded_varint(number: u32) -> [u8; LEN_LEN] {
    let part = |shift: u32| (number >> shift).to_le_bytes()[0] & 0x7f;
    [part(0) | 0x80, part(7) | 0x80, part(14)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_written_field_by_field() {
        let mut out = Vec::new();
        let time = Duration::new(300, 7);
        let peer = ([192, 0, 2, 1], 5353).into();
        write(
            &mut out,
            MessageKind::ClientQuery,
            SocketProtocol::Udp,
            peer,
            time,
            b"query",
        );
        let program = b"dotproxy 0.1.0";
        let mut expected = vec![0x12, 14];
        expected.extend(program);
        expected.extend([0x78, 1, 0x72, 0xa2, 0x80, 0]);
        expected.extend([
            0x08, 5, 0x18, 1, 0x10, 1, 0x22, 4, 192, 0, 2, 1, 0x30, 0xe9, 0x29,
        ]);
        expected.extend([0x40, 0xac, 0x02, 0x4d, 7, 0, 0, 0, 0x52, 5]);
        expected.extend(b"query");
        let len = expected.len() - 2 - program.len() - 6;
        expected[2 + program.len() + 3] = 0x80 | u8::try_from(len).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn response_of_an_upstream_has_its_address() {
        let mut out = Vec::new();
        let peer = "[2001:db8::1]:853".parse().unwrap();
        write(
            &mut out,
            MessageKind::ForwarderResponse,
            SocketProtocol::Tls,
            peer,
            Duration::ZERO,
            &[7; 300],
        );
        let has = |part: &[u8]| out.windows(part.len()).any(|window| window == part);
        assert!(has(&[
            0x08, 8, 0x18, 3, 0x10, 2, 0x2a, 16, 0x20, 0x01, 0x0d, 0xb8
        ]));
        assert!(has(&[
            0x38, 0xd5, 0x06, 0x60, 0, 0x6d, 0, 0, 0, 0, 0x72, 0xac, 0x02, 7, 7
        ]));
    }
}
