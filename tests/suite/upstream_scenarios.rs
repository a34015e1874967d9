//! Scenarios in simulated time of upstreams that are slow, silent, down, restarted or overloaded:
//! the number of clients with an answer, and the response times.

use std::time::Duration;

use dotproxy::base::failure::FailureKind;
use dotproxy::wire::Rcode;

use crate::support::Chance;
use crate::support::scripted_upstreams::{
    Behaviour, CONNECTING, Event, GOOD, Response, World, at, failed, slow, slower_than,
};

#[test]
fn unanswered_name_does_not_affect_others() {
    for behaviours in [&[GOOD][..], &[GOOD, GOOD]] {
        let mut world = World::new(behaviours);
        world.ask("slow.example", 1.0 / 6.0, 0.0, 1_200.0);
        world.ask("www.example", 1.0 / 61.0, 1.7, 1_200.0);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        assert_eq!(slower_than(&responses, 0.2), 0);
    }
}

#[test]
fn slow_answer_is_waited_for() {
    for milliseconds in [2_500, 4_500] {
        let mut world = World::new(&[slow(milliseconds)]);
        world.ask("slow.example", 1.0 / 6.0, 0.0, 600.0);
        let responses = world.run("slow.example");
        assert_eq!(failed(&responses), 0, "{milliseconds} ms");
    }
}

#[test]
fn second_upstream_serves_while_the_first_does_not() {
    let firsts = [
        Behaviour::NeverAnswers,
        Behaviour::DropsPackets,
        Behaviour::Refuses,
        Behaviour::Impostor,
    ];
    for (first, policy) in firsts
        .into_iter()
        .flat_map(|f| [(f, "fastest"), (f, "ordered")])
    {
        for gap in [0.01, 0.25, 3.0, 10.0] {
            let mut world = World::with(policy, &[first, GOOD]);
            world.ask("www.example", 1.0 / gap, 0.0, 200.0 * gap);
            let responses = world.run("www.example");
            assert_eq!(failed(&responses), 0);
            assert_eq!(slower_than(&responses, 0.4), 0, "{policy}, every {gap} s");
            let found_out = slower_than(&responses, 0.2);
            assert!(found_out <= 32, "{found_out} waited, every {gap} s");
        }
    }
}

/// Checks two upstreams, of which the first behaves as given: at 300 queries per second for 20 s,
/// every query is answered, half of them within 30 ms and 99 % within 400 ms. Few of the messages
/// upstream are second queries.
fn check_chaos(policy: &str, label: &str, first: Behaviour, turns: &[(f64, Behaviour)]) {
    let mut world = World::with(policy, &[first, GOOD]);
    world.ask("www.example", 300.0, 0.0, 20.0);
    for (time, behaviour) in turns {
        world.change_behaviour(1, *time, *behaviour);
    }
    let mut responses = world.run("www.example");
    responses.sort_by_key(|response| response.waited);
    let waited = |percent: usize| responses[responses.len() * percent / 100].waited;
    let (half, most) = (waited(50), waited(99));
    println!(
        "{policy:12} {label:24} median {half:9.1?} p99 {most:9.1?} slowest {:9.1?}",
        responses.last().expect("the queries have responses").waited
    );
    assert_eq!(failed(&responses), 0, "{label}");
    assert!(half <= Duration::from_millis(30), "{label}: {half:?}");
    assert!(most <= Duration::from_millis(400), "{label}: {most:?}");
    let counters = world.proxy.counters();
    let second = counters.hedges + counters.copies;
    assert!(second * 100 <= 5 * 6_000 + 10_000, "{label}: {second}");
}

#[test]
fn faults_of_one_upstream_are_hidden_by_a_healthy_one() {
    let flaps: Vec<_> = (1..10)
        .map(|n| {
            (
                2.0 * f64::from(n),
                if n % 2 == 1 { Behaviour::Refuses } else { GOOD },
            )
        })
        .collect();
    for policy in ["fastest", "ordered", "round-robin"] {
        check_chaos(policy, "refuses", Behaviour::Refuses, &[]);
        check_chaos(policy, "black hole", Behaviour::DropsPackets, &[]);
        check_chaos(policy, "never answers", Behaviour::NeverAnswers, &[]);
        check_chaos(policy, "is an impostor", Behaviour::Impostor, &[]);
        check_chaos(
            policy,
            "stalls after 100 answers",
            Behaviour::Stalls { after: 100 },
            &[],
        );
        check_chaos(policy, "flaps", GOOD, &flaps);
        check_chaos(
            policy,
            "falls silent",
            GOOD,
            &[(5.0, Behaviour::NeverAnswers)],
        );
    }
    let slow = Behaviour::Takes(Duration::from_millis(300));
    check_chaos("fastest", "300 ms slow", slow, &[]);
    check_chaos("fastest", "becomes slow", GOOD, &[(5.0, slow)]);
}

