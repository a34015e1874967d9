//! Suspects: questions that may be the reason why an upstream ends connections.
//!
//! A worker of an upstream may crash on one name, and a middlebox may end connections on one. Each
//! other query on such a connection is lost with it. The proxy cannot see which query was the
//! reason, so a query that was outstanding on two ended links is a suspect: it is sent alone on an
//! isolated link, which takes no other query. The oldest query on a busy link is the most likely
//! reason: it is a suspect after the first end, if the endpoint has recently answered on two
//! connections at the same time.
//!
//! ```text
//!              a link ends             another one ends
//!   unsuspected ------------> involved ----------------> suspect
//!      |                                                    ^
//!      '--- a busy link ends, with this query as its oldest '
//!
//!              its isolated link ends
//!   suspect  -------------------------> its question is remembered: later queries start alone
//! ```
//!
//! An answer makes a suspect unsuspected and removes the remembered question, which also expires.
//!
//! The end of a link that a question explains does not count as an outage of the endpoint and sets
//! no limit for its connections. `upstream/health.rs` decides when there are too many such
//! questions.

use std::time::Duration;

use super::capacity::ConnectionClose;
use super::link::{Link, Sent, Stage};
use super::{EndpointKey, LinkChoice, LinkKey, Upstreams};
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::{Limits, Scheme};
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Destination};
use crate::proxy::exchange::preferences::UpstreamSet;
use crate::proxy::exchange::retry::BadAnswer;
use crate::proxy::keys::{ExchangeKey, UpstreamIndex};
use crate::proxy::question_table::QuestionTable;
use crate::proxy::upstream::endpoint::Endpoint;
use crate::wire::Question;

/// The questions that recently ended an isolated link.
#[derive(Debug)]
pub(in crate::proxy) struct Suspects {
    suspects: QuestionTable<Suspect>,
}

#[derive(Debug)]
struct Suspect {
    /// The upstreams that ended a link.
    upstreams: UpstreamSet,
    until: Instant,
}

impl Suspects {
    /// Time for which a question is remembered after it ended a link.
    const REMEMBERED: Duration = Duration::from_secs(600);

    /// The time between removals of expired entries.
    const SWEEP_PAUSE: Duration = Duration::from_secs(60);

    pub(in crate::proxy) fn new(limits: &Limits) -> Self {
        Self {
            suspects: QuestionTable::new(limits.suspects_remembered),
        }
    }

    /// Records that a question ended an isolated link. Returns whether the question is new. A full
    /// table ignores new questions.
    pub(in crate::proxy) fn add(
        &mut self,
        question: Question<'_>,
        upstream: UpstreamIndex,
        now: Instant,
    ) -> bool {
        let until = now + Self::REMEMBERED;
        if let Some(suspect) = self.suspects.get_mut(question) {
            suspect.upstreams.insert(upstream);
            suspect.until = until;
            return false;
        }
        let upstreams = UpstreamSet::of(upstream);
        let suspect = Suspect { upstreams, until };
        self.suspects
            .insert(question, suspect, |one| now < one.until)
    }

    /// Returns whether no question is remembered.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    /// Returns the upstreams that ended an isolated link with a question recently.
    pub(in crate::proxy) fn recall(
        &mut self,
        question: Question<'_>,
        now: Instant,
    ) -> Option<UpstreamSet> {
        let is_live = |suspect: &Suspect| now < suspect.until;
        self.suspects.sweep_every(Self::SWEEP_PAUSE, now, is_live);
        let suspect = self.suspects.get_mut(question)?;
        (now < suspect.until).then_some(suspect.upstreams)
    }

    /// Records that an upstream answered a question.
    pub(in crate::proxy) fn on_answer(&mut self, question: Question<'_>, upstream: UpstreamIndex) {
        self.suspects
            .remove_if(question, |suspect| suspect.upstreams.contains(upstream));
    }

    /// Forgets all questions after the outage of an endpoint has ended: that outage may have been
    /// the reason for the ends of their links.
    pub(in crate::proxy) fn forget(&mut self) {
        self.suspects.sweep(|_| false);
    }
}

/// The presumed reason why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum EndReason {
    /// The peer takes no more connections, or the proxy retired the link.
    Surplus,
    /// A query on the link.
    Query,
    /// The endpoint.
    Endpoint,
}

