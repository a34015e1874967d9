//! A byte stream under TLS.
//!
//! ```text
//!              first activity                peer authenticated              close alert
//!   connecting ---------------> handshaking ---------------------> established ----------> ended
//!       |                            |                                  |
//!       '----------------------------'----------------------------------'----> failed
//! ```
//!
//! Payload that is sent during the handshake is queued: nothing is written to a peer before it is
//! authenticated, and payload of a peer that must authenticate itself is not handed over earlier.
//! Between calls a connection holds no buffer unless a record is partial or the socket is full.

use std::io::{Read, Write};
use std::ops::Deref;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedConnectionCommon,
    UnbufferedStatus,
};
use rustls::{HandshakeKind, ProtocolVersion};

use super::TlsSession;
use super::socket_io::{Received, Unsent, failed, read, write};
use crate::base::failure::{Failure, FailureKind};
use crate::base::origin::ClientProtocol;
use crate::session::Scratch;
use crate::tls::{self, Acceptor, Connector, ErrorContext};

/// One of the two ends of a TLS connection.
pub trait End: Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// The data that rustls keeps for this end.
    type Data;

    /// Capacity in bytes that an empty buffer keeps from turn to turn.
    const KEPT_LEN: usize;

    /// Processes incoming bytes.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> Status<'c, 'i, Self::Data>;
}

type Status<'c, 'i, D> = UnbufferedStatus<'c, 'i, D>;

/// The client end of a connection.
pub type ClientEnd = UnbufferedClientConnection;

impl End for ClientEnd {
    type Data = ClientConnectionData;

    /// There are few upstream connections, and the next turn needs as much.
    const KEPT_LEN: usize = RECORD_PAYLOAD_LEN_MAX;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> Status<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// The server end of a connection.
pub type ServerEnd = UnbufferedServerConnection;

impl End for ServerEnd {
    type Data = ServerConnectionData;

    /// There can be many clients, and most are idle.
    const KEPT_LEN: usize = 0;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> Status<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// A TLS stream over `S`, at the end `E`.
pub struct TlsStream<S, E> {
    stream: S,
    connection: E,
    /// Partial records and handshake messages.
    torn: Vec<u8>,
    /// Payload that is not encrypted yet.
    plaintext: Vec<u8>,
    /// Records that the socket has not accepted.
    unsent: Unsent,
    stage: TlsStage,
    /// The settings that explain errors.
    error_context: ErrorContext,
}

/// The state of a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsStage {
    /// Nothing was sent or received.
    Connecting,
    /// The peer is not authenticated.
    Handshaking,
    /// Payload flows both ways.
    Established,
    /// The peer has sent its close alert. Sending is still possible.
    Ended,
    /// The connection is not used any more: its positions in `torn` are lost.
    Failed,
}

impl<S: Read + Write> TlsStream<S, ClientEnd> {
    /// Creates a stream to the peer that `connector` expects.
    pub(in crate::session) fn connect(
        stream: S,
        connector: &Connector,
        scratch: &mut Scratch,
    ) -> Result<Self, Failure> {
        let context = connector.error_context();
        let connection = connector.connection();
        let connection = connection.map_err(|error| describe(&error, context))?;
        let mut tls = Self::new(stream, connection, TlsStage::Connecting, context);
        // The first flight needs no input.
        tls.process_torn(&mut scratch.outgoing)?;
        Ok(tls)
    }
}

impl<S: Read + Write> TlsStream<S, ServerEnd> {
    /// Creates a stream on an accepted socket, for a client with this protocol.
    pub(in crate::session) fn accept(
        stream: S,
        acceptor: &Acceptor,
        protocol: ClientProtocol,
    ) -> Result<Self, Failure> {
        let context = ErrorContext::CLIENT;
        let connection = acceptor.connection(protocol);
        let connection = connection.map_err(|error| describe(&error, context))?;
        Ok(Self::new(
            stream,
            connection,
            TlsStage::Handshaking,
            context,
        ))
    }
}

impl<S> TlsStream<S, ServerEnd> {
    /// Returns whether `acceptor` admits the client. During its handshake a client is judged by the
    /// acceptor that accepted it, and thus not admitted by another.
    pub(in crate::session) fn is_admitted_by(&self, acceptor: &Acceptor) -> bool {
        let is_judged = matches!(self.stage, TlsStage::Established | TlsStage::Ended);
        let shown = self.connection.peer_certificates();
        is_judged && acceptor.judge(shown).is_ok()
    }
}

impl<S, E> TlsStream<S, E> {
    pub(in crate::session) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: Read + Write, E: End> TlsStream<S, E> {
    fn new(stream: S, connection: E, stage: TlsStage, error_context: ErrorContext) -> Self {
        Self {
            stream,
            connection,
            torn: Vec::new(),
            plaintext: Vec::new(),
            unsent: Unsent::default(),
            stage,
            error_context,
        }
    }

    pub(in crate::session) fn is_established(&self) -> bool {
        self.stage == TlsStage::Established
    }

    pub(in crate::session) fn is_resumed(&self) -> Option<bool> {
        let kind = self.connection.handshake_kind()?;
        Some(kind == HandshakeKind::Resumed)
    }

    /// Returns the properties of the session. `None` during the handshake.
    pub(in crate::session) fn session(&self) -> Option<TlsSession> {
        let version = match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let group = self.connection.negotiated_key_exchange_group();
        Some(TlsSession {
            version,
            key_exchange: group.and_then(|group| group.name().as_str()),
            validity: self.certificate().and_then(tls::validity),
        })
    }

    pub(in crate::session) fn speaks_http2(&self) -> bool {
        self.connection.alpn_protocol() == Some(tls::ALPN_HTTP2)
    }

    /// Returns the certificate of the peer, if the peer has sent one.
    pub(in crate::session) fn certificate(&self) -> Option<&[u8]> {
        let chain = self.connection.peer_certificates()?;
        chain.first().map(AsRef::as_ref)
    }

    pub(in crate::session) fn plaintext(&mut self) -> &mut Vec<u8> {
        &mut self.plaintext
    }

    pub(in crate::session) fn unsent_len(&self) -> usize {
        self.plaintext.len() + self.unsent.len()
    }

    pub(in crate::session) fn torn_len(&self) -> usize {
        self.torn.len()
    }

    fn may_send(&self) -> bool {
        matches!(self.stage, TlsStage::Established | TlsStage::Ended)
    }

    pub(in crate::session) fn is_connected(&self) -> bool {
        self.stage != TlsStage::Connecting
    }

    fn on_connected(&mut self) {
        if self.stage == TlsStage::Connecting {
            self.stage = TlsStage::Handshaking;
        }
    }

    pub(in crate::session) fn receive(
        &mut self,
        scratch: &mut Scratch,
        take: &mut dyn FnMut(&[u8]),
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
            self.stage = TlsStage::Failed;
            return Err(failure);
        }
        self.torn.clear();
        self.torn.extend_from_slice(&filled[used..]);
        self.torn.shrink_to(0);
        Ok(match self.stage {
            TlsStage::Ended => Received::End,
            _ => Received::Some(len),
        })
    }

