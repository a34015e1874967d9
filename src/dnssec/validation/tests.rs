//! Validation of the messages of a tree of signed, unsigned and broken zones.

mod forgery_tests;
mod synthesis_tests;
mod work_limits_tests;

use std::collections::BTreeMap;

use super::*;
use crate::base::random::Random;
use crate::config::TrustAnchor;
use crate::dnssec::denial_cache::DenialCache;
use crate::dnssec::signature::owner;
use crate::dnssec::testing::{COSTLY, Costly, Tree, message_with};
use crate::dnssec::work::Work;
use crate::wire::canonical::is_at_or_below;
use crate::wire::header::HEADER_LEN;
use crate::wire::name::Name;

/// An answer, and its verdict if it is one of a client's question.
#[derive(Clone)]
struct Answer {
    verdict: String,
    message: Vec<u8>,
}

type Answers = BTreeMap<(String, String), Answer>;

/// A resolver that knows the messages, and a validator.
struct World {
    answers: Answers,
    anchors: Anchors,
    zones: KnownZones,
    denials: DenialCache,
    clock: SignatureClock,
    /// The work for the answer that is being validated.
    work: Work,
    /// The number of questions of the validator.
    asked: usize,
    /// The number of signatures that were verified.
    signatures: usize,
}

impl World {
    fn new() -> Self {
        let tree = Tree::read();
        let answers = tree.answers.into_iter().map(|one| {
            let answer = Answer {
                verdict: one.verdict,
                message: one.message,
            };
            ((one.name, one.rr_type), answer)
        });
        Self {
            answers: answers.collect(),
            anchors: Anchors::new(&tree.anchors, &[]),
            zones: KnownZones::new(64 << 10),
            denials: DenialCache::new(1 << 20),
            clock: SignatureClock {
                lower_bound: tree.time,
                system: tree.time,
            },
            work: Work::default(),
            asked: 0,
            signatures: 0,
        }
    }

    /// Returns the answers to clients' questions.
    fn of_clients(&self) -> Vec<Answer> {
        let answers = self.answers.values();
        let answers = answers.filter(|answer| answer.verdict != "-");
        answers.cloned().collect()
    }

    /// Continues a validation with what is known.
    fn step(&mut self, validation: &mut Validation) -> ValidationStep {
        validation.step(&mut Context {
            zones: &mut self.zones,
            pool: 0,
            anchors: &self.anchors,
            clock: self.clock,
            now: Instant::default(),
            work: &self.work,
        })
    }

    fn verdict(&mut self, message: &[u8], subject: Subject) -> SecurityStatus {
        if subject == Subject::Answer {
            self.work = Work::default();
        }
        let Ok(mut validation) = Validation::new(message.into(), subject) else {
            return SecurityStatus::Indeterminate(Problem::limit_reached(&[0], Type::ANY));
        };
        for _ in 0..100 {
            let step = self.step(&mut validation);
            match step {
                ValidationStep::Yield { .. } => self.signatures += 1,
                ValidationStep::Need(needs) => {
                    assert!((1..=limits::QUESTIONS_AT_ONCE).contains(&needs.len()));
                    for need in needs {
                        self.ask(need, &mut validation);
                    }
                }
                ValidationStep::Done(verdict) => {
                    if let Some((status, lifetime)) = validation.take_learned() {
                        let name = validation.name.clone();
                        let until = Instant::default() + lifetime;
                        self.zones.insert(&name, 0, status, until);
                    }
                    if verdict == SecurityStatus::Secure {
                        let records = validation.proven_records();
                        self.denials.insert(&records, 0, Instant::default());
                    }
                    return verdict;
                }
            }
        }
        panic!("the validation does not end");
    }

