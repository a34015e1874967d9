//! Answers for the names of block lists (`--block`).

use super::hosts;
use super::local_zones::{LocalAnswer, write};
use crate::config::BlockAnswer;
use crate::wire::edns::{ExtendedErrorCode, append_error};
use crate::wire::query::UDP_SIZE;
use crate::wire::question::{CLASS_ANY, CLASS_IN, Question, Type};

/// Position of the number of additional records in a header.
const ADDITIONALS_AT: usize = 11;

/// Returns the reply to a question for a name that the list with this label blocks, with id 0 for
/// the caller to replace. The label is the text of the extended error (RFC 8914, section 4.16).
pub(in crate::proxy) fn reply(question: Question<'_>, answer: BlockAnswer, label: &str) -> Vec<u8> {
    let has_records = matches!(question.class(), CLASS_IN | CLASS_ANY);
    let content = match (answer, question.rr_type()) {
        (BlockAnswer::NoName, _) => LocalAnswer::NoName,
        // One of the records is enough for a question for any type (RFC 8482, section 4.1).
        (BlockAnswer::Zero, Type::A | Type::ANY) if has_records => {
            LocalAnswer::Records(Type::A, vec![vec![0; 4]])
        }
        (BlockAnswer::Zero, Type::AAAA) if has_records => {
            LocalAnswer::Records(Type::AAAA, vec![vec![0; 16]])
        }
        (BlockAnswer::NoData | BlockAnswer::Zero, _) => LocalAnswer::NoRecord,
    };
    let mut reply = write(question, question.name().len(), &content, hosts::TTL);
    reply[ADDITIONALS_AT] = 1;
    append_error(&mut reply, UDP_SIZE, ExtendedErrorCode::BLOCKED, label);
    reply
}
