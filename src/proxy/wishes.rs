//! What a query would rather have after what it has met.

use super::keys::UpstreamIndex;
use crate::time::Instant;

/// Some of the upstreams. Those beyond the 64th are in no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UpstreamSet(u64);

impl UpstreamSet {
    pub(super) fn insert(&mut self, upstream: UpstreamIndex) {
        self.0 |= Self::bit(upstream);
    }

    pub(super) fn contains(self, upstream: UpstreamIndex) -> bool {
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
pub(super) struct Wishes {
    /// Other upstreams than these, which did not answer it in time.
    pub(super) not_slow: UpstreamSet,
    /// A link that came up no earlier: the one it was on was closed, and its siblings may soon be.
    pub(super) fresh_since: Option<Instant>,
}

impl Wishes {
    pub(super) fn are_none(&self) -> bool {
        self.not_slow == UpstreamSet::default() && self.fresh_since.is_none()
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
