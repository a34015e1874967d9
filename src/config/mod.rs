//! The settings: plain, checked data, with every default and every limit of the program.

pub mod access;
pub mod block;
pub mod bounds;
pub mod budget;
pub mod dns64;
pub mod domains;
pub mod hosts;
pub mod listen;
pub mod log;
pub mod pin;
pub mod trust_anchor;
pub mod upstream;

pub use access::{Access, Network, RateLimit};
pub use block::{BlockAnswer, BlockSettings};
pub use bounds::{Limits, Timeouts};
pub use budget::Budget;
pub use dns64::Dns64Prefix;
pub use domains::{Domains, DomainsFull};
pub use hosts::Hosts;
pub use listen::{InheritedSocket, Listen};
pub use log::{
    ClientDetail, Collector, DnstapTarget, LogFormat, LogTarget, QueryLogSettings,
    ResourceSettings, Share, TraceSettings,
};
pub use pin::{Pin, PinRule, Pins};
pub use trust_anchor::{DnssecMode, DnssecSettings, TrustAnchor};
pub use upstream::{Host, Identity, Scheme, Upstream};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use upstream::{PLAIN_PORT, TLS_PORT};

use ::log::LevelFilter;

use crate::wire::name::Name;

/// The settings of a run of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses that serve clients over UDP and TCP.
    pub listen: Listen,
    /// True if `listen` is from `--listen` or `--port`, and not the default.
    pub is_listen_given: bool,
    /// Listeners for DNS over TLS.
    pub tls: Option<TlsSettings>,
    /// The name under which clients of plain DNS learn of the encrypted listeners (RFC 9462).
    pub designated: Option<Name>,
    /// Names and addresses of hosts files.
    pub hosts: Arc<Hosts>,
    /// The prefix of DNS64, which makes AAAA records of A records.
    pub dns64: Option<Dns64Prefix>,
    /// Block lists.
    pub block: BlockSettings,
    /// Addresses that serve metrics and health over HTTP.
    pub http_listen: Vec<SocketAddr>,
    /// Access rules for clients.
    pub access: Access,
    /// Rate limit of each client over UDP; `None` sets no limit.
    pub rate_limit: Option<RateLimit>,
    /// The upstreams in the order of preference, at least one.
    pub upstreams: Vec<Upstream>,
    /// The domains that upstreams serve exclusively.
    pub domains: Arc<Domains>,
    /// Plain DNS servers that resolve the host names of upstreams.
    pub bootstrap: Vec<SocketAddr>,
    /// The policy that selects an upstream for a query.
    pub policy: Policy,
    /// CA certificates in PEM that replace the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// The groups of the TLS key exchange, for upstreams and clients.
    pub key_exchange: KeyExchange,
    /// File that stores the time of the last run.
    pub clock_stamp: Option<PathBuf>,
    /// Timeouts of queries and connections.
    pub timeouts: Timeouts,
    /// Limits of tables, queues and buffers.
    pub limits: Limits,
    /// Settings of the cache.
    pub cache: CacheSettings,
    /// Limit of the memory of the process in bytes (`--memory-limit`).
    pub memory_limit: Option<usize>,
    /// File that keeps the cache over a restart.
    pub cache_file: Option<PathBuf>,
    /// Settings of DNSSEC validation.
    pub dnssec: DnssecSettings,
    /// The least severe level that is logged.
    pub log_level: LevelFilter,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Settings of the query log.
    pub query_log: Option<QueryLogSettings>,
    /// Reader of dnstap messages.
    pub dnstap: Option<DnstapTarget>,
    /// Settings of sampled traces.
    pub traces: Option<TraceSettings>,
    /// True if other processes may serve clients on the same ports (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// User that the process switches to once its sockets are bound.
    pub user: Option<UserName>,
    /// True if the process then enters its sandbox.
    pub is_sandboxed: bool,
    /// The options file.
    pub file: Option<PathBuf>,
    /// Time between two checks for changed files, which cause a reload.
    pub reload_interval: Option<Duration>,
    /// Warnings about settings that are valid and may be mistakes, each in one line.
    pub warnings: Vec<String>,
}