    /// Answers a question of the validator.
    fn ask(&mut self, need: Need, validation: &mut Validation) {
        if !self.work.take_question() {
            return validation.on_unanswered(need, None);
        }
        self.asked += 1;
        let problem = Problem::limit_reached(&need.name, need.rr_type);
        let text = problem.to_string();
        let (name, rr_type) = text.split_once('/').unwrap();
        let name = name.trim_end_matches('.').to_owned();
        let subject = match need.rr_type {
            Type::DS => Subject::Delegation,
            _ => Subject::Keys,
        };
        match self.answers.get(&(name, rr_type.to_owned())).cloned() {
            Some(answer) => match self.verdict(&answer.message, subject) {
                SecurityStatus::Indeterminate(problem) => {
                    validation.on_unanswered(need, Some(problem));
                }
                _ => validation.on_answered(&need),
            },
            None => validation.on_unanswered(need, None),
        }
    }
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.next_u32()).unwrap() % limit
}

/// Returns the word for a verdict in the file of messages.
fn word(verdict: &SecurityStatus) -> &'static str {
    match verdict {
        SecurityStatus::Secure => "secure",
        SecurityStatus::Insecure => "insecure",
        SecurityStatus::Bogus(_) | SecurityStatus::Indeterminate(_) => "servfail",
    }
}

#[test]
fn verdicts_are_those_of_unbound_in_any_order() {
    let mut random = Random::new(&[7; 32]);
    let mut answers = World::new().of_clients();
    for verdict in ["secure", "insecure", "servfail"] {
        let count = answers.iter().filter(|answer| answer.verdict == verdict);
        assert!(count.count() > 10, "{verdict}");
    }
    for round in 0..4 {
        let mut world = World::new();
        for answer in &answers {
            if round == 1 {
                world.zones.clear();
            }
            let verdict = world.verdict(&answer.message, Subject::Answer);
            let message = Message::parse(&answer.message).unwrap();
            let question = message.question().unwrap();
            assert_eq!(word(&verdict), answer.verdict, "{question:?}: {verdict:?}");
        }
        for place in (1..answers.len()).rev() {
            answers.swap(place, below(&mut random, place + 1));
        }
    }
}

/// Returns the code and the text of the extended error for a question.
fn problem_of(world: &mut World, name: &str, rr_type: &str) -> (u16, String) {
    let key = (name.to_owned(), rr_type.to_owned());
    let message = world.answers[&key].message.clone();
    let verdict = world.verdict(&message, Subject::Answer);
    let (SecurityStatus::Bogus(problem) | SecurityStatus::Indeterminate(problem)) = &verdict else {
        panic!("{name}: {verdict:?}");
    };
    (problem.code.0, problem.to_string())
}

#[test]
fn problem_has_its_extended_error() {
    let mut world = World::new();
    for (name, code, text) in [
        ("www.expired.tld1", 7, "expired.tld1./DNSKEY"),
        ("www.wrongkey.tld1", 9, "wrongkey.tld1./DNSKEY"),
        ("www.stripped.tld1", 10, "www.stripped.tld1./A"),
        ("www.forged.tld1", 6, "www.forged.tld1./A"),
        ("nothing.nodenial.tld1", 12, "nothing.nodenial.tld1./DS"),
        // The parent zone has DS records, and the zone has no keys.
        ("www.unsigned.tld1", 9, "unsigned.tld1./DNSKEY"),
    ] {
        let problem = problem_of(&mut world, name, "A");
        assert_eq!(problem, (code, text.to_owned()), "{name}");
    }
}

#[test]
fn problem_names_the_records_that_are_missing() {
    for (name, missing) in [("", "./DNSKEY"), ("tld1", "tld1./DNSKEY")] {
        let mut world = World::new();
        let key = (name.to_owned(), "DNSKEY".to_owned());
        world.answers.remove(&key);
        let problem = problem_of(&mut world, "www.nsec3.tld1", "A");
        assert_eq!(problem, (5, missing.to_owned()), "{name}");
    }
    // An upstream that removes all signatures.
    let mut world = World::new();
    let key = ("insecure.tld1".to_owned(), "DS".to_owned());
    let denial = world.answers.get_mut(&key).unwrap();
    let end = Message::parse(&denial.message).unwrap().records_start();
    denial.message.truncate(end);
    denial.message[6..12].fill(0);
    let problem = problem_of(&mut world, "www.insecure.tld1", "A");
    assert_eq!(problem, (10, "insecure.tld1./DS".to_owned()));
}

