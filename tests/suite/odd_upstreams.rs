//! Scenarios in simulated time of upstreams with common defects: connections that end after a few
//! answers, servers without EDNS, unusable replies, and one failing question among others that
//! succeed.

use std::time::Duration;

use dotproxy::base::failure::FailureKind;
use dotproxy::wire::{Header, Rcode};

use crate::support::scripted_upstreams::{
    Behaviour, Defect, Event, GOOD, Response, World, at, failed, slower_than,
};

const THIRTY: Duration = Duration::from_millis(30);

/// Returns a proxy with upstreams of these kinds and these options, at 192.0.2.10 and up.
fn world(scheme: &str, behaviours: &[Behaviour]) -> World {
    let mut arguments = vec!["--policy=ordered".to_owned()];
    let suffix = if scheme == "tls" {
        ""
    } else {
        ",domain=example"
    };
    for host in (10..).take(behaviours.len()) {
        arguments.push(format!("-u{scheme}://192.0.2.{host}{suffix}"));
    }
    let mut world = World::started(&arguments);
    for (host, behaviour) in (10..).zip(behaviours) {
        world.set_behaviour(host, *behaviour);
    }
    world
}

fn all(world: &World) -> Vec<&Response> {
    world.responses.iter().collect()
}

fn longest(world: &World) -> Duration {
    let waits = world.responses.iter().map(|response| response.waited);
    waits.max().expect("the queries have responses")
}

// Connections that end after some answers or take one query at a time.

#[test]
fn queries_behind_a_close_are_sent_again_without_losing_a_try() {
    for scheme in ["tls", "tcp", "udp"] {
        for answers in 1..5 {
            for concurrent in [10, 40] {
                let behaviour = Behaviour::ClosesAfter {
                    answers,
                    takes: THIRTY,
                };
                let mut world = world(scheme, &[behaviour]);
                world.ask_names("www", 1, 0.0, concurrent, 0.0);
                world.run("");
                let case =
                    format!("{scheme}, {answers} answers a connection, {concurrent} queries");
                assert_eq!(failed(&all(&world)), 0, "{case}");
                assert!(longest(&world) < Duration::from_secs(4), "{case}");
            }
        }
    }
}

#[test]
fn upstream_that_limits_connections_and_queries_answers_all() {
    for scheme in ["tls", "tcp", "udp"] {
        for (connections, answers, milliseconds) in [(1, 1, 5), (2, 1, 20), (2, 5, 20), (3, 2, 50)]
        {
            let behaviour = Behaviour::LimitsClients {
                connections,
                answers,
                takes: Duration::from_millis(milliseconds),
                stalls: false,
            };
            for concurrent in [5, 15, 50] {
                let mut world = world(scheme, &[behaviour]);
                world.ask_names("www", 1, 0.0, concurrent, 0.0);
                world.run("");
                let case = format!(
                    "{scheme}, {connections} connections, {answers} answers, {concurrent} queries"
                );
                assert_eq!(failed(&all(&world)), 0, "{case}");
                let cut = world.responses.iter().filter(|response| response.is_cut);
                assert_eq!(cut.count(), 0, "{case}");
            }
        }
    }
}

#[test]
fn upstream_that_stalls_on_pipelined_queries_and_limits_connections_answers_all() {
    for scheme in ["tls", "tcp"] {
        for (answers, queries) in [(5, 10), (5, 50), (6, 100), (20, 100)] {
            let behaviour = Behaviour::LimitsClients {
                connections: 2,
                answers,
                takes: Duration::from_millis(2),
                stalls: true,
            };
            let mut world = world(scheme, &[behaviour]);
            world.ask_names("www", 1, 0.0, queries, 0.0);
            world.run("");
            let case = format!("{scheme}, {answers} answers, {queries} queries");
            assert_eq!(failed(&all(&world)), 0, "{case}");
        }
    }
}

#[test]
fn number_of_queries_that_a_connection_takes_is_learned() {
    for scheme in ["tls", "tcp"] {
        let behaviour = Behaviour::ClosesAfter {
            answers: 2,
            takes: THIRTY,
        };
        let mut world = world(scheme, &[behaviour]);
        world.ask_names("www", 1, 0.0, 3_000, 0.01);
        world.run("");
        assert_eq!(failed(&all(&world)), 0);
        let late = all(&world).into_iter().filter(|r| r.asked_at > at(2.0));
        assert_eq!(slower_than(&late.collect::<Vec<_>>(), 0.3), 0);
        // Only queries that measure the limit of a connection are sent more than once.
        assert!(world.sent_to(10) < 3_100, "{}", world.sent_to(10));
    }
}

