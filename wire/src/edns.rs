//! Extension mechanisms for DNS: the OPT record and its options (RFC 6891).
//!
//! OPT belongs to one hop. What a client says in it shapes the response to that client and the
//! query that goes upstream, but the record itself is made anew on each side: see [`OptWriter`].

use std::ops::RangeInclusive;

use super::question::Type;
use super::record::Record;
use super::{Malformed, octets, push_u16, read_u16, steps};

/// Octets of an OPT record without options.
pub const OPT_LEN: usize = 11;

/// The flag of OPT that asks for DNSSEC records (RFC 3225).
pub const DO: u16 = 0x8000;

/// The version of EDNS that is spoken here (RFC 6891, section 6.1.3).
pub const VERSION: u8 = 0;

/// The number of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionCode(pub u16);

impl OptionCode {
    /// The client's network, for answers that depend on the place (RFC 7871).
    pub const CLIENT_SUBNET: Self = Self(8);
    /// A token against forged source addresses (RFC 7873).
    pub const COOKIE: Self = Self(10);
    /// How long an idle TCP connection is kept (RFC 7828).
    pub const TCP_KEEPALIVE: Self = Self(11);
    /// Octets that hide the length of a message (RFC 7830).
    pub const PADDING: Self = Self(12);
    /// Why a query went wrong (RFC 8914).
    pub const EXTENDED_ERROR: Self = Self(15);

    /// Whether the option concerns one hop alone, or tells upstream who the client is. All others,
    /// the unknown ones included, pass.
    pub fn stays_on_hop(self) -> bool {
        matches!(
            self,
            Self::CLIENT_SUBNET | Self::COOKIE | Self::TCP_KEEPALIVE | Self::PADDING
        )
    }
}

/// A reason by number (RFC 8914, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedErrorCode(pub u16);

impl ExtendedErrorCode {
    /// None of the other codes fits.
    pub const OTHER: Self = Self(0);
    /// The answer is no longer fresh (RFC 8767).
    pub const STALE_ANSWER: Self = Self(3);
    /// It went wrong shortly before.
    pub const CACHED_ERROR: Self = Self(13);
    /// The client may not ask here.
    pub const PROHIBITED: Self = Self(18);
    /// The denial is no longer fresh (RFC 8767).
    pub const STALE_NXDOMAIN: Self = Self(19);
    /// The operation or query is not supported.
    pub const NOT_SUPPORTED: Self = Self(21);
    /// No server could be reached that would know the answer.
    pub const NO_REACHABLE_AUTHORITY: Self = Self(22);
    /// Talking to a server failed.
    pub const NETWORK_ERROR: Self = Self(23);

    /// Whether it is a judgement of the name, which fails validation or is not to be had, rather
    /// than trouble of the server that says so.
    pub fn is_judgement(self) -> bool {
        matches!(self.0, 5..=12 | 15..=18 | 27)
    }
}

/// Why a query went wrong, for the one who reads the response (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// The reason by number.
    pub code: ExtendedErrorCode,
    /// The reason in words, short.
    pub text: &'static str,
}

/// What an OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Octets of the largest UDP message that its sender takes.
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
    /// Reads the OPT that stands at `record`; its owner must be the root and its options whole.
    pub fn parse(message: &'a [u8], record: &Record) -> Result<Self, Malformed> {
        Self::parse_at(message, record.start)
    }

    /// Returns whether the record that starts at `start` is an OPT with the root as its owner.
    #[inline]
    pub(super) fn starts_at(message: &[u8], start: usize) -> bool {
        let [high, low] = Type::OPT.0.to_be_bytes();
        let record = message.get(start..);
        record.is_some_and(|record| record.starts_with(&[0, high, low]))
    }

    /// Octets of the record.
    pub(super) fn wire_len(&self) -> usize {
        OPT_LEN + self.options.len()
    }

    /// Reads the OPT that starts at `start`.
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

    /// The options in their order.
    pub fn options(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        options(self.options)
    }

    /// The options that pass from hop to hop.
    pub fn passing_options(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        self.options().filter(|option| !option.code.stays_on_hop())
    }

    /// The options of a reply that a client gets: those that pass. Of extended errors there are at
    /// most [`EXTENDED_ERRORS_MAX`], and each has a text of at most [`EXTENDED_TEXT_LEN_MAX`]
    /// octets of UTF-8.
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

    /// The extended errors among the [options for a client](Self::options_for_client).
    pub fn extended_errors(&self) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        self.options_for_client()
            .filter(|option| option.code == OptionCode::EXTENDED_ERROR)
    }

    /// The codes of the extended errors.
    pub fn error_codes(&self) -> impl Iterator<Item = ExtendedErrorCode> + use<'a> {
        let errors = self
            .options()
            .filter(|option| option.code == OptionCode::EXTENDED_ERROR);
        let codes = errors.filter_map(|option| read_u16(option.data, 0).ok());
        codes.map(ExtendedErrorCode)
    }

    /// Whether one of the reasons given is a [judgement](ExtendedErrorCode::is_judgement).
    pub fn has_judgement(&self) -> bool {
        self.error_codes().any(ExtendedErrorCode::is_judgement)
    }

    /// The cookie, of several the first (RFC 7873, section 5.2).
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

    /// Whether there is an option of this number.
    pub fn has_option(&self, code: OptionCode) -> bool {
        self.options().any(|option| option.code == code)
    }
}

