//! The findings of the check, and how they are read from replies and certificates.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Validity;
use crate::session::transport::TlsSession;
use crate::tls;
use crate::wire::edns::OptionCode;
use crate::wire::question::Type;
use crate::wire::{Flags, Message, Rcode};

/// The findings about one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamFindings {
    /// The upstream as in log lines.
    pub label: String,
    /// The setting `fallback` of the upstream.
    pub is_fallback: bool,
    /// Why no address is known for its host name.
    pub problem: Option<String>,
    /// The findings about each address.
    pub addresses: Vec<AddressFindings>,
}

impl UpstreamFindings {
    /// Returns whether the upstream works at one of its addresses, which is enough for the program.
    pub fn works(&self) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|address| address.problem.is_none())
    }
}

/// The findings about one address of an upstream. What a failure has prevented, and what the
/// protocol does not have, is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFindings {
    /// The address.
    pub address: SocketAddr,
    /// Why the address does not work.
    pub problem: Option<String>,
    /// Problems that do not prevent the use of the address.
    pub warnings: Vec<String>,
    /// Time from the start of a TCP connection to the end of a full TLS handshake.
    pub handshake: Option<Duration>,
    /// The TLS session of this handshake.
    pub tls: Option<TlsSession>,
    /// The certificate of the upstream.
    pub certificate: Option<CertificateFindings>,
    /// Time from the first query to its reply.
    pub query: Option<Duration>,
    /// The content of the first reply.
    pub reply: Option<ReplyFindings>,
    /// The upstream supports EDNS Client Subnet (RFC 7871).
    pub has_client_subnet: Option<bool>,
    /// The second connection.
    pub second: Option<SecondConnection>,
}

impl AddressFindings {
    /// Returns the first reply, if it is an answer: an error says nothing about the upstream.
    pub fn answer(&self) -> Option<&ReplyFindings> {
        self.reply.as_ref().filter(|reply| reply.is_answer())
    }

    /// Returns whether the connection was established; over UDP, whether there was a reply.
    pub fn is_connected(&self) -> bool {
        self.handshake.is_some() || self.reply.is_some()
    }

    /// Creates the findings about an address before its check.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            problem: None,
            warnings: Vec::new(),
            handshake: None,
            tls: None,
            certificate: None,
            query: None,
            reply: None,
            has_client_subnet: None,
            second: None,
        }
    }
}

/// The properties of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFindings {
    /// The subject (RFC 4514); empty if the certificate has none.
    pub subject: String,
    /// The validity period, if it can be read.
    pub validity: Option<Validity>,
}

impl CertificateFindings {
    /// Reads the properties of a certificate.
    pub fn read(certificate: &[u8]) -> Self {
        Self {
            subject: tls::subject(certificate).unwrap_or_default(),
            validity: tls::validity(certificate),
        }
    }

    /// Returns the common name of the subject, or all of the subject if it does not start with one.
    pub fn name(&self) -> &str {
        let Some(name) = self.subject.strip_prefix("CN=") else {
            return &self.subject;
        };
        // A comma within the name has a backslash before it.
        let is_end = |(at, _): &(usize, &str)| !name[..*at].ends_with('\\');
        let end = name.match_indices([',', '+']).find(is_end);
        end.map_or(name, |(at, _)| &name[..at])
    }

    /// Returns whether the certificate has expired at `now`, since 1970.
    pub fn has_expired(&self, now: Duration) -> bool {
        self.validity
            .is_some_and(|validity| validity.expires_at < now)
    }

    /// Returns the number of whole days until the certificate expires, at `now` since 1970.
    pub fn days_left(&self, now: Duration) -> Option<u64> {
        let validity = self.validity?;
        Some(validity.expires_at.saturating_sub(now).as_secs() / 86_400)
    }
}

/// The content of a reply to a query with DO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFindings {
    /// The response code.
    pub rcode: Rcode,
    /// The reply is truncated (TC).
    pub is_truncated: bool,
    /// The upstream validates: AD is set. `None` if the domain may be unsigned.
    pub validates: Option<bool>,
    /// The reply has signatures (RRSIG). `None` if the domain may be unsigned.
    pub has_signatures: Option<bool>,
    /// The size in bytes of UDP messages that the upstream accepts; `None` without EDNS.
    pub edns_size: Option<u16>,
}

