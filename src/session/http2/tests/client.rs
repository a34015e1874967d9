//! The client's end.

use super::*;

fn client() -> TestEnd {
    TestEnd::client_with_requests(1)
}

fn ok(stream: u32, body: &[u8]) -> Vec<u8> {
    [
        headers(stream, END_HEADERS, OK),
        data(stream, END_STREAM, body),
    ]
    .concat()
}

#[test]
fn connection_starts_with_preface_settings_and_requests() {
    let fields = [("user-agent", "a")];
    let head = RequestHead::new("https", "b", "/dns-query{?dns}", &fields).expect("a valid head");
    let mut end = TestEnd::new(Http2Connection::client(Http2Limits::default(), head));
    assert_eq!(end.request(b"abc"), Ok(StreamId(1)));
    let mut output = Vec::new();
    end.connection.take_output(&mut output);
    let block = b"\x83\x87\x41\x01b\x44\x10/dns-query{?dns}\x53\x17application/dns-message\
                  \x5f\x17application/dns-message\x7a\x01a\x0f\x0d\x013";
    let expected = [
        PREFACE.to_vec(),
        settings(&[(1, 0), (2, 0), (6, 8192)]),
        headers(1, END_HEADERS, block),
        data(1, END_STREAM, b"abc"),
    ];
    assert_eq!(output, expected.concat());
    assert_eq!(end.respond(1, b""), Err(NotSent::NoStream));
    // The next request consists of indexes: authority, path, accept, content-type, user-agent.
    let mut request = |body| {
        assert!(end.request(body).is_ok());
        let mut output = Vec::new();
        end.connection.take_output(&mut output);
        output
    };
    let indexes = b"\x83\x87\xc2\xc1\xc0\xbf\xbe\x0f\x0d\x014";
    let expected = [
        headers(3, END_HEADERS, indexes),
        data(3, END_STREAM, b"abcd"),
    ];
    assert_eq!(request(b"abcd"), expected.concat());
}

#[test]
fn dynamic_table_is_not_used_after_the_server_has_limited_it() {
    let plain = b"\x83\x87\x01\x0bdns.example\x04\x0a/dns-query\x0f\x04\x17application/dns-message\
                  \x0f\x10\x17application/dns-message\x0f\x0d\x011";
    for requests in [0, 1, 2] {
        let mut end = TestEnd::client_with_requests(requests);
        end.receive_all(&[settings(&[(1, 4095)])]);
        let mut output = Vec::new();
        end.connection.take_output(&mut output);
        for update in [&b"\x20"[..], b""] {
            let stream = end.request(b"x").expect("room for a request").get();
            let mut output = Vec::new();
            end.connection.take_output(&mut output);
            let block = [update, plain].concat();
            let expected = [
                headers(stream, END_HEADERS, &block),
                data(stream, END_STREAM, b"x"),
            ];
            assert_eq!(output, expected.concat());
        }
    }
}

#[test]
fn head_that_exceeds_the_dynamic_table_is_not_indexed() {
    let path = format!("/{}", "a".repeat(4000));
    let head = RequestHead::new("https", "a", &path, &[]).expect("a valid head");
    let mut end = TestEnd::new(Http2Connection::client(Http2Limits::default(), head));
    for _ in 0..2 {
        assert!(end.request(b"x").is_ok());
        let mut output = Vec::new();
        end.connection.take_output(&mut output);
        assert!(output.len() > 4000);
    }
}

#[test]
fn invalid_request_heads_are_errors() {
    let new = |authority, path, field| RequestHead::new("https", authority, path, &[field]);
    let valid = ("a", "b c");
    assert!(new("a:1", "/", valid).is_ok());
    for (authority, path, field) in [
        ("", "/", valid),
        ("a b", "/", valid),
        ("a", "b", valid),
        ("a", "/\u{e9}", valid),
        ("a", "/", ("A", "b")),
        ("a", "/", (":path", "b")),
        ("a", "/", ("a", "b\n")),
        ("a", "/", ("a", " b")),
        ("a", "/", ("", "b")),
    ] {
        assert_eq!(new(authority, path, field), Err(InvalidRequestHead));
    }
    let long = "/".repeat(8190);
    assert_eq!(new("a", &long, valid), Err(InvalidRequestHead));
}

#[test]
fn responses_are_reported() {
    let mut end = TestEnd::client_with_requests(3);
    assert_eq!(end.connection.room(), 97);
    end.receive_all(&[
        headers(5, END_HEADERS, OK),
        ok(3, b"abc"),
        data(5, 0, b"d"),
        headers(1, LAST, b"\x8d\x0f\x10\x0atext/plain"),
        data(5, END_STREAM, b"ef"),
    ]);
    assert_eq!(end.events(), ["200 3 dns abc", "404 1 ", "200 5 dns def"]);
    assert_eq!(
        (end.connection.open_streams(), end.connection.room()),
        (0, 100)
    );
    assert_eq!(end.output(), [""; 0]);
}

