//! What the targets share.

#![allow(dead_code, reason = "each target uses its part")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use dotproxy::base::arena::Key;
use dotproxy::tls::clock::Clock;
use dotproxy::config::{Config, Scheme};
use dotproxy::options::{self, Command};
use dotproxy::base::origin::Origin;
use dotproxy::proxy::{Action, LinkKey, Outbox, Proxy};
use dotproxy::session::Stream;
use dotproxy::base::time::Instant;
use dotproxy::tls::Setup;
use dotproxy::wire::edns::{OPT_LEN, OptWriter, OptionCode};
use dotproxy::wire::header::HEADER_LEN;
use dotproxy::wire::{Flags, MESSAGE_LEN_MAX, Message, steps};

/// A configuration with an upstream under TLS, and one in the clear for names below `b`.
pub fn config() -> Config {
    configured(&["-u192.0.2.1#dot.example", "-uudp://192.0.2.2,domain=b"])
}

/// What these arguments come to. Without others, every query goes upstream.
pub fn configured(arguments: &[&str]) -> Config {
    let arguments = ["--cache-size=0"].iter().chain(arguments);
    let arguments: Vec<String> = arguments.map(ToString::to_string).collect();
    match options::parse(&arguments) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

/// An upstream under TLS and clients under TLS, with a certificate of this run.
pub fn tls() -> &'static Setup {
    static TLS: LazyLock<Setup> = LazyLock::new(|| {
        let names = vec!["dot.example".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let file = |kind: &str, pem: String| {
            let name = format!("dotproxy-fuzz-{}.{kind}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, pem).expect("a temporary file");
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
        let tls = dotproxy::tls::set_up(&config, &Clock::new(None)).expect("files of ours");
        for path in [certificate, key] {
            let _ = std::fs::remove_file(path);
        }
        tls
    });
    &TLS
}

/// A client, by number.
pub fn origin(number: u16) -> Origin {
    Origin {
        session: Key::from_usize(1),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, number)),
        local: None,
    }
}

/// The proxy's link, once it has asked for one: opened and up. A datagram is up at once.
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

/// The responses in the outbox. Each is checked: well formed, a response, no longer than may be.
pub fn responses(outbox: &Outbox, len_max: usize) -> Vec<Vec<u8>> {
    let mut responses = Vec::new();
    for action in outbox.actions() {
        if let Action::Respond { message, .. } = action {
            let bytes = outbox.bytes(message);
            assert!(bytes.len() <= len_max, "{} octets", bytes.len());
            let parsed = Message::parse(bytes).expect("a response is well formed");
            assert!(parsed.header().flags.contains(Flags::QR));
            responses.push(bytes.to_vec());
        }
    }
    responses
}

/// The queries in the outbox with their links.
pub fn sent(outbox: &Outbox) -> Vec<(LinkKey, Vec<u8>)> {
    let sent = outbox.actions().iter().filter_map(|action| match action {
        Action::Send { link, message } => Some((*link, outbox.bytes(message).to_vec())),
        _ => None,
    });
    sent.collect()
}

/// A reply to a query, of which all behind the question is given: flags, counts, records.
pub fn reply(query: &[u8], rest: &[u8]) -> Vec<u8> {
    let message = Message::parse(query).expect("ours");
    let question = message.question().expect("ours");
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

/// Adds an OPT to a reply that has none and is well formed, whose only option, an extended error that
/// judges the name or one of this number, leaves so many octets of the longest message.
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

/// Checks that walks over messages of so many octets have taken no more steps than that allows.
pub fn check_steps(octets: usize) {
    let taken = steps::take();
    let allowed = 32 * u64::try_from(octets).expect("few") + 65_536;
    assert!(taken <= allowed, "{taken} steps for {octets} octets");
}

/// The queries in the outbox. Each is checked: well formed and, but for those in the clear, padded.
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

/// A stream whose peer sends these octets, in pieces of the given lengths, and reads everything.
pub struct Script<'a> {
    pub octets: &'a [u8],
    pub pieces: &'a [u8],
    pub turn: usize,
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
        let len = piece.min(self.octets.len()).min(buffer.len());
        let (now, later) = self.octets.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.octets = later;
        Ok(len)
    }
}

impl Stream for Script<'_> {}

impl Write for Script<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