#[test]
fn fastest_follows_changes_of_speed() {
    let slow = Behaviour::Takes(Duration::from_millis(100));
    let mut world = World::new(&[GOOD, slow, slow]);
    world.ask("www.example", 50.0, 0.0, 200.0);
    world.change_behaviour(1, 50.0, slow);
    world.change_behaviour(3, 100.0, GOOD);
    let responses = world.run("www.example");
    let late: Vec<_> = responses
        .into_iter()
        .filter(|r| r.asked_at > at(150.0))
        .collect();
    assert_eq!(slower_than(&late, 0.05), 0);
}

#[test]
fn one_healthy_upstream_of_three_is_enough() {
    let candidates = [
        GOOD,
        GOOD,
        Behaviour::NeverAnswers,
        Behaviour::DropsPackets,
        Behaviour::Refuses,
        Behaviour::Stalls { after: 50 },
        Behaviour::Takes(Duration::from_millis(250)),
        Behaviour::Closes,
        Behaviour::Impostor,
        Behaviour::TakesOne,
        Behaviour::Says(Rcode::SERVFAIL),
        Behaviour::Says(Rcode::REFUSED),
    ];
    let (mut asked, mut lost, mut late) = (0, 0, 0);
    for seed in crate::support::seeds(24) {
        let mut chance = Chance::new(seed);
        let policy = ["fastest", "ordered", "round-robin"][chance.below(3)];
        let mut world = World::with(policy, &[GOOD, GOOD, GOOD]);
        world.ask("www.example", 100.0, 0.0, 300.0);
        let mut now = [GOOD; 3];
        let mut time = 0.0;
        while time < 300.0 {
            time += f64::from(u32::try_from(chance.between(1_000, 5_000)).expect("a small number"))
                / 1e3;
            let one = chance.below(3);
            let is_other_well = (0..3).any(|other| other != one && now[other] == GOOD);
            now[one] = if is_other_well {
                *chance.pick(&candidates)
            } else {
                GOOD
            };
            world.change_behaviour([1, 2, 3][one], time, now[one]);
        }
        let responses = world.run("www.example");
        asked += responses.len();
        lost += failed(&responses);
        late += slower_than(&responses, 1.0);
    }
    // A few queries may fail: two upstreams can fail a query three times before they are known to
    // be down.
    assert!(lost * 10_000 <= asked, "{lost} of {asked}");
    assert!(
        late * 100 < asked,
        "{late} of {asked} took more than a second"
    );
}

#[test]
fn round_robin_spreads_and_ordered_does_not() {
    for (policy, shares) in [
        ("round-robin", [1_000, 1_000, 1_000]),
        ("ordered", [3_000, 0, 0]),
    ] {
        let mut world = World::with(policy, &[GOOD, GOOD, GOOD]);
        world.ask("www.example", 100.0, 0.0, 30.0);
        world.run("www.example");
        for (host, share) in (1..).zip(shares) {
            let sent = world.sent_to(host);
            assert!(sent.abs_diff(share) <= 20, "{policy}: {:?}", world.sent);
        }
    }
}

#[test]
fn idle_timeout_of_an_upstream_is_learned() {
    let mut world = World::new(&[Behaviour::ClosesIdle(Duration::from_secs(5))]);
    world.ask("www.example", 1.0 / 7.0, 0.0, 1_000.0);
    assert_eq!(failed(&world.run("www.example")), 0);
    let closed = world.proxy.counters().failure(FailureKind::Closed);
    assert_eq!(closed, 2, "connections that the upstream closed");
}

#[test]
fn suspension_fails_no_query() {
    let mut world = World::new(&[GOOD]);
    world.ask("www.example", 10.0, 0.0, 5.0);
    world.plan(at(5.01), Event::Query("www.example"));
    world.plan(at(5.02), Event::Resumed);
    world.ask("www.example", 10.0, 5.03, 10.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.1), 0);
}

