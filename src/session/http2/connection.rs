//! A connection: its state, the split of received bytes into frames, and its end.

use super::fields::FieldCollector;
use super::frame::{self, FRAME_HEAD_LEN, FrameHead, FrameKind, PREFACE};
use super::hpack::{HpackDecoder, HpackError, TABLE_LEN_MAX};
use super::outgoing::{Http2Output, RequestHead, TableUpdate};
use super::streams::{PartialBlock, StreamTable};
use super::window::{ReceiveWindow, SendWindow, WINDOW_LEN};
use super::{ErrorCode, Http2Error, Http2Event, Http2Limits, StreamId};

/// The number of control frames that an exchanged message allows, in addition to those that are
/// left of [`Http2Limits::control_frames_max`].
pub(super) const FRAMES_PER_MESSAGE: u32 = 4;

/// The role of our end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Http2Role {
    Client,
    Server,
}

/// The progress of the input.
///
/// ```text
///   Preface (server only) ──► Settings ──► Open ──► Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// This number of bytes of the client's preface is received.
    Preface(usize),
    /// The next frame must be SETTINGS.
    Settings,
    Open,
    Failed(Http2Error),
}

/// The settings of the peer that matter here (RFC 9113, section 6.5.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    /// Maximum number of streams that we may open.
    pub(super) streams_max: u32,
    /// The initial window of a stream, in bytes.
    pub(super) window_len: i32,
}

/// The streams that were recently reset by us, whose late frames are ignored.
#[derive(Debug, Default)]
pub(super) struct RecentResets {
    ids: [u32; 16],
    next: usize,
}

impl RecentResets {
    pub(super) fn add(&mut self, id: StreamId) {
        if let Some(slot) = self.ids.get_mut(self.next) {
            *slot = id.get();
        }
        self.next = (self.next + 1) % self.ids.len();
    }

    pub(super) fn contains(&self, id: StreamId) -> bool {
        self.ids.contains(&id.get())
    }
}

