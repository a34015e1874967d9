//! The server's end, in the order of the sections of RFC 9113.

use super::*;

fn server() -> TestEnd {
    TestEnd::server(Http2Limits::default())
}

/// Returns the frames of a request without content, and those of a request with content.
fn get(stream: u32) -> Vec<u8> {
    headers(stream, LAST, GET)
}

fn post(stream: u32, body: &[u8]) -> Vec<u8> {
    [
        headers(stream, END_HEADERS, POST),
        data(stream, END_STREAM, body),
    ]
    .concat()
}

#[test]
fn requests_are_reported_and_answered() {
    let mut end = server();
    end.receive_all(&[get(1), post(3, b"abc")]);
    assert_eq!(end.events(), ["Get 1 / ", "Post 3 / dns abc"]);
    assert_eq!(end.connection.open_streams(), 2);
    assert_eq!(end.respond(3, b"defg"), Ok(()));
    assert_eq!(end.respond(1, b""), Ok(()));
    assert_eq!(end.output(), ["headers 3", "data 3 4 end", "headers 1 end"]);
    assert_eq!(end.connection.open_streams(), 0);
    for stream in [1, 3, 5] {
        assert_eq!(end.respond(stream, b""), Err(NotSent::NoStream));
    }
    assert_eq!(end.request(b""), Err(NotSent::Ending));
}

#[test]
fn response_has_its_fields() {
    let mut end = server();
    end.receive_all(&[
        get(1),
        headers(3, LAST, &[b"\x02\x04HEAD", &GET[1..]].concat()),
    ]);
    assert_eq!(end.events(), ["Get 1 / ", "Head 3 / "]);
    let head = ResponseHead {
        status: 405,
        content_type: None,
        max_age_s: None,
        allow: Some("GET, POST"),
    };
    let mut output = Vec::new();
    assert_eq!(end.connection.respond(StreamId(1), &head, b"abc"), Ok(()));
    end.connection.take_output(&mut output);
    let expected = b"\x08\x03405\x0f\x0d\x013\x0f\x07\x09GET, POST";
    assert_eq!(
        output[9..],
        [&expected[..], b"\0\0\x03\0\x01\0\0\0\x01abc"].concat()
    );
    // The response to HEAD has the length of the content, and none of it.
    assert_eq!(end.respond(3, &[b'a'; 200]), Ok(()));
    let mut output = Vec::new();
    end.connection.take_output(&mut output);
    let expected = b"\x88\x0f\x10\x17application/dns-message\x0f\x0d\x03200\
                     \x0f\x09\x0cmax-age=3600";
    assert_eq!(output[9..], expected[..]);
    assert_eq!(frames(&output), ["headers 3 end"]);
}

#[test]
fn connection_starts_with_preface_and_settings() {
    let new = || TestEnd::new(Http2Connection::server(Http2Limits::default()));
    let mut end = new();
    let mut output = Vec::new();
    end.connection.take_output(&mut output);
    let announced = settings(&[(1, 0), (3, 100), (6, 8192)]);
    assert_eq!(output, announced);
    assert_ends(
        new(),
        &[b"GET / HTTP/1.1\r\n\r\n".to_vec()],
        ErrorCode::Protocol,
    );
    assert_ends(
        new(),
        &[PREFACE[..23].to_vec(), vec![b'\r']],
        ErrorCode::Protocol,
    );
    for first in [
        get(1),
        frame(FrameKind::Settings, ACK, 0, &[]),
        go_away(0, 0),
    ] {
        assert_ends(new(), &[PREFACE.to_vec(), first], ErrorCode::Protocol);
    }
}

#[test]
fn frames_have_a_maximum_length() {
    let longest = vec![0; 16_384];
    assert_output(
        server(),
        &[frame(FrameKind::Unknown, 0, 9, &longest)],
        &[],
        &[],
    );
    // The length is checked before the payload is received.
    let mut too_long = frame(FrameKind::Unknown, 0, 9, &[]);
    too_long[1..3].copy_from_slice(&[0x40, 0x01]);
    assert_ends(server(), &[too_long], ErrorCode::FrameSize);
}

