//! Clients in front of a zone with costly signatures.

use super::*;
use crate::dnssec::testing::{COSTLY, Costly, branching, message_with, record};
use crate::proxy::LinkKey;

/// Clients, and an upstream whose answers may be held back.
pub(super) struct TestClients {
    pub(super) world: World,
    costly: Costly,
    /// Returns whether the reply to a question is held back.
    pub(super) holds: fn(&str) -> bool,
    pub(super) held: Vec<(LinkKey, Vec<u8>)>,
    pub(super) responses: Vec<(u16, Rcode)>,
}

impl TestClients {
    pub(super) fn new(arguments: &[&str], set: impl Fn(&mut crate::config::Limits)) -> Self {
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

    /// Creates clients, and a proxy that knows the keys above `costly` and `nsec3.tld1`.
    pub(super) fn warm(arguments: &[&str], set: impl Fn(&mut crate::config::Limits)) -> Self {
        let mut clients = Self::new(arguments, set);
        clients.learn("www.nsec3.tld1");
        clients.add_signed("warm.costly");
        clients.learn("warm.costly");
        clients
    }

    /// Creates clients of which the first one has this number of answers verified.
    pub(super) fn busy(answers: u16) -> Self {
        let mut clients = Self::warm(ON, |_| ());
        clients.keep_busy(answers);
        clients
    }

    /// Sends this number of queries of the first client whose answers are costly to verify.
    pub(super) fn keep_busy(&mut self, answers: u16) {
        for id in 0..answers {
            let name = format!("n{id}.costly");
            self.add_signed(&name);
            assert_eq!(self.ask(id, 1, &name), []);
        }
        let runnable = &self.validator().runnable;
        assert_eq!(runnable.len(), usize::from(answers));
    }

    /// Adds a signed address of a name below the zone.
    pub(super) fn add_signed(&mut self, name: &str) {
        let question = key(name, Type::A);
        let owner = &question[..question.len() - 4];
        let time = Tree::read().time;
        let signed = self.costly.signed(owner, Type::A, &[192, 0, 2, 1], time);
        let message = message_with(owner, Type::A, [2, 0], &signed);
        self.world.answers.insert(question, message);
    }

    pub(super) fn add_unsigned_delegation(&mut self, name: &str) {
        let question = key(name, Type::DS);
        let owner = question[..question.len() - 4].to_vec();
        let message = branching(&self.costly, &owner, &[], Tree::read().time);
        self.world.answers.insert(question, message);
    }

    /// Appends this number of records of 251 bytes to the records of an answer that is known.
    pub(super) fn lengthen(&mut self, name: &str, rr_type: Type, records: u16) {
        let question = key(name, rr_type);
        let owner = &question[..question.len() - 4];
        let text = record(owner, Type(16), &[&[250][..], &[7; 250]].concat());
        let answers = &mut self.world.answers;
        let message = answers.get_mut(&question).expect("the answer is known");
        message.extend(text.repeat(usize::from(records)));
        // The last section that has records.
        let at = if rr_type == Type::DS { 8 } else { 6 };
        let count = u16::from_be_bytes([message[at], message[at + 1]]) + records;
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    /// Has the proxy learn the keys above a name.
    pub(super) fn learn(&mut self, name: &str) {
        let response = self.world.ask(name, Type::A, AD);
        assert_eq!(response.rcode(), Rcode::NOERROR, "{name}");
        self.world.scene.outbox.clear();
    }

    /// Sends a query of a client. Returns the responses that follow at once.
    pub(super) fn ask(&mut self, id: u16, client: u8, name: &str) -> Vec<(u16, Rcode)> {
        self.ask_for(&key(name, Type::A), id, client)
    }

    pub(super) fn ask_for(&mut self, question: &[u8], id: u16, client: u8) -> Vec<(u16, Rcode)> {
        let [high, low] = id.to_be_bytes();
        let mut query = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(question);
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

    pub(super) fn reply(&mut self, link: LinkKey, query: &[u8]) {
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

    /// Handles the actions of the last call. Returns whether queries were sent upstream.
    pub(super) fn step(&mut self) -> bool {
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
    pub(super) fn release(&mut self) {
        self.holds = |_| false;
        for (link, query) in std::mem::take(&mut self.held) {
            self.reply(link, &query);
            while self.step() {}
        }
    }

    /// One turn of the event loop, at a time.
    pub(super) fn turn(&mut self, now: Instant) {
        let scene = &mut self.world.scene;
        scene.now = scene.now.max(now);
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        while self.step() {}
    }

    /// Runs turns until the response with this id. Returns their number.
    pub(super) fn turns_until(&mut self, id: u16) -> usize {
        let mut turns = 0;
        while self.responses.iter().all(|(other, _)| *other != id) {
            let now = self.world.scene.now;
            self.turn(now);
            turns += 1;
        }
        turns
    }

    /// Runs turns of 50 ms until the response with this id. Returns its code.
    pub(super) fn turns_of_50_ms(&mut self, start: Instant, id: u16) -> Rcode {
        let mut turns = 0;
        loop {
            let mut responses = self.responses.iter();
            if let Some((_, rcode)) = responses.find(|(other, _)| *other == id) {
                return *rcode;
            }
            turns += 1;
            self.turn(start + Duration::from_millis(50 * turns));
        }
    }

    /// Runs turns until every answer is verified, and drops the responses.
    pub(super) fn verify_all(&mut self) {
        while !self.validator().runnable.is_empty() {
            let now = self.world.scene.now;
            self.turn(now);
        }
        self.responses.clear();
    }

    /// Lets time pass until this number of responses, with an upstream that answers new queries.
    pub(super) fn recover(&mut self, count: usize) -> Vec<(u16, Rcode)> {
        self.holds = |_| false;
        while self.responses.len() < count {
            let scene = &mut self.world.scene;
            scene.now = scene.proxy.poll_timeout().expect("a query waits");
            scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
            while self.step() {}
        }
        std::mem::take(&mut self.responses)
    }

    /// Returns the number of answers that are being validated, and that of questions of our own.
    pub(super) fn usage(&self) -> (usize, usize) {
        let validator = self.validator();
        (validator.parked, validator.questions.len())
    }

    pub(super) fn validator(&self) -> &Validator {
        let validator = self.world.scene.proxy.validator.as_ref();
        validator.expect("the validator is on")
    }
}
