//! Sessions of observers: HTTP for metrics and health checks, Frame Streams for dnstap, and HTTP
//! requests to a trace collector.

pub mod frame_stream;
pub mod http_client;
mod http_fields;
pub mod http_server;
