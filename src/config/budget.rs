//! Limits derived from `--memory-limit`, so that the whole process fits the limit.
//!
//! The program and its working memory are subtracted first. From the rest, waiting queries, TCP
//! clients and their buffers, and unsent responses of UDP sockets each get a share that does not
//! exceed the limit without `--memory-limit`. The cache gets the remainder.

use super::Limits;

/// True if the program is linked statically with the C library and therefore takes less memory.
const IS_WHOLE: bool = !cfg!(target_env = "gnu");

/// Bytes that the idle program takes, most of them code.
const PROGRAM: usize = if IS_WHOLE { 2176 } else { 3584 } * 1024;

/// Bytes of working memory: read buffers, the responses of a turn and their processing, a
/// handshake, unwritten log lines, and fragmentation of the allocator.
const WORK: usize = 1024 * 1024;

/// The smallest possible limit in bytes.
const LEAST: usize = if IS_WHOLE { 4 } else { 6 } * 1024 * 1024;

/// Bytes that a waiting query takes, at the maximum length.
const QUERY: usize = 1024;

/// Bytes that a TCP client takes, plain and over TLS.
const TCP_CLIENT: usize = 1024;
const TLS_CLIENT: usize = 16 * 1024;

/// The memory budget of the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that are left for queries, clients and the cache.
    rest: usize,
}

impl Budget {
    /// Description of the expected value.
    pub const EXPECTED: &str = if IS_WHOLE {
        "a size of 4m or more (without B), like 4m or 16m"
    } else {
        "a size of 6m or more (without B; 4m or more if the program is linked statically)"
    };

    /// Returns the budget of a process with `limit` bytes, unless the limit is too small.
    pub fn of(limit: usize) -> Option<Self> {
        let rest = (limit >= LEAST).then(|| limit - PROGRAM - WORK)?;
        Some(Self { rest })
    }

    /// Returns the limits. `serves_tls` adds the memory of clients over TLS, which take more.
    pub fn limits(self, serves_tls: bool) -> Limits {
        let most = Limits::default();
        let share = |part: usize| self.rest / part;
        Limits {
            inflight: most.inflight.min(share(4) / QUERY),
            tcp_clients: most
                .tcp_clients
                .min(share(8) / client_len(serves_tls))
                .max(4),
            tcp_client_inflight: 16,
            tcp_client_unsent: most.tcp_client_unsent.min(share(8)),
            tcp_clients_held: most.tcp_clients_held.min(share(8)),
            http_clients: 4,
            http_clients_held: 64 * 1024,
            udp_unsent: most.udp_unsent.min(share(16)),
            stream_bytes_per_turn: 16 * 1024,
            addresses_per_upstream: 4,
            links_per_address: 2,
            small_links_per_address: 4,
            handshakes: 2,
            forwarded_query: 512,
            answers_postponed: 2,
            failures_remembered: 64,
            bad_answers_remembered: 64,
            validations: 64,
            validations_held: most.validations_held.min(share(16)),
            loop_tests: 4,
            spare_buffers: 16,
            log_unwritten: 16 * 1024,
            dnstap_unsent: 64 * 1024,
            traces_gathered: 32 * 1024,
            traces_batch: 16 * 1024,
            query_log_unwritten: 32 * 1024,
            ..most
        }
    }

    /// Returns the bytes that `limits` leave for the cache, or `None` if they exceed the budget.
    pub fn cache_size(self, limits: &Limits, serves_tls: bool) -> Option<usize> {
        let clients = limits.tcp_clients * client_len(serves_tls) + limits.tcp_clients_held;
        let others = limits.inflight * QUERY + clients + limits.udp_unsent;
        Some(self.rest.checked_sub(others)?.min(CACHE_MAX))
    }
}

fn client_len(serves_tls: bool) -> usize {
    if serves_tls { TLS_CLIENT } else { TCP_CLIENT }
}

/// Bytes of the largest cache.
pub const CACHE_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_cache_fit_the_budget() {
        assert_eq!(Budget::of(LEAST - 1), None);
        for limit in [LEAST, 2 * LEAST, 10 * LEAST, 500 * LEAST] {
            for serves_tls in [false, true] {
                let budget = Budget::of(limit).unwrap();
                let limits = budget.limits(serves_tls);
                let cache = budget.cache_size(&limits, serves_tls).unwrap();
                assert!(cache >= CACHE_MAX.min(budget.rest / 4), "{limit}: {cache}");
                assert!(limits.inflight >= 100 && limits.tcp_clients >= 4);
                let most = Limits::default();
                assert!(limits.inflight <= most.inflight);
                assert!(limits.tcp_clients <= most.tcp_clients);
            }
        }
    }

    #[test]
    fn explicit_limits_have_to_fit_the_budget() {
        let budget = Budget::of(LEAST).unwrap();
        let mut limits = budget.limits(false);
        limits.inflight = 60_000;
        assert_eq!(budget.cache_size(&limits, false), None);
    }
}
