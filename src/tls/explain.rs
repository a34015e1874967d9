//! What went wrong in TLS, in words for people.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// What went wrong in TLS, and what to do about it where that is known.
pub fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(problem) => explain_certificate(problem),
        rustls::Error::NoCertificatesPresented => "it has no certificate".to_owned(),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "it speaks neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not offer DNS over TLS".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("it says {alert:?}"),
        error => error.to_string(),
    }
}

/// What is wrong with a private key, for its certificate.
pub(super) fn explain_key(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "it is not the key of the certificate".to_owned(),
        error => format!("the key cannot be used: {error}"),
    }
}

fn explain_certificate(problem: &CertificateError) -> String {
    let day = |time: &UnixTime| date(Duration::from_secs(time.as_secs()));
    match problem {
        CertificateError::UnknownIssuer => "its certificate is from an authority that is not \
                                            trusted; for a resolver of your own give --ca-file"
            .to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired at {}, and this host's clock says {}",
            day(not_after),
            day(time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate begins at {}, and this host's clock says {}",
            day(not_before),
            day(time)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented: Vec<String> = presented.iter().map(|name| bare_name(name)).collect();
            format!(
                "its certificate is for {}, not for {}; the name to expect stands behind #",
                presented.join(", "),
                expected.to_str()
            )
        }
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::Other(other) => other.to_string(),
        problem => match format!("{problem:?}") {
            text if text.contains("CaUsedAsEndEntity") => {
                "its certificate is that of an authority; it needs one of its own, signed by that"
                    .to_owned()
            }
            text if text.contains("UnsupportedCertVersion") => {
                "its certificate is of X.509 version 1, which holds no names".to_owned()
            }
            text => format!("its certificate cannot be used: {text}"),
        },
    }
}

/// A time since 1970 as a date. A certificate may hold any time, more than some hosts can count to.
pub(super) fn date(since_1970: Duration) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(since_1970.as_secs()));
    let mut text = String::new();
    let written = time.map(|time| write!(text, "{}", humantime::format_rfc3339_seconds(time)));
    match written {
        Some(Ok(())) => text,
        Some(Err(_)) | None => "a time far away".to_owned(),
    }
}

/// The name in what rustls presents as `DnsName("a.example")` or `IpAddress(192.0.2.1)`.
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
    fn certificate_for_another_name_is_told_by_both_names() {
        let problem = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: vec![
                "DnsName(\"b.example\")".to_owned(),
                "IpAddress(192.0.2.1)".to_owned(),
            ],
        };
        assert_eq!(
            explain(&rustls::Error::InvalidCertificate(problem)),
            "its certificate is for b.example, 192.0.2.1, not for a.example; the name to expect \
             stands behind #"
        );
    }

    #[test]
    fn clock_is_told_with_the_end_of_a_certificate() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let problem = CertificateError::ExpiredContext {
            time: at(1_000_000_000),
            not_after: at(0),
        };
        assert_eq!(
            explain(&rustls::Error::InvalidCertificate(problem)),
            "its certificate expired at 1970-01-01T00:00:00Z, and this host's clock says \
             2001-09-09T01:46:40Z"
        );
        for far in [253_402_300_800, u64::MAX] {
            let problem = CertificateError::NotValidYetContext {
                time: at(0),
                not_before: at(far),
            };
            assert_eq!(
                explain(&rustls::Error::InvalidCertificate(problem)),
                "its certificate begins at a time far away, and this host's clock says \
                 1970-01-01T00:00:00Z"
            );
        }
    }
}
