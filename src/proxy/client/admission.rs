//! The admission of a client's message, decided from its bytes alone.

use std::time::Duration;

use crate::base::origin::ClientProtocol;
use crate::base::time::Instant;
use crate::wire::edns::{self, Cookie, ExtendedError, ExtendedErrorCode, OptionCode};
use crate::wire::header::HEADER_LEN;
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::response::{Asked, AskedOpt, STREAM_LEN_MAX, udp_len_max};
use crate::wire::{Flags, Header, Message, Opcode, Opt, Question, Rcode};

use crate::proxy::outcome::Outcome;

/// The transport of a client's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTransport {
    /// UDP.
    Udp,
    /// A connection.
    Stream {
        /// The current idle timeout of the connection.
        idle: Duration,
        /// The time at which the query arrived, which is earlier than now if the query had to wait.
        received_at: Instant,
        /// The protocol of the connection, which is not UDP.
        protocol: ClientProtocol,
    },
}

impl ClientTransport {
    pub(in crate::proxy) fn protocol(self) -> ClientProtocol {
        match self {
            Self::Udp => ClientProtocol::Udp,
            Self::Stream { protocol, .. } => protocol,
        }
    }

    /// Returns the time at which the query arrived.
    pub(in crate::proxy) fn received_at(self, now: Instant) -> Instant {
        match self {
            Self::Udp => now,
            Self::Stream { received_at, .. } => received_at,
        }
    }
}

/// A query and the decision about it.
#[derive(Debug)]
pub(in crate::proxy) struct Admission<'m, 'a> {
    /// The properties of the query that its response depends on.
    pub(in crate::proxy) asked: Asked<'a>,
    /// The cookie in the query.
    pub(in crate::proxy) cookie: Option<Cookie<'a>>,
    pub(in crate::proxy) decision: Decision<'m, 'a>,
}

/// The decision about a query.
#[derive(Debug)]
pub(in crate::proxy) enum Decision<'m, 'a> {
    /// The query is forwarded upstream, unless the cache has the answer.
    Forward(&'m Message<'a>),
    /// A query for ANY gets a minimal response (RFC 8482).
    AnswerAny,
    /// A query without a question gets a response with only a cookie, as a first cookie or as a
    /// renewed one (RFC 7873, section 5.4).
    AnswerCookie { is_first: bool },
    /// The query is refused.
    Reject(Refusal),
}

/// The form of the response that a client accepts.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Reception {
    /// The EDNS properties that the OPT of the query asked for.
    opt: Option<AskedOpt>,
    /// The maximum length of the response in bytes.
    len_max: usize,
}

impl Reception {
    /// Returns whether the client asks for DNSSEC records (DO, RFC 3225).
    pub(in crate::proxy) fn wants_dnssec(&self) -> bool {
        self.opt.is_some_and(|opt| opt.flags & edns::DO != 0)
    }
}

/// A reason for which a query is refused.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Refusal {
    pub(in crate::proxy) rcode: Rcode,
    pub(in crate::proxy) error: ExtendedError,
    pub(in crate::proxy) outcome: Outcome,
}

/// Returns whether a message from a client is a query: it has a header, and QR is not set.
pub fn is_query(message: &[u8]) -> bool {
    Header::parse(message).is_some_and(|header| !header.flags.contains(Flags::QR))
}

/// Decides about a message from its bytes and, if it is well formed, its `parsed` form. Returns
/// `None` if the message is not a query.
pub(in crate::proxy) fn admit<'m, 'a>(
    bytes: &'a [u8],
    parsed: Option<&'m Message<'a>>,
    transport: ClientTransport,
) -> Option<Admission<'m, 'a>> {
    let header = Header::parse(bytes).filter(|header| !header.flags.contains(Flags::QR))?;
    let question = match parsed {
        Some(message) => message.question(),
        None if header.questions == 1 => Question::parse(bytes, HEADER_LEN).ok(),
        None => None,
    };
    let opt = parsed.and_then(Message::opt);
    let cookie = opt.map_or(Ok(None), |opt| opt.cookie());
    let decision = match (parsed, cookie) {
        _ if header.flags.opcode() != Opcode::QUERY => Decision::Reject(NOT_IMPLEMENTED),
        (Some(message), Ok(cookie)) => decide(message, cookie, transport),
        _ => Decision::Reject(MALFORMED),
    };
    Some(Admission {
        asked: Asked {
            id: header.id,
            flags: header.flags,
            question,
            opt: opt.map(|opt| asked_opt(opt, transport)),
            len_max: match transport {
                ClientTransport::Udp => udp_len_max(opt),
                ClientTransport::Stream { .. } => STREAM_LEN_MAX,
            },
        },
        cookie: cookie.ok().flatten(),
        decision,
    })
}

