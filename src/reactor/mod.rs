//! The loop: it waits, hands bytes to sessions, hands messages to the proxy, and performs what the
//! proxy asks for.
//!
//! ```text
//! a turn:  wait until a socket is ready or the next deadline, not at all while sessions are runnable
//!          take the time, once
//!          do what is due
//!          step the runnable sessions, each as far as it may go at a time
//!          perform the proxy's actions: queries gather in the buffers of links, responses in clients'
//!          flush the sessions that were written to: one record and one write for each link
//! ```
//!
//! The poller reports an edge once. A session that has not read all there is stays in the queue of the
//! runnable, or where it is remembered why it cannot run: a client that is full until it has taken a
//! response, a client that found the proxy full until there is room, a listener until a slot or a file
//! descriptor is free. An error closes one session, never the loop.

mod clients;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use crate::arena::{Arena, Key};
use crate::config::{Config, Limits, Timeouts};
use crate::failure::{Failure, FailureKind};
use crate::logger;
use crate::net::{Event, Net, Signal};
use crate::origin::Origin;
use crate::proxy::{Action, LinkKey, Outbox, Proxy, Transport as ClientTransport, UpstreamIndex};
use crate::random::SEED_LEN;
use crate::session::client_stream::Taken;
use crate::session::upstream_stream::UpstreamEvent;
use crate::session::{ClientDatagram, ClientStream, Scratch, Step, Transport, UpstreamStream};
use crate::time::Instant;
use crate::tls::Connector;

use clients::Clients;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be another turn.
    GoOn,
    /// All is done that was asked for.
    Finished,
}

/// The loop over a network. See the [module](self).
pub struct Reactor<N: Net> {
    net: N,
    upstreams: Vec<(SocketAddr, Connector)>,
    timeouts: Timeouts,
    limits: Limits,
    proxy: Proxy,
    /// What the proxy asks for, while it is asked.
    outbox: Outbox,
    /// What the proxy has asked for, while it is done. The two change places.
    outbox_in_work: Outbox,
    sessions: Arena<Slot<N>>,
    /// The session of each link, by the link's index.
    session_by_link: Vec<Option<Key>>,
    clients: Clients,
    runnable: VecDeque<Key>,
    unflushed: Vec<Key>,
    /// Clients that found no room in the proxy.
    parked: Vec<Key>,
    /// When listeners that ran out of file descriptors try again.
    accept_at: Option<Instant>,
    /// When a reader of the log that was slow is tried again.
    log_at: Option<Instant>,
    /// When the loop ends at the latest, once that was asked for.
    finish_at: Option<Instant>,
    events: Vec<Event>,
    scratch: Scratch,
    now: Instant,
}

struct Slot<N: Net> {
    session: Session<N>,
    is_runnable: bool,
    is_unflushed: bool,
}

enum Session<N: Net> {
    Datagram(ClientDatagram<N::Datagram>),
    Listener(N::Listener),
    Client(ClientStream<N::Stream>),
    Upstream(LinkKey, UpstreamStream<N::Stream>),
}

/// A socket for clients that could not be had.
#[derive(Debug)]
pub struct ListenError {
    /// Where it should have listened.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    /// Why it does not.
    pub cause: io::Error,
}

