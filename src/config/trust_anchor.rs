//! DNSSEC settings: the mode and the trust anchors.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::wire::name::Name;
use crate::wire::question::Type;

/// Settings of DNSSEC validation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnssecSettings {
    /// The mode.
    pub mode: DnssecMode,
    /// The trust anchors in files. Without any, those of the root that are built in are used.
    pub anchors: Vec<TrustAnchor>,
    /// The files of the trust anchors.
    pub anchor_files: Vec<PathBuf>,
    /// Domains at and below which nothing is validated (RFC 7646).
    pub negative_anchors: Vec<Name>,
}

/// The mode of DNSSEC validation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnssecMode {
    /// Answers are not validated.
    #[default]
    Off,
    /// Answers are validated, and the results are counted and logged. Responses do not change.
    Log,
    /// Answers are validated. A bogus answer becomes SERVFAIL.
    On,
}

/// A DS or DNSKEY record that is trusted without a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    /// The zone.
    pub zone: Name,
    /// [`Type::DS`] or [`Type::DNSKEY`].
    pub rr_type: Type,
    /// The data of the record.
    pub data: Box<[u8]>,
}

/// The keys of the root zone (IANA, `root-anchors.xml`): KSK-2017 and KSK-2024.
pub const BUILT_IN: &str = "\
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
";

/// Description of the expected form of a line.
const EXPECTED: &str =
    "DS or DNSKEY records, like `. IN DS 20326 8 2 E06D...`, as `dig DNSKEY` prints them";

/// Description of the expected algorithms.
const SUPPORTED: &str = "a DNSKEY with the zone flag and the full key of algorithm 8, 10, 13, 14 \
                         or 15, or a DS record with digest type 2 or 4";

/// Returns whether signatures of this algorithm can be verified. SHA-1 (5 and 7) is not supported
/// (RFC 9905).
pub fn is_algorithm_supported(algorithm: u8) -> bool {
    matches!(algorithm, 8 | 10 | 13 | 14 | 15)
}

/// Minimum and maximum length of an RSA modulus in bytes: `ring` verifies no shorter one. A zone
/// with shorter keys is insecure, as with an unknown algorithm; longer keys would cost too much.
const RSA_MODULUS_LEN: RangeInclusive<usize> = 128..=512;

/// Maximum number of bits of an RSA exponent, as `ring` verifies it.
const RSA_EXPONENT_BITS_MAX: usize = 33;

/// Returns whether signatures of an RSA key with this exponent and modulus can be verified.
pub fn has_supported_rsa_len((exponent, modulus): (&[u8], &[u8])) -> bool {
    let unused_bits = exponent.first().map_or(0, |first| first.leading_zeros());
    RSA_MODULUS_LEN.contains(&modulus.len())
        && 8 * exponent.len() <= RSA_EXPONENT_BITS_MAX + unused_bits as usize
}

