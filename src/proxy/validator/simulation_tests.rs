//! Many queries at once in front of an upstream that answers in any order, late, wrongly or not at
//! all.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::*;
use crate::base::origin::ClientProtocol;
use crate::base::random::Random;
use crate::dnssec::testing::{Tree, TreeAnswer};
use crate::proxy::testing::{Scene, config};
use crate::proxy::{Action, ClientTransport, LinkKey};
use crate::wire::{Header, canonical};

/// The number of queries of clients in a run.
const QUERIES: u16 = 24;

/// The number of queries to the upstream that each query of a client may cause: its own one and
/// those for DS and DNSKEY of each zone, with their retries.
const SENT_MAX: usize = 60;

/// An event that has not happened yet.
enum Pending {
    LinkUp(LinkKey),
    Query(LinkKey, Vec<u8>),
}

struct Simulation {
    scene: Scene,
    random: Random,
    /// The upstream fails, lies, or does not answer now and then.
    is_faulty: bool,
    /// The answers of the upstream by question.
    answers: HashMap<Vec<u8>, Vec<u8>>,
    pending: Vec<Pending>,
    sent: usize,
    /// The responses by ID.
    responses: BTreeMap<u16, Vec<u8>>,
}

impl Simulation {
    fn new(seed: u8, tree: &Tree, is_faulty: bool) -> Self {
        let mut config = config(&["-u192.0.2.1", "--dnssec=on"]);
        config.dnssec.anchors.clone_from(&tree.anchors);
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.proxy = Proxy::new(&config, &[seed; 32]);
        scene.proxy.set_signature_clock(SignatureClock {
            lower_bound: tree.time,
            system: tree.time,
        });
        let answers = tree.answers.iter().map(|answer| {
            let parsed = Message::parse(&answer.message).unwrap();
            let key = parsed.question().unwrap().to_key();
            (key.to_vec(), answer.message.clone())
        });
        Self {
            scene,
            random: Random::new(&[seed; 32]),
            is_faulty,
            answers: answers.collect(),
            pending: Vec::new(),
            sent: 0,
            responses: BTreeMap::new(),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.next_u32()).unwrap() % limit
    }

    fn ask(&mut self, id: u16, question: Question<'_>) {
        let mut query = vec![0, 0, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        query[..2].copy_from_slice(&id.to_be_bytes());
        query.extend_from_slice(question.as_bytes());
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let transport = ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: self.scene.now,
            protocol: ClientProtocol::Tcp,
        };
        self.scene.ask(&query, transport);
        self.collect();
    }

    /// Records the actions of the last call.
    fn collect(&mut self) {
        let outbox = &mut self.scene.outbox;
        for action in outbox.actions() {
            match action {
                Action::OpenLink { link, .. } => self.pending.push(Pending::LinkUp(*link)),
                Action::Send { link, message } => {
                    self.sent += 1;
                    let query = outbox.bytes(message).to_vec();
                    self.pending.push(Pending::Query(*link, query));
                }
                Action::CloseLink { link } => self.pending.retain(|pending| match pending {
                    Pending::LinkUp(other) | Pending::Query(other, _) => other != link,
                }),
                Action::Respond { message, .. } => {
                    let message = outbox.bytes(message).to_vec();
                    let id = u16::from_be_bytes([message[0], message[1]]);
                    assert!(
                        self.responses.insert(id, message).is_none(),
                        "two responses"
                    );
                }
            }
        }
        outbox.clear();
    }

    /// Lets one of the pending events happen.
    fn handle_any(&mut self) {
        let position = self.below(self.pending.len());
        match self.pending.swap_remove(position) {
            Pending::LinkUp(link) => {
                let Scene { proxy, outbox, now } = &mut self.scene;
                proxy.handle_link_up(link, false, *now, outbox);
            }
            Pending::Query(link, query) => {
                if let Some(reply) = self.reply(&query) {
                    let Scene { proxy, outbox, now } = &mut self.scene;
                    proxy.handle_reply(link, &reply, *now, outbox);
                }
            }
        }
        self.collect();
    }

    /// Returns the reply of the upstream, unless it does not reply.
    fn reply(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let parsed = Message::parse(query).unwrap();
        let question = parsed.question().unwrap().to_key().to_vec();
        let known = self.answers.get(&question).cloned();
        let mut servfail = query[..parsed.records_start()].to_vec();
        (servfail[2], servfail[3], servfail[11]) = (0x81, 0x82, 0);
        let mut reply = known.unwrap_or_else(|| servfail.clone());
        let start = Message::parse(&reply).unwrap().records_start();
        if self.is_faulty {
            match self.below(20) {
                0 => return None,
                1 => reply = servfail,
                2 | 3 if reply.len() > start => {
                    let byte = start + self.below(reply.len() - start);
                    reply[byte] ^= 1 << self.below(8);
                }
                _ => {}
            }
        }
        reply[..2].copy_from_slice(&query[..2]);
        // The verdict of the upstream does not count.
        reply[3] |= 0x20;
        Some(reply)
    }

