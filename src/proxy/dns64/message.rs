//! The messages of DNS64, made of answers from upstream.

use std::net::IpAddr;

use super::is_usable;
use crate::config::Dns64Prefix;
use crate::wire::question::Type;
use crate::wire::record::Record;
use crate::wire::record_writer::{RecordWriter, Section};
use crate::wire::without_proof::{filtered, is_proof};
use crate::wire::{Flags, Header, Malformed, Message, Question, Rcode};

/// The maximum TTL in seconds of AAAA records, if the answer without them has no SOA record (RFC
/// 6147, section 5.1.7), and of the CNAME record of an address.
const TTL_MAX: u32 = 600;

/// Returns an answer without the excluded addresses. Its signatures do not match the others, so
/// that they are removed with AD.
pub(super) fn with_usable_addresses(answer: &Message<'_>) -> Result<Vec<u8>, Malformed> {
    let bytes = answer.bytes();
    let mut usable = filtered(answer, |record| {
        let address = record.address(bytes);
        let is_kept = address.is_none_or(|address| address.is_ipv4() || is_usable(address));
        is_kept && record.rr_type != Type::RRSIG
    })?;
    let flags = answer.header().flags.without(Flags::AD);
    usable[2..4].copy_from_slice(&flags.to_u16().to_be_bytes());
    Ok(usable)
}

/// Returns the answer to a question for AAAA records that is made of an answer with A records. If
/// none of them can be mapped, it is the original answer.
pub(super) fn with_mapped_addresses(
    question: Question<'_>,
    original: &Message<'_>,
    answer: &Message<'_>,
    prefix: Dns64Prefix,
) -> Option<Vec<u8>> {
    let bytes = answer.bytes();
    let mapped = |record: &Record| match record.address(bytes)? {
        IpAddr::V4(address) => prefix.embed(address),
        IpAddr::V6(_) => None,
    };
    if !answer.answers().any(|record| mapped(&record).is_some()) {
        return Some(original.bytes().to_vec());
    }
    let ttl_max = original.negative_ttl().unwrap_or(TTL_MAX);
    let are_secure =
        |flag| [original, answer].map(|one| one.header().flags.contains(flag)) == [true; 2];
    let ad = if are_secure(Flags::AD) {
        Flags::AD
    } else {
        Flags::default()
    };
    let mut writer = RecordWriter::new(header(Rcode::NOERROR, ad), question);
    for record in answer.answers() {
        let added = match (mapped(&record), record.rr_type) {
            (Some(address), _) => {
                let ttl = record.ttl(bytes).min(ttl_max);
                let source = (bytes, &record);
                writer.copy_with(
                    Section::Answer,
                    source,
                    (Type::AAAA, ttl),
                    &address.octets(),
                )
            }
            (None, Type::CNAME | Type::DNAME) => writer.copy(Section::Answer, bytes, &record),
            (None, _) => Ok(()),
        };
        added.ok()?;
    }
    writer.finish().ok()
}

/// Returns the answer to a question for the PTR records of an address of the prefix: a CNAME record
/// with the name in the question of `answer`, and this answer (RFC 6147, section 5.3.1).
pub(super) fn behind_alias(question: Question<'_>, answer: &Message<'_>) -> Option<Vec<u8>> {
    let bytes = answer.bytes();
    let header = header(answer.header().flags.rcode(), Flags::default());
    let mut writer = RecordWriter::new(header, question);
    let ttls = answer.answers().map(|record| record.ttl(bytes));
    let ttl = ttls.min().unwrap_or(TTL_MAX).min(TTL_MAX);
    writer.alias_question(answer.question()?.name(), ttl).ok()?;
    let is_kept = |record: &Record| !is_proof(record.rr_type);
    for record in answer.answers().filter(is_kept) {
        writer.copy(Section::Answer, bytes, &record).ok()?;
    }
    for record in answer.authorities().filter(is_kept) {
        writer.copy(Section::Authority, bytes, &record).ok()?;
    }
    copy_opt(&mut writer, answer)?;
    writer.finish().ok()
}

/// Returns the error of another answer as the answer to a question.
pub(super) fn error_of(question: Question<'_>, answer: &Message<'_>) -> Option<Vec<u8>> {
    let header = header(answer.header().flags.rcode(), Flags::default());
    let mut writer = RecordWriter::new(header, question);
    copy_opt(&mut writer, answer)?;
    writer.finish().ok()
}

/// Adds the OPT record of an answer, which has the extended error.
fn copy_opt(writer: &mut RecordWriter, answer: &Message<'_>) -> Option<()> {
    let [_, start] = answer.answer_and_authority_ends();
    let mut others = answer.records(start, answer.end());
    if let Some(opt) = others.find(|record| record.rr_type == Type::OPT) {
        writer
            .copy(Section::Additional, answer.bytes(), &opt)
            .ok()?;
    }
    Some(())
}

fn header(rcode: Rcode, more: Flags) -> Header {
    Header {
        id: 0,
        flags: (Flags::QR | Flags::RA | more).with_rcode(rcode),
        questions: 1,
        answers: 0,
        authorities: 0,
        additionals: 0,
    }
}
