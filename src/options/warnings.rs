//! Warnings about options that are valid and may be mistakes. Each is one line that names the
//! option, the value and the likely intention.

use std::net::{IpAddr, Ipv6Addr};

use super::given::Given;
use crate::base::address::parse_port;
use crate::base::counted::counted;
use crate::config::hosts::{UnusedLine, UnusedLines};
use crate::config::upstream::{HTTPS_PORT, PLAIN_PORT, TLS_PORT, is_host_name};
use crate::config::{
    Config, DnssecMode, DnssecSettings, Host, Network, Scheme, TrustAnchor, Upstream, parse_number,
};

/// Common ports of DNS servers: if the last group of an IPv6 address is one of them, it may have
/// been meant as the port.
const PORTS: [u16; 10] = [53, 443, 853, 5053, 5300, 5353, 5453, 8053, 8443, 8853];

/// Returns a warning about an IPv6 address without brackets and with a last group like a port.
pub(super) fn port_in_address(option: &str, text: &str) -> Option<String> {
    let (ip, port) = text.rsplit_once(':')?;
    let is_port = parse_port(port).is_some_and(|port| PORTS.contains(&port));
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    (is_port && is_address(ip) && is_address(text)).then(|| {
        format!(
            "--{option}: {text:?}: read as an address without a port: write [{ip}]:{port} if \
             {port} is the port, or [{text}] if not"
        )
    })
}

/// Returns a warning about DNS over TLS on the port of plain DNS.
pub(super) fn plain_port(upstream: &Upstream) -> Option<String> {
    let (protocol, port) = match upstream.scheme {
        Scheme::Tls => ("DNS over TLS", TLS_PORT),
        Scheme::Https => ("DNS over HTTPS", HTTPS_PORT),
        Scheme::Tcp | Scheme::Udp => return None,
    };
    (upstream.port() == PLAIN_PORT).then(|| {
        format!(
            "--upstream: \"{upstream}\": port {PLAIN_PORT} is the port of plain DNS, and this \
             upstream uses {protocol}, whose port is {port}; plain DNS needs udp:// or tcp://"
        )
    })
}

/// Returns a warning about an address in place of the name in the certificate.
pub(super) fn address_as_name(upstream: &Upstream) -> Option<String> {
    let name = upstream.name.as_deref()?;
    name.parse::<IpAddr>().is_ok().then(|| {
        format!(
            "--upstream: \"{upstream}\": the text after # is the name that the server certificate \
             must contain, here the address {name}; a port is written before #"
        )
    })
}

/// Returns a warning about the lines of a file that cannot be used.
pub(super) fn unused_lines(option: &str, path: &str, unused: &UnusedLines) -> Option<String> {
    let UnusedLine { number, text } = unused.first.as_ref()?;
    let others = match unused.count - 1 {
        0 => String::new(),
        others => format!(
            "; it has {}",
            counted(others, "other such part", "other such parts")
        ),
    };
    Some(format!(
        "--{option}: {path:?}: line {number}: {text:?} is ignored: expected an address, then names \
         of letters, digits, `-` and `_`{others}"
    ))
}

/// Returns a warning about an upstream that has the same address and settings as a former one,
/// except that one may be a fallback.
pub(super) fn repeated(upstream: &Upstream, former: &[Upstream]) -> Option<String> {
    let is_fallback = upstream.is_fallback;
    let is_same = |one: &Upstream| {
        let one = one.clone();
        Upstream { is_fallback, ..one } == *upstream
    };
    former
        .iter()
        .any(is_same)
        .then(|| format!("--upstream: \"{upstream}\": given twice: remove one of the two"))
}

/// Returns warnings about combinations of options.
pub(super) fn of_several_options(config: &Config, given: &Given) -> Vec<String> {
    let mut warnings = without_effect(config, given);
    warnings.extend(dnssec(&config.dnssec, &config.upstreams));
    warnings.extend(only_domains(&config.upstreams));
    warnings.extend(only_fallbacks(config));
    let has_client_ca = config
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    if config.designated.is_some() && has_client_ca {
        warnings.push(
            "--designated with --tls-client-ca: clients without a certificate are referred to \
             listeners that refuse them: use one of the two"
                .to_owned(),
        );
    }
    warnings
}

/// Returns a warning about settings of DNSSEC validation while it is off, or about trust anchors
/// without the root.
fn dnssec(dnssec: &DnssecSettings, upstreams: &[Upstream]) -> Option<String> {
    let is_root = |anchor: &TrustAnchor| anchor.zone.as_bytes() == [0];
    if dnssec.mode != DnssecMode::Off {
        let lacks_root = !dnssec.anchors.is_empty() && !dnssec.anchors.iter().any(is_root);
        return lacks_root.then(|| {
            "--trust-anchor: no root trust anchor: only the zones in these files are validated; \
             add the root's DS or DNSKEY records to validate other names"
                .to_owned()
        });
    }
    let option = if !dnssec.anchor_files.is_empty() {
        "--trust-anchor"
    } else if !dnssec.negative_anchors.is_empty() {
        "--negative-trust-anchor"
    } else if upstreams.iter().any(|upstream| upstream.is_validated) {
        "--upstream: dnssec"
    } else {
        return None;
    };
    Some(format!(
        "{option}: no effect without --dnssec log or --dnssec on"
    ))
}

