//! The response to a client: an upstream answer adapted to the query, or an error of our own.

use std::iter;

use super::edns::{DO, EdnsOption, ExtendedError, OPT_LEN, OPTION_HEAD_LEN, OptWriter, OptionCode};
use super::header::{Flags, HEADER_LEN, Header, Opcode, Rcode};
use super::name::NAME_LEN_MAX;
use super::query::UDP_SIZE;
use super::question::Question;
use super::record::Record;
use super::{MESSAGE_LEN_MAX, Message, Opt, byte_ops};

/// Maximum length in bytes of a UDP response to a client without EDNS (RFC 1035, section 4.2.1).
const PLAIN_UDP_LEN_MAX: usize = 512;

/// The properties of a query that determine its response, whatever the answer is.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The query's id.
    pub id: u16,
    /// The query's flags.
    pub flags: Flags,
    /// The query's question, if it could be parsed.
    pub question: Option<Question<'a>>,
    /// The requests in the query's OPT, if there was one.
    pub opt: Option<AskedOpt>,
    /// Maximum length of the response in bytes.
    pub len_max: usize,
}

impl Asked<'_> {
    /// Returns whether the client understands AD (RFC 6840, section 5.7).
    fn understands_ad(&self) -> bool {
        self.flags.contains(Flags::AD) || self.opt.is_some_and(|opt| opt.flags & DO != 0)
    }

    /// Returns the bytes that remain for records besides OPT, if OPT has only the options that its
    /// query requested. `None` means that not even OPT fits.
    fn room(&self, opt_len: usize) -> Option<usize> {
        let question_len = self
            .question
            .map_or(0, |question| question.as_bytes().len());
        self.len_max
            .checked_sub(HEADER_LEN + question_len + opt_len)
    }

    /// Returns the bytes that the records of an answer may have besides OPT.
    pub fn records_len_max(&self) -> usize {
        let opt_len = self.opt.map_or(0, |opt| opt.wire_len());
        self.room(opt_len).unwrap_or_default()
    }

    /// Finishes the OPT of a response that starts at `start` of the buffer, and with it the
    /// response.
    fn end_opt(&self, opt: OptWriter<'_>, start: usize) {
        if self.opt.is_some_and(|opt| opt.is_padded) {
            opt.pad(start, RESPONSE_PADDING_BLOCK, self.len_max);
        } else {
            opt.finish();
        }
    }
}

/// The properties of a query's OPT that determine the OPT of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedOpt {
    /// The flags: DO is copied from the query (RFC 3225, section 3).
    pub flags: u16,
    /// The idle timeout of the connection, in units of 100 ms, if requested (RFC 7828).
    pub keepalive: Option<u16>,
    /// The client's cookie with the server's part, if there was one (RFC 7873, section 5.2).
    pub cookie: Option<[u8; COOKIE_LEN]>,
    /// True if the response is padded, since it is encrypted.
    pub is_padded: bool,
}

impl AskedOpt {
    /// Returns the length in bytes of an OPT with the requested options and no others.
    fn wire_len(&self) -> usize {
        let option_len = |len| OPTION_HEAD_LEN + len;
        let keepalive_len = self.keepalive.map_or(0, |_| option_len(size_of::<u16>()));
        let cookie_len = self.cookie.map_or(0, |_| option_len(COOKIE_LEN));
        OPT_LEN + keepalive_len + cookie_len
    }
}

/// Block length of a padded response (RFC 8467, section 4.1).
pub const RESPONSE_PADDING_BLOCK: usize = 468;

/// Length in bytes of a cookie with both parts (RFC 9018, section 4).
pub const COOKIE_LEN: usize = 24;

/// Returns the maximum length in bytes of a UDP response to a client that sent this OPT.
pub fn udp_len_max(opt: Option<Opt<'_>>) -> usize {
    let size = opt.map_or(0, |opt| usize::from(opt.udp_size.min(UDP_SIZE)));
    size.max(PLAIN_UDP_LEN_MAX)
}

