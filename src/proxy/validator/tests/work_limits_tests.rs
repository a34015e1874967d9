//! Answers of zones whose owners have the validator ask as much as possible.

use super::*;
use crate::dnssec::testing::{
    COSTLY, Costly, branching_answers, message_with, record, wrong_signature,
};

#[test]
fn number_of_questions_for_an_answer_is_bounded() {
    let costly = Costly::new();
    let time = Tree::read().time;
    let mut config = config(ON);
    config.dnssec.anchors = vec![costly.anchor()];
    let mut world = World::of(config);
    for (name, message) in branching_answers(&costly, time) {
        world.answers.insert(key(&name, Type::DS), message);
    }
    let keys = [COSTLY, &[0, 48, 0, 1]].concat();
    world.answers.insert(keys, costly.keys(time));
    world.answers.extend([address("n.costly")]);
    let response = world.ask("n.costly", Type::A, AD);
    let count = world.sent.len();
    assert!(count <= 80, "{count} questions, {:?}", response.rcode());
}

/// Starts a query of another client for an address.
fn start(world: &mut World, id: u8, name: &str) {
    let mut query = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(key(name, Type::A));
    let transport = ClientTransport::Stream {
        idle: Duration::from_secs(10),
        received_at: world.scene.now,
        protocol: ClientProtocol::Tcp,
    };
    world.scene.ask(&query, transport);
}

/// Answers one query that was sent upstream after another, in the order of their sending, and
/// returns the responses to clients. Before the first answer to `trigger`, `then` is performed; the
/// answer comes when no other query waits.
fn run(world: &mut World, trigger: &str, then: impl Fn(&mut World)) -> Vec<(u8, Rcode)> {
    let (mut responses, mut is_triggered) = (Vec::new(), false);
    let (mut waiting, mut held) = (VecDeque::new(), None);
    for _ in 0..5_000 {
        let mut collect = |world: &mut World, waiting: &mut VecDeque<_>| {
            let outbox = &world.scene.outbox;
            for action in outbox.actions() {
                if let Action::Respond { message, .. } = action {
                    let bytes = outbox.bytes(message);
                    let rcode = Header::parse(bytes)
                        .expect("the data of the test is valid")
                        .flags
                        .rcode();
                    responses.push((bytes[1], rcode));
                }
            }
            waiting.extend(world.scene.sent());
        };
        world.scene.bring_up();
        collect(world, &mut waiting);
        world.scene.outbox.clear();
        let Some((link, query)) = waiting.pop_front().or_else(|| held.take()) else {
            if responses.len() == 2 {
                break;
            }
            let scene = &mut world.scene;
            let Some(at) = scene.proxy.poll_timeout() else {
                break;
            };
            scene.now = at.max(scene.now);
            scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
            continue;
        };
        let parsed = Message::parse(&query).expect("the data of the test is valid");
        let question = parsed.question().expect("the data of the test is valid");
        let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
        if text == trigger && !is_triggered {
            is_triggered = true;
            held = Some((link, query));
            then(world);
            continue;
        }
        world.sent.push((text, true));
        let mut reply = world.answers[&question.to_key().to_vec()].clone();
        reply[..2].copy_from_slice(&query[..2]);
        let scene = &mut world.scene;
        scene
            .proxy
            .handle_reply(link, &reply, scene.now, &mut scene.outbox);
    }
    responses
}

#[test]
fn depth_of_one_answer_does_not_fail_the_questions_of_another() {
    // One query alone, with the keys of tld1 and of the root unknown.
    let with_depth = || {
        let mut config = config(ON);
        config.limits.validation_depth = 2;
        World::of(config)
    };
    assert_eq!(
        with_depth().ask("www.tld1", Type::A, AD).rcode(),
        Rcode::NOERROR
    );
    // Another client's query, for a deep name, asks for the keys of tld1 as the last question that
    // its depth allows. The query for www.tld1 waits for this question.
    let mut world = with_depth();
    start(&mut world, 1, "www.nsec3.tld1");
    let responses = run(&mut world, "tld1./DS", |world| start(world, 2, "www.tld1"));
    let victim = responses.iter().find(|(id, _)| *id == 2);
    assert_eq!(victim, Some(&(2, Rcode::NOERROR)), "{responses:?}");
}

