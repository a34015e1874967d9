//! Scenarios in simulated time of routes for domains, plain upstreams, upstreams configured by host
//! name, and error replies.

use std::time::Duration;

use dotproxy::base::failure::FailureKind;
use dotproxy::proxy::Outcome;
use dotproxy::wire::{Message, Rcode};

use crate::support::Chance;
use crate::support::scripted_upstreams::{
    ANSWERING, Behaviour, Event, GOOD, Response, World, at, failed, slower_than,
};

const RESOLVES: Behaviour = Behaviour::Resolves;

/// Returns a proxy with these arguments, in front of addresses with these last bytes.
fn world(arguments: &[&str], behaviours: &[(u8, Behaviour)]) -> World {
    let mut world = World::started(arguments);
    for (host, behaviour) in behaviours {
        world.set_behaviour(*host, *behaviour);
    }
    world
}

fn in_the_clear(world: &World) -> Vec<(u8, String)> {
    let question = |bytes: &[u8]| {
        let message = Message::parse(bytes).expect("well formed");
        message.question().expect("a question").to_string()
    };
    let sent = world.in_the_clear.iter();
    sent.map(|(host, bytes)| (*host, question(bytes))).collect()
}

#[test]
fn queries_for_a_domain_go_to_its_upstreams_only() {
    for scheme in ["udp", "tcp", "tls"] {
        let corp = format!("-u{scheme}://192.0.2.10,domain=corp.example");
        let mut world = world(&["-u192.0.2.1", &corp], &[(1, GOOD), (10, GOOD)]);
        world.ask("a.corp.example", 10.0, 0.0, 10.0);
        world.ask("a.example", 10.0, 0.0, 10.0);
        for name in ["a.corp.example", "a.example"] {
            let responses = world.run(name);
            assert_eq!((failed(&responses), responses.len()), (0, 100));
        }
        assert_eq!((world.sent_to(1), world.sent_to(10)), (100, 100));
        let seen = in_the_clear(&world);
        assert_eq!(seen.len(), if scheme == "tls" { 0 } else { 100 });
        let is_right = |(host, name): &(u8, String)| *host == 10 && name == "a.corp.example. A";
        assert!(seen.iter().all(is_right), "{seen:?}");
    }
}

#[test]
fn queries_for_a_domain_stay_in_its_pool_when_it_fails() {
    let corp = "-uudp://192.0.2.10,domain=corp.example";
    for trouble in [
        Behaviour::Refuses,
        Behaviour::NeverAnswers,
        Behaviour::Says(Rcode::SERVFAIL),
    ] {
        let mut world = world(&["-u192.0.2.1", corp], &[(1, GOOD), (10, trouble)]);
        world.ask("a.corp.example", 10.0, 0.0, 10.0);
        world.ask("a.example", 10.0, 0.0, 10.0);
        let responses = world.run("a.corp.example");
        assert!(responses.iter().all(|r| r.rcode == Rcode::SERVFAIL));
        let others = world.run("a.example");
        assert_eq!(failed(&others), 0);
        assert_eq!(slower_than(&others, 0.1), 0);
        assert_eq!(world.sent_to(1), 100);
        assert!(in_the_clear(&world).iter().all(|(host, _)| *host == 10));
    }
}

#[test]
fn name_without_a_route_is_refused() {
    let mut world = world(&["-uudp://192.0.2.10,domain=corp.example"], &[(10, GOOD)]);
    world.ask("a.example", 10.0, 0.0, 1.0);
    let responses = world.run("a.example");
    assert!(responses.iter().all(|r| r.rcode == Rcode::REFUSED));
    assert_eq!(world.sent_to(10), 0);
}

