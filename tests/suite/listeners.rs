//! Scenarios of the listeners at the start: hosts without IPv6, and addresses that are added later.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use dotproxy::options::{self, Command};
use dotproxy::reactor::{ListenError, Reactor};
use dotproxy::tls;
use dotproxy::tls::clock::Clock;

use crate::support::Chance;
use crate::support::certificates::Authority;
use crate::support::network::{Peers, SimNet, World};

struct NoPeers;

impl Peers for NoPeers {}

/// Starts the proxy in this world.
fn start(world: World, options: &str) -> Result<Box<Reactor<SimNet<NoPeers>>>, ListenError> {
    let arguments = format!("-u 192.0.2.1 {options}");
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let Ok(Command::Run(config)) = options::parse(&arguments) else {
        panic!("the options are right");
    };
    let tls = tls::set_up(&config, &Clock::new(None)).expect("no files are named");
    let net = SimNet::new(world, NoPeers);
    Reactor::new(net, &config, tls, Clock::new(None), &[7; 32])
}

/// Starts the proxy on a host without IPv6. Returns its addresses, or the address at fault.
fn start_without_ipv6(options: &str) -> Result<Vec<SocketAddr>, SocketAddr> {
    let mut world = World::new(Chance::new(7));
    world.lacks_ipv6 = true;
    match start(world, options) {
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
        ("-l :5300", &["0.0.0.0:5300"]),
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
fn host_without_ipv6_serves_tls_clients_on_every_address() {
    let authority = Authority::new("listeners");
    let [certificate, key] = authority.server_files();
    let (certificate, key) = (certificate.display(), key.display());
    let options =
        format!("-l 127.0.0.1 --tls-listen :8853 --tls-cert {certificate} --tls-key {key}");
    let expected = addresses(&["0.0.0.0:8853", "127.0.0.1:53"]);
    assert_eq!(start_without_ipv6(&options), Ok(expected));
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

#[test]
fn missing_address_is_served_seconds_after_the_host_gets_it() {
    let mut world = World::new(Chance::new(7));
    let missing: IpAddr = "192.0.2.77".parse().unwrap();
    world.missing.push(missing);
    let options = "-l 127.0.0.1:53 -l 192.0.2.77:5300 --http-listen 192.0.2.77:9153";
    let Ok(mut reactor) = start(world, options) else {
        panic!("a missing address does not prevent the start");
    };
    let world = Rc::clone(&reactor.net_mut().world);
    let listeners = || world.borrow().listeners();
    let at_start = addresses(&["127.0.0.1:53"]);
    assert_eq!(listeners(), at_start);
    let run_for = |reactor: &mut Reactor<SimNet<NoPeers>>, length: Duration| {
        let end = world.borrow().now + length;
        // Without a late listener the loop has nothing to wait for.
        while world.borrow().now < end && !world.borrow().is_over {
            reactor.turn().expect("the simulation has no I/O errors");
        }
    };
    run_for(&mut reactor, Duration::from_secs(3600));
    assert_eq!(listeners(), at_start);
    let attempts = world.borrow().attempts_at_missing;
    // Two listeners, one attempt of each every 4 s.
    assert!((1_780..1_840).contains(&attempts), "{attempts}");
    world.borrow_mut().missing.clear();
    run_for(&mut reactor, Duration::from_secs(5));
    let all = addresses(&["127.0.0.1:53", "192.0.2.77:5300", "192.0.2.77:9153"]);
    assert_eq!(listeners(), all);
    assert_eq!(reactor.late_listeners().count(), 0);
}

#[test]
fn missing_address_may_be_the_only_one() {
    let mut world = World::new(Chance::new(7));
    world.missing.push("192.0.2.77".parse().unwrap());
    let reactor = start(world, "-l 192.0.2.77:5300").map_err(|error| error.address);
    let reactor = reactor.expect("a missing address does not prevent the start");
    let late = reactor.late_listeners().map(|late| late.address);
    assert_eq!(late.collect::<Vec<_>>(), addresses(&["192.0.2.77:5300"]));
}
