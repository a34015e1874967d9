//! Upstreams that lie, are silent, refuse DNSSEC, or add records.

use super::*;
use crate::proxy::LinkKey;

#[test]
fn bogus_answer_is_servfail_with_its_reason() {
    let mut world = World::new(ON);
    for (name, code, text) in [
        ("www.expired.tld1", 7, "expired.tld1./DNSKEY"),
        ("www.stripped.tld1", 10, "www.stripped.tld1./A"),
        ("nothing.nodenial.tld1", 12, "nothing.nodenial.tld1./DS"),
    ] {
        let response = world.ask(name, Type::A, AD);
        assert_eq!(response.rcode(), Rcode::SERVFAIL, "{name}");
        let error = (ExtendedErrorCode(code), text.to_owned());
        assert_eq!(response.error(), Some(error), "{name}");
    }
    let bogus = |counters: &crate::proxy::Counters| {
        let mut verdicts = counters.dnssec.verdicts();
        verdicts
            .find(|(verdict, _)| *verdict == "bogus")
            .expect("the data of the test is valid")
            .1
    };
    assert!(bogus(world.scene.proxy.counters()) >= 3);
}

#[test]
fn bogus_answer_is_replaced_by_that_of_another_upstream() {
    let mut world = World::new(TWO);
    world.lie_about = Some("www.nsec3.tld1./A");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.types(), [Type::A]);
    assert!(response.has_ad());
    let asked = world.sent.iter();
    let asked = asked.filter(|(question, _)| question == "www.nsec3.tld1./A");
    assert_eq!(asked.count(), 2);
    // Both upstreams give a bogus answer.
    let response = world.ask("www.expired.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let asked = world.sent.iter();
    let asked = asked.filter(|(question, _)| question == "www.expired.tld1./A");
    assert_eq!(asked.count(), 2);
}

#[test]
fn bogus_keys_are_replaced_by_those_of_another_upstream() {
    for lie in ["nsec3.tld1./DNSKEY", "nsec3.tld1./DS", "./DNSKEY"] {
        let mut world = World::new(TWO);
        world.lie_about = Some(lie);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!(response.types(), [Type::A], "{lie}");
        assert!(response.has_ad(), "{lie}");
        let asked = world.sent.iter().filter(|(question, _)| question == lie);
        assert_eq!(asked.count(), 2, "{lie}");
        let asked = world.sent.iter();
        let asked = asked.filter(|(question, _)| question == "www.nsec3.tld1./A");
        assert_eq!(asked.count(), 1, "{lie}");
    }
    // A single upstream is not asked again.
    let mut world = World::new(ON);
    world.lie_about = Some("nsec3.tld1./DNSKEY");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let asked = world.sent.iter();
    let asked = asked.filter(|(question, _)| question == "nsec3.tld1./DNSKEY");
    assert_eq!(asked.count(), 1);
}

#[test]
fn keys_in_an_answer_beyond_a_limit_are_replaced_by_those_of_another_upstream() {
    // More sets than a message may have, and more keys than a zone may have.
    let (sets, keys) = ([0, 0, 0, 25], [0, 33, 0, 0]);
    for (lie, counts) in [
        ("nsec3.tld1./DNSKEY", sets),
        ("nsec3.tld1./DS", sets),
        ("nsec3.tld1./DNSKEY", keys),
    ] {
        let mut world = World::new(TWO);
        let rr_type = if lie.ends_with("DS") { 43 } else { 48 };
        let question = key("nsec3.tld1", Type(rr_type));
        let mut flood = vec![0, 0, 0x81, 0x80, 0, 1];
        flood.extend(counts);
        flood.extend([0, 0]);
        flood.extend(&question);
        for number in 0..counts[1] {
            flood.extend(b"\xc0\x0c\0\x30\0\x01\0\0\0\x3c\0\x05\x01\x01\x03\x0d");
            flood.push(number);
        }
        for number in 0..counts[3] {
            flood.extend([1, number, 0, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 6, 6, 6, 6]);
        }
        world.lie_about = Some(lie);
        world.lie = Some(flood);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!(response.types(), [Type::A], "{lie}: {:?}", response.error());
    }
}

#[test]
fn upstream_without_dnssec_is_servfail_with_the_reason() {
    for (name, rr_type) in [("www.nsec3.tld1", Type::A), ("www.plain", Type::A)] {
        let mut world = World::new(ON);
        world.refuses_do = true;
        let response = world.ask(name, rr_type, AD);
        assert_eq!(response.rcode(), Rcode::SERVFAIL, "{name}");
        let error = (ExtendedErrorCode(5), format!("{name}./A"));
        assert_eq!(response.error(), Some(error));
        let counters = &world.scene.proxy.counters().dnssec;
        let indeterminate = counters.verdicts().find(|(of, _)| *of == "indeterminate");
        assert_eq!(indeterminate, Some(("indeterminate", 1)), "{name}");
    }
}

