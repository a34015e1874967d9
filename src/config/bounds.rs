//! Timeouts, and limits of tables, queues and buffers.

use std::time::Duration;

/// Idle timeout of a TCP client: RFC 7766, section 6.2.3 asks for a few seconds.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(10);

/// Maximum number of requests in flight on an HTTP/2 connection to an upstream.
pub const HTTP2_STREAMS_MAX: usize = 100;

/// Timeouts of queries and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Time from the query of a client to its response, in every case.
    pub query: Duration,
    /// Time from the arrival of a query to the latest response: shortly before the timeout of the
    /// client, so that the response arrives in time.
    pub deadline: Duration,
    /// Time from sending a query on a link to another attempt.
    pub attempt: Duration,
    /// Time from opening an upstream connection to the use of another endpoint, while the usual
    /// handshake time of the endpoint is unknown.
    pub opening: Duration,
    /// Time from sending a query to its hedge, while the latency of the endpoint is unknown.
    pub slow: Duration,
    /// Minimum time before a hedge if the latency is known.
    pub slow_min: Duration,
    /// Maximum time that a query is in flight on a link that answers promptly.
    pub prompt: Duration,
    /// Time for which the measured latency of an unused upstream is valid.
    pub latency_known: Duration,
    /// Timeout of an upstream handshake, from opening the connection.
    pub handshake: Duration,
    /// Time for which a link without queries is kept.
    pub link_idle: Duration,
    /// Time for which a link without queries is kept while its endpoint has another link.
    pub spare_link_idle: Duration,
    /// The first back-off after an upstream could not be reached; it doubles with each failure.
    pub backoff_min: Duration,
    /// Maximum back-off.
    pub backoff_max: Duration,
    /// Maximum back-off while queries arrive and no other upstream is available.
    pub backoff_max_asked: Duration,
    /// Time for which a failure is cached at first (RFC 9520).
    pub failed_min: Duration,
    /// Maximum time for which a failure is cached, after many failures.
    pub failed_max: Duration,
    /// Delay from a query to its stale answer if there is no fresh answer by then (serve-stale).
    pub stale_delay: Duration,
    /// Time for which a stale answer is served at once before the upstream is queried again.
    pub stale_pause: Duration,
    /// Idle timeout of a TCP client while enough slots are free.
    pub client_idle_max: Duration,
    /// Idle timeout of a TCP client when every slot is taken.
    pub client_idle_min: Duration,
    /// Timeout of a TCP client that the proxy keeps waiting: its handshake is queued, or there is
    /// no room for its queries.
    pub client_waiting_max: Duration,
    /// Additional idle time of an HTTP client after a request, beyond the idle timeout of a TCP
    /// client: together, they exceed the interval at which a monitoring system scrapes.
    pub http_kept: Duration,
    /// Pause before a new connection to an unavailable dnstap reader.
    pub dnstap_pause: Duration,
    /// Time from the end of a traced query to its export, in one batch with later ones.
    pub traces_gather: Duration,
    /// Pause before the export of traces is retried, unless the collector asks for another one.
    pub traces_pause: Duration,
    /// Maximum pause that a collector can ask for.
    pub traces_pause_max: Duration,
    /// Time within which a collector has to accept traces.
    pub traces_answer: Duration,
    /// Pause in accepting connections after an error that does not concern a single connection,
    /// such as a lack of file descriptors.
    pub accept_pause: Duration,
}

impl Timeouts {
    /// The default of `--timeout`.
    pub const QUERY: Duration = Duration::from_secs(5);

    /// Returns the timeouts for a response within `query`. Timeouts within a query shrink with
    /// `query`, and those for answers do not grow: a resolver that is silent for two seconds is
    /// unresponsive, even for a client with a long timeout. The limit of a handshake grows with
    /// `query`, since users raise `--timeout` for slow links.
    pub fn for_query(query: Duration) -> Self {
        Self {
            query,
            deadline: query.saturating_sub((query / 20).min(Duration::from_millis(100))),
            attempt: (query * 2 / 5).min(Duration::from_secs(2)),
            opening: (query / 20).min(Duration::from_millis(250)),
            slow: (query * 3 / 50).min(Duration::from_millis(300)),
            slow_min: (query / 50).min(Duration::from_millis(100)),
            prompt: (query / 500).min(Duration::from_millis(10)),
            latency_known: Duration::from_secs(10),
            handshake: query * 3 / 5,
            link_idle: Duration::from_secs(20),
            spare_link_idle: Duration::from_secs(2),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            backoff_max_asked: Duration::from_millis(900),
            failed_min: Duration::from_secs(1),
            failed_max: Duration::from_secs(30),
            stale_delay: (query * 9 / 25).min(Duration::from_millis(1800)),
            stale_pause: Duration::from_secs(30),
            client_idle_max: CLIENT_IDLE_MAX,
            client_idle_min: Duration::from_millis(200),
            client_waiting_max: CLIENT_IDLE_MAX + query.max(CLIENT_IDLE_MAX),
            http_kept: Duration::from_secs(65),
            dnstap_pause: Duration::from_secs(1),
            traces_gather: Duration::from_secs(1),
            traces_pause: Duration::from_secs(1),
            traces_pause_max: Duration::from_secs(60),
            traces_answer: Duration::from_secs(10),
            accept_pause: Duration::from_millis(100),
        }
    }
}

