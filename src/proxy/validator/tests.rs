//! A validating proxy in front of upstreams that serve the messages of a tree of zones.

mod busy_client_tests;
mod clients;
mod denial_tests;
mod log_mode_tests;
mod room_tests;
mod shared_turn_tests;
mod time_tests;
mod trust_boundary_tests;
mod upstream_fault_tests;
mod work_limits_tests;

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::base::origin::ClientProtocol;
use crate::dnssec::testing::Tree;
use crate::dnssec::validation::SecurityKind;
use crate::proxy::outcome::Outcome;
use crate::proxy::testing::{Scene, config};
use crate::proxy::{Action, ClientTransport, StepEnd, UpstreamIndex};
use crate::wire::Header;
use crate::wire::edns::DO;
use crate::wire::edns::ExtendedErrorCode;

/// Returns the key of a question in [`World::answers`].
fn key(name: &str, rr_type: Type) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(rr_type.0.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// Returns an address record as the answer to a question.
fn address(name: &str) -> (Vec<u8>, Vec<u8>) {
    let question = key(name, Type::A);
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(&question);
    message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x09");
    (question, message)
}

/// A response to a client.
#[derive(Debug)]
struct Response {
    bytes: Vec<u8>,
}

impl Response {
    fn rcode(&self) -> Rcode {
        self.header().flags.rcode()
    }

    fn header(&self) -> Header {
        Header::parse(&self.bytes).unwrap()
    }

    fn has_ad(&self) -> bool {
        self.header().flags.contains(Flags::AD)
    }

    fn types(&self) -> Vec<Type> {
        let message = Message::parse(&self.bytes).unwrap();
        message.answers().map(|record| record.rr_type).collect()
    }

    fn error(&self) -> Option<(ExtendedErrorCode, String)> {
        let message = Message::parse(&self.bytes).unwrap();
        let opt = message.opt()?;
        let error = opt.extended_errors().next()?;
        let (code, text) = error.data.split_first_chunk::<2>()?;
        let code = ExtendedErrorCode(u16::from_be_bytes(*code));
        Some((code, String::from_utf8(text.to_vec()).unwrap()))
    }
}

/// The flags of a query.
#[derive(Clone, Copy, Default)]
struct Ask {
    wants_proof: bool,
    has_ad: bool,
    has_cd: bool,
}

const AD: Ask = Ask {
    wants_proof: false,
    has_ad: true,
    has_cd: false,
};

struct World {
    scene: Scene,
    /// The answers, by question in lower case.
    answers: HashMap<Vec<u8>, Vec<u8>>,
    /// Every question that was sent upstream, and its DO.
    sent: Vec<(String, bool)>,
    /// The CD of each of these questions.
    sent_cd: Vec<bool>,
    /// Questions for which the first upstream lies.
    lie_about: Option<&'static str>,
    /// The lie, or `None` for a wrong byte.
    lie: Option<Vec<u8>>,
    /// Answers that the first upstream gives instead, by question in lower case.
    lies: HashMap<Vec<u8>, Vec<u8>>,
    /// Questions that no upstream answers.
    silent_about: Option<&'static str>,
    /// The upstreams answer FORMERR to queries with DO.
    refuses_do: bool,
    /// The clients ask over UDP.
    is_over_udp: bool,
    /// The upstreams set TTLs of eleven days, which no signature covers.
    has_long_ttls: bool,
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        Self::of(config(arguments))
    }

    fn of(mut config: Config) -> Self {
        let tree = Tree::read();
        let time = tree.time;
        config.dnssec.anchors.extend(tree.anchors);
        let answers = tree.answers.into_iter().map(|answer| {
            let parsed = Message::parse(&answer.message).unwrap();
            let key = parsed.question().unwrap().to_key();
            (key.to_vec(), answer.message)
        });
        let answers = answers.collect();
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        scene.proxy = Proxy::new(&config, &[3; 32]);
        scene.proxy.set_signature_clock(SignatureClock {
            lower_bound: time,
            system: time,
        });
        Self {
            scene,
            answers,
            sent: Vec::new(),
            sent_cd: Vec::new(),
            lie_about: None,
            lie: None,
            lies: HashMap::new(),
            silent_about: None,
            refuses_do: false,
            is_over_udp: false,
            has_long_ttls: false,
        }
    }

    /// Asks for a name and returns the response.
    fn ask(&mut self, name: &str, rr_type: Type, ask: Ask) -> Response {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        query[3] = if ask.has_ad { 0x20 } else { 0 } | if ask.has_cd { 0x10 } else { 0 };
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.bytes());
        }
        query.push(0);
        query.extend(rr_type.0.to_be_bytes());
        query.extend([0, 1, 0, 0, 41, 4, 208, 0, 0]);
        query.extend(if ask.wants_proof { DO } else { 0 }.to_be_bytes());
        query.extend([0, 0]);
        let transport = if self.is_over_udp {
            ClientTransport::Udp
        } else {
            ClientTransport::Stream {
                idle: Duration::from_secs(10),
                received_at: self.scene.now,
                protocol: ClientProtocol::Tcp,
            }
        };
        self.scene.ask(&query, transport);
        for _ in 0..5_000 {
            if let Some(response) = self.turn() {
                return response;
            }
        }
        panic!("no response for {name}");
    }

    /// Handles the actions of the last call, and returns the response if there is one.
    fn turn(&mut self) -> Option<Response> {
        let scene = &mut self.scene;
        let actions = scene.outbox.actions().iter();
        let mut responses = actions.filter_map(|action| match action {
            Action::Respond { message, .. } => Some(scene.outbox.bytes(message).to_vec()),
            _ => None,
        });
        if let Some(bytes) = responses.next() {
            return Some(Response { bytes });
        }
        let mut waiting = scene.sent();
        while let Some((link, query)) = waiting.pop() {
            let parsed = Message::parse(&query).unwrap();
            let question = parsed.question().unwrap();
            let has_do = parsed.opt().is_some_and(|opt| opt.flags & DO != 0);
            let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
            self.sent.push((text.clone(), has_do));
            self.sent_cd.push(parsed.header().flags.contains(Flags::CD));
            if self.silent_about == Some(&text) {
                scene.outbox.clear();
                continue;
            }
            let known = self.answers.get(&question.to_key().to_vec());
            let mut reply = if self.refuses_do && has_do {
                let mut reply = query[..parsed.records_start()].to_vec();
                (reply[2], reply[3], reply[11]) = (0x81, 0x81, 0);
                reply
            } else if let Some(reply) = known {
                reply.clone()
            } else {
                let mut reply = query[..parsed.records_start()].to_vec();
                (reply[2], reply[3], reply[11]) = (0x81, 0x82, 0);
                reply
            };
            let upstream = scene.proxy.link_upstream(link).unwrap();
            if self.lie_about == Some(&text) && upstream == UpstreamIndex(0) {
                let address = reply.windows(4).position(|bytes| bytes == [192, 0, 2, 1]);
                // Without an address, a byte of the last signature, in front of OPT.
                let at = address.unwrap_or(reply.len() - 20);
                reply[at] ^= 0b1010;
                if let Some(lie) = &self.lie {
                    reply.clone_from(lie);
                }
            }
            let lie = self.lies.get(&question.to_key().to_vec());
            if let Some(lie) = lie.filter(|_| upstream == UpstreamIndex(0)) {
                reply.clone_from(lie);
            }
            if self.has_long_ttls {
                let parsed = Message::parse(&reply).unwrap();
                for record in parsed.answers().collect::<Vec<_>>() {
                    record.set_ttl(&mut reply, 1_000_000);
                }
            }
            reply[..2].copy_from_slice(&query[..2]);
            // The verdict of the upstream does not count.
            reply[3] |= 0x20;
            let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
            outbox.clear();
            proxy.handle_reply(link, &reply, scene.now, outbox);
            let actions = outbox.actions().iter();
            let mut responses = actions.filter_map(|action| match action {
                Action::Respond { message, .. } => Some(outbox.bytes(message).to_vec()),
                _ => None,
            });
            if let Some(bytes) = responses.next() {
                return Some(Response { bytes });
            }
            scene.bring_up();
            waiting.extend(scene.sent());
        }
        scene.bring_up();
        if scene.sent().is_empty() {
            scene.now = scene.proxy.poll_timeout().unwrap().max(scene.now);
            scene.outbox.clear();
            scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        }
        None
    }
}