    fn advance(&mut self, to: Instant) {
        let Scene { proxy, outbox, now } = &mut self.scene;
        *now = to.max(*now);
        if proxy.poll_timeout().is_some_and(|at| at <= *now) {
            proxy.handle_timeout(*now, outbox);
        }
        self.collect();
    }

    /// Asks these questions, and returns when each has a response.
    fn run(&mut self, asked: &[&TreeAnswer]) {
        let mut next = asked.iter().zip(0..);
        let mut waiting = next.next();
        for _ in 0..20_000 {
            if let Some((answer, id)) = waiting
                && self.below(3) == 0
            {
                let message = Message::parse(&answer.message).unwrap();
                self.ask(id, message.question().unwrap());
                waiting = next.next();
            } else if !self.pending.is_empty() && self.below(4) > 0 {
                self.handle_any();
            } else if self.pending.is_empty()
                && let Some(at) = self.scene.proxy.poll_timeout()
            {
                self.advance(at);
            } else {
                let to = self.scene.now + Duration::from_millis(3);
                self.advance(to);
            }
            if waiting.is_none() && self.responses.len() == asked.len() {
                return;
            }
        }
        panic!("{} of {} responses", self.responses.len(), asked.len());
    }
}

/// Returns the types and the data of the answers in a message, without signatures.
fn data_of(message: &[u8]) -> Vec<(Type, Vec<u8>)> {
    let parsed = Message::parse(message).unwrap();
    let records = parsed.answers().filter(|it| it.rr_type != Type::RRSIG);
    let mut data: Vec<_> = records
        .map(|record| {
            let mut data = Vec::new();
            canonical::write_data(&mut data, message, &record).unwrap();
            (record.rr_type, data)
        })
        .collect();
    data.sort_by(|one, other| (one.0.0, &one.1).cmp(&(other.0.0, &other.1)));
    data
}

/// Runs queries for random names of the tree, and compares each response with the verdict of
/// unbound. Returns the number of responses with AD.
fn simulate(is_faulty: bool, runs: u8) -> usize {
    let tree = Tree::read();
    let of_clients: Vec<_> = tree.answers.iter().filter(|it| it.verdict != "-").collect();
    let mut secure = 0;
    for seed in 0..runs {
        let mut simulation = Simulation::new(seed, &tree, is_faulty);
        let asked: Vec<&TreeAnswer> = (0..QUERIES)
            .map(|_| of_clients[simulation.below(of_clients.len())])
            .collect();
        simulation.run(&asked);
        assert!(
            simulation.sent <= SENT_MAX * asked.len(),
            "{}",
            simulation.sent
        );
        for (answer, id) in asked.iter().zip(0..) {
            let response = &simulation.responses[&id];
            let header = Header::parse(response).unwrap();
            let rcode = Message::parse(response).unwrap().rcode();
            let true_rcode = Message::parse(&answer.message).unwrap().rcode();
            let has_ad = header.flags.contains(Flags::AD);
            let place = format!("seed {seed}: {} {}", answer.name, answer.rr_type);
            if has_ad {
                secure += 1;
                assert_eq!(answer.verdict, "secure", "{place}");
                assert_eq!(rcode, true_rcode, "{place}");
                assert_eq!(data_of(response), data_of(&answer.message), "{place}");
            } else if answer.verdict == "insecure" {
                assert!(is_faulty || rcode == true_rcode, "{place}: {rcode:?}");
            } else {
                assert!(is_faulty || answer.verdict == "servfail", "{place}");
                let is_data = matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
                assert_eq!((is_data, header.answers), (false, 0), "{place}: {rcode:?}");
            }
        }
        // Nothing of a validation is left after its response.
        let deadline = simulation.scene.now + Duration::from_secs(30);
        while simulation.scene.now < deadline {
            let at = simulation.scene.proxy.poll_timeout();
            simulation.advance(at.unwrap_or(deadline).min(deadline));
        }
        let validator = simulation.scene.proxy.validator.as_ref().unwrap();
        assert_eq!(
            (validator.parked, validator.held, validator.questions.len()),
            (0, 0, 0),
            "seed {seed}"
        );
        assert!(validator.runnable.is_empty(), "seed {seed}");
    }
    secure
}

#[test]
fn verdicts_do_not_depend_on_the_order_of_replies() {
    assert!(simulate(false, 60) > 300);
}

#[test]
fn only_true_answers_are_secure_with_a_faulty_upstream() {
    assert!(simulate(true, 150) > 300);
}
