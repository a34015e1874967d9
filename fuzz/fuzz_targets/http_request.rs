//! An HTTP server connection. For any input, the requests do not depend on the pieces in which the
//! input arrives, and memory stays small.
//!
//! Input: the number of pieces (one byte), their lengths, the bytes of the connection.

#![no_main]

mod common;

use dotproxy::base::time::Instant;
use dotproxy::session::observer::http_server::{HttpRequest, HttpResponse};
use dotproxy::session::{HttpStream, Scratch};
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
    let (in_pieces, is_over) = requests(bytes, pieces);
    assert_eq!((in_pieces, is_over), requests(bytes, &[]));
});

/// Returns the requests on a connection, and whether the connection is over.
fn requests(bytes: &[u8], pieces: &[u8]) -> (Vec<HttpRequest>, bool) {
    let stream = common::Script::new(bytes, pieces);
    let now = Instant::default();
    let mut scratch = Scratch::new();
    let mut http = HttpStream::new(stream, common::origin(1).peer, now);
    let mut requests = Vec::new();
    for _ in 0..2 * bytes.len() + 600 {
        let request = http.ready(&mut scratch, now);
        if let Some(request) = request.expect("the script has no errors") {
            assert!(!request.path.contains('?'));
            http.respond(&request, &HttpResponse::line("200 OK", &request.path));
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