/// Octets of the longest text of an extended error that is kept and forwarded.
pub const EXTENDED_TEXT_LEN_MAX: usize = 256;

/// Extended errors of a reply that are kept and forwarded, at most.
pub const EXTENDED_ERRORS_MAX: usize = 8;

/// Octets of the code of an extended error, which stands before the text (RFC 8914, section 2).
const EXTENDED_CODE_LEN: usize = 2;

/// Octets of a client's part of a cookie, and of a server's.
const CLIENT_COOKIE_LEN: usize = 8;
const SERVER_COOKIE_LEN: RangeInclusive<usize> = 8..=32;

/// A client's cookie (RFC 7873, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie<'a> {
    /// What the client knows its responses by.
    pub client: [u8; CLIENT_COOKIE_LEN],
    /// What the client had from the server, if that is so.
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

/// The options that stand in a row.
pub fn options(mut row: &[u8]) -> impl Iterator<Item = EdnsOption<'_>> {
    std::iter::from_fn(move || {
        let (option, after) = split_option(row).ok()?;
        row = after;
        Some(option)
    })
}

/// Appends options in a row, as [`options`] reads them. Their data come from a message.
pub fn write_options<'a>(out: &mut Vec<u8>, options: impl Iterator<Item = EdnsOption<'a>>) {
    for option in options {
        push_u16(out, option.code.0);
        push_u16(out, low_u16(option.data.len()));
        octets::append(out, option.data);
    }
}

/// One option of an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdnsOption<'a> {
    /// Its number.
    pub code: OptionCode,
    /// Its data.
    pub data: &'a [u8],
}

impl EdnsOption<'_> {
    /// Octets of number, length and data.
    pub fn wire_len(&self) -> usize {
        OPTION_HEAD_LEN + self.data.len()
    }

    /// This extended error with a text that is not too long and is UTF-8; `None` if it has no code.
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

/// Octets of an option's number and length.
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

/// Appends one OPT record to a message. An option for which the record or the message has no room
/// is left out.
#[derive(Debug)]
pub struct OptWriter<'a> {
    out: &'a mut Vec<u8>,
    data_len_at: usize,
    /// The buffer ends here at the latest.
    end_max: usize,
}

impl<'a> OptWriter<'a> {
    /// Starts the record. `udp_size` is what its sender takes, in octets.
    pub fn start(out: &'a mut Vec<u8>, udp_size: u16, rcode_extension: u8, flags: u16) -> Self {
        let opt = Type::OPT.0.to_be_bytes();
        let size = udp_size.to_be_bytes();
        let bits = flags.to_be_bytes();
        // The root, type, size, extended code, version, flags, and the length to come.
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

    /// Goes on with the record that starts at `opt_start` and ends the buffer.
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

    /// Leaves out options from now on that would take the buffer beyond this length.
    pub fn end_before(&mut self, buffer_len_max: usize) {
        self.end_max = self.end_max.min(buffer_len_max);
    }

    /// Adds an option.
    pub fn option(&mut self, code: OptionCode, data: &[u8]) {
        if self.start_option(code, data.len()) {
            octets::append(self.out, data);
        }
    }

    /// Adds options.
    pub fn options<'b>(&mut self, options: impl Iterator<Item = EdnsOption<'b>>) {
        for option in options {
            self.option(option.code, option.data);
        }
    }

    /// Adds the reason why a query went wrong, without its text if there is no room for that.
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

    /// Appends number and length of an option, if there is room for it.
    fn start_option(&mut self, code: OptionCode, data_len: usize) -> bool {
        if self.out.len() + OPTION_HEAD_LEN + data_len > self.end_max {
            return false;
        }
        let ([a, b], [c, d]) = (code.0.to_be_bytes(), low_u16(data_len).to_be_bytes());
        self.out.extend([a, b, c, d]);
        true
    }

    /// Ends the record with padding, so that the message, which starts at `message_start` of the
    /// buffer and ends with this record, has a multiple of `block` octets, or, if that is too much,
    /// `len_max` (RFC 8467, section 4.1).
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

    /// Ends the record.
    pub fn finish(self) {
        let data_len = self.out.len() - self.data_len_at - DATA_LEN_LEN;
        self.out[self.data_len_at..][..DATA_LEN_LEN]
            .copy_from_slice(&low_u16(data_len).to_be_bytes());
    }
}

/// Octets of the length of an OPT record's options.
const DATA_LEN_LEN: usize = 2;

/// A length of which [`OptWriter::end_max`] sees to it that it has 16 bits.
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
    fn what_is_written_is_read() {
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
    fn options_of_one_hop_do_not_pass() {
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
    fn padding_stays_within_what_a_message_may_have() {
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
    fn cookie_has_a_part_of_the_client_and_may_have_one_of_the_server() {
        let octets: Vec<u8> = (0..50).collect();
        let cookie = |len: usize| {
            let bytes = written(|writer| {
                writer.option(OptionCode::COOKIE, &octets[..len]);
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
    fn owner_other_than_root_and_torn_options_are_malformed() {
        let mut bytes = written(|writer| writer.option(OptionCode(3), b"nsid"));
        *bytes.last_chunk_mut::<5>().unwrap() = [5, b'n', b's', b'i', b'd'];
        assert_eq!(parsed(&bytes), Err(Malformed));

        let named = b"\x01a\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(parsed(named), Err(Malformed));
    }
}
