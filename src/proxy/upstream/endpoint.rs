//! One address of an upstream and its state.

use std::net::SocketAddr;
use std::time::Duration;

use super::capacity::ConnectionCapacity;
use super::edns::EdnsSupport;
use super::health::{Change, Health};
use super::idle_timeout::IdleTimeoutEstimate;
use super::latency::Latency;
use crate::base::counted::counted;
use crate::base::failure::{Failure, FailureKind};
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::keys::{ExchangeKey, LinkKey, UpstreamIndex};
use crate::wire::query::EdnsLevel;

/// One address of an upstream.
#[derive(Debug)]
pub(in crate::proxy) struct Endpoint {
    pub(in crate::proxy) upstream: UpstreamIndex,
    pub(in crate::proxy) scheme: Scheme,
    pub(in crate::proxy) address: SocketAddr,
    /// The name in the log.
    label: String,
    /// True if the endpoint is queried only while no other one of its pool is usable.
    pub(super) is_fallback: bool,
    /// True while its upstream has this address.
    pub(super) is_listed: bool,
    /// Links that take queries, opening or up, oldest first.
    pub(super) links: Vec<LinkKey>,
    /// Links that are opening or up, each for one query of this exchange.
    pub(super) isolated: Vec<(LinkKey, ExchangeKey)>,
    /// The number of retired links.
    pub(super) retired: usize,
    pub(super) health: Health,
    pub(super) latency: Latency,
    pub(super) idle_timeout: IdleTimeoutEstimate,
    /// Limits of the endpoint's connections.
    pub(super) capacity: ConnectionCapacity,
    pub(super) edns: EdnsSupport,
    /// The time until which queries use connections because datagrams were not answered.
    datagrams_lost_until: Option<Instant>,
    pub(in crate::proxy) last_answer: Option<Instant>,
    /// The number of replies since the last answer that did not match their queries, and the time
    /// of the first one.
    unmatched: u8,
    unmatched_since: Instant,
    /// The time of the next probe in an outage on links that are full.
    outage_probe_at: Instant,
    /// The measured time of a handshake.
    pub(super) handshake_time: Option<Duration>,
    /// True if a connection to the endpoint has failed.
    pub(super) has_failed: bool,
    /// The time at which the latency is measured again, unless the endpoint has answered by then.
    pub(super) explore_at: Instant,
    /// The time at which the latest link was opened.
    pub(super) opened_at: Option<Instant>,
}

impl Endpoint {
    pub(super) fn new(
        upstream: UpstreamIndex,
        scheme: Scheme,
        address: SocketAddr,
        label: String,
    ) -> Self {
        Self {
            upstream,
            scheme,
            address,
            label,
            is_fallback: false,
            is_listed: true,
            links: Vec::new(),
            isolated: Vec::new(),
            retired: 0,
            health: Health::default(),
            latency: Latency::default(),
            idle_timeout: IdleTimeoutEstimate::default(),
            capacity: ConnectionCapacity::default(),
            edns: EdnsSupport::default(),
            datagrams_lost_until: None,
            last_answer: None,
            unmatched: 0,
            outage_probe_at: Instant::default(),
            unmatched_since: Instant::default(),
            handshake_time: None,
            has_failed: false,
            explore_at: Instant::default(),
            opened_at: None,
        }
    }

    /// Returns whether there is a link that takes queries.
    pub(in crate::proxy) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Returns the name in the log.
    pub(in crate::proxy) fn label(&self) -> &str {
        &self.label
    }

    /// Returns the protocol for a query that may require a connection.
    pub(super) fn scheme_for(&self, needs_stream: bool, now: Instant) -> Scheme {
        let is_lost = || self.datagrams_lost_until.is_some_and(|until| now < until);
        match self.scheme {
            Scheme::Udp if needs_stream || is_lost() => Scheme::Tcp,
            scheme => scheme,
        }
    }

