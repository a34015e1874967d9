//! Upstreams that answer late, or that fail for some time.

use super::clients::TestClients;
use super::*;
use crate::base::failure::FailureKind;
use crate::dnssec::testing::{COSTLY, Costly, message_with};
use crate::proxy::LinkKey;
use crate::wire::without_proof::without_proof;

/// The time that an answer to a question takes at a moment; `None` is for ever.
type Delay<'a> = &'a dyn Fn(&str, Instant) -> Option<Duration>;

const SOON: Option<Duration> = Some(Duration::from_millis(5));

/// A validating proxy and upstreams with delays.
struct Timeline {
    world: World,
    begin: Instant,
    /// Replies on their way, with the time of their arrival.
    replies: Vec<(Instant, LinkKey, Vec<u8>)>,
    /// The response to each query, and its time.
    responses: HashMap<u16, (Rcode, Instant)>,
    /// The extended error of each response that has one.
    errors: HashMap<u16, (ExtendedErrorCode, String)>,
    sent: Vec<(String, Instant)>,
    /// The second upstream gives these answers.
    second: HashMap<Vec<u8>, Vec<u8>>,
    /// The first upstream refuses connections before this time.
    first_up_at: Instant,
}

impl Timeline {
    fn new(config: Config) -> Self {
        let world = World::of(config);
        Self {
            begin: world.scene.now,
            replies: Vec::new(),
            responses: HashMap::new(),
            errors: HashMap::new(),
            sent: Vec::new(),
            second: HashMap::new(),
            first_up_at: world.scene.now,
            world,
        }
    }

    /// Adds a second upstream that removes signatures.
    fn strip_second(&mut self) {
        for (question, message) in &self.world.answers {
            let message = Message::parse(message).expect("the answers are valid");
            let plain = without_proof(&message);
            let plain = plain.map_or_else(|_| message.bytes().to_vec(), Into::into);
            self.second.insert(question.clone(), plain);
        }
    }

    /// Starts a query for A of a client with an address of its own.
    fn start(&mut self, id: u16, name: &str) {
        self.start_late(id, name, Duration::ZERO);
    }

    /// [`Self::start`] for a query that waited for this time before it was read.
    fn start_late(&mut self, id: u16, name: &str, waited: Duration) {
        let [high, low] = id.to_be_bytes();
        let header = [high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        // With an OPT record.
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        let query = [&header[..], &key(name, Type::A), &opt].concat();
        let transport = ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: self.world.scene.now.saturating_sub(waited),
            protocol: ClientProtocol::Tcp,
        };
        self.world
            .scene
            .offer_from([10, 0, high, low], &query, transport);
    }

    fn after(&self, milliseconds: u64) -> Instant {
        self.begin + Duration::from_millis(milliseconds)
    }

