//! The limit of file descriptors, and the number of TCP clients that it allows.
//!
//! Upstream connections and UDP sockets come first: TCP clients must not take the descriptors that
//! replies need.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Host, Scheme, TlsSettings, Upstream};

/// Descriptors for standard streams, the poller, signals, files that are read occasionally, and a
/// reserve.
const OWN: usize = 16;

/// Raises the process's limit if necessary and possible, and lowers the number of TCP clients to
/// what fits.
pub fn fit(config: &mut Config) -> io::Result<()> {
    let reserved = reserved(config);
    let needed = (reserved + config.limits.tcp_clients) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (mut soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    if soft < needed && soft < hard {
        soft = needed.min(hard);
        let current = Some(soft);
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    if soft < needed {
        let left = usize::try_from(soft)
            .unwrap_or(usize::MAX)
            .saturating_sub(reserved);
        if left == 0 {
            let least = reserved + 1;
            let problem = format!(
                "{soft} file descriptors are too few: set `ulimit -n` (systemd: LimitNOFILE=) to \
                 {least} or more"
            );
            return Err(io::Error::other(problem));
        }
        log::warn!(
            "the limit of {soft} file descriptors allows {left} TCP clients, not {}: raise it with \
             `ulimit -n` (systemd: LimitNOFILE=) to {needed}, or lower --max-tcp-clients",
            config.limits.tcp_clients
        );
        config.limits.tcp_clients = left;
    }
    Ok(())
}

/// Returns the number of descriptors that are reserved for other uses than TCP clients.
fn reserved(config: &Config) -> usize {
    let under_tls = config
        .tls
        .iter()
        .flat_map(TlsSettings::all_addresses)
        .count();
    let http = match config.http_listen.len() {
        0 => 0,
        listeners => listeners + config.limits.http_clients,
    };
    let listening = 2 * config.listen.addresses().len() + under_tls + http;
    let upstreams = config
        .upstreams
        .iter()
        .map(|upstream| links(config, upstream));
    let bootstrap = config.bootstrap.iter().copied().map(Upstream::bootstrap);
    let bootstrap = bootstrap.map(|server| links(config, &server));
    let exporters = usize::from(config.dnstap.is_some()) + usize::from(config.traces.is_some());
    OWN + exporters + listening + upstreams.chain(bootstrap).sum::<usize>()
}

/// Returns the maximum number of links to one upstream: those that accept queries, and as many that
/// may wait for their last replies.
fn links(config: &Config, upstream: &Upstream) -> usize {
    let limits = &config.limits;
    let addresses = match upstream.host {
        Host::Address(_) => 1,
        Host::Name(..) => limits.addresses_per_upstream,
    };
    let datagrams = match upstream.scheme {
        Scheme::Tls | Scheme::Https | Scheme::Tcp => 0,
        Scheme::Udp => {
            limits.datagrams_per_address
                + limits.datagrams_spare
                + limits.probe_datagrams_per_address
        }
    };
    let streams = limits.links_per_address.max(limits.small_links_per_address);
    2 * addresses * (streams + datagrams)
}
