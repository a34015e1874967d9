//! What a peer sends under TLS that is no resolver of ours, or no client that has shaken hands:
//! whatever it is in whatever pieces, nothing panics, and nothing is taken for payload.
//!
//! Input: which end we are (one octet), how many pieces there are (one octet), their lengths, the
//! octets of the connection.

#![no_main]

mod common;

use common::Script;
use dotproxy::config::Limits;
use dotproxy::session::{ClientStream, Scratch, Transport, UpstreamStream};
use dotproxy::base::time::Instant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [end, pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, octets) = rest.split_at(usize::from(*pieces_len).min(rest.len()));
    let mut scratch = Scratch::new();
    let stream = common::Script {
        octets,
        pieces,
        turn: 0,
    };
    let turns = 2 * octets.len() + 600;
    let tls = common::tls();
    if end % 2 == 0 {
        let connector = tls.connectors[0].as_ref().expect("it speaks TLS");
        let transport = Transport::tls(stream, connector, &mut scratch).expect("a first flight");
        speak_to_server(UpstreamStream::new(transport), turns, &mut scratch);
    } else {
        let acceptor = tls.acceptor.as_ref().expect("it listens");
        let transport = Transport::accepted(stream, acceptor).expect("a connection");
        let client =
            ClientStream::new(transport, ([127, 0, 0, 1], 4711).into(), Instant::default());
        speak_to_client(client, turns, &mut scratch);
    }
});

fn speak_to_server(mut upstream: UpstreamStream<Script<'_>>, turns: usize, scratch: &mut Scratch) {
    upstream.send(b"a query that must wait");
    for _ in 0..turns {
        let step = upstream.ready(scratch, 100_000, |event| {
            panic!("nobody has proved anything, and yet: {event:?}")
        });
        if step.is_err() || upstream.flush(scratch, 1).is_err() {
            break;
        }
    }
    upstream.close(scratch);
}

fn speak_to_client(mut client: ClientStream<Script<'_>>, turns: usize, scratch: &mut Scratch) {
    let (limits, now) = (Limits::default(), Instant::default());
    for _ in 0..turns {
        let step = client.ready(scratch, &limits, now, |message, _| {
            panic!("no handshake is over, and yet: {message:?}")
        });
        if step.is_err() || client.flush(scratch, now).is_err() {
            break;
        }
        assert!(client.account().1 < 200_000);
    }
    client.close(scratch);
}