#[test]
fn refused_query_of_another_class_is_no_failed_validation() {
    let mut world = World::new(ON);
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07version\x04bind\0\0\x10\0\x03";
    let scene = &mut world.scene;
    scene.ask(query, ClientTransport::Udp);
    while scene.rcodes().is_empty() {
        scene.bring_up();
        let sent = scene.sent();
        assert!(!sent.is_empty());
        scene.outbox.clear();
        for (link, query) in sent {
            let end = Message::parse(&query).expect("a query").records_start();
            let mut reply = query[..end].to_vec();
            (reply[2], reply[3], reply[11]) = (0x81, 0x84, 0);
            let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
            proxy.handle_reply(link, &reply, scene.now, outbox);
        }
    }
    assert_eq!(scene.rcodes(), [Rcode::NOTIMP]);
    let counters = &scene.proxy.counters().dnssec;
    assert!(counters.verdicts().all(|(_, count)| count == 0));
}

#[test]
fn missing_records_are_named_in_the_error() {
    for missing in ["./DNSKEY", "tld1./DNSKEY", "nsec3.tld1./DS"] {
        let mut world = World::new(ON);
        world.silent_about = Some(missing);
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!(response.rcode(), Rcode::SERVFAIL);
        let error = (ExtendedErrorCode(5), missing.to_owned());
        assert_eq!(response.error(), Some(error));
    }
}

#[test]
fn lie_of_a_single_upstream_is_servfail() {
    let mut world = World::new(ON);
    world.lie_about = Some("www.nsec3.tld1./A");
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    let error = (ExtendedErrorCode(6), "www.nsec3.tld1./A".to_owned());
    assert_eq!(response.error(), Some(error));
}

#[test]
fn error_of_the_upstream_has_neither_ad_nor_records() {
    for (rcode, expected) in [
        (2, Rcode::SERVFAIL),
        (5, Rcode::REFUSED),
        (6, Rcode::YXDOMAIN),
    ] {
        let mut world = World::new(ON);
        let reply = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
        let flags = &mut reply.expect("the data of the test is valid")[3];
        *flags = *flags & 0xf0 | rcode;
        let response = world.ask("www.nsec3.tld1", Type::A, AD);
        assert_eq!((response.rcode(), response.has_ad()), (expected, false));
        assert_eq!(response.types(), []);
    }
    // The other bits of the code are in OPT, and those in the header are those of NOERROR.
    let mut world = World::new(ON);
    let reply = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
    let reply = reply.expect("the data of the test is valid");
    let opt = reply.windows(3).rposition(|bytes| bytes == [0, 0, 41]);
    reply[opt.expect("the data of the test is valid") + 5] = 2;
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    let message = Message::parse(&response.bytes).expect("the data of the test is valid");
    assert_eq!(message.rcode(), Rcode::NOERROR.with_extension(2));
    assert_eq!((response.types(), response.has_ad()), (vec![], false));
}