#[test]
fn lost_datagrams_are_retried() {
    let corp = "-uudp://192.0.2.10,domain=corp.example";
    let mut world = world(&[corp], &[(10, Behaviour::Loses { every: 50 })]);
    world.ask("a.corp.example", 100.0, 0.0, 60.0);
    let responses = world.run("a.corp.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.5), 0);
    let twice = world.sent_to(10) - 6_000;
    assert!(twice < 200, "{twice} were sent twice");
    // Lost datagrams do not count as failures of the upstream.
    assert_eq!(world.proxy.counters().failure(FailureKind::Stalled), 0);
}

#[test]
fn every_datagram_has_its_own_port() {
    // Queries up to the limit are sent, and the others when there is room.
    let corp = "-uudp://192.0.2.10,domain=corp.example";
    let mut world = world(
        &[corp],
        &[(10, Behaviour::Takes(Duration::from_millis(100)))],
    );
    world.ask("a.corp.example", 100_000.0, 0.0, 0.003);
    let responses = world.run("a.corp.example");
    assert_eq!((failed(&responses), responses.len()), (0, 300));
    let most = responses
        .iter()
        .map(|r| r.waited)
        .max()
        .expect("the queries have responses");
    assert!(most < Duration::from_millis(600), "{most:?}");
    assert!(most > Duration::from_millis(300), "80 at a time: {most:?}");
}

#[test]
fn truncated_answer_is_retried_over_tcp() {
    let corp = "-uudp://192.0.2.10,domain=corp.example";
    for on_connections in [true, false] {
        let mut world = world(&[corp], &[(10, Behaviour::Cuts { on_connections })]);
        world.ask("a.corp.example", 10.0, 0.0, 10.0);
        let responses = world.run("a.corp.example");
        assert_eq!(failed(&responses), 0);
        let cut = responses.iter().filter(|r| r.is_cut).count();
        assert_eq!(cut, if on_connections { 0 } else { 100 });
        assert_eq!(slower_than(&responses, 0.2), 0);
    }
}

#[test]
fn refused_datagram_fails_soon() {
    let corp = "-uudp://192.0.2.10,domain=corp.example";
    let mut world = world(&[corp], &[(10, Behaviour::Refuses)]);
    world.ask("a.corp.example", 1.0, 0.0, 10.0);
    let responses = world.run("a.corp.example");
    assert_eq!(failed(&responses), responses.len());
    assert_eq!(slower_than(&responses[..1], 0.1), 0);
    assert_eq!(slower_than(&responses, 1.1), 0);
}

#[test]
fn special_names_are_answered_locally() {
    let mut world = world(&["-u192.0.2.1"], &[(1, GOOD)]);
    world.ask("localhost", 1.0, 0.0, 1.0);
    world.ask("www.test", 1.0, 0.0, 1.0);
    assert_eq!(failed(&world.run("localhost")), 0);
    let responses = world.run("www.test");
    assert_eq!(responses[0].rcode, Rcode::NXDOMAIN);
    assert_eq!(world.sent_to(1), 0);
}

#[test]
fn private_names_are_answered_locally_unless_an_upstream_has_them() {
    let names = [
        "a.local",
        "a.alt",
        "a.internal",
        "a.default.service.arpa",
        "a.home.arpa",
    ];
    for name in names {
        let (_, domain) = name.split_once('.').expect("two labels");
        let mut alone = world(&["-u192.0.2.1"], &[(1, GOOD)]);
        alone.ask(name, 1.0, 0.0, 1.0);
        assert_eq!(alone.run(name)[0].rcode, Rcode::NXDOMAIN, "{name}");
        assert_eq!(alone.sent_to(1), 0, "{name}");
        let own = format!("-uudp://192.0.2.10,domain={domain}");
        let mut routed = world(&["-u192.0.2.1", &own], &[(1, GOOD), (10, GOOD)]);
        routed.ask(name, 1.0, 0.0, 1.0);
        assert_eq!(failed(&routed.run(name)), 0, "{name}");
        assert_eq!((routed.sent_to(1), routed.sent_to(10)), (0, 1), "{name}");
    }
}

#[test]
fn ds_query_of_a_domain_stays_in_its_pool() {
    const DS: u16 = 43;
    for domain in ["corp.example", "local", "home.arpa", "10.in-addr.arpa"] {
        let corp = format!("-uudp://192.0.2.10,domain={domain}");
        let mut world = world(&["-u192.0.2.1", &corp], &[(1, GOOD), (10, GOOD)]);
        world.plan(at(0.0), Event::QueryOfType(domain, DS));
        assert_eq!(world.run(domain).len(), 1, "{domain}");
        let expected = (10, format!("{domain}. DS"));
        assert_eq!(in_the_clear(&world), [expected]);
        assert_eq!(world.sent_to(1), 0, "{domain}");
    }
}

#[test]
fn special_names_can_be_routed_to_an_upstream() {
    let arguments = ["-u192.0.2.1", "-uudp://192.0.2.10,domain=test"];
    let mut world = world(&arguments, &[(1, GOOD), (10, GOOD)]);
    world.ask("www.test", 1.0, 0.0, 1.0);
    assert_eq!(failed(&world.run("www.test")), 0);
    assert_eq!((world.sent_to(1), world.sent_to(10)), (0, 1));
}

#[test]
fn plain_server_is_used_again_after_its_recovery() {
    let arguments = [
        "-uudp://192.0.2.10,domain=corp.example",
        "-uudp://192.0.2.11,domain=corp.example",
        "--policy=ordered",
    ];
    let mut world = world(&arguments, &[(10, Behaviour::Refuses), (11, GOOD)]);
    world.ask("a.corp.example", 20.0, 0.0, 120.0);
    world.change_behaviour(10, 30.0, GOOD);
    let responses = world.run("a.corp.example");
    assert_eq!(failed(&responses), 0);
    assert!(world.sent_to(10) > 1_000, "{}", world.sent_to(10));
}

// Errors.

#[test]
fn error_of_one_upstream_is_hidden_by_an_answer_of_another() {
    for rcode in [
        Rcode::SERVFAIL,
        Rcode::REFUSED,
        Rcode::NOTIMP,
        Rcode::FORMERR,
    ] {
        for policy in ["fastest", "ordered", "round-robin"] {
            let mut world = World::with(policy, &[Behaviour::Says(rcode), GOOD]);
            world.ask("www.example", 100.0, 0.0, 60.0);
            let responses = world.run("www.example");
            assert_eq!(failed(&responses), 0, "{policy}, {rcode:?}");
            assert_eq!(slower_than(&responses, 0.2), 0);
            assert!(world.sent_to(1) < 30, "asked {} times", world.sent_to(1));
            let failures = world.proxy.counters().failure(FailureKind::BadAnswer);
            assert!(failures > 5, "{failures}");
        }
    }
}

#[test]
fn error_of_all_upstreams_is_the_response() {
    let bad = Behaviour::SaysOfBad(Rcode::SERVFAIL);
    let mut world = World::with("ordered", &[bad, bad, bad, bad]);
    world.ask("bad.example", 10.0, 0.0, 10.0);
    world.ask("www.example", 10.0, 0.0, 10.0);
    let responses = world.run("bad.example");
    assert!(responses.iter().all(|r| r.rcode == Rcode::SERVFAIL));
    assert_eq!(slower_than(&responses, 0.2), 0);
    // Three upstreams are asked, and none of them counts as failed.
    assert_eq!((world.sent_to(1), world.sent_to(3)), (200, 100));
    assert_eq!(world.sent_to(4), 0);
    assert_eq!(failed(&world.run("www.example")), 0);
    assert_eq!(world.proxy.counters().failure(FailureKind::BadAnswer), 0);
}

#[test]
fn common_error_does_not_restore_a_failing_upstream() {
    let behaviours = [
        Behaviour::Says(Rcode::REFUSED),
        Behaviour::SaysOfBad(Rcode::SERVFAIL),
    ];
    let mut world = World::with("ordered", &behaviours);
    world.ask("bad.example", 10.0, 0.0, 60.0);
    world.ask("www.example", 10.0, 0.0, 60.0);
    assert_eq!(failed(&world.run("www.example")), 0);
    let failures = world.proxy.counters().failure(FailureKind::BadAnswer);
    assert!(failures < 20, "{failures}");
}

#[test]
fn upstream_that_fails_one_name_is_used_for_others() {
    let behaviours = [Behaviour::SaysOfBad(Rcode::SERVFAIL), GOOD];
    let mut world = World::with("ordered", &behaviours);
    world.ask("bad.example", 1.0, 0.0, 60.0);
    world.ask("www.example", 50.0, 0.0, 60.0);
    assert_eq!(failed(&world.run("bad.example")), 0);
    assert_eq!(failed(&world.run("www.example")), 0);
    assert!(world.sent_to(1) > 2_500, "{}", world.sent_to(1));
}

#[test]
fn error_of_a_single_upstream_is_delivered_at_once() {
    let mut world = World::new(&[Behaviour::Says(Rcode::REFUSED)]);
    world.ask("www.example", 10.0, 0.0, 10.0);
    let responses = world.run("www.example");
    assert!(responses.iter().all(|r| r.rcode == Rcode::REFUSED));
    let most = responses.iter().skip(1).map(|r| r.waited).max();
    assert_eq!(most, Some(ANSWERING));
    assert_eq!(world.sent_to(1), 100);
}

#[test]
fn upstream_that_refused_is_used_again_after_its_recovery() {
    let mut world = World::with("ordered", &[Behaviour::Says(Rcode::REFUSED), GOOD]);
    world.ask("www.example", 50.0, 0.0, 120.0);
    world.change_behaviour(1, 30.0, GOOD);
    world.change_behaviour(2, 100.0, Behaviour::Refuses);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert!(world.sent_to(1) > 2_500, "{}", world.sent_to(1));
}

#[test]
fn unanswered_second_opinion_delays_few_responses() {
    for second in [
        Behaviour::DropsPackets,
        Behaviour::NeverAnswers,
        Behaviour::Refuses,
    ] {
        let bad = Behaviour::SaysOfBad(Rcode::SERVFAIL);
        let mut world = World::with("ordered", &[bad, second]);
        world.ask("bad.example", 2.0, 0.0, 30.0);
        let responses = world.run("bad.example");
        assert!(responses.iter().all(|r| r.rcode == Rcode::SERVFAIL));
        assert_eq!(slower_than(&responses, 2.5), 0);
        // Errors wait until the silence of the second upstream counts as an outage.
        let slow = slower_than(&responses, 0.4);
        assert!(slow <= 5, "{slow}");
    }
}

#[test]
fn error_is_seldom_delayed_for_a_silent_upstream() {
    let silent = Behaviour::Stalls { after: 3 };
    let others = [Behaviour::Says(Rcode::REFUSED), Behaviour::Closes];
    for others in [others, [others[1], others[0]]] {
        let mut world = World::with("ordered", &[silent, others[0], others[1]]);
        world.ask("www.example", 10.0, 0.0, 5.0);
        let responses = world.run("www.example");
        assert_eq!(slower_than(&responses, 2.5), 0);
        // Errors wait until the silence counts as an outage, as does a query that detects that the
        // upstream is silent again.
        let slow = slower_than(&responses, 0.6);
        assert!(slow <= 22, "{slow}");
    }
}

// Host names.

const NAMED: [&str; 3] = ["-utls://dns.example", "-b192.0.2.53", "--policy=fastest"];

fn after<'a>(responses: &[&'a Response], seconds: f64) -> Vec<&'a Response> {
    let later = responses.iter().filter(|r| r.asked_at >= at(seconds));
    later.copied().collect()
}

