//! `--check-upstreams`: connects to each upstream, asks a few questions, and reports what the
//! upstream supports and how fast it is. The program does not serve clients meanwhile.
//!
//! The upstreams are checked one after the other, so that no check slows down another one. Each
//! address gets two connections. The first one has a full TLS handshake, a query whose reply shows
//! the support of EDNS and DNSSEC, and a query with EDNS Client Subnet. The second one may resume
//! the TLS session, and gets many queries at once. An upstream over UDP gets the second connection
//! over TCP, which truncated answers need.

mod connection;
pub mod findings;
pub mod progress;
pub mod report;

use std::net::{IpAddr, SocketAddr};

use crate::base::failure::{Failure, FailureKind};
use crate::base::random::Random;
use crate::config::{Config, DnssecMode, Host, Scheme, Upstream};
use crate::net::Net;
use crate::proxy::read_addresses;
use crate::tls::{Connector, Setup};
use crate::wire::edns::{OPT_LEN, OptWriter, OptionCode};
use crate::wire::name::Name;
use crate::wire::query::{EdnsLevel, PADDING_BLOCK};
use crate::wire::question::Type;
use crate::wire::{Flags, MESSAGE_LEN_MAX, Message, Query, Rcode};

use connection::{CheckConnection, CheckTarget, Sockets};
use findings::{
    AddressFindings, CertificateFindings, ReplyFindings, SecondConnection, UpstreamFindings,
    has_client_subnet,
};
use progress::CheckProgress;

/// The number of queries that are sent at once. The program has as many in flight on a connection
/// before it opens another one.
pub const QUERIES_AT_ONCE: usize = 64;

/// EDNS Client Subnet with the network 0.0.0.0/0, which reveals nothing (RFC 7871, section 7.1.2):
/// family, source prefix length, scope prefix length.
const ANY_SUBNET: [u8; 4] = [0, 1, 0, 0];

/// The check ended early because of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// Checks all upstreams of `config` with the TLS settings in `tls`, and reports each step to
/// `on_progress`. The ids of queries are from `random`.
///
/// # Errors
///
/// Returns [`Interrupted`] after SIGINT or SIGTERM.
pub fn check_upstreams<N: Net>(
    net: N,
    (config, tls): (&Config, &Setup),
    random: Random,
    on_progress: &mut dyn FnMut(&CheckProgress<'_>),
) -> Result<Vec<UpstreamFindings>, Interrupted> {
    let mut checker = Checker {
        sockets: Sockets::new(net),
        config,
        tls,
        random,
        on_progress,
    };
    let mut findings = Vec::new();
    for index in 0..config.upstreams.len() {
        findings.push(checker.check_upstream(index));
        if checker.sockets.is_interrupted() {
            return Err(Interrupted);
        }
    }
    Ok(findings)
}

/// Addresses of an upstream, and warnings.
type LookedUp = (Vec<SocketAddr>, Vec<String>);

struct Checker<'a, N: Net> {
    sockets: Sockets<N>,
    config: &'a Config,
    tls: &'a Setup,
    random: Random,
    on_progress: &'a mut dyn FnMut(&CheckProgress<'_>),
}

