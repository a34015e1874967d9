//! The lifecycle of the process: signals for a report, a reload and a graceful shutdown.

use super::client_limits::Bounds;
use super::export::otlp::Traces;
use super::late_listeners::LateListeners;
use super::{Reactor, Session, Slot};
use crate::base::arena::Key;
use crate::base::time::Validity;
use crate::config::{Config, Listen};
use crate::net::{Net, Signal};
use crate::options;
use crate::proxy::{LinkKey, UpstreamIndex};
use crate::telemetry::logger;
use crate::telemetry::query_log::QueryLog;
use crate::tls::{self, Connector};

impl<N: Net> Reactor<N> {
    /// Sets the time by which DNSSEC signatures are judged.
    pub(super) fn set_signature_clock(&mut self) {
        if self.proxy.is_validating() {
            self.proxy.set_signature_clock(self.clock.for_signatures());
        }
    }

    /// Handles the verification of an upstream's certificate. If the certificate was valid by its
    /// dates, the clock can be trusted.
    pub(super) fn on_authenticated(&mut self, link: LinkKey, validity: Option<Validity>) {
        let upstream = self.proxy.link_upstream(link).map(|upstream| upstream.0);
        let connectors = &self.tls.connectors;
        let connector = upstream.and_then(|index| connectors.get(index)?.as_ref());
        let Some(connector) = connector else {
            return;
        };
        if let Some(validity) = validity {
            connector.on_certificate(validity.expires_at);
        }
        if connector.judges_dates() && self.clock.on_verified(self.now) {
            // Writing now shows a failure now, and not in an hour.
            self.clock.stamp(self.now);
        }
    }

    /// Logs the upstreams, their names, and warnings about suspicious settings.
    pub(super) fn announce(&self) {
        for warning in &self.config.warnings {
            log::warn!(event = "option-warning"; "{warning}");
        }
        let now = self.clock.now();
        for own in &self.tls.own {
            for problem in own.problem(now).into_iter().chain(own.chain_problems(now)) {
                log::warn!(event = "own-certificate"; "{problem}");
            }
        }
        for authorities in &self.tls.authorities {
            for problem in authorities.problems(now) {
                log::warn!(event = "authority"; "{problem}");
            }
        }
        for upstream in &self.config.upstreams {
            let queries = upstream.queries();
            log::info!("upstream {upstream}: will be queried for {queries}");
        }
    }