#[test]
fn unreachable_keys_cost_few_questions() {
    for arguments in [ON, TWO] {
        let mut world = World::new(arguments);
        world.answers.remove(&[0, 0, 48, 0, 1][..]);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        let mut counts = std::collections::BTreeMap::new();
        for (question, _) in &world.sent {
            *counts.entry(question.clone()).or_insert(0) += 1;
        }
        assert_eq!(response.rcode(), Rcode::SERVFAIL);
        let sent = world.sent.len();
        assert!(sent <= 30, "{sent} queries upstream: {counts:?}");
    }
}

#[test]
fn one_upstream_that_fails_all_keys_does_not_exhaust_the_work() {
    // The first upstream removes the signatures of all DS and DNSKEY records.
    for name in ["www.nsec3.tld1", "www.deep.down.below.tld1"] {
        let mut world = World::new(TWO);
        world.lie_about = Some("./DNSKEY");
        let response = world.ask(name, Type::A, AD);
        assert_eq!(response.rcode(), Rcode::NOERROR);
    }
}

#[test]
fn hashes_of_a_denial_count_toward_the_limit_of_a_turn() {
    let mut config = config(ON);
    config.limits.signatures_per_turn = 10_000;
    let mut world = World::of(config);
    world.ask("www.nsec3.tld1", Type::A, AD);
    let state = |world: &World| {
        let validator = world.scene.proxy.validator.as_ref();
        let left = validator.expect("the validator is on").cost_left;
        let counters = &world.scene.proxy.counters().dnssec;
        (left, counters.valid_signatures)
    };
    let (left_before, signatures_before) = state(&world);
    let response = world.ask("nothing.at.all.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::NXDOMAIN);
    let (left, signatures) = state(&world);
    let of_signatures = 3 * u32::try_from(signatures - signatures_before).expect("a few");
    assert!(
        left_before - left > of_signatures,
        "{} {of_signatures}",
        left_before - left
    );
}

/// Handles the actions of the last call: adds the responses to clients, and answers the queries
/// that were sent upstream. Returns whether there were any.
fn step(world: &mut World, responses: &mut Vec<(u8, Rcode)>) -> bool {
    world.scene.bring_up();
    let scene = &mut world.scene;
    for action in scene.outbox.actions() {
        if let Action::Respond { message, .. } = action {
            let bytes = scene.outbox.bytes(message);
            let header = Header::parse(bytes).expect("a response has a header");
            responses.push((bytes[1], header.flags.rcode()));
        }
    }
    let sent = scene.sent();
    scene.outbox.clear();
    let is_any_sent = !sent.is_empty();
    for (link, query) in sent {
        let parsed = Message::parse(&query).expect("the proxy sends whole queries");
        let question = parsed.question().expect("a query has a question");
        let text = Problem::limit_reached(question.name(), question.rr_type()).to_string();
        if world.silent_about != Some(&text) {
            let known = world.answers.get(&question.to_key().to_vec());
            let mut reply = known.cloned().unwrap_or_else(|| query.clone());
            reply[..2].copy_from_slice(&query[..2]);
            reply[2] |= 0x80;
            scene
                .proxy
                .handle_reply(link, &reply, scene.now, &mut scene.outbox);
        }
    }
    is_any_sent
}

#[test]
fn large_answers_leave_half_of_the_room_to_others() {
    let mut config = config(ON);
    config.limits.validations_held = 64 << 10;
    let mut world = World::of(config);
    // The answers wait for the keys.
    world.silent_about = Some("tld1./DNSKEY");
    let mut responses = Vec::new();
    for id in 0..9 {
        let name = format!("{}.nsec3.tld1", char::from(b'a' + id));
        let question = key(&name, Type::A);
        let owner = &question[..question.len() - 4];
        let text = record(owner, Type(16), &[&[250][..], &[7; 250]].concat());
        let count = if id < 8 { 18 } else { 4 };
        let message = message_with(owner, Type::A, [count, 0], &text.repeat(count.into()));
        world.answers.insert(question, message);
        start(&mut world, id, &name);
        while step(&mut world, &mut responses) {}
    }
    let mut refused = responses.into_iter();
    assert!(refused.all(|(id, rcode)| (3..8).contains(&id) && rcode == Rcode::SERVFAIL));
    let validator = world.scene.proxy.validator.as_ref();
    let held = validator.expect("the validator is on").held;
    assert!((15_000..20_000).contains(&held), "{held}");
}

#[test]
fn error_as_the_answer_to_a_question_of_our_own_is_not_asked_for_again() {
    let mut world = World::new(ON);
    let question = key("tld1", Type::DS);
    let servfail = [&[0, 0, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0], &question[..]].concat();
    world.answers.insert(question, servfail);
    // The second query waits for a question that the first one needs at a greater depth.
    start(&mut world, 1, "www.nsec3.tld1");
    let responses = run(&mut world, "tld1./DS", |world| start(world, 2, "www.tld1"));
    let asked = world.sent.iter().filter(|(text, _)| text == "tld1./DS");
    assert_eq!(asked.count(), 1, "{:?}", world.sent);
    assert!(responses.iter().all(|(_, rcode)| *rcode == Rcode::SERVFAIL));
    assert_eq!(responses.len(), 2);
}

/// Performs steps, and lets time pass to the next timer, until a moment or a number of responses.
fn run_until(world: &mut World, end: Instant, count: usize) -> Vec<(u8, Rcode)> {
    let mut responses = Vec::new();
    loop {
        while step(world, &mut responses) {}
        let scene = &mut world.scene;
        let at = scene.proxy.poll_timeout().expect("a query waits");
        if responses.len() >= count || at >= end {
            scene.now = scene.now.max(end.min(at));
            return responses;
        }
        scene.now = at.max(scene.now);
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
    }
}

#[test]
fn question_of_an_older_query_does_not_end_a_later_one_with_it() {
    // The question for which both queries wait, and one for which that question waits.
    for silent_about in ["nsec3.tld1./DNSKEY", "tld1./DNSKEY"] {
        let mut world = World::new(ON);
        world.silent_about = Some(silent_about);
        let start_at = world.scene.now;
        start(&mut world, 1, "www.nsec3.tld1");
        let later = start_at + Duration::from_secs(2);
        assert_eq!(run_until(&mut world, later, 1), []);
        start(&mut world, 2, "alias.nsec3.tld1");
        let end = start_at + Duration::from_secs(60);
        let responses = run_until(&mut world, end, 1);
        assert_eq!(responses, [(1, Rcode::SERVFAIL)], "{silent_about}");
        world.silent_about = None;
        let responses = run_until(&mut world, end, 1);
        assert_eq!(responses, [(2, Rcode::NOERROR)], "{silent_about}");
    }
}

#[test]
fn second_upstream_gives_the_records_when_those_of_the_first_exceed_the_depth() {
    let mut config = config(TWO);
    config.limits.validation_depth = 3;
    let mut world = World::of(config);
    // Each name has a signer directly above it, as if every label were a zone.
    for (owner, signer) in [
        ("deep.down.below.tld1", "down.below.tld1"),
        ("down.below.tld1", "below.tld1"),
        ("below.tld1", "tld1"),
    ] {
        let name = |text: &str| key(text, Type::DS)[..text.len() + 2].to_vec();
        let (owner_name, signer) = (name(owner), name(signer));
        let mut records = record(
            &owner_name,
            Type::DS,
            &[&[0, 1, 13, 2][..], &[7; 32]].concat(),
        );
        let labels = u8::try_from(owner.split('.').count()).expect("a small number");
        records.extend(wrong_signature(&owner_name, Type::DS, labels, &signer));
        let lie = message_with(&owner_name, Type::DS, [2, 0], &records);
        world.lies.insert(key(owner, Type::DS), lie);
    }
    let response = world.ask("www.deep.down.below.tld1", Type::A, AD);
    let questions = world.sent.iter().filter(|(text, _)| text.ends_with("/A"));
    assert_eq!(questions.count(), 2);
    assert_eq!(response.rcode(), Rcode::NOERROR, "{:?}", response.error());
    assert!(response.has_ad());
    // Lies of both upstreams end the query.
    world.scene.proxy.forget_zones();
    world.answers.extend(world.lies.clone());
    world.sent.clear();
    let response = world.ask("alias.deep.down.below.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let questions = world.sent.iter().filter(|(text, _)| text.ends_with("/A"));
    assert_eq!(questions.count(), 2);
    assert!(world.sent.len() < 40, "{:?}", world.sent);
}
