//! The output of a connection: header blocks and frames.
//!
//! Header blocks use the static table of HPACK and literals without Huffman coding. All requests of
//! a connection have the same fields, which are encoded once; the first request adds them to the
//! dynamic table. The fields of responses are not added to it.

use super::fields::DNS_MESSAGE;
use super::frame::{END_HEADERS, END_STREAM, FRAME_HEAD_LEN, FrameHead, FrameKind};
use super::frame::{PAYLOAD_LEN_MAX, PREFACE};
use super::hpack::{FIELD_OVERHEAD, TABLE_LEN_MAX};
use super::static_table::STATIC_TABLE;
use super::{CONTROL_LEN_MAX, ErrorCode, Http2Error};

/// Maximum length of the encoded fields of a request head, in bytes. A HEADERS frame has room for
/// it.
const REQUEST_HEAD_LEN_MAX: usize = 8 * 1024;

/// The size update of an encoder that does not use the dynamic table (RFC 7541, section 6.3).
const TABLE_LEN_ZERO: u8 = 0x20;

/// Indexes of names in the static table.
const STATUS_200: usize = 8;
const ALLOW: usize = 22;
const CACHE_CONTROL: usize = 24;
const CONTENT_LENGTH: usize = 28;
const CONTENT_TYPE: usize = 31;

/// An upper bound of the length of frame headers and number fields of a message.
const HEADS_LEN: usize = 96;

/// An error: a name or a value of a request head has a byte that HTTP does not allow there, or the
/// head is longer than 8,192 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRequestHead;

/// The encoded header fields of the requests to an upstream: POST with a DNS message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The fields without indexing, for a peer that limits the dynamic table.
    plain: Box<[u8]>,
    /// The fields, which are added to the dynamic table.
    first: Box<[u8]>,
    /// The fields after that: indexes.
    next: Box<[u8]>,
}

/// The fields of a request head, while they are encoded.
#[derive(Default)]
struct HeadEncoder {
    plain: Vec<u8>,
    first: Vec<u8>,
    /// The index of each field in the static table; `None` for those that get one in the dynamic
    /// table.
    indexes: Vec<Option<usize>>,
    /// The length of the dynamic table in bytes, with 32 more for each entry (RFC 7541, section
    /// 4.1).
    table_len: usize,
}

impl HeadEncoder {
    fn add(&mut self, name: &str, value: &str) {
        let start = self.plain.len();
        let index = write_field(&mut self.plain, name, value);
        self.indexes.push(index);
        let field = self.plain.get(start..).unwrap_or_default();
        if index.is_some() {
            return self.first.extend_from_slice(field);
        }
        self.table_len += name.len() + value.len() + FIELD_OVERHEAD;
        write_indexed_literal(&mut self.first, name, value);
    }

    fn finish(self) -> RequestHead {
        let added = self.indexes.iter().filter(|index| index.is_none()).count();
        let (mut next, mut later) = (Vec::new(), added);
        for index in self.indexes {
            let index = index.unwrap_or_else(|| {
                later -= 1;
                STATIC_TABLE.len() + 1 + later
            });
            write_integer(&mut next, 0x80, 7, index);
        }
        let plain: Box<[u8]> = self.plain.into();
        let (first, next) = if self.table_len <= TABLE_LEN_MAX {
            (self.first.into(), next.into())
        } else {
            (plain.clone(), plain.clone())
        };
        RequestHead { plain, first, next }
    }
}

impl RequestHead {
    /// Encodes the fields. `authority` is the host, and the port if it is not that of the scheme;
    /// `path` starts with a slash; `fields` are more fields with names in lower case.
    pub fn new(
        scheme: &str,
        authority: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<Self, InvalidRequestHead> {
        let is_text = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if ![scheme, authority, path].into_iter().all(is_text) || !path.starts_with('/') {
            return Err(InvalidRequestHead);
        }
        let mut encoder = HeadEncoder::default();
        encoder.add(":method", "POST");
        encoder.add(":scheme", scheme);
        encoder.add(":authority", authority);
        encoder.add(":path", path);
        encoder.add("accept", DNS_MESSAGE);
        encoder.add("content-type", DNS_MESSAGE);
        for (name, value) in fields {
            let is_lower = !name.bytes().any(|b| b.is_ascii_uppercase() || b == b':');
            let is_value = value.trim() == *value && !value.bytes().any(|b| b.is_ascii_control());
            if !is_text(name) || !is_lower || !is_value {
                return Err(InvalidRequestHead);
            }
            encoder.add(name, value);
        }
        if encoder.plain.len() > REQUEST_HEAD_LEN_MAX {
            return Err(InvalidRequestHead);
        }
        Ok(encoder.finish())
    }

    /// Returns an upper bound of the encoded length of a request without its content, in bytes.
    pub(super) fn len_max(&self) -> usize {
        self.plain.len() + HEADS_LEN
    }

    /// Returns the number of allocated bytes.
    pub(super) fn allocated_len(&self) -> usize {
        self.plain.len() + self.first.len() + self.next.len()
    }
}

/// The header fields of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The status code (RFC 9110, section 15), between 200 and 599.
    pub status: u16,
    /// The media type of the body.
    pub content_type: Option<&'a str>,
    /// The lifetime of the response in seconds (`cache-control: max-age`).
    pub max_age_s: Option<u32>,
    /// The methods of the resource (`allow`), for the status 405.
    pub allow: Option<&'a str>,
}

