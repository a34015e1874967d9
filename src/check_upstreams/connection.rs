//! One connection of the check to an upstream, driven to the next event that the check waits for.

use std::net::SocketAddr;
use std::time::Duration;

use super::findings::is_answer;
use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::base::time::Instant;
use crate::config::{KeyExchange, Scheme, Upstream};
use crate::net::{Event, Net, Signal};
use crate::proxy::explain_opening_failure;
use crate::session::transport::TlsSession;
use crate::session::upstream::stream::UpstreamEvent;
use crate::session::{
    Scratch, Step, Stream, Transport, UpstreamConnection, UpstreamDatagram, UpstreamHttp2,
    UpstreamStream,
};
use crate::tls::Connector;
use crate::wire::question::Question;
use crate::wire::{Message, Rcode};

/// Maximum number of bytes or datagrams that are read before the socket is written to.
const BYTES_MAX: usize = 64 * 1024;
const DATAGRAMS_MAX: usize = 16;

/// Where a connection goes and how.
#[derive(Clone, Copy)]
pub(super) struct CheckTarget<'a> {
    pub(super) upstream: &'a Upstream,
    /// The protocol, which is TCP for the second connection to an upstream over UDP.
    pub(super) scheme: Scheme,
    pub(super) address: SocketAddr,
    /// The TLS settings, if the protocol has TLS.
    pub(super) connector: Option<&'a Connector>,
}

impl CheckTarget<'_> {
    /// Returns the same address over TCP.
    pub(super) fn over_tcp(self) -> Self {
        let scheme = Scheme::Tcp;
        Self { scheme, ..self }
    }
}

/// A connection to an upstream.
pub(super) struct CheckConnection<N: Net> {
    key: Key,
    session: CheckSession<N>,
    /// The socket may have data that was not read.
    is_readable: bool,
    failure: Option<Failure>,
    /// The time from the start of the connection to the end of the handshake.
    pub(super) handshake: Duration,
    /// The handshake resumed an earlier TLS session.
    pub(super) is_resumed: bool,
    pub(super) tls: Option<TlsSession>,
    /// HTTP/2: the maximum number of queries in flight.
    pub(super) streams_max: Option<usize>,
}

enum CheckSession<N: Net> {
    Stream(Box<UpstreamConnection<N::Stream>>),
    Datagram(UpstreamDatagram<N::Datagram>),
}

impl<N: Net> CheckConnection<N> {
    /// Returns the certificate of the upstream.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        match &self.session {
            CheckSession::Stream(stream) => stream.certificate(),
            CheckSession::Datagram(_) => None,
        }
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        match &mut self.session {
            CheckSession::Stream(stream) => {
                stream.send(message);
                Ok(())
            }
            CheckSession::Datagram(datagram) => datagram.send(message),
        }
    }
}

/// The sockets of the check.
pub(super) struct Sockets<N: Net> {
    net: N,
    scratch: Scratch,
    events: Vec<Event>,
    last_key: usize,
    is_interrupted: bool,
}

impl<N: Net> Sockets<N> {
    pub(super) fn new(net: N) -> Self {
        Self {
            net,
            scratch: Scratch::new(),
            events: Vec::new(),
            last_key: 0,
            is_interrupted: false,
        }
    }

    /// Returns whether a signal has asked the program to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// Opens a connection and waits for the end of its handshake. A failure has the likely cause,
    /// with these groups for the TLS key exchange.
    pub(super) fn open(
        &mut self,
        to: CheckTarget<'_>,
        timeout: Duration,
        groups: KeyExchange,
    ) -> Result<CheckConnection<N>, Failure> {
        let explain = |failure: Failure| {
            explain_opening_failure(to.scheme, to.address.port(), groups, &failure)
        };
        let opened_at = self.net.now();
        let mut connection = self.start(to).map_err(explain)?;
        if to.scheme == Scheme::Udp {
            return Ok(connection);
        }
        let mut up = None;
        let ran = self.run(&mut connection, opened_at + timeout, &mut |event| {
            if let UpstreamEvent::Up { is_resumed, tls } = event {
                up = Some((is_resumed, tls));
            }
            up.is_some()
        });
        ran.map_err(explain)?;
        let Some((is_resumed, tls)) = up else {
            let kind = match &connection.session {
                CheckSession::Stream(stream) if stream.is_connected_only() => {
                    FailureKind::HandshakeTimeout
                }
                _ => FailureKind::ConnectTimeout,
            };
            return Err(explain(kind.into()));
        };
        connection.handshake = self.net.now() - opened_at;
        (connection.is_resumed, connection.tls) = (is_resumed, tls);
        Ok(connection)
    }

