//! Validation of the messages of a tree of signed, unsigned and broken zones.

use std::collections::BTreeMap;

use super::*;
use crate::base::random::Random;
use crate::config::TrustAnchor;
use crate::dnssec::denial_cache::DenialCache;
use crate::dnssec::signature::owner;
use crate::dnssec::testing::Tree;
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

    fn verdict(&mut self, message: &[u8], subject: Subject) -> SecurityStatus {
        let Ok(mut validation) = Validation::new(message.into(), subject) else {
            return SecurityStatus::Indeterminate(Problem::limit_reached(&[0], Type::ANY));
        };
        for _ in 0..100 {
            let step = validation.step(&mut Context {
                zones: &mut self.zones,
                anchors: &self.anchors,
                clock: self.clock,
                now: Instant::default(),
            });
            match step {
                ValidationStep::Yield { cost, .. } => {
                    assert!(cost > 0);
                    self.signatures += 1;
                }
                ValidationStep::Need(needs) => {
                    assert!((1..=limits::QUESTIONS_AT_ONCE).contains(&needs.len()));
                    for need in needs {
                        self.ask(need, &mut validation);
                    }
                }
                ValidationStep::Done(verdict) => {
                    if let Some((status, lifetime)) = validation.take_learned() {
                        let (name, _) = validation.question();
                        let until = Instant::default() + lifetime;
                        self.zones.insert(&name, status, until);
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
fn signature_of_a_zone_above_the_nearest_trust_anchor_does_not_count() {
    let name = "www.nsec3.tld1";
    for (with_root, negative) in [(false, None), (true, None), (true, Some("tld1"))] {
        // A signature whose signer is not covered by a trust anchor, or is insecure, or bogus.
        for signer in [&b"\0"[..], b"\x04tld1\0"] {
            let mut world = World::new();
            let mut anchors = vec![anchor_of(&world, "nsec3.tld1")];
            if with_root {
                anchors.extend(Tree::read().anchors);
            }
            let negative: Vec<Name> = negative.iter().map(|name| name.parse().unwrap()).collect();
            world.anchors = Anchors::new(&anchors, &negative);
            let until = Instant::default() + Duration::from_secs(60);
            world
                .zones
                .insert(b"\x04tld1\0", ZoneStatus::Insecure, until);
            let key = (name.to_owned(), "A".to_owned());
            let right = world.answers[&key].message.clone();
            assert_eq!(
                world.verdict(&right, Subject::Answer),
                SecurityStatus::Secure
            );
            let parsed = Message::parse(&right).unwrap();
            let address = parsed.answers().next().unwrap();
            let mut forged = right[..address.end].to_vec();
            forged.extend(b"\xc0\x0c\0\x2e\0\x01\0\0\0\x3c\0\0");
            let len_at = forged.len() - 2;
            forged.extend(b"\0\x01\x0d\x03\0\0\0\x3c\xff\0\0\0\0\0\0\0\0\x01");
            forged.extend_from_slice(signer);
            forged.extend([7; 64]);
            let len = u16::try_from(forged.len() - len_at - 2).unwrap();
            forged[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
            forged[6..12].copy_from_slice(&[0, 2, 0, 0, 0, 0]);
            let verdict = world.verdict(&forged, Subject::Answer);
            let SecurityStatus::Bogus(problem) = verdict else {
                panic!("{signer:?}, {negative:?}: {verdict:?}");
            };
            assert_eq!(problem.code, RRSIGS_MISSING, "{problem}");
        }
    }
}

#[test]
fn denial_of_a_zone_above_the_nearest_trust_anchor_does_not_count() {
    let mut world = World::new();
    let key = ("nothing.tld1".to_owned(), "A".to_owned());
    let denial = world.answers[&key].message.clone();
    assert_eq!(
        world.verdict(&denial, Subject::Answer),
        SecurityStatus::Secure
    );
    let mut anchors = Tree::read().anchors;
    anchors.push(TrustAnchor {
        zone: "nothing.tld1".parse().unwrap(),
        ..anchor_of(&world, "nsec3.tld1")
    });
    world.anchors = Anchors::new(&anchors, &[]);
    let verdict = world.verdict(&denial, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}

/// Returns a message with more records at the end of its answer or authority section, and without
/// its additional section.
fn with_records(message: &[u8], is_authority: bool, records: &[&[u8]]) -> Vec<u8> {
    let question = Message::parse(message).unwrap().question().unwrap();
    let mut out = with_question(message, question.as_bytes()).unwrap();
    let parsed = Message::parse(&out).unwrap();
    let [answers_end, authorities_end] = parsed.answer_and_authority_ends();
    let (at, count_at) = if is_authority {
        (authorities_end, 9)
    } else {
        (answers_end, 7)
    };
    out.splice(at..at, records.concat());
    out[count_at] += u8::try_from(records.len()).unwrap();
    out
}

/// Returns a record of class IN with a TTL of 60 s.
fn record(owner: &[u8], rr_type: Type, data: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend(rr_type.0.to_be_bytes());
    out.extend(b"\0\x01\0\0\0\x3c");
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Returns an RRSIG record that is wrong.
fn wrong_signature(owner: &[u8], covered: Type, labels: u8, signer: &[u8]) -> Vec<u8> {
    let mut data = covered.0.to_be_bytes().to_vec();
    data.extend([13, labels]);
    data.extend(b"\0\0\0\x3c\xff\0\0\0\0\0\0\0\0\x01");
    data.extend_from_slice(signer);
    data.extend([7; 64]);
    record(owner, Type::RRSIG, &data)
}

const FORGED: &[u8] = &[6, 6, 6, 6];

#[test]
fn insecure_proof_in_a_denial_does_not_count() {
    // An NSEC record of an unsigned zone, with a signature that does not fit it.
    let owner = b"\x03foo\x08insecure\x04tld1\0";
    let nsec = record(owner, Type::NSEC, b"\x02zz\x08insecure\x04tld1\0\0\x01\x40");
    for (labels, signer) in [(9, &b"\0"[..]), (2, b"\x05nsec3\x04tld1\0")] {
        let junk = [
            &nsec[..],
            &wrong_signature(owner, Type::NSEC, labels, signer),
        ];
        for name in ["www.nsec3.tld1", "www.deep.down.below.tld1", "nothing.tld1"] {
            let mut world = World::new();
            for (_, answer) in world
                .answers
                .iter_mut()
                .filter(|((_, rr_type), _)| rr_type == "DS")
            {
                let denial = &answer.message;
                if Message::parse(denial).unwrap().header().answers == 0 {
                    answer.message = with_records(denial, true, &junk);
                }
            }
            let key = (name.to_owned(), "A".to_owned());
            let question = &world.answers[&key].message;
            let end = Message::parse(question).unwrap().records_start();
            let mut forged = question[..end].to_vec();
            forged[6..12].fill(0);
            forged[3] &= 0xf0;
            let forged = with_records(&forged, false, &[&record(b"\xc0\x0c", Type::A, FORGED)]);
            let verdict = world.verdict(&forged, Subject::Answer);
            assert_eq!(word(&verdict), "servfail", "{name} {signer:?}: {verdict:?}");
            // The same records in the answer itself.
            let denied = World::new().answers[&("nothing.tld1".to_owned(), "A".to_owned())].clone();
            let verdict =
                world.verdict(&with_records(&denied.message, true, &junk), Subject::Answer);
            assert_ne!(verdict, SecurityStatus::Insecure);
        }
    }
}

#[test]
fn dname_above_the_nearest_trust_anchor_does_not_count() {
    let target = b"\x03foo\x08insecure\x04tld1\0";
    let question = [
        b"\0\0\x81\x80\0\x01\0\0\0\0\0\0\x01x\x05nsec3\x04tld1\0",
        &[0, 1, 0, 1][..],
    ];
    let alias = b"\x01x\x05nsec3\x03foo\x08insecure\x04tld1\0";
    let records = [
        record(b"\x04tld1\0", Type::DNAME, target),
        record(b"\xc0\x0c", Type::CNAME, alias),
        record(alias, Type::A, FORGED),
    ];
    let records: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
    for (subject, count) in [(Subject::Answer, 3), (Subject::Delegation, 2)] {
        let mut world = World::new();
        world.anchors = Anchors::new(&[anchor_of(&world, "nsec3.tld1")], &[]);
        let mut forged = with_records(&question.concat(), false, &records[..count]);
        if subject == Subject::Delegation {
            let type_at = question[0].len();
            forged[type_at + 1] = 43;
        }
        let verdict = world.verdict(&forged, subject);
        assert_eq!(word(&verdict), "servfail", "{subject:?}: {verdict:?}");
    }
}

#[test]
fn second_alias_of_a_name_is_not_secure() {
    let mut world = World::new();
    let key = ("www.renamed.nsec3.tld1".to_owned(), "A".to_owned());
    let right = world.answers[&key].message.clone();
    assert_eq!(
        world.verdict(&right, Subject::Answer),
        SecurityStatus::Secure
    );
    let second = record(b"\xc0\x0c", Type::CNAME, b"\x04evil\x08insecure\x04tld1\0");
    let address = record(b"\x04evil\x08insecure\x04tld1\0", Type::A, FORGED);
    let forged = with_records(&right, false, &[&second, &address]);
    let verdict = world.verdict(&forged, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}

#[test]
fn signature_of_a_name_without_a_zone_does_not_make_it_insecure() {
    let name = "www.nsec3.tld1";
    let signer = b"\x03www\x05nsec3\x04tld1\0";
    let answers = World::new().answers;
    let keys = (name.to_owned(), "DNSKEY".to_owned());
    let ds = (name.to_owned(), "DS".to_owned());
    let denial = answers[&(name.to_owned(), "TXT".to_owned())].clone();
    // The answers to the two questions of the validation arrive in either order.
    for is_denied_first in [true, false] {
        let mut world = World::new();
        let mut no_keys = denial.clone();
        let type_at = Message::parse(&no_keys.message).unwrap().records_start() - 4;
        no_keys.message[type_at + 1] = 48;
        world.answers.insert(keys.clone(), no_keys);
        assert!(world.answers.contains_key(&ds));
        let question = &answers[&(name.to_owned(), "A".to_owned())].message;
        let end = Message::parse(question).unwrap().records_start();
        let mut empty = question[..end].to_vec();
        empty[6..12].fill(0);
        let address = record(b"\xc0\x0c", Type::A, FORGED);
        let junk = wrong_signature(b"\xc0\x0c", Type::A, 2, signer);
        if is_denied_first {
            world.verdict(&world.answers[&ds].message.clone(), Subject::Delegation);
        } else {
            world.verdict(&world.answers[&keys].message.clone(), Subject::Keys);
        }
        for records in [&[&address[..], &junk][..], &[&address]] {
            let forged = with_records(&empty, false, records);
            let verdict = world.verdict(&forged, Subject::Answer);
            assert_eq!(word(&verdict), "servfail", "{is_denied_first}: {verdict:?}");
            world.verdict(&world.answers[&keys].message.clone(), Subject::Keys);
        }
    }
}

#[test]
fn unverified_records_have_no_effect_on_a_lifetime() {
    let mut world = World::new();
    let key = ("insecure.tld1".to_owned(), "DS".to_owned());
    let denial = world.answers[&key].message.clone();
    let lifetime = |world: &mut World, message: &[u8]| {
        let mut validation = Validation::new(message.into(), Subject::Delegation).unwrap();
        world.verdict(message, Subject::Delegation);
        while !matches!(
            validation.step(&mut Context {
                zones: &mut world.zones,
                anchors: &world.anchors,
                clock: world.clock,
                now: Instant::default(),
            }),
            ValidationStep::Done(_)
        ) {}
        validation.take_learned().unwrap().1
    };
    let expected = lifetime(&mut world, &denial);
    let mut other = record(b"\x04evil\0", Type::A, FORGED);
    other[12] = 0;
    let found = lifetime(&mut world, &with_records(&denial, true, &[&other]));
    assert_eq!(found, expected);
}

#[test]
fn dname_of_an_alias_that_was_asked_for_is_kept() {
    let mut world = World::new();
    let key = ("www.renamed.nsec3.tld1".to_owned(), "A".to_owned());
    let right = world.answers[&key].message.clone();
    for asked in [Type::CNAME, Type::ANY] {
        let mut message = with_records(&right, false, &[]);
        let type_at = Message::parse(&message).unwrap().records_start() - 4;
        message[type_at..type_at + 2].copy_from_slice(&asked.0.to_be_bytes());
        let found = response(&mut world, &message);
        let found = Message::parse(&found).unwrap();
        let types: Vec<Type> = found.answers().map(|record| record.rr_type).collect();
        assert_eq!(types, [Type::DNAME, Type::RRSIG, Type::CNAME], "{asked:?}");
    }
}

#[test]
fn soa_of_another_zone_is_removed_from_a_denial() {
    let mut world = World::new();
    let key = |name: &str| (name.to_owned(), "A".to_owned());
    let denial = world.answers[&key("nothing.tld1")].message.clone();
    let other = world.answers[&key("nothing.at.all.nsec3.tld1")]
        .message
        .clone();
    let other = with_records(&other, true, &[]);
    let parsed = Message::parse(&other).unwrap();
    let soa = parsed.authorities().filter(|record| {
        let data = record.data(&other);
        record.rr_type == Type::SOA || record.rr_type == Type::RRSIG && data[..2] == [0, 6]
    });
    let soa: Vec<&[u8]> = soa.map(|record| &other[record.start..record.end]).collect();
    assert_eq!(soa.len(), 2);
    let found = response(&mut world, &with_records(&denial, true, &soa));
    let found = Message::parse(&found).unwrap();
    let count = found.authorities();
    assert_eq!(
        count.filter(|record| record.rr_type == Type::SOA).count(),
        1
    );
}

#[test]
fn secure_answer_that_cannot_be_reduced_is_not_delivered() {
    // The names in these records are written in full if another record is removed.
    let mut question = b"\0\0\x81\x80\0\x01\0\0\0\0\0\0".to_vec();
    question.extend(b"\x1amany-servers-for-much-mail\x07example\0\0\x0f\0\x01");
    let mail = record(b"\xc0\x0c", Type(15), b"\0\x01\xc0\x0c");
    let evil = record(b"\x04evil\0", Type::A, FORGED);
    for (count, is_reduced) in [(1_000_u16, true), (2_500, false)] {
        let mut message = question.clone();
        (0..count).for_each(|_| message.extend(&mail));
        message.extend(&evil);
        message[6..8].copy_from_slice(&(count + 1).to_be_bytes());
        let validation = Validation::new(message.into(), Subject::Answer).unwrap();
        assert_eq!(
            validation.into_message(true).is_some(),
            is_reduced,
            "{count}"
        );
    }
}

/// Returns the response to a secure answer.
fn response(world: &mut World, message: &[u8]) -> Vec<u8> {
    let mut validation = Validation::new(message.into(), Subject::Answer).unwrap();
    assert_eq!(
        world.verdict(message, Subject::Answer),
        SecurityStatus::Secure
    );
    loop {
        let step = validation.step(&mut Context {
            zones: &mut world.zones,
            anchors: &world.anchors,
            clock: world.clock,
            now: Instant::default(),
        });
        match step {
            ValidationStep::Yield { .. } => {}
            ValidationStep::Done(verdict) => {
                assert_eq!(verdict, SecurityStatus::Secure);
                return validation.into_message(true).unwrap().into();
            }
            ValidationStep::Need(needs) => panic!("{needs:?}"),
        }
    }
}

#[test]
fn records_that_do_not_answer_the_question_are_removed() {
    let mut world = World::new();
    let evil = record(b"\x04evil\x08insecure\x04tld1\0", Type::A, FORGED);
    for (name, rr_type) in [
        ("www.nsec3.tld1", "A"),
        ("alias.nsec3.tld1", "A"),
        ("www.renamed.nsec3.tld1", "A"),
        ("x.wild.nsec3.tld1", "A"),
        ("www.nsec3.tld1", "TXT"),
    ] {
        let key = (name.to_owned(), rr_type.to_owned());
        let right = world.answers[&key].message.clone();
        let expected = response(&mut world, &with_records(&right, false, &[]));
        let forged = with_records(&right, false, &[&evil]);
        let found = response(&mut world, &forged);
        assert_eq!(protected(&found), protected(&expected), "{name}");
    }
    // A signature alone is no answer to ANY.
    let key = ("nothing.tld1".to_owned(), "A".to_owned());
    let mut denial = world.answers[&key].message.clone();
    let type_at = Message::parse(&denial).unwrap().records_start() - 4;
    denial[type_at + 1] = 255;
    let signature = wrong_signature(b"\xc0\x0c", Type(16), 2, b"\x04tld1\0");
    let end = Message::parse(&denial).unwrap().records_start();
    let mut forged = denial[..end].to_vec();
    forged[6..12].fill(0);
    forged[3] &= 0xf0;
    let forged = with_records(&forged, false, &[&signature]);
    let verdict = world.verdict(&forged, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}

/// Returns the answer that the denial cache has for the question of a message.
fn synthesized(world: &World, message: &[u8]) -> Option<Vec<u8>> {
    let message = Message::parse(message).unwrap();
    let (question, now) = (message.question()?, Instant::default());
    let denial = world.denials.deny(question, 0, 3_600, now)?;
    Some(denial.to_message(question, true))
}

/// Returns the response code and the number of records in the answer section.
fn rcode_and_answers(message: &[u8]) -> (Rcode, u16) {
    let header = Message::parse(message).unwrap().header();
    (header.flags.rcode(), header.answers)
}

#[test]
fn synthesized_denials_are_those_of_the_upstream_and_have_a_proof() {
    let mut world = World::new();
    let answers = world.of_clients();
    for answer in &answers {
        world.verdict(&answer.message, Subject::Answer);
    }
    let mut count = 0;
    for answer in &answers {
        let message = Message::parse(&answer.message).unwrap();
        let question = message.question().unwrap();
        let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
        let Some(denial) = synthesized(&world, &answer.message) else {
            let is_secure_denial = answer.verdict == "secure" && message.header().answers == 0;
            // Opt-out spans are not cached.
            assert!(!is_secure_denial || text.contains("optout.tld1."), "{text}");
            continue;
        };
        count += 1;
        assert_eq!(answer.verdict, "secure", "{text}");
        assert_eq!(
            rcode_and_answers(&denial),
            rcode_and_answers(&answer.message)
        );
        assert_eq!(
            world.verdict(&denial, Subject::Answer),
            SecurityStatus::Secure
        );
    }
    assert!(count > 10, "{count}");
}

#[test]
fn names_that_were_never_asked_for_are_denied() {
    let mut world = World::new();
    let answers = world.of_clients();
    for answer in &answers {
        world.verdict(&answer.message, Subject::Answer);
    }
    let (mut names, mut types) = (0, 0);
    for answer in &answers {
        // Another last byte in the first label makes another name.
        for byte in b"!07AMZaz" {
            let mut asked = answer.message.clone();
            let place = HEADER_LEN + usize::from(asked[HEADER_LEN]);
            asked[place] = *byte;
            let Some(denial) = synthesized(&world, &asked) else {
                continue;
            };
            let is_nxdomain = rcode_and_answers(&denial).0 == Rcode::NXDOMAIN;
            names += u32::from(is_nxdomain);
            types += u32::from(!is_nxdomain);
            let verdict = world.verdict(&denial, Subject::Answer);
            assert_eq!(verdict, SecurityStatus::Secure, "{denial:?}");
            let question = Message::parse(&asked).unwrap();
            let question = question.question().unwrap();
            let is_same = |answer: &&Answer| {
                let message = Message::parse(&answer.message).unwrap();
                message.question().unwrap().to_key() == question.to_key()
            };
            if let Some(answer) = answers.iter().find(is_same) {
                assert_eq!(
                    rcode_and_answers(&denial),
                    rcode_and_answers(&answer.message)
                );
            }
        }
    }
    assert!(names > 100 && types > 5, "{names} names, {types} types");
}

#[test]
fn insecure_zone_of_a_trust_anchor_decides_on_denials() {
    let mut world = World::new();
    let denial = world.answers[&("nothing".to_owned(), "A".to_owned())].clone();
    let until = Instant::default() + Duration::from_secs(60);
    // The keys of the trust anchor are not supported.
    world.zones.insert(&[0], ZoneStatus::Insecure, until);
    let verdict = world.verdict(&denial.message, Subject::Answer);
    assert_eq!(verdict, SecurityStatus::Insecure);
}
