//! A client's connection. For any input in any pieces, messages are handed over unchanged, and
//! every query gets a response. Too many consecutive messages that are not queries end the
//! connection.
//!
//! Input: the number of pieces (one byte), their lengths, the bytes of the connection.

#![no_main]

mod common;

use std::time::Duration;

use dotproxy::base::origin::{ClientProtocol, Subscriber};
use dotproxy::base::time::Instant;
use dotproxy::config::Limits;
use dotproxy::proxy::{ClientTransport, Outbox, Proxy, Room};
use dotproxy::session::client::stream::Taken;
use dotproxy::session::{ClientStream, Scratch, Step, Transport};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    let stream = common::Script::new(bytes, pieces);
    let peer = common::origin(1).peer;
    let holder = Subscriber::of(peer.ip());
    let now = Instant::default() + Duration::from_secs(1);
    let limits = Limits::default();
    let mut scratch = Scratch::new();
    let mut client = ClientStream::new(Transport::plain(stream), peer, now);
    let mut proxy = Proxy::new(&common::config(), &[7; 32]);
    let mut outbox = Outbox::default();
    let transport = ClientTransport::Stream {
        idle: Duration::from_secs(10),
        received_at: now,
        protocol: ClientProtocol::Tcp,
    };
    let (mut messages, mut owed, mut answered) = (Vec::new(), 0, 0);
    let (mut is_over, mut unasked) = (false, 0);
    for _ in 0..2 * bytes.len() + 600 {
        let step = client.ready(&mut scratch, &limits, now, |message, _| {
            messages.push(message.to_vec());
            let is_query = message.len() >= 12 && message[2] & 0x80 == 0;
            unasked = if is_query { 0 } else { unasked + 1 };
            let is_owed =
                proxy.handle_query(common::origin(1), transport, message, now, &mut outbox);
            owed += usize::from(is_owed);
            Taken {
                is_query,
                is_owed,
                has_room: proxy.room_for(holder, now) == Room::Free,
            }
        });
        let step = step.expect("the script has no errors");
        // The upstream never becomes available: every forwarded query times out.
        proxy.handle_timeout(now + Duration::from_secs(60), &mut outbox);
        for response in common::responses(&outbox, 65_535) {
            assert!(client.send(&response, &mut scratch, &limits, now));
            answered += 1;
        }
        outbox.clear();
        client
            .flush(&mut scratch, now)
            .expect("the script has no errors");
        is_over = client.is_over();
        if is_over || step == Step::Full && !client.can_go_on(&limits) {
            break;
        }
    }
    assert_eq!(owed, answered);
    let mut rest = bytes;
    for message in messages {
        let (length, after) = rest.split_at(2);
        assert_eq!(
            usize::from(u16::from_be_bytes([length[0], length[1]])),
            message.len()
        );
        let (received_at, after) = after.split_at(message.len());
        assert_eq!(received_at, message);
        rest = after;
    }
    assert!(unasked <= limits.tcp_client_unasked_messages);
    if is_over && unasked < limits.tcp_client_unasked_messages {
        let is_whole = rest
            .split_first_chunk()
            .is_some_and(|(length, rest)| rest.len() >= usize::from(u16::from_be_bytes(*length)));
        assert!(!is_whole, "a message was left");
    }
});
