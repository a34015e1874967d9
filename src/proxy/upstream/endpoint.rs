//! One address of an upstream, and what is known of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::capacity::ConnectionCapacity;
use super::edns::EdnsSupport;
use super::health::{Change, Health};
use super::idle_timeout::IdleTimeoutEstimate;
use super::latency::Latency;
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::keys::{LinkKey, UpstreamIndex};
use crate::wire::query::EdnsLevel;

/// One address of an upstream.
#[derive(Debug)]
pub(in crate::proxy) struct Endpoint {
    pub(in crate::proxy) upstream: UpstreamIndex,
    pub(in crate::proxy) scheme: Scheme,
    pub(in crate::proxy) address: SocketAddr,
    /// What it is called in the log.
    label: String,
    /// Its upstream still has this address.
    pub(super) is_listed: bool,
    /// Links that take queries or will: opening or up, oldest first.
    pub(super) links: Vec<LinkKey>,
    /// Links that take no more queries.
    pub(super) retired: usize,
    pub(super) health: Health,
    pub(super) latency: Latency,
    pub(super) patience: IdleTimeoutEstimate,
    /// How many queries its connections take.
    pub(super) capacity: ConnectionCapacity,
    pub(super) edns: EdnsSupport,
    /// Until when queries go on connections, since datagrams were not answered.
    datagrams_lost_until: Option<Instant>,
    pub(in crate::proxy) last_answer: Option<Instant>,
    /// How long it takes to connect, if that has come about.
    pub(super) opening: Option<Duration>,
    /// When its latency, if it has not answered by then, should be found out anew.
    pub(super) explore_at: Instant,
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
            is_listed: true,
            links: Vec::new(),
            retired: 0,
            health: Health::default(),
            latency: Latency::default(),
            patience: IdleTimeoutEstimate::default(),
            capacity: ConnectionCapacity::default(),
            edns: EdnsSupport::default(),
            datagrams_lost_until: None,
            last_answer: None,
            opening: None,
            explore_at: Instant::default(),
        }
    }

    /// What it is called in the log.
    pub(in crate::proxy) fn label(&self) -> &str {
        &self.label
    }

    /// How a query gets there that may need a connection.
    pub(super) fn scheme_for(&self, on_connection: bool, now: Instant) -> Scheme {
        let is_lost = || self.datagrams_lost_until.is_some_and(|until| now < until);
        match self.scheme {
            Scheme::Udp if on_connection || is_lost() => Scheme::Tcp,
            scheme => scheme,
        }
    }

    /// How long queries go on connections after one was answered there and not in a datagram.
    const DATAGRAMS_LOST: Duration = Duration::from_secs(60);

    /// Records that a connection was of use where datagrams were not answered, or was not.
    pub(super) fn set_datagrams_lost(&mut self, are_lost: bool, now: Instant) {
        self.datagrams_lost_until = are_lost.then(|| now + Self::DATAGRAMS_LOST);
    }

    /// How much of EDNS a query to this endpoint uses.
    pub(in crate::proxy) fn edns_level(&self, now: Instant) -> EdnsLevel {
        self.edns.level(now)
    }

    /// Whether an error may be about EDNS.
    pub(in crate::proxy) fn is_edns_in_doubt(&self, now: Instant) -> bool {
        self.edns.is_in_doubt(now)
    }

    /// What is wrong with it, if something is.
    pub(in crate::proxy) fn last_failure(&self) -> Option<FailureKind> {
        self.health.last_failure()
    }

    /// Whether no answer has come from it since then.
    pub(in crate::proxy) fn is_silent_since(&self, since: Instant) -> bool {
        self.last_answer.is_none_or(|answer| answer <= since)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        !self.is_listed && self.links.is_empty() && self.retired == 0
    }

    /// Says when all is well again.
    pub(super) fn tell(&self, change: Change) {
        if let Change::Recovery { failures } = change {
            let label = &self.label;
            log::info!(
                event = "upstream-up", upstream = label.as_str(), failures = failures;
                "upstream {label}: works again, after {failures} failures"
            );
        }
    }
}
