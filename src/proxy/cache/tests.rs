//! Tests of the cache through its interface.

use std::collections::HashMap;

use proptest::prelude::*;

use super::testing::{A, AAAA, Answer, Got, OPAQUE, PLAIN, Scene, denial, fresh, question};
use super::*;
use crate::wire::Flags;
use crate::wire::edns::{DO, OptWriter, OptionCode};

#[test]
fn answer_is_fresh_until_its_ttl_ends_and_ttls_count_down() {
    let mut scene = Scene::new();
    assert!(scene.keep(&Answer::new("www.example", A).with(&[(A, 60), (A, 300)])));
    assert_eq!(scene.get("wWw.Example", A), Some(fresh(&[60, 300])));
    scene.wait(10.0);
    assert_eq!(scene.get("www.example", A), Some(fresh(&[50, 290])));
    scene.wait(49.0);
    assert_eq!(scene.get("www.example", A), Some(fresh(&[1, 241])));
    scene.wait(1.0);
    assert!(!scene.has("www.example", A));
    assert!(!scene.has("www.example", AAAA) && !scene.has("ww.example", A));
}

#[test]
fn later_answer_replaces_an_earlier_one() {
    let mut scene = Scene::new();
    for ttls in [&[(A, 60)][..], &[(A, 20), (A, 30)], &[(A, 10)]] {
        scene.keep(&Answer::new("www.example", A).with(ttls));
        let ttls: Vec<u32> = ttls.iter().map(|(_, ttl)| *ttl).collect();
        assert_eq!(scene.get("www.example", A), Some(fresh(&ttls)));
        assert_eq!(scene.cache.usage().entries, 1);
    }
}

#[test]
fn variants_do_not_mix() {
    let mut scene = Scene::new();
    let bits = [(false, false), (true, false), (false, true), (true, true)];
    let variants = bits.map(|(proof, unchecked)| Variant::of_bits(proof, unchecked));
    for variant in variants {
        scene.keep_as(&Answer::new("www.example", A).with(&[(A, 60)]), variant);
        let known =
            variants.map(|v| matches!(scene.recall("www.example", A, v), Recall::Fresh { .. }));
        assert_eq!(known, variants.map(|v| v == variant));
        scene.forget();
    }
}

#[test]
fn variant_is_do_and_cd_and_only_for_plain_queries() {
    let of = |flags: u8, rr_type: u16, class: u16, opt: Option<(u16, &[u16])>| {
        let mut bytes = vec![0, 0, 1, flags, 0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())];
        bytes.extend(question("www.example", rr_type));
        let class_at = bytes.len() - 2;
        bytes[class_at..].copy_from_slice(&class.to_be_bytes());
        if let Some((flags, options)) = opt {
            let mut writer = OptWriter::start(&mut bytes, 1232, 0, flags);
            for option in options {
                writer.option(OptionCode(*option), b"12345678");
            }
            writer.finish();
        }
        Variant::of(&Message::parse(&bytes).unwrap())
    };
    let bits = |proof, unchecked| Some(Variant::of_bits(proof, unchecked));
    assert_eq!(of(0, A, 1, None), bits(false, false));
    assert_eq!(of(0x20, A, 1, Some((0, &[]))), bits(false, false));
    assert_eq!(of(0x10, A, 1, Some((DO, &[]))), bits(true, true));
    // Client subnet, cookie, keepalive and padding are not forwarded.
    assert_eq!(of(0, A, 1, Some((0, &[8, 10, 11, 12]))), bits(false, false));
    assert_eq!(of(0, A, 1, Some((0, &[3]))), None);
    assert_eq!(of(0, A, 1, Some((1, &[]))), None);
    assert_eq!(of(0x40, A, 1, None), None);
    assert_eq!(of(0, A, 3, None), None);
    for rr_type in [0, 41, 128, 250, 251, 252, 255] {
        assert_eq!(of(0, rr_type, 1, None), None, "{rr_type}");
    }
    assert_eq!(of(0, 65_280, 1, None), bits(false, false));
}

