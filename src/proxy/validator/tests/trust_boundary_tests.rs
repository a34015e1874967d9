//! Answers of one question, zone or pool that say nothing of other types, zones or pools.

use super::*;

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
