//! Where a query came from, which is where its response goes.

use std::net::SocketAddr;

use crate::address::Address;
use crate::arena::Key;

/// The way back to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The session that the query came through.
    pub session: Key,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client asked, where the session serves more than one.
    pub local: Option<Address>,
}
