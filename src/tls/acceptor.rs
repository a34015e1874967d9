//! The TLS server for clients over DNS over TLS (RFC 7858) and DNS over HTTPS (RFC 8484).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;

use super::certificate::{expires_at, is_ca};
use super::explain::explain_key;
use super::files::{self, Credentials, FileError};
use super::fingerprint::Fingerprint;
use super::tickets::ExpiringTickets;
use super::{ALPN, ALPN_HTTP2, Authorities, OwnCertificate, SetupError};
use crate::base::origin::ClientProtocol;
use crate::config::TlsSettings;

/// The TLS settings for client connections: our certificate, and the verification of client
/// certificates.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// The settings for DNS over TLS.
    config: Arc<ServerConfig>,
    /// The same settings for DNS over HTTPS.
    https_config: Arc<ServerConfig>,
    /// The verifier of client certificates, if clients need one.
    gate: Option<Gate>,
    own: Option<OwnCertificate>,
}

/// A verifier of client certificates (mutual TLS).
#[derive(Clone, Debug)]
struct Gate {
    verifier: Arc<dyn ClientCertVerifier>,
    fingerprint: Fingerprint,
    authorities: Authorities,
}

impl Gate {
    fn new(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, FileError> {
        let (roots, authorities) = files::read_roots("--tls-client-ca", path)?;
        let fingerprint = Fingerprint::of_clients(&roots);
        let (roots, provider) = (Arc::new(roots), Arc::clone(provider));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        Ok(Self {
            verifier: verifier
                .expect("there are roots, and no revocation lists that could be invalid"),
            fingerprint,
            authorities,
        })
    }
}

/// Returns whether a certificate is for a host name.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

impl Acceptor {
    pub(super) fn new(
        settings: &TlsSettings,
        designated: Option<&str>,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<impl TimeProvider + 'static>,
    ) -> Result<Self, SetupError> {
        let clock = Arc::clone(clock) as Arc<dyn TimeProvider>;
        let server = ServerConfig::builder_with_details(Arc::clone(provider), clock)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let client_ca = settings.client_ca.as_ref();
        let gate = client_ca
            .map(|path| Gate::new(path, provider))
            .transpose()?;
        let server = match &gate {
            None => server.with_no_client_auth(),
            Some(gate) => server.with_client_cert_verifier(Arc::clone(&gate.verifier)),
        };
        let identity = &settings.identity;
        let Credentials { chain, key } =
            files::read_credentials(["--tls-cert", "--tls-key"], identity)?;
        let mut own = OwnCertificate::new("--tls-cert", &identity.certificate, &chain);
        let first_is_ca = is_ca(&chain[0]);
        if let (Some(name), Some(own)) = (designated, &mut own)
            && !is_for(&chain[0], name)
        {
            own.set_other_name(name);
        }
        let mut server = server.with_single_cert(chain, key).map_err(|error| {
            let cause = explain_key(&error, first_is_ca);
            FileError::new("--tls-key", &identity.key, cause)
        })?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // The session state goes to the client in an encrypted ticket: nothing is stored here. One
        // ticket is enough, because DNS clients usually reconnect one at a time.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.ticketer = Ticketer::new().map_err(SetupError::Random)?;
        if gate.is_some() {
            server.ticketer = Arc::new(ExpiringTickets {
                tickets: Arc::clone(&server.ticketer),
                clock: Arc::clone(&server.time_provider),
            });
        }
        server.send_tls13_tickets = 1;
        let mut https = server.clone();
        https.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        Ok(Self {
            https_config: Arc::new(https),
            config: Arc::new(server),
            gate,
            own,
        })
    }

    /// Returns our certificate, if its dates could be read.
    pub fn own(&self) -> Option<&OwnCertificate> {
        self.own.as_ref()
    }

    /// Returns the authorities that sign client certificates, if clients need one.
    pub fn authorities(&self) -> Option<&Authorities> {
        self.gate.as_ref().map(|gate| &gate.authorities)
    }

    /// Creates the state of a connection to a client with this protocol.
    pub fn connection(
        &self,
        protocol: ClientProtocol,
    ) -> Result<UnbufferedServerConnection, rustls::Error> {
        let config = match protocol {
            ClientProtocol::Https => &self.https_config,
            ClientProtocol::Udp | ClientProtocol::Tcp | ClientProtocol::Tls => &self.config,
        };
        UnbufferedServerConnection::new(Arc::clone(config))
    }

    /// Returns whether the rules for client certificates equal those of `before`.
    pub fn judges_like(&self, before: &Self) -> bool {
        let fingerprint = |acceptor: &Self| acceptor.gate.as_ref().map(|gate| gate.fingerprint);
        fingerprint(self) == fingerprint(before)
    }

    /// Verifies the certificates that a client sent when it connected.
    pub fn judge(&self, presented: Option<&[CertificateDer<'_>]>) -> Result<(), rustls::Error> {
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        let (own, intermediates) = presented
            .and_then(<[_]>::split_first)
            .ok_or(rustls::Error::NoCertificatesPresented)?;
        let verified = gate
            .verifier
            .verify_client_cert(own, intermediates, self.now()?);
        verified.map(drop)
    }

    /// Returns the time until a client's certificate expires, if its expiry can be read.
    pub fn time_left(&self, certificate: &[u8]) -> Option<Duration> {
        let now = self.now().ok()?.as_secs();
        Some(expires_at(certificate)?.saturating_sub(Duration::from_secs(now)))
    }

    fn now(&self) -> Result<UnixTime, rustls::Error> {
        let time = self.config.time_provider.current_time();
        time.ok_or(rustls::Error::FailedToGetCurrentTime)
    }
}
