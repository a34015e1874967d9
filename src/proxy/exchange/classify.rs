//! Classification of messages from upstream and of the quality of answers.

use std::time::Duration;

use crate::config::Scheme;
use crate::wire::edns::ExtendedErrorCode;
use crate::wire::header::HEADER_LEN;
use crate::wire::query::{EdnsLevel, UDP_SIZE};
use crate::wire::{Flags, Header, Message, Opcode, Query, Question, Rcode};

/// The quality of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ReplyQuality {
    /// The answer is final: it becomes the response.
    Final,
    /// The answer is truncated, but would not be over TCP.
    Truncated,
    /// The answer is truncated on a connection, which has room for a whole answer.
    TruncatedStream,
    /// The answer is an error; another upstream may have a better one.
    Error,
}

impl ReplyQuality {
    /// Returns whether the answer counts as an error of the upstream: another upstream may have a
    /// usable one.
    pub(in crate::proxy) fn is_error(self) -> bool {
        matches!(self, Self::Error | Self::TruncatedStream)
    }
}

/// The class of a message from upstream that has the id of a query.
#[derive(Debug)]
pub(in crate::proxy) enum Reply<'a> {
    /// A reply to its question.
    Answer(&'a Message<'a>),
    /// An error without a question section, or a truncated reply with broken records: only this
    /// header can be used.
    Bare(Header),
    /// Not a reply to this query. The reply may still come.
    Mismatch,
    /// A reply that breaks the rules of the protocol.
    Malformed,
}

/// Classifies the message `reply`, which has this header and was parsed.
pub(in crate::proxy) fn classify<'a>(
    reply: &[u8],
    parsed: Option<&'a Message<'a>>,
    header: Header,
    query: &Query,
    scheme: Scheme,
) -> Reply<'a> {
    let flags = header.flags;
    if !flags.contains(Flags::QR) || flags.opcode() != Opcode::QUERY {
        return Reply::Mismatch;
    }
    if let Some(message) = parsed
        && let Some(question) = message.question()
    {
        return if question.matches(query.question()) {
            Reply::Answer(message)
        } else {
            Reply::Mismatch
        };
    }
    let bare = Header {
        questions: 0,
        answers: 0,
        authorities: 0,
        additionals: 0,
        ..header
    };
    let has_no_question = header.questions == 0 || reply.len() == HEADER_LEN;
    if has_no_question && is_error(flags.rcode()) {
        return Reply::Bare(bare);
    }
    let question = match header.questions {
        1 => Question::parse(reply, HEADER_LEN).ok(),
        _ => None,
    };
    match question.map(|question| question.matches(query.question())) {
        Some(false) => Reply::Mismatch,
        // Some servers truncate a datagram anywhere.
        Some(true) if scheme == Scheme::Udp && flags.contains(Flags::TC) => Reply::Bare(bare),
        Some(true) | None => Reply::Malformed,
    }
}

/// Returns whether a message is a well-formed reply to some query.
pub(in crate::proxy) fn is_reply(bytes: &[u8]) -> bool {
    Message::parse(bytes).is_ok_and(|message| message.header().may_be_reply())
}

/// Returns the idle timeout that an answer announces for its connection (edns-tcp-keepalive, RFC
/// 7828).
pub(in crate::proxy) fn keepalive(answer: &Message<'_>, scheme: Scheme) -> Option<Duration> {
    if scheme == Scheme::Udp {
        return None;
    }
    let timeout = answer.opt()?.keepalive_timeout()?;
    Some(Duration::from_millis(100) * u32::from(timeout))
}

/// Returns the reduced EDNS level with which a query is sent again after this error, or `None` if
/// it is not sent again: the server may not know EDNS, or an option (RFC 6891, section 7). An error
/// without OPT shows this. An error with OPT may come from a server that echoes the query, and
/// counts if `is_in_doubt`: queries with all of EDNS have not been answered recently. A query that
/// `needs_dnssec` needs EDNS.
pub(in crate::proxy) fn reduced_edns_level(
    error: &Message<'_>,
    query: &Query,
    sent: EdnsLevel,
    scheme: Scheme,
    (is_in_doubt, needs_dnssec): (bool, bool),
) -> Option<EdnsLevel> {
    if !matches!(error.header().flags.rcode(), Rcode::FORMERR | Rcode::NOTIMP) {
        return None;
    }
    let has_opt = error.opt().is_some();
    let had_options = scheme.is_encrypted() || query.has_options();
    let without_options = had_options && (!has_opt || is_in_doubt || query.has_options());
    let without_edns = !needs_dnssec && (!has_opt || is_in_doubt);
    match sent {
        EdnsLevel::Full if !has_opt && without_edns => Some(EdnsLevel::Off),
        EdnsLevel::Full if without_options => Some(EdnsLevel::NoOptions),
        EdnsLevel::Full | EdnsLevel::NoOptions if without_edns => Some(EdnsLevel::Off),
        EdnsLevel::Full | EdnsLevel::NoOptions | EdnsLevel::Off => None,
    }
}

