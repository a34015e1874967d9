//! Exporters: metrics and health checks over HTTP, dnstap messages, and OpenTelemetry traces.

pub(super) mod connection;
pub(super) mod dnstap;
pub(super) mod http;
pub(super) mod metrics;
pub(super) mod otlp;
pub(super) mod query_records;
mod status;
