//! Extension mechanisms for DNS: the OPT record and its options (RFC 6891).
//!
//! OPT belongs to one hop. The OPT of a client shapes its response and the upstream query, but each
//! side gets a new record: see [`OptWriter`].

use std::ops::RangeInclusive;

use super::question::Type;
use super::record::Record;
use super::{Malformed, byte_ops, push_u16, read_u16, steps};

/// Length in bytes of an OPT record without options.
pub const OPT_LEN: usize = 11;

/// The flag of OPT that requests DNSSEC records (RFC 3225).
pub const DO: u16 = 0x8000;

/// The supported version of EDNS (RFC 6891, section 6.1.3).
pub const VERSION: u8 = 0;

/// The code of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionCode(pub u16);

impl OptionCode {
    /// The client's network, for answers that depend on the location (RFC 7871).
    pub const CLIENT_SUBNET: Self = Self(8);
    /// A token against forged source addresses (RFC 7873).
    pub const COOKIE: Self = Self(10);
    /// The idle timeout of the TCP connection (RFC 7828).
    pub const TCP_KEEPALIVE: Self = Self(11);
    /// Padding that hides the length of a message (RFC 7830).
    pub const PADDING: Self = Self(12);
    /// The reason why a query failed (RFC 8914).
    pub const EXTENDED_ERROR: Self = Self(15);

    /// Returns whether the option concerns one hop alone or discloses the client to the upstream.
    /// All other options, including unknown ones, are forwarded.
    pub fn stays_on_hop(self) -> bool {
        matches!(
            self,
            Self::CLIENT_SUBNET | Self::COOKIE | Self::TCP_KEEPALIVE | Self::PADDING
        )
    }
}

/// The code of an extended DNS error (RFC 8914, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedErrorCode(pub u16);

impl ExtendedErrorCode {
    /// An error without a code of its own.
    pub const OTHER: Self = Self(0);
    /// The answer is stale (RFC 8767).
    pub const STALE_ANSWER: Self = Self(3);
    /// The failure is cached.
    pub const CACHED_ERROR: Self = Self(13);
    /// The operator of this server blocks the name.
    pub const BLOCKED: Self = Self(15);
    /// The client is not allowed to query this server.
    pub const PROHIBITED: Self = Self(18);
    /// The negative answer is stale (RFC 8767).
    pub const STALE_NXDOMAIN: Self = Self(19);
    /// The operation or query is not supported.
    pub const NOT_SUPPORTED: Self = Self(21);
    /// No authoritative server could be reached.
    pub const NO_REACHABLE_AUTHORITY: Self = Self(22);
    /// The communication with a server failed.
    pub const NETWORK_ERROR: Self = Self(23);
    /// The type in the question cannot be queried (RFC 9824, section 3.5).
    pub const INVALID_QUERY_TYPE: Self = Self(30);

    /// Returns whether the code concerns the name, which fails validation or is blocked, and not
    /// the server that reports the error.
    pub fn is_judgement(self) -> bool {
        matches!(self.0, 5..=12 | 15..=18 | 27)
    }
}

/// The reason why a query failed, for the reader of the response (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// The code of the reason.
    pub code: ExtendedErrorCode,
    /// A short description of the reason.
    pub text: &'static str,
}

/// The content of an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// The size in bytes of the largest UDP message that the sender accepts.
    pub udp_size: u16,
    /// The upper eight bits of the response code.
    pub rcode_extension: u8,
    /// The version of EDNS.
    pub version: u8,
    /// Flags, [`DO`] among them.
    pub flags: u16,
    options: &'a [u8],
}

impl<'a> Opt<'a> {
    /// Parses the OPT at `record`. The owner must be the root, and the options must be complete.
    pub fn parse(message: &'a [u8], record: &Record) -> Result<Self, Malformed> {
        Self::parse_at(message, record.start)
    }

    /// Returns whether the record at `start` is an OPT with the root as its owner.
    #[inline]
    pub(super) fn starts_at(message: &[u8], start: usize) -> bool {
        let [high, low] = Type::OPT.0.to_be_bytes();
        let record = message.get(start..);
        record.is_some_and(|record| record.starts_with(&[0, high, low]))
    }

