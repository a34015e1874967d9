//! Routes: the pool of upstreams for each name (split horizon).
//!
//! An upstream with domains exclusively serves the names at and below them; the longest domain
//! decides. If none of its upstreams answers, no other upstream is queried, since the names are
//! private. The same holds for DS of the domain itself: the zone above has that record (RFC 4035,
//! section 2.4), but a query to the servers of that zone would disclose the name of a private zone.
//! All other names are for the upstreams without domains.

use std::sync::Arc;

use crate::config::{Config, Domains};
use crate::proxy::keys::{PoolIndex, UpstreamIndex};
use crate::wire::name::Name;

/// The pool for each name.
#[derive(Debug)]
pub(in crate::proxy) struct Routes {
    domains: Arc<Domains>,
    for_others: Option<PoolIndex>,
}

impl Routes {
    /// Creates the routes to the upstreams. Also returns the members of each pool.
    pub(in crate::proxy) fn new(config: &Config) -> (Self, Vec<Vec<UpstreamIndex>>) {
        let upstreams = config.upstreams.iter().enumerate();
        let others = upstreams.filter(|(_, upstream)| !upstream.is_exclusive());
        let others: Vec<_> = others.map(|(index, _)| UpstreamIndex(index)).collect();
        let for_others = (!others.is_empty()).then_some(PoolIndex(0));
        let groups = config.domains.groups().iter().map(|group| {
            let upstreams = group.upstreams.iter();
            upstreams.map(|upstream| UpstreamIndex(*upstream)).collect()
        });
        let pools = for_others.map(|_| others).into_iter().chain(groups);
        let routes = Self {
            domains: Arc::clone(&config.domains),
            for_others,
        };
        (routes, pools.collect())
    }

    /// Returns the pool that serves this uncompressed name exclusively.
    #[inline]
    pub(in crate::proxy) fn own(&self, name: &[u8]) -> Option<PoolIndex> {
        let group = self.domains.group(name)?;
        Some(PoolIndex(group + self.first_own().0))
    }

    /// Returns the pool of the first group of domains.
    fn first_own(&self) -> PoolIndex {
        PoolIndex(usize::from(self.for_others.is_some()))
    }

    /// Returns the pool for this uncompressed name.
    pub(in crate::proxy) fn pool(&self, name: &[u8]) -> Option<PoolIndex> {
        self.own(name).or(self.for_others)
    }

    /// Returns the pool for names that no other pool serves exclusively.
    pub(in crate::proxy) fn for_others(&self) -> Option<PoolIndex> {
        self.for_others
    }

    /// Returns the pool for names that no other pool serves exclusively, or else the first pool.
    pub(in crate::proxy) fn main_pool(&self) -> PoolIndex {
        self.for_others.unwrap_or(self.first_own())
    }

    /// Returns a name that the upstreams of a pool know and may be queried for: an exclusive domain
    /// of the pool, or the root, since every resolver knows the root servers (RFC 9609).
    pub(in crate::proxy) fn probe_name(&self, pool: Option<PoolIndex>) -> Name {
        let group = pool.and_then(|pool| pool.0.checked_sub(self.first_own().0));
        let group = group.and_then(|group| self.domains.groups().get(group));
        group.map_or_else(Name::root, |group| group.domain.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::config;
    use super::*;

    #[test]
    fn longest_domain_decides() {
        let (routes, pools) = Routes::new(&config(&[
            "-u1.1.1.1",
            "-uudp://10.0.0.1,domain=corp.example",
            "-uudp://10.0.0.2,domain=lab.corp.example,domain=test",
            "-u9.9.9.9",
            "-uudp://10.0.0.3,domain=corp.example",
        ]));
        let members = |name: &[u8]| {
            let pool = routes.own(name).or(routes.for_others()).unwrap();
            let members = pools[pool.0].iter().map(|upstream| upstream.0);
            members.collect::<Vec<_>>()
        };
        assert_eq!(members(b"\x03www\x07example\0"), [0, 3]);
        assert_eq!(members(b"\0"), [0, 3]);
        assert_eq!(members(b"\x04corp\x07example\0"), [1, 4]);
        assert_eq!(members(b"\x01a\x04CoRp\x07eXample\0"), [1, 4]);
        assert_eq!(members(b"\x05xcorp\x07example\0"), [0, 3]);
        assert_eq!(members(b"\x03lab\x04corp\x07example\0"), [2]);
        assert_eq!(members(b"\x01a\x03lab\x04corp\x07example\0"), [2]);
        assert_eq!(members(b"\x01a\x04test\0"), [2]);
        assert_eq!(pools.len(), 3);
        let probe = |name: &[u8]| routes.probe_name(routes.pool(name)).to_string();
        assert_eq!(probe(b"\x03www\x07example\0"), ".");
        assert_eq!(probe(b"\x01a\x04CoRp\x07example\0"), "corp.example.");
        assert_eq!(probe(b"\x04test\0"), "lab.corp.example.");
    }

    #[test]
    fn names_without_a_pool_have_no_route() {
        let (routes, _) = Routes::new(&config(&["-uudp://10.0.0.1,domain=corp.example"]));
        assert!(routes.for_others().is_none());
        assert!(routes.own(b"\x04corp\x07example\0").is_some());
        assert!(routes.own(b"\x07example\0").is_none());
        let name = routes.probe_name(Some(routes.main_pool()));
        assert_eq!(name.as_bytes(), b"\x04corp\x07example\0");
    }
}
