//! The server's end of an HTTP/2 connection. For any input, the requests do not depend on the pieces
//! in which the input arrives, and memory stays small.
//!
//! Input: the number of pieces (one byte), their lengths, the bytes from the client behind its
//! preface.

#![no_main]

mod common;

use std::collections::BTreeSet;

use dotproxy::session::http2::{Http2Connection, Http2Event, Http2Limits, ResponseHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    assert_eq!(events(bytes, pieces), events(bytes, &[]));
    answer_all(bytes, pieces);
});

fn new() -> Http2Connection {
    let mut connection = Http2Connection::server(Http2Limits {
        streams_max: 8,
        body_len_max: 1000,
        incomplete_len_max: 8192,
        unsent_len_max: 8192,
        ..Http2Limits::default()
    });
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let result = connection.receive(preface, |_| unreachable!("no request is received"));
    assert_eq!(result, Ok(()));
    connection
}

/// Returns the events on a connection without responses, and whether it has ended with an error.
fn events(bytes: &[u8], pieces: &[u8]) -> (Vec<String>, bool) {
    let mut connection = new();
    let mut events = Vec::new();
    let mut output = Vec::new();
    for piece in common::pieces(bytes, pieces) {
        let result = connection.receive(piece, |event| events.push(format!("{event:?}")));
        connection.take_output(&mut output);
        if result.is_err() {
            assert!(output.windows(5).any(|bytes| bytes == [8, 7, 0, 0, 0]));
            return (events, true);
        }
    }
    (events, false)
}

/// Responds to requests at once. The output is read in part only.
fn answer_all(bytes: &[u8], pieces: &[u8]) {
    let mut connection = new();
    let mut waiting = BTreeSet::new();
    let head = ResponseHead {
        status: 200,
        content_type: Some("application/dns-message"),
        max_age_s: Some(1),
        allow: None,
    };
    for piece in common::pieces(bytes, pieces) {
        let result = connection.receive(piece, |event| match event {
            Http2Event::Request {
                stream,
                fields,
                body,
            } => {
                assert!(body.len() <= 1000 && fields.path().len() <= 8192);
                assert!(waiting.insert(stream), "a request is reported once");
            }
            Http2Event::Reset { stream } => {
                assert!(
                    waiting.remove(&stream),
                    "a request without a response is reset"
                );
            }
            Http2Event::GoAway { .. } => {}
            other => unreachable!("{other:?}"),
        });
        if result.is_err() {
            return;
        }
        // The last request waits for its response.
        while waiting.len() > 1
            && let Some(stream) = waiting.pop_first()
        {
            let body = vec![2; usize::from(bytes[0]) * 8];
            let _ = connection.respond(stream, &head, &body);
        }
        let held = connection.allocated_len();
        // The table, a frame, a header block, bodies, output, and streams.
        assert!(
            held < 6_000 + 2 * 16_393 + 2 * 8_192 + 3 * 8_192 + 6 * 8_192,
            "{held}"
        );
        if connection.unsent_len() > 4000 {
            connection.take_output(&mut Vec::new());
        }
    }
}
