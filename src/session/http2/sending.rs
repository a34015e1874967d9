//! Sent messages: requests, responses, and content that waits for the windows of the peer.

use super::connection::{FRAMES_PER_MESSAGE, Http2Connection, Http2Role, InputState};
use super::frame::PAYLOAD_LEN_MAX;
use super::outgoing::{Http2Output, RequestHead, ResponseHead, TableUpdate};
use super::streams::{Http2Stream, Incoming, OwnerPhase};
use super::window::SendWindow;
use super::{ErrorCode, StreamId};

/// The reason for which a message is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The peer allows no more streams now, or too many bytes are unsent.
    NoRoom,
    /// The connection opens no more streams: it has failed or is shut down, the peer has sent
    /// GOAWAY, or the numbers of streams are used up.
    Ending,
    /// The stream has no request that awaits a response.
    NoStream,
}

/// The number of bytes of sent content that allow more control frames: a peer that reads content in
/// small parts sends many `WINDOW_UPDATE` frames; one that reads only a few bytes at a time is
/// treated as an attacker.
const PROGRESS_LEN: usize = 256;

/// The number of control frames that [`PROGRESS_LEN`] allows: a `WINDOW_UPDATE` of the stream and
/// one of the connection.
const FRAMES_PER_PROGRESS: u32 = 2;

impl Http2Connection {
    /// Client: returns the number of streams that can be opened now.
    pub fn room(&self) -> usize {
        let is_open = !matches!(self.state, InputState::Failed(_)) && !self.is_ending();
        if !is_open || self.next_stream().is_none() {
            return 0;
        }
        let streams_max = self.limits.streams_max.min(self.peer.streams_max);
        let streams_max = usize::try_from(streams_max).unwrap_or(usize::MAX);
        streams_max.saturating_sub(self.streams.len())
    }

    /// Returns the next stream of the client, unless the numbers are used up.
    fn next_stream(&self) -> Option<StreamId> {
        let number = match self.last_stream {
            0 => 1,
            last => last.checked_add(2)?,
        };
        (self.role == Http2Role::Client && number <= StreamId::MAX.get())
            .then_some(StreamId(number))
    }

    /// Client: sends a POST request with a DNS message, and returns its stream.
    pub fn request(&mut self, body: &[u8]) -> Result<StreamId, NotSent> {
        let id = self.next_stream().ok_or(NotSent::Ending)?;
        let head = self.head.take().ok_or(NotSent::Ending)?;
        let result = self.request_with(&head, id, body);
        self.head = Some(head);
        result
    }

    fn request_with(
        &mut self,
        head: &RequestHead,
        id: StreamId,
        body: &[u8],
    ) -> Result<StreamId, NotSent> {
        if self.is_ending() {
            return Err(NotSent::Ending);
        }
        let unsent_len = self.unsent_len() + head.len_max() + body.len();
        if self.room() == 0 || unsent_len > self.limits.unsent_len_max {
            return Err(NotSent::NoRoom);
        }
        self.last_stream = id.get();
        let table_update = self.take_table_update();
        self.output
            .request(id.get(), table_update, head, body.len());
        let (phase, window_len) = (OwnerPhase::Pending, self.peer.window_len);
        let mut stream = Http2Stream::new(id, Incoming::Head, phase, window_len);
        send_body(&mut self.output, &mut self.send_window, &mut stream, body);
        self.streams.push(stream);
        Ok(id)
    }

    /// Server: responds to a request. If too many bytes are unsent, because the client does not
    /// read, the stream is reset and [`NotSent::NoRoom`] is returned.
    pub fn respond(
        &mut self,
        stream: StreamId,
        head: &ResponseHead<'_>,
        body: &[u8],
    ) -> Result<(), NotSent> {
        let id = stream;
        let is_server = self.role == Http2Role::Server;
        let stream = self.streams.get(id).filter(|_| is_server);
        let stream = stream.filter(|stream| stream.phase == OwnerPhase::Pending);
        let is_for_head = stream.ok_or(NotSent::NoStream)?.is_for_head;
        let content = if is_for_head { &[][..] } else { body };
        let unsent_len = self.unsent_len() + head.len_max() + content.len();
        if unsent_len > self.limits.unsent_len_max {
            self.streams.remove(id);
            self.send_reset(id, ErrorCode::EnhanceYourCalm);
            return Err(NotSent::NoRoom);
        }
        self.allow_control_frames(FRAMES_PER_MESSAGE);
        self.allow_window_updates(content.len());
        let table_update = self.take_table_update();
        let is_last = content.is_empty();
        self.output
            .response(id.get(), table_update, head, body.len(), is_last);
        let (output, window) = (&mut self.output, &mut self.send_window);
        self.streams.update(id, |stream| {
            stream.phase = OwnerPhase::Responded;
            send_body(output, window, stream, content);
        });
        self.end_if_sent(id);
        Ok(())
    }

