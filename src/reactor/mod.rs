//! The event loop: waits for input, hands bytes to sessions and messages to the proxy, and performs
//! the actions of the proxy.
//!
//! ```text
//! a turn:  wait until a socket is ready or a timer is due; no wait if a session is runnable
//!          read the clock, once
//!          step the runnable sessions, each up to its limit per turn, listeners last
//!          run due timers
//!          perform the proxy's actions: queries gather in the buffers of links
//!          flush the sessions with new output: one record and one write for each link
//!          take a few costly steps: TLS handshakes, HTTP requests
//!          perform and flush the results of the costly steps
//! ```
//!
//! The poller is edge-triggered: it reports readiness once. A session with more to read therefore
//! stays in the queue of runnable sessions, or the loop stores why the session cannot run: a client
//! with full buffers waits until it has taken a response; a client for which the proxy has no room,
//! or which exceeded its rate limit, is parked; a listener waits until a file descriptor is free or
//! the pause after an error of `accept` is over. An error closes one session, never the loop.

mod accepting;
mod block_lists;
mod cache_file;
mod client_limits;
mod connection_log;
mod costly_steps;
mod export;
mod file_watch;
mod idle_clients;
mod input;
mod late_acknowledgements;
mod late_listeners;
mod lifecycle;
mod listen;
mod moderation;
mod output;
mod parking;
mod sessions;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::base::arena::{Arena, Key};
use crate::base::histogram::Histogram;
use crate::base::random::{Random, SEED_LEN};
use crate::base::time::Instant;
use crate::block::Loader;
use crate::config::Config;
use crate::net::{Event, Net};
use crate::proxy::{Outbox, Proxy};
use crate::session::Scratch;
use crate::telemetry::logger;
use crate::telemetry::proc_stats::ProcessStats;
use crate::telemetry::query_log::QueryLog;
use crate::tls;
use crate::tls::clock::Clock;

pub use listen::ListenError;

use accepting::AcceptPause;
use client_limits::{Bounds, Clients};
use costly_steps::CostlySteps;
use export::dnstap::Tap;
use export::otlp::Traces;
use file_watch::FileWatch;
use late_acknowledgements::LateAcknowledgements;
use late_listeners::LateListeners;
use listen::{Opened, Service, listen_everywhere};
use moderation::Moderation;
use parking::Parking;
use sessions::{Session, Slot, client_at, last_active_at, session_at};

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn follows.
    GoOn,
    /// Another turn follows, and free memory can be returned: a burst or a connection has ended, or
    /// some time has passed.
    Quiet,
    /// Another turn follows after a call of [`Reactor::reload`].
    Reload,
    /// The graceful shutdown is complete.
    Finished,
}

/// Callbacks from the loop to the process and the service manager.
pub trait ProcessHooks {
    /// Reports that clients are served: after the start and after each reload.
    fn on_ready(&self);

    /// Reports that a reload begins.
    fn on_reload(&self);

    /// Reports that the shutdown has begun.
    fn on_finish(&self);

    /// Returns free memory to the system.
    fn trim_memory(&self);

    /// Reads the current settings.
    fn read_again(&self) -> Result<Config, String>;

    /// Notifies the watchdog if a notification is due. Returns the time of the next one.
    fn feed_watchdog(&self, now: Instant) -> Option<Instant>;
}

