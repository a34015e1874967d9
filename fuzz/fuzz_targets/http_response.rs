//! Responses of a trace collector. For any input, the answer does not depend on the pieces in which
//! the input arrives, and each document has at most one answer.
//!
//! Input: the number of pieces (one byte), their lengths, the bytes of the connection.

#![no_main]

mod common;

use dotproxy::session::observer::http_client::Answer;
use dotproxy::session::{HttpClient, Scratch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    // Mostly empty pieces do not deliver the input within the turns of the test.
    if 2 * pieces.iter().filter(|len| **len == 0).count() > pieces.len() {
        return;
    }
    let in_pieces = answer(bytes, pieces);
    let whole = answer(bytes, &[]);
    // `is_kept` depends on the pieces: further input shows only once it has arrived.
    let fixed = |answer: Option<Answer>| answer.map(|answer| (answer.status, answer.retry_after));
    assert_eq!(fixed(in_pieces), fixed(whole));
});

/// Returns the answer to a document, if there is one.
fn answer(bytes: &[u8], pieces: &[u8]) -> Option<Answer> {
    let stream = common::Script::new(bytes, pieces);
    let mut scratch = Scratch::new();
    let mut client = HttpClient::new(stream);
    client.post("192.0.2.1:4318", "/v1/traces", "application/json", b"{}");
    client
        .flush(&mut scratch)
        .expect("the script has no errors");
    for _ in 0..2 * bytes.len() + 600 {
        match client.ready(&mut scratch) {
            Ok(None) => {}
            Ok(answer) => return answer,
            Err(_) => return None,
        }
    }
    None
}