    /// Lets time pass until `end`.
    fn run(&mut self, end: Instant, delay: Delay<'_>) {
        loop {
            while self.perform(delay) {}
            let reply = self.replies.iter().map(|(at, ..)| *at).min();
            let scene = &mut self.world.scene;
            let next = scene.proxy.poll_timeout().into_iter().chain(reply).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                scene.now = scene.now.max(end);
                return;
            };
            scene.now = scene.now.max(at);
            let due = self.replies.iter().position(|(due, ..)| *due <= at);
            match due.map(|place| self.replies.remove(place)) {
                Some((_, link, reply)) => {
                    let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
                    proxy.handle_reply(link, &reply, scene.now, outbox);
                }
                None => scene.proxy.handle_timeout(scene.now, &mut scene.outbox),
            }
        }
    }

    /// Performs the actions of the last call. Returns whether links were opened.
    fn perform(&mut self, delay: Delay<'_>) -> bool {
        let scene = &mut self.world.scene;
        let now = scene.now;
        let mut opened = Vec::new();
        for action in scene.outbox.actions() {
            match action {
                Action::Respond { message, .. } => {
                    let bytes = scene.outbox.bytes(message);
                    let header = Header::parse(bytes).expect("a response has a header");
                    let response = (header.flags.rcode(), now);
                    let bytes = bytes.to_vec();
                    if let Some(error) = (Response { bytes }).error() {
                        self.errors.insert(header.id, error);
                    }
                    assert!(self.responses.insert(header.id, response).is_none());
                }
                Action::OpenLink { link, .. } => opened.push(*link),
                _ => {}
            }
        }
        for (link, query) in scene.sent() {
            let parsed = Message::parse(&query).expect("the proxy sends whole queries");
            let question = parsed.question().expect("a query has a question");
            let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
            self.sent.push((text.clone(), now));
            let Some(delay) = delay(&text, now) else {
                continue;
            };
            let question = question.to_key().to_vec();
            let is_first = scene.proxy.link_upstream(link) == Some(UpstreamIndex(0));
            let special = if is_first {
                self.world.lies.get(&question)
            } else {
                self.second.get(&question)
            };
            let known = special.or_else(|| self.world.answers.get(&question));
            let mut reply = known.cloned().unwrap_or_else(|| query.clone());
            reply[..2].copy_from_slice(&query[..2]);
            reply[2] |= 0x80;
            self.replies.push((now + delay, link, reply));
        }
        scene.outbox.clear();
        for link in &opened {
            let is_first = scene.proxy.link_upstream(*link) == Some(UpstreamIndex(0));
            let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
            if is_first && now < self.first_up_at {
                proxy.handle_link_down(*link, &FailureKind::Connect.into(), now, outbox);
            } else {
                proxy.handle_link_up(*link, false, now, outbox);
            }
        }
        !opened.is_empty()
    }

    fn rcode(&self, id: u16) -> Option<Rcode> {
        self.responses.get(&id).map(|(rcode, _)| *rcode)
    }

    /// Returns the time of a response in milliseconds since the begin, if it is the SERVFAIL for
    /// lack of the keys of `tld1`.
    fn missed_keys_at(&self, id: u16) -> Option<u128> {
        let (rcode, at) = self.responses.get(&id)?;
        let error = (ExtendedErrorCode(5), "tld1./DNSKEY".to_owned());
        let is_missing = *rcode == Rcode::SERVFAIL && self.errors.get(&id) == Some(&error);
        is_missing.then(|| (*at - self.begin).as_millis())
    }

    /// Returns the number of queries upstream for an address of the name.
    fn times_sent(&self, name: &str) -> usize {
        let text = format!("{name}./A");
        self.sent.iter().filter(|(sent, _)| *sent == text).count()
    }
}

/// Asks for a new name in each interval, while the keys of their zone are silent at first and take
/// longer than the interval then. Returns the time of each response after its query, and the
/// number of queries for the keys, both since two seconds after the silence.
fn under_steady_load(arguments: &[&str], interval: u64, answer: u64) -> (Vec<Duration>, usize) {
    const SILENCE: u64 = 6_000;
    let costly = Costly::new();
    let time = Tree::read().time;
    let mut config = config(arguments);
    config.dnssec.anchors = vec![costly.anchor()];
    let mut timeline = Timeline::new(config);
    let keys = [COSTLY, &[0, 48, 0, 1]].concat();
    let answers = &mut timeline.world.answers;
    answers.insert(keys, costly.keys(time));
    let recovers = timeline.after(SILENCE);
    let delay = |text: &str, now: Instant| match text {
        "costly./DNSKEY" => (now >= recovers).then_some(Duration::from_millis(answer)),
        _ => SOON,
    };
    let count = u16::try_from((SILENCE + 6_000) / interval).expect("a small number");
    let mut asked_at = HashMap::new();
    for id in 0..count {
        let name = format!("n{id}.costly");
        let owner = key(&name, Type::A)[..name.len() + 2].to_vec();
        let signed = costly.signed(&owner, Type::A, &[192, 0, 2, 1], time);
        let message = message_with(&owner, Type::A, [2, 0], &signed);
        let answers = &mut timeline.world.answers;
        answers.insert(key(&name, Type::A), message);
        asked_at.insert(id, timeline.world.scene.now);
        timeline.start(id, &name);
        let end = timeline.after(interval * u64::from(id + 1));
        timeline.run(end, &delay);
    }
    let end = timeline.world.scene.now + Duration::from_secs(10);
    timeline.run(end, &delay);
    assert_eq!(timeline.responses.len(), usize::from(count));
    let settled = recovers + Duration::from_secs(2);
    let later = asked_at.iter().filter(|(_, at)| **at >= settled);
    let took = later.map(|(id, at)| {
        let (rcode, responded_at) = timeline.responses[id];
        assert_eq!(rcode, Rcode::NOERROR, "{arguments:?} {id}");
        responded_at - *at
    });
    let sent = timeline.sent.iter();
    let keys = sent.filter(|(text, at)| text == "costly./DNSKEY" && *at >= settled);
    (took.collect(), keys.count())
}

