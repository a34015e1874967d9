//! Scenarios in simulated time of upstreams with `fallback`.

use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::wire::Rcode;

use crate::support::scripted_upstreams::{Behaviour, Event, GOOD, World, at, failed, slower_than};

const POLICIES: [&str; 3] = ["fastest", "ordered", "round-robin"];

/// Returns a proxy in front of two upstreams, and of a fallback that comes first in the options.
fn world(policy: &str, behaviours: [Behaviour; 3]) -> World {
    let policy = format!("--policy={policy}");
    let fallback = "-u192.0.2.9,fallback";
    let mut world = World::started(&[&policy, fallback, "-u192.0.2.1", "-u192.0.2.2"]);
    for (host, behaviour) in [1, 2, 9].into_iter().zip(behaviours) {
        world.set_behaviour(host, behaviour);
    }
    world
}

#[test]
fn fallback_gets_no_query_while_another_upstream_is_usable() {
    let slow = Behaviour::Takes(Duration::from_millis(80));
    let error = Behaviour::SaysOfBad(Rcode::SERVFAIL);
    for policy in POLICIES {
        for (first, second) in [
            (slow, slow),
            (error, error),
            (GOOD, GOOD),
            (Behaviour::NeverAnswers, slow),
            (slow, Behaviour::Refuses),
            (GOOD, Behaviour::Says(Rcode::REFUSED)),
        ] {
            let mut world = world(policy, [first, second, GOOD]);
            for name in ["a.example", "b.example", "bad.example", "slow.example"] {
                world.ask(name, 5.0, 0.0, 60.0);
            }
            world.run("a.example");
            assert_eq!(world.sent_to(9), 0, "{policy} {first:?} {second:?}");
        }
    }
}

/// The names before, during and after the outage of the upstreams that are no fallback.
const BEFORE: [&str; 5] = [
    "a.example",
    "b.example",
    "c.example",
    "d.example",
    "e.example",
];
const DURING: [&str; 5] = [
    "f.example",
    "g.example",
    "h.example",
    "i.example",
    "j.example",
];
const AFTER: [&str; 5] = [
    "k.example",
    "l.example",
    "m.example",
    "n.example",
    "o.example",
];

#[test]
fn fallback_serves_while_no_other_upstream_is_usable() {
    for policy in POLICIES {
        for failing in [
            Behaviour::Refuses,
            Behaviour::NeverAnswers,
            Behaviour::DropsPackets,
            Behaviour::Closes,
            Behaviour::EndsAfterHandshake,
            Behaviour::Impostor,
            Behaviour::Says(Rcode::SERVFAIL),
            Behaviour::Says(Rcode::REFUSED),
        ] {
            let mut world = world(policy, [GOOD, GOOD, GOOD]);
            for host in [1, 2] {
                world.plan(at(20.0), Event::BehaviourChange(host, failing));
                world.plan(at(60.0), Event::BehaviourChange(host, GOOD));
            }
            for (names, from, to) in [
                (BEFORE, 0.0, 19.0),
                (DURING, 20.0, 60.0),
                (AFTER, 66.0, 90.0),
            ] {
                for name in names {
                    world.ask(name, 1.0, from, to);
                }
            }
            let scene = format!("{policy} {failing:?}");
            let mut failures = 0;
            for name in DURING {
                let responses = world.run(name);
                failures += failed(&responses);
                assert_eq!(slower_than(&responses, 4.5), 0, "{scene} {name}");
            }
            // The queries that show the outage.
            assert!(failures <= 10, "{scene}: {failures}");
            let to_fallback = |names: &[&str]| {
                let questions = world.questions.iter().filter(|(host, _)| *host == 9);
                let is_one = |question: &str| names.iter().any(|name| question.starts_with(name));
                questions.filter(|(_, question)| is_one(question)).count()
            };
            let used = [&BEFORE, &DURING, &AFTER].map(|names| to_fallback(names));
            assert_eq!(used[0], 0, "{scene}");
            assert!(used[1] >= 190, "{scene}: {used:?}");
            assert!(used[2] <= 20, "{scene}: {used:?}");
        }
    }
}

