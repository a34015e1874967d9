//! Tests of the cache through its interface.

use std::collections::HashMap;

use proptest::prelude::*;

use super::testing::{Answer, question};
use super::*;
use crate::wire::Flags;
use crate::wire::edns::{DO, OptWriter, OptionCode};
use crate::wire::response::AskedOpt;

const A: u16 = 1;
const AAAA: u16 = 28;
/// A type with data of any length.
const OPAQUE: u16 = 65_280;

const PLAIN: Variant = Variant::of_bits(false, false);

struct Scene {
    cache: Cache,
    now: Instant,
}

/// The answer that a client gets.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    is_fresh: bool,
    rcode: u16,
    ttls: Vec<u32>,
    /// Codes of the extended errors.
    errors: Vec<u16>,
}

impl Scene {
    fn new() -> Self {
        Self::with(&CacheSettings::default())
    }

    fn with(settings: &CacheSettings) -> Self {
        let timeouts = Timeouts::for_query(Timeouts::QUERY);
        Self {
            cache: Cache::new(settings, &timeouts, &[5; SEED_LEN]),
            now: Instant::default() + Duration::from_secs(100),
        }
    }

    fn forget(&mut self) {
        let (settings, timeouts) = (self.cache.settings, self.cache.timeouts);
        self.cache.reconfigure(&settings, &timeouts);
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn lookup(&self, question: Question<'_>, variant: Variant) -> CacheLookup {
        CacheLookup::new(question.name(), variant, &self.cache.hasher)
    }

    fn keep_as(&mut self, answer: &Answer, variant: Variant) -> Kept {
        let bytes = answer.to_bytes();
        let message = Message::parse(&bytes).unwrap();
        let question = message.question().unwrap();
        let lookup = self.lookup(question, variant);
        self.cache.keep(question, lookup, &message, self.now)
    }

    fn keep(&mut self, answer: &Answer) -> bool {
        matches!(self.keep_as(answer, PLAIN), Kept::Yes(_))
    }

    fn recall(&mut self, name: &str, rr_type: u16, variant: Variant) -> Recall {
        let bytes = question(name, rr_type);
        let question = Question::parse(&bytes, 0).unwrap();
        let lookup = self.lookup(question, variant);
        self.cache.recall(question, lookup, self.now)
    }

    fn entry(&mut self, name: &str, rr_type: u16) -> Option<(Entry, bool)> {
        match self.recall(name, rr_type, PLAIN) {
            Recall::Fresh { entry, .. } | Recall::Failed(entry) => Some((entry, true)),
            Recall::Stale(entry) | Recall::StaleInUse { entry, .. } => Some((entry, false)),
            Recall::Nothing => None,
        }
    }

    fn has(&mut self, name: &str, rr_type: u16) -> bool {
        self.entry(name, rr_type).is_some_and(|(_, fresh)| fresh)
    }

    fn response(&self, entry: Entry, name: &str, rr_type: u16, len_max: usize) -> Vec<u8> {
        let bytes = question(name, rr_type);
        let asked = Asked {
            id: 0x4711,
            flags: Flags::RD,
            question: Question::parse(&bytes, 0).ok(),
            opt: Some(AskedOpt {
                flags: 0,
                keepalive: None,
                cookie: None,
                is_padded: false,
            }),
            len_max,
        };
        let mut out = b"before".to_vec();
        self.cache.write(entry, &asked, &mut out);
        out.split_off(6)
    }

    fn get(&mut self, name: &str, rr_type: u16) -> Option<Got> {
        let (entry, is_fresh) = self.entry(name, rr_type)?;
        let bytes = self.response(entry, name, rr_type, 1232);
        let message = Message::parse(&bytes).unwrap();
        let asked = question(name, rr_type);
        assert_eq!(message.header().id, 0x4711);
        assert_eq!(message.question().unwrap().as_bytes(), asked);
        let options = message.opt().unwrap().options();
        let errors = options.map(|option| {
            assert_eq!(
                option.code,
                OptionCode::EXTENDED_ERROR,
                "options of another hop are not cached"
            );
            u16::from_be_bytes([option.data[0], option.data[1]])
        });
        let records = message.answers().chain(message.authorities());
        Some(Got {
            is_fresh,
            rcode: message.header().flags.rcode().to_u16(),
            ttls: records.map(|record| record.ttl(&bytes)).collect(),
            errors: errors.collect(),
        })
    }
}

fn fresh(ttls: &[u32]) -> Got {
    Got {
        is_fresh: true,
        rcode: 0,
        ttls: ttls.to_vec(),
        errors: Vec::new(),
    }
}

fn denial(name: &str) -> Answer {
    Answer::new(name, A).says(Rcode::NXDOMAIN).with_soa(60, 60)
}

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
    assert!(scene.cache.store.has_below());
    assert_eq!(scene.get("no.example", AAAA).unwrap().rcode, 3);
    scene.wait(60.0);
    assert_eq!(above(&mut scene, "a.no.example", PLAIN, true), None);
    scene.keep(&Answer::new("no.example", A).with(&[(A, 60)]));
    assert!(!scene.cache.store.has_below());
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
fn stale_answer_in_use_is_served_at_once_and_asked_for_every_30_seconds() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    scene.wait(60.0);
    let Recall::Stale(entry) = scene.recall("www.example", A, PLAIN) else {
        panic!("an expired answer is stale");
    };
    scene.cache.on_stale_served(entry, scene.now);
    for (seconds, is_due) in [(29.0, false), (1.0, true), (100.0, true)] {
        scene.wait(seconds);
        let Recall::StaleInUse {
            entry,
            is_refresh_due,
        } = scene.recall("www.example", A, PLAIN)
        else {
            panic!("a stale answer in use is served at once");
        };
        assert_eq!(is_refresh_due, is_due);
        if seconds > 50.0 {
            scene.cache.on_stale_served(entry, scene.now);
        }
    }
    scene.wait(29.0);
    let again = scene.recall("www.example", A, PLAIN);
    assert!(matches!(
        again,
        Recall::StaleInUse {
            is_refresh_due: false,
            ..
        }
    ));
}

