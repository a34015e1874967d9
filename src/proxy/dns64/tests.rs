use std::collections::BTreeMap;
use std::time::Duration;

use super::super::testing::{Scene, config};
use super::super::{Action, ClientTransport, LinkKey};
use crate::wire::Message;
use crate::wire::header::{Flags, HEADER_LEN};
use crate::wire::name::Name;
use crate::wire::question::Type;

const UPSTREAM: &str = "-uudp://192.0.2.1,domain=example,domain=arpa";
const PREFIX: &str = "--dns64=64:ff9b::/96";

const AD: u16 = 0x20;
const CD: u16 = 0x10;

/// Maximum number of queries of one test.
const QUERIES_MAX: usize = 50;

/// An answer of upstream.
#[derive(Clone, Default)]
struct Answer {
    rcode: u8,
    flags: u16,
    answers: Vec<Vec<u8>>,
    authorities: Vec<Vec<u8>>,
}

const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// A proxy in front of an upstream that answers from a table.
struct World {
    scene: Scene,
    /// The answers by `NAME/TYPE`.
    zone: BTreeMap<String, Answer>,
    /// The questions that upstream has got.
    asked: Vec<String>,
    /// The queries that upstream has got and does not answer.
    silent: Vec<String>,
}

fn name(text: &str) -> Vec<u8> {
    let name: Name = text.parse().unwrap();
    name.as_bytes().to_vec()
}

