//! The vocabulary that all layers share. These modules use no other part of the crate but
//! [`crate::wire`].
//!
//! - [`address`]: socket addresses in a compact form
//! - [`arena`]: tables whose keys carry a generation
//! - [`failure`]: why a connection or an attempt failed
//! - [`mod@file`]: reads files with a size limit
//! - [`histogram`]: counts of durations by length
//! - [`origin`]: where a query came from
//! - [`random`]: the random number generator, seeded once
//! - [`time`]: instants that a simulation can set

pub mod address;
pub mod arena;
pub mod failure;
pub mod file;
pub mod histogram;
pub mod origin;
pub mod random;
pub mod time;
