//! Upstreams that are known by their keys.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::config::{Pin, PinRule, Pins, Upstream};

/// Judges the certificates of one upstream by its pins and, unless they are enough, by chain and
/// name.
#[derive(Debug)]
pub(super) struct PinVerifier {
    /// The upstream, for the log.
    label: String,
    pins: Pins,
    by_chain: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    mismatches: Mutex<Mismatches>,
}

#[derive(Debug, Default)]
struct Mismatches {
    count: u64,
    /// The key that was told last.
    told: Option<Pin>,
}

impl PinVerifier {
    pub(super) fn new(
        upstream: &Upstream,
        by_chain: Arc<WebPkiServerVerifier>,
        roots: &Arc<RootCertStore>,
    ) -> Self {
        Self {
            label: upstream.to_string(),
            pins: upstream.pins.clone(),
            by_chain,
            roots: Arc::clone(roots),
            algorithms: rustls::crypto::ring::default_provider().signature_verification_algorithms,
            mismatches: Mutex::default(),
        }
    }

    /// How often there was another key.
    pub(super) fn mismatches(&self) -> u64 {
        let mismatches = self.mismatches.lock();
        mismatches.unwrap_or_else(PoisonError::into_inner).count
    }

    fn is_pinned(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        self.pins.pins.contains(&pin_of(key))
    }

    /// Whether an authority has a pinned key by which the chain is right. What else comes with the
    /// certificate proves nothing.
    fn is_authority_pinned(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            None,
        );
        path.is_ok_and(|path| {
            let mut authorities = path.intermediate_certificates();
            authorities.any(|authority| self.is_pinned(&authority.subject_public_key_info()))
                || self.is_pinned(&wrapped(&path.anchor().subject_public_key_info))
        })
    }

    fn report(&self, own: Pin) {
        let mismatches = self.mismatches.lock();
        let mut mismatches = mismatches.unwrap_or_else(PoisonError::into_inner);
        mismatches.count += 1;
        if self.pins.rule == PinRule::Report && mismatches.told.replace(own) != Some(own) {
            let label = self.label.as_str();
            log::warn!(
                event = "pin-mismatch", upstream = label;
                "upstream {label}: {}", Unpinned { own }
            );
        }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by_chain = self.pins.rule != PinRule::Instead;
        if by_chain {
            let chain = &self.by_chain;
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        let certificate = EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        let key = certificate.subject_public_key_info();
        let is_pinned = self.is_pinned(&key)
            || by_chain && self.is_authority_pinned(&certificate, intermediates, now);
        if !is_pinned {
            let own = pin_of(&key);
            self.report(own);
            if self.pins.rule != PinRule::Report {
                let other = OtherError(Arc::new(Unpinned { own }));
                return Err(CertificateError::Other(other).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_chain.supported_verify_schemes()
    }
}

/// The upstream has a key that is not pinned.
#[derive(Debug)]
struct Unpinned {
    own: Pin,
}

impl fmt::Display for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no pin is right; that of its key is pin-sha256={}",
            self.own
        )
    }
}

impl Error for Unpinned {}

fn pin_of(key: &SubjectPublicKeyInfoDer<'_>) -> Pin {
    let digest = digest(&SHA256, key);
    Pin(digest
        .as_ref()
        .try_into()
        .expect("SHA-256 has as many octets"))
}

/// The key of a trust anchor, which comes without the head of its sequence (X.690, section 8.9).
fn wrapped(content: &[u8]) -> SubjectPublicKeyInfoDer<'static> {
    let len = u16::try_from(content.len()).expect("keys are short");
    let mut der = match len {
        0..0x80 => vec![0x30, len.to_be_bytes()[1]],
        0x80..0x100 => vec![0x30, 0x81, len.to_be_bytes()[1]],
        0x100.. => [&[0x30, 0x82][..], &len.to_be_bytes()].concat(),
    };
    der.extend_from_slice(content);
    der.into()
}