    fn start(&mut self, to: CheckTarget<'_>) -> Result<CheckConnection<N>, Failure> {
        let failed = |error| Failure::new(FailureKind::Connect, error);
        self.last_key += 1;
        let key = Key::from_usize(self.last_key);
        let session = if to.scheme == Scheme::Udp {
            let socket = self.net.connect_datagram(to.address, key).map_err(failed)?;
            CheckSession::Datagram(UpstreamDatagram::new(socket, to.address))
        } else {
            let stream = self.net.connect(to.address, key).map_err(failed)?;
            let transport = match to.connector {
                Some(connector) => Transport::tls(stream, connector, &mut self.scratch)?,
                None => Transport::connecting(stream),
            };
            CheckSession::Stream(Box::new(if to.scheme == Scheme::Https {
                let http2 = UpstreamHttp2::new(transport, to.upstream)?;
                UpstreamConnection::Http2(Box::new(http2))
            } else {
                UpstreamConnection::Stream(UpstreamStream::new(transport))
            }))
        };
        Ok(CheckConnection {
            key,
            session,
            is_readable: false,
            failure: None,
            handshake: Duration::ZERO,
            is_resumed: false,
            tls: None,
            streams_max: None,
        })
    }

    /// Sends a query and waits for its reply, which `read` reads. A query over UDP is sent again if
    /// there is no reply after half the time. Returns the result of `read` and the time from the
    /// first query to the reply.
    pub(super) fn ask<T>(
        &mut self,
        connection: &mut CheckConnection<N>,
        query: &[u8],
        timeout: Duration,
        read: impl Fn(&Message<'_>) -> T,
    ) -> Result<(T, Duration), Failure> {
        let tries = match &connection.session {
            CheckSession::Stream(_) => 1,
            CheckSession::Datagram(_) => 2,
        };
        let sent_at = self.net.now();
        for number in 1..=tries {
            let mut result = None;
            connection.send(query)?;
            let deadline = sent_at + timeout * number / tries;
            self.run(connection, deadline, &mut |event| {
                result = result.take().or_else(|| reply_in(&event, query, &read));
                result.is_some()
            })?;
            if let Some(result) = result {
                return Ok((result?, self.net.now() - sent_at));
            }
        }
        Err(FailureKind::Stalled.into())
    }

    /// Sends all of these queries at once, and returns how many are answered without an error
    /// within `timeout`, before the connection ends. The queries differ in their ids.
    pub(super) fn answered_of(
        &mut self,
        connection: &mut CheckConnection<N>,
        queries: &[Vec<u8>],
        timeout: Duration,
    ) -> usize {
        let deadline = self.net.now() + timeout;
        let sent = queries.iter().try_for_each(|query| connection.send(query));
        let mut is_answered = vec![false; queries.len()];
        let mut left = queries.len();
        let run = sent.and_then(|()| {
            self.run(connection, deadline, &mut |event| {
                if let UpstreamEvent::Message(bytes) = event
                    && let Ok(reply) = Message::parse(bytes)
                    && is_answer(reply.rcode())
                    && let Some(at) = queries.iter().position(|query| answers(&reply, query))
                    && !is_answered[at]
                {
                    is_answered[at] = true;
                    left -= 1;
                }
                left == 0
            })
        });
        // The end of the connection and the timeout are results here.
        let _ = run;
        is_answered
            .iter()
            .filter(|is_answered| **is_answered)
            .count()
    }

    /// Tells the upstream that the connection ends.
    pub(super) fn close(&mut self, connection: CheckConnection<N>) {
        if let CheckSession::Stream(mut stream) = connection.session {
            stream.close(&mut self.scratch);
        }
    }

    /// Reads and writes until `on_event` returns true, or until the deadline or a signal. Events
    /// that arrive with the last one are also handed to `on_event`.
    fn run(
        &mut self,
        connection: &mut CheckConnection<N>,
        deadline: Instant,
        on_event: &mut dyn FnMut(UpstreamEvent<'_>) -> bool,
    ) -> Result<(), Failure> {
        loop {
            if let Some(failure) = &connection.failure {
                return Err(failure.clone());
            }
            if connection.is_readable {
                let mut is_done = false;
                let streams_max = &mut connection.streams_max;
                let step = read(&mut connection.session, &mut self.scratch, &mut |event| {
                    if let UpstreamEvent::StreamsMax(streams) = event {
                        *streams_max = Some(streams);
                    }
                    is_done |= on_event(event);
                });
                match step {
                    Ok(step) => connection.is_readable = step == Step::Again,
                    Err(failure) => connection.failure = Some(failure),
                }
                if is_done {
                    return Ok(());
                }
            }
            if connection.failure.is_none() {
                let flushed = match &mut connection.session {
                    CheckSession::Stream(stream) => stream.flush(&mut self.scratch, 1),
                    CheckSession::Datagram(_) => Ok(()),
                };
                connection.failure = flushed.err();
            }
            if connection.failure.is_none() && !self.wait(connection, deadline)? {
                return Ok(());
            }
        }
    }

    /// Waits until the socket of a connection is ready. Returns false at the deadline, however much
    /// there is to read, and after a signal.
    fn wait(
        &mut self,
        connection: &mut CheckConnection<N>,
        deadline: Instant,
    ) -> Result<bool, Failure> {
        loop {
            let left = deadline.saturating_since(self.net.now());
            if left.is_zero() || self.is_interrupted {
                return Ok(false);
            }
            let timeout = if connection.is_readable {
                Duration::ZERO
            } else {
                left
            };
            let failed = |error| Failure::new(FailureKind::Connect, error);
            let waited = self.net.wait(Some(timeout), &mut self.events);
            waited.map_err(failed)?;
            for event in self.events.drain(..) {
                match event {
                    Event::Ready {
                        token,
                        is_read_closed,
                    } if token == connection.key.token() => {
                        if let CheckSession::Stream(stream) = &mut connection.session {
                            stream.stream().on_event(is_read_closed);
                        }
                        connection.is_readable = true;
                    }
                    Event::Signal(Signal::Finish) => self.is_interrupted = true,
                    Event::Ready { .. } | Event::Signal(_) | Event::Resumed { .. } => {}
                }
            }
            if connection.is_readable {
                return Ok(!self.is_interrupted);
            }
        }
    }
}

fn read<N: Net>(
    session: &mut CheckSession<N>,
    scratch: &mut Scratch,
    on_event: &mut dyn FnMut(UpstreamEvent<'_>),
) -> Result<Step, Failure> {
    match session {
        CheckSession::Stream(stream) => stream.ready(scratch, BYTES_MAX, on_event),
        CheckSession::Datagram(datagram) => datagram.ready(scratch, DATAGRAMS_MAX, |message| {
            on_event(UpstreamEvent::Message(message));
        }),
    }
}

/// Returns the result of `read` for the reply to this query, or the failure of the query, if an
/// event is one of these.
fn reply_in<T>(
    event: &UpstreamEvent<'_>,
    query: &[u8],
    read: impl Fn(&Message<'_>) -> T,
) -> Option<Result<T, Failure>> {
    let failed = |detail: &str| Some(Err(Failure::new(FailureKind::Http2, detail)));
    match event {
        UpstreamEvent::Message(bytes) => match Message::parse(bytes) {
            Ok(reply) => answers(&reply, query).then(|| Ok(read(&reply))),
            Err(_) if bytes.starts_with(&query[..2]) => Some(Err(FailureKind::Protocol.into())),
            Err(_) => None,
        },
        UpstreamEvent::NoMessage { status, .. } => failed(&format!(
            "status {status} without a DNS message{}",
            if *status == 404 {
                ": check the path"
            } else {
                ""
            }
        )),
        UpstreamEvent::Refused(_) | UpstreamEvent::Reset(_) => {
            failed("the upstream reset the stream of the query")
        }
        _ => None,
    }
}

/// Returns whether a message is the reply to this query. An error may come without the question.
fn answers(reply: &Message<'_>, query: &[u8]) -> bool {
    let Ok(query) = Message::parse(query) else {
        return false;
    };
    let is_same = |question: Question<'_>| {
        query
            .question()
            .is_some_and(|asked| question.matches(asked))
    };
    let header = reply.header();
    header.id == query.header().id
        && header.may_be_reply()
        && reply
            .question()
            .map_or(reply.rcode() != Rcode::NOERROR, is_same)
}
