//! What a query would rather have after what it has met.

use crate::base::time::Instant;
use crate::proxy::keys::UpstreamIndex;

/// Some of the upstreams. Those beyond the 64th are in no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct UpstreamSet(u64);

impl UpstreamSet {
    pub(in crate::proxy) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of the first 64 but this one.
    pub(in crate::proxy) fn all_but(upstream: UpstreamIndex) -> Self {
        Self(!Self::bit(upstream))
    }

    /// Those of both.
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
            .and_then(|place| 1_u64.checked_shl(place))
            .unwrap_or(0)
    }
}

/// What a query that has gone wrong once would rather have.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Wishes {
    /// Another upstream than these, which did not answer it in time.
    pub(in crate::proxy) rather_not: UpstreamSet,
    /// None of these, which gave an error: what is looked for is another opinion.
    pub(in crate::proxy) not_at_all: UpstreamSet,
    /// A link that came up no earlier: the one it was on was closed, and its siblings may soon be.
    pub(in crate::proxy) fresh_since: Option<Instant>,
    /// A connection: the answer does not fit a datagram.
    pub(in crate::proxy) on_connection: bool,
    /// Its client has few queries under way, so that it may use what others leave spare.
    pub(in crate::proxy) may_use_spare: bool,
}

impl Wishes {
    pub(in crate::proxy) fn are_none(&self) -> bool {
        self.rather_not.is_empty()
            && self.not_at_all.is_empty()
            && self.fresh_since.is_none()
            && !self.on_connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_the_first_64() {
        let mut set = UpstreamSet::default();
        set.insert(UpstreamIndex(3));
        set.insert(UpstreamIndex(70));
        assert!(set.contains(UpstreamIndex(3)));
        assert!(!set.contains(UpstreamIndex(4)));
        assert!(!set.contains(UpstreamIndex(70)));
    }
}
