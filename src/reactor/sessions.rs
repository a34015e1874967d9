//! What the loop has of each socket.

use super::listen::ClientProtocol;
use crate::base::arena::{Arena, Key};
use crate::net::Net;
use crate::proxy::LinkKey;
use crate::session::{
    ClientDatagram, ClientStream, FrameStream, HttpClient, HttpStream, UpstreamDatagram,
    UpstreamStream,
};

pub(super) struct Slot<N: Net> {
    pub(super) session: Session<N>,
    /// It is in the queue of those that can go on.
    pub(super) is_runnable: bool,
    /// Something has been written to it that may not have gone out.
    pub(super) is_unflushed: bool,
    /// It found no room in the proxy, or has exceeded its rate.
    pub(super) is_parked: bool,
}

/// What makes a step costly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CostlyStep {
    UpstreamHandshake,
    HttpRequest,
    ClientHandshake,
}

pub(super) enum Session<N: Net> {
    Datagram(ClientDatagram<N::Datagram>),
    Listener(N::Listener, ClientProtocol),
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

    pub(super) fn listener(&self) -> Option<(&N::Listener, ClientProtocol)> {
        match &self.session {
            Session::Listener(listener, protocol) => Some((listener, *protocol)),
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

    /// Why a step of it may cost as much as the responses to hundreds of queries, if it may.
    pub(super) fn burden(&self) -> Option<CostlyStep> {
        match &self.session {
            Session::Upstream(_, stream) if stream.is_handshaking() => {
                Some(CostlyStep::UpstreamHandshake)
            }
            Session::Client(client) if client.is_handshaking() => Some(CostlyStep::ClientHandshake),
            Session::Http(_) => Some(CostlyStep::HttpRequest),
            _ => None,
        }
    }

    /// The link that it belongs to, if it does.
    pub(super) fn link(&self) -> Option<LinkKey> {
        match &self.session {
            Session::Upstream(link, _) | Session::UpstreamDatagram(link, _) => Some(*link),
            _ => None,
        }
    }
}

pub(super) fn client_at<N: Net>(
    sessions: &Arena<Slot<N>>,
    key: Key,
) -> Option<&ClientStream<N::Stream>> {
    match &sessions.get(key)?.session {
        Session::Client(client) => Some(client),
        _ => None,
    }
}
