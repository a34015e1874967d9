//! Forwarding loops: an upstream that sends queries back to this server, directly or through
//! another forwarder.
//!
//! In a loop no query is ever answered. If an upstream has been silent for as long as an attempt
//! may take, or for less if a question waits more than once, the proxy sends it two test queries
//! for names that no client asks for. Only the name distinguishes a test from other queries, since
//! forwarders replace EDNS options.
//!
//! - The name of the first test is below the domain of the upstream. If the test returns as the
//!   query of a client, the upstream loops: it is not used for a while, and the queries that wait
//!   for it fail at once.
//! - The name of the second test is below that of a silent question. If only this test returns, the
//!   upstream loops for one domain: the queries below that name fail at once, and the upstream is
//!   used for others.

use std::time::Duration;

use super::link::Sent;
use crate::base::failure::FailureKind;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::Limits;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::Exchange;
use crate::proxy::followups::Followup;
use crate::proxy::keys::{EndpointKey, ExchangeKey, LinkKey, UpstreamIndex};
use crate::proxy::outcome::Outcome;
use crate::wire::name::{Name, suffixes};
use crate::wire::question::Type;
use crate::wire::{Query, Question};

/// The loop tests in progress.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LoopTests {
    tests: Vec<LoopTest>,
}

/// The names that a loop test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// All names of the upstream.
    Upstream,
    /// The names at and below the parent of the test's name.
    Domain,
}

#[derive(Debug)]
struct LoopTest {
    endpoint: EndpointKey,
    scope: Scope,
    /// The first label of the name, which is random.
    label: String,
    until: Instant,
    has_returned: bool,
}

/// Maximum time for a loop test to come back.
const RETURN_MAX: Duration = Duration::from_secs(10);

/// Time for which a test of a domain is recorded after it has come back.
const RETURNED_KEPT: Duration = Duration::from_secs(2);

/// Prefix of the first label of a loop test.
const PREFIX: &str = "loop-test-";

impl LoopTests {
    /// Returns the label of a new test of this endpoint, unless such a test is in progress or there
    /// are too many. Another domain may be tested once a test of a domain has come back.
    fn next_label(
        &mut self,
        endpoint: EndpointKey,
        scope: Scope,
        limits: &Limits,
        now: Instant,
        random: &mut Random,
    ) -> Option<String> {
        self.tests.retain(|test| test.until > now);
        let is_under_way = self.tests.iter().any(|test| {
            let may_repeat = scope == Scope::Domain && test.has_returned;
            test.endpoint == endpoint && test.scope == scope && !may_repeat
        });
        if is_under_way || self.tests.len() >= limits.loop_tests {
            return None;
        }
        let number = (0..4).map(|_| format!("{:04x}", random.next_u16()));
        Some(format!("{PREFIX}{}", number.collect::<String>()))
    }

    /// Records that a test was sent.
    fn on_sent(&mut self, endpoint: EndpointKey, scope: Scope, label: String, now: Instant) {
        self.tests.push(LoopTest {
            endpoint,
            scope,
            label,
            until: now + RETURN_MAX,
            has_returned: false,
        });
    }

    /// Returns the endpoint that sent this question back, if the question is a loop test, and the
    /// scope of the test if it came back for the first time.
    fn returned(
        &mut self,
        question: Question<'_>,
        now: Instant,
    ) -> Option<(EndpointKey, Option<Scope>)> {
        let (len, rest) = question.name().split_first()?;
        let label = rest.get(..usize::from(*len))?;
        let is_its =
            |test: &LoopTest| test.until > now && test.label.as_bytes().eq_ignore_ascii_case(label);
        let test = self.tests.iter_mut().find(|test| is_its(test))?;
        let is_first = !std::mem::replace(&mut test.has_returned, true);
        if test.scope == Scope::Domain {
            test.until = test.until.min(now + RETURNED_KEPT);
        }
        Some((test.endpoint, is_first.then_some(test.scope)))
    }