/// The event loop over a network. See the [module](self).
pub struct Reactor<N: Net> {
    net: N,
    config: Config,
    tls: tls::Setup,
    /// Pin mismatches counted before `tls` was last reloaded.
    pins_mismatched: u64,
    proxy: Proxy,
    /// Collects the actions of the proxy.
    outbox: Outbox,
    /// The actions that are being performed. It is swapped with `outbox`.
    outbox_in_work: Outbox,
    sessions: Arena<Key, Slot<N>>,
    /// The session of each link, by the link's index.
    session_by_link: Vec<Option<Key>>,
    clients: Clients,
    http_clients: Clients,
    runnable: VecDeque<Key>,
    /// Runnable sessions with costly steps.
    costly_sessions: CostlySteps,
    /// Runnable listeners. They run last, because clients that close free slots for new ones.
    accepting: Vec<Key>,
    unflushed: Vec<Key>,
    acknowledgements: LateAcknowledgements,
    /// The number of actions performed in this turn.
    performed: usize,
    moderation: Moderation,
    /// The upstream connection that was read last uses HTTP/2.
    reads_http2: bool,
    /// Clients for which the proxy has no room, or which exceeded their rate limit.
    parking: Parking,
    accept_pause: AcceptPause,
    late_listeners: LateListeners,
    query_log: Option<QueryLog>,
    tap: Option<Tap>,
    traces: Option<Traces>,
    /// Time at which the log is written again after a slow reader.
    log_at: Option<Instant>,
    clock: Clock,
    /// Time at which the clock writes its next stamp.
    stamp_at: Option<Instant>,
    /// Time of the next notification to the watchdog.
    watchdog_at: Option<Instant>,
    /// Time at which free memory is returned, if any may be free.
    trim_at: Option<Instant>,
    process: ProcessStats,
    /// Durations of turns, without the waiting.
    turns: Histogram,
    /// Set by a signal or by a changed file: the settings are to be reloaded.
    is_reload_asked: bool,
    file_watch: FileWatch,
    /// The block lists that a reload reads.
    block_loader: Option<Loader>,
    /// Deadline of the graceful shutdown, once it has begun.
    finish_at: Option<Instant>,
    events: Vec<Event>,
    scratch: Scratch,
    started_at: Instant,
    now: Instant,
}

impl<N: Net> Reactor<N> {
    /// Creates a loop that listens on the addresses of `config`. `tls` has the contents of the TLS
    /// files. The query log is closed until [`Reactor::open_query_log`] is called. The result is
    /// boxed because a stack copy of its 10 KB would keep the pages of the stack resident.
    pub fn new(
        mut net: N,
        config: &Config,
        tls: tls::Setup,
        clock: Clock,
        seed: &[u8; SEED_LEN],
    ) -> Result<Box<Self>, ListenError> {
        let now = net.now();
        // Separate seeds: the ids of traces are public and must not reveal the ids of later
        // queries.
        let mut random = Random::new(seed);
        let Opened { sessions, late } = listen_everywhere(&mut net, config)?;
        Ok(Box::new(Self {
            net,
            config: config.clone(),
            tls,
            pins_mismatched: 0,
            proxy: Proxy::new(config, &random.next_seed()),
            outbox: Outbox::new(export::query_records::are_taken(None)),
            outbox_in_work: Outbox::new(export::query_records::are_taken(None)),
            query_log: None,
            tap: config.dnstap.clone().map(|target| {
                let unsent_max = config.limits.dnstap_unsent;
                Tap::new(target, unsent_max)
            }),
            traces: config.traces.as_ref().map(|settings| {
                let random = Random::new(&random.next_seed());
                Traces::new(settings, random)
            }),
            sessions,
            session_by_link: Vec::new(),
            clients: Clients::new(Bounds::of_clients(config)),
            http_clients: Clients::new(Bounds::of_http(config)),
            process: ProcessStats::open(),
            turns: Histogram::default(),
            runnable: VecDeque::new(),
            costly_sessions: CostlySteps::default(),
            accepting: Vec::new(),
            unflushed: Vec::new(),
            acknowledgements: LateAcknowledgements::default(),
            performed: 0,
            moderation: Moderation::new(now),
            reads_http2: false,
            parking: Parking::default(),
            accept_pause: AcceptPause::default(),
            late_listeners: LateListeners::new(late, now),
            log_at: None,
            stamp_at: clock.stamp_interval().map(|interval| now + interval),
            clock,
            watchdog_at: None,
            trim_at: Some(now + BURST_PAUSE),
            is_reload_asked: false,
            file_watch: FileWatch::default(),
            block_loader: None,
            finish_at: None,
            events: Vec::new(),
            scratch: Scratch::new(),
            started_at: now,
            now,
        }))
    }

