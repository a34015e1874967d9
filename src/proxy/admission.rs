//! What to do with a message from a client, from its bytes alone.

use std::time::Duration;

use crate::time::Instant;
use crate::wire::edns::{self, ExtendedError, ExtendedErrorCode, OptionCode};
use crate::wire::header::HEADER_LEN;
use crate::wire::question::Type;
use crate::wire::response::{Asked, AskedOpt, STREAM_LEN_MAX, udp_len_max};
use crate::wire::{Flags, Header, Message, Opcode, Question, Rcode};

use super::counters::Outcome;

/// How a client sent its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp {
        /// For how long the connection may be idle, as things stand.
        idle: Duration,
        /// When the query came, if it was kept until now because others had to go first.
        came: Instant,
    },
}

impl Transport {
    /// When the query came.
    pub(super) fn came(self, now: Instant) -> Instant {
        match self {
            Self::Udp => now,
            Self::Tcp { came, .. } => came,
        }
    }
}

/// What to do with a message.
#[derive(Debug)]
pub(super) enum Admission<'a> {
    /// Find the answer upstream.
    Forward(Message<'a>, Reception),
    /// Refuse it.
    Reject(Asked<'a>, Refusal),
    /// Nothing: it is no query.
    Ignore,
}

/// How the client wants its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reception {
    /// What its OPT asked for.
    pub(super) opt: Option<AskedOpt>,
    /// Octets of the largest response that it takes.
    pub(super) len_max: usize,
}

/// Why a query is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) rcode: Rcode,
    pub(super) error: ExtendedError,
    pub(super) outcome: Outcome,
}

impl<'a> Admission<'a> {
    /// What a response has to say of the query, if it is one.
    pub(super) fn asked(&self) -> Option<Asked<'a>> {
        match self {
            Self::Forward(message, reception) => {
                Some(reception.asked(message.header(), message.question()))
            }
            Self::Reject(asked, _) => Some(*asked),
            Self::Ignore => None,
        }
    }
}

/// Judges a message.
pub(super) fn admit(bytes: &[u8], transport: Transport) -> Admission<'_> {
    let Some(header) = Header::parse(bytes).filter(|header| !header.flags.contains(Flags::QR))
    else {
        return Admission::Ignore;
    };
    let parsed = Message::parse(bytes).ok();
    let reception = Reception::new(parsed.as_ref(), transport);
    let refusal = match &parsed {
        _ if header.flags.opcode() != Opcode::QUERY => Some(NOT_IMPLEMENTED),
        Some(message) => judge(message),
        None => Some(MALFORMED),
    };
    match (parsed, refusal) {
        (Some(message), None) => Admission::Forward(message, reception),
        (parsed, refusal) => {
            let question = match parsed {
                Some(message) => message.question(),
                None if header.questions == 1 => Question::parse(bytes, HEADER_LEN).ok(),
                None => None,
            };
            let asked = reception.asked(header, question);
            Admission::Reject(asked, refusal.unwrap_or(MALFORMED))
        }
    }
}

fn judge(message: &Message<'_>) -> Option<Refusal> {
    let Some(question) = message.question() else {
        return Some(NOT_ONE_QUESTION);
    };
    if message
        .opt()
        .is_some_and(|opt| opt.version != edns::VERSION)
    {
        return Some(BAD_VERSION);
    }
    if matches!(question.rr_type(), Type::AXFR | Type::IXFR) {
        return Some(ZONE_TRANSFER);
    }
    message.is_signed().then_some(SIGNED)
}

impl Reception {
    /// What a response has to say of a query with this header and question.
    pub(super) fn asked<'a>(&self, header: Header, question: Option<Question<'a>>) -> Asked<'a> {
        Asked {
            id: header.id,
            flags: header.flags,
            question,
            opt: self.opt,
            len_max: self.len_max,
        }
    }

    fn new(message: Option<&Message<'_>>, transport: Transport) -> Self {
        let opt = message.and_then(Message::opt);
        let keepalive = match transport {
            Transport::Tcp { idle, .. }
                if opt.is_some_and(|opt| opt.has_option(OptionCode::TCP_KEEPALIVE)) =>
            {
                Some(u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX))
            }
            _ => None,
        };
        Self {
            opt: opt.map(|opt| AskedOpt {
                flags: opt.flags,
                keepalive,
            }),
            len_max: match transport {
                Transport::Udp => udp_len_max(opt),
                Transport::Tcp { .. } => STREAM_LEN_MAX,
            },
        }
    }
}

const fn refusal(
    rcode: Rcode,
    code: ExtendedErrorCode,
    text: &'static str,
    outcome: Outcome,
) -> Refusal {
    Refusal {
        rcode,
        error: ExtendedError { code, text },
        outcome,
    }
}

const NOT_IMPLEMENTED: Refusal = refusal(
    Rcode::NOTIMP,
    ExtendedErrorCode::NOT_SUPPORTED,
    "only ordinary queries are forwarded",
    Outcome::NotImplemented,
);

const MALFORMED: Refusal = refusal(
    Rcode::FORMERR,
    ExtendedErrorCode::OTHER,
    "the query is malformed",
    Outcome::Malformed,
);

const NOT_ONE_QUESTION: Refusal = refusal(
    Rcode::FORMERR,
    ExtendedErrorCode::OTHER,
    "a query has one question",
    Outcome::Malformed,
);

const BAD_VERSION: Refusal = refusal(
    Rcode::BADVERS,
    ExtendedErrorCode::NOT_SUPPORTED,
    "only EDNS version 0 is spoken",
    Outcome::BadVersion,
);

const ZONE_TRANSFER: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::NOT_SUPPORTED,
    "zone transfers are not forwarded",
    Outcome::Refused,
);

