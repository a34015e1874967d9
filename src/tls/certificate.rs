//! A parser for certificate fields that the verification library does not expose: validity and
//! subject (RFC 5280, section 4.1).

use std::time::Duration;

use crate::base::time::Validity;

/// Maximum length of a reported subject, in characters.
const SUBJECT_LEN_MAX: usize = 256;

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
/// Tag of the extensions of a certificate.
const EXTENSIONS: u8 = 0xa3;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Tag of the version, which the oldest certificates lack.
const VERSION: u8 = 0xa0;
/// Tags of `UTF8String`, `PrintableString`, `IA5String`.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];

/// The attributes of a name, by their object identifiers (RFC 4514, section 3; RFC 2985).
const ATTRIBUTES: [(&[u8], &str); 9] = [
    (b"\x55\x04\x03", "CN"),
    (b"\x55\x04\x05", "serialNumber"),
    (b"\x55\x04\x06", "C"),
    (b"\x55\x04\x07", "L"),
    (b"\x55\x04\x08", "ST"),
    (b"\x55\x04\x0a", "O"),
    (b"\x55\x04\x0b", "OU"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19", "DC"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", "emailAddress"),
];

/// The object identifier of the extension "basic constraints" (RFC 5280, section 4.2.1.9).
const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";

/// The object identifier of the access method "CA issuers" (RFC 5280, section 4.2.2.1).
const CA_ISSUERS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x02";

/// Returns whether a certificate verifies no other: another CA has issued it, and it belongs to no
/// CA. A self-signed certificate at least verifies itself. A certificate of X.509 version 1 has no
/// extension that says whether it belongs to a CA.
pub(super) fn verifies_none(certificate: &[u8]) -> bool {
    let Some(fields) = Fields::of(certificate) else {
        return false;
    };
    let has_extensions = !fields.extensions.0.is_empty();
    has_extensions && !fields.is_self_signed() && !fields.is_ca()
}

/// Returns whether a certificate says that it belongs to a CA.
pub(super) fn is_ca(certificate: &[u8]) -> bool {
    Fields::of(certificate).is_some_and(|fields| fields.is_ca())
}

/// Returns whether a certificate has a CA Issuers URL (authority information access, RFC 5280,
/// section 4.2.2.1), as certificates of public CAs do, which need an intermediate certificate.
pub(super) fn has_ca_issuers_url(certificate: &[u8]) -> bool {
    let mut parts = certificate.windows(CA_ISSUERS.len());
    parts.any(|part| part == CA_ISSUERS)
}

/// Returns the expiry of a certificate, in time since 1970.
pub(super) fn expires_at(certificate: &[u8]) -> Option<Duration> {
    validity(certificate).map(|validity| validity.expires_at)
}

/// Returns the validity period of a certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut validity = Fields::of(certificate)?.validity;
    let begins_at = read_time(validity.next()?).unwrap_or_default();
    Some(Validity {
        begins_at,
        expires_at: read_time(validity.next()?)?,
    })
}

fn read_time((kind, text): (u8, &[u8])) -> Option<Duration> {
    let text = str::from_utf8(text).ok()?;
    let (year, rest) = match kind {
        // RFC 5280, section 4.1.2.5.1.
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let century = if year < "50" { "20" } else { "19" };
            (format!("{century}{year}"), rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.to_owned(), rest)
        }
        _ => return None,
    };
    let digits = rest.strip_suffix('Z').filter(|digits| digits.len() == 10)?;
    let pairs: Vec<u64> = (0..5)
        .map(|i| digits.get(2 * i..2 * i + 2)?.parse().ok())
        .collect::<Option<_>>()?;
    let [month, day, hour, minute, second] = pairs[..] else {
        return None;
    };
    let days = days_since_1970(year.parse().ok()?, month, day)?;
    let minutes = (days * 24 + hour) * 60 + minute;
    Some(Duration::from_secs(minutes * 60 + second))
}

/// Returns the days from the start of 1970 to a date. The standard library's time ends in 2038 on
/// 32-bit hosts.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // In a year that begins in March, the leap day is the last day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days_of_months = (153 * month + 2) / 5;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + days_of_months + day - 1;
    days.checked_sub(719_468)
}

/// Returns the subject of a certificate as text (RFC 4514), the most specific attribute first.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let sets = Fields::of(certificate)?.subject;
    for (_, set) in sets.filter(|(kind, _)| *kind == SET) {
        let attributes = Items(set).filter_map(|(_, attribute)| attribute_text(attribute));
        let text = attributes.collect::<Vec<_>>().join("+");
        if !text.is_empty() {
            parts.insert(0, text);
        }
    }
    let subject = parts.join(",");
    Some(subject.chars().take(SUBJECT_LEN_MAX).collect())
}

fn attribute_text(attribute: &[u8]) -> Option<String> {
    let mut items = Items(attribute);
    let (_, id) = items.next().filter(|(kind, _)| *kind == OID)?;
    let (_, name) = ATTRIBUTES.iter().find(|(known, _)| *known == id)?;
    let (_, value) = items.next().filter(|(kind, _)| STRINGS.contains(kind))?;
    let mut text = format!("{name}=");
    for character in str::from_utf8(value).ok()?.chars() {
        if ",+\"\\<>;=".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    Some(text)
}

/// The fields of a certificate that are used here.
struct Fields<'a> {
    issuer: Items<'a>,
    validity: Items<'a>,
    subject: Items<'a>,
    /// Empty if the certificate has no extensions.
    extensions: Items<'a>,
}

