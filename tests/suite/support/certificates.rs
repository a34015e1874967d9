//! Certificates for one run of the tests: an authority, and servers with valid or flawed
//! certificates.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dotproxy::config::Pin;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519,
    PublicKeyData, SanType, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A flaw of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No flaw: the certificate has the address 127.0.0.1 and the name `dot.example`.
    None,
    /// The certificate expired in the year 2001.
    Expired,
    /// The certificate is self-signed.
    SelfSigned,
    /// The certificate has another name and another address.
    WrongName,
    /// The certificate expires in a hundred days.
    ExpiresSoon,
    /// The name in the certificate contains [`STEERING`].
    SteeringName,
}

/// A line break, a forged log line, and a sequence that clears a terminal.
pub const STEERING: &str = "x\n2026-01-01T00:00:00Z WARN  forged\x1b[2J\r\x07";

/// An authority, and the file with its certificate.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The key of all its servers.
    server_key: KeyPair,
    /// The server files have a certificate that has expired.
    is_expired: bool,
    pub ca_file: PathBuf,
}

impl Authority {
    /// Creates an authority and writes its certificate to a file of this process.
    pub fn new(label: &str) -> Self {
        let mut params = CertificateParams::default();
        params.serial_number = Some(1.into());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let name = format!("{}.pem", unique_name(label));
        let ca_file = std::env::temp_dir().join(name);
        std::fs::write(&ca_file, issuer.pem()).expect("a temporary file");
        Self {
            issuer,
            server_key: key(),
            is_expired: false,
            ca_file,
        }
    }

    /// Creates an authority with [server files](Self::server_files) that expired in 2001.
    pub fn expired(label: &str) -> Self {
        let mut authority = Self::new(label);
        authority.is_expired = true;
        authority
    }

    /// Returns the pin of its own key.
    pub fn pin(&self) -> Pin {
        pin_of(self.issuer.key())
    }

    /// Returns the pin of its servers' key.
    pub fn server_pin(&self) -> Pin {
        pin_of(&self.server_key)
    }

    /// Writes the files of a server's certificate and key, beside that of the authority.
    pub fn server_files(&self) -> [PathBuf; 2] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
        if self.is_expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let certificate = params.signed_by(&self.server_key, &self.issuer);
        let pems = [
            certificate.expect("a certificate").pem(),
            self.server_key.serialize_pem(),
        ];
        let paths = ["server", "key"].map(|kind| self.ca_file.with_extension(kind));
        for (path, pem) in paths.iter().zip(pems) {
            std::fs::write(path, pem).expect("a temporary file");
        }
        paths
    }

    /// Returns the configuration of a client that trusts this authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.client_of(&[&TLS13, &TLS12]).with_no_client_auth())
    }

    /// Returns the configuration of a client that trusts this authority and has a certificate of
    /// `issuer` that expires at this time.
    pub fn client_certified_by(
        &self,
        issuer: &Self,
        not_after: SystemTime,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut params = CertificateParams::default();
        expire_at(&mut params, not_after);
        let key = key();
        let certificate = params.signed_by(&key, &issuer.issuer);
        let chain = vec![certificate.expect("a certificate").into()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = self.client_of(&[version]);
        let config = config.with_client_auth_cert(chain, key);
        Arc::new(config.expect("a key that fits its certificate"))
    }

    fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .with_root_certificates(roots)
    }

    /// Returns the configuration of a DoT server with such a certificate.
    pub fn server(
        &self,
        flaw: Flaw,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        self.server_with(CertificateParams::default(), flaw, versions)
    }

    /// Returns the configuration of a DoT server with a valid certificate that expires at this
    /// time.
    pub fn server_until(
        &self,
        not_after: SystemTime,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let mut params = CertificateParams::default();
        expire_at(&mut params, not_after);
        self.server_with(params, Flaw::None, &[version])
    }

    /// Returns the configuration of a DoT server that sends a certificate of this authority by
    /// `farther` along with its own.
    pub fn server_cross_signed(&self, farther: &Self) -> Arc<ServerConfig> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cross = params.signed_by(self.issuer.key(), &farther.issuer);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
        let own = params.signed_by(&self.server_key, &self.issuer);
        let chain = [own, cross].map(|one| CertificateDer::from(one.expect("a certificate")));
        let key = PrivateKeyDer::try_from(self.server_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(chain.to_vec(), key);
        Arc::new(config.expect("a key that fits its certificate"))
    }

    fn server_with(
        &self,
        mut params: CertificateParams,
        flaw: Flaw,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        // The length is the same in every run, so that a seed has the same effect in every run.
        params.serial_number = Some(2.into());
        let (name, address) = match flaw {
            Flaw::WrongName => ("other.example", [192, 0, 2, 1]),
            Flaw::SteeringName => (STEERING, [192, 0, 2, 1]),
            _ => ("dot.example", [127, 0, 0, 1]),
        };
        params.subject_alt_names = vec![
            SanType::DnsName(name.try_into().expect("a name")),
            SanType::IpAddress(IpAddr::from(address)),
        ];
        if flaw == Flaw::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        if flaw == Flaw::ExpiresSoon {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let end = now.expect("the clock is set after 1970") + Duration::from_secs(100 * 86_400);
            params.not_after = date_time_ymd(1970, 1, 1) + end;
        }
        let key = &self.server_key;
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(key),
            _ => params.signed_by(key, &self.issuer),
        };
        let chain: Vec<CertificateDer<'static>> = vec![certificate.expect("a certificate").into()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a key that fits its certificate");
        config.alpn_protocols = vec![b"dot".to_vec()];
        Arc::new(config)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        for kind in ["pem", "server", "key"] {
            let _ = std::fs::remove_file(self.ca_file.with_extension(kind));
        }
    }
}

fn expire_at(params: &mut CertificateParams, time: SystemTime) {
    let since_1970 = time.duration_since(UNIX_EPOCH);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970.expect("the clock is set after 1970");
}

fn pin_of(key: &KeyPair) -> Pin {
    let digest = digest(&SHA256, &key.subject_public_key_info());
    Pin(digest.as_ref().try_into().expect("32 bytes"))
}

/// Generates a key for Ed25519: its signatures and therefore handshakes have a fixed length.
fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

/// Returns a file name that no other test uses, even with the same label.
pub fn unique_name(label: &str) -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    format!("dotproxy-{label}-{}-{number}", std::process::id())
}