    /// Returns whether several tests of domains of this endpoint have come back recently.
    fn has_several_returned(&self, endpoint: EndpointKey) -> bool {
        let its = self.tests.iter().filter(|test| test.endpoint == endpoint);
        let returned = its.filter(|test| test.scope == Scope::Domain && test.has_returned);
        returned.take(2).count() == 2
    }
}

/// Returns the name of an exchange's question in lower case.
fn name_of(exchange: &Exchange) -> Vec<u8> {
    exchange.query.question().name().to_ascii_lowercase()
}

impl Proxy {
    /// Returns whether the oldest question of a silent link waits for an answer of this upstream
    /// more than once.
    pub(in crate::proxy) fn may_loop(&self, key: LinkKey) -> bool {
        self.oldest_on(key)
            .is_some_and(|oldest| self.waits_twice(key, oldest))
    }

    /// Returns the exchange with the oldest unanswered question of a link.
    fn oldest_on(&self, key: LinkKey) -> Option<&Exchange> {
        let link = self.upstreams.link(key)?;
        let mut sent = link.sent().iter().filter_map(Sent::exchange);
        sent.find_map(|key| self.exchanges.get(key))
    }

    /// Returns whether the question of an exchange waits more than once for the upstream of a link.
    /// A loop causes that, but so do several clients with the same question.
    fn waits_twice(&self, key: LinkKey, oldest: &Exchange) -> bool {
        let Some(link) = self.upstreams.link(key) else {
            return false;
        };
        let question = oldest.query.question();
        let links = self.upstreams.links();
        let links = links.filter(|(_, other)| other.endpoint == link.endpoint);
        let keys = links.flat_map(|(_, link)| link.sent().iter().filter_map(Sent::exchange));
        let exchanges = keys.filter_map(|key| self.exchanges.get(key));
        let same = exchanges.filter(|other| other.query.question().matches(question));
        !oldest.followers.is_empty() || same.take(2).count() == 2
    }

    /// Tests whether a silent link leads back to this server, for all names or for those below the
    /// oldest silent question.
    pub(in crate::proxy) fn test_for_loop(&mut self, key: LinkKey, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let endpoint = link.endpoint;
        let silent = self.oldest_on(key).map(name_of);
        let pool = self.upstreams.pools_with(endpoint).first().copied();
        let own = self.routes.probe_name(pool);
        self.send_loop_test(key, Scope::Upstream, own.as_bytes(), cx);
        if let Some(silent) = silent.filter(|silent| silent != own.as_bytes()) {
            self.send_loop_test(key, Scope::Domain, &silent, cx);
        }
    }

    /// Tests whether the names below that of a slow question lead back to this server, while the
    /// upstream answers other questions.
    pub(in crate::proxy) fn test_domain_for_loop(
        &mut self,
        key: LinkKey,
        slow: ExchangeKey,
        cx: &mut Cx<'_>,
    ) {
        let slow = self.exchanges.get(slow);
        let slow = slow.filter(|slow| self.waits_twice(key, slow));
        if let Some(name) = slow.map(name_of) {
            self.send_loop_test(key, Scope::Domain, &name, cx);
        }
    }

    fn send_loop_test(&mut self, key: LinkKey, scope: Scope, parent: &[u8], cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let endpoint = link.endpoint;
        let limits = &self.config.limits;
        let tests = &mut self.loop_tests;
        let label = tests.next_label(endpoint, scope, limits, cx.now, &mut self.random);
        let Some(label) = label else {
            return;
        };
        // A long name may leave no room for a label.
        let mut names = suffixes(parent).filter_map(|parent| Name::below(&label, parent));
        if let Some(name) = names.next()
            && self.send_probe(key, &Query::new(&name, Type::A), cx)
        {
            self.loop_tests.on_sent(endpoint, scope, label, cx.now);
        }
    }