#[test]
fn interim_responses_and_trailers_are_skipped() {
    let input = [
        headers(1, END_HEADERS, b"\x08\x03103"),
        headers(1, END_HEADERS, b"\x08\x03100"),
        headers(1, END_HEADERS, OK),
        data(1, 0, b"abc"),
        headers(1, LAST, &literal("grpc-status", "0")),
    ];
    assert_output(client(), &input, &["200 1 dns abc"], &[]);
}

#[test]
fn malformed_responses_fail() {
    let content_len = |len| [OK, b"\x0f\x0d\x01", len].concat();
    let malformed: [&[Vec<u8>]; 11] = [
        &[data(1, 0, b"a")],
        &[headers(1, LAST, b"")],
        &[headers(1, LAST, b"\x08\x03100")],
        &[headers(1, LAST, b"\x08\x03101")],
        &[headers(1, LAST, b"\x08\x0220")],
        &[headers(1, LAST, b"\x88\x84")],
        &[headers(1, LAST, &[OK, &literal("a", "b\r")].concat())],
        &[headers(1, LAST, &content_len(b"1"))],
        &[
            headers(1, END_HEADERS, &content_len(b"1")),
            data(1, 0, b"ab"),
        ],
        &[headers(1, END_HEADERS, OK), headers(1, END_HEADERS, OK)],
        &[headers(1, END_HEADERS, OK), headers(1, LAST, b"\x88")],
    ];
    for input in malformed {
        assert_output(client(), input, &["failed 1"], &["reset 1 1"]);
    }
    // A response that was not modified may have the length of another one.
    let not_modified = headers(1, LAST, b"\x8b\x0f\x0d\x019");
    assert_output(client(), &[not_modified], &["304 1 "], &[]);
}

#[test]
fn response_that_is_too_long_fails() {
    let limits = Http2Limits {
        body_len_max: 5,
        incomplete_len_max: 100,
        ..Http2Limits::default()
    };
    let new = |number| {
        let mut end = TestEnd::client(limits);
        (0..number).for_each(|_| assert!(end.request(b"a").is_ok()));
        end.output();
        end
    };
    let head = headers(1, END_HEADERS, OK);
    let input = [head, data(1, 0, b"abc"), data(1, END_STREAM, b"def")];
    assert_output(new(1), &input, &["failed 1"], &["reset 1 8"]);
    // The parts of all incomplete responses have a limit, too.
    let mut end = new(30);
    for stream in (1..60).step_by(2) {
        end.receive_all(&[headers(stream, END_HEADERS, OK), data(stream, 0, b"abcd")]);
        assert!(end.connection.streams.received_len() <= 100);
    }
    assert!(end.events().len() >= 5);
    assert!(end.output().iter().all(|frame| frame.ends_with(" 11")));
}

#[test]
fn resets_end_requests() {
    let mut end = TestEnd::client_with_requests(3);
    let incomplete = headers(5, END_HEADERS, OK);
    end.receive_all(&[
        rst_stream(3, 7),
        rst_stream(1, 0),
        incomplete,
        rst_stream(5, 8),
    ]);
    assert_eq!(end.events(), ["refused 3", "failed 1", "failed 5"]);
    assert_eq!((end.output(), end.connection.open_streams()), (vec![], 0));
    // A reset of a stream that is closed already.
    end.receive_all(&[rst_stream(1, 7)]);
    assert_eq!((end.events(), end.output()), (vec![], vec![]));
}

#[test]
fn goaway_refuses_the_streams_above_its_number() {
    let mut end = TestEnd::client_with_requests(4);
    end.receive_all(&[go_away(0x7fff_ffff, 0)]);
    assert_eq!(end.events(), ["goaway 2147483647 0"]);
    assert_eq!(
        (end.connection.room(), end.request(b"a")),
        (0, Err(NotSent::Ending))
    );
    // The reserved bit is ignored.
    end.receive_all(&[go_away(0x8000_0003, 2), ok(1, b"a"), ok(3, b"b")]);
    let expected = [
        "goaway 3 2",
        "refused 5",
        "refused 7",
        "200 1 dns a",
        "200 3 dns b",
    ];
    assert_eq!(end.events(), expected);
    assert!(end.connection.is_ending() && end.connection.open_streams() == 0);
}

#[test]
fn cancelled_request_has_no_event() {
    let mut end = TestEnd::client_with_requests(2);
    end.connection.cancel(StreamId(1));
    end.connection.cancel(StreamId(1));
    assert_eq!(end.output(), ["reset 1 8"]);
    // The response to the cancelled request may change the dynamic table.
    let head = headers(1, END_HEADERS, &[OK, b"\x40\x01x\x01y"].concat());
    end.receive_all(&[head, data(1, END_STREAM, b"a")]);
    end.receive_all(&[headers(3, LAST, &[OK, b"\xbe"].concat())]);
    assert_eq!(
        (end.events(), end.output()),
        (vec!["200 3 dns ".into()], vec![])
    );
}

#[test]
fn late_responses_to_cancelled_requests_are_no_flood() {
    let mut end = TestEnd::client(Http2Limits::default());
    for _ in 0..300 {
        let stream = end.request(b"abc").expect("room for a request");
        end.connection.cancel(stream);
        end.output();
        end.receive_all(&[ok(stream.get(), b"a")]);
    }
    assert_eq!(end.events(), [""; 0]);
}

