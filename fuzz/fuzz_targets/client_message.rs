//! A message from a client, twice, and the upstream's reply. For any messages, every query gets one
//! response, with and without a cache.
//!
//! Input: the shape of the query and the padding of the reply (one byte), the length of the message
//! (two bytes), the message; the rest is the reply behind its question.

#![no_main]

mod common;

use std::time::Duration;

use dotproxy::base::origin::ClientProtocol;
use dotproxy::base::time::Instant;
use dotproxy::proxy::{ClientTransport, Outbox, Proxy};
use dotproxy::wire::{Flags, Header, MESSAGE_LEN_MAX, steps};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [shape, high, low, rest @ ..] = input else {
        return;
    };
    let message_len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (message, tail) = rest.split_at(message_len);
    let mut now = Instant::default() + Duration::from_secs(1);
    let (transport, len_max) = match shape & 1 {
        0 => (ClientTransport::Udp, 1232),
        _ => (
            ClientTransport::Stream {
                idle: Duration::from_secs(10),
                received_at: now,
                protocol: match shape & 2 {
                    0 => ClientProtocol::Tcp,
                    _ => ClientProtocol::Tls,
                },
            },
            MESSAGE_LEN_MAX,
        ),
    };
    let config = match shape & 4 {
        0 => common::config(),
        _ => common::configured(&["-u192.0.2.1#dot.example", "--cache-size=1m"]),
    };
    let mut proxy = Proxy::new(&config, &[7; 32]);
    for _ in 0..2 {
        let mut outbox = Outbox::default();
        steps::take();
        let mut bytes = message.len();
        let is_owed = proxy.handle_query(common::origin(1), transport, message, now, &mut outbox);
        let header = Header::parse(message);
        let is_query = header.is_some_and(|header| !header.flags.contains(Flags::QR));
        assert_eq!(is_owed, is_query);
        let mut given = common::responses(&outbox, len_max);

        common::bring_up_link(&mut proxy, &mut outbox, now);
        common::queries(&outbox);
        for (link, query) in common::sent(&outbox) {
            let mut reply = common::reply(&query, tail);
            if shape & 8 != 0 {
                common::fill(&mut reply, 15, shape >> 4);
            }
            bytes += query.len() + reply.len();
            outbox.clear();
            proxy.handle_reply(link, &reply, now, &mut outbox);
            given.extend(common::responses(&outbox, len_max));
        }
        outbox.clear();
        if given.is_empty() {
            now += Duration::from_secs(60);
            proxy.handle_timeout(now, &mut outbox);
            given.extend(common::responses(&outbox, len_max));
        }
        common::check_steps(bytes + given.iter().map(Vec::len).sum::<usize>());
        assert_eq!(given.len(), usize::from(is_owed), "one response to a query");
        for response in &given {
            assert_eq!(response[..2], message[..2], "the client's id");
        }
    }
    let mut outbox = Outbox::default();
    proxy.handle_timeout(now + Duration::from_secs(60), &mut outbox);
    assert_eq!(proxy.inflight(), 0);
});
