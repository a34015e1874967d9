//! Interfaces between the process and its host.
//!
//! - [`file_limit`]: the limit of open files (`RLIMIT_NOFILE`)
//! - [`sandbox`]: user, capabilities, landlock and seccomp
//! - [`systemd`]: notifications and the watchdog of the service manager
//! - [`probe`]: the HTTP client behind `--probe`

pub mod file_limit;
pub mod probe;
pub mod sandbox;
pub mod systemd;
