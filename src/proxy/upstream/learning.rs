//! Learns from closes, answers and errors of an endpoint how to send queries to it.

use std::time::Duration;

use super::capacity::{ConnectionCapacity, ConnectionClose};
use super::link::{Link, Stage};
use super::{EndpointKey, Upstreams};
use crate::base::counted::counted;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::wire::Question;
use crate::wire::query::EdnsLevel;

impl Upstreams {
    /// Records a reply on a connection that has the id of a query and does not match it. Returns
    /// whether the endpoint has sent more mismatched replies since its last answer than are
    /// tolerated.
    pub(in crate::proxy) fn on_unmatched(&mut self, key: EndpointKey, now: Instant) -> bool {
        self.endpoint_mut(key).on_unmatched(now)
    }

    /// Reserves a probe of an endpoint in outage. Returns whether it may be sent now.
    pub(super) fn reserve_outage_probe(&mut self, key: EndpointKey, now: Instant) -> bool {
        self.endpoint_mut(key).reserve_outage_probe(now)
    }

    /// Records that an upstream closed a link that was up. A close of an idle link reveals the idle
    /// timeout; a close right after an answer reveals the number of queries per connection, unless
    /// it `may_be_due_to_oldest`.
    pub(in crate::proxy) fn on_closed(
        &mut self,
        link: &Link,
        may_be_due_to_oldest: bool,
        now: Instant,
    ) {
        let is_idle = link.waited_for() == 0;
        let idle = if is_idle {
            now - link.idle_since()
        } else {
            Duration::ZERO
        };
        let endpoint = self.endpoint_mut(link.endpoint);
        if link.sent().is_empty() {
            endpoint.idle_timeout.on_closed(idle, now);
        }
        if !may_be_due_to_oldest {
            self.learn_queries_max(link.endpoint, link.close_at(now), now);
        }
    }

    /// Returns whether the oldest query on a link that ended may be the reason for its end. It is
    /// sent alone then: its answer shows that the connection was closed because of the number of
    /// its queries. If many queries wait that were not sent before the newest answered one, the
    /// oldest one is not more likely than others.
    pub(super) fn may_be_due_to_oldest(&self, link: &Link, now: Instant) -> bool {
        const WAITING_MAX: usize = 16;
        let capacity = &self.endpoint(link.endpoint).capacity;
        let last_answer = link.last_answer();
        let is_busy = last_answer.is_some_and(|at| now - at < ConnectionCapacity::SOON);
        is_busy
            && link.waited_for() > 0
            && link.waiting_behind_answers() <= WAITING_MAX
            && !capacity.is_limited(now)
            && capacity.connections_max(now).is_none()
    }

    /// Learns the number of queries per connection from a close that no query is the reason for. A
    /// server of HTTP/2 announces such a close (RFC 9113, section 6.8); otherwise it probably has
    /// another reason, such as too many connections of the client.
    pub(in crate::proxy) fn learn_queries_max(
        &mut self,
        endpoint: EndpointKey,
        close: ConnectionClose,
        now: Instant,
    ) {
        let endpoint = self.endpoint_mut(endpoint);
        let before = endpoint.capacity.queries_max(now);
        endpoint.capacity.on_closed(close, now);
        let queries = endpoint.capacity.queries_max(now);
        if queries < before {
            let label = &endpoint.label();
            let queries = counted(queries, "query", "queries");
            log::info!(
                "upstream {label}: closes connections after {queries}; sending at most {queries} \
                 per connection"
            );
        }
        let links = endpoint.links.clone();
        for key in links {
            if let Some(link) = self.link_mut(key).filter(|link| link.scheme != Scheme::Udp) {
                link.limit_queries(queries);
            }
        }
    }

    /// Records that an upstream closed a link, already removed, without an answer. Returns whether
    /// the upstream limits the connections of a client: it keeps others that work, and has not
    /// recently answered on one more.
    pub(in crate::proxy) fn record_turned_away(&mut self, link: &Link, now: Instant) -> bool {
        let endpoint = self.endpoint(link.endpoint);
        let is_isolated = |key| endpoint.isolated.iter().any(|(link, _)| *link == key);
        let others = self.links().filter(|(key, other)| {
            other.endpoint == link.endpoint
                && other.scheme == link.scheme
                && other.is_working()
                && !is_isolated(*key)
        });
        let others = others.count();
        if others == 0 || endpoint.capacity.has_answered_on(others + 1, now) {
            return false;
        }
        let capacity = &mut self.endpoint_mut(link.endpoint).capacity;
        capacity.on_turned_away(others, now);
        true
    }

