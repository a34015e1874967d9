//! The denial cache with records made by hand. Records of real signers are in the tests of
//! `validation`.

use std::time::Duration;

use super::*;
use crate::wire::header::{Flags, HEADER_LEN, Rcode};
use crate::wire::response::Asked;
use crate::wire::{Message, Question};

/// Returns the uncompressed form of a name in dotted form. `!` is a byte with the value 0.
pub(super) fn wire(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        name.push(u8::try_from(label.len()).unwrap());
        name.extend(label.replace('!', "\0").bytes());
    }
    name.push(0);
    name
}

pub(super) fn at(seconds: u64) -> Instant {
    Instant::after_start(Duration::from_secs(seconds))
}

/// Returns a record and a signature with this data.
pub(super) fn record(zone: &str, owner: &str, rr_type: Type, data: &[u8]) -> ProvenRecord {
    let signature = [&[0; 18][..], &wire(zone), &[7; 64]].concat();
    let mut records = Vec::new();
    for (rr_type, data) in [(rr_type, data), (Type::RRSIG, &signature)] {
        records.extend(rr_type.0.to_be_bytes());
        records.extend([0, 1, 0, 0, 14, 16]);
        records.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        records.extend_from_slice(data);
    }
    ProvenRecord {
        zone: wire(zone).into(),
        owner: wire(owner).into(),
        rr_type,
        ttl: 300,
        records: records.into(),
    }
}

pub(super) fn soa(zone: &str) -> ProvenRecord {
    record(zone, zone, Type::SOA, &[0; 22])
}

/// Returns an NSEC record with types below 64.
pub(super) fn nsec(zone: &str, owner: &str, next: &str, types: &[u16]) -> ProvenRecord {
    let mut bitmap = [0; 8];
    for rr_type in types {
        bitmap[usize::from(rr_type / 8)] |= 0x80 >> (rr_type % 8);
    }
    let data = [&wire(next)[..], &[0, 8], &bitmap].concat();
    record(zone, owner, Type::NSEC, &data)
}

/// Returns a cache with the zone `example`: its apex, an alias, a delegation, a name with an
/// address, and a wildcard below it.
fn cache() -> DenialCache {
    let mut cache = DenialCache::new(64 << 10);
    for (owner, next, types) in [
        ("example", "alias.example", &[2, 6, 46, 47][..]),
        ("alias.example", "cut.example", &[5, 46, 47]),
        ("cut.example", "www.example", &[2, 46, 47]),
        ("www.example", "*.www.example", &[1, 46, 47]),
        ("*.www.example", "example", &[16, 46, 47]),
    ] {
        let records = [soa("example"), nsec("example", owner, next, types)];
        cache.insert(&records, 3, at(0));
    }
    cache
}

/// Asks a cache. Returns the response code and the numbers of records, and the lowest TTL.
fn ask(
    cache: &DenialCache,
    name: &str,
    rr_type: Type,
    (source, seconds): (usize, u64),
) -> Option<(Rcode, u32)> {
    let mut question = wire(name);
    question.extend(rr_type.0.to_be_bytes());
    question.extend([0, 1]);
    let question = Question::parse(&question, 0).unwrap();
    let denial = cache.deny(question, source, 3_600, at(seconds))?;
    let (plain, with_proof) = (
        denial.to_message(question, false),
        denial.to_message(question, true),
    );
    let parse = |message| Message::parse(message).unwrap();
    let (plain, with_proof) = (parse(&plain), parse(&with_proof));
    assert_eq!(plain.question(), Some(question));
    let types = |message: &Message<'_>| -> Vec<Type> {
        message.authorities().map(|record| record.rr_type).collect()
    };
    assert_eq!(types(&plain), [Type::SOA]);
    assert_eq!(
        types(&with_proof)[..3],
        [Type::SOA, Type::RRSIG, Type::NSEC]
    );
    assert!(plain.header().flags.contains(Flags::AD));
    let ttl = plain.authorities().next()?.ttl(plain.bytes());
    Some((plain.header().flags.rcode(), ttl))
}

