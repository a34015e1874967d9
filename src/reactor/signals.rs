//! What the process is asked for by signals: to report, to start anew, to end.

use super::{Reactor, Session, Slot};
use crate::arena::Key;
use crate::net::{Net, Signal};
use crate::tls::{self, Connector};

impl<N: Net> Reactor<N> {
    pub(super) fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Report => self.report(),
            Signal::Reload => self.reload(),
            Signal::Finish if self.finish_at.is_none() => self.start_to_finish(),
            Signal::Finish => self.finish_at = Some(self.now),
        }
    }

    /// Starts anew as far as that can be done without losing anything: connections go on with the
    /// certificates and keys that they were made with.
    fn reload(&mut self) {
        log::info!("forgetting all answers that are known");
        self.proxy.forget_answers();
        let mismatched = self.pins_mismatched();
        match tls::set_up(&self.config, &self.clock) {
            Ok(tls) => {
                self.pins_mismatched = mismatched;
                self.tls = tls;
            }
            Err(error) => log::error!("{error}; going on with what was read before"),
        }
    }

    fn pins_mismatched(&self) -> u64 {
        let connectors = self.tls.connectors.iter().flatten();
        let since: u64 = connectors.map(Connector::pin_mismatches).sum();
        self.pins_mismatched + since
    }

    fn report(&self) {
        let dropped = |slot: &Slot<N>| match &slot.session {
            Session::Datagram(datagram) => datagram.dropped(),
            _ => 0,
        };
        let mismatched = self.pins_mismatched();
        let dropped: u64 = self.sessions.iter().map(|(_, slot)| dropped(slot)).sum();
        log::info!(
            "{} {}; responses dropped={dropped}; pins mismatched={mismatched}; now inflight={} \
             links={} tcp-clients={}",
            self.proxy.counters(),
            self.proxy.cache_usage(),
            self.proxy.inflight(),
            self.proxy.links(),
            self.clients.len(),
        );
    }

    /// Takes what clients have sent by now, then nothing more.
    fn start_to_finish(&mut self) {
        log::info!("finishing, queries in flight: {}", self.proxy.inflight());
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in &keys {
            self.step(*key);
        }
        self.finish_at = Some(self.now + self.timeouts.query);
        for key in keys {
            match self.sessions.get(key).map(|slot| &slot.session) {
                Some(Session::Listener(..)) => drop(self.sessions.remove(key)),
                Some(Session::Client(client)) if client.is_quiet() => self.close_client(key),
                _ => {}
            }
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        let Some(finish_at) = self.finish_at else {
            return false;
        };
        let is_served = |slot: &Slot<N>| match &slot.session {
            Session::Datagram(datagram) => !datagram.has_unsent(),
            Session::Client(client) => client.is_quiet(),
            Session::Listener(..) | Session::Upstream(..) | Session::UpstreamDatagram(..) => true,
        };
        finish_at <= self.now
            || self.proxy.inflight() == 0 && self.sessions.iter().all(|(_, slot)| is_served(slot))
    }
}
