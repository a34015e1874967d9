//! Input: runs each session that is ready and hands the messages that the session reads to the
//! proxy.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use super::client_limits::Clients;
use super::connection_log::{log_client_failure, log_connected};
use super::export::connection::Exporter;
use super::export::dnstap::{tap_forwarded, tap_query};
use super::moderation::Pace;
use super::{Reactor, Service, Session, Slot, last_active_at, session_at};
use crate::base::arena::Key;
use crate::base::failure::{Failure, FailureKind};
use crate::base::origin::{ClientProtocol, Origin, Subscriber};
use crate::net::{self, Net};
use crate::proxy::{ClientTransport, LinkKey, Room, is_query};
use crate::session::client::stream::Taken;
use crate::session::upstream::stream::UpstreamEvent;
use crate::session::{ClientStream, HttpStream, Step, Stream, Transport};
use crate::telemetry::dnstap::MessageKind;

impl<N: Net> Reactor<N> {
    /// Runs one step of a session. A session that may have more to read becomes runnable again, and
    /// one that fails is closed.
    pub(super) fn step(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.is_runnable = false;
        let stepped = match slot.session {
            Session::Datagram(_) => Ok(self.step_datagram(key)),
            Session::Listener(..) => Ok(self.step_listener(key)),
            Session::Client(_) => self.step_client(key),
            Session::Http(_) => self.step_http(key),
            Session::Tap(_) => self.step_tap(key),
            Session::Collector(_) => self.step_collector(key),
            Session::Upstream(..) => self.step_upstream(key),
            Session::UpstreamDatagram(..) => self.step_upstream_datagram(key),
        };
        match stepped {
            Ok(Step::Again) => self.make_runnable(key),
            Ok(Step::Drained | Step::Full) => {}
            Err(failure) => self.fail(key, &failure),
        }
        if self.outbox.is_long() {
            self.perform_all();
        }
    }

    /// Reads queries in groups, each up to twice as large as the one before. The responses to a
    /// group leave before the next group is read, so that the clients work in parallel with the
    /// loop; the first groups are small for this reason. If turns are batched, there is one group.
    fn step_datagram(&mut self, key: Key) -> Step {
        let mut step = Step::Drained;
        let Some(Session::Datagram(datagram)) = session_at(&mut self.sessions, key) else {
            return step;
        };
        datagram.flush();
        let has_left = datagram.has_left();
        if self.finish_at.is_none() || has_left {
            let mut left = self.config.limits.datagrams_per_turn;
            let mut group = match self.moderation.pace() {
                Pace::Prompt => FIRST_GROUP_LEN,
                Pace::Batching => left,
            };
            loop {
                step = self.take_datagrams(key, group.min(left));
                left = left.saturating_sub(group);
                group *= 2;
                if step != Step::Again || left == 0 {
                    break;
                }
                self.perform_actions();
            }
        }
        self.watch_room(key);
        step
    }