#[test]
fn names_and_types_that_records_deny_are_denied() {
    let cache = cache();
    for (name, rr_type, expected) in [
        ("b.example", Type::A, Some(Rcode::NXDOMAIN)),
        ("deep.er.zz.example", Type::A, Some(Rcode::NXDOMAIN)),
        ("aaa.example", Type::AAAA, Some(Rcode::NXDOMAIN)),
        ("www.example", Type::AAAA, Some(Rcode::NOERROR)),
        ("WWW.example", Type::AAAA, Some(Rcode::NOERROR)),
        ("example", Type::A, Some(Rcode::NOERROR)),
        // A wildcard matches.
        ("x.www.example", Type::A, Some(Rcode::NOERROR)),
        ("x.www.example", Type(16), None),
        ("www.example", Type::A, None),
        ("example", Type::SOA, None),
        ("alias.example", Type::A, None),
        // Names at and below a delegation are of another zone.
        ("cut.example", Type::A, None),
        ("www.cut.example", Type::A, None),
        ("b.example", Type::DS, None),
        ("b.example", Type::ANY, None),
        ("other", Type::A, None),
    ] {
        let found = ask(&cache, name, rr_type, (3, 10));
        assert_eq!(found.map(|(rcode, _)| rcode), expected, "{name} {rr_type}");
    }
}

#[test]
fn records_end_with_their_ttl_and_are_of_one_pool() {
    let cache = cache();
    let of = |source, seconds| ask(&cache, "b.example", Type::A, (source, seconds));
    assert_eq!(of(3, 0), Some((Rcode::NXDOMAIN, 300)));
    assert_eq!(of(3, 299), Some((Rcode::NXDOMAIN, 1)));
    assert_eq!(of(3, 300), None);
    assert_eq!(of(2, 0), None);
}

#[test]
fn records_of_another_pool_replace_those_of_a_zone() {
    let mut cache = cache();
    let alias = nsec("example", "alias.example", "cut.example", &[5]);
    cache.insert(&[soa("example"), alias], 2, at(0));
    assert_eq!(ask(&cache, "b.example", Type::A, (3, 0)), None);
    assert_eq!(ask(&cache, "b.example", Type::A, (2, 0)), None);
    let apex = nsec("example", "example", "alias.example", &[2, 6]);
    cache.insert(&[apex], 2, at(0));
    let found = ask(&cache, "b.example", Type::A, (2, 0));
    assert_eq!(found, Some((Rcode::NXDOMAIN, 300)));
}

#[test]
fn nearest_zone_decides() {
    let mut cache = cache();
    let apex = nsec("cut.example", "cut.example", "m.cut.example", &[2, 6]);
    cache.insert(&[apex, soa("cut.example")], 3, at(0));
    let a = ask(&cache, "a.cut.example", Type::A, (3, 0));
    assert_eq!(a, Some((Rcode::NXDOMAIN, 300)));
    assert_eq!(ask(&cache, "z.cut.example", Type::A, (3, 0)), None);
    // The records of the child are between those of the parent in canonical order.
    let e = ask(&cache, "e.example", Type::A, (3, 0));
    assert_eq!(e, Some((Rcode::NXDOMAIN, 300)));
}

#[test]
fn records_for_one_name_are_not_kept() {
    let mut cache = DenialCache::new(64 << 10);
    let compact = nsec("example", "b.example", "!.b.example", &[46]);
    cache.insert(&[soa("example"), compact], 3, at(0));
    cache.insert(&[nsec("none", "b.none", "c.none", &[46])], 3, at(0));
    assert_eq!((cache.len(), cache.bytes(), cache.zones.len()), (0, 0, 0));
}

