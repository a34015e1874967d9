//! The question of a message (RFC 1035, section 4.1.2).

use std::fmt;

use super::{Malformed, byte_ops, name, read_u16};

/// A record type, query types included (RFC 1035, sections 3.2.2 and 3.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type(pub u16);

impl Type {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// An authoritative server of a zone.
    pub const NS: Self = Self(2);
    /// An alias of its owner (RFC 1035, section 3.3.1).
    pub const CNAME: Self = Self(5);
    /// The start of a zone, with the TTL of negative answers (RFC 2308).
    pub const SOA: Self = Self(6);
    /// The name of an address.
    pub const PTR: Self = Self(12);
    /// An IPv6 address (RFC 3596).
    pub const AAAA: Self = Self(28);
    /// An alias of all names below its owner (RFC 6672).
    pub const DNAME: Self = Self(39);
    /// The digest of a key, which is in the parent zone (RFC 4034, section 5).
    pub const DS: Self = Self(43);
    /// A signature over an RRset (RFC 4034).
    pub const RRSIG: Self = Self(46);
    /// The next name of a zone, which denies the names between (RFC 4034).
    pub const NSEC: Self = Self(47);
    /// A public key of a zone (RFC 4034).
    pub const DNSKEY: Self = Self(48);
    /// The next hash of a name of a zone (RFC 5155).
    pub const NSEC3: Self = Self(50);
    /// The pseudo-record of EDNS (RFC 6891).
    pub const OPT: Self = Self(41);
    /// A signature of the message by a public key, when it covers type 0 (RFC 2931).
    pub const SIG: Self = Self(24);
    /// A service and how to reach it (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// The mark of a name that does not exist, in the type bitmap of an NSEC record (RFC 9824,
    /// section 2). No record has this type.
    pub const NXNAME: Self = Self(128);
    /// A signature of the message by a shared key (RFC 8945).
    pub const TSIG: Self = Self(250);
    /// A request for the changes of a zone (RFC 1995).
    pub const IXFR: Self = Self(251);
    /// A request for a whole zone (RFC 5936).
    pub const AXFR: Self = Self(252);
    /// Any record, as a question (RFC 8482).
    pub const ANY: Self = Self(255);

    /// Returns whether no record of a zone has this type: the type requests something other than
    /// one kind of data, or is about a message (RFC 6895, section 3.1).
    pub fn is_meta(self) -> bool {
        self == Self::OPT || matches!(self.0, 128..=255)
    }
}

/// The class of the Internet (RFC 1035, section 3.2.4).
pub const CLASS_IN: u16 = 1;

/// No class, in updates (RFC 2136, section 2.4).
pub const CLASS_NONE: u16 = 254;

/// Any class, as a question (RFC 1035, section 3.2.5).
pub const CLASS_ANY: u16 = 255;

/// The mnemonics of types, in the order of their numbers (IANA, "Resource Record (RR) TYPEs").
/// Types that no program uses any more have none here.
const MNEMONICS: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (108, "EUI48"),
    (109, "EUI64"),
    (128, "NXNAME"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];

impl fmt::Display for Type {
    /// Writes the mnemonic of the type, or its number (RFC 3597, section 5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MNEMONICS.binary_search_by_key(&self.0, |(number, _)| *number) {
            Ok(place) => f.write_str(MNEMONICS[place].1),
            Err(_) => write!(f, "TYPE{}", self.0),
        }
    }
}

/// The single entry of a question section, in the bytes of its message. The name is not compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    bytes: &'a [u8],
}

impl<'a> Question<'a> {
    /// Parses the question at `start` of `message`.
    pub fn parse(message: &'a [u8], start: usize) -> Result<Self, Malformed> {
        let name_end = name::skip_uncompressed(message, start)?;
        let bytes = message.get(start..name_end + 4).ok_or(Malformed)?;
        Ok(Self { bytes })
    }

    /// Creates a question from bytes that were copied from one.
    pub(super) fn of_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Returns the question as in a message: name, type, class.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the question with its name in lower case, as the key of a table: equal for questions
    /// that [match](Self::matches).
    pub fn to_key(self) -> Box<[u8]> {
        let mut key: Box<[u8]> = self.bytes.into();
        let name_len = self.name().len();
        name::make_lowercase(&mut key[..name_len]);
        key
    }

