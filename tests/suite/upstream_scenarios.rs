//! Days in the life of a proxy whose upstreams are slow, silent, gone, restarted or too small, in
//! simulated time: how many clients have their answer, and how soon.

use std::time::Duration;

use dotproxy::base::failure::FailureKind;
use dotproxy::wire::Rcode;

use crate::support::Chance;
use crate::support::days::{
    CONNECTING, Event, GOOD, Manner, Response, World, at, failed, slow, slower_than,
};

#[test]
fn name_that_is_never_answered_harms_no_other() {
    for manners in [&[GOOD][..], &[GOOD, GOOD]] {
        let mut world = World::new(manners);
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
        Manner::Mute,
        Manner::Hole,
        Manner::Refuses,
        Manner::Impostor,
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

/// What a client sees of two upstreams, one of which does this: at 300 queries a second for 20 s,
/// every query is answered, one in a hundred in 400 ms at the most, and half of them at once. Of all
/// that is sent, few are second queries.
fn check_chaos(policy: &str, label: &str, first: Manner, turns: &[(f64, Manner)]) {
    let mut world = World::with(policy, &[first, GOOD]);
    world.ask("www.example", 300.0, 0.0, 20.0);
    for (time, manner) in turns {
        world.turn(1, *time, *manner);
    }
    let mut responses = world.run("www.example");
    responses.sort_by_key(|response| response.waited);
    let waited = |percent: usize| responses[responses.len() * percent / 100].waited;
    let (half, most) = (waited(50), waited(99));
    println!(
        "{policy:12} {label:24} median {half:9.1?} p99 {most:9.1?} slowest {:9.1?}",
        responses.last().expect("there are responses").waited
    );
    assert_eq!(failed(&responses), 0, "{label}");
    assert!(half <= Duration::from_millis(30), "{label}: {half:?}");
    assert!(most <= Duration::from_millis(400), "{label}: {most:?}");
    let counters = world.proxy.counters();
    let second = counters.hedges + counters.copies;
    assert!(second * 100 <= 5 * 6_000 + 10_000, "{label}: {second}");
}

#[test]
fn upstream_can_do_what_it_likes_while_another_is_well() {
    let flaps: Vec<_> = (1..10)
        .map(|n| {
            (
                2.0 * f64::from(n),
                if n % 2 == 1 { Manner::Refuses } else { GOOD },
            )
        })
        .collect();
    for policy in ["fastest", "ordered", "round-robin"] {
        check_chaos(policy, "refuses", Manner::Refuses, &[]);
        check_chaos(policy, "black hole", Manner::Hole, &[]);
        check_chaos(policy, "never answers", Manner::Mute, &[]);
        check_chaos(policy, "is somebody else", Manner::Impostor, &[]);
        check_chaos(
            policy,
            "stalls after 100 answers",
            Manner::Stalls { after: 100 },
            &[],
        );
        check_chaos(policy, "flaps", GOOD, &flaps);
        check_chaos(policy, "falls silent", GOOD, &[(5.0, Manner::Mute)]);
    }
    let slow = Manner::Takes(Duration::from_millis(300));
    check_chaos("fastest", "300 ms slow", slow, &[]);
    check_chaos("fastest", "becomes slow", GOOD, &[(5.0, slow)]);
}

#[test]
fn fastest_finds_who_is_faster_now() {
    let slow = Manner::Takes(Duration::from_millis(100));
    let mut world = World::new(&[GOOD, slow, slow]);
    world.ask("www.example", 50.0, 0.0, 200.0);
    world.turn(1, 50.0, slow);
    world.turn(3, 100.0, GOOD);
    let responses = world.run("www.example");
    let late: Vec<_> = responses
        .into_iter()
        .filter(|r| r.asked_at > at(150.0))
        .collect();
    assert_eq!(slower_than(&late, 0.05), 0);
}

#[test]
fn one_of_three_that_is_well_is_enough() {
    let moods = [
        GOOD,
        GOOD,
        Manner::Mute,
        Manner::Hole,
        Manner::Refuses,
        Manner::Stalls { after: 50 },
        Manner::Takes(Duration::from_millis(250)),
        Manner::Closes,
        Manner::Impostor,
        Manner::TakesOne,
        Manner::Says(Rcode::SERVFAIL),
        Manner::Says(Rcode::REFUSED),
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
            time += f64::from(u32::try_from(chance.between(1_000, 5_000)).expect("small")) / 1e3;
            let one = chance.below(3);
            let is_other_well = (0..3).any(|other| other != one && now[other] == GOOD);
            now[one] = if is_other_well {
                *chance.pick(&moods)
            } else {
                GOOD
            };
            world.turn([1, 2, 3][one], time, now[one]);
        }
        let responses = world.run("www.example");
        asked += responses.len();
        lost += failed(&responses);
        late += slower_than(&responses, 1.0);
    }
    // Not none: two may have failed a query three times before it is known that they are not well.
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
fn idle_limit_of_an_upstream_is_learned() {
    let mut world = World::new(&[Manner::ClosesIdle(Duration::from_secs(5))]);
    world.ask("www.example", 1.0 / 7.0, 0.0, 1_000.0);
    assert_eq!(failed(&world.run("www.example")), 0);
    let closed = world.proxy.counters().failure(FailureKind::Closed);
    assert_eq!(closed, 2, "connections that the upstream closed");
}

#[test]
fn suspension_costs_no_query() {
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
fn query_is_sent_twice_only_so_often() {
    // Everything is slow at once, and another upstream would be there.
    let slow = Manner::Takes(Duration::from_millis(1_500));
    let mut world = World::new(&[GOOD, GOOD]);
    world.ask("www.example", 50.0, 0.0, 100.0);
    world.turn(1, 20.0, slow);
    world.turn(2, 20.0, slow);
    assert_eq!(failed(&world.run("www.example")), 0);
    let counters = world.proxy.counters();
    assert!(
        counters.hedges + counters.copies <= 5_000 / 20 + 100,
        "{counters}"
    );
}

#[test]
fn third_upstream_serves_when_two_are_holes() {
    let mut world = World::new(&[Manner::Hole, Manner::Hole, GOOD]);
    world.ask("www.example", 4.0, 0.0, 300.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(slower_than(&responses, 0.2) <= 5);
}

#[test]
fn first_upstream_serves_again_when_it_has_recovered() {
    for trouble in [Manner::Mute, Manner::Hole, Manner::Refuses] {
        let mut world = World::new(&[GOOD, GOOD]);
        world.ask("www.example", 20.0, 0.0, 100.0);
        world.turn(1, 10.0, trouble);
        world.turn(1, 40.0, GOOD);
        world.turn(2, 80.0, Manner::Refuses);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        let late = responses.iter().filter(|r| r.asked_at > at(75.0));
        assert_eq!(slower_than(&late.copied().collect::<Vec<_>>(), 0.2), 0);
    }
}

#[test]
fn others_are_looked_for_soon_where_who_serves_has_just_recovered() {
    let mut world = World::with("ordered", &[Manner::Refuses, GOOD]);
    world.ask("www.example", 20.0, 0.0, 200.0);
    // The pauses between attempts on the first have grown when the second fails, too.
    world.turn(2, 120.0, Manner::Refuses);
    world.turn(2, 125.0, GOOD);
    world.turn(1, 130.0, GOOD);
    world.run("www.example");
    let since = 200 - world.sent_to(1) / 20;
    assert!((130..135).contains(&since), "from second {since}");
}

#[test]
fn restart_of_the_only_upstream_costs_no_query() {
    for down in [0.1, 1.0, 3.0] {
        let mut world = World::new(&[GOOD]);
        world.ask("www.example", 400.0, 0.0, 10.0);
        world.turn(1, 5.0, Manner::Refuses);
        world.turn(1, 5.0 + down, GOOD);
        assert_eq!(failed(&world.run("www.example")), 0, "down for {down} s");
    }
}

#[test]
fn answers_flow_again_within_a_second_of_the_return() {
    for trouble in [Manner::Refuses, Manner::Mute, Manner::Impostor] {
        let mut world = World::new(&[GOOD]);
        world.ask("www.example", 50.0, 0.0, 100.0);
        world.turn(1, 10.0, Manner::Refuses);
        world.turn(1, 10.1, trouble);
        world.turn(1, 70.0, GOOD);
        let responses = world.run("www.example");
        let after = responses.iter().filter(|r| r.asked_at > at(71.0));
        assert_eq!(failed(&after.copied().collect::<Vec<_>>()), 0);
    }
}

#[test]
fn end_of_an_outage_is_the_end_for_every_name() {
    for trouble in [Manner::Refuses, Manner::Mute] {
        let mut world = World::new(&[GOOD]);
        for name in ["a.example", "b.example", "c.example", "d.example"] {
            world.ask(name, 10.0, 0.0, 60.0);
        }
        world.turn(1, 10.0, trouble);
        world.turn(1, 40.0, GOOD);
        world.run("");
        let after = |r: &&Response| r.asked_at > at(41.0);
        let after: Vec<&Response> = world.responses.iter().filter(after).collect();
        assert_eq!(failed(&after), 0);
    }
}

#[test]
fn queries_of_a_silent_moment_are_sent_again() {
    // More than may be sent twice before they have failed.
    let mut world = World::new(&[GOOD]);
    world.ask("www.example", 10.0, 0.0, 10.0);
    world.ask("www.example", 3_000.0, 5.0, 5.1);
    world.turn(1, 4.95, Manner::Mute);
    world.turn(1, 5.2, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 2.2), 0);
}

#[test]
fn link_with_all_queries_that_falls_silent_keeps_nobody_waiting_for_long() {
    let mut world = World::new(&[Manner::StallsPromptly { after: 20_000 }]);
    world.ask("www.example", 30_000.0, 0.0, 1.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.5), 0);
}

#[test]
fn upstream_that_closes_instead_of_answering_is_left_alone() {
    let mut world = World::with("ordered", &[Manner::Closes, GOOD]);
    world.ask("www.example", 100.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(world.sent_to(1) < 60, "{:?}", world.sent);
}

#[test]
fn long_outage_is_told_soon() {
    let mut world = World::new(&[Manner::Refuses]);
    world.ask("www.example", 50.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 1.1), 0);
}

#[test]
fn storm_of_retries_is_answered_without_asking() {
    let mut world = World::new(&[Manner::Mute]);
    world.ask("www.example", 100.0, 0.0, 60.0);
    let responses = world.run("www.example");
    let at_once = responses.len() - slower_than(&responses, 0.001);
    assert!(at_once > 5_000, "{at_once}");
    // Queries of the first seconds, and then two a second, each three times at the most.
    assert!(world.sent_to(1) < 1_500, "{:?}", world.sent);
}

#[test]
fn impostor_is_told_soon() {
    let mut world = World::new(&[Manner::Impostor]);
    world.ask("www.example", 10.0, 0.0, 20.0);
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 1.1), 0);
    assert_eq!(slower_than(&responses[..1], 0.1), 0);
}

