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
            let key = keys.iter().find(|key| key.tag() == rrsig.key_tag);
            let key = key.ok_or(SignatureError::Wrong)?;
            let mut signed = Vec::new();
            rrsig
                .write_signed(&mut signed, &message, &owner, &set.records)
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
            assert_eq!(named[0].tag(), ds.key_tag);
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