fn decide<'m, 'a>(
    message: &'m Message<'a>,
    cookie: Option<Cookie<'a>>,
    transport: ClientTransport,
) -> Decision<'m, 'a> {
    let is_supported = |opt: Opt<'_>| opt.version == edns::VERSION;
    if !message.opt().is_none_or(is_supported) {
        return Decision::Reject(BAD_VERSION);
    }
    match message.question() {
        None => match cookie {
            Some(cookie) if message.header().questions == 0 => Decision::AnswerCookie {
                is_first: cookie.server.is_none(),
            },
            _ => Decision::Reject(NOT_ONE_QUESTION),
        },
        Some(question) => match question.rr_type() {
            Type::AXFR | Type::IXFR => Decision::Reject(ZONE_TRANSFER),
            Type::NXNAME => Decision::Reject(INVALID_TYPE),
            _ if message.is_signed() => Decision::Reject(SIGNED),
            // Over TCP the source address is not forged, so the large answer reaches only its
            // requester.
            Type::ANY if question.class() == CLASS_IN && transport == ClientTransport::Udp => {
                Decision::AnswerAny
            }
            _ => Decision::Forward(message),
        },
    }
}

fn asked_opt(opt: Opt<'_>, transport: ClientTransport) -> AskedOpt {
    let keepalive = match transport {
        // HTTP has its own management of connections.
        ClientTransport::Stream { idle, protocol, .. }
            if protocol != ClientProtocol::Https && opt.has_option(OptionCode::TCP_KEEPALIVE) =>
        {
            Some(u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX))
        }
        _ => None,
    };
    AskedOpt {
        flags: opt.flags,
        keepalive,
        cookie: None,
        is_padded: transport.protocol().is_encrypted() && opt.has_option(OptionCode::PADDING),
    }
}

impl Reception {
    /// Returns the form of response that a query asked for.
    pub(in crate::proxy) fn of(asked: &Asked<'_>) -> Self {
        let Asked { opt, len_max, .. } = *asked;
        Self { opt, len_max }
    }

    /// Returns the properties of the response to a query with this id, flags and question.
    pub(in crate::proxy) fn asked<'a>(
        &self,
        id: u16,
        flags: Flags,
        question: Question<'a>,
    ) -> Asked<'a> {
        Asked {
            id,
            flags,
            question: Some(question),
            opt: self.opt,
            len_max: self.len_max,
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
    "only opcode QUERY is supported",
    Outcome::NotImplemented,
);

const MALFORMED: Refusal = refusal(
    Rcode::FORMERR,
    ExtendedErrorCode::OTHER,
    "malformed query",
    Outcome::Malformed,
);

const NOT_ONE_QUESTION: Refusal = refusal(
    Rcode::FORMERR,
    ExtendedErrorCode::OTHER,
    "a query must have one question",
    Outcome::Malformed,
);

const BAD_VERSION: Refusal = refusal(
    Rcode::BADVERS,
    ExtendedErrorCode::NOT_SUPPORTED,
    "only EDNS version 0 is supported",
    Outcome::BadVersion,
);

/// RFC 9824, section 3.5.
const INVALID_TYPE: Refusal = refusal(
    Rcode::FORMERR,
    ExtendedErrorCode::INVALID_QUERY_TYPE,
    "no record has the type NXNAME",
    Outcome::Malformed,
);

const ZONE_TRANSFER: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::NOT_SUPPORTED,
    "zone transfers are not supported",
    Outcome::Refused,
);

/// The access rules deny the client's address.
pub(in crate::proxy) const DENIED: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::PROHIBITED,
    "client not allowed",
    Outcome::Denied,
);

/// A signed query: it would be forwarded in other bytes, which breaks the signature.
const SIGNED: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::NOT_SUPPORTED,
    "signed queries (TSIG, SIG(0)) are not supported",
    Outcome::Refused,
);

/// A query that is too long for an exchange.
pub(in crate::proxy) const TOO_LONG: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::NOT_SUPPORTED,
    "too many EDNS options",
    Outcome::Refused,
);

/// The extended error of a query that reached its deadline before an attempt failed.
pub(in crate::proxy) const NO_ANSWER: ExtendedError = ExtendedError {
    code: ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
    text: "no answer from upstream in time",
};