#[test]
fn number_of_hedges_is_limited() {
    // All upstreams become slow at once, and a second upstream is available for hedges.
    let slow = Behaviour::Takes(Duration::from_millis(1_500));
    let mut world = World::new(&[GOOD, GOOD]);
    world.ask("www.example", 50.0, 0.0, 100.0);
    world.change_behaviour(1, 20.0, slow);
    world.change_behaviour(2, 20.0, slow);
    assert_eq!(failed(&world.run("www.example")), 0);
    let counters = world.proxy.counters();
    assert!(
        counters.hedges + counters.copies <= 5_000 / 20 + 100,
        "{counters}"
    );
}

#[test]
fn third_upstream_serves_when_two_drop_all_packets() {
    let mut world = World::new(&[Behaviour::DropsPackets, Behaviour::DropsPackets, GOOD]);
    world.ask("www.example", 4.0, 0.0, 300.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(slower_than(&responses, 0.2) <= 5);
}

#[test]
fn first_upstream_serves_again_when_it_has_recovered() {
    for trouble in [
        Behaviour::NeverAnswers,
        Behaviour::DropsPackets,
        Behaviour::Refuses,
    ] {
        let mut world = World::new(&[GOOD, GOOD]);
        world.ask("www.example", 20.0, 0.0, 100.0);
        world.change_behaviour(1, 10.0, trouble);
        world.change_behaviour(1, 40.0, GOOD);
        world.change_behaviour(2, 80.0, Behaviour::Refuses);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        let late = responses.iter().filter(|r| r.asked_at > at(75.0));
        assert_eq!(slower_than(&late.copied().collect::<Vec<_>>(), 0.2), 0);
    }
}

#[test]
fn other_upstreams_are_probed_soon_after_the_active_one_recovered() {
    let mut world = World::with("ordered", &[Behaviour::Refuses, GOOD]);
    world.ask("www.example", 20.0, 0.0, 200.0);
    // The back-off of the first upstream has grown when the second one also fails.
    world.change_behaviour(2, 120.0, Behaviour::Refuses);
    world.change_behaviour(2, 125.0, GOOD);
    world.change_behaviour(1, 130.0, GOOD);
    world.run("www.example");
    let since = 200 - world.sent_to(1) / 20;
    assert!((130..135).contains(&since), "from second {since}");
}

#[test]
fn restart_of_the_only_upstream_fails_no_query() {
    for down in [0.1, 1.0, 3.0] {
        let mut world = World::new(&[GOOD]);
        world.ask("www.example", 400.0, 0.0, 10.0);
        world.change_behaviour(1, 5.0, Behaviour::Refuses);
        world.change_behaviour(1, 5.0 + down, GOOD);
        assert_eq!(failed(&world.run("www.example")), 0, "down for {down} s");
    }
}

#[test]
fn queries_are_answered_soon_after_the_recovery() {
    for trouble in [
        Behaviour::Refuses,
        Behaviour::NeverAnswers,
        Behaviour::Impostor,
    ] {
        let mut world = World::new(&[GOOD]);
        world.ask("www.example", 50.0, 0.0, 100.0);
        world.change_behaviour(1, 10.0, Behaviour::Refuses);
        world.change_behaviour(1, 10.1, trouble);
        world.change_behaviour(1, 70.0, GOOD);
        let responses = world.run("www.example");
        // The recovery is found within half a second. A question that failed in the meantime is
        // asked again a second after it failed.
        let after = responses.iter().filter(|r| r.asked_at > at(71.5));
        assert_eq!(failed(&after.copied().collect::<Vec<_>>()), 0);
    }
}

#[test]
fn end_of_an_outage_ends_the_back_off_of_every_name() {
    for trouble in [Behaviour::Refuses, Behaviour::NeverAnswers] {
        let mut world = World::new(&[GOOD]);
        for name in ["a.example", "b.example", "c.example", "d.example"] {
            world.ask(name, 10.0, 0.0, 60.0);
        }
        world.change_behaviour(1, 10.0, trouble);
        world.change_behaviour(1, 40.0, GOOD);
        world.run("");
        let after = |r: &&Response| r.asked_at > at(41.0);
        let after: Vec<&Response> = world.responses.iter().filter(after).collect();
        assert_eq!(failed(&after), 0);
    }
}

#[test]
fn queries_during_a_short_silence_are_retried() {
    // More queries than may be hedged.
    let mut world = World::new(&[GOOD]);
    world.ask("www.example", 10.0, 0.0, 10.0);
    world.ask("www.example", 3_000.0, 5.0, 5.1);
    world.change_behaviour(1, 4.95, Behaviour::NeverAnswers);
    world.change_behaviour(1, 5.2, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 2.2), 0);
}

