//! Records of real signers (BIND's dnssec-signzone): one zone for each algorithm.

use super::signature::owner;
use super::testing::bytes;
use super::verify::SignatureError;
use super::*;
use crate::wire::Message;
use crate::wire::question::Type;

/// Each line has a word and its values: a zone, a DS of it, its keys or a signed set as messages.
const VECTORS: &str = include_str!("../../tests/data/dnssec_signatures.txt");

/// A signed zone.
#[derive(Default)]
struct Zone {
    name: String,
    ds: Vec<Vec<u8>>,
    keys: Vec<u8>,
    sets: Vec<Vec<u8>>,
}

fn zones() -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    for line in VECTORS.lines() {
        let (word, value) = line.split_once(' ').unwrap();
        if word == "zone" {
            zones.push(Zone {
                name: value.to_owned(),
                ..Zone::default()
            });
            continue;
        }
        let zone = zones.last_mut().unwrap();
        match word {
            "ds" => {
                let fields: Vec<&str> = value.split(' ').collect();
                let tag: u16 = fields[0].parse().unwrap();
                let mut data = tag.to_be_bytes().to_vec();
                data.extend(
                    fields[1..3]
                        .iter()
                        .map(|field| field.parse::<u8>().unwrap()),
                );
                data.extend(bytes(fields[3]));
                zone.ds.push(data);
            }
            "keys" => zone.keys = bytes(value),
            _ => zone.sets.push(bytes(value)),
        }
    }
    zones
}

/// Returns the keys in a message.
fn keys<'a>(message: &Message<'a>) -> Vec<Dnskey<'a>> {
    let records = message.answers();
    let keys = records.filter(|record| record.rr_type == Type::DNSKEY);
    keys.map(|record| Dnskey::parse(record.data(message.bytes())).unwrap())
        .collect()
}

