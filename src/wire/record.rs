//! Resource records, as far as a proxy looks at them (RFC 1035, section 4.1.3).

use super::question::Type;
use super::{Malformed, name, read_u16};

/// Where one record of a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position of the owner name, which is the first position of the record.
    pub start: usize,
    /// Position after the owner name: of type, class, TTL and data length.
    pub fixed: usize,
    /// Position after the data.
    pub end: usize,
    /// The record's type.
    pub rr_type: Type,
}

impl Record {
    /// Octets between owner name and data: type, class, TTL, data length.
    pub const FIXED_LEN: usize = 10;

    /// The record at `start` of `message`.
    pub fn parse(message: &[u8], start: usize) -> Result<Self, Malformed> {
        let fixed = name::skip(message, start)?;
        let rr_type = Type(read_u16(message, fixed)?);
        let data_len = usize::from(read_u16(message, fixed + 8)?);
        let end = fixed + Self::FIXED_LEN + data_len;
        if end > message.len() {
            return Err(Malformed);
        }
        Ok(Self {
            start,
            fixed,
            end,
            rr_type,
        })
    }

    /// The record's data in the bytes of its message.
    pub fn data<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.fixed + Self::FIXED_LEN..self.end]
    }

    /// Whether both records belong to one RRset: same owner, type and class (RFC 2181, section 5).
    pub fn same_rrset(&self, other: &Self, message: &[u8]) -> bool {
        let class = |record: &Self| read_u16(message, record.fixed + 2);
        self.rr_type == other.rr_type
            && class(self) == class(other)
            && name::equal(message, self.start, other.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_ends_after_its_data() {
        let bytes = b"\x01a\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x7f\x00\x00\x01rest";
        let record = Record::parse(bytes, 0).unwrap();
        assert_eq!((record.start, record.fixed, record.end), (0, 3, 17));
        assert_eq!(record.data(bytes), [127, 0, 0, 1]);
    }

    #[test]
    fn data_beyond_the_message_is_malformed() {
        let bytes = b"\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x7f\x00\x00";
        assert_eq!(Record::parse(bytes, 0), Err(Malformed));
        assert_eq!(Record::parse(&bytes[..10], 0), Err(Malformed));
    }
}
