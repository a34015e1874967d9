//! Forged records that no signature covers: none may make an answer secure or insecure.

use super::*;
use crate::dnssec::testing::{message_with, record, wrong_signature};

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
            let negative: Vec<Name> = negative
                .iter()
                .map(|name| name.parse().expect("the data of the test is valid"))
                .collect();
            world.anchors = Anchors::new(&anchors, &negative);
            let until = Instant::default() + Duration::from_secs(60);
            world
                .zones
                .insert(b"\x04tld1\0", 0, ZoneStatus::Insecure, until);
            let key = (name.to_owned(), "A".to_owned());
            let right = world.answers[&key].message.clone();
            assert_eq!(
                world.verdict(&right, Subject::Answer),
                SecurityStatus::Secure
            );
            let parsed = Message::parse(&right).expect("the data of the test is valid");
            let address = parsed
                .answers()
                .next()
                .expect("the data of the test is valid");
            let mut forged = right[..address.end].to_vec();
            forged.extend(b"\xc0\x0c\0\x2e\0\x01\0\0\0\x3c\0\0");
            let len_at = forged.len() - 2;
            forged.extend(b"\0\x01\x0d\x03\0\0\0\x3c\xff\0\0\0\0\0\0\0\0\x01");
            forged.extend_from_slice(signer);
            forged.extend([7; 64]);
            let len =
                u16::try_from(forged.len() - len_at - 2).expect("the data of the test is valid");
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
        zone: "nothing.tld1"
            .parse()
            .expect("the data of the test is valid"),
        ..anchor_of(&world, "nsec3.tld1")
    });
    world.anchors = Anchors::new(&anchors, &[]);
    let verdict = world.verdict(&denial, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}

/// Returns a message with more records at the end of its answer or authority section, and without
/// its additional section.
fn with_records(message: &[u8], is_authority: bool, records: &[&[u8]]) -> Vec<u8> {
    let question = Message::parse(message)
        .expect("the data of the test is valid")
        .question()
        .expect("the data of the test is valid");
    let mut out =
        with_question(message, question.as_bytes()).expect("the data of the test is valid");
    let parsed = Message::parse(&out).expect("the data of the test is valid");
    let [answers_end, authorities_end] = parsed.answer_and_authority_ends();
    let (at, count_at) = if is_authority {
        (authorities_end, 9)
    } else {
        (answers_end, 7)
    };
    out.splice(at..at, records.concat());
    out[count_at] += u8::try_from(records.len()).expect("the data of the test is valid");
    out
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
                if Message::parse(denial)
                    .expect("the data of the test is valid")
                    .header()
                    .answers
                    == 0
                {
                    answer.message = with_records(denial, true, &junk);
                }
            }
            let key = (name.to_owned(), "A".to_owned());
            let question = &world.answers[&key].message;
            let end = Message::parse(question)
                .expect("the data of the test is valid")
                .records_start();
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
        let type_at = Message::parse(&no_keys.message)
            .expect("the data of the test is valid")
            .records_start()
            - 4;
        no_keys.message[type_at + 1] = 48;
        world.answers.insert(keys.clone(), no_keys);
        assert!(world.answers.contains_key(&ds));
        let question = &answers[&(name.to_owned(), "A".to_owned())].message;
        let end = Message::parse(question)
            .expect("the data of the test is valid")
            .records_start();
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
        let mut validation = Validation::new(message.into(), Subject::Delegation)
            .expect("the data of the test is valid");
        world.verdict(message, Subject::Delegation);
        while !matches!(world.step(&mut validation), ValidationStep::Done(_)) {}
        validation
            .take_learned()
            .expect("the data of the test is valid")
            .1
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
        let type_at = Message::parse(&message)
            .expect("the data of the test is valid")
            .records_start()
            - 4;
        message[type_at..type_at + 2].copy_from_slice(&asked.0.to_be_bytes());
        let found = response(&mut world, &message);
        let found = Message::parse(&found).expect("the data of the test is valid");
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
    let parsed = Message::parse(&other).expect("the data of the test is valid");
    let soa = parsed.authorities().filter(|record| {
        let data = record.data(&other);
        record.rr_type == Type::SOA || record.rr_type == Type::RRSIG && data[..2] == [0, 6]
    });
    let soa: Vec<&[u8]> = soa.map(|record| &other[record.start..record.end]).collect();
    assert_eq!(soa.len(), 2);
    let found = response(&mut world, &with_records(&denial, true, &soa));
    let found = Message::parse(&found).expect("the data of the test is valid");
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
        let validation = Validation::new(message.into(), Subject::Answer)
            .expect("the data of the test is valid");
        assert_eq!(
            validation.into_message(true).is_some(),
            is_reduced,
            "{count}"
        );
    }
}

