//! `--check-conf`: whether the program could run with its settings, as far as that shows without a
//! socket, another user or a change to any file.

use std::net::SocketAddr;

use crate::base::address::is_broadcast_here;
use crate::base::file;
use crate::config::{Config, DnstapTarget, Listen};
use crate::process::sandbox::Who;
use crate::telemetry::query_log::QueryLog;
use crate::tls;
use crate::tls::clock;
use crate::tls::clock::Clock;

/// Checks settings and the files that they name. Returns what is allowed and may not be meant.
pub fn check(config: &Config) -> Result<Vec<String>, String> {
    check_addresses(config)?;
    if let Some(path) = &config.clock_stamp {
        clock::check_stamp(path)?;
    }
    let clock = Clock::new(config.clock_stamp.as_deref());
    let tls = tls::set_up(config, &clock).map_err(|error| error.to_string())?;
    let mut warnings = config.warnings.clone();
    for own in &tls.own {
        match own.problem(clock.now()) {
            Some(problem) if own.is_valid(clock.now()) => warnings.push(problem),
            Some(problem) => return Err(problem),
            None => {}
        }
    }
    if let Some(who) = config.user.as_ref().map(Who::find).transpose()? {
        who.check_options_file(config)?;
    }
    config.query_log.as_ref().map(QueryLog::check).transpose()?;
    check_dnstap(config.dnstap.as_ref())?;
    Ok(warnings)
}

/// Addresses of one host that are none to listen on are known to the kernel alone: the broadcast
/// addresses of its networks.
fn check_addresses(config: &Config) -> Result<(), String> {
    let plain = match &config.listen {
        Listen::Addresses(addresses) => addresses.as_slice(),
        Listen::Everywhere { .. } | Listen::Inherited(_) => &[],
    };
    let under_tls = config.tls.as_ref().map_or(&[][..], |tls| &tls.addresses);
    for (option, addresses) in [
        ("--listen", plain),
        ("--tls-listen", under_tls),
        ("--http-listen", &config.http_listen),
    ] {
        let is_broadcast = |address: &&SocketAddr| is_broadcast_here(address.ip());
        if let Some(address) = addresses.iter().find(is_broadcast) {
            return Err(format!(
                "{option}: \"{address}\": expected the address of this host, not a broadcast \
                 address of its networks (`ip address` shows both)"
            ));
        }
    }
    Ok(())
}

/// A reader of dnstap may come later: its socket may be missing, but not be something else.
fn check_dnstap(target: Option<&DnstapTarget>) -> Result<(), String> {
    match target {
        Some(DnstapTarget::Local(path)) if file::is_no_socket(path) => {
            let path = path.display();
            Err(format!("--dnstap: {path}: expected a socket of a reader"))
        }
        _ => Ok(()),
    }
}