/// Maximum length in bytes of a response over a stream.
pub const STREAM_LEN_MAX: usize = MESSAGE_LEN_MAX;

/// Appends the upstream answer, which must have a matching question, as a response to `asked`: its
/// id, flags, letter case and OPT are for the client, and its length is at most `asked.len_max`. An
/// answer that is too long is truncated: whole RRsets are removed from the end, options first, then
/// additional records, then, with TC set, the others (RFC 2181, section 9).
pub fn write_answer(out: &mut Vec<u8>, asked: &Asked<'_>, reply: &Message<'_>) {
    let rcode = client_rcode(asked, reply);
    let mut opt = asked
        .opt
        .map(|asked_opt| ResponseOpt::new(asked_opt, reply.opt(), rcode));
    let room =
        |opt: &Option<ResponseOpt<'_>>| asked.room(opt.as_ref().map_or(0, ResponseOpt::wire_len));
    let mut cut = Cut::new(reply, room(&opt));
    if let Some(opt_whole) = &mut opt
        && !cut.is_whole
    {
        opt_whole.options_of_reply = None;
        cut = Cut::new(reply, room(&opt));
    }

    let flags = reply.header().flags | cut.flags();
    let start = start_answer(out, asked, flags.with_rcode(rcode), cut.counts);
    byte_ops::append(out, &reply.bytes()[reply.records_start()..cut.end]);
    if let Some(opt) = opt {
        asked.end_opt(opt.start(out), start);
    }
}

/// Appends header and question of an answer to `asked` with these flags and these numbers of
/// records besides OPT. Returns the start of the answer.
pub fn start_answer(
    out: &mut Vec<u8>,
    asked: &Asked<'_>,
    flags: Flags,
    [answers, authorities, additionals]: [u16; 3],
) -> usize {
    let start = out.len();
    let passing = Flags::QR | Flags::AA | Flags::TC | Flags::RA | Flags::Z | Flags::AD;
    let mut passed = flags & passing | asked.flags.echoed();
    if !asked.understands_ad() {
        passed = passed.without(Flags::AD);
    }
    let header = Header {
        id: asked.id,
        flags: passed.with_rcode(flags.rcode()),
        questions: u16::from(asked.question.is_some()),
        answers,
        authorities,
        additionals: additionals + u16::from(asked.opt.is_some()),
    };
    out.extend(header.to_bytes());
    byte_ops::append(out, asked.question.map_or(&[], Question::as_bytes));
    start
}

/// Finishes the answer that [starts](start_answer) at `start`, after its records, for which there
/// must be [room](Asked::records_len_max): appends the OPT of the response, with the options and
/// the error that fit.
pub fn end_answer<'a>(
    out: &mut Vec<u8>,
    start: usize,
    asked: &Asked<'_>,
    options: impl Iterator<Item = EdnsOption<'a>>,
    error: Option<ExtendedError>,
) {
    let Some(opt) = asked.opt else {
        return;
    };
    let mut writer = ResponseOpt::new(opt, None, Rcode::NOERROR).start(out);
    writer.end_before(start + asked.len_max);
    writer.options(options);
    if let Some(error) = error {
        writer.extended_error(error);
    }
    asked.end_opt(writer, start);
}

/// Maximum number of bytes beyond [`Asked::records_len_max`] that [`end_cut_answer`] needs to
/// identify the first record that does not fit.
pub const CUT_LOOKAHEAD_LEN: usize = NAME_LEN_MAX + Record::FIXED_LEN;