#[test]
fn unknown_frames_flags_and_settings_are_ignored() {
    let input = [
        frame(FrameKind::Unknown, 0xff, 0x7fff_ffff, b"abc"),
        settings(&[(0x1234, 5), (0, 0)]),
        headers(1, LAST | 0xc2, GET),
    ];
    assert_output(server(), &input, &["Get 1 / "], &[]);
}

#[test]
fn header_block_is_contiguous() {
    let start = headers(1, END_STREAM, &GET[..2]);
    let part = |stream, flags, block: &[u8]| frame(FrameKind::Continuation, flags, stream, block);
    let whole = [
        start.clone(),
        part(1, 0, &GET[2..4]),
        part(1, END_HEADERS, &GET[4..]),
    ];
    assert_output(server(), &whole, &["Get 1 / "], &[]);
    let interruptions = [
        part(3, 0, b""),
        headers(3, LAST, GET),
        data(1, 0, b""),
        frame(FrameKind::Unknown, 0, 0, b""),
        frame(FrameKind::Ping, 0, 0, &[0; 8]),
    ];
    for frame in interruptions {
        assert_ends(server(), &[start.clone(), frame], ErrorCode::Protocol);
    }
    assert_ends(server(), &[part(1, END_HEADERS, GET)], ErrorCode::Protocol);
    assert_ends(
        server(),
        &[get(1), part(1, END_HEADERS, GET)],
        ErrorCode::Protocol,
    );
}

#[test]
fn invalid_header_blocks_end_the_connection() {
    assert_ends(
        server(),
        &[headers(1, LAST, b"\x80")],
        ErrorCode::Compression,
    );
    assert_ends(
        server(),
        &[headers(1, LAST, b"\x82\xbe")],
        ErrorCode::Compression,
    );
    // Also on a stream whose fields are not needed.
    let resets = [headers(1, LAST, b"\x82"), headers(1, LAST, b"\xbe")];
    assert_ends(server(), &resets, ErrorCode::Compression);
}

#[test]
fn dynamic_table_is_used_whatever_the_settings_say() {
    let block = [GET, b"\x40\x01x\x01y"].concat();
    let input = [
        headers(1, LAST, &block),
        headers(3, LAST, &[GET, b"\xbe"].concat()),
        headers(5, LAST, &[b"\x20", GET].concat()),
    ];
    assert_output(server(), &input, &["Get 1 / ", "Get 3 / ", "Get 5 / "], &[]);
    let mut end = server();
    end.receive_all(&input);
    let after_update = headers(7, LAST, &[GET, b"\xbe"].concat());
    assert_ends(end, &[after_update], ErrorCode::Compression);
}

#[test]
fn idle_streams_take_only_headers_and_priority() {
    let code = ErrorCode::Protocol;
    for stream in [2, 5] {
        assert_ends(server(), &[get(3), data(stream, 0, b"a")], code);
        assert_ends(server(), &[get(3), rst_stream(stream, 8)], code);
        assert_ends(server(), &[get(3), window_update(stream, 1)], code);
    }
    assert_ends(server(), &[get(2)], code);
    let priority = frame(FrameKind::Priority, 0, 5, &[0, 0, 0, 3, 7]);
    assert_output(server(), &[priority, get(1)], &["Get 1 / "], &[]);
}

#[test]
fn half_closed_stream_takes_no_message() {
    for frame in [
        data(1, 0, b"a"),
        data(1, END_STREAM, b""),
        headers(1, LAST, b""),
    ] {
        let input = [get(1), frame];
        assert_output(server(), &input, &["Get 1 / ", "reset 1"], &["reset 1 5"]);
    }
    let input = [get(1), window_update(1, 5)];
    assert_output(server(), &input, &["Get 1 / "], &[]);
}

