//! Authentication of upstreams by pinned keys.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::config::{Pin, PinRule, Pins, Upstream};

/// A certificate verifier for one upstream: checks its pins and, unless a pin is sufficient, chain
/// and name.
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
    /// The key that was reported last.
    reported: Option<Pin>,
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

    /// Returns the number of pin mismatches.
    pub(super) fn mismatches(&self) -> u64 {
        let mismatches = self.mismatches.lock();
        mismatches.unwrap_or_else(PoisonError::into_inner).count
    }

    /// Returns whether a pinned key is sufficient, without a valid chain, name and dates.
    pub(super) fn is_pin_enough(&self) -> bool {
        self.pins.rule == PinRule::Instead
    }

    fn is_pinned(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        self.pins.pins.contains(&pin_of(key))
    }

    /// Returns whether an authority on any verifiable path has a pinned key. If a nearer authority
    /// is also trusted, the pinned authority may be farther (cross-signed roots). Other
    /// certificates that the server sends prove nothing.
    fn is_authority_pinned(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let is_pinned = |path: &VerifiedPath<'_>| {
            let mut authorities = path.intermediate_certificates();
            authorities.any(|authority| self.is_pinned(&authority.subject_public_key_info()))
                || self.is_pinned(&wrapped(&path.anchor().subject_public_key_info))
        };
        // An error continues the search for paths, within the bounds of the library.
        let check = |path: &VerifiedPath<'_>| {
            let pinned = is_pinned(path).then_some(());
            pinned.ok_or(webpki::Error::UnknownIssuer)
        };
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&check),
        );
        path.is_ok()
    }

    fn report(&self, own: Pin) {
        let mismatches = self.mismatches.lock();
        let mut mismatches = mismatches.unwrap_or_else(PoisonError::into_inner);
        mismatches.count += 1;
        if self.pins.rule == PinRule::Report && mismatches.reported.replace(own) != Some(own) {
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
        let by_chain = !self.is_pin_enough();
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

/// An error: the key of the upstream is not pinned.
#[derive(Debug)]
struct Unpinned {
    own: Pin,
}

impl fmt::Display for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no configured pin matches; the server's key has pin-sha256={}; compare it with the \
             operator's before you change the pin",
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
        .expect("a SHA-256 digest has 32 bytes"))
}

/// Returns the key of a trust anchor with the header of its sequence, which anchors lack (X.690,
/// section 8.9).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Command};
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa,
        Issuer, KeyPair, PublicKeyData, SanType,
    };
    use rustls::crypto::ring::default_provider;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn params_of(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        CertifiedIssuer::self_signed(params_of(name), key).unwrap()
    }

    fn pin(authority: &Authority) -> Pin {
        pin_of(&authority.key().subject_public_key_info().into())
    }

    /// A server with a trusted authority. A farther authority has signed it, and the farthest has
    /// signed the farther one.
    struct Scene {
        near: Authority,
        far: Authority,
        farthest: Authority,
        chain: Vec<CertificateDer<'static>>,
        own: CertificateDer<'static>,
    }

    impl Scene {
        fn new() -> Self {
            let [near, far, farthest] = ["near", "far", "farthest"].map(root);
            let cross = |name, below: &Authority, above: &Authority| {
                let certificate = params_of(name).signed_by(below.key(), above);
                certificate.unwrap().der().clone()
            };
            let intermediate_key = KeyPair::generate().unwrap();
            let params = params_of("intermediate");
            let intermediate = params.signed_by(&intermediate_key, &near).unwrap();
            let mut own = CertificateParams::default();
            own.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
            let issuer = Issuer::new(params, intermediate_key);
            let own = own.signed_by(&KeyPair::generate().unwrap(), &issuer);
            Self {
                chain: vec![
                    intermediate.der().clone(),
                    cross("near", &near, &far),
                    cross("far", &far, &farthest),
                ],
                own: own.unwrap().der().clone(),
                near,
                far,
                farthest,
            }
        }

        fn is_trusted(&self, trusted: &[&Authority], pin: Pin) -> bool {
            let mut roots = RootCertStore::empty();
            for authority in trusted {
                roots.add(authority.der().clone()).unwrap();
            }
            let roots = Arc::new(roots);
            let provider = Arc::new(default_provider());
            let by_chain =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider);
            let argument = format!("--upstream=127.0.0.1,pin-sha256={pin}");
            let Ok(Command::Run(config)) = options::parse(&[argument]) else {
                panic!("the options are right");
            };
            let verifier =
                PinVerifier::new(&config.upstreams[0], by_chain.build().unwrap(), &roots);
            let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
            let now = UnixTime::now();
            let judged = verifier.verify_server_cert(&self.own, &self.chain, &name, &[], now);
            judged.is_ok()
        }
    }

    #[test]
    fn pin_of_any_authority_on_a_verified_path_matches() {
        let scene = Scene::new();
        let all = [&scene.near, &scene.far, &scene.farthest];
        for pinned in all {
            assert!(scene.is_trusted(&all, pin(pinned)));
            assert!(scene.is_trusted(&[&scene.farthest], pin(pinned)));
        }
        assert!(!scene.is_trusted(&all, pin(&root("near"))));
    }

    #[test]
    fn pin_of_an_authority_beyond_the_trusted_ones_does_not_match() {
        let scene = Scene::new();
        // The chain contains the near certificate, and its issuer is not trusted.
        let trusted = [&scene.near];
        assert!(scene.is_trusted(&trusted, pin(&scene.near)));
        assert!(!scene.is_trusted(&trusted, pin(&scene.far)));
        assert!(!scene.is_trusted(&trusted, pin(&scene.farthest)));
        // Another key under the same name.
        assert!(!scene.is_trusted(&[&root("near")], pin(&scene.near)));
    }
}
