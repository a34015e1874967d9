//! The open streams of a connection, and the memory of their messages.

use std::collections::VecDeque;

use super::StreamId;
use super::fields::{RequestFields, ResponseFields};
use super::window::{ReceiveWindow, SendWindow};

/// The part of a message that the peer is to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Client: the header fields of the final response.
    Head,
    /// Content or trailers.
    Body,
    /// Server: content that is too long and not kept. Up to `len_left` more bytes are read: some
    /// clients read a response only after they have sent the request.
    Discarded { len_left: usize },
    /// Nothing: the message is complete.
    Ended,
}

/// The event that the owner of the connection waits for, or the call that it owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerPhase {
    /// Server: the request is incomplete and not yet reported.
    Unreported,
    /// Client: the request is sent and the owner expects an event. Server: the request is reported
    /// and the owner will respond, unless [`super::Http2Event::Reset`] is reported.
    Pending,
    /// Server: the response is queued.
    Responded,
}

/// The header fields that were received on a stream.
#[derive(Debug)]
pub(super) enum ReceivedHead {
    None,
    Request(RequestFields),
    Response(ResponseFields),
}

impl ReceivedHead {
    pub(super) fn content_len(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Request(fields) => fields.content_len,
            Self::Response(fields) => fields.content_len,
        }
    }
}

/// A header block that CONTINUATION frames complete.
#[derive(Debug)]
pub(super) struct PartialBlock {
    pub(super) stream: StreamId,
    /// The HEADERS frame has the flag `END_STREAM`.
    pub(super) is_last: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) continuations: u32,
}

impl PartialBlock {
    pub(super) fn allocated_len(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Http2Stream {
    pub(super) id: StreamId,
    pub(super) incoming: Incoming,
    pub(super) phase: OwnerPhase,
    pub(super) receive_window: ReceiveWindow,
    pub(super) send_window: SendWindow,
    pub(super) head: ReceivedHead,
    /// Server: the response has no content (HEAD).
    pub(super) is_for_head: bool,
    /// The received content of the incomplete message.
    pub(super) body: Vec<u8>,
    /// Content that waits for the window of the peer, from `sent_len`.
    pub(super) unsent: Vec<u8>,
    pub(super) sent_len: usize,
}

impl Http2Stream {
    pub(super) fn new(id: StreamId, incoming: Incoming, phase: OwnerPhase, window: i32) -> Self {
        Self {
            id,
            incoming,
            phase,
            receive_window: ReceiveWindow::new(),
            send_window: SendWindow::new(window),
            head: ReceivedHead::None,
            is_for_head: false,
            body: Vec::new(),
            unsent: Vec::new(),
            sent_len: 0,
        }
    }

    /// Returns whether content waits for the window of the peer.
    pub(super) fn is_waiting(&self) -> bool {
        self.sent_len < self.unsent.len()
    }

    /// Returns the number of bytes that are held of an incomplete message.
    fn received_len(&self) -> usize {
        let head_len = match &self.head {
            ReceivedHead::Request(fields) => fields.allocated_len(),
            ReceivedHead::None | ReceivedHead::Response(_) => 0,
        };
        head_len + self.body.capacity()
    }
}

/// The open streams, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct StreamTable {
    /// A message mostly ends one of the first streams, which is removed in constant time.
    streams: VecDeque<Http2Stream>,
    /// The number of bytes that are held of incomplete messages.
    received_len: usize,
    /// The number of allocated bytes of content that waits for the window of the peer.
    waiting_len: usize,
}

/// The capacity of an empty table, in streams. A larger allocation is released.
const IDLE_CAPACITY: usize = 4;

impl StreamTable {
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn received_len(&self) -> usize {
        self.received_len
    }

    pub(super) fn waiting_len(&self) -> usize {
        self.waiting_len
    }

    pub(super) fn allocated_len(&self) -> usize {
        self.streams.capacity() * size_of::<Http2Stream>() + self.received_len + self.waiting_len
    }

    fn position(&self, id: StreamId) -> Option<usize> {
        if self.streams.front().is_some_and(|first| first.id == id) {
            return Some(0);
        }
        let found = self.streams.binary_search_by_key(&id, |stream| stream.id);
        found.ok()
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Http2Stream> {
        self.streams.get(self.position(id)?)
    }

    /// Returns the first stream with a number above `id`, or the first of all.
    pub(super) fn next(&self, id: Option<StreamId>) -> Option<&Http2Stream> {
        let at = self.streams.partition_point(|stream| Some(stream.id) <= id);
        self.streams.get(at)
    }

    /// Adds a stream with a number above those of all others.
    pub(super) fn push(&mut self, stream: Http2Stream) {
        self.received_len += stream.received_len();
        self.waiting_len += stream.unsent.capacity();
        self.streams.push_back(stream);
    }

    /// Changes a stream.
    pub(super) fn update<R>(
        &mut self,
        id: StreamId,
        change: impl FnOnce(&mut Http2Stream) -> R,
    ) -> Option<R> {
        let at = self.position(id)?;
        let stream = self.streams.get_mut(at)?;
        let (received_len, waiting_len) = (stream.received_len(), stream.unsent.capacity());
        let result = change(stream);
        self.received_len = self.received_len - received_len + stream.received_len();
        self.waiting_len = self.waiting_len - waiting_len + stream.unsent.capacity();
        Some(result)
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Http2Stream> {
        let at = self.position(id)?;
        let stream = self.streams.remove(at)?;
        self.received_len -= stream.received_len();
        self.waiting_len -= stream.unsent.capacity();
        if self.streams.is_empty() && self.streams.capacity() > IDLE_CAPACITY {
            self.streams = VecDeque::new();
        }
        Some(stream)
    }

    /// Changes the send windows of all streams.
    pub(super) fn send_windows(&mut self) -> impl Iterator<Item = &mut SendWindow> {
        self.streams
            .iter_mut()
            .map(|stream| &mut stream.send_window)
    }
}
