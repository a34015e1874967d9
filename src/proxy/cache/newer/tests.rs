//! Tests of the removal of older entries.

use std::time::Duration;

use super::*;
use crate::config::CacheSettings;
use crate::proxy::cache::testing::{A, AAAA, Answer, CNAME, PLAIN, Scene, denial};
use crate::proxy::cache::{Kept, Recall};
use crate::wire::edns::ExtendedErrorCode;

/// Returns replies that cannot be cached although they tell that the name exists or does not.
fn replies_not_kept() -> Vec<(&'static str, Answer)> {
    let answer = || Answer::new("www.example", A);
    let denial = || answer().says(Rcode::NXDOMAIN);
    let with_a = |ttl| answer().with(&[(A, ttl)]);
    vec![
        ("TTL 0", with_a(0)),
        ("one TTL of 0", answer().with(&[(A, 60), (A, 0)])),
        ("alias with TTL 0", answer().with(&[(CNAME, 0), (A, 60)])),
        ("too large", answer().with(&[(A, 60); 2_000])),
        ("truncated", with_a(60).flagged(Flags::TC)),
        ("truncated and empty", answer().flagged(Flags::TC)),
        ("alias that leads nowhere", answer().with(&[(CNAME, 60)])),
        (
            "address of another name",
            answer().with(&[(CNAME, 60), (A, 60)]).unrelated(),
        ),
        ("NODATA without SOA", answer()),
        ("NODATA with TTL 0", answer().with_soa(0, 60)),
        ("NODATA with minimum 0", answer().with_soa(60, 0)),
        ("NXDOMAIN without SOA", denial()),
        ("NXDOMAIN with TTL 0", denial().with_soa(0, 0)),
        (
            "validated NXDOMAIN with TTL 0",
            denial().with_soa(0, 0).flagged(Flags::AD),
        ),
        (
            "NXDOMAIN of an alias",
            denial().with(&[(CNAME, 0)]).with_soa(60, 60),
        ),
    ]
}

fn small_cache() -> Scene {
    Scene::with(&CacheSettings {
        size: 100_000,
        ..CacheSettings::default()
    })
}

#[test]
fn reply_that_cannot_be_kept_ends_the_older_answer() {
    let older = [
        Answer::new("www.example", A).with(&[(A, 60)]),
        Answer::new("www.example", A).with_soa(60, 60),
        denial("www.example"),
        denial("www.example").flagged(Flags::AD),
        Answer::new("www.example", A).says(Rcode::SERVFAIL),
        Answer::new("www.example", A).says(Rcode::REFUSED),
    ];
    for (case, newer) in replies_not_kept() {
        for older in &older {
            for age in [0.5, 59.0, 61.0, 1_000.0] {
                let mut scene = small_cache();
                assert!(scene.keep(older));
                scene.wait(age);
                assert!(matches!(scene.keep_as(&newer, PLAIN), Kept::No), "{case}");
                assert_eq!(scene.get("www.example", A), None, "{case}, {older:?}");
            }
        }
    }
}

#[test]
fn maximum_ttl_of_zero_caches_nothing_and_ends_the_older_answer() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    scene.cache.settings.ttl_max = Duration::ZERO;
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    assert_eq!(scene.get("www.example", A), None);
}

#[test]
fn error_ends_no_older_answer() {
    let error = |rcode| Answer::new("www.example", A).says(rcode);
    for reply in [
        error(Rcode::SERVFAIL),
        error(Rcode::REFUSED),
        error(Rcode::FORMERR),
        error(Rcode::NOTIMP),
        error(Rcode::from(9)),
        error(Rcode::NOERROR).extended(1),
        error(Rcode::NXDOMAIN).extended(1),
        error(Rcode::SERVFAIL).because(ExtendedErrorCode::NETWORK_ERROR),
        error(Rcode::SERVFAIL).flagged(Flags::TC),
    ] {
        for age in [0.0, 61.0] {
            let mut scene = Scene::new();
            scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
            scene.keep(&Answer::new("www.example", AAAA).with(&[(AAAA, 60)]));
            scene.wait(age);
            scene.keep(&reply);
            for rr_type in [A, AAAA] {
                let got = scene.get("www.example", rr_type).map(|got| got.rcode);
                assert_eq!(got, Some(0), "{reply:?} after {age} s");
            }
        }
    }
}

#[test]
fn nxdomain_ends_the_answers_for_every_type() {
    let nothing = Answer::new("www.example", 65_280).says(Rcode::NXDOMAIN);
    for denial in [
        nothing.clone().with_soa(60, 60),
        nothing.clone(),
        nothing.clone().with_soa(0, 0).flagged(Flags::AD),
    ] {
        for age in [1.0, 61.0] {
            let mut scene = Scene::new();
            let types = [1, 2, 6, 12, 15, 16, 28, 33, 35, 43, 48, 52, 64, 65, 257];
            let proof = Variant::of_bits(true, false);
            let unchecked = Variant::of_bits(false, true);
            for rr_type in types {
                let answer = Answer::new("www.example", rr_type).with(&[(rr_type, 60)]);
                for variant in [PLAIN, proof, unchecked] {
                    scene.keep_as(&answer, variant);
                }
            }
            scene.wait(age);
            scene.keep(&denial);
            for rr_type in types {
                let got = scene.get("www.example", rr_type).map(|got| got.rcode);
                assert!(got.is_none_or(|rcode| rcode == 3), "{rr_type}: {got:?}");
                let of_proof = scene.recall("www.example", rr_type, proof);
                assert!(matches!(of_proof, Recall::Nothing), "{rr_type}");
                // Validated and unvalidated answers do not affect each other.
                let of_unchecked = scene.recall("www.example", rr_type, unchecked);
                assert!(!matches!(of_unchecked, Recall::Nothing), "{rr_type}");
            }
        }
    }
}