#[test]
fn keys_that_take_longer_than_the_next_query_are_learned() {
    const LOG: &[&str] = &["-u192.0.2.1", "--dnssec=log"];
    const SHORT: &[&str] = &["-u192.0.2.1", "--dnssec=on", "--timeout=1s"];
    for (arguments, interval, answer) in [
        (ON, 150, 200),
        (LOG, 100, 150),
        (LOG, 30, 40),
        (SHORT, 30, 40),
    ] {
        let (took, keys) = under_steady_load(arguments, interval, answer);
        let longest = took.iter().max().expect("queries follow the silence");
        assert!(
            *longest < Duration::from_millis(50),
            "{arguments:?}: {longest:?}"
        );
        assert_eq!(keys, 0, "{arguments:?}");
    }
}

#[test]
fn query_for_the_question_of_an_old_one_has_its_own_time() {
    let mut timeline = Timeline::new(config(ON));
    let recovers = timeline.after(6_000);
    let delay = |text: &str, now: Instant| match text {
        "tld1./DNSKEY" if now < recovers => None,
        _ => SOON,
    };
    // The second and third query follow the first one; the others come after its end.
    for (id, at) in [(1, 0), (2, 4_000), (3, 4_800), (4, 4_870), (5, 5_500)] {
        timeline.run(timeline.after(at), &delay);
        timeline.start(id, "www.nsec3.tld1");
    }
    timeline.run(timeline.after(20_000), &delay);
    assert_eq!(timeline.rcode(1), Some(Rcode::SERVFAIL));
    for id in 2..=5 {
        assert_eq!(timeline.rcode(id), Some(Rcode::NOERROR), "{id}");
    }
}

#[test]
fn signed_name_resolves_with_the_shortest_timeout() {
    for (timeout, rtt) in [("100ms", 5), ("150ms", 5), ("200ms", 20), ("300ms", 20)] {
        let argument = format!("--timeout={timeout}");
        let mut timeline = Timeline::new(config(&["-u192.0.2.1", "--dnssec=on", &argument]));
        let delay = move |_: &str, _: Instant| Some(Duration::from_millis(rtt));
        // The first queries may end before the records of all zones have arrived.
        for (id, at) in [(1, 0), (2, 2_000), (3, 4_000)] {
            timeline.run(timeline.after(at), &delay);
            timeline.start(id, "www.nsec3.tld1");
        }
        timeline.run(timeline.after(10_000), &delay);
        assert_eq!(timeline.rcode(3), Some(Rcode::NOERROR), "{timeout}");
    }
    // Most of a short time is for the records.
    let mut timeline = Timeline::new(config(&["-u192.0.2.1", "--dnssec=on", "--timeout=100ms"]));
    timeline.start(1, "www.nsec3.tld1");
    let delay = |_: &str, _: Instant| Some(Duration::from_millis(12));
    timeline.run(timeline.after(1_000), &delay);
    assert_eq!(timeline.rcode(1), Some(Rcode::NOERROR));
}