    /// Returns the length of the record in bytes.
    pub(super) fn wire_len(&self) -> usize {
        OPT_LEN + self.options.len()
    }

    /// Parses the OPT at `start`.
    #[inline]
    pub(super) fn parse_at(message: &'a [u8], start: usize) -> Result<Self, Malformed> {
        let (head, rest) = message
            .get(start..)
            .and_then(|record| record.split_first_chunk::<OPT_LEN>())
            .ok_or(Malformed)?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        if head[0] != 0 || number(1) != Type::OPT.0 {
            return Err(Malformed);
        }
        let options = rest.get(..usize::from(number(9))).ok_or(Malformed)?;
        let mut left = options;
        while !left.is_empty() {
            (_, left) = split_option(left)?;
        }
        Ok(Self {
            udp_size: number(3),
            rcode_extension: head[5],
            version: head[6],
            flags: number(7),
            options,
        })
    }

    /// Returns the options in order.
    pub fn options(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        options(self.options)
    }

    /// Returns the options that are forwarded from hop to hop.
    pub fn passing_options(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        self.options().filter(|option| !option.code.stays_on_hop())
    }

    /// Returns the options of a reply that are forwarded to a client. There are at most
    /// [`EXTENDED_ERRORS_MAX`] extended errors, each with a text of at most
    /// [`EXTENDED_TEXT_LEN_MAX`] bytes of UTF-8.
    pub fn options_for_client(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        let mut errors_left = EXTENDED_ERRORS_MAX;
        self.passing_options().filter_map(move |option| {
            if option.code != OptionCode::EXTENDED_ERROR {
                return Some(option);
            }
            errors_left = errors_left.checked_sub(1)?;
            option.bounded_error()
        })
    }

    /// Returns the extended errors among the [options for a client](Self::options_for_client).
    pub fn extended_errors(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        self.options_for_client()
            .filter(|option| option.code == OptionCode::EXTENDED_ERROR)
    }

    /// Returns the codes of the extended errors.
    pub fn error_codes(&self) -> impl Iterator<Item = ExtendedErrorCode> + use<'a> {
        let errors = self
            .options()
            .filter(|option| option.code == OptionCode::EXTENDED_ERROR);
        let codes = errors.filter_map(|option| read_u16(option.data, 0).ok());
        codes.map(ExtendedErrorCode)
    }

    /// Returns whether any extended error is a [judgement](ExtendedErrorCode::is_judgement).
    pub fn has_judgement(&self) -> bool {
        self.error_codes().any(ExtendedErrorCode::is_judgement)
    }

    /// Returns the first cookie (RFC 7873, section 5.2).
    pub fn cookie(&self) -> Result<Option<Cookie<'a>>, Malformed> {
        let mut options = self.options();
        let cookie = options.find(|option| option.code == OptionCode::COOKIE);
        cookie.map(|cookie| Cookie::parse(cookie.data)).transpose()
    }

    /// Returns the idle timeout of the TCP connection that a server asks for, in units of 100 ms
    /// (edns-tcp-keepalive, RFC 7828, section 3.1).
    pub fn keepalive_timeout(&self) -> Option<u16> {
        let mut options = self.options();
        let keepalive = options.find(|option| option.code == OptionCode::TCP_KEEPALIVE)?;
        let timeout = <[u8; 2]>::try_from(keepalive.data).ok()?;
        Some(u16::from_be_bytes(timeout))
    }

    /// Returns whether there is an option with this code.
    pub fn has_option(&self, code: OptionCode) -> bool {
        self.options().any(|option| option.code == code)
    }
}

/// Maximum length in bytes of the text of an extended error that is kept and forwarded.
pub const EXTENDED_TEXT_LEN_MAX: usize = 256;

/// Maximum number of extended errors of a reply that are kept and forwarded.
pub const EXTENDED_ERRORS_MAX: usize = 8;

