//! RRSIG records, and the bytes that they sign (RFC 4034, section 3).

use crate::wire::canonical::{label_count, write_data, write_name};
use crate::wire::name::{self, suffixes};
use crate::wire::question::Type;
use crate::wire::record::Record;
use crate::wire::{Malformed, Message};

/// The number of bytes before the signer's name.
const FIXED_LEN: usize = 18;

/// The data of an RRSIG record.
#[derive(Clone, Copy, Debug)]
pub struct Rrsig<'a> {
    /// The type of the signed records.
    pub covered: Type,
    /// The algorithm of the signature.
    pub algorithm: u8,
    /// The number of labels of the owner, without the root and without `*`.
    pub labels: u8,
    /// The TTL of the records in the zone, in seconds.
    pub original_ttl: u32,
    /// The end of the validity, in seconds since 1970 modulo 2^32.
    pub expiration: u32,
    /// The start of the validity, in seconds since 1970 modulo 2^32.
    pub inception: u32,
    /// The tag of the key.
    pub key_tag: u16,
    /// The zone that signs, uncompressed.
    pub signer: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
    /// The fields before the signer's name.
    fixed: &'a [u8; FIXED_LEN],
}

impl<'a> Rrsig<'a> {
    /// Parses the data of an RRSIG record.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let fixed = data.first_chunk::<FIXED_LEN>().ok_or(Malformed)?;
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let signer_end = name::skip_uncompressed(data, FIXED_LEN)?;
        Ok(Self {
            covered: Type(half(0)),
            algorithm: fixed[2],
            labels: fixed[3],
            original_ttl: word(4),
            expiration: word(8),
            inception: word(12),
            key_tag: half(16),
            signer: &data[FIXED_LEN..signer_end],
            signature: &data[signer_end..],
            fixed,
        })
    }

    /// Returns how many labels the owner has beyond those of its wildcard, or `None` if the record
    /// cannot sign a set with this owner (RFC 4035, section 5.3.1). The set is an expansion of a
    /// wildcard if the number is not zero.
    pub fn expanded_labels(&self, owner: &[u8]) -> Option<usize> {
        let is_wildcard = owner.starts_with(b"\x01*");
        let labels = label_count(owner) - usize::from(is_wildcard);
        labels.checked_sub(usize::from(self.labels))
    }

    /// Appends the signed bytes of a set (RFC 4034, section 3.1.8.1): the fields of the RRSIG and
    /// the records in canonical form and order, without duplicates. `records` are those of the
    /// message, and `owner` is uncompressed.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if the record cannot sign the set.
    pub fn write_signed(
        &self,
        out: &mut Vec<u8>,
        message: &[u8],
        owner: &[u8],
        records: &[Record],
    ) -> Result<(), Malformed> {
        out.extend_from_slice(self.fixed);
        let signer_at = out.len();
        out.extend_from_slice(self.signer);
        name::make_lowercase(&mut out[signer_at..]);
        let prefix = self.owner_and_fixed(message, owner, records.first().ok_or(Malformed)?)?;
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let mut data = Vec::new();
            write_data(&mut data, message, record)?;
            all.push(data);
        }
        all.sort_unstable();
        all.dedup();
        for data in all {
            out.extend_from_slice(&prefix);
            let len = u16::try_from(data.len()).map_err(|_| Malformed)?;
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&data);
        }
        Ok(())
    }

    /// Returns the owner, type, class and original TTL of each signed record.
    fn owner_and_fixed(
        &self,
        message: &[u8],
        owner: &[u8],
        record: &Record,
    ) -> Result<Vec<u8>, Malformed> {
        let mut prefix = Vec::with_capacity(owner.len() + Record::FIXED_LEN);
        match self.expanded_labels(owner).ok_or(Malformed)? {
            0 => prefix.extend_from_slice(owner),
            more => {
                prefix.extend_from_slice(b"\x01*");
                let more = more + usize::from(owner.starts_with(b"\x01*"));
                prefix.extend_from_slice(suffixes(owner).nth(more).ok_or(Malformed)?);
            }
        }
        name::make_lowercase(&mut prefix);
        prefix.extend_from_slice(&record.rr_type.0.to_be_bytes());
        prefix.extend_from_slice(&record.class(message)?.to_be_bytes());
        prefix.extend_from_slice(&self.original_ttl.to_be_bytes());
        Ok(prefix)
    }
}

/// Returns the owner of a record, uncompressed and in lower case.
pub fn owner(message: &Message<'_>, record: &Record) -> Result<Vec<u8>, Malformed> {
    let mut name = Vec::new();
    write_name(&mut name, message.bytes(), record.start)?;
    Ok(name)
}