/// The end of a link.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct LinkEnd {
    pub(super) reason: EndReason,
    pub(super) kind: FailureKind,
    /// The link was isolated.
    pub(super) is_isolated: bool,
    /// The oldest query may be the reason ([`Upstreams::may_be_due_to_oldest`]).
    pub(super) may_be_due_to_oldest: bool,
}

impl LinkEnd {
    /// The end of a link that the proxy retired.
    pub(in crate::proxy) const RETIRED: Self = Self {
        reason: EndReason::Surplus,
        kind: FailureKind::Closed,
        is_isolated: false,
        may_be_due_to_oldest: false,
    };
}

impl Link {
    /// Returns whether the peer ended this link, which was up, in a way that a question may be the
    /// reason for: it closed the connection or sent a malformed frame.
    pub(super) fn is_ended_by_peer(&self, kind: FailureKind) -> bool {
        self.stage == Stage::Up
            && self.scheme != Scheme::Udp
            && matches!(
                kind,
                FailureKind::Closed | FailureKind::Protocol | FailureKind::Http2 | FailureKind::Tls
            )
    }
}

impl Upstreams {
    /// Adds an isolated link that is to be opened for one query of this exchange.
    pub(in crate::proxy) fn open_isolated(
        &mut self,
        (key, scheme): (EndpointKey, Scheme),
        exchange: ExchangeKey,
        now: Instant,
    ) -> (LinkKey, Destination) {
        let (link_key, destination) = self.open(key, scheme, now);
        let endpoint = self.endpoint_mut(key);
        endpoint.links.retain(|link| *link != link_key);
        endpoint.isolated.push((link_key, exchange));
        let unused_max = self.timeouts.spare_link_idle;
        if let Some(link) = self.link_mut(link_key) {
            link.limit_queries(1);
            // If the exchange ends before the link is up, the link is closed soon.
            link.on_keepalive(unused_max);
        }
        (link_key, destination)
    }

    /// Returns whether a link is isolated.
    pub(super) fn is_isolated(&self, key: LinkKey) -> bool {
        self.link(key).is_some_and(|link| {
            let isolated = &self.endpoint(link.endpoint).isolated;
            isolated.iter().any(|(isolated, _)| *isolated == key)
        })
    }

    /// Chooses the link for a suspect at an endpoint with which a connection may be opened if
    /// `may_be_opened`. Returns an error if the endpoint takes no further connection, so that the
    /// suspect has to use a link of others.
    pub(super) fn choose_isolated_link(
        &self,
        (key, endpoint): (EndpointKey, &Endpoint),
        scheme: Scheme,
        exchange: ExchangeKey,
        may_be_opened: bool,
        now: Instant,
    ) -> Result<Option<LinkChoice>, NoFurtherConnection> {
        let own = endpoint.isolated.iter();
        let own = own.filter(|(_, owner)| *owner == exchange);
        for link_key in own.map(|(link, _)| *link) {
            let Some(link) = self.link(link_key).filter(|link| link.scheme == scheme) else {
                continue;
            };
            if link.takes_queries() {
                return Ok(Some(LinkChoice::Link(link_key)));
            }
            if link.stage == Stage::Opening && !link.is_late() {
                return Ok(Some(LinkChoice::Soon));
            }
        }
        let open = endpoint.links.len() + endpoint.isolated.len();
        let capacity = &endpoint.capacity;
        let connections_max = capacity
            .connections_max(now)
            .filter(|_| capacity.is_limited(now));
        if connections_max.is_some_and(|connections_max| open >= connections_max) {
            return Err(NoFurtherConnection);
        }
        let has_room = endpoint.isolated.len() < self.limits.isolated_links_per_address
            && self.links_opening < self.limits.handshakes;
        Ok(match (may_be_opened, has_room) {
            (true, true) => Some(LinkChoice::OpenIsolated(key, scheme)),
            (true, false) => Some(LinkChoice::Soon),
            (false, _) => None,
        })
    }

    /// Returns whether a link that other queries use beside this one has answered and is not
    /// silent.
    pub(super) fn has_working_link(&self, key: LinkKey, link: &Link) -> bool {
        let mut others = self.links_of(self.endpoint(link.endpoint), link.scheme);
        others.any(|(other_key, other)| {
            other_key != key && other.has_answered() && other.is_working()
        })
    }

    /// Forgets the connection limits learned since `since`: a suspect query probably caused them.
    fn forget_limits(&mut self, key: EndpointKey, since: Instant) {
        self.endpoint_mut(key).capacity.forget_since(since);
    }
}