#[test]
fn one_query_per_connection_carries_the_load() {
    for scheme in ["tls", "tcp", "udp"] {
        let behaviours = [
            Behaviour::ClosesAfter {
                answers: 1,
                takes: THIRTY,
            },
            Behaviour::DropsPipelined {
                takes: THIRTY,
                reads: usize::MAX,
            },
        ];
        for behaviour in behaviours {
            let mut world = world(scheme, &[behaviour]);
            world.ask_names("www", 1, 0.0, 3_000, 0.01);
            world.run("");
            let failed = all(&world).into_iter().filter(|r| !r.is_answer());
            let failed: Vec<_> = failed.map(|r| (r.name, r.waited, r.error)).collect();
            assert_eq!(failed, [], "{scheme}");
            let late = all(&world).into_iter().filter(|r| r.asked_at > at(5.0));
            let slow = slower_than(&late.collect::<Vec<_>>(), 1.0);
            assert!(slow < 25, "{scheme}: {slow}");
        }
    }
}

#[test]
fn query_that_makes_the_upstream_close_fails_before_its_deadline() {
    let mut world = world("tls", &[Behaviour::Closes]);
    world.ask("www.example", 10.0, 0.0, 2.0);
    let responses = world.run("www.example");
    assert_eq!(failed(&responses), responses.len());
    assert!(world.sent_to(10) < 60, "{}", world.sent_to(10));
}

#[test]
fn pipelined_queries_that_are_dropped_are_asked_one_at_a_time() {
    for scheme in ["tls", "tcp"] {
        for (queries, reads, limit) in [(10, usize::MAX, 1.5), (50, 20, 4.5), (60, 12, 4.5)] {
            let behaviour = Behaviour::DropsPipelined {
                takes: THIRTY,
                reads,
            };
            let mut world = world(scheme, &[behaviour]);
            world.ask_names("www", 1, 0.0, queries, 0.0);
            // The second burst comes when the proxy has learned the behaviour of the server.
            world.ask_names("late", 1, 6.0, 10, 0.0);
            world.run("");
            assert_eq!(failed(&all(&world)), 0, "{scheme}, {queries}, {reads}");
            let longest = longest(&world).as_secs_f64();
            assert!(longest < limit, "{scheme}, {queries}, {reads}: {longest}");
            let late = all(&world).into_iter().filter(|r| r.asked_at > at(5.0));
            assert_eq!(slower_than(&late.collect::<Vec<_>>(), 0.2), 0);
        }
    }
}

#[test]
fn one_slow_name_is_no_sign_of_dropped_queries() {
    let slow = Behaviour::Answers {
        slow: Some(Duration::from_millis(1_200)),
    };
    let mut world = world("tls", &[slow]);
    world.ask("slow.example", 1.0, 0.0, 60.0);
    world.ask_names("www", 1, 0.0, 3_000, 0.02);
    world.run("");
    assert_eq!(failed(&all(&world)), 0);
    assert!(world.links_max <= 2, "{} links", world.links_max);
}

#[test]
fn names_that_are_never_answered_do_not_stop_the_others() {
    for scheme in ["tls", "tcp"] {
        for (count, gap) in [(1_000, 0.02), (4_000, 0.005)] {
            let mut world = world(scheme, &[GOOD]);
            world.ask_names("slow", 1, 0.0, count, gap);
            world.ask_names("www", 1, 0.0, 600, 0.033);
            world.run("");
            let others = all(&world).into_iter();
            let others: Vec<_> = others.filter(|r| r.name.starts_with("www")).collect();
            assert_eq!(failed(&others), 0, "{scheme}, {gap}");
            // 200 names per second fill every connection until they time out.
            if gap > 0.01 {
                assert!(slower_than(&others, 0.1) < 6, "{scheme}, {gap}");
            }
        }
    }
}

