//! The loop: it waits, hands bytes to sessions, hands messages to the proxy, and performs what the
//! proxy asks for.
//!
//! ```text
//! a turn:  wait until a socket is ready or something is due; not at all with sessions runnable
//!          take the time, once
//!          step the runnable sessions, each as far as it may go at a time, listeners last
//!          do what is due
//!          perform the proxy's actions: queries gather in the buffers of links
//!          flush the sessions that were written to: one record and one write for each link
//!          take a few costly steps: TLS handshakes, HTTP requests
//!          perform and flush what those have led to
//! ```
//!
//! The poller reports an edge once. A session that has not read all there is stays in the queue of
//! the runnable, or where it is remembered why it cannot run: a client that is full until it has
//! taken a response, a client that found the proxy full or has exceeded its rate until there is
//! room, a listener until a file descriptor is free or the error of `accept` may be over. An error
//! closes one session, never
//! the loop.

mod accepting;
mod client_limits;
mod costly_steps;
mod export;
mod input;
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
use crate::base::origin::Subscriber;
use crate::base::random::{Random, SEED_LEN};
use crate::base::time::Instant;
use crate::config::Config;
use crate::net::{Event, Net};
use crate::proxy::{Outbox, Proxy};
use crate::session::{ClientStream, Scratch};
use crate::telemetry::logger;
use crate::telemetry::proc_stats::Process;
use crate::telemetry::query_log::QueryLog;
use crate::tls;
use crate::tls::clock::Clock;

pub use listen::ListenError;

use accepting::AcceptPause;
use client_limits::{Bounds, Clients};
use costly_steps::CostlySteps;
use export::dnstap::Tap;
use export::otlp::Traces;
use listen::{ClientProtocol, listen_everywhere};
use moderation::Moderation;
use parking::Parking;
use sessions::{Session, Slot, client_at};

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be another turn.
    GoOn,
    /// There will be another turn, and a burst is over, or connections are, or it has been a while:
    /// memory that is free is not needed soon.
    Relax,
    /// There will be another turn, and [`Reactor::reload`] is wanted first.
    Reload,
    /// All is done that was asked for.
    Finished,
}

/// What is around the loop: the process, and whoever watches over it.
pub trait ProcessHooks {
    /// Clients are served, for the first time or with other settings.
    fn on_ready(&self);

    /// Settings are about to be read again.
    fn on_reload(&self);

    /// There will be no more clients.
    fn on_finish(&self);

    /// Memory that is free is not needed soon.
    fn trim_memory(&self);

    /// The settings as they are now.
    fn read_again(&self) -> Result<Config, String>;

    /// Tells whoever watches that the loop turns, if it is time to. Returns when it is next.
    fn feed_watchdog(&self, now: Instant) -> Option<Instant>;
}

/// The loop over a network. See the [module](self).
pub struct Reactor<N: Net> {
    net: N,
    config: Config,
    tls: tls::Setup,
    /// How often pins had not matched before `tls` was last read.
    pins_mismatched: u64,
    proxy: Proxy,
    /// What the proxy asks for, while it is asked.
    outbox: Outbox,
    /// What the proxy has asked for, while it is done. The two change places.
    outbox_in_work: Outbox,
    sessions: Arena<Slot<N>>,
    /// The session of each link, by the link's index.
    session_by_link: Vec<Option<Key>>,
    clients: Clients,
    http_clients: Clients,
    runnable: VecDeque<Key>,
    /// Sessions that are runnable and whose steps are costly.
    burdens: CostlySteps,
    /// Listeners that are runnable: those who have left make room for those who come.
    accepting: Vec<Key>,
    unflushed: Vec<Key>,
    /// Actions that were performed in this turn.
    performed: usize,
    moderation: Moderation,
    /// Clients that found no room in the proxy, or have exceeded their rate.
    parking: Parking,
    accept_pause: AcceptPause,
    query_log: Option<QueryLog>,
    tap: Option<Tap>,
    traces: Option<Traces>,
    /// When a reader of the log that was slow is tried again.
    log_at: Option<Instant>,
    clock: Clock,
    /// When the clock writes its stamp.
    stamp_at: Option<Instant>,
    /// When whoever watches is to be told that the loop turns.
    watchdog_at: Option<Instant>,
    /// When memory that is free goes back, if some may be.
    relax_at: Option<Instant>,
    process: Process,
    /// What turns took, waiting aside.
    turns: Histogram,
    /// The settings are to be read again.
    is_reload_asked: bool,
    /// When the loop ends at the latest, once that was asked for.
    finish_at: Option<Instant>,
    events: Vec<Event>,
    scratch: Scratch,
    now: Instant,
}

