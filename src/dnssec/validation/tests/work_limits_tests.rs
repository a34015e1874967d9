//! Answers of zones whose owners sign whatever costs much.

use super::*;
use crate::dnssec::testing::{COSTLY, Costly, message_with, record, wrong_signature};

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
