//! Off-path and cross-query attacks: replies on another link, with another id, or with unrequested
//! records are dropped.

use std::net::SocketAddr;
use std::time::Duration;

use dotproxy::base::arena::Key;
use dotproxy::base::origin::Origin;
use dotproxy::base::time::Instant;
use dotproxy::proxy::{Action, ClientTransport, Discard, LinkKey, Outbox, Proxy};
use dotproxy::wire::Message;

use crate::support::configured;
use crate::support::messages::{check_response, query, reply};

struct Scene {
    proxy: Proxy,
    now: Instant,
}

/// The output of the proxy.
#[derive(Default)]
struct Wanted {
    /// Responses, with the ports of the clients.
    responses: Vec<(u16, Vec<u8>)>,
    /// Queries, with their links.
    queries: Vec<(LinkKey, Vec<u8>)>,
}

impl Scene {
    fn new(arguments: &[&str]) -> Self {
        Self {
            proxy: Proxy::new(&configured(arguments), &[5; 32]),
            now: Instant::after_start(Duration::from_secs(100)),
        }
    }

    fn collect(&mut self, mut outbox: Outbox) -> Wanted {
        let mut wanted = Wanted::default();
        loop {
            let mut opened = Vec::new();
            for action in outbox.actions() {
                match action {
                    Action::Respond { origin, message } => {
                        let bytes = outbox.bytes(message).to_vec();
                        wanted.responses.push((origin.peer.port(), bytes));
                    }
                    Action::Send { link, message } => {
                        wanted.queries.push((*link, outbox.bytes(message).to_vec()));
                    }
                    Action::OpenLink { link, .. } => opened.push(*link),
                    Action::CloseLink { .. } => {}
                }
            }
            outbox.clear();
            if opened.is_empty() {
                return wanted;
            }
            for link in opened {
                self.proxy
                    .handle_link_up(link, false, self.now, &mut outbox);
            }
        }
    }

    fn ask(&mut self, port: u16, query: &[u8]) -> Wanted {
        let mut outbox = Outbox::default();
        let origin = Origin {
            session: Key::from_usize(1),
            peer: SocketAddr::from(([127, 0, 0, 1], port)),
            local: None,
        };
        let (proxy, now) = (&mut self.proxy, self.now);
        assert!(proxy.handle_query(origin, ClientTransport::Udp, query, now, &mut outbox));
        self.collect(outbox)
    }

    fn receive_reply(&mut self, link: LinkKey, reply: &[u8]) -> Wanted {
        let mut outbox = Outbox::default();
        let (proxy, now) = (&mut self.proxy, self.now);
        proxy.handle_reply(link, reply, now, &mut outbox);
        self.collect(outbox)
    }

    fn discarded(&self, discard: Discard) -> u64 {
        self.proxy.counters().discard(discard)
    }
}

#[test]
fn reply_on_another_link_is_dropped() {
    // Each domain has its own upstream.
    let mut scene = Scene::new(&["-u192.0.2.1,domain=a", "-u192.0.2.2,domain=b"]);
    let (first, second) = (query(1, "www.a", 1, None), query(2, "www.b", 1, None));
    let [(link_a, sent_a)] = &scene.ask(1, &first).queries[..] else {
        panic!("one query");
    };
    let [(link_b, sent_b)] = &scene.ask(2, &second).queries[..] else {
        panic!("one query");
    };
    assert_ne!(link_a, link_b);
    for (link, forged) in [(*link_b, sent_a), (*link_a, sent_b)] {
        // The attacker has the id and the question of a query on the other link.
        assert!(
            scene
                .receive_reply(link, &reply(forged, 1))
                .responses
                .is_empty()
        );
    }
    let right = scene.receive_reply(*link_a, &reply(sent_a, 1)).responses;
    assert!(right[0].0 == 1 && check_response(&first, &right[0].1));
    let ids = scene.discarded(Discard::UnknownId) + scene.discarded(Discard::Mismatch);
    assert_eq!(ids, 2);
}