/// Length in bytes of the code of an extended error, before the text (RFC 8914, section 2).
const EXTENDED_CODE_LEN: usize = 2;

/// Lengths in bytes of the client's part and the server's part of a cookie.
const CLIENT_COOKIE_LEN: usize = 8;
const SERVER_COOKIE_LEN: RangeInclusive<usize> = 8..=32;

/// A client's cookie (RFC 7873, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie<'a> {
    /// The part by which the client recognizes its responses.
    pub client: [u8; CLIENT_COOKIE_LEN],
    /// The part that the client received from the server, if any.
    pub server: Option<&'a [u8]>,
}

impl<'a> Cookie<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let (client, server) = data.split_first_chunk().ok_or(Malformed)?;
        let server = (!server.is_empty()).then_some(server);
        let is_right = server.is_none_or(|server| SERVER_COOKIE_LEN.contains(&server.len()));
        is_right
            .then_some(Self {
                client: *client,
                server,
            })
            .ok_or(Malformed)
    }
}

/// Returns the options in a sequence of encoded options.
pub fn options(mut row: &[u8]) -> impl Iterator<Item = EdnsOption<'_>> {
    std::iter::from_fn(move || {
        let (option, after) = split_option(row).ok()?;
        row = after;
        Some(option)
    })
}

/// Appends options in the encoding that [`options`] reads. Their data comes from a message.
pub fn write_options<'a>(out: &mut Vec<u8>, options: impl Iterator<Item = EdnsOption<'a>>) {
    for option in options {
        push_u16(out, option.code.0);
        push_u16(out, low_u16(option.data.len()));
        byte_ops::append(out, option.data);
    }
}

/// One option of an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdnsOption<'a> {
    /// The code of the option.
    pub code: OptionCode,
    /// The data of the option.
    pub data: &'a [u8],
}

impl EdnsOption<'_> {
    /// Returns the length in bytes of code, length and data.
    pub fn wire_len(&self) -> usize {
        OPTION_HEAD_LEN + self.data.len()
    }

    /// Returns this extended error with its text cut to valid UTF-8 of limited length, or `None` if
    /// it has no code.
    fn bounded_error(self) -> Option<Self> {
        let (_, text) = self.data.split_at_checked(EXTENDED_CODE_LEN)?;
        let text = &text[..text.len().min(EXTENDED_TEXT_LEN_MAX)];
        let text_len = match str::from_utf8(text) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        Some(Self {
            data: &self.data[..EXTENDED_CODE_LEN + text_len],
            ..self
        })
    }
}

/// Length in bytes of an option's code and length.
pub(super) const OPTION_HEAD_LEN: usize = 4;

fn split_option(bytes: &[u8]) -> Result<(EdnsOption<'_>, &[u8]), Malformed> {
    steps::count();
    let code = OptionCode(read_u16(bytes, 0)?);
    let data_len = usize::from(read_u16(bytes, 2)?);
    let (data, rest) = bytes[OPTION_HEAD_LEN..]
        .split_at_checked(data_len)
        .ok_or(Malformed)?;
    Ok((EdnsOption { code, data }, rest))
}

/// A writer that appends one OPT record to a message. It leaves out options for which the record or
/// the message has no room.
#[derive(Debug)]
pub struct OptWriter<'a> {
    out: &'a mut Vec<u8>,
    data_len_at: usize,
    /// Maximum length of the buffer.
    end_max: usize,
}

impl<'a> OptWriter<'a> {
    /// Starts the record. `udp_size` is the size in bytes that its sender accepts.
    pub fn start(out: &'a mut Vec<u8>, udp_size: u16, rcode_extension: u8, flags: u16) -> Self {
        let opt = Type::OPT.0.to_be_bytes();
        let size = udp_size.to_be_bytes();
        let bits = flags.to_be_bytes();
        // The root, type, size, extended code, version, flags, and a placeholder for the length.
        let record: [u8; OPT_LEN] = [
            0,
            opt[0],
            opt[1],
            size[0],
            size[1],
            rcode_extension,
            VERSION,
            bits[0],
            bits[1],
            0,
            0,
        ];
        out.extend(record);
        let data_len_at = out.len() - DATA_LEN_LEN;
        Self::at(out, data_len_at)
    }

