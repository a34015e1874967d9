//! How long things take at most, and how many or how large they are.

use std::time::Duration;

/// How long a TCP client may be idle: RFC 7766, section 6.2.3 asks for a few seconds.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(10);

/// Durations that rule queries and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From a query to its response, whatever happens.
    pub query: Duration,
    /// From sending a query on a link to looking for another way.
    pub attempt: Duration,
    /// From opening a connection upstream to looking for another way, where it is not known how
    /// long that takes.
    pub opening: Duration,
    /// From sending a query to sending it by another way, too, where it is not known how long
    /// upstream takes.
    pub slow: Duration,
    /// The shortest such time, where it is known.
    pub slow_min: Duration,
    /// The longest that a query waits on a link which answers promptly.
    pub prompt: Duration,
    /// How long the latency of an upstream that is not used is taken for true.
    pub latency_known: Duration,
    /// From opening a connection upstream to its being authenticated.
    pub handshake: Duration,
    /// How long a link without queries is kept.
    pub link_idle: Duration,
    /// How long a link without queries is kept while its upstream has another.
    pub spare_link_idle: Duration,
    /// The first pause after an upstream could not be reached; it doubles from then on.
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// The longest such pause while queries come and no other upstream is left.
    pub backoff_max_asked: Duration,
    /// How long a query that failed is not asked again.
    pub failed_min: Duration,
    /// The longest such time, after many failures.
    pub failed_max: Duration,
    /// From a query to its being answered with what is no longer fresh.
    pub stale: Duration,
    /// How long such an answer is used at once before upstream is asked again.
    pub stale_pause: Duration,
    /// How long a TCP client may be idle while there are slots enough.
    pub client_idle_max: Duration,
    /// How long a TCP client may be idle when every slot is taken.
    pub client_idle_min: Duration,
    /// How long a TCP client may be inactive while the proxy keeps it waiting: its handshake is
    /// queued, or there is no room for its queries.
    pub client_waiting_max: Duration,
    /// How long somebody who asks over HTTP may be idle, which is longer than the pause between
    /// two visits of those who come regularly.
    pub http_idle_max: Duration,
    /// The pause before a reader of dnstap that was not there is tried again.
    pub dnstap_pause: Duration,
    /// From the end of a query that is traced to its being told, with those that end meanwhile.
    pub traces_gather: Duration,
    /// The pause before traces that a collector did not take are posted again, if it asks for no
    /// other.
    pub traces_pause: Duration,
    /// The longest pause that it may ask for.
    pub traces_pause_max: Duration,
    /// From posting traces to their being taken.
    pub traces_answer: Duration,
    /// The pause in accepting connections after an error that is not that of one connection, like a
    /// lack of file descriptors.
    pub accept_pause: Duration,
}

impl Timeouts {
    /// `--timeout` where none is given.
    pub const QUERY: Duration = Duration::from_secs(5);

    /// The durations where a client has its response within `query`. What happens within a query
    /// shrinks with it, but does not grow: a resolver that says nothing for two seconds is as stuck
    /// for a patient client.
    pub fn for_query(query: Duration) -> Self {
        Self {
            query,
            attempt: (query * 2 / 5).min(Duration::from_secs(2)),
            opening: (query / 20).min(Duration::from_millis(250)),
            slow: (query * 3 / 50).min(Duration::from_millis(300)),
            slow_min: (query / 50).min(Duration::from_millis(100)),
            prompt: (query / 500).min(Duration::from_millis(10)),
            latency_known: Duration::from_secs(10),
            handshake: (query * 3 / 5).min(Duration::from_secs(3)),
            link_idle: Duration::from_secs(20),
            spare_link_idle: Duration::from_secs(2),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            backoff_max_asked: Duration::from_millis(900),
            failed_min: Duration::from_secs(1),
            failed_max: Duration::from_secs(30),
            stale: (query * 9 / 25).min(Duration::from_millis(1800)),
            stale_pause: Duration::from_secs(30),
            client_idle_max: CLIENT_IDLE_MAX,
            client_idle_min: Duration::from_millis(200),
            client_waiting_max: CLIENT_IDLE_MAX + query.max(CLIENT_IDLE_MAX),
            http_idle_max: Duration::from_secs(75),
            dnstap_pause: Duration::from_secs(1),
            traces_gather: Duration::from_secs(1),
            traces_pause: Duration::from_secs(1),
            traces_pause_max: Duration::from_secs(60),
            traces_answer: Duration::from_secs(10),
            accept_pause: Duration::from_millis(100),
        }
    }

    /// When a query that came at zero is answered at the latest: a little before the client gives
    /// up, so that the response is there and not on its way.
    pub fn deadline(&self) -> Duration {
        let margin = (self.query / 20).min(Duration::from_millis(100));
        self.query.saturating_sub(margin)
    }
}

