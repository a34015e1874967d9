//! Received messages: HEADERS, CONTINUATION and DATA frames.

use super::connection::{FRAMES_PER_MESSAGE, Http2Connection, Http2Role, OnEvent};
use super::fields::{FieldCollector, ResponseFields};
use super::frame::{END_HEADERS, END_STREAM, FrameHead};
use super::streams::{Http2Stream, Incoming, OwnerPhase, PartialBlock, ReceivedHead};
use super::{ErrorCode, Http2Error, Http2Event, StreamId};

/// The reaction to content.
enum DataOutcome {
    /// The content is handled, and the stream window is to be extended by this number of bytes.
    Kept(u32),
    /// The content is dropped, and the message is complete.
    Dropped,
    /// The message is complete.
    Complete,
    /// The content exceeds its maximum length.
    TooLong,
    /// The stream is to be reset.
    Violation(ErrorCode),
}

impl Http2Connection {
    /// Returns the stream of a frame that must have one.
    pub(super) fn stream_of(head: FrameHead) -> Result<StreamId, Http2Error> {
        match head.stream {
            0 => Err(Http2Error::protocol("frame without a stream")),
            number => Ok(StreamId(number)),
        }
    }

    /// Returns whether a stream has not been opened yet.
    pub(super) fn is_idle(&self, id: StreamId) -> bool {
        !id.is_from_client() || id.get() > self.last_stream
    }

    pub(super) fn on_headers(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        let stream = Self::stream_of(head)?;
        let fragment = head.content(payload)?;
        let is_last = head.has(END_STREAM);
        self.check_block_len(fragment.len())?;
        if head.has(END_HEADERS) {
            return self.on_block(stream, is_last, fragment, on_event);
        }
        self.block = Some(Box::new(PartialBlock {
            stream,
            is_last,
            bytes: fragment.to_vec(),
            continuations: 0,
        }));
        Ok(())
    }