    /// Records that an endpoint refused a request over HTTP/2 while this number of older requests
    /// was unanswered on the same connection.
    pub(super) fn on_stream_refused(&mut self, key: EndpointKey, older: usize, now: Instant) {
        let endpoint = self.endpoint_mut(key);
        if endpoint.capacity.on_stream_refused(older, now) {
            let label = &endpoint.label();
            log::info!(
                "upstream {label}: refuses concurrent requests; limiting them to {older} per \
                 connection"
            );
        }
    }

    /// Records the first answer on a connection.
    pub(super) fn on_first_answer(&mut self, key: EndpointKey, scheme: Scheme, now: Instant) {
        let answering = self.answering(key, scheme);
        self.endpoint_mut(key).capacity.on_answering(answering, now);
    }

    /// Returns the number of connections to an endpoint that have answered and are not silent.
    fn answering(&self, key: EndpointKey, scheme: Scheme) -> usize {
        let links = self.links().filter(|(_, link)| {
            link.endpoint == key && link.scheme == scheme && link.has_answered()
        });
        links.filter(|(_, link)| link.is_working()).count()
    }

    /// Records how many connections to an endpoint are up.
    pub(super) fn on_connected(&mut self, key: EndpointKey, scheme: Scheme) {
        let links = self.links_of(self.endpoint(key), scheme);
        let up = links.filter(|(_, link)| link.stage == Stage::Up).count();
        self.endpoint_mut(key).capacity.on_connected(up);
    }

    /// Records that an endpoint left a query unanswered for long although it answered a query that
    /// was sent at the same time or later. Over HTTP/2, which has a stream for each query, this
    /// does not mean that the endpoint reads one query at a time.
    pub(in crate::proxy) fn on_pipelined_silence(
        &mut self,
        key: EndpointKey,
        is_overdue: bool,
        now: Instant,
    ) {
        let endpoint = self.endpoint_mut(key);
        if endpoint.scheme != Scheme::Https
            && endpoint.capacity.on_pipelined_silence(is_overdue, now)
        {
            let label = &endpoint.label();
            log::debug!(
                "upstream {label}: a pipelined query was not answered; sending one query at a \
                 time"
            );
        }
    }

    /// Records that an endpoint answered a query with a reduced level of EDNS after it had refused
    /// a higher level.
    pub(in crate::proxy) fn on_reduced_answer(
        &mut self,
        key: EndpointKey,
        edns: EdnsLevel,
        now: Instant,
    ) {
        let endpoint = self.endpoint_mut(key);
        if endpoint.edns.on_reduced_answer(edns, now) {
            let label = &endpoint.label();
            let (what, pronoun) = match edns {
                EdnsLevel::NoOptions => ("EDNS options", "them"),
                EdnsLevel::Full | EdnsLevel::Off => ("EDNS", "it"),
            };
            log::info!("upstream {label}: rejects {what}; querying without {pronoun} for 15 min");
        }
    }

    /// Records whether an endpoint answers on connections and not in datagrams.
    pub(in crate::proxy) fn set_datagrams_lost(
        &mut self,
        key: EndpointKey,
        are_lost: bool,
        now: Instant,
    ) {
        self.endpoint_mut(key).set_datagrams_lost(are_lost, now);
    }

    /// Records an error of an endpoint.
    pub(in crate::proxy) fn on_error(
        &mut self,
        key: EndpointKey,
        question: Question<'_>,
        now: Instant,
    ) {
        self.endpoint_mut(key).health.on_error(question, now);
    }

    /// Records that a question failed at an endpoint and was answered by another upstream. Returns
    /// whether the endpoint has an outage: one question, or one type, is not enough.
    pub(in crate::proxy) fn on_bad_answer(
        &mut self,
        key: EndpointKey,
        question: Question<'_>,
        now: Instant,
    ) -> bool {
        self.endpoint_mut(key).health.on_bad_answer(question, now)
    }
}