    /// Time for which queries use connections after one was answered there and not in a datagram.
    const DATAGRAMS_LOST: Duration = Duration::from_secs(60);

    /// Records whether a connection worked while datagrams were not answered.
    pub(super) fn set_datagrams_lost(&mut self, are_lost: bool, now: Instant) {
        self.datagrams_lost_until = are_lost.then(|| now + Self::DATAGRAMS_LOST);
    }

    /// Returns the level of EDNS for a query to this endpoint.
    pub(in crate::proxy) fn edns_level(&self, now: Instant) -> EdnsLevel {
        self.edns.level(now)
    }

    /// Returns whether an error may be about EDNS.
    pub(in crate::proxy) fn is_edns_in_doubt(&self, now: Instant) -> bool {
        self.edns.is_in_doubt(now)
    }

    /// Returns the cause of the outage.
    pub(in crate::proxy) fn last_failure(&self) -> Option<FailureKind> {
        self.health.last_failure()
    }

    /// Returns whether the endpoint could not be reached.
    pub(in crate::proxy) fn is_unreachable(&self) -> bool {
        self.health.is_unreachable()
    }

    /// The number of replies without a match, since the last answer, that are ignored: one may be a
    /// repetition of an old reply, with an id that is in use again.
    const UNMATCHED_MAX: u8 = 3;

    /// Records a reply on a connection that has the id of a query and does not match it. Returns
    /// whether the endpoint has sent more mismatched replies since its last answer than are
    /// tolerated.
    pub(super) fn on_unmatched(&mut self, now: Instant) -> bool {
        if !self.has_unmatched() {
            (self.unmatched, self.unmatched_since) = (0, now);
        }
        self.unmatched = self.unmatched.saturating_add(1);
        self.unmatched > Self::UNMATCHED_MAX
    }

    fn has_unmatched(&self) -> bool {
        self.unmatched > 0 && self.is_silent_since(self.unmatched_since)
    }

    /// Returns the failure of an endpoint that does not answer.
    pub(in crate::proxy) fn stalled(&self) -> Failure {
        let detail = if self.has_unmatched() {
            "replies do not match the queries"
        } else {
            ""
        };
        Failure::new(FailureKind::Stalled, detail)
    }

    /// Minimum time between probes of an endpoint in outage on links that are full.
    const OUTAGE_PROBE_PAUSE: Duration = Duration::from_secs(2);

    /// Reserves a probe in an outage. Returns whether it may be sent now.
    pub(super) fn reserve_outage_probe(&mut self, now: Instant) -> bool {
        let is_due = self.outage_probe_at <= now;
        if is_due {
            self.outage_probe_at = now + Self::OUTAGE_PROBE_PAUSE;
        }
        is_due
    }

    /// Returns whether no answer has arrived since `since`.
    pub(in crate::proxy) fn is_silent_since(&self, since: Instant) -> bool {
        self.last_answer.is_none_or(|answer| answer <= since)
    }

    /// Returns whether the endpoint is not listed and has no links.
    pub(super) fn is_gone(&self) -> bool {
        let is_linked = !self.links.is_empty() || !self.isolated.is_empty() || self.retired > 0;
        !self.is_listed && !is_linked
    }

    /// Removes a link from those that take queries. Returns whether it was one of them.
    pub(super) fn unlist(&mut self, key: LinkKey) -> bool {
        let before = self.links.len() + self.isolated.len();
        self.links.retain(|listed| *listed != key);
        self.isolated.retain(|(listed, _)| *listed != key);
        self.links.len() + self.isolated.len() < before
    }

    /// Logs the end of an outage if `change` is one.
    pub(super) fn log_recovery(&self, change: Change) {
        if let Change::Recovery { failures } = change {
            let label = &self.label;
            let after = counted(failures, "failure", "failures");
            log::info!(
                event = "upstream-up", upstream = label.as_str(), failures = failures;
                "upstream {label}: works again after {after}"
            );
        }
    }
}
