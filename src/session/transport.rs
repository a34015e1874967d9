//! A stream of octets, in the clear or under TLS.
//!
//! ```text
//!              something goes                peer authenticated              close alert
//!   connecting ---------------> handshaking ---------------------> established ----------> ended
//!       |                            |                                  |
//!       '----------------------------'----------------------------------'----> failed
//! ```
//!
//! What is sent during the handshake waits: nothing is written to a peer before it is
//! authenticated. Between calls a connection holds no buffer unless a record is torn or the socket
//! is full.

use std::io::{self, ErrorKind, Read, Write};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

use super::Scratch;
use crate::failure::{Failure, FailureKind};
use crate::tls::{self, Connector};

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many octets were read. They need not have been payload.
    Some(usize),
    /// There is nothing to read now.
    Nothing,
    /// The peer will send no more.
    End,
}

/// A stream over `S`.
pub enum Transport<S> {
    /// In the clear.
    Plain(Plain<S>),
    /// Under TLS, as its client.
    Tls(Box<Tls<S>>),
}

impl<S: Read + Write> Transport<S> {
    /// A stream in the clear that is connected.
    pub fn plain(stream: S) -> Self {
        let (unsent, is_connected) = (Unsent::default(), true);
        Self::Plain(Plain {
            stream,
            unsent,
            is_connected,
        })
    }

    /// A stream in the clear that is about to be connected.
    pub fn connecting(stream: S) -> Self {
        let (unsent, is_connected) = (Unsent::default(), false);
        Self::Plain(Plain {
            stream,
            unsent,
            is_connected,
        })
    }

    /// A stream under TLS to the peer that `connector` expects.
    pub fn tls(stream: S, connector: &Connector, scratch: &mut Scratch) -> Result<Self, Failure> {
        let mut tls = Tls {
            stream,
            connection: connector.connection().map_err(describe)?,
            torn: Vec::new(),
            plaintext: Vec::new(),
            unsent: Unsent::default(),
            stage: Stage::Connecting,
        };
        // The first flight is made without input.
        tls.process_torn(&mut scratch.outgoing)?;
        Ok(Self::Tls(Box::new(tls)))
    }

    /// Whether the peer is there and, under TLS, who it should be, so that payload can be sent.
    pub fn is_established(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_connected,
            Self::Tls(tls) => tls.stage == Stage::Established,
        }
    }

    /// Whether the handshake took up an earlier session. `None` before it is over, and in the
    /// clear.
    pub fn is_resumed(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => {
                let kind = tls.connection.handshake_kind()?;
                Some(kind == rustls::HandshakeKind::Resumed)
            }
        }
    }

    /// Reads once, and hands the payload to `take` piece by piece.
    pub fn receive(
        &mut self,
        scratch: &mut Scratch,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Received, Failure> {
        match self {
            Self::Plain(plain) => plain.receive(scratch, &mut take),
            Self::Tls(tls) => tls.receive(scratch, &mut take),
        }
    }

    /// Takes payload to be sent.
    pub fn send(&mut self, payload: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Plain(plain) => payload(&mut plain.unsent.bytes),
            Self::Tls(tls) => payload(&mut tls.plaintext),
        }
    }

    /// Octets that wait to be sent.
    pub fn unsent_len(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.unsent.len(),
            Self::Tls(tls) => tls.plaintext.len() + tls.unsent.len(),
        }
    }

    /// Sends what waits, as far as the socket takes it. Returns the octets that it took.
    pub fn flush(&mut self, scratch: &mut Scratch) -> Result<usize, Failure> {
        match self {
            Self::Plain(plain) => plain
                .unsent
                .flush(&mut plain.stream)
                .map_err(|error| failed(&error, plain.is_connected)),
            Self::Tls(tls) => tls.flush(scratch),
        }
    }

    /// Tells the peer that no more will come, if that can be done without waiting.
    pub fn close(&mut self, scratch: &mut Scratch) {
        if let Self::Tls(tls) = self {
            tls.close(scratch);
        }
    }
}

/// A stream in the clear.
pub struct Plain<S> {
    stream: S,
    unsent: Unsent,
    is_connected: bool,
}

