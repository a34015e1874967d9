//! What follows from `--memory-limit`: how large everything may get for all of it to fit.
//!
//! The program itself takes its part, and so does what it works with from turn to turn. Of what is
//! left, queries that wait, TCP clients and what is held for them, and responses that a UDP socket
//! has not taken get a share each, though no more than without a limit; the cache gets the rest.

use super::Limits;

/// Whether the C library is a part of the program, which takes less then.
const IS_WHOLE: bool = !cfg!(target_env = "gnu");

/// Octets that the program takes when it has nothing to do: most of that is code.
const PROGRAM: usize = if IS_WHOLE { 2176 } else { 3584 } * 1024;

/// Octets that it works with: what a read takes, the responses of a turn and what becomes of them,
/// a handshake, lines that wait to be written, and what the allocator has between all that.
const WORK: usize = 1024 * 1024;

/// Octets of the least that can be asked for.
const LEAST: usize = if IS_WHOLE { 4 } else { 6 } * 1024 * 1024;

/// Octets that a query takes while it waits, as long as it may be.
const QUERY: usize = 1024;

/// Octets that a TCP client takes, in the clear and under TLS.
const TCP_CLIENT: usize = 1024;
const TLS_CLIENT: usize = 16 * 1024;

/// The limits where the whole process is to stay within some octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Octets that are left for queries, clients and the cache.
    rest: usize,
}

impl Budget {
    /// What has to be asked for.
    pub const EXPECTED: &str = if IS_WHOLE {
        "a size from 4m on, like 4m or 16m"
    } else {
        "a size from 6m on (from 4m on where the program is linked statically)"
    };

    /// Of so many octets for the process, if that is enough.
    pub fn of(limit: usize) -> Option<Self> {
        let rest = (limit >= LEAST).then(|| limit - PROGRAM - WORK)?;
        Some(Self { rest })
    }

    /// The limits. `serves_tls` says whether clients come under TLS, who take more.
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
            stream_octets_per_turn: 16 * 1024,
            addresses_per_upstream: 4,
            links_per_address: 2,
            small_links_per_address: 4,
            handshakes: 2,
            forwarded_query: 512,
            answers_postponed: 2,
            failures_remembered: 64,
            bad_answers_remembered: 64,
            loop_tests: 2,
            spare_buffers: 16,
            log_unwritten: 16 * 1024,
            dnstap_unsent: 64 * 1024,
            traces_gathered: 32 * 1024,
            traces_batch: 16 * 1024,
            query_log_unwritten: 32 * 1024,
            ..most
        }
    }

    /// Octets for the cache beside such limits; `None` if they go beyond what there is.
    pub fn cache_size(self, limits: &Limits, serves_tls: bool) -> Option<usize> {
        let clients = limits.tcp_clients * client_len(serves_tls) + limits.tcp_clients_held;
        let others = limits.inflight * QUERY + clients + limits.udp_unsent;
        Some(self.rest.checked_sub(others)?.min(CACHE_MAX))
    }
}

fn client_len(serves_tls: bool) -> usize {
    if serves_tls { TLS_CLIENT } else { TCP_CLIENT }
}

/// Octets of the largest cache.
pub const CACHE_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all_of_it() {
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
    fn what_is_asked_for_besides_has_to_fit() {
        let budget = Budget::of(LEAST).unwrap();
        let mut limits = budget.limits(false);
        limits.inflight = 60_000;
        assert_eq!(budget.cache_size(&limits, false), None);
    }
}
