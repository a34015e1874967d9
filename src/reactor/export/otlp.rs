//! The way of traces to their collector: gathered until there are some, posted together, and
//! dropped if it is too slow.

use std::time::Duration;

use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::base::random::Random;
use crate::base::time::Instant;
use crate::config::{Limits, Timeouts, TraceSettings};
use crate::net::Net;
use crate::proxy::{Outbox, Record, Trace};
use crate::reactor::{Reactor, Session, Slot};
use crate::session::HttpClient;
use crate::session::observer::http_client::Answer;
use crate::telemetry::otlp::{self, FinishedQuery, Spans};

/// What has been gathered, and who is to have it.
#[derive(Debug)]
pub(in crate::reactor) struct Traces {
    settings: TraceSettings,
    random: Random,
    gathered: Spans,
    /// Since when there are some.
    gathered_since: Instant,
    /// What is being posted.
    batch: Option<Batch>,
    /// The connection to the collector, if there is one.
    session: Option<Key>,
    /// Before that, it is not tried again.
    pause_until: Instant,
    /// What was last told to be wrong; empty if nothing is.
    told: String,
    posted: u64,
    dropped: u64,
}

/// Spans that were taken together.
#[derive(Debug)]
struct Batch {
    request: Vec<u8>,
    count: u64,
    /// When the collector has to have taken it, if it is under way.
    answer_by: Option<Instant>,
}

impl Traces {
    pub(in crate::reactor) fn new(settings: &TraceSettings, random: Random) -> Self {
        Self {
            settings: settings.clone(),
            random,
            gathered: Spans::default(),
            gathered_since: Instant::default(),
            batch: None,
            session: None,
            pause_until: Instant::default(),
            told: String::new(),
            posted: 0,
            dropped: 0,
        }
    }

    pub(in crate::reactor) fn reconfigure(&mut self, settings: &TraceSettings) {
        self.settings = settings.clone();
    }

    /// Spans that the collector took.
    pub(in crate::reactor) fn posted(&self) -> u64 {
        self.posted
    }

