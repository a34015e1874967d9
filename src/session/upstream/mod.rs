//! Sessions of upstreams: a UDP socket for one query, and a TCP or TLS connection.

pub mod datagram;
pub mod stream;
