//! Parsers of option values.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;

use super::domains_files::DomainsFile;
use super::draft::Draft;
use super::warnings;
use crate::base::address;
use crate::base::address::{Address, parse_endpoint, parse_port};
use crate::base::arena;
use crate::base::file;
use crate::config::hosts::TooManyNames;
use crate::config::upstream::{PLAIN_PORT, WITHOUT_TILDE};
use crate::config::{
    BlockSettings, Hosts, Listen, LogTarget, TrustAnchor, Upstream, parse_duration, parse_number,
};

/// Success, or a description of the expected value.
pub(super) type Applied = Result<(), Cow<'static, str>>;

/// The value that turns a switch off. A switch that is on has no value.
pub(super) const OFF: &str = "no";

/// Parses the value of a switch in a file into the value for the table of options.
pub(super) fn parse_switch(value: &str) -> Option<&'static str> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Some(""),
        "no" | "false" | "off" => Some(OFF),
        _ => None,
    }
}

pub(super) fn parse_upstream(draft: &mut Draft, value: &str) -> Applied {
    let upstream: Upstream = value.parse()?;
    let authority = value.split_once("://").map_or(value, |(_, rest)| rest);
    let authority = authority.split([',', '#']).next().unwrap_or_default();
    draft.warn(warnings::port_in_address("upstream", authority));
    draft.warn(warnings::plain_port(&upstream));
    draft.warn(warnings::address_as_name(&upstream));
    draft.warn(warnings::repeated(&upstream, &draft.config.upstreams));
    for path in &upstream.domains_files {
        if !draft.domains_files.iter().any(|known| known.is(path)) {
            let (_, (file, warning)) = access(&path.to_string_lossy(), DomainsFile::read)?;
            draft.warn(warning);
            draft.domains_files.push(file);
        }
    }
    draft.config.upstreams.push(upstream);
    Ok(())
}

pub(super) fn parse_bootstrap(draft: &mut Draft, value: &str) -> Applied {
    let expected = "an IP address like 192.168.1.1 or [::1]:53";
    let (address, port) = parse_zoned(value, expected)?;
    if !address.is_of_one_host() {
        return Err("a unicast address".into());
    }
    draft.warn(warnings::port_in_address("bootstrap", value));
    draft
        .config
        .bootstrap
        .push(address.with_port(port.unwrap_or(PLAIN_PORT)));
    Ok(())
}

/// Parses an address for clients, or `:PORT` for every address. Returns a warning if another
/// address may have been meant.
pub(super) fn parse_listen(
    option: &str,
    listen: &mut Vec<(Address, Option<u16>)>,
    value: &str,
) -> Result<Option<String>, Cow<'static, str>> {
    let expected = "an IP address like 127.0.0.1, 127.0.0.1:5353 or [::1]:53, or :5353 for every \
                    address";
    if let Some(everywhere) = parse_everywhere(value) {
        let split = |address: SocketAddr| (address.ip().into(), Some(address.port()));
        listen.extend(everywhere.map(split));
        return Ok(None);
    }
    let endpoint = parse_zoned(value, expected)?;
    check_own(endpoint.0)?;
    listen.push(endpoint);
    Ok(warnings::port_in_address(option, value))
}

pub(super) fn parse_http_listen(listen: &mut Vec<SocketAddr>, value: &str) -> Applied {
    let expected = "an address and a port like 127.0.0.1:9153, or :9153 for every address";
    if let Some(everywhere) = parse_everywhere(value) {
        for address in everywhere {
            add_http_listen(listen, address);
        }
        return Ok(());
    }
    let (address, port) = parse_zoned(value, expected)?;
    check_own(address)?;
    add_http_listen(listen, address.with_port(port.ok_or(expected)?));
    Ok(())
}

/// Parses `:PORT` into the wildcard addresses of both families.
fn parse_everywhere(value: &str) -> Option<[SocketAddr; 2]> {
    value
        .strip_prefix(':')
        .and_then(parse_port)
        .map(Listen::everywhere)
}

/// Adds an address of the HTTP server. A wildcard replaces the addresses that it covers, so that an
/// option can widen the address in the entry point of the container image.
fn add_http_listen(listen: &mut Vec<SocketAddr>, address: SocketAddr) {
    if !listen.iter().any(|known| Listen::covers(known, &address)) {
        listen.retain(|known| !Listen::covers(&address, known));
        listen.push(address);
    }
}

/// Parses the name of one of the choices.
pub(super) fn parse_choice<T: Copy>(choice: &mut T, choices: &[(&str, T)], value: &str) -> Applied {
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == value) {
        *choice = *chosen;
        return Ok(());
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    Err(match names.rsplit_once(", ") {
        Some((others, last)) => format!("{others} or {last}").into(),
        None => names.into(),
    })
}

/// Parses an address and an optional port.
fn parse_zoned(
    value: &str,
    expected: &'static str,
) -> Result<(Address, Option<u16>), &'static str> {
    match parse_endpoint(value) {
        Some((address, _)) if address.lacks_zone() => Err(Address::WITH_ZONE),
        Some(endpoint) => Ok(endpoint),
        None if address::has_invalid_port(value) => Err(Address::WITH_PORT),
        None if address::has_unknown_zone(value) => Err(Address::WITH_KNOWN_ZONE),
        None => Err(expected),
    }
}

