//! The draft of a [`Config`], filled while the options are read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use log::LevelFilter;

use super::domains_files::{self, DomainsFile};
use super::given::{Given, Written};
use super::{UsageError, usage, warnings};
use crate::base::address::Address;
use crate::config::upstream::{HTTPS_PORT, PLAIN_PORT, TLS_PORT};
use crate::config::{
    Access, Budget, CacheSettings, ClientDetail, Collector, Config, Domains, Host, Identity,
    Limits, Listen, LogTarget, Network, QueryLogSettings, ResourceSettings, Share, TlsSettings,
    TraceSettings, Upstream,
};

/// The options read so far.
#[derive(Default)]
pub(super) struct Draft {
    /// The settings that need no other option.
    pub(super) config: Config,
    pub(super) port: Option<u16>,
    pub(super) listen: Vec<(Address, Option<u16>)>,
    pub(super) allowed: Vec<Network>,
    pub(super) denied: Vec<Network>,
    pub(super) tls_listen: Vec<(Address, Option<u16>)>,
    pub(super) https_listen: Vec<(Address, Option<u16>)>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) memory_limit: Option<Budget>,
    pub(super) tcp_clients: Option<usize>,
    pub(super) inflight: Option<usize>,
    pub(super) cache_size: Option<usize>,
    pub(super) collector: Option<Collector>,
    pub(super) trace_share: Option<Share>,
    pub(super) query_log: Option<(LogTarget, u32)>,
    pub(super) query_log_clients: ClientDetail,
    /// The place of the option that is read, if it is in a file: path and line.
    pub(super) location: Option<(PathBuf, usize)>,
    /// The options as written, each with its place.
    given: Given,
    /// The files of domains of the upstreams.
    pub(super) domains_files: Vec<DomainsFile>,
    /// The log level set by `--verbose`.
    pub(super) verbosity: Option<LevelFilter>,
}

impl Draft {
    /// Stores a warning about the option that is read, until the log is open.
    pub(super) fn warn(&mut self, warning: Option<String>) {
        let at = |problem| UsageError {
            location: self.location.clone(),
            problem,
        };
        let warning = warning.map(|warning| at(warning).to_string());
        self.config.warnings.extend(warning);
    }

    /// Records an option as written, with its place.
    pub(super) fn record(&mut self, option: &'static str, value: &str) {
        let written = Written {
            value: value.to_owned(),
            location: self.location.clone(),
        };
        self.given.record(option, written);
    }

    pub(super) fn finish(mut self) -> Result<Config, UsageError> {
        self.config.domains = Arc::new(self.domains()?);
        let (upstreams, bootstrap) = (&self.config.upstreams[..], &self.config.bootstrap[..]);
        if upstreams.is_empty() {
            return Err(usage(&match &self.config.file {
                Some(path) => format!(
                    "{}: expected an upstream, like upstream = 1.1.1.1",
                    path.display()
                ),
                None => "--upstream: expected an upstream, like -u 1.1.1.1".to_owned(),
            }));
        }
        let (limits, cache_size, cache_room) = self.limits()?;
        let is_listen_given = self.port.is_some() || !self.listen.is_empty();
        let listen = self.plain_listen()?;
        let tls = tls_settings(
            &self.given,
            [
                addresses(&self.tls_listen, TLS_PORT),
                addresses(&self.https_listen, HTTPS_PORT),
            ],
            (self.tls_cert, self.tls_key, self.tls_client_ca),
            &listen,
        )?;
        if self.config.designated.is_some() && tls.is_none() {
            let problem = "--designated: expected --tls-listen or --https-listen, the listeners \
                           that clients learn of";
            return Err(self.given.error(&["designated"], problem.to_owned()));
        }
        check_http_addresses(&self.given, &self.config.http_listen, &listen, tls.as_ref())?;
        if self.config.cache.ttl_min > self.config.cache.ttl_max {
            return Err(ttl_bounds_crossed(&self.given));
        }
        if bootstrap.is_empty() {
            check_hosts(upstreams, &self.given)?;
        }
        let clients = self.query_log_clients;
        let mut config = Config {
            listen,
            is_listen_given,
            tls,
            access: Access::new(&self.allowed, &self.denied),
            limits,
            cache: CacheSettings {
                size: cache_size,
                ..self.config.cache
            },
            log_level: self
                .config
                .log_level
                .max(self.verbosity.unwrap_or(LevelFilter::Off)),
            traces: self.collector.map(|collector| TraceSettings {
                resource: ResourceSettings::default(),
                collector,
                share: self.trace_share.unwrap_or(Share::PERCENT),
                clients,
            }),
            query_log: self.query_log.map(|(target, sample)| QueryLogSettings {
                target,
                sample,
                clients,
            }),
            ..self.config
        };
        config.block.room = cache_room;
        let of_several = warnings::of_several_options(&config, &self.given);
        config.warnings.extend(of_several);
        config.warn_of_clear_text();
        Ok(config)
    }
}

