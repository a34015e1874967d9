//! Scenarios of the cache in simulated time: the responses of clients and the queries that
//! upstreams receive.

use std::time::Duration;

use dotproxy::proxy::Outcome;
use dotproxy::wire::Rcode;

use crate::support::scripted_upstreams::{
    ANSWERING, Behaviour, CONNECTING, GOOD, Response, World, at, failed, slow, slower_than,
};

/// Returns a proxy with a cache and these additional arguments, in front of this number of
/// addresses.
fn world(arguments: &[&str], behaviours: &[Behaviour]) -> World {
    let mut all = vec!["--cache-size=1m".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend((1..=behaviours.len()).map(|host| format!("-u192.0.2.{host}")));
    let mut world = World::started(&all);
    for (host, behaviour) in (1..).zip(behaviours) {
        world.set_behaviour(host, *behaviour);
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
fn answer_is_requested_once_within_its_ttl() {
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
fn same_question_of_a_thousand_clients_is_coalesced() {
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
fn without_a_cache_no_query_is_coalesced() {
    let mut world = world(&["--cache-size=0"], &[GOOD]);
    world.ask("www.example", 1e5, 0.0, 0.001);
    assert_eq!(failed(&world.run("www.example")), 0);
    assert_eq!(world.sent_to(1), 100);
}

#[test]
fn coalesced_clients_are_answered_after_a_retry() {
    for first in [
        Behaviour::NeverAnswers,
        Behaviour::Closes,
        Behaviour::DropsPackets,
        Behaviour::Refuses,
    ] {
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
fn coalesced_client_has_its_own_deadline() {
    // The upstream is back after the last attempt before the deadline of the first client.
    let mut world = world(&[], &[Behaviour::NeverAnswers]);
    world.ask("www.example", 1.0, 0.0, 5.0);
    world.change_behaviour(1, 4.5, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 1);
    assert!(responses.iter().all(|r| r.waited < Duration::from_secs(5)));
}

#[test]
fn unanswered_question_is_seldom_repeated() {
    let mut world = world(&[], &[Behaviour::NeverAnswers]);
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
fn outage_is_hidden_by_stale_answers() {
    for gone in [
        Behaviour::NeverAnswers,
        Behaviour::DropsPackets,
        Behaviour::Refuses,
        Behaviour::Closes,
    ] {
        let mut world = world(&["--cache-max-ttl=1m"], &[GOOD]);
        let names = ["a.example", "b.example", "c.example"];
        for (name, from) in names.into_iter().zip([0.0, 20.0, 40.0]) {
            world.ask(name, 0.5, from, 1_000.0);
        }
        world.change_behaviour(1, 100.0, gone);
        world.change_behaviour(1, 800.0, GOOD);
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
        // After the recovery is detected, which takes half a minute, every name is queried again.
        let mut stale = world.responses.iter().filter(|r| r.error.is_some());
        let back = |name: &str| {
            let its = world.responses.iter().filter(|r| r.name == name);
            let first = its.skip_while(|r| r.asked_at < at(800.0) || r.error.is_some());
            first
                .map(|r| r.asked_at)
                .next()
                .expect("the upstream has recovered")
        };
        let all = names.map(back);
        let first = *all.iter().min().expect("the list is not empty");
        assert!(first < at(834.0));
        assert!(stale.all(|r| r.asked_at < first + Duration::from_secs(4)));
    }
}

#[test]
fn slow_answer_is_cached_for_later_clients() {
    let mut world = world(&["--cache-max-ttl=1m"], &[GOOD]);
    world.ask("slow.example", 1.0, 0.0, 1.0);
    world.set_behaviour(1, slow(20));
    world.change_behaviour(1, 50.0, slow(2_500));
    world.ask("slow.example", 2.0, 100.0, 110.0);
    let responses = world.run("slow.example");
    assert_eq!(failed(&responses), 0);
    let waits: Vec<_> = responses[1..6].iter().map(|r| r.waited).collect();
    // The first client gets a stale answer before the reply arrives, and so do clients that ask
    // meanwhile.
    assert_eq!(waits.iter().max(), Some(&Duration::from_millis(1_800)));
    assert!(are_stale(&responses[1..4]));
    assert!(after(&responses, 103.0).iter().all(|r| r.error.is_none()));
    // Probes that tell a slow name from an outage do not count.
    let asked = world.questions.iter();
    let asked = asked.filter(|(_, question)| question.starts_with("slow"));
    assert!(asked.count() <= 4, "{:?}", world.questions);
}

#[test]
fn error_does_not_replace_a_cached_answer() {
    let mut world = world(&["--cache-max-ttl=1m"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 600.0);
    world.change_behaviour(1, 100.0, Behaviour::Says(Rcode::SERVFAIL));
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(are_stale(&after(&responses, 125.0)));
    assert!(world.sent_to(1) < 30, "{}", world.sent_to(1));
}

#[test]
fn error_is_cached() {
    let mut world = world(&[], &[Behaviour::SaysOfBad(Rcode::SERVFAIL)]);
    world.ask("bad.example", 100.0, 0.0, 60.0);
    let responses = world.run("bad.example");
    assert_eq!(failed(&responses), 6_000);
    assert!(responses.iter().all(|r| r.rcode == Rcode::SERVFAIL));
    assert!(world.sent_to(1) <= 125, "{}", world.sent_to(1));
}

#[test]
fn cached_error_ends_when_an_upstream_recovers() {
    let behaviours = [Behaviour::Says(Rcode::REFUSED), Behaviour::DropsPackets];
    let mut world = world(&["--policy=ordered"], &behaviours);
    world.ask("www.example", 10.0, 0.0, 60.0);
    world.change_behaviour(2, 40.0, GOOD);
    let responses = world.run("www.example");
    assert_eq!(failed(&after(&responses, 42.5)), 0);
}

#[test]
fn stale_answers_are_not_served_without_the_option() {
    let mut world = world(&["--cache-max-ttl=1m", "--serve-stale=0"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 200.0);
    world.change_behaviour(1, 30.0, Behaviour::Refuses);
    let responses = world.run("www.example");
    assert_eq!(failed(&after(&responses, 61.0)), 139);
}

#[test]
fn popular_answer_is_prefetched() {
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
fn unpopular_answer_is_not_prefetched() {
    let mut world = world(&["--prefetch"], &[GOOD]);
    world.plan(
        at(0.0),
        crate::support::scripted_upstreams::Event::Query("www.example"),
    );
    world.plan(
        at(290.0),
        crate::support::scripted_upstreams::Event::Query("www.example"),
    );
    world.run("www.example");
    assert_eq!(world.sent_to(1), 1);
}

#[test]
fn prefetch_needs_room_in_the_query_table() {
    let mut world = world(&["--prefetch", "--max-inflight=3"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 1_000.0);
    // The upstream never answers this name, so one query is always outstanding. Each name is
    // queried so seldom that the back-off after its last failure is over.
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
fn stale_answer_is_served_when_the_query_table_is_full() {
    let mut world = world(&["--cache-max-ttl=1m", "--max-inflight=1"], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 1.0);
    world.ask("slow.example", 1.0, 100.0, 101.0);
    world.ask("www.example", 10.0, 100.5, 101.5);
    let responses = world.run("www.example");
    assert!(are_stale(&responses[1..]));
    assert_eq!(slower_than(&responses[1..], 0.0), 0);
}

#[test]
fn suspension_of_the_host_ages_answers() {
    let mut world = world(&[], &[GOOD]);
    world.ask("www.example", 1.0, 0.0, 10.0);
    world.plan(at(5.5), crate::support::scripted_upstreams::Event::Resumed);
    let responses = world.run("www.example");
    let waits: Vec<_> = responses.iter().map(|r| r.waited).collect();
    assert_eq!(waits[0], CONNECTING + ANSWERING);
    assert_eq!(waits[6], CONNECTING + ANSWERING);
    assert_eq!(waits.iter().sum::<Duration>(), waits[0] * 2);
}