#[test]
fn host_name_of_an_upstream_is_resolved() {
    let mut world = world(&NAMED, &[(1, GOOD), (2, GOOD), (53, RESOLVES)]);
    world.set_addresses(&["192.0.2.1", "2001:db8::2"]);
    world.ask("www.example", 10.0, 0.0, 30.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.1), 0);
    let questions = ["dns.example. A", "dns.example. AAAA"];
    let asked = questions.map(|question| (53, question.to_owned()));
    assert_eq!(in_the_clear(&world), asked);
    // The other address is measured from time to time.
    assert!(world.sent_to(1) > 0 && world.sent_to(2) > 0);
}

#[test]
fn queries_wait_for_the_address() {
    let mut world = world(&NAMED, &[(1, GOOD), (53, Behaviour::Refuses)]);
    world.set_addresses(&["192.0.2.1"]);
    world.ask("www.example", 10.0, 0.0, 20.0);
    world.change_behaviour(53, 5.0, RESOLVES);
    let responses = world.run("www.example");
    assert_eq!(failed(&after(&responses, 6.0)), 0);
    assert_eq!(slower_than(&responses, 1.2), 0);
    // The first queries fail at once, because the upstream has no address.
    assert!(failed(&responses) > 0);
}

#[test]
fn unresolvable_upstream_fails_queries_soon() {
    let mut world = world(&NAMED, &[(53, RESOLVES)]);
    world.ask("www.example", 10.0, 0.0, 20.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), responses.len());
    assert_eq!(slower_than(&responses, 1.2), 0);
    // Each resolution queries both address families.
    assert!(world.sent_to(53) <= 2 * 25, "{}", world.sent_to(53));
}

