use super::*;
use crate::base::arena::Arena;
use crate::config::Timeouts;
use crate::wire::Question;

fn endpoint() -> EndpointKey {
    Arena::default().insert(())
}

const ATTEMPT: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_secs(20);

fn at(seconds: f64) -> Instant {
    Instant::after_start(Duration::from_secs_f64(seconds))
}

fn question() -> QuestionHash {
    let bytes = [1, b'a', 0, 0, 1, 0, 1];
    QuestionHash::of(Question::parse(&bytes, 0).expect("a question"))
}

fn abandoned(is_answered: bool) -> Abandoned {
    Abandoned {
        question: question(),
        is_answered,
    }
}

fn timeouts() -> Timeouts {
    Timeouts::for_query(Duration::from_secs(5))
}

struct Scene {
    link: Link,
    random: Random,
    exchanges: Arena<ExchangeKey, ()>,
}

impl Scene {
    fn up() -> Self {
        let mut link = Link::new(endpoint(), Scheme::Tls, at(0.0), at(0.5));
        link.on_up(at(0.0));
        Self {
            link,
            random: Random::new(&[7; 32]),
            exchanges: Arena::default(),
        }
    }

    fn send(&mut self, now: f64) -> u16 {
        let key = self.exchanges.insert(());
        let edns = EdnsLevel::Full;
        self.link.send(key, edns, at(now), &mut self.random)
    }

    fn probe(&mut self, now: f64) {
        self.link.on_probed(at(now));
        self.link.on_probed_beside(at(now));
    }

    fn answer(&mut self, id: u16, now: f64) {
        let position = self.link.position(id).unwrap();
        self.link.on_answer(position, at(now));
    }

    fn due(&self) -> (Instant, Due) {
        self.link
            .next_due(&timeouts(), SLOW, IDLE)
            .expect("a timer is set")
    }
}

fn stalled_since(seconds: f64) -> (Instant, Due) {
    let since = at(seconds);
    (since + ATTEMPT, Due::Stalled { since })
}

#[test]
fn stall_starts_at_the_oldest_query_without_a_later_answer() {
    let mut scene = Scene::up();
    let first = scene.send(1.0);
    scene.send(2.5);
    while scene.link.note_slow().is_some() {}
    scene.probe(1.2);
    assert_eq!(scene.due(), stalled_since(1.0));
    scene.answer(first, 2.0);
    scene.probe(2.7);
    assert_eq!(scene.due(), stalled_since(2.5));
}

#[test]
fn silent_link_is_probed_before_it_is_stalled() {
    let mut scene = Scene::up();
    scene.send(1.0);
    let probe = |since, due| {
        let since = at(since);
        (since + due, Due::Probe { since })
    };
    assert_eq!(scene.due(), probe(1.0, SLOW));
    scene.link.note_slow();
    scene.link.on_probed(at(1.3));
    let beside = Due::ProbeBeside { since: at(1.0) };
    assert_eq!(scene.due(), (at(1.3) + ATTEMPT / 4, beside));
    // A timer that is late leaves the probe half an attempt for its answer.
    scene.link.on_probed_beside(at(2.5));
    assert_eq!(scene.due(), (at(1.0) + ATTEMPT, Due::Overdue));
    scene.link.note_overdue();
    let stalled = Due::Stalled { since: at(1.0) };
    assert_eq!(scene.due(), (at(2.5) + ATTEMPT / 2, stalled));
    let edns = EdnsLevel::Full;
    let id = scene
        .link
        .send_probe(question(), edns, at(2.5), &mut scene.random);
    scene.answer(id, 2.6);
    assert_eq!(scene.link.next_due(&timeouts(), SLOW, IDLE), None);
    // The next silence is a new one.
    scene.send(4.0);
    assert_eq!(scene.due(), probe(4.0, SLOW));
}

#[test]
fn link_at_its_query_limit_is_done_after_the_last_answer() {
    let mut scene = Scene::up();
    scene.link.limit_queries(2);
    let ids = [scene.send(1.0), scene.send(1.0)];
    assert!(!scene.link.takes_queries() && !scene.link.is_done());
    for id in ids {
        scene.answer(id, 1.1);
    }
    assert!(scene.link.is_done());
}