/// Finishes the answer that [starts](start_answer) at `start` and has these numbers of records in
/// each section, more than there is [room](Asked::records_len_max) for: keeps the whole RRsets that
/// fit and appends the OPT of the response. The buffer ends with the records, or with as many of
/// their bytes as fit and [`CUT_LOOKAHEAD_LEN`]. Sets each TTL to `ttl`.
pub fn end_cut_answer(
    out: &mut Vec<u8>,
    start: usize,
    asked: &Asked<'_>,
    counts: [u16; 3],
    ttl: impl Fn(u32) -> u32,
) {
    let records_start = HEADER_LEN + asked.question.map_or(0, |entry| entry.as_bytes().len());
    let message = &out[start..];
    let cut = Cut::longest(message, records_start, counts, asked.records_len_max());
    out.truncate(start + cut.end);
    let message = &mut out[start..];
    let mut at = records_start;
    while let Ok(record) = Record::parse(message, at) {
        record.set_ttl(message, ttl(record.ttl(message)));
        at = record.end;
    }
    if let Some(header) = Header::parse(message) {
        let [answers, authorities, additionals] = cut.counts;
        let header = Header {
            flags: header.flags | cut.flags(),
            answers,
            authorities,
            additionals: additionals + u16::from(asked.opt.is_some()),
            ..header
        };
        message[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    }
    end_answer(out, start, asked, iter::empty(), None);
}

/// Appends an error of our own, with its reason if there is one. Options and reason are left out if
/// the response would exceed `asked.len_max`.
pub fn write_error(
    out: &mut Vec<u8>,
    asked: &Asked<'_>,
    rcode: Rcode,
    error: Option<ExtendedError>,
) {
    let start = out.len();
    let available = if asked.flags.opcode() == Opcode::QUERY {
        Flags::RA
    } else {
        Flags::default()
    };
    let flags = Flags::QR | available | asked.flags.echoed();
    let header = Header {
        id: asked.id,
        flags: flags.with_rcode(rcode),
        questions: u16::from(asked.question.is_some()),
        answers: 0,
        authorities: 0,
        additionals: u16::from(asked.opt.is_some()),
    };
    out.extend(header.to_bytes());
    byte_ops::append(out, asked.question.map_or(&[], Question::as_bytes));
    if let Some(opt) = asked.opt {
        let end_max = start + asked.len_max;
        let mut writer = ResponseOpt::new(opt, None, rcode).start_before(out, end_max);
        if let Some(error) = error {
            writer.extended_error(error);
        }
        asked.end_opt(writer, start);
    }
}

/// Returns the response code in a form that this client understands: the upper bits require an OPT.
fn client_rcode(asked: &Asked<'_>, reply: &Message<'_>) -> Rcode {
    let rcode = reply.rcode();
    if rcode.extension() != 0 && asked.opt.is_none() {
        Rcode::SERVFAIL
    } else {
        rcode
    }
}

/// The OPT of a response.
#[derive(Debug)]
struct ResponseOpt<'a> {
    rcode: Rcode,
    flags: u16,
    keepalive: Option<[u8; 2]>,
    cookie: Option<[u8; COOKIE_LEN]>,
    options_of_reply: Option<Opt<'a>>,
}

impl<'a> ResponseOpt<'a> {
    fn new(asked: AskedOpt, reply: Option<Opt<'a>>, rcode: Rcode) -> Self {
        Self {
            rcode,
            flags: reply.map_or(0, |opt| opt.flags) & !DO | asked.flags & DO,
            keepalive: asked.keepalive.map(u16::to_be_bytes),
            cookie: asked.cookie,
            options_of_reply: reply,
        }
    }

    fn options(&self) -> impl Iterator<Item = EdnsOption<'_>> {
        let keepalive = self.keepalive.iter().map(|idle| EdnsOption {
            code: OptionCode::TCP_KEEPALIVE,
            data: idle,
        });
        let cookie = self.cookie.iter().map(|cookie| EdnsOption {
            code: OptionCode::COOKIE,
            data: cookie,
        });
        let own = keepalive.chain(cookie);
        let of_reply = self.options_of_reply.iter();
        own.chain(of_reply.flat_map(Opt::options_for_client))
    }

    /// Returns the length of the record in bytes.
    fn wire_len(&self) -> usize {
        OPT_LEN
            + self
                .options()
                .map(|option| option.wire_len())
                .sum::<usize>()
    }

    fn start<'out>(&self, out: &'out mut Vec<u8>) -> OptWriter<'out> {
        self.start_before(out, usize::MAX)
    }

    /// Starts the record with the options that do not extend the buffer beyond `end_max`.
    fn start_before<'out>(&self, out: &'out mut Vec<u8>, end_max: usize) -> OptWriter<'out> {
        let mut writer = OptWriter::start(out, UDP_SIZE, self.rcode.extension(), self.flags);
        writer.end_before(end_max);
        writer.options(self.options());
        writer
    }
}