#[test]
fn expired_address_is_used_until_it_is_resolved_again() {
    let mut world = world(&NAMED, &[(1, GOOD), (53, RESOLVES)]);
    world.ttl = 60;
    world.set_addresses(&["192.0.2.1"]);
    world.ask("www.example", 1.0, 0.0, 600.0);
    world.change_behaviour(53, 30.0, Behaviour::NeverAnswers);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.1), 0);
    assert!(world.sent_to(53) > 10, "the address is resolved again");
    assert!(world.sent_to(53) < 300, "{}", world.sent_to(53));
}

#[test]
fn address_is_resolved_again_when_it_expires() {
    let mut world = world(&NAMED, &[(1, GOOD), (53, RESOLVES)]);
    world.ttl = 100;
    world.set_addresses(&["192.0.2.1"]);
    world.ask("www.example", 1.0, 0.0, 1_000.0);
    assert_eq!(failed(&world.run("www.example")), 0);
    let asked = world.sent_to(53);
    assert!((2 * 9..=2 * 11).contains(&asked), "{asked}");
}

#[test]
fn wrong_address_is_not_resolved_more_often() {
    // The TTL is 0, or no server listens on the address.
    for (ttl, behaviour) in [(0, GOOD), (300, Behaviour::Refuses)] {
        let mut world = world(&NAMED, &[(1, behaviour), (53, RESOLVES)]);
        world.ttl = ttl;
        world.set_addresses(&["192.0.2.1"]);
        world.ask("www.example", 2.0, 0.0, 300.0);
        world.run("www.example");
        let asked = world.sent_to(53) / 2;
        assert!((5..=25).contains(&asked), "{asked} times");
    }
}