    /// Continues the record that starts at `opt_start` and ends the buffer.
    pub fn resume(out: &'a mut Vec<u8>, opt_start: usize) -> Self {
        Self::at(out, opt_start + OPT_LEN - DATA_LEN_LEN)
    }

    fn at(out: &'a mut Vec<u8>, data_len_at: usize) -> Self {
        Self {
            out,
            data_len_at,
            end_max: data_len_at + DATA_LEN_LEN + usize::from(u16::MAX),
        }
    }

    /// Leaves out further options that would extend the buffer beyond this length.
    pub fn end_before(&mut self, buffer_len_max: usize) {
        self.end_max = self.end_max.min(buffer_len_max);
    }

    /// Adds an option.
    pub fn option(&mut self, code: OptionCode, data: &[u8]) {
        if self.start_option(code, data.len()) {
            byte_ops::append(self.out, data);
        }
    }

    /// Adds options.
    pub fn options<'b>(&mut self, options: impl Iterator<Item = EdnsOption<'b>>) {
        for option in options {
            self.option(option.code, option.data);
        }
    }

    /// Adds an extended error, without its text if there is no room for the text.
    pub fn extended_error(&mut self, error: ExtendedError) {
        for text in [error.text, ""] {
            let data_len = EXTENDED_CODE_LEN + text.len();
            if self.start_option(OptionCode::EXTENDED_ERROR, data_len) {
                self.out.extend_from_slice(&error.code.0.to_be_bytes());
                self.out.extend_from_slice(text.as_bytes());
                return;
            }
        }
    }

    /// Appends the code and length of an option. Returns whether there is room for the option.
    fn start_option(&mut self, code: OptionCode, data_len: usize) -> bool {
        if self.out.len() + OPTION_HEAD_LEN + data_len > self.end_max {
            return false;
        }
        let ([a, b], [c, d]) = (code.0.to_be_bytes(), low_u16(data_len).to_be_bytes());
        self.out.extend([a, b, c, d]);
        true
    }

    /// Finishes the record with padding, so that the message, which starts at `message_start` of
    /// the buffer and ends with this record, has a multiple of `block` bytes or, if that is too
    /// much, `len_max` (RFC 8467, section 4.1).
    pub fn pad(mut self, message_start: usize, block: usize, len_max: usize) {
        let unpadded = self.out.len() - message_start + OPTION_HEAD_LEN;
        let padded = unpadded.next_multiple_of(block).min(len_max);
        if let Some(padding) = padded.checked_sub(unpadded)
            && self.start_option(OptionCode::PADDING, padding)
        {
            self.out.resize(self.out.len() + padding, 0);
        }
        self.finish();
    }

    /// Finishes the record.
    pub fn finish(self) {
        let data_len = self.out.len() - self.data_len_at - DATA_LEN_LEN;
        self.out[self.data_len_at..][..DATA_LEN_LEN]
            .copy_from_slice(&low_u16(data_len).to_be_bytes());
    }
}

/// Appends an OPT record that has only an extended error.
pub fn append_error(out: &mut Vec<u8>, udp_size: u16, code: ExtendedErrorCode, text: &str) {
    let data = [&code.0.to_be_bytes(), text.as_bytes()].concat();
    let mut opt = OptWriter::start(out, udp_size, 0, 0);
    opt.option(OptionCode::EXTENDED_ERROR, &data);
    opt.finish();
}

/// Length in bytes of the data length of an OPT record.
const DATA_LEN_LEN: usize = 2;

