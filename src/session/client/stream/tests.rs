use super::*;
use crate::session::testing::Pipe;
use crate::wire::frame;
use std::time::Duration;

struct Scene {
    pipe: Pipe,
    client: ClientStream<Pipe>,
    scratch: Scratch,
    limits: Limits,
    now: Instant,
    taken: Vec<Vec<u8>>,
    /// Arrival times of the messages, in seconds.
    received_at: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        let pipe = Pipe::default();
        let peer = ([127, 0, 0, 1], 4711).into();
        let transport = Transport::plain(pipe.clone());
        Self {
            pipe,
            client: ClientStream::new(transport, peer, Instant::default()),
            scratch: Scratch::new(),
            limits: Limits {
                tcp_client_inflight: 3,
                ..Limits::default()
            },
            now: Instant::default(),
            taken: Vec::new(),
            received_at: Vec::new(),
        }
    }

    fn push(&self, messages: &[&[u8]]) {
        let mut bytes = Vec::new();
        for message in messages {
            frame::write(&mut bytes, message);
        }
        self.pipe.push(&bytes);
    }

    fn ready(&mut self, has_room: bool) -> Result<Step, Failure> {
        self.now += Duration::from_secs(1);
        self.client.ready(
            &mut self.scratch,
            &self.limits,
            self.now,
            |message, received_at| {
                self.taken.push(message.to_vec());
                self.received_at
                    .push((received_at - Instant::default()).as_secs());
                let is_query = message != b"no query";
                Taken {
                    is_query,
                    is_owed: is_query,
                    has_room,
                }
            },
        )
    }

    fn respond(&mut self, message: &[u8]) {
        let (scratch, limits) = (&mut self.scratch, &self.limits);
        assert!(self.client.send(message, scratch, limits, self.now));
        self.client
            .flush(&mut self.scratch, Instant::default())
            .unwrap();
    }
}

#[test]
fn client_is_not_read_beyond_its_limit_until_it_is_answered() {
    let mut scene = Scene::new();
    scene.push(&[b"one", b"two", b"three", b"four", b"five"]);
    assert_eq!(scene.ready(true), Ok(Step::Full));
    assert_eq!(scene.taken.len(), 3);
    assert_eq!(scene.ready(true), Ok(Step::Full));
    assert!(!scene.client.can_go_on(&scene.limits));

    scene.respond(b"answer");
    assert!(scene.client.can_go_on(&scene.limits));
    assert_eq!(scene.ready(true), Ok(Step::Full));
    assert_eq!(scene.taken.last().unwrap(), b"four");
    (0..3).for_each(|_| scene.respond(b"answer"));
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert_eq!(scene.taken.last().unwrap(), b"five");
}

#[test]
fn client_that_takes_nothing_is_not_read() {
    let mut scene = Scene::new();
    scene.push(&[b"one"]);
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    scene.pipe.set_window(3);
    scene.respond(b"answer");
    scene.push(&[b"two"]);
    assert_eq!(scene.ready(true), Ok(Step::Full));
    assert_eq!(scene.taken.len(), 1);
    assert_eq!(scene.client.account(), (0, 5));
    scene.pipe.set_window(100);
    scene
        .client
        .flush(&mut scene.scratch, Instant::default())
        .unwrap();
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert_eq!(scene.taken.len(), 2);
}

#[test]
fn full_proxy_leaves_the_rest_for_later() {
    let mut scene = Scene::new();
    scene.push(&[b"one", b"two"]);
    assert_eq!(scene.ready(false), Ok(Step::Full));
    assert_eq!(scene.taken, [b"one"]);
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert_eq!(scene.taken.len(), 2);
}

#[test]
fn kept_messages_have_the_time_of_their_read() {
    let mut scene = Scene::new();
    scene.push(&[b"one", b"two"]);
    assert_eq!(scene.ready(false), Ok(Step::Full));
    assert_eq!(scene.ready(false), Ok(Step::Full));
    scene.push(&[b"three"]);
    assert_eq!(scene.ready(true), Ok(Step::Full));
    assert_eq!(scene.received_at, [1, 1, 3]);
}