/// Returns exponent and modulus of an RSA key without leading zeros (RFC 3110, section 2).
pub fn rsa_parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (exponent_len, rest) = match key {
        [0, high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        [len, rest @ ..] => (u16::from(*len), rest),
        [] => return None,
    };
    let (exponent, modulus) = rest.split_at_checked(usize::from(exponent_len))?;
    Some((without_zeros(exponent), without_zeros(modulus)))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Returns whether digests of this type can be computed. SHA-1 (1) is not supported (RFC 9905).
pub fn is_digest_supported(digest_type: u8) -> bool {
    matches!(digest_type, 2 | 4)
}

impl TrustAnchor {
    /// Returns the trust anchors that are built in.
    pub fn built_in() -> Vec<Self> {
        Self::parse_all(BUILT_IN).expect("the anchors that are built in are well formed")
    }

    /// Parses records in zone-file (master file) format: a record in each line, or in several lines
    /// in parentheses. A `;` starts a comment. TTL and class are optional.
    ///
    /// # Errors
    ///
    /// Returns the number of the line, or 0 if there is no record, and a description of the
    /// expected form.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, (usize, &'static str)> {
        let mut anchors = Vec::new();
        let mut fields: Vec<&str> = Vec::new();
        let mut is_open = false;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.split(';').next().unwrap_or_default();
            let lacks_owner = !is_open && line.starts_with([' ', '\t']);
            if lacks_owner && !line.trim().is_empty() {
                return Err((number, EXPECTED));
            }
            let spaced = line.split_inclusive(['(', ')']);
            for part in spaced {
                let (words, bracket) = match part.strip_suffix(['(', ')']) {
                    Some(words) => (words, part.chars().last()),
                    None => (part, None),
                };
                fields.extend(words.split_whitespace());
                match bracket {
                    Some('(') if !is_open => is_open = true,
                    Some(')') if is_open => is_open = false,
                    Some(_) => return Err((number, EXPECTED)),
                    None => {}
                }
            }
            if is_open || fields.is_empty() {
                continue;
            }
            let anchor = Self::parse(&fields).ok_or((number, EXPECTED))?;
            if !anchor.is_usable() {
                return Err((number, SUPPORTED));
            }
            anchors.push(anchor);
            fields.clear();
        }
        if is_open {
            return Err((text.lines().count(), EXPECTED));
        }
        if anchors.is_empty() {
            return Err((0, EXPECTED));
        }
        Ok(anchors)
    }

    /// Returns whether signatures can be verified with the record: its algorithms are supported,
    /// and a DNSKEY is a zone key of the right length that is not revoked.
    fn is_usable(&self) -> bool {
        match (self.rr_type, &*self.data) {
            (Type::DS, [_, _, algorithm, digest_type, ..]) => {
                is_algorithm_supported(*algorithm) && is_digest_supported(*digest_type)
            }
            (Type::DNSKEY, [high, low, 3, algorithm, key @ ..]) => {
                let is_zone_key = high & 1 != 0 && low & 0x80 == 0;
                let is_whole = match algorithm {
                    8 | 10 => rsa_parts(key).is_some_and(has_supported_rsa_len),
                    13 => key.len() == 64,
                    14 => key.len() == 96,
                    15 => key.len() == 32,
                    _ => false,
                };
                is_zone_key && is_whole
            }
            _ => false,
        }
    }

    fn parse(fields: &[&str]) -> Option<Self> {
        let (owner, rest) = fields.split_first()?;
        let zone = match *owner {
            "." => Name::root(),
            // The class or the TTL of a line without its owner.
            name if is_class_or_ttl(name) => return None,
            name => name.parse().ok()?,
        };
        let skipped = rest
            .iter()
            .take_while(|field| is_class_or_ttl(field))
            .count();
        let (rr_type, data) = rest.get(skipped..)?.split_first()?;
        let (rr_type, data) = match rr_type.to_ascii_uppercase().as_str() {
            "DS" if skipped <= 2 => (Type::DS, ds_data(data)?),
            "DNSKEY" if skipped <= 2 => (Type::DNSKEY, dnskey_data(data)?),
            _ => return None,
        };
        Some(Self {
            zone,
            rr_type,
            data: data.into(),
        })
    }
}

fn is_class_or_ttl(field: &str) -> bool {
    field.eq_ignore_ascii_case("IN") || field.bytes().all(|byte| byte.is_ascii_digit())
}

/// Parses the fields of a DS record: tag, algorithm, digest type, digest in hexadecimal.
fn ds_data(fields: &[&str]) -> Option<Vec<u8>> {
    let [tag, algorithm, digest_type, digest @ ..] = fields else {
        return None;
    };
    let mut data = tag.parse::<u16>().ok()?.to_be_bytes().to_vec();
    data.push(algorithm.parse().ok()?);
    let digest_type: u8 = digest_type.parse().ok()?;
    data.push(digest_type);
    let digest = digest.concat();
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let len = match digest_type {
        1 => 20,
        2 => 32,
        4 => 48,
        _ => digest.len() / 2,
    };
    if !is_hex || digest.is_empty() || digest.len() != 2 * len {
        return None;
    }
    for at in (0..digest.len()).step_by(2) {
        data.push(u8::from_str_radix(&digest[at..at + 2], 16).ok()?);
    }
    Some(data)
}