#[test]
fn closed_streams_take_no_message() {
    let closed = || {
        let mut end = server();
        end.receive_all(&[get(3)]);
        assert_eq!(end.respond(3, b""), Ok(()));
        end.output();
        end.events();
        end
    };
    assert_output(closed(), &[data(3, 0, b"a")], &[], &["reset 3 5"]);
    for stream in [1, 3] {
        assert_ends(closed(), &[get(stream)], ErrorCode::StreamClosed);
    }
    // Frames that may have crossed the response.
    assert_output(closed(), &[window_update(3, 5), rst_stream(3, 8)], &[], &[]);
}

#[test]
fn frames_on_a_stream_that_was_reset_are_ignored() {
    let malformed = headers(1, END_HEADERS, b"\x82");
    let input = [
        malformed,
        data(1, 0, b"a"),
        data(1, END_STREAM, b"b"),
        headers(1, LAST, b""),
        get(3),
    ];
    assert_output(server(), &input, &["Get 3 / "], &["reset 1 1"]);
}

#[test]
fn request_that_is_reset_needs_no_response() {
    let mut end = server();
    end.receive_all(&[get(1), rst_stream(1, 8)]);
    assert_eq!(end.events(), ["Get 1 / ", "reset 1"]);
    assert_eq!(end.respond(1, b""), Err(NotSent::NoStream));
    // An incomplete request was not reported.
    end.receive_all(&[headers(3, END_HEADERS, POST), rst_stream(3, 8)]);
    assert_eq!((end.events(), end.output()), (vec![], vec![]));
    assert_eq!(end.connection.open_streams(), 0);
    end.receive_all(&[get(5)]);
    end.connection.cancel(StreamId(5));
    assert_eq!(
        (end.events(), end.output()),
        (vec!["Get 5 / ".into()], vec!["reset 5 8".into()])
    );
    assert_eq!(end.connection.open_streams(), 0);
}

#[test]
fn streams_above_the_maximum_are_refused() {
    let streams_max = 2;
    let mut end = TestEnd::server(Http2Limits {
        streams_max,
        ..Http2Limits::default()
    });
    end.receive_all(&[get(1), headers(3, END_HEADERS, POST), get(5)]);
    assert_eq!(
        (end.events(), end.output()),
        (vec!["Get 1 / ".into()], vec!["reset 5 7".into()])
    );
    assert_eq!(end.respond(1, b""), Ok(()));
    end.receive_all(&[get(7)]);
    assert_eq!(end.events(), ["Get 7 / "]);
}

#[test]
fn frames_with_a_wrong_stream_or_length_end_the_connection() {
    let kinds = [
        (FrameKind::RstStream, 1, 4),
        (FrameKind::Ping, 0, 8),
        (FrameKind::WindowUpdate, 0, 4),
        (FrameKind::WindowUpdate, 1, 4),
        (FrameKind::Priority, 1, 5),
        (FrameKind::Settings, 0, 6),
    ];
    for (kind, stream, len) in kinds {
        for wrong_len in [len - 1, len + 1] {
            let wrong = frame(kind, 0, stream, &vec![1; wrong_len]);
            assert_ends(server(), &[get(1), wrong], ErrorCode::FrameSize);
        }
    }
    let ack = frame(FrameKind::Settings, ACK, 0, &[0; 6]);
    assert_ends(server(), &[ack], ErrorCode::FrameSize);
    let go_away_part = frame(FrameKind::GoAway, 0, 0, &[0; 7]);
    assert_ends(server(), &[go_away_part], ErrorCode::FrameSize);
    for wrong in [
        data(0, 0, b"a"),
        headers(0, LAST, GET),
        rst_stream(0, 8),
        frame(FrameKind::Priority, 0, 0, &[0; 5]),
        frame(FrameKind::Ping, 0, 1, &[0; 8]),
        frame(FrameKind::Settings, 0, 1, &[]),
        frame(FrameKind::GoAway, 0, 1, &[0; 8]),
        frame(FrameKind::PushPromise, END_HEADERS, 1, &[0; 8]),
    ] {
        assert_ends(server(), &[get(1), wrong], ErrorCode::Protocol);
    }
}

