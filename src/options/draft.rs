//! The draft of a [`Config`], filled while the options are read.

use std::net::SocketAddr;
use std::path::PathBuf;

use log::LevelFilter;

use super::{UsageError, usage, warnings};
use crate::base::address::Address;
use crate::config::upstream::{PLAIN_PORT, TLS_PORT};
use crate::config::{
    Access, Budget, CacheSettings, ClientDetail, Collector, Config, Host, Identity, Limits, Listen,
    LogTarget, Network, QueryLogSettings, ResourceSettings, Share, TlsSettings, TraceSettings,
    Upstream,
};

/// A value as written, and its place if that is in a file.
pub(super) struct Written {
    pub(super) value: String,
    pub(super) location: Option<(PathBuf, usize)>,
}

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
    /// The upstreams as written, each with its place.
    pub(super) upstreams: Vec<Written>,
    /// The minimum and the maximum TTL as written, each with its place.
    pub(super) ttl_bounds: [Option<Written>; 2],
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

    /// Returns a value as written, with its place.
    pub(super) fn written(&self, value: &str) -> Written {
        Written {
            value: value.to_owned(),
            location: self.location.clone(),
        }
    }

    pub(super) fn finish(self) -> Result<Config, UsageError> {
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
        let (limits, cache_size) = self.limits(!self.tls_listen.is_empty())?;
        let plain_port = self.port.unwrap_or(PLAIN_PORT);
        let is_listen_given = self.port.is_some() || !self.listen.is_empty();
        let listen = if self.listen.is_empty() {
            Listen::Everywhere { port: plain_port }
        } else {
            Listen::Addresses(addresses(&self.listen, plain_port))
        };
        if let Some(address) = Listen::covered_twice(&listen.addresses()) {
            let problem = format!("--listen: \"{address}\": given twice, or part of a wildcard");
            return Err(usage(&problem));
        }
        let tls = tls_settings(
            addresses(&self.tls_listen, TLS_PORT),
            (self.tls_cert, self.tls_key, self.tls_client_ca),
            &listen,
        )?;
        check_http_addresses(&self.config.http_listen, &listen, tls.as_ref())?;
        if self.config.cache.ttl_min > self.config.cache.ttl_max {
            return Err(ttl_bounds_crossed(self.ttl_bounds));
        }
        if bootstrap.is_empty() {
            check_hosts(upstreams, self.upstreams)?;
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
        let dnssec_warning = warnings::dnssec(&config.dnssec, &config.upstreams);
        config.warnings.extend(dnssec_warning);
        config.warn_of_clear_text();
        Ok(config)
    }
}

/// Returns the error for a minimum TTL above the maximum.
fn ttl_bounds_crossed([min, max]: [Option<Written>; 2]) -> UsageError {
    let (max, max_location) = match max {
        Some(max) => (format!("{:?}", max.value), max.location),
        None => ("1d, the default".to_owned(), None),
    };
    let (min, min_location) = match min {
        Some(min) => (min.value, min.location),
        None => ("0s".to_owned(), None),
    };
    UsageError {
        location: min_location.or(max_location),
        problem: format!("--cache-min-ttl: {min:?}: must not exceed --cache-max-ttl ({max})"),
    }
}

/// Returns the addresses of listeners, with `port` where the option names none.
fn addresses(listen: &[(Address, Option<u16>)], port: u16) -> Vec<SocketAddr> {
    let listen = listen.iter();
    let addresses = listen.map(|(address, own)| address.with_port(own.unwrap_or(port)));
    addresses.collect()
}

impl Draft {
    /// Returns the limits and the size of the cache in bytes, from the options and the memory
    /// limit.
    fn limits(&self, serves_tls: bool) -> Result<(Limits, usize), UsageError> {
        let budget = self.memory_limit;
        let mut limits = budget.map_or_else(Limits::default, |budget| budget.limits(serves_tls));
        limits.tcp_clients = self.tcp_clients.unwrap_or(limits.tcp_clients);
        limits.inflight = self.inflight.unwrap_or(limits.inflight);
        let Some(budget) = budget else {
            let size = self.cache_size.unwrap_or(CacheSettings::default().size);
            return Ok((limits, size));
        };
        let Some(most) = budget.cache_size(&limits, serves_tls) else {
            let problem = "--max-inflight, --max-tcp-clients: expected lower limits with this \
                           --memory-limit";
            return Err(usage(problem));
        };
        match self.cache_size {
            Some(size) if size > most => {
                let most = most / 1024;
                let problem =
                    format!("--cache-size: expected at most {most}k with this --memory-limit");
                Err(usage(&problem))
            }
            size => Ok((limits, size.unwrap_or(most))),
        }
    }
}

/// Checks that no upstream is given by host name, which needs a bootstrap server.
fn check_hosts(upstreams: &[Upstream], written: Vec<Written>) -> Result<(), UsageError> {
    let mut pairs = upstreams.iter().zip(written);
    match pairs.find(|(upstream, _)| matches!(upstream.host, Host::Name(..))) {
        Some((_, Written { value, location })) => Err(UsageError {
            location,
            problem: format!(
                "--upstream: {value:?}: a host name needs --bootstrap ADDR, a plain DNS server \
                 that resolves it"
            ),
        }),
        None => Ok(()),
    }
}

fn check_http_addresses(
    http: &[SocketAddr],
    plain: &Listen,
    tls: Option<&TlsSettings>,
) -> Result<(), UsageError> {
    let under_tls = tls.map_or(&[][..], |tls| &tls.addresses);
    check_free(
        "--http-listen",
        http,
        "--listen, --port",
        &plain.addresses(),
    )?;
    check_free("--http-listen", http, "--tls-listen", under_tls)
}

/// Checks that the addresses of `option` differ from each other and from those of `other`.
fn check_free(
    option: &str,
    addresses: &[SocketAddr],
    other: &str,
    others: &[SocketAddr],
) -> Result<(), UsageError> {
    let is_repeated = Listen::covered_twice(addresses).is_some();
    let other = if is_repeated { option } else { other };
    match Listen::covered_twice(&[others, addresses].concat()) {
        Some(address) => Err(usage(&format!(
            "{option}: \"{address}\": another listener has this address and port ({other})"
        ))),
        None => Ok(()),
    }
}

fn tls_settings(
    addresses: Vec<SocketAddr>,
    files: (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
    plain: &Listen,
) -> Result<Option<TlsSettings>, UsageError> {
    let (certificate, key, client_ca) = match (addresses.as_slice(), files) {
        ([], (None, None, None)) => return Ok(None),
        ([], _) => {
            let problem = "--tls-cert, --tls-key, --tls-client-ca: these options need \
                           --tls-listen";
            return Err(usage(problem));
        }
        (_, (Some(certificate), Some(key), client_ca)) => (certificate, key, client_ca),
        _ => {
            let problem = "--tls-listen: this option needs --tls-cert and --tls-key, the server \
                           certificate and its key";
            return Err(usage(problem));
        }
    };
    check_free(
        "--tls-listen",
        &addresses,
        "--listen, --port",
        &plain.addresses(),
    )?;
    Ok(Some(TlsSettings {
        addresses,
        identity: Identity { certificate, key },
        client_ca,
    }))
}
