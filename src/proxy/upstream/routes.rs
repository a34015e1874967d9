//! Routes: the pool of upstreams for each name (split horizon).
//!
//! An upstream with domains exclusively serves the names at and below them; the longest domain
//! decides. If none of its upstreams answers, no other upstream is queried, since the names are
//! private. The same holds for DS of the domain itself: the zone above has that record (RFC 4035,
//! section 2.4), but a query to the servers of that zone would disclose the name of a private zone.
//! All other names are for the upstreams without domains.

use std::collections::HashMap;

use crate::config::Upstream;
use crate::proxy::keys::{PoolIndex, UpstreamIndex};
use crate::wire::name::{self, NAME_LEN_MAX, Name};

/// The pool for each name.
#[derive(Debug)]
pub(in crate::proxy) struct Routes {
    pool_by_domain: HashMap<Name, PoolIndex>,
    for_others: Option<PoolIndex>,
}

impl Routes {
    /// Creates the routes to these upstreams. Also returns the members of each pool.
    pub(in crate::proxy) fn new(upstreams: &[Upstream]) -> (Self, Vec<Vec<UpstreamIndex>>) {
        let members = |is_one: &dyn Fn(&Upstream) -> bool| -> Vec<UpstreamIndex> {
            let indexed = upstreams.iter().enumerate();
            let its = indexed.filter(|(_, upstream)| is_one(upstream));
            its.map(|(index, _)| UpstreamIndex(index)).collect()
        };
        let mut pools: Vec<Vec<UpstreamIndex>> = Vec::new();
        let mut pool = |members: Vec<UpstreamIndex>| {
            let index = pools.iter().position(|pool| *pool == members);
            PoolIndex(index.unwrap_or_else(|| {
                pools.push(members);
                pools.len() - 1
            }))
        };
        let others = members(&|upstream| upstream.domains.is_empty());
        let for_others = (!others.is_empty()).then(|| pool(others));
        let domains = upstreams.iter().flat_map(|upstream| &upstream.domains);
        let pool_by_domain = domains
            .map(|domain| {
                let members = members(&|upstream| upstream.domains.contains(domain));
                (domain.clone(), pool(members))
            })
            .collect();
        let routes = Self {
            pool_by_domain,
            for_others,
        };
        (routes, pools)
    }

    /// Returns the pool that serves this uncompressed name exclusively.
    #[inline]
    pub(in crate::proxy) fn own(&self, name: &[u8]) -> Option<PoolIndex> {
        if self.pool_by_domain.is_empty() {
            return None;
        }
        self.own_domain(name).map(|(_, pool)| *pool)
    }

    /// Returns the domain that decides the pool for this uncompressed name: the root unless a pool
    /// serves the name exclusively.
    pub(in crate::proxy) fn domain(&self, name: &[u8]) -> Name {
        let own = self.own_domain(name);
        own.map_or_else(Name::root, |(domain, _)| domain.clone())
    }

    fn own_domain(&self, name: &[u8]) -> Option<(&Name, &PoolIndex)> {
        let mut small = [0; NAME_LEN_MAX];
        let small = small.get_mut(..name.len())?;
        small.copy_from_slice(name);
        name::make_lowercase(small);
        name::suffixes(small).find_map(|suffix| self.pool_by_domain.get_key_value(suffix))
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
        let first = || {
            self.pool_by_domain
                .values()
                .min_by_key(|pool| pool.0)
                .copied()
        };
        self.for_others
            .or_else(first)
            .expect("at least one upstream is configured")
    }

    /// Returns a name that the upstreams of a pool know and may be queried for: an exclusive domain
    /// of the pool, or the root, since every resolver knows the root servers (RFC 9609).
    pub(in crate::proxy) fn probe_name(&self, pool: Option<PoolIndex>) -> Name {
        let is_general = pool == self.for_others;
        let domains = self.pool_by_domain.iter().filter(|_| !is_general);
        let its = domains.filter(|(_, its)| Some(**its) == pool);
        let domain = its.map(|(domain, _)| domain);
        let domain = domain.min_by_key(|domain| domain.as_bytes());
        domain.cloned().unwrap_or_else(Name::root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(specs: &[&str]) -> (Routes, Vec<Vec<UpstreamIndex>>) {
        let upstreams: Vec<_> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        Routes::new(&upstreams)
    }

    #[test]
    fn longest_domain_decides() {
        let (routes, pools) = routes(&[
            "1.1.1.1",
            "udp://10.0.0.1,domain=corp.example",
            "udp://10.0.0.2,domain=lab.corp.example,domain=test",
            "9.9.9.9",
            "udp://10.0.0.3,domain=corp.example",
        ]);
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
        let domain = |name: &[u8]| routes.domain(name).to_string();
        assert_eq!(domain(b"\x03www\x07example\0"), ".");
        assert_eq!(domain(b"\x01a\x04CoRp\x07example\0"), "corp.example.");
    }

    #[test]
    fn names_without_a_pool_have_no_route() {
        let (routes, _) = routes(&["udp://10.0.0.1,domain=corp.example"]);
        assert!(routes.for_others().is_none());
        assert!(routes.own(b"\x04corp\x07example\0").is_some());
        assert!(routes.own(b"\x07example\0").is_none());
        let name = routes.probe_name(Some(routes.main_pool()));
        assert_eq!(name.as_bytes(), b"\x04corp\x07example\0");
    }
}