#[test]
fn kept_messages_of_a_client_over_its_rate_have_the_time_of_their_turn() {
    let mut scene = Scene::new();
    scene.push(&[b"one", b"two", b"three"]);
    for _ in 0..3 {
        assert_eq!(scene.ready(false), Ok(Step::Full));
        scene.client.hold_back();
    }
    assert_eq!(scene.received_at, [1, 2, 3]);
}

#[test]
fn client_that_ends_its_stream_still_gets_its_answers() {
    let mut scene = Scene::new();
    scene.push(&[b"one", b"two"]);
    scene.pipe.push(&[0, 50, 1, 2]);
    scene.pipe.end();
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert!(!scene.client.is_over());
    scene.respond(b"first");
    assert!(!scene.client.is_over());
    scene.respond(b"second");
    assert!(scene.client.is_over());
    assert_eq!(scene.pipe.sent(), b"\0\x05first\0\x06second");
}

#[test]
fn consecutive_messages_without_a_query_end_the_connection_after_its_responses() {
    for has_room in [true, false] {
        let mut scene = Scene::new();
        let most = scene.limits.tcp_client_unasked_messages;
        scene.push(&[b"one"]);
        scene.push(&vec![&b"no query"[..]; most - 1]);
        scene.push(&[b"two"]);
        scene.push(&vec![&b"no query"[..]; most]);
        scene.push(&[b"three"]);
        for _ in 0..100 {
            let _ = scene.ready(has_room);
        }
        assert_eq!(scene.taken.len(), 2 * most + 1);
        assert_eq!(scene.client.account(), (0, 0));
        assert!(!scene.client.is_over());
        (0..2).for_each(|_| scene.respond(b"answer"));
        assert!(scene.client.is_over());
    }
}

#[test]
fn many_bytes_without_a_query_end_the_connection() {
    let mut scene = Scene::new();
    let most = scene.limits.tcp_client_unasked_bytes;
    // One message of the maximum length is still accepted.
    scene.push(&[&vec![0; 65_535], b"one"]);
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert_eq!(scene.taken.len(), 2);
    (0..2).for_each(|_| scene.respond(b"answer"));
    scene.limits.tcp_client_unasked_messages = usize::MAX;
    scene.push(&vec![&b"no query"[..]; most / 10 - 1]);
    while scene.ready(true) == Ok(Step::Again) {}
    assert!(!scene.client.is_over());
    scene.push(&[&b"no query"[..]; 2]);
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert!(scene.client.is_over());
}

#[test]
fn only_queries_and_responses_taken_are_activity() {
    let mut scene = Scene::new();
    let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
    scene.push(&[b"no query"]);
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert_eq!(scene.client.last_active(), at(0));
    scene.push(&[b"one"]);
    assert_eq!(scene.ready(true), Ok(Step::Drained));
    assert_eq!(scene.client.last_active(), at(2));
    scene.pipe.set_window(3);
    let (scratch, limits) = (&mut scene.scratch, &scene.limits);
    assert!(scene.client.send(b"answer", scratch, limits, at(3)));
    scene.client.flush(&mut scene.scratch, at(3)).unwrap();
    assert_eq!(scene.client.last_active(), at(2));
    scene.pipe.set_window(100);
    scene.client.flush(&mut scene.scratch, at(4)).unwrap();
    assert_eq!(scene.client.last_active(), at(4));
}

#[test]
fn too_many_unread_bytes_end_the_connection() {
    let mut scene = Scene::new();
    scene.pipe.set_window(0);
    let message = vec![0; 60_000];
    let most = scene.limits.tcp_client_unsent / message.len();
    let mut send = || {
        let (scratch, limits) = (&mut scene.scratch, &scene.limits);
        scene.client.send(&message, scratch, limits, scene.now)
    };
    for _ in 0..most {
        assert!(send());
    }
    assert!(!send());
}

#[test]
fn client_that_takes_many_bytes_at_once_stays_open() {
    let mut scene = Scene::new();
    let message = vec![0; 60_000];
    for _ in 0..64 {
        let (scratch, limits) = (&mut scene.scratch, &scene.limits);
        assert!(scene.client.send(&message, scratch, limits, scene.now));
    }
    scene.respond(&message);
    assert_eq!(scene.pipe.sent().len(), 65 * (2 + message.len()));
}
