//! Resource records, as far as a proxy looks at them (RFC 1035, section 4.1.3).

use std::net::IpAddr;

use super::question::{CLASS_IN, Type};
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

    /// How long the record may be kept, in seconds. What is no number of 31 bits counts as zero
    /// (RFC 2181, section 8).
    pub fn ttl(&self, message: &[u8]) -> u32 {
        let half = |at| read_u16(message, at).map_or(0, u32::from);
        let ttl = half(self.fixed + 4) << 16 | half(self.fixed + 6);
        if ttl > i32::MAX.cast_unsigned() {
            0
        } else {
            ttl
        }
    }

    /// The address in an A or AAAA record.
    pub fn address(&self, message: &[u8]) -> Option<IpAddr> {
        if read_u16(message, self.fixed + 2) != Ok(CLASS_IN) {
            return None;
        }
        let data = self.data(message);
        match self.rr_type {
            Type::A => Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            Type::AAAA => Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => None,
        }
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
    fn addresses_are_read_from_their_records() {
        let address = |bytes: &[u8]| Record::parse(bytes, 0).unwrap().address(bytes);
        let a = b"\0\0\x01\0\x01\0\0\0\x05\0\x04\xc0\0\x02\x01";
        assert_eq!(address(a), Some([192, 0, 2, 1].into()));
        let aaaa = b"\0\0\x1c\0\x01\0\0\0\x05\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        assert_eq!(address(aaaa), "2001:db8::1".parse().ok());
        // A text, another class, an address with an octet too many.
        for (at, value) in [(2, 16), (4, 3)] {
            let mut other = a.to_vec();
            other[at] = value;
            assert_eq!(address(&other), None);
        }
        assert_eq!(
            address(b"\0\0\x01\0\x01\0\0\0\x05\0\x05\xc0\0\x02\x01\x01"),
            None
        );
    }

    #[test]
    fn ttl_has_31_bits() {
        let ttl = |octets: [u8; 4]| {
            let mut bytes = b"\0\0\x01\0\x01".to_vec();
            bytes.extend(octets);
            bytes.extend([0, 0]);
            Record::parse(&bytes, 0).unwrap().ttl(&bytes)
        };
        assert_eq!(ttl([0, 1, 0, 5]), 65_541);
        assert_eq!(ttl([0x7f, 255, 255, 255]), 0x7fff_ffff);
        assert_eq!(ttl([0x80, 0, 0, 0]), 0);
    }

    #[test]
    fn data_beyond_the_message_is_malformed() {
        let bytes = b"\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x7f\x00\x00";
        assert_eq!(Record::parse(bytes, 0), Err(Malformed));
        assert_eq!(Record::parse(&bytes[..10], 0), Err(Malformed));
    }
}
