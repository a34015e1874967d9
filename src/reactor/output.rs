//! Output: performs the actions of the proxy. Responses and queries go to sessions, sessions are
//! opened and closed, and their output is flushed.

use super::export::dnstap::{tap_forwarded, tap_responses};
use super::{Reactor, Session, Slot, session_at};
use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::base::origin::ClientProtocol;
use crate::config::Scheme;
use crate::net::Net;
use crate::proxy::{Action, Destination, LinkKey, Outbox};
use crate::session::client::datagram::Outgoing;
use crate::session::{
    Transport, UpstreamConnection, UpstreamDatagram, UpstreamHttp2, UpstreamStream,
};
use crate::telemetry::dnstap::MessageKind;

impl<N: Net> Reactor<N> {
    /// Performs actions and flushes sessions until neither is left.
    pub(super) fn perform_all(&mut self) {
        loop {
            if !self.outbox.is_empty() {
                self.perform_actions();
            } else if let Some(key) = self.unflushed.pop() {
                self.flush(key);
            } else {
                return;
            }
        }
    }

    /// Performs the actions that are in the outbox. Datagrams leave at once; queries to links and
    /// responses to TCP clients gather in the buffers of their sessions until the flush.
    pub(super) fn perform_actions(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        std::mem::swap(&mut self.outbox, &mut self.outbox_in_work);
        let mut outbox = std::mem::take(&mut self.outbox_in_work);
        let mut actions = outbox.actions();
        self.performed += actions.len();
        while !actions.is_empty() {
            let done = self.perform(actions, &outbox);
            actions = &actions[done..];
        }
        self.record_all(&outbox);
        self.trace_all(&outbox);
        outbox.clear();
        self.outbox_in_work = outbox;
    }

    /// Performs the first of the actions, together with directly following responses to the same
    /// session. Returns the number of performed actions.
    fn perform(&mut self, actions: &[Action], outbox: &Outbox) -> usize {
        match &actions[0] {
            Action::Respond { origin, .. } => {
                let responses = actions.iter().map_while(|action| match action {
                    Action::Respond {
                        origin: other,
                        message,
                    } if other.session == origin.session => Some(Outgoing {
                        bytes: outbox.bytes(message),
                        peer: &other.peer,
                        local: other.local.as_ref(),
                    }),
                    _ => None,
                });
                self.respond(origin.session, responses.clone());
                return responses.count();
            }
            Action::Send { link, message } => self.send(*link, outbox.bytes(message)),
            Action::OpenLink { link, to } => self.open_link(*link, to),
            Action::CloseLink { link } => self.close_link(*link),
        }
        1
    }

