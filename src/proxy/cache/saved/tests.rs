use proptest::prelude::*;

use super::*;
use crate::config::CacheSettings;
use crate::proxy::cache::key::CacheKey;
use crate::proxy::cache::testing::{A, AAAA, Answer, Got, PLAIN, Scene, denial, fresh, question};
use crate::proxy::cache::{Kept, Recall};
use crate::wire::edns::ExtendedErrorCode;
use crate::wire::{Rcode, name};

const MINUTE: Duration = Duration::from_secs(60);

fn saved(scene: &Scene) -> Vec<u8> {
    let mut bytes = Vec::new();
    scene.cache.save(scene.now, &mut bytes).unwrap();
    bytes
}

/// Returns a new process with these saved answers, just after its start.
fn restart(bytes: &[u8], elapsed: Option<Duration>, settings: &CacheSettings) -> (Scene, Restored) {
    let mut scene = Scene::with(settings);
    scene.now = Instant::default();
    let restored = scene.cache.restore(&mut &*bytes, elapsed, scene.now);
    (scene, restored.unwrap())
}

fn restarted(before: &Scene, elapsed: Duration) -> Scene {
    let settings = &before.cache.settings;
    restart(&saved(before), Some(elapsed), settings).0
}

fn with_address(name: &str, ttl: u32) -> Answer {
    Answer::new(name, A).with(&[(A, ttl)])
}

#[test]
fn ttls_count_down_while_the_process_is_away() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 300), (A, 400)]));
    scene.wait(20.0);
    let mut later = restarted(&scene, MINUTE);
    assert_eq!(later.get("WWW.example", A), Some(fresh(&[220, 320])));
    later.wait(219.0);
    assert_eq!(later.get("www.example", A), Some(fresh(&[1, 101])));
    later.wait(1.0);
    let stale = later.get("www.example", A).unwrap();
    assert!(!stale.is_fresh && stale.ttls == [30, 30]);
}

#[test]
fn answer_survives_several_restarts() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    for left in [239, 178, 117] {
        scene.wait(0.5);
        // The age is rounded up.
        scene = restarted(&scene, MINUTE);
        assert_eq!(scene.get("www.example", A), Some(fresh(&[left])));
    }
}

#[test]
fn expired_answer_is_stale_and_too_old_one_is_gone() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    let day = Duration::from_secs(86_400);
    let bytes = saved(&scene);
    for (elapsed, expected) in [
        (MINUTE, (1, 0)),
        (5 * MINUTE, (0, 1)),
        (day, (0, 1)),
        (day + 5 * MINUTE, (0, 0)),
        (Duration::MAX, (0, 0)),
    ] {
        let settings = CacheSettings::default();
        let (mut later, restored) = restart(&bytes, Some(elapsed), &settings);
        let (fresh, stale) = expected;
        assert_eq!(restored, Restored { fresh, stale }, "{elapsed:?}");
        let is_fresh = later.get("www.example", A).map(|got| got.is_fresh);
        let is_kept = fresh + stale > 0;
        assert_eq!(is_fresh, is_kept.then_some(fresh > 0), "{elapsed:?}");
    }
    // What is too old at the shutdown is not written.
    scene.wait(86_700.0);
    assert_eq!(saved(&scene), [0; SAVED_HEAD_LEN]);
}

#[test]
fn answers_of_unknown_age_have_just_expired() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    let (mut later, restored) = restart(&saved(&scene), None, &CacheSettings::default());
    assert_eq!(restored, Restored { fresh: 0, stale: 1 });
    later.wait(86_399.0);
    assert!(later.get("www.example", A).is_some_and(|got| !got.is_fresh));
    later.wait(1.0);
    assert_eq!(later.get("www.example", A), None);
}

#[test]
fn denials_cover_the_same_questions_as_before() {
    let mut scene = Scene::new();
    scene.keep(&denial("none.example"));
    scene.keep(&denial("tree.example").flagged(Flags::AD));
    scene.keep(&Answer::new("empty.example", AAAA).with_soa(60, 60));
    let mut later = restarted(&scene, Duration::from_secs(20));
    for name in ["none.example", "tree.example"] {
        for rr_type in [A, AAAA, 65] {
            let nxdomain = Got {
                rcode: Rcode::NXDOMAIN.to_u16(),
                ..fresh(&[40])
            };
            assert_eq!(later.get(name, rr_type), Some(nxdomain));
        }
    }
    assert_eq!(later.get("empty.example", AAAA), Some(fresh(&[40])));
    assert_eq!(later.get("empty.example", A), None);
    assert!(is_denied_above(&later, "below.tree.example"));
    assert!(!is_denied_above(&later, "below.none.example"));
}

fn is_denied_above(scene: &Scene, below: &str) -> bool {
    let bytes = question(below, A);
    let question = Question::parse(&bytes, 0).unwrap();
    let parent = name::suffixes(question.name()).nth(1).unwrap();
    let lookup = CacheLookup::new(parent, PLAIN, &scene.cache.hasher);
    let position = scene.cache.store.find(CacheKey::of_name(parent, lookup));
    let head = scene.cache.store.head(position.unwrap());
    head.marks.contains(Marks::SUBTREE) && scene.cache.store.has_subtree_denials()
}

