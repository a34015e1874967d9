//! Replies of extreme length or form: each client gets one response that it can parse, and nothing
//! malformed is cached.

use std::net::SocketAddr;
use std::time::Duration;

use dotproxy::base::arena::Key;
use dotproxy::base::origin::{ClientProtocol, Origin};
use dotproxy::base::time::Instant;
use dotproxy::proxy::{Action, ClientTransport, LinkKey, Outbox, Proxy};
use dotproxy::wire::edns::OptionCode;
use dotproxy::wire::header::HEADER_LEN;
use dotproxy::wire::{Flags, MESSAGE_LEN_MAX, Message};

use crate::support::configured;

/// A proxy with a cache and one upstream.
struct Scene {
    proxy: Proxy,
    now: Instant,
}

/// The transport and EDNS parameters of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Udp,
    Tcp,
    Tls,
}

/// The queries to upstreams, with their links.
type Sent = Vec<(LinkKey, Vec<u8>)>;

impl Scene {
    fn new() -> Self {
        let config = configured(&["-u192.0.2.1", "--cache-size=1m"]);
        Self {
            proxy: Proxy::new(&config, &[5; 32]),
            now: Instant::after_start(Duration::from_secs(100)),
        }
    }

    /// Returns the responses to a query and the queries to the upstream. Links come up at once.
    fn ask(&mut self, query: &[u8], by: By) -> (Vec<Vec<u8>>, Sent) {
        let transport = match by {
            By::Udp => ClientTransport::Udp,
            By::Tcp | By::Tls => ClientTransport::Stream {
                idle: Duration::from_secs(10),
                received_at: self.now,
                protocol: match by {
                    By::Tls => ClientProtocol::Tls,
                    By::Udp | By::Tcp => ClientProtocol::Tcp,
                },
            },
        };
        let origin = Origin {
            session: Key::from_usize(1),
            peer: SocketAddr::from(([127, 0, 0, 1], 4711)),
            local: None,
        };
        let mut outbox = Outbox::default();
        let now = self.now;
        assert!(
            self.proxy
                .handle_query(origin, transport, query, now, &mut outbox)
        );
        self.collect(outbox)
    }

    fn collect(&mut self, mut outbox: Outbox) -> (Vec<Vec<u8>>, Sent) {
        let (mut responses, mut queries) = (Vec::new(), Vec::new());
        loop {
            let mut opened = Vec::new();
            for action in outbox.actions() {
                match action {
                    Action::Respond { message, .. } => {
                        responses.push(outbox.bytes(message).to_vec());
                    }
                    Action::Send { link, message } => {
                        queries.push((*link, outbox.bytes(message).to_vec()));
                    }
                    Action::OpenLink { link, .. } => opened.push(*link),
                    Action::CloseLink { .. } => {}
                }
            }
            outbox.clear();
            if opened.is_empty() {
                return (responses, queries);
            }
            for link in opened {
                let now = self.now;
                self.proxy.handle_link_up(link, false, now, &mut outbox);
            }
        }
    }

