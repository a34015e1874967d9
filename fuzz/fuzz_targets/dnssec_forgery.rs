//! Forged answers of a resolver that knows all genuine records of a tree of signed zones and has
//! the keys of one zone. No response and no state may say other things of the other zones than
//! their records.
//!
//! Input: the trust anchors, and clients' questions. Further bytes change the answers to these
//! questions and to those of the validator. See [`Forger`].

#![no_main]

#[path = "dnssec_forgery/forger.rs"]
mod forger;
#[path = "dnssec_forgery/oracle.rs"]
mod oracle;
#[path = "dnssec_forgery/tree.rs"]
mod tree;

use dotproxy::base::time::Instant;
use dotproxy::dnssec::clock::SignatureClock;
use dotproxy::dnssec::denial_cache::DenialCache;
use dotproxy::dnssec::validation::{Context, SecurityStatus, Subject, Validation, ValidationStep};
use dotproxy::dnssec::work::Work;
use dotproxy::dnssec::zones::{KnownZones, ZoneStatus};
use dotproxy::dnssec::{Dnskey, Ds};
use dotproxy::wire::canonical::is_at_or_below;
use dotproxy::wire::question::Type;
use dotproxy::wire::{Message, Question, Rcode};
use forger::Forger;
use libfuzzer_sys::fuzz_target;
use oracle::{Freedom, Oracle};
use tree::{Chain, Fact};

/// Maximum number of answers for one input.
const ANSWERS: usize = 60;

/// Maximum depth of the questions of the validator.
const DEPTH: usize = 8;

struct World<'a> {
    oracle: Oracle,
    zones: KnownZones,
    denials: DenialCache,
    forger: Forger<'a>,
    answers_left: usize,
    /// The work for the answer that is being validated.
    work: Work,
}