/// The extended error of a query whose whole answer no upstream sends.
pub(in crate::proxy) const TRUNCATED: ExtendedError = ExtendedError {
    code: ExtendedErrorCode::NETWORK_ERROR,
    text: "upstream answers are truncated",
};

/// The deadline of the query passed while it waited behind other queries.
pub(in crate::proxy) const TOO_LATE: Refusal = Refusal {
    rcode: Rcode::SERVFAIL,
    error: NO_ANSWER,
    outcome: Outcome::TimedOut,
};

/// No upstream is configured for the name.
pub(in crate::proxy) const NO_UPSTREAM: Refusal = refusal(
    Rcode::REFUSED,
    ExtendedErrorCode::OTHER,
    "no upstream is configured for this name",
    Outcome::Refused,
);

/// An upstream has sent a query of this proxy back to it.
pub(in crate::proxy) const LOOPED: Refusal = refusal(
    Rcode::SERVFAIL,
    ExtendedErrorCode::OTHER,
    "forwarding loop",
    Outcome::UpstreamFailed,
);

/// Returns the refusal of a query that failed for this reason a short time ago.
pub(in crate::proxy) fn failed_before(reason: ExtendedError) -> Refusal {
    let code = ExtendedErrorCode::CACHED_ERROR;
    Refusal {
        rcode: Rcode::SERVFAIL,
        error: ExtendedError { code, ..reason },
        outcome: Outcome::UpstreamFailed,
    }
}

