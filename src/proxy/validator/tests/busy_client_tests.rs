//! A client whose answers keep the validator busy, and the answers of other clients beside them.

use super::clients::TestClients;
use super::*;
use crate::base::random::{Random, SEED_LEN};
use crate::dnssec::testing::COSTLY;

#[test]
fn client_whose_answers_are_verified_leaves_room_to_others() {
    let mut clients = TestClients::busy(256);
    let responses = clients.ask(100, 2, "alias.nsec3.tld1");
    assert!(
        !responses.contains(&(100, Rcode::SERVFAIL)),
        "{responses:?}"
    );
}

#[test]
fn answer_of_a_client_is_verified_among_those_of_a_busy_client() {
    let mut clients = TestClients::busy(200);
    let responses = clients.ask(1_000, 2, "alias.nsec3.tld1");
    assert_eq!(responses, []);
    let turns = clients.turns_until(1_000);
    assert!(turns < 20, "{turns} turns");
}

#[test]
fn failure_for_lack_of_time_to_verify_is_not_cached() {
    let mut clients = TestClients::busy(200);
    let asked_at = clients.world.scene.now;
    assert_eq!(clients.ask(1_000, 1, "alias.nsec3.tld1"), []);
    // A slow processor: a verification takes 50 ms.
    let rcode = clients.turns_of_50_ms(asked_at, 1_000);
    assert_eq!(rcode, Rcode::SERVFAIL);
    clients.verify_all();
    let responses = clients.ask(2_000, 3, "alias.nsec3.tld1");
    assert!(
        !responses.contains(&(2_000, Rcode::SERVFAIL)),
        "{responses:?}"
    );
}

#[test]
fn failure_of_a_follower_for_lack_of_time_to_verify_is_not_cached() {
    let mut clients = TestClients::busy(200);
    let asked_at = clients.world.scene.now;
    assert_eq!(clients.ask(1_000, 1, "alias.nsec3.tld1"), []);
    clients.world.scene.now += Duration::from_millis(10);
    assert_eq!(clients.ask(1_001, 1, "alias.nsec3.tld1"), []);
    // The time of both ends within one verification.
    let start = asked_at + Duration::from_millis(20);
    assert_eq!(clients.turns_of_50_ms(start, 1_000), Rcode::SERVFAIL);
    clients.verify_all();
    let responses = clients.ask(2_000, 3, "alias.nsec3.tld1");
    assert!(
        !responses.contains(&(2_000, Rcode::SERVFAIL)),
        "{responses:?}"
    );
}

/// The first upstream answers with an error or a lie, and the true answer of the second one is not
/// verified in time.
#[test]
fn earlier_error_is_not_cached_if_the_answer_lacked_time() {
    for is_lie in [false, true] {
        let mut clients = TestClients::warm(TWO, |_| ());
        clients.holds = |text| text == "alias.nsec3.tld1./A";
        let asked_at = clients.world.scene.now;
        assert_eq!(clients.ask(1_000, 1, "alias.nsec3.tld1"), []);
        let question = key("alias.nsec3.tld1", Type::A);
        let truth = clients.world.answers[&question].clone();
        let mut wrong = truth.clone();
        if is_lie {
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
        } else {
            let records = Message::parse(&truth).expect("an answer").records_start();
            wrong.truncate(records);
            wrong[3] |= 2;
            wrong[6..12].fill(0);
        }
        clients.world.answers.insert(question.clone(), wrong);
        let (link, query) = clients.held.remove(0);
        clients.reply(link, &query);
        while clients.step() {}
        assert_eq!((clients.responses.len(), clients.held.len()), (0, 1));
        clients.world.answers.insert(question, truth);
        clients.keep_busy(200);
        clients.release();
        let rcode = clients.turns_of_50_ms(asked_at, 1_000);
        assert_eq!(rcode, Rcode::SERVFAIL);
        clients.verify_all();
        let responses = clients.ask(2_000, 3, "alias.nsec3.tld1");
        assert_eq!(responses, [(2_000, Rcode::NOERROR)], "{is_lie}");
    }
}

