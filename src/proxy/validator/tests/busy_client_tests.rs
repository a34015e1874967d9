//! A client whose answers keep the validator busy, and the answers of other clients beside them.

use super::*;
use crate::base::random::{Random, SEED_LEN};
use crate::dnssec::testing::{COSTLY, Costly, branching, message_with};
use crate::proxy::LinkKey;

/// Clients, and an upstream whose answers may be held back.
struct Field {
    world: World,
    costly: Costly,
    holds: fn(&str) -> bool,
    held: Vec<(LinkKey, Vec<u8>)>,
    responses: Vec<(u16, Rcode)>,
}

impl Field {
    fn new(arguments: &[&str], set: impl Fn(&mut crate::config::Limits)) -> Self {
        let costly = Costly::new();
        let mut config = config(arguments);
        config.dnssec.anchors = vec![costly.anchor()];
        set(&mut config.limits);
        let mut world = World::of(config);
        let keys = costly.keys(Tree::read().time);
        let question = [COSTLY, &[0, 48, 0, 1]].concat();
        world.answers.insert(question, keys);
        Self {
            world,
            costly,
            holds: |_| false,
            held: Vec::new(),
            responses: Vec::new(),
        }
    }

    fn add_signed(&mut self, name: &str) {
        let question = key(name, Type::A);
        let owner = &question[..question.len() - 4];
        let time = Tree::read().time;
        let signed = self.costly.signed(owner, Type::A, &[192, 0, 2, 1], time);
        let message = message_with(owner, Type::A, [2, 0], &signed);
        self.world.answers.insert(question, message);
    }

    fn add_unsigned_delegation(&mut self, name: &str) {
        let question = key(name, Type::DS);
        let owner = question[..question.len() - 4].to_vec();
        let message = branching(&self.costly, &owner, &[], Tree::read().time);
        self.world.answers.insert(question, message);
    }

    fn learn(&mut self, name: &str) {
        let response = self.world.ask(name, Type::A, AD);
        assert_eq!(response.rcode(), Rcode::NOERROR, "{name}");
        self.world.scene.outbox.clear();
    }

    fn ask(&mut self, id: u16, client: u8, name: &str) -> Vec<(u16, Rcode)> {
        let [high, low] = id.to_be_bytes();
        let mut query = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(key(name, Type::A));
        let scene = &mut self.world.scene;
        let transport = ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: scene.now,
            protocol: ClientProtocol::Tcp,
        };
        scene.offer_from([10, 0, 0, client], &query, transport);
        while self.step() {}
        std::mem::take(&mut self.responses)
    }

    fn reply(&mut self, link: LinkKey, query: &[u8]) {
        let parsed = Message::parse(query).expect("the proxy sends whole queries");
        let question = parsed.question().expect("a query has a question");
        let known = self.world.answers.get(&question.to_key().to_vec());
        let mut reply = known.cloned().unwrap_or_else(|| query.to_vec());
        reply[..2].copy_from_slice(&query[..2]);
        reply[2] |= 0x80;
        let scene = &mut self.world.scene;
        scene
            .proxy
            .handle_reply(link, &reply, scene.now, &mut scene.outbox);
    }

    fn step(&mut self) -> bool {
        let scene = &mut self.world.scene;
        scene.bring_up();
        for action in scene.outbox.actions() {
            if let Action::Respond { message, .. } = action {
                let bytes = scene.outbox.bytes(message);
                let header = Header::parse(bytes).expect("a response has a header");
                let id = u16::from_be_bytes([bytes[0], bytes[1]]);
                assert!(
                    self.responses.iter().all(|(other, _)| *other != id),
                    "two responses to {id}"
                );
                self.responses.push((id, header.flags.rcode()));
            }
        }
        let sent = scene.sent();
        scene.outbox.clear();
        for (link, query) in &sent {
            let parsed = Message::parse(query).expect("the proxy sends whole queries");
            let question = parsed.question().expect("a query has a question");
            let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
            self.world.sent.push((text.clone(), true));
            if (self.holds)(&text) {
                self.held.push((*link, query.clone()));
            } else {
                self.reply(*link, query);
            }
        }
        !sent.is_empty()
    }

    /// Replies to the held queries in their order.
    fn release(&mut self) {
        self.holds = |_| false;
        for (link, query) in std::mem::take(&mut self.held) {
            self.reply(link, &query);
            while self.step() {}
        }
    }

    /// One turn of the event loop, at a time.
    fn turn(&mut self, now: Instant) {
        let scene = &mut self.world.scene;
        scene.now = scene.now.max(now);
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        while self.step() {}
    }

    fn validator(&self) -> &Validator {
        let validator = self.world.scene.proxy.validator.as_ref();
        validator.expect("the validator is on")
    }
}

