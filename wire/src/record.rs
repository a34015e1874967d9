//! The parts of resource records that a proxy uses (RFC 1035, section 4.1.3).

use std::net::IpAddr;

use super::question::{CLASS_IN, Type};
use super::{Malformed, name, read_u16, steps};

/// Length in bytes of the numbers at the end of the data of a SOA.
const SOA_NUMBERS_LEN: usize = 20;

/// The positions of one record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position of the owner name and start of the record.
    pub start: usize,
    /// Position after the owner name: the start of type, class, TTL and data length.
    pub fixed: usize,
    /// Position after the data.
    pub end: usize,
    /// The record's type.
    pub rr_type: Type,
}

impl Record {
    /// Number of bytes between owner name and data: type, class, TTL, data length.
    pub const FIXED_LEN: usize = 10;

    /// Parses the record at `start` of `message`. Names are not followed, and the data may have any
    /// form.
    pub fn parse(message: &[u8], start: usize) -> Result<Self, Malformed> {
        let record = Self::parse_head(message, start)?;
        (record.end <= message.len())
            .then_some(record)
            .ok_or(Malformed)
    }

    /// Parses the record at `start` of `message`, which may end before the data does.
    pub(super) fn parse_head(message: &[u8], start: usize) -> Result<Self, Malformed> {
        let (record, _) = Self::behind_owner(message, start, name::skip(message, start)?)?;
        Ok(record)
    }

    /// Parses the record at `start` and its class. The owner name ends at `fixed`.
    #[inline]
    pub(super) fn behind_owner(
        message: &[u8],
        start: usize,
        fixed: usize,
    ) -> Result<(Self, u16), Malformed> {
        steps::count();
        let bytes = message.get(fixed..).and_then(|rest| rest.first_chunk());
        let bytes: &[u8; Self::FIXED_LEN] = bytes.ok_or(Malformed)?;
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let record = Self {
            start,
            fixed,
            end: fixed + Self::FIXED_LEN + usize::from(number(8)),
            rr_type: Type(number(0)),
        };
        Ok((record, number(2)))
    }

    /// Returns the position of the data.
    pub fn data_start(&self) -> usize {
        self.fixed + Self::FIXED_LEN
    }

    /// Returns the record's data in the bytes of its message.
    pub fn data<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.data_start()..self.end]
    }

    /// Returns the record's class.
    pub fn class(&self, message: &[u8]) -> Result<u16, Malformed> {
        read_u16(message, self.fixed + 2)
    }

    /// Returns the position of the TTL.
    pub fn ttl_at(&self) -> usize {
        self.fixed + 4
    }

    /// Returns the TTL in seconds: an unsigned number of 32 bits, which a cache has to limit (RFC
    /// 8767, section 4).
    pub fn ttl(&self, message: &[u8]) -> u32 {
        let half = |at| read_u16(message, at).map_or(0, u32::from);
        half(self.ttl_at()) << 16 | half(self.ttl_at() + 2)
    }

    /// Sets the TTL of the record.
    pub fn set_ttl(&self, message: &mut [u8], ttl: u32) {
        let at = self.ttl_at();
        message[at..at + size_of::<u32>()].copy_from_slice(&ttl.to_be_bytes());
    }

    /// Appends this record, which is a SOA (RFC 1035, section 3.3.13), without compression. Returns
    /// the position of its TTL.
    pub fn write_uncompressed_soa(
        &self,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Malformed> {
        name::write_uncompressed(out, message, self.start)?;
        let fixed = out.len();
        let data = self.fixed + Self::FIXED_LEN;
        out.extend_from_slice(&message[self.fixed..data]);
        let data_start = out.len();
        let mailbox = name::skip(message, data)?;
        let numbers = name::skip(message, mailbox)?;
        if numbers + SOA_NUMBERS_LEN != self.end {
            return Err(Malformed);
        }
        name::write_uncompressed(out, message, data)?;
        name::write_uncompressed(out, message, mailbox)?;
        out.extend_from_slice(&message[numbers..self.end]);
        let data_len = u16::try_from(out.len() - data_start).map_err(|_| Malformed)?;
        out[data_start - 2..data_start].copy_from_slice(&data_len.to_be_bytes());
        Ok(fixed + 4)
    }

    /// Returns the address in an A or AAAA record.
    pub fn address(&self, message: &[u8]) -> Option<IpAddr> {
        if self.class(message) != Ok(CLASS_IN) {
            return None;
        }
        let data = self.data(message);
        match self.rr_type {
            Type::A => Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            Type::AAAA => Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => None,
        }
    }

    /// Returns whether both records belong to one RRset: same owner, type and class (RFC 2181,
    /// section 5). The comparison of the owners costs at most `steps_left`; see [`name::equal`].
    pub fn same_rrset(&self, other: &Self, message: &[u8], steps_left: &mut usize) -> bool {
        self.rr_type == other.rr_type
            && self.class(message) == other.class(message)
            && name::equal(message, self.start, other.start, steps_left)
    }
}