/// Returns the records of the answer section that the validator has to protect: owner, type, class
/// and data in canonical form.
fn protected(message: &[u8]) -> Vec<Vec<u8>> {
    let message = Message::parse(message).unwrap();
    let records = message.answers();
    let signed = records.filter(|record| record.rr_type != Type::RRSIG);
    let mut all: Vec<Vec<u8>> = signed
        .map(|record| {
            let mut bytes = owner(&message, &record).unwrap();
            bytes.extend(record.rr_type.0.to_be_bytes());
            bytes.extend(record.class(message.bytes()).unwrap().to_be_bytes());
            let _ = crate::wire::canonical::write_data(&mut bytes, message.bytes(), &record);
            bytes
        })
        .collect();
    all.sort();
    all
}

#[test]
fn no_change_of_a_secure_answer_stays_secure() {
    let mut world = World::new();
    let mut random = Random::new(&[1; 32]);
    let secure = world.of_clients().into_iter();
    let secure: Vec<Answer> = secure.filter(|answer| answer.verdict == "secure").collect();
    let (mut changed, mut unchanged) = (0, 0);
    for answer in &secure {
        let rcode = answer.message[3] & 15;
        let start = Message::parse(&answer.message).unwrap().records_start();
        for _ in 0..60 {
            let mut message = answer.message.clone();
            let at = start + below(&mut random, message.len() - start);
            message[at] ^= 1 << below(&mut random, 8);
            let Ok(parsed) = Message::parse(&message) else {
                continue;
            };
            let is_same = protected(&message) == protected(&answer.message);
            if parsed.question().is_none()
                || world.verdict(&message, Subject::Answer) != SecurityStatus::Secure
            {
                changed += 1;
                continue;
            }
            assert!(is_same && message[3] & 15 == rcode, "byte {at}");
            unchanged += 1;
        }
    }
    // TTLs, letter case and signatures that nothing needs may change.
    assert!(changed > 4 * unchanged, "{changed} {unchanged}");
}

#[test]
fn answer_of_another_question_is_not_secure() {
    let mut world = World::new();
    let secure = world.of_clients().into_iter();
    let secure: Vec<Answer> = secure.filter(|answer| answer.verdict == "secure").collect();
    let mut replayed = 0;
    for answer in &secure {
        let parsed = Message::parse(&answer.message).unwrap();
        let is_denial = parsed.header().answers == 0;
        for other in &secure {
            let asked = Message::parse(&other.message).unwrap().question().unwrap();
            let question = parsed.question().unwrap();
            if !is_denial || asked.as_bytes() == question.as_bytes() {
                continue;
            }
            let other_parsed = Message::parse(&other.message).unwrap();
            if other_parsed.header().answers == 0 {
                // Both are denied, perhaps by the same records.
                continue;
            }
            // The denial of one name in answer to the question for another name that exists.
            let Some(message) = with_question(&answer.message, asked.as_bytes()) else {
                continue;
            };
            let verdict = world.verdict(&message, Subject::Answer);
            assert_ne!(
                verdict,
                SecurityStatus::Secure,
                "{asked:?} denied by {question:?}"
            );
            replayed += 1;
        }
    }
    assert!(replayed > 300, "{replayed}");
}

/// Returns a message without compression whose question is another one.
fn with_question(message: &[u8], question: &[u8]) -> Option<Vec<u8>> {
    let parsed = Message::parse(message).unwrap();
    let mut out = message[..12].to_vec();
    out.extend_from_slice(question);
    let records = parsed.answers().chain(parsed.authorities());
    for record in records {
        crate::wire::name::write_uncompressed(&mut out, message, record.start).ok()?;
        out.extend_from_slice(&message[record.fixed..record.data_start()]);
        let data_start = out.len();
        crate::wire::canonical::write_data(&mut out, message, &record).ok()?;
        let len = u16::try_from(out.len() - data_start).ok()?;
        out[data_start - 2..data_start].copy_from_slice(&len.to_be_bytes());
    }
    out[10..12].fill(0);
    Some(out)
}