/// Returns the response to a secure answer.
fn response(world: &mut World, message: &[u8]) -> Vec<u8> {
    let mut validation =
        Validation::new(message.into(), Subject::Answer).expect("the data of the test is valid");
    assert_eq!(
        world.verdict(message, Subject::Answer),
        SecurityStatus::Secure
    );
    loop {
        let step = world.step(&mut validation);
        match step {
            ValidationStep::Yield { .. } => {}
            ValidationStep::Done(verdict) => {
                assert_eq!(verdict, SecurityStatus::Secure);
                return validation
                    .into_message(true)
                    .expect("the data of the test is valid")
                    .into();
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
    let type_at = Message::parse(&denial)
        .expect("the data of the test is valid")
        .records_start()
        - 4;
    denial[type_at + 1] = 255;
    let signature = wrong_signature(b"\xc0\x0c", Type(16), 2, b"\x04tld1\0");
    let end = Message::parse(&denial)
        .expect("the data of the test is valid")
        .records_start();
    let mut forged = denial[..end].to_vec();
    forged[6..12].fill(0);
    forged[3] &= 0xf0;
    let forged = with_records(&forged, false, &[&signature]);
    let verdict = world.verdict(&forged, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}

#[test]
fn any_is_not_denied_for_a_name_with_records() {
    for name in [
        "www.nsec3.tld1",
        "www.deep.down.below.tld1",
        "www.optout.tld1",
    ] {
        let mut world = World::new();
        let denial = &world.answers[&(name.to_owned(), "TXT".to_owned())].message;
        let parsed = Message::parse(denial).expect("the data of the test is valid");
        let question = parsed.question().expect("the data of the test is valid");
        let question = [question.name(), &[0, 255, 0, 1]].concat();
        let forged = with_question(denial, &question).expect("the data of the test is valid");
        let verdict = world.verdict(&forged, Subject::Answer);
        assert_eq!(word(&verdict), "servfail", "{name}: {verdict:?}");
    }
}

#[test]
fn alias_of_another_class_is_not_secure() {
    let mut world = World::new();
    let key = ("www.renamed.nsec3.tld1".to_owned(), "A".to_owned());
    let mut message = world.answers[&key].message.clone();
    let parsed = Message::parse(&message).expect("the data of the test is valid");
    let alias = parsed
        .answers()
        .find(|record| record.rr_type == Type::CNAME);
    let class_at = alias.expect("the data of the test is valid").fixed + 2;
    message[class_at + 1] = 3;
    let verdict = world.verdict(&message, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}

#[test]
fn alias_of_a_child_zone_does_not_answer_a_question_for_ds() {
    let mut world = World::new();
    let name = b"\x08insecure\x04tld1\0";
    let target = b"\x04evil\x08insecure\x04tld1\0";
    let alias = record(name, Type::CNAME, target);
    let forged = message_with(name, Type::DS, [1, 0], &alias);
    let verdict = world.verdict(&forged, Subject::Answer);
    assert_eq!(word(&verdict), "servfail", "{verdict:?}");
}
