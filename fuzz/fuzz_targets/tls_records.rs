//! What a peer sends that is no resolver of ours: whatever it is in whatever pieces, nothing panics,
//! and nothing is taken for payload.
//!
//! Input: how many pieces there are (one octet), their lengths, the octets of the connection.

#![no_main]

mod common;

use dotproxy::clock::Clock;
use dotproxy::session::{Scratch, Transport, UpstreamStream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, octets) = rest.split_at(usize::from(*pieces_len).min(rest.len()));
    let connectors =
        dotproxy::tls::connectors(&common::config(), &Clock::new(None)).expect("built-in roots");
    let mut scratch = Scratch::new();
    let stream = common::Script {
        octets,
        pieces,
        turn: 0,
    };
    let connector = connectors[0].as_ref().expect("it speaks TLS");
    let transport = Transport::tls(stream, connector, &mut scratch).expect("a first flight");
    let mut upstream = UpstreamStream::new(transport);
    upstream.send(b"a query that must wait");
    for _ in 0..2 * octets.len() + 600 {
        let step = upstream.ready(&mut scratch, 100_000, |event| {
            panic!("nobody has proved anything, and yet: {event:?}")
        });
        if step.is_err() || upstream.flush(&mut scratch).is_err() {
            break;
        }
    }
    upstream.close(&mut scratch);
});
