//! A whole message, checked once from its first byte to its last record.

use super::header::{HEADER_LEN, Header, Rcode};
use super::names::Names;
use super::question::{CLASS_IN, Question, Type};
use super::record::{Record, records};
use super::{MESSAGE_LEN_MAX, Malformed, Opt, data, read_u16};

/// A message with the records that its header announces, names that can be followed to their ends,
/// and data in the form of its type. Bytes after the last record are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    header: Header,
    question: Option<Question<'a>>,
    records_start: usize,
    /// Positions after the answer, authority and additional section.
    section_ends: [usize; 3],
    opt: Option<PlacedOpt<'a>>,
    is_signed: bool,
}

/// An OPT record and its position.
#[derive(Clone, Copy, Debug)]
struct PlacedOpt<'a> {
    opt: Opt<'a>,
    start: usize,
    /// The number of additional records before it.
    records_before: u16,
}

/// A check of the records of a message. It stores the position of records about the message itself.
#[derive(Debug)]
struct Records<'a> {
    names: Names<'a>,
    /// The position of the OPT record, and the number of additional records before it.
    opt: Option<(usize, u16)>,
    is_signed: bool,
}

impl<'a> Records<'a> {
    /// Checks a section of `count` records that starts at `start`. Returns the position after it.
    #[inline(never)]
    fn check(&mut self, start: usize, count: u16, is_additional: bool) -> Result<usize, Malformed> {
        let mut at = start;
        for nth in 0..count {
            let record = data::parse_record(&mut self.names, at)?;
            self.take_special(&record, is_additional.then_some(nth))?;
            at = record.end;
        }
        Ok(at)
    }

    /// Records the position of a record about the message itself. `additional` is the index among
    /// the additional records, if the record is one of them.
    #[inline]
    fn take_special(&mut self, record: &Record, additional: Option<u16>) -> Result<(), Malformed> {
        match (record.rr_type, additional) {
            (Type::OPT, Some(records_before)) if self.opt.is_none() => {
                self.opt = Some((record.start, records_before));
            }
            (Type::OPT, _) => return Err(Malformed),
            (Type::TSIG, Some(_)) => self.is_signed = true,
            (Type::SIG, Some(_)) => {
                let data = record.data(self.names.message());
                self.is_signed |= read_u16(data, 0) == Ok(0);
            }
            _ => {}
        }
        Ok(())
    }

    /// Parses the OPT record, if there is one.
    fn opt(&self) -> Result<Option<PlacedOpt<'a>>, Malformed> {
        let Some((start, records_before)) = self.opt else {
            return Ok(None);
        };
        Ok(Some(PlacedOpt {
            opt: Opt::parse_at(self.names.message(), start)?,
            start,
            records_before,
        }))
    }
}

/// Skips the questions of a message that has none or several. Returns the position after them.
#[cold]
fn skip_questions(bytes: &[u8], count: u16) -> Result<usize, Malformed> {
    let mut at = HEADER_LEN;
    for _ in 0..count {
        at += Question::parse(bytes, at)?.as_bytes().len();
    }
    Ok(at)
}