    /// Processes `incoming`: the partial data and everything read after it, because the connection
    /// stores positions in this data. Adds the number of processed bytes to `used`.
    fn process(
        &mut self,
        incoming: &mut [u8],
        used: &mut usize,
        outgoing: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let context = self.error_context;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process(&mut incoming[*used..]);
            *used += discard;
            match state.map_err(|error| describe(&error, context))? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| describe(&error, context))?;
                        *used += record.discard;
                        take(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(record) => {
                    encode(record, outgoing, &mut self.unsent)?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(_) => {
                    if self.stage == TlsStage::Handshaking {
                        self.stage = TlsStage::Established;
                    }
                    return Ok(());
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.stage = TlsStage::Ended;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Calls [`TlsStream::process`] without new input.
    fn process_torn(&mut self, outgoing: &mut Vec<u8>) -> Result<(), Failure> {
        let mut torn = std::mem::take(&mut self.torn);
        let mut used = 0;
        let processed = self.process(&mut torn, &mut used, outgoing, &mut |_| {});
        torn.drain(..used);
        self.torn = torn;
        processed
    }

    pub(in crate::session) fn flush(&mut self, scratch: &mut Scratch) -> Result<usize, Failure> {
        let mut written = 0;
        loop {
            let taken = self.unsent.flush(&mut self.stream);
            let taken = taken.map_err(|error| failed(&error, self.is_connected()))?;
            if taken > 0 {
                self.on_connected();
            }
            written += taken;
            let may_send = self.may_send() && self.unsent.len() == 0;
            if !may_send || self.plaintext.is_empty() {
                return Ok(written);
            }
            written += self.encrypt_and_write(&mut scratch.outgoing)?;
        }
    }

    /// Encrypts queued payload into records and writes them. Nothing unsent precedes the payload.
    fn encrypt_and_write(&mut self, outgoing: &mut Vec<u8>) -> Result<usize, Failure> {
        // Messages of TLS itself may have to go first.
        self.process_torn(outgoing)?;
        if self.unsent.len() > 0 {
            return Ok(0);
        }
        let context = self.error_context;
        let chunk_len = self.plaintext.len().min(RECORD_PAYLOAD_LEN_MAX);
        let UnbufferedStatus { state, .. } = self.connection.process(&mut self.torn);
        let state = state.map_err(|error| describe(&error, context))?;
        let ConnectionState::WriteTraffic(mut traffic) = state else {
            return Err(Failure::new(
                FailureKind::Tls,
                "the connection accepts no more data",
            ));
        };
        let payload = &self.plaintext[..chunk_len];
        let len = with_room(outgoing, |room| match traffic.encrypt(payload, room) {
            Ok(len) => Ok(len),
            Err(EncryptError::InsufficientSize(size)) => Err(Some(size.required_size)),
            Err(EncryptError::EncryptExhausted) => Err(None),
        })?;
        self.plaintext.drain(..chunk_len);
        self.plaintext.shrink_to(E::KEPT_LEN);
        let records = &outgoing[..len];
        let taken = write(&mut self.stream, records).map_err(|error| failed(&error, true))?;
        self.unsent.bytes.extend_from_slice(&records[taken..]);
        Ok(taken)
    }

    pub(in crate::session) fn close(&mut self, scratch: &mut Scratch) {
        if !self.may_send() {
            return;
        }
        let UnbufferedStatus { state, .. } = self.connection.process(&mut self.torn);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state
            && self.unsent.len() == 0
            && let Ok(len) = traffic.queue_close_notify(&mut scratch.outgoing)
        {
            // The peer also notices the closed socket.
            let _ = write(&mut self.stream, &scratch.outgoing[..len]);
        }
    }

    /// Sends the alert for a failure, if that is possible without blocking. `incoming` is the rest
    /// of the input of [`TlsStream::process`].
    fn send_alert(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>) {
        loop {
            match self.connection.process(incoming).state {
                Ok(ConnectionState::EncodeTlsData(record)) => {
                    let start = self.unsent.bytes.len();
                    let encoded = encode(record, outgoing, &mut self.unsent);
                    // Earlier messages may come first.
                    if encoded.is_err() || is_alert(&self.unsent.bytes[start..]) {
                        break;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                _ => break,
            }
        }
        let _ = self.unsent.flush(&mut self.stream);
    }
}

/// Returns whether a record holds an alert. TLS 1.3 hides the type, but no other record is as
/// short: two bytes, the type, and a tag of sixteen (RFC 8446, sections 5.2 and 6).
fn is_alert(record: &[u8]) -> bool {
    matches!(record, [21, ..] | [23, _, _, 0, 19, ..])
}

/// Appends a record of TLS itself to the unsent bytes.
fn encode<D>(
    mut record: EncodeTlsData<'_, D>,
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

/// Maximum number of payload bytes in a record (RFC 8446, section 5.1).
const RECORD_PAYLOAD_LEN_MAX: usize = 16 * 1024;

/// Calls `attempt` with a buffer that grows to the requested size. `Err(None)` is final.
fn with_room(
    buffer: &mut Vec<u8>,
    mut attempt: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<usize, Failure> {
    loop {
        match attempt(buffer) {
            Ok(len) => return Ok(len),
            Err(Some(required)) if required > buffer.len() => buffer.resize(required, 0),
            Err(_) => {
                let detail = "cannot write a TLS record";
                return Err(Failure::new(FailureKind::Tls, detail));
            }
        }
    }
}

/// Converts an error of TLS.
fn describe(error: &rustls::Error, context: ErrorContext) -> Failure {
    let kind = match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            FailureKind::Authentication
        }
        _ => FailureKind::Tls,
    };
    Failure::new(kind, tls::explain(error, context))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Command};
    use crate::session::Transport;
    use crate::session::testing::Pipe;
    use crate::tls;
    use crate::tls::clock::Clock;

    fn tls_over(pipe: &Pipe, scratch: &mut Scratch) -> Transport<Pipe> {
        let arguments = ["-u".to_owned(), "192.0.2.1".to_owned()];
        let Ok(Command::Run(config)) = options::parse(&arguments) else {
            panic!("the options are right");
        };
        let tls = tls::set_up(&config, &Clock::new(None)).expect("the built-in roots are valid");
        let connector = tls.connectors[0].as_ref().expect("the upstream uses TLS");
        Transport::tls(pipe.clone(), connector, scratch).expect("a first flight is written")
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
    fn invalid_tls_fails_and_the_connection_is_not_used_again() {
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
    fn end_before_the_first_flight_of_the_peer_is_reported() {
        let (pipe, mut scratch) = (Pipe::default(), Scratch::new());
        let mut transport = tls_over(&pipe, &mut scratch);
        assert_eq!(
            transport.receive(&mut scratch, |_| {}),
            Ok(Received::Nothing)
        );
        pipe.end();
        assert_eq!(transport.receive(&mut scratch, |_| {}), Ok(Received::End));
    }
}
