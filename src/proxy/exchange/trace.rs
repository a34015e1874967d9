//! What becomes of a query step by step, for the few queries that are followed so closely.

use std::net::SocketAddr;

use super::Attempt;
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::keys::ExchangeKey;
use crate::proxy::upstream::link::Link;
use crate::wire::Rcode;

/// Steps that are kept of one query: several times as many as it takes as a rule.
const STEPS_MAX: usize = 24;

/// The way of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Its steps, in the order in which they were noted.
    pub steps: Vec<Step>,
}

/// A step of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub kind: StepKind,
    /// When it began.
    pub from: Instant,
    /// When and how it ended, unless the query ended first.
    pub end: Option<(Instant, StepEnd)>,
    attempt: Option<Attempt>,
}

/// Where a step leads, and how it is spoken there.
pub type PeerAddr = (Scheme, SocketAddr);

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The answer is looked for among those that are known, in vain.
    Cache,
    /// Another has asked the same, and is waited for.
    Sharing,
    /// There is no connection with room.
    Waiting,
    /// A connection is opened, for this query or for others that came before.
    Handshake(PeerAddr),
    /// The query is sent.
    Attempt {
        /// Where to.
        to: PeerAddr,
        /// How often it has been sent before.
        before: usize,
        /// It is sent besides another attempt, to see whether that upstream is out of trouble.
        is_copy: bool,
    },
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// As it should.
    Done,
    /// With an answer of this code.
    Answered(Rcode),
    /// With this.
    Failed(FailureKind),
    /// By other settings, with which it is started over.
    Reconfigured,
}

/// Notes the way of a query, or does not.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tracer(Option<Box<Trace>>);

impl Tracer {
    pub(in crate::proxy) fn new(is_traced: bool) -> Self {
        Self(is_traced.then(Box::default))
    }

    /// What has been noted.
    pub(in crate::proxy) fn trace(&self) -> Option<&Trace> {
        self.0.as_deref()
    }

    /// Whether the answer may have been known, and was not.
    pub(in crate::proxy) fn on_miss(&mut self, now: Instant) {
        self.add(StepKind::Cache, now, Some((now, StepEnd::Done)), None);
    }

    /// Somebody else's answer, or a connection, is waited for.
    pub(in crate::proxy) fn on_wait(&mut self, kind: StepKind, now: Instant) {
        self.add(kind, now, None, None);
    }

    /// It is waited for no more.
    pub(in crate::proxy) fn on_wait_end(&mut self, now: Instant) {
        let is_wait = |step: &Step| matches!(step.kind, StepKind::Waiting | StepKind::Sharing);
        self.end(is_wait, StepEnd::Done, now);
    }

    /// An attempt has ended.
    pub(in crate::proxy) fn on_attempt_end(
        &mut self,
        attempt: Attempt,
        end: StepEnd,
        now: Instant,
    ) {
        self.end(|step| step.attempt == Some(attempt), end, now);
    }

    /// The query is started over.
    pub(in crate::proxy) fn on_start_over(&mut self, now: Instant) {
        self.end(|_| true, StepEnd::Reconfigured, now);
    }

    fn end(&mut self, is_it: impl Fn(&Step) -> bool, end: StepEnd, now: Instant) {
        let steps = self.0.iter_mut().flat_map(|trace| &mut trace.steps);
        for step in steps.filter(|step| step.end.is_none() && is_it(step)) {
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
            trace.steps.push(Step {
                kind,
                from,
                end,
                attempt,
            });
        }
    }
}

impl Proxy {
    /// Whether the next query is one of those that are traced.
    pub(in crate::proxy) fn draws_trace(&mut self) -> bool {
        let traces = self.config.traces.as_ref();
        traces.is_some_and(|traces| traces.share.has(self.random.next_u32()))
    }

