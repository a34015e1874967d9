//! Helpers that the targets share.

#![allow(dead_code, reason = "each target uses its part")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use dotproxy::base::arena::Key;
use dotproxy::base::origin::Origin;
use dotproxy::base::time::Instant;
use dotproxy::config::{Config, Scheme};
use dotproxy::options::{self, Command};
use dotproxy::proxy::{Action, LinkKey, Outbox, Proxy};
use dotproxy::session::Stream;
use dotproxy::tls::Setup;
use dotproxy::tls::clock::Clock;
use dotproxy::wire::edns::{OPT_LEN, OptWriter, OptionCode};
use dotproxy::wire::header::HEADER_LEN;
use dotproxy::wire::{Flags, MESSAGE_LEN_MAX, Message, steps};

/// Returns a configuration with an upstream over TLS, and a plain one for names below `b`.
pub fn config() -> Config {
    configured(&["-u192.0.2.1#dot.example", "-uudp://192.0.2.2,domain=b"])
}

/// Returns the configuration of these arguments. The cache is disabled by default.
pub fn configured(arguments: &[&str]) -> Config {
    let arguments = ["--cache-size=0"].iter().chain(arguments);
    let arguments: Vec<String> = arguments.map(ToString::to_string).collect();
    match options::parse(&arguments) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

/// Returns TLS settings of an upstream and a listener, with a certificate that is created once.
pub fn tls() -> &'static Setup {
    static TLS: LazyLock<Setup> = LazyLock::new(|| {
        let names = vec!["dot.example".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).expect("a test certificate");
        let file = |kind: &str, pem: String| {
            let name = format!("dotproxy-fuzz-{}.{kind}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, pem).expect("temporary files are writable");
            path
        };
        let certificate = file("pem", certified.cert.pem());
        let key = file("key", certified.signing_key.serialize_pem());
        let files = [("cert", &certificate), ("key", &key)];
        let files = files.map(|(option, path)| format!("--tls-{option}={}", path.display()));
        let config = configured(&[
            "-u192.0.2.1#dot.example",
            "--tls-listen=127.0.0.1",
            &files[0],
            &files[1],
        ]);
        let tls = dotproxy::tls::set_up(&config, &Clock::new(None)).expect("valid TLS files");
        for path in [certificate, key] {
            let _ = std::fs::remove_file(path);
        }
        tls
    });
    &TLS
}

/// Returns the origin of a client, by number.
pub fn origin(number: u16) -> Origin {
    Origin {
        session: Key::from_usize(1),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, number)),
        local: None,
    }
}

/// Opens the link that the proxy has asked for, if any. A UDP link is up at once.
pub fn bring_up_link(proxy: &mut Proxy, outbox: &mut Outbox, now: Instant) -> Option<LinkKey> {
    let opened = outbox.actions().iter().find_map(|action| match action {
        Action::OpenLink { link, to } => Some((*link, to.scheme)),
        _ => None,
    });
    let (link, scheme) = opened?;
    if scheme != Scheme::Udp {
        outbox.clear();
        proxy.handle_link_up(link, false, now, outbox);
    }
    Some(link)
}

/// Returns the responses in the outbox. Each is checked: well formed, a response, within the limit.
pub fn responses(outbox: &Outbox, len_max: usize) -> Vec<Vec<u8>> {
    let mut responses = Vec::new();
    for action in outbox.actions() {
        if let Action::Respond { message, .. } = action {
            let bytes = outbox.bytes(message);
            assert!(bytes.len() <= len_max, "{} bytes", bytes.len());
            let parsed = Message::parse(bytes).expect("a response is well formed");
            assert!(parsed.header().flags.contains(Flags::QR));
            responses.push(bytes.to_vec());
        }
    }
    responses
}

/// Returns the queries in the outbox with their links.
pub fn sent(outbox: &Outbox) -> Vec<(LinkKey, Vec<u8>)> {
    let sent = outbox.actions().iter().filter_map(|action| match action {
        Action::Send { link, message } => Some((*link, outbox.bytes(message).to_vec())),
        _ => None,
    });
    sent.collect()
}

