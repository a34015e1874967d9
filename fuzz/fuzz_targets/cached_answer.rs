//! Replies of an upstream with the cache enabled. For any reply, every client gets a response, a
//! later query for the same question gets a well-formed response within its length limit, and the
//! cache keeps its memory limit.
//!
//! Input: the shape of the query (one byte), its options (one), the padding of the reply (one), the
//! seconds to wait (two), the number of repetitions of the last part (one), the start of that part
//! (two), and the reply behind its question: flags, counts, records.

#![no_main]

mod common;

use std::time::Duration;

use dotproxy::base::origin::ClientProtocol;
use dotproxy::base::time::Instant;
use dotproxy::proxy::{ClientTransport, Outbox, Proxy};
use dotproxy::wire::edns::{DO, OptWriter, OptionCode};
use dotproxy::wire::{MESSAGE_LEN_MAX, Message, steps};
use libfuzzer_sys::fuzz_target;

const SIZE: usize = 1024 * 1024;

fuzz_target!(|input: &[u8]| {
    let [
        shape,
        options,
        filling,
        wait_high,
        wait_low,
        times,
        at_high,
        at_low,
        rest @ ..,
    ] = input
    else {
        return;
    };
    let config = common::configured(&["-u192.0.2.1#dot.example", "--cache-size=1m", "--prefetch"]);
    let mut proxy = Proxy::new(&config, &[7; 32]);
    let mut now = Instant::default() + Duration::from_secs(1);
    let pause = u64::from(u16::from_be_bytes([*wait_high, *wait_low]));
    let at = usize::from(u16::from_be_bytes([*at_high, *at_low])).min(rest.len());
    let tail = rest[at..].repeat(usize::from(*times));
    let answer = [&rest[..at], &tail[..]].concat();
    let mut link = None;
    for (round, name) in [&b"\x01a\x01c\0"[..], b"\x01A\x01C\0", b"\x01b\x01A\x01c\0"]
        .into_iter()
        .cycle()
        .take(7)
        .enumerate()
    {
        let turn = u32::try_from(round / 3).expect("a small number");
        let query = query(name, shape.rotate_left(turn), options.rotate_left(turn));
        let stream = |protocol| ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: now,
            protocol,
        };
        for transport in [
            ClientTransport::Udp,
            stream(ClientProtocol::Tcp),
            stream(ClientProtocol::Tls),
        ] {
            let mut outbox = Outbox::default();
            steps::take();
            let mut bytes = query.len();
            let origin = common::origin(1);
            assert!(proxy.handle_query(origin, transport, &query, now, &mut outbox));
            let len_max = match transport {
                ClientTransport::Udp => 1232,
                ClientTransport::Stream { .. } => MESSAGE_LEN_MAX,
            };
            let mut given = common::responses(&outbox, len_max);
            link = common::bring_up_link(&mut proxy, &mut outbox, now).or(link);
            for (link, sent) in common::sent(&outbox) {
                outbox.clear();
                let mut reply = common::reply(&sent, &answer);
                if *filling != 0 {
                    common::fill(&mut reply, [15, 3][usize::from(filling & 1)], filling / 2);
                }
                bytes += reply.len();
                proxy.handle_reply(link, &reply, now, &mut outbox);
                given.extend(common::responses(&outbox, len_max));
            }
            if given.is_empty() {
                outbox.clear();
                now += Duration::from_secs(6);
                proxy.handle_timeout(now, &mut outbox);
                given.extend(common::responses(&outbox, len_max));
            }
            assert_eq!(given.len(), 1, "one response to a query");
            common::check_steps(bytes + given[0].len());
            let response = Message::parse(&given[0]).expect("the response is well formed");
            let question = response.question().expect("the response has a question");
            assert_eq!(question.name(), name, "letter case is the client's");
            assert!(proxy.cache_usage().bytes <= SIZE);
        }
        now += Duration::from_secs(pause);
        let mut outbox = Outbox::default();
        proxy.handle_timeout(now, &mut outbox);
    }
});

/// Returns a query of class IN for this name; the bits of `shape` and `options` select its type,
/// flags, OPT and options.
fn query(name: &[u8], shape: u8, options: u8) -> Vec<u8> {
    let has_opt = shape & 1 != 0;
    let checking_disabled = shape & 2 << 3;
    let mut query = vec![
        0,
        1,
        1,
        checking_disabled,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(has_opt),
    ];
    query.extend(name);
    query.extend([0, [1, 6, 28, 5][usize::from(shape >> 2 & 3)], 0, 1]);
    if has_opt {
        let flags = if shape & 16 != 0 { DO } else { 0 };
        let mut writer = OptWriter::start(&mut query, 1232, 0, flags);
        let all: [(OptionCode, &[u8]); 3] = [
            (OptionCode::COOKIE, &[7; 8]),
            (OptionCode::TCP_KEEPALIVE, &[]),
            (OptionCode::PADDING, &[0; 5]),
        ];
        for (place, (code, data)) in all.into_iter().enumerate() {
            if options & 1 << place != 0 {
                writer.option(code, data);
            }
        }
        writer.finish();
    }
    query
}