/// Checks that an address for clients belongs to a single host: a packet to many would get no
/// reply.
fn check_own(address: Address) -> Result<(), &'static str> {
    if address.is_of_many_hosts() {
        return Err("a unicast address of this host, not a multicast or broadcast address");
    }
    Ok(())
}

/// The expected form of a path that ends in a slash.
const NOT_A_FOLDER: &str = "a file: add its name to the folder";

pub(super) fn parse_query_log(value: &str) -> Result<Option<(LogTarget, u32)>, Cow<'static, str>> {
    let mut parts = value.split(',');
    let target = match parts.next().unwrap_or_default() {
        "" => return Err("a file, like /var/log/dns.json,sample=10".into()),
        "-" => LogTarget::Stdout,
        path if path.starts_with("~/") => return Err(WITHOUT_TILDE.into()),
        path if path.ends_with('/') => return Err(NOT_A_FOLDER.into()),
        path => LogTarget::File(path.into()),
    };
    let mut sample = 1;
    for setting in parts {
        sample = match setting.split_once('=').unwrap_or((setting, "")) {
            ("sample", number) => {
                let number = parse_number(number).filter(|number| *number > 0);
                number.ok_or("a number from 1 after sample=, like /var/log/dns.json,sample=10")?
            }
            (key, _) => {
                return Err(format!("only sample=N after the comma, not {key:?}").into());
            }
        };
    }
    Ok(Some((target, sample)))
}

pub(super) fn parse_level(value: &str) -> Result<LevelFilter, &'static str> {
    match value.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::Error),
        "warn" | "warning" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err("error, warn, info, debug or trace"),
    }
}

pub(super) fn parse_path(path: &mut Option<PathBuf>, value: &str) -> Applied {
    if value.starts_with("~/") {
        return Err(WITHOUT_TILDE.into());
    }
    if value.ends_with('/') {
        return Err(NOT_A_FOLDER.into());
    }
    *path = (!value.is_empty()).then(|| value.into());
    path.is_some().then_some(()).ok_or("a file".into())
}

/// Accesses a file. Returns its path with the result.
fn access<T>(
    value: &str,
    action: impl Fn(&Path) -> io::Result<T>,
) -> Result<(PathBuf, T), Cow<'static, str>> {
    if value.starts_with("~/") {
        return Err(WITHOUT_TILDE.into());
    }
    let path = PathBuf::from(value);
    match action(&path) {
        Ok(result) => Ok((path, result)),
        Err(error) => {
            let problem = file::describe(&path, &error);
            Err(match problem.strip_prefix("expected ") {
                Some(expected) => expected.to_owned().into(),
                None => format!("a file that can be read: {problem}").into(),
            })
        }
    }
}

/// Reads the file that an option names. `content` describes the expected content.
fn read_text(value: &str, content: &str) -> Result<(PathBuf, String), Cow<'static, str>> {
    let (path, bytes) = access(value, file::read)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("a text file of {content}"))?;
    Ok((path, text))
}

/// Reads names and addresses from a hosts file.
pub(super) fn parse_hosts(draft: &mut Draft, value: &str) -> Applied {
    let (path, text) = read_text(value, "addresses and names, as in /etc/hosts")?;
    let hosts = Arc::make_mut(&mut draft.config.hosts);
    let unused = hosts.add(&text).map_err(|TooManyNames| {
        let most = Hosts::NAMES_MAX;
        format!("at most {most} names in all files")
    })?;
    hosts.files.push(path);
    draft.warn(warnings::unused_lines("hosts", value, &unused));
    Ok(())
}

/// Adds a file of names. It is read later, in steps, since it may be long.
pub(super) fn parse_block_file(files: &mut Vec<PathBuf>, value: &str) -> Applied {
    let (path, ()) = access(value, file::try_to_open)?;
    if files.len() >= BlockSettings::FILES_MAX {
        return Err(format!("at most {} files", BlockSettings::FILES_MAX).into());
    }
    if !files.contains(&path) {
        files.push(path);
    }
    Ok(())
}

/// Reads trust anchors from a file.
pub(super) fn parse_trust_anchor(draft: &mut Draft, value: &str) -> Applied {
    let (path, text) = read_text(value, "DS or DNSKEY records")?;
    let anchors = TrustAnchor::parse_all(&text).map_err(|(line, expected)| match line {
        0 => format!("{expected}; the file has no records"),
        line => format!("{expected}; cannot use line {line}"),
    })?;
    draft.config.dnssec.anchors.extend(anchors);
    draft.config.dnssec.anchor_files.push(path);
    Ok(())
}

pub(super) fn parse_limit(limit: &mut Option<usize>, value: &str) -> Applied {
    const MAX: usize = 60_000;
    const { assert!(MAX < arena::CAPACITY_MAX) };
    let number = parse_number(value).filter(|number| (1..=MAX).contains(number));
    *limit = Some(number.ok_or("a number from 1 to 60000")?);
    Ok(())
}

pub(super) fn parse_ttl(ttl: &mut Duration, value: &str) -> Applied {
    const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let duration = parse_duration(value).filter(|duration| *duration <= MAX);
    *ttl = duration.ok_or("a duration up to 365d, like 30s or 1h")?;
    Ok(())
}