/// Returns a reply to a query. `rest` is everything behind the question: flags, counts, records.
pub fn reply(query: &[u8], rest: &[u8]) -> Vec<u8> {
    let message = Message::parse(query).expect("our query is well formed");
    let question = message.question().expect("our query is well formed");
    let mut reply = query[..HEADER_LEN + question.as_bytes().len()].to_vec();
    reply[11] = 0;
    if let [flags_high, flags_low, counts @ ..] = rest {
        (reply[2], reply[3]) = (flags_high | 0x80, *flags_low);
        let counts_len = counts.len().min(6);
        reply[6..6 + counts_len].copy_from_slice(&counts[..counts_len]);
        reply.extend(&counts[counts_len..]);
    }
    reply.truncate(MESSAGE_LEN_MAX);
    reply
}

/// Adds an OPT with one option to a well-formed reply without OPT. The option is an extended error
/// about the name, or has the number `code`; the reply gets `left` bytes shorter than the longest
/// message.
pub fn fill(reply: &mut Vec<u8>, code: u16, left: u8) {
    let head_len = OPT_LEN + 4;
    let room = MESSAGE_LEN_MAX - usize::from(left);
    let is_fit = Message::parse(reply).is_ok_and(|message| message.opt().is_none());
    let Some(data_len) = room.checked_sub(reply.len() + head_len).filter(|_| is_fit) else {
        return;
    };
    let mut data = vec![b'x'; data_len];
    if let Some(error) = data.first_chunk_mut() {
        *error = [0, 6];
    }
    let additionals = u16::from_be_bytes([reply[10], reply[11]]) + 1;
    reply[10..12].copy_from_slice(&additionals.to_be_bytes());
    let mut writer = OptWriter::start(reply, 1232, 0, 0);
    writer.option(OptionCode(code), &data);
    writer.finish();
}

/// Checks that the steps of walks over messages of `bytes` bytes are within the bound.
pub fn check_steps(bytes: usize) {
    let taken = steps::take();
    let allowed = 32 * u64::try_from(bytes).expect("a small number") + 65_536;
    assert!(taken <= allowed, "{taken} steps for {bytes} bytes");
}

/// Returns the queries in the outbox. Each is checked: well formed and, unless it is plain, padded.
pub fn queries(outbox: &Outbox) -> Vec<Vec<u8>> {
    let queries = sent(outbox).into_iter().map(|(_, bytes)| {
        let parsed = Message::parse(&bytes).expect("a query is well formed");
        let question = parsed.question().expect("a query has a question");
        let is_below_b = question.name().to_ascii_lowercase().ends_with(b"\x01b\0");
        assert!(is_below_b || bytes.len().is_multiple_of(128));
        bytes
    });
    queries.collect()
}

/// A stream with a peer that sends `bytes` in pieces of the given lengths, and reads everything.
pub struct Script<'a> {
    bytes: &'a [u8],
    pieces: &'a [u8],
    turn: usize,
}

impl<'a> Script<'a> {
    pub fn new(bytes: &'a [u8], pieces: &'a [u8]) -> Self {
        let turn = 0;
        Self {
            bytes,
            pieces,
            turn,
        }
    }
}

/// Splits the rest of an input into the lengths of the pieces and the bytes of the connection.
pub fn split_pieces(pieces_len: u8, rest: &[u8]) -> (&[u8], &[u8]) {
    rest.split_at(usize::from(pieces_len).min(rest.len()))
}

/// Returns the pieces of a connection's bytes, without the empty ones. The lengths repeat; without
/// lengths, there is one piece.
pub fn pieces<'a>(mut bytes: &'a [u8], lens: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lens = lens.iter().filter(|len| **len > 0).cycle();
    std::iter::from_fn(move || {
        let len = lens.next().map_or(bytes.len(), |len| usize::from(*len));
        let (now, later) = bytes.split_at(len.min(bytes.len()));
        bytes = later;
        (!now.is_empty()).then_some(now)
    })
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        let piece = match self.pieces {
            [] => usize::MAX,
            pieces => usize::from(pieces[self.turn % pieces.len()]),
        };
        if piece == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = piece.min(self.bytes.len()).min(buffer.len());
        let (now, later) = self.bytes.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.bytes = later;
        Ok(len)
    }
}

impl Stream for Script<'_> {}

impl Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
