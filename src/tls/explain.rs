//! Explanations of TLS errors for operators.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, ExtendedKeyPurpose, PeerIncompatible};

use super::clock::{date, system_time};

/// The source of the roots that verify a peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The built-in roots.
    BuiltIn,
    /// The file of `--ca-file`.
    CaFile,
    /// The file of `--tls-client-ca`.
    ClientCa,
}

/// The settings of a connection that explain its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorContext {
    /// The source of the roots for the peer's certificate.
    pub roots: RootSource,
    /// The peer is an upstream with `client-cert=`.
    pub has_client_certificate: bool,
    /// The peer is an upstream over HTTPS.
    pub is_https: bool,
}

impl ErrorContext {
    /// The context of an error of a client's connection.
    pub const CLIENT: Self = Self {
        roots: RootSource::ClientCa,
        has_client_certificate: false,
        is_https: false,
    };

    /// Returns advice for an alert that can concern our client certificate.
    fn client_certificate_advice(self) -> &'static str {
        if self.has_client_certificate {
            "the upstream does not accept the certificate of client-cert=; check that its CA is \
             the right one and that its extendedKeyUsage has clientAuth"
        } else {
            "set client-cert= and client-key= if the upstream requires a client certificate"
        }
    }
}

/// The algorithms that `ring` and rustls support.
const SUPPORTED: &str = "supported: RSA, P-256, P-384 and Ed25519 keys with ECDHE key exchange; \
                         not supported: P-521, Ed448 and RSA key exchange";

/// Returns a description of a TLS error, with advice where there is one.
pub fn explain(error: &rustls::Error, context: ErrorContext) -> String {
    let roots = context.roots;
    let no_common =
        || format!("the peer has no algorithm in common with this program ({SUPPORTED})");
    match error {
        rustls::Error::InvalidCertificate(problem) => {
            explain_certificate(problem, roots, system_time())
        }
        rustls::Error::NoCertificatesPresented => "the peer sent no certificate".to_owned(),
        rustls::Error::InvalidMessage(_) if roots == RootSource::ClientCa => {
            "the peer does not speak TLS".to_owned()
        }
        rustls::Error::InvalidMessage(_) if context.is_https => {
            "the peer does not speak TLS: check the port (DNS over HTTPS uses 443)".to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            "the peer does not speak TLS: check the port (DNS over TLS uses 853)".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the peer supports neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            if context.is_https =>
        {
            "the peer does not offer HTTP/2 (ALPN)".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the peer does not offer DNS over TLS (ALPN)".to_owned()
        }
        rustls::Error::AlertReceived(alert) => explain_alert(*alert, context),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
        ) => no_common(),
        rustls::Error::General(_) | rustls::Error::Other(_) => error.to_string(),
        error => in_words(&error.to_string()),
    }
}

/// Returns a description of an alert that the peer sent, with advice for those of upstreams.
fn explain_alert(alert: AlertDescription, context: ErrorContext) -> String {
    let mut text = "the peer sent the alert ".to_owned();
    text.push_str(&in_words(&format!("{alert:?}")));
    // An upstream sends the first alert if it finds no suitable certificate or cipher in the offer
    // or, with TLS 1.2, no client certificate.
    let (is_algorithm, is_certificate) = match alert {
        AlertDescription::HandshakeFailure => (true, true),
        AlertDescription::InsufficientSecurity => (true, false),
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRequired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => (false, true),
        _ => (false, false),
    };
    if context.roots == RootSource::ClientCa {
        return text;
    }
    if is_algorithm {
        for part in [": probably no common algorithm (", SUPPORTED, ")"] {
            text.push_str(part);
        }
    }
    if is_certificate {
        text.push_str(if is_algorithm { "; otherwise, " } else { ": " });
        text.push_str(context.client_certificate_advice());
    }
    text
}

/// Returns a text with the names of source code in it as words: `UnknownCA` as "unknown CA".
fn in_words(text: &str) -> String {
    let is_alone = text.chars().all(|c| c.is_ascii_alphanumeric());
    let mut words = String::new();
    for token in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let name = token.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let bytes = name.as_bytes();
        let is_start = |at: usize| {
            let is_before_lower = || bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
            let is_behind_upper = || bytes[at - 1].is_ascii_uppercase();
            at > 0 && bytes[at].is_ascii_uppercase() && (is_before_lower() || !is_behind_upper())
        };
        let starts: Vec<usize> = (0..bytes.len()).filter(|at| is_start(*at)).collect();
        if starts.is_empty() && !is_alone {
            words.push_str(token);
            continue;
        }
        let ends = starts.iter().copied().chain([name.len()]);
        let starts = [0].into_iter().chain(starts.iter().copied());
        let parts = starts.zip(ends).map(|(start, end)| {
            let part = &name[start..end];
            let is_acronym = part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
            if is_acronym {
                part.to_owned()
            } else {
                part.to_ascii_lowercase()
            }
        });
        words.push_str(&parts.collect::<Vec<_>>().join(" "));
        words.push_str(&token[name.len()..]);
    }
    words
}