impl<N: Net> Reactor<N> {
    /// A loop that serves where `config` says. There is one connector for each upstream.
    pub fn new(
        mut net: N,
        config: &Config,
        connectors: Vec<Connector>,
        seed: &[u8; SEED_LEN],
    ) -> Result<Self, ListenError> {
        let now = net.now();
        let mut sessions = Arena::default();
        for address in config.listen.addresses() {
            match listen(&mut net, &mut sessions, address) {
                Ok(()) => log::info!("listening on {address}"),
                Err(error) if config.listen.is_optional(&address) => {
                    log::info!("not listening on {address}: {}", error.cause);
                }
                Err(error) => return Err(error),
            }
        }
        let addresses = config.upstreams.iter().map(|upstream| upstream.address);
        Ok(Self {
            net,
            upstreams: addresses.zip(connectors).collect(),
            timeouts: config.timeouts,
            limits: config.limits,
            proxy: Proxy::new(config, seed),
            outbox: Outbox::default(),
            outbox_in_work: Outbox::default(),
            sessions,
            session_by_link: Vec::new(),
            clients: Clients::new(&config.limits, &config.timeouts),
            runnable: VecDeque::new(),
            unflushed: Vec::new(),
            parked: Vec::new(),
            accept_at: None,
            log_at: None,
            finish_at: None,
            events: Vec::new(),
            scratch: Scratch::new(),
            now,
        })
    }

