//! dotproxy: plain DNS in, authenticated DNS over TLS out.

pub mod arena;
pub mod config;
pub mod options;
pub mod time;
pub mod wire;