/// The limits of all tables, queues and buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queries that wait for an answer.
    pub inflight: usize,
    /// TCP clients.
    pub tcp_clients: usize,
    /// Unanswered queries of one TCP client; at this number the client is not read.
    pub tcp_client_inflight: usize,
    /// Bytes of responses that one TCP client has not read; above it the client is closed.
    pub tcp_client_unsent: usize,
    /// Consecutive messages of one TCP client that are not queries: empty messages, truncated
    /// headers and responses. At this number the client is not read further, and closed.
    pub tcp_client_unasked_messages: usize,
    /// Bytes from one TCP client, TLS included, without a query; above it the client is closed. The
    /// limit exceeds the length of the longest message.
    pub tcp_client_unasked_bytes: usize,
    /// Bytes held for all TCP clients: unsent responses and incomplete queries. A client that
    /// exceeds the limit is closed.
    pub tcp_clients_held: usize,
    /// Connections of HTTP clients.
    pub http_clients: usize,
    /// Bytes held for all HTTP clients.
    pub http_clients_held: usize,
    /// Bytes of responses that a UDP socket has not sent; above it responses are dropped.
    pub udp_unsent: usize,
    /// Datagrams read from one UDP socket before other sockets have their turn.
    pub datagrams_per_turn: usize,
    /// Connections accepted from one listener before other sockets have their turn.
    pub accepts_per_turn: usize,
    /// Connections accepted from one listener before the program ends: connections that the kernel
    /// has already completed, but not an endless stream of new ones.
    pub accepts_at_finish: usize,
    /// Steps of TLS handshakes per turn, with clients and with upstreams each: a signature with an
    /// RSA key of 4,096 bits takes 6 ms.
    pub handshake_steps_per_turn: usize,
    /// HTTP requests answered per turn.
    pub http_requests_per_turn: usize,
    /// Bytes read from one stream before other sockets have their turn.
    pub stream_bytes_per_turn: usize,
    /// Queries in flight on one link before another link is opened, unless the link answers
    /// promptly.
    pub link_inflight: usize,
    /// Maximum number of queries in flight on one link.
    pub link_inflight_max: usize,
    /// Additional queries in flight on one link for clients with few unanswered queries.
    pub link_spare: usize,
    /// Number of unanswered queries up to which a client has few.
    pub client_inflight_few: usize,
    /// Abandoned queries of a link with ids reserved for their replies; above it the link is
    /// retired.
    pub link_abandoned: usize,
    /// Addresses of one upstream that are used.
    pub addresses_per_upstream: usize,
    /// Connections to one endpoint that take queries.
    pub links_per_address: usize,
    /// Connections to one endpoint that takes few queries on each.
    pub small_links_per_address: usize,
    /// Additional connections to one endpoint, each for one query that may be the reason why other
    /// connections ended.
    pub isolated_links_per_address: usize,
    /// Unanswered datagrams to one endpoint, each on its own socket.
    pub datagrams_per_address: usize,
    /// Additional datagrams to one endpoint for clients with few unanswered queries.
    pub datagrams_spare: usize,
    /// Additional datagrams to one endpoint that are probes.
    pub probe_datagrams_per_address: usize,
    /// Concurrent upstream handshakes.
    pub handshakes: usize,
    /// Queries of a hundred that may be hedged.
    pub hedges_per_hundred: usize,
    /// Hedges that can be saved: enough for all queries of a link that falls silent.
    pub hedges_saved: usize,
    /// Bytes of the longest query that is forwarded, without padding.
    pub forwarded_query: usize,
    /// Answers kept for parked clients until there is room for their responses.
    pub answers_postponed: usize,
    /// Entries of the failure cache (RFC 9520).
    pub failures_remembered: usize,
    /// Remembered questions that one upstream failed and another one answered.
    pub bad_answers_remembered: usize,
    /// Remembered questions on which an upstream ended a connection.
    pub suspects_remembered: usize,
    /// Answers whose signatures are verified at once (DNSSEC), at most half of them for clients.
    /// The limit also applies to the answers that wait for DS or DNSKEY records, and to the
    /// queries for these records.
    pub validations: usize,
    /// Bytes of all answers that are verified at once, at most half of them for clients, and half
    /// of these for large answers; and the same for the answers that wait for questions.
    pub validations_held: usize,
    /// Unknown zones between a trust anchor and the name of a client's query.
    pub validation_depth: u8,
    /// Cost of the signatures that are verified per turn, in units of an RSA-2048 verification
    /// (20 µs on x86-64): other queries wait no longer than a millisecond.
    pub signatures_per_turn: u32,
    /// Concurrent tests for forwarding loops.
    pub loop_tests: usize,
    /// Buffers of finished queries that are kept for reuse.
    pub spare_buffers: usize,
    /// Bytes of unwritten log lines; above it lines are dropped.
    pub log_unwritten: usize,
    /// Bytes that the dnstap reader has not read; above it messages are dropped.
    pub dnstap_unsent: usize,
    /// Bytes of traces that are not exported; above it traces are dropped.
    pub traces_gathered: usize,
    /// Bytes of traces that are exported without waiting for more.
    pub traces_batch: usize,
    /// Bytes of unwritten query log lines; above it lines are dropped.
    pub query_log_unwritten: usize,
}