/// Returns the records between two record boundaries of a message.
pub fn records(message: &[u8], start: usize, end: usize) -> impl Iterator<Item = Record> {
    let mut at = start;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let record = Record::parse(message, at).ok()?;
        at = record.end;
        Some(record)
    })
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
    fn addresses_are_parsed_from_records() {
        let address = |bytes: &[u8]| Record::parse(bytes, 0).unwrap().address(bytes);
        let a = b"\0\0\x01\0\x01\0\0\0\x05\0\x04\xc0\0\x02\x01";
        assert_eq!(address(a), Some([192, 0, 2, 1].into()));
        let aaaa = b"\0\0\x1c\0\x01\0\0\0\x05\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        assert_eq!(address(aaaa), "2001:db8::1".parse().ok());
        // A TXT record, another class, an address with an additional byte.
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
    fn soa_is_copied_without_compression() {
        let mut bytes = b"\0\0\0\0\0\0\0\0\0\0\0\0\x07example\0".to_vec();
        bytes.extend(b"\xc0\x0c\0\x06\0\x01\0\0\x0e\x10\0\x1d");
        bytes.extend(b"\x02ns\xc0\x0c\x02me\xc0\x0c");
        bytes.extend([7; SOA_NUMBERS_LEN]);
        bytes[32] = 30;
        let record = Record::parse(&bytes, 21).unwrap();
        let mut out = b"before".to_vec();
        let ttl_at = record.write_uncompressed_soa(&bytes, &mut out).unwrap();
        let alone = Record::parse(&out, 6).unwrap();
        assert_eq!((alone.ttl_at(), alone.end), (ttl_at, out.len()));
        assert_eq!(alone.ttl(&out), 3600);
        let names = b"\x02ns\x07example\0\x02me\x07example\0";
        assert_eq!(&alone.data(&out)[..24], names);
        assert_eq!(out[6..15], bytes[12..21]);
        // Numbers are missing, or there are too many.
        bytes.push(7);
        for len in [29, 31] {
            bytes[32] = len;
            let record = Record::parse(&bytes, 21).unwrap();
            assert!(record.write_uncompressed_soa(&bytes, &mut out).is_err());
        }
    }

    #[test]
    fn ttl_has_32_bits() {
        let ttl = |value: [u8; 4]| {
            let mut bytes = b"\0\0\x01\0\x01".to_vec();
            bytes.extend(value);
            bytes.extend([0, 0]);
            Record::parse(&bytes, 0).unwrap().ttl(&bytes)
        };
        assert_eq!(ttl([0, 1, 0, 5]), 65_541);
        assert_eq!(ttl([0x7f, 255, 255, 255]), 0x7fff_ffff);
        assert_eq!(ttl([0x80, 0, 0, 0]), 0x8000_0000);
    }

    #[test]
    fn data_beyond_the_message_is_malformed() {
        let bytes = b"\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x7f\x00\x00";
        assert_eq!(Record::parse(bytes, 0), Err(Malformed));
        assert_eq!(Record::parse(&bytes[..10], 0), Err(Malformed));
    }
}
