//! `--check-conf`: checks whether the program can run with its settings, without opening a
//! listener, switching the user or changing a file.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use crate::base::address::is_broadcast_here;
use crate::base::file::{self, LongFile};
use crate::base::name_table::NameTableKey;
use crate::base::random::{Random, SEED_LEN};
use crate::block::Loader;
use crate::config::{Config, DnstapTarget, Host, Listen};
use crate::process::sandbox::{RuntimeUser, closed_files};
use crate::telemetry::query_log::QueryLog;
use crate::tls;
use crate::tls::clock;
use crate::tls::clock::Clock;

/// Checks the settings and the files that they name. Returns warnings about possible mistakes.
pub fn check(config: &Config) -> Result<Vec<String>, String> {
    check_addresses(config)?;
    let stamp = config.clock_stamp.as_deref().map(clock::check_stamp);
    let stamp = stamp.transpose()?.flatten();
    let clock = Clock::new(config.clock_stamp.as_deref());
    let tls = tls::set_up(config, &clock).map_err(|error| error.to_string())?;
    let mut warnings = config.warnings.clone();
    warnings.extend(stamp);
    if let Some(path) = config.cache_file_in_use() {
        warnings.extend(check_cache_file(path)?);
    }
    if let Some(problem) = tls.refusal(None, clock.now()) {
        return Err(problem);
    }
    for own in &tls.own {
        warnings.extend(own.problem(clock.now()));
        warnings.extend(own.chain_problems(clock.now()));
    }
    for authorities in &tls.authorities {
        warnings.extend(authorities.problems(clock.now()));
    }
    let user = config.user.as_ref().map(RuntimeUser::find).transpose()?;
    if let Some(user) = &user {
        user.check_options_file(config)?;
        user.check_written_files(config)?;
    }
    warnings.extend(closed_files(config, user.as_ref()));
    let query_log = config.query_log.as_ref().map(QueryLog::check).transpose()?;
    warnings.extend(query_log.flatten());
    check_dnstap(config.dnstap.as_ref())?;
    if !config.block.files.is_empty() {
        let key = NameTableKey::new(&mut Random::new(&[0; SEED_LEN]));
        warnings.extend(Loader::new(&config.block, key).load()?.warnings);
    }
    Ok(warnings)
}

/// Returns an error if the cache file could not be written, or a warning if it could not be read.
fn check_cache_file(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    file::try_to_write(path).map_err(|error| {
        let error = file::describe_written(path, &error);
        format!("--cache-file: {shown:?}: {error}")
    })?;
    let opened = LongFile::open(path).err();
    let failure = opened.filter(|error| error.kind() != ErrorKind::NotFound);
    Ok(failure.map(|error| format!("--cache-file: {shown:?}: {error}")))
}

/// Checks that no listener or destination has the broadcast address of a network of this host,
/// which only the kernel knows.
fn check_addresses(config: &Config) -> Result<(), String> {
    let plain = match &config.listen {
        Listen::Addresses(addresses) => addresses.as_slice(),
        Listen::Everywhere { .. } | Listen::Inherited(_) => &[],
    };
    let tls = config.tls.as_ref();
    let under_tls = tls.map_or(&[][..], |tls| &tls.addresses);
    let over_https = tls.map_or(&[][..], |tls| &tls.https_addresses);
    let upstreams = config.upstreams.iter();
    let upstreams: Vec<SocketAddr> = upstreams
        .filter_map(|upstream| match upstream.host {
            Host::Address(address) => Some(address),
            Host::Name(..) => None,
        })
        .collect();
    let dnstap: Vec<SocketAddr> = match &config.dnstap {
        Some(DnstapTarget::Tcp(address)) => vec![*address],
        Some(DnstapTarget::Local(_)) | None => Vec::new(),
    };
    let collector = config.traces.iter().map(|traces| traces.collector.address);
    let collector: Vec<SocketAddr> = collector.collect();
    let (this_host, one_host) = ("a unicast address of this host", "a unicast address");
    for (option, addresses, expected) in [
        ("--listen", plain, this_host),
        ("--tls-listen", under_tls, this_host),
        ("--https-listen", over_https, this_host),
        ("--http-listen", &config.http_listen, this_host),
        ("--upstream", &upstreams, one_host),
        ("--bootstrap", &config.bootstrap, one_host),
        ("--dnstap", &dnstap, one_host),
        ("--otlp", &collector, one_host),
    ] {
        let is_broadcast = |address: &&SocketAddr| is_broadcast_here(address.ip());
        if let Some(address) = addresses.iter().find(is_broadcast) {
            return Err(format!(
                "{option}: \"{address}\": expected {expected}, not a broadcast address of this \
                 host's networks (`ip address` shows them)"
            ));
        }
    }
    Ok(())
}

/// Checks the socket of the dnstap reader. It may be missing, since the reader may start later, but
/// it must not be another type of file.
fn check_dnstap(target: Option<&DnstapTarget>) -> Result<(), String> {
    match target {
        Some(DnstapTarget::Local(path)) if file::is_no_socket(path) => {
            let path = path.display();
            Err(format!(
                "--dnstap: {path:?}: expected the Unix socket of a dnstap reader"
            ))
        }
        _ => Ok(()),
    }
}
