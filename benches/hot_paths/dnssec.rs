//! The query engine with DNSSEC validation, without sockets.

use std::collections::HashMap;

use dotproxy::config::TrustAnchor;
use dotproxy::dnssec::clock::SignatureClock;
use dotproxy::proxy::{Action, Outbox};
use dotproxy::wire::Message;

use crate::Once;
use crate::decisions::{Scene, config};
use crate::messages::query;

/// The messages of a tree of zones, as `scripts/dnssec_tree.py` writes them.
const MESSAGES: &str = include_str!("../../tests/data/dnssec_messages.txt");

/// A validating proxy, and an upstream that knows the messages.
struct World {
    scene: Scene,
    /// The actions of the last call.
    handled: Outbox,
    /// The answers of the upstream by question.
    answers: HashMap<Vec<u8>, Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let mut config = config(&["-u192.0.2.1", "--cache-size=1m", "--dnssec=on"]);
        let (mut clock, mut answers) = (SignatureClock::default(), HashMap::new());
        for line in MESSAGES.lines() {
            let (word, rest) = line.split_once(' ').expect("two words");
            match word {
                "anchor" => config.dnssec.anchors = TrustAnchor::parse_all(rest).expect("anchors"),
                "time" => clock.lower_bound = rest.parse().expect("a number of seconds"),
                _ => {
                    let message = bytes(rest.rsplit(' ').next().expect("a message"));
                    answers.insert(question_of(&message), message);
                }
            }
        }
        clock.system = clock.lower_bound;
        let mut scene = Scene::with(&config);
        scene.proxy.set_signature_clock(clock);
        Self {
            scene,
            handled: Outbox::default(),
            answers,
        }
    }

    /// Hands over the query of a client, and answers the queries that follow from it.
    fn ask(&mut self, query: &[u8]) {
        self.scene.receive(query);
        while !self.scene.outbox.actions().is_empty() {
            self.perform_actions();
            let Scene {
                proxy, outbox, now, ..
            } = &mut self.scene;
            // Signatures beyond the limit of a turn are verified in later turns.
            while proxy.poll_timeout().is_some_and(|at| at <= *now) {
                proxy.handle_timeout(*now, outbox);
            }
        }
    }

    fn perform_actions(&mut self) {
        let Scene {
            proxy, outbox, now, ..
        } = &mut self.scene;
        // Both keep their memory.
        std::mem::swap(outbox, &mut self.handled);
        outbox.clear();
        for action in self.handled.actions() {
            match action {
                Action::OpenLink { link, .. } => {
                    proxy.handle_link_up(*link, false, *now, outbox);
                }
                Action::Send { link, message } => {
                    let query = self.handled.bytes(message);
                    let mut answer = self.answers[&question_of(query)].clone();
                    answer[..2].copy_from_slice(&query[..2]);
                    proxy.handle_reply(*link, &answer, *now, outbox);
                }
                Action::Respond { .. } | Action::CloseLink { .. } => {}
            }
        }
    }
}

/// Returns the question of a message in the form of a key.
fn question_of(message: &[u8]) -> Vec<u8> {
    let message = Message::parse(message).expect("a message");
    message.question().expect("a question").to_key().to_vec()
}

/// Returns the bytes of a text in hexadecimal.
fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte in hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Benchmarks the denial of a name by cached NSEC records.
pub(crate) fn denied() -> Once {
    let mut world = World::new();
    world.ask(&query(1, "nothing.tld1", 1, Some(1232)));
    let denied = query(1, "nothing-else.tld1", 1, Some(1232));
    // The upstream does not know this name.
    assert!(!world.answers.contains_key(&question_of(&denied)));
    Box::new(move || world.ask(&denied))
}