#[test]
fn queries_wait_for_the_fallback_while_connections_hang() {
    for policy in POLICIES {
        let hangs = Behaviour::DropsPackets;
        let mut world = world(policy, [hangs, hangs, GOOD]);
        world.connect_at_start();
        for name in DURING {
            world.ask(name, 2.0, 0.1, 15.0);
        }
        for name in DURING {
            let responses = world.run(name);
            assert_eq!(failed(&responses), 0, "{policy} {name}");
            assert_eq!(slower_than(&responses, 4.5), 0, "{policy} {name}");
        }
    }
}

#[test]
fn fallback_that_is_not_in_use_is_connected_to_and_gets_no_query() {
    let mut world = world("fastest", [GOOD, GOOD, Behaviour::Refuses]);
    world.change_behaviour(9, 100.0, GOOD);
    world.change_behaviour(9, 400.0, Behaviour::Refuses);
    for name in BEFORE {
        world.ask(name, 1.0, 0.0, 1_000.0);
    }
    world.run(BEFORE[0]);
    let within = |times: &[Instant], expected: &[(f64, f64)]| {
        let is_in =
            |(time, (from, to)): (&Instant, &(f64, f64))| (at(*from)..at(*to)).contains(time);
        times.len() == expected.len() && times.iter().zip(expected).all(is_in)
    };
    let (outages, recoveries) = (&world.outages, &world.recoveries);
    assert!(
        within(outages, &[(0.0, 1.0), (400.0, 701.0)]),
        "{outages:?}"
    );
    assert!(within(recoveries, &[(100.0, 131.0)]), "{recoveries:?}");
    // The probe that ended the outage.
    assert_eq!(world.sent_to(9), 1);
}

#[test]
fn fallback_of_a_plain_domain_serves_while_its_other_server_is_away() {
    const DURING: [&str; 3] = ["a.corp.example", "b.corp.example", "c.corp.example"];
    let (before, after) = ("before.corp.example", "after.corp.example");
    for failing in [
        Behaviour::NeverAnswers,
        Behaviour::DropsPackets,
        Behaviour::Says(Rcode::SERVFAIL),
        Behaviour::Says(Rcode::REFUSED),
    ] {
        let mut world = World::started(&[
            "-u192.0.2.1",
            "-uudp://192.0.2.9,domain=corp.example,fallback",
            "-uudp://192.0.2.2,domain=corp.example",
        ]);
        for host in [1, 2, 9] {
            world.set_behaviour(host, GOOD);
        }
        world.plan(at(20.0), Event::BehaviourChange(2, failing));
        world.plan(at(60.0), Event::BehaviourChange(2, GOOD));
        world.ask(before, 1.0, 0.0, 19.0);
        world.ask(after, 1.0, 70.0, 90.0);
        for name in DURING {
            world.ask(name, 1.0, 20.0, 60.0);
        }
        for name in DURING {
            let responses = world.run(name);
            // The queries that show the outage.
            let failures = failed(&responses);
            assert!(failures <= 5, "{failing:?} {name}: {failures}");
            assert_eq!(slower_than(&responses, 4.5), 0, "{failing:?} {name}");
        }
        let asked = |host: u8, name: &str| {
            let questions = world.questions.iter();
            let questions = questions.filter(|(to, asked)| *to == host && asked.starts_with(name));
            questions.count()
        };
        assert_eq!(asked(9, before), 0, "{failing:?}");
        let used = DURING.map(|name| asked(9, name));
        assert!(used.iter().all(|used| *used >= 30), "{failing:?}: {used:?}");
        // The queries before the recovery is noticed.
        assert!(asked(9, after) <= 5, "{failing:?}: {}", asked(9, after));
        let leaked = world.questions.iter();
        let mut leaked = leaked.filter(|(to, asked)| *to == 1 && asked.contains("corp.example"));
        assert_eq!(
            leaked.next(),
            None,
            "{failing:?}: asked of a public resolver"
        );
    }
}