#[test]
fn keepalive_of_zero_closes_the_connection_and_fails_no_query() {
    for scheme in ["tls", "tcp"] {
        let mut world = world(scheme, &[Behaviour::EndsKeepalive]);
        world.ask_names("www", 1, 0.0, 3, 0.0);
        world.ask_names("late", 1, 1.0, 5, 1.0);
        world.run("");
        assert_eq!(failed(&all(&world)), 0);
        // Each of the later queries has to open a connection.
        let late = all(&world).into_iter().filter(|r| r.asked_at > at(0.5));
        assert_eq!(slower_than(&late.collect::<Vec<_>>(), 0.045), 5, "{scheme}");
        assert_eq!(world.proxy.counters().failure(FailureKind::Closed), 0);
    }
}

// Unusable replies.

#[test]
fn error_without_a_question_section_is_an_error_at_once() {
    for scheme in ["tls", "tcp", "udp"] {
        for rcode in [
            Rcode::SERVFAIL,
            Rcode::REFUSED,
            Rcode::NOTIMP,
            Rcode::FORMERR,
        ] {
            for defect in [Defect::HeaderOnly(rcode), Defect::QuestionMissing(rcode)] {
                let mut single = world(scheme, &[Behaviour::Defective(defect)]);
                single.ask("www.example", 1.0, 0.0, 1.0);
                single.run("");
                assert!(
                    longest(&single) < Duration::from_millis(150),
                    "{scheme}: {defect:?}"
                );
                assert_eq!(single.responses[0].rcode, rcode, "{scheme}: {defect:?}");

                let mut two = world(scheme, &[Behaviour::Defective(defect), GOOD]);
                two.ask("www.example", 1.0, 0.0, 1.0);
                two.run("");
                assert_eq!(failed(&all(&two)), 0, "{scheme}: {defect:?}");
                assert!(
                    longest(&two) < Duration::from_millis(200),
                    "{scheme}: {defect:?}"
                );
            }
        }
    }
}

#[test]
fn malformed_reply_on_a_connection_fails_the_attempt_once() {
    for scheme in ["tls", "tcp"] {
        for defect in Defect::MALFORMED {
            let mut single = world(scheme, &[Behaviour::Defective(defect)]);
            single.ask("www.example", 1.0, 0.0, 1.0);
            single.run("");
            let response = &single.responses[0];
            assert_eq!(response.rcode, Rcode::SERVFAIL, "{defect:?}");
            assert!(response.waited < Duration::from_millis(200), "{defect:?}");
            assert!(
                single.sent_to(10) <= 2,
                "{defect:?}: {}",
                single.sent_to(10)
            );

            let mut two = world(scheme, &[Behaviour::Defective(defect), GOOD]);
            two.ask_names("www", 1, 0.0, 20, 0.5);
            two.run("");
            assert_eq!(failed(&all(&two)), 0, "{defect:?}");
            assert!(longest(&two) < Duration::from_millis(200), "{defect:?}");
            assert!(two.sent_to(10) < 20, "{defect:?}: {}", two.sent_to(10));
        }
    }
}

#[test]
fn malformed_reply_to_one_name_leaves_the_upstream_first() {
    for defect in Defect::MALFORMED {
        let mut world = world("tls", &[Behaviour::DefectiveForBad(defect), GOOD]);
        world.ask_names("bad", 1, 0.0, 20, 1.0);
        world.ask_names("www", 1, 0.1, 200, 0.1);
        world.run("");
        assert_eq!(failed(&all(&world)), 0, "{defect:?}");
        let wrong = world.questions.iter();
        let wrong = wrong.filter(|(host, name)| *host == 11 && name.starts_with("www"));
        assert_eq!(wrong.count(), 0, "{defect:?}");
    }
}

#[test]
fn malformed_datagram_is_dropped_and_does_not_end_the_query() {
    for defect in Defect::MALFORMED {
        let mut world = world("udp", &[Behaviour::DefectiveFirst(defect)]);
        world.ask("www.example", 10.0, 0.0, 1.0);
        world.run("");
        assert_eq!(failed(&all(&world)), 0, "{defect:?}");
        assert_eq!(world.sent_to(10), 10, "{defect:?}");
    }
}

#[test]
fn answer_truncated_over_tcp_is_retried_on_another_upstream() {
    for scheme in ["tls", "tcp"] {
        let defective = Behaviour::Defective(Defect::TruncatedOnStream);
        let mut world = world(scheme, &[defective, GOOD]);
        world.ask("www.example", 10.0, 0.0, 1.0);
        let responses = world.run("www.example");
        assert!(responses.iter().all(|response| !response.is_cut));
        assert_eq!(failed(&responses), 0);
        assert_eq!(slower_than(&responses, 0.2), 0);
    }
}

