//! The table of sessions: one slot for each socket.

use super::listen::Service;
use crate::base::arena::{Arena, Key};
use crate::net::Net;
use crate::proxy::LinkKey;
use crate::session::{
    ClientDatagram, ClientStream, FrameStream, HttpClient, HttpStream, UpstreamDatagram,
    UpstreamStream,
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
    Upstream(LinkKey, UpstreamStream<N::Stream>),
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

    pub(super) fn datagram(&mut self) -> Option<&mut ClientDatagram<N::Datagram>> {
        match &mut self.session {
            Session::Datagram(datagram) => Some(datagram),
            _ => None,
        }
    }

    pub(super) fn listener(&self) -> Option<(&N::Listener, Service)> {
        match &self.session {
            Session::Listener(listener, service) => Some((listener, *service)),
            _ => None,
        }
    }

    pub(super) fn client(&mut self) -> Option<&mut ClientStream<N::Stream>> {
        match &mut self.session {
            Session::Client(client) => Some(client),
            _ => None,
        }
    }

    pub(super) fn http(&mut self) -> Option<&mut HttpStream<N::Stream>> {
        match &mut self.session {
            Session::Http(http) => Some(http),
            _ => None,
        }
    }

    pub(super) fn tap(&mut self) -> Option<&mut FrameStream<N::Stream>> {
        match &mut self.session {
            Session::Tap(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn collector(&mut self) -> Option<&mut HttpClient<N::Stream>> {
        match &mut self.session {
            Session::Collector(collector) => Some(collector),
            _ => None,
        }
    }

    pub(super) fn upstream(&mut self) -> Option<(LinkKey, &mut UpstreamStream<N::Stream>)> {
        match &mut self.session {
            Session::Upstream(link, stream) => Some((*link, stream)),
            _ => None,
        }
    }

    pub(super) fn upstream_datagram(
        &mut self,
    ) -> Option<(LinkKey, &mut UpstreamDatagram<N::Datagram>)> {
        match &mut self.session {
            Session::UpstreamDatagram(link, datagram) => Some((*link, datagram)),
            _ => None,
        }
    }

    /// Returns the kind of costly step of the session, if a step may cost as much as the responses
    /// to hundreds of queries.
    pub(super) fn costly_step(&self) -> Option<CostlyStep> {
        match &self.session {
            Session::Upstream(_, stream) if stream.is_handshaking() => {
                Some(CostlyStep::UpstreamHandshake)
            }
            Session::Client(client) if client.is_handshaking() => Some(CostlyStep::ClientHandshake),
            Session::Http(_) => Some(CostlyStep::HttpRequest),
            _ => None,
        }
    }

    /// Returns the link of an upstream session.
    pub(super) fn link(&self) -> Option<LinkKey> {
        match &self.session {
            Session::Upstream(link, _) | Session::UpstreamDatagram(link, _) => Some(*link),
            _ => None,
        }
    }
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