/// Who asks may not.
pub(super) const DENIED: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::PROHIBITED,
    "this client may not ask here",
    Outcome::Denied,
);

/// The query goes upstream in other bytes, which would break the signature.
const SIGNED: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::NOT_SUPPORTED,
    "signed queries are not forwarded",
    Outcome::Refused,
);

/// The query would not fit what is kept of it.
pub(super) const TOO_LONG: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::NOT_SUPPORTED,
    "the query has too many EDNS options",
    Outcome::Refused,
);

/// What a client is told when time ran out before anything failed.
pub(super) const NO_ANSWER: ExtendedError = ExtendedError {
    code: ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
    text: "no answer from upstream in time",
};

/// Others had to go first for too long.
pub(super) const TOO_LATE: Refusal = Refusal {
    rcode: Rcode::SERVFAIL,
    error: NO_ANSWER,
    outcome: Outcome::TimedOut,
};

/// Every upstream is for other names.
pub(super) const NOBODY_TO_ASK: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::OTHER,
    "no upstream is configured for this name",
    Outcome::Refused,
);

/// The query failed for this reason shortly before.
pub(super) fn failed_before(reason: ExtendedError) -> Refusal {
    let code = ExtendedErrorCode::CACHED_ERROR;
    Refusal {
        rcode: Rcode::SERVFAIL,
        error: ExtendedError { code, ..reason },
        outcome: Outcome::UpstreamFailed,
    }
}

/// There is no room for the query.
pub(super) const OVERLOADED: Refusal = refusal(
    Rcode::SERVFAIL,
    ExtendedErrorCode::OTHER,
    "too many queries wait already",
    Outcome::Shed,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::edns::{DO, OptWriter};

    fn tcp() -> Transport {
        Transport::Tcp {
            idle: Duration::from_secs(10),
            came: Instant::default(),
        }
    }

    /// A query for a type, with the given opcode octet and OPT.
    fn query(opcode: u8, rr_type: u16, opt: Option<(u8, u16)>) -> Vec<u8> {
        let mut bytes = vec![
            1,
            2,
            opcode,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(opt.is_some()),
        ];
        bytes.extend(b"\x07example\x00");
        bytes.extend(rr_type.to_be_bytes());
        bytes.extend([0, 1]);
        if let Some((version, udp_size)) = opt {
            let at = bytes.len();
            let mut writer = OptWriter::start(&mut bytes, udp_size, 0, DO);
            writer.option(OptionCode::TCP_KEEPALIVE, &[]);
            writer.finish();
            bytes[at + 6] = version;
        }
        bytes
    }

    fn rejection(bytes: &[u8]) -> (u16, Outcome, bool, bool) {
        match admit(bytes, Transport::Udp) {
            Admission::Reject(asked, refusal) => (
                refusal.rcode.to_u16(),
                refusal.outcome,
                asked.question.is_some(),
                asked.opt.is_some(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ordinary_query_is_forwarded() {
        let bytes = query(1, 28, None);
        let Admission::Forward(message, reception) = admit(&bytes, Transport::Udp) else {
            panic!("refused");
        };
        assert_eq!(message.question().unwrap().rr_type(), Type(28));
        assert_eq!((reception.opt, reception.len_max), (None, 512));
    }

    #[test]
    fn client_says_how_much_it_takes() {
        for (size, len_max) in [(0, 512), (512, 512), (900, 900), (1232, 1232), (4096, 1232)] {
            let bytes = query(1, 1, Some((0, size)));
            let Admission::Forward(_, reception) = admit(&bytes, Transport::Udp) else {
                panic!("refused");
            };
            assert_eq!(reception.len_max, len_max);
        }
    }

    #[test]
    fn keepalive_is_for_connections() {
        let bytes = query(1, 1, Some((0, 1232)));
        for (transport, keepalive) in [(Transport::Udp, None), (tcp(), Some(100))] {
            let Admission::Forward(_, reception) = admit(&bytes, transport) else {
                panic!("refused");
            };
            assert_eq!(
                reception.opt,
                Some(AskedOpt {
                    flags: DO,
                    keepalive
                })
            );
        }
    }

    #[test]
    fn what_is_no_query_is_ignored() {
        for bytes in [&b""[..], &[0; 11], &query(0x81, 1, None)] {
            assert!(matches!(admit(bytes, tcp()), Admission::Ignore));
        }
    }

    #[test]
    fn every_refusal_has_its_code() {
        let opt = Some((0, 1232));
        assert_eq!(
            rejection(&query(0x28, 1, opt)),
            (4, Outcome::NotImplemented, true, true)
        );
        assert_eq!(
            rejection(&query(1, 252, opt)),
            (5, Outcome::Refused, true, true)
        );
        assert_eq!(
            rejection(&query(1, 251, None)),
            (5, Outcome::Refused, true, false)
        );
        assert_eq!(
            rejection(&query(1, 1, Some((1, 1232)))),
            (16, Outcome::BadVersion, true, true)
        );

        let mut two = query(1, 1, None);
        two[5] = 2;
        two.extend(b"\x00\x00\x01\x00\x01");
        assert_eq!(rejection(&two), (1, Outcome::Malformed, false, false));
        let torn = query(1, 1, opt);
        assert_eq!(
            rejection(&torn[..torn.len() - 1]),
            (1, Outcome::Malformed, true, false)
        );
        assert_eq!(
            rejection(&torn[..15]),
            (1, Outcome::Malformed, false, false)
        );

        let mut signed = query(1, 1, None);
        signed[11] = 1;
        signed.extend(b"\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00");
        assert_eq!(rejection(&signed), (5, Outcome::Refused, true, false));
    }
}
