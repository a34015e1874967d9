//! An HTTP/2 connection to an upstream: DNS over HTTPS (RFC 8484). Each query is a POST request on
//! a stream of its own, with the message id 0 (section 4.1); the id of the query is restored in the
//! reply.

use std::collections::VecDeque;

use super::acknowledgement::Acknowledgement;
use super::stream::UpstreamEvent;
use crate::base::failure::{Failure, FailureKind};
use crate::config::bounds::HTTP2_STREAMS_MAX;
use crate::config::upstream::HTTPS_PORT;
use crate::config::{Host, Upstream};
use crate::session::http2::{
    Http2Connection, Http2Event, Http2Limits, NotSent, RequestHead, StreamId,
};
use crate::session::transport::{Received, Transport};
use crate::session::{Scratch, Step, Stream};
use crate::wire::header::HEADER_LEN;

/// Maximum number of queries that wait for a stream: all that the proxy has in flight. It knows how
/// many streams the upstream allows, but the upstream may lower the number at any time.
const WAITING_MAX: usize = HTTP2_STREAMS_MAX;

/// The status code of a response with a DNS message (RFC 8484, section 4.2.1).
const OK: u16 = 200;

/// An HTTP/2 connection to an upstream over `S`.
pub struct UpstreamHttp2<S> {
    transport: Transport<S>,
    http2: Http2Connection,
    exchanges: Exchanges,
    /// The content of the last request.
    body: Vec<u8>,
    /// Queries, with their ids, for which there is no stream yet.
    waiting: VecDeque<Box<[u8]>>,
    is_up: bool,
    acknowledgement: Acknowledgement,
    /// The number of streams that the upstream allows, as reported last.
    streams_max: usize,
}

/// The queries in flight.
#[derive(Default)]
struct Exchanges {
    /// The stream and the id of each query.
    pending: Vec<(StreamId, u16)>,
    /// The last reply, with the id of its query.
    reply: Vec<u8>,
}

impl Exchanges {
    fn take(&mut self, stream: StreamId) -> Option<u16> {
        let place = self.pending.iter().position(|(one, _)| *one == stream)?;
        Some(self.pending.swap_remove(place).1)
    }

    /// Hands the consequence of an HTTP/2 event to the caller.
    fn on_event(&mut self, event: Http2Event<'_>, on_event: &mut dyn FnMut(UpstreamEvent<'_>)) {
        match event {
            Http2Event::Response {
                stream,
                status,
                is_dns_message,
                body,
            } => {
                let Some(id) = self.take(stream) else {
                    return;
                };
                if status != OK || !is_dns_message || body.len() < HEADER_LEN {
                    return on_event(UpstreamEvent::NoMessage { id, status });
                }
                self.reply.clear();
                self.reply.extend_from_slice(body);
                self.reply[..2].copy_from_slice(&id.to_be_bytes());
                on_event(UpstreamEvent::Message(&self.reply));
            }
            Http2Event::Refused { stream } => {
                if let Some(id) = self.take(stream) {
                    on_event(UpstreamEvent::Refused(id));
                }
            }
            Http2Event::Failed { stream } => {
                if let Some(id) = self.take(stream) {
                    on_event(UpstreamEvent::Reset(id));
                }
            }
            Http2Event::GoAway { .. } => on_event(UpstreamEvent::Draining),
            // The events of a server.
            Http2Event::Request { .. } | Http2Event::Reset { .. } => {}
        }
    }
}

impl<S: Stream> UpstreamHttp2<S> {
    /// Creates the session of a new transport to this upstream.
    ///
    /// # Errors
    ///
    /// Returns a failure if the URL of the upstream cannot be sent in a request.
    pub fn new(transport: Transport<S>, upstream: &Upstream) -> Result<Self, Failure> {
        let head = RequestHead::new("https", &authority(upstream), &upstream.path, &[]);
        let invalid = |_| Failure::new(FailureKind::Protocol, "the URL is not valid");
        let mut session = Self {
            transport,
            http2: Http2Connection::client(Http2Limits::CLIENT, head.map_err(invalid)?),
            exchanges: Exchanges::default(),
            body: Vec::new(),
            waiting: VecDeque::new(),
            is_up: false,
            acknowledgement: Acknowledgement::default(),
            streams_max: usize::MAX,
        };
        session.send_output();
        Ok(session)
    }

    /// Reads at most about `bytes_max` bytes and hands events to the caller. The connection ends
    /// after an error.
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        bytes_max: usize,
        on_event: &mut dyn FnMut(UpstreamEvent<'_>),
    ) -> Result<Step, Failure> {
        let mut bytes = 0;
        while bytes < bytes_max {
            let mut result = Ok(());
            let (http2, exchanges) = (&mut self.http2, &mut self.exchanges);
            let received = self.transport.receive(scratch, |piece| {
                if result.is_ok() {
                    result = http2.receive(piece, |event| exchanges.on_event(event, on_event));
                }
            });
            self.send_output();
            if let Err(error) = result {
                // GOAWAY tells the upstream why the connection ends.
                let _ = self.transport.flush(scratch);
                return Err(Failure::new(FailureKind::Http2, error.detail));
            }
            let received = received?;
            if !self.is_up && self.transport.is_established() {
                self.come_up(on_event)?;
            }
            if self.is_up {
                self.report_streams(on_event);
            }
            match received {
                Received::Some(len) => {
                    bytes += len;
                    if self.is_up {
                        self.acknowledgement.on_received();
                    }
                }
                Received::Nothing => return Ok(Step::Drained),
                Received::End => return Err(FailureKind::Closed.into()),
            }
        }
        Ok(Step::Again)
    }