#[test]
fn one_error_with_a_second_upstream_without_dnssec_ends_soon() {
    for is_refused in [false, true] {
        let mut timeline = Timeline::new(config(TWO));
        timeline.strip_second();
        if is_refused {
            timeline.first_up_at = timeline.after(1_000);
        } else {
            let question = key("", Type::DNSKEY)[1..].to_vec();
            let servfail = [0, 0, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0];
            let servfail = [&servfail[..], &question].concat();
            timeline.world.lies.insert(question, servfail);
        }
        let delay = |_: &str, _: Instant| SOON;
        for (id, at) in (1..).zip([0, 3_000, 10_000, 30_000, 58_000, 70_000]) {
            timeline.run(timeline.after(at), &delay);
            let name = ["www.nsec3.tld1", "www.insecure.tld1"][usize::from(id % 2)];
            timeline.start(id, name);
            timeline.run(timeline.after(at + 900), &delay);
            timeline.world.lies.clear();
        }
        // The first query had no answer that could be verified.
        for id in 2..=6 {
            assert_eq!(
                timeline.rcode(id),
                Some(Rcode::NOERROR),
                "{is_refused} {id}"
            );
        }
    }
}

#[test]
fn follower_has_its_own_time_with_a_second_upstream() {
    let mut timeline = Timeline::new(config(TWO));
    let recovers = timeline.after(6_000);
    let (from, to) = (timeline.after(4_840), timeline.after(4_853));
    let delay = |text: &str, now: Instant| match text {
        "tld1./DNSKEY" if now < recovers => None,
        "www.nsec3.tld1./A" if now > from && now < to => Some(Duration::from_millis(200)),
        _ => SOON,
    };
    for (id, at) in [(1, 0), (2, 4_000)] {
        timeline.run(timeline.after(at), &delay);
        timeline.start(id, "www.nsec3.tld1");
    }
    timeline.run(timeline.after(20_000), &delay);
    assert_eq!(timeline.rcode(2), Some(Rcode::NOERROR));
}

/// The answer of a client is given up for lack of room shortly before the end of its time.
#[test]
fn failure_of_a_follower_that_is_sent_late_is_not_cached() {
    let mut clients = TestClients::new(ON, |limits| limits.validations = 16);
    clients.learn("www.nsec3.tld1");
    for id in 0..10 {
        clients.add_signed(&format!("n{id}.costly"));
    }
    clients.holds = |text| text == "costly./DNSKEY";
    let start = clients.world.scene.now;
    for id in 0..8 {
        assert_eq!(clients.ask(id, 1, &format!("n{id}.costly")), []);
    }
    assert_eq!(clients.ask(100, 2, "n7.costly"), []);
    for turn in 1..=94 {
        clients.turn(start + Duration::from_millis(50 * turn));
    }
    assert_eq!(clients.responses, []);
    clients.holds = |text| text == "costly./DNSKEY" || text == "n7.costly./A";
    let responses = clients.ask(101, 3, "n9.costly");
    assert!(responses.contains(&(7, Rcode::SERVFAIL)), "{responses:?}");
    for turn in 1..=30 {
        clients.turn(start + Duration::from_millis(4_700 + 10 * turn));
    }
    assert!(clients.responses.contains(&(100, Rcode::SERVFAIL)));
    clients.responses.clear();
    clients.release();
    clients.verify_all();
    let responses = clients.ask(3_000, 4, "n7.costly");
    clients.responses.extend(responses);
    clients.turns_until(3_000);
    assert!(clients.responses.contains(&(3_000, Rcode::NOERROR)));
}

