//! Sessions of upstreams: a UDP socket for one query, and a TCP, TLS or HTTP/2 connection.

mod acknowledgement;
pub mod datagram;
pub mod http2;
pub mod stream;

use crate::base::failure::Failure;
use crate::session::{Scratch, Step, Stream};
use http2::UpstreamHttp2;
use stream::{UpstreamEvent, UpstreamStream};

/// A connection to an upstream over `S`. All calls are those of the variants.
pub enum UpstreamConnection<S> {
    /// DNS over TCP or TLS.
    Stream(UpstreamStream<S>),
    /// DNS over HTTPS.
    Http2(Box<UpstreamHttp2<S>>),
}

impl<S: Stream> UpstreamConnection<S> {
    /// Returns whether the connection uses HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// See [`UpstreamStream::ready`].
    pub fn ready(
        &mut self,
        scratch: &mut Scratch,
        bytes_max: usize,
        mut on_event: impl FnMut(UpstreamEvent<'_>),
    ) -> Result<Step, Failure> {
        match self {
            Self::Stream(stream) => stream.ready(scratch, bytes_max, on_event),
            Self::Http2(http2) => http2.ready(scratch, bytes_max, &mut on_event),
        }
    }

    /// See [`UpstreamStream::stream`].
    pub fn stream(&mut self) -> &mut S {
        match self {
            Self::Stream(stream) => stream.stream(),
            Self::Http2(http2) => http2.stream(),
        }
    }

    /// Returns the certificate of the upstream, if it has sent one.
    pub fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Stream(stream) => stream.certificate(),
            Self::Http2(http2) => http2.certificate(),
        }
    }

    /// See [`UpstreamStream::is_connected_only`].
    pub fn is_connected_only(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_connected_only(),
            Self::Http2(http2) => http2.is_connected_only(),
        }
    }

    /// See [`UpstreamStream::is_handshaking`].
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_handshaking(),
            Self::Http2(http2) => http2.is_handshaking(),
        }
    }

    /// Returns whether another call of [`UpstreamConnection::ready`] reports events without input.
    pub fn has_events(&self) -> bool {
        match self {
            Self::Stream(_) => false,
            Self::Http2(http2) => http2.has_refused(),
        }
    }

    /// See [`UpstreamStream::send`].
    pub fn send(&mut self, message: &[u8]) {
        match self {
            Self::Stream(stream) => stream.send(message),
            Self::Http2(http2) => http2.send(message),
        }
    }

    /// See [`UpstreamStream::flush`].
    pub fn flush(&mut self, scratch: &mut Scratch, awaited: usize) -> Result<(), Failure> {
        match self {
            Self::Stream(stream) => stream.flush(scratch, awaited),
            Self::Http2(http2) => http2.flush(scratch, awaited),
        }
    }

    /// See [`UpstreamStream::owes_acknowledgement`].
    pub fn owes_acknowledgement(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.owes_acknowledgement(),
            Self::Http2(http2) => http2.owes_acknowledgement(),
        }
    }

    /// See [`UpstreamStream::acknowledge`].
    pub fn acknowledge(&mut self) {
        match self {
            Self::Stream(stream) => stream.acknowledge(),
            Self::Http2(http2) => http2.acknowledge(),
        }
    }

    /// See [`UpstreamStream::close`].
    pub fn close(&mut self, scratch: &mut Scratch) {
        match self {
            Self::Stream(stream) => stream.close(scratch),
            Self::Http2(http2) => http2.close(scratch),
        }
    }
}