/// Returns the form in which an answer is kept while another attempt is made: a long answer is
/// reduced to its header and question, since it is an error or truncated anyway.
pub(in crate::proxy) fn shortened(answer: &Message<'_>) -> Box<[u8]> {
    match answer.question() {
        Some(question) if answer.bytes().len() > usize::from(UDP_SIZE) => {
            let header = Header {
                answers: 0,
                authorities: 0,
                additionals: 0,
                ..answer.header()
            };
            [&header.to_bytes()[..], question.as_bytes()]
                .concat()
                .into()
        }
        _ => answer.bytes().into(),
    }
}

pub(in crate::proxy) fn quality(answer: &Message<'_>, scheme: Scheme) -> ReplyQuality {
    let flags = answer.header().flags;
    if is_error(answer.rcode()) && !is_verdict(answer) {
        ReplyQuality::Error
    } else if flags.contains(Flags::TC) {
        match scheme {
            Scheme::Udp => ReplyQuality::Truncated,
            Scheme::Tcp | Scheme::Tls | Scheme::Https => ReplyQuality::TruncatedStream,
        }
    } else {
        ReplyQuality::Final
    }
}

/// Returns whether an answer has the flag TC.
pub(in crate::proxy) fn is_truncated(answer: &Message<'_>) -> bool {
    answer.header().flags.contains(Flags::TC)
}

/// Returns whether an error is a verdict on the name, which is final. REFUSED with the extended
/// error Prohibited is not a verdict: it means that the upstream does not serve this client (RFC
/// 8914, section 4.19), and another upstream may.
fn is_verdict(answer: &Message<'_>) -> bool {
    let is_refusal = answer.header().flags.rcode() == Rcode::REFUSED;
    let is_verdict = |code: ExtendedErrorCode| {
        code.is_judgement() && !(is_refusal && code == ExtendedErrorCode::PROHIBITED)
    };
    answer
        .opt()
        .is_some_and(|opt| opt.error_codes().any(is_verdict))
}

/// Returns whether a resolver with this code could not or would not answer. YXDOMAIN is an answer:
/// it states that a DNAME record makes the name too long (RFC 6672, section 2.2).
pub(in crate::proxy) fn is_error(rcode: Rcode) -> bool {
    !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN | Rcode::YXDOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::edns::{ExtendedError, OptWriter};

    fn quality_of(flags: Flags, rcode: Rcode, reason: u16, scheme: Scheme) -> ReplyQuality {
        let header = Header {
            id: 0,
            flags: (Flags::QR | flags).with_rcode(rcode),
            questions: 1,
            answers: 0,
            authorities: 0,
            additionals: 1,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(b"\x01a\0\0\x01\0\x01");
        let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
        writer.extended_error(ExtendedError {
            code: ExtendedErrorCode(reason),
            text: "why",
        });
        writer.finish();
        quality(&Message::parse(&bytes).unwrap(), scheme)
    }

    #[test]
    fn error_is_final_if_it_is_a_verdict_on_the_name() {
        let of = |rcode, reason| quality_of(Flags::default(), rcode, reason, Scheme::Tls);
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
            assert_eq!(of(rcode, 22), ReplyQuality::Error);
            assert_eq!(of(rcode, 6), ReplyQuality::Final, "bogus");
            assert_eq!(of(rcode, 15), ReplyQuality::Final, "blocked");
            assert_eq!(of(rcode, 16), ReplyQuality::Final, "censored");
            assert_eq!(of(rcode, 17), ReplyQuality::Final, "filtered");
        }
        assert_eq!(of(Rcode::SERVFAIL, 18), ReplyQuality::Final, "prohibited");
        assert_eq!(
            of(Rcode::REFUSED, 18),
            ReplyQuality::Error,
            "prohibited for this client"
        );
        assert_eq!(of(Rcode::FORMERR, 0), ReplyQuality::Error);
        assert_eq!(of(Rcode::NOTIMP, 0), ReplyQuality::Error);
        assert_eq!(of(Rcode::NXDOMAIN, 0), ReplyQuality::Final);
        assert_eq!(of(Rcode::NOERROR, 22), ReplyQuality::Final);
    }

    #[test]
    fn truncated_datagram_is_a_part_of_an_answer() {
        let of = |scheme| quality_of(Flags::TC, Rcode::NOERROR, 0, scheme);
        assert_eq!(of(Scheme::Udp), ReplyQuality::Truncated);
        assert_eq!(of(Scheme::Tcp), ReplyQuality::TruncatedStream);
        assert_eq!(of(Scheme::Tls), ReplyQuality::TruncatedStream);
    }
}
