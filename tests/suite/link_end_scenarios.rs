//! Scenarios in simulated time of upstreams that end the connection on certain questions: a worker
//! that crashes on a name, or a middlebox that ends connections on one.

use std::time::Duration;

use dotproxy::base::failure::FailureKind;

use crate::support::scripted_upstreams::{
    Behaviour, Event, GOOD, Response, World, at, failed, slower_than,
};

/// Returns an upstream that ends the connection in this way, this number of milliseconds after a
/// query for a name that starts with "bad", and answers others after 30 ms.
fn ends_on_bad(kind: FailureKind, milliseconds: u64) -> Behaviour {
    Behaviour::EndsOnBad {
        kind,
        after: Duration::from_millis(milliseconds),
        takes: Duration::from_millis(30),
    }
}

/// Returns a proxy with upstreams of these kinds at 192.0.2.1 and up.
fn world(scheme: &str, policy: &str, behaviours: &[Behaviour]) -> World {
    let mut arguments = vec![format!("--policy={policy}")];
    let suffix = if scheme == "tls" {
        ""
    } else {
        ",domain=example"
    };
    for host in 1..=behaviours.len() {
        arguments.push(format!("-u{scheme}://192.0.2.{host}{suffix}"));
    }
    let mut world = World::started(&arguments);
    for (host, behaviour) in (1..).zip(behaviours) {
        world.set_behaviour(host, *behaviour);
    }
    world
}

/// Returns the responses to names that do not start with "bad", asked for after this time.
fn others_after(world: &World, seconds: f64) -> Vec<&Response> {
    let others = world.responses.iter();
    let others = others.filter(|r| !r.name.starts_with("bad") && r.asked_at >= at(seconds));
    others.collect()
}

/// Returns the number of queries to `host` for names that start with `stem`.
fn sent_of(world: &World, host: u8, stem: &str) -> usize {
    let sent = world.questions.iter();
    sent.filter(|(to, question)| *to == host && question.starts_with(stem))
        .count()
}

const KINDS: [FailureKind; 4] = [
    FailureKind::Closed,
    FailureKind::Protocol,
    FailureKind::Http2,
    // A record that cannot be decrypted.
    FailureKind::Tls,
];

