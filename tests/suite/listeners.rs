//! Scenarios of the listeners at the start: hosts without IPv6.

use std::net::SocketAddr;

use dotproxy::options::{self, Command};
use dotproxy::reactor::Reactor;
use dotproxy::tls;
use dotproxy::tls::clock::Clock;

use crate::support::Chance;
use crate::support::network::{Peers, SimNet, World};

struct NoPeers;

impl Peers for NoPeers {}

/// Starts the proxy on a host without IPv6. Returns its addresses, or the address at fault.
fn start_without_ipv6(options: &str) -> Result<Vec<SocketAddr>, SocketAddr> {
    let arguments = format!("-u 192.0.2.1 {options}");
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let Ok(Command::Run(config)) = options::parse(&arguments) else {
        panic!("the options are right");
    };
    let mut world = World::new(Chance::new(7));
    world.lacks_ipv6 = true;
    let tls = tls::set_up(&config, &Clock::new(None)).expect("no files are named");
    let net = SimNet::new(world, NoPeers);
    match Reactor::new(net, &config, tls, Clock::new(None), &[7; 32]) {
        Ok(mut reactor) => Ok(reactor.net_mut().world.borrow().listeners()),
        Err(error) => Err(error.address),
    }
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn host_without_ipv6_does_not_prevent_the_start_if_another_listener_works() {
    for (options, expected) in [
        ("", &["0.0.0.0:53"][..]),
        ("-l 127.0.0.1 -l ::1", &["127.0.0.1:53"]),
        ("-l ::1 -l 127.0.0.1 -p 5300", &["127.0.0.1:5300"]),
        ("-l 127.0.0.1 --http-listen [::1]:9153", &["127.0.0.1:53"]),
        (
            "-l 127.0.0.1 --http-listen :9153",
            &["0.0.0.0:9153", "127.0.0.1:53"],
        ),
    ] {
        let listeners = start_without_ipv6(options);
        assert_eq!(listeners, Ok(addresses(expected)), "{options}");
    }
}

#[test]
fn host_without_ipv6_prevents_the_start_if_no_listener_for_dns_is_left() {
    for options in ["-l ::1", "-l ::", "-l ::1 --http-listen 127.0.0.1:9153"] {
        let at_fault = start_without_ipv6(options).unwrap_err();
        assert_eq!(
            (at_fault.port(), at_fault.is_ipv6()),
            (53, true),
            "{options}"
        );
    }
}