/// The part of an answer that fits: the whole answer, or a truncated one.
#[derive(Debug)]
struct Cut {
    /// The position in the answer after the last record that fits.
    end: usize,
    /// The numbers of records that fit in the answer, authority and additional section.
    counts: [u16; 3],
    /// True if every record fits.
    is_whole: bool,
    /// True if a record that the client needs does not fit.
    is_truncated: bool,
}

/// Maximum number of steps to compare owner names in one answer. After that, consecutive records of
/// one type count as one RRset.
const COMPARISON_STEPS_MAX: usize = 1 << 14;

impl Cut {
    /// Returns the longest run of whole RRsets that has at most `room` bytes. `None`: not even the
    /// OPT record fits.
    fn new(reply: &Message<'_>, room: Option<usize>) -> Self {
        let (start, end) = (reply.records_start(), reply.records_end());
        let counts = reply.record_counts();
        if room.is_some_and(|room| end - start <= room) {
            return Self {
                end,
                counts,
                is_whole: true,
                is_truncated: false,
            };
        }
        Self::longest(reply.bytes(), start, counts, room.unwrap_or_default())
    }

    /// Returns the longest run of whole RRsets that has at most `room` bytes, for an answer with
    /// these numbers of records from `start` on that do not all fit.
    fn longest(message: &[u8], start: usize, counts: [u16; 3], room: usize) -> Self {
        let mut cut = Self {
            end: start,
            counts: [0; 3],
            is_whole: false,
            is_truncated: counts[..2] != [0; 2],
        };
        let mut steps_left = COMPARISON_STEPS_MAX;
        let (mut at, mut fitting) = (start, [0; 3]);
        for (section, count) in counts.into_iter().enumerate() {
            let mut previous: Option<Record> = None;
            for _ in 0..count {
                let Ok(record) = Record::parse_head(message, at) else {
                    return cut;
                };
                let goes_on = previous
                    .is_some_and(|previous| previous.same_rrset(&record, message, &mut steps_left));
                if !goes_on {
                    (cut.end, cut.counts) = (at, fitting);
                    cut.is_truncated = fitting[..2] != counts[..2];
                }
                if record.end - start > room {
                    return cut;
                }
                fitting[section] += 1;
                previous = Some(record);
                at = record.end;
            }
        }
        cut
    }

