//! DNSKEY and DS records (RFC 4034, sections 2 and 5).

use crate::wire::Malformed;
use crate::wire::name;

use super::verify::{self, SignatureError};

/// Flag of a key that may sign the records of a zone.
const ZONE_KEY: u16 = 0x0100;
/// Flag of a key that is meant for DS records and trust anchors.
const SECURE_ENTRY_POINT: u16 = 0x0001;
/// Flag of a key that must not be trusted any more (RFC 5011).
const REVOKED: u16 = 0x0080;
/// The only value of the protocol field.
const PROTOCOL: u8 = 3;

/// The data of a DNSKEY record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dnskey<'a> {
    flags: u16,
    protocol: u8,
    /// The algorithm of the key.
    pub algorithm: u8,
    /// The key, in the form of its algorithm.
    pub public_key: &'a [u8],
    /// The tag of the key (RFC 4034, appendix B). Several keys may have the same tag.
    pub tag: u16,
    data: &'a [u8],
}

impl<'a> Dnskey<'a> {
    /// Parses the data of a DNSKEY record.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let [high, low, protocol, algorithm, public_key @ ..] = data else {
            return Err(Malformed);
        };
        Ok(Self {
            flags: u16::from_be_bytes([*high, *low]),
            protocol: *protocol,
            algorithm: *algorithm,
            public_key,
            tag: tag(data),
            data,
        })
    }

    /// Returns whether the key may sign the records of its zone: it is a zone key, its protocol is
    /// 3, and it is not revoked (RFC 4034, section 2.1; RFC 5011, section 2.1).
    pub fn may_sign(&self) -> bool {
        self.flags & ZONE_KEY != 0 && self.flags & REVOKED == 0 && self.protocol == PROTOCOL
    }

    /// Returns whether the key is meant as a trust anchor, or for DS records: it has the SEP flag
    /// (RFC 4034, section 2.1.1).
    pub fn is_secure_entry_point(&self) -> bool {
        self.flags & SECURE_ENTRY_POINT != 0
    }

    /// Returns whether signatures of the key can be verified: its algorithm and length are
    /// supported.
    pub fn is_supported(&self) -> bool {
        verify::is_key_supported(self.algorithm, self.public_key)
    }

    /// Verifies a signature by this key over `signed`.
    ///
    /// # Errors
    ///
    /// Returns the reason if the signature is wrong or cannot be verified.
    pub fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        verify::verify(self.algorithm, self.public_key, signed, signature)
    }

    /// Returns the cost of one verification, in units of an RSA-2048 verification.
    pub fn cost(&self) -> u32 {
        verify::cost(self.algorithm, self.public_key)
    }
}

/// Returns the tag of the key with this data. A key is compared with many signatures and DS
/// records, so its tag is computed once, when it is parsed.
fn tag(data: &[u8]) -> u16 {
    let words = data.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let folded = sum.wrapping_add(sum >> 16) & u32::from(u16::MAX);
    u16::try_from(folded).unwrap_or(u16::MAX)
}

/// The data of a DS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ds<'a> {
    /// The tag of the key.
    pub key_tag: u16,
    /// The algorithm of the key.
    pub algorithm: u8,
    /// The algorithm of the digest.
    pub digest_type: u8,
    /// The digest of the key.
    pub digest: &'a [u8],
}

impl<'a> Ds<'a> {
    /// Parses the data of a DS record.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let [high, low, algorithm, digest_type, digest @ ..] = data else {
            return Err(Malformed);
        };
        Ok(Self {
            key_tag: u16::from_be_bytes([*high, *low]),
            algorithm: *algorithm,
            digest_type: *digest_type,
            digest,
        })
    }

    /// Returns whether the digest and the key's algorithm are supported. A zone all of whose DS
    /// records are unsupported is insecure (RFC 4035, section 5.2; RFC 6840, section 5.2).
    pub fn is_supported(&self) -> bool {
        verify::is_digest_supported(self.digest_type)
            && verify::is_algorithm_supported(self.algorithm)
    }

    /// Returns whether the digest has the length of its type: otherwise it is of no key.
    pub fn has_whole_digest(&self) -> bool {
        verify::digest_len(self.digest_type) == Some(self.digest.len())
    }

    /// Returns whether the record may name a key: its tag and algorithm are those of the key.
    pub fn may_match(&self, key: &Dnskey<'_>) -> bool {
        self.algorithm == key.algorithm && self.key_tag == key.tag && key.may_sign()
    }

    /// Returns whether the record names a key of the zone `owner`, which is uncompressed.
    pub fn matches(&self, owner: &[u8], key: &Dnskey<'_>) -> bool {
        if !self.may_match(key) {
            return false;
        }
        let mut digested = owner.to_vec();
        name::make_lowercase(&mut digested);
        digested.extend_from_slice(key.data);
        verify::digest(self.digest_type, &digested)
            .is_some_and(|digest| digest.as_ref() == self.digest)
    }
}