impl<'a> Fields<'a> {
    fn of(certificate: &'a [u8]) -> Option<Self> {
        let (_, whole) = Items(certificate)
            .next()
            .filter(|(kind, _)| *kind == SEQUENCE)?;
        let (_, signed) = Items(whole).next().filter(|(kind, _)| *kind == SEQUENCE)?;
        // Order: version; serial number, algorithm and issuer; validity; subject.
        let mut items = Items(signed)
            .skip_while(|(kind, _)| *kind == VERSION)
            .skip(2);
        let mut next = || {
            let (_, item) = items.next().filter(|(kind, _)| *kind == SEQUENCE)?;
            Some(Items(item))
        };
        let (issuer, validity, subject) = (next()?, next()?, next()?);
        let mut extensions = items.filter(|(kind, _)| *kind == EXTENSIONS);
        let list = extensions.next().and_then(|(_, list)| Items(list).next());
        Some(Self {
            issuer,
            validity,
            subject,
            extensions: Items(list.map_or(&[], |(_, list)| list)),
        })
    }

    fn is_self_signed(&self) -> bool {
        self.issuer.0 == self.subject.0
    }

    fn is_ca(&self) -> bool {
        let says_ca = |(_, extension): (u8, &[u8])| {
            let mut items = Items(extension);
            if items.next() != Some((OID, BASIC_CONSTRAINTS)) {
                return false;
            }
            // A critical extension has a boolean before its value.
            let value = items.find(|(kind, _)| *kind == OCTET_STRING);
            let constraints = value.and_then(|(_, value)| Items(value).next());
            let is_ca = constraints.and_then(|(_, constraints)| Items(constraints).next());
            matches!(is_ca, Some((BOOLEAN, [value])) if *value != 0)
        };
        Items(self.extensions.0).any(says_ca)
    }
}

/// An iterator over DER items: tags and contents (ITU-T X.690). It stops at the end or at invalid
/// input.
struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, first], rest) = self.0.split_first_chunk()?;
        let (len, rest) = match usize::from(first) {
            len @ ..=0x7f => (len, rest),
            // The length of the length.
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => {
                let (len, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*len)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((kind, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
        DnType, IsCa, KeyPair, date_time_ymd,
    };

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 2, 28);
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::CommonName, "phone \u{e9}");
        params.distinguished_name = name;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn certificate_of_a_ca_or_by_itself_verifies_another() {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::ExplicitNoCa;
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let sign = |mut params: CertificateParams| {
            params
                .distinguished_name
                .push(DnType::CommonName, "another");
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, &issuer).unwrap().der().to_vec()
        };
        let signed = |is_ca| {
            let mut params = CertificateParams::default();
            params.is_ca = is_ca;
            sign(params)
        };
        assert!(verifies_none(&signed(IsCa::ExplicitNoCa)));
        // The value cA FALSE is present, although it is the default, which DER leaves out.
        let mut explicit = CertificateParams::default();
        let no_ca =
            CustomExtension::from_oid_content(&[2, 5, 29, 19], b"\x30\x03\x01\x01\0".to_vec());
        explicit.custom_extensions.push(no_ca);
        assert!(verifies_none(&sign(explicit)));
        assert!(!verifies_none(&signed(IsCa::Ca(
            BasicConstraints::Unconstrained
        ))));
        assert!(!verifies_none(&signed(IsCa::Ca(
            BasicConstraints::Constrained(1)
        ))));
        // Without extensions, it may be the certificate of an old CA.
        assert!(!verifies_none(&signed(IsCa::NoCa)));
        assert!(!verifies_none(issuer.der()), "it is self-signed");
        assert!(!verifies_none(b""));
    }

    #[test]
    fn expiry_is_parsed_in_both_time_formats() {
        let seconds = |year| expires_at(&certificate(year)).unwrap().as_secs();
        assert_eq!(seconds(2037), 2_119_392_000);
        assert_eq!(seconds(2049), 2_498_083_200);
        assert_eq!(seconds(2051), 2_561_155_200);
    }

    #[test]
    fn days_since_1970_follow_the_calendar() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(1969, 12, 31), None);
        assert_eq!(days_since_1970(2000, 2, 29), Some(11_016));
        assert_eq!(days_since_1970(2100, 3, 1), Some(47_541));
        assert_eq!(days_since_1970(9999, 12, 31), Some(2_932_896));
        assert_eq!(days_since_1970(2000, 13, 1), None);
        assert_eq!(days_since_1970(2000, 1, 0), None);
        assert_eq!(days_since_1970(0, 1, 1), None);
    }

    #[test]
    fn subject_is_formatted_by_rfc_4514() {
        let subject = subject(&certificate(2030)).unwrap();
        assert_eq!(subject, "CN=phone \u{e9},O=Example\\, Inc.");
    }

    proptest! {
        #[test]
        fn any_certificate_is_parsed_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0..1_000_usize,
            byte: u8,
        ) {
            let _ = (expires_at(&bytes), subject(&bytes));
            let mut changed = certificate(2030);
            let at = at % changed.len();
            changed[at] = byte;
            let _ = expires_at(&changed);
            let name = subject(&changed);
            prop_assert!(name.is_none_or(|name| name.chars().count() <= SUBJECT_LEN_MAX));
        }
    }
}
