//! Proofs of a zone that BIND's dnssec-signzone signed in four ways.

use super::{Denials, Proof};
use crate::dnssec::type_bitmap::TypeBitmap;
use crate::wire::question::Type;

/// Each line is a zone, or one of its NSEC or NSEC3 records: type, owner and data.
const RECORDS: &str = include_str!("../../../tests/data/dnssec_denials.txt");
const ZONE: &[u8] = b"\x04zone\x07example\0";

const TXT: Type = Type(16);
const CNAME: Type = Type(5);

struct Zone {
    kind: &'static str,
    records: Vec<(Type, Vec<u8>, Vec<u8>)>,
}

impl Zone {
    fn is_opt_out(&self) -> bool {
        self.kind == "nsec3-opt-out"
    }

    /// Returns the result of every search for a proof about one of [`FOREIGN`].
    fn of_foreign(&self, name: &str) -> Proof {
        // The chain of an opt-out zone does not show its unsigned delegations.
        if self.is_opt_out() && name.ends_with("unsigned") {
            Proof::Insecure
        } else {
            Proof::Missing
        }
    }

    /// Returns the records for which `keeps` holds by their position.
    fn denials(&self, keeps: impl Fn(usize) -> bool) -> Denials<'_> {
        let mut denials = Denials::of(ZONE);
        for (position, (rr_type, owner, data)) in self.records.iter().enumerate() {
            if keeps(position) {
                denials.add(*rr_type, owner, data);
            }
        }
        denials
    }
}

fn zones() -> Vec<Zone> {
    let bytes = |hex: &str| -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let mut zones: Vec<Zone> = Vec::new();
    for line in RECORDS.lines() {
        let mut words = line.split(' ');
        let (word, value) = (words.next().unwrap(), words.next().unwrap());
        let rr_type = match word {
            "zone" => {
                zones.push(Zone {
                    kind: value,
                    records: Vec::new(),
                });
                continue;
            }
            "nsec" => Type::NSEC,
            _ => Type::NSEC3,
        };
        let data = bytes(words.next().unwrap());
        let zone = zones.last_mut().unwrap();
        zone.records.push((rr_type, bytes(value), data));
    }
    assert_eq!(zones.len(), 4);
    zones
}

/// Returns a name below the zone in wire form.
fn below(labels: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels.split('.').filter(|label| !label.is_empty()) {
        name.push(u8::try_from(label.len()).unwrap());
        name.extend(label.bytes());
    }
    name.extend(ZONE);
    name
}

/// Names with records, and the types that they have besides those of DNSSEC.
const EXISTING: &[(&str, &[Type])] = &[
    ("", &[Type::SOA, Type::NS]),
    ("ns", &[Type::A]),
    ("www", &[Type::A]),
    ("WWW", &[Type::A]),
    ("deep.ent", &[Type::A]),
    ("real.wild", &[Type::A]),
    ("*.wild", &[TXT]),
    ("zz", &[Type::A]),
];

/// Names without records that have names below them.
const EMPTY: &[&str] = &["ent", "wild"];

/// Names that do not exist and have no wildcard.
const MISSING: &[&str] = &[
    "a",
    "nothing",
    "zzz",
    "0",
    "below.www",
    "x.deep.ent",
    "x.ent",
    "below.real.wild",
    "a.b.c.d.e.f.g.h.i.j.k",
];

/// Names for which the wildcard stands.
const EXPANDED: &[&str] = &["x.wild", "x.y.wild", "zz.wild"];

/// Names that are not of this zone: below a delegation, or renamed.
const FOREIGN: &[&str] = &[
    "x.signed",
    "ns.signed",
    "x.unsigned",
    "x.renamed",
    "x.y.renamed",
];

#[test]
fn only_names_that_do_not_exist_are_denied() {
    for zone in zones() {
        let denies = |name: &str| zone.denials(|_| true).denies_name(&below(name));
        for name in MISSING {
            let proof = denies(name);
            let is_right = proof == Proof::Secure || zone.is_opt_out() && proof == Proof::Insecure;
            assert!(is_right, "{}: {name}: {proof:?}", zone.kind);
        }
        let existing = EXISTING.iter().map(|(name, _)| name);
        for name in existing.chain(EMPTY).chain(EXPANDED) {
            assert_eq!(denies(name), Proof::Missing, "{}: {name}", zone.kind);
        }
        for name in FOREIGN {
            assert_eq!(denies(name), zone.of_foreign(name), "{}: {name}", zone.kind);
        }
        let mut all = zone.denials(|_| true);
        for other in [&b"\0"[..], b"\x07example\0", b"\x05other\x07example\0"] {
            assert_eq!(all.denies_name(other), Proof::Missing);
        }
    }
}

