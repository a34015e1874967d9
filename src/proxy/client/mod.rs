//! Clients: admission of their queries, limits on them, and the responses.

mod access_control;
pub(super) mod admission;
mod blocked;
pub(super) mod cookies;
mod designated;
pub(super) mod fairness;
pub(super) mod hosts;
pub(super) mod local_zones;
pub(super) mod log_throttle;
pub(super) mod query;
pub(super) mod rate_limit;
pub(super) mod response;
pub(super) mod shares;
