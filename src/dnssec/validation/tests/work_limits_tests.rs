//! Answers of zones whose owners sign whatever costs much.

use super::*;
use crate::dnssec::Dnskey;
use crate::dnssec::testing::{
    COSTLY, Costly, branching_answers, message_with, record, wrong_signature,
};

/// Adds an answer to a question of the validator.
fn add(world: &mut World, name: &str, rr_type: &str, message: Vec<u8>) {
    let verdict = "-".to_owned();
    let key = (name.to_owned(), rr_type.to_owned());
    world.answers.insert(key, Answer { verdict, message });
}

#[test]
fn digests_of_a_wrong_length_do_not_displace_other_zones() {
    let mut world = World::new();
    let (costly, time) = (Costly::new(), world.clock.system);
    world.zones = KnownZones::new(62_600);
    let key = ("www.nsec3.tld1".to_owned(), "A".to_owned());
    let right = world.answers[&key].message.clone();
    assert_eq!(
        world.verdict(&right, Subject::Answer),
        SecurityStatus::Secure
    );
    let known = world.zones.len();
    assert!(known > 2);
    let mut anchors = Tree::read().anchors;
    anchors.push(costly.anchor());
    world.anchors = Anchors::new(&anchors, &[]);
    add(&mut world, "costly", "DNSKEY", costly.keys(time));
    let name = [&b"\x01a"[..], COSTLY].concat();
    let ds = [&[0, 1, 14, 2][..], &vec![7; 62_000]].concat();
    let message = costly.signed(&name, Type::DS, &ds, time);
    let message = message_with(&name, Type::DS, [2, 0], &message);
    world.verdict(&message, Subject::Delegation);
    assert!(world.zones.len() > known, "{}", world.zones.len());
}