    /// Records the return of a loop test as a client's query. Returns whether this query is a loop
    /// test. The first return of a test of an upstream starts an outage of the endpoint and closes
    /// its links; the first return of a test of a domain moves the queries of that domain to
    /// another upstream, or fails them.
    pub(in crate::proxy) fn record_returned_test(
        &mut self,
        question: Question<'_>,
        cx: &mut Cx<'_>,
    ) -> bool {
        if self.loop_tests.tests.is_empty() {
            return false;
        }
        let Some((key, scope)) = self.loop_tests.returned(question, cx.now) else {
            return false;
        };
        if let Some(endpoint) = self.upstreams.find_endpoint(key) {
            let (scheme, upstream) = (endpoint.scheme, endpoint.upstream);
            match scope {
                Some(Scope::Upstream) => {
                    self.count_failure(upstream, FailureKind::Loop);
                    self.on_failure(key, scheme, &FailureKind::Loop.into(), cx.now, cx.now);
                    for link in self.upstreams.links_to(key) {
                        self.followups
                            .push(Followup::Close(link, FailureKind::Loop));
                    }
                }
                Some(Scope::Domain) => {
                    self.on_domain_loop(key, upstream, question, cx);
                }
                None => {}
            }
        }
        true
    }

    /// Handles a loop of the domain that is the parent of a test's name: the queries for names at
    /// and below that domain leave this upstream, and fail if there is no other.
    fn on_domain_loop(
        &mut self,
        key: EndpointKey,
        upstream: UpstreamIndex,
        test: Question<'_>,
        cx: &mut Cx<'_>,
    ) {
        let domain = suffixes(test.name()).nth(1).unwrap_or_default();
        let endpoint = self.upstreams.endpoint(key);
        if endpoint.last_failure() != Some(FailureKind::Loop) {
            self.log_domain_loop(key, test);
            self.count_failure(upstream, FailureKind::Loop);
        }
        let links = self.upstreams.links_to(key);
        let links = links.iter().filter_map(|link| self.upstreams.link(*link));
        let keys = links.flat_map(|link| link.sent().iter().filter_map(Sent::exchange));
        let is_below = |key: &ExchangeKey| {
            let exchange = self.exchanges.get(*key);
            exchange.is_some_and(|exchange| {
                let name = exchange.query.question().name();
                suffixes(name).any(|suffix| suffix.eq_ignore_ascii_case(domain))
            })
        };
        let leaders: Vec<ExchangeKey> = keys.filter(is_below).collect();
        for leader in leaders {
            let Some(exchange) = self.exchanges.get(leader) else {
                continue;
            };
            let mut keys = exchange.followers.clone();
            keys.push(leader);
            for key in keys {
                if self.exchanges.contains(key) {
                    self.leave_looping_upstream(key, upstream, cx);
                }
            }
        }
    }

    fn log_domain_loop(&self, key: EndpointKey, test: Question<'_>) {
        if self.loop_tests.has_several_returned(key) {
            return;
        }
        let label = self.upstreams.endpoint(key).label();
        log::warn!(
            "upstream {label}: forwarding loop: queries for some names come back to this server \
             (log level debug shows a name)"
        );
        log::debug!(
            "upstream {label}: loop test {} came back",
            test.shown_name()
        );
    }

    /// Asks another upstream than the one that sends a query back; the query fails if there is
    /// none.
    fn leave_looping_upstream(
        &mut self,
        key: ExchangeKey,
        upstream: UpstreamIndex,
        cx: &mut Cx<'_>,
    ) {
        let exchange = &mut self.exchanges[key];
        exchange.last_failure = Some(FailureKind::Loop);
        exchange.preferences.exclude.insert(upstream);
        // An exchange that waits, or follows another one, is sent later.
        let is_sent = !exchange.is_waiting && exchange.attempts.times_sent() > 0;
        let mut attempts = exchange.attempts.open();
        let is_open_elsewhere = attempts.any(|attempt| {
            let link = self.upstreams.link(attempt.link);
            link.is_some_and(|link| self.upstreams.endpoint(link.endpoint).upstream != upstream)
        });
        if is_open_elsewhere {
            return;
        }
        if !self.begin_retry(key, cx.now) {
            self.fail(key, Outcome::UpstreamFailed, cx);
        } else if is_sent {
            self.dispatch(key, cx);
        }
    }
}