/// Parses the fields of a DNSKEY record: flags, protocol, algorithm, key in base64.
fn dnskey_data(fields: &[&str]) -> Option<Vec<u8>> {
    let [flags, protocol, algorithm, key @ ..] = fields else {
        return None;
    };
    let mut data = flags.parse::<u16>().ok()?.to_be_bytes().to_vec();
    data.push(protocol.parse().ok()?);
    data.push(algorithm.parse().ok()?);
    let key = key.concat();
    let mut decoded = vec![0; key.len()];
    let len = STANDARD.decode_slice(&key, &mut decoded).ok()?;
    data.extend_from_slice(&decoded[..len]);
    (len > 0).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_anchors_are_those_of_the_root() {
        let anchors = TrustAnchor::built_in();
        let tags: Vec<u16> = anchors
            .iter()
            .map(|anchor| u16::from_be_bytes([anchor.data[0], anchor.data[1]]))
            .collect();
        assert_eq!(tags, [20_326, 38_696]);
        assert!(anchors.iter().all(|anchor| anchor.zone == Name::root()));
        assert!(anchors.iter().all(|anchor| anchor.data.len() == 36));
    }

    #[test]
    fn records_have_the_form_of_a_zone_file() {
        let text = "; the key of a private zone\n\
                    corp.example. 3600 IN DNSKEY 257 3 13 (\n\
                    \tmdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+\n\
                    \tKkxLbxILfDLUT0rAK9iUzy1L53eKGQ== ) ; KSK\n\
                    \n\
                    Lab.Example DS 1 13 2 e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237 C7F8EC8D\n";
        let anchors = TrustAnchor::parse_all(text).unwrap();
        let [key, ds] = &anchors[..] else {
            panic!("{anchors:?}");
        };
        assert_eq!(key.zone.to_string(), "corp.example.");
        assert_eq!((key.rr_type, key.data.len()), (Type::DNSKEY, 68));
        assert_eq!(key.data[..4], [1, 1, 3, 13]);
        assert_eq!(ds.zone.to_string(), "lab.example.");
        assert_eq!((ds.rr_type, ds.data.len()), (Type::DS, 36));
        assert_eq!(ds.data[..4], [0, 1, 13, 2]);
    }

    #[test]
    fn error_has_the_number_of_the_line() {
        for (text, line) in [
            ("", 0),
            ("; nothing\n", 0),
            (". IN A 192.0.2.1\n", 1),
            (". IN DS 20326 8 2 E06D\n", 1),
            (". IN DS 20326 8 2\n", 1),
            (". IN DS 70000 8 9 00\n", 1),
            (". IN DS 1 8 9 0\n", 1),
            (". IN DS 1 8 9 zz\n", 1),
            (". IN DNSKEY 257 3 8 ???\n", 1),
            (". IN DNSKEY 257 3 8\n", 1),
            (".. IN DS 1 8 9 00\n", 1),
            (". 1 2 3 DS 1 8 9 00\n", 1),
            (". IN DNSKEY 257 3 15 @\n. IN DS (1 8 9 00\n", 2),
            (". IN DNSKEY 257 3 15 @\n. IN DS )1 8 9 00\n", 2),
            // Another algorithm, digest or protocol; no zone key; a revoked key.
            (". IN DNSKEY 257 3 16 @\n", 1),
            (". IN DNSKEY 257 2 15 @\n", 1),
            (". IN DNSKEY 0 3 15 @\n", 1),
            (". IN DNSKEY 385 3 15 @\n", 1),
            (
                ". IN DS 1 8 1 E06D44B80B8F1D39A95C0B0D7C65D08458E88040\n",
                1,
            ),
            (". IN DS ((1 8 9 00))\n", 1),
            // The owner of the record before, which would be the name `IN`.
            (". IN DNSKEY 257 3 15 @\n  IN DNSKEY 257 3 15 @\n", 2),
            ("IN DNSKEY 257 3 15 @\n", 1),
            ("3600 IN DNSKEY 257 3 15 @\n", 1),
        ] {
            let text = text.replace('@', &STANDARD.encode([1; 32]));
            let error = TrustAnchor::parse_all(&text).unwrap_err();
            assert_eq!(error.0, line, "{text}");
        }
    }

    #[test]
    fn key_of_another_length_than_its_algorithm_has_is_refused() {
        let parse = |algorithm: u8, len: usize| {
            let key = STANDARD.encode(vec![1; len]);
            TrustAnchor::parse_all(&format!("example. IN DNSKEY 257 3 {algorithm} {key}"))
        };
        // The exponent of the RSA keys has one byte, with the value 1, after its length.
        for (algorithm, len) in [(8, 130), (10, 514), (13, 64), (14, 96), (15, 32)] {
            assert!(parse(algorithm, len).is_ok(), "{algorithm} {len}");
        }
        let others = [
            (8, 1),
            (8, 66),
            (8, 129),
            (10, 515),
            (13, 3),
            (13, 96),
            (14, 64),
            (15, 33),
        ];
        for (algorithm, len) in others {
            assert_eq!(
                parse(algorithm, len),
                Err((1, SUPPORTED)),
                "{algorithm} {len}"
            );
        }
    }
}
