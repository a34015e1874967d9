//! The end of clients' connections by their idle timeout.

use super::Reactor;
use super::sessions::{client_at, last_active_at};
use crate::base::arena::Key;
use crate::base::origin::Subscriber;
use crate::net::Net;
use crate::session::ClientStream;

impl<N: Net> Reactor<N> {
    /// Closes the clients over TCP and TLS whose idle timeout has passed.
    pub(super) fn close_idle_clients(&mut self) {
        while let Some((key, subscriber)) = self.pop_idle_client() {
            let slot = self.sessions.get(key);
            let is_parked = slot.is_some_and(|slot| slot.is_parked);
            let is_runnable = slot.is_some_and(|slot| slot.is_runnable);
            let waiting_max = self.config.timeouts.client_waiting_max;
            let client = client_at(&self.sessions, key);
            let is_overdue =
                client.is_none_or(|client| self.now - client.last_active() >= waiting_max);
            // The responses that a waiting client expects arrive within their deadlines. A client
            // that is parked or runnable is not idle either, up to a limit.
            if client.is_some_and(ClientStream::is_waiting) || is_parked && !is_overdue {
                self.clients.restart_idle_timeout(key, subscriber, self.now);
            } else if is_runnable && !is_overdue {
                self.clients.recheck_soon(key, subscriber, self.now);
            } else {
                if let Some(client) = client {
                    let (peer, protocol) = (client.peer(), client.protocol().label());
                    log::debug!("client {peer} ({protocol}): closing the idle connection");
                }
                self.close_client(key);
            }
        }
    }

    fn pop_idle_client(&mut self) -> Option<(Key, Subscriber)> {
        let sessions = &self.sessions;
        let last_active = |key| last_active_at(sessions, key);
        self.clients.pop_expired(self.now, last_active)
    }
}
