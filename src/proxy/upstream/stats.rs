//! What there is to tell of an upstream, in numbers.

use std::time::Duration;

use super::Upstreams;
use super::endpoint::Endpoint;
use crate::base::failure::FailureKind;
use crate::base::histogram::Histogram;
use crate::base::time::Instant;
use crate::proxy::keys::{LinkKey, UpstreamIndex};

/// How long before its end that of a certificate is told.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 86_400);

/// What an upstream did, since the start or since it has been one.
#[derive(Debug)]
pub(in crate::proxy) struct Stats {
    /// What it is called.
    label: String,
    /// Queries that it was sent, those sent again included.
    pub(in crate::proxy) sent: u64,
    /// Queries that it was sent after another attempt.
    pub(in crate::proxy) retries: u64,
    /// How long its answers took.
    pub(in crate::proxy) answers: Histogram,
    /// Connections that came up with a new TLS session.
    full_handshakes: u64,
    /// Connections that came up with an earlier one.
    resumed_handshakes: u64,
    /// By their kind.
    pub(in crate::proxy) failures: [u64; FailureKind::ALL.len()],
    /// Since 1970.
    certificate_expires_at: Option<Duration>,
}

/// What there is to tell of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamView<'a> {
    stats: &'a Stats,
    /// One of its addresses can be used as far as is known.
    pub is_up: bool,
    /// For how long a connection without queries is kept, where that was learned.
    pub idle_limit: Option<Duration>,
}

impl Stats {
    pub(super) fn new(label: String) -> Self {
        Self {
            label,
            sent: 0,
            retries: 0,
            answers: Histogram::default(),
            full_handshakes: 0,
            resumed_handshakes: 0,
            failures: Default::default(),
            certificate_expires_at: None,
        }
    }

    /// Takes note of when the certificate expires, and tells of it, once, if that is soon.
    pub(in crate::proxy) fn on_certificate(&mut self, expires_at: Duration, wall_clock: Duration) {
        let before = self.certificate_expires_at.replace(expires_at);
        let left = expires_at.saturating_sub(wall_clock);
        if before != Some(expires_at) && left < EXPIRES_SOON {
            let (label, days) = (self.label.as_str(), left.as_secs() / 86_400);
            log::warn!(
                event = "certificate-expiry", upstream = label, days = days;
                "upstream {label}: its certificate expires in {days} days"
            );
        }
    }

    pub(in crate::proxy) fn count_handshake(&mut self, is_resumed: bool) {
        *if is_resumed {
            &mut self.resumed_handshakes
        } else {
            &mut self.full_handshakes
        } += 1;
    }
}

impl<'a> UpstreamView<'a> {
    /// What it is called.
    pub fn label(&self) -> &'a str {
        &self.stats.label
    }

    /// Queries that it was sent, those sent again included.
    pub fn sent(&self) -> u64 {
        self.stats.sent
    }

    /// Queries that it was sent after another attempt.
    pub fn retries(&self) -> u64 {
        self.stats.retries
    }

    /// How long its answers took.
    pub fn answers(&self) -> &'a Histogram {
        &self.stats.answers
    }

    /// Connections that came up under TLS: with a new session, and with an earlier one.
    pub fn handshakes(&self) -> (u64, u64) {
        (self.stats.full_handshakes, self.stats.resumed_handshakes)
    }

    /// Failures of this kind.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.stats.failures[kind as usize]
    }

    /// When the certificate that it last showed expires, in time since 1970.
    pub fn certificate_expires_at(&self) -> Option<Duration> {
        self.stats.certificate_expires_at
    }
}

impl Upstreams {
    /// What an upstream is called.
    pub(in crate::proxy) fn label(&self, upstream: UpstreamIndex) -> &str {
        &self.stats[upstream.0].label
    }

    pub(in crate::proxy) fn stats_of_mut(&mut self, upstream: UpstreamIndex) -> &mut Stats {
        &mut self.stats[upstream.0]
    }

    /// Of the upstream that a link leads to.
    pub(in crate::proxy) fn stats_mut(&mut self, link: LinkKey) -> &mut Stats {
        let link = self.links.get(link.0).expect("the link is there");
        let upstream = self.endpoint(link.endpoint).upstream;
        self.stats_of_mut(upstream)
    }

    /// What there is to tell of each.
    pub(in crate::proxy) fn views(&self, now: Instant) -> impl Iterator<Item = UpstreamView<'_>> {
        self.stats.iter().enumerate().map(move |(place, stats)| {
            let own = || {
                let addresses = self.addresses(UpstreamIndex(place));
                addresses.map(|(key, _)| self.endpoint(key))
            };
            let learned = |endpoint: &Endpoint| endpoint.patience.learned(now);
            UpstreamView {
                stats,
                is_up: own().any(|endpoint| endpoint.health.is_well()),
                idle_limit: own().filter_map(learned).min(),
            }
        })
    }
}
