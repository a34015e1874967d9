//! A proxy that validates, in front of the resolver of `dnssec_forgery`. No response to a client
//! says other things of the zones of other people than their records, whatever is in its caches.
//!
//! Input: the trust anchors, and clients' queries with their flags and the time between them.
//! Further bytes change the answers of the resolver.

#![no_main]

mod common;
#[path = "dnssec_forgery/forger.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod forger;
#[path = "dnssec_forgery/oracle.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod oracle;
#[path = "dnssec_forgery/tree.rs"]
mod tree;

use std::time::Duration;

use dotproxy::base::origin::ClientProtocol;
use dotproxy::base::time::Instant;
use dotproxy::dnssec::clock::SignatureClock;
use dotproxy::proxy::{ClientTransport, Outbox, Proxy};
use dotproxy::wire::edns::{DO, OptWriter};
use dotproxy::wire::{Flags, MESSAGE_LEN_MAX, Message, Rcode};
use forger::Forger;
use libfuzzer_sys::fuzz_target;
use oracle::Oracle;

/// Maximum number of queries to the resolver for one input.
const ANSWERS: usize = 200;

struct World<'a> {
    proxy: Proxy,
    forger: Forger<'a>,
    now: Instant,
    answers_left: usize,
}

impl World<'_> {
    /// Returns the response to a query, if there is one soon.
    fn ask(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let transport = ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: self.now,
            protocol: ClientProtocol::Tcp,
        };
        let mut outbox = Outbox::default();
        let origin = common::origin(1);
        let (proxy, now) = (&mut self.proxy, self.now);
        proxy.handle_query(origin, transport, query, now, &mut outbox);
        loop {
            if let Some(response) = self.run(&mut outbox)?.pop() {
                return Some(response);
            }
            self.now = self.proxy.poll_timeout()?.max(self.now);
            self.proxy.handle_timeout(self.now, &mut outbox);
        }
    }

    /// Answers queries until there are no others. Returns the responses to clients.
    fn run(&mut self, outbox: &mut Outbox) -> Option<Vec<Vec<u8>>> {
        let (mut waiting, mut given) = (Vec::new(), Vec::new());
        loop {
            given.extend(common::responses(outbox, MESSAGE_LEN_MAX));
            waiting.extend(common::sent(outbox));
            while common::bring_up_link(&mut self.proxy, outbox, self.now).is_some() {
                given.extend(common::responses(outbox, MESSAGE_LEN_MAX));
                waiting.extend(common::sent(outbox));
            }
            outbox.clear();
            let Some((link, query)) = waiting.pop() else {
                return Some(given);
            };
            self.answers_left = self.answers_left.checked_sub(1)?;
            let reply = self.reply(&query);
            self.proxy.handle_reply(link, &reply, self.now, outbox);
        }
    }

    fn reply(&mut self, query: &[u8]) -> Vec<u8> {
        let message = Message::parse(query).expect("our query is well formed");
        let question = message.question().expect("our query has a question");
        let name = question.name().to_ascii_lowercase();
        let mut reply = self.forger.answer(&name, question.rr_type().0, true);
        reply[..2].copy_from_slice(&query[..2]);
        // The verdict of the resolver does not count.
        reply[3] |= 0x20;
        reply
    }
}

/// Returns a query with AD, and with CD and DO if bits of `shape` say so.
fn query(name: &[u8], rr_type: u16, shape: u8) -> Vec<u8> {
    let low = 0x20 | if shape & 7 == 1 { 0x10 } else { 0 };
    let mut query = vec![0, 7, 1, low, 0, 1, 0, 0, 0, 0, 0, 1];
    query.extend(name);
    query.extend(rr_type.to_be_bytes());
    query.extend([0, 1]);
    let flags = if shape & 8 == 0 { 0 } else { DO };
    OptWriter::start(&mut query, 1232, 0, flags).finish();
    query
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let oracle = Oracle::new(*choice);
    let mut config = common::configured(&[
        "-u192.0.2.1#dot.example",
        "--dnssec=on",
        "--cache-size=1m",
        "--serve-stale=0",
        "--prefetch",
    ]);
    config.dnssec.anchors.clone_from(&oracle.trusted);
    config.dnssec.negative_anchors.clone_from(&oracle.negative);
    let mut world = World {
        proxy: Proxy::new(&config, &[7; 32]),
        forger: Forger::new(oracle.tree, input),
        now: Instant::default() + Duration::from_secs(1),
        answers_left: ANSWERS,
    };
    world.proxy.set_signature_clock(SignatureClock {
        lower_bound: tree::TIME.into(),
        system: tree::TIME.into(),
    });
    let count = world.forger.byte() % 8;
    let questions = (0..count).map_while(|_| {
        let (name, rr_type) = world.forger.question()?;
        Some((name, rr_type, world.forger.byte()))
    });
    let questions: Vec<_> = questions.collect();
    for (name, rr_type, shape) in questions {
        let query = query(&name, rr_type, shape);
        let Some(response) = world.ask(&query) else {
            return;
        };
        let message = Message::parse(&response).expect("the response is well formed");
        let flags = message.header().flags;
        let is_data = matches!(message.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN);
        assert!(is_data || world.forger.has_lied, "genuine: {message:?}");
        if is_data && shape & 7 != 1 {
            let is_secure = flags.contains(Flags::AD);
            oracle.check(&name, rr_type, is_secure, &response);
        }
        let pause = [0, 0, 0, 1, 100, 250, 290, 3_000][usize::from(shape >> 5)];
        world.now += Duration::from_secs(pause);
        let mut outbox = Outbox::default();
        world.proxy.handle_timeout(world.now, &mut outbox);
        if world.run(&mut outbox).is_none() {
            return;
        }
    }
});