/// Returns a description of an error of a private key with its certificate, the first of a chain.
pub(super) fn explain_key(error: &rustls::Error, first_is_ca: bool) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) if first_is_ca => {
            "the key does not match the first certificate, which belongs to a CA: the \
             certificate of this program has to be the first"
                .to_owned()
        }
        rustls::Error::InconsistentKeys(_) => "the key does not match the certificate".to_owned(),
        error => {
            let cause = match error {
                rustls::Error::General(text) => text.clone(),
                error => error.to_string(),
            };
            format!(
                "cannot use the key: {cause}: use a P-256 key (RSA keys need 2,048 bits or more; \
                 {SUPPORTED})"
            )
        }
    }
}

/// Returns a description of a certificate error. `clock` is the time of the system's clock, which
/// may be earlier than the time of verification.
fn explain_certificate(problem: &CertificateError, roots: RootSource, clock: Duration) -> String {
    let dates = |what: &str, limit: &UnixTime, judged_by: &UnixTime| {
        let day = |time: &UnixTime| date(Duration::from_secs(time.as_secs()));
        let is_behind = clock.as_secs() < judged_by.as_secs().saturating_sub(CLOCK_MARGIN_S);
        let is_past = limit.as_secs() < judged_by.as_secs();
        let (limit, judged_by) = (day(limit), day(judged_by));
        let (clock, judged) = if !is_behind {
            let is_expired = is_past && roots != RootSource::ClientCa;
            let advice = "; set the clock if it is wrong, or have the certificate renewed";
            (judged_by, if is_expired { advice } else { "" }.to_owned())
        } else if roots == RootSource::ClientCa {
            let judged = format!(" (certificates are verified at {judged_by}): set the clock");
            (date(clock), judged)
        } else {
            // The caller adds the other time and its source (`Clock::judged_by`).
            (date(clock), String::new())
        };
        format!("certificate {what} {limit}; system clock: {clock}{judged}")
    };
    match problem {
        CertificateError::UnknownIssuer => unknown_issuer(roots).to_owned(),
        CertificateError::BadSignature => {
            format!(
                "{} (a trusted CA has this name but another key)",
                unknown_issuer(roots)
            )
        }
        CertificateError::ExpiredContext { time, not_after } => {
            dates("expired at", not_after, time)
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            dates("is not valid before", not_before, time)
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } if presented.is_empty() => format!(
            "certificate has no names (subjectAltName): it must contain {}",
            expected.to_str()
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented: Vec<String> = presented.iter().map(|name| bare_name(name)).collect();
            format!(
                "certificate is for {}, not for {}; set the right name after #",
                presented.join(", "),
                expected.to_str()
            )
        }
        CertificateError::InvalidPurposeContext { required, .. } => match required {
            ExtendedKeyPurpose::ClientAuth => wrong_purpose("clientAuth"),
            ExtendedKeyPurpose::ServerAuth => wrong_purpose("serverAuth"),
            ExtendedKeyPurpose::Other(_) => explain_form("InvalidPurpose"),
        },
        CertificateError::Expired => "certificate has expired".to_owned(),
        CertificateError::NotValidYet => "certificate is not valid yet".to_owned(),
        CertificateError::Other(other) => match format!("{other:?}") {
            form if form.contains("CaUsedAsEndEntity") => explain_form(&form),
            // A text of our own is a sentence already.
            _ => match other.to_string() {
                text if text.contains(' ') => text,
                text => explain_form(&text),
            },
        },
        problem => explain_form(&format!("{problem:?}")),
    }
}

/// Returns a description of a certificate for another purpose (RFC 5280, section 4.2.1.12).
fn wrong_purpose(required: &str) -> String {
    format!(
        "certificate lacks {required} in its extendedKeyUsage: it was issued for another purpose; \
         issue one with {required}"
    )
}