/// Upstream never sends the keys of `tld1`.
fn without_keys(text: &str, _: Instant) -> Option<Duration> {
    if text == "tld1./DNSKEY" { None } else { SOON }
}

const NAME: &str = "www.nsec3.tld1";

#[test]
fn failure_for_keys_that_upstream_never_sends_is_cached_for_longer_each_time() {
    let mut timeline = Timeline::new(config(ON));
    // The failures at 4.85 s and 10.85 s are cached for one and two seconds.
    let starts = [0, 4_860, 5_800, 6_000, 10_860, 12_700];
    for (id, at) in (1..).zip(starts) {
        timeline.run(timeline.after(at), &without_keys);
        timeline.start(id, NAME);
    }
    timeline.run(timeline.after(20_000), &without_keys);
    let ends = (1..=6).map(|id| timeline.missed_keys_at(id));
    let expected = [4_850, 4_860, 5_800, 10_850, 10_860, 12_700].map(Some);
    assert_eq!(ends.collect::<Vec<_>>(), expected);
    assert_eq!(timeline.times_sent(NAME), 2);
}

#[test]
fn followers_that_had_their_time_share_the_failure_for_missing_keys() {
    let mut timeline = Timeline::new(config(ON));
    for (id, at) in [(1, 0), (2, 1_000), (3, 2_800)] {
        timeline.run(timeline.after(at), &without_keys);
        timeline.start(id, NAME);
    }
    timeline.run(timeline.after(20_000), &without_keys);
    let ends = (1..=3).map(|id| timeline.missed_keys_at(id));
    assert_eq!(ends.collect::<Vec<_>>(), [Some(4_850); 3]);
    assert_eq!(timeline.times_sent(NAME), 1);
}

#[test]
fn failure_for_missing_keys_is_cached_under_steady_load() {
    let mut timeline = Timeline::new(config(ON));
    for id in 0..=19 {
        timeline.run(timeline.after(500 * u64::from(id)), &without_keys);
        timeline.start(id, NAME);
    }
    timeline.run(timeline.after(20_000), &without_keys);
    // The query at 4.5 s takes the lead, and later ones share its failure.
    for (id, at) in [
        (0, 4_850),
        (5, 4_850),
        (10, 9_350),
        (18, 9_350),
        (19, 9_500),
    ] {
        assert_eq!(timeline.missed_keys_at(id), Some(at), "{id}");
    }
    assert_eq!(timeline.times_sent(NAME), 2);
}

#[test]
fn failure_for_keys_that_were_asked_for_again_is_cached() {
    let mut timeline = Timeline::new(config(ON));
    // The question for the keys ends and is asked again at 4.9 s.
    for (id, at, name) in [
        (1, 0, "www.insecure.tld1"),
        (2, 1_500, NAME),
        (3, 6_360, NAME),
    ] {
        timeline.run(timeline.after(at), &without_keys);
        timeline.start(id, name);
    }
    timeline.run(timeline.after(20_000), &without_keys);
    assert_eq!(timeline.missed_keys_at(2), Some(6_350));
    assert_eq!(timeline.missed_keys_at(3), Some(6_360));
}

#[test]
fn failure_of_a_late_query_for_keys_that_are_silent_for_long_is_not_cached() {
    let mut timeline = Timeline::new(config(ON));
    let recovers = timeline.after(6_000);
    let delay = |text: &str, now: Instant| match text {
        "tld1./DNSKEY" if now < recovers => None,
        _ => SOON,
    };
    timeline.start(1, "www.insecure.tld1");
    timeline.run(timeline.after(3_000), &delay);
    timeline.start_late(2, NAME, Duration::from_millis(3_500));
    timeline.run(timeline.after(4_400), &delay);
    assert_eq!(timeline.missed_keys_at(2), Some(4_350));
    timeline.start(3, NAME);
    timeline.run(timeline.after(20_000), &delay);
    assert_eq!(timeline.rcode(3), Some(Rcode::NOERROR));
}