    fn come_up(&mut self, on_event: &mut dyn FnMut(UpstreamEvent<'_>)) -> Result<(), Failure> {
        if !self.transport.speaks_http2() {
            let detail = "the upstream does not offer HTTP/2 (ALPN)";
            return Err(Failure::new(FailureKind::Tls, detail));
        }
        self.is_up = true;
        on_event(UpstreamEvent::Up {
            is_resumed: self.transport.is_resumed().unwrap_or(false),
            tls: self.transport.tls_session(),
        });
        Ok(())
    }

    /// Reports a changed number of streams, and sends the queries that have waited for one.
    fn report_streams(&mut self, on_event: &mut dyn FnMut(UpstreamEvent<'_>)) {
        while self.http2.room() > 0
            && let Some(message) = self.waiting.pop_front()
        {
            self.send(&message);
        }
        if self.http2.is_ending() {
            for message in std::mem::take(&mut self.waiting) {
                on_event(UpstreamEvent::Refused(id_of(&message)));
            }
            return;
        }
        let streams_max = self.http2.room() + self.http2.open_streams();
        if streams_max != self.streams_max {
            self.streams_max = streams_max;
            on_event(UpstreamEvent::StreamsMax(streams_max));
        }
    }

    /// Returns the stream of the connection.
    pub fn stream(&mut self) -> &mut S {
        self.transport.stream()
    }

    /// Returns the certificate of the upstream, if it has sent one.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.transport.certificate()
    }

    /// Returns whether TCP is connected while the handshake has not ended.
    pub fn is_connected_only(&self) -> bool {
        !self.is_up && self.transport.is_connected()
    }

    /// Returns whether the next step belongs to a TLS handshake, which may take a signature.
    pub fn is_handshaking(&self) -> bool {
        !self.is_up
    }

    /// Returns whether queries wait to be reported as refused, by another call of
    /// [`UpstreamHttp2::ready`].
    pub fn has_refused(&self) -> bool {
        self.http2.is_ending() && !self.waiting.is_empty()
    }

    /// Queues a query, or keeps it until there is a stream.
    pub fn send(&mut self, message: &[u8]) {
        let id = id_of(message);
        self.body.clear();
        self.body.extend_from_slice(message);
        self.body[..2].fill(0);
        match self.http2.request(&self.body) {
            Ok(stream) => self.exchanges.pending.push((stream, id)),
            Err(NotSent::NoRoom | NotSent::Ending | NotSent::NoStream)
                if self.waiting.len() < WAITING_MAX =>
            {
                self.waiting.push_back(message.into());
            }
            // The proxy retries queries without an answer.
            Err(_) => {}
        }
    }

    fn send_output(&mut self) {
        if self.http2.has_output() {
            let http2 = &mut self.http2;
            self.transport.send(|out| http2.take_output(out));
        }
    }

    /// Sends queued data, as far as the socket accepts it. `awaited` is the number of replies that
    /// are awaited. The connection ends after an error.
    pub fn flush(&mut self, scratch: &mut Scratch, awaited: usize) -> Result<(), Failure> {
        self.send_output();
        let sent = self.transport.flush(scratch)?;
        if self.acknowledgement.on_sent(sent, awaited, false) {
            self.transport.stream().acknowledge();
        }
        Ok(())
    }

    /// Returns whether received data is to be acknowledged soon, if no query follows.
    pub fn owes_acknowledgement(&self) -> bool {
        self.acknowledgement.is_owed()
    }

    /// Acknowledges received data, unless that is no longer necessary.
    pub fn acknowledge(&mut self) {
        if self.acknowledgement.take() {
            self.transport.stream().acknowledge();
        }
    }

    /// Sends the end of the stream to the peer.
    pub fn close(&mut self, scratch: &mut Scratch) {
        self.transport.close(scratch);
    }
}

/// Returns the id of a message.
fn id_of(message: &[u8]) -> u16 {
    message.first_chunk().copied().map_or(0, u16::from_be_bytes)
}

/// Returns the host of an upstream, and its port if that is not the one of HTTPS (RFC 9110, section
/// 4.2.2). It is the name in the certificate, if there is one.
fn authority(upstream: &Upstream) -> String {
    let host = match (&upstream.name, &upstream.host) {
        (Some(name), _) => name.clone(),
        (None, Host::Name(name, _)) => name.to_string().trim_end_matches('.').to_owned(),
        (None, Host::Address(address)) if address.is_ipv6() => format!("[{}]", address.ip()),
        (None, Host::Address(address)) => address.ip().to_string(),
    };
    match upstream.port() {
        HTTPS_PORT => host,
        port => format!("{host}:{port}"),
    }
}