    fn respond<'a>(&mut self, key: Key, responses: impl Iterator<Item = Outgoing<'a>> + Clone) {
        let tap = &mut self.tap;
        match session_at(&mut self.sessions, key) {
            Some(Session::Datagram(datagram)) => {
                tap_responses(tap, ClientProtocol::Udp, responses.clone());
                datagram.send(responses, self.config.limits.udp_unsent);
                self.watch_room(key);
            }
            Some(Session::Client(client)) => {
                tap_responses(tap, client.protocol(), responses.clone());
                let (scratch, limits) = (&mut self.scratch, &self.config.limits);
                let mut responses = responses.map(|response| response.bytes);
                if responses.all(|response| client.send(response, scratch, limits, self.now)) {
                    self.make_unflushed(key);
                } else {
                    log::debug!("closing a TCP client: it does not read its responses");
                    self.close_client(key);
                }
            }
            // The client has closed.
            _ => {}
        }
    }

    /// Makes the poller report when a full socket has room, and stops that when the socket has
    /// room.
    pub(super) fn watch_room(&mut self, key: Key) {
        if let Some(Session::Datagram(datagram)) = session_at(&mut self.sessions, key)
            && let Some((socket, is_watched)) = datagram.poll_watch()
            && let Err(error) = self.net.watch_room(socket, key, is_watched)
        {
            // The next query tries again.
            log::warn!("cannot poll a UDP socket for writing: {error}");
        }
    }

    fn send(&mut self, link: LinkKey, message: &[u8]) {
        let Some(key) = self.session_of(link) else {
            return;
        };
        let kind = MessageKind::ForwarderQuery;
        tap_forwarded(&mut self.tap, kind, (&self.proxy, link), message);
        match session_at(&mut self.sessions, key) {
            Some(Session::Upstream(_, stream)) => {
                stream.send(message);
                let has_events = stream.has_events();
                self.make_unflushed(key);
                if has_events {
                    self.make_runnable(key);
                }
            }
            Some(Session::UpstreamDatagram(_, datagram)) => {
                if let Err(failure) = datagram.send(message) {
                    self.fail(key, &failure);
                }
            }
            _ => {}
        }
    }

    fn open_link(&mut self, link: LinkKey, to: &Destination) {
        match self.open_session(link, to) {
            Ok(session) => {
                let key = self.sessions.insert(Slot::new(session));
                let places = self.session_by_link.len().max(link.index() + 1);
                self.session_by_link.resize(places, None);
                self.session_by_link[link.index()] = Some(key);
                self.make_unflushed(key);
            }
            Err(failure) => {
                self.proxy
                    .handle_link_down(link, &failure, self.now, &mut self.outbox);
            }
        }
    }

    fn open_session(&mut self, link: LinkKey, to: &Destination) -> Result<Session<N>, Failure> {
        let failed = |error| Failure::new(FailureKind::Connect, error);
        let key = self.sessions.next_key();
        if to.scheme == Scheme::Udp {
            let socket = self.net.connect_datagram(to.address, key).map_err(failed)?;
            let datagram = UpstreamDatagram::new(socket, to.address);
            return Ok(Session::UpstreamDatagram(link, datagram));
        }
        let stream = self.net.connect(to.address, key).map_err(failed)?;
        let transport = if to.scheme.is_encrypted() {
            let connector = self.tls.connectors[to.upstream.0].as_ref();
            let connector = connector.expect("a TLS upstream has a connector");
            Transport::tls(stream, connector, &mut self.scratch)?
        } else {
            Transport::connecting(stream)
        };
        let connection = if to.scheme == Scheme::Https {
            let upstream = &self.config.upstreams[to.upstream.0];
            let http2 = UpstreamHttp2::new(transport, upstream)?;
            UpstreamConnection::Http2(Box::new(http2))
        } else {
            UpstreamConnection::Stream(UpstreamStream::new(transport))
        };
        Ok(Session::Upstream(link, connection))
    }

    fn close_link(&mut self, link: LinkKey) {
        let key = self.session_of(link);
        let slot = key.and_then(|key| self.sessions.remove(key));
        if let Some(Session::Upstream(_, mut stream)) = slot.map(|slot| slot.session) {
            stream.close(&mut self.scratch);
            self.schedule_trim();
        }
    }

    fn session_of(&self, link: LinkKey) -> Option<Key> {
        let key = (*self.session_by_link.get(link.index())?)?;
        let slot = self.sessions.get(key)?;
        (slot.session.link() == Some(link)).then_some(key)
    }

    fn flush(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.is_unflushed = false;
        let (scratch, now) = (&mut self.scratch, self.now);
        let flushed = match &mut slot.session {
            Session::Client(client) => {
                let flushed = client.flush(scratch, now);
                let flushed = flushed.map(|()| client.can_go_on(&self.config.limits));
                return self.on_client_flushed(key, flushed);
            }
            Session::Http(http) => {
                let flushed = http.flush(scratch, now);
                return self.on_client_flushed(key, flushed);
            }
            Session::Upstream(link, stream) => {
                let flushed = stream.flush(scratch, self.proxy.awaited(*link));
                if flushed.is_ok() && stream.is_connected_only() {
                    self.proxy.handle_link_connected(*link);
                }
                let is_owed = stream.owes_acknowledgement();
                self.acknowledgements.set(key, is_owed, now);
                flushed
            }
            Session::Tap(stream) => stream.flush(scratch),
            Session::Collector(collector) => collector.flush(scratch),
            // Datagrams leave at once.
            Session::Datagram(_) | Session::UpstreamDatagram(..) | Session::Listener(..) => Ok(()),
        };
        if let Err(failure) = flushed {
            self.fail(key, &failure);
        }
    }

    /// Continues with a client after a flush, which returned whether input can be handled now.
    fn on_client_flushed(&mut self, key: Key, flushed: Result<bool, Failure>) {
        match flushed {
            Ok(has_input) => {
                if has_input {
                    self.make_runnable(key);
                }
                self.settle_client(key);
            }
            Err(failure) => self.fail(key, &failure),
        }
    }
}
