//! Frames (RFC 9113, sections 4 and 6): the frame header, types, flags and padding.

use super::{ErrorCode, Http2Error};

/// The length of a frame header in bytes.
pub(super) const FRAME_HEAD_LEN: usize = 9;

/// Maximum length of a payload, in bytes. Both directions use the initial value of
/// `SETTINGS_MAX_FRAME_SIZE`, which every peer accepts.
pub(super) const PAYLOAD_LEN_MAX: usize = 16_384;

/// The length of the priority fields in a HEADERS frame.
const PRIORITY_LEN: usize = 5;

/// The bytes that a client sends before its first frame (section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    RstStream = 3,
    Settings = 4,
    PushPromise = 5,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    Unknown = 10,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

/// DATA and HEADERS: the last frame with content of its stream.
pub(super) const END_STREAM: u8 = 0x1;
/// SETTINGS and PING: an acknowledgement.
pub(super) const ACK: u8 = 0x1;
/// HEADERS and CONTINUATION: the end of the header block.
pub(super) const END_HEADERS: u8 = 0x4;
/// DATA and HEADERS: the payload is padded.
pub(super) const PADDED: u8 = 0x8;
/// HEADERS: the payload has priority fields.
pub(super) const PRIORITY: u8 = 0x20;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// The length of the payload in bytes.
    pub(super) len: usize,
    pub(super) kind: FrameKind,
    pub(super) flags: u8,
    /// The number of the stream, or 0 for the connection.
    pub(super) stream: u32,
}

impl FrameHead {
    /// Parses the frame header at the start of `bytes`, if it is whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, kind, flags, stream @ ..] = bytes.first_chunk::<FRAME_HEAD_LEN>()?;
        let len = u32::from_be_bytes([0, *l0, *l1, *l2]);
        Some(Self {
            len: usize::try_from(len).ok()?,
            kind: FrameKind::from_byte(*kind),
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
        })
    }

    /// Appends the frame header.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let [_, l0, l1, l2] = u32::try_from(self.len).unwrap_or_default().to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let kind = self.kind as u8;
        out.extend_from_slice(&[l0, l1, l2, kind, self.flags, s0, s1, s2, s3]);
    }

    /// Returns whether the frame has a flag.
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Returns the payload of a DATA or HEADERS frame without padding and priority fields.
    pub(super) fn content(self, payload: &[u8]) -> Result<&[u8], Http2Error> {
        let mut content = payload;
        let mut padding_len = 0;
        if self.has(PADDED) {
            let (len, rest) = content.split_first().ok_or(TOO_SHORT)?;
            (padding_len, content) = (usize::from(*len), rest);
        }
        if self.kind == FrameKind::Headers && self.has(PRIORITY) {
            content = content.get(PRIORITY_LEN..).ok_or(TOO_SHORT)?;
        }
        let len = content.len().checked_sub(padding_len);
        len.and_then(|len| content.get(..len))
            .ok_or(Http2Error::protocol("padding longer than the frame"))
    }
}

const TOO_SHORT: Http2Error =
    Http2Error::new(ErrorCode::FrameSize, "frame shorter than its fixed fields");

/// Returns the length of the frame that starts with `bytes`, or of its header until that is whole.
pub(super) fn whole_len(bytes: &[u8]) -> Result<usize, Http2Error> {
    match FrameHead::parse(bytes) {
        None => Ok(FRAME_HEAD_LEN),
        Some(head) if head.len <= PAYLOAD_LEN_MAX => Ok(FRAME_HEAD_LEN + head.len),
        Some(_) => {
            let detail = "frame longer than SETTINGS_MAX_FRAME_SIZE";
            Err(Http2Error::new(ErrorCode::FrameSize, detail))
        }
    }
}

/// Returns the only number in a payload, of a `RST_STREAM` or `WINDOW_UPDATE` frame.
pub(super) fn number(payload: &[u8]) -> Result<u32, Http2Error> {
    <[u8; 4]>::try_from(payload)
        .map(u32::from_be_bytes)
        .map_err(|_| Http2Error::new(ErrorCode::FrameSize, "frame with a wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_header_is_read_as_written() {
        for kind in 0..=10 {
            let head = FrameHead {
                len: 0x01_0203,
                kind: FrameKind::from_byte(kind),
                flags: 0x25,
                stream: 0x7fff_fffe,
            };
            let mut bytes = Vec::new();
            head.write(&mut bytes);
            assert_eq!(FrameHead::parse(&bytes), Some(head));
            assert_eq!(FrameHead::parse(&bytes[..8]), None);
            // The reserved bit is ignored.
            bytes[5] |= 0x80;
            assert_eq!(FrameHead::parse(&bytes), Some(head));
        }
    }

    #[test]
    fn content_is_without_padding_and_priority() {
        let content = |kind, flags, payload| {
            let (len, stream) = (0, 1);
            let head = FrameHead {
                len,
                kind,
                flags,
                stream,
            };
            head.content(payload).map_err(|error| error.code)
        };
        let (data, headers) = (FrameKind::Data, FrameKind::Headers);
        assert_eq!(content(data, 0, &[2, 3, 4]), Ok(&[2, 3, 4][..]));
        assert_eq!(content(data, PADDED, &[2, 3, 4, 5]), Ok(&[3][..]));
        assert_eq!(content(data, PADDED, &[3, 3, 4, 5]), Ok(&[][..]));
        assert_eq!(
            content(data, PADDED, &[4, 3, 4, 5]),
            Err(ErrorCode::Protocol)
        );
        assert_eq!(content(data, PADDED, &[]), Err(ErrorCode::FrameSize));
        assert_eq!(content(data, PRIORITY, &[2, 3, 4]), Ok(&[2, 3, 4][..]));
        let both = PADDED | PRIORITY;
        assert_eq!(
            content(headers, both, &[1, 0, 0, 0, 0, 0, 7, 0]),
            Ok(&[7][..])
        );
        assert_eq!(
            content(headers, both, &[3, 0, 0, 0, 0, 0, 7, 0]),
            Err(ErrorCode::Protocol)
        );
        assert_eq!(
            content(headers, PRIORITY, &[0; 4]),
            Err(ErrorCode::FrameSize)
        );
    }
}