#[test]
fn resets_of_requests_are_no_flood() {
    for code in [7, 8] {
        let mut end = TestEnd::client(Http2Limits::default());
        for _ in 0..300 {
            let stream = end.request(b"abc").expect("room for a request");
            end.output();
            end.receive_all(&[window_update(0, 3), rst_stream(stream.get(), code)]);
        }
        assert_eq!(end.events().len(), 300);
    }
}

#[test]
fn message_after_the_end_of_a_response_is_an_error_of_its_stream() {
    let input = [ok(1, b"a"), data(1, 0, b"b")];
    assert_output(client(), &input, &["200 1 dns a"], &["reset 1 5"]);
    let input = [ok(1, b"a"), headers(1, LAST, OK)];
    assert_output(client(), &input, &["200 1 dns a"], &["reset 1 5"]);
}

#[test]
fn streams_that_were_not_opened_end_the_connection() {
    for stream in [2, 3] {
        for frame in [
            headers(stream, LAST, OK),
            data(stream, 0, b"a"),
            rst_stream(stream, 8),
            window_update(stream, 1),
        ] {
            assert_ends(client(), &[frame], ErrorCode::Protocol);
        }
    }
    let promise = frame(FrameKind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2]);
    assert_ends(client(), &[promise], ErrorCode::Protocol);
    assert_ends(client(), &[settings(&[(2, 1)])], ErrorCode::Protocol);
    assert_output(client(), &[settings(&[(2, 0)])], &[], &[]);
}

#[test]
fn first_frame_is_settings() {
    let new = || {
        let mut end = TestEnd::new(Http2Connection::client(
            Http2Limits::default(),
            request_head(),
        ));
        assert_eq!(end.request(b"abc"), Ok(StreamId(1)));
        end
    };
    for first in [
        ok(1, b"a"),
        frame(FrameKind::Settings, ACK, 0, &[]),
        go_away(0, 0),
    ] {
        assert_ends(new(), &[first], ErrorCode::Protocol);
    }
    let http1 = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    assert_ends(new(), &[http1], ErrorCode::FrameSize);
}

#[test]
fn room_is_the_smaller_of_both_limits() {
    let streams_max = 3;
    let limits = Http2Limits {
        streams_max,
        ..Http2Limits::default()
    };
    let mut end = TestEnd::new(Http2Connection::client(limits, request_head()));
    assert_eq!(end.connection.room(), 3);
    end.receive_all(&[settings(&[])]);
    assert_eq!(end.connection.room(), 3);
    assert!(end.request(b"a").is_ok() && end.request(b"b").is_ok());
    end.receive_all(&[settings(&[(3, 1)])]);
    assert_eq!(
        (end.connection.room(), end.request(b"c")),
        (0, Err(NotSent::NoRoom))
    );
    end.receive_all(&[settings(&[(3, 1000)])]);
    assert_eq!(end.connection.room(), 1);
    assert!(end.request(b"c").is_ok());
    assert_eq!(
        (end.connection.room(), end.request(b"d")),
        (0, Err(NotSent::NoRoom))
    );
}

#[test]
fn connection_ends_gracefully_when_the_numbers_of_streams_are_used_up() {
    let mut end = TestEnd::client(Http2Limits::default());
    end.connection.last_stream = 0x7fff_fffb;
    for number in [0x7fff_fffd, 0x7fff_ffff] {
        assert!(end.connection.room() > 0);
        assert_eq!(end.request(b"a"), Ok(StreamId(number)));
        end.receive_all(&[ok(number, b"b")]);
    }
    assert_eq!(
        (end.connection.room(), end.request(b"a")),
        (0, Err(NotSent::Ending))
    );
}

#[test]
fn client_shuts_down_after_its_last_response() {
    let mut end = client();
    end.connection.shut_down();
    assert_eq!(
        (end.output(), end.connection.room()),
        (vec!["goaway 0 0".into()], 0)
    );
    end.receive_all(&[ok(1, b"a")]);
    assert_eq!(end.events(), ["200 1 dns a"]);
    assert_eq!(end.connection.open_streams(), 0);
}

#[test]
fn idle_connection_holds_only_the_dynamic_table() {
    let mut end = TestEnd::client_with_requests(100);
    for stream in (1..200).step_by(2) {
        let literals = (0..8).map(|i| literal(&format!("x{stream}{i}"), &"y".repeat(50)));
        let indexed = literals.flat_map(|mut field| {
            field[0] = 0x40;
            field
        });
        let block: Vec<u8> = OK.iter().copied().chain(indexed).collect();
        for byte in [
            headers(stream, END_HEADERS, &block),
            data(stream, 1, &[1; 3000]),
        ]
        .concat()
        {
            end.receive_all(&[vec![byte]]);
        }
    }
    assert_eq!(end.events().len(), 100);
    end.output();
    let held = end.connection.allocated_len();
    assert!((3000..6000).contains(&held), "{held}");
    let mut end = client();
    end.receive_all(&[ok(1, b"a")]);
    let held = end.connection.allocated_len();
    assert!(held < 1000, "{held}");
}
