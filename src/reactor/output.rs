//! Output: performs the actions of the proxy. Responses and queries go to sessions, sessions are
//! opened and closed, and their output is flushed.

use super::export::dnstap::Tap;
use super::{Reactor, Session, Slot};
use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::config::Scheme;
use crate::net::Net;
use crate::proxy::{Action, Destination, LinkKey, Outbox, Protocol};
use crate::session::client::datagram::Outgoing;
use crate::session::{ClientDatagram, Transport, UpstreamDatagram, UpstreamStream};
use crate::telemetry::dnstap::Kind;

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
        let tap = self.tap.as_mut();
        match self.sessions.get_mut(key).map(|slot| &mut slot.session) {
            Some(Session::Datagram(datagram)) => {
                tap_responses(tap, Protocol::Udp, responses.clone());
                datagram.send(responses, self.config.limits.udp_unsent);
                self.watch_room(key);
            }
            Some(Session::Client(client)) => {
                let protocol = if client.is_encrypted() {
                    Protocol::Tls
                } else {
                    Protocol::Tcp
                };
                tap_responses(tap, protocol, responses.clone());
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
        let datagram = self.sessions.get_mut(key).and_then(Slot::datagram);
        if let Some((socket, is_watched)) = datagram.and_then(ClientDatagram::poll_watch)
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
        if let Some(tap) = &mut self.tap
            && let Some(to) = self.proxy.link_peer(link)
        {
            tap.on_forwarded(Kind::ForwarderQuery, to, message);
        }
        match self.sessions.get_mut(key).map(|slot| &mut slot.session) {
            Some(Session::Upstream(_, stream)) => {
                stream.send(message);
                self.make_unflushed(key);
            }
            Some(Session::UpstreamDatagram(_, datagram)) => {
                if let Err(failure) = datagram.send(message) {
                    self.fail_upstream(key, &failure);
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
        let transport = if to.scheme == Scheme::Tls {
            let connector = self.tls.connectors[to.upstream.0].as_ref();
            let connector = connector.expect("a TLS upstream has a connector");
            Transport::tls(stream, connector, &mut self.scratch)?
        } else {
            Transport::connecting(stream)
        };
        Ok(Session::Upstream(link, UpstreamStream::new(transport)))
    }

    fn close_link(&mut self, link: LinkKey) {
        let mut slot = self
            .session_of(link)
            .and_then(|key| self.sessions.remove(key));
        if let Some((_, stream)) = slot.as_mut().and_then(Slot::upstream) {
            stream.close(&mut self.scratch);
            self.schedule_trim();
        }
    }

    fn session_of(&self, link: LinkKey) -> Option<Key> {
        let key = (*self.session_by_link.get(link.index())?)?;
        let slot = self.sessions.get(key)?;
        (slot.link() == Some(link)).then_some(key)
    }

    fn flush(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.is_unflushed = false;
        match &mut slot.session {
            Session::Client(client) => {
                if client.flush(&mut self.scratch, self.now).is_err() {
                    return self.close_client(key);
                }
                if client.can_go_on(&self.config.limits) {
                    self.make_runnable(key);
                }
                self.settle_client(key);
            }
            Session::Upstream(link, stream) => {
                let awaited = self.proxy.awaited(*link);
                match stream.flush(&mut self.scratch, awaited) {
                    Ok(()) if stream.is_on_the_way() => self.proxy.handle_link_connected(*link),
                    Ok(()) => {}
                    Err(failure) => self.fail_upstream(key, &failure),
                }
            }
            Session::Http(_) => self.flush_http(key),
            Session::Tap(_) => self.flush_tap(key),
            Session::Collector(_) => self.flush_collector(key),
            Session::Datagram(_) | Session::Listener(..) | Session::UpstreamDatagram(..) => {}
        }
    }
}

fn tap_responses<'a>(
    tap: Option<&mut Tap>,
    protocol: Protocol,
    responses: impl Iterator<Item = Outgoing<'a>>,
) {
    if let Some(tap) = tap {
        responses.for_each(|one| tap.on_response(protocol, *one.peer, one.bytes));
    }
}