#[test]
fn question_that_ends_connections_fails_no_other_query() {
    for scheme in ["tls", "tcp"] {
        for kind in KINDS {
            for milliseconds in [2, 25, 45, 400] {
                let ending = ends_on_bad(kind, milliseconds);
                let mut world = world(scheme, "fastest", &[ending]);
                world.ask_names("www", 1, 0.0, 600, 0.01);
                world.plan(at(1.0), Event::Query("bad.example"));
                world.run("");
                let case = format!("{scheme}, {kind:?}, {milliseconds} ms");
                let others = others_after(&world, 0.0);
                assert_eq!(failed(&others), 0, "{case}");
                let end = Duration::from_millis(150 + 2 * milliseconds).as_secs_f64();
                assert_eq!(slower_than(&others, end), 0, "{case}");
                // The end of the second connection leads to the question.
                let late = others_after(&world, 1.0 + 2.0 * end);
                assert_eq!(slower_than(&late, 0.07), 0, "{case}");
                let sent = sent_of(&world, 1, "bad");
                assert!((3..=4).contains(&sent), "{case}: {sent}");
                assert_eq!(
                    world.proxy.counters().failure(kind),
                    u64::try_from(sent).unwrap(),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn question_that_ended_connections_starts_alone_the_next_time() {
    for kind in KINDS {
        for count in [1, 2] {
            let behaviours = [ends_on_bad(kind, 2); 2];
            let mut world = world("tls", "fastest", &behaviours[..count]);
            world.ask_names("www", 1, 0.0, 6_000, 0.01);
            world.ask("bad.example", 0.2, 1.0, 60.0);
            world.run("");
            assert_eq!(failed(&others_after(&world, 0.0)), 0, "{kind:?}");
            let late = others_after(&world, 5.5);
            assert_eq!(slower_than(&late, 0.035), 0, "{kind:?}, {count} upstreams");
        }
    }
}

#[test]
fn several_questions_that_end_connections_fail_no_other_query() {
    let mut world = world("tls", "fastest", &[ends_on_bad(FailureKind::Closed, 2)]);
    world.ask_names("www", 1, 0.0, 3_000, 0.01);
    world.ask_names("bad", 1, 1.0, 20, 1.0);
    world.ask_names("badly", 1, 10.0, 20, 0.0);
    world.run("");
    let others = others_after(&world, 0.0);
    assert_eq!(failed(&others), 0);
    // Twenty names at the same time look like an outage, after which the proxy waits for 0.5 s.
    assert_eq!(slower_than(&others, 0.6), 0);
}

#[test]
fn new_question_that_ends_connections_each_second_delays_others_for_a_round_trip() {
    for kind in KINDS {
        for (policy, count) in [("fastest", 1), ("ordered", 2)] {
            for (milliseconds, gap) in [(2, 0.02), (30, 0.02), (30, 0.1)] {
                let mut behaviours = vec![ends_on_bad(kind, milliseconds)];
                behaviours.resize(count, GOOD);
                let mut world = world("tls", policy, &behaviours);
                let names = if gap < 0.05 { 3_000 } else { 600 };
                world.ask_names("www", 1, 0.0, names, gap);
                world.ask_names("bad", 1, 1.01, 58, 1.0);
                world.run("");
                let others = others_after(&world, 0.0);
                let case = format!("{kind:?}, {count} upstreams, {milliseconds} ms, {gap} s");
                assert_eq!(failed(&others), 0, "{case}");
                assert_eq!(slower_than(&others, 0.2), 0, "{case}");
                let late = slower_than(&others, 0.035);
                assert!(
                    late * 5 < others.len(),
                    "{case}: {late} of {}",
                    others.len()
                );
            }
        }
    }
}

#[test]
fn question_that_ends_connections_of_a_slow_upstream_fails_no_other_query() {
    for (takes, gap) in [(400, 0.004), (400, 0.002), (100, 0.001), (30, 0.001)] {
        let ending = Behaviour::EndsOnBad {
            kind: FailureKind::Closed,
            after: Duration::from_millis(2),
            takes: Duration::from_millis(takes),
        };
        let mut world = world("tls", "fastest", &[ending]);
        let count = if gap < 0.002 { 4_000 } else { 2_000 };
        world.ask_names("www", 1, 0.0, count, gap);
        world.ask("bad.example", 1.0, 1.0, 3.0);
        world.run("");
        let others = others_after(&world, 0.0);
        let case = format!("{takes} ms, one query in {gap} s");
        assert_eq!(failed(&others), 0, "{case}");
        assert_eq!(slower_than(&others, 3.0), 0, "{case}");
        let sent = sent_of(&world, 1, "bad");
        assert!(sent < 12, "{case}: {sent}");
    }
}

#[test]
fn unanswered_names_beside_questions_that_end_connections_fail_no_other_query() {
    for upstreams in [1, 2] {
        for (never, bad) in [(40, 3), (40, 9), (60, 9), (10, 20)] {
            let ending = Behaviour::EndsOnBad {
                kind: FailureKind::Closed,
                after: Duration::from_millis(2),
                takes: Duration::from_millis(10),
            };
            let mut world = world("tls", "fastest", &vec![ending; upstreams]);
            world.ask_names("www", 1, 0.0, 240, 0.033);
            world.ask_names("never", 1, 1.0, never, 0.001);
            world.ask_names("bad", 1, 1.2, bad, 0.3);
            world.run("");
            let others = world.responses.iter();
            let others: Vec<&Response> = others
                .filter(|response| response.name.starts_with("www"))
                .collect();
            let case = format!("{upstreams} upstreams, {never} unanswered, {bad} bad");
            assert_eq!((failed(&others), others.len()), (0, 240), "{case}");
        }
    }
}

#[test]
fn question_that_ends_connections_of_the_first_upstream_moves_no_other_query() {
    for kind in KINDS {
        for milliseconds in [2, 45] {
            let behaviours = [ends_on_bad(kind, milliseconds), GOOD];
            let mut world = world("tls", "ordered", &behaviours);
            world.ask_names("www", 1, 0.0, 2_000, 0.01);
            world.ask("bad.example", 2.0, 1.0, 20.0);
            world.run("");
            let case = format!("{kind:?}, {milliseconds} ms");
            let moved = world.questions.iter();
            let moved: Vec<_> = moved
                .filter(|(to, name)| *to == 2 && name.starts_with("www"))
                .collect();
            assert!(moved.is_empty(), "{case}: {moved:?}");
            let all: Vec<_> = world.responses.iter().collect();
            assert_eq!(failed(&all), 0, "{case}");
            let late = others_after(&world, 1.5);
            assert_eq!(slower_than(&late, 0.035), 0, "{case}");
        }
    }
}

#[test]
fn failure_of_a_question_that_ends_connections_is_cached_for_longer_each_time() {
    for kind in KINDS {
        let mut world = world("tls", "fastest", &[ends_on_bad(kind, 2)]);
        world.plan(at(0.0), Event::Query("www.example"));
        world.ask("bad.example", 10.0, 1.0, 71.0);
        world.run("");
        let mut bursts = vec![world.bad_sent_at[0]];
        for sent_at in &world.bad_sent_at {
            if *sent_at - bursts[bursts.len() - 1] > Duration::from_millis(500) {
                bursts.push(*sent_at);
            }
        }
        let gaps = bursts.windows(2).map(|pair| pair[1] - pair[0]);
        let gaps: Vec<u64> = gaps
            .map(|gap| (gap + Duration::from_millis(500)).as_secs())
            .collect();
        assert_eq!(gaps, [1, 2, 4, 8, 16, 30], "{kind:?}");
    }
}

#[test]
fn question_that_ends_connections_sets_no_limit() {
    let mut world = world("tls", "fastest", &[ends_on_bad(FailureKind::Closed, 2)]);
    world.ask_names("www", 1, 0.0, 3_000, 0.01);
    world.ask("bad.example", 1.0, 0.1, 1.1);
    world.run("");
    // The first connection, two that the question ends, those of queries that were on both, and
    // one at the end.
    let handshakes = world.proxy.counters().full_handshakes;
    assert!(handshakes < 20, "{handshakes}");
    assert!(world.links_max < 10, "{}", world.links_max);
}

#[test]
fn upstream_that_ends_connections_on_every_question_is_left() {
    for behaviour in [
        Behaviour::Closes,
        Behaviour::EndsOnBad {
            kind: FailureKind::Closed,
            after: Duration::from_millis(2),
            takes: Duration::from_millis(30),
        },
    ] {
        let mut world = world("tls", "ordered", &[GOOD, GOOD]);
        world.change_behaviour(1, 2.0, behaviour);
        world.ask_names("bad", 1, 0.0, 1_000, 0.01);
        world.run("");
        let all: Vec<_> = world.responses.iter().collect();
        assert_eq!(failed(&all), 0);
        assert_eq!(slower_than(&all, 0.35), 0);
        let late = all.into_iter().filter(|r| r.asked_at > at(3.0));
        assert_eq!(slower_than(&late.collect::<Vec<_>>(), 0.05), 0);
        assert!(world.sent_to(1) < 280, "{}", world.sent_to(1));
    }
}