#[test]
fn answer_truncated_over_tcp_is_asked_for_once_more_where_there_is_no_other_upstream() {
    for scheme in ["tls", "tcp"] {
        let defective = Behaviour::Defective(Defect::TruncatedOnStream);
        let mut world = world(scheme, &[defective]);
        world.plan(at(0.0), Event::StreamQuery("www.example"));
        world.run("");
        let response = &world.responses[0];
        assert_eq!(world.sent_to(10), 2, "{scheme}");
        assert!(!response.is_cut, "{scheme}");
        assert_eq!(response.rcode, Rcode::SERVFAIL, "{scheme}");
        assert!(response.error.is_some(), "{scheme}");
        assert!(response.waited < Duration::from_millis(200), "{scheme}");
    }
}

#[test]
fn answer_truncated_over_tcp_is_cached_as_a_failure() {
    let defective = Behaviour::Defective(Defect::TruncatedOnStream);
    let mut world = world("tls", &[defective]);
    world.plan(at(0.0), Event::Query("www.example"));
    world.plan(at(0.3), Event::StreamQuery("www.example"));
    world.plan(at(0.6), Event::StreamQuery("www.example"));
    world.run("");
    assert_eq!(world.sent_to(10), 2);
    let responses = &world.responses;
    assert!(responses[0].is_cut, "a UDP client may retry over TCP");
    for response in &responses[1..] {
        assert!(!response.is_cut);
        assert_eq!(response.rcode, Rcode::SERVFAIL);
    }
}

#[test]
fn truncated_datagram_is_no_response_to_a_tcp_client() {
    let mut world = world(
        "udp",
        &[Behaviour::Cuts {
            on_connections: false,
        }],
    );
    world.plan(at(0.0), Event::StreamQuery("www.example"));
    world.plan(at(5.0), Event::Query("other.example"));
    world.run("");
    assert!(!world.responses[0].is_cut);
    assert_eq!(world.responses[0].rcode, Rcode::SERVFAIL);
    assert!(world.responses[0].error.is_some());
    assert!(world.responses[1].is_cut);
}