#[test]
fn only_types_that_do_not_exist_are_denied() {
    let types = [
        Type::A,
        Type::NS,
        Type::SOA,
        Type::AAAA,
        TXT,
        CNAME,
        Type(65),
        Type(999),
    ];
    for zone in zones() {
        let denies =
            |name: &str, rr_type| zone.denials(|_| true).denies_type(&below(name), rr_type);
        for rr_type in types {
            for (name, existing) in EXISTING {
                let expected = if existing.contains(&rr_type) {
                    Proof::Missing
                } else {
                    Proof::Secure
                };
                let proof = denies(name, rr_type);
                assert_eq!(proof, expected, "{}: {name} {rr_type:?}", zone.kind);
            }
            for name in EMPTY {
                assert_eq!(
                    denies(name, rr_type),
                    Proof::Secure,
                    "{}: {name}",
                    zone.kind
                );
            }
            for name in EXPANDED {
                let proof = denies(name, rr_type);
                let is_right = if rr_type == TXT {
                    proof == Proof::Missing
                } else {
                    proof == Proof::Secure || zone.is_opt_out() && proof == Proof::Insecure
                };
                assert!(is_right, "{}: {name} {rr_type:?}: {proof:?}", zone.kind);
            }
            for name in FOREIGN.iter().chain(&["alias"]) {
                let (proof, expected) = (denies(name, rr_type), zone.of_foreign(name));
                assert_eq!(proof, expected, "{}: {name} {rr_type:?}", zone.kind);
            }
            // The records of a delegation are those of the zone below.
            for name in ["signed", "unsigned"] {
                assert_ne!(
                    denies(name, rr_type),
                    Proof::Secure,
                    "{}: {name}",
                    zone.kind
                );
            }
        }
    }
}

#[test]
fn ds_is_denied_by_the_zone_above_only() {
    for zone in zones() {
        let denies = |name: &str| zone.denials(|_| true).denies_type(&below(name), Type::DS);
        assert_eq!(denies(""), Proof::Missing, "{}: apex", zone.kind);
        assert_eq!(denies("signed"), Proof::Missing, "{}", zone.kind);
        let expected = if zone.is_opt_out() {
            Proof::Insecure
        } else {
            Proof::Secure
        };
        assert_eq!(denies("unsigned"), expected, "{}", zone.kind);
        assert_eq!(denies("www"), Proof::Secure, "{}", zone.kind);
    }
}

#[test]
fn unsigned_delegation_is_proven() {
    for zone in zones() {
        let denies = |name: &str| {
            zone.denials(|_| true)
                .denies_signed_delegation(&below(name))
        };
        let expected = if zone.is_opt_out() {
            Proof::Insecure
        } else {
            Proof::Secure
        };
        for name in ["unsigned", "other-unsigned", "far.away.unsigned-below"] {
            assert_eq!(denies(name), expected, "{}: {name}", zone.kind);
        }
        for name in ["", "signed", "www", "ent", "alias"] {
            assert_eq!(denies(name), Proof::Missing, "{}: {name}", zone.kind);
        }
        for name in FOREIGN {
            assert_eq!(denies(name), zone.of_foreign(name), "{}: {name}", zone.kind);
        }
    }
}

#[test]
fn expansion_of_a_wildcard_needs_the_denial_of_the_name() {
    for zone in zones() {
        // The wildcard has two labels below the root besides its own.
        let denies =
            |name: &str, labels| zone.denials(|_| true).denies_expanded(&below(name), labels);
        for name in EXPANDED {
            let proof = denies(name, 3);
            let is_right = proof == Proof::Secure || zone.is_opt_out() && proof == Proof::Insecure;
            assert!(is_right, "{}: {name}: {proof:?}", zone.kind);
        }
        assert_eq!(denies("real.wild", 3), Proof::Missing, "{}", zone.kind);
        // A wildcard above the closest ancestor does not stand for the name.
        assert_eq!(denies("x.wild", 2), Proof::Missing, "{}", zone.kind);
    }
}