const ON: &[&str] = &["-u192.0.2.1", "--dnssec=on"];
const TWO: &[&str] = &[
    "-u192.0.2.1",
    "-u192.0.2.2",
    "--policy=ordered",
    "--dnssec=on",
];

#[test]
fn secure_answer_has_ad_if_the_client_understands_it() {
    let mut world = World::new(ON);
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert!(response.has_ad());
    assert_eq!(response.types(), [Type::A]);
    let response = world.ask("www.nsec3.tld1", Type::A, Ask::default());
    assert!(!response.has_ad());
    let proof = Ask {
        wants_proof: true,
        ..Ask::default()
    };
    let response = world.ask("www.nsec3.tld1", Type::A, proof);
    assert!(response.has_ad());
    assert_eq!(response.types(), [Type::A, Type::RRSIG]);
    assert!(
        world.sent.iter().all(|(_, has_do)| *has_do),
        "{:?}",
        world.sent
    );
    // The answer without DNSSEC records is in the cache.
    let sent = world.sent.len();
    assert!(world.ask("WWW.nsec3.tld1", Type::A, AD).has_ad());
    assert_eq!(world.sent.len(), sent);
}

#[test]
fn answer_without_room_for_its_validation_is_servfail() {
    let ask = |validations, validations_held| {
        let mut config = config(TWO);
        config.limits.validations = validations;
        config.limits.validations_held = validations_held;
        let mut world = World::of(config);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        let validator = world.scene.proxy.validator.as_ref().unwrap();
        assert_eq!((validator.parked, validator.held), (0, 0));
        (response.rcode(), world.sent.len())
    };
    let len = World::new(ON).answers[&key("www.nsec3.tld1", Type::A)].len();
    // No other upstream is asked, and no key.
    assert_eq!(ask(1, 65_536), (Rcode::SERVFAIL, 1));
    assert_eq!(ask(512, 2 * len - 1), (Rcode::SERVFAIL, 1));
    // The records that the validation needs have room beside the answer.
    assert_eq!(ask(16, 65_536).0, Rcode::NOERROR);
}

