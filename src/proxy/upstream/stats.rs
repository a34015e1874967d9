//! Counters of each upstream.

use std::time::Duration;

use super::Upstreams;
use super::endpoint::Endpoint;
use crate::base::counted::counted;
use crate::base::failure::FailureKind;
use crate::base::histogram::Histogram;
use crate::base::time::{Instant, Validity};
use crate::proxy::keys::{LinkKey, UpstreamIndex};

/// A certificate that expires within this period is logged.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 86_400);

/// The counters of an upstream, since it was configured.
#[derive(Debug)]
pub(in crate::proxy) struct Stats {
    /// The name in logs and metrics.
    label: String,
    /// The number of queries sent, including repeated ones.
    pub(in crate::proxy) sent: u64,
    /// The number of queries sent after another attempt.
    pub(in crate::proxy) retries: u64,
    /// Durations until the answer.
    pub(in crate::proxy) answers: Histogram,
    /// The number of connections with a full TLS handshake.
    full_handshakes: u64,
    /// The number of connections with a resumed TLS session.
    resumed_handshakes: u64,
    /// Failures by kind.
    pub(in crate::proxy) failures: [u64; FailureKind::ALL.len()],
    /// The validity period of the server certificate.
    certificate: Option<Validity>,
    /// The key exchange group of the last TLS handshake.
    pub(in crate::proxy) key_exchange: Option<&'static str>,
}

/// A view of an upstream for metrics.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamView<'a> {
    stats: &'a Stats,
    /// True if one of its endpoints has no outage.
    pub is_up: bool,
    /// The learned idle timeout of its connections.
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
            certificate: None,
            key_exchange: None,
        }
    }

    /// Records the server certificate, and logs its expiry once if it is near.
    pub(in crate::proxy) fn on_certificate(&mut self, validity: Validity, wall_clock: Duration) {
        let before = self.certificate.replace(validity);
        let left = validity.expires_at.saturating_sub(wall_clock);
        if before != Some(validity) && left < EXPIRES_SOON {
            let (label, days) = (self.label.as_str(), left.as_secs() / 86_400);
            let shown_days = match days {
                0 => "less than a day".to_owned(),
                days => counted(days, "day", "days"),
            };
            log::warn!(
                event = "certificate-expiry", upstream = label, days = days;
                "upstream {label}: certificate expires in {shown_days}: the operator of the \
                 upstream must renew it"
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
    /// Returns the name of the upstream.
    pub fn label(&self) -> &'a str {
        &self.stats.label
    }

    /// Returns the number of queries sent, including repeated ones.
    pub fn sent(&self) -> u64 {
        self.stats.sent
    }

    /// Returns the number of queries sent after another attempt.
    pub fn retries(&self) -> u64 {
        self.stats.retries
    }

    /// Returns the durations until the answer.
    pub fn answers(&self) -> &'a Histogram {
        &self.stats.answers
    }

    /// Returns the numbers of full and resumed TLS handshakes.
    pub fn handshakes(&self) -> (u64, u64) {
        (self.stats.full_handshakes, self.stats.resumed_handshakes)
    }

    /// Returns the number of failures of this kind.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.stats.failures[kind as usize]
    }

    /// Returns the validity period of the last server certificate.
    pub fn certificate(&self) -> Option<Validity> {
        self.stats.certificate
    }

    /// Returns the key exchange group of the last TLS handshake, like `X25519MLKEM768`.
    pub fn key_exchange(&self) -> Option<&'static str> {
        self.stats.key_exchange
    }
}

impl Upstreams {
    /// Returns the name of an upstream.
    pub(in crate::proxy) fn label(&self, upstream: UpstreamIndex) -> &str {
        &self.stats[upstream.0].label
    }

    pub(in crate::proxy) fn stats_of_mut(&mut self, upstream: UpstreamIndex) -> &mut Stats {
        &mut self.stats[upstream.0]
    }

    /// Returns the counters of the upstream of a link.
    pub(in crate::proxy) fn stats_mut(&mut self, link: LinkKey) -> &mut Stats {
        let link = self.links.get(link).expect("a link that is counted exists");
        let upstream = self.endpoint(link.endpoint).upstream;
        self.stats_of_mut(upstream)
    }

    /// Returns a view of each upstream.
    pub(in crate::proxy) fn views(&self, now: Instant) -> impl Iterator<Item = UpstreamView<'_>> {
        self.stats.iter().enumerate().map(move |(index, stats)| {
            let own = || {
                let addresses = self.addresses(UpstreamIndex(index));
                addresses.map(|(key, _)| self.endpoint(key))
            };
            let learned = |endpoint: &Endpoint| endpoint.idle_timeout.learned(now);
            UpstreamView {
                stats,
                is_up: own().any(|endpoint| endpoint.health.is_healthy()),
                idle_limit: own().filter_map(learned).min(),
            }
        })
    }
}