impl World<'_> {
    /// Answers a question and validates the answer. Returns the verdict and the validation.
    fn ask(
        &mut self,
        name: &[u8],
        rr_type: u16,
        (subject, depth): (Subject, usize),
    ) -> Option<(SecurityStatus, Validation)> {
        self.answers_left = self.answers_left.checked_sub(1)?;
        let message = self
            .forger
            .answer(name, rr_type, subject == Subject::Answer);
        Message::parse(&message).ok()?;
        let mut validation = Validation::new(message.into(), subject).ok()?;
        for _ in 0..200 {
            match self.step(&mut validation) {
                ValidationStep::Yield { .. } => {}
                ValidationStep::Need(needs) => {
                    for need in needs {
                        let is_above =
                            need.name.len() < name.len() && is_at_or_below(name, &need.name);
                        let is_nearer = match subject {
                            Subject::Answer => true,
                            Subject::Delegation => is_above,
                            Subject::Keys => *need.name == *name && need.rr_type == Type::DS,
                        };
                        assert!(is_nearer, "{name:?} {rr_type} needs {need:?}");
                        let subject = match need.rr_type {
                            Type::DS => Subject::Delegation,
                            _ => Subject::Keys,
                        };
                        let to = (subject, depth + 1);
                        let is_learned = depth < DEPTH
                            && self.work.take_question()
                            && self.ask(&need.name, need.rr_type.0, to).is_some_and(
                                |(verdict, _)| !matches!(verdict, SecurityStatus::Indeterminate(_)),
                            );
                        if is_learned {
                            validation.on_answered(&need);
                        } else {
                            validation.on_unanswered(need, None);
                        }
                    }
                }
                ValidationStep::Done(verdict) => {
                    self.learn(name, &verdict, &mut validation);
                    return Some((verdict, validation));
                }
            }
        }
        panic!("the validation does not end");
    }

    fn step(&mut self, validation: &mut Validation) -> ValidationStep {
        validation.step(&mut Context {
            zones: &mut self.zones,
            pool: 0,
            anchors: &self.oracle.anchors,
            clock: SignatureClock {
                lower_bound: tree::TIME.into(),
                system: tree::TIME.into(),
            },
            now: Instant::default(),
            work: &self.work,
        })
    }

    fn learn(&mut self, name: &[u8], verdict: &SecurityStatus, validation: &mut Validation) {
        let now = Instant::default();
        if let Some((status, lifetime)) = validation.take_learned() {
            self.zones.insert(name, 0, status, now + lifetime);
        }
        if *verdict == SecurityStatus::Secure {
            self.denials.insert(&validation.proven_records(), 0, now);
        }
    }

    /// Checks the known zones and the denial cache.
    fn check_state(&mut self) {
        for name in forger::names() {
            if let Some(status) = self.zones.get(&name, 0, Instant::default()) {
                let status = status.clone();
                self.check_zone(&name, &status);
            }
            if !self.denials.is_empty() {
                for rr_type in forger::TYPES {
                    self.check_denial(&name, *rr_type);
                }
            }
        }
    }

    fn check_zone(&self, name: &[u8], status: &ZoneStatus) {
        let is_hostile = |rr_type: u16| {
            let (freedom, _) = self.oracle.freedom(name, rr_type);
            matches!(freedom, Freedom::Full | Freedom::Insecure)
        };
        let zone = self.oracle.tree.zone(name);
        match status {
            ZoneStatus::Secure(keys) if !is_hostile(tree::SOA) => {
                let ds = zone.expect("keys of a name without a zone").ds();
                let ds = Ds::parse(&ds).expect("a whole record");
                let is_own =
                    |key: &[u8]| Dnskey::parse(key).is_ok_and(|key| ds.matches(name, &key));
                assert!(keys.iter().all(|key| is_own(key)), "keys of {name:?}");
            }
            ZoneStatus::Delegated(all) if !is_hostile(tree::DS) => {
                let ds = zone.expect("DS of a name without a zone").ds();
                assert!(all.iter().all(|one| **one == *ds), "DS of {name:?}");
            }
            ZoneStatus::Insecure if !is_hostile(tree::DS) => {
                let is_unsigned = zone.is_some_and(|zone| zone.chain == Chain::None);
                let (freedom, _) = self.oracle.freedom(name, tree::DS);
                assert!(
                    is_unsigned || freedom == Freedom::OptOut,
                    "{name:?} is insecure"
                );
            }
            _ => {}
        }
    }

    fn check_denial(&self, name: &[u8], rr_type: u16) {
        let mut bytes = name.to_vec();
        bytes.extend(rr_type.to_be_bytes());
        bytes.extend([0, 1]);
        let question = Question::parse(&bytes, 0).expect("a right question");
        let denial = self.denials.deny(question, 0, 3_600, Instant::default());
        let anchor = self.oracle.anchors.nearest(name);
        let (Some(denial), Some(anchor)) = (denial, anchor) else {
            return;
        };
        let (freedom, fact) = self.oracle.freedom(name, rr_type);
        if denial.zone_len() < anchor.len() || freedom == Freedom::Full {
            return;
        }
        let expected = match denial.rcode() {
            Rcode::NXDOMAIN => Fact::NoName,
            _ => Fact::NoData,
        };
        assert!(freedom != Freedom::Insecure, "{name:?} {rr_type}");
        assert_eq!(fact, expected, "{name:?} {rr_type}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let oracle = Oracle::new(*choice);
    let tree = oracle.tree;
    let mut world = World {
        oracle,
        zones: KnownZones::new(if *choice < 0x80 { 1 << 16 } else { 1 << 11 }),
        denials: DenialCache::new(1 << 16),
        forger: Forger::new(tree, input),
        answers_left: ANSWERS,
        work: Work::default(),
    };
    for _ in 0..3 {
        let Some((name, rr_type)) = world.forger.question() else {
            break;
        };
        world.work = Work::default();
        let Some((verdict, validation)) = world.ask(&name, rr_type, (Subject::Answer, 0)) else {
            continue;
        };
        let is_secure = match verdict {
            SecurityStatus::Secure => true,
            SecurityStatus::Insecure => false,
            SecurityStatus::Bogus(problem) | SecurityStatus::Indeterminate(problem) => {
                assert!(world.forger.has_lied, "genuine: {problem}");
                continue;
            }
        };
        if let Some(response) = validation.into_message(is_secure) {
            world.oracle.check(&name, rr_type, is_secure, &response);
        }
    }
    world.check_state();
});