    /// Runs turns until a signal starts the shutdown and the shutdown is complete. Fails if the
    /// poller fails.
    pub fn run(&mut self, host: &impl ProcessHooks) -> io::Result<()> {
        self.announce();
        self.file_watch.follow(&self.config, self.now);
        self.proxy.connect_at_start(self.now, &mut self.outbox);
        self.perform_all();
        // The first turn may wait for a long time.
        self.write_log();
        host.on_ready();
        let mut is_finishing = false;
        loop {
            self.watchdog_at = host.feed_watchdog(self.now);
            let turn = self.turn()?;
            if self.finish_at.is_some() && !std::mem::replace(&mut is_finishing, true) {
                host.on_finish();
            }
            match turn {
                Turn::GoOn => {}
                Turn::Quiet => host.trim_memory(),
                Turn::Reload => {
                    host.on_reload();
                    self.reload(host.read_again());
                    host.on_ready();
                }
                Turn::Finished => break,
            }
        }
        self.end_tap();
        self.clock.stamp(self.now);
        if let Some(path) = self.config.cache_file_in_use() {
            self.write_cache_file(path);
        }
        self.log_at = None;
        self.write_log();
        Ok(())
    }

    /// Runs one turn.
    pub fn turn(&mut self) -> io::Result<Turn> {
        self.moderate();
        let timeout = self.timeout();
        self.now = self.net.wait(timeout, &mut self.events)?;
        self.set_signature_clock();
        let mut events = std::mem::take(&mut self.events);
        if !events.is_empty() {
            self.trim_at.get_or_insert(self.now + QUIET_PAUSE);
        }
        for event in events.drain(..) {
            match event {
                Event::Ready {
                    token,
                    is_read_closed,
                } => self.on_ready(token, is_read_closed),
                Event::Signal(signal) => self.on_signal(signal),
                Event::Resumed { slept } => {
                    self.proxy.handle_resume(slept, self.now, &mut self.outbox);
                }
            }
        }
        self.events = events;
        for _ in 0..self.runnable.len() {
            let Some(key) = self.runnable.pop_front() else {
                break;
            };
            self.step(key);
        }
        for key in std::mem::take(&mut self.accepting) {
            self.step(key);
        }
        // Input comes before timeouts, because the loop itself may have been delayed.
        self.run_due_timers();
        self.perform_all();
        self.run_costly_steps();
        if self.block_loader.is_some() {
            self.load_block_lists();
        }
        self.send_tap();
        self.perform_all();
        self.unpark();
        self.write_log();
        self.turns.observe(self.net.now() - self.now);
        Ok(if self.is_finished() {
            Turn::Finished
        } else if std::mem::take(&mut self.is_reload_asked) {
            Turn::Reload
        } else if self.take_due_trim() {
            self.release_spare();
            Turn::Quiet
        } else {
            Turn::GoOn
        })
    }

    /// Returns the query engine, for inspection.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Returns the network, for inspection and for changes by a simulation.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// Returns the number of open sockets.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the number of bytes held for TCP clients.
    pub fn held(&self) -> usize {
        self.clients.held()
    }

    // Time.

    fn timeout(&mut self) -> Option<Duration> {
        if self.has_runnable() {
            return Some(Duration::ZERO);
        }
        let moments = [
            self.proxy.poll_timeout(),
            self.clients.next_expiry(),
            self.http_clients.next_expiry(),
            self.accept_pause.until(),
            self.acknowledgements.due(),
            self.late_listeners.retry_at(),
            self.parking.next_at(),
            self.tap.as_ref().and_then(Tap::next_due),
            self.traces_due(),
            self.log_at,
            self.stamp_at,
            self.file_watch.next_at(),
            self.watchdog_at,
            self.trim_at,
            self.finish_at,
        ];
        moments
            .into_iter()
            .flatten()
            .min()
            .map(|moment| moment - self.now)
    }

