//! Removal of records from a message: those that only DNSSEC needs, for clients that did not ask
//! for them (RFC 4035, section 3.2.1), and others.

use super::question::Type;
use super::record::Record;
use super::record_writer::{RecordWriter, Section};
use super::{Malformed, Message};

/// Returns whether records of a type are only for validators.
pub fn is_proof(rr_type: Type) -> bool {
    matches!(rr_type, Type::RRSIG | Type::NSEC | Type::NSEC3)
}

/// Returns a copy of a message without RRSIG, NSEC and NSEC3 records, unless the question asks for
/// that type.
///
/// # Errors
///
/// Returns [`Malformed`] if the message has no question, or would become too long: names that were
/// compressed by pointers into removed records are written in full.
pub fn without_proof(message: &Message<'_>) -> Result<Vec<u8>, Malformed> {
    let asked = message.question().ok_or(Malformed)?.rr_type();
    let is_kept = |record: &Record| !is_proof(record.rr_type) || record.rr_type == asked;
    filtered(message, is_kept)
}

/// Returns a copy of a message with only those records for which `is_kept` holds.
///
/// # Errors
///
/// Returns [`Malformed`] if the message has no question, or would become too long: names that were
/// compressed by pointers into removed records are written in full.
pub fn filtered(
    message: &Message<'_>,
    is_kept: impl Fn(&Record) -> bool,
) -> Result<Vec<u8>, Malformed> {
    let question = message.question().ok_or(Malformed)?;
    let bytes = message.bytes();
    let mut writer = RecordWriter::new(message.header(), question);
    let [answers_end, authorities_end] = message.answer_and_authority_ends();
    for (section, start, end) in [
        (Section::Answer, message.records_start(), answers_end),
        (Section::Authority, answers_end, authorities_end),
        (Section::Additional, authorities_end, message.end()),
    ] {
        for record in message.records(start, end).filter(&is_kept) {
            writer.copy(section, bytes, &record)?;
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::HEADER_LEN;

    /// Returns a message for `www.example A` with these counts and these records.
    fn message(counts: [u8; 3], records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![
            0, 1, 0x81, 0xa0, 0, 1, 0, counts[0], 0, counts[1], 0, counts[2],
        ];
        bytes.extend(b"\x03www\x07example\0\0\x01\0\x01");
        bytes.extend(records.concat());
        bytes
    }

    /// The fields of an RRSIG record for A, with `example` as its signer at the end of them.
    const SIGNATURE: &[u8] = b"\0\x01\x0d\x02\0\0\0\x3c\0\0\0\0\0\0\0\0\0\0\x07example\0";

    fn rrsig(owner: &[u8]) -> Vec<u8> {
        let data = [SIGNATURE, &[7; 64]].concat();
        let len = u16::try_from(data.len()).unwrap().to_be_bytes();
        [owner, b"\0\x2e\0\x01\0\0\0\x3c", &len, &data].concat()
    }

    const ADDRESS: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";

    #[test]
    fn signatures_and_denials_are_removed() {
        let nsec = b"\xc0\x10\0\x2f\0\x01\0\0\0\x3c\0\x0f\x01a\x07example\0\0\x02\x40\x01";
        let signed = message(
            [2, 2, 1],
            &[ADDRESS, &rrsig(b"\xc0\x0c"), nsec, &rrsig(b"\xc0\x10"), OPT],
        );
        let signed = Message::parse(&signed).unwrap();
        let expected = message([1, 0, 1], &[ADDRESS, OPT]);
        assert_eq!(without_proof(&signed).unwrap(), expected);
    }

    #[test]
    fn names_that_point_into_removed_records_are_written_in_full() {
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01x\xc0\x10";
        let before = message([0, 0, 0], &[]).len() + alias.len();
        // The signer's name in the signature of the alias.
        let pointer = u16::try_from(before + 12 + 18).unwrap() | 0xc000;
        let owner = [b"\x01x", &pointer.to_be_bytes()[..]].concat();
        let address = [&owner[..], &ADDRESS[2..]].concat();
        let signed = message([3, 0, 0], &[alias, &rrsig(b"\xc0\x0c"), &address]);
        let signed = Message::parse(&signed).unwrap();
        let plain = without_proof(&signed).unwrap();
        let target = u16::try_from(before - 4).unwrap() | 0xc000;
        let expected = message(
            [2, 0, 0],
            &[
                b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x0b\x01x\x07example\0",
                &target.to_be_bytes(),
                &ADDRESS[2..],
            ],
        );
        assert_eq!(plain, expected);
        let plain = Message::parse(&plain).unwrap();
        assert_eq!(plain.answers().count(), 2);
    }

    #[test]
    fn records_of_the_type_in_the_question_are_kept() {
        let mut bytes = message([1, 0, 0], &[&rrsig(b"\xc0\x0c")]);
        let type_at = HEADER_LEN + 13;
        bytes[type_at..type_at + 2].copy_from_slice(&Type::RRSIG.0.to_be_bytes());
        let signed = Message::parse(&bytes).unwrap();
        assert_eq!(without_proof(&signed).unwrap(), bytes);
    }
}