#[test]
fn padding_and_priority_are_skipped() {
    let input = [
        headers(
            1,
            END_HEADERS | PADDED | PRIORITY,
            &[b"\x02\x80\0\0\x03\x07", POST, b"\0\0"].concat(),
        ),
        data(1, END_STREAM | PADDED, b"\x03abc\0\0\0"),
    ];
    assert_output(server(), &input, &["Post 1 / dns abc"], &[]);
    let too_long = data(1, PADDED, b"\x04abc");
    let input = [headers(1, END_HEADERS, POST), too_long];
    assert_ends(server(), &input, ErrorCode::Protocol);
    assert_ends(
        server(),
        &[headers(1, LAST | PADDED, b"\x06\x82")],
        ErrorCode::Protocol,
    );
}

#[test]
fn settings_are_validated() {
    for (id, value, code) in [
        (2, 2, ErrorCode::Protocol),
        (4, 0x8000_0000, ErrorCode::FlowControl),
        (5, 16_383, ErrorCode::Protocol),
        (5, 0x0100_0000, ErrorCode::Protocol),
    ] {
        assert_ends(server(), &[settings(&[(id, value)])], code);
    }
    let valid = [
        (1, u32::MAX),
        (2, 1),
        (3, 0),
        (4, 0x7fff_ffff),
        (5, 0x00ff_ffff),
        (6, 0),
    ];
    assert_output(server(), &[settings(&valid)], &[], &[]);
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let mut end = server();
    let ping = |flags| frame(FrameKind::Ping, flags, 0, b"12345678");
    end.receive_all(&[settings(&[]), ping(0), ping(ACK)]);
    let mut output = Vec::new();
    end.connection.take_output(&mut output);
    let expected = [frame(FrameKind::Settings, ACK, 0, &[]), ping(ACK)].concat();
    assert_eq!(output, expected);
}

#[test]
fn smaller_table_of_the_client_is_signalled_once() {
    let mut end = server();
    end.receive_all(&[settings(&[(1, 4096)]), get(1), get(3), get(5)]);
    let first = |end: &mut TestEnd, stream| {
        end.output();
        assert_eq!(end.respond(stream, b""), Ok(()));
        let mut output = Vec::new();
        end.connection.take_output(&mut output);
        [output[9], output[10]]
    };
    assert_eq!(first(&mut end, 1), [0x88, 0x0f]);
    end.receive_all(&[settings(&[(1, 0)])]);
    assert_eq!(first(&mut end, 3), [0x20, 0x88]);
    end.receive_all(&[settings(&[(1, 0)])]);
    assert_eq!(first(&mut end, 5), [0x88, 0x0f]);
}

#[test]
fn malformed_requests_are_reset() {
    let content_len = |len| [POST, b"\x0f\x0d\x01", len].concat();
    let malformed: [&[Vec<u8>]; 8] = [
        &[headers(1, LAST, b"\x82\x87")],
        &[headers(1, LAST, &[GET, &literal("Upper", "a")].concat())],
        &[headers(
            1,
            LAST,
            &[GET, &literal("connection", "close")].concat(),
        )],
        &[headers(1, LAST, &content_len(b"1"))],
        &[
            headers(1, END_HEADERS, &content_len(b"1")),
            data(1, 0, b"ab"),
        ],
        &[
            headers(1, END_HEADERS, &content_len(b"3")),
            data(1, END_STREAM, b"ab"),
        ],
        // Trailers without the end of the stream, and with a pseudo-field.
        &[headers(1, END_HEADERS, POST), headers(1, END_HEADERS, b"")],
        &[headers(1, END_HEADERS, POST), headers(1, LAST, b"\x84")],
    ];
    for input in malformed {
        let input = [input, &[get(3)]].concat();
        assert_output(server(), &input, &["Get 3 / "], &["reset 1 1"]);
    }
}

#[test]
fn trailers_end_a_request() {
    let input = [
        headers(1, END_HEADERS, &[POST, b"\x0f\x0d\x013"].concat()),
        data(1, 0, b"ab"),
        data(1, 0, b"c"),
        headers(1, LAST, &literal("checksum", "a")),
    ];
    assert_output(server(), &input, &["Post 1 / dns abc"], &[]);
}

