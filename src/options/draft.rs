//! The draft of a [`Config`], filled while the options are read.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::table::{COMMANDS, TABLE};
use super::values::parse_switch;
use super::{UsageError, usage};
use crate::base::address::Address;
use crate::base::file;
use crate::config::upstream::TLS_PORT;
use crate::config::{
    Access, Budget, CacheSettings, ClientDetail, Collector, Config, DnstapTarget, Host, Identity,
    Limits, Listen, LogFormat, LogTarget, Network, Policy, QueryLogSettings, RateLimit, Scheme,
    Share, Timeouts, TlsSettings, TraceSettings, Upstream, UserName,
};

/// The byte-order mark with which some editors start a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The options read so far.
pub(super) struct Draft {
    pub(super) port: u16,
    pub(super) listen: Vec<(Address, Option<u16>)>,
    pub(super) allowed: Vec<Network>,
    pub(super) denied: Vec<Network>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) bootstrap: Vec<SocketAddr>,
    pub(super) policy: Policy,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) clock_stamp: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) tls_listen: Vec<(Address, Option<u16>)>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) http_listen: Vec<SocketAddr>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) memory_limit: Option<Budget>,
    pub(super) tcp_clients: Option<usize>,
    pub(super) inflight: Option<usize>,
    pub(super) cache_size: Option<usize>,
    /// Settings of the cache, apart from its size.
    pub(super) cache: CacheSettings,
    pub(super) dnstap: Option<DnstapTarget>,
    pub(super) collector: Option<Collector>,
    pub(super) trace_share: Share,
    pub(super) log_format: LogFormat,
    pub(super) query_log: Option<(LogTarget, u32)>,
    pub(super) query_log_clients: ClientDetail,
    pub(super) reuse_port: bool,
    pub(super) user: Option<UserName>,
    pub(super) no_sandbox: bool,
    pub(super) file: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
    pub(super) log_level: LevelFilter,
    /// The log level set by `--verbose`.
    pub(super) verbosity: LevelFilter,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            port: 53,
            listen: Vec::new(),
            allowed: Vec::new(),
            denied: Vec::new(),
            rate_limit: None,
            upstreams: Vec::new(),
            bootstrap: Vec::new(),
            policy: Policy::default(),
            ca_file: None,
            clock_stamp: None,
            timeout: Timeouts::QUERY,
            tls_listen: Vec::new(),
            tls_cert: None,
            http_listen: Vec::new(),
            tls_key: None,
            tls_client_ca: None,
            memory_limit: None,
            tcp_clients: None,
            inflight: None,
            cache_size: None,
            cache: CacheSettings::default(),
            dnstap: None,
            collector: None,
            trace_share: Share::PERCENT,
            log_format: LogFormat::default(),
            query_log: None,
            query_log_clients: ClientDetail::default(),
            reuse_port: false,
            user: None,
            no_sandbox: false,
            file: None,
            warnings: Vec::new(),
            log_level: LevelFilter::Info,
            verbosity: LevelFilter::Off,
        }
    }
}

impl Draft {
    /// Stores a warning until the log is open.
    pub(super) fn warn(&mut self, warning: Option<String>) {
        self.warnings.extend(warning);
    }

    pub(super) fn read_file(&mut self, path: &Path) -> Result<(), UsageError> {
        let bytes = file::read(path)
            .map_err(|error| usage(&format!("--conf-file: {:?}: {error}", path.display())))?;
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let result = match str::from_utf8(line) {
                Ok(line) => self.read_line(line),
                Err(_) => Err("expected UTF-8 text".to_owned()),
            };
            result.map_err(|problem| UsageError {
                place: Some((path.to_owned(), index + 1)),
                problem,
            })?;
        }
        Ok(())
    }

    /// Applies a line `option=value` or `option value`. A `#` at the start or after white space
    /// starts a comment.
    fn read_line(&mut self, line: &str) -> Result<(), String> {
        let comment = line.char_indices().find(|&(at, c)| {
            c == '#' && !line[..at].ends_with(|before: char| !before.is_whitespace())
        });
        let line = line[..comment.map_or(line.len(), |(at, _)| at)].trim();
        if line.is_empty() {
            return Ok(());
        }
        let (option, given) = match line.split_once(|c: char| c == '=' || c.is_whitespace()) {
            Some((option, value)) => {
                let value = value.trim_start().trim_start_matches('=').trim_start();
                (option, Some(value))
            }
            None => (line, None),
        };
        let value = given.unwrap_or_default();
        if COMMANDS.iter().any(|(_, long, ..)| *long == option) {
            return Err(format!("{option}: expected on the command line only"));
        }
        let row = TABLE.iter().find(|row| row.long == option);
        let row = row.ok_or_else(|| {
            format!(
                "{option:?}: unknown option (--help lists the long names; write upstream = \
                 1.1.1.1)"
            )
        })?;
        if value.starts_with(['"', '\'']) {
            return Err(format!("{option}: {value:?}: remove the quotes"));
        }
        if !row.value.is_empty() && given.is_none() {
            return Err(format!("{option}: expected a value"));
        }
        let taken = match (row.value, given) {
            // A switch without a value is on, and an empty value is a mistake.
            ("", Some(value)) => parse_switch(value),
            _ => Some(value),
        };
        let Some(taken) = taken else {
            return Err(format!("{option}: {value:?}: expected yes, no or no value"));
        };
        (row.apply)(self, taken)
            .map_err(|expected| format!("{option}: {value:?}: expected {expected}"))
    }

    pub(super) fn finish(self) -> Result<Config, UsageError> {
        if self.upstreams.is_empty() {
            return Err(usage("--upstream: expected an upstream, like -u 1.1.1.1"));
        }
        let (limits, cache_size) = self.limits(!self.tls_listen.is_empty())?;
        let listen = if self.listen.is_empty() {
            Listen::Everywhere { port: self.port }
        } else {
            let address = |(address, port): (Address, Option<u16>)| {
                address.with_port(port.unwrap_or(self.port))
            };
            Listen::Addresses(self.listen.into_iter().map(address).collect())
        };
        if let Some(address) = Listen::covered_twice(&listen.addresses()) {
            let problem = format!("--listen: \"{address}\": given twice, or part of a wildcard");
            return Err(usage(&problem));
        }
        let tls = tls_settings(
            &self.tls_listen,
            (self.tls_cert, self.tls_key, self.tls_client_ca),
            &listen,
        )?;
        check_http_addresses(&self.http_listen, &listen, tls.as_ref())?;
        let is_loopback = |address: &SocketAddr| address.ip().is_loopback();
        let servers = (&self.upstreams[..], &self.bootstrap[..]);
        check_loops(servers, &listen, tls.as_ref(), is_loopback)?;
        if self.cache.ttl_min > self.cache.ttl_max {
            return Err(usage("--cache-min-ttl: expected at most --cache-max-ttl"));
        }
        check_hosts(&self.upstreams, &self.bootstrap)?;
        Ok(Config {
            listen,
            tls,
            http_listen: self.http_listen,
            access: Access::new(&self.allowed, &self.denied),
            rate_limit: self.rate_limit,
            upstreams: self.upstreams,
            bootstrap: self.bootstrap,
            policy: self.policy,
            ca_file: self.ca_file,
            clock_stamp: self.clock_stamp,
            timeouts: Timeouts::for_query(self.timeout),
            limits,
            cache: CacheSettings {
                size: cache_size,
                ..self.cache
            },
            log_level: self.log_level.max(self.verbosity),
            dnstap: self.dnstap,
            traces: self.collector.map(|collector| TraceSettings {
                collector,
                share: self.trace_share,
                clients: self.query_log_clients,
            }),
            log_format: self.log_format,
            query_log: self.query_log.map(|(target, sample)| QueryLogSettings {
                target,
                sample,
                clients: self.query_log_clients,
            }),
            reuse_port: self.reuse_port,
            user: self.user,
            is_confined: !self.no_sandbox,
            file: self.file,
            warnings: self.warnings,
        })
    }
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

