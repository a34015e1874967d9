//! Input: runs each session that is ready and hands the messages that the session reads to the
//! proxy.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use super::client_limits::Clients;
use super::moderation::Pace;
use super::{ClientProtocol, Reactor, Session, Slot, client_at};
use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::base::origin::{Origin, Subscriber};
use crate::net::{self, Net};
use crate::proxy::{LinkKey, Protocol, Room, Transport as ClientTransport};
use crate::session::client::stream::Taken;
use crate::session::upstream::stream::UpstreamEvent;
use crate::session::{ClientStream, Step, Transport};
use crate::telemetry::dnstap::Kind;

impl<N: Net> Reactor<N> {
    /// Runs one step of a session.
    pub(super) fn step(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.is_runnable = false;
        match slot.session {
            Session::Datagram(_) => self.step_datagram(key),
            Session::Listener(..) => self.step_listener(key),
            Session::Client(_) => self.step_client(key),
            Session::Http(_) => self.step_http(key),
            Session::Tap(_) => self.step_tap(key),
            Session::Collector(_) => self.step_collector(key),
            Session::Upstream(..) => self.step_upstream(key),
            Session::UpstreamDatagram(..) => self.step_upstream_datagram(key),
        }
        if self.outbox.is_long() {
            self.perform_all();
        }
    }

    /// Reads queries in groups, each up to twice as large as the one before. The responses to a
    /// group leave before the next group is read, so that the clients work in parallel with the
    /// loop; the first groups are small for this reason. If turns are batched, there is one group.
    fn step_datagram(&mut self, key: Key) {
        let Some(datagram) = self.sessions.get_mut(key).and_then(Slot::datagram) else {
            return;
        };
        datagram.flush();
        let has_left = datagram.has_left();
        if self.finish_at.is_none() || has_left {
            let mut left = self.config.limits.datagrams_per_turn;
            let mut group = match self.moderation.pace() {
                Pace::Prompt => FIRST_GROUP_LEN,
                Pace::Batching => left,
            };
            while self.take_datagrams(key, group.min(left)) == Step::Again {
                left = left.saturating_sub(group);
                group *= 2;
                if left == 0 {
                    self.make_runnable(key);
                    break;
                }
                self.perform_actions();
            }
        }
        self.watch_room(key);
    }

    /// Hands at most `most` queries of a UDP socket to the proxy.
    fn take_datagrams(&mut self, key: Key, most: usize) -> Step {
        let Some(datagram) = self.sessions.get_mut(key).and_then(Slot::datagram) else {
            return Step::Drained;
        };
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let tap = &mut self.tap;
        datagram.ready(&mut self.scratch, most, |message, peer, local| {
            let session = key;
            let origin = Origin {
                session,
                peer,
                local,
            };
            if let Some(tap) = tap.as_mut().filter(|_| is_query(message)) {
                tap.on_query(Protocol::Udp, peer, message);
            }
            proxy.handle_query(origin, ClientTransport::Udp, message, now, outbox);
        })
    }