impl Default for Config {
    /// The settings without options. They lack the upstreams.
    fn default() -> Self {
        Self {
            listen: Listen::Everywhere { port: PLAIN_PORT },
            is_listen_given: false,
            tls: None,
            designated: None,
            hosts: Arc::default(),
            dns64: None,
            block: BlockSettings::default(),
            http_listen: Vec::new(),
            access: Access::new(&[], &[]),
            rate_limit: None,
            upstreams: Vec::new(),
            domains: Arc::default(),
            bootstrap: Vec::new(),
            policy: Policy::default(),
            ca_file: None,
            key_exchange: KeyExchange::default(),
            clock_stamp: None,
            timeouts: Timeouts::for_query(Timeouts::QUERY),
            limits: Limits::default(),
            cache: CacheSettings::default(),
            memory_limit: None,
            cache_file: None,
            dnssec: DnssecSettings::default(),
            log_level: LevelFilter::Info,
            log_format: LogFormat::default(),
            query_log: None,
            dnstap: None,
            traces: None,
            reuse_port: false,
            user: None,
            is_sandboxed: true,
            file: None,
            reload_interval: None,
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// Returns the files that are read at the start and on reload.
    pub fn files_read(&self) -> impl Iterator<Item = &PathBuf> {
        let files = self.files_by_option().into_iter();
        files.map(|(_, path)| path)
    }

    /// Returns these files, each with the option or setting that names it.
    pub fn files_by_option(&self) -> Vec<(&'static str, &PathBuf)> {
        let mut files = Vec::new();
        for upstream in &self.upstreams {
            let domains = upstream.domains_files.iter();
            files.extend(domains.map(|path| ("--upstream: domains-file", path)));
            if let Some(identity) = &upstream.identity {
                files.push(("--upstream: client-cert", &identity.certificate));
                files.push(("--upstream: client-key", &identity.key));
            }
        }
        if let Some(tls) = &self.tls {
            files.push(("--tls-cert", &tls.identity.certificate));
            files.push(("--tls-key", &tls.identity.key));
            files.extend(tls.client_ca.iter().map(|path| ("--tls-client-ca", path)));
        }
        files.extend(self.ca_file.iter().map(|path| ("--ca-file", path)));
        let anchors = self.dnssec.anchor_files.iter();
        files.extend(anchors.map(|path| ("--trust-anchor", path)));
        files.extend(self.hosts.files.iter().map(|path| ("--hosts", path)));
        files.extend(self.block.files.iter().map(|path| ("--block", path)));
        let allowing = self.block.allow_files.iter();
        files.extend(allowing.map(|path| ("--allow-names", path)));
        files.extend(self.file.iter().map(|path| ("--conf-file", path)));
        files
    }

    /// Returns the files that are replaced while the process runs or ends, each with its option.
    pub fn files_replaced(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let stamp = self.clock_stamp.iter().map(|path| ("--clock-stamp", path));
        let cache = self.cache_file.iter().map(|path| ("--cache-file", path));
        stamp.chain(cache)
    }

    /// Returns the file that keeps the cache, unless there is no cache.
    pub fn cache_file_in_use(&self) -> Option<&Path> {
        let path = self.cache_file.as_deref();
        path.filter(|_| self.cache.size > 0)
    }

    /// Serves clients on sockets that the process was started with (socket activation) instead of
    /// sockets of its own. A socket for connections with the address of another option serves that
    /// option. Addresses of `--listen` and `--port` without such a socket cause a warning.
    pub fn inherit(&mut self, sockets: &[InheritedSocket]) {
        let under_tls = self.tls.iter().flat_map(TlsSettings::all_addresses);
        let others: Vec<&SocketAddr> = under_tls.chain(&self.http_listen).collect();
        let plain = sockets.iter().map(|socket| InheritedSocket {
            has_tcp: socket.has_tcp && !others.contains(&&socket.address),
            ..*socket
        });
        let plain: Vec<InheritedSocket> = plain.filter(|p| p.has_udp || p.has_tcp).collect();
        if plain.is_empty() {
            return;
        }
        let unserved = self.is_listen_given && !self.listen.is_served_by(&plain);
        if unserved {
            self.warnings.push(
                "--listen, --port: no effect, since clients are served on the inherited sockets \
                 (LISTEN_FDS): set the addresses in the socket unit (ListenDatagram=, \
                 ListenStream=), or disable the unit"
                    .to_owned(),
            );
        }
        self.listen = Listen::Inherited(plain);
        self.warn_of_clear_text();
    }

    /// Adds a warning if a listener for plain DNS has the port of DNS over TLS.
    pub fn warn_of_clear_text(&mut self) {
        let sockets = self.listen.sockets();
        let is_for_tls = |one: &&InheritedSocket| one.has_tcp && one.address.port() == TLS_PORT;
        let Some(InheritedSocket { address, .. }) = sockets.iter().find(is_for_tls) else {
            return;
        };
        let warning = format!(
            "\"{address}\" serves plain DNS on the port of DNS over TLS: set --tls-listen to this \
             address, or use another port"
        );
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName {
    /// Name or number of the user.
    pub user: String,
    /// Name or number of the group; `None` means the primary group of the user.
    pub group: Option<String>,
}

impl FromStr for UserName {
    /// Description of the expected value.
    type Err = &'static str;

    /// Parses `NAME` or `NAME:GROUP`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) {
            return Err("a user, or a user and a group, like nobody or nobody:nogroup");
        }
        Ok(Self {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        })
    }
}

/// The groups of the TLS key exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 first, then the classic groups.
    #[default]
    Hybrid,
    /// X25519, P-256 and P-384. A `ClientHello` fits into one segment.
    Classic,
}

/// Settings of the listeners for clients over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// TCP addresses of the listeners for DNS over TLS (RFC 7858).
    pub addresses: Vec<SocketAddr>,
    /// TCP addresses of the listeners for DNS over HTTPS (RFC 8484).
    pub https_addresses: Vec<SocketAddr>,
    /// Server certificate and key.
    pub identity: Identity,
    /// CA certificates for client authentication (mutual TLS), PEM.
    pub client_ca: Option<PathBuf>,
}