    /// Notes that a query is sent, and that a connection was opened first, if one was.
    pub(in crate::proxy) fn trace_sent(
        &mut self,
        key: ExchangeKey,
        attempt: Attempt,
        is_copy: bool,
        now: Instant,
    ) {
        let exchange = self.exchanges.get_mut(key.0).expect("who sends is there");
        let Some(trace) = exchange.tracer.trace() else {
            return;
        };
        let link = self.upstreams.link(attempt.link);
        let link = link.expect("what is sent on is there");
        let to = (link.scheme, self.upstreams.endpoint(link.endpoint).address);
        let asked_at = exchange.asked_at;
        let is_attempt = |step: &&Step| step.attempt.is_some();
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

    /// Notes with those who wait for it that a connection has not come about.
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
                if let Some(exchange) = self.exchanges.get_mut(key.0) {
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
    use crate::proxy::Transport;
    use crate::proxy::testing::{Scene, config};
    use crate::wire::Message;
    use std::time::Duration;

    const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01";
    const TRACED: [&str; 2] = ["--otlp=http://192.0.2.9:4318", "--trace-sample=1"];

    fn scene(arguments: &[&str]) -> Scene {
        Scene::with(&[&TRACED, arguments].concat())
    }

    impl Scene {
        /// Lets time pass, and what it brings happen.
        fn pass(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
            self.outbox.clear();
            self.proxy.handle_timeout(self.now, &mut self.outbox);
        }

        /// Answers what was sent last with this code.
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

        /// The steps of each query that has ended, in short: what, from and until when in
        /// milliseconds since the start of the scene, and how it ended.
        fn told(&self) -> Vec<Vec<String>> {
            let start = Instant::after_start(Duration::from_secs(100));
            let of_step = |step: &Step| {
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
            let traces = traces.map(|record| record.trace.as_ref().expect("all are traced"));
            traces
                .map(|trace| trace.steps.iter().map(of_step).collect())
                .collect()
        }
    }

    #[test]
    fn query_waits_for_its_connection_and_then_for_its_answer() {
        let mut scene = scene(&["-u192.0.2.1"]);
        scene.ask(QUERY, Transport::Udp);
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
        assert_eq!(scene.told(), [expected]);
        // What is known takes no step.
        scene.ask(QUERY, Transport::Udp);
        assert!(scene.told().len() <= 1);
    }

    #[test]
    fn failures_are_steps() {
        let mut scene = scene(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        scene.ask(QUERY, Transport::Udp);
        let first = scene.opened_last();
        scene.now += Duration::from_millis(5);
        scene.lose(first, FailureKind::Authentication);
        scene.now += Duration::from_millis(5);
        scene.bring_up();
        let (second, _) = scene.sent().pop().unwrap();
        scene.now += Duration::from_millis(5);
        scene.lose(second, FailureKind::Closed);
        scene.pass(4_900);
        let told = scene.told().pop().unwrap();
        assert_eq!(told[2], "handshake 0-5 Failed(Authentication)");
        assert!(told.contains(&"handshake 5-10 Done".to_owned()), "{told:?}");
        assert!(
            told.contains(&"attempt 0 10-15 Failed(Closed)".to_owned()),
            "{told:?}"
        );
    }

    #[test]
    fn query_that_follows_another_waits_for_that() {
        let mut scene = scene(&["-u192.0.2.1"]);
        scene.ask(QUERY, Transport::Udp);
        scene.bring_up();
        let sent = scene.sent();
        scene.now += Duration::from_millis(3);
        scene.ask(QUERY, Transport::Udp);
        scene.outbox.clear();
        scene.outbox.send(sent[0].0, |out| out.extend(&sent[0].1));
        scene.answer_with(3);
        assert_eq!(scene.told()[1], ["cache 3-3 Done", "sharing 3-"]);
    }

    #[test]
    fn new_settings_end_what_is_under_way() {
        let mut scene = scene(&["-u192.0.2.1"]);
        scene.ask(QUERY, Transport::Udp);
        scene.bring_up();
        scene.now += Duration::from_millis(9);
        scene.outbox.clear();
        let other = config(&[&TRACED[..], &["-u192.0.2.2"]].concat());
        scene
            .proxy
            .reconfigure(&other, scene.now, &mut scene.outbox);
        scene.bring_up();
        scene.answer_with(3);
        let told = scene.told().pop().unwrap();
        assert!(
            told.contains(&"attempt 0 0-9 Reconfigured".to_owned()),
            "{told:?}"
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