#[test]
fn insecure_answer_has_no_ad() {
    let mut world = World::new(ON);
    for name in ["www.insecure.tld1", "www.below.optout.tld1"] {
        let response = world.ask(name, Type::A, AD);
        assert_eq!(response.types(), [Type::A], "{name}");
        assert!(!response.has_ad(), "{name}");
    }
}

#[test]
fn name_below_a_known_insecure_zone_costs_no_question() {
    let mut world = World::new(ON);
    world.ask("www.insecure.tld1", Type::A, AD);
    let sent = world.sent.len();
    for name in ["nothing.insecure.tld1", "x.wild.insecure.tld1"] {
        assert!(!world.ask(name, Type::A, AD).has_ad(), "{name}");
    }
    assert_eq!(world.sent.len(), sent + 2);
    // The name of the zone itself has its records there.
    let verdicts = world.scene.proxy.counters().dnssec.verdicts();
    let insecure = verdicts.filter(|(verdict, _)| *verdict == "insecure");
    assert!(insecure.map(|(_, count)| count).sum::<u64>() >= 3);
}

#[test]
fn upstream_does_not_validate_what_is_validated_here() {
    for (mode, domain, has_cd) in [
        ("--dnssec=on", "-u192.0.2.2,domain=other", true),
        ("--dnssec=log", "-u192.0.2.2,domain=other", false),
        ("--dnssec=off", "-u192.0.2.2,domain=other", false),
        ("--dnssec=on", "-u192.0.2.2,domain=nsec3.tld1", false),
    ] {
        let mut world = World::new(&["-u192.0.2.1", mode, domain]);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!(response.rcode(), Rcode::NOERROR);
        assert!(!response.header().flags.contains(Flags::CD));
        let is_expected = |cd: &bool| *cd == has_cd;
        assert!(world.sent_cd.iter().all(is_expected), "{mode} {domain}");
    }
}

