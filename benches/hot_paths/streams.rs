//! Connections to an upstream: framing and encryption, without sockets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use dotproxy::options::{self, Command};
use dotproxy::session::upstream::stream::UpstreamEvent;
use dotproxy::session::{Scratch, Stream, Transport, UpstreamStream};
use dotproxy::tls;
use dotproxy::tls::clock::Clock;
use dotproxy::wire::frame;
use rustls::ServerConnection;
use rustls::version::TLS13;

use crate::certificates::{Authority, Flaw};
use crate::messages::{query, reply};
use crate::{Once, TIMES_MAX};

/// The number of messages in a record.
pub(crate) const BURST: u32 = 16;

/// A socket in memory.
#[derive(Clone, Default)]
struct Socket(Rc<RefCell<Ends>>);

#[derive(Default)]
struct Ends {
    /// Input for reads, in pieces.
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<u8>,
}

impl Stream for Socket {}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.borrow_mut().incoming.pop_front();
        let piece = piece.ok_or(ErrorKind::WouldBlock)?;
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An established connection, and its peer.
struct Connection {
    socket: Socket,
    stream: UpstreamStream<Socket>,
    peer: ServerConnection,
    scratch: Scratch,
}

impl Connection {
    fn new() -> Self {
        let authority = Authority::new("bench");
        let ca_file = format!("--ca-file={}", authority.ca_file.display());
        let arguments = ["-u127.0.0.1".to_owned(), ca_file];
        let Ok(Command::Run(config)) = options::parse(&arguments) else {
            panic!("{arguments:?}");
        };
        let setup = tls::set_up(&config, &Clock::new(None)).expect("the CA file exists");
        let connector = setup.connectors[0].as_ref().expect("the upstream uses TLS");
        let socket = Socket::default();
        let mut scratch = Scratch::new();
        let transport = Transport::tls(socket.clone(), connector, &mut scratch);
        let mut stream = UpstreamStream::new(transport.expect("a first flight is written"));
        let mut server = Arc::unwrap_or_clone(authority.server(Flaw::None, &[&TLS13]));
        server.send_tls13_tickets = 0;
        let mut peer =
            ServerConnection::new(Arc::new(server)).expect("a server connection is created");
        let mut is_up = false;
        while !is_up || peer.is_handshaking() {
            let on_event = |event: UpstreamEvent<'_>| {
                is_up |= matches!(event, UpstreamEvent::Up { .. });
            };
            let step = stream.ready(&mut scratch, usize::MAX, on_event);
            step.expect("the authority is trusted");
            stream
                .flush(&mut scratch, 0)
                .expect("memory is always writable");
            let flight = std::mem::take(&mut socket.0.borrow_mut().outgoing);
            peer.read_tls(&mut flight.as_slice())
                .expect("memory is always readable");
            peer.process_new_packets().expect("the handshake is valid");
            socket.deliver(&mut peer);
        }
        Self {
            socket,
            stream,
            peer,
            scratch,
        }
    }
}

impl Socket {
    /// Makes the output of the peer available to one read.
    fn deliver(&self, peer: &mut ServerConnection) {
        let mut bytes = Vec::new();
        while peer.wants_write() {
            peer.write_tls(&mut bytes)
                .expect("memory is always writable");
        }
        if !bytes.is_empty() {
            self.0.borrow_mut().incoming.push_back(bytes);
        }
    }
}

/// Benchmarks the framing of queries and their encryption into one record.
pub(crate) fn send() -> Once {
    let mut connection = Connection::new();
    let message = vec![7; 128];
    Box::new(move || {
        let Connection {
            stream, scratch, ..
        } = &mut connection;
        (0..BURST).for_each(|_| stream.send(&message));
        stream
            .flush(scratch, 16)
            .expect("memory is always writable");
        connection.socket.0.borrow_mut().outgoing.clear();
    })
}

/// Benchmarks the decryption of one record with replies.
pub(crate) fn receive() -> Once {
    let mut connection = Connection::new();
    let answer = reply(&query(1, "www.hot.example.net", 1, Some(1232)), 1);
    let mut answers = Vec::new();
    (0..BURST).for_each(|_| frame::write(&mut answers, &answer));
    for _ in 0..TIMES_MAX {
        let mut writer = connection.peer.writer();
        writer
            .write_all(&answers)
            .expect("the connection is established");
        connection.socket.deliver(&mut connection.peer);
    }
    // One read gets one record, and the next read gets nothing.
    let pieces = std::mem::take(&mut connection.socket.0.borrow_mut().incoming);
    let mut pieces = pieces.into_iter();
    Box::new(move || {
        let piece = pieces.next().expect("there is a piece for each read");
        connection.socket.0.borrow_mut().incoming.push_back(piece);
        let mut count = 0;
        let on_event = |_: UpstreamEvent<'_>| count += 1;
        let Connection {
            stream, scratch, ..
        } = &mut connection;
        stream
            .ready(scratch, usize::MAX, on_event)
            .expect("the replies are valid");
        assert_eq!(count, BURST);
    })
}