    /// Returns the flag that reports truncation to a client.
    fn flags(&self) -> Flags {
        if self.is_truncated {
            Flags::TC
        } else {
            Flags::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::edns::{EXTENDED_ERRORS_MAX, ExtendedErrorCode};
    use super::super::steps;
    use super::*;
    use proptest::prelude::*;

    const QUESTION: &[u8] = b"\x03wWw\x07eXample\x00\x00\x01\x00\x01";

    fn asked(opt: Option<AskedOpt>, len_max: usize) -> Asked<'static> {
        Asked {
            id: 0xabcd,
            flags: Flags::RD,
            question: Some(Question::parse(QUESTION, 0).unwrap()),
            opt,
            len_max,
        }
    }

    const PLAIN_OPT: AskedOpt = AskedOpt {
        flags: DO,
        keepalive: None,
        cookie: None,
        is_padded: false,
    };

    /// Returns a reply in lower case with the given RRsets in its sections: (type, number of
    /// records).
    fn reply(sections: [&[(u16, u16)]; 3], opt: Option<&dyn Fn(&mut OptWriter<'_>)>) -> Vec<u8> {
        let count = |rrsets: &[(u16, u16)]| rrsets.iter().map(|(_, records)| records).sum();
        let header = Header {
            id: 0x1111,
            flags: Flags::QR | Flags::RA | Flags::AD,
            questions: 1,
            answers: count(sections[0]),
            authorities: count(sections[1]),
            additionals: count(sections[2]) + u16::from(opt.is_some()),
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(QUESTION.to_ascii_lowercase());
        for (rr_type, records) in sections.into_iter().flatten() {
            for record in 0..*records {
                bytes.extend(b"\xc0\x0c");
                bytes.extend(rr_type.to_be_bytes());
                bytes.extend(b"\x00\x01\x00\x00\x01\x2c\x00\x04");
                // An address, a name, a text.
                let [high, low] = record.to_be_bytes();
                bytes.extend(match rr_type {
                    1 => [10, 0, high, low],
                    2 | 3 => [2, high, low, 0],
                    16 => [3, 0, high, low],
                    other => panic!("type {other}"),
                });
            }
        }
        if let Some(write) = opt {
            let mut writer = OptWriter::start(&mut bytes, 4096, 0, 0);
            write(&mut writer);
            writer.finish();
        }
        bytes
    }

    fn answer(asked: &Asked<'_>, reply: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        write_answer(&mut out, asked, &Message::parse(reply).unwrap());
        out.split_off(6)
    }

    fn counts(message: &Message<'_>) -> [u16; 3] {
        let header = message.header();
        [header.answers, header.authorities, header.additionals]
    }

    #[test]
    fn answer_has_the_clients_id_flags_and_letter_case() {
        let out = answer(
            &asked(None, 512),
            &reply([&[(1, 2)], &[], &[]], Some(&|_| {})),
        );
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.header().id, 0xabcd);
        let flags = message.header().flags;
        assert_eq!(flags, Flags::QR | Flags::RA | Flags::RD);
        assert_eq!(message.question().unwrap().as_bytes(), QUESTION);
        assert_eq!(counts(&message), [2, 0, 0]);
        assert!(message.opt().is_none());
    }

    #[test]
    fn ad_is_set_only_for_clients_that_understand_it() {
        let reply = reply([&[(1, 1)], &[], &[]], None);
        let has_ad = |flags, opt| {
            let asked = Asked {
                flags,
                ..asked(opt, 512)
            };
            let out = answer(&asked, &reply);
            let flags = Message::parse(&out).unwrap().header().flags;
            flags.contains(Flags::AD)
        };
        let no_do = AskedOpt {
            flags: 0,
            ..PLAIN_OPT
        };
        assert!(!has_ad(Flags::RD, None) && !has_ad(Flags::RD, Some(no_do)));
        assert!(has_ad(Flags::RD | Flags::AD, None) && has_ad(Flags::RD, Some(PLAIN_OPT)));
    }

    #[test]
    fn opt_is_made_anew_and_options_of_one_hop_are_removed() {
        let reply = reply(
            [&[(1, 1)], &[], &[(1, 1)]],
            Some(&|writer| {
                writer.option(OptionCode::COOKIE, &[1; 16]);
                writer.option(OptionCode::TCP_KEEPALIVE, &[0, 200]);
                writer.option(OptionCode(3), b"nsid");
                writer.option(OptionCode::PADDING, &[0; 300]);
            }),
        );
        let keepalive = AskedOpt {
            keepalive: Some(100),
            ..PLAIN_OPT
        };
        let out = answer(&asked(Some(keepalive), STREAM_LEN_MAX), &reply);
        let message = Message::parse(&out).unwrap();
        let opt = message.opt().unwrap();
        assert_eq!((opt.udp_size, opt.flags), (UDP_SIZE, DO));
        let options: Vec<_> = opt.options().map(|o| (o.code.0, o.data)).collect();
        assert_eq!(options, [(11, &[0, 100][..]), (3, b"nsid")]);
        assert_eq!(counts(&message), [1, 0, 2]);
    }

    #[test]
    fn opt_is_made_when_upstream_sent_none() {
        let out = answer(
            &asked(Some(PLAIN_OPT), 512),
            &reply([&[(1, 1)], &[], &[]], None),
        );
        assert_eq!(Message::parse(&out).unwrap().opt().unwrap().flags, DO);
    }

    #[test]
    fn truncation_keeps_whole_rrsets_and_sets_tc() {
        // 29 bytes of header and question, 16 a record: 30 records fit, and the second RRset is
        // cut.
        let reply = reply([&[(1, 20), (16, 20)], &[], &[]], None);
        let out = answer(&asked(None, 512), &reply);
        let message = Message::parse(&out).unwrap();
        assert!(message.header().flags.contains(Flags::TC));
        assert_eq!(counts(&message), [20, 0, 0]);
    }

    #[test]
    fn rrset_that_is_too_large_is_removed() {
        let reply = reply([&[(1, 40)], &[(2, 3)], &[(1, 3)]], None);
        let out = answer(&asked(None, 512), &reply);
        let message = Message::parse(&out).unwrap();
        assert!(message.header().flags.contains(Flags::TC));
        assert_eq!(counts(&message), [0, 0, 0]);
    }

    #[test]
    fn additional_records_are_removed_without_tc() {
        let reply = reply([&[(1, 20)], &[(2, 5)], &[(1, 3), (16, 10)]], None);
        let out = answer(&asked(None, 512), &reply);
        let message = Message::parse(&out).unwrap();
        assert!(!message.header().flags.contains(Flags::TC));
        assert_eq!(counts(&message), [20, 5, 3]);
    }

    #[test]
    fn options_are_removed_before_records() {
        let reply = reply(
            [&[(1, 25)], &[], &[]],
            Some(&|writer| writer.option(OptionCode(3), &[7; 100])),
        );
        let out = answer(&asked(Some(PLAIN_OPT), 512), &reply);
        let message = Message::parse(&out).unwrap();
        assert!(!message.header().flags.contains(Flags::TC));
        assert_eq!(counts(&message), [25, 0, 1]);
        assert_eq!(message.opt().unwrap().options().count(), 0);
    }

    #[test]
    fn options_alone_can_be_too_long() {
        let reply = reply(
            [&[], &[], &[]],
            Some(&|writer| writer.option(OptionCode(3), &[7; 510])),
        );
        let out = answer(&asked(Some(PLAIN_OPT), 512), &reply);
        assert!(out.len() <= 512);
        assert_eq!(
            Message::parse(&out)
                .unwrap()
                .opt()
                .unwrap()
                .options()
                .count(),
            0
        );
    }

    #[test]
    fn response_is_padded_on_request() {
        let padded = AskedOpt {
            is_padded: true,
            cookie: Some([7; COOKIE_LEN]),
            ..PLAIN_OPT
        };
        for records in [0, 1, 40, 400, 4_000] {
            let reply = reply([&[(1, records)], &[], &[]], None);
            let asked = asked(Some(padded), STREAM_LEN_MAX);
            let out = answer(&asked, &reply);
            assert_eq!(out.len() % RESPONSE_PADDING_BLOCK, 0);
            let message = Message::parse(&out).unwrap();
            assert_eq!(counts(&message), [records, 0, 1]);
            assert!(message.opt().unwrap().has_option(OptionCode::PADDING));

            let mut out = b"before".to_vec();
            let start = start_answer(&mut out, &asked, Flags::QR, [0; 3]);
            end_answer(&mut out, start, &asked, std::iter::empty(), None);
            assert_eq!((out.len() - 6) % RESPONSE_PADDING_BLOCK, 0);
            out.truncate(6);
            write_error(&mut out, &asked, Rcode::SERVFAIL, None);
            assert_eq!((out.len() - 6) % RESPONSE_PADDING_BLOCK, 0);
        }
    }

    #[test]
    fn records_after_opt_are_left_out() {
        let mut bytes = reply([&[(1, 1)], &[], &[(1, 1)]], Some(&|_| {}));
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\x0a\x00\x00\x01");
        bytes[11] += 1;
        let out = answer(&asked(None, 512), &bytes);
        assert_eq!(counts(&Message::parse(&out).unwrap()), [1, 0, 1]);
    }

    #[test]
    fn extended_rcode_becomes_servfail_without_opt() {
        let mut bytes = reply([&[], &[], &[]], Some(&|_| {}));
        let extension_at = bytes.len() - 6;
        bytes[extension_at] = 1;
        let rcode = |opt| {
            let out = answer(&asked(opt, 512), &bytes);
            let message = Message::parse(&out).unwrap();
            let extension = message.opt().map_or(0, |opt| opt.rcode_extension);
            message.header().flags.rcode().with_extension(extension)
        };
        assert_eq!(rcode(Some(PLAIN_OPT)), Rcode::BADVERS);
        assert_eq!(rcode(None), Rcode::SERVFAIL);
    }

    #[test]
    fn error_has_its_reason_if_the_query_had_opt() {
        let error = ExtendedError {
            code: ExtendedErrorCode::NETWORK_ERROR,
            text: "no upstream",
        };
        let mut out = Vec::new();
        write_error(
            &mut out,
            &asked(Some(PLAIN_OPT), 512),
            Rcode::SERVFAIL,
            Some(error),
        );
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.header().flags.rcode(), Rcode::SERVFAIL);
        let opt = message.opt().unwrap();
        assert_eq!(opt.options().next().unwrap().data, b"\x00\x17no upstream");

        out.clear();
        write_error(&mut out, &asked(None, 512), Rcode::SERVFAIL, Some(error));
        assert_eq!(out.len(), HEADER_LEN + QUESTION.len());
    }

    /// Returns an OPT with extended errors with texts of these lengths.
    fn with_texts(texts: &[usize]) -> Vec<u8> {
        let texts: Vec<String> = texts.iter().map(|len| "x".repeat(*len)).collect();
        let write = |writer: &mut OptWriter<'_>| {
            for text in &texts {
                let data = [b"\0\x06", text.as_bytes()].concat();
                writer.option(OptionCode::EXTENDED_ERROR, &data);
            }
        };
        reply([&[], &[], &[]], Some(&write))
    }