/// An endpoint takes no further connection.
#[derive(Debug)]
pub(super) struct NoFurtherConnection;

impl Proxy {
    /// Returns the presumed reason for the end of a link, which has been removed.
    pub(super) fn end_reason(
        &mut self,
        (key, link): (LinkKey, &Link),
        kind: FailureKind,
        is_isolated: bool,
        now: Instant,
    ) -> EndReason {
        let is_closed = kind == FailureKind::Closed && link.scheme != Scheme::Udp;
        if is_closed
            && !is_isolated
            && !link.has_answered()
            && self.upstreams.record_turned_away(link, now)
        {
            return EndReason::Surplus;
        }
        let is_working = self.upstreams.has_working_link(key, link);
        let exchanges = &self.exchanges;
        let waiting = link.sent().iter().filter_map(Sent::exchange);
        let names = waiting.filter_map(|key| Some(exchanges.get(key)?.query.question().name()));
        // Shared links show whether the outage continues.
        let has_outage = self.upstreams.has_outage(link.endpoint);
        let works_otherwise = is_working
            || if is_isolated {
                has_outage
            } else {
                link.has_answered()
            };
        let capacity = &self.upstreams.endpoint(link.endpoint).capacity;
        let is_limited = capacity.is_limited(now) && !is_isolated;
        let health = &mut self.upstreams.endpoint_mut(link.endpoint).health;
        if link.is_ended_by_peer(kind)
            && !is_limited
            && health.on_link_ended(names, works_otherwise)
        {
            EndReason::Query
        } else {
            EndReason::Endpoint
        }
    }

    /// Returns whether the end of a link costs its queries no try, so that each may be tried alone
    /// and at another upstream. With a single upstream, the tries limit the number of connections.
    pub(super) fn is_ambiguous(&self, key: ExchangeKey, link: &Link, end: LinkEnd) -> bool {
        let ended = UpstreamSet::of(self.upstreams.endpoint(link.endpoint).upstream);
        !end.is_isolated && !self.upstreams.is_covered(self.exchanges[key].pool, ended)
    }

    /// Probes an endpoint on one more connection after it closed a busy one, unless it has recently
    /// answered on two at the same time: then the next suspect can be sent alone at once.
    pub(super) fn probe_second_connection(&mut self, key: EndpointKey, cx: &mut Cx<'_>) {
        let endpoint = self.upstreams.endpoint(key);
        let upstream = endpoint.upstream;
        if !endpoint.capacity.has_answered_on(2, cx.now)
            && let Some(pool) = self.upstreams.pools_of(upstream).first().copied()
            && self.failures.reserve_probe(pool, cx.now)
        {
            self.start_probe(pool, upstream, cx);
        }
    }

    /// Probes an endpoint that ended an isolated link and has not answered since `since`: the
    /// answer distinguishes a question that ends links from an endpoint that ends every link.
    pub(super) fn probe_if_silent(&mut self, key: EndpointKey, since: Instant, cx: &mut Cx<'_>) {
        let endpoint = self.upstreams.endpoint(key);
        let (upstream, is_silent) = (endpoint.upstream, endpoint.is_silent_since(since));
        let pool = self.upstreams.pools_with(key).first().copied();
        if let Some(pool) = pool.filter(|_| is_silent)
            && self.failures.reserve_probe(pool, cx.now)
        {
            self.start_probe(pool, upstream, cx);
        }
    }

    /// Records that a query, sent at `sent_at`, may be the reason for the end of a link. A query
    /// that is a suspect now is sent alone from now on; with its last try, or after it ended an
    /// isolated link, it is sent to another upstream if there is one.
    pub(super) fn on_link_ended(
        &mut self,
        key: ExchangeKey,
        link: &Link,
        sent_at: Instant,
        end: LinkEnd,
        now: Instant,
    ) {
        let endpoint = link.endpoint;
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let isolated_at = self.exchanges[key].preferences.isolated_at;
        if !isolated_at.contains(upstream) && !self.becomes_suspect(key, link, end, now) {
            return;
        }
        let exchange = &mut self.exchanges[key];
        let label = self.upstreams.endpoint(endpoint).label();
        if !end.is_isolated || end.reason != EndReason::Query {
            if exchange.attempts.is_last_try() {
                exchange.preferences.avoid.insert(upstream);
            }
            return;
        }
        let (question, asked_at) = (exchange.query.question(), exchange.asked_at);
        if self.suspects.add(question, upstream, now) {
            let minutes = Suspects::REMEMBERED.as_secs() / 60;
            log::debug!(
                "upstream {label}: closes connections when asked {question}; the question is sent \
                 alone for {minutes} min"
            );
        }
        self.upstreams.forget_limits(endpoint, asked_at);
        let capacity = &mut self.upstreams.endpoint_mut(endpoint).capacity;
        capacity.on_explained(now);
        exchange.preferences.avoid.insert(upstream);
        if !self
            .upstreams
            .is_covered(exchange.pool, exchange.preferences.avoid)
        {
            exchange.retry.set_bad_answer(BadAnswer {
                by: endpoint,
                sent_at,
                is_malformed: true,
            });
        }
    }

