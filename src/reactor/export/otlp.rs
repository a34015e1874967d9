//! The trace exporter: gathers spans, posts them in batches, and drops them if the collector is too
//! slow.

use std::time::Duration;

use super::connection::{Connection, Exporter};
use super::query_records::names_of;
use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::{Limits, Timeouts, TraceSettings};
use crate::net::Net;
use crate::proxy::{Outbox, Record, Trace};
use crate::reactor::{Reactor, Session, Slot, session_at};
use crate::session::observer::http_client::Answer;
use crate::session::{HttpClient, Step};
use crate::telemetry::otlp::{self, FinishedQuery, Spans};
use crate::telemetry::resource::Resource;

/// The gathered spans and the connection to the collector.
#[derive(Debug)]
pub(in crate::reactor) struct Traces {
    settings: TraceSettings,
    resource: Resource,
    random: Random,
    gathered: Spans,
    /// The time at which the first of the gathered spans was added.
    gathered_since: Instant,
    /// The batch that is being posted.
    batch: Option<Batch>,
    pub(super) connection: Connection,
    posted: u64,
}

/// Spans that are posted together.
#[derive(Debug)]
struct Batch {
    request: Vec<u8>,
    count: u64,
    /// The deadline for the collector's answer, if the batch has been sent.
    answer_by: Option<Instant>,
}

impl Traces {
    pub(in crate::reactor) fn new(settings: &TraceSettings, mut random: Random) -> Self {
        Self {
            settings: settings.clone(),
            resource: Resource::new(&settings.resource, &mut random),
            random,
            gathered: Spans::default(),
            gathered_since: Instant::default(),
            batch: None,
            connection: Connection::default(),
            posted: 0,
        }
    }

    pub(in crate::reactor) fn reconfigure(&mut self, settings: &TraceSettings) {
        self.settings = settings.clone();
    }

    /// Returns the number of spans that the collector accepted.
    pub(in crate::reactor) fn posted(&self) -> u64 {
        self.posted
    }

    /// Returns the number of spans that the collector did not accept.
    pub(in crate::reactor) fn dropped(&self) -> u64 {
        self.connection.dropped
    }

