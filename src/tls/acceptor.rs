//! Clients that speak TLS (RFC 7858).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::Ticketer;
use rustls::server::{UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;

use super::explain::explain_key;
use super::files::{self, FileError};
use super::{ALPN, OwnCertificate, SetupError};
use crate::config::{Identity, TlsSettings};

/// How we prove to clients who we are, and they perhaps to us.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    own: Option<OwnCertificate>,
}

impl Acceptor {
    pub(super) fn new(
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<impl TimeProvider + 'static>,
    ) -> Result<Self, SetupError> {
        let clock = Arc::clone(clock) as Arc<dyn TimeProvider>;
        let server = ServerConfig::builder_with_details(Arc::clone(provider), clock)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let server = match &settings.client_ca {
            None => server.with_no_client_auth(),
            Some(path) => {
                let roots = files::read_roots("--tls-client-ca", path)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(provider),
                );
                let verifier = verifier.build();
                server.with_client_cert_verifier(
                    verifier.expect("there are roots, and no lists that could be wrong"),
                )
            }
        };
        let Identity { certificate, key } = &settings.identity;
        let chain = files::read_chain("--tls-cert", certificate)?;
        let own = OwnCertificate::new("--tls-cert", certificate, &chain);
        let read = files::read_key("--tls-key", key)?;
        let server = server.with_single_cert(chain, read);
        let mut server =
            server.map_err(|error| FileError::new("--tls-key", key, explain_key(&error)))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // What a session is goes to the client, encrypted: nothing is kept here. One ticket does,
        // since clients of DNS come back one at a time.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.ticketer = Ticketer::new().map_err(SetupError::Random)?;
        server.send_tls13_tickets = 1;
        Ok(Self {
            config: Arc::new(server),
            own,
        })
    }

    /// The certificate that clients are shown, if its dates could be read.
    pub fn own(&self) -> Option<&OwnCertificate> {
        self.own.as_ref()
    }

    /// A connection to a client.
    pub fn connection(&self) -> Result<UnbufferedServerConnection, rustls::Error> {
        UnbufferedServerConnection::new(Arc::clone(&self.config))
    }
}
