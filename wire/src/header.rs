//! The header of a message (RFC 1035, section 4.1.1; AD and CD from RFC 4035, section 3.2).

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 12;

/// The third and fourth byte of a header: QR, OPCODE, AA, TC, RD, RA, Z, AD, CD, RCODE.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

impl Flags {
    /// A response, not a query.
    pub const QR: Self = Self(0x8000);
    /// Authoritative answer.
    pub const AA: Self = Self(0x0400);
    /// Truncated.
    pub const TC: Self = Self(0x0200);
    /// Recursion desired.
    pub const RD: Self = Self(0x0100);
    /// Recursion available.
    pub const RA: Self = Self(0x0080);
    /// Reserved.
    pub const Z: Self = Self(0x0040);
    /// Authentic data.
    pub const AD: Self = Self(0x0020);
    /// Checking disabled.
    pub const CD: Self = Self(0x0010);

    /// The bits of the response code.
    pub const RCODE: Self = Self(0x000f);

    const OPCODE: u16 = 0x7800;

    /// Returns whether every flag of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns these flags and the flags of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the flags as a number.
    pub fn to_u16(self) -> u16 {
        self.0
    }

    /// Returns these flags without the flags of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the opcode.
    pub fn opcode(self) -> Opcode {
        Opcode(((self.0 & Self::OPCODE) >> 11) as u8)
    }

    /// Returns the lower four bits of the response code.
    pub fn rcode(self) -> Rcode {
        Rcode(self.0 & Self::RCODE.0)
    }

    /// Returns these flags with the lower four bits of `rcode`.
    #[must_use]
    pub fn with_rcode(self, rcode: Rcode) -> Self {
        Self(self.0 & !Self::RCODE.0 | rcode.0 & Self::RCODE.0)
    }

    /// Returns the flags that each response copies from its query: OPCODE and, for an ordinary
    /// query, RD and CD (RFC 1035, section 4.1.1; RFC 4035, section 3.2.2). The meaning of RD and
    /// CD is unknown for other opcodes, so they are clear, as in BIND's responses.
    #[must_use]
    pub fn echoed(self) -> Self {
        match self.0 & Self::OPCODE {
            0 => Self(self.0 & (Self::RD.0 | Self::CD.0)),
            opcode => Self(opcode),
        }
    }
}

impl From<u16> for Flags {
    fn from(number: u16) -> Self {
        Self(number)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#06x})", self.0)
    }
}

/// An operation code (RFC 1035, section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode(u8);

impl Opcode {
    /// An ordinary query.
    pub const QUERY: Self = Self(0);
}

/// A response code: four bits in the header, eight more in OPT (RFC 6891, section 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcode(u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query is malformed.
    pub const FORMERR: Self = Self(1);
    /// The server failed to answer the query.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The opcode is not supported.
    pub const NOTIMP: Self = Self(4);
    /// The query is not allowed.
    pub const REFUSED: Self = Self(5);
    /// A name exists that should not (RFC 2136), such as one that DNAME makes too long (RFC 6672,
    /// section 2.2).
    pub const YXDOMAIN: Self = Self(6);
    /// The EDNS version is not supported (RFC 6891, section 9).
    pub const BADVERS: Self = Self(16);
    /// The server cookie is invalid (RFC 7873, section 8).
    pub const BADCOOKIE: Self = Self(23);

    /// Returns the code with its upper eight bits from OPT.
    #[must_use]
    pub fn with_extension(self, extension: u8) -> Self {
        Self(self.0 & Flags::RCODE.0 | u16::from(extension) << 4)
    }

    /// Returns the upper eight bits, which OPT carries.
    pub fn extension(self) -> u8 {
        let [upper, lower] = self.0.to_be_bytes();
        upper << 4 | lower >> 4
    }

    /// Returns the code as a number.
    pub fn to_u16(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Rcode {
    /// Writes the mnemonic (IANA, "DNS RCODEs") or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mnemonic = match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            16 => "BADVERS",
            23 => "BADCOOKIE",
            number => return write!(f, "RCODE{number}"),
        };
        f.write_str(mnemonic)
    }
}

impl From<u16> for Rcode {
    /// Returns the code of the lower 12 bits of `number`.
    fn from(number: u16) -> Self {
        Self(number & 0x0fff)
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The id, chosen by the sender of a query and repeated in the response.
    pub id: u16,
    /// Flags, opcode and response code.
    pub flags: Flags,
    /// Entries in the question section (QDCOUNT).
    pub questions: u16,
    /// Records in the answer section (ANCOUNT).
    pub answers: u16,
    /// Records in the authority section (NSCOUNT).
    pub authorities: u16,
    /// Records in the additional section (ARCOUNT).
    pub additionals: u16,
}

impl Header {
    /// Parses the header at the start of `message`. Returns `None` if the message is shorter than
    /// twelve bytes.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = message.first_chunk()?;
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            id: number(0),
            flags: Flags(number(2)),
            questions: number(4),
            answers: number(6),
            authorities: number(8),
            additionals: number(10),
        })
    }

    /// Returns whether a reply to a query, which has one question, can have this header.
    pub fn may_be_reply(&self) -> bool {
        self.flags.contains(Flags::QR) && self.flags.opcode() == Opcode::QUERY && self.questions < 2
    }

    /// Returns the twelve bytes of this header.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, number: u16| {
            bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
        };
        put(0, self.id);
        put(2, self.flags.0);
        put(4, self.questions);
        put(6, self.answers);
        put(8, self.authorities);
        put(10, self.additionals);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_header_is_parsed() {
        let bytes = [0xab, 0xcd, 0x85, 0xb3, 0, 1, 0, 2, 0, 3, 0, 4];
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.id, 0xabcd);
        assert!(header.flags.contains(Flags::QR | Flags::AA | Flags::RD));
        assert!(header.flags.contains(Flags::RA | Flags::AD | Flags::CD));
        assert!(!header.flags.contains(Flags::TC));
        assert_eq!(header.flags.rcode(), Rcode::NXDOMAIN);
        assert_eq!(header.flags.opcode(), Opcode::QUERY);
        assert_eq!(header.to_bytes(), bytes);
    }

    #[test]
    fn eleven_bytes_are_no_header() {
        assert_eq!(Header::parse(&[0; 11]), None);
    }

    #[test]
    fn rcode_is_split_between_header_and_opt() {
        let rcode = Rcode::BADVERS;
        let flags = Flags::default().with_rcode(rcode);
        assert_eq!(flags.rcode(), Rcode::NOERROR);
        assert_eq!(flags.rcode().with_extension(rcode.extension()), rcode);
    }
}