    /// Ends an exchange without an event: resets the stream. Client: the response is not needed any
    /// more. Server: there is no response.
    pub fn cancel(&mut self, stream: StreamId) {
        self.abandon(stream, ErrorCode::Cancel);
    }

    /// Server: ends an exchange without an event. The request was not processed, so that the client
    /// can safely repeat it (RFC 9113, section 8.7).
    pub fn refuse(&mut self, stream: StreamId) {
        self.abandon(stream, ErrorCode::RefusedStream);
    }

    /// Server: refuses the requests that are not complete.
    pub fn refuse_incomplete(&mut self) {
        let mut last = None;
        while let Some(stream) = self.streams.next(last) {
            let (id, phase) = (stream.id, stream.phase);
            last = Some(id);
            if phase == OwnerPhase::Unreported {
                self.refuse(id);
            }
        }
    }

    fn abandon(&mut self, stream: StreamId, code: ErrorCode) {
        if self.streams.remove(stream).is_some() {
            self.send_reset(stream, code);
            // The response may already be under way.
            self.allow_control_frames(FRAMES_PER_MESSAGE);
        }
    }

    fn take_table_update(&mut self) -> TableUpdate {
        let update = self.table_update;
        self.table_update = match (update, self.role) {
            (TableUpdate::Owed, _) => TableUpdate::Sent,
            (TableUpdate::Initial, Http2Role::Client) => TableUpdate::Indexed,
            (other, _) => other,
        };
        update
    }

    /// Sends content that waits on any stream, as far as the windows allow.
    pub(super) fn send_waiting(&mut self) {
        let mut last = None;
        while self.streams.waiting_len() > 0
            && self.send_window.len() > 0
            && let Some(id) = self.streams.next(last).map(|stream| stream.id)
        {
            self.send_waiting_on(id);
            last = Some(id);
        }
    }

    /// Sends content that waits on a stream, as far as the windows allow.
    pub(super) fn send_waiting_on(&mut self, id: StreamId) {
        let (output, window) = (&mut self.output, &mut self.send_window);
        let sent_len = self.streams.update(id, |stream| {
            let unsent = stream.unsent.get(stream.sent_len..).unwrap_or_default();
            let len = send_data(output, window, &mut stream.send_window, id, unsent);
            stream.sent_len += len;
            if !stream.is_waiting() {
                (stream.unsent, stream.sent_len) = (Vec::new(), 0);
            }
            len
        });
        // The last bytes are gone, unless there were none to send.
        if sent_len.is_some_and(|len| len > 0) {
            self.end_if_sent(id);
        }
        self.allow_window_updates(sent_len.unwrap_or_default());
    }

    /// Allows the `WINDOW_UPDATE` frames of a peer that reads content of this length.
    fn allow_window_updates(&mut self, len: usize) {
        let len = self.progress_len.saturating_add(len);
        self.progress_len = len % PROGRESS_LEN;
        let progress = u32::try_from(len / PROGRESS_LEN).unwrap_or(u32::MAX);
        self.allow_control_frames(progress.saturating_mul(FRAMES_PER_PROGRESS));
    }

    /// Closes a stream whose response is sent. If the request has not ended, the rest is not needed
    /// (RFC 9113, section 8.1). The rest of content that is discarded is still read.
    pub(super) fn end_if_sent(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        let is_discarding = matches!(stream.incoming, Incoming::Discarded { .. });
        if stream.phase != OwnerPhase::Responded || stream.is_waiting() || is_discarding {
            return;
        }
        if stream.incoming != Incoming::Ended {
            self.send_reset(id, ErrorCode::None);
        }
        self.streams.remove(id);
    }
}

/// Sends the content of a message as far as the windows allow, and keeps the rest.
fn send_body(
    output: &mut Http2Output,
    window: &mut SendWindow,
    stream: &mut Http2Stream,
    body: &[u8],
) {
    let sent = send_data(output, window, &mut stream.send_window, stream.id, body);
    stream.unsent = body.get(sent..).unwrap_or_default().to_vec();
}

/// Appends DATA frames as far as both windows allow. Returns the number of sent bytes.
fn send_data(
    output: &mut Http2Output,
    window: &mut SendWindow,
    stream_window: &mut SendWindow,
    id: StreamId,
    data: &[u8],
) -> usize {
    let mut rest = data;
    while !rest.is_empty() {
        let len = window.len().min(stream_window.len()).min(PAYLOAD_LEN_MAX);
        let (now, later) = rest.split_at(len.min(rest.len()));
        if now.is_empty() {
            break;
        }
        output.data(id.get(), later.is_empty(), now);
        window.consume(now.len());
        stream_window.consume(now.len());
        rest = later;
    }
    data.len() - rest.len()
}
