//! The client's end of an HTTP/2 connection. For any input, the events do not depend on the pieces
//! in which the input arrives, each request ends at most once, and memory stays small.
//!
//! Input: the number of pieces (one byte), their lengths, the bytes from the server.

#![no_main]

mod common;

use std::collections::BTreeSet;

use dotproxy::session::http2::{Http2Connection, Http2Event, Http2Limits, RequestHead};
use libfuzzer_sys::fuzz_target;

/// The number of requests, of which one is cancelled.
const REQUESTS: usize = 8;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    assert_eq!(events(bytes, pieces), events(bytes, &[]));
});

/// Returns the events on a connection, and whether it has ended with an error.
fn events(bytes: &[u8], pieces: &[u8]) -> (Vec<String>, bool) {
    let limits = Http2Limits {
        incomplete_len_max: 8192,
        ..Http2Limits::default()
    };
    let head = RequestHead::new("https", "a", "/", &[]).expect("a valid head");
    let mut connection = Http2Connection::client(limits, head);
    let mut open = BTreeSet::new();
    for _ in 0..REQUESTS {
        open.insert(connection.request(&[1; 20]).expect("there is room"));
    }
    let cancelled = open.pop_first().expect("a request");
    connection.cancel(cancelled);
    let mut events = Vec::new();
    let mut output = Vec::new();
    for piece in common::pieces(bytes, pieces) {
        let result = connection.receive(piece, |event| {
            events.push(format!("{event:?}"));
            let (Http2Event::Response { stream, .. }
            | Http2Event::Refused { stream }
            | Http2Event::Failed { stream }) = event
            else {
                assert!(matches!(event, Http2Event::GoAway { .. }));
                return;
            };
            assert!(open.remove(&stream), "{stream:?} ends once");
        });
        let held = connection.allocated_len();
        // The table, a frame, a header block, bodies, and output.
        assert!(
            held < 6_000 + 2 * 16_393 + 2 * 8_192 + 3 * 8_192 + 16_384,
            "{held}"
        );
        connection.take_output(&mut output);
        if result.is_err() {
            assert!(output.windows(5).any(|bytes| bytes == [8, 7, 0, 0, 0]));
            return (events, true);
        }
        assert_eq!(connection.open_streams(), open.len());
    }
    (events, false)
}
