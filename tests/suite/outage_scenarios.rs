//! Scenarios in simulated time of what counts as an outage of an upstream, and what ends one.

use dotproxy::base::failure::FailureKind;
use dotproxy::base::time::Instant;
use dotproxy::wire::Rcode;

use crate::support::scripted_upstreams::{
    ANSWERING, Behaviour, Defect, GOOD, Response, World, at, failed, slower_than,
};

const A: u16 = 1;

/// The extended error Network Error (RFC 8914, section 4.24).
const NETWORK_ERROR: u16 = 23;

const UNMATCHED: [Defect; 2] = [Defect::OtherQuestion, Defect::OtherOpcode];

/// Returns a proxy with upstreams of these kinds, in order, at 192.0.2.1 and up.
fn world(scheme: &str, behaviours: &[Behaviour]) -> World {
    let mut arguments = vec!["--policy=ordered".to_owned()];
    let suffix = if scheme == "tls" {
        ""
    } else {
        ",domain=example"
    };
    for (host, _) in (1..).zip(behaviours) {
        arguments.push(format!("-u{scheme}://192.0.2.{host}{suffix}"));
    }
    let mut world = World::started(&arguments);
    for (host, behaviour) in (1..).zip(behaviours) {
        world.set_behaviour(host, *behaviour);
    }
    world
}

/// Schedules queries of one client for this number of new names each second, which are never
/// answered, between two times.
fn flood(world: &mut World, per_second: u32, from: f64, seconds: u32) {
    let gap = 1.0 / f64::from(per_second);
    world.ask_names("flood", A, from, per_second * seconds, gap);
}

/// Returns the responses to names with this stem that were asked for at or after this time.
fn named<'a>(world: &'a World, stem: &str, from: Instant) -> Vec<&'a Response> {
    let responses = world.responses.iter();
    let is_such = |r: &&Response| r.name.starts_with(stem) && r.asked_at >= from;
    responses.filter(is_such).collect()
}

// Silence.

#[test]
fn names_that_are_never_answered_cause_no_outage_of_an_upstream_that_answers_others() {
    for scheme in ["tls", "tcp"] {
        for per_second in [30, 100, 300] {
            let mut world = world(scheme, &[Behaviour::IgnoresFlood]);
            flood(&mut world, per_second, 0.0, 25);
            world.ask_names("www", A, 0.0, 500, 0.05);
            world.run("");
            let case = format!("{scheme}, {per_second} names each second");
            assert_eq!(world.outages, [], "{case}");
            let stalled = world.proxy.counters().failure(FailureKind::Stalled);
            assert_eq!(stalled, 0, "{case}");
            let others = named(&world, "www", at(0.0));
            assert_eq!(failed(&others), 0, "{case}");
            let slow = slower_than(&others, 0.1);
            assert!(slow <= 25, "{case}: {slow}");
        }
    }
}

#[test]
fn names_that_are_never_answered_alone_cause_no_outage_while_probes_are_answered() {
    for scheme in ["tls", "tcp", "udp"] {
        for per_second in [1, 10, 100, 300] {
            let mut world = world(scheme, &[Behaviour::IgnoresFlood]);
            flood(&mut world, per_second, 0.0, 20);
            world.run("");
            let case = format!("{scheme}, {per_second} names each second");
            assert_eq!(world.outages, [], "{case}");
        }
    }
}

#[test]
fn silence_of_an_upstream_amid_unanswered_names_is_an_outage_until_it_answers() {
    for scheme in ["tls", "tcp", "udp"] {
        for silent in [Behaviour::NeverAnswers, Behaviour::DropsPackets] {
            let mut world = world(scheme, &[Behaviour::IgnoresFlood]);
            flood(&mut world, 100, 0.0, 20);
            world.ask_names("www", A, 0.0, 400, 0.05);
            world.change_behaviour(1, 5.0, silent);
            world.change_behaviour(1, 10.0, Behaviour::IgnoresFlood);
            world.run("");
            let case = format!("{scheme}, reads: {}", silent == Behaviour::NeverAnswers);
            // What was lost may count once more, and the next answer ends that.
            let outages = world.outages.len();
            assert!((1..=2).contains(&outages), "{case}: {:?}", world.outages);
            assert_eq!(world.recoveries.len(), outages, "{case}");
            let first = world.outages[0];
            assert!(at(6.0) <= first && first < at(9.0), "{case}: {first:?}");
            let last = world.recoveries[outages - 1];
            assert!(last < at(12.0), "{case}: {last:?}");
            assert_eq!(failed(&named(&world, "www", at(10.0))), 0, "{case}");
        }
    }
}

#[test]
fn unanswered_names_do_not_prolong_an_outage() {
    for scheme in ["tls", "tcp"] {
        let mut world = world(scheme, &[Behaviour::NeverAnswers]);
        world.ask_names("before", A, 0.0, 20, 0.1);
        world.change_behaviour(1, 8.0, Behaviour::IgnoresFlood);
        flood(&mut world, 300, 10.0, 10);
        world.ask_names("www", A, 12.0, 120, 0.05);
        world.run("");
        assert_eq!(world.outages.len(), 1, "{scheme}");
        assert!(world.recoveries[0] < at(12.0), "{scheme}");
        let others = named(&world, "www", at(0.0));
        assert_eq!(failed(&others), 0, "{scheme}");
        let slow = slower_than(&others, 0.1);
        assert!(slow <= 12, "{scheme}: {slow}");
    }
}

