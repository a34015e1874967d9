//! Integration tests, in one program that is linked once and runs them in parallel.
//!
//! ```text
//! cargo test --test suite                     all of them
//! cargo test --test suite proxy_simulation    those of a module
//! ```

// The query engine, driven by calls.
mod cache_file;
mod cache_hit_rate;
mod cache_scenarios;
mod fallback_scenarios;
mod freshness_scenarios;
mod hostile_replies;
mod link_end_scenarios;
mod outage_scenarios;
mod proxy_simulation;
mod route_scenarios;
mod silence_scenarios;
mod upstream_scenarios;

// The loop, over a simulated network.
mod client_limits;
mod client_rates;
mod listeners;
mod log_lines;
mod loop_simulation;
mod misframed_upstream;
mod short_reads;

// The program, as a user starts it.
mod block_lists;
mod check_conf;
mod check_upstreams;
mod clear_text;
mod clock;
mod dnstap;
mod doh_clients;
mod doh_upstream;
mod domains_files;
mod end_to_end;
mod faulty_upstream;
mod files;
mod hosts;
mod http;
mod json_log;
mod key_exchange;
mod odd_upstreams;
mod off_path;
mod pins;
mod query_log;
mod reload;
mod sandbox;
mod service_manager;
mod tls_clients;
mod traces;
mod upstream_messages;

// The source text.
mod tidy;

mod support;