    /// Returns the response to a query if all queries upstream get this reply.
    fn response(
        &mut self,
        query: &[u8],
        by: By,
        reply: impl Fn(&Message<'_>) -> Vec<u8>,
    ) -> Vec<u8> {
        let (mut responses, mut queries) = self.ask(query, by);
        for _ in 0..1_000 {
            if !responses.is_empty() {
                break;
            }
            let mut outbox = Outbox::default();
            if queries.is_empty() {
                self.now += Duration::from_millis(100);
                self.proxy.handle_timeout(self.now, &mut outbox);
            }
            for (link, sent) in std::mem::take(&mut queries) {
                let reply = reply(&Message::parse(&sent).expect("a query of the test"));
                let now = self.now;
                self.proxy.handle_reply(link, &reply, now, &mut outbox);
            }
            let (more, sent) = self.collect(outbox);
            responses.extend(more);
            queries = sent;
        }
        assert_eq!(responses.len(), 1, "one response to a query");
        let response = responses.remove(0);
        let parsed = Message::parse(&response).expect("a response that can be read");
        assert!(parsed.header().flags.contains(Flags::QR));
        assert_eq!(response[..2], query[..2], "the id of the client");
        let len_max = if by == By::Udp { 1232 } else { MESSAGE_LEN_MAX };
        assert!(response.len() <= len_max);
        response
    }
}

/// Returns a query of type A for a name of these bytes, with these options.
fn query(name: &[u8], options: &[u8]) -> Vec<u8> {
    let mut query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\x01".to_vec();
    query.extend(name);
    query.extend(b"\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0");
    query.extend(
        u16::try_from(options.len())
            .expect("a small number")
            .to_be_bytes(),
    );
    query.extend(options);
    query
}

/// Returns a reply with these flags and record counts, and with these bytes behind the question.
fn reply(query: &Message<'_>, flags: [u8; 2], counts: [u8; 3], rest: &[u8]) -> Vec<u8> {
    let id = query.header().id.to_be_bytes();
    let mut reply = [id, flags, [0, 1]].concat();
    reply.extend(counts.iter().flat_map(|count| [0, *count]));
    reply.extend(query.question().expect("a query of the test").as_bytes());
    reply.extend(rest);
    reply
}

/// Returns an OPT record with these options.
fn opt(options: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (code, value) in options {
        data.extend(code.to_be_bytes());
        data.extend(u16::try_from(value.len()).expect("an option").to_be_bytes());
        data.extend(value);
    }
    let mut opt = b"\0\0\x29\x04\xd0\0\0\0\0".to_vec();
    opt.extend(u16::try_from(data.len()).expect("an OPT").to_be_bytes());
    opt.extend(data);
    opt
}

/// An extended error that judges the name, so that no other upstream is queried.
fn verdict(text: &[u8]) -> (u16, Vec<u8>) {
    (15, [b"\0\x06", text].concat())
}

const COOKIE: &[u8] = b"\0\x0a\0\x08\x01\x02\x03\x04\x05\x06\x07\x08";
const KEEPALIVE: &[u8] = b"\0\x0b\0\0";
const PADDING: &[u8] = b"\0\x0c\0\0";

/// Returns the texts of the extended errors of a response.
fn texts(response: &[u8]) -> Vec<Vec<u8>> {
    let message = Message::parse(response).expect("a response that can be read");
    let Some(opt) = message.opt() else {
        return Vec::new();
    };
    let errors = opt
        .options()
        .filter(|option| option.code == OptionCode::EXTENDED_ERROR);
    errors.map(|error| error.data[2..].to_vec()).collect()
}

fn rcode(response: &[u8]) -> u8 {
    response[3] & 0x0f
}

#[test]
fn error_text_that_fills_the_message_is_cut_short() {
    // The bytes with which the fault was reported.
    let asked = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x01\x00\x01\
        \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x10\
        \x00\x0a\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08\x00\x0b\x00\x00";
    let mut scene = Scene::new();
    for round in ["from upstream", "from the cache"] {
        let response = scene.response(asked, By::Tcp, |query| {
            let mut rest = b"\0\0\x29\x04\xd0\0\0\0\0\xff\xde\0\x0f\xff\xda\0\x06".to_vec();
            rest.resize(rest.len() + 65_496, b'x');
            reply(query, [0x81, 0x82], [0, 0, 1], &rest)
        });
        assert_eq!(rcode(&response), 2, "{round}");
        assert_eq!(texts(&response), [vec![b'x'; 256]], "{round}");
    }
    assert_eq!(scene.proxy.cache_usage().entries, 1);
}

#[test]
fn options_of_the_upstream_leave_room_for_options_of_the_proxy() {
    let names: [&[u8]; 4] = [b"\0", b"\x01a\0", b"\x03com\0", b"\x07example\x03org\0"];
    let own: [&[&[u8]]; 5] = [
        &[],
        &[COOKIE],
        &[COOKIE, KEEPALIVE],
        &[COOKIE, PADDING],
        &[KEEPALIVE, PADDING, COOKIE],
    ];
    for name in names {
        for (own, by) in own
            .iter()
            .flat_map(|own| [By::Udp, By::Tcp, By::Tls].map(|by| (own, by)))
        {
            // The number of bytes that the options of the upstream leave free in a message of
            // maximum length.
            for left in (0..60).step_by(7) {
                let asked = query(name, &own.concat());
                let room = MESSAGE_LEN_MAX - HEADER_LEN - name.len() - 4 - 11 - left;
                let kinds: [Vec<(u16, Vec<u8>)>; 4] = [
                    vec![verdict(&vec![b'x'; room - 6])],
                    vec![verdict(b"short"), (3, vec![b'n'; room - 11 - 4])],
                    vec![
                        verdict(&vec![b'y'; 20_000]),
                        verdict(&vec![b'z'; 20_000]),
                        verdict(&vec![b'x'; room - 40_000 - 18]),
                    ],
                    std::iter::repeat_n(verdict(b""), room / 6).collect(),
                ];
                for options in kinds {
                    let mut scene = Scene::new();
                    let rest = opt(&options);
                    for _ in 0..2 {
                        let response = scene.response(&asked, by, |query| {
                            reply(query, [0x81, 0x82], [0, 0, 1], &rest)
                        });
                        assert_eq!(rcode(&response), 2);
                        assert!(texts(&response).iter().all(|text| text.len() <= 256));
                        if !own.is_empty() && own[0] == COOKIE && by == By::Tcp {
                            let message =
                                Message::parse(&response).expect("the message was checked");
                            let opt = message.opt().expect("the query has an OPT record");
                            assert!(opt.has_option(OptionCode::COOKIE));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn extended_error_text_stays_valid_utf_8() {
    // The limit falls into a character; a byte is no valid UTF-8; the option has no code.
    for (text, kept) in [
        (
            "\u{20ac}".repeat(100).into_bytes(),
            "\u{20ac}".repeat(85).into_bytes(),
        ),
        (b"good\xffbad".to_vec(), b"good".to_vec()),
    ] {
        let mut scene = Scene::new();
        for _ in 0..2 {
            let rest = opt(&[verdict(&text), (15, vec![0])]);
            let response = scene.response(&query(b"\x01a\0", &[]), By::Tcp, |query| {
                reply(query, [0x81, 0x82], [0, 0, 1], &rest)
            });
            assert_eq!(texts(&response), std::slice::from_ref(&kept));
        }
    }
}

/// Returns a record at a name of these bytes, of class IN, with this type and data.
fn record(owner: &[u8], rr_type: u16, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(rr_type.to_be_bytes());
    record.extend(b"\0\x01\0\0\x01\x2c");
    record.extend(
        u16::try_from(data.len())
            .expect("a length below 65,536")
            .to_be_bytes(),
    );
    record.extend(data);
    record
}

const A: u16 = 1;
const CNAME: u16 = 5;
const NAME: &[u8] = b"\x03www\x07example\0";
const ADDRESS: &[u8] = &[192, 0, 2, 1];

/// Returns the response to a query if its only reply is an answer with these records.
fn response_to(answers: &[Vec<u8>]) -> (Scene, Vec<u8>) {
    let mut scene = Scene::new();
    let count = u8::try_from(answers.len()).expect("a small number");
    let response = scene.response(&query(NAME, &[]), By::Tcp, |query| {
        reply(query, [0x81, 0x80], [count, 0, 0], &answers.concat())
    });
    (scene, response)
}

#[test]
fn malformed_answer_is_neither_forwarded_nor_cached() {
    let address = || record(b"\xc0\x0c", A, ADDRESS);
    for (what, answers) in [
        ("owner in the header", vec![record(b"\xc0\x02", A, ADDRESS)]),
        (
            "owner in the header",
            vec![record(b"\x01a\xc0\x0b", A, ADDRESS)],
        ),
        ("owner is no label", vec![record(b"\x41a\0", A, ADDRESS)]),
        (
            "owner leads to no label",
            vec![
                record(b"\xc0\x0c", 65_280, b"\x80"),
                record(b"\xc0\x29", A, ADDRESS),
            ],
        ),
        (
            "alias in the header",
            vec![record(b"\xc0\x0c", CNAME, b"\xc0\0"), address()],
        ),
        (
            "alias ahead",
            vec![record(b"\xc0\x0c", CNAME, b"\xc0\x60"), address()],
        ),
        (
            "alias beyond its data",
            vec![record(b"\xc0\x0c", CNAME, b"\x03www"), address()],
        ),
        (
            "alias before its end",
            vec![record(b"\xc0\x0c", CNAME, b"\0\0"), address()],
        ),
        (
            "alias of 256 bytes",
            vec![record(
                b"\xc0\x0c",
                CNAME,
                &[
                    [&[62][..], &[b'a'; 62]].concat().repeat(4),
                    b"\x02aa\0".to_vec(),
                ]
                .concat(),
            )],
        ),
        (
            "address of three bytes",
            vec![record(b"\xc0\x0c", A, b"\x0a\0\0")],
        ),
        (
            "address of five bytes",
            vec![record(b"\xc0\x0c", A, b"\x0a\0\0\x01\0")],
        ),
        (
            "short IPv6 address",
            vec![address(), record(b"\xc0\x0c", 28, &[0; 15])],
        ),
        (
            "mail server in the header",
            vec![address(), record(b"\xc0\x0c", 15, b"\0\x0a\xc0\0")],
        ),
        (
            "text beyond its data",
            vec![address(), record(b"\xc0\x0c", 16, b"\x05abc")],
        ),
    ] {
        let (scene, response) = response_to(&answers);
        assert_eq!(rcode(&response), 2, "{what}");
        assert_eq!(scene.proxy.cache_usage().entries, 0, "{what}");
    }
    let target = b"\x01b\xc0\x10";
    let alias = record(b"\xc0\x0c", CNAME, target);
    let (scene, response) = response_to(&[alias, record(target, A, ADDRESS)]);
    assert_eq!(rcode(&response), 0);
    assert_eq!(scene.proxy.cache_usage().entries, 1);
}

/// Returns an answer with a second record at a name of this many pointers.
fn with_pointers(pointers: usize) -> Vec<Vec<u8>> {
    let chain_start = HEADER_LEN + NAME.len() + 4 + 12;
    let mut chain = b"\xc0\x0c".to_vec();
    while chain.len() < 2 * (pointers - 1) {
        let at = u16::try_from(chain_start + chain.len() - 2).expect("a position");
        chain.extend((0xc000 | at).to_be_bytes());
    }
    let last = u16::try_from(chain_start + chain.len() - 2).expect("a position");
    let owner = (0xc000 | last).to_be_bytes();
    // The chain is the data of a record of unknown type.
    vec![
        record(b"\xc0\x0c", 65_280, &chain),
        record(&owner, A, ADDRESS),
    ]
}

#[test]
fn name_of_many_pointers_is_malformed() {
    for (pointers, expected) in [(2, 0), (126, 0), (127, 0), (128, 2), (4_000, 2), (8_000, 2)] {
        let (scene, response) = response_to(&with_pointers(pointers));
        assert_eq!(rcode(&response), expected, "{pointers} pointers");
        let entries = scene.proxy.cache_usage().entries;
        assert_eq!(entries, usize::from(expected == 0), "{pointers} pointers");
    }
}