// Connections that end before an answer.

#[test]
fn connection_without_an_answer_ends_no_outage() {
    let mut world = world("tls", &[Behaviour::EndsAfterHandshake]);
    world.ask_names("www", A, 0.0, 200, 0.1);
    world.change_behaviour(1, 10.0, GOOD);
    world.run("");
    assert_eq!(world.outages.len(), 1);
    let [recovery] = world.recoveries[..] else {
        panic!("{:?}", world.recoveries);
    };
    assert!(at(10.0) < recovery && recovery < at(12.0), "{recovery:?}");
    assert_eq!(failed(&named(&world, "www", at(12.0))), 0);
}

#[test]
fn first_answer_after_failed_connections_ends_the_outage() {
    for count in [1, 2] {
        let mut world = world("tls", &[Behaviour::Refuses, GOOD][..count]);
        world.ask_names("www", A, 0.0, 100, 0.1);
        world.change_behaviour(1, 5.0, GOOD);
        world.run("");
        assert_eq!((world.outages.len(), world.recoveries.len()), (1, 1));
        assert!(world.recoveries[0] > at(5.0), "{count} upstreams");
        let late = named(&world, "www", at(6.5));
        assert_eq!((failed(&late), slower_than(&late, 0.1)), (0, 0));
    }
}

// Copies of queries that another upstream answers first.

#[test]
fn late_answer_to_a_copy_ends_an_outage() {
    for scheme in ["tls", "tcp", "udp"] {
        for (case, trouble) in [
            ("silent", Behaviour::NeverAnswers),
            ("rejects", Behaviour::Refuses),
            ("says REFUSED", Behaviour::Says(Rcode::REFUSED)),
        ] {
            let mut world = world(scheme, &[trouble, GOOD]);
            world.ask_names("www", A, 0.0, 400, 0.05);
            // The second upstream answers every query first.
            world.change_behaviour(1, 5.0, Behaviour::Takes(3 * ANSWERING));
            world.run("");
            let case = format!("{scheme}, {case}");
            assert_eq!(world.outages.len(), 1, "{case}");
            let [recovery] = world.recoveries[..] else {
                panic!("{case}: {:?}", world.recoveries);
            };
            let is_soon = at(5.0) < recovery && recovery < at(8.0);
            assert!(is_soon, "{case}: {recovery:?}");
            assert!(world.proxy.counters().copies > 0, "{case}");
        }
    }
}

// Replies that do not match their query.

#[test]
fn upstream_whose_replies_match_no_question_is_down_until_one_does() {
    for scheme in ["tls", "tcp"] {
        for defect in UNMATCHED {
            let mut world = world(scheme, &[Behaviour::Defective(defect)]);
            world.ask_names("www", A, 0.0, 200, 0.1);
            world.change_behaviour(1, 10.0, GOOD);
            world.run("");
            let case = format!("{scheme}, {defect:?}");
            assert_eq!(
                (world.outages.len(), world.recoveries.len()),
                (1, 1),
                "{case}"
            );
            assert!(world.outages[0] < at(3.0), "{case}");
            let early = named(&world, "www", at(0.0));
            let early = early.into_iter().filter(|r| r.asked_at < at(9.0));
            let early: Vec<_> = early.collect();
            assert_eq!(failed(&early), early.len(), "{case}");
            // The first of these replies may be exceptions.
            assert!(slower_than(&early, 0.1) <= 3, "{case}");
            let others = early.iter().filter(|r| r.error != Some(NETWORK_ERROR));
            assert!(others.count() <= 3, "{case}");
            assert_eq!(failed(&named(&world, "www", at(12.0))), 0, "{case}");
        }
    }
}

#[test]
fn upstream_whose_replies_match_no_question_delays_no_query_for_long() {
    for scheme in ["tls", "tcp"] {
        for defect in UNMATCHED {
            let mut world = world(scheme, &[Behaviour::Defective(defect), GOOD]);
            world.ask_names("www", A, 0.0, 100, 0.1);
            world.run("");
            let case = format!("{scheme}, {defect:?}");
            assert_eq!(failed(&named(&world, "www", at(0.0))), 0, "{case}");
            assert_eq!(world.outages.len(), 1, "{case}");
            let late = named(&world, "www", at(3.0));
            assert_eq!(slower_than(&late, 0.03), 0, "{case}");
        }
    }
}

#[test]
fn datagram_that_does_not_match_ends_no_attempt() {
    for defect in UNMATCHED {
        let mut world = world("udp", &[Behaviour::DefectiveFirst(defect)]);
        world.ask_names("www", A, 0.0, 100, 0.1);
        world.run("");
        assert_eq!(world.outages, [], "{defect:?}");
        let all = named(&world, "www", at(0.0));
        assert_eq!(
            (failed(&all), slower_than(&all, 0.025)),
            (0, 0),
            "{defect:?}"
        );
        assert_eq!(world.sent_to(1), 100, "{defect:?}");
    }
}