#[test]
fn reply_to_another_question_is_dropped() {
    let mut scene = Scene::new(&["-u192.0.2.1"]);
    let (first, second) = (
        query(1, "one.example", 1, None),
        query(2, "two.example", 1, None),
    );
    let sent_first = scene.ask(1, &first).queries;
    let sent_second = scene.ask(2, &second).queries;
    let ((link, sent_first), (_, sent_second)) = (&sent_first[0], &sent_second[0]);
    let mut forged = reply(sent_second, 1);
    forged[..2].copy_from_slice(&sent_first[..2]);
    assert!(scene.receive_reply(*link, &forged).responses.is_empty());
    assert_eq!(scene.discarded(Discard::Mismatch), 1);
    for id in 0..=u16::MAX {
        let is_in_use = [sent_first, sent_second]
            .iter()
            .any(|sent| sent[..2] == id.to_be_bytes());
        if !is_in_use {
            forged[..2].copy_from_slice(&id.to_be_bytes());
            assert!(scene.receive_reply(*link, &forged).responses.is_empty());
        }
    }
    assert_eq!(scene.discarded(Discard::UnknownId), 65_534);
    // Both queries are still outstanding, and each gets its own answer.
    for (port, query, sent) in [(2, &second, sent_second), (1, &first, sent_first)] {
        let responses = scene.receive_reply(*link, &reply(sent, 1)).responses;
        assert_eq!(responses.len(), 1);
        assert!(responses[0].0 == port && check_response(query, &responses[0].1));
    }
}

#[test]
fn unrequested_records_are_not_cached() {
    let mut scene = Scene::new(&["-u192.0.2.1"]);
    let asked = query(1, "www.example", 1, None);
    let sent = scene.ask(1, &asked).queries;
    let (link, sent) = &sent[0];
    // An answer that carries in each section an address record of another name.
    let mut poisoned = reply(sent, 1);
    let bank = b"\x04bank\x07example\x00\x00\x01\x00\x01\x00\x01\x51\x80\x00\x04\x0a\x00\x00\x06";
    let mut windows = poisoned.windows(3);
    let opt_at = windows
        .rposition(|window| window == [0, 0, 41])
        .expect("an OPT");
    poisoned.splice(opt_at..opt_at, bank.repeat(3));
    for section in [7, 9, 11] {
        poisoned[section] += 1;
    }
    let header = Message::parse(&poisoned)
        .expect("a well-formed message")
        .header();
    let counts = [header.answers, header.authorities, header.additionals];
    assert_eq!(counts, [2, 1, 2]);
    let responses = scene.receive_reply(*link, &poisoned).responses;
    assert_eq!(responses.len(), 1);
    let wanted = scene.ask(2, &query(2, "bank.example", 1, None));
    assert!(wanted.responses.is_empty());
    assert_eq!(wanted.queries.len(), 1, "upstream is asked");
    // The requested name is cached.
    assert_eq!(
        scene
            .ask(3, &query(3, "WWW.example", 1, None))
            .responses
            .len(),
        1
    );
}

#[test]
fn response_has_the_letter_case_of_the_query() {
    let mut scene = Scene::new(&["-u192.0.2.1"]);
    let odd = query(1, "wWw.eXample", 1, None);
    let (link, sent) = scene.ask(1, &odd).queries.remove(0);
    // The query keeps its letter case upstream; a reply with another letter case is accepted.
    let sent_question = Message::parse(&sent)
        .expect("a well-formed message")
        .question()
        .map(|q| q.as_bytes().to_vec());
    let asked_question = Message::parse(&odd)
        .expect("a well-formed message")
        .question()
        .map(|q| q.as_bytes().to_vec());
    assert_eq!(sent_question, asked_question);
    let plain = query(1, "www.example", 1, None);
    let end = 12 + sent_question.expect("the query has a question").len();
    let mut lowered = sent.clone();
    lowered[12..end].make_ascii_lowercase();
    let responses = scene.receive_reply(link, &reply(&lowered, 1)).responses;
    assert!(check_response(&odd, &responses[0].1));
    let responses = scene.ask(2, &plain).responses;
    assert!(check_response(&plain, &responses[0].1));
}