/// Returns a length as 16 bits, to which [`OptWriter::end_max`] limits it.
fn low_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut OptWriter<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = OptWriter::start(&mut out, 1232, 0, DO);
        write(&mut writer);
        writer.finish();
        out
    }

    fn parsed(bytes: &[u8]) -> Result<Opt<'_>, Malformed> {
        Opt::parse(bytes, &Record::parse(bytes, 0)?)
    }

    #[test]
    fn written_opt_is_parsed() {
        let bytes = written(|writer| {
            writer.option(OptionCode(65_001), b"abc");
            writer.extended_error(ExtendedError {
                code: ExtendedErrorCode::NETWORK_ERROR,
                text: "why",
            });
        });
        let opt = parsed(&bytes).unwrap();
        assert_eq!((opt.udp_size, opt.version, opt.flags), (1232, VERSION, DO));
        let options: Vec<_> = opt.options().map(|o| (o.code.0, o.data)).collect();
        assert_eq!(options, [(65_001, &b"abc"[..]), (15, b"\x00\x17why")]);
    }

    #[test]
    fn options_of_one_hop_are_not_forwarded() {
        let bytes = written(|writer| {
            for code in [3, 8, 10, 11, 12, 15, 65_001] {
                writer.option(OptionCode(code), &[1, 2]);
            }
        });
        let opt = parsed(&bytes).unwrap();
        let passed = written(|writer| writer.options(opt.passing_options()));
        let codes: Vec<_> = parsed(&passed)
            .unwrap()
            .options()
            .map(|o| o.code.0)
            .collect();
        assert_eq!(codes, [3, 15, 65_001]);
    }

    #[test]
    fn padding_fills_the_block() {
        for filled in 0..300 {
            let mut out = vec![7; 5 + filled];
            OptWriter::start(&mut out, 1232, 0, 0).pad(5, 128, 10_000);
            assert_eq!((out.len() - 5) % 128, 0);
            assert!(out.len() - 5 - filled < OPT_LEN + 4 + 128);
        }
    }

    #[test]
    fn padding_stays_within_the_maximum_length() {
        for (len_max, len) in [
            (200, 128),
            (128, 128),
            (100, 100),
            (15, 15),
            (14, 11),
            (11, 11),
        ] {
            let mut out = Vec::new();
            OptWriter::start(&mut out, 1232, 0, 0).pad(0, 128, len_max);
            assert_eq!(out.len(), len, "{len_max}");
            assert!(parsed(&out).is_ok());
        }
    }

    #[test]
    fn cookie_has_a_client_part_and_an_optional_server_part() {
        let bytes: Vec<u8> = (0..50).collect();
        let cookie = |len: usize| {
            let bytes = written(|writer| {
                writer.option(OptionCode::COOKIE, &bytes[..len]);
                writer.option(OptionCode::COOKIE, &[]);
            });
            parsed(&bytes)
                .unwrap()
                .cookie()
                .map(|cookie| cookie.map(|cookie| cookie.server.map(<[u8]>::len)))
        };
        assert_eq!(cookie(8), Ok(Some(None)));
        for len in 16..=40 {
            assert_eq!(cookie(len), Ok(Some(Some(len - 8))));
        }
        for len in (0..8).chain(9..16).chain(41..50) {
            assert_eq!(cookie(len), Err(Malformed), "{len}");
        }
        let bytes = written(|writer| writer.option(OptionCode(3), b""));
        assert_eq!(parsed(&bytes).unwrap().cookie(), Ok(None));
    }

    #[test]
    fn keepalive_timeout_has_two_bytes() {
        let timeout = |data: &[u8]| {
            let bytes = written(|writer| writer.option(OptionCode::TCP_KEEPALIVE, data));
            parsed(&bytes).unwrap().keepalive_timeout()
        };
        assert_eq!(timeout(&[0, 0]), Some(0));
        assert_eq!(timeout(&[1, 2]), Some(258));
        for data in [&[][..], &[1], &[0, 0, 0]] {
            assert_eq!(timeout(data), None);
        }
    }

    #[test]
    fn owner_other_than_root_and_truncated_options_are_malformed() {
        let mut bytes = written(|writer| writer.option(OptionCode(3), b"nsid"));
        *bytes.last_chunk_mut::<5>().unwrap() = [5, b'n', b's', b'i', b'd'];
        assert_eq!(parsed(&bytes), Err(Malformed));

        let named = b"\x01a\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(parsed(named), Err(Malformed));
    }
}
