//! The validation of a reply with DNSSEC records. For any input it ends after a bounded number of
//! steps, and no reply is secure without a right signature.
//!
//! Input: a byte that selects what is known of the zones above the name in the question, and the
//! reply.

#![no_main]

use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::config::TrustAnchor;
use dotproxy::dnssec::anchors::Anchors;
use dotproxy::dnssec::clock::SignatureClock;
use dotproxy::dnssec::limits;
use dotproxy::dnssec::validation::{Context, SecurityStatus, Subject, Validation, ValidationStep};
use dotproxy::dnssec::work::Work;
use dotproxy::dnssec::zones::{KnownZones, ZoneStatus};
use dotproxy::wire::Message;
use dotproxy::wire::name::suffixes;
use dotproxy::wire::question::Type;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((selector, reply)) = input.split_first() else {
        return;
    };
    let Some(name) = Message::parse(reply)
        .ok()
        .and_then(|message| Some(message.question()?.name().to_ascii_lowercase()))
    else {
        return;
    };
    let anchors = Anchors::new(&TrustAnchor::built_in(), &[]);
    let mut zones = KnownZones::new(1 << 14);
    let until = Instant::default() + Duration::from_secs(60);
    // The keys in the reply itself are trusted, so that its signatures are verified.
    let message = Message::parse(reply).expect("the reply was parsed before");
    let keys = message
        .answers()
        .filter(|record| record.rr_type == Type::DNSKEY)
        .map(|record| Box::from(record.data(reply)));
    let keys: Box<[Box<[u8]>]> = keys.take(16).collect();
    let mut selector = usize::from(*selector);
    for suffix in suffixes(&name).take(4) {
        match selector % 4 {
            0 => {}
            1 => zones.insert(suffix, 0, ZoneStatus::Secure(keys.clone()), until),
            2 => zones.insert(suffix, 0, ZoneStatus::NotDelegated, until),
            _ => zones.insert(suffix, 0, ZoneStatus::Insecure, until),
        }
        selector /= 4;
    }
    for subject in [Subject::Answer, Subject::Delegation, Subject::Keys] {
        let Ok(mut validation) = Validation::new(reply.into(), subject) else {
            continue;
        };
        let work = Work::default();
        let (mut signatures, mut right, mut questions) = (0, 0, 0);
        loop {
            let step = validation.step(&mut Context {
                zones: &mut zones,
                pool: 0,
                anchors: &anchors,
                clock: SignatureClock::default(),
                now: Instant::default(),
                work: &work,
            });
            match step {
                ValidationStep::Yield { is_right, .. } => {
                    signatures += 1;
                    right += u8::from(is_right);
                }
                ValidationStep::Need(needs) => {
                    for need in needs {
                        questions += 1;
                        validation.on_unanswered(need, None);
                    }
                }
                ValidationStep::Done(verdict) => {
                    assert!(
                        verdict != SecurityStatus::Secure || right > 0 || subject == Subject::Keys
                    );
                    break;
                }
            }
            assert!(signatures <= limits::SIGNATURES && questions <= limits::QUESTIONS);
        }
    }
});
