//! Decrypted input of an upstream connection. For any input in any pieces, every query gets one
//! response, and every response has the question of its query.
//!
//! Input: the number of queries and of pieces (one byte each), the lengths of the pieces, the bytes
//! of the connection. The number of a query in the id of a message is replaced by the id of that
//! query, so that ids match often enough.

#![no_main]

mod common;

use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::proxy::{ClientTransport, Outbox, Proxy};
use dotproxy::session::upstream::stream::UpstreamEvent;
use dotproxy::session::{Scratch, Step, Transport, UpstreamStream};
use libfuzzer_sys::fuzz_target;

const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

fuzz_target!(|input: &[u8]| {
    let [queries, pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    let now = Instant::default() + Duration::from_secs(1);
    let mut proxy = Proxy::new(&common::config(), &[7; 32]);
    let mut outbox = Outbox::default();
    let queries = u16::from(queries % 8) + 1;
    for number in 0..queries {
        let mut query = QUERY.to_vec();
        query[..2].copy_from_slice(&number.to_be_bytes());
        let origin = common::origin(number);
        assert!(proxy.handle_query(origin, ClientTransport::Udp, &query, now, &mut outbox));
    }
    let link = common::bring_up_link(&mut proxy, &mut outbox, now).expect("the proxy opens a link");
    let ids: Vec<[u8; 2]> = common::queries(&outbox)
        .iter()
        .map(|query| [query[0], query[1]])
        .collect();
    assert_eq!(ids.len(), usize::from(queries));

    let bytes = with_ids(bytes, &ids);
    let stream = common::Script::new(&bytes, pieces);
    let mut upstream = UpstreamStream::new(Transport::plain(stream));
    let mut scratch = Scratch::new();
    let mut given = Vec::new();
    for _ in 0..2 * bytes.len() + 600 {
        outbox.clear();
        let step = upstream.ready(&mut scratch, 100_000, |event| {
            if let UpstreamEvent::Message(message) = event {
                proxy.handle_reply(link, message, now, &mut outbox);
            }
        });
        given.extend(common::responses(&outbox, 512));
        outbox.clear();
        if let Err(failure) = step {
            proxy.handle_link_down(link, &failure, now, &mut outbox);
            break;
        }
        assert_ne!(step, Ok(Step::Full));
    }
    given.extend(common::responses(&outbox, 512));
    outbox.clear();
    proxy.handle_timeout(now + Duration::from_secs(60), &mut outbox);
    given.extend(common::responses(&outbox, 512));
    assert_eq!(given.len(), usize::from(queries), "one response to a query");
    assert_eq!(proxy.inflight(), 0);
    for response in given {
        assert_eq!(response[12..19], QUERY[12..], "the client's question");
    }
});

/// Replaces the numbers of queries by their ids, in every frame.
fn with_ids(bytes: &[u8], ids: &[[u8; 2]]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some([high, low, id_high, id_low]) = bytes.get(at..at + 4) {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let number = usize::from(u16::from_be_bytes([*id_high, *id_low]));
        if let Some(id) = ids.get(number) {
            bytes[at + 2..at + 4].copy_from_slice(id);
        }
        at += 2 + len;
    }
    bytes
}
