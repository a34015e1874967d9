//! Received frames that control streams and the connection.

use super::connection::{FRAMES_PER_MESSAGE, Http2Connection, Http2Role, InputState, OnEvent};
use super::frame::{self, ACK, FrameHead, FrameKind};
use super::outgoing::TableUpdate;
use super::window::WindowExceeded;
use super::{ErrorCode, Http2Error, Http2Event, StreamId};

/// The length of a setting in bytes.
const SETTING_LEN: usize = 6;

/// The initial value of `SETTINGS_HEADER_TABLE_SIZE`.
const TABLE_LEN: u32 = 4096;

const WRONG_LEN: Http2Error = Http2Error::new(ErrorCode::FrameSize, "frame with a wrong length");

impl Http2Connection {
    pub(super) fn on_settings(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Http2Error> {
        check_connection(head)?;
        let is_first = self.state == InputState::Settings;
        if !is_first {
            self.count_control_frame()?;
        }
        let (settings, rest) = payload.as_chunks::<SETTING_LEN>();
        if !rest.is_empty() || head.has(ACK) && !settings.is_empty() {
            return Err(WRONG_LEN);
        }
        if head.has(ACK) {
            return Ok(());
        }
        if settings.len() > self.limits.settings_max {
            return Err(Http2Error::calm("too many settings"));
        }
        self.state = InputState::Open;
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            self.on_setting(u16::from_be_bytes([*i0, *i1]), value)?;
        }
        self.output.control(FrameKind::Settings, ACK, 0, &[]);
        self.send_waiting();
        Ok(())
    }

    fn on_setting(&mut self, id: u16, value: u32) -> Result<(), Http2Error> {
        match id {
            // HEADER_TABLE_SIZE
            1 if value < TABLE_LEN && self.table_update != TableUpdate::Sent => {
                self.table_update = TableUpdate::Owed;
            }
            // ENABLE_PUSH, which a server must not set to 1
            2 if value > u32::from(self.role == Http2Role::Server) => {
                return Err(Http2Error::protocol("invalid SETTINGS_ENABLE_PUSH"));
            }
            // MAX_CONCURRENT_STREAMS
            3 => self.peer.streams_max = value,
            // INITIAL_WINDOW_SIZE
            4 => {
                let error = Http2Error::new(
                    ErrorCode::FlowControl,
                    "SETTINGS_INITIAL_WINDOW_SIZE exceeds a window",
                );
                let window_len = i32::try_from(value).map_err(|_| error)?;
                let change = window_len - self.peer.window_len;
                self.peer.window_len = window_len;
                for window in self.streams.send_windows() {
                    window.extend(change).map_err(|_| error)?;
                }
            }
            // MAX_FRAME_SIZE. Longer frames than the initial maximum are not sent.
            5 if !(16_384..=16_777_215).contains(&value) => {
                return Err(Http2Error::protocol("invalid SETTINGS_MAX_FRAME_SIZE"));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn on_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Http2Error> {
        check_connection(head)?;
        self.count_control_frame()?;
        if payload.len() != 8 {
            return Err(WRONG_LEN);
        }
        if !head.has(ACK) {
            self.output.control(FrameKind::Ping, ACK, 0, payload);
        }
        Ok(())
    }

    pub(super) fn on_go_away(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        check_connection(head)?;
        self.count_control_frame()?;
        let Some([l0, l1, l2, l3, c0, c1, c2, c3]) = payload.first_chunk::<8>() else {
            return Err(WRONG_LEN);
        };
        let last_stream = u32::from_be_bytes([*l0, *l1, *l2, *l3]) & StreamId::MAX.get();
        let code = u32::from_be_bytes([*c0, *c1, *c2, *c3]);
        self.is_peer_ending = true;
        on_event(Http2Event::GoAway { last_stream, code });
        if self.role == Http2Role::Client {
            while let Some(id) = self
                .streams
                .next(Some(StreamId(last_stream)))
                .map(|stream| stream.id)
            {
                self.end_stream(id, ErrorCode::RefusedStream, on_event);
            }
        }
        Ok(())
    }

    pub(super) fn on_rst_stream(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        let id = Self::stream_of(head)?;
        let code = frame::number(payload)?;
        if self.is_idle(id) {
            return Err(Http2Error::protocol("RST_STREAM on an idle stream"));
        }
        // A reset of its own request costs a client no more than a response.
        if self.role == Http2Role::Client && self.streams.get(id).is_some() {
            self.allow_control_frames(FRAMES_PER_MESSAGE);
        } else {
            self.count_control_frame()?;
        }
        let code = if code == ErrorCode::RefusedStream as u32 {
            ErrorCode::RefusedStream
        } else {
            ErrorCode::Cancel
        };
        self.end_stream(id, code, on_event);
        Ok(())
    }

    pub(super) fn on_window_update(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        on_event: OnEvent<'_>,
    ) -> Result<(), Http2Error> {
        self.count_control_frame()?;
        let len = frame::number(payload)? & StreamId::MAX.get();
        let extension = i32::try_from(len).unwrap_or(i32::MAX);
        if head.stream == 0 {
            if extension == 0 {
                return Err(Http2Error::protocol("WINDOW_UPDATE of 0 bytes"));
            }
            self.send_window.extend(extension).map_err(|_| {
                let detail = "WINDOW_UPDATE exceeds the window of the connection";
                Http2Error::new(ErrorCode::FlowControl, detail)
            })?;
            self.send_waiting();
            return Ok(());
        }
        let id = Self::stream_of(head)?;
        if self.is_idle(id) {
            return Err(Http2Error::protocol("WINDOW_UPDATE on an idle stream"));
        }
        let result = self
            .streams
            .update(id, |stream| stream.send_window.extend(extension));
        match result {
            Some(Ok(())) if extension == 0 => self.reset(id, ErrorCode::Protocol, on_event),
            Some(Err(WindowExceeded)) => self.reset(id, ErrorCode::FlowControl, on_event),
            Some(Ok(())) => {
                self.send_waiting_on(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Checks a PRIORITY frame, which has no effect (RFC 9113, section 5.3.2).
    pub(super) fn on_priority(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Http2Error> {
        Self::stream_of(head)?;
        self.count_control_frame()?;
        if payload.len() != 5 {
            return Err(WRONG_LEN);
        }
        Ok(())
    }
}

fn check_connection(head: FrameHead) -> Result<(), Http2Error> {
    if head.stream != 0 {
        return Err(Http2Error::protocol("frame with a stream"));
    }
    Ok(())
}