    /// Hands at most `most` queries of a UDP socket to the proxy.
    fn take_datagrams(&mut self, key: Key, most: usize) -> Step {
        let Some(Session::Datagram(datagram)) = session_at(&mut self.sessions, key) else {
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
            tap_query(tap, ClientProtocol::Udp, peer, message);
            proxy.handle_query(origin, ClientTransport::Udp, message, now, outbox);
        })
    }

    /// Accepts up to the maximum number of connections per turn. After an error that does not
    /// belong to one connection, or after that number of errors, listeners pause: a lasting error
    /// must not occupy the processor.
    fn step_listener(&mut self, key: Key) -> Step {
        let mut failed = 0;
        for _ in 0..self.config.limits.accepts_per_turn {
            let session = self.sessions.get(key).map(|slot| &slot.session);
            let Some(&Session::Listener(ref listener, service)) = session else {
                return Step::Drained;
            };
            if self.finish_at.is_some() {
                return Step::Drained;
            }
            match self.net.accept(listener, self.sessions.next_key()) {
                Ok((stream, peer)) => self.add_client(stream, peer, service),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Drained,
                Err(error) => {
                    log::debug!("cannot accept a TCP client: {error}");
                    failed += 1;
                    let is_last = failed == self.config.limits.accepts_per_turn;
                    if is_last || !net::is_of_one_connection(&error) {
                        let length = self.config.timeouts.accept_pause;
                        self.accept_pause.start(&error, self.now, length);
                        return Step::Drained;
                    }
                }
            }
        }
        Step::Again
    }

    /// Returns the group of clients that a service has.
    fn clients_of(&self, service: Service) -> &Clients {
        match service {
            Service::Dns(_) => &self.clients,
            Service::Http => &self.http_clients,
        }
    }

    fn add_client(&mut self, stream: N::Stream, peer: SocketAddr, service: Service) {
        let subscriber = Subscriber::of(peer.ip());
        if !self.clients_of(service).have_room_for(subscriber) {
            return log::debug!("closing a connection from {peer}: too many connections");
        }
        let session = match service {
            // The address of the listener decides which programs can read the metrics.
            Service::Http => Ok(Session::Http(HttpStream::new(stream, peer, self.now))),
            Service::Dns(protocol) => {
                if !self.proxy.admit_connection(peer.ip(), self.now) {
                    return;
                }
                self.client_stream(stream, peer, protocol)
                    .map(Session::Client)
            }
        };
        match session {
            Ok(session) => {
                let (key, now) = (self.sessions.insert(Slot::new(session)), self.now);
                let sessions = &self.sessions;
                let is_there = |key| sessions.contains(key);
                let clients = match service {
                    Service::Dns(_) => &mut self.clients,
                    Service::Http => &mut self.http_clients,
                };
                clients.add(key, subscriber, now, is_there);
                self.make_room_for_client(key, subscriber, service);
            }
            Err(failure) => log::warn!("cannot serve a client: {failure}"),
        }
    }

    fn client_stream(
        &self,
        stream: N::Stream,
        peer: SocketAddr,
        protocol: ClientProtocol,
    ) -> Result<ClientStream<N::Stream>, Failure> {
        // Only the hints for designated listeners need the local address.
        let is_shown = self.config.designated.is_some();
        let local = is_shown.then(|| stream.local_ip()).flatten();
        let transport = if protocol.is_encrypted() {
            let acceptor = self.tls.acceptor.as_ref();
            let acceptor = acceptor.expect("a TLS listener has an acceptor");
            Transport::accepted(stream, acceptor, protocol)?
        } else {
            Transport::plain(stream)
        };
        let mut client = match protocol {
            ClientProtocol::Https => {
                ClientStream::https(transport, peer, &self.config.limits, self.now)
            }
            _ => ClientStream::new(transport, peer, self.now),
        };
        client.set_local(local);
        Ok(client)
    }

    /// Closes clients of a service while there are more clients than slots, but not the newcomer.
    fn make_room_for_client(&mut self, newcomer: Key, subscriber: Subscriber, service: Service) {
        let name = match service {
            Service::Dns(_) => "TCP",
            Service::Http => "HTTP",
        };
        let to_close = |reactor: &Self| {
            let last_active = |key| last_active_at(&reactor.sessions, key);
            let clients = reactor.clients_of(service);
            clients.to_close_for(newcomer, subscriber, last_active)
        };
        while let Some(key) = to_close(self) {
            log::debug!("closing the longest idle {name} client: too many connections");
            self.close_client(key);
        }
    }

    fn step_client(&mut self, key: Key) -> Result<Step, Failure> {
        let Some(Session::Client(client)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        client.flush(&mut self.scratch, self.now)?;
        if client.has_expired(self.now) {
            log::debug!("closing a TLS client: its certificate has expired");
            self.close_client(key);
            return Ok(Step::Drained);
        }
        let peer = client.peer();
        let holder = Subscriber::of(peer.ip());
        let room = self.proxy.room_for(holder, self.now);
        if room != Room::Free {
            self.park(key, holder, room);
            self.settle_client(key);
            return Ok(Step::Drained);
        }
        let step = self.read_client(key, holder)?;
        if step == Step::Full {
            let room = self.proxy.room_for(holder, self.now);
            self.park(key, holder, room);
        }
        // The handshake may have output.
        self.make_unflushed(key);
        self.settle_client(key);
        Ok(step)
    }

    /// Reads a client and hands its queries to the proxy.
    fn read_client(&mut self, key: Key, holder: Subscriber) -> Result<Step, Failure> {
        let Some(Session::Client(client)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let origin = Origin {
            session: key,
            peer: client.peer(),
            local: client.local().map(Into::into),
        };
        let idle = self.clients.idle_limit();
        let protocol = client.protocol();
        let tap = &mut self.tap;
        let take = |message: &[u8], received_at| {
            tap_query(tap, protocol, origin.peer, message);
            let transport = ClientTransport::Stream {
                idle,
                received_at,
                protocol,
            };
            Taken {
                is_query: is_query(message),
                is_owed: proxy.handle_query(origin, transport, message, now, outbox),
                has_room: proxy.room_for(holder, now) == Room::Free && !outbox.is_long(),
            }
        };
        let is_read = self.finish_at.is_none() || client.is_unread() || client.has_waiting();
        let stepped = if is_read {
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

    fn step_upstream(&mut self, key: Key) -> Result<Step, Failure> {
        let Some(Session::Upstream(link, stream)) = session_at(&mut self.sessions, key) else {
            return Ok(Step::Drained);
        };
        let link = *link;
        self.reads_http2 = stream.is_http2();
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let (most, clock) = (self.config.limits.stream_bytes_per_turn, &self.clock);
        let tap = &mut self.tap;
        let mut came_up = None;
        let stepped = stream.ready(&mut self.scratch, most, |event| match event {
            UpstreamEvent::Up { is_resumed, tls } => {
                let validity = tls.and_then(|tls| tls.validity);
                came_up = Some((is_resumed, validity));
                if let Some((label, took)) = proxy.handle_link_up(link, is_resumed, now, outbox) {
                    log_connected(label, took, tls, clock.now());
                }
                if let Some(validity) = validity {
                    proxy.handle_certificate(link, validity, clock.now());
                }
                if let Some(group) = tls.and_then(|tls| tls.key_exchange) {
                    proxy.handle_key_exchange(link, group);
                }
            }
            UpstreamEvent::Message(message) => {
                let kind = MessageKind::ForwarderResponse;
                tap_forwarded(tap, kind, (proxy, link), message);
                proxy.handle_reply(link, message, now, outbox);
            }
            UpstreamEvent::StreamsMax(count) => {
                proxy.handle_streams_max(link, count, now, outbox);
            }
            UpstreamEvent::Draining => proxy.handle_draining(link, now, outbox),
            UpstreamEvent::Refused(id) => proxy.handle_reset(link, id, true, now, outbox),
            UpstreamEvent::Reset(id) => proxy.handle_reset(link, id, false, now, outbox),
            UpstreamEvent::NoMessage { id, status } => {
                proxy.handle_no_message(link, (id, status), now, outbox);
            }
        });
        if let Some((is_resumed, validity)) = came_up {
            self.schedule_trim();
            if !is_resumed {
                self.on_authenticated(link, validity);
            }
        }
        // The handshake may have output.
        self.make_unflushed(key);
        stepped
    }

    fn step_upstream_datagram(&mut self, key: Key) -> Result<Step, Failure> {
        let session = session_at(&mut self.sessions, key);
        let Some(&mut Session::UpstreamDatagram(link, ref mut datagram)) = session else {
            return Ok(Step::Drained);
        };
        let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
        let most = self.config.limits.datagrams_per_turn;
        let tap = &mut self.tap;
        datagram.ready(&mut self.scratch, most, |message| {
            let kind = MessageKind::ForwarderResponse;
            tap_forwarded(tap, kind, (proxy, link), message);
            proxy.handle_reply(link, message, now, outbox);
        })
    }

    /// Closes a failed session and reports the failure to the part that the session serves.
    pub(super) fn fail(&mut self, key: Key, failure: &Failure) {
        match session_at(&mut self.sessions, key) {
            Some(Session::Client(client)) => {
                log_client_failure(client.peer(), client.protocol(), failure);
                if failure.kind == FailureKind::Authentication {
                    let (ip, reason) = (client.peer().ip(), &failure.detail);
                    self.proxy.handle_refused_certificate(ip, reason, self.now);
                }
                self.close_client(key);
            }
            Some(Session::Http(_)) => {
                log::debug!("HTTP client disconnected: {failure}");
                self.close_client(key);
            }
            Some(Session::Tap(_)) => {
                self.disconnect_exporter(Exporter::Dnstap, &failure.to_string());
            }
            Some(Session::Collector(_)) => {
                self.disconnect_exporter(Exporter::Traces, &failure.to_string());
            }
            Some(Session::Upstream(link, _) | Session::UpstreamDatagram(link, _)) => {
                let link = *link;
                self.sessions.remove(key);
                self.schedule_trim();
                self.fail_link(link, failure);
            }
            Some(Session::Datagram(_) | Session::Listener(..)) | None => {}
        }
    }

    /// Reports the failure of a connection to an upstream to the proxy.
    fn fail_link(&mut self, link: LinkKey, failure: &Failure) {
        let mut failure = failure.clone();
        if failure.kind == FailureKind::Authentication
            && let Some(judged_by) = self.clock.judged_by()
        {
            failure.detail = format!("{}; {judged_by}", failure.detail);
        }
        self.proxy
            .handle_link_down(link, &failure, self.now, &mut self.outbox);
    }

    /// Updates the memory held for a client. Closes the client if it is finished or if all clients
    /// of its service together hold too much.
    pub(super) fn settle_client(&mut self, key: Key) {
        let is_finishing = self.finish_at.is_some();
        let is_over = match session_at(&mut self.sessions, key) {
            Some(Session::Client(client)) => {
                let may_hold = self.clients.update_held(client.account());
                !may_hold || client.is_over() || is_finishing && client.is_quiet()
            }
            Some(Session::Http(http)) => {
                let may_hold = self.http_clients.update_held(http.account());
                !may_hold || http.is_over()
            }
            _ => false,
        };
        if is_over {
            self.close_client(key);
        }
    }

    /// Closes a client, of DNS or of HTTP.
    pub(super) fn close_client(&mut self, key: Key) {
        let Some(slot) = self.sessions.remove(key) else {
            return;
        };
        self.schedule_trim();
        let (clients, peer, held) = match slot.session {
            Session::Client(mut client) => {
                client.close(&mut self.scratch);
                (&mut self.clients, client.peer(), client.accounted())
            }
            Session::Http(http) => (&mut self.http_clients, http.peer(), http.accounted()),
            _ => return,
        };
        let subscriber = Subscriber::of(peer.ip());
        clients.remove(subscriber, held);
        if slot.is_parked {
            self.parking.remove(subscriber, key);
        }
        if self.accept_pause.until().is_some() {
            self.resume_listeners();
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
        let listeners = slots.filter(|(_, slot)| matches!(slot.session, Session::Listener(..)));
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
        if let (Room::RateExceeded { .. }, Session::Client(client)) = (room, &mut slot.session) {
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
