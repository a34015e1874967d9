//! Floods: a peer that sends much and exchanges nothing gets `ENHANCE_YOUR_CALM`.

use super::*;

fn server() -> TestEnd {
    TestEnd::server(Http2Limits::default())
}

/// Checks that a connection takes `allowed` more of the frames and then ends.
fn assert_flood(mut end: TestEnd, allowed: usize, frame: impl Fn(u32) -> Vec<u8>) {
    let mut sent = 0;
    let result = loop {
        let result = end.receive(&frame(sent));
        // The output is read, so that only the number of frames counts.
        let output = end.output();
        if result.is_err() {
            assert!(
                output.last().is_some_and(|last| last.ends_with(" 11")),
                "{output:?}"
            );
            break result;
        }
        sent += 1;
        assert!(sent < 10_000, "a bound");
    };
    assert_eq!(result, Err(ErrorCode::EnhanceYourCalm));
    assert_eq!(usize::try_from(sent), Ok(allowed));
}

#[test]
fn frames_without_a_message_are_counted() {
    for frame in [
        frame(FrameKind::Ping, 0, 0, &[0; 8]),
        frame(FrameKind::Ping, ACK, 0, &[0; 8]),
        settings(&[]),
        settings(&[(4, 65_535)]),
        frame(FrameKind::Settings, ACK, 0, &[]),
        frame(FrameKind::Priority, 0, 7, &[0; 5]),
        window_update(0, 1),
        go_away(0, 0),
        frame(FrameKind::Unknown, 0, 0, &[]),
    ] {
        assert_flood(server(), 100, |_| frame.clone());
        assert_flood(TestEnd::client_with_requests(1), 100, |_| frame.clone());
    }
}

#[test]
fn upstream_that_sends_two_frames_for_each_request_is_no_flood() {
    let limits = Http2Limits::CLIENT;
    let mut end = TestEnd::client_with(100, limits);
    end.receive_all(&[settings(&[]), frame(FrameKind::Settings, ACK, 0, &[])]);
    for stream in (1..200).step_by(2) {
        end.receive_all(&[window_update(stream, 64), window_update(0, 64)]);
    }
    end.receive_all(&[go_away(199, 0)]);
}

#[test]
fn client_that_reads_in_small_parts_is_no_flood() {
    let mut end = server();
    end.receive_all(&[window_update(0, 1 << 30)]);
    for nth in 0..100 {
        let stream = 2 * nth + 1;
        end.receive_all(&[headers(stream, END_HEADERS | END_STREAM, POST)]);
        assert_eq!(end.respond(stream, &vec![0; 60_000]), Ok(()));
        // A pair for each 4,096 bytes.
        for _ in 0..15 {
            end.receive_all(&[window_update(0, 4096), window_update(stream, 4096)]);
        }
        end.output();
    }
}

#[test]
fn client_with_small_windows_is_no_flood() {
    let mut end = TestEnd::new(Http2Connection::server(Http2Limits::default()));
    end.receive_all(&[PREFACE.to_vec(), settings(&[(4, 0)])]);
    end.receive_all(&[headers(1, END_HEADERS | END_STREAM, POST)]);
    assert_eq!(end.respond(1, &[0; 16_000]), Ok(()));
    // One frame for each 128 bytes, which is the highest rate that is allowed.
    for _ in 0..16_000 / 128 {
        end.receive_all(&[window_update(1, 128)]);
        end.output();
    }
    assert_eq!(end.connection.open_streams(), 0);
}

#[test]
fn empty_data_is_counted() {
    for payload in [&[][..], &[3, 0, 0, 0]] {
        let flags = if payload.is_empty() { 0 } else { PADDED };
        let mut end = server();
        end.receive_all(&[headers(1, END_HEADERS, POST)]);
        assert_flood(end, 100, |_| data(1, flags, payload));
        let mut end = TestEnd::client_with_requests(1);
        end.receive_all(&[headers(1, END_HEADERS, OK)]);
        assert_flood(end, 100, |_| data(1, flags, payload));
    }
}

#[test]
fn rapid_resets_are_counted() {
    let request = |number| headers(2 * number + 1, LAST, GET);
    let reset = |number| rst_stream(2 * number + 1, 8);
    assert_flood(server(), 100, |number| {
        [request(number), reset(number)].concat()
    });
    // Streams that are refused or malformed, and messages on closed streams.
    let mut end = TestEnd::server(Http2Limits {
        streams_max: 1,
        ..Http2Limits::default()
    });
    end.receive_all(&[request(0)]);
    assert_flood(end, 100, |number| request(number + 1));
    assert_flood(server(), 100, |number| {
        headers(2 * number + 1, LAST, b"\x82")
    });
    let mut end = TestEnd::client_with_requests(1);
    end.receive_all(&[headers(1, LAST, OK)]);
    assert_flood(end, 100, |_| headers(1, LAST, OK));
    // An upstream that resets a stream that it has reset already.
    let end = TestEnd::client_with_requests(1);
    assert_flood(end, 101, |_| rst_stream(1, 8));
    // An upstream that sends interim responses.
    let end = TestEnd::client_with_requests(1);
    assert_flood(end, 100, |_| headers(1, END_HEADERS, b"\x08\x03103"));
}