impl<N: Net> Checker<'_, N> {
    fn report(&mut self, index: usize, label: &str, step: &str) {
        (self.on_progress)(&CheckProgress {
            number: index + 1,
            total: self.config.upstreams.len(),
            label,
            step,
        });
    }

    fn check_upstream(&mut self, index: usize) -> UpstreamFindings {
        let upstream = &self.config.upstreams[index];
        let mut findings = UpstreamFindings {
            label: upstream.to_string(),
            is_fallback: upstream.is_fallback,
            ..UpstreamFindings::default()
        };
        let looked_up = match &upstream.host {
            Host::Address(address) => Ok((vec![*address], Vec::new())),
            Host::Name(name, port) => {
                self.report(index, &findings.label, "bootstrap");
                self.look_up(name, *port)
            }
        };
        let (addresses, mut warnings) = looked_up.unwrap_or_else(|problem| {
            findings.problem = Some(problem);
            Default::default()
        });
        for address in addresses {
            let mut found = AddressFindings::new(address);
            found.warnings.append(&mut warnings);
            found.problem = self.check_address(index, &mut found).err();
            findings.addresses.push(found);
            if self.sockets.is_interrupted() {
                break;
            }
        }
        findings
    }

    /// Returns the addresses of a host name, from the first bootstrap server that has some, and the
    /// failures before.
    fn look_up(&mut self, name: &Name, port: u16) -> Result<LookedUp, String> {
        let mut failures = Vec::new();
        // As many of each type as the program uses.
        let most = self.config.limits.addresses_per_upstream / 2;
        for server in &self.config.bootstrap {
            let mut addresses = Vec::new();
            for rr_type in [Type::A, Type::AAAA] {
                let found = self.look_up_at(*server, name, rr_type);
                match found {
                    Ok(found) => addresses.extend(found.into_iter().take(most)),
                    Err(problem) => failures.push(format!("--bootstrap: {server}: {problem}")),
                }
            }
            if !addresses.is_empty() {
                let with_port = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
                failures.dedup();
                return Ok((with_port.collect(), failures));
            }
            if failures.is_empty() {
                failures.push(format!("--bootstrap: {server}: no A or AAAA record"));
            }
        }
        failures.dedup();
        Err(failures.join("; "))
    }

    /// Returns the addresses of this type that a bootstrap server has, over TCP if its reply over
    /// UDP is missing or truncated.
    fn look_up_at(
        &mut self,
        server: SocketAddr,
        name: &Name,
        rr_type: Type,
    ) -> Result<Vec<IpAddr>, String> {
        let upstream = Upstream::bootstrap(server);
        let to = CheckTarget {
            upstream: &upstream,
            scheme: Scheme::Udp,
            address: server,
            connector: None,
        };
        let asked = self.look_up_over(to, name, rr_type);
        let asked = match asked {
            Ok((_, false, _)) => asked,
            Ok(_) | Err(_) => self.look_up_over(to.over_tcp(), name, rr_type),
        };
        match asked {
            Ok((addresses, _, Rcode::NOERROR)) => Ok(addresses),
            Ok((_, _, rcode)) => Err(format!("replied {rcode}")),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Returns the addresses in a reply, whether it is truncated, and its response code.
    fn look_up_over(
        &mut self,
        to: CheckTarget<'_>,
        name: &Name,
        rr_type: Type,
    ) -> Result<(Vec<IpAddr>, bool, Rcode), Failure> {
        let mut connection = self.open(to)?;
        let query = Query::new(name, rr_type);
        let query = self.written(&query, to.scheme, EdnsLevel::Full, None);
        let timeout = self.config.timeouts.attempt;
        let read = |reply: &Message<'_>| {
            let is_truncated = reply.header().flags.contains(Flags::TC);
            let (addresses, _) = read_addresses(reply, rr_type);
            (addresses, is_truncated, reply.rcode())
        };
        let asked = self.sockets.ask(&mut connection, &query, timeout, read);
        asked.map(|(found, _)| found)
    }

    fn open(&mut self, to: CheckTarget<'_>) -> Result<CheckConnection<N>, Failure> {
        let (timeout, groups) = (self.config.timeouts.handshake, self.config.key_exchange);
        self.sockets.open(to, timeout, groups)
    }

    /// Returns the bytes of a query with an unpredictable id, padded under TLS.
    fn written(
        &mut self,
        query: &Query,
        scheme: Scheme,
        level: EdnsLevel,
        subnet: Option<[u8; 4]>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        query.write_reduced(&mut out, self.random.next_u16(), level);
        if level == EdnsLevel::Full {
            let opt_start = out.len() - OPT_LEN;
            let mut opt = OptWriter::resume(&mut out, opt_start);
            if let Some(subnet) = subnet {
                opt.option(OptionCode::CLIENT_SUBNET, &subnet);
            }
            if scheme.is_encrypted() {
                opt.pad(0, PADDING_BLOCK, MESSAGE_LEN_MAX);
            } else {
                opt.finish();
            }
        }
        out
    }

    /// Checks one address of the upstream at `index`. After an error, `found` has what was found
    /// before.
    fn check_address(&mut self, index: usize, found: &mut AddressFindings) -> Result<(), String> {
        let (config, tls) = (self.config, self.tls);
        let upstream = &config.upstreams[index];
        let label = match &upstream.host {
            Host::Address(_) => upstream.to_string(),
            Host::Name(..) => format!("{upstream} at {}", found.address.ip()),
        };
        let connector = tls.connectors[index].as_ref();
        if let Some(connector) = connector {
            // Other addresses with the same name share its sessions.
            connector.forget_sessions();
        }
        let pin_mismatches = || connector.map_or(0, Connector::pin_mismatches);
        let pin_mismatches_before = pin_mismatches();
        let to = CheckTarget {
            upstream,
            scheme: upstream.scheme,
            address: found.address,
            connector,
        };
        self.report(index, &label, "connecting");
        let mut connection = self.open(to).map_err(|failure| failure.to_string())?;
        if to.scheme != Scheme::Udp {
            found.handshake = Some(connection.handshake);
        }
        found.tls = connection.tls;
        found.certificate = connection.certificate().map(CertificateFindings::read);
        if pin_mismatches() > pin_mismatches_before {
            let problem = "no key matches a pin; accepted because of pin-report";
            found.warnings.push(problem.to_owned());
        }
        self.report(index, &label, "querying");
        let domain = first_domain(config, index);
        let mut query = Query::new(&domain, Type::NS);
        query.set_dnssec(true);
        let mut first = self.first_reply(&mut connection, to, &query, found);
        let is_complete = first.as_ref().is_ok_and(|reply| !reply.is_truncated);
        if to.scheme == Scheme::Udp && !is_complete {
            if let Err(failure) = &first {
                found.warnings.push(format!("UDP: {failure}"));
            }
            let over_tcp = self.open(to.over_tcp());
            connection = over_tcp.map_err(|failure| format!("TCP: {failure}"))?;
            first = self.first_reply(&mut connection, to, &query, found);
        }
        let reply = first.map_err(|failure| failure.to_string())?;
        self.judge_reply(&reply, to, &query)?;
        self.check_client_subnet(&mut connection, to, &query, found);
        self.sockets.close(connection);
        self.report(index, &label, "connecting again");
        self.check_second_connection(to, &query, found);
        Ok(())
    }

    /// Asks the first question, again without EDNS if the upstream refuses it.
    fn first_reply(
        &mut self,
        connection: &mut CheckConnection<N>,
        to: CheckTarget<'_>,
        query: &Query,
        found: &mut AddressFindings,
    ) -> Result<ReplyFindings, Failure> {
        let is_root = query.question().name() == Name::root().as_bytes();
        let timeout = self.config.timeouts.deadline;
        let read = |reply: &Message<'_>| ReplyFindings::read(reply, is_root);
        let message = self.written(query, to.scheme, EdnsLevel::Full, None);
        let (mut reply, took) = self.sockets.ask(connection, &message, timeout, read)?;
        found.query = Some(took);
        if reply.may_refuse_edns() {
            let message = self.written(query, to.scheme, EdnsLevel::Off, None);
            (reply, _) = self.sockets.ask(connection, &message, timeout, read)?;
        }
        found.reply = Some(reply);
        Ok(reply)
    }

    /// Returns the problem of an upstream with this first reply, if there is one.
    fn judge_reply(
        &self,
        reply: &ReplyFindings,
        to: CheckTarget<'_>,
        query: &Query,
    ) -> Result<(), String> {
        if !reply.is_answer() {
            return Err(format!("replied {} to {}", reply.rcode, query.question()));
        }
        let needs_signatures = self.config.dnssec.mode == DnssecMode::On
            && (to.upstream.is_validated || !to.upstream.is_exclusive());
        if needs_signatures && reply.has_signatures == Some(false) {
            return Err("replied without signatures (RRSIG), which --dnssec on needs".to_owned());
        }
        Ok(())
    }

    fn check_client_subnet(
        &mut self,
        connection: &mut CheckConnection<N>,
        to: CheckTarget<'_>,
        query: &Query,
        found: &mut AddressFindings,
    ) {
        if found.reply.is_none_or(|reply| reply.edns_size.is_none()) {
            found.has_client_subnet = Some(false);
            return;
        }
        let message = self.written(query, to.scheme, EdnsLevel::Full, Some(ANY_SUBNET));
        let timeout = self.config.timeouts.attempt;
        let reply = self
            .sockets
            .ask(connection, &message, timeout, has_client_subnet);
        found.has_client_subnet = reply.ok().map(|(has_client_subnet, _)| has_client_subnet);
    }

    fn check_second_connection(
        &mut self,
        first: CheckTarget<'_>,
        query: &Query,
        found: &mut AddressFindings,
    ) {
        let (to, label) = match first.scheme {
            Scheme::Udp => (first.over_tcp(), "TCP, needed for truncated answers"),
            _ => (first, "second connection"),
        };
        let mut connection = match self.open(to) {
            Ok(connection) => connection,
            Err(failure) => {
                found.warnings.push(format!("{label}: {failure}"));
                return;
            }
        };
        let level = match found.reply {
            Some(reply) if reply.edns_size.is_none() => EdnsLevel::Off,
            _ => EdnsLevel::Full,
        };
        let first_id = self.random.next_u16();
        let queries = (0..QUERIES_AT_ONCE).map(|number| {
            let mut message = self.written(query, to.scheme, level, None);
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            message[..2].copy_from_slice(&first_id.wrapping_add(number).to_be_bytes());
            message
        });
        let queries: Vec<_> = queries.collect();
        let timeout = self.config.timeouts.attempt;
        let answered = self.sockets.answered_of(&mut connection, &queries, timeout);
        if answered == 0 {
            let failure = Failure::from(FailureKind::Stalled);
            found.warnings.push(format!("{label}: {failure}"));
        }
        let streams_max = connection.streams_max.unwrap_or(usize::MAX);
        found.second = Some(SecondConnection {
            handshake: connection.handshake,
            is_resumed: connection.tls.map(|_| connection.is_resumed),
            answered: answered.min(streams_max),
        });
        self.sockets.close(connection);
    }
}

/// Returns a domain that the upstream serves: the root, unless it has domains of its own.
fn first_domain(config: &Config, index: usize) -> Name {
    if let Some(domain) = config.upstreams[index].domains.first() {
        return domain.clone();
    }
    let mut groups = config.domains.groups().iter();
    let group = groups.find(|group| group.upstreams.contains(&index));
    group.map_or_else(Name::root, |group| group.domain.clone())
}
