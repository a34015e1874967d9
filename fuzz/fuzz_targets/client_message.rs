//! A message from a client, and what upstream says to it: every query gets one response, whatever
//! both are.
//!
//! Input: how the client asks (one octet), the length of its message (two octets), the message; the
//! rest stands behind the question of the answer.

#![no_main]

mod common;

use std::time::Duration;

use dotproxy::proxy::{Outbox, Proxy, Transport};
use dotproxy::time::Instant;
use dotproxy::wire::header::HEADER_LEN;
use dotproxy::wire::{Flags, Header, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [transport, high, low, rest @ ..] = input else {
        return;
    };
    let message_len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (message, tail) = rest.split_at(message_len);
    let now = Instant::default() + Duration::from_secs(1);
    let (transport, len_max) = match transport & 1 {
        0 => (Transport::Udp, 1232),
        _ => (
            Transport::Stream {
                idle: Duration::from_secs(10),
                came: now,
                is_private: false,
            },
            65_535,
        ),
    };
    let mut proxy = Proxy::new(&common::config(), &[7; 32]);
    let mut outbox = Outbox::default();
    let is_owed = proxy.handle_query(common::origin(1), transport, message, now, &mut outbox);
    let header = Header::parse(message);
    let is_query = header.is_some_and(|header| !header.flags.contains(Flags::QR));
    assert_eq!(is_owed, is_query);
    let mut given = common::responses(&outbox, len_max);

    if let Some(link) = common::bring_up_link(&mut proxy, &mut outbox, now) {
        for query in common::queries(&outbox) {
            let question = Message::parse(&query)
                .expect("checked")
                .question()
                .expect("checked");
            let mut reply = query[..HEADER_LEN + question.as_bytes().len()].to_vec();
            // The flags and the counts, too, are upstream's.
            if let [flags_high, flags_low, counts @ ..] = tail {
                (reply[2], reply[3]) = (flags_high | 0x80, *flags_low);
                let counts_len = counts.len().min(6);
                reply[6..6 + counts_len].copy_from_slice(&counts[..counts_len]);
                reply.extend(&counts[counts_len..]);
            }
            outbox.clear();
            proxy.handle_reply(link, &reply, now, &mut outbox);
            given.extend(common::responses(&outbox, len_max));
        }
    }
    outbox.clear();
    let later = now + Duration::from_secs(60);
    proxy.handle_timeout(later, &mut outbox);
    given.extend(common::responses(&outbox, len_max));
    assert_eq!(given.len(), usize::from(is_owed), "one response to a query");
    assert_eq!(proxy.inflight(), 0);
    for response in &given {
        assert_eq!(response[..2], message[..2], "the client's id");
    }
});