    /// Pauses before the next turn if [`moderation`] finds that a pause costs no throughput.
    fn moderate(&mut self) {
        let performed = std::mem::take(&mut self.performed);
        let is_left = self.has_runnable();
        let inflight = self.proxy.inflight();
        let over_http2 = if self.reads_http2 { inflight } else { 0 };
        if let Some(pause) = self.moderation.on_turn(performed, over_http2, self.now)
            && !is_left
        {
            self.net.pause(pause);
        }
    }

    fn run_due_timers(&mut self) {
        if self.proxy.poll_timeout().is_some_and(|at| at <= self.now) {
            self.proxy.handle_timeout(self.now, &mut self.outbox);
        }
        self.send_due_acknowledgements();
        self.close_idle_clients();
        self.close_idle_http();
        self.retry_listeners();
        self.connect_tap();
        self.post_traces();
        if self.accept_pause.until().is_some_and(|at| at <= self.now) {
            self.resume_listeners();
        }
        if self.stamp_at.is_some_and(|at| at <= self.now) {
            let interval = self.clock.stamp_interval();
            self.stamp_at = interval.map(|interval| self.now + interval);
            self.clock.stamp(self.now);
        }
        let changes = self.file_watch.check_if_due(self.now);
        changes.log();
        self.is_reload_asked |= changes.changed.is_some();
    }

    fn write_log(&mut self) {
        if self.log_at.is_some_and(|at| at > self.now) {
            return;
        }
        let is_left = self.query_log.as_mut().is_some_and(QueryLog::write);
        let is_left = logger::write_queued() || is_left;
        self.log_at = is_left.then(|| self.now + LOG_PAUSE);
    }

    // Memory.

    /// Clears the time of the next trim if it has come. Returns whether a burst or a connection has
    /// ended, and free memory can be returned.
    fn take_due_trim(&mut self) -> bool {
        if self.proxy.inflight() >= BURST_LEN {
            self.trim_at = Some(self.now + BURST_PAUSE);
        }
        self.trim_at.take_if(|at| *at <= self.now).is_some()
    }

    /// Schedules the release of memory after a connection has opened or closed: its buffers are
    /// free.
    fn schedule_trim(&mut self) {
        let soon = self.now + BURST_PAUSE;
        self.trim_at = Some(self.trim_at.map_or(soon, |at| at.min(soon)));
    }

    /// Releases memory that is otherwise kept for the next turn.
    fn release_spare(&mut self) {
        self.proxy.release_spare();
        let takes_records = export::query_records::are_taken(self.query_log.as_ref());
        self.outbox = Outbox::new(takes_records);
        self.outbox_in_work = Outbox::new(takes_records);
        self.scratch = Scratch::new();
    }

    // Sessions.

    fn has_runnable(&self) -> bool {
        !self.runnable.is_empty()
            || !self.accepting.is_empty()
            || !self.costly_sessions.is_empty()
            || self.block_loader.is_some()
    }

    fn make_runnable(&mut self, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key)
            && !slot.is_runnable
        {
            slot.is_runnable = true;
            match (&slot.session, slot.session.costly_step()) {
                (Session::Listener(..), _) => self.accepting.push(key),
                (_, Some(costly_step)) => self.costly_sessions.push(costly_step, key),
                _ => self.runnable.push_back(key),
            }
        }
    }

    fn make_unflushed(&mut self, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key)
            && !slot.is_unflushed
        {
            slot.is_unflushed = true;
            self.unflushed.push(key);
        }
    }
}

/// Minimum number of queries in flight in a burst.
const BURST_LEN: usize = 32;

/// A burst is over after this time with fewer queries in flight.
const BURST_PAUSE: Duration = Duration::from_secs(1);

/// Maximum time between any event and the release of memory.
const QUIET_PAUSE: Duration = Duration::from_secs(5);

/// Pause before the log is written again after its reader took nothing.
const LOG_PAUSE: Duration = Duration::from_millis(100);