    /// Returns whether there are spans that the collector may still accept.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        !self.connection.has_problem() && (self.batch.is_some() || !self.gathered.is_empty())
    }

    /// Returns the time of the next action, if spans are gathered for `gather` or until they have
    /// `batch_len` bytes.
    fn next_due(&self, gather: Duration, batch_len: usize) -> Option<Instant> {
        let due = match &self.batch {
            Some(batch) => batch.answer_by,
            None if self.gathered.is_empty() => return None,
            None if self.gathered.len() >= batch_len => None,
            None => Some(self.gathered_since + gather),
        };
        Some(due.unwrap_or_default().max(self.connection.pause_until))
    }

    /// Returns whether a batch has been sent and not answered.
    fn is_posting(&self) -> bool {
        let batch = self.batch.as_ref();
        batch.is_some_and(|batch| batch.answer_by.is_some())
    }

    /// Adds the span of a query that ended now; `now_since_1970` is the same time on the wall
    /// clock.
    pub(in crate::reactor) fn add(
        &mut self,
        (record, trace): (&Record, &Trace),
        question: Option<&[u8]>,
        upstream: Option<&str>,
        (now, now_since_1970): (Instant, Duration),
        limits: &Limits,
    ) {
        if self.gathered.len() >= limits.traces_gathered {
            self.connection.dropped += otlp::spans_of(record, trace);
            return;
        }
        if self.gathered.is_empty() {
            self.gathered_since = now;
        }
        let query = FinishedQuery {
            record,
            trace,
            question,
            upstream,
            clients: self.settings.clients,
            ended: now,
            ended_at: now_since_1970,
        };
        self.gathered.add(&query, &mut self.random);
    }

    /// Makes a batch of the gathered spans, unless the last batch is still pending.
    fn fill_batch(&mut self) {
        let resource = &self.resource;
        self.batch.get_or_insert_with(|| {
            let spans = std::mem::take(&mut self.gathered);
            Batch {
                request: spans.request(resource),
                count: spans.count(),
                answer_by: None,
            }
        });
    }

    /// Logs a problem, once.
    fn report_problem(&mut self, problem: &str) {
        if self.connection.on_problem(problem) {
            let collector = &self.settings.collector;
            log::warn!(event = "traces-lost"; "traces: {collector}: {problem}");
        }
    }

    /// Handles the loss of the connection: spans that the collector has not accepted are offered
    /// again after a pause. A collector that closes after its answer has said in the answer how to
    /// continue.
    pub(super) fn on_lost(&mut self, reason: &str, until: Instant) {
        if let Some(batch) = &mut self.batch
            && batch.answer_by.take().is_some()
        {
            self.connection.pause_until = until;
            self.report_problem(&format!("{reason}; retrying"));
        }
    }

    /// Handles the answer of the collector. Spans that the collector cannot accept now are offered
    /// again (OTLP specification, "Failures").
    fn on_answer(&mut self, answer: &Answer, now: Instant, timeouts: &Timeouts) {
        match (answer.status, &mut self.batch) {
            (200..300, batch) => {
                let had_problem = self.connection.on_accepted();
                if self.posted == 0 || had_problem {
                    let collector = &self.settings.collector;
                    log::info!(event = "traces-taken"; "traces: connected to {collector}");
                }
                self.posted += batch.take().map_or(0, |batch| batch.count);
            }
            (429 | 502 | 503 | 504, Some(batch)) => {
                batch.answer_by = None;
                let pause = answer.retry_after.unwrap_or(timeouts.traces_pause);
                self.connection.pause_until = now + pause.min(timeouts.traces_pause_max);
                self.report_problem(&format!("HTTP status {}; retrying", answer.status));
            }
            (status, batch) => {
                self.connection.dropped += batch.take().map_or(0, |batch| batch.count);
                self.report_problem(&format!("HTTP status {status}; traces are dropped"));
            }
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Adds the traced queries that ended.
    pub(in crate::reactor) fn trace_all(&mut self, outbox: &Outbox) {
        let Some(traces) = &mut self.traces else {
            return;
        };
        for record in outbox.records() {
            let Some(trace) = &record.trace else {
                continue;
            };
            let (question, upstream) = names_of(record, outbox, &self.proxy);
            let (now, limits) = ((self.now, self.clock.now()), &self.config.limits);
            traces.add((record, trace), question, upstream, now, limits);
        }
    }

    /// Returns the time of the next action for traces.
    pub(in crate::reactor) fn traces_due(&self) -> Option<Instant> {
        let gather = match self.finish_at {
            Some(_) => Duration::ZERO,
            None => self.config.timeouts.traces_gather,
        };
        let traces = self.traces.as_ref()?;
        traces.next_due(gather, self.config.limits.traces_batch)
    }

    /// Posts the gathered spans if they are due, or gives up a post that timed out.
    pub(in crate::reactor) fn post_traces(&mut self) {
        if self.traces_due().is_none_or(|at| at > self.now) {
            return;
        }
        let posted = match &mut self.traces {
            Some(traces) if traces.is_posting() => {
                Err(Failure::new(FailureKind::Stalled, "no HTTP response"))
            }
            Some(traces) => {
                traces.fill_batch();
                self.post_batch()
            }
            None => Ok(()),
        };
        if let Err(failure) = posted {
            self.disconnect_exporter(Exporter::Traces, &failure.to_string());
        }
    }

    fn post_batch(&mut self) -> Result<(), Failure> {
        let Some(traces) = &mut self.traces else {
            return Ok(());
        };
        let to = &traces.settings.collector;
        let key = if let Some(key) = traces.connection.session {
            key
        } else {
            let stream = self.net.connect(to.address, self.sessions.next_key());
            let failed = |error| Failure::new(FailureKind::Connect, error);
            let session = Session::Collector(HttpClient::new(stream.map_err(failed)?));
            *traces
                .connection
                .session
                .insert(self.sessions.insert(Slot::new(session)))
        };
        if let Some(Session::Collector(collector)) = session_at(&mut self.sessions, key)
            && let Some(batch) = &mut traces.batch
        {
            collector.post(to.address, &to.path, otlp::CONTENT_TYPE, &batch.request);
            batch.answer_by = Some(self.now + self.config.timeouts.traces_answer);
            self.make_unflushed(key);
        }
        Ok(())
    }

    pub(in crate::reactor) fn step_collector(&mut self, key: Key) -> Result<Step, Failure> {
        let Some(Session::Collector(collector)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        if let Some(answer) = collector.ready(&mut self.scratch)?
            && let Some(traces) = &mut self.traces
        {
            traces.on_answer(&answer, self.now, &self.config.timeouts);
            if !answer.is_kept {
                traces.connection.session = None;
                self.sessions.remove(key);
                self.schedule_trim();
                return Ok(Step::Drained);
            }
            // The end of the stream may have arrived with the answer.
            self.make_unflushed(key);
            return Ok(Step::Again);
        }
        self.make_unflushed(key);
        Ok(Step::Drained)
    }
}
