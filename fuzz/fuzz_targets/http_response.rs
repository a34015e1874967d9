//! The responses of a collector of traces: whatever comes, the answer is the same in whatever pieces it
//! comes, and there is one for each document at most.
//!
//! Input: how many pieces there are (one octet), their lengths, the octets of the connection.

#![no_main]

mod common;

use dotproxy::session::observer::http_client::Answer;
use dotproxy::session::{HttpClient, Scratch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, octets) = rest.split_at(usize::from(*pieces_len).min(rest.len()));
    // What never comes has no answer.
    if 2 * pieces.iter().filter(|len| **len == 0).count() > pieces.len() {
        return;
    }
    let in_pieces = answer(octets, pieces);
    let whole = answer(octets, &[]);
    // Whether more comes than was asked for shows only once it has come.
    let fixed = |answer: Option<Answer>| answer.map(|answer| (answer.status, answer.retry_after));
    assert_eq!(fixed(in_pieces), fixed(whole));
});

/// The answer to a document, if there is one.
fn answer(octets: &[u8], pieces: &[u8]) -> Option<Answer> {
    let stream = common::Script {
        octets,
        pieces,
        turn: 0,
    };
    let mut scratch = Scratch::new();
    let mut client = HttpClient::new(stream);
    client.post("192.0.2.1:4318", "/v1/traces", "application/json", b"{}");
    client
        .flush(&mut scratch)
        .expect("the script has no errors");
    for _ in 0..2 * octets.len() + 600 {
        match client.ready(&mut scratch) {
            Ok(None) => {}
            Ok(answer) => return answer,
            Err(_) => return None,
        }
    }
    None
}