    pub(super) fn on_continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        let Some(mut block) = self.block.take() else {
            return Ok(());
        };
        if head.stream != block.stream.get() {
            return Err(Http2Error::protocol("CONTINUATION of another stream"));
        }
        block.continuations += 1;
        if block.continuations > self.limits.continuations_max {
            return Err(Http2Error::calm("too many CONTINUATION frames"));
        }
        self.check_block_len(block.bytes.len() + payload.len())?;
        block.bytes.extend_from_slice(payload);
        if head.has(END_HEADERS) {
            return self.on_block(block.stream, block.is_last, &block.bytes, on_event);
        }
        self.block = Some(block);
        Ok(())
    }

    fn check_block_len(&self, len: usize) -> Result<(), Http2Error> {
        if len > self.limits.header_list_len_max {
            return Err(Http2Error::calm("header block is too long"));
        }
        Ok(())
    }

    /// Handles a whole header block. Every block is decoded, because it may change the dynamic
    /// table.
    fn on_block(
        &mut self,
        id: StreamId,
        is_last: bool,
        block: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        let is_idle = self.is_idle(id);
        if is_idle && (self.role == Http2Role::Client || !id.is_from_client()) {
            return Err(Http2Error::protocol(
                "HEADERS on a stream that the peer cannot open",
            ));
        }
        let fields = self.decode(block)?;
        if is_idle {
            return self.on_request(id, is_last, fields, on_event);
        }
        match self.streams.get(id).map(|stream| stream.incoming) {
            Some(Incoming::Head) => match fields.into_response() {
                Ok(response) => self.on_response(id, is_last, response, on_event),
                Err(_) => self.reset(id, ErrorCode::Protocol, on_event),
            },
            Some(Incoming::Body | Incoming::Discarded { .. }) => {
                if !is_last || fields.check_trailers().is_err() {
                    return self.reset(id, ErrorCode::Protocol, on_event);
                }
                self.on_content(id, true, 0, &[], on_event)
            }
            Some(Incoming::Ended) => self.reset(id, ErrorCode::StreamClosed, on_event),
            None => {
                let is_new = self.role == Http2Role::Server && !self.resets.contains(id);
                if is_new {
                    let detail = "HEADERS on a closed stream";
                    return Err(Http2Error::new(ErrorCode::StreamClosed, detail));
                }
                self.on_closed_stream(id, on_event)
            }
        }
    }

    /// Server: handles the fields of a new request.
    fn on_request(
        &mut self,
        id: StreamId,
        is_last: bool,
        fields: FieldCollector,
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        self.last_stream = id.get();
        let streams_max = usize::try_from(self.limits.streams_max).unwrap_or(usize::MAX);
        if self.shut_down_at.is_some() || self.streams.len() >= streams_max {
            return self.reset(id, ErrorCode::RefusedStream, on_event);
        }
        let Ok(request) = fields.into_request() else {
            return self.reset(id, ErrorCode::Protocol, on_event);
        };
        let (phase, window_len) = (OwnerPhase::Unreported, self.peer.window_len);
        let mut stream = Http2Stream::new(id, Incoming::Body, phase, window_len);
        stream.is_for_head = request.method == super::Http2Method::Head;
        let content_len = request.content_len.unwrap_or_default();
        let len_max = u64::try_from(self.limits.body_len_max).unwrap_or(u64::MAX);
        stream.head = ReceivedHead::Request(request);
        self.streams.push(stream);
        if content_len > len_max && !is_last {
            return self.on_too_long(id, false, on_event);
        }
        self.on_content(id, is_last, 0, &[], on_event)
    }

    /// Client: handles the fields of a response.
    fn on_response(
        &mut self,
        id: StreamId,
        is_last: bool,
        response: ResponseFields,
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        if response.status < 200 {
            // An interim response, which another one follows.
            if is_last {
                return self.reset(id, ErrorCode::Protocol, on_event);
            }
            return self.count_control_frame();
        }
        self.streams.update(id, |stream| {
            stream.incoming = Incoming::Body;
            stream.head = ReceivedHead::Response(response);
        });
        self.on_content(id, is_last, 0, &[], on_event)
    }

    pub(super) fn on_data(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        let id = Self::stream_of(head)?;
        let data = head.content(payload)?;
        // Padding counts as well (RFC 9113, section 6.9.1).
        let window_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.receive_window.consume(window_len).map_err(|_| {
            let detail = "DATA exceeds the window of the connection";
            Http2Error::new(ErrorCode::FlowControl, detail)
        })?;
        self.output.window_update(0, self.receive_window.refill());
        if self.is_idle(id) {
            return Err(Http2Error::protocol("DATA on an idle stream"));
        }
        let is_last = head.has(END_STREAM);
        if data.is_empty() && !is_last {
            self.count_control_frame()?;
        }
        if self.streams.get(id).is_none() {
            return self.on_closed_stream(id, on_event);
        }
        self.on_content(id, is_last, window_len, data, on_event)
    }

    /// Handles content, or the end of a message without content, on an open stream.
    fn on_content(
        &mut self,
        id: StreamId,
        is_last: bool,
        window_len: u32,
        data: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        let len_max = self.limits.body_len_max;
        let update =
            |stream: &mut Http2Stream| add_content(stream, is_last, window_len, data, len_max);
        let Some(outcome) = self.streams.update(id, update) else {
            return Ok(());
        };
        match outcome {
            DataOutcome::Complete => {
                self.on_complete(id, data, on_event);
                Ok(())
            }
            DataOutcome::Kept(_)
                if self.streams.received_len() > self.limits.incomplete_len_max =>
            {
                self.reset(id, ErrorCode::EnhanceYourCalm, on_event)
            }
            DataOutcome::Kept(update) => {
                self.output.window_update(id.get(), update);
                Ok(())
            }
            DataOutcome::Dropped => {
                self.end_if_sent(id);
                Ok(())
            }
            DataOutcome::TooLong => self.on_too_long(id, is_last, on_event),
            DataOutcome::Violation(code) => self.reset(id, code, on_event),
        }
    }

    /// Reports a complete message, which ends with `data`.
    fn on_complete(&mut self, id: StreamId, data: &[u8], on_event: OnEvent<'_>) {
        let taken = self.streams.update(id, |stream| {
            (stream.incoming, stream.phase) = (Incoming::Ended, OwnerPhase::Pending);
            let head = std::mem::replace(&mut stream.head, ReceivedHead::None);
            (head, std::mem::take(&mut stream.body))
        });
        let Some((head, mut received)) = taken else {
            return;
        };
        let body = if received.is_empty() {
            data
        } else {
            received.extend_from_slice(data);
            &received
        };
        match head {
            ReceivedHead::Request(fields) => {
                let (stream, fields) = (id, &fields);
                on_event(Http2Event::Request {
                    stream,
                    fields,
                    body,
                });
            }
            ReceivedHead::Response(response) => {
                self.allow_control_frames(FRAMES_PER_MESSAGE);
                // The upstream may respond before it has the whole request.
                if self
                    .streams
                    .remove(id)
                    .is_some_and(|stream| stream.is_waiting())
                {
                    self.send_reset(id, ErrorCode::Cancel);
                }
                on_event(Http2Event::Response {
                    stream: id,
                    status: response.status,
                    is_dns_message: response.is_dns_message,
                    body,
                });
            }
            ReceivedHead::None => {}
        }
    }

    /// Handles content that exceeds its maximum length.
    fn on_too_long(
        &mut self,
        id: StreamId,
        is_last: bool,
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        if self.role == Http2Role::Client {
            return self.reset(id, ErrorCode::Cancel, on_event);
        }
        let head = self.streams.update(id, |stream| {
            stream.incoming = if is_last {
                Incoming::Ended
            } else {
                Incoming::Discarded {
                    len_left: self.limits.discarded_len_max,
                }
            };
            stream.phase = OwnerPhase::Pending;
            stream.body = Vec::new();
            std::mem::replace(&mut stream.head, ReceivedHead::None)
        });
        if let Some(ReceivedHead::Request(mut fields)) = head {
            fields.is_too_long = true;
            let fields = &fields;
            let (stream, body) = (id, &[][..]);
            on_event(Http2Event::Request {
                stream,
                fields,
                body,
            });
        }
        Ok(())
    }

    /// Handles a message frame on a stream that is not open any more.
    fn on_closed_stream(&mut self, id: StreamId, on_event: OnEvent<'_>) -> Result<(), Http2Error> {
        if self.resets.contains(id) {
            return self.count_control_frame();
        }
        self.reset(id, ErrorCode::StreamClosed, on_event)
    }

    /// Removes a stream that has ended with an error, and reports the end of its exchange.
    pub(super) fn end_stream(&mut self, id: StreamId, code: ErrorCode, on_event: OnEvent<'_>) {
        let Some(stream) = self.streams.remove(id) else {
            return;
        };
        if stream.phase != OwnerPhase::Pending {
            return;
        }
        let stream = id;
        on_event(match (self.role, code) {
            (Http2Role::Server, _) => Http2Event::Reset { stream },
            (Http2Role::Client, ErrorCode::RefusedStream) => Http2Event::Refused { stream },
            (Http2Role::Client, _) => Http2Event::Failed { stream },
        });
    }
}