#[test]
fn request_that_is_too_long_is_reported_without_content() {
    let limits = Http2Limits {
        body_len_max: 5,
        ..Http2Limits::default()
    };
    let head = |flags, len: &[u8]| headers(1, flags, &[POST, b"\x0f\x0d\x01", len].concat());
    let plain = headers(1, END_HEADERS, POST);
    for input in [
        &[head(END_HEADERS, b"6")][..],
        &[plain.clone(), data(1, 0, b"abc"), data(1, 0, b"def")],
        &[plain.clone(), data(1, 0, b"abcdef"), data(1, 0, b"ghi")],
    ] {
        let mut end = TestEnd::server(limits);
        end.receive_all(input);
        assert_eq!(end.events(), ["Post 1 / dns too long "]);
        assert_eq!(end.respond(1, b"no"), Ok(()));
        assert_eq!(end.output(), ["headers 1", "data 1 2 end"]);
        // The rest of the request is ignored.
        end.receive_all(&[data(1, END_STREAM, b"jkl"), get(3)]);
        assert_eq!(
            (end.events(), end.output()),
            (vec!["Get 3 / ".into()], vec![])
        );
        assert_eq!(end.connection.open_streams(), 1);
    }
    let mut few = limits;
    few.discarded_len_max = 7;
    let mut end = TestEnd::server(few);
    end.receive_all(&[plain.clone(), data(1, 0, b"abcdef"), data(1, 0, b"1234567")]);
    assert_eq!(end.respond(1, b"no"), Ok(()));
    assert_eq!(end.output(), ["headers 1", "data 1 2 end"]);
    end.receive_all(&[data(1, 0, b"8"), data(1, 0, b"9")]);
    assert_eq!(end.output(), ["reset 1 0"]);
    assert_eq!(end.connection.open_streams(), 0);
    let mut end = TestEnd::server(limits);
    let rest = [data(1, 0, b"abcdef"), data(1, END_STREAM, b"ghi")];
    end.receive_all(&[plain.clone(), rest.concat()]);
    assert_eq!(end.respond(1, b""), Ok(()));
    assert_eq!(end.output(), ["headers 1 end"]);
    let mut end = TestEnd::server(limits);
    end.receive_all(&[plain.clone(), data(1, END_STREAM, b"abcdef")]);
    assert_eq!(end.events(), ["Post 1 / dns too long "]);
    assert_eq!(end.respond(1, b""), Ok(()));
    assert_eq!(end.output(), ["headers 1 end"]);
    assert_output(
        TestEnd::server(limits),
        &[post(1, b"abcde")],
        &["Post 1 / dns abcde"],
        &[],
    );
}

#[test]
fn server_shuts_down_after_its_last_response() {
    let mut end = server();
    end.receive_all(&[get(1), get(3)]);
    end.connection.shut_down();
    end.connection.shut_down();
    assert!(end.connection.is_ending() && end.connection.open_streams() == 2);
    end.receive_all(&[get(5)]);
    assert_eq!(end.output(), ["goaway 3 0", "reset 5 7"]);
    assert_eq!((end.respond(1, b""), end.respond(3, b"")), (Ok(()), Ok(())));
    assert_eq!(end.output(), ["headers 1 end", "headers 3 end"]);
    assert_eq!(end.connection.open_streams(), 0);
    // A later error does not name a later stream.
    assert_eq!(end.receive(&data(0, 0, b"")), Err(ErrorCode::Protocol));
    assert_eq!(end.output(), ["goaway 3 1"]);
}

#[test]
fn requests_are_answered_after_a_goaway_of_the_client() {
    let mut end = server();
    end.receive_all(&[get(1), go_away(0, 0)]);
    assert_eq!(end.events(), ["Get 1 / ", "goaway 0 0"]);
    assert!(end.connection.is_ending());
    assert_eq!(end.respond(1, b"a"), Ok(()));
    assert_eq!(end.output(), ["headers 1", "data 1 1 end"]);
}