/// One client has as many answers verified as there is room for.
fn full_of_verifications() -> Field {
    let mut field = Field::new(ON, |_| ());
    field.learn("www.nsec3.tld1");
    field.add_signed("warm.costly");
    field.learn("warm.costly");
    for id in 0..256 {
        let name = format!("n{id}.costly");
        field.add_signed(&name);
        let responses = field.ask(id, 1, &name);
        assert_eq!(responses, []);
    }
    assert_eq!(field.validator().runnable.len(), 256);
    field
}

#[test]
fn client_whose_answers_are_verified_leaves_room_to_others() {
    let mut field = full_of_verifications();
    let responses = field.ask(100, 2, "alias.nsec3.tld1");
    assert!(
        !responses.contains(&(100, Rcode::SERVFAIL)),
        "{responses:?}"
    );
}

#[test]
fn answer_of_a_client_is_verified_among_those_of_a_busy_client() {
    let mut field = Field::new(ON, |_| ());
    field.learn("www.nsec3.tld1");
    field.add_signed("warm.costly");
    field.learn("warm.costly");
    for id in 0..200 {
        let name = format!("n{id}.costly");
        field.add_signed(&name);
        field.ask(id, 1, &name);
    }
    let responses = field.ask(1_000, 2, "alias.nsec3.tld1");
    assert_eq!(responses, []);
    let mut turns = 0;
    while field.responses.iter().all(|(id, _)| *id != 1_000) {
        let now = field.world.scene.now;
        field.turn(now);
        turns += 1;
    }
    assert!(turns < 20, "{turns} turns");
}

#[test]
fn failure_for_lack_of_time_to_verify_is_not_cached() {
    let mut field = Field::new(ON, |_| ());
    field.learn("www.nsec3.tld1");
    field.add_signed("warm.costly");
    field.learn("warm.costly");
    for id in 0..200 {
        let name = format!("n{id}.costly");
        field.add_signed(&name);
        field.ask(id, 1, &name);
    }
    let asked_at = field.world.scene.now;
    assert_eq!(field.ask(1_000, 1, "alias.nsec3.tld1"), []);
    // A slow processor: a verification takes 50 ms.
    let mut turns = 0;
    while field.responses.iter().all(|(id, _)| *id != 1_000) {
        turns += 1;
        field.turn(asked_at + Duration::from_millis(50 * turns));
    }
    assert!(
        field.responses.contains(&(1_000, Rcode::SERVFAIL)),
        "{turns} turns"
    );
    for _ in 0..200 {
        let now = field.world.scene.now;
        field.turn(now);
    }
    field.responses.clear();
    let responses = field.ask(2_000, 3, "alias.nsec3.tld1");
    assert!(
        !responses.contains(&(2_000, Rcode::SERVFAIL)),
        "{responses:?}"
    );
}

#[test]
fn failure_for_lack_of_room_for_the_records_is_not_cached() {
    let mut field = Field::new(ON, |limits| limits.validations = 16);
    field.learn("www.nsec3.tld1");
    field.add_signed("warm.costly");
    field.learn("warm.costly");
    field.holds = |text| text.ends_with("/DS");
    // The client's own queries wait for records of their own.
    for id in 10..17 {
        let name = format!("a.n{id}.costly");
        field.world.answers.extend([address(&name)]);
        field.add_unsigned_delegation(&name);
        field.add_unsigned_delegation(&name[2..]);
        assert_eq!(field.ask(id, 1, &name), []);
        let now = field.world.scene.now;
        field.turn(now);
    }
    // Another client.
    assert_eq!(field.ask(100, 2, "www.insecure.tld1"), []);
    assert_eq!(field.validator().questions.len(), 16);
    // Answers of the first client that are verified.
    for id in 0..4 {
        let name = format!("s{id}.costly");
        field.add_signed(&name);
        field.ask(id, 1, &name);
    }
    field.release();
    for _ in 0..100 {
        let now = field.world.scene.now;
        field.turn(now);
    }
    let first = std::mem::take(&mut field.responses);
    assert!(first.iter().any(|(id, _)| *id == 100), "{first:?}");
    let again = field.ask(200, 3, "www.insecure.tld1");
    assert!(!again.contains(&(200, Rcode::SERVFAIL)), "{again:?}");
}