/// Returns the code with this number, below 16.
fn code(number: u8) -> Rcode {
    let header = Header::parse(&[0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.expect("twelve bytes").flags.rcode()
}

#[test]
fn every_code_but_that_of_an_answer_is_checked_with_another_upstream() {
    for number in [1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        let rcode = code(number);
        let defect = Defect::HeaderOnly(rcode);
        for bad in [Behaviour::Says(rcode), Behaviour::Defective(defect)] {
            let mut two = world("tls", &[bad, GOOD]);
            two.ask("www.example", 1.0, 0.0, 1.0);
            two.run("");
            assert_eq!(failed(&all(&two)), 0, "{rcode:?}");
            assert!(longest(&two) < Duration::from_millis(200), "{rcode:?}");

            let mut single = world("tls", &[bad]);
            single.ask("www.example", 1.0, 0.0, 1.0);
            single.run("");
            assert_eq!(single.responses[0].rcode, rcode);
        }
    }
    for rcode in [Rcode::NXDOMAIN, code(6)] {
        let mut two = world("tls", &[Behaviour::Says(rcode), GOOD]);
        two.ask("www.example", 1.0, 0.0, 1.0);
        two.run("");
        assert_eq!(two.responses[0].rcode, rcode);
        assert_eq!(two.sent_to(11), 0);
    }
}

// One failing question.

/// Returns the number of queries to the second upstream for names that the first upstream answers.
fn queries_to_second(world: &World, stem: &str) -> usize {
    let queries_to_second = world.questions.iter();
    let is_stray = |(host, question): &&(u8, String)| *host == 11 && question.starts_with(stem);
    queries_to_second.filter(is_stray).count()
}

#[test]
fn type_that_the_first_upstream_refuses_moves_no_other_query() {
    for rcode in [
        Rcode::NOTIMP,
        Rcode::REFUSED,
        Rcode::SERVFAIL,
        Rcode::FORMERR,
    ] {
        for policy in ["ordered", "fastest"] {
            let first = Behaviour::SaysOfType(65, rcode);
            let arguments = [
                "-u192.0.2.10",
                "-u192.0.2.11",
                &format!("--policy={policy}"),
            ];
            let mut world = World::started(&arguments);
            world.set_behaviour(10, first);
            world.set_behaviour(11, Behaviour::Takes(Duration::from_millis(60)));
            // A browser queries three types of each name at once.
            for rr_type in [65, 1, 28] {
                world.ask_names("www", rr_type, 0.0, 100, 0.1);
            }
            world.run("");
            assert_eq!(failed(&all(&world)), 0);
            let moved = world.questions.iter();
            let moved = moved.filter(|(host, name)| *host == 11 && !name.ends_with("HTTPS"));
            let moved = moved.count();
            // With the policy `fastest`, a few queries measure the second upstream.
            assert!(
                moved <= if policy == "ordered" { 0 } else { 20 },
                "{policy}: {moved}"
            );
        }
    }
}

#[test]
fn name_that_the_first_upstream_cannot_resolve_moves_no_other_query() {
    let mut world = world("tls", &[Behaviour::SaysOfBad(Rcode::SERVFAIL), GOOD]);
    for rr_type in [1, 28, 65] {
        world.ask_names("bad", rr_type, 0.0, 1, 0.0);
        world.plan(at(5.0), Event::QueryOfType("bad.example", rr_type));
    }
    world.ask_names("www", 1, 0.05, 200, 0.05);
    world.run("");
    assert_eq!(failed(&all(&world)), 0);
    assert_eq!(queries_to_second(&world, "www"), 0);
}

#[test]
fn upstream_that_fails_several_questions_in_a_row_is_left() {
    for rcode in [Rcode::REFUSED, Rcode::SERVFAIL, Rcode::NOTIMP] {
        let mut world = world("tls", &[Behaviour::Says(rcode), GOOD]);
        world.ask_names("www", 1, 0.0, 400, 0.05);
        world.run("");
        assert_eq!(failed(&all(&world)), 0);
        assert!(world.sent_to(10) < 30, "{}", world.sent_to(10));
    }
}

// EDNS.

#[test]
fn upstream_without_edns_is_asked_without_it() {
    for scheme in ["tls", "tcp", "udp"] {
        for is_bare in [true, false] {
            let mut world = world(scheme, &[Behaviour::NoEdns { is_bare }]);
            world.ask_names("plain", 1, 0.0, 20, 1.0);
            world.run("");
            assert_eq!(failed(&all(&world)), 0, "{scheme}, {is_bare}");
            // The first query detects the missing EDNS support.
            assert_eq!(world.sent_to(10), 21, "{scheme}, {is_bare}");
        }
    }
}

#[test]
fn client_that_asks_for_dnssec_records_needs_edns() {
    let mut world = world("tls", &[Behaviour::NoEdns { is_bare: false }]);
    world.ask_names("www", 1, 0.0, 5, 1.0);
    world.run("");
    assert!(
        world
            .responses
            .iter()
            .all(|response| response.rcode == Rcode::FORMERR)
    );
}

#[test]
fn upstream_that_refuses_options_is_asked_without_them() {
    for has_opt in [true, false] {
        for stem in ["plain", "www"] {
            let mut world = world("tls", &[Behaviour::NoOptions { has_opt }]);
            world.ask_names(stem, 1, 0.0, 20, 1.0);
            world.run("");
            assert_eq!(failed(&all(&world)), 0, "{stem}, {has_opt}");
            assert_eq!(world.sent_to(10), 21, "{stem}, {has_opt}");
        }
    }
}

#[test]
fn edns_is_tried_again_after_some_time() {
    let mut world = world("udp", &[Behaviour::NoEdns { is_bare: true }]);
    world.ask_names("plain", 1, 0.0, 4, 600.0);
    world.run("");
    assert_eq!(failed(&all(&world)), 0);
    // The upstream is tried with EDNS at 0 and at 1200 seconds.
    assert_eq!(world.sent_to(10), 4 + 2);
}

#[test]
fn formerr_of_a_server_that_knows_edns_is_the_answer() {
    let mut world = world("udp", &[Behaviour::Says(Rcode::FORMERR)]);
    world.ask_names("plain", 1, 0.0, 5, 1.0);
    world.run("");
    assert!(
        world
            .responses
            .iter()
            .all(|response| response.rcode == Rcode::FORMERR)
    );
    // Each query is repeated once without OPT, since some servers echo the OPT of a query.
    assert_eq!(world.sent_to(10), 10);
}

#[test]
fn upstream_that_loses_edns_is_asked_without_it_at_once() {
    for scheme in ["tls", "tcp", "udp"] {
        let mut world = world(scheme, &[GOOD]);
        world.ask_names("plain", 1, 0.0, 40, 1.0);
        world.change_behaviour(10, 10.5, Behaviour::NoEdns { is_bare: false });
        world.run("");
        assert_eq!(failed(&all(&world)), 0, "{scheme}");
    }
}

// Bootstrap.

fn named(bootstrap: &[Behaviour]) -> World {
    let mut arguments = vec!["-utls://dns.example".to_owned()];
    for host in (53..).take(bootstrap.len()) {
        arguments.push(format!("-b192.0.2.{host}"));
    }
    let mut world = World::started(&arguments);
    world.set_behaviour(1, GOOD);
    for (host, behaviour) in (53..).zip(bootstrap) {
        world.set_behaviour(host, *behaviour);
    }
    world.set_addresses(&["192.0.2.1"]);
    world
}

#[test]
fn bootstrap_uses_tcp_where_datagrams_are_lost() {
    for servers in [
        &[Behaviour::ResolvesOnStreams][..],
        &[Behaviour::ResolvesOnStreams, Behaviour::DropsPackets],
    ] {
        let mut world = named(servers);
        world.ask_names("www", 1, 0.0, 20, 1.0);
        world.run("");
        assert_eq!(failed(&all(&world)), 0);
        assert!(longest(&world) < Duration::from_secs(3));
    }
}

#[test]
fn bootstrap_uses_a_server_without_edns() {
    let mut world = named(&[Behaviour::ResolvesWithoutEdns]);
    world.ask_names("www", 1, 0.0, 20, 1.0);
    world.run("");
    assert_eq!(failed(&all(&world)), 0);
    assert!(longest(&world) < Duration::from_millis(300));
}

#[test]
fn upstream_whose_datagrams_are_lost_is_asked_on_connections() {
    let mut world = world("udp", &[Behaviour::StreamsOnly]);
    world.ask_names("www", 1, 0.0, 100, 1.0);
    world.run("");
    assert_eq!(failed(&all(&world)), 0);
    let slow = slower_than(&all(&world), 0.2);
    // One query per minute detects the lost datagrams.
    assert!(slow <= 8, "{slow}");
}

#[test]
fn rejected_datagrams_are_followed_by_connections() {
    let mut bootstrap = named(&[Behaviour::RejectsDatagrams]);
    bootstrap.ask_names("www", 1, 0.0, 20, 1.0);
    bootstrap.run("");
    assert_eq!(failed(&all(&bootstrap)), 0);
    let mut world = world("udp", &[Behaviour::RejectsDatagrams]);
    world.ask_names("www", 1, 0.0, 100, 1.0);
    world.run("");
    assert_eq!(failed(&all(&world)), 0);
    assert_eq!(slower_than(&all(&world), 0.2), 0);
}

// Slow names and outages.

#[test]
fn one_slow_name_is_no_outage() {
    for scheme in ["tls", "tcp", "udp"] {
        for slow in [None, Some(Duration::from_millis(4_500))] {
            let mut world = world(scheme, &[Behaviour::Answers { slow }]);
            // On a quiet network, and as the last of several queries.
            world.ask("slow.example", 0.1, 0.0, 60.0);
            world.ask("www.example", 0.1, 59.0, 60.0);
            world.plan(at(100.0), Event::Query("www.example"));
            world.plan(at(100.1), Event::Query("slow.example"));
            world.run("");
            let stalled = world.proxy.counters().failure(FailureKind::Stalled);
            assert_eq!(stalled, 0, "{scheme}, {slow:?}");
        }
    }
}

#[test]
fn slow_name_that_delays_other_queries_is_no_outage() {
    for scheme in ["tls", "tcp"] {
        let takes = Duration::from_secs(3);
        let mut world = world(scheme, &[Behaviour::InOrder { slow: takes }]);
        world.ask("www.example", 1.0, 0.0, 1.0);
        world.ask("slow.example", 0.1, 5.0, 65.0);
        world.run("");
        let stalled = world.proxy.counters().failure(FailureKind::Stalled);
        assert_eq!(stalled, 0, "{scheme}");
        assert_eq!(failed(&all(&world)), 0, "{scheme}");
    }
}

#[test]
fn upstream_that_answers_nothing_is_an_outage() {
    for scheme in ["tls", "tcp", "udp"] {
        let mut world = world(scheme, &[Behaviour::NeverAnswers]);
        world.ask("www.example", 1.0, 0.0, 1.0);
        world.run("");
        let stalled = world.proxy.counters().failure(FailureKind::Stalled);
        assert!(stalled > 0, "{scheme}");
    }
}

// Loops.

#[test]
fn forwarding_loop_is_found_and_ends() {
    for scheme in ["tls", "tcp", "udp"] {
        let mut world = world(scheme, &[Behaviour::Loops]);
        world.ask_names("www", 1, 0.0, 1, 0.0);
        world.ask_names("late", 1, 5.0, 10, 1.0);
        world.run("");
        let asked = world
            .responses
            .iter()
            .filter(|response| response.name != "returned");
        let asked: Vec<_> = asked.collect();
        assert!(
            asked
                .iter()
                .all(|response| response.rcode == Rcode::SERVFAIL)
        );
        assert_eq!(asked[0].error, Some(0), "{scheme}");
        assert!(
            asked[0].waited < Duration::from_millis(2_500),
            "{:?}",
            asked[0].waited
        );
        assert_eq!(slower_than(&asked[1..], 0.1), 0, "{scheme}");
        // Without a cache no queries are coalesced, so each query circulates until the loop is
        // detected.
        assert!(world.sent_to(10) < 400, "{scheme}: {}", world.sent_to(10));
        let loops = world.proxy.counters().failure(FailureKind::Loop);
        assert!(loops > 0, "{scheme}");
    }
}

#[test]
fn loop_of_one_upstream_leaves_the_other() {
    let mut world = world("tls", &[Behaviour::Loops, GOOD]);
    world.ask_names("www", 1, 0.0, 60, 1.0);
    world.run("");
    let asked = world
        .responses
        .iter()
        .filter(|response| response.name != "returned");
    let asked: Vec<_> = asked.collect();
    assert_eq!(failed(&asked), 0);
    assert_eq!(slower_than(&asked[5..], 0.2), 0);
}

#[test]
fn forwarding_loop_costs_few_queries() {
    for scheme in ["tls", "tcp", "udp"] {
        let upstream = format!("-u{scheme}://192.0.2.10,domain=example");
        let mut world = World::started(&[upstream.as_str(), "--cache-size=1m"]);
        world.set_behaviour(10, Behaviour::Loops);
        world.ask("www.example", 1.0, 0.0, 60.0);
        world.run("");
        assert!(world.sent_to(10) < 40, "{scheme}: {}", world.sent_to(10));
    }
}

#[test]
fn forwarding_loop_of_one_domain_fails_its_names_and_no_others() {
    for scheme in ["tls", "tcp", "udp"] {
        let upstream = if scheme == "tls" {
            "-u192.0.2.10".to_owned()
        } else {
            format!("-u{scheme}://192.0.2.10,domain=example")
        };
        let mut world = World::started(&[upstream.as_str(), "--cache-size=1m"]);
        world.set_behaviour(10, Behaviour::LoopsCorp);
        for (second, name) in [
            (1.0, "a.corp.example"),
            (3.0, "b.corp.example"),
            (5.0, "corp.example"),
        ] {
            world.plan(at(second), Event::Query(name));
        }
        world.ask_names("www", 1, 0.0, 80, 0.1);
        world.run("");
        let (corp, others): (Vec<&Response>, Vec<&Response>) = world
            .responses
            .iter()
            .filter(|response| response.name != "returned")
            .partition(|response| response.name.ends_with("corp.example"));
        assert_eq!(failed(&others), 0, "{scheme}");
        assert_eq!(slower_than(&others, 0.2), 0, "{scheme}");
        for response in corp {
            assert_eq!(response.rcode, Rcode::SERVFAIL, "{scheme}");
            assert_eq!(response.error, Some(0), "{scheme}");
            let waited = response.waited;
            assert!(
                waited < Duration::from_millis(1_500),
                "{scheme}: {}: {waited:?}",
                response.name
            );
        }
        let loops = world.proxy.counters().failure(FailureKind::Loop);
        assert!(loops > 0, "{scheme}");
    }
}