/// The receiver of events.
pub(super) type OnEvent<'a> = &'a mut dyn FnMut(Http2Event<'_>);

/// A connection over which whole HTTP messages are exchanged.
#[derive(Debug)]
pub struct Http2Connection {
    pub(super) role: Http2Role,
    pub(super) limits: Http2Limits,
    pub(super) state: InputState,
    /// The preface of the client has not arrived. This remains after an error.
    is_before_preface: bool,
    /// The peer has sent GOAWAY.
    pub(super) is_peer_ending: bool,
    /// The number of the last stream in our GOAWAY, once it is sent.
    pub(super) shut_down_at: Option<u32>,
    /// An incomplete frame.
    partial: Vec<u8>,
    /// An incomplete header block.
    pub(super) block: Option<Box<PartialBlock>>,
    pub(super) decoder: HpackDecoder,
    pub(super) streams: StreamTable,
    /// The highest number of a stream that the client, at either end, has opened; 0 at first.
    pub(super) last_stream: u32,
    pub(super) resets: RecentResets,
    pub(super) output: Http2Output,
    pub(super) receive_window: ReceiveWindow,
    pub(super) send_window: SendWindow,
    pub(super) peer: PeerSettings,
    /// Client: the fields of every request.
    pub(super) head: Option<Box<RequestHead>>,
    pub(super) table_update: TableUpdate,
    /// The number of bytes of sent content that have not allowed control frames yet.
    pub(super) progress_len: usize,
    /// The number of control frames that are still allowed.
    frames_left: u32,
}

impl Http2Connection {
    /// Creates the client's end of a connection whose requests have this head. The preface is in
    /// the output.
    pub fn client(limits: Http2Limits, head: RequestHead) -> Self {
        let mut connection = Self::new(Http2Role::Client, InputState::Settings, limits);
        connection.head = Some(Box::new(head));
        connection.output.preface();
        let (table_len, list_len) = connection.announced_lens();
        // HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_HEADER_LIST_SIZE.
        connection
            .output
            .settings(&[(1, table_len), (2, 0), (6, list_len)]);
        connection
    }

    /// Creates the server's end of a connection. Its settings are in the output.
    pub fn server(limits: Http2Limits) -> Self {
        let mut connection = Self::new(Http2Role::Server, InputState::Preface(0), limits);
        let (table_len, list_len) = connection.announced_lens();
        // HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE.
        connection
            .output
            .settings(&[(1, table_len), (3, limits.streams_max), (6, list_len)]);
        connection
    }

    fn new(role: Http2Role, state: InputState, limits: Http2Limits) -> Self {
        Self {
            role,
            limits,
            state,
            is_before_preface: state != InputState::Settings,
            is_peer_ending: false,
            shut_down_at: None,
            partial: Vec::new(),
            block: None,
            decoder: HpackDecoder::default(),
            streams: StreamTable::default(),
            last_stream: 0,
            resets: RecentResets::default(),
            output: Http2Output::default(),
            receive_window: ReceiveWindow::new(),
            send_window: SendWindow::new(INITIAL_WINDOW_LEN),
            peer: PeerSettings {
                streams_max: u32::MAX,
                window_len: INITIAL_WINDOW_LEN,
            },
            head: None,
            table_update: TableUpdate::Initial,
            progress_len: 0,
            frames_left: limits.control_frames_max,
        }
    }

    /// Returns the lengths of the dynamic table and of the header list that are announced.
    fn announced_lens(&self) -> (u32, u32) {
        let table_len_max = u32::try_from(TABLE_LEN_MAX).unwrap_or_default();
        let list_len = u32::try_from(self.limits.header_list_len_max).unwrap_or(u32::MAX);
        (self.limits.header_table_len.min(table_len_max), list_len)
    }

    /// Handles received bytes and hands events to the caller. After an error the output has a
    /// GOAWAY frame; the connection is to be closed once that is sent, and its open streams get no
    /// events any more.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        mut on_event: impl FnMut(Http2Event<'_>),
    ) -> Result<(), Http2Error> {
        if let InputState::Failed(error) = self.state {
            return Err(error);
        }
        self.read(bytes, &mut on_event)
            .inspect_err(|error| self.fail(*error))
    }

    fn read(&mut self, bytes: &[u8], on_event: OnEvent<'_>) -> Result<(), Http2Error> {
        let bytes = self.read_preface(bytes)?;
        let mut bytes = self.complete_frame(bytes, on_event)?;
        loop {
            let len = frame::whole_len(bytes)?;
            let Some((whole, rest)) = bytes.split_at_checked(len) else {
                self.partial.extend_from_slice(bytes);
                return Ok(());
            };
            self.on_frame(whole, on_event)?;
            bytes = rest;
        }
    }

    /// Checks the part of the client's preface in `bytes`, and returns the rest.
    fn read_preface<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Http2Error> {
        let InputState::Preface(at) = self.state else {
            return Ok(bytes);
        };
        let expected = PREFACE.get(at..).unwrap_or_default();
        let (now, rest) = bytes.split_at(expected.len().min(bytes.len()));
        if !expected.starts_with(now) {
            return Err(Http2Error::protocol("invalid client preface"));
        }
        self.state = match at + now.len() {
            len if len == PREFACE.len() => InputState::Settings,
            len => InputState::Preface(len),
        };
        self.is_before_preface = self.state != InputState::Settings;
        Ok(rest)
    }

    /// Completes the frame that the last call has received in part, and returns the unread bytes.
    fn complete_frame<'a>(
        &mut self,
        mut bytes: &'a [u8],
        on_event: OnEvent<'_>,
    ) -> Result<&'a [u8], Http2Error> {
        if self.partial.is_empty() {
            return Ok(bytes);
        }
        let mut frame = std::mem::take(&mut self.partial);
        loop {
            let missing = frame::whole_len(&frame)?.saturating_sub(frame.len());
            if missing == 0 {
                self.on_frame(&frame, on_event)?;
                return Ok(bytes);
            }
            if bytes.is_empty() {
                self.partial = frame;
                return Ok(bytes);
            }
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            frame.extend_from_slice(now);
            bytes = later;
        }
    }

    fn on_frame(&mut self, frame: &[u8], on_event: OnEvent<'_>) -> Result<(), Http2Error> {
        let Some(head) = FrameHead::parse(frame) else {
            return Ok(());
        };
        let payload = frame.get(FRAME_HEAD_LEN..).unwrap_or_default();
        let is_settings = head.kind == FrameKind::Settings && !head.has(frame::ACK);
        if self.state == InputState::Settings && !is_settings {
            return Err(Http2Error::protocol("first frame is not SETTINGS"));
        }
        let is_continued = head.kind == FrameKind::Continuation;
        if self.block.is_some() != is_continued {
            return Err(Http2Error::protocol(
                "CONTINUATION expected or not expected",
            ));
        }
        match head.kind {
            FrameKind::Data => self.on_data(head, payload, on_event)?,
            FrameKind::Headers => self.on_headers(head, payload, on_event)?,
            FrameKind::Continuation => self.on_continuation(head, payload, on_event)?,
            FrameKind::RstStream => self.on_rst_stream(head, payload, on_event)?,
            FrameKind::Settings => self.on_settings(head, payload)?,
            FrameKind::Ping => self.on_ping(head, payload)?,
            FrameKind::GoAway => self.on_go_away(head, payload, on_event)?,
            FrameKind::WindowUpdate => self.on_window_update(head, payload, on_event)?,
            FrameKind::Priority => self.on_priority(head, payload)?,
            FrameKind::PushPromise => return Err(Http2Error::protocol("PUSH_PROMISE")),
            FrameKind::Unknown => self.count_control_frame()?,
        }
        self.output.check()
    }

    /// Counts a frame that contributes to no message.
    pub(super) fn count_control_frame(&mut self) -> Result<(), Http2Error> {
        let left = self.frames_left.checked_sub(1);
        self.frames_left = left.ok_or(Http2Error::calm("too many frames without a message"))?;
        Ok(())
    }

    /// Allows `number` more control frames, because a message was exchanged or frames are expected.
    pub(super) fn allow_control_frames(&mut self, number: u32) {
        let left = self.frames_left.saturating_add(number);
        self.frames_left = left.min(self.limits.control_frames_max);
    }

    /// Resets a stream that the peer has violated, and reports the end of an exchange.
    pub(super) fn reset(
        &mut self,
        id: StreamId,
        code: ErrorCode,
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        self.count_control_frame()?;
        self.send_reset(id, code);
        self.end_stream(id, code, on_event);
        Ok(())
    }

    /// Sends `RST_STREAM`.
    pub(super) fn send_reset(&mut self, id: StreamId, code: ErrorCode) {
        self.output.rst_stream(id.get(), code);
        self.resets.add(id);
    }

    fn fail(&mut self, error: Http2Error) {
        self.state = InputState::Failed(error);
        self.send_go_away(error.code);
        self.partial = Vec::new();
        self.block = None;
        self.streams = StreamTable::default();
        self.decoder = HpackDecoder::default();
        self.head = None;
    }

    fn send_go_away(&mut self, code: ErrorCode) {
        let last_stream = match self.role {
            Http2Role::Client => 0,
            Http2Role::Server => self.last_stream,
        };
        // A later GOAWAY must not have a higher number (RFC 9113, section 6.8).
        let last_stream = self
            .shut_down_at
            .map_or(last_stream, |at| at.min(last_stream));
        self.output.go_away(last_stream, code);
        self.shut_down_at = Some(last_stream);
    }

    /// Sends GOAWAY: no more streams are opened or accepted, and open streams continue. The
    /// connection can be closed when [`Http2Connection::open_streams`] is 0.
    pub fn shut_down(&mut self) {
        if self.shut_down_at.is_none() {
            self.send_go_away(ErrorCode::None);
        }
    }

    /// Returns the number of open streams. A stream of a server is open until its response is sent
    /// or queued in the output.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns whether the connection ends once its open streams have ended: either end has sent
    /// GOAWAY.
    pub fn is_ending(&self) -> bool {
        self.is_peer_ending || self.shut_down_at.is_some()
    }

    /// Returns the number of bytes that are to be sent: those of the output, and content that waits
    /// for the window of the peer.
    pub fn unsent_len(&self) -> usize {
        self.output.len() + self.streams.waiting_len()
    }

    /// Returns the number of allocated bytes of content that waits for the window of the peer.
    pub fn waiting_len(&self) -> usize {
        self.streams.waiting_len()
    }

    /// Server: returns whether the client has sent the preface of HTTP/2 (RFC 9113, section 3.4).
    pub fn has_preface(&self) -> bool {
        !self.is_before_preface
    }

    /// Returns the number of allocated bytes, for memory accounting.
    pub fn allocated_len(&self) -> usize {
        let block_len = self.block.as_ref().map_or(0, |block| block.allocated_len());
        let head_len = self.head.as_ref().map_or(0, |head| head.allocated_len());
        self.partial.capacity()
            + block_len
            + head_len
            + self.decoder.allocated_len()
            + self.streams.allocated_len()
            + self.output.allocated_len()
    }

    /// Returns whether the output has bytes.
    pub fn has_output(&self) -> bool {
        self.output.len() > 0
    }

    /// Appends the bytes that are to be sent to `out`, in constant time if `out` has no capacity.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        self.output.take(out);
    }

    /// Decodes a header block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<FieldCollector, Http2Error> {
        let mut fields = FieldCollector::default();
        let list_len_max = self.limits.header_list_len_max;
        let mut on_field = |name: &[u8], value: &[u8]| fields.add(name, value);
        let result = self.decoder.decode(block, list_len_max, &mut on_field);
        match result {
            Ok(()) => Ok(fields),
            Err(HpackError::TooLong) => Err(Http2Error::calm("header list is too long")),
            Err(HpackError::Invalid) => {
                let detail = "invalid header block";
                Err(Http2Error::new(ErrorCode::Compression, detail))
            }
        }
    }
}

const INITIAL_WINDOW_LEN: i32 = WINDOW_LEN.cast_signed();
