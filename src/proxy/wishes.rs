//! What a query would rather have after what it has met.

use super::keys::EndpointKey;
use crate::time::Instant;

/// Some addresses of upstreams. What lies beyond the first 64 places is in no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointSet(u64);

impl EndpointSet {
    pub(super) fn insert(&mut self, endpoint: EndpointKey) {
        self.0 |= Self::bit(endpoint);
    }

    pub(super) fn contains(self, endpoint: EndpointKey) -> bool {
        self.0 & Self::bit(endpoint) != 0
    }

    fn bit(endpoint: EndpointKey) -> u64 {
        u32::try_from(endpoint.0.index())
            .ok()
            .and_then(|place| 1_u64.checked_shl(place))
            .unwrap_or(0)
    }
}

/// What a query that has gone wrong once would rather have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    /// Another address than these, which did not answer it in time, or badly.
    pub(super) not_at: EndpointSet,
    /// A link that came up no earlier: the one it was on was closed, and its siblings may soon be.
    pub(super) fresh_since: Option<Instant>,
    /// A connection: the answer does not fit a datagram.
    pub(super) on_connection: bool,
}

impl Wishes {
    pub(super) fn are_none(&self) -> bool {
        self.not_at == EndpointSet::default() && self.fresh_since.is_none() && !self.on_connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Key;

    #[test]
    fn sets_hold_the_first_64() {
        let key = |place| EndpointKey(Key::from_usize(place));
        let mut set = EndpointSet::default();
        set.insert(key(3));
        set.insert(key(70));
        assert!(set.contains(key(3)));
        assert!(!set.contains(key(4)));
        assert!(!set.contains(key(70)));
    }
}