#[test]
fn zone_that_has_no_room_in_the_table_is_asked_for_only_a_few_times() {
    let mut world = World::new();
    let (costly, time) = (Costly::new(), world.clock.system);
    world.anchors = costly.anchors();
    // The table of a proxy with a cache of 64 KB.
    world.zones = KnownZones::new(8 << 10);
    add(&mut world, "costly", "DNSKEY", costly.keys(time));
    let name = [b"\x01z", COSTLY].concat();
    let ds = [&[0, 1, 14, 2][..], &vec![7; 9_000]].concat();
    let message = costly.signed(&name, Type::DS, &ds, time);
    let message = message_with(&name, Type::DS, [2, 0], &message);
    add(&mut world, "z.costly", "DS", message);
    let keys = record(&name, Type::DNSKEY, &costly.dnskey());
    let keys = message_with(&name, Type::DNSKEY, [1, 0], &keys);
    add(&mut world, "z.costly", "DNSKEY", keys);
    let records = [
        record(&name, Type::A, &[6; 4]),
        wrong_signature(&name, Type::A, 2, &name),
    ];
    let forged = message_with(&name, Type::A, [2, 0], &records.concat());
    let verdict = world.verdict(&forged, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
    assert!(world.asked <= 4, "{} questions", world.asked);
}

#[test]
fn delegation_needs_only_records_of_zones_above_it() {
    let name = b"\x03www\x05nsec3\x04tld1\0";
    let owner = b"\x01x\x03www\x05nsec3\x04tld1\0";
    // The first signature cannot be one of the record, and lets it pass as a proof from above.
    let first = wrong_signature(owner, Type::NSEC, 0, b"\x04tld1\0");
    let second = wrong_signature(owner, Type::NSEC, 4, owner);
    let alone = wrong_signature(owner, Type::NSEC, 9, b"\x04tld1\0");
    for signatures in [vec![first, second], vec![alone]] {
        let mut world = World::new();
        let count = u8::try_from(signatures.len() + 1).expect("the data of the test is valid");
        let proof = record(owner, Type::NSEC, &[&owner[..], &[0, 1, 0x40]].concat());
        let records = [proof, signatures.concat()].concat();
        let forged = message_with(name, Type::DS, [0, count], &records);
        let mut validation = Validation::new(forged.into(), Subject::Delegation)
            .expect("the data of the test is valid");
        for _ in 0..20 {
            let step = world.step(&mut validation);
            let ValidationStep::Need(needs) = step else {
                break;
            };
            for need in needs {
                let is_above = name.ends_with(&need.name) && *need.name != *name;
                assert!(is_above, "{count} records: {need:?}");
                world.ask(need, &mut validation);
            }
        }
    }
}

#[test]
fn number_of_all_questions_of_an_answer_is_bounded() {
    let mut world = World::new();
    let (costly, time) = (Costly::new(), world.clock.system);
    world.anchors = costly.anchors();
    add(&mut world, "costly", "DNSKEY", costly.keys(time));
    for (name, message) in branching_answers(&costly, time) {
        add(&mut world, &name, "DS", message);
    }
    let name = [b"\x01n", COSTLY].concat();
    let forged = message_with(&name, Type::A, [1, 0], &record(&name, Type::A, &[6; 4]));
    let verdict = world.verdict(&forged, Subject::Answer);
    assert_eq!(word(&verdict), "insecure", "{verdict:?}");
    let limit = usize::from(limits::QUESTIONS_OF_ANSWER);
    assert!(world.asked <= limit, "{} questions", world.asked);
}

/// The longest name of the tests has as many labels below the costly zone.
const DEPTH: usize = 37;

/// Adds the denials of DS for the names between the costly zone and one that is `depth` labels
/// below it, each with these records, and returns a forged answer for that name.
fn deep_answer(world: &mut World, depth: usize, proofs: &[u8], count: u8) -> Vec<u8> {
    for depth in 1..=depth {
        let name = [&b"\x01a".repeat(depth)[..], COSTLY].concat();
        let message = message_with(&name, Type::DS, [0, count], proofs);
        add(world, &("a.".repeat(depth) + "costly"), "DS", message);
    }
    let name = [&b"\x01a".repeat(depth)[..], COSTLY].concat();
    message_with(&name, Type::A, [1, 0], &record(&name, Type::A, &[6; 4]))
}

#[test]
fn work_for_all_questions_of_an_answer_is_bounded() {
    let (costly, time) = (Costly::new(), World::new().clock.system);
    // The names between the zone and the name in the question have no records, which one NSEC
    // record proves. Others are of no use, and their signatures are right.
    let proof = costly.proof(&b"\x01a".repeat(DEPTH), time);
    let useless = costly.useless_proofs(time);
    for proofs in [
        [&proof[..], &useless].concat(),
        [useless, proof.clone()].concat(),
    ] {
        let mut world = World::new();
        world.anchors = costly.anchors();
        add(&mut world, "costly", "DNSKEY", costly.keys(time));
        let forged = deep_answer(&mut world, DEPTH, &proofs, 32);
        let verdict = world.verdict(&forged, Subject::Answer);
        assert_eq!(word(&verdict), "servfail", "{verdict:?}");
        let (asked, signatures) = (world.asked, world.signatures);
        assert!(signatures <= 25, "{signatures} signatures");
        assert!(asked <= 40, "{asked} questions");
    }
}

#[test]
fn unsigned_zone_far_below_a_costly_one_is_insecure() {
    let mut world = World::new();
    let (costly, time) = (Costly::new(), world.clock.system);
    world.anchors = costly.anchors();
    add(&mut world, "costly", "DNSKEY", costly.keys(time));
    let useless = costly.useless_proofs(time);
    let proof = costly.proof(&b"\x01a".repeat(20), time);
    // The useless records come last and are not verified.
    let message = deep_answer(&mut world, 20, &[proof, useless].concat(), 32);
    let name = [&b"\x01a".repeat(20)[..], COSTLY].concat();
    let data = [&name[..], &[0, 1, 0x20]].concat();
    let proof = costly.signed(&name, Type::NSEC, &data, time);
    let denial = message_with(&name, Type::DS, [0, 2], &proof);
    add(&mut world, &("a.".repeat(20) + "costly"), "DS", denial);
    let verdict = world.verdict(&message, Subject::Answer);
    assert_eq!(word(&verdict), "insecure", "{verdict:?}");
}

#[test]
fn chain_of_40_zones_is_within_the_limits() {
    for (algorithm, key_len) in [(8, 260), (8, 516), (13, 64), (15, 32)] {
        let key = [&[3, 1, 0, 1][..], &vec![0xff; key_len - 4]].concat();
        let cost = crate::dnssec::verify::cost(algorithm, &key);
        assert!(80 * cost < limits::COST_OF_ANSWER, "{algorithm}");
    }
}

/// Validates a message. Returns the verdict and the cost.
fn cost_of(world: &mut World, message: &[u8], subject: Subject) -> (SecurityStatus, u32) {
    let mut validation =
        Validation::new(message.into(), subject).expect("the data of the test is valid");
    world.work = Work::default();
    loop {
        let step = world.step(&mut validation);
        match step {
            ValidationStep::Yield { .. } => {}
            ValidationStep::Done(verdict) => return (verdict, world.work.cost_spent()),
            ValidationStep::Need(needs) => panic!("{needs:?}"),
        }
    }
}

#[test]
fn signed_bytes_of_long_records_count_as_work() {
    let mut world = World::new();
    let (costly, time) = (Costly::new(), world.clock.system);
    // A long key, 15 DS records with its tag, and the DS record of the key that signs. A zone may
    // have the same DS records in the zone above it.
    let long = [&[1, 1, 3, 14][..], &vec![7; 61_000]].concat();
    let [high, low] = Dnskey::parse(&long)
        .expect("the data of the test is valid")
        .tag
        .to_be_bytes();
    let mut anchors = vec![costly.anchor()];
    for number in 0..15 {
        let mut ds = vec![high, low, 14, 4];
        ds.extend([number; 48]);
        anchors.push(TrustAnchor {
            zone: "costly".parse().expect("the data of the test is valid"),
            rr_type: Type::DS,
            data: ds.into(),
        });
    }
    world.anchors = Anchors::new(&anchors, &[]);
    let key = Dnskey::parse(Box::leak(costly.dnskey().into_boxed_slice()))
        .expect("the data of the test is valid");
    let mut records = record(COSTLY, Type::DNSKEY, &long);
    // Two wrong signatures of the key come first.
    for byte in [7, 8] {
        let mut data = vec![0, 48, 14, 1, 0, 0, 0, 60, 0xff, 0, 0, 0, 0, 0, 0, 0];
        data[8..12].copy_from_slice(
            &(u32::try_from(time).expect("the data of the test is valid") + 86_400).to_be_bytes(),
        );
        data[12..16].copy_from_slice(
            &(u32::try_from(time).expect("the data of the test is valid") - 86_400).to_be_bytes(),
        );
        data.extend(key.tag.to_be_bytes());
        data.extend(COSTLY);
        data.extend([byte; 96]);
        records.extend(record(COSTLY, Type::RRSIG, &data));
    }
    records.extend(costly.signed(COSTLY, Type::DNSKEY, &costly.dnskey(), time));
    let message = message_with(COSTLY, Type::DNSKEY, [5, 0], &records);
    assert!(message.len() < 65_000);
    let (verdict, cost) = cost_of(&mut world, &message, Subject::Keys);
    // The third wrong signature is the last.
    assert!(matches!(verdict, SecurityStatus::Bogus(_)), "{verdict:?}");
    assert_eq!(cost, 3 * (40 + 61_000 / 4_096));
}

#[test]
fn copies_of_a_denial_prove_nothing() {
    let name = [&b"\x01x"[..], COSTLY].concat();
    let data = [&name[..], &[0, 1, 0x20]].concat();
    for copies in [0, 1, 500] {
        let mut world = World::new();
        let (costly, time) = (Costly::new(), world.clock.system);
        world.anchors = costly.anchors();
        add(&mut world, "costly", "DNSKEY", costly.keys(time));
        // The signature is also right for copies, which are left out of the signed bytes.
        let copy = record(&name, Type::NSEC, &data);
        let signed = costly.signed(&name, Type::NSEC, &data, time);
        let records = [copy.repeat(copies), signed].concat();
        let mut message = message_with(&name, Type::DS, [0, 0], &records);
        let count = u16::try_from(copies + 2).expect("a small number");
        message[8..10].copy_from_slice(&count.to_be_bytes());
        let verdict = world.verdict(&message, Subject::Delegation);
        let is_secure = verdict == SecurityStatus::Secure;
        assert_eq!(is_secure, copies == 0, "{copies}: {verdict:?}");
    }
}

#[test]
fn set_with_too_many_records_is_not_verified() {
    let name = [&b"\x01x"[..], COSTLY].concat();
    for (copies, word_of_verdict) in [(1_023, "secure"), (1_024, "servfail")] {
        let mut world = World::new();
        let (costly, time) = (Costly::new(), world.clock.system);
        world.anchors = costly.anchors();
        add(&mut world, "costly", "DNSKEY", costly.keys(time));
        let copy = record(&name, Type::A, &[192, 0, 2, 1]);
        let signed = costly.signed(&name, Type::A, &[192, 0, 2, 1], time);
        let records = [copy.repeat(copies), signed].concat();
        let mut message = message_with(&name, Type::A, [0, 0], &records);
        let count = u16::try_from(copies + 2).expect("a small number");
        message[6..8].copy_from_slice(&count.to_be_bytes());
        let verdict = world.verdict(&message, Subject::Answer);
        assert_eq!(word(&verdict), word_of_verdict, "{copies}: {verdict:?}");
    }
}

#[test]
fn key_above_the_maximum_length_is_ignored() {
    for (len, code) in [(2_100, RRSIGS_MISSING), (2_101, DNSKEY_MISSING)] {
        let mut world = World::new();
        let mut key = vec![1, 1, 3, 15];
        key.resize(len, 7);
        let parsed = Dnskey::parse(&key).expect("the data of the test is valid");
        let [high, low] = parsed.tag.to_be_bytes();
        let digest = crate::dnssec::verify::digest(2, &[COSTLY, &key[..]].concat())
            .expect("the data of the test is valid");
        world.anchors = Anchors::new(
            &[TrustAnchor {
                zone: "costly".parse().expect("the data of the test is valid"),
                rr_type: Type::DS,
                data: [&[high, low, 15, 2][..], digest.as_ref()].concat().into(),
            }],
            &[],
        );
        let records = record(COSTLY, Type::DNSKEY, &key);
        let message = message_with(COSTLY, Type::DNSKEY, [1, 0], &records);
        let (verdict, cost) = cost_of(&mut world, &message, Subject::Keys);
        let SecurityStatus::Bogus(problem) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(problem.code, code);
        assert_eq!(cost, 0);
    }
}

#[test]
fn hashes_of_every_search_count_as_work() {
    // A name of 98 labels takes 99 hashes in a search, which cost less than a unit.
    let zone = COSTLY;
    let name = [&b"\x01a".repeat(96)[..], COSTLY].concat();
    let owner = [&b"\x2000000000000000000000000000000000"[..], COSTLY].concat();
    let data = [
        &[1, 0, 0, 0, 255][..],
        &[7; 255],
        &[20],
        &[9; 20],
        &[0, 1, 0x40],
    ]
    .concat();
    let mut cost = 0;
    for _ in 0..100 {
        let mut denials = crate::dnssec::denial::Denials::of(zone);
        denials.add(Type::NSEC3, &owner, &data);
        let _ = denials.denies_type(&name, Type::DS);
        cost += denials.cost();
    }
    // Each hash is of up to eight blocks.
    assert_eq!(cost, 700);
}
