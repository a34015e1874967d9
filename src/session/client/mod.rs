//! Sessions of clients: a UDP socket, and a TCP, TLS or HTTPS connection.

pub(in crate::session) mod activity;
pub mod datagram;
mod framing;
mod https;
pub mod stream;
