//! dotproxy: plain DNS in, authenticated DNS over TLS out.

pub mod arena;
pub mod config;
pub mod descriptors;
pub mod failure;
pub mod logger;
pub mod net;
pub mod options;
pub mod origin;
pub mod proxy;
pub mod random;
pub mod reactor;
pub mod session;
pub mod time;
pub mod tls;
pub mod wire;
