//! TLS sessions with upstreams, which can be resumed while the upstream's certificate is valid.
//!
//! A resumed session is not verified again. Each resumption brings new tickets, so without this
//! limit a server with an expired certificate would stay trusted as long as it is asked often
//! enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::time_provider::TimeProvider;

/// A session store that does not return sessions after the server's certificate has expired.
#[derive(Debug)]
pub(super) struct Sessions {
    kept: ClientSessionMemoryCache,
    /// Expiry of the certificate that was verified last, in time since 1970. There is at most one
    /// entry for each name of an upstream.
    expires_at_by_name: Mutex<HashMap<ServerName<'static>, Duration>>,
    clock: Arc<dyn TimeProvider>,
}

impl Sessions {
    /// Creates a store for about `sessions_max` sessions.
    pub(super) fn new(sessions_max: usize, clock: Arc<dyn TimeProvider>) -> Self {
        Self {
            kept: ClientSessionMemoryCache::new(sessions_max),
            expires_at_by_name: Mutex::default(),
            clock,
        }
    }

    /// Records the expiry of the certificate of the server with this name.
    pub(super) fn on_certificate(&self, name: &ServerName<'static>, expires_at: Duration) {
        let expiries = self.expires_at_by_name.lock();
        let mut expiries = expiries.unwrap_or_else(PoisonError::into_inner);
        expiries.insert(name.clone(), expires_at);
    }

    /// Removes the sessions with the server of this name.
    pub(super) fn forget(&self, name: &ServerName<'static>) {
        self.kept.remove_tls12_session(name);
        while self.kept.take_tls13_ticket(name).is_some() {}
    }

    fn is_valid(&self, name: &ServerName<'_>) -> bool {
        let expiries = self.expires_at_by_name.lock();
        let expiries = expiries.unwrap_or_else(PoisonError::into_inner);
        let Some(expires_at) = expiries.get(&name.to_owned()) else {
            return true;
        };
        let now = self.clock.current_time();
        now.is_some_and(|now| Duration::from_secs(now.as_secs()) < *expires_at)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.kept.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let session = self.kept.tls12_session(server_name)?;
        self.is_valid(server_name).then_some(session)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.kept.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.kept.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        let ticket = self.kept.take_tls13_ticket(server_name)?;
        self.is_valid(server_name).then_some(ticket)
    }
}
