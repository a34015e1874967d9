//! A validating proxy in front of upstreams that serve the messages of a tree of zones.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::dnssec::testing::Tree;
use crate::dnssec::validation::SecurityKind;
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
                is_encrypted: false,
            }
        };
        self.scene.ask(&query, transport);
        for _ in 0..100 {
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
fn bogus_answer_is_servfail_with_its_reason() {
    let mut world = World::new(ON);
    for (name, code, text) in [
        ("www.expired.tld1", 7, "expired.tld1./DNSKEY"),
        ("www.stripped.tld1", 10, "www.stripped.tld1./A"),
        ("nothing.nodenial.tld1", 12, "nothing.nodenial.tld1./DS"),
    ] {
        let response = world.ask(name, Type::A, AD);
        assert_eq!(response.rcode(), Rcode::SERVFAIL, "{name}");
        let error = (ExtendedErrorCode(code), text.to_owned());
        assert_eq!(response.error(), Some(error), "{name}");
    }
    let bogus = |counters: &crate::proxy::Counters| {
        let mut verdicts = counters.dnssec.verdicts();
        verdicts.find(|(verdict, _)| *verdict == "bogus").unwrap().1
    };
    assert!(bogus(world.scene.proxy.counters()) >= 3);
}

#[test]
fn bogus_answer_is_replaced_by_that_of_another_upstream() {
    let mut world = World::new(TWO);
    world.lie_about = Some("www.nsec3.tld1./A");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    assert!(response.has_ad());
    let asked = world.sent.iter();
    let asked = asked.filter(|(question, _)| question == "www.nsec3.tld1./A");
    assert_eq!(asked.count(), 2);
    // Both upstreams give a bogus answer.
    let response = world.ask("www.expired.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let asked = world.sent.iter();
    let asked = asked.filter(|(question, _)| question == "www.expired.tld1./A");
    assert_eq!(asked.count(), 2);
}

#[test]
fn bogus_keys_are_replaced_by_those_of_another_upstream() {
    for lie in ["nsec3.tld1./DNSKEY", "nsec3.tld1./DS", "./DNSKEY"] {
        let mut world = World::new(TWO);
        world.lie_about = Some(lie);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!(response.types(), [Type::A], "{lie}");
        assert!(response.has_ad(), "{lie}");
        let asked = world.sent.iter().filter(|(question, _)| question == lie);
        assert_eq!(asked.count(), 2, "{lie}");
        let asked = world.sent.iter();
        let asked = asked.filter(|(question, _)| question == "www.nsec3.tld1./A");
        assert_eq!(asked.count(), 1, "{lie}");
    }
    // A single upstream is not asked again.
    let mut world = World::new(ON);
    world.lie_about = Some("nsec3.tld1./DNSKEY");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let asked = world.sent.iter();
    let asked = asked.filter(|(question, _)| question == "nsec3.tld1./DNSKEY");
    assert_eq!(asked.count(), 1);
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
fn upstream_without_dnssec_is_servfail_with_the_reason() {
    for (name, rr_type) in [("www.nsec3.tld1", Type::A), ("www.plain", Type::A)] {
        let mut world = World::new(ON);
        world.refuses_do = true;
        let response = world.ask(name, rr_type, AD);
        assert_eq!(response.rcode(), Rcode::SERVFAIL, "{name}");
        let error = (ExtendedErrorCode(5), format!("{name}./A"));
        assert_eq!(response.error(), Some(error));
    }
}

#[test]
fn missing_records_are_named_in_the_error() {
    for missing in ["./DNSKEY", "tld1./DNSKEY", "nsec3.tld1./DS"] {
        let mut world = World::new(ON);
        world.silent_about = Some(missing);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!(response.rcode(), Rcode::SERVFAIL);
        let error = (ExtendedErrorCode(5), missing.to_owned());
        assert_eq!(response.error(), Some(error));
    }
}

#[test]
fn lie_of_a_single_upstream_is_servfail() {
    let mut world = World::new(ON);
    world.lie_about = Some("www.nsec3.tld1./A");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let error = (ExtendedErrorCode(6), "www.nsec3.tld1./A".to_owned());
    assert_eq!(response.error(), Some(error));
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
fn error_of_the_upstream_has_neither_ad_nor_records() {
    for (rcode, expected) in [
        (2, Rcode::SERVFAIL),
        (5, Rcode::REFUSED),
        (6, Rcode::YXDOMAIN),
    ] {
        let mut world = World::new(ON);
        let reply = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
        let flags = &mut reply.unwrap()[3];
        *flags = *flags & 0xf0 | rcode;
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!((response.rcode(), response.has_ad()), (expected, false));
        assert_eq!(response.types(), []);
    }
    // The other bits of the code are in OPT, and those in the header are those of NOERROR.
    let mut world = World::new(ON);
    let reply = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
    let reply = reply.unwrap();
    let opt = reply.windows(3).rposition(|bytes| bytes == [0, 0, 41]);
    reply[opt.unwrap() + 5] = 2;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    let message = Message::parse(&response.bytes).unwrap();
    assert_eq!(message.rcode(), Rcode::NOERROR.with_extension(2));
    assert_eq!((response.types(), response.has_ad()), (vec![], false));
}

#[test]
fn truncated_answer_has_no_records() {
    for (mode, has_records) in [("on", false), ("log", true)] {
        for rcode in [0, 3] {
            let mut world = World::new(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
            world.is_over_udp = true;
            let answer = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
            let answer = answer.unwrap();
            answer[2] |= 2;
            answer[3] |= rcode;
            let response = world.ask("www.nsec3.tld1", Type::A, AD);
            if has_records {
                assert_ne!(response.types(), []);
            } else {
                assert_eq!(response.types(), []);
                let rcode = response.rcode();
                assert!(
                    rcode == Rcode::NOERROR && response.header().flags.contains(Flags::TC)
                        || rcode == Rcode::SERVFAIL,
                    "{rcode:?}"
                );
            }
        }
    }
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
fn secure_response_has_no_unverified_records() {
    // The second owner is a pointer to the first.
    for (mode, count) in [("on", 0), ("log", 1)] {
        let mut world = World::new(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
        let name = "www.deep.down.below.tld1";
        let answer = world.answers.get_mut(&key(name, Type::A)).unwrap();
        let sections = Message::parse(answer).unwrap();
        let [answers_end, authorities_end] = sections.answer_and_authority_ends();
        assert_eq!(sections.authorities().count(), 0);
        // The address of another name, in both sections.
        let forged = b"\x04evil\0\0\x01\0\x01\0\0\0\x3c\0\x04\x06\x06\x06\x06";
        assert_eq!(answers_end, authorities_end);
        answer.splice(answers_end..answers_end, [&forged[..], forged].concat());
        answer[9] += 1;
        answer[11] += 1;
        let response = world.ask(name, Type::A, AD);
        assert!(response.has_ad());
        assert_eq!(response.types(), [Type::A]);
        let found = response
            .bytes
            .windows(5)
            .filter(|bytes| *bytes == b"\x04evil");
        assert_eq!(found.count(), count, "{mode}");
    }
}

#[test]
fn insecure_response_has_no_records_of_other_names() {
    let zone = b"\x05nsec3\x04tld1\0";
    let dname = [&zone[..], b"\0\x27\0\x01\0\0\0\x3c\0\x06\x04evil\0"].concat();
    let server = [&zone[..], b"\0\x02\0\x01\0\0\0\x3c\0\x06\x04evil\0"].concat();
    for name in ["insecure-alias.nsec3.tld1", "www.insecure.tld1"] {
        for is_known in [false, true] {
            let mut world = World::new(ON);
            if is_known {
                world.ask("nothing.insecure.tld1", Type::A, AD);
            }
            let answer = world.answers.get_mut(&key(name, Type::A)).unwrap();
            let parsed = Message::parse(answer).unwrap();
            let [_, authorities_end] = parsed.answer_and_authority_ends();
            let mut forged = answer[..authorities_end].to_vec();
            forged[10..12].fill(0);
            forged.extend(&server);
            forged[9] += 1;
            if !is_known && parsed.authorities().count() == 0 {
                let end = forged.len() - server.len();
                forged.splice(end..end, dname.clone());
                forged[7] += 1;
            }
            *answer = forged;
            let response = world.ask(name, Type::A, AD);
            assert_eq!(response.rcode(), Rcode::NOERROR, "{name}");
            assert!(!response.types().contains(&Type::DNAME), "{name}");
            let message = Message::parse(&response.bytes).unwrap();
            assert_eq!(message.authorities().count(), 0, "{name}");
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
fn log_mode_changes_no_response() {
    let mut world = World::new(&["-u192.0.2.1", "--dnssec=log"]);
    let response = world.ask("www.stripped.tld1", Type::A, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NOERROR, true)
    );
    assert_eq!(response.types(), [Type::A]);
    let dnssec = &world.scene.proxy.counters().dnssec;
    let mut failures = dnssec.failures();
    assert_eq!(
        failures.find(|(_, count)| *count > 0),
        Some(("rrsigs-missing", 1))
    );
}

#[test]
fn log_mode_delivers_answers_that_cannot_be_validated() {
    let log = &["-u192.0.2.1", "--dnssec=log"];
    // The keys are not answered.
    let mut world = World::new(log);
    world.silent_about = Some("./DNSKEY");
    let start = world.scene.now;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    let took = world.scene.now - start;
    assert!(
        took <= LOG_DELAY_MAX + Duration::from_millis(100),
        "{took:?}"
    );
    // There is no room for the validation.
    let mut config = config(log);
    config.limits.validations = 1;
    let mut world = World::of(config);
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    // The answer has too many sets.
    let mut world = World::new(log);
    let answer = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
    let answer = answer.unwrap();
    let opt = answer.len() - 11;
    for number in 0..30 {
        let record = [
            b"\x01",
            &[number][..],
            b"\0\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01",
        ];
        let record = record.concat();
        answer.splice(opt..opt, record);
    }
    answer[9] += 30;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    // The upstream does not know DO.
    let mut world = World::new(log);
    world.refuses_do = true;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::NOERROR);
    assert_eq!(response.types()[0], Type::A);
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
fn names_that_verified_records_deny_are_answered_without_upstream() {
    let proof = Ask {
        wants_proof: true,
        ..AD
    };
    let cd = Ask { has_cd: true, ..AD };
    let nsec = (
        "nothing.tld1",
        ["nothinh.tld1", "a.b.nothinh.tld1", "nothin.tld1"],
    );
    // The same name below the closest encloser has the same hash.
    let nsec3 = (
        "nothing.at.all.nsec3.tld1",
        ["all.nsec3.tld1", "at.all.nsec3.tld1", "b.all.nsec3.tld1"],
    );
    for ((first, others), mode, is_cached) in [
        (nsec, "--dnssec=on", true),
        (nsec3, "--dnssec=on", true),
        (nsec, "--dnssec=log", false),
    ] {
        let mut world = World::new(&["-u192.0.2.1", mode]);
        let response = world.ask(first, Type::A, AD);
        assert_eq!(response.rcode(), Rcode::NXDOMAIN, "{first}");
        let sent = world.sent.len();
        for (name, ask) in others.into_iter().zip([AD, AD, proof]) {
            let response = world.ask(name, Type::A, ask);
            if is_cached {
                assert_eq!(
                    (response.rcode(), response.has_ad()),
                    (Rcode::NXDOMAIN, true)
                );
                let message = Message::parse(&response.bytes).unwrap();
                let has_proof = message.authorities().any(|it| it.rr_type == Type::RRSIG);
                assert_eq!(has_proof, ask.wants_proof, "{name}");
            }
        }
        assert_eq!(
            world.sent.len() == sent,
            is_cached,
            "{first}: {:?}",
            world.sent
        );
        let sent = world.sent.len();
        world.ask(others[0], Type::AAAA, cd);
        assert!(world.sent.len() > sent, "a query with CD is not validated");
        let expected = if is_cached { 3 } else { 0 };
        assert_eq!(world.scene.proxy.counters().dnssec.synthesized, expected);
    }
}

#[test]
fn denials_of_a_negative_trust_anchor_and_of_another_pool_are_not_used() {
    for more in [
        "--negative-trust-anchor=nothinh.tld1",
        "-u192.0.2.2,domain=nothinh.tld1",
    ] {
        let mut world = World::new(&["-u192.0.2.1", "--dnssec=on", more]);
        world.ask("nothing.tld1", Type::A, AD);
        let sent = world.sent.len();
        world.ask("nothin.tld1", Type::A, AD);
        assert_eq!(world.sent.len(), sent);
        world.ask("nothinh.tld1", Type::A, AD);
        assert!(world.sent.len() > sent, "{more}");
    }
}

#[test]
fn denials_of_a_zone_above_the_nearest_trust_anchor_are_not_used() {
    let mut config = config(ON);
    config.dnssec.anchors = vec![TrustAnchor {
        zone: "nothinh.tld1".parse().unwrap(),
        ..Tree::read().anchors.remove(0)
    }];
    let mut world = World::of(config);
    world.ask("nothing.tld1", Type::A, AD);
    let sent = world.sent.len();
    world.ask("nothin.tld1", Type::A, AD);
    assert_eq!(world.sent.len(), sent);
    world.ask("nothinh.tld1", Type::A, AD);
    assert!(world.sent.len() > sent);
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
        _ => Dnskey::parse(&anchor.data).unwrap().tag(),
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