#[test]
fn keepalive_of_zero_drains_a_link() {
    let mut scene = Scene::up();
    let id = scene.send(1.0);
    scene.link.on_keepalive(Duration::from_secs(3));
    assert!(scene.link.takes_queries());
    scene.link.on_keepalive(Duration::ZERO);
    assert!(!scene.link.takes_queries() && !scene.link.is_done());
    scene.answer(id, 1.1);
    assert!(scene.link.is_done());
}

#[test]
fn query_is_slow_and_then_overdue_while_others_are_answered() {
    let mut scene = Scene::up();
    let first = scene.send(1.0);
    let second = scene.send(1.5);
    scene.answer(second, 1.6);
    assert_eq!(scene.due(), (at(1.0) + SLOW, Due::Slow));
    assert_eq!(scene.link.note_slow().map(|(id, _)| id), Some(first));
    assert!(!scene.link.is_silent());
    assert_eq!(scene.due(), (at(1.0) + ATTEMPT, Due::Overdue));
    assert_eq!(scene.link.note_overdue().map(|(id, _)| id), Some(first));
    assert_eq!(scene.link.next_due(&timeouts(), SLOW, IDLE), None);
}

#[test]
fn link_is_silent_from_a_slow_query_to_the_next_answer() {
    let mut scene = Scene::up();
    scene.send(1.0);
    let second = scene.send(1.1);
    scene.link.note_slow();
    assert!(scene.link.is_silent() && scene.link.is_doubtful());
    scene.answer(second, 1.4);
    assert!(!scene.link.is_silent());
}

#[test]
fn query_answered_by_another_upstream_is_still_silent() {
    let mut scene = Scene::up();
    let id = scene.send(1.0);
    scene.link.abandon(id, abandoned(true), at(1.2));
    scene.probe(1.2);
    assert_eq!(scene.due(), stalled_since(1.0));
}

#[test]
fn idle_time_starts_at_the_last_query() {
    let mut scene = Scene::up();
    assert_eq!(scene.due(), (at(0.0) + IDLE, Due::Idle));
    let id = scene.send(1.0);
    scene.answer(id, 1.5);
    assert_eq!(scene.due(), (at(1.5) + IDLE, Due::Idle));
}

#[test]
fn datagram_is_never_idle() {
    let mut scene = Scene::up();
    scene.link.scheme = Scheme::Udp;
    assert!(scene.link.is_done());
    let id = scene.send(1.0);
    scene.link.abandon(id, abandoned(true), at(1.1));
    let idle = Duration::from_millis(10);
    scene.probe(1.2);
    let due = scene.link.next_due(&timeouts(), SLOW, idle);
    assert_eq!(due, Some(stalled_since(1.0)));
    assert!(!scene.link.is_done());
}

#[test]
fn id_of_an_abandoned_query_is_not_reused() {
    let mut scene = Scene::up();
    let id = scene.send(3.0);
    scene.link.abandon(id, abandoned(false), at(4.0));
    assert_eq!(scene.link.abandoned(), 1);
    assert!(scene.link.position(id).is_some());
}

#[test]
fn link_without_queries_releases_its_queue() {
    let mut scene = Scene::up();
    let ids: Vec<u16> = (0..1_000).map(|_| scene.send(0.0)).collect();
    for id in ids {
        scene.answer(id, 1.0);
    }
    assert!(scene.link.sent.capacity() <= 8);
}

#[test]
fn opening_has_its_own_timeouts() {
    let mut link = Link::new(endpoint(), Scheme::Tls, at(1.0), at(1.5));
    let due = link.next_due(&timeouts(), SLOW, IDLE);
    assert_eq!(due, Some((at(1.5), Due::Late)));
    link.note_late();
    let due = link.next_due(&timeouts(), SLOW, IDLE);
    assert_eq!(due, Some((at(4.0), Due::HandshakeTimeout)));
}

#[test]
fn link_that_fails_every_request_is_replaced_at_once_beside_a_working_one() {
    for (has_working, age, is_replaced) in
        [(true, 0.1, true), (false, 0.1, false), (false, 1.0, true)]
    {
        let mut link = Scene::up().link;
        let now = at(age);
        let first_two = [(); 2].map(|()| link.on_failed_request(has_working, now));
        assert_eq!(first_two, [false; 2]);
        assert_eq!(
            link.on_failed_request(has_working, now),
            is_replaced,
            "{age}"
        );
    }
}
