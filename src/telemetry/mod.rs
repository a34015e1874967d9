//! Formats of logs, metrics, dnstap and traces.
//!
//! - [`logger`]: log lines, as text or JSON
//! - [`journal`]: the systemd journal as the reader of the log
//! - [`query_log`]: a line for each query, [`query_line`]: one in the log
//! - [`openmetrics`]: the metrics page, [`proc_stats`]: statistics of the process
//! - [`dnstap`]: every DNS message
//! - [`otlp`]: spans of traced queries
//! - [`anonymize`]: client addresses with the configured detail
//! - [`one_line`]: escapes that keep external text on one line
//! - [`json`], [`sink`]: the JSON writer, and the queue of lines that is written without blocking

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
pub mod resource;
pub mod sink;