#[test]
fn number_of_addresses_of_an_upstream_is_limited() {
    let behaviours: Vec<_> = (1..=20).map(|host| (host, Behaviour::Refuses)).collect();
    let addresses: Vec<_> = (1..=20).map(|host| format!("192.0.2.{host}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut world = world(&NAMED, &[&behaviours[..], &[(53, RESOLVES)]].concat());
    world.set_addresses(&addresses);
    world.ask("www.example", 2.0, 0.0, 60.0);
    world.run("www.example");
    assert_eq!(world.connected_to, (1..=4).collect());
}

#[test]
fn upstream_that_moves_repeatedly_is_resolved() {
    let mut world = world(
        &NAMED,
        &[(1, GOOD), (2, Behaviour::Refuses), (53, RESOLVES)],
    );
    world.ttl = 86_400;
    world.set_addresses(&["192.0.2.1"]);
    world.ask("www.example", 20.0, 0.0, 130.0);
    for (number, time) in (1..13).map(|number| (number, 10.0 * f64::from(number))) {
        let (from, to) = if number % 2 == 1 { (1, 2) } else { (2, 1) };
        world.move_to(time, &[["192.0.2.1", "192.0.2.2"][to - 1]]);
        world.change_behaviour([1, 2][to - 1], time, GOOD);
        world.change_behaviour([1, 2][from - 1], time, Behaviour::Refuses);
    }
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 1.0), 0);
}