#[test]
fn query_for_signatures_is_answered() {
    let mut world = World::new(ON);
    let mut reply = world.answers[&key("www.nsec3.tld1", Type::A)].clone();
    let at = Message::parse(&reply).unwrap().records_start() - 4;
    reply[at..at + 2].copy_from_slice(&Type::RRSIG.0.to_be_bytes());
    let question = key("www.nsec3.tld1", Type::RRSIG);
    world.answers.insert(question, reply);
    let response = world.ask("www.nsec3.tld1", Type::RRSIG, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NOERROR, false)
    );
}

#[test]
fn ttl_is_at_most_the_signed_one() {
    for (mode, expected) in [("on", 300), ("log", 86_400)] {
        let mut world = World::new(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
        world.has_long_ttls = true;
        // The alias of the second name is made from a DNAME.
        for name in ["www.nsec3.tld1", "www.renamed.nsec3.tld1"] {
            let response = world.ask(name, Type::A, AD);
            let message = Message::parse(&response.bytes).unwrap();
            for record in message.answers() {
                assert_eq!(record.ttl(&response.bytes), expected, "{mode} {name}");
            }
        }
    }
}

#[test]
fn query_with_cd_is_not_validated() {
    let mut world = World::new(ON);
    let unchecked = Ask { has_cd: true, ..AD };
    let response = world.ask("www.nsec3.tld1", Type::A, unchecked);
    assert_eq!(response.types(), [Type::A]);
    world.sent.clear();
    let response = world.ask("www.stripped.tld1", Type::A, unchecked);
    assert_eq!(response.types(), [Type::A]);
    assert!(!response.has_ad());
    assert_eq!(world.sent.len(), 1);
    let response = world.ask("www.stripped.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
}

#[test]
fn questions_of_our_own_are_asked_once() {
    let mut world = World::new(ON);
    for name in [
        "www.nsec3.tld1",
        "nothing.at.all.nsec3.tld1",
        "alias.nsec3.tld1",
    ] {
        assert!(world.ask(name, Type::A, AD).has_ad(), "{name}");
    }
    let mut own: Vec<&str> = world.sent.iter().map(|(text, _)| text.as_str()).collect();
    own.retain(|text| text.ends_with("/DS") || text.ends_with("/DNSKEY"));
    own.sort_unstable();
    let expected = [
        "./DNSKEY",
        "nsec3.tld1./DNSKEY",
        "nsec3.tld1./DS",
        "tld1./DNSKEY",
        "tld1./DS",
    ];
    assert_eq!(own, expected);
    let (zones, bytes) = world.scene.proxy.known_zones();
    assert_eq!(zones, 3);
    assert!(bytes < 2_000, "{bytes}");
}

#[test]
fn upstreams_of_a_domain_are_validated_only_if_they_say_so() {
    for (setting, rcode) in [("", Rcode::NOERROR), (",dnssec", Rcode::SERVFAIL)] {
        let upstream = format!("-u192.0.2.1,domain=stripped.tld1{setting}");
        let mut world = World::new(&[&upstream, "-u192.0.2.2", "--dnssec=on"]);
        let response = world.ask("www.stripped.tld1", Type::A, AD);
        assert_eq!(
            (response.rcode(), response.has_ad()),
            (rcode, false),
            "{setting}"
        );
    }
}

#[test]
fn reload_empties_the_known_zones_and_ends_validations() {
    let mut world = World::new(ON);
    assert!(world.ask("www.nsec3.tld1", Type::A, AD).has_ad());
    let same = world.scene.proxy.config.clone();
    let (proxy, outbox) = (&mut world.scene.proxy, &mut world.scene.outbox);
    outbox.clear();
    proxy.reconfigure(&same, world.scene.now, outbox);
    assert_eq!(proxy.known_zones(), (0, 0));
    let off = config(&["-u192.0.2.1"]);
    proxy.reconfigure(&off, world.scene.now, outbox);
    assert!(!proxy.is_validating());
    let response = world.ask("www.stripped.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::NOERROR);
}

#[test]
fn record_of_a_query_has_the_verdict() {
    for (mode, bogus) in [("on", Outcome::Bogus), ("log", Outcome::Answered)] {
        let mut world = World::new(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
        world.scene.outbox.set_takes_records(true);
        let secure = Some(SecurityKind::Secure);
        let of_cache = secure.filter(|_| mode == "on");
        for (name, outcome, security) in [
            ("www.nsec3.tld1", Outcome::Answered, secure),
            ("www.nsec3.tld1", Outcome::Cached, of_cache),
            ("nothing.tld1", Outcome::Answered, secure),
            (
                "www.insecure.tld1",
                Outcome::Answered,
                Some(SecurityKind::Insecure),
            ),
            ("www.insecure.tld1", Outcome::Cached, None),
            ("www.stripped.tld1", bogus, Some(SecurityKind::Bogus)),
        ] {
            world.ask(name, Type::A, AD);
            let records = world.scene.outbox.records();
            let [record] = records else {
                panic!("{records:?}");
            };
            assert_eq!(
                (record.outcome, record.security),
                (outcome, security),
                "{name}"
            );
        }
        if mode == "on" {
            world.ask("nothinh.tld1", Type::A, AD);
            let record = &world.scene.outbox.records()[0];
            assert_eq!((record.outcome, record.security), (Outcome::Cached, secure));
        }
    }
}

#[test]
fn keys_of_the_root_are_compared_with_the_trust_anchors() {
    let mut world = World::new(ON);
    assert_eq!(world.scene.proxy.root_keys(), []);
    world.ask("www.nsec3.tld1", Type::A, AD);
    let anchor = &world.scene.proxy.config.dnssec.anchors[0];
    let tag = match anchor.rr_type {
        Type::DS => u16::from_be_bytes([anchor.data[0], anchor.data[1]]),
        _ => Dnskey::parse(&anchor.data).unwrap().tag,
    };
    assert_eq!(world.scene.proxy.root_keys(), [(tag, true)]);
}

#[test]
fn trace_has_the_validation() {
    let traced = ["--otlp=http://127.0.0.1:4318", "--trace-sample=1"];
    let mut world = World::new(&["-u192.0.2.1", "--dnssec=on", traced[0], traced[1]]);
    world.ask("www.nsec3.tld1", Type::A, AD);
    let trace = world.scene.outbox.records()[0].trace.clone();
    let steps = trace.expect("every query is traced").steps;
    let validation = steps.iter().find(|step| step.kind == StepKind::Validation);
    assert_eq!(validation.unwrap().end.unwrap().1, StepEnd::Done);
}

#[test]
fn stale_answer_has_no_ad() {
    let mut world = World::new(&["-u192.0.2.1", "--dnssec=on", "--serve-stale=1d"]);
    assert!(world.ask("www.nsec3.tld1", Type::A, AD).has_ad());
    assert!(world.ask("www.nsec3.tld1", Type::A, AD).has_ad());
    world.answers.clear();
    world.scene.now += Duration::from_secs(7_200);
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A], "{response:?}");
    assert!(!response.has_ad());
}