    /// Returns the uncompressed name.
    pub fn name(self) -> &'a [u8] {
        &self.bytes[..self.bytes.len() - 4]
    }

    /// Returns the name in presentation format.
    pub fn shown_name(self) -> impl fmt::Display {
        struct Shown<'a>(&'a [u8]);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                name::write_presentation(f, self.0)
            }
        }
        Shown(self.name())
    }

    /// Returns the type.
    pub fn rr_type(self) -> Type {
        Type(read_u16(self.bytes, self.bytes.len() - 4).expect("a question ends in four bytes"))
    }

    /// Returns the class.
    pub fn class(self) -> u16 {
        read_u16(self.bytes, self.bytes.len() - 2).expect("a question ends in four bytes")
    }

    /// Returns whether both questions are equal: type, class, and the name ignoring case (RFC
    /// 4343).
    pub fn matches(self, other: Question<'_>) -> bool {
        if byte_ops::are_same(self.bytes, other.bytes) {
            return true;
        }
        // Length bytes are below 64 and so below every letter; type and class are compared
        // separately.
        let (name, rest) = self.bytes.split_at(self.bytes.len() - 4);
        let Some((other_name, other_rest)) = other.bytes.split_at_checked(name.len()) else {
            return false;
        };
        rest == other_rest && name.eq_ignore_ascii_case(other_name)
    }
}

impl fmt::Display for Question<'_> {
    /// Writes name and type, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shown_name(), self.rr_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(bytes: &[u8]) -> Question<'_> {
        Question::parse(bytes, 0).unwrap()
    }

    #[test]
    fn letter_case_of_the_name_does_not_matter() {
        let asked = question(b"\x03wWw\x00\x00\x01\x00\x01");
        assert!(asked.matches(question(b"\x03WwW\x00\x00\x01\x00\x01")));
        assert_eq!(asked.rr_type(), Type(1));
        assert_eq!(asked.name(), b"\x03wWw\x00");
    }

    #[test]
    fn type_and_class_are_compared_exactly() {
        let asked = question(b"\x03www\x00\x00\x41\x00\x01");
        assert!(!asked.matches(question(b"\x03www\x00\x00\x61\x00\x01")));
        assert!(!asked.matches(question(b"\x03www\x00\x00\x41\x00\x03")));
        assert!(!asked.matches(question(b"\x02ww\x00\x00\x41\x00\x01")));
        assert!(!asked.matches(question(b"\x04wwww\x00\x00\x41\x00\x01")));
    }

    #[test]
    fn question_is_shown_in_presentation_format() {
        let asked = question(b"\x05www.\\\x03a\x00b\x00\x00\x41\x00\x01");
        assert_eq!(asked.to_string(), "www\\.\\\\.a\\000b. HTTPS");
        assert_eq!(question(b"\x00\x12\x34\x00\x01").to_string(), ". TYPE4660");
    }

    #[test]
    fn type_has_the_mnemonic_of_the_registry() {
        for (number, mnemonic) in [
            (251, "IXFR"),
            (252, "AXFR"),
            (250, "TSIG"),
            (249, "TKEY"),
            (41, "OPT"),
            (47, "NSEC"),
            (50, "NSEC3"),
            (51, "NSEC3PARAM"),
            (59, "CDS"),
            (60, "CDNSKEY"),
            (39, "DNAME"),
            (13, "HINFO"),
            (44, "SSHFP"),
            (256, "URI"),
            (24, "SIG"),
        ] {
            assert_eq!(Type(number).to_string(), mnemonic);
        }
        assert!(MNEMONICS.is_sorted_by_key(|(number, _)| *number));
        for number in [0, 127, 248, 65_280] {
            assert_eq!(Type(number).to_string(), format!("TYPE{number}"));
        }
    }

    #[test]
    fn question_needs_type_and_class() {
        assert_eq!(Question::parse(b"\x00\x00\x01\x00", 0), Err(Malformed));
    }
}