    /// Judges a query that was outstanding on a link that ended. Returns whether the query is a
    /// suspect now.
    fn becomes_suspect(
        &mut self,
        key: ExchangeKey,
        link: &Link,
        end: LinkEnd,
        now: Instant,
    ) -> bool {
        let endpoint = link.endpoint;
        let mut waiting = link.sent().iter().filter_map(Sent::exchange);
        let is_oldest = waiting.next() == Some(key);
        let exchange = &mut self.exchanges[key];
        let capacity = &self.upstreams.endpoint(endpoint).capacity;
        if capacity.is_limited(now) || capacity.connections_max(now).is_some() {
            return false;
        }
        let attempts = &mut exchange.attempts;
        let is_involved = attempts.on_link_ended(link.has_answered(), is_oldest);
        let may_be_due = is_oldest && end.may_be_due_to_oldest;
        if may_be_due && end.kind == FailureKind::Closed {
            // If the close has another reason, one close alone sets no limit.
            let close = ConnectionClose {
                owes_answers: false,
                ..link.close_at(now)
            };
            exchange.retry.set_close(endpoint, close);
        }
        // An endpoint that takes one connection closes an isolated one for that reason.
        let takes_two = capacity.has_answered_on(2, now);
        let is_suspect = is_involved || may_be_due && takes_two;
        if is_suspect {
            exchange.preferences.isolated_at = UpstreamSet::ALL;
        }
        if is_involved {
            let asked_at = exchange.asked_at;
            self.upstreams.forget_limits(endpoint, asked_at);
        }
        is_suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    struct Scene(Suspects);

    impl Scene {
        fn new(len_max: usize) -> Self {
            let limits = Limits {
                suspects_remembered: len_max,
                ..Limits::default()
            };
            Self(Suspects::new(&limits))
        }

        fn add(&mut self, name: u8, now: u64) -> bool {
            let bytes = [1, name, 0, 0, 1, 0, 1];
            self.0.add(
                Question::parse(&bytes, 0).unwrap(),
                UpstreamIndex(0),
                at(now),
            )
        }

        fn contains(&mut self, name: u8, now: u64) -> bool {
            let bytes = [1, name, 0, 0, 1, 0, 1];
            let question = Question::parse(&bytes, 0).unwrap();
            self.0.recall(question, at(now)).is_some()
        }
    }

    #[test]
    fn question_is_remembered_for_ten_minutes() {
        let mut scene = Scene::new(10);
        assert!(scene.add(b'a', 1) && !scene.add(b'A', 1));
        assert!(scene.contains(b'A', 600) && !scene.contains(b'b', 600));
        assert!(!scene.contains(b'a', 601) && !scene.contains(b'a', 661));
        assert!(scene.0.is_empty());
    }

    #[test]
    fn answer_clears_the_entry() {
        let mut scene = Scene::new(10);
        scene.add(b'a', 1);
        scene.add(b'b', 1);
        let bytes = [1, b'A', 0, 0, 1, 0, 1];
        let question = Question::parse(&bytes, 0).unwrap();
        scene.0.on_answer(question, UpstreamIndex(1));
        assert!(scene.contains(b'a', 2), "another upstream ended the link");
        scene.0.on_answer(question, UpstreamIndex(0));
        assert!(!scene.contains(b'a', 2) && scene.contains(b'b', 2));
        scene.0.forget();
        assert!(scene.0.is_empty());
    }

    #[test]
    fn table_is_bounded() {
        let mut scene = Scene::new(2);
        assert!(scene.add(b'a', 1) && scene.add(b'b', 2) && !scene.add(b'c', 3));
        assert!(!scene.contains(b'c', 4));
        assert!(scene.add(b'c', 601), "an expired entry makes room");
        assert!(scene.contains(b'b', 601) && scene.contains(b'c', 601));
    }
}