/// Checks that no upstream or bootstrap server is a listener of this program, which would query
/// itself in a loop. `is_own` tells whether an address reaches the wildcard addresses.
pub(super) fn check_loops(
    (upstreams, bootstrap): (&[Upstream], &[SocketAddr]),
    plain: &Listen,
    tls: Option<&TlsSettings>,
    is_own: impl Fn(&SocketAddr) -> bool + Copy,
) -> Result<(), UsageError> {
    let plain = plain.addresses();
    let under_tls = tls.map_or(&[][..], |tls| &tls.addresses);
    let error = |option, server: &dyn std::fmt::Display, listeners| {
        let problem = format!(
            "{option}: \"{server}\": this program itself listens there ({listeners}): expected \
             another server, since queries would loop"
        );
        Err(usage(&problem))
    };
    let of_plain = "--listen, --port";
    if let Some(address) = bootstrap
        .iter()
        .find(|address| Listen::reaches(&plain, address, is_own))
    {
        return error("--bootstrap", address, of_plain);
    }
    for upstream in upstreams {
        let Host::Address(address) = &upstream.host else {
            continue;
        };
        if Listen::reaches(&plain, address, is_own) {
            return error("--upstream", upstream, of_plain);
        }
        if upstream.scheme != Scheme::Udp && Listen::reaches(under_tls, address, is_own) {
            return error("--upstream", upstream, "--tls-listen");
        }
    }
    Ok(())
}

/// Checks that upstreams given by host name have a bootstrap server.
fn check_hosts(upstreams: &[Upstream], bootstrap: &[SocketAddr]) -> Result<(), UsageError> {
    let mut upstreams = upstreams.iter();
    let named = upstreams.find(|upstream| matches!(upstream.host, Host::Name(..)));
    match (named, bootstrap) {
        (Some(upstream), []) => Err(usage(&format!(
            "--upstream: \"{upstream}\": a host name needs --bootstrap ADDR, a plain DNS server \
             that resolves it"
        ))),
        _ => Ok(()),
    }
}

fn check_http_addresses(
    http: &[SocketAddr],
    plain: &Listen,
    tls: Option<&TlsSettings>,
) -> Result<(), UsageError> {
    let under_tls = tls.map_or(&[][..], |tls| &tls.addresses);
    match Listen::covered_twice(&[&plain.addresses()[..], under_tls, http].concat()) {
        Some(address) => {
            let problem =
                format!("--http-listen: \"{address}\": another listener has this address and port");
            Err(usage(&problem))
        }
        None => Ok(()),
    }
}

fn tls_settings(
    listen: &[(Address, Option<u16>)],
    files: (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
    plain: &Listen,
) -> Result<Option<TlsSettings>, UsageError> {
    let addresses = listen.iter();
    let addresses = addresses.map(|(address, port)| address.with_port(port.unwrap_or(TLS_PORT)));
    let addresses: Vec<SocketAddr> = addresses.collect();
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
    let all = [&plain.addresses()[..], &addresses].concat();
    if let Some(address) = Listen::covered_twice(&all) {
        let problem =
            format!("--tls-listen: \"{address}\": another listener has this address and port");
        return Err(usage(&problem));
    }
    Ok(Some(TlsSettings {
        addresses,
        identity: Identity { certificate, key },
        client_ca,
    }))
}
