//! HTTP/2 (RFC 9113) for DNS over HTTPS (RFC 8484), without I/O: bytes in, whole messages out.
//!
//! [`Http2Connection`] is one connection in the role of a client (to an upstream) or of a server
//! (for a listener). Its owner passes received bytes to [`Http2Connection::receive`], in any
//! pieces, and sends the bytes of [`Http2Connection::take_output`]. A message is reported when its
//! body is complete; there are no partial messages in either direction.
//!
//! ```text
//!             receive ──► frame ──► hpack, huffman ──► fields
//!                           │                            │
//!                           ▼                            ▼
//!   take_output ◄── outgoing ◄── streams, window ──► Http2Event
//! ```
//!
//! Not supported: server push, priorities, and bodies that are streamed. The server's end reports
//! requests with any method, and its owner refuses those that it does not serve.
//!
//! # Invariants
//!
//! - Every table, buffer and counter has a bound in [`Http2Limits`]. A peer that exceeds one gets
//!   the error code `ENHANCE_YOUR_CALM`, for a stream or for the connection.
//! - A stream that was reported as a request ends with one response or one
//!   [`Http2Event::Reset`]. A request that was sent ends with one [`Http2Event::Response`],
//!   [`Http2Event::Refused`] or [`Http2Event::Failed`], unless it is cancelled or the connection
//!   fails.
//! - An idle connection holds no buffer: only the dynamic table of HPACK, which has at most 4,096
//!   bytes and takes memory with its first entry, and a table for four streams.

mod connection;
mod control;
mod fields;
mod frame;
mod hpack;
mod huffman;
mod incoming;
mod outgoing;
mod sending;
mod static_table;
mod streams;
#[cfg(test)]
mod tests;
mod window;

use crate::config::bounds::HTTP2_STREAMS_MAX;

pub use connection::Http2Connection;
pub use fields::{DNS_MESSAGE, Http2Method, RequestFields};
pub use outgoing::{InvalidRequestHead, RequestHead, ResponseHead};
pub use sending::NotSent;

/// The identifier of a stream, between 1 and 2^31 - 1 (RFC 9113, section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// The largest identifier.
    const MAX: Self = Self(0x7fff_ffff);

    /// Returns the number of the stream.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Returns whether a client opens this stream.
    fn is_from_client(self) -> bool {
        self.0 % 2 == 1
    }
}

/// An event on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Event<'a> {
    /// Server: a whole request, to be answered by [`Http2Connection::respond`] after
    /// [`Http2Connection::receive`] has returned. A request with content that is too long is
    /// reported early and without its content ([`RequestFields::is_too_long`]).
    Request {
        /// The stream of the request and of its response.
        stream: StreamId,
        /// The header fields.
        fields: &'a RequestFields,
        /// The content; a GET request mostly has none.
        body: &'a [u8],
    },
    /// Server: a request needs no response any more. The client or the connection has reset its
    /// stream.
    Reset {
        /// The stream of the request.
        stream: StreamId,
    },
    /// Client: a whole response.
    Response {
        /// The stream of the request.
        stream: StreamId,
        /// The status code (RFC 9110, section 15), at least 200.
        status: u16,
        /// The content is `application/dns-message`.
        is_dns_message: bool,
        /// The content.
        body: &'a [u8],
    },
    /// Client: the upstream has not processed the request. A retry is safe (RFC 9113, section
    /// 8.7).
    Refused {
        /// The stream of the request.
        stream: StreamId,
    },
    /// Client: a request failed, and the upstream may have processed it.
    Failed {
        /// The stream of the request.
        stream: StreamId,
    },
    /// The peer opens or accepts no more streams (RFC 9113, section 6.8). Client: the streams above
    /// `last_stream` are reported as refused before this event.
    GoAway {
        /// The number of the last stream that the peer may process; 0 if it processes none.
        last_stream: u32,
        /// The error code; 0 if the peer shuts down gracefully.
        code: u32,
    },
}

