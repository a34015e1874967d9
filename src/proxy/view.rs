//! Getters for metrics and logs.

use std::net::SocketAddr;

use super::cache::CacheUsage;
use super::counters::Counters;
use super::keys::{LinkKey, UpstreamIndex};
use super::upstream::link::Link;
use super::{Proxy, UpstreamView};
use crate::base::time::Instant;
use crate::block::BlockList;
use crate::config::Scheme;

impl Proxy {
    /// Returns the number of clients' queries that wait for their answer.
    pub fn inflight(&self) -> usize {
        self.exchanges.len() - self.without_client
    }

    /// Returns the usage of the cache.
    pub fn cache_usage(&self) -> CacheUsage {
        self.cache.usage()
    }

    /// Returns the block list, if there is one.
    pub fn block_list(&self) -> Option<&BlockList> {
        self.block_list.as_ref()
    }

    /// Returns the number of zones that the validator knows, and their bytes.
    pub fn known_zones(&self) -> (usize, usize) {
        let validator = self.validator.as_ref();
        validator.map_or((0, 0), |validator| validator.zones_usage())
    }

    /// Returns the keys of the root zone that trust anchors may name, by tag, and whether one does.
    pub fn root_keys(&self) -> &[(u16, bool)] {
        let validator = self.validator.as_ref();
        validator.map_or(&[], |validator| validator.root_keys())
    }

    /// Returns the number of records in the denial cache, and their bytes.
    pub fn cached_denials(&self) -> (usize, usize) {
        let validator = self.validator.as_ref();
        validator.map_or((0, 0), |validator| validator.denials_usage())
    }

    /// Returns the number of groups of upstreams whose last query went to a fallback.
    pub fn fallbacks_in_use(&self) -> usize {
        self.upstreams.fallbacks_in_use()
    }

    /// Returns the number of links, including those in handshake.
    pub fn links(&self) -> usize {
        self.upstreams.links_len()
    }

    /// Returns the counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns a view of each upstream in the order of the options, followed by the bootstrap
    /// servers.
    pub fn upstreams(&self, now: Instant) -> impl Iterator<Item = UpstreamView<'_>> {
        self.upstreams.views(now)
    }

    /// Returns the number of answers that a link waits for.
    pub fn awaited(&self, link: LinkKey) -> usize {
        self.upstreams.link(link).map_or(0, Link::waited_for)
    }

    /// Returns the protocol and the peer address of a link.
    pub fn link_peer(&self, link: LinkKey) -> Option<(Scheme, SocketAddr)> {
        let link = self.upstreams.link(link)?;
        let endpoint = self.upstreams.endpoint(link.endpoint);
        Some((link.scheme, endpoint.address))
    }

    /// Returns the upstream of a link.
    pub fn link_upstream(&self, link: LinkKey) -> Option<UpstreamIndex> {
        let link = self.upstreams.link(link)?;
        Some(self.upstreams.endpoint(link.endpoint).upstream)
    }

    /// Returns the label of an upstream.
    pub fn upstream_label(&self, upstream: UpstreamIndex) -> &str {
        self.upstreams.label(upstream)
    }
}
