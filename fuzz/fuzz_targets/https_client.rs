//! A client's connection over HTTPS. For any input in any pieces: pending queries have different
//! ids and are at most as many as the limit, each takes its response, and held memory has a bound.
//!
//! Input: whether the preface and SETTINGS come first (one bit of the first byte), whether the proxy
//! has room (another bit), the number of pieces (one byte), their lengths, the bytes of the
//! connection.

#![no_main]

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::config::Limits;
use dotproxy::session::client::stream::Taken;
use dotproxy::session::{ClientStream, Scratch, Step, Transport};
use libfuzzer_sys::fuzz_target;

/// The preface, and an empty SETTINGS frame.
const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Maximum number of held bytes: incomplete messages, kept queries, unsent responses and tables.
const HELD_MAX: usize = 2 * 1024 * 1024;

fuzz_target!(|input: &[u8]| {
    let [shape, pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    let bytes = match shape & 1 {
        0 => bytes.to_vec(),
        _ => [START, bytes].concat(),
    };
    let stream = common::Script::new(&bytes, pieces);
    let peer = common::origin(1).peer;
    let mut now = Instant::default() + Duration::from_secs(1);
    let limits = Limits::default();
    let mut scratch = Scratch::new();
    let mut client = ClientStream::https(Transport::plain(stream), peer, &limits, now);
    let mut pending: VecDeque<Vec<u8>> = VecDeque::new();
    for round in 0..2 * bytes.len() + 600 {
        now += Duration::from_millis(1);
        let has_room = shape & 2 == 0 || round % 2 == 0;
        let stepped = client.ready(&mut scratch, &limits, now, |message, received_at| {
            assert!(message.len() >= 12 && received_at <= now);
            let is_query = message[2] & 0x80 == 0;
            if is_query {
                assert!(pending.iter().all(|other| other[..2] != message[..2]));
                pending.push_back(message.to_vec());
            }
            Taken {
                is_query,
                is_owed: is_query,
                has_room,
            }
        });
        assert!(pending.len() <= limits.tcp_client_inflight);
        assert!(client.account().1 <= HELD_MAX);
        let Ok(step) = stepped else {
            client.close(&mut scratch);
            return;
        };
        // Some queries are answered later.
        while pending.len() > usize::from(shape >> 4) {
            let Some(mut response) = pending.pop_front() else {
                break;
            };
            response[2] |= 0x80;
            if !client.send(&response, &mut scratch, &limits, now) {
                return;
            }
        }
        if client.flush(&mut scratch, now).is_err() || client.is_over() {
            break;
        }
        if step == Step::Full && !client.can_go_on(&limits) && pending.is_empty() {
            break;
        }
    }
    for mut response in pending {
        response[2] |= 0x80;
        if !client.send(&response, &mut scratch, &limits, now) {
            return;
        }
    }
    let _ = client.flush(&mut scratch, now);
    assert!(!client.is_waiting());
    client.close(&mut scratch);
});