impl ReplyFindings {
    /// Reads a reply for the root, which is signed, or for a domain of the upstream, which may be
    /// unsigned.
    pub fn read(reply: &Message<'_>, is_root: bool) -> Self {
        let validates = reply.header().flags.contains(Flags::AD);
        let mut records = reply.answers().chain(reply.authorities());
        let has_signatures = records.any(|record| record.rr_type == Type::RRSIG);
        let is_signed = is_root || validates || has_signatures;
        Self {
            rcode: reply.rcode(),
            is_truncated: reply.header().flags.contains(Flags::TC),
            validates: is_signed.then_some(validates),
            has_signatures: is_signed.then_some(has_signatures),
            edns_size: reply.opt().map(|opt| opt.udp_size),
        }
    }

    /// Returns whether the query was answered, with records or a denial.
    pub fn is_answer(&self) -> bool {
        is_answer(self.rcode)
    }

    /// Returns whether the server may have refused the query because of EDNS (RFC 6891, section 7).
    pub fn may_refuse_edns(&self) -> bool {
        matches!(self.rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS)
    }
}

/// Returns whether a reply with this code answers the query, with records or a denial.
pub(super) fn is_answer(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}

/// Returns whether the reply to a query with EDNS Client Subnet has this option too.
pub(super) fn has_client_subnet(reply: &Message<'_>) -> bool {
    let opt = reply.opt();
    opt.is_some_and(|opt| opt.has_option(OptionCode::CLIENT_SUBNET))
}

/// The findings of the second connection to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondConnection {
    /// Time from the start of the TCP connection to the end of the handshake.
    pub handshake: Duration,
    /// The handshake resumed the session of the first connection; `None` without TLS.
    pub is_resumed: Option<bool>,
    /// The number of queries sent at once that were answered.
    pub answered: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_certificate_is_its_common_name() {
        let name = |subject: &str| {
            let certificate = CertificateFindings {
                subject: subject.to_owned(),
                validity: None,
            };
            certificate.name().to_owned()
        };
        assert_eq!(name("CN=dns.example,O=Example\\, Inc."), "dns.example");
        assert_eq!(name("CN=a\\,b,C=XX"), "a\\,b");
        assert_eq!(name("CN=dns.example"), "dns.example");
        assert_eq!(name("O=Example,C=XX"), "O=Example,C=XX");
        assert_eq!(name(""), "");
    }

    #[test]
    fn days_left_are_whole_days() {
        let certificate = CertificateFindings {
            subject: String::new(),
            validity: Some(Validity {
                begins_at: Duration::ZERO,
                expires_at: Duration::from_secs(3 * 86_400),
            }),
        };
        let days = |seconds| certificate.days_left(Duration::from_secs(seconds));
        assert_eq!(days(1), Some(2));
        assert_eq!(days(2 * 86_400), Some(1));
        assert_eq!(days(2 * 86_400 + 1), Some(0));
        assert_eq!(days(9 * 86_400), Some(0));
        let has_expired = |seconds| certificate.has_expired(Duration::from_secs(seconds));
        assert!(!has_expired(3 * 86_400) && has_expired(3 * 86_400 + 1));
    }

    /// Returns a reply for the root with these flags, and with an NS record and RRSIG, or neither.
    fn reply(flags: u8, has_signature: bool) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0x81, flags, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"\0\0\x02\0\x01");
        if has_signature {
            bytes[7] = 2;
            bytes.extend(b"\0\0\x02\0\x01\0\0\0\x09\0\x03\x01a\0");
            bytes.extend(b"\0\0\x2e\0\x01\0\0\0\x09\0\x14");
            bytes.extend([0; 20]);
        }
        bytes
    }

    #[test]
    fn unsigned_reply_says_nothing_about_the_signatures_of_a_private_domain() {
        let read = |flags, has_signature, is_root| {
            let bytes = reply(flags, has_signature);
            let found = ReplyFindings::read(&Message::parse(&bytes).unwrap(), is_root);
            (found.validates, found.has_signatures)
        };
        assert_eq!(read(0x80, false, true), (Some(false), Some(false)));
        assert_eq!(read(0x80, false, false), (None, None));
        assert_eq!(read(0x80, true, false), (Some(false), Some(true)));
        assert_eq!(read(0xa0, true, true), (Some(true), Some(true)));
        assert_eq!(read(0xa0, false, false), (Some(true), Some(false)));
    }
}
