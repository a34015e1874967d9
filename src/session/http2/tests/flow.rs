//! Flow control in both directions (RFC 9113, section 5.2 and 6.9).

use super::*;
use crate::session::http2::streams::Http2Stream;

/// Returns a client whose server has windows of `len` bytes for each stream, with a request.
fn client_with_window(len: u32, body: &[u8]) -> TestEnd {
    let mut end = TestEnd::client(Http2Limits::default());
    end.receive_all(&[settings(&[(4, len)])]);
    end.output();
    assert!(end.request(body).is_ok());
    end
}

#[test]
fn content_waits_for_the_window_of_its_stream() {
    let mut end = client_with_window(2, b"abcdefg");
    assert_eq!(end.output(), ["headers 1", "data 1 2"]);
    assert_eq!(end.connection.unsent_len(), 5);
    end.receive_all(&[window_update(1, 3)]);
    assert_eq!(end.output(), ["data 1 3"]);
    end.receive_all(&[window_update(1, 100)]);
    assert_eq!(end.output(), ["data 1 2 end"]);
    assert_eq!(end.connection.unsent_len(), 0);
    end.receive_all(&[headers(1, LAST, OK)]);
    assert_eq!(
        (end.events(), end.output()),
        (vec!["200 1 dns ".into()], vec![])
    );
}

#[test]
fn settings_change_the_windows_of_open_streams() {
    let mut end = client_with_window(4, b"abcdefg");
    assert_eq!(end.output(), ["headers 1", "data 1 4"]);
    // The window becomes -3, then 0, then 1, and then 2.
    end.receive_all(&[settings(&[(4, 1)]), window_update(1, 3)]);
    assert_eq!(end.output(), [""; 0]);
    end.receive_all(&[window_update(1, 1)]);
    assert_eq!(end.output(), ["data 1 1"]);
    end.receive_all(&[settings(&[(4, 3)])]);
    assert_eq!(end.output(), ["data 1 2 end"]);
    assert!(end.request(b"abcdefg").is_ok());
    assert_eq!(end.output(), ["headers 3", "data 3 3"]);
    end.receive_all(&[window_update(3, 1)]);
    assert_eq!(end.output(), ["data 3 1"]);
    let overflow = [window_update(3, 0x7fff_ffff), settings(&[(4, 8)])];
    assert_ends(end, &overflow, ErrorCode::FlowControl);
}

#[test]
fn content_waits_for_the_window_of_the_connection() {
    let mut end = TestEnd::client(Http2Limits::default());
    end.receive_all(&[settings(&[(4, 100_000)])]);
    end.output();
    let body = vec![b'a'; 50_000];
    assert!(end.request(&body).is_ok() && end.request(&body).is_ok());
    let expected = [
        "headers 1",
        "data 1 16384",
        "data 1 16384",
        "data 1 16384",
        "data 1 848 end",
        "headers 3",
        "data 3 15535",
    ];
    assert_eq!(end.output(), expected);
    assert!(end.request(b"abc").is_ok());
    assert_eq!(end.output(), ["headers 5"]);
    end.receive_all(&[window_update(0, 34_464)]);
    assert_eq!(
        end.output(),
        ["data 3 16384", "data 3 16384", "data 3 1696"]
    );
    end.receive_all(&[window_update(0, 2)]);
    assert_eq!(end.output(), ["data 3 1 end", "data 5 1"]);
}

#[test]
fn window_of_the_connection_serves_streams_in_their_order() {
    let mut end = TestEnd::server(Http2Limits::default());
    let get = |stream| headers(stream, LAST, GET);
    end.receive_all(&[settings(&[(4, 65_536)]), get(1), get(3), get(5)]);
    assert_eq!(end.respond(5, &vec![0; 65_536]), Ok(()));
    assert_eq!(end.respond(1, b"abc"), Ok(()));
    assert_eq!(end.respond(3, b"def"), Ok(()));
    assert_eq!(end.output().last().map(String::as_str), Some("headers 3"));
    assert_eq!(end.connection.open_streams(), 3);
    end.receive_all(&[window_update(0, 4)]);
    assert_eq!(end.output(), ["data 1 3 end", "data 3 1"]);
    end.receive_all(&[rst_stream(3, 8), window_update(0, 9)]);
    assert_eq!(end.output(), ["data 5 1 end"]);
    // A response that was queued needs no event.
    assert_eq!(end.events(), ["Get 1 / ", "Get 3 / ", "Get 5 / "]);
    assert_eq!(
        (end.connection.open_streams(), end.connection.unsent_len()),
        (0, 0)
    );
}

