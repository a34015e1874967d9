//! Traces: the steps of a sample of queries.

use std::net::SocketAddr;

use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::keys::{Attempt, ExchangeKey};
use crate::proxy::upstream::link::Link;
use crate::wire::Rcode;

/// The maximum number of steps of a trace: several times as many as usual.
const STEPS_MAX: usize = 24;

/// The trace of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The steps in the order in which they were recorded.
    pub steps: Vec<TraceStep>,
}

/// A step of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStep {
    /// The kind of the step.
    pub kind: StepKind,
    /// The start of the step.
    pub from: Instant,
    /// The end of the step, unless the query ended first.
    pub end: Option<(Instant, StepEnd)>,
    attempt: Option<Attempt>,
}

/// The protocol and address of the peer of a step.
pub type PeerAddr = (Scheme, SocketAddr);

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A cache lookup without a result.
    Cache,
    /// The wait for another exchange with the same question.
    Sharing,
    /// The validation of an answer (DNSSEC).
    Validation,
    /// The wait for a connection with room.
    Waiting,
    /// The opening of a connection, for this query or for an earlier one.
    Handshake(PeerAddr),
    /// An attempt.
    Attempt {
        /// The peer that the query is sent to.
        to: PeerAddr,
        /// The number of earlier attempts.
        before: usize,
        /// The attempt is a copy that tests an endpoint in outage.
        is_copy: bool,
    },
}

/// The end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// The step succeeded.
    Done,
    /// An answer with this code arrived.
    Answered(Rcode),
    /// The step failed for this reason.
    Failed(FailureKind),
    /// The settings were changed, and the query was started over.
    Reconfigured,
}

/// The recorder of a query's trace, which does nothing if the query is not traced.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tracer(Option<Box<Trace>>);

impl Tracer {
    pub(in crate::proxy) fn new(is_traced: bool) -> Self {
        Self(is_traced.then(Box::default))
    }

    /// Returns the trace, if the query is traced.
    pub(in crate::proxy) fn trace(&self) -> Option<&Trace> {
        self.0.as_deref()
    }

    /// Records a cache lookup without a result.
    pub(in crate::proxy) fn on_miss(&mut self, now: Instant) {
        self.add(StepKind::Cache, now, Some((now, StepEnd::Done)), None);
    }

    /// Records the start of a wait for another exchange or for a connection.
    pub(in crate::proxy) fn on_wait(&mut self, kind: StepKind, now: Instant) {
        self.add(kind, now, None, None);
    }

    /// Records the end of a wait.
    pub(in crate::proxy) fn on_wait_end(&mut self, now: Instant) {
        let is_wait = |step: &TraceStep| {
            let kind = step.kind;
            matches!(
                kind,
                StepKind::Waiting | StepKind::Sharing | StepKind::Validation
            )
        };
        self.end(is_wait, StepEnd::Done, now);
    }

    /// Records the end of an attempt.
    pub(in crate::proxy) fn on_attempt_end(
        &mut self,
        attempt: Attempt,
        end: StepEnd,
        now: Instant,
    ) {
        self.end(|step| step.attempt == Some(attempt), end, now);
    }

    /// Records that the query is started over.
    pub(in crate::proxy) fn on_start_over(&mut self, now: Instant) {
        self.end(|_| true, StepEnd::Reconfigured, now);
    }

    fn end(&mut self, is_affected: impl Fn(&TraceStep) -> bool, end: StepEnd, now: Instant) {
        let steps = self.0.iter_mut().flat_map(|trace| &mut trace.steps);
        for step in steps.filter(|step| step.end.is_none() && is_affected(step)) {
            step.end = Some((now, end));
        }
    }

    fn add(
        &mut self,
        kind: StepKind,
        from: Instant,
        end: Option<(Instant, StepEnd)>,
        attempt: Option<Attempt>,
    ) {
        if let Some(trace) = &mut self.0
            && trace.steps.len() < STEPS_MAX
        {
            trace.steps.push(TraceStep {
                kind,
                from,
                end,
                attempt,
            });
        }
    }
}