#[test]
fn nxdomain_holds_for_all_types() {
    let mut scene = Scene::new();
    scene.keep(&denial("no.example"));
    for rr_type in [A, AAAA, 65] {
        let got = scene.get("NO.example", rr_type).unwrap();
        assert_eq!((got.rcode, got.ttls), (3, vec![60]));
    }
    // An answer for a type ends the denial.
    scene.keep(&Answer::new("no.example", AAAA).with(&[(AAAA, 60)]));
    assert_eq!(scene.get("no.example", AAAA), Some(fresh(&[60])));
    assert!(!scene.has("no.example", A));
    scene.keep(&denial("no.example"));
    assert_eq!(scene.get("no.example", AAAA).unwrap().ttls, [60]);
}

#[test]
fn later_of_two_stale_answers_is_served() {
    for later in [0, 3] {
        let mut scene = Scene::new();
        let positive = Answer::new("www.example", AAAA).with(&[(AAAA, 60)]);
        let denial = denial("www.example");
        let in_order = if later == 0 {
            [&denial, &positive]
        } else {
            [&positive, &denial]
        };
        for answer in in_order {
            scene.keep(answer);
            scene.wait(5.0);
        }
        scene.wait(60.0);
        let got = scene.get("www.example", AAAA).unwrap();
        assert_eq!((got.is_fresh, got.rcode), (false, later));
    }
}

#[test]
fn flags_of_one_response_are_not_cached() {
    let mut scene = Scene::new();
    let answer = Answer::new("www.example", A).with(&[(A, 60)]);
    scene.keep(&answer.flagged(Flags::AA | Flags::Z | Flags::RD | Flags::CD));
    let (entry, _) = scene.entry("www.example", A).unwrap();
    let bytes = scene.response(entry, "www.example", A, 512);
    let flags = Message::parse(&bytes).unwrap().header().flags;
    assert_eq!(flags, Flags::QR | Flags::RA | Flags::RD);
}

#[test]
fn long_answer_leaves_no_memory_behind() {
    let mut scene = Scene::new();
    assert!(scene.keep(&Answer::new("www.example", A).with(&[(A, 60); 1_000])));
    assert!(scene.cache.scratch.capacity() <= SCRATCH_KEPT);
}

#[test]
fn recovery_ends_errors_of_other_questions() {
    let mut scene = Scene::new();
    let error = |name: &str| Answer::new(name, A).says(Rcode::SERVFAIL);
    for lifetime in [1.0, 2.0, 4.0, 0.0] {
        for name in ["a.example", "b.example"] {
            scene.keep(&error(name));
        }
        scene.wait(lifetime);
    }
    assert!(scene.has("a.example", A) && scene.has("b.example", A));
    scene.keep(&error("c.example"));
    assert!(scene.has("b.example", A), "an error is not a recovery");
    scene.keep(&Answer::new("d.example", A).with(&[(A, 60)]));
    assert!(
        scene.has("b.example", A),
        "an answer to a question without an error is not a recovery"
    );
    scene.wait(0.9);
    scene.cache.on_recovery(scene.now);
    assert!(scene.has("b.example", A), "an error holds for a second");
    scene.wait(0.2);
    scene.keep(&Answer::new("a.example", A).with(&[(A, 60)]));
    assert!(scene.has("a.example", A) && !scene.has("b.example", A));
}

#[test]
fn nodata_holds_for_its_type_only() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with_soa(900, 100));
    let got = scene.get("www.example", A).unwrap();
    assert_eq!((got.rcode, got.ttls), (0, vec![100]));
    assert!(!scene.has("www.example", AAAA));
}