    /// Spans that it did not.
    pub(in crate::reactor) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether there is something that the collector may still take.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        self.told.is_empty() && (self.batch.is_some() || !self.gathered.is_empty())
    }

    /// When there is something to do, where spans are gathered for so long or until they take so
    /// many octets.
    fn next_due(&self, gather: Duration, batch_len: usize) -> Option<Instant> {
        let due = match &self.batch {
            Some(batch) => batch.answer_by,
            None if self.gathered.is_empty() => return None,
            None if self.gathered.len() >= batch_len => None,
            None => Some(self.gathered_since + gather),
        };
        Some(due.unwrap_or_default().max(self.pause_until))
    }

    /// Whether something is under way to the collector.
    fn is_posting(&self) -> bool {
        let batch = self.batch.as_ref();
        batch.is_some_and(|batch| batch.answer_by.is_some())
    }

    /// Takes a query that ended now, which is `now_since_1970`, too.
    pub(in crate::reactor) fn add(
        &mut self,
        (record, trace): (&Record, &Trace),
        question: Option<&[u8]>,
        upstream: Option<&str>,
        (now, now_since_1970): (Instant, Duration),
        limits: &Limits,
    ) {
        if self.gathered.len() >= limits.traces_gathered {
            self.dropped += otlp::spans_of(record, trace);
            return;
        }
        if self.gathered.is_empty() {
            self.gathered_since = now;
        }
        let told = FinishedQuery {
            record,
            trace,
            question,
            upstream,
            clients: self.settings.clients,
            ended: now,
            ended_at: now_since_1970,
        };
        self.gathered.add(&told, &mut self.random);
    }

    /// Makes what was gathered a batch, unless the last is still to be taken.
    fn fill_batch(&mut self) {
        self.batch.get_or_insert_with(|| {
            let spans = std::mem::take(&mut self.gathered);
            Batch {
                request: spans.request(),
                count: spans.count(),
                answer_by: None,
            }
        });
    }

    /// Says what is wrong, once.
    fn tell(&mut self, problem: String) {
        if self.told != problem {
            let collector = &self.settings.collector;
            log::warn!(event = "traces-lost"; "traces: {collector}: {problem}");
            self.told = problem;
        }
    }

    /// Takes note of what the collector said. Traces that it cannot take now it is offered again
    /// (OTLP specification, "Failures").
    fn on_answer(&mut self, answer: &Answer, now: Instant, timeouts: &Timeouts) {
        match (answer.status, &mut self.batch) {
            (200..300, batch) => {
                let was_in_trouble = !std::mem::take(&mut self.told).is_empty();
                if self.posted == 0 || was_in_trouble {
                    let collector = &self.settings.collector;
                    log::info!(event = "traces-taken"; "traces: {collector} takes them");
                }
                self.posted += batch.take().map_or(0, |batch| batch.count);
            }
            (429 | 502 | 503 | 504, Some(batch)) => {
                batch.answer_by = None;
                let pause = answer.retry_after.unwrap_or(timeouts.traces_pause);
                self.pause_until = now + pause.min(timeouts.traces_pause_max);
                self.tell(format!("status {}; will be tried again", answer.status));
            }
            (status, batch) => {
                self.dropped += batch.take().map_or(0, |batch| batch.count);
                self.tell(format!("status {status}: traces are dropped"));
            }
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Takes what ended and was followed.
    pub(in crate::reactor) fn trace_all(&mut self, outbox: &Outbox) {
        let Some(traces) = &mut self.traces else {
            return;
        };
        for record in outbox.records() {
            let Some(trace) = &record.trace else {
                continue;
            };
            let question = record.question.as_ref().map(|range| outbox.bytes(range));
            let upstream = record
                .upstream
                .map(|index| self.proxy.upstream_label(index));
            let (now, limits) = ((self.now, self.clock.now()), &self.config.limits);
            traces.add((record, trace), question, upstream, now, limits);
        }
    }

    /// When there is something to do for traces.
    pub(in crate::reactor) fn traces_due(&self) -> Option<Instant> {
        let gather = match self.finish_at {
            Some(_) => Duration::ZERO,
            None => self.config.timeouts.traces_gather,
        };
        let traces = self.traces.as_ref()?;
        traces.next_due(gather, self.config.limits.traces_batch)
    }

    /// Posts what was gathered, or gives up what was posted, if it is time to.
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
            self.lose_collector(&failure);
        }
    }

    fn post_batch(&mut self) -> Result<(), Failure> {
        let Some(traces) = &mut self.traces else {
            return Ok(());
        };
        let to = &traces.settings.collector;
        let key = if let Some(key) = traces.session {
            key
        } else {
            let stream = self.net.connect(to.address, self.sessions.next_key());
            let failed = |error| Failure::new(FailureKind::Connect, error);
            let session = Session::Collector(HttpClient::new(stream.map_err(failed)?));
            *traces
                .session
                .insert(self.sessions.insert(Slot::new(session)))
        };
        let collector = self.sessions.get_mut(key).and_then(Slot::collector);
        if let (Some(collector), Some(batch)) = (collector, &mut traces.batch) {
            collector.post(to.address, &to.path, otlp::CONTENT_TYPE, &batch.request);
            batch.answer_by = Some(self.now + self.config.timeouts.traces_answer);
            self.make_unflushed(key);
        }
        Ok(())
    }

    pub(in crate::reactor) fn step_collector(&mut self, key: Key) {
        let Some(collector) = self.sessions.get_mut(key).and_then(Slot::collector) else {
            return;
        };
        match collector.ready(&mut self.scratch) {
            Err(failure) => return self.lose_collector(&failure),
            Ok(None) => {}
            Ok(Some(answer)) => {
                let Some(traces) = &mut self.traces else {
                    return;
                };
                traces.on_answer(&answer, self.now, &self.config.timeouts);
                if !answer.is_kept {
                    traces.session = None;
                    self.sessions.remove(key);
                    return self.relax_soon();
                }
                // The end may have come with it.
                self.make_runnable(key);
            }
        }
        self.make_unflushed(key);
    }

    pub(in crate::reactor) fn flush_collector(&mut self, key: Key) {
        if let Some(collector) = self.sessions.get_mut(key).and_then(Slot::collector)
            && let Err(failure) = collector.flush(&mut self.scratch)
        {
            self.lose_collector(&failure);
        }
    }

    /// Forgets the connection to the collector. What it has not said to have taken it is offered
    /// again.
    fn lose_collector(&mut self, failure: &Failure) {
        let Some(traces) = &mut self.traces else {
            return;
        };
        if let Some(key) = traces.session.take() {
            self.sessions.remove(key);
        }
        // Whoever closes after an answer has said in it what is to be done.
        let is_under_way = |batch: &&mut Batch| batch.answer_by.is_some();
        if let Some(batch) = traces.batch.as_mut().filter(is_under_way) {
            batch.answer_by = None;
            traces.pause_until = self.now + self.config.timeouts.traces_pause;
            traces.tell(format!("{failure}; will be tried again"));
        }
        self.relax_soon();
    }
}
