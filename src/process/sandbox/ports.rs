//! The right to bind low ports, which the process has only before the sandbox.

use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};

use super::RuntimeUser;
use crate::base::file;
use crate::config::{Config, parse_number};

/// Returns whether the process can bind a socket to `port` after it has switched to the user
/// `target` and entered the sandbox.
pub fn may_bind_later(config: &Config, target: Option<&RuntimeUser>, port: u16) -> bool {
    let keeps_rights = !config.is_sandboxed && !target.is_some_and(RuntimeUser::changes_rights);
    port >= unprivileged_port_start() || keeps_rights && is_privileged_for_ports()
}

/// Returns the first port that any process may bind (`ip(7)`).
fn unprivileged_port_start() -> u16 {
    let start = file::read(Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
    let start = start.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    start
        .and_then(|text| parse_number(text.trim()))
        .unwrap_or(1024)
}

fn is_privileged_for_ports() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_BIND_SERVICE))
}
