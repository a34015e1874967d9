//! TLS for upstreams and clients: trust anchors, certificates, keys, sessions.

mod acceptor;
mod certificate;
pub mod clock;
mod explain;
mod files;
mod fingerprint;
mod hybrid;
mod own;
mod pins;
mod sessions;
mod tickets;

pub use acceptor::Acceptor;
pub use certificate::{subject, validity};
pub use explain::{ErrorContext, RootSource, explain};
pub use files::FileError;
pub use own::{Authorities, OwnCertificate};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{
    ClientSessionStore, Resumption, UnbufferedClientConnection, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite};

use crate::config::{Config, Host, Identity, KeyExchange, Pins, Scheme, Upstream};
use clock::Clock;

use explain::explain_key;
use files::Credentials;
use fingerprint::Fingerprint;
use pins::PinVerifier;
use sessions::Sessions;

/// The protocol that is offered in the handshake (RFC 7858; IANA, "dot").
const ALPN: &[u8] = b"dot";

/// The name of HTTP/2 in ALPN (RFC 9113, section 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";

/// Returns the name in ALPN of the protocol over TLS.
fn alpn(scheme: Scheme) -> &'static [u8] {
    match scheme {
        Scheme::Https => ALPN_HTTP2,
        Scheme::Tls | Scheme::Tcp | Scheme::Udp => ALPN,
    }
}

/// The number of sessions that are kept for resumption, per upstream. A ticket is used once (RFC
/// 8446, appendix C.4), and a burst opens several links.
const TICKETS_PER_UPSTREAM: usize = 8;

/// The TLS settings for connections to one upstream.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    sessions: Arc<Sessions>,
    name: ServerName<'static>,
    pins: Option<Arc<PinVerifier>>,
    fingerprint: Fingerprint,
    error_context: ErrorContext,
}

impl Connector {
    /// Returns the settings that explain errors of the connection.
    pub fn error_context(&self) -> ErrorContext {
        self.error_context
    }

    /// Creates the state of a connection, which authenticates the upstream before it carries
    /// payload.
    pub fn connection(&self) -> Result<UnbufferedClientConnection, rustls::Error> {
        UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }

    /// Records the expiry of the certificate that the upstream has sent, in time since 1970. Its
    /// sessions are not resumed after that, unless the dates of certificates are not checked.
    pub fn on_certificate(&self, expires_at: Duration) {
        if self.judges_dates() {
            self.sessions.on_certificate(&self.name, expires_at);
        }
    }

    /// Removes the sessions with the upstream, so that the next handshake is a full one.
    pub fn forget_sessions(&self) {
        self.sessions.forget(&self.name);
    }

    /// Returns whether the dates of certificates are checked, which is not the case for a pin
    /// alone.
    pub fn judges_dates(&self) -> bool {
        let is_pin_enough = |pins: &Arc<PinVerifier>| pins.is_pin_enough();
        !self.pins.as_ref().is_some_and(is_pin_enough)
    }

    /// Returns the number of pin mismatches of the upstream.
    pub fn pin_mismatches(&self) -> u64 {
        self.pins.as_ref().map_or(0, |pins| pins.mismatches())
    }
}

/// An error of the TLS set-up.
#[derive(Debug)]
pub enum SetupError {
    /// A file cannot be used.
    File(FileError),
    /// The name of an upstream is not valid in a certificate.
    Name(String),
    /// The system provides no random numbers.
    Random(rustls::Error),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Random(error) => write!(f, "--tls-listen: {error}"),
            Self::Name(upstream) => {
                let expected = "a host name after #, like 9.9.9.9#dns.quad9.net";
                write!(f, "--upstream: \"{upstream}\": expected {expected}")
            }
        }
    }
}

impl std::error::Error for SetupError {}

impl From<FileError> for SetupError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// The TLS settings of the program.
#[derive(Debug)]
pub struct Setup {
    /// The settings for each upstream, in order; `None` for an upstream without TLS.
    pub connectors: Vec<Option<Connector>>,
    /// The settings for clients, if there is a TLS listener.
    pub acceptor: Option<Acceptor>,
    /// Our certificates for clients and upstreams, if their dates could be read.
    pub own: Vec<OwnCertificate>,
    /// The authorities in the files of `--ca-file` and `--tls-client-ca`.
    pub authorities: Vec<Authorities>,
}

