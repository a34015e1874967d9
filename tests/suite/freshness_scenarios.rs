//! Scenarios in simulated time: newer replies end stale answers and cached errors, and failures
//! pause the queries for a question.

use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::wire::Rcode;

use crate::support::scripted_upstreams::{
    Behaviour, Event, GOOD, Reply, Response, World, at, failed, slower_than,
};

const NAME: &str = "bad.example";

/// Returns a proxy with a cache and these arguments, in front of upstreams that send this reply.
fn world(arguments: &[&str], upstreams: u8, reply: Reply) -> World {
    let mut all = vec!["--cache-size=1m".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend((1..=upstreams).map(|host| format!("-u192.0.2.{host}")));
    let mut world = World::started(&all);
    (1..=upstreams).for_each(|host| world.set_behaviour(host, Behaviour::OfBad(reply)));
    world
}

fn stale(responses: &[&Response]) -> usize {
    let is_stale = |r: &&&Response| r.error == Some(3);
    responses.iter().filter(is_stale).count()
}

fn from<'a>(responses: &[&'a Response], seconds: f64) -> Vec<&'a Response> {
    let later = responses.iter().filter(|r| r.asked_at >= at(seconds));
    later.copied().collect()
}

fn servfail() -> Reply {
    Reply::error(Rcode::SERVFAIL, None)
}

#[test]
fn answer_with_ttl_0_ends_the_older_answer() {
    let outages = [
        Behaviour::OfBad(servfail()),
        Behaviour::OfBad(Reply::error(Rcode::REFUSED, None)),
        Behaviour::OfBad(Reply::answer(0).after(2_500)),
        Behaviour::NeverAnswers,
        Behaviour::Refuses,
    ];
    for outage in outages {
        let mut world = world(&[], 1, Reply::answer(1));
        world.ask(NAME, 1.0, 0.0, 1.0);
        world.change_behaviour(1, 1.5, Behaviour::OfBad(Reply::answer(0)));
        world.ask(NAME, 1.0, 3.0, 5.0);
        world.change_behaviour(1, 9.0, outage);
        world.ask(NAME, 1.0, 10.0, 11.0);
        world.change_behaviour(1, 16.0, Behaviour::OfBad(Reply::answer(0)));
        world.ask(NAME, 1.0, 40.0, 80.0);
        let responses = world.run(NAME);
        assert_eq!(stale(&responses), 0);
        assert_eq!(failed(&from(&responses, 40.0)), 0);
    }
}

#[test]
fn late_answer_with_ttl_0_ends_the_stale_answer() {
    let mut world = world(&[], 1, Reply::answer(1));
    world.ask(NAME, 1.0, 0.0, 1.0);
    world.change_behaviour(1, 1.5, Behaviour::OfBad(Reply::answer(0).after(2_500)));
    world.ask(NAME, 1.0, 3.0, 4.0);
    // The reply to the query of the third second has arrived.
    world.change_behaviour(1, 7.0, Behaviour::OfBad(Reply::answer(0)));
    world.ask(NAME, 1.0, 8.0, 60.0);
    let responses = world.run(NAME);
    assert_eq!((failed(&responses), stale(&responses)), (0, 1));
}

#[test]
fn answer_that_cannot_be_cached_ends_a_cached_error() {
    let mut world = world(&[], 1, servfail());
    world.ask(NAME, 2.0, 0.0, 140.0);
    world.change_behaviour(1, 60.0, Behaviour::OfBad(Reply::answer(0)));
    let responses = world.run(NAME);
    assert_eq!(failed(&from(&responses, 91.5)), 0);
}

#[test]
fn verdict_ends_the_stale_answer() {
    for code in [5, 6, 9, 12, 15, 16, 17, 18, 27] {
        for (rcode, after) in [
            (Rcode::SERVFAIL, 20),
            (Rcode::REFUSED, 20),
            (Rcode::SERVFAIL, 2_500),
        ] {
            let mut world = world(&[], 1, Reply::answer(1));
            world.ask(NAME, 1.0, 0.0, 1.0);
            let verdict = Reply::error(rcode, Some(code));
            world.change_behaviour(1, 1.5, Behaviour::OfBad(verdict.after(after)));
            world.ask(NAME, 2.0, 5.0, 6.0);
            world.ask(NAME, 2.0, 9.0, 40.0);
            // The stale answer does not return after any later reply.
            world.change_behaviour(1, 30.0, Behaviour::OfBad(servfail()));
            world.change_behaviour(1, 60.0, Behaviour::NeverAnswers);
            world.ask(NAME, 2.0, 70.0, 100.0);
            let responses = world.run(NAME);
            let slow = usize::from(after > 1_800) * 2;
            assert_eq!(stale(&responses), slow, "{code}");
            let later = from(&responses, 9.0);
            assert_eq!(failed(&later), later.len());
            let early = later.iter().filter(|r| r.asked_at < at(29.0));
            assert!(
                early
                    .clone()
                    .all(|r| (r.rcode, r.error) == (rcode, Some(code)))
            );
        }
    }
}

