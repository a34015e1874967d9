//! Forwarding loops: an upstream that sends queries back to this server, directly or through
//! another forwarder.
//!
//! In a loop no query is ever answered. If an upstream has been silent for as long as an attempt
//! may take, or for less if a question waits more than once, the proxy sends it a test query for a
//! name that no client asks for. If the test returns as the query of a client, the upstream loops:
//! it is not used for a while, and the queries that wait for it fail at once. Only the name
//! distinguishes a test from other queries, since forwarders replace EDNS options.

use std::time::Duration;

use super::link::Sent;
use crate::base::failure::FailureKind;
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::Limits;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::followups::Followup;
use crate::proxy::keys::{EndpointKey, LinkKey};
use crate::wire::name::Name;
use crate::wire::question::Type;
use crate::wire::{Query, Question};

/// The loop tests in progress.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LoopTests {
    tests: Vec<LoopTest>,
}

#[derive(Debug)]
struct LoopTest {
    endpoint: EndpointKey,
    /// The first label of the name, which is random.
    label: String,
    until: Instant,
    has_returned: bool,
}

/// Maximum time for a loop test to come back.
const RETURN_MAX: Duration = Duration::from_secs(10);

/// Prefix of the first label of a loop test.
const PREFIX: &str = "loop-test-";

impl LoopTests {
    /// Returns the label of a new test of this endpoint, unless a test is in progress or there are
    /// too many.
    fn next_label(
        &mut self,
        endpoint: EndpointKey,
        limits: &Limits,
        now: Instant,
        random: &mut Random,
    ) -> Option<String> {
        self.tests.retain(|test| test.until > now);
        let is_under_way = self.tests.iter().any(|test| test.endpoint == endpoint);
        if is_under_way || self.tests.len() >= limits.loop_tests {
            return None;
        }
        let number = (0..4).map(|_| format!("{:04x}", random.next_u16()));
        Some(format!("{PREFIX}{}", number.collect::<String>()))
    }

    /// Records that a test was sent.
    fn on_sent(&mut self, endpoint: EndpointKey, label: String, now: Instant) {
        self.tests.push(LoopTest {
            endpoint,
            label,
            until: now + RETURN_MAX,
            has_returned: false,
        });
    }

    /// Returns the endpoint that sent this question back, if the question is a loop test, and
    /// whether the test came back for the first time.
    fn returned(&mut self, question: Question<'_>, now: Instant) -> Option<(EndpointKey, bool)> {
        let (len, rest) = question.name().split_first()?;
        let label = rest.get(..usize::from(*len))?;
        let is_its =
            |test: &LoopTest| test.until > now && test.label.as_bytes().eq_ignore_ascii_case(label);
        let test = self.tests.iter_mut().find(|test| is_its(test))?;
        let is_first = !std::mem::replace(&mut test.has_returned, true);
        Some((test.endpoint, is_first))
    }
}

impl Proxy {
    /// Returns whether the oldest question of a silent link waits for an answer of this upstream
    /// more than once. A loop causes that, but so do several clients with the same question.
    pub(in crate::proxy) fn may_loop(&self, key: LinkKey) -> bool {
        let Some(link) = self.upstreams.link(key) else {
            return false;
        };
        let mut sent = link.sent().iter().filter_map(Sent::exchange);
        let Some(oldest) = sent.find_map(|key| self.exchanges.get(key)) else {
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

    /// Tests whether a silent link leads back to this server.
    pub(in crate::proxy) fn test_for_loop(&mut self, key: LinkKey, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let endpoint = link.endpoint;
        let limits = &self.config.limits;
        let tests = &mut self.loop_tests;
        let Some(label) = tests.next_label(endpoint, limits, cx.now, &mut self.random) else {
            return;
        };
        let pool = self.upstreams.pools_with(endpoint).first().copied();
        let suffix = self.routes.probe_name(pool);
        let text = if suffix == Name::root() {
            label.clone()
        } else {
            format!("{label}.{suffix}")
        };
        // A domain may leave no room for a label.
        if let Ok(name) = text.parse()
            && self.send_probe(key, &Query::new(&name, Type::A), cx)
        {
            self.loop_tests.on_sent(endpoint, label, cx.now);
        }
    }

    /// Detects a loop test that came back as a client's query, and returns whether this query is
    /// one. Its upstream is not used for a while.
    pub(in crate::proxy) fn detect_loop(
        &mut self,
        question: Question<'_>,
        cx: &mut Cx<'_>,
    ) -> bool {
        if self.loop_tests.tests.is_empty() {
            return false;
        }
        let Some((key, is_first)) = self.loop_tests.returned(question, cx.now) else {
            return false;
        };
        if let Some(endpoint) = self.upstreams.find_endpoint(key).filter(|_| is_first) {
            let (scheme, upstream) = (endpoint.scheme, endpoint.upstream);
            self.count_failure(upstream, FailureKind::Loop);
            self.on_failure(key, scheme, &FailureKind::Loop.into(), cx.now, cx.now);
            for link in self.upstreams.links_to(key) {
                self.followups
                    .push(Followup::Close(link, FailureKind::Loop));
            }
        }
        true
    }
}