impl<'a> Message<'a> {
    /// Parses and checks `bytes`. A message holds at most one OPT, in its additional section (RFC
    /// 6891, section 6.1.1).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = Header::parse(bytes).ok_or(Malformed)?;
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(Malformed);
        }
        let (question, records_start) = match header.questions {
            1 => {
                let question = Question::parse(bytes, HEADER_LEN)?;
                (Some(question), HEADER_LEN + question.as_bytes().len())
            }
            count => (None, skip_questions(bytes, count)?),
        };
        let mut records = Records {
            names: Names::new(
                bytes,
                question.map_or(0, |entry| entry.name().len()),
                records_start,
            ),
            opt: None,
            is_signed: false,
        };
        // Most queries have neither answers nor authorities.
        let mut at = records_start;
        if header.answers > 0 {
            at = records.check(at, header.answers, false)?;
        }
        let answers_end = at;
        if header.authorities > 0 {
            at = records.check(at, header.authorities, false)?;
        }
        let authorities_end = at;
        // Most messages have a single additional record, OPT, which is parsed directly.
        let opt = if header.additionals == 1 && Opt::starts_at(bytes, at) {
            let opt = Opt::parse_at(bytes, at)?;
            let start = at;
            at += opt.wire_len();
            Some(PlacedOpt {
                opt,
                start,
                records_before: 0,
            })
        } else {
            at = records.check(at, header.additionals, true)?;
            records.opt()?
        };
        Ok(Self {
            bytes,
            header,
            question,
            records_start,
            section_ends: [answers_end, authorities_end, at],
            opt,
            is_signed: records.is_signed,
        })
    }

    /// Returns the header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Returns the response code, with its extension if there is an OPT (RFC 6891, section 6.1.3).
    pub fn rcode(&self) -> Rcode {
        let extension = self.opt.map_or(0, |placed| placed.opt.rcode_extension);
        self.header.flags.rcode().with_extension(extension)
    }

    /// Returns the question if the message has exactly one.
    pub fn question(&self) -> Option<Question<'a>> {
        self.question
    }

    /// Returns the content of OPT, if there is one.
    pub fn opt(&self) -> Option<Opt<'a>> {
        self.opt.map(|placed| placed.opt)
    }

    /// Returns whether the message carries a signature over its own bytes, TSIG (RFC 8945) or
    /// SIG(0) (RFC 2931), which any change to the bytes breaks.
    pub fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// Returns the bytes of the message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the position of the first record, which is the end of the question section.
    pub fn records_start(&self) -> usize {
        self.records_start
    }

    /// Returns the positions after the answer and the authority section.
    pub fn answer_and_authority_ends(&self) -> [usize; 2] {
        [self.section_ends[0], self.section_ends[1]]
    }

    /// Returns the position after the last record, OPT included.
    pub fn end(&self) -> usize {
        self.section_ends[2]
    }

    /// Returns the position after the last record before OPT. Records after OPT are left out: they
    /// are additional, so not required (RFC 2181, section 9), and their names may point behind OPT,
    /// which moves.
    pub fn records_end(&self) -> usize {
        self.opt.map_or(self.section_ends[2], |placed| placed.start)
    }

    /// Returns the numbers of records in the answer, authority and additional section up to
    /// [`Message::records_end`].
    pub fn record_counts(&self) -> [u16; 3] {
        let additionals = match self.opt {
            Some(placed) => placed.records_before,
            None => self.header.additionals,
        };
        [self.header.answers, self.header.authorities, additionals]
    }

    /// Returns the records of the answer section.
    pub fn answers(&self) -> impl Iterator<Item = Record> + use<'a> {
        self.records(self.records_start, self.section_ends[0])
    }

    /// Returns the records of the authority section.
    pub fn authorities(&self) -> impl Iterator<Item = Record> + use<'a> {
        self.records(self.section_ends[0], self.section_ends[1])
    }

    /// Returns the SOA record in the authority section, which limits the lifetime of a denial.
    pub fn soa(&self) -> Option<Record> {
        let is_soa = |record: &Record| {
            record.rr_type == Type::SOA && record.class(self.bytes) == Ok(CLASS_IN)
        };
        self.authorities().find(is_soa)
    }

    /// Returns the TTL of a negative answer in seconds: the smaller one of the TTL and the last
    /// field of its SOA record (RFC 2308, section 5).
    pub fn negative_ttl(&self) -> Option<u32> {
        let soa = self.soa()?;
        let minimum = soa.data(self.bytes).last_chunk().copied();
        Some(u32::from_be_bytes(minimum?).min(soa.ttl(self.bytes)))
    }

    /// Returns the records between two record boundaries.
    pub fn records(&self, start: usize, end: usize) -> impl Iterator<Item = Record> + use<'a> {
        records(self.bytes, start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03www\x00\x00\x01\x00\x01\
        \x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";

    #[test]
    fn query_with_opt_is_parsed() {
        let message = Message::parse(QUERY).unwrap();
        assert_eq!(message.header().id, 0x1234);
        assert_eq!(message.question().unwrap().name(), b"\x03www\x00");
        assert_eq!(message.opt().unwrap().udp_size, 1232);
        assert_eq!(message.records_end(), QUERY.len() - 11);
        assert!(!message.is_signed());
    }

    #[test]
    fn counts_beyond_the_bytes_are_malformed() {
        for (at, count) in [(5, 2), (7, 1), (9, 1), (11, 2)] {
            let mut bytes = QUERY.to_vec();
            bytes[at] = count;
            assert!(Message::parse(&bytes).is_err(), "count at {at}");
        }
        for len in 0..QUERY.len() {
            assert!(Message::parse(&QUERY[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn second_opt_and_opt_outside_the_additional_section_are_malformed() {
        let mut twice = QUERY.to_vec();
        twice.extend_from_slice(&QUERY[QUERY.len() - 11..]);
        twice[11] = 2;
        assert!(Message::parse(&twice).is_err());

        let mut in_answer = QUERY.to_vec();
        (in_answer[7], in_answer[11]) = (1, 0);
        assert!(Message::parse(&in_answer).is_err());
    }

    /// Returns a reply to a question for `a.` with these records in the answer section.
    fn answer(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"\0\0\x81\x80\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01".to_vec();
        bytes[7] = u8::try_from(records.len()).unwrap();
        bytes.extend(records.concat());
        bytes
    }

    #[test]
    fn pointer_outside_the_bytes_before_it_is_malformed() {
        // The pointer leads to the type of the question, and the label there extends beyond the
        // record.
        let a = b"\xc0\x10\0\x01\0\x01\0\0\x01\x2c\0\x04\x01\x02\x03\x04";
        let mut bytes = answer(&[a]);
        bytes.extend(b"\0\x23\0\0\x81\x80");
        assert!(Message::parse(&bytes).is_err());
        // The same pointer leads to a name that ends before the record.
        bytes[16..19].copy_from_slice(b"\x01\0\0");
        assert!(Message::parse(&bytes).is_ok());
    }

    #[test]
    fn name_in_a_ttl_is_malformed() {
        // The TTL of the first record is at 25, its data at 31.
        let first = b"\xc0\x0c\0\x01\0\x01\0\x01b\0\0\x04\x01c\0\0";
        let pointing = |target: u8| {
            let mut second = b"\xc0\0\0\x01\0\x01\0\0\0\0\0\x04\0\0\0\0".to_vec();
            second[1] = target;
            Message::parse(&answer(&[first, &second])).is_ok()
        };
        assert_eq!([24, 25, 26, 27, 28].map(pointing), [false; 5]);
        // The data, and bytes beside the TTL.
        assert_eq!([29, 31, 33, 34].map(pointing), [true; 4]);
        // A name in the data of the record itself.
        let own = |target: u8| {
            let cname = [0xc0, 0x0c, 0, 5, 0, 1, 0, 1, b'b', 0, 0, 2, 0xc0, target];
            Message::parse(&answer(&[&cname])).is_ok()
        };
        assert!(own(12) && !own(25) && !own(26) && !own(28));
    }

    #[test]
    fn signatures_over_the_message_are_detected() {
        let mut tsig = QUERY.to_vec();
        tsig[11] = 2;
        tsig.extend_from_slice(b"\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00");
        assert!(Message::parse(&tsig).unwrap().is_signed());
    }

    #[test]
    fn message_with_two_questions_has_no_question() {
        let bytes = b"\0\0\0\0\0\x02\0\0\0\0\0\0\x01a\0\0\x01\0\x01\x01b\0\0\x01\0\x01";
        assert_eq!(Message::parse(bytes).unwrap().question(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert!(message.records_end() <= bytes.len());
                let records = message.records(message.records_start(), message.records_end());
                prop_assert!(records.count() <= bytes.len() / 11);
            }
        }

        #[test]
        fn damaged_query_never_panics(at in 0..QUERY.len(), value: u8) {
            let mut bytes = QUERY.to_vec();
            bytes[at] = value;
            let _ = Message::parse(&bytes);
        }
    }
}