    #[test]
    fn extended_errors_of_upstream_are_limited() {
        let kept = |texts: &[usize]| {
            let out = answer(&asked(Some(PLAIN_OPT), STREAM_LEN_MAX), &with_texts(texts));
            let opt = Message::parse(&out).unwrap().opt().unwrap();
            let texts = opt.options().map(|option| option.data.len() - 2);
            texts.collect::<Vec<usize>>()
        };
        assert_eq!(kept(&[0, 255, 256, 257, 60_000]), [0, 255, 256, 256, 256]);
        assert_eq!(kept(&[7; 500]), [7; EXTENDED_ERRORS_MAX]);
    }

    #[test]
    fn options_that_do_not_fit_are_left_out() {
        let owed = AskedOpt {
            keepalive: Some(100),
            cookie: Some([7; COOKIE_LEN]),
            is_padded: true,
            ..PLAIN_OPT
        };
        for len_max in [512, 1232, STREAM_LEN_MAX] {
            let asked = asked(Some(owed), len_max);
            for left in 0..asked.records_len_max().min(500) {
                let data = vec![1; asked.records_len_max() - left];
                let mut out = b"before".to_vec();
                let start = start_answer(&mut out, &asked, Flags::QR, [0; 3]);
                let option = EdnsOption {
                    code: OptionCode(65_001),
                    data: &data,
                };
                end_answer(&mut out, start, &asked, iter::once(option), Some(WHY));
                assert!(out.len() - start <= len_max);
                let opt = Message::parse(&out[start..]).unwrap().opt().unwrap();
                let codes: Vec<u16> = opt.options().map(|option| option.code.0).collect();
                assert_eq!(codes[..2], [11, 10]);
                assert_eq!(codes.contains(&65_001), left >= 4, "{left} bytes left");
            }
        }
    }