impl<S: Read + Write> Plain<S> {
    fn receive(
        &mut self,
        scratch: &mut Scratch,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<Received, Failure> {
        let buffer = &mut scratch.incoming[..Scratch::READ_LEN_MAX];
        let read = read(&mut self.stream, buffer);
        let read = read.map_err(|error| failed(&error, self.is_connected))?;
        // The poller first speaks up when the connection has come about or failed.
        self.is_connected = true;
        match read {
            None => Ok(Received::Nothing),
            Some(0) => Ok(Received::End),
            Some(len) => {
                take(&buffer[..len]);
                Ok(Received::Some(len))
            }
        }
    }
}

/// A stream under TLS.
pub struct Tls<S> {
    stream: S,
    connection: UnbufferedClientConnection,
    /// What was read of records and handshake messages that are not whole.
    torn: Vec<u8>,
    /// Payload that is not encrypted yet.
    plaintext: Vec<u8>,
    /// Records that the socket has not taken.
    unsent: Unsent,
    stage: Stage,
}

/// Where a connection under TLS is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has gone either way.
    Connecting,
    /// The peer has not proved who it is.
    Handshaking,
    /// Payload goes both ways.
    Established,
    /// The peer has sent its close alert.
    Ended,
    /// It is left alone: what it knew of `torn` is lost.
    Failed,
}

impl<S: Read + Write> Tls<S> {
    fn is_connected(&self) -> bool {
        self.stage != Stage::Connecting
    }

    fn on_connected(&mut self) {
        if self.stage == Stage::Connecting {
            self.stage = Stage::Handshaking;
        }
    }