impl Proxy {
    /// Draws whether the next query is traced.
    pub(in crate::proxy) fn draws_trace(&mut self) -> bool {
        let traces = self.config.traces.as_ref();
        traces.is_some_and(|traces| traces.share.has(self.random.next_u32()))
    }

    /// Records an attempt, and the opening of its connection if the query waited for that.
    pub(in crate::proxy) fn trace_sent(
        &mut self,
        key: ExchangeKey,
        attempt: Attempt,
        is_copy: bool,
        now: Instant,
    ) {
        let exchange = &mut self.exchanges[key];
        let Some(trace) = exchange.tracer.trace() else {
            return;
        };
        let link = self.upstreams.link(attempt.link);
        let link = link.expect("the link of an attempt exists");
        let to = (link.scheme, self.upstreams.endpoint(link.endpoint).address);
        let asked_at = exchange.asked_at;
        let is_attempt = |step: &&TraceStep| step.attempt.is_some();
        let kind = StepKind::Attempt {
            to,
            before: trace.steps.iter().filter(is_attempt).count(),
            is_copy,
        };
        if link.scheme != Scheme::Udp && link.up_since() > asked_at {
            let end = Some((link.up_since(), StepEnd::Done));
            let from = link.opened_at().max(asked_at);
            exchange
                .tracer
                .add(StepKind::Handshake(to), from, end, None);
        }
        exchange.tracer.add(kind, now, None, Some(attempt));
    }

