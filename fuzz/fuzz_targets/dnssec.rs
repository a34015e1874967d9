//! A reply with DNSSEC records. For any input, the RRsets, signed bytes, signatures and denials end in
//! a value or an error, with bounded work.
//!
//! Input: the reply. The name in its question is searched for in the denials.

#![no_main]

use dotproxy::dnssec::denial::{Denials, Proof};
use dotproxy::dnssec::signature::owner;
use dotproxy::dnssec::{Dnskey, Ds, RrSet, Rrsig};
use dotproxy::wire::Message;
use dotproxy::wire::name::suffixes;
use dotproxy::wire::question::Type;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(message) = Message::parse(input) else {
        return;
    };
    let (Ok(sets), Some(question)) = (RrSet::of(&message), message.question()) else {
        return;
    };
    let records: usize = sets.iter().map(|set| set.records.len()).sum();
    assert!(records <= message.answers().count() + message.authorities().count());
    let all = || sets.iter().flat_map(|set| &set.records);
    let keys: Vec<Dnskey<'_>> = all()
        .filter(|record| record.rr_type == Type::DNSKEY)
        .filter_map(|record| Dnskey::parse(record.data(input)).ok())
        .collect();
    for record in all().filter(|record| record.rr_type == Type::DS) {
        let Ok(ds) = Ds::parse(record.data(input)) else {
            continue;
        };
        assert!(
            keys.iter()
                .filter(|key| ds.matches(question.name(), key))
                .count()
                <= keys.len()
        );
    }
    for set in &sets {
        for signature in set.signatures.iter().take(2) {
            let Ok(rrsig) = Rrsig::parse(signature.data(input)) else {
                continue;
            };
            let owner = owner(&message, signature).expect("the names of a message are checked");
            let mut signed = Vec::new();
            if rrsig
                .write_signed(&mut signed, input, &owner, &set.records)
                .is_ok()
            {
                // Names are expanded, each at most 255 bytes for 2 bytes of the message.
                assert!(signed.len() <= 300 * input.len());
                for key in keys.iter().take(2) {
                    let _ = key.verify(&signed, rrsig.signature);
                }
            }
        }
    }
    let owners: Vec<Vec<u8>> = all()
        .map(|record| owner(&message, record).expect("the names of a message are checked"))
        .collect();
    for zone in suffixes(question.name()) {
        let mut denials = Denials::of(zone);
        for (record, owner) in all().zip(&owners) {
            denials.add(record.rr_type, owner, record.data(input));
        }
        let name = denials.denies_name(question.name());
        let own_type = denials.denies_type(question.name(), question.rr_type());
        // A name whose types are denied by a record of its own exists.
        assert!(name != Proof::Secure || own_type != Proof::Secure || all().count() > 1);
        let _ = denials.denies_expanded(question.name(), 1);
        let _ = denials.denies_signed_delegation(question.name());
        let _ = denials.has_compact_denial(question.name());
    }
});
