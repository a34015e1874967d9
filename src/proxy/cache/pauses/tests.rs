//! Tests of the pauses between queries upstream for one question.

use std::time::Duration;

use crate::config::CacheSettings;
use crate::proxy::cache::testing::{A, Answer, PLAIN, Scene};
use crate::proxy::cache::{Kept, Recall};
use crate::wire::Rcode;
use crate::wire::edns::ExtendedErrorCode;

/// Returns whether upstream is queried again for a stale answer that is served at once.
fn is_refresh_due(scene: &mut Scene) -> bool {
    match scene.recall("www.example", A, PLAIN) {
        Recall::StaleInUse { is_refresh_due, .. } => is_refresh_due,
        other => panic!("expected a stale answer in use: {other:?}"),
    }
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
        assert_eq!(is_refresh_due(&mut scene), is_due);
        if seconds > 50.0 {
            scene.cache.on_stale_served(entry, scene.now);
        }
    }
    scene.wait(29.0);
    assert!(!is_refresh_due(&mut scene));
}

#[test]
fn stale_answer_in_use_is_asked_for_after_a_recovery() {
    let mut scene = Scene::new();
    scene.keep(&Answer::new("www.example", A).with(&[(A, 60)]));
    scene.wait(60.0);
    scene.cache.on_recovery(scene.now);
    scene.wait(5.0);
    let (entry, _) = scene.entry("www.example", A).unwrap();
    scene.cache.on_stale_served(entry, scene.now);
    assert!(!is_refresh_due(&mut scene));
    scene.wait(5.0);
    scene.cache.on_recovery(scene.now);
    assert!(is_refresh_due(&mut scene));
    scene.wait(1.0);
    scene.cache.on_stale_served(entry, scene.now);
    assert!(!is_refresh_due(&mut scene));
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
    assert!(!is_refresh_due(&mut scene));
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
fn failed_prefetch_is_repeated_after_a_pause_that_grows() {
    let mut scene = Scene::with(&CacheSettings {
        prefetch: true,
        stale_max: Duration::from_secs(3600),
        ..CacheSettings::default()
    });
    scene.keep(&Answer::new("www.example", A).with(&[(A, 100)]));
    let (entry, _) = scene.entry("www.example", A).unwrap();
    let is_due = |scene: &mut Scene| match scene.recall("www.example", A, PLAIN) {
        Recall::Fresh { is_refresh_due, .. } => is_refresh_due,
        other => panic!("{other:?}"),
    };
    scene.wait(90.0);
    // Each prefetch waits for its answer: 2 s, then 4 s.
    for (failed_after, retried_after) in [(2.0, 2.0), (4.0, 0.0)] {
        assert!(is_due(&mut scene));
        scene.cache.on_prefetch(entry);
        scene.wait(failed_after);
        scene.cache.pause_refresh(entry.position, scene.now);
        scene.wait(0.5);
        assert!(!is_due(&mut scene));
        scene.wait(retried_after);
    }
    // The answer expires within the second pause.
    scene.wait(2.0);
    let recall = scene.recall("www.example", A, PLAIN);
    let is_in_use = matches!(
        recall,
        Recall::StaleInUse {
            is_refresh_due: false,
            ..
        }
    );
    assert!(is_in_use, "{recall:?}");
    scene.wait(5.0);
    let recall = scene.recall("www.example", A, PLAIN);
    assert!(matches!(recall, Recall::Stale(_)), "{recall:?}");
}