impl ResponseHead<'_> {
    /// Returns an upper bound of the encoded length of a response without its content, in bytes.
    pub(super) fn len_max(&self) -> usize {
        let texts = [self.content_type, self.allow].into_iter().flatten();
        texts.map(str::len).sum::<usize>() + HEADS_LEN
    }
}

/// The bytes that are to be sent.
#[derive(Debug, Default)]
pub(super) struct Http2Output {
    bytes: Vec<u8>,
    /// The number of bytes of control frames in `bytes`.
    control_len: usize,
}

impl Http2Output {
    /// Appends the bytes to `out`, and releases the memory.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        let bytes = std::mem::take(&mut self.bytes);
        self.control_len = 0;
        if out.is_empty() && out.capacity() == 0 {
            *out = bytes;
        } else {
            out.extend_from_slice(&bytes);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn allocated_len(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns an error if the control frames exceed their maximum length.
    pub(super) fn check(&self) -> Result<(), Http2Error> {
        if self.control_len > CONTROL_LEN_MAX {
            return Err(Http2Error::calm("control frames are not read"));
        }
        Ok(())
    }

    pub(super) fn preface(&mut self) {
        self.bytes.extend_from_slice(PREFACE);
    }

    /// Appends a control frame.
    pub(super) fn control(&mut self, kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) {
        self.frame(kind, flags, stream, payload);
        self.control_len += FRAME_HEAD_LEN + payload.len();
    }

    pub(super) fn settings(&mut self, settings: &[(u16, u32)]) {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.control(FrameKind::Settings, 0, 0, &payload);
    }

    pub(super) fn window_update(&mut self, stream: u32, len: u32) {
        if len > 0 {
            self.control(FrameKind::WindowUpdate, 0, stream, &len.to_be_bytes());
        }
    }

    pub(super) fn rst_stream(&mut self, stream: u32, code: ErrorCode) {
        let code = (code as u32).to_be_bytes();
        self.control(FrameKind::RstStream, 0, stream, &code);
    }

    pub(super) fn go_away(&mut self, last_stream: u32, code: ErrorCode) {
        let [l0, l1, l2, l3] = last_stream.to_be_bytes();
        let [c0, c1, c2, c3] = (code as u32).to_be_bytes();
        let payload = [l0, l1, l2, l3, c0, c1, c2, c3];
        self.control(FrameKind::GoAway, 0, 0, &payload);
    }

    /// Appends the HEADERS frame of a request.
    pub(super) fn request(
        &mut self,
        stream: u32,
        table_update: TableUpdate,
        head: &RequestHead,
        body_len: usize,
    ) {
        self.bytes
            .reserve(head.len_max() + body_len.min(PAYLOAD_LEN_MAX));
        self.headers(stream, table_update, body_len == 0, |out| {
            out.extend_from_slice(match table_update {
                TableUpdate::Initial => &head.first,
                TableUpdate::Indexed => &head.next,
                TableUpdate::Owed | TableUpdate::Sent => &head.plain,
            });
            write_number(out, CONTENT_LENGTH, "", body_len);
        });
    }

    /// Appends the HEADERS frame of a response. `is_last` means that no DATA frame follows.
    pub(super) fn response(
        &mut self,
        stream: u32,
        table_update: TableUpdate,
        head: &ResponseHead<'_>,
        body_len: usize,
        is_last: bool,
    ) {
        self.bytes
            .reserve(head.len_max() + body_len.min(PAYLOAD_LEN_MAX));
        self.headers(stream, table_update, is_last, |out| {
            match head.status {
                200 => write_integer(out, 0x80, 7, STATUS_200),
                status => write_number(out, STATUS_200, "", usize::from(status)),
            }
            if let Some(content_type) = head.content_type {
                write_literal(out, CONTENT_TYPE, content_type);
            }
            write_number(out, CONTENT_LENGTH, "", body_len);
            if let Some(Ok(max_age)) = head.max_age_s.map(usize::try_from) {
                write_number(out, CACHE_CONTROL, "max-age=", max_age);
            }
            if let Some(allow) = head.allow {
                write_literal(out, ALLOW, allow);
            }
        });
    }

    fn headers(
        &mut self,
        stream: u32,
        table_update: TableUpdate,
        is_last: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let flags = END_HEADERS | if is_last { END_STREAM } else { 0 };
        let start = self.bytes.len();
        self.frame(FrameKind::Headers, flags, stream, &[]);
        let block_at = self.bytes.len();
        if table_update == TableUpdate::Owed {
            self.bytes.push(TABLE_LEN_ZERO);
        }
        write(&mut self.bytes);
        let len = self.bytes.len() - block_at;
        debug_assert!(len <= PAYLOAD_LEN_MAX, "the head fits into a frame");
        let [_, l0, l1, l2] = u32::try_from(len).unwrap_or_default().to_be_bytes();
        if let Some(head) = self.bytes.get_mut(start..start + 3) {
            head.copy_from_slice(&[l0, l1, l2]);
        }
    }

    /// Appends a DATA frame.
    pub(super) fn data(&mut self, stream: u32, is_last: bool, data: &[u8]) {
        let flags = if is_last { END_STREAM } else { 0 };
        self.frame(FrameKind::Data, flags, stream, data);
    }

    fn frame(&mut self, kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) {
        let len = payload.len();
        let head = FrameHead {
            len,
            kind,
            flags,
            stream,
        };
        head.write(&mut self.bytes);
        self.bytes.extend_from_slice(payload);
    }
}

/// The state of our encoder's dynamic table. It is not used after the peer has made it smaller,
/// which must be signalled at the start of the next header block (RFC 7541, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableUpdate {
    /// The table has its initial maximum size and no entries.
    Initial,
    /// Client: the table has the fields of requests.
    Indexed,
    /// The next header block sets the maximum size to 0.
    Owed,
    /// The maximum size is 0.
    Sent,
}

/// Appends a field without indexing, or as an index of the static table, which is returned.
fn write_field(out: &mut Vec<u8>, name: &str, value: &str) -> Option<usize> {
    let mut fields = (1..).zip(&STATIC_TABLE);
    if let Some((index, _)) = fields.find(|(_, field)| **field == (name, value)) {
        write_integer(out, 0x80, 7, index);
        return Some(index);
    }
    write_new_field(out, (0, 4), name, value);
    None
}

/// Appends a literal that is added to the dynamic table.
fn write_indexed_literal(out: &mut Vec<u8>, name: &str, value: &str) {
    write_new_field(out, (0x40, 6), name, value);
}

/// Appends a literal. `kind` is its first byte, and the number of bits for the index of its name.
fn write_new_field(out: &mut Vec<u8>, kind: (u8, u32), name: &str, value: &str) {
    let mut fields = (1..).zip(&STATIC_TABLE);
    let index = fields.find(|(_, field)| field.0 == name);
    let (first, prefix_len) = kind;
    if let Some((index, _)) = index {
        write_integer(out, first, prefix_len, index);
    } else {
        out.push(first);
        write_string(out, name);
    }
    write_string(out, value);
}

/// Appends a field without indexing, with the name of a field of the static table.
fn write_literal(out: &mut Vec<u8>, index: usize, value: &str) {
    write_integer(out, 0, 4, index);
    write_string(out, value);
}

/// Appends a field as [`write_literal`] does, with a number behind a text.
fn write_number(out: &mut Vec<u8>, index: usize, text: &str, number: usize) {
    write_integer(out, 0, 4, index);
    let len = number.checked_ilog10().map_or(1, |digits| digits + 1);
    write_integer(
        out,
        0,
        7,
        text.len() + usize::try_from(len).unwrap_or_default(),
    );
    out.extend_from_slice(text.as_bytes());
    let mut unit = 10_usize.pow(len - 1);
    while unit > 0 {
        out.push(b'0' + u8::try_from(number / unit % 10).unwrap_or_default());
        unit /= 10;
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    write_integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends an integer with a prefix of `prefix_len` bits (RFC 7541, section 5.1).
fn write_integer(out: &mut Vec<u8>, first: u8, prefix_len: u32, value: usize) {
    let mask = (1_u8 << prefix_len) - 1;
    let byte = |value: usize| u8::try_from(value & 0x7f).unwrap_or_default();
    let Some(mut left) = value.checked_sub(usize::from(mask)) else {
        out.push(first | byte(value));
        return;
    };
    out.push(first | mask);
    while left > 0x7f {
        out.push(byte(left) | 0x80);
        left >>= 7;
    }
    out.push(byte(left));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_have_their_names() {
        for (index, name) in [
            (STATUS_200, ":status"),
            (ALLOW, "allow"),
            (CACHE_CONTROL, "cache-control"),
            (CONTENT_LENGTH, "content-length"),
            (CONTENT_TYPE, "content-type"),
        ] {
            assert_eq!(STATIC_TABLE[index - 1].0, name);
        }
        assert_eq!(STATIC_TABLE[STATUS_200 - 1].1, "200");
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 1, 9, 10, 11, 99, 100, 65_535, usize::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, 28, "a=", number);
            let digits = format!("a={number}");
            let len = u8::try_from(digits.len()).unwrap();
            assert_eq!(out, [&[0x0f, 0x0d, len], digits.as_bytes()].concat());
        }
    }

    #[test]
    fn integers_are_those_of_rfc_7541_appendix_c_1() {
        let written = |prefix_len, value| {
            let mut out = Vec::new();
            write_integer(&mut out, 0, prefix_len, value);
            out
        };
        assert_eq!(written(5, 10), [10]);
        assert_eq!(written(5, 1337), [31, 154, 10]);
        assert_eq!(written(7, 42), [42]);
        assert_eq!(written(7, 127), [127, 0]);
        assert_eq!(written(7, 255), [127, 128, 1]);
    }
}