#[test]
fn answer_ends_denials_of_its_name_and_of_the_names_above() {
    let proof = Variant::of_bits(true, false);
    for answer in [
        Answer::new("a.no.example", AAAA).with(&[(AAAA, 60)]),
        Answer::new("a.no.example", AAAA).with(&[(AAAA, 0)]),
        Answer::new("a.no.example", AAAA),
        Answer::new("a.no.example", AAAA)
            .says(Rcode::NXDOMAIN)
            .with(&[(CNAME, 60)])
            .with_soa(60, 60),
    ] {
        for variant in [PLAIN, proof] {
            let mut scene = Scene::new();
            scene.keep(&denial("no.example").flagged(Flags::AD));
            scene.keep(&denial("other.example").flagged(Flags::AD));
            scene.keep(&denial("a.no.example"));
            scene.keep_as(&denial("a.no.example"), proof);
            scene.wait(1.0);
            scene.keep_as(&answer, variant);
            for (name, variant) in [("a.no.example", PLAIN), ("a.no.example", proof)] {
                let known = scene.recall(name, 16, variant);
                assert!(matches!(known, Recall::Nothing), "{answer:?}");
            }
            assert!(!scene.has("no.example", A), "{answer:?}");
            assert!(scene.has("other.example", A));
        }
    }
}

#[test]
fn answer_with_one_do_ends_stale_answers_with_the_other() {
    let proof = Variant::of_bits(true, false);
    let unchecked = Variant::of_bits(false, true);
    let answer = |ttl| Answer::new("www.example", A).with(&[(A, ttl)]);
    for ttl in [0, 60] {
        for (age, is_known) in [(59.0, true), (60.0, false)] {
            let mut scene = Scene::new();
            scene.keep(&answer(60));
            scene.keep_as(&answer(60), unchecked);
            scene.wait(age);
            scene.keep_as(&answer(ttl), proof);
            assert_eq!(scene.entry("www.example", A).is_some(), is_known);
            let of_unchecked = scene.recall("www.example", A, unchecked);
            assert!(!matches!(of_unchecked, Recall::Nothing));
        }
    }
    let mut scene = Scene::new();
    scene.keep(&answer(60).says(Rcode::SERVFAIL));
    scene.keep_as(&answer(0), unchecked);
    assert!(scene.has("www.example", A));
    scene.keep_as(&answer(0), proof);
    assert!(
        !scene.has("www.example", A),
        "an answer with the other DO ends the error"
    );
}

#[test]
fn verdict_on_a_name_ends_older_answers() {
    let older = [
        Answer::new("www.example", A).with(&[(A, 60)]),
        Answer::new("www.example", A).with_soa(60, 60),
        denial("www.example"),
    ];
    for code in (5..=12).chain(15..=18).chain([27]) {
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
            for (older, age) in older
                .iter()
                .flat_map(|older| [(older, 59.0), (older, 61.0)])
            {
                let mut scene = Scene::new();
                scene.keep(older);
                scene.wait(age);
                let verdict = Answer::new("www.example", A).says(rcode);
                assert!(
                    scene.keep(&verdict.because(ExtendedErrorCode(code))),
                    "{code}"
                );
                let got = scene.get("www.example", A).unwrap();
                assert_eq!((got.rcode, got.errors), (rcode.to_u16(), vec![code]));
                scene.wait(2.0);
                assert_eq!(scene.get("www.example", A), None, "{code}");
            }
        }
    }
}

#[test]
fn reply_to_a_query_without_a_variant_ends_what_it_contradicts() {
    let older = Answer::new("www.example", A).with(&[(A, 60)]);
    let alive = Answer::new("www.example", 255).with(&[(16, 60)]);
    let gone = alive.clone().says(Rcode::NXDOMAIN).with(&[]);
    let nothing = Answer::new("www.example", 255).says(Rcode::NXDOMAIN);
    let same = Answer::new("www.example", A).with(&[(A, 60)]);
    let apart = |scene: &mut Scene, answer: &Answer, flags: Flags| {
        let bytes = answer.to_bytes();
        let message = Message::parse(&bytes).unwrap();
        let question = message.question().unwrap();
        let now = scene.now;
        scene
            .cache
            .on_uncacheable_reply(question, flags, &message, now);
    };
    for (older, newer, age, is_known) in [
        (&older, &alive, 59.0, true),
        (&older, &gone, 59.0, true),
        (&older, &nothing, 59.0, false),
        (&older, &same, 59.0, true),
        (&older, &same, 61.0, false),
        (&denial("www.example"), &alive, 1.0, false),
        (&denial("www.example"), &nothing, 1.0, true),
        (&older.clone().says(Rcode::SERVFAIL), &same, 0.5, false),
    ] {
        for (flags, ends) in [
            (Flags::RD, true),
            (Flags::default(), false),
            (Flags::RD | Flags::CD, false),
        ] {
            let mut scene = Scene::new();
            scene.keep(older);
            scene.wait(age);
            apart(&mut scene, newer, flags);
            let got = scene.entry("www.example", A);
            assert_eq!(got.is_some(), is_known || !ends, "{older:?}, {newer:?}");
        }
    }
}