#[test]
fn validated_nxdomain_holds_for_all_names_below() {
    let mut scene = Scene::new();
    let above = |scene: &mut Scene, name: &str, variant, is_alike: bool| {
        let bytes = question(name, A);
        let question = Question::parse(&bytes, 0).unwrap();
        let lookup = scene.lookup(question, variant);
        let entry = scene
            .cache
            .denial_above(question, lookup, scene.now, |_| is_alike)?;
        let bytes = scene.response(entry, name, A, 1232);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.header().flags.rcode(), Rcode::NXDOMAIN);
        // The SOA has the denied name as its owner, uncompressed.
        let soa = message.authorities().next().unwrap();
        let owner = question_name("no.example");
        assert_eq!(&bytes[soa.start..soa.fixed], owner);
        Some(soa.ttl(&bytes))
    };
    scene.keep(&denial("no.example"));
    assert_eq!(above(&mut scene, "a.no.example", PLAIN, true), None);
    scene.keep(&denial("no.example").flagged(Flags::AD));
    for name in ["a.no.example", "some.where.below.No.example"] {
        assert_eq!(above(&mut scene, name, PLAIN, true), Some(60));
        assert_eq!(above(&mut scene, name, PLAIN, false), None);
        let proof = Variant::of_bits(true, false);
        assert_eq!(above(&mut scene, name, proof, true), None);
    }
    assert_eq!(above(&mut scene, "yes.example", PLAIN, true), None);
    scene.keep(&denial("else.example"));
    assert_eq!(above(&mut scene, "a.else.example", PLAIN, true), None);
    assert!(scene.cache.store.has_subtree_denials());
    assert_eq!(scene.get("no.example", AAAA).unwrap().rcode, 3);
    scene.wait(60.0);
    assert_eq!(above(&mut scene, "a.no.example", PLAIN, true), None);
    scene.keep(&Answer::new("no.example", A).with(&[(A, 60)]));
    assert!(!scene.cache.store.has_subtree_denials());
}

fn question_name(name: &str) -> Vec<u8> {
    let mut bytes = question(name, A);
    bytes.truncate(bytes.len() - 4);
    bytes
}

#[test]
fn stale_answer_is_available_for_the_maximum_stale_time() {
    let settings = CacheSettings {
        stale_max: Duration::from_secs(1_000),
        ..CacheSettings::default()
    };
    let mut scene = Scene::with(&settings);
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    scene.keep(&denial("no.example"));
    scene.wait(1_059.0);
    for (name, rcode, error) in [("www.example", 0, 3), ("no.example", 3, 19)] {
        let stale = Got {
            is_fresh: false,
            rcode,
            ttls: vec![30],
            errors: vec![error],
        };
        assert_eq!(scene.get(name, A), Some(stale));
    }
    scene.wait(1.0);
    assert_eq!(scene.get("www.example", A), None);
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    assert_eq!(scene.get("www.example", A), Some(fresh(&[60])));
}

#[test]
fn ttls_count_down_while_the_host_is_suspended() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    scene.cache.on_sleep(Duration::from_secs(59));
    assert_eq!(scene.get("www.example", A), Some(fresh(&[1])));
    scene.cache.on_sleep(Duration::from_secs(1));
    assert!(!scene.has("www.example", A));
    scene.cache.on_sleep(Duration::MAX);
    assert_eq!(scene.get("www.example", A), None);
}

#[test]
fn answer_is_truncated_to_the_length_that_the_client_accepts() {
    let mut scene = Scene::new();
    let long = Answer::new("www.example", A).with(&[(A, 60); 100]);
    assert!(scene.keep(&long));
    let (entry, _) = scene.entry("www.example", A).unwrap();
    for (len_max, is_cut) in [(512, true), (1232, true), (65_535, false)] {
        let bytes = scene.response(entry, "www.example", A, len_max);
        assert!(bytes.len() <= len_max);
        let flags = Message::parse(&bytes).unwrap().header().flags;
        assert_eq!(flags.contains(Flags::TC), is_cut);
    }
}

#[test]
fn memory_stays_within_the_budget_and_one_answer_takes_a_small_part() {
    let mut settings = CacheSettings::default();
    for size in [0, 100, 1_000, 10_000, 100_000] {
        settings.size = size;
        let mut scene = Scene::with(&settings);
        assert_eq!(scene.cache.is_on(), size >= 100);
        for number in 0_u16..3_000 {
            let name = format!("{number}.example");
            let answer = Answer::new(&name, OPAQUE).with(&[(OPAQUE, 60)]);
            let len = if number % 50 == 0 {
                20_000
            } else {
                number % 200
            };
            let is_kept = scene.keep(&answer.with_data_of(len));
            assert!(len == 20_000 || is_kept || size <= 1_000);
            assert!(scene.cache.usage().bytes <= size);
        }
        let usage = scene.cache.usage();
        assert!(
            usage.bytes * 10 > size * 8 || size <= 1_000,
            "{usage} of {size}"
        );
        assert!(usage.evicted > 0 || size <= 1_000);
        scene.forget();
        assert_eq!(
            (scene.cache.usage().entries, scene.cache.usage().bytes),
            (0, 0)
        );
        assert!(!scene.has("2999.example", OPAQUE));
    }
}