/// Verifies every signature of every set of a message. Returns their number.
fn verify_all(bytes: &[u8], keys: &[Dnskey<'_>]) -> Result<usize, SignatureError> {
    let message = Message::parse(bytes).map_err(|_| SignatureError::Wrong)?;
    let mut verified = 0;
    for set in RrSet::of(&message).map_err(|_| SignatureError::Wrong)? {
        for signature in &set.signatures {
            let rrsig = Rrsig::parse(signature.data(bytes)).map_err(|_| SignatureError::Wrong)?;
            let owner = owner(&message, signature).map_err(|_| SignatureError::Wrong)?;
            let key = keys.iter().find(|key| key.tag == rrsig.key_tag);
            let key = key.ok_or(SignatureError::Wrong)?;
            let mut signed = Vec::new();
            rrsig
                .write_signed(&mut signed, bytes, &owner, &set.records)
                .map_err(|_| SignatureError::Wrong)?;
            key.verify(&signed, rrsig.signature)?;
            verified += 1;
        }
    }
    Ok(verified)
}

#[test]
fn records_of_every_algorithm_verify() {
    let zones = zones();
    assert_eq!(zones.len(), 5);
    for zone in zones {
        let message = Message::parse(&zone.keys).unwrap();
        let keys = keys(&message);
        assert_eq!((keys.len(), zone.sets.len()), (2, 7));
        // The signer may sign the keys with both of them.
        let of_keys = verify_all(&zone.keys, &keys);
        assert!(matches!(of_keys, Ok(1 | 2)), "{}: {of_keys:?}", zone.name);
        for set in &zone.sets {
            assert_eq!(verify_all(set, &keys), Ok(1), "{}", zone.name);
        }
    }
}

#[test]
fn every_changed_byte_of_a_signed_set_is_found() {
    for zone in zones() {
        let message = Message::parse(&zone.keys).unwrap();
        let keys = keys(&message);
        // P-384 takes half a millisecond for each signature.
        let step = if zone.name.contains("384") { 13 } else { 1 };
        let set = &zone.sets[0];
        let message = Message::parse(set).unwrap();
        let first = message.answers().next().unwrap();
        for at in (first.start..set.len()).step_by(step) {
            // The TTL of a record is not signed, and the letter case of names is not either.
            let is_ttl = message
                .answers()
                .any(|record| (record.ttl_at()..record.ttl_at() + 4).contains(&at));
            if is_ttl || set[at].is_ascii_alphabetic() {
                continue;
            }
            let mut changed = set.clone();
            changed[at] ^= 1;
            assert_ne!(verify_all(&changed, &keys), Ok(1), "{} at {at}", zone.name);
        }
    }
}

#[test]
fn ds_names_the_key_signing_key_only() {
    for zone in zones() {
        let message = Message::parse(&zone.keys).unwrap();
        let owner = message.question().unwrap().name().to_vec();
        for data in &zone.ds {
            let ds = Ds::parse(data).unwrap();
            assert!(ds.is_supported());
            let keys = keys(&message);
            let named: Vec<_> = keys.iter().filter(|key| ds.matches(&owner, key)).collect();
            assert_eq!(named.len(), 1, "{}", zone.name);
            assert_eq!(named[0].tag, ds.key_tag);
            assert!(named[0].may_sign());
            assert!(!ds.matches(b"\x05other\0", named[0]));
            let mut other = data.clone();
            *other.last_mut().unwrap() ^= 1;
            assert!(!Ds::parse(&other).unwrap().matches(&owner, named[0]));
        }
    }
}

#[test]
fn letter_case_and_ttl_of_records_are_not_signed() {
    for zone in zones() {
        let message = Message::parse(&zone.keys).unwrap();
        let keys = keys(&message);
        for set in &zone.sets {
            let message = Message::parse(set).unwrap();
            let mut changed = set.clone();
            for byte in &mut changed[12..message.records_start() - 4] {
                byte.make_ascii_uppercase();
            }
            for record in message.answers() {
                changed[record.ttl_at() + 3] ^= 1;
            }
            assert_eq!(verify_all(&changed, &keys), Ok(1), "{}", zone.name);
        }
    }
}

#[test]
fn unsupported_algorithms_and_digests_are_known_as_such() {
    let key = Dnskey::parse(&[1, 0, 3, 16, 1, 2, 3]).unwrap();
    assert_eq!(key.verify(b"", b""), Err(SignatureError::Unsupported));
    for algorithm in [0, 1, 3, 5, 6, 7, 12, 16, 17, 253] {
        assert!(!verify::is_algorithm_supported(algorithm));
    }
    for digest_type in [0, 1, 3, 5] {
        assert!(verify::digest(digest_type, b"").is_none());
    }
    // Less than 1,024 bits.
    let mut short = vec![1, 0, 3, 8, 1, 3];
    short.extend([0xff; 96]);
    let key = Dnskey::parse(&short).unwrap();
    assert_eq!(key.verify(b"", &[0; 96]), Err(SignatureError::Unsupported));
}

#[test]
fn rsa_key_counts_as_supported_if_it_verifies_signatures() {
    use verify::{is_key_supported, verify};
    // Keys of 1,016 and 1,017 bits, and signatures of the letter `x`.
    for (key, signature) in [
        (
            "03010001b48878b6c02f6414633446b86e1024983f314e82dc278d45a379ae4a1c276ecb17f0457a\
             df35fc08826034e896a475233fdd2e197fd3ce7290dceb416bdf0010289eb07b391c0e6fc2c7d6ea\
             de78b807031a24c3b0e4a50359f0bae546a11d9b347da18e198e10122034bb996b57af5e234e54f1\
             1bc2e4ccc3628bddbf3c43",
            "3a5bce0e8798091d4d19b3a8bd88de9f14b3966f33d5d1771b128d1758c5cc4542d6bc88126934a1\
             638620197864328d4313068ebe227148cfdb96ba7f35d9cdeb977aaac09885bf0f142ac3fb206d42\
             ac7798e81ec43c69a76d2f02c0287535e6ca2e1868906b9a8a4395bf861e199786ebb97df714f1af\
             b8d687bc65b60a",
        ),
        (
            "030100010151c06cc736f08e8e5ab1ec09d61238d49b729ff9ecdf825356040b47ad2bf62b863995\
             38302a76fb91a83057f1ec2cbe9281725a591fa45e58a889a65e04db9018e132f030de82428a95b2\
             93e7c502f28f0a66f1d7e9110b82b011569f3d86c2371bb2ad11f977827e9a795762b6c3412e9d74\
             bcf8cb4e19122042b2e94895",
            "00e006bda973f9d8e43a5a7617b37f033cbc159df9bc27df85f0cb81aaabc5bca346745308a4c6a0\
             46573bf2cca6a72341a0706cff2a14a55264e3d99aabbbda2d5555c94d81fda928dbc86d0ebd44bd\
             1c8246cf7e84e781b6e49ef2e7b66ee0d897413a7a0871a5012895779ba435bde71e5cd885384c52\
             b012b32b1eea5bf7",
        ),
    ] {
        let (key, signature) = (bytes(key), bytes(signature));
        let is_verified = verify(8, &key, b"x", &signature).is_ok();
        assert_eq!(is_verified, is_key_supported(8, &key), "{}", key.len());
    }
}

#[test]
fn rsa_exponent_has_at_most_33_bits() {
    for (exponent, is_supported) in [
        (&[3][..], true),
        (&[1, 0, 1], true),
        (&[1, 255, 255, 255, 255], true),
        (&[2, 0, 0, 0, 1], false),
        (&[1, 0, 0, 0, 0, 1], false),
    ] {
        let len = u8::try_from(exponent.len()).unwrap();
        let key = [&[len], exponent, &[0xff; 256]].concat();
        assert_eq!(
            verify::is_key_supported(8, &key),
            is_supported,
            "{exponent:?}"
        );
    }
}