    fn receive(
        &mut self,
        scratch: &mut Scratch,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<Received, Failure> {
        let torn_len = self.torn.len();
        if torn_len > Scratch::TORN_LEN_MAX {
            return Err(Failure::new(FailureKind::Tls, "handshake message too long"));
        }
        let Scratch { incoming, outgoing } = scratch;
        let free = &mut incoming[torn_len..torn_len + Scratch::READ_LEN_MAX];
        let read = read(&mut self.stream, free);
        let len = match read.map_err(|error| failed(&error, self.is_connected()))? {
            None => return Ok(Received::Nothing),
            Some(0) => return Ok(Received::End),
            Some(len) => len,
        };
        self.on_connected();
        incoming[..torn_len].copy_from_slice(&self.torn);
        let filled = &mut incoming[..torn_len + len];
        let mut used = 0;
        let processed = self.process(filled, &mut used, outgoing, take);
        if let Err(failure) = processed {
            self.send_alert(&mut filled[used..], outgoing);
            self.stage = Stage::Failed;
            return Err(failure);
        }
        self.torn.clear();
        self.torn.extend_from_slice(&filled[used..]);
        self.torn.shrink_to(0);
        Ok(match self.stage {
            Stage::Ended => Received::End,
            _ => Received::Some(len),
        })
    }

    /// Lets the connection work on `incoming`: what is torn and what was read after it, all of it,
    /// for the connection knows places in it. Adds to `used` how many octets it is done with.
    fn process(
        &mut self,
        incoming: &mut [u8],
        used: &mut usize,
        outgoing: &mut Vec<u8>,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut incoming[*used..]);
            *used += discard;
            match state.map_err(describe)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(describe)?;
                        *used += record.discard;
                        take(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(record) => {
                    encode(record, outgoing, &mut self.unsent)?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(_) => {
                    if self.stage == Stage::Handshaking {
                        self.stage = Stage::Established;
                    }
                    return Ok(());
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.stage = Stage::Ended;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// [`Tls::process`] without anything new to read.
    fn process_torn(&mut self, outgoing: &mut Vec<u8>) -> Result<(), Failure> {
        let mut torn = std::mem::take(&mut self.torn);
        let mut used = 0;
        let processed = self.process(&mut torn, &mut used, outgoing, &mut |_| {});
        torn.drain(..used);
        self.torn = torn;
        processed
    }

    fn flush(&mut self, scratch: &mut Scratch) -> Result<usize, Failure> {
        let mut written = 0;
        loop {
            let taken = self.unsent.flush(&mut self.stream);
            let taken = taken.map_err(|error| failed(&error, self.is_connected()))?;
            if taken > 0 {
                self.on_connected();
            }
            written += taken;
            let may_send = self.stage == Stage::Established && self.unsent.len() == 0;
            if !may_send || self.plaintext.is_empty() {
                return Ok(written);
            }
            written += self.encrypt_and_write(&mut scratch.outgoing)?;
        }
    }

    /// Encrypts what waits into records and writes them, with nothing unsent before them.
    fn encrypt_and_write(&mut self, outgoing: &mut Vec<u8>) -> Result<usize, Failure> {
        // Something of the connection's own may have to go first.
        self.process_torn(outgoing)?;
        if self.unsent.len() > 0 {
            return Ok(0);
        }
        let chunk_len = self.plaintext.len().min(RECORD_PAYLOAD_LEN_MAX);
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.torn);
        let ConnectionState::WriteTraffic(mut traffic) = state.map_err(describe)? else {
            return Err(Failure::new(
                FailureKind::Tls,
                "the connection takes no more",
            ));
        };
        let payload = &self.plaintext[..chunk_len];
        let len = with_room(outgoing, |room| match traffic.encrypt(payload, room) {
            Ok(len) => Ok(len),
            Err(EncryptError::InsufficientSize(size)) => Err(Some(size.required_size)),
            Err(EncryptError::EncryptExhausted) => Err(None),
        })?;
        self.plaintext.drain(..chunk_len);
        self.plaintext.shrink_to(KEPT_LEN);
        let records = &outgoing[..len];
        let taken = write(&mut self.stream, records).map_err(|error| failed(&error, true))?;
        self.unsent.bytes.extend_from_slice(&records[taken..]);
        Ok(taken)
    }

    fn close(&mut self, scratch: &mut Scratch) {
        if self.stage != Stage::Established {
            return;
        }
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.torn);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state
            && self.unsent.len() == 0
            && let Ok(len) = traffic.queue_close_notify(&mut scratch.outgoing)
        {
            // Whoever is closed on learns of it anyway.
            let _ = write(&mut self.stream, &scratch.outgoing[..len]);
        }
    }

    /// Tells the peer why the connection fails, if that can be done without waiting. `incoming` is
    /// what [`Tls::process`] left.
    fn send_alert(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>) {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(incoming);
        if let Ok(ConnectionState::EncodeTlsData(record)) = state
            && encode(record, outgoing, &mut self.unsent).is_ok()
        {
            let _ = self.unsent.flush(&mut self.stream);
        }
    }
}

/// Appends a record of the connection's own to what is to be sent.
fn encode(
    mut record: EncodeTlsData<'_, ClientConnectionData>,
    outgoing: &mut Vec<u8>,
    unsent: &mut Unsent,
) -> Result<(), Failure> {
    let len = with_room(outgoing, |room| match record.encode(room) {
        Ok(len) => Ok(len),
        Err(EncodeError::InsufficientSize(size)) => Err(Some(size.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    })?;
    unsent.bytes.extend_from_slice(&outgoing[..len]);
    Ok(())
}

/// Octets of payload in the largest record (RFC 8446, section 5.1).
const RECORD_PAYLOAD_LEN_MAX: usize = 16 * 1024;

/// Octets that an empty buffer of a connection keeps, since the next turn will need as many.
const KEPT_LEN: usize = RECORD_PAYLOAD_LEN_MAX;

/// Octets that were to be written and did not fit.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
}

impl Unsent {
    fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the socket takes; returns how much that was.
    fn flush(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        if self.len() == 0 {
            return Ok(0);
        }
        let taken = write(stream, &self.bytes[self.written..])?;
        self.written += taken;
        // What has been written is kept no longer than it is less than what has not.
        if self.written >= self.len() {
            self.bytes.drain(..self.written);
            self.bytes.shrink_to(0);
            self.written = 0;
        }
        Ok(taken)
    }
}

/// Runs `attempt` with a buffer that is made as large as it asks for. `Err(None)` is final.
fn with_room(
    buffer: &mut Vec<u8>,
    mut attempt: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<usize, Failure> {
    loop {
        match attempt(buffer) {
            Ok(len) => return Ok(len),
            Err(Some(required)) if required > buffer.len() => buffer.resize(required, 0),
            Err(_) => return Err(Failure::new(FailureKind::Tls, "keys are used up")),
        }
    }
}

/// Reads once; `None` when there is nothing now.
fn read(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(buffer) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes until all is taken or the stream takes no more; returns how much it took.
fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => taken += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// What an error of the socket means for a connection that has or has not come about.
fn failed(error: &io::Error, is_connected: bool) -> Failure {
    let kind = match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            FailureKind::Closed
        }
        _ if is_connected => FailureKind::Closed,
        _ => FailureKind::Connect,
    };
    Failure::new(kind, error)
}

/// What an error of TLS means.
fn describe(error: rustls::Error) -> Failure {
    let kind = match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            FailureKind::Authentication
        }
        _ => FailureKind::Tls,
    };
    Failure::new(kind, tls::explain(&error))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Pipe;
    use super::*;
    use crate::clock::Clock;
    use crate::options::{self, Command};
    use crate::tls;

    fn tls_over(pipe: &Pipe, scratch: &mut Scratch) -> Transport<Pipe> {
        let arguments = ["-u".to_owned(), "192.0.2.1".to_owned()];
        let Ok(Command::Run(config)) = options::parse(&arguments) else {
            panic!("the options are right");
        };
        let connectors = tls::connectors(&config, &Clock::new(None)).expect("the built-in roots");
        let connector = connectors[0].as_ref().expect("it speaks TLS");
        Transport::tls(pipe.clone(), connector, scratch).expect("a first flight")
    }

    #[test]
    fn payload_waits_until_the_peer_is_authenticated() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut transport = tls_over(&pipe, &mut scratch);
        transport.send(|out| out.extend(b"a secret"));
        transport.flush(&mut scratch).unwrap();
        let sent = pipe.sent();
        assert!(sent.starts_with(&[22, 3, 1]), "a handshake record");
        assert!(!sent.windows(8).any(|window| window == b"a secret"));
        assert_eq!(transport.unsent_len(), 8);
        assert!(!transport.is_established());
    }

