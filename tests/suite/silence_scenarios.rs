//! Scenarios in simulated time of a single upstream that is silent for a while and then answers
//! again.

use crate::support::scripted_upstreams::{Behaviour, GOOD, World, failed};

/// Checks that no query fails if the only upstream is silent for up to nearly four of the five
/// seconds that a query has. A query each `gap` seconds is asked for six seconds.
fn check_silence(count: u32, gap: f64) {
    for scheme in ["tls", "tcp", "udp"] {
        let suffix = if scheme == "tls" {
            ""
        } else {
            ",domain=example"
        };
        for silent in [Behaviour::NeverAnswers, Behaviour::DropsPackets] {
            for seconds in [1.0, 2.0, 2.5, 3.0, 3.9] {
                let mut world = World::started(&[format!("-u{scheme}://192.0.2.1{suffix}")]);
                world.set_behaviour(1, GOOD);
                world.ask_names("www", 1, 0.0, count, gap);
                world.change_behaviour(1, 1.0, silent);
                world.change_behaviour(1, 1.0 + seconds, GOOD);
                world.run("");
                let all: Vec<_> = world.responses.iter().collect();
                let is_deaf = silent == Behaviour::NeverAnswers;
                let case = format!("{scheme}, {seconds} s, reads: {is_deaf}, every {gap} s");
                assert_eq!(failed(&all), 0, "{case}");
                let hedges = world.proxy.counters().hedges;
                assert!(hedges <= u64::from(count) / 20 + 256, "{case}: {hedges}");
                let most = 4 * u64::from(count);
                let sent = world.proxy.counters().sent;
                assert!(sent <= most, "{case}: {sent}");
            }
        }
    }
}

#[test]
fn hedged_queries_wait_out_a_silence_of_the_only_upstream() {
    check_silence(400, 0.015);
    check_silence(1_200, 0.005);
}

#[test]
fn queries_on_retired_links_wait_out_a_silence_of_the_only_upstream() {
    check_silence(20, 0.3);
    check_silence(60, 0.1);
}
