//! What the loop gives to programs that observe: metrics and probes over HTTP, messages for dnstap,
//! and traces for OpenTelemetry.

pub(super) mod dnstap;
pub(super) mod http;
pub(super) mod metrics;
pub(super) mod otlp;
pub(super) mod query_records;