/// Returns the error for a minimum TTL above the maximum.
fn ttl_bounds_crossed(given: &Given) -> UsageError {
    let max = given.last("cache-max-ttl");
    let max = max.map_or("1d, the default".to_owned(), |max| {
        format!("{:?}", max.value)
    });
    let min = given.last("cache-min-ttl");
    let min = min.map_or("0s", |min| &min.value);
    given.error(
        &["cache-min-ttl", "cache-max-ttl"],
        format!("--cache-min-ttl: {min:?}: must not exceed --cache-max-ttl ({max})"),
    )
}

/// Returns the addresses of listeners, with `port` where the option names none.
fn addresses(listen: &[(Address, Option<u16>)], port: u16) -> Vec<SocketAddr> {
    let listen = listen.iter();
    let addresses = listen.map(|(address, own)| address.with_port(own.unwrap_or(port)));
    addresses.collect()
}

impl Draft {
    /// Returns the listeners for plain DNS.
    fn plain_listen(&self) -> Result<Listen, UsageError> {
        let port = self.port.unwrap_or(PLAIN_PORT);
        let listen = if self.listen.is_empty() {
            Listen::Everywhere { port }
        } else {
            Listen::Addresses(addresses(&self.listen, port))
        };
        match Listen::covered_twice(&listen.addresses()) {
            Some(address) => {
                let problem =
                    format!("--listen: \"{address}\": given twice, or part of a wildcard");
                Err(self.given.error(&["listen"], problem))
            }
            None => Ok(listen),
        }
    }

    /// Returns the domains of the upstreams.
    fn domains(&self) -> Result<Domains, UsageError> {
        let domains = domains_files::collect(&self.config.upstreams, &self.domains_files);
        domains.map_err(|problem| {
            let problem = format!("--upstream: {problem}");
            self.given.error(&["upstream"], problem)
        })
    }

    /// Returns the limits, the size of the cache in bytes, and the room that a memory limit leaves
    /// for the cache, from the options.
    fn limits(&self) -> Result<(Limits, usize, Option<usize>), UsageError> {
        let serves_tls = !self.tls_listen.is_empty() || !self.https_listen.is_empty();
        let budget = self.memory_limit;
        let defaults = budget.map_or_else(Limits::default, |budget| budget.limits(serves_tls));
        let mut limits = defaults;
        limits.tcp_clients = self.tcp_clients.unwrap_or(limits.tcp_clients);
        limits.inflight = self.inflight.unwrap_or(limits.inflight);
        let Some(budget) = budget else {
            let size = self.cache_size.unwrap_or(CacheSettings::default().size);
            return Ok((limits, size, None));
        };
        let limit = self.given.last("memory-limit").map(|limit| &limit.value);
        let limit = format!("--memory-limit {}", limit.map_or("", |value| value));
        let Some(most) = budget.cache_size(&limits, serves_tls) else {
            let options = ["max-inflight", "max-tcp-clients"];
            let values = self.given.values(&options);
            let (queries, clients) = (defaults.inflight, defaults.tcp_clients);
            let problem = format!(
                "{values}: expected a lower limit with {limit} (the defaults are --max-inflight \
                 {queries} and --max-tcp-clients {clients}), or a higher --memory-limit"
            );
            return Err(self.given.error(&options, problem));
        };
        let hosts = self.config.hosts.bytes();
        // A reload has the old and the new domains in memory for a moment. Without files, they are
        // few.
        let domains = match self.domains_files[..] {
            [] => 0,
            _ => 2 * self.config.domains.bytes(),
        };
        let Some(most) = most.checked_sub(hosts + domains) else {
            let lacking = (hosts + domains - most).div_ceil(1024);
            let option = if hosts > domains { "hosts" } else { "upstream" };
            let values = self.given.values(&[option]);
            let problem = format!(
                "{values}: expected fewer names with {limit}, or a limit that is higher by at \
                 least {lacking}k"
            );
            return Err(self.given.error(&[option], problem));
        };
        match self.cache_size {
            Some(size) if size > most => {
                let values = self.given.values(&["cache-size"]);
                let most = most / 1024;
                let problem = format!(
                    "{values}: expected at most {most}k with {limit}: lower --cache-size, or \
                     raise --memory-limit"
                );
                Err(self.given.error(&["cache-size"], problem))
            }
            size => Ok((limits, size.unwrap_or(most), Some(most))),
        }
    }
}

