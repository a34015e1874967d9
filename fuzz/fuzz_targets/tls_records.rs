//! Input of an unauthenticated TLS peer: an upstream, or a client before its handshake. For any
//! input in any pieces, there is no panic, and no input is handled as payload.
//!
//! Input: our end of the connection (one byte), the number of pieces (one byte), their lengths, the
//! bytes of the connection.

#![no_main]

mod common;

use common::Script;
use dotproxy::base::origin::ClientProtocol;
use dotproxy::base::time::Instant;
use dotproxy::config::Limits;
use dotproxy::session::{ClientStream, Scratch, Transport, UpstreamStream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [end, pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    let mut scratch = Scratch::new();
    let stream = common::Script::new(bytes, pieces);
    let turns = 2 * bytes.len() + 600;
    let tls = common::tls();
    if end % 2 == 0 {
        let connector = tls.connectors[0].as_ref().expect("the upstream uses TLS");
        let transport = Transport::tls(stream, connector, &mut scratch).expect("a first flight");
        speak_to_server(UpstreamStream::new(transport), turns, &mut scratch);
    } else {
        let acceptor = tls.acceptor.as_ref().expect("there is a TLS listener");
        let transport =
            Transport::accepted(stream, acceptor, ClientProtocol::Tls).expect("a TLS connection");
        let client =
            ClientStream::new(transport, ([127, 0, 0, 1], 4711).into(), Instant::default());
        speak_to_client(client, turns, &mut scratch);
    }
});

fn speak_to_server(mut upstream: UpstreamStream<Script<'_>>, turns: usize, scratch: &mut Scratch) {
    upstream.send(b"a query that must wait");
    for _ in 0..turns {
        let step = upstream.ready(scratch, 100_000, |event| {
            panic!("event of an unauthenticated peer: {event:?}")
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