    /// Records a failed handshake in the traces of the queries that wait for the upstream.
    pub(in crate::proxy) fn trace_failed_handshake(
        &mut self,
        link: &Link,
        failure: FailureKind,
        now: Instant,
    ) {
        if self.config.traces.is_none() {
            return;
        }
        let endpoint = self.upstreams.endpoint(link.endpoint);
        let kind = StepKind::Handshake((link.scheme, endpoint.address));
        let (opened_at, end) = (link.opened_at(), (now, StepEnd::Failed(failure)));
        for pool in self.upstreams.pools_of(endpoint.upstream) {
            for key in self.waiting_by_pool[pool.0].iter() {
                if let Some(exchange) = self.exchanges.get_mut(key) {
                    let from = opened_at.max(exchange.asked_at);
                    exchange.tracer.add(kind, from, Some(end), None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::ClientTransport;
    use crate::proxy::testing::{Scene, config};
    use crate::wire::Message;
    use std::time::Duration;

    const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01";
    const TRACED: [&str; 2] = ["--otlp=http://192.0.2.9:4318", "--trace-sample=1"];

    fn scene(arguments: &[&str]) -> Scene {
        Scene::with(&[&TRACED, arguments].concat())
    }

    impl Scene {
        /// Advances the time and handles everything that is due.
        fn pass(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
            self.outbox.clear();
            self.proxy.handle_timeout(self.now, &mut self.outbox);
        }

        /// Answers the last sent query with this code.
        fn answer_with(&mut self, rcode: u8) {
            let (link, mut bytes) = self.sent().pop().unwrap();
            let end = Message::parse(&bytes).unwrap().records_start();
            bytes.truncate(end);
            (bytes[2], bytes[3], bytes[11]) = (0x81, 0x80 | rcode, 0);
            self.outbox.clear();
            let outbox = &mut self.outbox;
            self.proxy.handle_reply(link, &bytes, self.now, outbox);
        }

        fn lose(&mut self, link: crate::proxy::LinkKey, kind: FailureKind) {
            self.outbox.clear();
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            proxy.handle_link_down(link, &kind.into(), self.now, outbox);
        }

        /// Returns the steps of each query that has ended as text: kind, start and end in
        /// milliseconds since the start of the scene, and result.
        fn traces(&self) -> Vec<Vec<String>> {
            let start = Instant::after_start(Duration::from_secs(100));
            let of_step = |step: &TraceStep| {
                let kind = match step.kind {
                    StepKind::Attempt { before, .. } => format!("attempt {before}"),
                    StepKind::Handshake(_) => "handshake".to_owned(),
                    kind => format!("{kind:?}").to_lowercase(),
                };
                let from = (step.from - start).as_millis();
                match step.end {
                    Some((until, end)) => {
                        format!("{kind} {from}-{} {end:?}", (until - start).as_millis())
                    }
                    None => format!("{kind} {from}-"),
                }
            };
            let traces = self.outbox.records().iter();
            let traces = traces.map(|record| record.trace.as_ref().expect("every query is traced"));
            traces
                .map(|trace| trace.steps.iter().map(of_step).collect())
                .collect()
        }
    }

    #[test]
    fn query_waits_for_its_connection_and_then_for_its_answer() {
        let mut scene = scene(&["-u192.0.2.1"]);
        scene.ask(QUERY, ClientTransport::Udp);
        scene.now += Duration::from_millis(20);
        scene.bring_up();
        scene.now += Duration::from_millis(7);
        scene.answer_with(3);
        let expected = [
            "cache 0-0 Done",
            "waiting 0-20 Done",
            "handshake 0-20 Done",
            "attempt 0 20-27 Answered(Rcode(3))",
        ];
        assert_eq!(scene.traces(), [expected]);
        // An answer from the cache takes no step.
        scene.ask(QUERY, ClientTransport::Udp);
        assert!(scene.traces().len() <= 1);
    }

    #[test]
    fn failures_are_steps() {
        let mut scene = scene(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        scene.ask(QUERY, ClientTransport::Udp);
        let first = scene.opened_last();
        scene.now += Duration::from_millis(5);
        scene.lose(first, FailureKind::Authentication);
        scene.now += Duration::from_millis(5);
        scene.bring_up();
        let (second, _) = scene.sent().pop().unwrap();
        scene.now += Duration::from_millis(5);
        scene.lose(second, FailureKind::Closed);
        scene.pass(4_900);
        let steps = scene.traces().pop().unwrap();
        assert_eq!(steps[2], "handshake 0-5 Failed(Authentication)");
        assert!(
            steps.contains(&"handshake 5-10 Done".to_owned()),
            "{steps:?}"
        );
        assert!(
            steps.contains(&"attempt 0 10-15 Failed(Closed)".to_owned()),
            "{steps:?}"
        );
    }

    #[test]
    fn follower_waits_for_the_exchange_that_it_follows() {
        let mut scene = scene(&["-u192.0.2.1"]);
        scene.ask(QUERY, ClientTransport::Udp);
        scene.bring_up();
        let sent = scene.sent();
        scene.now += Duration::from_millis(3);
        scene.ask(QUERY, ClientTransport::Udp);
        scene.outbox.clear();
        scene.outbox.send(sent[0].0, |out| out.extend(&sent[0].1));
        scene.answer_with(3);
        assert_eq!(scene.traces()[1], ["cache 3-3 Done", "sharing 3-"]);
    }

    #[test]
    fn new_settings_end_open_steps() {
        let mut scene = scene(&["-u192.0.2.1"]);
        scene.ask(QUERY, ClientTransport::Udp);
        scene.bring_up();
        scene.now += Duration::from_millis(9);
        scene.outbox.clear();
        let other = config(&[&TRACED[..], &["-u192.0.2.2"]].concat());
        scene
            .proxy
            .reconfigure(&other, scene.now, &mut scene.outbox);
        scene.bring_up();
        scene.answer_with(3);
        let steps = scene.traces().pop().unwrap();
        assert!(
            steps.contains(&"attempt 0 0-9 Reconfigured".to_owned()),
            "{steps:?}"
        );
    }

    #[test]
    fn steps_are_bounded() {
        let mut tracer = Tracer::new(true);
        for _ in 0..1_000 {
            tracer.on_wait(StepKind::Waiting, Instant::default());
        }
        assert_eq!(
            tracer.trace().map(|trace| trace.steps.len()),
            Some(STEPS_MAX)
        );
    }

    #[test]
    fn share_of_queries_is_traced() {
        let mut scene = Scene::with(&[TRACED[0], "--trace-sample=0.25", "-u192.0.2.1"]);
        let drawn = (0..10_000).filter(|_| scene.proxy.draws_trace()).count();
        assert!((2_200..2_800).contains(&drawn), "{drawn}");
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        assert!(!scene.proxy.draws_trace());
    }
}
