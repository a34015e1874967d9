//! The order in which the endpoints of a pool are preferred, and the fallbacks among them.

use super::{EndpointKey, PoolIndex, Upstreams};
use crate::config::Policy;
use crate::proxy::exchange::preferences::UpstreamSet;

impl Upstreams {
    /// Returns whether latency decides between two endpoints: those of one upstream, or any under
    /// that policy, except between fallbacks and others.
    pub(super) fn are_compared(&self, one: EndpointKey, other: EndpointKey) -> bool {
        let (one, other) = (self.endpoint(one), self.endpoint(other));
        let is_by_latency = self.policy == Policy::Fastest;
        is_by_latency && one.is_fallback == other.is_fallback || one.upstream == other.upstream
    }

    /// Returns whether every upstream of a pool that may be queried is in `set`.
    pub(in crate::proxy) fn is_covered(&self, pool: PoolIndex, set: UpstreamSet) -> bool {
        let needs_fallback = self.needs_fallback(pool);
        let mut members = self.pools[pool.0].members.iter();
        members.all(|upstream| {
            set.contains(*upstream) || !needs_fallback && self.fallbacks.contains(upstream)
        })
    }

    /// Ranks an endpoint by its latency. An endpoint that is less than a quarter faster than
    /// another stays behind it, so that ranks do not fluctuate.
    pub(super) fn rank(&mut self, key: EndpointKey) {
        for pool in 0..self.pools.len() {
            let ranking = &self.pools[pool].ranking;
            let Some(rank) = ranking.iter().position(|ranked| *ranked == key) else {
                continue;
            };
            let goes_before =
                |one, other| self.are_compared(one, other) && self.is_faster(one, other);
            let mut to = rank;
            while to > 0 && goes_before(key, ranking[to - 1]) {
                to -= 1;
            }
            while to >= rank && to + 1 < ranking.len() && goes_before(ranking[to + 1], key) {
                to += 1;
            }
            let ranking = &mut self.pools[pool].ranking;
            if to < rank {
                ranking[to..=rank].rotate_right(1);
            } else {
                ranking[rank..=to].rotate_left(1);
            }
        }
    }

    fn is_faster(&self, one: EndpointKey, other: EndpointKey) -> bool {
        let usual = |key: EndpointKey| self.endpoint(key).latency.usual();
        match (usual(one), usual(other)) {
            (Some(one), Some(other)) => one < other * 4 / 5,
            (one, other) => one.is_some() && other.is_none(),
        }
    }

    /// Moves the first upstream of the ranking behind the others, under the round-robin policy.
    /// Fallbacks stay behind the upstreams that are not.
    pub(in crate::proxy) fn rotate_ranking(&mut self, pool: PoolIndex) {
        if self.policy != Policy::RoundRobin || self.has_one_endpoint(pool) {
            return;
        }
        let endpoints = &self.endpoints;
        let upstream = |key: &EndpointKey| endpoints.get(*key).map(|e| e.upstream);
        let is_fallback = |key: &EndpointKey| endpoints.get(*key).is_some_and(|e| e.is_fallback);
        let ranking = &mut self.pools[pool.0].ranking;
        let first_fallback = ranking.partition_point(|key| !is_fallback(key));
        let (others, fallbacks) = ranking.split_at_mut(first_fallback);
        for ranking in [others, fallbacks] {
            let first = ranking.first().and_then(upstream);
            let its = ranking
                .iter()
                .take_while(|key| upstream(key) == first)
                .count();
            ranking.rotate_left(its);
        }
    }
}