#[test]
fn resets_caused_by_the_peer_are_counted() {
    // Each request makes the server send a reset (CVE-2025-8671).
    let request = |number: u32| {
        let stream = 2 * number + 1;
        [headers(stream, LAST, GET), window_update(stream, 0)].concat()
    };
    assert_flood(server(), 50, request);
}

#[test]
fn small_windows_are_served_and_tiny_windows_are_a_flood() {
    for (len, is_served) in [(255, true), (127, false)] {
        let mut end = server();
        end.receive_all(&[settings(&[(4, 0)]), headers(1, LAST, GET)]);
        assert_eq!(end.respond(1, &vec![0; 60_000]), Ok(()));
        let updates = [window_update(0, len), window_update(1, len)].concat();
        let is_ended = (0..200).any(|_| {
            let result = end.receive(&updates);
            end.output();
            result.is_err()
        });
        assert_eq!(is_ended, !is_served, "{len}");
    }
}

#[test]
fn exchanged_messages_allow_more_frames() {
    let mut end = server();
    let mut stream = 1;
    let ping = frame(FrameKind::Ping, 0, 0, &[0; 8]);
    for _ in 0..500 {
        end.receive_all(&[headers(stream, LAST, GET), ping.repeat(4)]);
        assert_eq!(end.respond(stream, b"abc"), Ok(()));
        end.output();
        end.events();
        stream += 2;
    }
    // The number of frames that are allowed does not accumulate.
    assert_flood(end, 100, |_| ping.clone());
    let mut end = TestEnd::client(Http2Limits::default());
    for _ in 0..500 {
        let stream = end.request(b"abc").expect("room for a request").get();
        end.receive_all(&[headers(stream, LAST, OK), ping.repeat(4)]);
        end.output();
        end.events();
    }
    assert_flood(end, 96, |_| ping.clone());
}

#[test]
fn continuations_are_bounded() {
    let part = |block: &[u8]| frame(FrameKind::Continuation, 0, 1, block);
    let mut end = server();
    end.receive_all(&[
        headers(1, 0, GET),
        part(b"\x82"),
        part(b""),
        part(b""),
        part(b""),
    ]);
    assert_ends(end, &[part(b"")], ErrorCode::EnhanceYourCalm);
    let mut end = server();
    end.receive_all(&[headers(1, 0, &[0x82; 8192])]);
    assert_ends(end, &[part(b"\x82")], ErrorCode::EnhanceYourCalm);
    assert_ends(
        server(),
        &[headers(1, LAST, &[0x82; 8193])],
        ErrorCode::EnhanceYourCalm,
    );
}

#[test]
fn header_list_is_bounded() {
    // An entry of about 4,000 bytes in the dynamic table, which one byte repeats.
    let value = "a".repeat(3900);
    let mut block = [GET, b"\x40\x01x\x7f\xbd\x1d"].concat();
    block.extend_from_slice(value.as_bytes());
    assert_output(server(), &[headers(1, LAST, &block)], &["Get 1 / "], &[]);
    block.extend_from_slice(&[0xbe; 2]);
    assert_ends(
        server(),
        &[headers(1, LAST, &block)],
        ErrorCode::EnhanceYourCalm,
    );
}

#[test]
fn settings_of_a_frame_are_bounded() {
    let many = |number| settings(&vec![(9, 0); number]);
    assert_output(server(), &[many(32)], &[], &[]);
    assert_ends(server(), &[many(33)], ErrorCode::EnhanceYourCalm);
}

#[test]
fn unread_control_frames_are_bounded() {
    let mut end = TestEnd::server(Http2Limits {
        control_frames_max: 1000,
        ..Http2Limits::default()
    });
    let ping = frame(FrameKind::Ping, 0, 0, &[0; 8]);
    end.receive_all(&[ping.repeat(4096 / 17)]);
    assert_ends(end, &[ping], ErrorCode::EnhanceYourCalm);
}

#[test]
fn memory_of_incomplete_messages_is_bounded() {
    let limits = Http2Limits {
        incomplete_len_max: 100_000,
        ..Http2Limits::default()
    };
    let mut end = TestEnd::server(limits);
    let mut held_max = 0;
    for stream in (1..200).step_by(2) {
        let input = [
            headers(stream, END_HEADERS, POST),
            data(stream, 0, &[0; 16_000]),
        ];
        if end.receive(&input.concat()).is_err() {
            break;
        }
        held_max = held_max.max(end.connection.allocated_len());
        end.output();
    }
    assert!((90_000..150_000).contains(&held_max), "{held_max}");
}
