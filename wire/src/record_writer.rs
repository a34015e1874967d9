//! Writing of messages from the records of other messages, whose compressed names do not refer to
//! the same bytes.

use super::data;
use super::header::{HEADER_LEN, Header};
use super::name;
use super::question::{CLASS_IN, Question, Type};
use super::record::Record;
use super::{MESSAGE_LEN_MAX, Malformed};

/// Maximum number of names that are remembered for compression.
const NAMES_MAX: usize = 16;

/// The largest position that a compression pointer can have (RFC 1035, section 4.1.4).
const POINTER_MAX: usize = 0x3fff;

/// A section of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The answer section.
    Answer,
    /// The authority section.
    Authority,
    /// The additional section.
    Additional,
}

/// A message that is being written.
#[derive(Debug)]
pub struct RecordWriter {
    header: Header,
    out: Vec<u8>,
    counts: [u16; 3],
    /// Names that were written, uncompressed, and their positions.
    names: Vec<(Vec<u8>, usize)>,
}

impl RecordWriter {
    /// Creates a message with this header, whose counts are replaced, and this question. The
    /// records follow in the order of their sections.
    pub fn new(header: Header, question: Question<'_>) -> Self {
        let mut out = header.to_bytes().to_vec();
        out.extend_from_slice(question.as_bytes());
        Self {
            header,
            out,
            counts: [0; 3],
            names: vec![(question.name().to_vec(), HEADER_LEN)],
        }
    }

    /// Adds a record of another message.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if the record is, or becomes too long without compression.
    pub fn copy(
        &mut self,
        section: Section,
        message: &[u8],
        record: &Record,
    ) -> Result<(), Malformed> {
        let data_start = self.copy_head(section, message, record)?;
        data::write_uncompressed(&mut self.out, message, record, record.class(message)?)?;
        self.end_data(record.rr_type, data_start)
    }

    /// Adds a record with the owner and the class of a record of another message, and with this
    /// type, TTL and data.
    ///
    /// # Errors
    ///
    /// As [`RecordWriter::copy`].
    pub fn copy_with(
        &mut self,
        section: Section,
        (message, record): (&[u8], &Record),
        (rr_type, ttl): (Type, u32),
        data: &[u8],
    ) -> Result<(), Malformed> {
        let data_start = self.copy_head(section, message, record)?;
        let fixed = data_start - Record::FIXED_LEN;
        self.out[fixed..fixed + 2].copy_from_slice(&rr_type.0.to_be_bytes());
        self.out[fixed + 4..fixed + 8].copy_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(data);
        self.end_data(rr_type, data_start)
    }

    /// Adds a CNAME record of the name in the question, with an uncompressed name as its target.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if the target is too long.
    pub fn alias_question(&mut self, target: &[u8], ttl: u32) -> Result<(), Malformed> {
        self.counts[Section::Answer as usize] += 1;
        self.out.extend(pointer(HEADER_LEN)?);
        self.out.extend(Type::CNAME.0.to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend([0, 0]);
        let data_start = self.out.len();
        self.out.extend_from_slice(target);
        self.end_data(Type::CNAME, data_start)
    }

    /// Returns the message.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if the message is too long.
    pub fn finish(self) -> Result<Vec<u8>, Malformed> {
        let mut out = self.out;
        if out.len() > MESSAGE_LEN_MAX {
            return Err(Malformed);
        }
        let [answers, authorities, additionals] = self.counts;
        let header = Header {
            questions: 1,
            answers,
            authorities,
            additionals,
            ..self.header
        };
        out[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        Ok(out)
    }

    /// Appends what precedes the data of a record. The owner is a pointer if the same name was
    /// written before. Returns the position of the data.
    fn copy_head(
        &mut self,
        section: Section,
        message: &[u8],
        record: &Record,
    ) -> Result<usize, Malformed> {
        self.counts[section as usize] += 1;
        let mut owner = Vec::new();
        name::write_uncompressed(&mut owner, message, record.start)?;
        let mut names = self.names.iter();
        match names.find(|(name, at)| *name == owner && *at <= POINTER_MAX) {
            Some((_, at)) if owner.len() > 2 => self.out.extend(pointer(*at)?),
            _ => {
                self.remember(owner.clone(), self.out.len());
                self.out.extend_from_slice(&owner);
            }
        }
        self.out
            .extend_from_slice(&message[record.fixed..record.data_start()]);
        Ok(self.out.len())
    }

    fn end_data(&mut self, rr_type: Type, data_start: usize) -> Result<(), Malformed> {
        let len = u16::try_from(self.out.len() - data_start).map_err(|_| Malformed)?;
        self.out[data_start - 2..data_start].copy_from_slice(&len.to_be_bytes());
        if rr_type == Type::CNAME {
            let target = self.out[data_start..].to_vec();
            self.remember(target, data_start);
        }
        Ok(())
    }

    fn remember(&mut self, name: Vec<u8>, at: usize) {
        if self.names.len() < NAMES_MAX {
            self.names.push((name, at));
        }
    }
}

fn pointer(at: usize) -> Result<[u8; 2], Malformed> {
    let at = u16::try_from(at).map_err(|_| Malformed)?;
    Ok((0xc000 | at).to_be_bytes())
}
