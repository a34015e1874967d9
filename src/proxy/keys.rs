//! Keys and indexes of the objects in the proxy's tables.

use crate::base::arena::{Key, TypedKey};

/// The key of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExchangeKey(pub(super) Key);

/// The key of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKey(pub(super) Key);

impl LinkKey {
    /// Returns a small number that no other link has at the same time.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// A query that was sent and may still be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) link: LinkKey,
    pub(super) id: u16,
}

/// The key of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndpointKey(pub(super) Key);

macro_rules! typed_key {
    ($($name:ident),+) => {
        $(impl TypedKey for $name {
            fn from_key(key: Key) -> Self {
                Self(key)
            }

            fn key(self) -> Key {
                self.0
            }
        })+
    };
}

typed_key!(ExchangeKey, LinkKey, EndpointKey);

/// The index of an upstream in the order of the options. The bootstrap servers follow the last
/// upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpstreamIndex(pub usize);

/// The index of a pool, the upstreams that may answer the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolIndex(pub(super) usize);