    /// Takes turns until a signal asks to finish and that is done. Errors are those of the poller.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? == Turn::GoOn {}
        Ok(())
    }

    /// Takes one turn.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let timeout = self.timeout();
        self.now = self.net.wait(timeout, &mut self.events)?;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Ready(key) => self.make_runnable(key),
                Event::Signal(signal) => self.on_signal(signal),
            }
        }
        self.events = events;
        self.do_what_is_due();
        for _ in 0..self.runnable.len() {
            let Some(key) = self.runnable.pop_front() else {
                break;
            };
            self.step(key);
        }
        self.perform_all();
        self.unpark();
        self.write_log();
        Ok(if self.is_finished() {
            Turn::Finished
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

    // Time.

    fn timeout(&mut self) -> Option<Duration> {
        if !self.runnable.is_empty() {
            return Some(Duration::ZERO);
        }
        let moments = [
            self.proxy.poll_timeout(),
            self.clients.next_expiry(),
            self.accept_at,
            self.log_at,
            self.finish_at,
        ];
        moments
            .into_iter()
            .flatten()
            .min()
            .map(|moment| moment - self.now)
    }

    fn do_what_is_due(&mut self) {
        if self.proxy.poll_timeout().is_some_and(|at| at <= self.now) {
            self.proxy.handle_timeout(self.now, &mut self.outbox);
        }
        self.close_idle_clients();
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.resume_listeners();
        }
    }

    fn close_idle_clients(&mut self) {
        while let Some(key) = self.pop_idle_client() {
            if client_at(&self.sessions, key).is_some_and(ClientStream::is_waiting) {
                self.clients.excuse(key, self.now);
            } else {
                log::debug!("closing an idle TCP client");
                self.close_client(key);
            }
        }
    }

    fn pop_idle_client(&mut self) -> Option<Key> {
        let sessions = &self.sessions;
        let last_active = |key| Some(client_at(sessions, key)?.last_active());
        self.clients.pop_expired(self.now, last_active)
    }

    fn write_log(&mut self) {
        if self.log_at.is_some_and(|at| at > self.now) {
            return;
        }
        let is_left = logger::write_queued();
        self.log_at = is_left.then(|| self.now + LOG_PAUSE);
    }

    // Sessions.

    fn make_runnable(&mut self, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key)
            && !slot.is_runnable
        {
            slot.is_runnable = true;
            self.runnable.push_back(key);
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

    fn add(&mut self, session: Session<N>) -> Key {
        self.sessions.insert(Slot::new(session))
    }

    fn step(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.is_runnable = false;
        match slot.session {
            Session::Datagram(_) => self.step_datagram(key),
            Session::Listener(_) => self.step_listener(key),
            Session::Client(_) => self.step_client(key),
            Session::Upstream(..) => self.step_upstream(key),
        }
    }

    fn step_datagram(&mut self, key: Key) {
        let Self {
            sessions,
            proxy,
            outbox,
            scratch,
            now,
            limits,
            ..
        } = self;
        let Some(Slot {
            session: Session::Datagram(datagram),
            ..
        }) = sessions.get_mut(key)
        else {
            return;
        };
        datagram.flush();
        if self.finish_at.is_some() {
            return;
        }
        let step = datagram.ready(
            scratch,
            limits.datagrams_per_turn,
            |message, peer, local| {
                let origin = Origin {
                    session: key,
                    peer,
                    local,
                };
                proxy.handle_query(origin, ClientTransport::Udp, message, *now, outbox);
            },
        );
        if step == Step::Again {
            self.make_runnable(key);
        }
    }

    fn step_listener(&mut self, key: Key) {
        for _ in 0..self.limits.accepts_per_turn {
            if self.clients.are_at_limit() || self.finish_at.is_some() {
                return;
            }
            let Some(Slot {
                session: Session::Listener(listener),
                ..
            }) = self.sessions.get(key)
            else {
                return;
            };
            match self.net.accept(listener, self.sessions.next_key()) {
                Ok((stream, peer)) => {
                    let client = ClientStream::new(Transport::plain(stream), peer, self.now);
                    let key = self.add(Session::Client(client));
                    let sessions = &self.sessions;
                    self.clients
                        .add(key, self.now, |key| sessions.contains(key));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_out_of_resources(&error) => {
                    log::warn!("cannot accept TCP clients for now: {error}");
                    self.accept_at = Some(self.now + self.timeouts.accept_pause);
                    return;
                }
                Err(error) => log::debug!("a TCP client was gone before it was accepted: {error}"),
            }
        }
        self.make_runnable(key);
    }

    fn resume_listeners(&mut self) {
        self.accept_at = None;
        let is_listener = |slot: &Slot<N>| matches!(slot.session, Session::Listener(_));
        let listeners: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, slot)| is_listener(slot))
            .map(|(key, _)| key)
            .collect();
        for key in listeners {
            self.make_runnable(key);
        }
    }

    fn step_client(&mut self, key: Key) {
        let has_room = self.proxy.has_room();
        let Self {
            sessions,
            proxy,
            outbox,
            scratch,
            now,
            limits,
            clients,
            ..
        } = self;
        let Some(Slot {
            session: Session::Client(client),
            ..
        }) = sessions.get_mut(key)
        else {
            return;
        };
        let flushed = client.flush(scratch, *now);
        if self.finish_at.is_some() && client.is_quiet() {
            return self.close_client(key);
        }
        if !has_room {
            return self.parked.push(key);
        }
        let held_before = client.held_len();
        let origin = Origin {
            session: key,
            peer: client.peer(),
            local: None,
        };
        let transport = ClientTransport::Tcp {
            idle: clients.idle_limit(),
        };
        let stepped = flushed.and_then(|()| {
            client.ready(scratch, limits, *now, |message| Taken {
                is_owed: proxy.handle_query(origin, transport, message, *now, outbox),
                has_room: proxy.has_room(),
            })
        });
        let is_over = client.is_over();
        let may_hold = clients.on_held(held_before, client.held_len());
        match stepped {
            Ok(_) if is_over || !may_hold => self.close_client(key),
            Ok(Step::Again) => self.make_runnable(key),
            Ok(Step::Full) if !self.proxy.has_room() => self.parked.push(key),
            Ok(Step::Full | Step::Drained) => {}
            Err(failure) => {
                log::debug!("a TCP client is gone: {failure}");
                self.close_client(key);
            }
        }
    }

    /// Lets clients go on that found the proxy full.
    fn unpark(&mut self) {
        if !self.parked.is_empty() && self.proxy.has_room() {
            for key in std::mem::take(&mut self.parked) {
                self.make_runnable(key);
            }
        }
    }

    fn step_upstream(&mut self, key: Key) {
        let Self {
            sessions,
            proxy,
            outbox,
            scratch,
            now,
            limits,
            ..
        } = self;
        let Some(Slot {
            session: Session::Upstream(link, stream),
            ..
        }) = sessions.get_mut(key)
        else {
            return;
        };
        let link = *link;
        let stepped = stream.ready(
            scratch,
            limits.stream_octets_per_turn,
            |event| match event {
                UpstreamEvent::Up { is_resumed } => {
                    proxy.handle_link_up(link, is_resumed, *now, outbox);
                }
                UpstreamEvent::Read => proxy.handle_link_read(link, *now),
                UpstreamEvent::Message(message) => proxy.handle_reply(link, message, *now, outbox),
            },
        );
        match stepped {
            Ok(step) => {
                // The handshake, too, has something to say.
                self.make_unflushed(key);
                if step == Step::Again {
                    self.make_runnable(key);
                }
            }
            Err(failure) => self.lose_upstream(key, &failure),
        }
    }

    fn lose_upstream(&mut self, key: Key, failure: &Failure) {
        if let Some(Slot {
            session: Session::Upstream(link, _),
            ..
        }) = self.sessions.remove(key)
        {
            self.proxy
                .handle_link_down(link, failure, self.now, &mut self.outbox);
        }
    }

    fn close_client(&mut self, key: Key) {
        if let Some(Slot {
            session: Session::Client(client),
            ..
        }) = self.sessions.remove(key)
        {
            let was_at_limit = self.clients.are_at_limit();
            self.clients.remove(client.held_len());
            if was_at_limit || self.accept_at.is_some() {
                self.resume_listeners();
            }
        }
    }

    // Actions.

    /// Performs actions and flushes sessions until neither is left.
    fn perform_all(&mut self) {
        loop {
            if !self.outbox.is_empty() {
                std::mem::swap(&mut self.outbox, &mut self.outbox_in_work);
                let outbox = std::mem::take(&mut self.outbox_in_work);
                for action in outbox.actions() {
                    self.perform(action, &outbox);
                }
                self.outbox_in_work = outbox;
                self.outbox_in_work.clear();
            } else if let Some(key) = self.unflushed.pop() {
                self.flush(key);
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, action: &Action, outbox: &Outbox) {
        match action {
            Action::Respond { origin, message } => self.respond(origin, outbox.bytes(message)),
            Action::Send { link, message } => {
                let Some(key) = self.session_of(*link) else {
                    return;
                };
                if let Some(Slot {
                    session: Session::Upstream(_, stream),
                    ..
                }) = self.sessions.get_mut(key)
                {
                    stream.send(outbox.bytes(message));
                    self.make_unflushed(key);
                }
            }
            Action::OpenLink { link, upstream } => self.open_link(*link, *upstream),
            Action::CloseLink { link } => {
                let Some(key) = self.session_of(*link) else {
                    return;
                };
                if let Some(Slot {
                    session: Session::Upstream(_, mut stream),
                    ..
                }) = self.sessions.remove(key)
                {
                    stream.close(&mut self.scratch);
                }
            }
        }
    }

    fn respond(&mut self, origin: &Origin, message: &[u8]) {
        let key = origin.session;
        match self.sessions.get_mut(key).map(|slot| &mut slot.session) {
            Some(Session::Datagram(datagram)) => {
                datagram.send(message, origin.peer, origin.local, self.limits.udp_unsent);
            }
            Some(Session::Client(client)) => {
                let held_before = client.held_len();
                let may_stay = client.send(message, &self.limits);
                let may_hold = self.clients.on_held(held_before, client.held_len());
                if may_stay && may_hold {
                    self.make_unflushed(key);
                } else {
                    log::debug!("closing a TCP client that does not take its responses");
                    self.close_client(key);
                }
            }
            // The client has gone.
            _ => {}
        }
    }

    fn open_link(&mut self, link: LinkKey, upstream: UpstreamIndex) {
        let (address, connector) = &self.upstreams[upstream.0];
        let stream = self.net.connect(*address, self.sessions.next_key());
        let transport = match stream {
            Ok(stream) => Transport::tls(stream, connector, &mut self.scratch),
            Err(error) => Err(Failure::new(FailureKind::Connect, error)),
        };
        match transport {
            Ok(transport) => {
                let key = self.add(Session::Upstream(link, UpstreamStream::new(transport)));
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

    fn session_of(&self, link: LinkKey) -> Option<Key> {
        let key = (*self.session_by_link.get(link.index())?)?;
        match &self.sessions.get(key)?.session {
            Session::Upstream(of, _) if *of == link => Some(key),
            _ => None,
        }
    }

    fn flush(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.is_unflushed = false;
        match &mut slot.session {
            Session::Client(client) => {
                let held_before = client.held_len();
                let flushed = client.flush(&mut self.scratch, self.now);
                self.clients.on_held(held_before, client.held_len());
                if flushed.is_err()
                    || client.is_over()
                    || self.finish_at.is_some() && client.is_quiet()
                {
                    self.close_client(key);
                } else if client.can_go_on(&self.limits) {
                    self.make_runnable(key);
                }
            }
            Session::Upstream(_, stream) => {
                if let Err(failure) = stream.flush(&mut self.scratch) {
                    self.lose_upstream(key, &failure);
                }
            }
            Session::Datagram(_) | Session::Listener(_) => {}
        }
    }

    // Signals.

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Report => log::info!(
                "{}; now inflight={} links={} tcp-clients={}",
                self.proxy.counters(),
                self.proxy.inflight(),
                self.proxy.links(),
                self.clients.len(),
            ),
            Signal::Finish if self.finish_at.is_none() => self.start_to_finish(),
            Signal::Finish => self.finish_at = Some(self.now),
        }
    }

    /// Takes what clients have sent by now, then nothing more.
    fn start_to_finish(&mut self) {
        log::info!(
            "finishing: {} queries wait for their answer",
            self.proxy.inflight()
        );
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in &keys {
            self.step(*key);
        }
        self.finish_at = Some(self.now + self.timeouts.query);
        for key in keys {
            match self.sessions.get(key).map(|slot| &slot.session) {
                Some(Session::Listener(_)) => drop(self.sessions.remove(key)),
                Some(Session::Client(client)) if client.is_quiet() => self.close_client(key),
                _ => {}
            }
        }
    }

    fn is_finished(&self) -> bool {
        let Some(finish_at) = self.finish_at else {
            return false;
        };
        let is_served = |slot: &Slot<N>| match &slot.session {
            Session::Datagram(datagram) => !datagram.has_unsent(),
            Session::Client(client) => client.is_quiet(),
            Session::Listener(_) | Session::Upstream(..) => true,
        };
        finish_at <= self.now
            || self.proxy.inflight() == 0 && self.sessions.iter().all(|(_, slot)| is_served(slot))
    }
}

impl<N: Net> Slot<N> {
    fn new(session: Session<N>) -> Self {
        Self {
            session,
            is_runnable: false,
            is_unflushed: false,
        }
    }
}

/// How long a reader of the log that takes nothing is left alone.
const LOG_PAUSE: Duration = Duration::from_millis(100);

fn listen<N: Net>(
    net: &mut N,
    sessions: &mut Arena<Slot<N>>,
    address: SocketAddr,
) -> Result<(), ListenError> {
    let failed = |protocol| {
        move |cause| ListenError {
            address,
            protocol,
            cause,
        }
    };
    let datagram = net
        .bind(address, sessions.next_key())
        .map_err(failed("UDP"))?;
    sessions.insert(Slot::new(Session::Datagram(ClientDatagram::new(datagram))));
    let listener = net
        .listen(address, sessions.next_key())
        .map_err(failed("TCP"))?;
    sessions.insert(Slot::new(Session::Listener(listener)));
    Ok(())
}

fn client_at<N: Net>(sessions: &Arena<Slot<N>>, key: Key) -> Option<&ClientStream<N::Stream>> {
    match &sessions.get(key)?.session {
        Session::Client(client) => Some(client),
        _ => None,
    }
}

/// Whether accepting has to pause until something is given back.
fn is_out_of_resources(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}
