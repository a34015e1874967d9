//! Preferences of a query for an upstream, after failed attempts.

use crate::base::time::Instant;
use crate::proxy::keys::UpstreamIndex;

/// A set of upstreams. Upstreams beyond the 64th are in no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct UpstreamSet(u64);

impl UpstreamSet {
    /// The set of all of the first 64 upstreams.
    pub(in crate::proxy) const ALL: Self = Self(u64::MAX);

    pub(in crate::proxy) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the set of one upstream.
    pub(in crate::proxy) fn of(upstream: UpstreamIndex) -> Self {
        Self(Self::bit(upstream))
    }

    /// Returns the set of all of the first 64 upstreams except this one.
    pub(in crate::proxy) fn all_but(upstream: UpstreamIndex) -> Self {
        Self(!Self::bit(upstream))
    }

    /// Returns the union of both sets.
    pub(in crate::proxy) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(in crate::proxy) fn insert(&mut self, upstream: UpstreamIndex) {
        self.0 |= Self::bit(upstream);
    }

    pub(in crate::proxy) fn contains(self, upstream: UpstreamIndex) -> bool {
        self.0 & Self::bit(upstream) != 0
    }

    fn bit(upstream: UpstreamIndex) -> u64 {
        u32::try_from(upstream.0)
            .ok()
            .and_then(|index| 1_u64.checked_shl(index))
            .unwrap_or(0)
    }
}

/// The preferences of a query after failed attempts.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct LinkPreferences {
    /// Upstreams to avoid while another one is left: they failed the question recently, did not
    /// answer the query in time, rejected its datagram, sent an unusable answer on a connection, or
    /// ended connections because of it.
    pub(in crate::proxy) avoid: UpstreamSet,
    /// Upstreams to exclude: they gave an error or sent the query back in a loop, or a probe tests
    /// another upstream.
    pub(in crate::proxy) exclude: UpstreamSet,
    /// The earliest time at which a link may have come up, the default for any: the previous link
    /// was closed, and links of its age may be closed soon.
    pub(in crate::proxy) min_up_since: Instant,
    /// A connection is needed: the answer does not fit a datagram, or every upstream of the pool
    /// was sent a datagram and rejected it or did not answer in time.
    pub(in crate::proxy) needs_stream: bool,
    /// Upstreams at which the query needs an isolated link, because it is a suspect there
    /// (`upstream/suspects.rs`).
    pub(in crate::proxy) isolated_at: UpstreamSet,
}

impl LinkPreferences {
    pub(in crate::proxy) fn are_none(&self) -> bool {
        self.avoid.is_empty()
            && self.exclude.is_empty()
            && self.min_up_since == Instant::default()
            && !self.needs_stream
            && self.isolated_at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_holds_only_the_first_64_upstreams() {
        let mut set = UpstreamSet::default();
        set.insert(UpstreamIndex(3));
        set.insert(UpstreamIndex(70));
        assert!(set.contains(UpstreamIndex(3)));
        assert!(!set.contains(UpstreamIndex(4)));
        assert!(!set.contains(UpstreamIndex(70)));
    }
}