/// Checks that no upstream is given by host name, which needs a bootstrap server.
fn check_hosts(upstreams: &[Upstream], given: &Given) -> Result<(), UsageError> {
    let mut pairs = upstreams.iter().zip(given.all("upstream"));
    match pairs.find(|(upstream, _)| matches!(upstream.host, Host::Name(..))) {
        Some((_, Written { value, location })) => Err(UsageError {
            location: location.clone(),
            problem: format!(
                "--upstream: {value:?}: a host name needs --bootstrap ADDR, a plain DNS server \
                 that resolves it"
            ),
        }),
        None => Ok(()),
    }
}

fn check_http_addresses(
    given: &Given,
    http: &[SocketAddr],
    plain: &Listen,
    tls: Option<&TlsSettings>,
) -> Result<(), UsageError> {
    let under_tls = tls.map_or(&[][..], |tls| &tls.addresses);
    let over_https = tls.map_or(&[][..], |tls| &tls.https_addresses);
    check_free(given, "http-listen", http, PLAIN, &plain.addresses())?;
    check_free(given, "http-listen", http, &["tls-listen"], under_tls)?;
    check_free(given, "http-listen", http, &["https-listen"], over_https)
}

/// The options for the addresses of plain DNS.
const PLAIN: &[&str] = &["listen", "port"];

/// Checks that the addresses of `option` differ from each other and from those of the options
/// `others`.
fn check_free(
    given: &Given,
    option: &str,
    addresses: &[SocketAddr],
    others: &[&str],
    taken: &[SocketAddr],
) -> Result<(), UsageError> {
    let is_repeated = Listen::covered_twice(addresses).is_some();
    let Some(address) = Listen::covered_twice(&[taken, addresses].concat()) else {
        return Ok(());
    };
    let itself = [option];
    let other = given.names(if is_repeated { &itself } else { others });
    let problem =
        format!("--{option}: \"{address}\": another listener has this address and port ({other})");
    Err(given.error(&[option], problem))
}

fn tls_settings(
    given: &Given,
    [addresses, https_addresses]: [Vec<SocketAddr>; 2],
    files: (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
    plain: &Listen,
) -> Result<Option<TlsSettings>, UsageError> {
    let has_listener = !addresses.is_empty() || !https_addresses.is_empty();
    let (certificate, key, client_ca) = match (has_listener, files) {
        (false, (None, None, None)) => return Ok(None),
        (false, _) => {
            let options = ["tls-cert", "tls-key", "tls-client-ca"];
            let names = given.names(&options);
            return Err(given.error(
                &options,
                format!(
                    "{names}: expected --tls-listen or --https-listen, an address for clients over \
                     TLS"
                ),
            ));
        }
        (true, (Some(certificate), Some(key), client_ca)) => (certificate, key, client_ca),
        _ => {
            let option = if addresses.is_empty() {
                "https-listen"
            } else {
                "tls-listen"
            };
            let problem = format!(
                "--{option}: this option needs --tls-cert and --tls-key, the server certificate \
                 and its key"
            );
            return Err(given.error(&[option], problem));
        }
    };
    let plain = plain.addresses();
    check_free(given, "tls-listen", &addresses, PLAIN, &plain)?;
    check_free(given, "https-listen", &https_addresses, PLAIN, &plain)?;
    let under_tls = &["tls-listen"];
    check_free(
        given,
        "https-listen",
        &https_addresses,
        under_tls,
        &addresses,
    )?;
    Ok(Some(TlsSettings {
        addresses,
        https_addresses,
        identity: Identity { certificate, key },
        client_ca,
    }))
}
