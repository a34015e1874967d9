//! What the program tells of itself, and of what passes through it, in the forms that others read.
//!
//! - `logger`: lines about the program, for people or as JSON
//! - `journal`: the system's journal as their reader
//! - `query_log`: a line for each query, `query_line`: one in the log
//! - `exposition`: the page of numbers, `process`: what the kernel says of us
//! - `dnstap`: every message
//! - `otlp`: what becomes of some queries, step by step
//! - `client`: what is told of clients
//! - `one_line`: how text from outside is kept within its line
//! - `json`, `sink`: how lines are written, and how they get to readers that nobody waits for

pub mod anonymize;
pub mod dnstap;
pub mod journal;
pub mod json;
pub mod logger;
pub mod one_line;
pub mod openmetrics;
pub mod otlp;
pub mod proc_stats;
pub mod query_line;
pub mod query_log;
pub mod sink;