impl<N: Net> Reactor<N> {
    /// A loop that serves where `config` says. `tls` is what its files hold. Until
    /// [`Reactor::open_query_log`] there is no query log.
    pub fn new(
        mut net: N,
        config: &Config,
        tls: tls::Setup,
        clock: Clock,
        seed: &[u8; SEED_LEN],
    ) -> Result<Self, ListenError> {
        let now = net.now();
        // Whoever sees the ids of traces must not know those of queries to come.
        let mut random = Random::new(seed);
        let sessions = listen_everywhere(&mut net, config)?;
        Ok(Self {
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
                Tap::new(target, unsent_max, now)
            }),
            traces: config.traces.as_ref().map(|settings| {
                let random = Random::new(&random.next_seed());
                Traces::new(settings, random)
            }),
            sessions,
            session_by_link: Vec::new(),
            clients: Clients::new(Bounds::of_clients(config)),
            http_clients: Clients::new(Bounds::of_http(config)),
            process: Process::open(),
            turns: Histogram::default(),
            runnable: VecDeque::new(),
            burdens: CostlySteps::default(),
            accepting: Vec::new(),
            unflushed: Vec::new(),
            performed: 0,
            moderation: Moderation::new(now),
            parking: Parking::default(),
            accept_pause: AcceptPause::default(),
            log_at: None,
            stamp_at: clock.stamp_interval().map(|interval| now + interval),
            clock,
            watchdog_at: None,
            relax_at: Some(now + BURST_PAUSE),
            is_reload_asked: false,
            finish_at: None,
            events: Vec::new(),
            scratch: Scratch::new(),
            now,
        })
    }

    /// Takes turns until a signal asks to finish and that is done. Errors are those of the poller.
    pub fn run(&mut self, host: &impl ProcessHooks) -> io::Result<()> {
        self.announce();
        // Nothing may come for long.
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
                Turn::Relax => host.trim_memory(),
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
        self.log_at = None;
        self.write_log();
        Ok(())
    }

    /// Tells who is asked for what, and what may not be meant.
    fn announce(&self) {
        for warning in &self.config.warnings {
            log::warn!(event = "option-warning"; "{warning}");
        }
        for own in &self.tls.own {
            if let Some(problem) = own.problem(self.clock.now()) {
                log::warn!(event = "own-certificate"; "{problem}");
            }
        }
        for upstream in &self.config.upstreams {
            let names = upstream.names();
            log::info!("upstream {upstream}: will be asked when a query for {names} comes");
        }
    }

    /// Takes one turn.
    pub fn turn(&mut self) -> io::Result<Turn> {
        self.moderate();
        let timeout = self.timeout();
        self.now = self.net.wait(timeout, &mut self.events)?;
        let mut events = std::mem::take(&mut self.events);
        if !events.is_empty() {
            self.relax_at.get_or_insert(self.now + QUIET_PAUSE);
        }
        for event in events.drain(..) {
            match event {
                Event::Ready(token) => {
                    if let Some(key) = self.sessions.key_of(token) {
                        self.make_runnable(key);
                    }
                }
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
        // What has come counts before what has not: the loop itself may have been held up.
        self.do_what_is_due();
        self.perform_all();
        self.step_burdens();
        self.send_tap();
        self.perform_all();
        self.unpark();
        self.write_log();
        self.turns.observe(self.net.now() - self.now);
        Ok(if self.is_finished() {
            Turn::Finished
        } else if std::mem::take(&mut self.is_reload_asked) {
            Turn::Reload
        } else if self.may_relax() {
            self.release_spare();
            Turn::Relax
        } else {
            Turn::GoOn
        })
    }

    /// The decisions, to be looked at.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The network, to be looked at and, in a simulation, to be meddled with.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// Sockets that are open.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Octets held for TCP clients.
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
            self.parking.next_at(),
            self.tap.as_ref().and_then(Tap::next_due),
            self.traces_due(),
            self.log_at,
            self.stamp_at,
            self.watchdog_at,
            self.relax_at,
            self.finish_at,
        ];
        moments
            .into_iter()
            .flatten()
            .min()
            .map(|moment| moment - self.now)
    }

    /// Pauses before the next turn where [`moderation`] finds that this costs no throughput.
    fn moderate(&mut self) {
        let performed = std::mem::take(&mut self.performed);
        let is_left = self.has_runnable();
        if let Some(pause) = self.moderation.on_turn(performed, self.now)
            && !is_left
        {
            self.net.pause(pause);
        }
    }

    fn do_what_is_due(&mut self) {
        if self.proxy.poll_timeout().is_some_and(|at| at <= self.now) {
            self.proxy.handle_timeout(self.now, &mut self.outbox);
        }
        self.close_idle_clients();
        self.close_idle_http();
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
    }

    fn close_idle_clients(&mut self) {
        while let Some((key, subscriber)) = self.pop_idle_client() {
            let slot = self.sessions.get(key);
            let is_kept_waiting = slot.is_some_and(|slot| slot.is_parked || slot.is_runnable);
            let may_wait = |client: &ClientStream<_>| {
                let inactive = self.now - client.last_active();
                // What it is owed comes in time; what it sends while it waits is no reason.
                client.is_waiting()
                    || is_kept_waiting && inactive < self.config.timeouts.client_waiting_max
            };
            if client_at(&self.sessions, key).is_some_and(may_wait) {
                self.clients.excuse(key, subscriber, self.now);
            } else {
                log::debug!("closing an idle TCP client");
                self.close_client(key);
            }
        }
    }

    fn pop_idle_client(&mut self) -> Option<(Key, Subscriber)> {
        let sessions = &self.sessions;
        let last_active = |key| Some(client_at(sessions, key)?.last_active());
        self.clients.pop_expired(self.now, last_active)
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

    /// Whether there is less to do than a second ago.
    fn may_relax(&mut self) -> bool {
        if self.proxy.inflight() >= BURST_LEN {
            self.relax_at = Some(self.now + BURST_PAUSE);
        }
        self.relax_at.take_if(|at| *at <= self.now).is_some()
    }

    /// Takes note that a connection has come about, or is gone with its buffers: what was needed
    /// for that is not needed all the time.
    fn relax_soon(&mut self) {
        let soon = self.now + BURST_PAUSE;
        self.relax_at = Some(self.relax_at.map_or(soon, |at| at.min(soon)));
    }

    /// Gives up memory that is kept from turn to turn, since the next needs as much.
    fn release_spare(&mut self) {
        self.proxy.release_spare();
        let takes_records = export::query_records::are_taken(self.query_log.as_ref());
        self.outbox = Outbox::new(takes_records);
        self.outbox_in_work = Outbox::new(takes_records);
        self.scratch = Scratch::new();
    }

    // Sessions.

    fn has_runnable(&self) -> bool {
        !self.runnable.is_empty() || !self.accepting.is_empty() || !self.burdens.is_empty()
    }

    fn make_runnable(&mut self, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key)
            && !slot.is_runnable
        {
            slot.is_runnable = true;
            match (&slot.session, slot.burden()) {
                (Session::Listener(..), _) => self.accepting.push(key),
                (_, Some(burden)) => self.burdens.push(burden, key),
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

/// Queries in flight that make a burst.
const BURST_LEN: usize = 32;

/// How long there have to be fewer for a burst to be over.
const BURST_PAUSE: Duration = Duration::from_secs(1);

/// How long at the most until memory goes back after anything has happened.
const QUIET_PAUSE: Duration = Duration::from_secs(5);

/// How long a reader of the log that takes nothing is left alone.
const LOG_PAUSE: Duration = Duration::from_millis(100);
