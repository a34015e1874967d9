//! Sessions of clients: a UDP socket, and a TCP or TLS connection.

pub(in crate::session) mod activity;
pub mod datagram;
pub mod stream;