/// Returns a description of an error in the form of a certificate, apart from its dates and names.
fn explain_form(problem: &str) -> String {
    let text = match problem {
        text if text.contains("CaUsedAsEndEntity") => {
            "is a CA certificate: the server needs its own certificate, signed by the CA".to_owned()
        }
        text if text.contains("UnsupportedCertVersion") => {
            "has X.509 version 1, which has no names".to_owned()
        }
        text if text.contains("UnsupportedSignatureAlgorithm") => {
            format!("has an unsupported key or signature algorithm: {SUPPORTED}")
        }
        text => format!("is invalid: {}", in_words(text)),
    };
    format!("certificate {text}")
}

fn unknown_issuer(roots: RootSource) -> &'static str {
    match roots {
        RootSource::BuiltIn => {
            "certificate is not signed by a trusted CA; for a private resolver, set --ca-file"
        }
        RootSource::CaFile => {
            "certificate is not signed by a CA in --ca-file (which replaces the built-in roots)"
        }
        RootSource::ClientCa => "certificate is not signed by a CA in --tls-client-ca",
    }
}

/// Maximum difference in seconds between the system's clock and the time of a verification a moment
/// before.
const CLOCK_MARGIN_S: u64 = 60;

/// Returns the name in a text of rustls like `DnsName("a.example")` or `IpAddress(192.0.2.1)`.
fn bare_name(presented: &str) -> String {
    let within = presented
        .split_once('(')
        .map_or(presented, |(_, rest)| rest);
    within.trim_matches([')', '"']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;

    #[test]
    fn explanation_of_a_wrong_name_has_both_names() {
        let problem = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: vec![
                "DnsName(\"b.example\")".to_owned(),
                "IpAddress(192.0.2.1)".to_owned(),
            ],
        };
        assert_eq!(
            described(&problem),
            "certificate is for b.example, 192.0.2.1, not for a.example; set the right name \
             after #"
        );
    }

    #[test]
    fn explanation_has_no_names_of_source_code() {
        use rustls::{InvalidMessage, PeerMisbehaved};
        let certificate = |problem| rustls::Error::InvalidCertificate(problem);
        let other = rustls::OtherError(std::sync::Arc::new(std::fmt::Error));
        for error in [
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
            rustls::Error::AlertReceived(AlertDescription::UnknownCA),
            rustls::Error::AlertReceived(AlertDescription::UnknownPSKIdentity),
            rustls::Error::AlertReceived(AlertDescription::Unknown(200)),
            rustls::Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
            rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidCcs),
            certificate(CertificateError::Revoked),
            certificate(CertificateError::UnhandledCriticalExtension),
            certificate(CertificateError::InvalidPurpose),
            certificate(CertificateError::BadEncoding),
            certificate(CertificateError::Other(other)),
            rustls::Error::InappropriateMessage {
                expect_types: vec![rustls::ContentType::Handshake],
                got_type: rustls::ContentType::ApplicationData,
            },
        ] {
            for context in [upstream(false), upstream(true), ErrorContext::CLIENT] {
                let text = explain(&error, context);
                let is_code = |word: &str| {
                    let is_letter = |c: char| c.is_ascii_alphabetic();
                    let bytes = word.as_bytes();
                    word.chars().all(is_letter)
                        && bytes.windows(2).any(|pair| {
                            pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()
                        })
                };
                // Names of X.509 (RFC 5280, section 4.2.1.12).
                let text = text
                    .replace("extendedKeyUsage", "")
                    .replace("clientAuth", "");
                let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
                assert_eq!(words.find(|word| is_code(word)), None, "{text}");
            }
        }
        let alert = |alert| explain(&rustls::Error::AlertReceived(alert), ErrorContext::CLIENT);
        assert_eq!(
            alert(AlertDescription::HandshakeFailure),
            "the peer sent the alert handshake failure"
        );
        assert_eq!(
            alert(AlertDescription::UnknownCA),
            "the peer sent the alert unknown CA"
        );
    }

    fn upstream(has_client_certificate: bool) -> ErrorContext {
        ErrorContext {
            roots: RootSource::BuiltIn,
            has_client_certificate,
            is_https: false,
        }
    }

    #[test]
    fn alert_about_a_certificate_names_the_option() {
        for alert in [
            AlertDescription::BadCertificate,
            AlertDescription::CertificateExpired,
            AlertDescription::CertificateRequired,
            AlertDescription::HandshakeFailure,
            AlertDescription::UnknownCA,
        ] {
            let error = rustls::Error::AlertReceived(alert);
            let text = explain(&error, upstream(true));
            let expected = "the upstream does not accept the certificate of client-cert=; check that \
                            its CA is the right one and that its extendedKeyUsage has clientAuth";
            assert!(text.ends_with(expected), "{text}");
            let text = explain(&error, upstream(false));
            assert!(text.contains("set client-cert= and client-key="), "{text}");
            let text = explain(&error, ErrorContext::CLIENT);
            assert!(!text.contains("client-cert"), "{text}");
        }
    }

    #[test]
    fn certificate_for_another_purpose_is_described() {
        let described = |required| {
            described(&CertificateError::InvalidPurposeContext {
                required,
                presented: Vec::new(),
            })
        };
        for (required, name) in [
            (ExtendedKeyPurpose::ClientAuth, "clientAuth"),
            (ExtendedKeyPurpose::ServerAuth, "serverAuth"),
        ] {
            let expected = format!(
                "certificate lacks {name} in its extendedKeyUsage: it was issued for another \
                 purpose; issue one with {name}"
            );
            assert_eq!(described(required), expected);
        }
        let other = ExtendedKeyPurpose::Other(vec![1, 3, 6]);
        assert_eq!(described(other), "certificate is invalid: invalid purpose");
    }

    #[test]
    fn upstream_without_tls_is_reported_with_the_port_to_check() {
        let error = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(
            explain(&error, upstream(false)),
            "the peer does not speak TLS: check the port (DNS over TLS uses 853)"
        );
        assert_eq!(
            explain(&error, ErrorContext::CLIENT),
            "the peer does not speak TLS"
        );
    }

    #[test]
    fn key_that_cannot_be_used_has_advice() {
        let text = explain_key(&rustls::Error::General("failed to parse".to_owned()), false);
        let start = "cannot use the key: failed to parse: use a P-256 key (";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn certificate_without_names_is_described() {
        let problem = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: Vec::new(),
        };
        assert_eq!(
            described(&problem),
            "certificate has no names (subjectAltName): it must contain a.example"
        );
    }

    /// Returns the explanation with built-in roots and a correct clock.
    fn described(problem: &CertificateError) -> String {
        let clock = Duration::from_secs(1_000_000_000);
        explain_certificate(problem, RootSource::BuiltIn, clock)
    }

    #[test]
    fn advice_depends_on_the_source_of_the_roots() {
        let described = |problem, roots| explain_certificate(&problem, roots, Duration::ZERO);
        let unknown = |roots| described(CertificateError::UnknownIssuer, roots);
        assert!(unknown(RootSource::BuiltIn).ends_with("set --ca-file"));
        assert!(unknown(RootSource::CaFile).contains("not signed by a CA in --ca-file"));
        assert!(unknown(RootSource::ClientCa).ends_with("not signed by a CA in --tls-client-ca"));
        let forged = described(CertificateError::BadSignature, RootSource::CaFile);
        assert!(
            forged.ends_with("(a trusted CA has this name but another key)"),
            "{forged}"
        );
    }

    #[test]
    fn explanation_of_an_expired_certificate_has_the_time_of_the_clock() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let problem = CertificateError::ExpiredContext {
            time: at(1_000_000_000),
            not_after: at(0),
        };
        assert_eq!(
            described(&problem),
            "certificate expired at 1970-01-01T00:00:00Z; system clock: 2001-09-09T01:46:40Z; \
             set the clock if it is wrong, or have the certificate renewed"
        );
        // A client has its certificate from its own operator.
        let of_client = explain_certificate(
            &problem,
            RootSource::ClientCa,
            Duration::from_secs(1_000_000_000),
        );
        assert!(of_client.ends_with("01:46:40Z"), "{of_client}");
        let problem = CertificateError::NotValidYetContext {
            time: at(1_700_000_000),
            not_before: at(1_800_000_000),
        };
        let behind = |roots| explain_certificate(&problem, roots, Duration::from_secs(100));
        assert_eq!(
            behind(RootSource::ClientCa),
            "certificate is not valid before 2027-01-15T08:00:00Z; system clock: \
             1970-01-01T00:01:40Z (certificates are verified at 2023-11-14T22:13:20Z): set the clock"
        );
        assert_eq!(
            behind(RootSource::BuiltIn),
            "certificate is not valid before 2027-01-15T08:00:00Z; system clock: \
             1970-01-01T00:01:40Z"
        );
        for far in [253_402_300_800, u64::MAX] {
            let problem = CertificateError::NotValidYetContext {
                time: at(0),
                not_before: at(far),
            };
            assert_eq!(
                described(&problem),
                "certificate is not valid before a time after the year 9999; system clock: \
                 1970-01-01T00:00:00Z"
            );
        }
    }
}