    const WHY: ExtendedError = ExtendedError {
        code: ExtendedErrorCode::OTHER,
        text: "",
    };

    #[test]
    fn cost_of_a_cut_is_linear_in_the_length_of_the_answer() {
        // Two chains of pointers, and owners that point to the ends of the two chains in turn.
        let mut bytes = reply([&[], &[], &[]], None);
        let mut chains = Vec::new();
        for _ in 0..2 {
            let data = bytes.len() + 12;
            bytes.extend(b"\xc0\x0c\xff\0\0\x01\0\0\0\0\0\xfc\xc0\x0c");
            for link in 0..125 {
                let target = u16::try_from(data + 2 * link).unwrap();
                bytes.extend((0xc000 | target).to_be_bytes());
            }
            chains.push((0xc000 | u16::try_from(bytes.len() - 2).unwrap()).to_be_bytes());
        }
        let mut records = 2_u16;
        while bytes.len() + 12 <= MESSAGE_LEN_MAX {
            bytes.extend(chains[usize::from(records) % 2]);
            bytes.extend(b"\xff\0\0\x01\0\0\0\0\0\0");
            records += 1;
        }
        bytes[6..8].copy_from_slice(&records.to_be_bytes());
        steps::take();
        let message = Message::parse(&bytes).unwrap();
        let read = usize::try_from(steps::take()).unwrap();
        assert!(read < bytes.len(), "{read} steps to read");
        let mut out = Vec::new();
        write_answer(&mut out, &asked(Some(PLAIN_OPT), STREAM_LEN_MAX), &message);
        let cut = usize::try_from(steps::take()).unwrap();
        assert!(cut < bytes.len(), "{cut} steps to cut");
    }