#[test]
fn answer_that_is_validated_is_not_given_up_with_an_earlier_error() {
    use crate::proxy::exchange::retry::BadAnswer;
    let mut field = Field::new(ON, |_| ());
    field.add_signed("warm.costly");
    field.holds = |text| text == "costly./DNSKEY";
    assert_eq!(field.ask(1, 1, "warm.costly"), []);
    let scene = &mut field.world.scene;
    let proxy = &mut scene.proxy;
    let mut exchanges = proxy.exchanges.iter();
    let parked = exchanges.find(|(_, exchange)| exchange.parked.is_some());
    let (key, exchange) = parked.expect("the answer waits for the keys");
    let (pool, holder) = (exchange.pool, exchange.holder);
    let Parked { source, .. } = **exchange.parked.as_ref().expect("it is parked");
    drop(exchanges);
    // The state after an attempt that ended in an error, a further one that waits for a link, and
    // the answer to the first one, while another query is at the head of the queue (seeds 104421
    // and 108552 of the simulation).
    proxy.exchanges[key].retry.set_bad_answer(BadAnswer {
        by: source.endpoint,
        sent_at: source.sent_at,
        is_malformed: true,
    });
    proxy.waiting_by_pool[pool.0].push(holder, key, 10, |_| true);
    // A link of the upstream is slow to come up.
    let cx = &mut Cx {
        now: scene.now,
        outbox: &mut scene.outbox,
    };
    proxy.retry_after_error(pool, source.upstream, cx);
    proxy.settle(cx);
    while field.step() {}
    assert_eq!(field.responses, []);
    field.release();
    for _ in 0..5 {
        let now = field.world.scene.now;
        field.turn(now);
    }
    assert_eq!(field.responses, [(1, Rcode::NOERROR)]);
}

/// A client that floods the validator while another one asks a few questions at a time, of an
/// upstream that answers truthfully.
struct Flood {
    field: Field,
    random: Random,
    names: Vec<String>,
    next: u16,
    /// The queries of the second client without a response.
    waiting: HashMap<u16, String>,
    /// The share of the records for the first client that the upstream does not send, in percent.
    silence: usize,
}

impl Flood {
    fn new(seed: u8) -> Self {
        let mut random = Random::new(&[seed; SEED_LEN]);
        let arguments = if pick(&mut random, 2) == 0 { ON } else { TWO };
        let validations = [16, 32, 64][pick(&mut random, 3)];
        let held = [64 << 10, 256 << 10][pick(&mut random, 2)];
        let mut field = Field::new(arguments, |limits| {
            limits.validations = validations;
            limits.validations_held = held;
            limits.signatures_per_turn = 1_000_000;
        });
        field.holds = |_| true;
        let answers = Tree::read().answers.into_iter();
        let secure = answers.filter(|it| it.verdict == "secure" && it.rr_type == "A");
        let silence = pick(&mut random, 100);
        Self {
            field,
            random,
            names: secure.map(|it| it.name).collect(),
            next: 0,
            waiting: HashMap::new(),
            silence,
        }
    }

    fn pick(&mut self, limit: usize) -> usize {
        pick(&mut self.random, limit)
    }

    /// Sends a query of a client.
    fn ask(&mut self, client: u8, name: &str) {
        let done = self.field.ask(self.next, client, name);
        self.field.responses.extend(done);
        self.next += 1;
    }

    /// Sends a query of the first client.
    fn add_load(&mut self) {
        let nth = self.next;
        let place = self.pick(self.names.len());
        let name = match self.pick(4) {
            0 => format!("a.b.c.n{nth}.costly"),
            1 => format!("n{nth}.costly"),
            2 => self.names[place].clone(),
            _ => format!("x{nth}.nsec3.tld1"),
        };
        if self.pick(2) == 0 && name.ends_with("costly") {
            self.field.add_signed(&name);
        } else if !self.names.contains(&name) {
            self.field.world.answers.extend([address(&name)]);
        }
        self.ask(1, &name);
    }

    /// Replies to some of the queries that are held back.
    fn reply(&mut self) {
        for _ in 0..=self.pick(6) {
            if self.field.held.is_empty() {
                return;
            }
            let place = self.pick(self.field.held.len());
            let (_, query) = &self.field.held[place];
            let message = Message::parse(query).expect("the proxy sends whole queries");
            let question = message.question().expect("a query has a question");
            let is_record = question.name().ends_with(COSTLY) && question.rr_type() != Type::A;
            if is_record && self.pick(100) < self.silence {
                continue;
            }
            let (link, query) = self.field.held.swap_remove(place);
            self.field.reply(link, &query);
            self.field.step();
        }
    }

    /// Returns the failures of the second client.
    fn run(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for _ in 0..400 {
            match self.pick(10) {
                0..5 => self.add_load(),
                5 if self.waiting.len() < 3 => {
                    let place = self.pick(self.names.len());
                    let name = self.names[place].clone();
                    self.waiting.insert(self.next, name.clone());
                    self.ask(2, &name);
                }
                6..9 => self.reply(),
                _ => {
                    let at = self.field.world.scene.now + Duration::from_millis(3);
                    self.field.turn(at);
                }
            }
            for (id, rcode) in std::mem::take(&mut self.field.responses) {
                let name = self.waiting.remove(&id);
                failures.extend(name.filter(|_| rcode == Rcode::SERVFAIL));
            }
        }
        failures
    }
}

fn pick(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.next_u32()).expect("32 bits") % limit
}

#[test]
fn flood_of_one_client_does_not_fail_another() {
    for seed in 0..30 {
        let failures = Flood::new(seed).run();
        assert!(failures.is_empty(), "seed {seed}: {failures:?}");
    }
}