fn record(owner: &str, rr_type: Type, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = name(owner);
    out.extend(rr_type.0.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Vec<u8> {
    record(owner, Type::A, ttl, &address)
}

fn soa(minimum: u32) -> Vec<u8> {
    let mut data = [name("ns.example"), name("host.example"), vec![0; 16]].concat();
    data.extend(minimum.to_be_bytes());
    record("example", Type::SOA, 3_600, &data)
}

fn text_of(question: crate::wire::Question<'_>) -> String {
    format!("{}/{}", question.shown_name(), question.rr_type())
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        let all = [&[UPSTREAM, PREFIX], arguments];
        Self {
            scene: Scene::with(&all.concat()),
            zone: BTreeMap::new(),
            asked: Vec::new(),
            silent: Vec::new(),
        }
    }

    fn add(&mut self, key: &str, rcode: u8, answers: &[Vec<u8>], authorities: &[Vec<u8>]) {
        let value = Answer {
            rcode,
            flags: 0,
            answers: answers.to_vec(),
            authorities: authorities.to_vec(),
        };
        self.zone.insert(key.to_owned(), value);
    }

    /// Adds a name with these A records and no AAAA record.
    fn add_v4(&mut self, owner: &str, ttl: u32, addresses: &[[u8; 4]]) {
        let records: Vec<_> = addresses.iter().map(|it| a(owner, ttl, *it)).collect();
        self.add(&format!("{owner}./A"), NOERROR, &records, &[]);
        self.add(&format!("{owner}./AAAA"), NOERROR, &[], &[soa(300)]);
    }

    fn ask(&mut self, text: &str, rr_type: Type) -> Vec<String> {
        self.ask_with(text, rr_type, 0, false)
    }

    /// Sends a query with these flags and, if `wants_proof`, DO. Returns the response: its code and
    /// the flag AD, and its answers with their TTLs.
    fn ask_with(
        &mut self,
        text: &str,
        rr_type: Type,
        flags: u16,
        wants_proof: bool,
    ) -> Vec<String> {
        self.send(text, rr_type, flags, wants_proof);
        self.run()
    }

    fn send(&mut self, text: &str, rr_type: Type, flags: u16, wants_proof: bool) {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(wants_proof)];
        query[2..4].copy_from_slice(&(0x100 | flags).to_be_bytes());
        query.extend(name(text));
        query.extend(rr_type.0.to_be_bytes());
        query.extend([0, 1]);
        if wants_proof {
            query.extend(b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
        }
        self.scene.ask(&query, ClientTransport::Udp);
    }

    /// Passes the queries in the outbox to upstream.
    fn step(&mut self) {
        self.scene.bring_up();
        let sent = self.scene.sent();
        self.scene.outbox.clear();
        for (link, query) in sent {
            self.reply(link, &query);
        }
    }

    fn reconfigure(&mut self, arguments: &[&str]) {
        self.scene.outbox.clear();
        let (proxy, outbox) = (&mut self.scene.proxy, &mut self.scene.outbox);
        proxy.reconfigure(&config(arguments), self.scene.now, outbox);
    }

    /// Answers the queries to upstream until there is a response.
    fn run(&mut self) -> Vec<String> {
        for _ in 0..QUERIES_MAX {
            self.scene.bring_up();
            let mut actions = self.scene.outbox.actions().iter();
            let response = actions.find_map(|action| match action {
                Action::Respond { message, .. } => Some(message),
                _ => None,
            });
            if let Some(message) = response {
                return shown(self.scene.outbox.bytes(message));
            }
            let sent = self.scene.sent();
            self.scene.outbox.clear();
            if sent.is_empty() {
                let due = self.scene.proxy.poll_timeout();
                self.scene.now = due.expect("a query waits").max(self.scene.now);
                let (proxy, outbox) = (&mut self.scene.proxy, &mut self.scene.outbox);
                proxy.handle_timeout(self.scene.now, outbox);
            }
            for (link, query) in sent {
                self.reply(link, &query);
            }
        }
        panic!("no response");
    }

    fn reply(&mut self, link: LinkKey, query: &[u8]) {
        let parsed = Message::parse(query).unwrap();
        let question = parsed.question().unwrap();
        let text = text_of(question);
        self.asked.push(text.clone());
        if self.silent.contains(&text) {
            return;
        }
        let none = Answer {
            rcode: NXDOMAIN,
            authorities: vec![soa(300)],
            ..Answer::default()
        };
        let Answer {
            rcode,
            flags,
            answers,
            authorities,
        } = self.zone.get(&text).unwrap_or(&none);
        let mut reply = query[..HEADER_LEN + question.as_bytes().len()].to_vec();
        let code = u16::from(*rcode);
        reply[2..4].copy_from_slice(&(0x8180 | flags | code).to_be_bytes());
        let counts = [answers.len(), authorities.len(), 0];
        for (count, at) in counts.into_iter().zip([6, 8, 10]) {
            reply[at..at + 2].copy_from_slice(&u16::try_from(count).unwrap().to_be_bytes());
        }
        reply.extend(answers.concat());
        reply.extend(authorities.concat());
        let (proxy, outbox) = (&mut self.scene.proxy, &mut self.scene.outbox);
        proxy.handle_reply(link, &reply, self.scene.now, outbox);
    }
}

fn shown(response: &[u8]) -> Vec<String> {
    let message = Message::parse(response).unwrap();
    let has_ad = message.header().flags.contains(Flags::AD);
    let ad = if has_ad { " AD" } else { "" };
    let mut lines = vec![format!("{}{ad}", message.rcode().to_u16())];
    lines.extend(message.answers().map(|record| {
        let data = match record.address(response) {
            Some(address) => address.to_string(),
            None => record.rr_type.to_string(),
        };
        format!("{} {data}", record.ttl(response))
    }));
    lines
}

#[test]
fn name_without_aaaa_records_has_mapped_addresses() {
    let mut world = World::new(&[]);
    world.add_v4("v4.example", 3_600, &[[198, 41, 0, 4], [192, 33, 4, 12]]);
    let expected = ["0", "300 64:ff9b::c629:4", "300 64:ff9b::c021:40c"];
    assert_eq!(world.ask("v4.example", Type::AAAA), expected);
    assert_eq!(world.asked, ["v4.example./AAAA", "v4.example./A"]);
    // Both the mapped and the original answer are cached.
    world.scene.now += Duration::from_secs(10);
    let later = ["0", "290 64:ff9b::c629:4", "290 64:ff9b::c021:40c"];
    assert_eq!(world.ask("v4.example", Type::AAAA), later);
    let original = ["0", "3590 198.41.0.4", "3590 192.33.4.12"];
    assert_eq!(world.ask("v4.example", Type::A), original);
    assert_eq!(world.asked.len(), 2);
}

#[test]
fn cached_a_records_are_mapped_without_another_query() {
    let mut world = World::new(&[]);
    world.add_v4("v4.example", 100, &[[198, 41, 0, 4]]);
    world.ask("v4.example", Type::A);
    world.scene.now += Duration::from_secs(40);
    let expected = ["0", "60 64:ff9b::c629:4"];
    assert_eq!(world.ask("v4.example", Type::AAAA), expected);
    assert_eq!(world.asked, ["v4.example./A", "v4.example./AAAA"]);
}

#[test]
fn without_a_cache_every_answer_is_mapped() {
    let mut world = World::new(&["--cache-size=0"]);
    world.add_v4("v4.example", 0, &[[198, 41, 0, 4]]);
    for _ in 0..2 {
        let expected = ["0", "0 64:ff9b::c629:4"];
        assert_eq!(world.ask("v4.example", Type::AAAA), expected);
    }
    assert_eq!(world.asked.len(), 4);
}

#[test]
fn answers_with_usable_addresses_and_denials_stay() {
    let mut world = World::new(&[]);
    let six = [0x20, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let excluded = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4];
    let aaaa = |owner: &str, data: &[u8]| record(owner, Type::AAAA, 60, data);
    for (owner, records) in [
        ("six.example", vec![six]),
        ("mixed.example", vec![excluded, six]),
        ("excluded.example", vec![excluded]),
    ] {
        world.add_v4(owner, 60, &[[9, 9, 9, 9]]);
        let records: Vec<_> = records.iter().map(|it| aaaa(owner, it)).collect();
        world.add(&format!("{owner}./AAAA"), NOERROR, &records, &[]);
    }
    assert_eq!(
        world.ask("six.example", Type::AAAA),
        ["0", "60 2001:500::1"]
    );
    assert_eq!(
        world.ask("mixed.example", Type::AAAA),
        ["0", "60 2001:500::1"]
    );
    assert_eq!(world.ask("none.example", Type::AAAA), ["3"]);
    assert!(
        world.asked.iter().all(|it| it.ends_with("/AAAA")),
        "{:?}",
        world.asked
    );
    let expected = ["0", "60 64:ff9b::909:909"];
    assert_eq!(world.ask("excluded.example", Type::AAAA), expected);
}

#[test]
fn long_answer_without_addresses_is_kept_whole() {
    let mut world = World::new(&[]);
    world.add_v4("empty.example", 60, &[]);
    let text = record(
        "example",
        Type(16),
        60,
        &[vec![250; 251], vec![9; 10]].concat(),
    );
    let authorities = [vec![soa(30)], vec![text; 8]].concat();
    world.add("empty.example./AAAA", NOERROR, &[], &authorities);
    for _ in 0..2 {
        assert_eq!(world.ask("empty.example", Type::AAAA), ["0"]);
    }
    // It is cached, since its SOA record is known.
    assert_eq!(world.asked.len(), 2);
}

#[test]
fn answer_without_its_excluded_addresses_has_no_ad() {
    let mut world = World::new(&[]);
    let excluded = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4];
    let six = [0x20, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let records = [excluded, six].map(|data| record("x.example", Type::AAAA, 60, &data));
    world.add("x.example./AAAA", NOERROR, &records, &[]);
    world.zone.get_mut("x.example./AAAA").unwrap().flags = AD;
    let response = world.ask_with("x.example", Type::AAAA, AD, false);
    assert_eq!(response, ["0", "60 2001:500::1"]);
}

#[test]
fn answer_that_waits_when_dns64_is_turned_off_is_delivered() {
    let mut world = World::new(&[]);
    world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
    world.send("v4.example", Type::AAAA, 0, false);
    world.step();
    let (link, query) = world.scene.sent().remove(0);
    world.reconfigure(&[UPSTREAM]);
    world.reply(link, &query);
    assert_eq!(world.run(), ["0"]);
}

#[test]
fn aliases_are_kept() {
    let mut world = World::new(&[]);
    let alias = record("www.example", Type::CNAME, 50, &name("v4.example"));
    let records = [alias.clone(), a("v4.example", 3_600, [198, 41, 0, 4])];
    world.add("www.example./A", NOERROR, &records, &[]);
    world.add("www.example./AAAA", NOERROR, &[alias], &[soa(20)]);
    let expected = ["0", "50 CNAME", "20 64:ff9b::c629:4"];
    assert_eq!(world.ask("www.example", Type::AAAA), expected);
}

#[test]
fn original_answer_is_the_response_without_usable_a_records() {
    let mut world = World::new(&[]);
    world.add_v4("empty.example", 60, &[]);
    // The well-known prefix has no private addresses.
    world.add_v4("private.example", 60, &[[10, 1, 2, 3]]);
    for owner in ["empty.example", "private.example"] {
        assert_eq!(world.ask(owner, Type::AAAA), ["0"]);
        // It is cached like any other.
        assert_eq!(world.ask(owner, Type::AAAA), ["0"]);
    }
    assert_eq!(world.asked.len(), 4);
}

#[test]
fn failed_a_query_is_an_error_that_is_not_cached_for_long() {
    for is_silent in [false, true] {
        let mut world = World::new(&[]);
        world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
        if is_silent {
            world.silent.push("v4.example./A".to_owned());
        } else {
            world.add("v4.example./A", SERVFAIL, &[], &[]);
        }
        assert_eq!(world.ask("v4.example", Type::AAAA), ["2"]);
        world.silent.clear();
        world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
        world.scene.now += Duration::from_secs(60);
        let expected = ["0", "60 64:ff9b::c629:4"];
        assert_eq!(world.ask("v4.example", Type::AAAA), expected);
    }
}

#[test]
fn error_for_aaaa_is_mapped_from_a_records() {
    let mut world = World::new(&[]);
    world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
    world.add("v4.example./AAAA", SERVFAIL, &[], &[]);
    let expected = ["0", "60 64:ff9b::c629:4"];
    assert_eq!(world.ask("v4.example", Type::AAAA), expected);
}

#[test]
fn client_that_validates_gets_the_original_answer() {
    let mut world = World::new(&[]);
    world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
    let mapped = ["0", "60 64:ff9b::c629:4"];
    for (flags, wants_proof, is_mapped) in [
        (CD, true, false),
        (CD, false, true),
        (0, true, true),
        (0, false, true),
    ] {
        let response = world.ask_with("v4.example", Type::AAAA, flags, wants_proof);
        assert_eq!(
            response == mapped,
            is_mapped,
            "{flags} {wants_proof}: {response:?}"
        );
    }
}

#[test]
fn mapped_answer_has_ad_only_if_both_answers_have_it() {
    for (of_aaaa, of_a) in [(0, 0), (AD, 0), (0, AD), (AD, AD)] {
        let mut world = World::new(&[]);
        world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
        world.zone.get_mut("v4.example./AAAA").unwrap().flags = of_aaaa;
        world.zone.get_mut("v4.example./A").unwrap().flags = of_a;
        let response = world.ask_with("v4.example", Type::AAAA, AD, false);
        let has_ad = response[0].ends_with("AD");
        assert_eq!(has_ad, of_aaaa & of_a != 0, "{of_aaaa} {of_a}");
    }
}

#[test]
fn pointer_of_the_prefix_is_an_alias_of_that_of_the_ipv4_address() {
    let mut world = World::new(&[]);
    let target = "4.0.41.198.in-addr.arpa";
    let pointer = record(target, Type::PTR, 1_800, &name("v4.example"));
    world.add(&format!("{target}./PTR"), NOERROR, &[pointer], &[]);
    let reverse =
        |host: &str| format!("{host}.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.9.f.f.4.6.0.0.ip6.arpa");
    let known = reverse("4.0.0.0.9.2.6.c");
    for _ in 0..2 {
        assert_eq!(world.ask(&known, Type::PTR), ["0", "600 CNAME", "1800 PTR"]);
    }
    assert_eq!(
        world.ask(&reverse("5.0.0.0.9.2.6.c"), Type::PTR),
        ["3", "600 CNAME"]
    );
    assert_eq!(
        world.asked,
        [
            format!("{target}./PTR"),
            "5.0.41.198.in-addr.arpa./PTR".to_owned()
        ]
    );
    // Other types are sent upstream, as are other names.
    assert_eq!(world.ask(&known, Type(16)), ["3"]);
    assert_eq!(world.asked.len(), 3);
}

#[test]
fn name_for_the_detection_of_the_prefix_is_answered_locally() {
    let mut world = World::new(&[]);
    let expected = ["0", "60 64:ff9b::c000:aa", "60 64:ff9b::c000:ab"];
    assert_eq!(world.ask("ipv4only.arpa", Type::AAAA), expected);
    let expected = ["0", "60 192.0.0.170", "60 192.0.0.171"];
    assert_eq!(world.ask("IPv4only.arpa", Type::A), expected);
    assert_eq!(world.ask("ipv4only.arpa", Type(16)), ["0"]);
    assert!(world.asked.is_empty());
}

#[test]
fn queries_that_wait_for_a_mapping_survive_a_change_of_upstreams() {
    let mut world = World::new(&[]);
    world.add_v4("v4.example", 60, &[[198, 41, 0, 4]]);
    let target = "4.0.41.198.in-addr.arpa";
    let pointer = record(target, Type::PTR, 1_800, &name("v4.example"));
    world.add(&format!("{target}./PTR"), NOERROR, &[pointer], &[]);
    let reverse = "4.0.0.0.9.2.6.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.9.f.f.4.6.0.0.ip6.arpa";
    for (text, rr_type, question, expected) in [
        (
            "v4.example",
            Type::AAAA,
            "v4.example./A",
            vec!["0", "60 64:ff9b::c629:4"],
        ),
        (
            reverse,
            Type::PTR,
            "4.0.41.198.in-addr.arpa./PTR",
            vec!["0", "600 CNAME", "1800 PTR"],
        ),
    ] {
        world.silent = vec![question.to_owned()];
        world.send(text, rr_type, 0, false);
        world.step();
        world.step();
        world.silent.clear();
        let other = "-uudp://192.0.2.2,domain=example,domain=arpa";
        world.reconfigure(&[other, PREFIX]);
        assert_eq!(world.run(), expected);
        assert_eq!(world.scene.proxy.inflight(), 0);
        world.reconfigure(&[UPSTREAM, PREFIX]);
    }
}