#[test]
fn unsent_content_is_bounded() {
    let limits = Http2Limits {
        unsent_len_max: 1000,
        ..Http2Limits::default()
    };
    let mut end = TestEnd::client(limits);
    end.receive_all(&[settings(&[(4, 0)])]);
    end.output();
    assert!(end.request(&[0; 500]).is_ok());
    assert_eq!(end.request(&[0; 500]), Err(NotSent::NoRoom));
    assert!(end.request(&[0; 100]).is_ok());
    assert_eq!(end.connection.open_streams(), 2);
    let mut end = TestEnd::server(limits);
    let get = |stream| headers(stream, LAST, GET);
    end.receive_all(&[settings(&[(4, 0)]), get(1), get(3), get(5)]);
    end.output();
    assert_eq!(end.respond(3, &[0; 500]), Ok(()));
    assert_eq!(end.respond(1, &[0; 500]), Err(NotSent::NoRoom));
    assert_eq!(end.respond(1, b""), Err(NotSent::NoStream));
    assert_eq!(end.respond(5, &[0; 100]), Ok(()));
    assert_eq!(end.output(), ["headers 3", "reset 1 11", "headers 5"]);
    assert_eq!(end.connection.unsent_len(), 600);
}

#[test]
fn response_may_come_before_the_whole_request() {
    let mut end = client_with_window(2, b"abcdefg");
    end.receive_all(&[headers(1, LAST, b"\x8d")]);
    assert_eq!(end.events(), ["404 1 "]);
    assert_eq!(end.output(), ["headers 1", "data 1 2", "reset 1 8"]);
    assert_eq!(end.connection.unsent_len(), 0);
}

#[test]
fn invalid_window_updates_are_errors() {
    let new = || client_with_window(2, b"abcdefg");
    let error = |frame, output: &[&str]| {
        let mut end = new();
        end.output();
        assert_output(end, &[frame], &["failed 1"], output);
    };
    error(window_update(1, 0), &["reset 1 1"]);
    error(window_update(1, 0x8000_0000), &["reset 1 1"]);
    error(
        [window_update(1, 0x7fff_ffff), window_update(1, 0x7fff_ffff)].concat(),
        &["data 1 5 end", "reset 1 3"],
    );
}

#[test]
fn invalid_window_updates_of_the_connection_end_it() {
    let new = || TestEnd::client_with_requests(1);
    assert_ends(new(), &[window_update(0, 0)], ErrorCode::Protocol);
    assert_ends(
        new(),
        &[window_update(0, 0x7fff_ffff)],
        ErrorCode::FlowControl,
    );
    assert_output(new(), &[window_update(0, 0x7fff_0000)], &[], &[]);
}

#[test]
fn received_content_extends_both_windows() {
    let mut end = TestEnd::client_with_requests(1);
    end.receive_all(&[headers(1, END_HEADERS, OK), data(1, 0, &[0; 16_384])]);
    assert_eq!(end.output(), [""; 0]);
    end.receive_all(&[data(1, 0, &[0; 16_383])]);
    assert_eq!(end.output(), [""; 0]);
    end.receive_all(&[data(1, 0, &[0; 1])]);
    assert_eq!(end.output(), ["window 0 32768", "window 1 32768"]);
    end.receive_all(&[data(1, 0, &[0; 16_384]), data(1, END_STREAM, &[0; 16_383])]);
    assert_eq!(
        (end.events(), end.output()),
        (vec!["200 1 dns 65535".into()], vec![])
    );
}

#[test]
fn padding_and_ignored_content_extend_the_window_of_the_connection() {
    let mut end = TestEnd::client_with_requests(2);
    end.connection.cancel(StreamId(1));
    end.output();
    let padded = [&[255; 1][..], &[0; 256]].concat();
    end.receive_all(&[headers(3, END_HEADERS, OK)]);
    for _ in 0..64 {
        end.receive_all(&[data(3, PADDED, &padded), data(1, 0, &[0; 255])]);
    }
    assert_eq!(end.output(), ["window 0 32768"]);
}

#[test]
fn content_above_a_window_is_an_error() {
    let limits = Http2Limits {
        body_len_max: 1,
        ..Http2Limits::default()
    };
    let mut end = TestEnd::server(limits);
    // The windows are extended early enough, also for content that is too long.
    let mut input = vec![headers(1, END_HEADERS, POST)];
    input.extend((0..4).map(|_| data(1, 0, &[0; 16_383])));
    end.receive_all(&input);
    assert_eq!(end.events(), ["Post 1 / dns too long "]);
    assert_eq!(end.output(), ["window 0 49149", "window 1 49149"]);
    let consume = |stream: &mut Http2Stream| stream.receive_window.consume(49_149);
    assert_eq!(
        end.connection.streams.update(StreamId(1), consume),
        Some(Ok(()))
    );
    end.receive_all(&[data(1, 0, &[0; 4])]);
    assert_eq!(
        (end.events(), end.output()),
        (vec!["reset 1".into()], vec!["reset 1 3".into()])
    );
    // The window of the connection is extended at once, unless a frame exceeds it.
    let mut end = TestEnd::client_with_requests(1);
    assert_eq!(end.connection.receive_window.consume(32_767), Ok(()));
    end.receive_all(&[headers(1, END_HEADERS, OK)]);
    let frames = [data(1, 0, &[0; 16_384]), data(1, 0, &[0; 16_384])].concat();
    end.receive_all(&[frames]);
    assert_eq!(end.output(), ["window 0 49151", "window 1 32768"]);
}