#[test]
fn more_than_upstream_can_take_leaves_it_doing_what_it_can() {
    // Four links with 256 queries of 900 ms each come to 1,137 answers a second.
    let mut world = World::new(&[slow(900)]);
    world.ask("slow.example", 1_600.0, 0.0, 20.0);
    let responses = world.run("slow.example");
    let settled = responses.iter().filter(|r| r.asked_at > at(10.0));
    let answered = settled.filter(|r| r.is_answer()).count();
    assert!(answered > 10 * 1_080, "{} a second", answered / 10);
}

#[test]
fn upstream_that_takes_one_connection_is_not_pestered() {
    let mut world = World::new(&[Manner::TakesOne]);
    world.ask("www.example", 5_000.0, 0.0, 10.0);
    world.run("www.example");
    let failures = world.proxy.counters().failure(FailureKind::Connect);
    assert!(failures <= 14, "{failures} connections refused");
}

#[test]
fn query_beyond_the_room_of_a_warm_link_waits_for_no_more_than_a_handshake() {
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

/// Lets so many queries come within `spread` seconds, of which a quarter each takes 0, 200, 400 and
/// 600 ms, to an upstream that has one link which has answered promptly, or none. Returns the
/// longest time that one waited beyond that.
fn longest_wait_beside_slow_names(queries: u32, spread: f64, is_warm: bool) -> Duration {
    let mut world = World::new(&[Manner::TakesWhatNamesSay]);
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
    waited.max().expect("there are responses")
}
