//! An HTTP connection: whatever comes on it, the same requests are found in whatever pieces it comes,
//! and little is held for it.
//!
//! Input: how many pieces there are (one octet), their lengths, the octets of the connection.

#![no_main]

mod common;

use dotproxy::session::observer::http_server::{Request, Response};
use dotproxy::session::{HttpStream, Scratch};
use dotproxy::base::time::Instant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, octets) = rest.split_at(usize::from(*pieces_len).min(rest.len()));
    // What never comes is not found.
    if 2 * pieces.iter().filter(|len| **len == 0).count() > pieces.len() {
        return;
    }
    let (in_pieces, is_over) = requests(octets, pieces);
    assert_eq!((in_pieces, is_over), requests(octets, &[]));
});

/// The requests on a connection, and whether it ends with the last.
fn requests(octets: &[u8], pieces: &[u8]) -> (Vec<Request>, bool) {
    let stream = common::Script {
        octets,
        pieces,
        turn: 0,
    };
    let now = Instant::default();
    let mut scratch = Scratch::new();
    let mut http = HttpStream::new(stream, common::origin(1).peer, now);
    let mut requests = Vec::new();
    for _ in 0..2 * octets.len() + 600 {
        let request = http.ready(&mut scratch, now);
        if let Some(request) = request.expect("the script has no errors") {
            assert!(!request.path.contains('?'));
            http.respond(&request, &Response::line("200 OK", &request.path));
            requests.push(request);
        }
        http.flush(&mut scratch, now)
            .expect("the script has no errors");
        let (_, held) = http.account();
        assert!(held <= 64 * 1024 + 3 * 8 * 1024, "{held}");
        if http.is_over() {
            break;
        }
    }
    (requests, http.is_over())
}