impl TlsSettings {
    /// Returns the addresses of all listeners.
    pub fn all_addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.addresses.iter().chain(&self.https_addresses)
    }
}

/// The policy that selects a healthy upstream for a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The upstream with the lowest recent latency.
    #[default]
    Fastest,
    /// The first upstream in the order of the options.
    Ordered,
    /// Each upstream in turn.
    RoundRobin,
}

/// Parses `500ms`, `5s`, `10m`, `1h`, `1d` or a bare number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = parse_number_and_unit(text)?;
    let milliseconds = match unit.as_str() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

/// Parses a number of bytes: a bare number, or one with `k`, `m` or `g`, powers of 1024.
pub fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = parse_number_and_unit(text)?;
    let shift = match unit.as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    usize::try_from(number.checked_mul(1 << shift)?).ok()
}

/// Parses a number of digits alone; a sign is an error.
pub fn parse_number<N: FromStr>(text: &str) -> Option<N> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Splits a value into its number and its unit in lower case: no two units differ only in case.
fn parse_number_and_unit(text: &str) -> Option<(u64, String)> {
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits_len);
    Some((number.parse().ok()?, unit.to_ascii_lowercase()))
}

/// Settings of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Memory for answers and their overhead in bytes; zero disables the cache.
    pub size: usize,
    /// Minimum TTL of a cached answer.
    pub ttl_min: Duration,
    /// Maximum TTL of a cached answer.
    pub ttl_max: Duration,
    /// Maximum TTL of a cached negative answer.
    pub negative_ttl_max: Duration,
    /// Time for which an expired answer is kept for serve-stale.
    pub stale_max: Duration,
    /// True if popular answers are refreshed before they expire.
    pub prefetch: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            size: 1024 * 1024,
            ttl_min: Duration::ZERO,
            ttl_max: day,
            negative_ttl_max: Duration::from_secs(60 * 60),
            stale_max: day,
            prefetch: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("5"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("500Ms"), Some(Duration::from_millis(500)));
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "5 s",
            "5x",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("1000"), Some(1000));
        assert_eq!(parse_size("64k"), Some(65_536));
        assert_eq!(parse_size("1m"), Some(1_048_576));
        assert_eq!(parse_size("2g"), Some(1 << 31));
        assert_eq!(parse_size("1M"), Some(1_048_576));
        for text in ["", "m", "-1", "1.5m", "1 m", "1kb", "99999999999g"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