/// Returns warnings about options that have no effect without another one, or with another one.
fn without_effect(config: &Config, given: &Given) -> Vec<String> {
    let (is_traced, is_logged) = (config.traces.is_some(), config.query_log.is_some());
    let (cache, is_off) = (&config.cache, config.cache.size == 0);
    let by_name = |upstream: &Upstream| matches!(upstream.host, Host::Name(..));
    let lacks_names = !config.upstreams.iter().any(by_name);
    let is_stale = !cache.stale_max.is_zero();
    let no_cache = "no effect with --cache-size 0";
    let (no_list, blocks_none) = ("no effect without --block", config.block.files.is_empty());
    let rules = [
        ("trace-sample", !is_traced, "no effect without --otlp"),
        (
            "query-log-clients",
            !is_traced && !is_logged,
            "no effect without --query-log or --otlp",
        ),
        ("allow-names", blocks_none, no_list),
        ("block-answer", blocks_none, no_list),
        ("cache-file", is_off, no_cache),
        ("prefetch", is_off && cache.prefetch, no_cache),
        ("serve-stale", is_off && is_stale, no_cache),
        (
            "bootstrap",
            lacks_names,
            "no effect, since no upstream is given by its host name",
        ),
    ];
    let idle = rules.iter().filter(|(_, is_idle, _)| *is_idle);
    let idle = idle.filter(|(option, ..)| given.last(option).is_some());
    let warnings = idle.map(|(option, _, reason)| {
        let warning = format!("--{option}: {reason}");
        given.error(&[option], warning).to_string()
    });
    warnings.collect()
}

/// Returns a warning about upstreams that leave names without an upstream.
fn only_domains(upstreams: &[Upstream]) -> Option<String> {
    let serves_any = |upstream: &Upstream| !upstream.is_exclusive();
    (!upstreams.iter().any(serves_any)).then(|| {
        "--upstream: every upstream has domain= or domains-file=: queries for other names get \
         REFUSED; add an upstream without them to answer these"
            .to_owned()
    })
}

/// Returns a warning about names whose upstreams are all fallbacks.
fn only_fallbacks(config: &Config) -> Option<String> {
    let upstreams = &config.upstreams;
    let is_fallback = |index: &usize| upstreams[*index].is_fallback;
    let others = (0..upstreams.len()).filter(|index| !upstreams[*index].is_exclusive());
    let groups = config.domains.groups().iter();
    let groups = groups.map(|group| (group.domain.to_string(), group.upstreams.clone()));
    let all_others = "names without an upstream of their own".to_owned();
    let mut pools = groups.chain([(all_others, others.collect())]);
    let (names, pool) = pools.find(|(_, pool)| !pool.is_empty() && pool.iter().all(is_fallback))?;
    Some(format!(
        "--upstream: \"{}\": fallback: no effect, since every upstream for {names} has it: remove \
         it, or add an upstream without it",
        upstreams[pool[0]]
    ))
}

/// Returns a warning about a comment of an options file that looks like the name in the certificate
/// of the upstream before it.
pub(super) fn name_in_comment(option: &str, value: &str, comment: &str) -> Option<String> {
    let name = comment.strip_prefix('#')?.split_whitespace().next()?;
    let name = name.split(',').next()?;
    let is_name = name.contains('.') && comment[1..].starts_with(name) && is_host_name(name);
    (option == "upstream" && is_name && !value.contains('#')).then(|| {
        format!(
            "upstream: {value:?}: \"#{name}\" is a comment because of the space before it: remove \
             the space if {name} is the name in the certificate"
        )
    })
}

/// Returns a warning about a client network that covers most or all of the Internet.
pub(super) fn open_resolver(network: &Network, text: &str) -> Option<String> {
    network.is_much_of_the_internet().then(|| {
        format!(
            "--allow: {text:?}: this makes an open resolver, which attackers use to amplify \
             traffic: allow only the networks of your clients, or block other clients with a \
             firewall"
        )
    })
}

/// Returns a warning about a small number of bytes that may have been meant as a number of entries,
/// as in other programs.
pub(super) fn few_bytes(option: &str, text: &str) -> Option<String> {
    let bytes: u32 = parse_number(text)?;
    (1..0x1_0000).contains(&bytes).then(|| {
        format!("--{option}: {text:?}: the value is in bytes, not entries: for example 500k or 4m")
    })
}