/// There is no room for the query.
pub(in crate::proxy) const OVERLOADED: Refusal = refusal(
    Rcode::SERVFAIL,
    ExtendedErrorCode::OTHER,
    "too many queries in flight",
    Outcome::Shed,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::edns::{DO, OptWriter};
    use crate::wire::response::write_error;

    fn tcp() -> ClientTransport {
        ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: Instant::default(),
            protocol: ClientProtocol::Tcp,
        }
    }

    /// Builds a query for a type, with the given opcode byte and OPT.
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

    /// Returns the properties of a query after asserting that it is forwarded.
    fn forwarded(bytes: &[u8], transport: ClientTransport) -> Asked<'_> {
        let parsed = Message::parse(bytes).ok();
        let admission = admit(bytes, parsed.as_ref(), transport).expect("a query");
        assert!(matches!(admission.decision, Decision::Forward(_)));
        admission.asked
    }

    fn rejection(bytes: &[u8]) -> (u16, Outcome, bool, bool) {
        let parsed = Message::parse(bytes).ok();
        let Admission {
            asked, decision, ..
        } = admit(bytes, parsed.as_ref(), ClientTransport::Udp).expect("a query");
        match decision {
            Decision::Reject(refusal) => (
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
        let asked = forwarded(&bytes, ClientTransport::Udp);
        assert_eq!(asked.question.unwrap().rr_type(), Type(28));
        assert_eq!((asked.opt, asked.len_max), (None, 512));
    }

    #[test]
    fn response_length_is_limited_by_the_client() {
        for (size, len_max) in [(0, 512), (512, 512), (900, 900), (1232, 1232), (4096, 1232)] {
            let bytes = query(1, 1, Some((0, size)));
            assert_eq!(forwarded(&bytes, ClientTransport::Udp).len_max, len_max);
        }
    }

    #[test]
    fn keepalive_is_for_connections() {
        let bytes = query(1, 1, Some((0, 1232)));
        for (transport, keepalive) in [(ClientTransport::Udp, None), (tcp(), Some(100))] {
            let expected = AskedOpt {
                flags: DO,
                keepalive,
                cookie: None,
                is_padded: false,
            };
            assert_eq!(forwarded(&bytes, transport).opt, Some(expected));
        }
    }

    #[test]
    fn response_is_padded_only_under_tls_and_if_the_query_is() {
        for (option, protocol, is_padded) in [
            (OptionCode::PADDING, ClientProtocol::Tls, true),
            (OptionCode::PADDING, ClientProtocol::Https, true),
            (OptionCode::PADDING, ClientProtocol::Tcp, false),
            (OptionCode(65_001), ClientProtocol::Tls, false),
        ] {
            let mut bytes = query(1, 1, None);
            bytes[11] = 1;
            let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
            writer.option(option, &[0; 5]);
            writer.finish();
            let transport = ClientTransport::Stream {
                idle: Duration::from_secs(10),
                received_at: Instant::default(),
                protocol,
            };
            let opt = forwarded(&bytes, transport).opt.unwrap();
            assert_eq!(opt.is_padded, is_padded);
        }
    }

    #[test]
    fn idle_timeout_is_not_sent_over_https() {
        let mut bytes = query(1, 1, None);
        bytes[11] = 1;
        let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
        writer.option(OptionCode::TCP_KEEPALIVE, &[]);
        writer.finish();
        for (protocol, keepalive) in [
            (ClientProtocol::Tls, Some(100)),
            (ClientProtocol::Https, None),
        ] {
            let transport = ClientTransport::Stream {
                idle: Duration::from_secs(10),
                received_at: Instant::default(),
                protocol,
            };
            let opt = forwarded(&bytes, transport).opt.unwrap();
            assert_eq!(opt.keepalive, keepalive);
        }
    }

    #[test]
    fn message_that_is_not_a_query_is_ignored() {
        for bytes in [&b""[..], &[0; 11], &query(0x81, 1, None)] {
            let parsed = Message::parse(bytes).ok();
            assert!(admit(bytes, parsed.as_ref(), tcp()).is_none());
        }
    }

    #[test]
    fn any_of_class_in_is_forwarded_over_tcp_only() {
        let bytes = query(1, 255, None);
        let parsed = Message::parse(&bytes).ok();
        let admission = admit(&bytes, parsed.as_ref(), ClientTransport::Udp);
        let decision = admission.unwrap().decision;
        assert!(matches!(decision, Decision::AnswerAny));
        forwarded(&bytes, tcp());
        let mut chaos = query(1, 255, None);
        *chaos.last_mut().unwrap() = 3;
        forwarded(&chaos, ClientTransport::Udp);
    }

    /// Builds a query, with or without a question, that has a cookie of `len` bytes.
    fn cookie_query(questions: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![1, 2, 1, 0, 0, questions, 0, 0, 0, 0, 0, 1];
        for _ in 0..questions {
            bytes.extend(b"\x07example\x00\x00\x01\x00\x01");
        }
        let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
        writer.option(OptionCode::COOKIE, &vec![7; len]);
        writer.finish();
        bytes
    }

    #[test]
    fn cookie_is_read_with_and_without_a_question() {
        for (questions, len) in [(1, 8), (1, 24), (0, 8), (0, 24)] {
            let bytes = cookie_query(questions, len);
            let parsed = Message::parse(&bytes).ok();
            let admission = admit(&bytes, parsed.as_ref(), ClientTransport::Udp).unwrap();
            assert_eq!(admission.cookie.unwrap().client, [7; 8]);
            match admission.decision {
                Decision::Forward(_) => assert_eq!(questions, 1),
                Decision::AnswerCookie { is_first } => {
                    assert_eq!((questions, is_first), (0, len == 8));
                }
                other => panic!("{other:?}"),
            }
        }
        let malformed = (1, Outcome::Malformed, true, true);
        for len in [0, 7, 9, 15, 41] {
            assert_eq!(rejection(&cookie_query(1, len)), malformed);
        }
        let two = (1, Outcome::Malformed, false, true);
        assert_eq!(rejection(&cookie_query(2, 8)), two);
    }

    #[test]
    fn bytes_behind_the_last_record_are_ignored() {
        for opt in [None, Some((0, 1232))] {
            let plain = query(1, 1, opt);
            for behind in [&b"\0"[..], b"\xc0\x0c", &[0xff; 300]] {
                let longer = [&plain, behind].concat();
                for transport in [ClientTransport::Udp, tcp()] {
                    let (asked, expected) =
                        (forwarded(&longer, transport), forwarded(&plain, transport));
                    assert_eq!(asked.question, expected.question);
                    assert_eq!(asked.opt, expected.opt);
                }
            }
        }
    }

    #[test]
    fn flags_of_an_unknown_opcode_are_not_echoed() {
        for opcode in 1..16_u8 {
            // All flags of a query are set.
            let mut bytes = query(opcode << 3 | 0b111, 1, Some((0, 1232)));
            bytes[3] = 0xf0;
            let parsed = Message::parse(&bytes).ok();
            let admission = admit(&bytes, parsed.as_ref(), ClientTransport::Udp);
            let admission = admission.expect("a query");
            let Decision::Reject(refusal) = admission.decision else {
                panic!("opcode {opcode}");
            };
            let mut out = Vec::new();
            write_error(&mut out, &admission.asked, refusal.rcode, None);
            assert_eq!(out[2..4], [0x80 | opcode << 3, 4], "QR, opcode, NOTIMP");
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
