//! Whom we trust upstream, and how we speak with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore, SupportedCipherSuite,
};

use crate::clock::Clock;
use crate::config::{Config, Host, Scheme, Upstream};
use crate::file;

/// The protocol that is offered in the handshake (RFC 7858; IANA, "dot").
const ALPN: &[u8] = b"dot";

/// Sessions that are kept to be resumed, for each upstream. Every ticket is used once (RFC 8446,
/// appendix C.4), and a burst opens several links.
const TICKETS_PER_UPSTREAM: usize = 8;

/// How to authenticate one upstream.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// A connection that will prove who the peer is before it carries anything.
    pub fn connection(&self) -> Result<UnbufferedClientConnection, rustls::Error> {
        UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

/// Why TLS could not be set up.
#[derive(Debug)]
pub enum SetupError {
    /// The file of roots cannot be used.
    CaFile(PathBuf, String),
    /// An upstream's name can stand in no certificate.
    Name(Upstream),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaFile(path, cause) => {
                write!(f, "--ca-file: {:?}: {cause}", path.display())
            }
            Self::Name(upstream) => {
                let expected = "a host name behind #, like 9.9.9.9#dns.quad9.net";
                write!(f, "--upstream: \"{upstream}\": expected {expected}")
            }
        }
    }
}

impl std::error::Error for SetupError {}

/// What it takes to connect to each upstream, in their order; `None` for those that do not speak
/// TLS. They share their roots and sessions. `clock` judges certificates.
pub fn connectors(config: &Config, clock: &Clock) -> Result<Vec<Option<Connector>>, SetupError> {
    let roots = match &config.ca_file {
        Some(path) => read_roots(path).map_err(|cause| SetupError::CaFile(path.clone(), cause))?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    if let Some(behind) = clock.is_behind() {
        log::warn!(
            "this host's clock is behind by {} s at least: certificates are judged by the time \
             that the program was built or last ran",
            behind.as_secs()
        );
    }
    let clock = Arc::new(NeverBehind(clock.clone()));
    let mut tls = ClientConfig::builder_with_details(Arc::new(provider()), clock)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::in_memory_sessions(TICKETS_PER_UPSTREAM * config.upstreams.len());
    let tls = Arc::new(tls);
    let connector = |upstream: &Upstream| {
        if upstream.scheme != Scheme::Tls {
            return Ok(None);
        }
        let name = server_name(upstream).ok_or_else(|| SetupError::Name(upstream.clone()))?;
        let config = Arc::clone(&tls);
        Ok(Some(Connector { config, name }))
    };
    config.upstreams.iter().map(connector).collect()
}

/// What the certificate of an upstream must carry. `None` where that can stand in none.
fn server_name(upstream: &Upstream) -> Option<ServerName<'static>> {
    let name = match (&upstream.name, &upstream.host) {
        (Some(name), _) => name.clone(),
        (None, Host::Address(address)) => return Some(ServerName::IpAddress(address.ip().into())),
        (None, Host::Name(name, _)) => name.to_string().trim_end_matches('.').to_owned(),
    };
    ServerName::try_from(name).ok()
}

#[derive(Debug)]
struct NeverBehind(Clock);

impl TimeProvider for NeverBehind {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.now()))
    }
}

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

fn explain_certificate(problem: &CertificateError) -> String {
    let day = |time: &UnixTime| {
        let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
        humantime::format_rfc3339_seconds(time).to_string()
    };
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

/// The name in what rustls presents as `DnsName("a.example")` or `IpAddress(192.0.2.1)`.
fn bare_name(presented: &str) -> String {
    let within = presented
        .split_once('(')
        .map_or(presented, |(_, rest)| rest);
    within.trim_matches([')', '"']).to_owned()
}

/// The algorithms, with the cheapest cipher of this processor first: messages are short, so AES-128
/// where there are instructions for it, else ChaCha20, which needs none.
fn provider() -> CryptoProvider {
    use ring::cipher_suite as suite;
    let mut provider = CryptoProvider {
        key_provider: &NoKeys,
        ..ring::default_provider()
    };
    let cheap = if has_aes_instructions() {
        [
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ]
    } else {
        [
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ]
    };
    let is_cheap = |suite: &SupportedCipherSuite| cheap.contains(suite);
    let (mut suites, dear): (Vec<_>, Vec<_>) =
        provider.cipher_suites.into_iter().partition(is_cheap);
    suites.extend(dear);
    provider.cipher_suites = suites;
    provider
}

/// We show no certificate, so there is no private key to be used.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General(
            "no private keys are used".to_owned(),
        ))
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let pem = file::read(path).map_err(|error| error.to_string())?;
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let number = index + 1;
        let certificate =
            certificate.map_err(|error| format!("certificate {number}: {}", describe(&error)))?;
        roots
            .add(certificate)
            .map_err(|_| format!("certificate {number} cannot be read"))?;
    }
    if roots.is_empty() {
        return Err("expected certificates in PEM".to_owned());
    }
    Ok(roots)
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "expected a line that ends it".to_owned(),
        pem::Error::Base64Decode(_) => "expected base64".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