#[test]
fn names_without_an_answer_do_not_become_secure() {
    for removed in ["DS", "DNSKEY"] {
        let mut world = World::new();
        world
            .answers
            .retain(|(name, rr_type), _| rr_type != removed || name.is_empty());
        for answer in World::new().of_clients() {
            let verdict = world.verdict(&answer.message, Subject::Answer);
            let is_of_root = |answer: &Answer| {
                let message = Message::parse(&answer.message).unwrap();
                !message.question().unwrap().name().ends_with(b"\x04tld1\0")
            };
            assert!(
                word(&verdict) == "servfail" || is_of_root(&answer),
                "{verdict:?} without {removed}"
            );
        }
    }
}

#[test]
fn work_for_a_message_is_bounded() {
    let mut world = World::new();
    let key = ("www.deep.down.below.tld1".to_owned(), "A".to_owned());
    let right = world.answers[&key].message.clone();
    assert_eq!(
        world.verdict(&right, Subject::Answer),
        SecurityStatus::Secure
    );
    let parsed = Message::parse(&right).unwrap();
    let mut answers = parsed.answers();
    let (address, signature) = (answers.next().unwrap(), answers.next().unwrap());
    assert_eq!(signature.rr_type, Type::RRSIG);
    // The same signature with wrong bytes, 200 times.
    let mut message = right[..address.end].to_vec();
    for number in 0..200 {
        let mut copy = right[signature.start..signature.end].to_vec();
        *copy.last_mut().unwrap() ^= number;
        message.extend(copy);
    }
    (message[6], message[7]) = (0, 201);
    message[8..12].fill(0);
    let before = world.signatures;
    // The first copy is right.
    assert_eq!(
        world.verdict(&message, Subject::Answer),
        SecurityStatus::Secure
    );
    message.drain(address.end..address.end + (signature.end - signature.start));
    message[7] = 200;
    let verdict = world.verdict(&message, Subject::Answer);
    assert_eq!(word(&verdict), "servfail");
    assert!(world.signatures - before <= 2 + usize::from(limits::WRONG_SIGNATURES));
}

#[test]
fn negative_trust_anchor_makes_its_names_insecure() {
    let mut world = World::new();
    let anchors = Tree::read().anchors;
    world.anchors = Anchors::new(&anchors, &["expired.tld1".parse().unwrap()]);
    for (name, expected) in [
        ("www.expired.tld1", "insecure"),
        ("www.wrongkey.tld1", "servfail"),
        ("www.nsec3.tld1", "secure"),
    ] {
        let message = world.answers[&(name.to_owned(), "A".to_owned())]
            .message
            .clone();
        let verdict = world.verdict(&message, Subject::Answer);
        assert_eq!(word(&verdict), expected, "{name}");
    }
}

#[test]
fn trust_anchor_below_the_root_leaves_other_names_insecure() {
    let mut world = World::new();
    let anchor = anchor_of(&world, "nsec3.tld1");
    world.anchors = Anchors::new(&[anchor], &[]);
    for (name, expected) in [
        ("www.nsec3.tld1", "secure"),
        ("www.deep.down.below.tld1", "insecure"),
        ("www.expired.tld1", "insecure"),
    ] {
        let message = world.answers[&(name.to_owned(), "A".to_owned())]
            .message
            .clone();
        let verdict = world.verdict(&message, Subject::Answer);
        assert_eq!(word(&verdict), expected, "{name}");
    }
}

/// Returns the owners of the NSEC records of a denial, which prove something of other names.
fn owners_of_denials(message: &[u8]) -> Vec<Name> {
    let parsed = Message::parse(message).unwrap();
    let denials = parsed
        .authorities()
        .filter(|record| record.rr_type == Type::NSEC);
    let owners = denials.map(|record| owner(&parsed, &record).unwrap());
    let owners = owners.map(|owner| Problem::limit_reached(&owner, Type::NSEC).to_string());
    let owners = owners.map(|text| text.split('/').next().unwrap().to_owned());
    owners.filter_map(|text| text.parse().ok()).collect()
}

