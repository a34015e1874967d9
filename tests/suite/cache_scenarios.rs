//! Days in the life of a proxy that knows answers: what its clients get, and what upstream sees of
//! them, in simulated time.

use std::time::Duration;

use dotproxy::proxy::Outcome;
use dotproxy::wire::Rcode;

use crate::support::days::{
    ANSWERING, CONNECTING, GOOD, Manner, Response, World, at, failed, slow, slower_than,
};

/// A proxy with a cache, and these arguments besides, in front of so many addresses.
fn world(arguments: &[&str], manners: &[Manner]) -> World {
    let mut all = vec!["--cache-size=1m".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend((1..=manners.len()).map(|host| format!("-u192.0.2.{host}")));
    let mut world = World::started(&all);
    for (host, manner) in (1..).zip(manners) {
        world.be(host, *manner);
    }
    world
}

fn after<'a>(responses: &[&'a Response], seconds: f64) -> Vec<&'a Response> {
    let later = responses.iter().filter(|r| r.asked_at >= at(seconds));
    later.copied().collect()
}

fn are_stale(responses: &[&Response]) -> bool {
    let is_stale = |r: &&Response| r.is_answer() && r.ttl == Some(30) && r.error == Some(3);
    !responses.is_empty() && responses.iter().all(is_stale)
}