impl Setup {
    /// Returns the indexes of upstreams for which the rules for their certificates or our
    /// certificate differ from `before`, for the same list of upstreams.
    pub fn changed_upstreams(&self, before: &Self) -> Vec<usize> {
        let pairs = self.connectors.iter().zip(&before.connectors);
        let changed = pairs.enumerate().filter(|(_, pair)| match pair {
            (Some(now), Some(before)) => now.fingerprint != before.fingerprint,
            _ => false,
        });
        changed.map(|(index, _)| index).collect()
    }

    /// Returns an error if one of our certificates, or every authority in a file, has expired or is
    /// not valid yet at `now`, in time since 1970. If that also applies to the one in use, the
    /// clock may be wrong, or the peers may not check dates: then it is no error.
    pub fn refusal(&self, in_use: Option<&Self>, now: Duration) -> Option<String> {
        let own = in_use.map_or(&[][..], |it| &it.own);
        let of_own = self
            .own
            .iter()
            .find_map(|one| one.refusal(&self.own, own, now));
        let authorities = in_use.map_or(&[][..], |it| &it.authorities);
        let mut of_authorities = self.authorities.iter();
        of_own.or_else(|| of_authorities.find_map(|one| one.refusal(authorities, now)))
    }
}

/// Reads the TLS files. `clock` gives the time for the verification of certificates.
pub fn set_up(config: &Config, clock: &Clock) -> Result<Setup, SetupError> {
    let (source, roots, authorities) = read_roots(config)?;
    if let Some(replacement) = clock.replacement() {
        log::warn!("{replacement}");
    }
    let trust = Trust {
        provider: Arc::new(provider(config.key_exchange)),
        clock: Arc::new(NeverBehind(clock.clone())),
        roots: Arc::new(roots),
        source,
    };
    // Upstreams with one protocol and neither pins nor a client certificate share everything,
    // including sessions.
    let shared = |scheme: Scheme| {
        let is_plain =
            |upstream: &&Upstream| !upstream.has_own_terms() && upstream.scheme == scheme;
        let plain = config.upstreams.iter().filter(is_plain).count();
        trust.client(scheme, trust.by_chain(), None, plain)
    };
    let (over_tls, over_https) = (shared(Scheme::Tls)?, shared(Scheme::Https)?);
    let no_pins = Pins::default();
    let shared_fingerprint = Fingerprint::of_upstream(&trust.roots, &no_pins, None);
    let connector = |upstream: &Upstream| {
        let (config, sessions) = match upstream.scheme {
            Scheme::Tls => &over_tls,
            Scheme::Https => &over_https,
            Scheme::Tcp | Scheme::Udp => return Ok(None),
        };
        let name = server_name(upstream).ok_or_else(|| SetupError::Name(upstream.to_string()))?;
        Ok(Some(if upstream.has_own_terms() {
            trust.own(upstream, name)?
        } else {
            Connector {
                config: Arc::clone(config),
                sessions: Arc::clone(sessions),
                name,
                pins: None,
                fingerprint: shared_fingerprint,
                error_context: trust.error_context(upstream),
            }
        }))
    };
    let connectors = config.upstreams.iter().map(connector);
    let connectors = connectors.collect::<Result<_, SetupError>>()?;
    let acceptor = match &config.tls {
        Some(settings) => {
            let designated = config.designated.as_ref().map(ToString::to_string);
            let designated = designated.as_ref().map(|name| name.trim_end_matches('.'));
            let (provider, clock) = (&trust.provider, &trust.clock);
            Some(Acceptor::new(settings, designated, provider, clock)?)
        }
        None => None,
    };
    let for_clients = acceptor.iter().filter_map(Acceptor::own).cloned();
    let own = for_clients.chain(shown_to(&config.upstreams)?).collect();
    let of_clients = acceptor.iter().filter_map(Acceptor::authorities).cloned();
    let authorities = authorities.into_iter().chain(of_clients).collect();
    Ok(Setup {
        connectors,
        acceptor,
        own,
        authorities,
    })
}

/// Returns the roots that verify upstreams, and the dates of those in a file.
fn read_roots(
    config: &Config,
) -> Result<(RootSource, RootCertStore, Option<Authorities>), FileError> {
    if let Some(path) = &config.ca_file {
        let (roots, authorities) = files::read_roots("--ca-file", path)?;
        Ok((RootSource::CaFile, roots, Some(authorities)))
    } else {
        let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
        Ok((RootSource::BuiltIn, RootCertStore { roots }, None))
    }
}

