//! The table of sessions: one slot for each socket.

use super::Reactor;
use super::listen::Service;
use crate::base::arena::{Arena, Key, Token};
use crate::base::time::Instant;
use crate::net::Net;
use crate::proxy::LinkKey;
use crate::session::{
    ClientDatagram, ClientStream, FrameStream, HttpClient, HttpStream, Stream, UpstreamConnection,
    UpstreamDatagram,
};

pub(super) struct Slot<N: Net> {
    pub(super) session: Session<N>,
    /// The session is in the queue of runnable sessions.
    pub(super) is_runnable: bool,
    /// The session has output that may not have been written to the socket.
    pub(super) is_unflushed: bool,
    /// The session found no room in the proxy, or exceeded its rate limit.
    pub(super) is_parked: bool,
}

/// The reason that a step is costly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CostlyStep {
    UpstreamHandshake,
    HttpRequest,
    ClientHandshake,
}

pub(super) enum Session<N: Net> {
    Datagram(ClientDatagram<N::Datagram>),
    Listener(N::Listener, Service),
    Client(ClientStream<N::Stream>),
    Http(HttpStream<N::Stream>),
    Tap(FrameStream<N::Stream>),
    Collector(HttpClient<N::Stream>),
    Upstream(LinkKey, UpstreamConnection<N::Stream>),
    UpstreamDatagram(LinkKey, UpstreamDatagram<N::Datagram>),
}

impl<N: Net> Slot<N> {
    pub(super) fn new(session: Session<N>) -> Self {
        Self {
            session,
            is_runnable: false,
            is_unflushed: false,
            is_parked: false,
        }
    }

    /// Returns whether no client waits for output of the session.
    pub(super) fn is_served(&self) -> bool {
        match &self.session {
            Session::Datagram(datagram) => !datagram.has_unsent() && !self.is_runnable,
            Session::Client(client) => client.is_quiet(),
            Session::Listener(..)
            | Session::Http(_)
            | Session::Tap(_)
            | Session::Collector(_)
            | Session::Upstream(..)
            | Session::UpstreamDatagram(..) => true,
        }
    }
}

impl<N: Net> Session<N> {
    /// Returns the kind of costly step of the session, if a step may cost as much as the responses
    /// to hundreds of queries.
    pub(super) fn costly_step(&self) -> Option<CostlyStep> {
        match self {
            Self::Upstream(_, stream) if stream.is_handshaking() => {
                Some(CostlyStep::UpstreamHandshake)
            }
            Self::Client(client) if client.is_handshaking() => Some(CostlyStep::ClientHandshake),
            Self::Http(_) => Some(CostlyStep::HttpRequest),
            _ => None,
        }
    }

    /// Handles an event of the poller for the socket of the session.
    pub(super) fn on_event(&mut self, is_read_closed: bool) {
        let stream = match self {
            Self::Client(client) => client.stream(),
            Self::Http(http) => http.stream(),
            Self::Tap(frames) => frames.stream(),
            Self::Collector(http) => http.stream(),
            Self::Upstream(_, connection) => connection.stream(),
            Self::Datagram(_) | Self::Listener(..) | Self::UpstreamDatagram(..) => return,
        };
        stream.on_event(is_read_closed);
    }

    /// Returns the link of an upstream session.
    pub(super) fn link(&self) -> Option<LinkKey> {
        match self {
            Self::Upstream(link, _) | Self::UpstreamDatagram(link, _) => Some(*link),
            _ => None,
        }
    }

    /// Returns the time of the last activity of a client's connection.
    pub(super) fn last_active(&self) -> Option<Instant> {
        match self {
            Self::Client(client) => Some(client.last_active()),
            Self::Http(http) => Some(http.last_active()),
            _ => None,
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Handles an event of the poller: the session of the socket becomes runnable.
    pub(super) fn on_ready(&mut self, token: Token, is_read_closed: bool) {
        let Some(key) = self.sessions.key_of(token) else {
            return;
        };
        if let Some(session) = session_at(&mut self.sessions, key) {
            session.on_event(is_read_closed);
        }
        self.make_runnable(key);
    }
}

/// Returns the session with this key, if it is open.
pub(super) fn session_at<N: Net>(
    sessions: &mut Arena<Key, Slot<N>>,
    key: Key,
) -> Option<&mut Session<N>> {
    Some(&mut sessions.get_mut(key)?.session)
}

/// Returns the time of the last activity of a client's connection, if it is open.
pub(super) fn last_active_at<N: Net>(sessions: &Arena<Key, Slot<N>>, key: Key) -> Option<Instant> {
    sessions.get(key)?.session.last_active()
}

pub(super) fn client_at<N: Net>(
    sessions: &Arena<Key, Slot<N>>,
    key: Key,
) -> Option<&ClientStream<N::Stream>> {
    match &sessions.get(key)?.session {
        Session::Client(client) => Some(client),
        _ => None,
    }
}