#[test]
fn memory_is_bounded_and_used_records_stay() {
    let mut cache = DenialCache::new(16 << 10);
    let other = nsec("other", "other", "a.other", &[2, 6]);
    cache.insert(&[soa("other"), other], 3, at(0));
    let apex = nsec("example", "example", "a.example", &[2, 6]);
    cache.insert(&[soa("example"), apex], 3, at(0));
    for number in 0..1_000 {
        let owner = format!("a{number:04}.example");
        let next = format!("a{number:04}-.example");
        let record = nsec("example", &owner, &next, &[1]);
        cache.insert(&[record], 3, at(0));
        assert!(cache.bytes() <= 16 << 10);
        let name = format!("a{number:04}!.example");
        let _ = ask(&cache, &name, Type::A, (3, 0));
    }
    assert!(cache.len() > 20, "{}", cache.len());
    let zones: Vec<&[u8]> = cache.zones.iter().map(Zone::key).collect();
    assert_eq!(zones, [b"example\0"], "the records of `other` are not used");
    let bytes: usize = cache.zones.iter().map(Zone::bytes_in_full).sum();
    assert_eq!(cache.bytes(), bytes);
    cache.len_max = 0;
    cache.insert(&[nsec("example", "b.example", "c.example", &[1])], 3, at(0));
    assert_eq!((cache.len(), cache.bytes(), cache.zones.len()), (0, 0, 0));
}

#[test]
fn keys_have_the_canonical_order_of_names() {
    use crate::wire::canonical::compare_names;
    let names = [
        "", "a", "a.a", "b.a", "!.a", "!a.a", "\u{1}.a", "\u{1}!.a", "-.a", "aa", "aa.aa", "b",
        "a.b", "*.b", "z.b", "z.z.b", "za.b", "\u{1}", "!",
    ];
    for one in names {
        for other in names {
            let (one, other) = (wire(one), wire(other));
            let (one_key, other_key) = (SortKey::of(&one), SortKey::of(&other));
            let order = one_key.as_bytes().cmp(other_key.as_bytes());
            assert_eq!(order, compare_names(&one, &other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn response_that_is_too_long_is_truncated() {
    let cache = cache();
    let question = [&wire("b.example")[..], &[0, 1, 0, 1]].concat();
    let question = Question::parse(&question, 0).unwrap();
    let denial = cache.deny(question, 3, 3_600, at(0)).unwrap();
    let whole = denial.to_message(question, true);
    for len_max in [whole.len(), whole.len() - 1, 64, 12] {
        let asked = Asked {
            id: 0,
            flags: Flags::AD,
            question: Some(question),
            opt: None,
            len_max,
        };
        let mut out = b"before".to_vec();
        denial.write(&mut out, &asked, true);
        let message = Message::parse(&out[6..]).unwrap();
        let is_whole = len_max == whole.len();
        assert_eq!(message.header().flags.contains(Flags::TC), !is_whole);
        assert_eq!(out[6..] == whole, is_whole);
        assert!(out.len() - 6 <= len_max.max(HEADER_LEN + question.as_bytes().len()));
    }
}

#[test]
fn records_with_another_hash_replace_those_of_a_zone() {
    let mut cache = cache();
    let nsec3 = |iterations: u8| {
        let data = [
            &[1, 0, 0, iterations, 0, 20][..],
            &[u8::MAX; 20],
            &[0, 1, 0],
        ]
        .concat();
        let owner = format!("{}.example", "0".repeat(32));
        record("example", &owner, Type::NSEC3, &data)
    };
    cache.insert(&[nsec3(0)], 3, at(0));
    assert_eq!(cache.len(), 5, "a zone needs its SOA record");
    for iterations in [0, 0, 1] {
        cache.insert(&[soa("example"), nsec3(iterations)], 3, at(0));
        assert_eq!(cache.len(), 1, "{iterations}");
    }
    assert_eq!(ask(&cache, "b.example", Type::A, (3, 0)), None);
}