#[test]
fn used_entries_are_not_evicted() {
    let settings = CacheSettings {
        size: 20_000,
        ..CacheSettings::default()
    };
    let mut scene = Scene::with(&settings);
    let keep = |scene: &mut Scene, name: &str| {
        scene.keep(&Answer::new(name, A).with(&[(A, 3_600)]));
    };
    (0..20).for_each(|number| keep(&mut scene, &format!("popular{number}.example")));
    for number in 0..5_000 {
        keep(&mut scene, &format!("once{number}.example"));
        let name = format!("popular{}.example", number % 20);
        assert!(scene.has(&name, A), "{name}, {number}");
    }
}

#[test]
fn entries_that_are_no_longer_used_are_evicted() {
    let settings = CacheSettings {
        size: 20_000,
        ..CacheSettings::default()
    };
    let mut scene = Scene::with(&settings);
    let keep = |scene: &mut Scene, name: &str| {
        scene.keep(&Answer::new(name, A).with(&[(A, 3_600)]));
    };
    for time in 0..4 {
        let mut missed_last = 0;
        for number in 0..10_000 {
            keep(&mut scene, &format!("once{number}-{time}.example"));
            for popular in 0..if number % 10 == 0 { 40 } else { 0 } {
                let name = format!("popular{popular}-{time}.example");
                if !scene.has(&name, A) {
                    missed_last = number;
                    keep(&mut scene, &name);
                }
            }
        }
        assert!(missed_last < 500, "{missed_last}");
    }
    for (popular, time) in (0..40).flat_map(|popular| [(popular, 0), (popular, 1), (popular, 2)]) {
        assert!(!scene.has(&format!("popular{popular}-{time}.example"), A));
    }
}

proptest! {
    /// Compares the cache with a map that never evicts: every answer of the cache is in the map,
    /// and a cache with enough room has every answer of the map.
    #[test]
    fn cache_agrees_with_a_map(
        steps in proptest::collection::vec(
            (0..30_u16, 0..4_u8, 0..120_u32, 0..300_u16, 0..20_u32),
            1..300,
        ),
        is_small: bool,
    ) {
        let settings = CacheSettings {
            size: if is_small { 4_608 } else { 1024 * 1024 },
            stale_max: Duration::ZERO,
            ..CacheSettings::default()
        };
        let mut scene = Scene::with(&settings);
        let mut model: HashMap<u16, (Instant, u32, u16)> = HashMap::new();
        for (number, action, ttl, len, pause) in steps {
            let name = format!("name{number}.example");
            if action == 0 {
                let answer = Answer::new(&name, OPAQUE)
                    .with(&[(OPAQUE, ttl)])
                    .with_data_of(len);
                let is_kept = scene.keep(&answer);
                prop_assert_eq!(is_kept, ttl > 0);
                model.remove(&number);
                if is_kept {
                    model.insert(number, (scene.now, ttl, len));
                }
            }
            scene.wait(f64::from(pause));
            for number in 0..30 {
                let name = format!("name{number}.example");
                let expected = model.get(&number).and_then(|(at, ttl, len)| {
                    let age = seconds(scene.now - *at);
                    (age < *ttl).then(|| (ttl - age, *len))
                });
                let known = scene.entry(&name, OPAQUE).map(|(entry, is_fresh)| {
                    assert!(is_fresh);
                    let bytes = scene.response(entry, &name, OPAQUE, 65_535);
                    let message = Message::parse(&bytes).unwrap();
                    let record = message.answers().next().unwrap();
                    let len = u16::try_from(record.data(&bytes).len()).unwrap();
                    (record.ttl(&bytes), len)
                });
                prop_assert!(known == expected || is_small && known.is_none());
            }
        }
    }
}
