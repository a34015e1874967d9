//! What the proxy calls the things that it decides about. Names are all that they know of each
//! other.

use crate::base::arena::Key;

/// The name of a query that is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExchangeKey(pub(super) Key);

/// The name of a connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKey(pub(super) Key);

impl LinkKey {
    /// A small number that no other link has at the same time.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// The name of one address of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndpointKey(pub(super) Key);

/// The place of an upstream in the order of the options; servers that are asked for addresses come
/// behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpstreamIndex(pub usize);

/// The place of a pool: those upstreams that are asked for the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolIndex(pub(super) usize);
