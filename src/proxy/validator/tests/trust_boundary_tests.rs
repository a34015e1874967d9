//! Answers of one question, zone or pool that say nothing of other types, zones or pools.

use super::*;
use crate::config::TrustAnchor;

#[test]
fn denial_for_rrsig_does_not_take_ad_from_other_types() {
    let mut world = World::new(ON);
    let denial = world.answers[&key("nothing.tld1", Type::A)].clone();
    let question = key("nothing.tld1", Type::RRSIG);
    let mut message = denial;
    let type_at = 12 + question.len() - 4;
    message[type_at..type_at + 2].copy_from_slice(&Type::RRSIG.0.to_be_bytes());
    world.answers.insert(question, message);
    let response = world.ask("nothing.tld1", Type::RRSIG, AD);
    assert_eq!(response.rcode(), Rcode::NXDOMAIN);
    let response = world.ask("nothing.tld1", Type::A, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NXDOMAIN, true)
    );
}

#[test]
fn cached_denial_of_a_name_says_nothing_of_an_anchor_below_it() {
    let below = "host.nothing.tld1";
    for is_negative in [true, false] {
        let mut arguments = ON.to_vec();
        if is_negative {
            arguments.push("--negative-trust-anchor=host.nothing.tld1");
        }
        let mut config = config(&arguments);
        if !is_negative {
            config.dnssec.anchors = vec![TrustAnchor {
                zone: below.parse().expect("the data of the test is valid"),
                ..Tree::read().anchors.remove(0)
            }];
        }
        let mut world = World::of(config);
        world.answers.extend([address(below)]);
        let response = world.ask("nothing.tld1", Type::A, AD);
        assert_eq!(response.rcode(), Rcode::NXDOMAIN);
        let sent = world.sent.len();
        let response = world.ask(below, Type::A, AD);
        assert!(world.sent.len() > sent, "{is_negative}: {response:?}");
    }
}

#[test]
fn insecure_denial_of_ds_does_not_deny_the_zone_of_an_anchor() {
    let mut world = World::new(ON);
    let keys = world.answers[&key("nsec3.tld1", Type::DNSKEY)].clone();
    let parsed = Message::parse(&keys).expect("the data of the test is valid");
    let first = parsed.answers().next();
    let anchor = TrustAnchor {
        zone: "nsec3.tld1".parse().expect("the data of the test is valid"),
        rr_type: Type::DNSKEY,
        data: first
            .expect("the data of the test is valid")
            .data(&keys)
            .into(),
    };
    let validator = world.scene.proxy.validator.as_mut();
    let validator = validator.expect("the validator is on");
    validator.anchors = Anchors::new(&[anchor], &[]);
    // The zone above the anchor is not validated, so its denial needs no proof.
    let question = key("nsec3.tld1", Type::DS);
    let mut forged = vec![0, 0, 0x81, 0x83, 0, 1, 0, 0, 0, 1, 0, 0];
    forged.extend(&question);
    forged.extend(b"\x04tld1\0\0\x06\0\x01\0\0\x0e\x10\0\x16\0\0");
    forged.extend([0, 0, 14, 16].repeat(5));
    world.answers.insert(question, forged);
    assert!(world.ask("nsec3.tld1", Type::SOA, AD).has_ad());
    let response = world.ask("nsec3.tld1", Type::DS, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NXDOMAIN, false)
    );
    for rr_type in [Type::SOA, Type::DNSKEY] {
        let response = world.ask("nsec3.tld1", rr_type, AD);
        assert_eq!(response.rcode(), Rcode::NOERROR, "{rr_type}");
    }
}

#[test]
fn denial_by_a_child_zone_does_not_answer_for_ds() {
    let mut world = World::new(ON);
    let question = key("insecure.tld1", Type::A);
    let mut forged = vec![0, 0, 0x81, 0x83, 0, 1, 0, 0, 0, 1, 0, 0];
    forged.extend(&question);
    forged.extend(b"\xc0\x0c\0\x06\0\x01\0\0\x0e\x10\0\x16\0\0");
    forged.extend([0, 0, 14, 16].repeat(5));
    world.answers.insert(question, forged);
    let response = world.ask("insecure.tld1", Type::A, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NXDOMAIN, false)
    );
    let response = world.ask("insecure.tld1", Type::DS, AD);
    assert_eq!(
        (response.rcode(), response.has_ad()),
        (Rcode::NOERROR, true)
    );
}

#[test]
fn bogus_keys_of_one_pool_have_no_effect_on_another_pool() {
    let mut world = World::new(&[
        "-u192.0.2.1,domain=nsec3.tld1,dnssec",
        "-u192.0.2.2",
        "--dnssec=on",
    ]);
    world.lie_about = Some("tld1./DNSKEY");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let response = world.ask("www.deep.down.below.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::NOERROR, "{:?}", response.error());
    assert!(response.has_ad());
}