impl Limits {
    /// Attempts per query. The number sizes an array, so it is not a setting.
    pub const ATTEMPTS: u8 = 3;

    /// Attempts of one query that do not count as tries, because the upstream closed the connection
    /// after answers to other queries, or for a similar reason.
    pub const UNCOUNTED_ATTEMPTS: u8 = 32;

    /// Returns how many unanswered queries one client may have: a quarter of all.
    pub fn client_inflight(&self) -> usize {
        (self.inflight / 4).max(1)
    }

    /// Returns how many queries may wait for a pool with a domain of its own: a quarter of all for
    /// each such pool.
    pub fn domain_inflight(&self) -> usize {
        (self.inflight / 4).max(1)
    }

    /// Returns how many queries of one client may wait for such a pool: a quarter of the total of
    /// the client.
    pub fn client_domain_inflight(&self) -> usize {
        (self.inflight / 16).max(1)
    }

    /// Returns how many queries of one client may wait for all such pools together: three quarters
    /// of the total of the client, so that unanswered domains leave room for other names.
    pub fn client_domains_inflight(&self) -> usize {
        (self.inflight * 3 / 16).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflight: 4096,
            tcp_clients: 256,
            tcp_client_inflight: 64,
            tcp_client_unsent: 1024 * 1024,
            tcp_client_unasked_messages: 8,
            tcp_client_unasked_bytes: 256 * 1024,
            tcp_clients_held: 4 * 1024 * 1024,
            http_clients: 16,
            http_clients_held: 1024 * 1024,
            udp_unsent: 256 * 1024,
            datagrams_per_turn: 64,
            accepts_per_turn: 16,
            accepts_at_finish: 1024,
            handshake_steps_per_turn: 1,
            http_requests_per_turn: 1,
            stream_bytes_per_turn: 256 * 1024,
            link_inflight: 64,
            link_inflight_max: 256,
            link_spare: 64,
            client_inflight_few: 128,
            link_abandoned: 64,
            addresses_per_upstream: 8,
            links_per_address: 4,
            small_links_per_address: 16,
            isolated_links_per_address: 8,
            datagrams_per_address: 64,
            datagrams_spare: 16,
            probe_datagrams_per_address: 3,
            handshakes: 8,
            hedges_per_hundred: 5,
            hedges_saved: 256,
            forwarded_query: 4096,
            answers_postponed: 8,
            failures_remembered: 512,
            bad_answers_remembered: 512,
            suspects_remembered: 256,
            validations: 512,
            validations_held: 1024 * 1024,
            validation_depth: 8,
            signatures_per_turn: 16,
            loop_tests: 16,
            spare_buffers: 64,
            log_unwritten: 64 * 1024,
            dnstap_unsent: 1024 * 1024,
            traces_gathered: 256 * 1024,
            traces_batch: 64 * 1024,
            query_log_unwritten: 256 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_leaves_before_the_client_gives_up() {
        let deadline = |millis| Timeouts::for_query(Duration::from_millis(millis)).deadline;
        assert_eq!(deadline(5000), Duration::from_millis(4900));
        assert_eq!(deadline(500), Duration::from_millis(475));
    }

    #[test]
    fn handshake_takes_longer_if_the_client_waits_longer() {
        let handshake = |seconds| Timeouts::for_query(Duration::from_secs(seconds)).handshake;
        assert_eq!(handshake(5), Duration::from_secs(3));
        assert_eq!(handshake(20), Duration::from_secs(12));
    }
}