    pub(super) fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Report => self.report(),
            Signal::Reload => {
                self.is_reload_asked = true;
                // The reload reads files that changed before it.
                self.file_watch.check();
            }
            Signal::Finish if self.finish_at.is_none() => self.start_shutdown(),
            Signal::Finish => {
                let inflight = self.proxy.inflight();
                log::info!("second signal: ending now, queries without an answer: {inflight}");
                self.finish_at = Some(self.now);
            }
        }
    }

    /// Applies other settings and the contents of their files, without losing queries or clients:
    /// clients keep their connections, with the keys of their handshakes. Connections to peers that
    /// are no longer trusted are not used again. If the settings have an error, the loop keeps the
    /// current settings.
    pub fn reload(&mut self, config: Result<Config, String>) {
        match config.and_then(|config| self.apply_settings(config)) {
            Ok(links) => {
                let retired = match links {
                    0 => String::new(),
                    links => format!("; upstream connections retired: {links}"),
                };
                log::info!(
                    event = "reloaded", links_retired = links;
                    "reloaded the configuration and files; cache cleared{retired}"
                );
            }
            Err(problem) => {
                log::error!(
                    event = "reload-failed";
                    "{problem}; keeping the previous configuration"
                );
                let settings = self.settings_beside_block_lists();
                self.proxy
                    .reconfigure(&settings, self.now, &mut self.outbox);
            }
        }
        self.perform_all();
        // The next turn may wait for a long time.
        self.write_log();
    }

    /// Applies settings. Returns the number of links that take no new query because of that.
    fn apply_settings(&mut self, mut config: Config) -> Result<usize, String> {
        for option in options::restore_fixed(&mut config, &self.config) {
            let shown = match option {
                "listen" => "listen or --port",
                option => option,
            };
            log::warn!(
                event = "not-reloaded", option = option;
                "--{shown} has changed: restart the program to apply it"
            );
        }
        let tls = tls::set_up(&config, &self.clock).map_err(|error| error.to_string())?;
        if let Some(problem) = tls.refusal(Some(&self.tls), self.clock.now()) {
            return Err(problem);
        }
        self.reopen_query_log(&config)?;
        self.pins_mismatched = self.pins_mismatched();
        let before = std::mem::replace(&mut self.tls, tls);
        self.close_clients_not_admitted(&before);
        let mut links_retired = 0;
        if config.upstreams == self.config.upstreams {
            let changed = self.tls.changed_upstreams(&before).into_iter();
            let changed: Vec<UpstreamIndex> = changed.map(UpstreamIndex).collect();
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            links_retired += proxy.retire_links(&changed, self.now, outbox);
        }
        self.clients.reconfigure(Bounds::of_clients(&config));
        self.http_clients.reconfigure(Bounds::of_http(&config));
        // The new limits may have room for waiting connections.
        self.resume_listeners();
        if let (Some(traces), Some(settings)) = (&mut self.traces, &config.traces) {
            traces.reconfigure(settings);
        }
        logger::set_level(config.log_level);
        self.follow_log_level();
        self.file_watch.follow(&config, self.now);
        self.config = config;
        let beside = self.settings_beside_block_lists();
        links_retired += self.proxy.reconfigure(&beside, self.now, &mut self.outbox);
        self.start_loading();
        self.announce();
        Ok(links_retired)
    }

    /// Closes TLS clients that could not connect now, if the rules for client certificates differ
    /// from those of `before`.
    fn close_clients_not_admitted(&mut self, before: &tls::Setup) {
        let (Some(acceptor), Some(before)) = (&self.tls.acceptor, &before.acceptor) else {
            return;
        };
        if acceptor.judges_like(before) {
            return;
        }
        let is_refused = |slot: &Slot<N>| match &slot.session {
            Session::Client(client) => !client.is_admitted_by(acceptor),
            _ => false,
        };
        let refused = self.sessions.iter().filter(|(_, slot)| is_refused(slot));
        let refused: Vec<Key> = refused.map(|(key, _)| key).collect();
        if !refused.is_empty() {
            log::info!(
                "--tls-client-ca has changed: closed {} TLS connections that it does not allow",
                refused.len()
            );
        }
        for key in refused {
            self.close_client(key);
        }
    }

    /// Opens the query log of the settings, with the current privileges of the process.
    pub fn open_query_log(&mut self) -> Result<(), String> {
        self.reopen_query_log(&self.config.clone())
    }

    /// Switches to the query log of `config`, if it can be opened.
    fn reopen_query_log(&mut self, config: &Config) -> Result<(), String> {
        match (&mut self.query_log, &config.query_log) {
            (Some(log), Some(settings)) => log.reopen(settings)?,
            (log, settings) => {
                let most = config.limits.query_log_unwritten;
                let settings = settings.as_ref();
                let open = |settings| QueryLog::open(settings, most);
                *log = settings.map(open).transpose()?;
                self.release_spare();
            }
        }
        Ok(())
    }

    fn pins_mismatched(&self) -> u64 {
        let connectors = self.tls.connectors.iter().flatten();
        let since: u64 = connectors.map(Connector::pin_mismatches).sum();
        self.pins_mismatched + since
    }

    fn report(&self) {
        let mismatched = self.pins_mismatched();
        let dropped = self.responses_dropped();
        log::info!(
            event = "counters";
            "{} {}; responses dropped={dropped}; pin mismatches={mismatched}; now inflight={} \
             links={} tcp-clients={}",
            self.proxy.counters(),
            self.proxy.cache_usage(),
            self.proxy.inflight(),
            self.proxy.links(),
            self.clients.len(),
        );
    }

    /// Reads what clients have sent by now and then closes the listeners: later connections belong
    /// to other processes that listen on the same addresses, now or after a restart.
    fn start_shutdown(&mut self) {
        let inflight = self.proxy.inflight();
        log::info!(
            event = "finishing", inflight = inflight;
            "shutting down, queries in flight: {inflight}"
        );
        if !matches!(self.config.listen, Listen::Inherited(_)) {
            // No other process would accept the connections that wait in the queue.
            let limits = &self.config.limits;
            let steps = limits.accepts_at_finish / limits.accepts_per_turn;
            for key in self.listeners() {
                self.step(key);
                for _ in 1..steps {
                    if !self.sessions.get(key).is_some_and(|slot| slot.is_runnable) {
                        break;
                    }
                    self.step(key);
                }
            }
        }
        // Sessions of upstreams wait for the poller, which reports when they are connected.
        let brings_queries = |slot: &Slot<N>| {
            let session = &slot.session;
            session.link().is_none() && !matches!(session, Session::Listener(..))
        };
        let slots = self.sessions.iter();
        let keys: Vec<Key> = slots.map(|(key, _)| key).collect();
        for key in &keys {
            if let Some(slot) = self.sessions.get_mut(*key)
                && brings_queries(slot)
            {
                // Input that arrived before the signal may not have been reported yet.
                slot.session.on_event(false);
                self.step(*key);
            }
        }
        self.finish_at = Some(self.now + self.config.timeouts.query);
        self.late_listeners = LateListeners::default();
        for key in keys {
            let slot = self.sessions.get_mut(key);
            let is_parked = slot.as_ref().is_some_and(|slot| slot.is_parked);
            match slot.map(|slot| &mut slot.session) {
                Some(Session::Datagram(datagram)) => {
                    datagram.leave();
                    self.make_runnable(key);
                }
                Some(Session::Listener(..)) => {
                    self.sessions.remove(key);
                }
                Some(Session::Client(client)) if is_parked => client.defer_reading(),
                Some(Session::Client(client)) if client.is_quiet() => self.close_client(key),
                Some(Session::Client(client)) => {
                    client.shut_down();
                    self.make_unflushed(key);
                }
                _ => {}
            }
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        let Some(finish_at) = self.finish_at else {
            return false;
        };
        finish_at <= self.now
            || self.proxy.inflight() == 0
                && !self.traces.as_ref().is_some_and(Traces::is_busy)
                && self.sessions.iter().all(|(_, slot)| slot.is_served())
    }
}