/// Bounds of tables, queues and buffers: all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queries that wait for an answer.
    pub inflight: usize,
    /// TCP clients.
    pub tcp_clients: usize,
    /// Queries of one TCP client that wait for an answer; at this number it is not read further.
    pub tcp_client_inflight: usize,
    /// Octets of responses that one TCP client has not taken; beyond it is closed.
    pub tcp_client_unsent: usize,
    /// Messages in a row of one TCP client that are no queries: empty ones, those without a whole
    /// header, responses. At this number it is not read further, and closed.
    pub tcp_client_unasked_messages: usize,
    /// Bytes of one TCP client without a query among them, TLS included; beyond, it is closed. They
    /// are more than the longest message has.
    pub tcp_client_unasked_bytes: usize,
    /// Octets held for all TCP clients: responses not taken and queries not whole. A client that
    /// takes it beyond is closed.
    pub tcp_clients_held: usize,
    /// Connections of those who ask over HTTP how the program is doing.
    pub http_clients: usize,
    /// Octets held for all of them.
    pub http_clients_held: usize,
    /// Octets of responses that a UDP socket has not taken; beyond, responses are dropped.
    pub udp_unsent: usize,
    /// Datagrams taken from one UDP socket before others have their turn.
    pub datagrams_per_turn: usize,
    /// Connections taken from one listener before others have their turn.
    pub accepts_per_turn: usize,
    /// Connections taken from one listener before the program ends: those that the kernel has
    /// completed by then, but not those that come without end.
    pub accepts_at_finish: usize,
    /// Steps of TLS handshakes per turn, those with clients and those with upstreams each: a
    /// signature with an RSA key of 4,096 bits takes 6 ms.
    pub handshake_steps_per_turn: usize,
    /// HTTP requests that are answered per turn.
    pub http_requests_per_turn: usize,
    /// Octets taken from one stream before others have their turn.
    pub stream_octets_per_turn: usize,
    /// Queries in flight on one link before another is opened, unless it answers promptly.
    pub link_inflight: usize,
    /// Queries in flight on one link at most.
    pub link_inflight_max: usize,
    /// Queries in flight on one link beyond that, for clients that have few under way.
    pub link_spare: usize,
    /// Queries of a client that has few under way.
    pub client_inflight_few: usize,
    /// Queries of a link that were given up, whose ids wait for their answers; beyond, the link is
    /// retired.
    pub link_abandoned: usize,
    /// Addresses of one upstream that are used.
    pub addresses_per_upstream: usize,
    /// Connections to one address of an upstream that take queries.
    pub links_per_address: usize,
    /// Connections to one address of an upstream that takes few queries on each.
    pub small_links_per_address: usize,
    /// Datagrams to one address of an upstream that wait for their answer, each on a socket of its
    /// own.
    pub datagrams_per_address: usize,
    /// Datagrams to one address of an upstream beyond that, for clients that have few queries under
    /// way.
    pub datagrams_spare: usize,
    /// Datagrams to one address of an upstream that are probes, beside those.
    pub probe_datagrams_per_address: usize,
    /// Handshakes under way at the same time, all upstreams together.
    pub handshakes: usize,
    /// Of a hundred queries, those that may be sent a second time before the first has failed.
    pub hedges_per_hundred: usize,
    /// Such queries that may be saved up: enough for a link that falls silent with all that it has.
    pub hedges_saved: usize,
    /// Octets of the longest query that is forwarded, padding aside.
    pub forwarded_query: usize,
    /// Answers that are kept for those whose responses have to wait for room.
    pub answers_postponed: usize,
    /// Queries that failed and are remembered.
    pub failures_remembered: usize,
    /// Questions that are remembered because one upstream failed them where another had an answer.
    pub bad_answers_remembered: usize,
    /// Forwarding-loop tests that may be under way.
    pub loop_tests: usize,
    /// Buffers of finished queries that are kept to be used again.
    pub spare_buffers: usize,
    /// Octets of log lines that have not been written; beyond, lines are dropped.
    pub log_unwritten: usize,
    /// Octets for a reader of dnstap that it has not taken; beyond, messages are dropped.
    pub dnstap_unsent: usize,
    /// Octets of traces that have not been posted; beyond, traces are dropped.
    pub traces_gathered: usize,
    /// Octets of traces that are posted without waiting for more.
    pub traces_batch: usize,
    /// Octets of lines of the query log that have not been written; beyond, lines are dropped.
    pub query_log_unwritten: usize,
}

impl Limits {
    /// Times that one query is sent. It sizes an array, so it is not a setting.
    pub const ATTEMPTS: usize = 3;

    /// Attempts of one query that are not counted because the upstream closed the connection after
    /// answers to other queries.
    pub const RETURNS: usize = 32;

    /// Returns how many queries of one client may wait for an answer: a quarter of all.
    pub fn client_inflight(&self) -> usize {
        (self.inflight / 4).max(1)
    }

    /// Returns how many queries may wait for upstreams that have a domain to themselves: a quarter
    /// of all for each pool of them.
    pub fn domain_inflight(&self) -> usize {
        (self.inflight / 4).max(1)
    }

    /// Returns how many queries of one client may wait for such a pool: half of what the client may
    /// have, so that a domain without an answer leaves it room for other names.
    pub fn client_domain_inflight(&self) -> usize {
        (self.inflight / 8).max(1)
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
            stream_octets_per_turn: 256 * 1024,
            link_inflight: 64,
            link_inflight_max: 256,
            link_spare: 64,
            client_inflight_few: 128,
            link_abandoned: 64,
            addresses_per_upstream: 8,
            links_per_address: 4,
            small_links_per_address: 16,
            datagrams_per_address: 64,
            datagrams_spare: 16,
            probe_datagrams_per_address: 2,
            handshakes: 8,
            hedges_per_hundred: 5,
            hedges_saved: 256,
            forwarded_query: 4096,
            answers_postponed: 8,
            failures_remembered: 512,
            bad_answers_remembered: 512,
            loop_tests: 8,
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
        let deadline = |millis| Timeouts::for_query(Duration::from_millis(millis)).deadline();
        assert_eq!(deadline(5000), Duration::from_millis(4900));
        assert_eq!(deadline(500), Duration::from_millis(475));
    }
}
