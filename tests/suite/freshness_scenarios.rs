//! What newer replies end: stale answers and cached errors, in simulated time.

use dotproxy::wire::Rcode;

use crate::support::days::{Manner, Reply, Response, World, at, failed};

const NAME: &str = "bad.example";

/// A proxy with a cache and these arguments, in front of upstreams that give this reply.
fn world(arguments: &[&str], upstreams: u8, reply: Reply) -> World {
    let mut all = vec!["--cache-size=1m".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend((1..=upstreams).map(|host| format!("-u192.0.2.{host}")));
    let mut world = World::started(&all);
    (1..=upstreams).for_each(|host| world.be(host, Manner::OfBad(reply)));
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
fn answer_with_ttl_0_ends_the_older_one() {
    let outages = [
        Manner::OfBad(servfail()),
        Manner::OfBad(Reply::error(Rcode::REFUSED, None)),
        Manner::OfBad(Reply::answer(0).after(2_500)),
        Manner::Mute,
        Manner::Refuses,
    ];
    for outage in outages {
        let mut world = world(&[], 1, Reply::answer(1));
        world.ask(NAME, 1.0, 0.0, 1.0);
        world.turn(1, 1.5, Manner::OfBad(Reply::answer(0)));
        world.ask(NAME, 1.0, 3.0, 5.0);
        world.turn(1, 9.0, outage);
        world.ask(NAME, 1.0, 10.0, 11.0);
        world.turn(1, 16.0, Manner::OfBad(Reply::answer(0)));
        world.ask(NAME, 1.0, 40.0, 80.0);
        let responses = world.run(NAME);
        assert_eq!(stale(&responses), 0);
        assert_eq!(failed(&from(&responses, 40.0)), 0);
    }
}

#[test]
fn answer_that_comes_after_the_stale_one_was_served_ends_it() {
    let mut world = world(&[], 1, Reply::answer(1));
    world.ask(NAME, 1.0, 0.0, 1.0);
    world.turn(1, 1.5, Manner::OfBad(Reply::answer(0).after(2_500)));
    world.ask(NAME, 1.0, 3.0, 4.0);
    // The reply to the query of the third second has come.
    world.turn(1, 7.0, Manner::OfBad(Reply::answer(0)));
    world.ask(NAME, 1.0, 8.0, 60.0);
    let responses = world.run(NAME);
    assert_eq!((failed(&responses), stale(&responses)), (0, 1));
}

#[test]
fn cached_error_is_over_when_an_answer_comes_that_cannot_be_kept() {
    let mut world = world(&[], 1, servfail());
    world.ask(NAME, 2.0, 0.0, 140.0);
    world.turn(1, 60.0, Manner::OfBad(Reply::answer(0)));
    let responses = world.run(NAME);
    assert_eq!(failed(&from(&responses, 91.5)), 0);
}

#[test]
fn verdict_ends_what_is_stale() {
    for code in [5, 6, 9, 12, 15, 16, 17, 18, 27] {
        for (rcode, after) in [
            (Rcode::SERVFAIL, 20),
            (Rcode::REFUSED, 20),
            (Rcode::SERVFAIL, 2_500),
        ] {
            let mut world = world(&[], 1, Reply::answer(1));
            world.ask(NAME, 1.0, 0.0, 1.0);
            let verdict = Reply::error(rcode, Some(code));
            world.turn(1, 1.5, Manner::OfBad(verdict.after(after)));
            world.ask(NAME, 2.0, 5.0, 6.0);
            world.ask(NAME, 2.0, 9.0, 40.0);
            // What was known does not come back, whatever happens afterwards.
            world.turn(1, 30.0, Manner::OfBad(servfail()));
            world.turn(1, 60.0, Manner::Mute);
            world.ask(NAME, 2.0, 70.0, 100.0);
            let responses = world.run(NAME);
            let slow = usize::from(after > 1_800) * 2;
            assert_eq!(stale(&responses), slow, "{code}");
            let later = from(&responses, 9.0);
            assert_eq!(failed(&later), later.len());
            let told = later.iter().filter(|r| r.asked_at < at(29.0));
            assert!(
                told.clone()
                    .all(|r| (r.rcode, r.error) == (rcode, Some(code)))
            );
        }
    }
}
