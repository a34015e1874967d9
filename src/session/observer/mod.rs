//! Sessions of programs that observe: HTTP for metrics and probes, Frame Streams for dnstap, and
//! HTTP requests to a collector of traces.

pub mod frame_stream;
pub mod http_client;
mod http_fields;
pub mod http_server;