/// Adds content to a message.
fn add_content(
    stream: &mut Http2Stream,
    is_last: bool,
    window_len: u32,
    data: &[u8],
    len_max: usize,
) -> DataOutcome {
    if stream.receive_window.consume(window_len).is_err() {
        return DataOutcome::Violation(ErrorCode::FlowControl);
    }
    match stream.incoming {
        Incoming::Head => return DataOutcome::Violation(ErrorCode::Protocol),
        Incoming::Ended => return DataOutcome::Violation(ErrorCode::StreamClosed),
        Incoming::Discarded { .. } if is_last => {
            stream.incoming = Incoming::Ended;
            return DataOutcome::Dropped;
        }
        Incoming::Discarded { len_left } => {
            let Some(len_left) = len_left.checked_sub(data.len()) else {
                return DataOutcome::Violation(ErrorCode::None);
            };
            stream.incoming = Incoming::Discarded { len_left };
            return DataOutcome::Kept(stream.receive_window.refill());
        }
        Incoming::Body => {}
    }
    let len = stream.body.len() + data.len();
    let expected_len = stream.head.content_len();
    let len_u64 = u64::try_from(len).unwrap_or(u64::MAX);
    // A response without content may have the length of another one (RFC 9110, section 8.6).
    let is_without_content = matches!(
        &stream.head,
        ReceivedHead::Response(response) if response.status == 304 && len == 0
    );
    let is_mismatch = expected_len.is_some_and(|expected| {
        len_u64 > expected || is_last && len_u64 < expected && !is_without_content
    });
    if is_mismatch {
        DataOutcome::Violation(ErrorCode::Protocol)
    } else if len > len_max {
        DataOutcome::TooLong
    } else if is_last {
        DataOutcome::Complete
    } else {
        stream.body.extend_from_slice(data);
        DataOutcome::Kept(stream.receive_window.refill())
    }
}