#[test]
fn every_record_of_a_proof_is_necessary() {
    for zone in zones() {
        let count = zone.records.len();
        let name = below("nothing");
        let needed = (0..count)
            .filter(|removed| {
                let mut denials = zone.denials(|position| position != *removed);
                denials.denies_name(&name) == Proof::Missing
            })
            .count();
        assert!((1..=3).contains(&needed), "{}: {needed}", zone.kind);
        assert_eq!(zone.denials(|_| false).denies_name(&name), Proof::Missing);
    }
}

#[test]
fn too_many_iterations_are_insecure_and_too_many_hashes_too_costly() {
    let zones = zones();
    let zone = zones.iter().find(|zone| zone.kind == "nsec3").unwrap();
    let mut changed = Zone {
        kind: zone.kind,
        records: zone.records.clone(),
    };
    for (iterations, expected) in [(50, Proof::Missing), (51, Proof::Insecure)] {
        for (_, _, data) in &mut changed.records {
            data[3] = iterations;
        }
        let mut denials = changed.denials(|_| true);
        assert_eq!(denials.denies_name(&below("nothing")), expected);
    }
    for (_, _, data) in &mut changed.records {
        data[3] = 50;
    }
    let deep = "a.".repeat(30);
    let mut denials = changed.denials(|_| true);
    assert_eq!(denials.denies_name(&below(&deep)), Proof::TooCostly);
    let mut denials = zone.denials(|_| true);
    assert_eq!(denials.denies_name(&below(&deep)), Proof::Secure);
}

#[test]
fn records_of_another_hash_or_zone_prove_nothing() {
    let zones = zones();
    let [plain, salted] =
        ["nsec3", "nsec3-salted"].map(|kind| zones.iter().find(|zone| zone.kind == kind).unwrap());
    // The first record decides the parameters, and the others are ignored.
    let mut denials = Denials::of(ZONE);
    let (rr_type, owner, data) = &plain.records[0];
    denials.add(*rr_type, owner, data);
    for (rr_type, owner, data) in &salted.records {
        denials.add(*rr_type, owner, data);
    }
    assert_eq!(denials.denies_name(&below("nothing")), Proof::Missing);
    for zone in &zones {
        let mut denials = Denials::of(b"\x05other\x07example\0");
        for (rr_type, owner, data) in &zone.records {
            denials.add(*rr_type, owner, data);
        }
        let name = b"\x01x\x05other\x07example\0";
        assert_eq!(denials.denies_name(name), Proof::Missing);
        assert_eq!(denials.denies_type(name, Type::A), Proof::Missing);
    }
}

#[test]
fn compact_denial_names_the_type_nxname() {
    let name = below("nothing");
    let next = [&b"\x01\0"[..], &name].concat();
    let bitmap = b"\0\x06\0\0\0\0\0\x03";
    let data = [&next[..], bitmap].concat();
    let mut denials = Denials::of(ZONE);
    denials.add(Type::NSEC, &name, &data);
    assert!(!denials.has_compact_denial(&name));
    assert_eq!(denials.denies_type(&name, Type::A), Proof::Secure);
    let data = [&next[..], b"\0\x11\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\x80"].concat();
    let mut denials = Denials::of(ZONE);
    denials.add(Type::NSEC, &name, &data);
    assert!(denials.has_compact_denial(&name));
    assert_eq!(denials.denies_type(&name, Type::A), Proof::Secure);
}

#[test]
fn bitmap_denies_any_only_if_the_name_has_no_records() {
    let nxname_bitmap = [&[0, 17][..], &[0, 0, 0, 0, 0, 3], &[0; 10], &[0x80]].concat();
    for (bitmap, is_denied) in [
        (&[][..], true),
        (&nxname_bitmap, true),
        (&[0, 1, 0x40], false),
        // An empty non-terminal by compact denial, with NSEC and with NSEC3.
        (&[0, 6, 0, 0, 0, 0, 0, 3], true),
        (&[0, 6, 0, 0, 0, 0, 0, 2], true),
        (&[0, 6, 0x40, 0, 0, 0, 0, 3], false),
        (&[0, 6, 0, 0, 0, 0, 0, 7], false),
        (&[0, 6, 0, 0, 0, 0, 0, 3, 1, 1, 0x40], false),
        (&[1, 6, 0, 0, 0, 0, 0, 3], false),
        (&[0, 6, 0, 0], false),
    ] {
        let types = TypeBitmap::new(bitmap);
        assert_eq!(types.denies(Type::ANY, false), is_denied, "{bitmap:?}");
    }
}