    proptest! {
        /// A cut of the start of an answer equals the cut of the whole answer.
        #[test]
        fn start_of_an_answer_is_cut_like_the_whole(
            answers in proptest::collection::vec((1..4u16, 0..30u16), 0..4),
            authorities in proptest::collection::vec((1..4u16, 0..10u16), 0..3),
            additionals in proptest::collection::vec((1..4u16, 0..10u16), 0..3),
            with_opt: bool,
            len_max in 512..1300usize,
        ) {
            let bytes = reply([&answers, &authorities, &additionals], None);
            let message = Message::parse(&bytes).unwrap();
            let asked = asked(with_opt.then_some(PLAIN_OPT), len_max);
            let records = &bytes[message.records_start()..];
            let room = asked.records_len_max();
            if records.len() > room {
                let mut out = b"before".to_vec();
                let flags = message.header().flags;
                let start = start_answer(&mut out, &asked, flags, message.record_counts());
                let read_len = records.len().min(room + CUT_LOOKAHEAD_LEN);
                out.extend(&records[..read_len]);
                end_cut_answer(&mut out, start, &asked, message.record_counts(), |ttl| ttl);
                prop_assert_eq!(&out[start..], &answer(&asked, &bytes));
            }
        }

        #[test]
        fn every_reply_fits_and_stays_well_formed(
            answers in proptest::collection::vec((1..4u16, 0..30u16), 0..4),
            authorities in proptest::collection::vec((1..4u16, 0..10u16), 0..3),
            additionals in proptest::collection::vec((1..4u16, 0..10u16), 0..3),
            option_len in proptest::option::of(0..600usize),
            with_opt: bool,
            len_max in 512..1300usize,
        ) {
            let option = vec![1; option_len.unwrap_or(0)];
            let write = |writer: &mut OptWriter<'_>| writer.option(OptionCode(65_001), &option);
            let opt: Option<&dyn Fn(&mut OptWriter<'_>)> =
                if option_len.is_some() { Some(&write) } else { None };
            let bytes = reply([&answers, &authorities, &additionals], opt);
            let out = answer(&asked(with_opt.then_some(PLAIN_OPT), len_max), &bytes);
            prop_assert!(out.len() <= len_max);
            let message = Message::parse(&out).unwrap();
            prop_assert_eq!(message.opt().is_some(), with_opt);
            let given = Message::parse(&bytes).unwrap();
            let kept = counts(&message);
            let whole = kept[..2] == counts(&given)[..2];
            prop_assert_eq!(message.header().flags.contains(Flags::TC), !whole);
        }
    }
}