#[test]
fn truncated_answer_has_no_records() {
    for (mode, has_records) in [("on", false), ("log", true)] {
        for rcode in [0, 3] {
            let mut world = World::new(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
            world.is_over_udp = true;
            let answer = world.answers.get_mut(&key("www.nsec3.tld1", Type::A));
            let answer = answer.expect("the data of the test is valid");
            answer[2] |= 2;
            answer[3] |= rcode;
            let response = world.ask("www.nsec3.tld1", Type::A, AD);
            if has_records {
                assert_ne!(response.types(), []);
            } else {
                assert_eq!(response.types(), []);
                let rcode = response.rcode();
                assert!(
                    rcode == Rcode::NOERROR && response.header().flags.contains(Flags::TC)
                        || rcode == Rcode::SERVFAIL,
                    "{rcode:?}"
                );
            }
        }
    }
}

#[test]
fn secure_response_has_no_unverified_records() {
    // The second owner is a pointer to the first.
    for (mode, count) in [("on", 0), ("log", 1)] {
        let mut world = World::new(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
        let name = "www.deep.down.below.tld1";
        let answer = world
            .answers
            .get_mut(&key(name, Type::A))
            .expect("the data of the test is valid");
        let sections = Message::parse(answer).expect("the data of the test is valid");
        let [answers_end, authorities_end] = sections.answer_and_authority_ends();
        assert_eq!(sections.authorities().count(), 0);
        // The address of another name, in both sections.
        let forged = b"\x04evil\0\0\x01\0\x01\0\0\0\x3c\0\x04\x06\x06\x06\x06";
        assert_eq!(answers_end, authorities_end);
        answer.splice(answers_end..answers_end, [&forged[..], forged].concat());
        answer[9] += 1;
        answer[11] += 1;
        let response = world.ask(name, Type::A, AD);
        assert!(response.has_ad());
        assert_eq!(response.types(), [Type::A]);
        let found = response
            .bytes
            .windows(5)
            .filter(|bytes| *bytes == b"\x04evil");
        assert_eq!(found.count(), count, "{mode}");
    }
}

#[test]
fn insecure_response_has_no_records_of_other_names() {
    let zone = b"\x05nsec3\x04tld1\0";
    let dname = [&zone[..], b"\0\x27\0\x01\0\0\0\x3c\0\x06\x04evil\0"].concat();
    let server = [&zone[..], b"\0\x02\0\x01\0\0\0\x3c\0\x06\x04evil\0"].concat();
    for name in ["insecure-alias.nsec3.tld1", "www.insecure.tld1"] {
        for is_known in [false, true] {
            let mut world = World::new(ON);
            if is_known {
                world.ask("nothing.insecure.tld1", Type::A, AD);
            }
            let answer = world
                .answers
                .get_mut(&key(name, Type::A))
                .expect("the data of the test is valid");
            let parsed = Message::parse(answer).expect("the data of the test is valid");
            let [_, authorities_end] = parsed.answer_and_authority_ends();
            let mut forged = answer[..authorities_end].to_vec();
            forged[10..12].fill(0);
            forged.extend(&server);
            forged[9] += 1;
            if !is_known && parsed.authorities().count() == 0 {
                let end = forged.len() - server.len();
                forged.splice(end..end, dname.clone());
                forged[7] += 1;
            }
            *answer = forged;
            let response = world.ask(name, Type::A, AD);
            assert_eq!(response.rcode(), Rcode::NOERROR, "{name}");
            assert!(!response.types().contains(&Type::DNAME), "{name}");
            let message = Message::parse(&response.bytes).expect("the data of the test is valid");
            assert_eq!(message.authorities().count(), 0, "{name}");
        }
    }
}

#[test]
fn answer_that_cannot_be_verified_does_not_count_against_another_upstream() {
    let mut world = World::new(TWO);
    // No upstream has the keys of the root, and the first has no DNSKEY records of the zone.
    world.answers.remove(&key("", Type::DNSKEY)[1..]);
    let question = key("nsec3.tld1", Type::DNSKEY);
    let servfail = [&[0, 0, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0], &question[..]].concat();
    world.lies.insert(question, servfail);
    let response = world.ask("www.nsec3.tld1", Type::A, AD);
    assert_eq!(response.rcode(), Rcode::SERVFAIL);
    assert!(world.scene.proxy.bad_answers.is_empty());
}

/// Takes the links to be opened and the response from the actions.
fn take_actions(scene: &mut Scene) -> (Vec<LinkKey>, Option<Vec<u8>>) {
    let (mut opened, mut response) = (Vec::new(), None);
    for action in scene.outbox.actions() {
        match action {
            Action::OpenLink { link, .. } => opened.push(*link),
            Action::Respond { message, .. } => {
                response = Some(scene.outbox.bytes(message).to_vec());
            }
            _ => {}
        }
    }
    scene.outbox.clear();
    (opened, response)
}

fn reply_with(scene: &mut Scene, (link, query): (LinkKey, &[u8]), message: &[u8]) {
    let reply = [&query[..2], &message[2..]].concat();
    let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
    proxy.handle_reply(link, &reply, scene.now, outbox);
}

/// The first upstream lies, after a hedge of the query has begun to open a link to the second one.
#[test]
fn slow_lie_is_asked_for_elsewhere_although_a_link_is_being_opened() {
    let mut world = World::new(TWO);
    let known = world.ask("alias.nsec3.tld1", Type::A, AD);
    assert_eq!(known.rcode(), Rcode::NOERROR);
    let question = key("www.nsec3.tld1", Type::A);
    let truth = world.answers[&question].clone();
    let query = [&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &question[..]].concat();
    let scene = &mut world.scene;
    let transport = ClientTransport::Stream {
        idle: Duration::from_secs(10),
        received_at: scene.now,
        protocol: ClientProtocol::Tcp,
    };
    scene.ask(&query, transport);
    scene.bring_up();
    let (first, sent) = scene.sent().remove(0);
    assert_eq!(scene.proxy.link_upstream(first), Some(UpstreamIndex(0)));
    scene.outbox.clear();
    // Time passes until a link to the second upstream is being opened.
    let opened = loop {
        scene.now = scene.proxy.poll_timeout().expect("a query waits");
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        let (opened, response) = take_actions(scene);
        assert_eq!(response, None);
        let mut upstreams = opened.iter().map(|link| scene.proxy.link_upstream(*link));
        if upstreams.any(|upstream| upstream == Some(UpstreamIndex(1))) {
            break opened;
        }
    };
    let mut lie = truth.clone();
    let address = lie.windows(4).position(|bytes| bytes == [192, 0, 2, 1]);
    lie[address.expect("the answer has an address")] ^= 1;
    reply_with(scene, (first, &sent), &lie);
    assert_eq!(take_actions(scene).1, None);
    for link in opened {
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_up(link, false, scene.now, outbox);
    }
    for (link, query) in scene.sent() {
        reply_with(scene, (link, &query), &truth);
    }
    let (_, response) = take_actions(scene);
    let header = Header::parse(&response.expect("a response")).expect("a header");
    assert_eq!(header.flags.rcode(), Rcode::NOERROR);
}