#[test]
fn stalled_link_delays_its_queries_briefly() {
    let mut world = World::new(&[Behaviour::StallsPromptly { after: 20_000 }]);
    world.ask("www.example", 30_000.0, 0.0, 1.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.5), 0);
}

#[test]
fn upstream_that_closes_instead_of_answering_is_seldom_used() {
    let mut world = World::with("ordered", &[Behaviour::Closes, GOOD]);
    world.ask("www.example", 100.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(world.sent_to(1) < 60, "{:?}", world.sent);
}

#[test]
fn long_outage_fails_queries_soon() {
    let mut world = World::new(&[Behaviour::Refuses]);
    world.ask("www.example", 50.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 1.1), 0);
}

#[test]
fn client_retries_during_an_outage_are_answered_from_the_failure_cache() {
    let mut world = World::new(&[Behaviour::NeverAnswers]);
    world.ask("www.example", 100.0, 0.0, 60.0);
    let responses = world.run("www.example");
    let at_once = responses.len() - slower_than(&responses, 0.001);
    assert!(at_once > 5_000, "{at_once}");
    // The queries of the first seconds, and then two per second, each sent three times at most
    // and hedged once at most.
    assert!(world.sent_to(1) < 1_700, "{:?}", world.sent);
}

#[test]
fn impostor_fails_queries_soon() {
    let mut world = World::new(&[Behaviour::Impostor]);
    world.ask("www.example", 10.0, 0.0, 20.0);
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 1.1), 0);
    assert_eq!(slower_than(&responses[..1], 0.1), 0);
}

#[test]
fn overloaded_upstream_keeps_its_throughput() {
    // Four links with 256 queries of 900 ms each yield 1,137 answers per second.
    let mut world = World::new(&[slow(900)]);
    world.ask("slow.example", 1_600.0, 0.0, 20.0);
    let responses = world.run("slow.example");
    let settled = responses.iter().filter(|r| r.asked_at > at(10.0));
    let answered = settled.filter(|r| r.is_answer()).count();
    assert!(answered > 10 * 1_080, "{} a second", answered / 10);
}

#[test]
fn upstream_that_accepts_one_connection_gets_few_attempts() {
    let mut world = World::new(&[Behaviour::TakesOne]);
    world.ask("www.example", 5_000.0, 0.0, 10.0);
    world.run("www.example");
    let failures = world.proxy.counters().failure(FailureKind::Connect);
    assert!(failures <= 14, "{failures} connections refused");
}

#[test]
fn query_beyond_the_room_of_a_warm_link_waits_at_most_one_handshake() {
    for queries in [100, 200, 256] {
        for spread in [0.0, 0.005, 0.02, 0.1] {
            for is_warm in [false, true] {
                let waited = longest_wait_beside_slow_names(queries, spread, is_warm);
                let label = format!("{queries} within {spread} s, warm: {is_warm}");
                assert!(waited <= CONNECTING, "{label}: {waited:?}");
            }
        }
    }
}

/// Sends this number of queries within `spread` seconds, of which a quarter each takes 0, 200, 400
/// and 600 ms, to an upstream with one link that has answered promptly, or with none. Returns the
/// longest additional wait.
fn longest_wait_beside_slow_names(queries: u32, spread: f64, is_warm: bool) -> Duration {
    let mut world = World::new(&[Behaviour::TakesWhatNamesSay]);
    if is_warm {
        world.ask("1ms.example", 50.0, 0.0, 1.0);
    }
    for nth in 0..queries {
        let takes = [0, 200, 400, 600][nth as usize % 4];
        let name: &'static str = format!("{takes}ms-{nth}.example").leak();
        let time = at(2.0 + spread * f64::from(nth) / f64::from(queries));
        world.plan(time, Event::Query(name));
    }
    world.run("1ms.example");
    let responses: Vec<&Response> = world.responses.iter().collect();
    assert_eq!(failed(&responses), 0);
    let beyond = |response: &&Response| {
        let takes = response.name.split("ms").next().expect("a number");
        let takes = Duration::from_millis(takes.parse().expect("a number"));
        response.waited.saturating_sub(takes)
    };
    let waited = responses
        .iter()
        .filter(|one| one.asked_at >= at(2.0))
        .map(beyond);
    waited.max().expect("the queries have responses")
}