#[test]
fn upstream_that_has_moved_is_resolved() {
    for gone in [
        Behaviour::Refuses,
        Behaviour::DropsPackets,
        Behaviour::Impostor,
    ] {
        let behaviours = [(1, GOOD), (2, GOOD), (53, RESOLVES)];
        let mut world = world(&NAMED, &behaviours);
        world.ttl = 86_400;
        world.set_addresses(&["192.0.2.1"]);
        world.ask("www.example", 20.0, 0.0, 60.0);
        world.move_to(20.0, &["192.0.2.2"]);
        world.change_behaviour(1, 20.0, Behaviour::Refuses);
        world.change_behaviour(1, 20.001, gone);
        let responses = world.run("www.example");
        assert_eq!(failed(&responses), 0);
        let wait = if gone == Behaviour::DropsPackets {
            3.3
        } else {
            1.0
        };
        assert_eq!(slower_than(&responses, wait), 0);
        assert_eq!(slower_than(&after(&responses, 24.0), 0.1), 0);
    }
}

#[test]
fn former_address_of_an_upstream_is_not_used() {
    let mut world = world(&NAMED, &[(1, GOOD), (2, GOOD), (53, RESOLVES)]);
    world.ttl = 60;
    world.set_addresses(&["192.0.2.1"]);
    world.ask("www.example", 10.0, 0.0, 120.0);
    world.move_to(30.0, &["192.0.2.2"]);
    assert_eq!(failed(&world.run("www.example")), 0);
    let [before, after] = [1, 2].map(|host| world.sent_to(host));
    assert!(before.abs_diff(600) < 20 && after.abs_diff(600) < 20);
}

#[test]
fn broken_address_family_delays_few_queries() {
    for (first, second) in [("2001:db8::1", "192.0.2.2"), ("192.0.2.1", "2001:db8::2")] {
        for trouble in [
            Behaviour::DropsPackets,
            Behaviour::Refuses,
            Behaviour::NeverAnswers,
        ] {
            let mut world = world(&NAMED, &[(1, trouble), (2, GOOD), (53, RESOLVES)]);
            world.set_addresses(&[first, second]);
            world.ask("www.example", 20.0, 0.0, 60.0);
            let responses = world.run("www.example");
            assert_eq!(failed(&responses), 0);
            assert_eq!(slower_than(&responses, 0.6), 0);
            assert!(slower_than(&responses, 0.1) < 20);
        }
    }
}

#[test]
fn addresses_of_one_upstream_are_ranked_under_every_policy() {
    let slow = Behaviour::Takes(Duration::from_millis(100));
    for policy in ["ordered", "round-robin"] {
        let policy = format!("--policy={policy}");
        let arguments = [NAMED[0], NAMED[1], &policy];
        let mut world = world(&arguments, &[(1, slow), (2, GOOD), (53, RESOLVES)]);
        world.set_addresses(&["192.0.2.1", "192.0.2.2"]);
        world.ask("www.example", 50.0, 0.0, 60.0);
        let responses = world.run("www.example");
        assert_eq!(slower_than(&after(&responses, 20.0), 0.05), 0, "{policy}");
    }
}

#[test]
fn round_robin_counts_upstreams_not_addresses() {
    let arguments = [
        "-utls://dns.example",
        "-u192.0.2.9",
        NAMED[1],
        "--policy=round-robin",
    ];
    let mut world = world(
        &arguments,
        &[(1, GOOD), (2, GOOD), (9, GOOD), (53, RESOLVES)],
    );
    world.set_addresses(&["192.0.2.1", "192.0.2.2"]);
    world.ask("www.example", 100.0, 0.0, 30.0);
    assert_eq!(failed(&world.run("www.example")), 0);
    let (named, other) = (world.sent_to(1) + world.sent_to(2), world.sent_to(9));
    assert!(named.abs_diff(other) < 40, "{named} and {other}");
}

