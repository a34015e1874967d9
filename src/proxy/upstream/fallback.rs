//! Fallbacks: upstreams that are queried only while no other upstream of their pool is usable.

use std::time::Duration;

use super::{EndpointKey, LinkKey, PoolIndex, Upstreams};
use crate::base::time::Instant;

/// Time after which an unused fallback is connected to again, to see whether it works.
const CONNECTED_EVERY: Duration = Duration::from_secs(300);

impl Upstreams {
    /// Returns whether fallbacks of a pool may be queried: no other endpoint is usable.
    pub(super) fn needs_fallback(&self, pool: PoolIndex) -> bool {
        let members = self.pools[pool.0].ranking.iter();
        let mut others = members.map(|key| self.endpoint(*key));
        !others.any(|endpoint| !endpoint.is_fallback && endpoint.health.is_useful())
    }

    /// Returns whether an endpoint is a fallback that gets no queries while `busy` serves.
    pub(super) fn is_reserve(&self, key: EndpointKey, busy: EndpointKey) -> bool {
        self.endpoint(key).is_fallback && !self.endpoint(busy).is_fallback
    }

    /// Returns whether an unused fallback should be connected to.
    pub(super) fn is_connection_due(&self, key: EndpointKey, now: Instant) -> bool {
        let opened_at = self.endpoint(key).opened_at;
        opened_at.is_none_or(|at| at + CONNECTED_EVERY <= now)
    }

    /// Records that the first attempt of a query uses this link. Logs that the pool begins or ends
    /// to use its fallbacks.
    #[inline]
    pub(in crate::proxy) fn on_first_attempt(&mut self, pool: PoolIndex, link: LinkKey) {
        if !self.fallbacks.is_empty() {
            self.report_fallback_use(pool, link);
        }
    }

    fn report_fallback_use(&mut self, pool: PoolIndex, link: LinkKey) {
        let Some(link) = self.link(link) else {
            return;
        };
        let endpoint = self.endpoint(link.endpoint);
        let (is_used, label) = (endpoint.is_fallback, endpoint.label());
        if is_used == self.pools[pool.0].uses_fallback {
            return;
        }
        if is_used {
            log::warn!(
                event = "fallback-in-use", upstream = label;
                "upstream {label}: in use as the fallback, because no other upstream for the same \
                 names is usable"
            );
        } else {
            log::info!(
                event = "fallback-unused", upstream = label;
                "upstream {label}: usable, so the fallback is no longer in use"
            );
        }
        self.pools[pool.0].uses_fallback = is_used;
    }

    /// Returns the number of pools whose last query went to a fallback.
    pub(in crate::proxy) fn fallbacks_in_use(&self) -> usize {
        self.pools.iter().filter(|pool| pool.uses_fallback).count()
    }
}