#[test]
fn variants_extended_errors_and_verdicts_are_kept() {
    let mut scene = Scene::new();
    let answer = with_address("www.example", 300).because(ExtendedErrorCode(4));
    scene.keep(&answer);
    let checked = Variant::of_bits(true, false);
    let secure = with_address("www.example", 200).flagged(Flags::AD);
    assert!(matches!(scene.keep_as(&secure, checked), Kept::Yes(_)));
    let mut later = restarted(&scene, Duration::ZERO);
    let got = later.get("www.example", A).unwrap();
    assert_eq!((got.ttls, got.errors), (vec![300], vec![4]));
    let Recall::Fresh { entry, .. } = later.recall("www.example", A, checked) else {
        panic!("the other variant is kept");
    };
    assert!(later.cache.has_ad(entry));
    assert!(matches!(
        later.recall("www.example", A, Variant::of_bits(true, true)),
        Recall::Nothing
    ));
}

#[test]
fn errors_are_not_saved() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).says(Rcode::SERVFAIL));
    assert!(scene.has("www.example", A));
    assert_eq!(saved(&scene), [0; SAVED_HEAD_LEN]);
}

#[test]
fn present_limits_of_ttls_apply() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    let bytes = saved(&scene);
    let bounds = |ttl_min, ttl_max| CacheSettings {
        ttl_min: Duration::from_secs(ttl_min),
        ttl_max: Duration::from_secs(ttl_max),
        ..CacheSettings::default()
    };
    let (mut shorter, _) = restart(&bytes, Some(Duration::from_secs(20)), &bounds(0, 60));
    assert_eq!(shorter.get("www.example", A), Some(fresh(&[40])));
    // A longer minimum does not revive what has expired.
    let (_, restored) = restart(&bytes, Some(5 * MINUTE), &bounds(600, 1200));
    assert_eq!(restored, Restored { fresh: 0, stale: 1 });
}

#[test]
fn smaller_cache_keeps_the_newest_and_the_used_answers() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..400)
        .map(|number| format!("n{number}.example"))
        .collect();
    for name in &names {
        scene.keep(&with_address(name, 300));
    }
    for name in &names[..20] {
        assert!(scene.has(name, A));
    }
    let settings = CacheSettings {
        size: 200 * 150,
        ..CacheSettings::default()
    };
    let (mut later, _) = restart(&saved(&scene), Some(MINUTE), &settings);
    assert!(later.cache.usage().bytes <= settings.size);
    assert!(names[..20].iter().all(|name| later.has(name, A)));
    assert!(later.has(&names[399], A));
    assert!(!later.has(&names[50], A));
}

#[test]
fn cache_without_memory_takes_nothing() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    let settings = CacheSettings {
        size: 0,
        ..CacheSettings::default()
    };
    let (later, restored) = restart(&saved(&scene), Some(MINUTE), &settings);
    assert_eq!(restored, Restored::default());
    assert_eq!(saved(&later), [0; SAVED_HEAD_LEN]);
}

#[test]
fn bytes_that_were_cut_are_an_error() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    let bytes = saved(&scene);
    for len in 0..bytes.len() {
        let mut other = Scene::new();
        let cut = &mut &bytes[..len];
        let error = other.cache.restore(cut, Some(MINUTE), other.now);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn answer_to_another_question_than_for_data_is_not_restored() {
    let mut scene = Scene::new();
    scene.keep(&with_address("www.example", 300));
    let bytes = saved(&scene);
    let rr_type_at = SAVED_HEAD_LEN + 12 + "_www_example_".len();
    assert_eq!(bytes[rr_type_at..rr_type_at + 2], [0, 1]);
    // Type 0 stands for the denial of all types in the cache; AXFR.
    for rr_type in [[0, 0], [0, 252]] {
        let mut other = bytes.clone();
        // The question, and the record with its compressed name.
        for at in [rr_type_at, rr_type_at + 6] {
            other[at..at + 2].copy_from_slice(&rr_type);
        }
        let (later, restored) = restart(&other, Some(MINUTE), &CacheSettings::default());
        assert_eq!(restored, Restored::default(), "{rr_type:?}");
        assert_eq!(later.cache.usage().entries, 0);
    }
}

proptest! {
    /// Whatever the bytes are, restored answers can be served.
    #[test]
    fn other_bytes_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        elapsed in prop::option::of(0_u64..200_000),
    ) {
        let mut scene = Scene::new();
        scene.keep(&with_address("www.example", 300).because(ExtendedErrorCode(4)));
        scene.keep(&denial("tree.example").flagged(Flags::AD));
        let mut bytes = saved(&scene);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let mut later = Scene::new();
        let elapsed = elapsed.map(Duration::from_secs);
        let restored = later.cache.restore(&mut &*bytes, elapsed, later.now);
        if let Ok(Restored { fresh, stale }) = restored {
            prop_assert_eq!(later.cache.usage().entries, fresh + stale);
        }
        let again = saved(&later);
        let mut last = Scene::new();
        prop_assert!(last.cache.restore(&mut &*again, Some(Duration::ZERO), last.now).is_ok());
    }
}