#[test]
fn order_is_kept_when_an_address_is_resolved_late() {
    let arguments = [
        "-utls://dns.example",
        "-u192.0.2.9",
        NAMED[1],
        "--policy=ordered",
    ];
    let behaviours = [(1, GOOD), (9, GOOD), (53, Behaviour::NeverAnswers)];
    let mut world = world(&arguments, &behaviours);
    world.set_addresses(&["192.0.2.1"]);
    world.change_behaviour(53, 10.0, RESOLVES);
    world.ask("www.example", 10.0, 0.0, 60.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), 0);
    assert_eq!(slower_than(&responses, 0.1), 0);
    assert!(world.sent_to(9) < 350, "{}", world.sent_to(9));
}

#[test]
fn error_waits_for_an_upstream_that_pauses() {
    let upstreams = ["-u192.0.2.1", "-u192.0.2.9"];
    for policy in ["fastest", "ordered", "round-robin"] {
        for (first, second) in [(0, 1), (1, 0)] {
            for milliseconds in [600, 1_300, 1_900] {
                let policy = format!("--policy={policy}");
                let arguments = [policy.as_str(), upstreams[first], upstreams[second]];
                let faulty = (1, Behaviour::Says(Rcode::SERVFAIL));
                let mut world = world(&arguments, &[faulty, (9, GOOD)]);
                let pause = Behaviour::Takes(Duration::from_millis(milliseconds));
                world.change_behaviour(9, 3.0, pause);
                world.change_behaviour(9, 4.5, GOOD);
                world.ask_names("name", 1, 0.0, 1_000, 0.01);
                world.run("");
                let responses: Vec<&Response> = world.responses.iter().collect();
                let counts = (failed(&responses), responses.len());
                assert_eq!(counts, (0, 1_000), "{policy}, {first}, {milliseconds} ms");
            }
        }
    }
}

#[test]
fn random_failures_and_moves_fail_few_queries() {
    let candidates = [
        GOOD,
        Behaviour::NeverAnswers,
        Behaviour::DropsPackets,
        Behaviour::Refuses,
        Behaviour::Impostor,
        Behaviour::Says(Rcode::SERVFAIL),
    ];
    let (mut asked, mut lost) = (0, 0);
    for seed in crate::support::seeds(24) {
        let mut chance = Chance::new(seed);
        let arguments = ["-utls://dns.example", "-u192.0.2.9", NAMED[1]];
        let behaviours = [(1, GOOD), (2, GOOD), (3, GOOD), (9, GOOD), (53, RESOLVES)];
        let mut world = world(&arguments, &behaviours);
        world.ttl = 60;
        world.set_addresses(&["192.0.2.1", "2001:db8::2"]);
        world.ask("www.example", 50.0, 0.0, 300.0);
        let mut time = 0.0;
        let mut is_other_well = true;
        while time < 300.0 {
            // One upstream recovers first, and after some time the others change. Errors occur only
            // while the other upstream is healthy, since all addresses of one upstream send the
            // same errors.
            time +=
                f64::from(u32::try_from(chance.between(3_000, 20_000)).expect("a small number"))
                    / 1e3;
            world.change_behaviour(if is_other_well { 2 } else { 9 }, time, GOOD);
            is_other_well = !is_other_well;
            time += 3.0;
            let allowed = &candidates[..if is_other_well { 6 } else { 5 }];
            for host in [1, 2, 3]
                .into_iter()
                .filter(|host| is_other_well || *host != 2)
            {
                world.change_behaviour(host, time, *chance.pick(allowed));
            }
            if !is_other_well {
                world.change_behaviour(9, time, *chance.pick(&candidates));
            }
            let homes = [["192.0.2.1", "2001:db8::2"], ["192.0.2.3", "192.0.2.2"]];
            let home = *chance.pick(&homes);
            world.move_to(time, &home);
        }
        let responses = world.run("www.example");
        (asked, lost) = (asked + responses.len(), lost + failed(&responses));
        // A query that timed out causes a back-off of one second for its question.
        let counters = world.proxy.counters();
        let is_paused = counters.outcome(Outcome::TimedOut) > 0;
        assert!(counters.outcome(Outcome::UpstreamFailed) == 0 || is_paused);
    }
    // A few queries may fail: the unhealthy addresses can fail a query three times before the
    // healthy one is known.
    assert!(lost * 5_000 <= asked, "{lost} of {asked}");
}