#[test]
fn anchor_of_another_name_does_not_change_a_denial() {
    let tested = |world: &mut World, message: &[u8], anchors: &[TrustAnchor], negative: &[Name]| {
        world.anchors = Anchors::new(anchors, negative);
        world.zones = KnownZones::new(64 << 10);
        world.verdict(message, Subject::Answer)
    };
    let mut world = World::new();
    let root = Tree::read().anchors;
    let mut names = 0;
    for answer in world.answers.clone().into_values() {
        let message = &answer.message;
        let parsed = Message::parse(message).unwrap();
        let Some(question) = parsed.question() else {
            continue;
        };
        if tested(&mut world, message, &root, &[]) != SecurityStatus::Secure
            || parsed.answers().next().is_some()
        {
            continue;
        }
        for owner in owners_of_denials(message) {
            for name in suffixes(owner.as_bytes()) {
                if is_at_or_below(question.name(), name) {
                    break;
                }
                let name = Problem::limit_reached(name, Type::A).to_string();
                let name: Name = name.split('/').next().unwrap().parse().unwrap();
                let other = TrustAnchor {
                    zone: name.clone(),
                    ..anchor_of(&world, "nsec3.tld1")
                };
                let verdict = tested(&mut world, message, &root, std::slice::from_ref(&name));
                assert_eq!(verdict, SecurityStatus::Secure, "{question} {name}");
                let anchors = [&root[..], &[other]].concat();
                let verdict = tested(&mut world, message, &anchors, &[]);
                assert_eq!(verdict, SecurityStatus::Secure, "{question} {name}");
                names += 1;
            }
        }
    }
    assert!(names > 20, "{names}");
}

#[test]
fn denial_whose_owner_is_below_another_anchor_counts() {
    let mut world = World::new();
    let (zone, time) = (Costly::new(), world.clock.system);
    let keys = Answer {
        verdict: "-".to_owned(),
        message: zone.keys(time),
    };
    let key = ("costly".to_owned(), "DNSKEY".to_owned());
    world.answers.insert(key, keys);
    // The zone has the names `x.corp` and `z`, and no zone starts at `corp`.
    let between = |owner: &[u8], next: &[u8]| {
        let data = [next, COSTLY, &[0, 1, 0x40]].concat();
        zone.signed(&[owner, COSTLY].concat(), Type::NSEC, &data, time)
    };
    let proofs = [
        between(b"", b"\x01x\x04corp"),
        between(b"\x01x\x04corp", b"\x01z"),
    ];
    let mut denial = message_with(b"\x01m\x06costly\0", Type::A, [0, 4], &proofs.concat());
    denial[3] |= 3;
    let corp: Name = "corp.costly".parse().unwrap();
    let other = TrustAnchor {
        zone: corp.clone(),
        ..anchor_of(&world, "nsec3.tld1")
    };
    let costly: Name = "costly".parse().unwrap();
    let (trusted, both) = ([zone.anchor()], [zone.anchor(), other]);
    for (anchors, negative, expected) in [
        (&trusted[..], &[][..], "secure"),
        (&trusted[..], &[corp][..], "secure"),
        (&both[..], &[][..], "secure"),
        (&both[..], &[costly][..], "insecure"),
    ] {
        world.anchors = Anchors::new(anchors, negative);
        world.zones = KnownZones::new(64 << 10);
        let verdict = world.verdict(&denial, Subject::Answer);
        assert_eq!(word(&verdict), expected, "{negative:?}");
    }
}

/// Returns a trust anchor that is the first key of a zone of the tree.
fn anchor_of(world: &World, zone: &str) -> TrustAnchor {
    let key = (zone.to_owned(), "DNSKEY".to_owned());
    let message = &world.answers[&key].message;
    let record = Message::parse(message).unwrap().answers().next().unwrap();
    TrustAnchor {
        zone: zone.parse().unwrap(),
        rr_type: Type::DNSKEY,
        data: record.data(message).into(),
    }
}

#[test]
fn insecure_zone_of_a_trust_anchor_decides_on_denials() {
    let mut world = World::new();
    let denial = world.answers[&("nothing".to_owned(), "A".to_owned())].clone();
    let until = Instant::default() + Duration::from_secs(60);
    // The keys of the trust anchor are not supported.
    world.zones.insert(&[0], 0, ZoneStatus::Insecure, until);
    let verdict = world.verdict(&denial.message, Subject::Answer);
    assert_eq!(verdict, SecurityStatus::Insecure);
}