    #[test]
    fn what_is_no_tls_fails_and_the_connection_is_left_alone() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut transport = tls_over(&pipe, &mut scratch);
        transport.flush(&mut scratch).unwrap();
        pipe.sent();
        pipe.push(b"220 mail.example.org ESMTP ready\r\n");
        let failure = transport.receive(&mut scratch, |_| panic!("no payload"));
        assert_eq!(failure.unwrap_err().kind, FailureKind::Tls);
        assert_eq!(pipe.sent().first(), Some(&21), "an alert");
        transport.close(&mut scratch);
        assert_eq!(pipe.sent(), b"");
    }

    #[test]
    fn end_before_any_answer_is_an_end() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut transport = tls_over(&pipe, &mut scratch);
        assert_eq!(
            transport.receive(&mut scratch, |_| {}),
            Ok(Received::Nothing)
        );
        pipe.end();
        assert_eq!(transport.receive(&mut scratch, |_| {}), Ok(Received::End));
    }

    #[test]
    fn what_the_socket_took_is_not_kept() {
        let (pipe, message) = (Pipe::default(), vec![0; 60_000]);
        let mut unsent = Unsent::default();
        pipe.set_window(0);
        for _ in 0..64 {
            unsent.bytes.extend(&message);
            pipe.set_window(message.len() - 1);
            unsent.flush(&mut pipe.clone()).unwrap();
        }
        assert_eq!(unsent.len(), 64);
        assert!(unsent.bytes.capacity() < 2 * message.len());
    }

    #[test]
    fn full_socket_keeps_the_rest_for_later() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut transport = Transport::plain(pipe.clone());
        pipe.set_window(5);
        transport.send(|out| out.extend(b"eleven more"));
        assert_eq!(transport.flush(&mut scratch), Ok(5));
        assert_eq!(transport.unsent_len(), 6);
        pipe.set_window(100);
        assert_eq!(transport.flush(&mut scratch), Ok(6));
        assert_eq!(pipe.sent(), b"eleven more");
    }
}