#[test]
fn failure_for_lack_of_room_for_the_records_is_not_cached() {
    let mut clients = TestClients::warm(ON, |limits| limits.validations = 16);
    clients.holds = |text| text.ends_with("/DS");
    // The client's own queries wait for records of their own.
    for id in 10..17 {
        let name = format!("a.n{id}.costly");
        clients.world.answers.extend([address(&name)]);
        clients.add_unsigned_delegation(&name);
        clients.add_unsigned_delegation(&name[2..]);
        assert_eq!(clients.ask(id, 1, &name), []);
        let now = clients.world.scene.now;
        clients.turn(now);
    }
    // Another client.
    assert_eq!(clients.ask(100, 2, "www.insecure.tld1"), []);
    assert_eq!(clients.validator().questions.len(), 16);
    // Answers of the first client that are verified.
    for id in 0..4 {
        let name = format!("s{id}.costly");
        clients.add_signed(&name);
        clients.ask(id, 1, &name);
    }
    clients.release();
    for _ in 0..100 {
        let now = clients.world.scene.now;
        clients.turn(now);
    }
    let first = std::mem::take(&mut clients.responses);
    assert!(first.iter().any(|(id, _)| *id == 100), "{first:?}");
    let again = clients.ask(200, 3, "www.insecure.tld1");
    assert!(!again.contains(&(200, Rcode::SERVFAIL)), "{again:?}");
}

#[test]
fn answer_that_is_validated_is_not_given_up_with_an_earlier_error() {
    use crate::proxy::exchange::retry::BadAnswer;
    let mut clients = TestClients::new(ON, |_| ());
    clients.add_signed("warm.costly");
    clients.holds = |text| text == "costly./DNSKEY";
    assert_eq!(clients.ask(1, 1, "warm.costly"), []);
    let scene = &mut clients.world.scene;
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
    while clients.step() {}
    assert_eq!(clients.responses, []);
    clients.release();
    for _ in 0..5 {
        let now = clients.world.scene.now;
        clients.turn(now);
    }
    assert_eq!(clients.responses, [(1, Rcode::NOERROR)]);
}

/// A client that floods the validator while another one asks a few questions at a time, of an
/// upstream that answers truthfully.
struct Flood {
    clients: TestClients,
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
        let mut clients = TestClients::new(arguments, |limits| {
            limits.validations = validations;
            limits.validations_held = held;
            limits.signatures_per_turn = 1_000_000;
        });
        clients.holds = |_| true;
        let answers = Tree::read().answers.into_iter();
        let secure = answers.filter(|it| it.verdict == "secure" && it.rr_type == "A");
        let silence = pick(&mut random, 100);
        Self {
            clients,
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
        let done = self.clients.ask(self.next, client, name);
        self.clients.responses.extend(done);
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
            self.clients.add_signed(&name);
        } else if !self.names.contains(&name) {
            self.clients.world.answers.extend([address(&name)]);
        }
        self.ask(1, &name);
    }

    /// Replies to some of the queries that are held back.
    fn reply(&mut self) {
        for _ in 0..=self.pick(6) {
            if self.clients.held.is_empty() {
                return;
            }
            let place = self.pick(self.clients.held.len());
            let (_, query) = &self.clients.held[place];
            let message = Message::parse(query).expect("the proxy sends whole queries");
            let question = message.question().expect("a query has a question");
            let is_record = question.name().ends_with(COSTLY) && question.rr_type() != Type::A;
            if is_record && self.pick(100) < self.silence {
                continue;
            }
            let (link, query) = self.clients.held.swap_remove(place);
            self.clients.reply(link, &query);
            self.clients.step();
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
                    let at = self.clients.world.scene.now + Duration::from_millis(3);
                    self.clients.turn(at);
                }
            }
            for (id, rcode) in std::mem::take(&mut self.clients.responses) {
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
