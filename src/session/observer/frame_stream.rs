//! The writer of a Frame Streams connection (farsightsec.github.io/fstrm).
//!
//! ```text
//!   READY --> ACCEPT --> START, frames, frames ... --> STOP
//!   (ours)   (theirs)
//! ```

use std::io::{Read, Write};

use crate::base::failure::{Failure, FailureKind};
use crate::session::Scratch;
use crate::session::transport::Transport;

const ACCEPT: u32 = 1;
const START: u32 = 2;
const STOP: u32 = 3;
const READY: u32 = 4;

/// The type of the only field of a control frame.
const CONTENT_TYPE: u32 = 1;

/// Maximum length of a control frame, in bytes.
const CONTROL_LEN_MAX: usize = 512;

/// Maximum number of bytes read from a reader in one call: a reader has little to send, and other
/// sessions wait meanwhile.
const SAID_MAX: usize = 64 * 1024;

/// The content type of the frames.
const DNSTAP: &[u8] = b"protobuf:dnstap.Dnstap";

/// A connection over `S`.
pub struct FrameStream<S> {
    transport: Transport<S>,
    received: Vec<u8>,
    /// The reader has accepted the content type.
    is_accepted: bool,
}

impl<S: Read + Write> FrameStream<S> {
    /// Creates the session of a connection that is still connecting.
    pub fn new(stream: S) -> Self {
        let mut transport = Transport::connecting(stream);
        transport.send(|out| control(out, READY, true));
        Self {
            transport,
            received: Vec::new(),
            is_accepted: false,
        }
    }

    /// Returns whether frames can be sent.
    pub fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    /// Returns the stream of the connection.
    pub fn stream(&mut self) -> &mut S {
        self.transport.stream()
    }

    /// Reads control frames of the reader. Returns whether the reader has just accepted the content
    /// type.
    pub fn ready(&mut self, scratch: &mut Scratch) -> Result<bool, Failure> {
        let was_accepted = self.is_accepted;
        let limit = (SAID_MAX, "the reader sends too much data");
        let received = &mut self.received;
        self.transport
            .receive_until(scratch, received, limit, |received| {
                self.is_accepted = self.is_accepted || says_accept(received)?;
                if self.is_accepted {
                    // Further input is not needed.
                    *received = Vec::new();
                }
                Ok(None::<()>)
            })?;
        let is_new = self.is_accepted && !was_accepted;
        if is_new {
            self.transport.send(|out| control(out, START, true));
        }
        Ok(is_new)
    }

    /// Queues whole frames, which `frames` appends, unless more than `unsent_max` bytes wait.
    /// Returns whether the frames were queued.
    pub fn send(&mut self, unsent_max: usize, frames: impl FnOnce(&mut Vec<u8>)) -> bool {
        let has_room = self.is_accepted && self.transport.unsent_len() <= unsent_max;
        if has_room {
            self.transport.send(frames);
        }
        has_room
    }

    /// Queues the end of the stream.
    pub fn stop(&mut self) {
        if self.is_accepted {
            self.transport.send(|out| control(out, STOP, false));
        }
    }

    /// Writes queued data, as far as the socket accepts it.
    pub fn flush(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        self.transport.flush(scratch).map(drop)
    }

    /// Returns the number of unsent bytes.
    pub fn unsent_len(&self) -> usize {
        self.transport.unsent_len()
    }
}

/// Appends a frame with the content that `write` appends.
pub fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = out.len() - start - 4;
    let len = u32::try_from(len).expect("frames are short");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn control(out: &mut Vec<u8>, kind: u32, has_type: bool) {
    out.extend_from_slice(&[0; 4]);
    frame(out, |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        if has_type {
            out.extend_from_slice(&CONTENT_TYPE.to_be_bytes());
            frame(out, |out| out.extend_from_slice(DNSTAP));
        }
    });
}

/// Returns whether the reader has accepted our content type; `false` while its frame is incomplete.
fn says_accept(received: &[u8]) -> Result<bool, Failure> {
    let refused = |detail: &str| Err(Failure::new(FailureKind::Protocol, detail));
    let word = |at: usize| {
        let bytes = received.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let (Some(escape), Some(len)) = (word(0), word(4)) else {
        return Ok(false);
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if escape != 0 || len > CONTROL_LEN_MAX {
        return refused("the peer does not speak Frame Streams");
    }
    let Some(body) = received.get(8..8 + len) else {
        return Ok(false);
    };
    if word(8) != Some(ACCEPT) {
        return refused("the reader did not accept the stream");
    }
    // A reader that names no content type accepts any.
    if body.len() > 4 && !body.ends_with(DNSTAP) {
        return refused("the reader does not support dnstap");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Pipe;

    const START_FRAME: &[u8] =
        b"\0\0\0\0\0\0\0\x22\0\0\0\x02\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";

    struct Scene {
        pipe: Pipe,
        stream: FrameStream<Pipe>,
        scratch: Scratch,
    }

    impl Scene {
        fn new() -> Self {
            let pipe = Pipe::default();
            Self {
                stream: FrameStream::new(pipe.clone()),
                pipe,
                scratch: Scratch::new(),
            }
        }

        fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
            self.pipe.push(bytes);
            self.stream.ready(&mut self.scratch)?;
            self.stream.flush(&mut self.scratch)
        }
    }

    fn accept() -> Vec<u8> {
        let mut bytes = START_FRAME.to_vec();
        bytes[11] = 1;
        bytes
    }

    #[test]
    fn frames_follow_when_they_are_accepted() {
        let mut scene = Scene::new();
        let hello = |out: &mut Vec<u8>| frame(out, |out| out.extend_from_slice(b"hello"));
        assert!(!scene.stream.send(1_000, hello));
        scene.take(b"").unwrap();
        let mut ready = START_FRAME.to_vec();
        ready[11] = 4;
        assert_eq!(scene.pipe.sent(), ready);
        let bytes = accept();
        scene.take(&bytes[..20]).unwrap();
        assert!(!scene.stream.is_accepted());
        scene.take(&bytes[20..]).unwrap();
        assert!(scene.stream.send(1_000, hello));
        scene.stream.stop();
        scene.take(b"whatever").unwrap();
        let expected = [
            START_FRAME,
            b"\0\0\0\x05hello",
            b"\0\0\0\0\0\0\0\x04\0\0\0\x03",
        ];
        assert_eq!(scene.pipe.sent(), expected.concat());
    }

    #[test]
    fn reader_of_another_content_type_is_refused() {
        let mut other = accept();
        *other.last_mut().unwrap() = b'x';
        let mut wrong = accept();
        wrong[11] = 5;
        for bytes in [
            &other[..],
            &wrong,
            b"HTTP/1.1 400 Bad Request\r\n",
            &[0, 0, 0, 0, 1, 0, 0, 0],
        ] {
            let failure = Scene::new().take(bytes).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Protocol);
        }
    }

    #[test]
    fn reader_that_sends_too_much_is_refused() {
        let mut scene = Scene::new();
        scene.take(&accept()).unwrap();
        assert!(scene.take(&vec![7; SAID_MAX / 2]).is_ok());
        let failure = scene.take(&vec![7; 2 * SAID_MAX]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
    }

    #[test]
    fn frames_for_a_slow_reader_are_refused_beyond_the_limit() {
        let mut scene = Scene::new();
        scene.take(&accept()).unwrap();
        scene.pipe.set_window(0);
        let much = |out: &mut Vec<u8>| out.resize(out.len() + 1_000, 7);
        let taken = (0..100).filter(|_| scene.stream.send(5_000, much)).count();
        assert!(taken <= 6, "{taken}");
    }
}
