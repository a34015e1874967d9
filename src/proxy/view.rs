//! What there is to see of the proxy, for whoever counts and logs.

use std::net::SocketAddr;

use super::cache::CacheUsage;
use super::counters::Counters;
use super::keys::{LinkKey, UpstreamIndex};
use super::upstream::link::Link;
use super::{Proxy, UpstreamView};
use crate::base::time::Instant;
use crate::config::Scheme;

impl Proxy {
    /// Queries of clients that wait for their answer.
    pub fn inflight(&self) -> usize {
        self.exchanges.len() - self.ours
    }

    /// What the answers that are known take.
    pub fn cache_usage(&self) -> CacheUsage {
        self.cache.usage()
    }

    /// Connections upstream, those that are being opened included.
    pub fn links(&self) -> usize {
        self.upstreams.links_len()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What there is to tell of each upstream, in the order of the options, and of the servers that
    /// are asked for addresses behind them.
    pub fn upstreams(&self, now: Instant) -> impl Iterator<Item = UpstreamView<'_>> {
        self.upstreams.views(now)
    }

    /// Answers that are waited for on a link.
    pub fn awaited(&self, link: LinkKey) -> usize {
        self.upstreams.link(link).map_or(0, Link::waited_for)
    }

    /// Where a link leads, and how it is spoken to.
    pub fn link_peer(&self, link: LinkKey) -> Option<(Scheme, SocketAddr)> {
        let link = self.upstreams.link(link)?;
        let endpoint = self.upstreams.endpoint(link.endpoint);
        Some((link.scheme, endpoint.address))
    }

    /// The upstream of a link.
    pub fn link_upstream(&self, link: LinkKey) -> Option<UpstreamIndex> {
        let link = self.upstreams.link(link)?;
        Some(self.upstreams.endpoint(link.endpoint).upstream)
    }

    /// What an upstream is called.
    pub fn upstream_label(&self, upstream: UpstreamIndex) -> &str {
        self.upstreams.label(upstream)
    }
}
