//! A client's end against a server's end, with the bytes cut into pieces.

use proptest::prelude::*;

use super::*;

/// Both ends and the bytes between them.
struct TestPair {
    client: TestEnd,
    server: TestEnd,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl TestPair {
    fn new(limits: Http2Limits) -> Self {
        Self {
            client: TestEnd::new(Http2Connection::client(limits, request_head())),
            server: TestEnd::new(Http2Connection::server(limits)),
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    /// Moves at most `len` bytes in each direction. Returns whether nothing is left.
    fn step(&mut self, len: usize) -> bool {
        self.client.connection.take_output(&mut self.to_server);
        self.server.connection.take_output(&mut self.to_client);
        for (bytes, end) in [
            (&mut self.to_server, &mut self.server),
            (&mut self.to_client, &mut self.client),
        ] {
            let piece: Vec<u8> = bytes.drain(..len.min(bytes.len())).collect();
            assert_eq!(end.receive(&piece), Ok(()));
        }
        let has_output = [&self.client, &self.server].map(|end| end.connection.has_output());
        self.to_server.is_empty() && self.to_client.is_empty() && has_output == [false; 2]
    }

    fn settle(&mut self) {
        while !self.step(usize::MAX) {}
    }
}

#[test]
fn exchange_does_not_depend_on_the_pieces() {
    for len in (1..200).chain([usize::MAX]) {
        let mut pair = TestPair::new(Http2Limits::default());
        assert!(pair.client.request(b"abc").is_ok());
        assert!(pair.client.request(&[b'a'; 100]).is_ok());
        while !pair.step(len) {}
        let expected = ["Post 1 /dns-query dns abc", "Post 3 /dns-query dns 100"];
        assert_eq!(pair.server.events(), expected);
        assert_eq!(pair.server.respond(3, &[b'b'; 100]), Ok(()));
        assert_eq!(pair.server.respond(1, b"def"), Ok(()));
        while !pair.step(len) {}
        assert_eq!(pair.client.events(), ["200 3 dns 100", "200 1 dns def"]);
        for end in [&pair.client, &pair.server] {
            assert!(end.connection.open_streams() == 0 && end.connection.allocated_len() < 1200);
        }
    }
}

#[test]
fn bytes_may_be_cut_at_every_position() {
    let mut client = TestEnd::new(Http2Connection::client(
        Http2Limits::default(),
        request_head(),
    ));
    assert!(client.request(b"abc").is_ok() && client.request(b"def").is_ok());
    let mut bytes = Vec::new();
    client.connection.take_output(&mut bytes);
    for at in 0..=bytes.len() {
        let mut server = TestEnd::new(Http2Connection::server(Http2Limits::default()));
        server.receive_all(&[bytes[..at].to_vec()]);
        server.receive_all(&[bytes[at..].to_vec()]);
        let expected = ["Post 1 /dns-query dns abc", "Post 3 /dns-query dns def"];
        assert_eq!(server.events(), expected, "{at}");
    }
}

#[test]
fn many_messages_are_exchanged() {
    let mut pair = TestPair::new(Http2Limits::default());
    for round in 0..200_usize {
        let body = vec![b'a'; 10 + round * 300];
        assert!(pair.client.request(&body).is_ok());
        pair.settle();
        let stream = u32::try_from(2 * round + 1).expect("a small number");
        assert_eq!(pair.server.events().len(), 1);
        assert_eq!(pair.server.respond(stream, &body), Ok(()));
        pair.settle();
        assert_eq!(
            pair.client.events(),
            [format!("200 {stream} dns {}", body.len())]
        );
    }
}

/// A step of a random exchange.
#[derive(Clone, Debug)]
enum TestStep {
    Request(usize),
    /// A response to one of the waiting requests.
    Respond(usize, usize),
    Cancel(usize),
    Move(usize),
}

fn test_steps() -> impl Strategy<Value = Vec<TestStep>> {
    let len = || prop_oneof![10..200_usize, 10..65_536_usize];
    let step = prop_oneof![
        len().prop_map(TestStep::Request),
        (0..9_usize, len()).prop_map(|(at, len)| TestStep::Respond(at, len)),
        (0..9_usize).prop_map(TestStep::Cancel),
        prop_oneof![0..50_usize, 0..40_000_usize].prop_map(TestStep::Move),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_request_ends_once(steps in test_steps()) {
        let mut pair = TestPair::new(Http2Limits {
            incomplete_len_max: usize::MAX,
            unsent_len_max: usize::MAX,
            ..Http2Limits::default()
        });
        let mut open = Vec::new();
        let mut waiting = Vec::new();
        let mut expected = Vec::new();
        let collect = |pair: &mut TestPair, waiting: &mut Vec<u32>| {
            for event in pair.server.events() {
                let words: Vec<&str> = event.split(' ').collect();
                match words[..] {
                    ["Post", stream, ..] => waiting.extend(stream.parse::<u32>()),
                    ["reset", stream] => waiting.retain(|other| other.to_string() != stream),
                    _ => {}
                }
            }
        };
        for step in steps {
            match step {
                TestStep::Request(len) => {
                    open.extend(pair.client.request(&vec![1; len]).map(StreamId::get));
                }
                TestStep::Respond(at, len) if at < waiting.len() => {
                    let stream = waiting.remove(at);
                    let result = pair.server.respond(stream, &vec![2; len]);
                    prop_assert_eq!(result, Ok(()));
                    expected.push((stream, format!("200 {stream} dns {len}")));
                }
                TestStep::Cancel(at) if at < open.len() => {
                    let stream = open.remove(at);
                    pair.client.connection.cancel(StreamId(stream));
                }
                TestStep::Move(len) => {
                    pair.step(len);
                }
                _ => {}
            }
            collect(&mut pair, &mut waiting);
            let events = &pair.client.events;
            let is_done = |stream: u32| {
                let text = format!(" {stream} ");
                events.iter().any(|event| event.contains(&text))
            };
            open.retain(|stream| !is_done(*stream));
        }
        pair.settle();
        collect(&mut pair, &mut waiting);
        for stream in std::mem::take(&mut waiting) {
            prop_assert_eq!(pair.server.respond(stream, &[3; 50]), Ok(()));
            expected.push((stream, format!("200 {stream} dns 50")));
        }
        pair.settle();
        let events = pair.client.events();
        for stream in &open {
            let text = format!(" {stream} ");
            prop_assert_eq!(events.iter().filter(|event| event.contains(&text)).count(), 1);
        }
        for event in &events {
            prop_assert!(expected.iter().any(|(_, text)| text == event), "{}", event);
        }
        prop_assert_eq!(pair.client.connection.open_streams(), 0);
        prop_assert_eq!(pair.server.connection.open_streams(), 0);
    }
}
