//! Answers from the denial cache.

use super::*;

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
                let message =
                    Message::parse(&response.bytes).expect("the data of the test is valid");
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
        zone: "nothinh.tld1"
            .parse()
            .expect("the data of the test is valid"),
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
fn dns64_needs_a_verified_denial_and_verified_addresses() {
    let question = |rr_type: Type| key("x.wild.nsec3.tld1", rr_type);
    let text = Type(16);
    let arguments = &[ON, &["--dns64=2001:db8:64::/96"]].concat();
    let mut world = World::new(arguments);
    let mut denial = world.answers[&question(text)].clone();
    let type_at = 12 + question(text).len() - 3;
    denial[type_at] = 28;
    world.answers.insert(question(Type::AAAA), denial.clone());
    // The proof in this answer denies AAAA records as well.
    assert!(world.ask("x.wild.nsec3.tld1", text, AD).has_ad());
    for _ in 0..2 {
        let response = world.ask("x.wild.nsec3.tld1", Type::AAAA, AD);
        assert_eq!(response.types(), [Type::AAAA]);
        assert!(response.has_ad());
    }
    // Without a proof, there may be an AAAA record.
    let mut world = World::new(arguments);
    denial.truncate(type_at + 3);
    (denial[7], denial[9], denial[11]) = (0, 0, 0);
    world.answers.insert(question(Type::AAAA), denial);
    let response = world.ask("x.wild.nsec3.tld1", Type::AAAA, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    assert!(
        !world
            .sent
            .iter()
            .any(|(text, _)| text == "x.wild.nsec3.tld1./A"),
        "{:?}",
        world.sent
    );
    // Addresses that cannot be verified are not mapped.
    let mut world = World::new(arguments);
    let mut denial = world.answers[&question(text)].clone();
    denial[type_at] = 28;
    world.answers.insert(question(Type::AAAA), denial);
    world.lie_about = Some("x.wild.nsec3.tld1./A");
    let response = world.ask("x.wild.nsec3.tld1", Type::AAAA, AD);
    assert_eq!(
        (response.rcode(), response.types()),
        (Rcode::SERVFAIL, vec![])
    );
}
