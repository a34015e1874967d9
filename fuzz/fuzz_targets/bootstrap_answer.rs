//! Replies of a bootstrap server about an upstream's addresses. For any reply, a client gets a
//! response, and connections go to a unicast address on the port of the upstream.
//!
//! Input: the number of bytes behind the question of the first reply (two bytes), these bytes, and
//! those of the second reply.

#![no_main]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::config::Scheme;
use dotproxy::proxy::{Action, ClientTransport, Outbox, Proxy};
use libfuzzer_sys::fuzz_target;

const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

fuzz_target!(|input: &[u8]| {
    let [high, low, rest @ ..] = input else {
        return;
    };
    let first_len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (first, second) = rest.split_at(first_len);
    let config = common::configured(&["-utls://dns.example:8853", "-b192.0.2.53"]);
    let mut proxy = Proxy::new(&config, &[7; 32]);
    let mut outbox = Outbox::default();
    let now = Instant::default() + Duration::from_secs(1);
    proxy.handle_timeout(now, &mut outbox);
    let asked = common::sent(&outbox);
    assert_eq!(asked.len(), 2, "queries for both address families");
    let origin = common::origin(1);
    assert!(proxy.handle_query(origin, ClientTransport::Udp, QUERY, now, &mut outbox));
    let mut given = common::responses(&outbox, 1232);
    let mut opened = BTreeSet::new();
    for ((link, query), tail) in asked.iter().zip([first, second]) {
        outbox.clear();
        proxy.handle_reply(*link, &common::reply(query, tail), now, &mut outbox);
        given.extend(common::responses(&outbox, 1232));
        opened.extend(connected_to(&outbox));
    }
    outbox.clear();
    proxy.handle_timeout(now + Duration::from_secs(60), &mut outbox);
    given.extend(common::responses(&outbox, 1232));
    opened.extend(connected_to(&outbox));
    assert_eq!(given.len(), 1, "one response to a query");
    assert_eq!(proxy.inflight(), 0);
    assert!(
        opened
            .iter()
            .all(|address| address.port() == 8853 && !address.ip().is_multicast())
    );
});

fn connected_to(outbox: &Outbox) -> Vec<std::net::SocketAddr> {
    let opened = outbox.actions().iter().filter_map(|action| match action {
        Action::OpenLink { to, .. } if to.scheme == Scheme::Tls => Some(to.address),
        _ => None,
    });
    opened.collect()
}