    /// Accepts up to the maximum number of connections per turn. After an error that does not
    /// belong to one connection, or after that number of errors, listeners pause: a lasting error
    /// must not occupy the processor.
    fn step_listener(&mut self, key: Key) {
        let mut failed = 0;
        for _ in 0..self.config.limits.accepts_per_turn {
            let Some((listener, protocol)) = self.sessions.get(key).and_then(Slot::listener) else {
                return;
            };
            if self.finish_at.is_some() {
                return;
            }
            match self.net.accept(listener, self.sessions.next_key()) {
                Ok((stream, peer)) => self.add_client(stream, peer, protocol),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::debug!("cannot accept a TCP client: {error}");
                    failed += 1;
                    let is_last = failed == self.config.limits.accepts_per_turn;
                    if is_last || !net::is_of_one_connection(&error) {
                        let length = self.config.timeouts.accept_pause;
                        return self.accept_pause.start(&error, self.now, length);
                    }
                }
            }
        }
        self.make_runnable(key);
    }

    fn clients_of(&self, protocol: ClientProtocol) -> &Clients {
        match protocol {
            ClientProtocol::Tcp | ClientProtocol::Tls => &self.clients,
            ClientProtocol::Http => &self.http_clients,
        }
    }

    fn add_client(&mut self, stream: N::Stream, peer: SocketAddr, protocol: ClientProtocol) {
        let subscriber = Subscriber::of(peer.ip());
        if !self.clients_of(protocol).have_room_for(subscriber) {
            return log::debug!("closing a connection from {peer}: too many connections");
        }
        let transport = match protocol {
            // The address of the listener decides which programs can read the metrics.
            ClientProtocol::Http => return self.add_http(stream, peer),
            _ if !self.proxy.admits(peer.ip(), self.now) => return,
            ClientProtocol::Tcp => Ok(Transport::plain(stream)),
            ClientProtocol::Tls => {
                let acceptor = self.tls.acceptor.as_ref();
                let acceptor = acceptor.expect("a TLS listener has an acceptor");
                Transport::accepted(stream, acceptor)
            }
        };
        match transport {
            Ok(transport) => {
                let client = ClientStream::new(transport, peer, self.now);
                let key = self.sessions.insert(Slot::new(Session::Client(client)));
                let sessions = &self.sessions;
                self.clients
                    .add(key, subscriber, self.now, |key| sessions.contains(key));
                self.make_room_for_client(key, subscriber);
            }
            Err(failure) => log::warn!("cannot serve a client: {failure}"),
        }
    }

    /// Closes clients while there are more clients than slots, but not the newcomer.
    fn make_room_for_client(&mut self, newcomer: Key, subscriber: Subscriber) {
        let to_close = |reactor: &Self| {
            let last_active = |key| Some(client_at(&reactor.sessions, key)?.last_active());
            reactor
                .clients
                .to_close_for(newcomer, subscriber, last_active)
        };
        while let Some(key) = to_close(self) {
            log::debug!("closing the longest idle TCP client: too many connections");
            self.close_client(key);
        }
    }

    fn step_client(&mut self, key: Key) {
        let Some(client) = self.sessions.get_mut(key).and_then(Slot::client) else {
            return;
        };
        if client.flush(&mut self.scratch, self.now).is_err() {
            return self.close_client(key);
        }
        if client.has_expired(self.now) {
            log::debug!("closing a TLS client: its certificate has expired");
            return self.close_client(key);
        }
        let peer = client.peer();
        let holder = Subscriber::of(peer.ip());
        let room = self.proxy.room_for(holder, self.now);
        if room != Room::Free {
            self.park(key, holder, room);
            return self.settle_client(key);
        }
        match self.read_client(key, holder) {
            Ok(Step::Again) => self.make_runnable(key),
            Ok(Step::Full) => {
                let room = self.proxy.room_for(holder, self.now);
                self.park(key, holder, room);
            }
            Ok(Step::Drained) => {}
            Err(failure) => {
                log::debug!("TCP client disconnected: {failure}");
                if failure.kind == FailureKind::Authentication {
                    let reason = &failure.detail;
                    self.proxy
                        .handle_refused_certificate(peer.ip(), reason, self.now);
                }
                return self.close_client(key);
            }
        }
        // The handshake may have output.
        self.make_unflushed(key);
        self.settle_client(key);
    }

    /// Reads a client and hands its queries to the proxy.
    fn read_client(&mut self, key: Key, holder: Subscriber) -> Result<Step, Failure> {
        let Some(client) = self.sessions.get_mut(key).and_then(Slot::client) else {
            return Ok(Step::Drained);
        };
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let origin = Origin {
            session: key,
            peer: client.peer(),
            local: None,
        };
        let idle = self.clients.idle_limit();
        let is_encrypted = client.is_encrypted();
        let tap = &mut self.tap;
        let take = |message: &[u8], received_at| {
            if let Some(tap) = tap.as_mut().filter(|_| is_query(message)) {
                let protocol = if is_encrypted {
                    Protocol::Tls
                } else {
                    Protocol::Tcp
                };
                tap.on_query(protocol, origin.peer, message);
            }
            let transport = ClientTransport::Stream {
                idle,
                received_at,
                is_encrypted,
            };
            Taken {
                is_query: is_query(message),
                is_owed: proxy.handle_query(origin, transport, message, now, outbox),
                has_room: proxy.room_for(holder, now) == Room::Free && !outbox.is_long(),
            }
        };
        let stepped = if self.finish_at.is_none() || client.is_unread() {
            client.ready(&mut self.scratch, &self.config.limits, now, take)
        } else {
            Ok(client.take_kept(&self.config.limits, now, take))
        };
        if let Some(acceptor) = &self.tls.acceptor
            && let Some(certificate) = client.new_certificate()
        {
            let left = acceptor.time_left(certificate).unwrap_or(Duration::MAX);
            client.expire_at(now + left);
        }
        stepped
    }

    fn step_upstream(&mut self, key: Key) {
        let Some((link, stream)) = self.sessions.get_mut(key).and_then(Slot::upstream) else {
            return;
        };
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let (most, clock) = (self.config.limits.stream_bytes_per_turn, &self.clock);
        let tap = &mut self.tap;
        let mut came_up = None;
        let stepped = stream.ready(&mut self.scratch, most, |event| match event {
            UpstreamEvent::Up {
                is_resumed,
                expires_at,
            } => {
                came_up = Some((is_resumed, expires_at));
                proxy.handle_link_up(link, is_resumed, now, outbox);
                if let Some(expires_at) = expires_at {
                    proxy.handle_certificate(link, expires_at, clock.now());
                }
            }
            UpstreamEvent::Message(message) => {
                if let Some(tap) = tap.as_mut()
                    && let Some(from) = proxy.link_peer(link)
                {
                    tap.on_forwarded(Kind::ForwarderResponse, from, message);
                }
                proxy.handle_reply(link, message, now, outbox);
            }
        });
        if let Some((is_resumed, expires_at)) = came_up {
            self.schedule_trim();
            if !is_resumed {
                self.on_authenticated(link, expires_at);
            }
        }
        match stepped {
            Ok(step) => {
                // The handshake may have output.
                self.make_unflushed(key);
                if step == Step::Again {
                    self.make_runnable(key);
                }
            }
            Err(failure) => self.fail_upstream(key, &failure),
        }
    }

    /// Handles the verification of an upstream's certificate. If the certificate was valid by its
    /// dates, the clock can be trusted.
    fn on_authenticated(&mut self, link: LinkKey, expires_at: Option<Duration>) {
        let upstream = self.proxy.link_upstream(link).map(|upstream| upstream.0);
        let connectors = &self.tls.connectors;
        let connector = upstream.and_then(|place| connectors.get(place)?.as_ref());
        let Some(connector) = connector else {
            return;
        };
        if let Some(expires_at) = expires_at {
            connector.on_certificate(expires_at);
        }
        if connector.judges_dates() && self.clock.on_verified(self.now) {
            // Writing now shows a failure now, and not in an hour.
            self.clock.stamp(self.now);
        }
    }

    fn step_upstream_datagram(&mut self, key: Key) {
        let slot = self.sessions.get_mut(key);
        let Some((link, datagram)) = slot.and_then(Slot::upstream_datagram) else {
            return;
        };
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let most = self.config.limits.datagrams_per_turn;
        let tap = &mut self.tap;
        let stepped = datagram.ready(&mut self.scratch, most, |message| {
            if let Some(tap) = tap.as_mut()
                && let Some(from) = proxy.link_peer(link)
            {
                tap.on_forwarded(Kind::ForwarderResponse, from, message);
            }
            proxy.handle_reply(link, message, now, outbox);
        });
        match stepped {
            Ok(Step::Again) => self.make_runnable(key),
            Ok(Step::Drained | Step::Full) => {}
            Err(failure) => self.fail_upstream(key, &failure),
        }
    }

    /// Closes a failed connection to an upstream and reports the failure to the proxy.
    pub(super) fn fail_upstream(&mut self, key: Key, failure: &Failure) {
        let Some(slot) = self.sessions.remove(key) else {
            return;
        };
        self.schedule_trim();
        let mut failure = failure.clone();
        if failure.kind == FailureKind::Authentication
            && let Some(judged_by) = self.clock.judged_by()
        {
            failure.detail = format!("{}; {judged_by}", failure.detail);
        }
        if let Some(link) = slot.link() {
            self.proxy
                .handle_link_down(link, &failure, self.now, &mut self.outbox);
        }
    }

    /// Updates the memory held for a client. Closes the client if it is finished or if all clients
    /// together hold too much.
    pub(super) fn settle_client(&mut self, key: Key) {
        let is_finishing = self.finish_at.is_some();
        let Some(client) = self.sessions.get_mut(key).and_then(Slot::client) else {
            return;
        };
        let may_hold = self.clients.on_held(client.account());
        if !may_hold || client.is_over() || is_finishing && client.is_quiet() {
            self.close_client(key);
        }
    }

    /// Closes a client.
    pub(super) fn close_client(&mut self, key: Key) {
        let Some(mut slot) = self.sessions.remove(key) else {
            return;
        };
        self.schedule_trim();
        let is_parked = slot.is_parked;
        if let Some(client) = slot.client() {
            let subscriber = Subscriber::of(client.peer().ip());
            if is_parked {
                self.parking.remove(subscriber, key);
            }
            self.clients.remove(subscriber, client.accounted());
            client.close(&mut self.scratch);
            if self.accept_pause.until().is_some() {
                self.resume_listeners();
            }
        }
    }

    /// Makes listeners runnable again, because a file descriptor may be free.
    pub(super) fn resume_listeners(&mut self) {
        self.accept_pause.end();
        for key in self.listeners() {
            self.make_runnable(key);
        }
    }

    pub(super) fn listeners(&self) -> Vec<Key> {
        let slots = self.sessions.iter();
        let listeners = slots.filter(|(_, slot)| slot.listener().is_some());
        listeners.map(|(key, _)| key).collect()
    }

    /// Parks a client, unless its room is free.
    fn park(&mut self, key: Key, holder: Subscriber, room: Room) {
        if room == Room::Free {
            return;
        }
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        if let (Room::RateExceeded { .. }, Some(client)) = (room, slot.client()) {
            client.hold_back();
        }
        if !slot.is_parked {
            slot.is_parked = true;
            self.parking.add(holder, key, room);
        }
    }

    /// Makes parked clients runnable for which there is room.
    pub(super) fn unpark(&mut self) {
        let (proxy, now) = (&mut self.proxy, self.now);
        for key in self.parking.release(|holder| proxy.room_for(holder, now)) {
            if let Some(slot) = self.sessions.get_mut(key) {
                slot.is_parked = false;
            }
            self.make_runnable(key);
        }
    }
}

/// Number of datagrams read from a UDP socket before the first responses leave.
const FIRST_GROUP_LEN: usize = 2;

/// Returns whether a client's message is a query: it has a header, and QR is not set.
fn is_query(message: &[u8]) -> bool {
    message.len() >= 12 && message[2] & 0x80 == 0
}