#[test]
fn answer_is_asked_for_once_while_it_holds() {
    let mut world = world(&[], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 1_000.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    let ttls: Vec<_> = responses.iter().filter_map(|r| r.ttl).collect();
    assert!(ttls.iter().all(|ttl| (1..=300).contains(ttl)));
    assert!(ttls[..300].is_sorted_by(|one, next| *one == next + 1));
    assert_eq!(world.sent_to(1), 4);
    let counters = world.proxy.counters();
    assert_eq!(
        (counters.outcome(Outcome::Cached), counters.misses),
        (996, 4)
    );
}

#[test]
fn thousand_clients_that_ask_the_same_at_once_are_one_query() {
    let mut world = world(&[], &[GOOD]);
    world.ask("www.example", 1e6, 0.0, 0.001);
    world.ask("web.example", 1e5, 1.0, 1.01);
    for name in ["www.example", "web.example"] {
        let responses = world.run(name);
        assert_eq!((responses.len(), failed(&responses)), (1_000, 0));
        assert!(responses.iter().all(|r| r.ttl == Some(300)));
    }
    assert_eq!(world.sent_to(1), 2);
}

#[test]
fn without_a_cache_nothing_is_shared() {
    let mut world = world(&["--cache-size=0"], &[GOOD]);
    world.ask("www.example", 1e5, 0.0, 0.001);
    assert_eq!(failed(&world.run("www.example")), 0);
    assert_eq!(world.sent_to(1), 100);
}

#[test]
fn everybody_who_waits_for_an_answer_has_it_by_another_way_if_the_first_fails() {
    for first in [Manner::Mute, Manner::Closes, Manner::Hole, Manner::Refuses] {
        let mut world = world(&["--policy=ordered"], &[first, GOOD]);
        world.ask("www.example", 1e4, 0.0, 0.1);
        let responses = world.run("www.example");
        assert_eq!((responses.len(), failed(&responses)), (1_000, 0));
        let asked = world.questions.iter();
        let asked = asked.filter(|(_, question)| question.starts_with("www"));
        assert!(asked.count() <= 4, "{:?}", world.questions);
    }
}

#[test]
fn who_comes_later_has_time_of_its_own() {
    // The first to ask has run out of time when upstream is back.
    let mut world = world(&[], &[Manner::Mute]);
    world.ask("www.example", 1.0, 0.0, 5.0);
    world.turn(1, 3.0, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 1);
    assert!(responses.iter().all(|r| r.waited < Duration::from_secs(5)));
}

#[test]
fn what_all_wait_for_in_vain_is_asked_seldom() {
    let mut world = world(&[], &[Manner::Mute]);
    world.ask("www.example", 100.0, 0.0, 30.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 3_000);
    assert_eq!(slower_than(&responses, 4.95), 0);
    let counters = world.proxy.counters();
    let timed_out = counters.outcome(Outcome::TimedOut);
    assert!(timed_out > 400, "{timed_out}");
    assert!(world.sent_to(1) < 150, "{}", world.sent_to(1));
}

#[test]
fn upstream_that_is_gone_goes_unnoticed() {
    for gone in [Manner::Mute, Manner::Hole, Manner::Refuses, Manner::Closes] {
        let mut world = world(&["--cache-max-ttl=1m"], &[GOOD]);
        let names = ["a.example", "b.example", "c.example"];
        for (name, from) in names.into_iter().zip([0.0, 20.0, 40.0]) {
            world.ask(name, 0.5, from, 1_000.0);
        }
        world.turn(1, 100.0, gone);
        world.turn(1, 800.0, GOOD);
        for name in names {
            let responses = world.run(name);
            assert_eq!(failed(&responses), 0);
            let during: Vec<_> = after(&responses, 170.0);
            let during: Vec<_> = during
                .into_iter()
                .filter(|r| r.asked_at < at(800.0))
                .collect();
            assert!(are_stale(&during));
            assert_eq!(
                slower_than(&during, 0.0),
                0,
                "from the second time on, at once"
            );
            assert_eq!(slower_than(&responses, 1.8), 0);
        }
        // Once it is found to be back, which takes half a minute, everything is asked again.
        let mut stale = world.responses.iter().filter(|r| r.error.is_some());
        let back = |name: &str| {
            let its = world.responses.iter().filter(|r| r.name == name);
            let first = its.skip_while(|r| r.asked_at < at(800.0) || r.error.is_some());
            first.map(|r| r.asked_at).next().expect("it is back")
        };
        let all = names.map(back);
        let first = *all.iter().min().expect("names");
        assert!(first < at(834.0));
        assert!(stale.all(|r| r.asked_at < first + Duration::from_secs(4)));
    }
}

#[test]
fn slow_answer_is_for_those_to_come() {
    let mut world = world(&["--cache-max-ttl=1m"], &[GOOD]);
    world.ask("slow.example", 1.0, 0.0, 1.0);
    world.be(1, slow(20));
    world.turn(1, 50.0, slow(2_500));
    world.ask("slow.example", 2.0, 100.0, 110.0);
    let responses = world.run("slow.example");
    assert_eq!(failed(&responses), 0);
    let waits: Vec<_> = responses[1..6].iter().map(|r| r.waited).collect();
    // The first waits, though not for as long as it takes; nor do those that come meanwhile.
    assert_eq!(waits.iter().max(), Some(&Duration::from_millis(1_800)));
    assert!(are_stale(&responses[1..4]));
    assert!(after(&responses, 103.0).iter().all(|r| r.error.is_none()));
    // Probes that tell a slow name from an outage aside.
    let asked = world.questions.iter();
    let asked = asked.filter(|(_, question)| question.starts_with("slow"));
    assert!(asked.count() <= 4, "{:?}", world.questions);
}

#[test]
fn error_does_not_take_the_place_of_what_is_known() {
    let mut world = world(&["--cache-max-ttl=1m"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 600.0);
    world.turn(1, 100.0, Manner::Says(Rcode::SERVFAIL));
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(are_stale(&after(&responses, 125.0)));
    assert!(world.sent_to(1) < 30, "{}", world.sent_to(1));
}

#[test]
fn error_is_known_for_a_while() {
    let mut world = world(&[], &[Manner::SaysOfBad(Rcode::SERVFAIL)]);
    world.ask("bad.example", 100.0, 0.0, 60.0);
    let responses = world.run("bad.example");
    assert_eq!(failed(&responses), 6_000);
    assert!(responses.iter().all(|r| r.rcode == Rcode::SERVFAIL));
    assert!(world.sent_to(1) <= 125, "{}", world.sent_to(1));
}

#[test]
fn error_is_not_known_any_more_when_somebody_is_back() {
    let manners = [Manner::Says(Rcode::REFUSED), Manner::Hole];
    let mut world = world(&["--policy=ordered"], &manners);
    world.ask("www.example", 10.0, 0.0, 60.0);
    world.turn(2, 40.0, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&after(&responses, 42.5)), 0);
}

#[test]
fn stale_answers_are_not_served_where_that_is_not_wanted() {
    let mut world = world(&["--cache-max-ttl=1m", "--serve-stale=0"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 200.0);
    world.turn(1, 30.0, Manner::Refuses);
    let responses = world.run("www.example");
    assert_eq!(failed(&after(&responses, 61.0)), 139);
}

#[test]
fn much_wanted_answer_is_there_before_it_is_wanted() {
    for (arguments, misses) in [(&["--prefetch"][..], 1), (&[], 4)] {
        let mut world = world(arguments, &[GOOD]);
        world.ask("www.example", 1.0, 0.0, 1_000.0);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        assert_eq!(slower_than(&responses, 0.0), misses);
        assert_eq!(world.sent_to(1), 4);
    }
}

#[test]
fn answer_that_is_seldom_wanted_is_not_asked_for_again() {
    let mut world = world(&["--prefetch"], &[GOOD]);
    world.plan(at(0.0), crate::support::days::Event::Query("www.example"));
    world.plan(at(290.0), crate::support::days::Event::Query("www.example"));
    world.run("www.example");
    assert_eq!(world.sent_to(1), 1);
}

#[test]
fn answers_are_asked_for_in_time_only_where_there_is_room() {
    let mut world = world(&["--prefetch", "--max-inflight=3"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 1_000.0);
    // Never answered, so that one of them is always under way. Each name is asked for so seldom
    // that the pause after its last failure is over.
    let slow = [
        "slow0.example",
        "slow1.example",
        "slow2.example",
        "slow3.example",
        "slow4.example",
        "slow5.example",
        "slow6.example",
        "slow7.example",
        "slow8.example",
        "slow9.example",
        "slow10.example",
        "slow11.example",
        "slow12.example",
        "slow13.example",
        "slow14.example",
        "slow15.example",
        "slow16.example",
        "slow17.example",
        "slow18.example",
        "slow19.example",
    ];
    for (nth, name) in (0_u8..).zip(slow) {
        world.ask(name, 0.025, 0.5 + 2.0 * f64::from(nth), 1_000.0);
    }
    let responses = world.run("www.example");
    assert_eq!(slower_than(&responses, 0.0), 4);
}

#[test]
fn stale_answer_is_better_than_none_for_want_of_room() {
    let mut world = world(&["--cache-max-ttl=1m", "--max-inflight=1"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 1.0);
    world.ask("slow.example", 1.0, 100.0, 101.0);
    world.ask("www.example", 10.0, 100.5, 101.5);
    let responses = world.run("www.example");
    assert!(are_stale(&responses[1..]));
    assert_eq!(slower_than(&responses[1..], 0.0), 0);
}

#[test]
fn sleep_of_the_host_makes_answers_old() {
    let mut world = world(&[], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 10.0);
    world.plan(at(5.5), crate::support::days::Event::Resumed);
    let responses = world.run("www.example");
    let waits: Vec<_> = responses.iter().map(|r| r.waited).collect();
    assert_eq!(waits[0], CONNECTING + ANSWERING);
    assert_eq!(waits[6], CONNECTING + ANSWERING);
    assert_eq!(waits.iter().sum::<Duration>(), waits[0] * 2);
}
