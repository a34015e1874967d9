//! Basic types that all layers share. These modules import no other part of the crate except
//! [`crate::wire`].
//!
//! - [`address`]: IP addresses with their zone
//! - [`arena`]: tables with keys that carry a generation
//! - [`counted`]: numbers with their nouns, for log lines
//! - [`failure`]: why a connection or an attempt failed
//! - [`mod@file`]: reads files with a size limit
//! - [`file_lines`]: the lines of a long file, read in steps
//! - [`histogram`]: counts of durations by length
//! - [`keyed_hash`]: a step of a hash with a secret key
//! - [`lazy_queue`]: a queue with entries that may lapse while they wait
//! - [`name_table`]: a set of domain names in nine bytes a name
//! - [`origin`]: the client and the session of a query
//! - [`random`]: the random number generator, seeded once
//! - [`time`]: instants that a simulation can set
//! - [`user`]: names of users

pub mod address;
pub mod arena;
pub mod counted;
pub mod failure;
pub mod file;
pub mod file_lines;
pub mod histogram;
pub mod keyed_hash;
pub mod lazy_queue;
pub mod name_table;
pub mod origin;
pub mod random;
pub mod time;
pub mod user;