#[test]
fn stale_answer_in_use_is_asked_for_after_a_recovery() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    scene.wait(60.0);
    scene.cache.on_recovery(scene.now);
    scene.wait(5.0);
    let (entry, _) = scene.entry("www.example", A).unwrap();
    let is_due = |scene: &mut Scene| match scene.recall("www.example", A, PLAIN) {
        Recall::StaleInUse { is_refresh_due, .. } => is_refresh_due,
        other => panic!("{other:?}"),
    };
    scene.cache.on_stale_served(entry, scene.now);
    assert!(!is_due(&mut scene));
    scene.wait(5.0);
    scene.cache.on_recovery(scene.now);
    assert!(is_due(&mut scene));
    scene.wait(1.0);
    scene.cache.on_stale_served(entry, scene.now);
    assert!(!is_due(&mut scene));
}

#[test]
fn error_is_cached_for_longer_each_time_and_never_served_stale() {
    let mut scene = Scene::new();
    let error = Answer::new("www.example", A)
        .says(Rcode::SERVFAIL)
        .because(ExtendedErrorCode::NETWORK_ERROR);
    for lifetime in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        assert!(scene.keep(&error));
        let got = scene.get("www.example", A).unwrap();
        assert_eq!((got.rcode, got.errors), (2, vec![23]));
        scene.wait(lifetime - 1.0);
        assert!(scene.has("www.example", A) || lifetime < 2.0);
        scene.wait(1.0);
        assert_eq!(scene.get("www.example", A), None);
    }
    // After a long time, or after an answer, the pause of an error starts again at one second.
    scene.wait(60.0);
    scene.keep(&error);
    scene.wait(1.0);
    assert_eq!(scene.get("www.example", A), None);
    scene.keep(&error);
    scene.keep(&Answer::new("www.example", A).with(&[(A, 0)]));
    scene.cache.on_recovery(scene.now);
    assert_eq!(scene.get("www.example", A), None);
}

#[test]
fn error_does_not_replace_an_answer() {
    let mut scene = Scene::new();
    let error = Answer::new("www.example", A).says(Rcode::SERVFAIL);
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    for is_fresh in [true, false] {
        let Kept::Previous(entry) = scene.keep_as(&error, PLAIN) else {
            panic!("the cached answer is better than an error");
        };
        assert_eq!(entry.is_stale(), !is_fresh);
        assert_eq!(scene.get("www.example", A).map(|got| got.rcode), Some(0));
        scene.wait(60.0);
    }
}

#[test]
fn error_before_the_expiry_of_an_answer_does_not_put_it_in_use_as_stale() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    let error = Answer::new("www.example", A).says(Rcode::SERVFAIL);
    scene.keep_as(&error, PLAIN);
    scene.wait(60.0);
    // A client that asks now waits for upstream first.
    assert!(matches!(
        scene.recall("www.example", A, PLAIN),
        Recall::Stale(_)
    ));
    scene.keep_as(&error, PLAIN);
    let in_use = scene.recall("www.example", A, PLAIN);
    assert!(matches!(
        in_use,
        Recall::StaleInUse {
            is_refresh_due: false,
            ..
        }
    ));
}

#[test]
fn answer_in_demand_is_prefetched_once() {
    let settings = CacheSettings {
        prefetch: true,
        ..CacheSettings::default()
    };
    let mut scene = Scene::with(&settings);
    for name in ["often.example", "seldom.example"] {
        scene.keep(&Answer::new(name, A).with(&[(A, 100)]));
    }
    scene.entry("often.example", A);
    scene.wait(89.0);
    let is_ending = |scene: &mut Scene, name: &str| match scene.recall(name, A, PLAIN) {
        Recall::Fresh {
            entry,
            is_refresh_due,
        } => is_refresh_due.then_some(entry),
        other => panic!("{other:?}"),
    };
    assert!(is_ending(&mut scene, "often.example").is_none());
    scene.wait(1.0);
    assert!(is_ending(&mut scene, "seldom.example").is_none());
    let entry = is_ending(&mut scene, "often.example").unwrap();
    scene.cache.on_prefetch(entry);
    assert!(is_ending(&mut scene, "often.example").is_none());
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

const CNAME: u16 = 5;

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
        scene.cache.on_reply_apart(question, flags, &message, now);
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