/// The limits of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Maximum number of open streams.
    pub streams_max: u32,
    /// Maximum length of the body of a message, in bytes.
    pub body_len_max: usize,
    /// Server: maximum number of bytes of content that are read and dropped after content that is
    /// too long, before its stream is reset.
    pub discarded_len_max: usize,
    /// Maximum total length of the received parts of incomplete bodies, in bytes.
    pub incomplete_len_max: usize,
    /// Maximum length of a header block, and of the header list in it with 32 more bytes for each
    /// field (RFC 9113, section 10.5.1).
    pub header_list_len_max: usize,
    /// Maximum number of CONTINUATION frames in a header block (CVE-2024-27316).
    pub continuations_max: u32,
    /// Maximum number of settings in a SETTINGS frame.
    pub settings_max: usize,
    /// Maximum number of frames without a message: PING, SETTINGS, PRIORITY, GOAWAY,
    /// `WINDOW_UPDATE`, `RST_STREAM` in both directions (CVE-2023-44487, CVE-2025-8671), interim
    /// responses, messages on closed streams, unknown and empty frames. Each exchanged message and
    /// each request of a client that it cancels or that the server resets allows four more, and
    /// content that waited allows `WINDOW_UPDATE`.
    pub control_frames_max: u32,
    /// Maximum number of bytes of messages that are not taken from the output or that wait for
    /// the window of the peer. Control frames may take [`CONTROL_LEN_MAX`] bytes more.
    pub unsent_len_max: usize,
    /// Maximum length of the dynamic table that is announced to the peer. The decoder accepts
    /// 4,096 bytes in any case: peers use them before they have read the settings, and some do not
    /// apply the settings.
    pub header_table_len: u32,
}

/// Maximum number of unsent bytes of control frames, in addition to those of messages.
pub const CONTROL_LEN_MAX: usize = 4096;

impl Http2Limits {
    /// The limits without settings of an owner.
    pub const DEFAULT: Self = Self {
        streams_max: 100,
        body_len_max: 65_535,
        discarded_len_max: 65_535,
        incomplete_len_max: 256 * 1024,
        header_list_len_max: 8 * 1024,
        continuations_max: 4,
        settings_max: 32,
        control_frames_max: 100,
        unsent_len_max: 256 * 1024,
        header_table_len: 0,
    };

    /// The limits of a connection to an upstream. The dynamic table lets the upstream send most
    /// fields of a response as one byte, and makes decoding cheaper. nginx sends a
    /// `WINDOW_UPDATE` for each request before the first response.
    pub const CLIENT: Self = Self {
        header_table_len: 4096,
        control_frames_max: 4 * Self::DEFAULT.control_frames_max,
        ..Self::DEFAULT
    };
}

const _: () = assert!(Http2Limits::CLIENT.streams_max as usize == HTTP2_STREAMS_MAX);

impl Default for Http2Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The error codes of HTTP/2 that are sent or compared (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// `NO_ERROR`
    None = 0,
    /// `PROTOCOL_ERROR`
    Protocol = 1,
    /// `FLOW_CONTROL_ERROR`
    FlowControl = 3,
    /// `STREAM_CLOSED`
    StreamClosed = 5,
    /// `FRAME_SIZE_ERROR`
    FrameSize = 6,
    /// `REFUSED_STREAM`
    RefusedStream = 7,
    /// `CANCEL`
    Cancel = 8,
    /// `COMPRESSION_ERROR`
    Compression = 9,
    /// `ENHANCE_YOUR_CALM`
    EnhanceYourCalm = 11,
}

/// An error that ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Error {
    /// The code of the GOAWAY frame in the output.
    pub code: ErrorCode,
    /// The cause.
    pub detail: &'static str,
}

impl Http2Error {
    const fn new(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, detail }
    }

    const fn protocol(detail: &'static str) -> Self {
        Self::new(ErrorCode::Protocol, detail)
    }

    const fn calm(detail: &'static str) -> Self {
        Self::new(ErrorCode::EnhanceYourCalm, detail)
    }
}