/// The names of the settings of an upstream in messages.
const CLIENT_CERT: &str = "--upstream: client-cert";
const CLIENT_KEY: &str = "--upstream: client-key";

/// Returns the client certificates for upstreams.
fn shown_to(upstreams: &[Upstream]) -> Result<Vec<OwnCertificate>, FileError> {
    let mut own = Vec::new();
    for Identity { certificate, .. } in upstreams.iter().filter_map(|one| one.identity.as_ref()) {
        let chain = files::read_chain(CLIENT_CERT, certificate)?;
        own.extend(OwnCertificate::new(CLIENT_CERT, certificate, &chain));
    }
    Ok(own)
}

/// The inputs for the verification of upstream certificates.
struct Trust {
    provider: Arc<CryptoProvider>,
    clock: Arc<NeverBehind>,
    roots: Arc<RootCertStore>,
    source: RootSource,
}

impl Trust {
    fn error_context(&self, upstream: &Upstream) -> ErrorContext {
        ErrorContext {
            roots: self.source,
            has_client_certificate: upstream.identity.is_some(),
            is_https: upstream.scheme == Scheme::Https,
        }
    }

    /// Returns a verifier of chain and name.
    fn by_chain(&self) -> Arc<WebPkiServerVerifier> {
        let roots = Arc::clone(&self.roots);
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .expect("there are roots, and no revocation lists that could be invalid")
    }

    /// Creates the settings for an upstream with pins or a client certificate.
    fn own(&self, upstream: &Upstream, name: ServerName<'static>) -> Result<Connector, SetupError> {
        let by_chain = self.by_chain();
        let pins = (upstream.pins != Pins::default())
            .then(|| Arc::new(PinVerifier::new(upstream, by_chain.clone(), &self.roots)));
        let verifier = match &pins {
            Some(pins) => Arc::clone(pins) as Arc<dyn ServerCertVerifier>,
            None => by_chain,
        };
        let identity = upstream.identity.as_ref();
        let read = |identity| files::read_credentials([CLIENT_CERT, CLIENT_KEY], identity);
        let credentials = identity.map(read).transpose()?;
        let fingerprint =
            Fingerprint::of_upstream(&self.roots, &upstream.pins, credentials.as_ref());
        let (config, sessions) =
            self.client(upstream.scheme, verifier, identity.zip(credentials), 1)?;
        Ok(Connector {
            config,
            sessions,
            name,
            pins,
            fingerprint,
            error_context: self.error_context(upstream),
        })
    }

    fn client(
        &self,
        scheme: Scheme,
        verifier: Arc<dyn ServerCertVerifier>,
        identity: Option<(&Identity, Credentials)>,
        upstreams: usize,
    ) -> Result<(Arc<ClientConfig>, Arc<Sessions>), SetupError> {
        let clock = Arc::clone(&self.clock) as Arc<dyn TimeProvider>;
        let sessions_max = TICKETS_PER_UPSTREAM * upstreams;
        let sessions = Arc::new(Sessions::new(sessions_max, Arc::clone(&clock)));
        let client = ClientConfig::builder_with_details(Arc::clone(&self.provider), clock)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut client = match identity {
            None => client.with_no_client_auth(),
            Some((Identity { key: path, .. }, Credentials { chain, key })) => {
                let first_is_ca = certificate::is_ca(&chain[0]);
                let client = client.with_client_auth_cert(chain, key);
                client.map_err(|error| {
                    let cause = explain_key(&error, first_is_ca);
                    FileError::new(CLIENT_KEY, path, cause)
                })?
            }
        };
        client.alpn_protocols = vec![alpn(scheme).to_vec()];
        client.resumption = Resumption::store(Arc::clone(&sessions) as Arc<dyn ClientSessionStore>);
        Ok((Arc::new(client), sessions))
    }
}

/// Returns the name that the certificate of the upstream must contain, if it is a valid name.
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

/// Returns the algorithms, with the cheapest cipher of this processor first: messages are short, so
/// AES-128 if the processor has instructions for it, otherwise ChaCha20. The hybrid key exchange,
/// if it is on, is the first group, with X25519 behind it.
fn provider(key_exchange: KeyExchange) -> CryptoProvider {
    use ring::cipher_suite as suite;
    let mut provider = ring::default_provider();
    if key_exchange == KeyExchange::Hybrid {
        provider.kx_groups.insert(0, hybrid::group());
    }
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

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