/// Returns the times between resolutions of the name; the queries of one resolution count once.
fn pauses(sent_at: &[Instant]) -> Vec<Duration> {
    let all = sent_at.windows(2).map(|two| two[1] - two[0]);
    all.filter(|pause| *pause > Duration::from_millis(500))
        .collect()
}

#[test]
fn error_backs_off_its_question_for_one_to_thirty_seconds() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP] {
        for upstreams in [1, 2] {
            // The resolutions start at fractions of a second.
            for start in [0.0, 0.3, 0.9, 0.99] {
                let error = Reply::error(rcode, None);
                let mut world = world(&["--policy=ordered"], upstreams, error);
                world.ask(NAME, 50.0, start, start + 100.0);
                for number in 0..2_000 {
                    let time = start + 0.5 + 0.05 * f64::from(number);
                    world.plan(at(time), Event::PlainQuery(NAME));
                }
                world.ask("www.example", 3.0, 0.0, 100.0);
                let responses = world.run(NAME);
                assert_eq!(failed(&responses), responses.len());
                let sent_at = &world.bad_sent_at;
                let first = sent_at.iter().filter(|sent| **sent < at(start + 0.9));
                let least = usize::from(upstreams);
                // NOTIMP may be about EDNS, so the first query is also sent without EDNS.
                let most = if rcode == Rcode::NOTIMP {
                    2 * least
                } else {
                    least
                };
                assert!((least..=most).contains(&first.count()));
                let expected = [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs);
                let pauses = pauses(sent_at);
                assert!(pauses.len() >= 6, "{pauses:?}");
                for (pause, expected) in pauses.iter().zip(expected) {
                    let most = expected + Duration::from_millis(400);
                    assert!((expected..most).contains(pause), "{rcode:?}: {pauses:?}");
                }
            }
        }
    }
}

#[test]
fn timeout_backs_off_its_question() {
    let mut world = world(&[], 1, Reply::answer(1));
    world.set_behaviour(1, Behaviour::NeverAnswers);
    world.ask(NAME, 20.0, 0.0, 60.0);
    let responses = world.run(NAME);
    assert_eq!(failed(&responses), responses.len());
    // A resolution takes five seconds, three queries and a hedge. The queries that wait at its end cause
    // another one of the same length. After that, resolutions start at 13, 22, 35 and 56 seconds.
    let sent_at = &world.bad_sent_at;
    assert!(sent_at.len() <= 28, "{} at {sent_at:?}", sent_at.len());
    for pause in [4, 8, 16].map(Duration::from_secs) {
        let most = pause + Duration::from_secs(4);
        let mut pauses = pauses(sent_at).into_iter();
        assert!(
            pauses.any(|other| (pause..most).contains(&other)),
            "{sent_at:?}"
        );
    }
}

#[test]
fn prefetch_refreshes_answers_with_short_ttls_before_their_end() {
    for ttl in [2, 3, 6, 9, 10, 15, 30] {
        let mut world = world(&["--prefetch"], 1, Reply::answer(ttl));
        world.ask(NAME, 10.0, 0.35, 120.0);
        let responses = world.run(NAME);
        assert_eq!(failed(&responses), 0);
        // The first query waits for the connection, and a second one may arrive meanwhile.
        assert!(slower_than(&responses, 0.0) <= 1, "{ttl}");
        let most = 120 * 3 / usize::try_from(ttl).unwrap() / 2 + 1;
        assert!(world.sent_to(1) <= most, "{ttl}: {}", world.sent_to(1));
    }
}

#[test]
fn failed_prefetch_is_retried_within_the_ttl() {
    for outage in [
        Behaviour::OfBad(servfail()),
        Behaviour::NeverAnswers,
        Behaviour::Closes,
    ] {
        let mut world = world(&["--prefetch"], 1, Reply::answer(200));
        world.ask(NAME, 10.0, 0.0, 260.0);
        world.change_behaviour(1, 170.0, outage);
        world.change_behaviour(1, 188.0, Behaviour::OfBad(Reply::answer(200)));
        let responses = world.run(NAME);
        assert_eq!((failed(&responses), stale(&responses)), (0, 0));
        assert_eq!(slower_than(&responses, 0.0), 1);
        let pauses = pauses(&world.bad_sent_at);
        let is_error = outage == Behaviour::OfBad(servfail());
        let is_short = |pause: &Duration| *pause < Duration::from_secs(1);
        assert!(!is_error || !pauses.iter().any(is_short), "{pauses:?}");
    }
}

#[test]
fn failed_prefetch_does_not_make_the_answer_stale() {
    let mut world = world(&["--prefetch"], 1, Reply::answer(20));
    world.ask(NAME, 10.0, 0.0, 18.5);
    world.change_behaviour(1, 10.0, Behaviour::OfBad(servfail()));
    world.change_behaviour(1, 19.0, GOOD);
    world.ask(NAME, 10.0, 30.0, 31.0);
    let responses = world.run(NAME);
    assert_eq!((failed(&responses), stale(&responses)), (0, 0));
}
