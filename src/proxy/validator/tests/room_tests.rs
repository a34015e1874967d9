//! Clients that fill the room for answers that wait for keys, and for the questions for keys.

use super::clients::TestClients;
use super::*;
use crate::dnssec::testing::{message_with, record};

/// Sends queries of client 1 until the room of eight answers is full of answers that wait.
fn full_of_answers(arguments: &[&str]) -> TestClients {
    let mut clients = TestClients::new(arguments, |limits| limits.validations = 16);
    clients.learn("www.nsec3.tld1");
    clients.holds = |text| text == "costly./DNSKEY";
    for id in 0..10 {
        clients.add_signed(&format!("n{id}.costly"));
    }
    for id in 0..8 {
        assert_eq!(clients.ask(id, 1, &format!("n{id}.costly")), []);
    }
    assert_eq!(clients.usage(), (8, 1));
    clients
}

/// Sends as many queries of client 1 for names below `above` as fill the table of 16 questions.
fn full_of_questions(queries: u16, above: &str) -> TestClients {
    let mut clients = TestClients::warm(ON, |limits| limits.validations = 16);
    clients.holds = |text| text.ends_with("costly./DS");
    for id in 0..queries {
        let name = format!("{above}.n{id}.costly");
        clients.world.answers.extend([address(&name)]);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    assert_eq!(clients.usage(), (usize::from(queries), 16));
    clients
}

#[test]
fn answer_whose_keys_are_known_has_room_beside_answers_that_wait() {
    let mut clients = full_of_answers(ON);
    // The same client also has room for it.
    for (id, client) in [(100, 1), (101, 2)] {
        let name = ["alias.nsec3.tld1", "www.renamed.nsec3.tld1"][usize::from(client == 1)];
        let responses = clients.ask(id, client, name);
        assert_eq!(responses, [(id, Rcode::NOERROR)]);
    }
    assert_eq!(clients.usage(), (8, 1));
}

#[test]
fn client_that_waits_for_most_gives_up_its_newest_answer() {
    for (mode, rcode) in [("on", Rcode::SERVFAIL), ("log", Rcode::NOERROR)] {
        let mut clients = full_of_answers(&["-u192.0.2.1", &format!("--dnssec={mode}")]);
        // The answer of the client itself is its newest one.
        assert_eq!(clients.ask(8, 1, "n8.costly"), [(8, rcode)], "{mode}");
        assert_eq!(clients.ask(9, 2, "n9.costly"), [(7, rcode)], "{mode}");
        assert_eq!(clients.usage(), (8, 1), "{mode}");
        let mut responses = clients.recover(8);
        responses.sort_unstable_by_key(|(id, _)| *id);
        let expected = [0, 1, 2, 3, 4, 5, 6, 9].map(|id| (id, Rcode::NOERROR));
        assert_eq!(responses, expected, "{mode}");
        assert_eq!(clients.usage(), (0, 0), "{mode}");
    }
}

#[test]
fn evicted_answer_is_not_asked_for_elsewhere() {
    let mut clients = full_of_answers(TWO);
    let responses = clients.ask(9, 2, "n9.costly");
    assert_eq!(responses, [(7, Rcode::SERVFAIL)]);
    let sent = clients.world.sent.iter();
    let queries = sent.filter(|(text, _)| text == "n7.costly./A");
    assert_eq!(queries.count(), 1);
}

#[test]
fn single_client_may_use_the_whole_room() {
    let mut clients = TestClients::new(ON, |_| ());
    clients.holds = |text| text == "costly./DNSKEY";
    for id in 0..256 {
        let name = format!("n{id}.costly");
        clients.add_signed(&name);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    let responses = clients.recover(256);
    assert!(responses.iter().all(|(_, rcode)| *rcode == Rcode::NOERROR));
}

#[test]
fn clients_with_equal_shares_keep_them() {
    let mut clients = TestClients::new(ON, |limits| limits.validations = 16);
    clients.holds = |text| text == "costly./DNSKEY";
    for id in 0..9 {
        clients.add_signed(&format!("n{id}.costly"));
    }
    for (id, client) in (0..).zip([0, 1, 1, 2, 2, 3, 3, 4]) {
        assert_eq!(clients.ask(id, client, &format!("n{id}.costly")), []);
    }
    // With another answer, client 0 would hold as many as the others.
    let responses = clients.ask(8, 0, "n8.costly");
    assert_eq!(responses, [(8, Rcode::SERVFAIL)]);
}

#[test]
fn client_that_asks_most_questions_gives_up_its_newest_one() {
    let mut clients = full_of_questions(4, "a.b.c");
    let responses = clients.ask(100, 2, "www.insecure.tld1");
    assert_eq!(responses, [(100, Rcode::NOERROR)]);
    // Two questions of client 1 ended, for as many of client 2. Their answers wait for others.
    assert_eq!(clients.usage(), (4, 14));
}

#[test]
fn other_client_that_waits_for_an_evicted_question_asks_it_itself() {
    let mut clients = full_of_questions(8, "a");
    // Client 2 needs the last two questions of client 1, whose newest answer gives up its room.
    let name = "a.n7.costly";
    let (mut question, mut message) = address(name);
    let at = question.len() - 3;
    question[at] = 28;
    message[12 + at] = 28;
    clients.world.answers.insert(question.clone(), message);
    let responses = clients.ask_for(&question, 100, 2);
    assert_eq!(responses, [(7, Rcode::SERVFAIL)]);
    // One of the two questions ends for one of client 3.
    let responses = clients.ask(101, 3, "www.insecure.tld1");
    assert!(responses.contains(&(101, Rcode::NOERROR)), "{responses:?}");
    assert!(responses.iter().all(|(id, _)| *id != 100), "{responses:?}");
    let validator = clients.world.scene.proxy.validator.as_ref();
    let questions = &validator.expect("the validator is on").questions;
    let names = questions.iter().map(|question| &question.need.name);
    let of_client = names.filter(|name| name.ends_with(b"\x02n7\x06costly\0"));
    assert_eq!(of_client.count(), 2);
}

#[test]
fn client_that_holds_most_bytes_gives_up_its_newest_answer() {
    let mut clients = TestClients::new(ON, |limits| limits.validations_held = 64 << 10);
    clients.holds = |text| text == "tld1./DNSKEY";
    // Eight answers of almost 4 KB fit in half of the room.
    for id in 0..8 {
        let name = format!("{id}.nsec3.tld1");
        let question = key(&name, Type::A);
        let owner = &question[..question.len() - 4];
        let text = record(owner, Type(16), &[&[250][..], &[7; 250]].concat());
        let message = message_with(owner, Type::A, [14, 0], &text.repeat(14));
        assert!((3_800..4_096).contains(&message.len()), "{}", message.len());
        clients.world.answers.insert(question, message);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    let mut evicted = Vec::new();
    for (id, name) in [(100, "www.nsec3.tld1"), (101, "alias.nsec3.tld1")] {
        evicted.extend(clients.ask(id, 2, name));
    }
    assert_eq!(evicted.first(), Some(&(7, Rcode::SERVFAIL)), "{evicted:?}");
    assert!(evicted.iter().all(|(id, _)| *id < 8), "{evicted:?}");
}

#[test]
fn failure_of_an_evicted_answer_is_not_cached() {
    let mut clients = full_of_answers(ON);
    // The client exceeds its share.
    assert_eq!(clients.ask(8, 1, "n8.costly"), [(8, Rcode::SERVFAIL)]);
    let responses = clients.ask(100, 2, "n8.costly");
    assert!(responses.iter().all(|(id, _)| *id != 100), "{responses:?}");
}

#[test]
fn follower_of_an_evicted_answer_has_the_room_of_its_own_client() {
    let mut clients = full_of_answers(ON);
    assert_eq!(clients.ask(100, 2, "n7.costly"), []);
    let responses = clients.ask(101, 3, "n9.costly");
    assert!(responses.contains(&(7, Rcode::SERVFAIL)), "{responses:?}");
    assert!(responses.iter().all(|(id, _)| *id != 100), "{responses:?}");
}

/// Returns clients of which the first one exceeds its share and has got a stale answer.
fn served_stale_for_lack_of_room() -> TestClients {
    let mut clients = TestClients::new(
        &["-u192.0.2.1", "--dnssec=on", "--serve-stale=1d"],
        |limits| limits.validations = 16,
    );
    for id in 0..10 {
        clients.add_signed(&format!("n{id}.costly"));
    }
    clients.learn("n8.costly");
    clients.world.scene.now += Duration::from_secs(7_200);
    clients.holds = |text| text == "costly./DNSKEY";
    for id in 0..8 {
        assert_eq!(clients.ask(id, 1, &format!("n{id}.costly")), []);
    }
    assert_eq!(clients.ask(8, 1, "n8.costly"), [(8, Rcode::NOERROR)]);
    clients
}

#[test]
fn client_without_room_gets_a_stale_answer_and_does_not_extend_its_use() {
    let mut clients = served_stale_for_lack_of_room();
    clients.release();
    clients.verify_all();
    let sent = clients.world.sent.len();
    clients.ask(100, 2, "n8.costly");
    let asked = &clients.world.sent[sent..];
    assert!(
        asked.iter().any(|(text, _)| text == "n8.costly./A"),
        "{asked:?}"
    );
}

#[test]
fn failure_whose_responses_are_postponed_is_not_cached() {
    let mut clients = TestClients::new(ON, |limits| limits.validations = 16);
    clients.holds = |text| text == "costly./DNSKEY";
    let long = "a".repeat(60);
    let name = format!("{long}.{long}.{long}.costly");
    for id in 0..10 {
        clients.add_signed(&format!("n{id}.costly"));
    }
    clients.add_signed(&name);
    for id in 0..7 {
        assert_eq!(clients.ask(id, 1, &format!("n{id}.costly")), []);
    }
    for id in 1_000..1_768 {
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    let responses = clients.ask(9, 3, "n9.costly");
    assert!(responses.len() > 10 && responses.len() < 768);
    let mut total = responses.len();
    while total < 768 {
        let scene = &mut clients.world.scene;
        scene.outbox.clear();
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        while clients.step() {}
        let more = std::mem::take(&mut clients.responses);
        assert!(!more.is_empty());
        total += more.len();
    }
    let responses = clients.ask(3_000, 2, &name);
    assert!(
        responses.iter().all(|(id, _)| *id != 3_000),
        "{responses:?}"
    );
}

/// Returns the responses when the replies to all held queries arrive in one turn, and then client 2
/// sends a query.
fn ask_beside_records(clients: &mut TestClients) -> Vec<(u16, Rcode)> {
    clients.holds = |_| false;
    for (link, query) in std::mem::take(&mut clients.held) {
        clients.reply(link, &query);
    }
    while clients.step() {}
    clients.ask(1_000, 2, "alias.nsec3.tld1")
}

#[test]
fn records_of_a_client_leave_room_to_the_answers_of_others() {
    // Many records, and a few large ones.
    let mut clients = TestClients::warm(ON, |_| ());
    clients.holds = |text| text.ends_with("costly./DS");
    for id in 0..75 {
        let name = format!("a.b.c.n{id}.costly");
        for above in [0, 2, 4, 6] {
            clients.add_unsigned_delegation(&name[above..]);
        }
        clients.world.answers.extend([address(&name)]);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    assert_eq!(clients.usage().1, 300);
    let responses = ask_beside_records(&mut clients);
    assert!(!responses.contains(&(1_000, Rcode::SERVFAIL)));

    let mut clients = TestClients::warm(ON, |_| ());
    clients.holds = |text| text.ends_with("costly./DS");
    for id in 0..14 {
        let name = format!("n{id}.costly");
        clients.add_unsigned_delegation(&name);
        clients.lengthen(&name, Type::DS, 200);
        clients.world.answers.extend([address(&name)]);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    let responses = ask_beside_records(&mut clients);
    assert!(!responses.contains(&(1_000, Rcode::SERVFAIL)));
}

#[test]
fn only_answer_of_a_client_is_kept_although_it_is_long() {
    let mut clients = TestClients::warm(ON, |_| ());
    clients.add_signed("first.costly");
    clients.ask(1_999, 1, "first.costly");
    clients.add_signed("long.costly");
    clients.lengthen("long.costly", Type::A, 220);
    assert_eq!(clients.ask(3_000, 3, "long.costly"), []);
    for id in 0..254 {
        let name = format!("n{id}.costly");
        clients.add_signed(&name);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    // The number of answers is the limit.
    clients.add_signed("other.costly");
    let responses = clients.ask(2_000, 2, "other.costly");
    let [(given_up, Rcode::SERVFAIL)] = responses[..] else {
        panic!("one answer is given up: {responses:?}");
    };
    assert!(given_up < 2_000);
}

#[test]
fn answer_that_never_has_room_evicts_no_other() {
    let mut clients = TestClients::warm(ON, |limits| limits.validations_held = 128 << 10);
    for id in 0..15 {
        let name = format!("n{id}.costly");
        clients.add_signed(&name);
        clients.lengthen(&name, Type::A, 13);
        assert_eq!(clients.ask(id, 1, &name), []);
    }
    clients.add_signed("huge.costly");
    clients.lengthen("huge.costly", Type::A, 130);
    let responses = clients.ask(2_000, 2, "huge.costly");
    assert_eq!(responses, [(2_000, Rcode::SERVFAIL)]);
}

#[test]
fn answer_that_never_has_room_is_fetched_once_for_all_clients() {
    let mut clients = TestClients::warm(ON, |limits| limits.validations_held = 91 << 10);
    clients.add_signed("huge.costly");
    clients.lengthen("huge.costly", Type::A, 100);
    clients.holds = |text| text == "huge.costly./A";
    for client in 1..20 {
        let id = 1_000 + u16::from(client);
        assert_eq!(clients.ask(id, client, "huge.costly"), []);
    }
    clients.release();
    assert_eq!(std::mem::take(&mut clients.responses).len(), 19);
    // The failure is cached.
    assert_eq!(clients.ask(1, 1, "huge.costly"), [(1, Rcode::SERVFAIL)]);
    let sent = clients.world.sent.iter();
    let fetches = sent.filter(|(text, _)| text == "huge.costly./A").count();
    assert_eq!(fetches, 1);
}
