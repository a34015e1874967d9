//! What the proxy wants done.

use std::net::SocketAddr;
use std::ops::Range;

use crate::base::origin::Origin;
use crate::config::Scheme;

use super::client::response::Record;
use super::keys::{LinkKey, UpstreamIndex};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a response to a client.
    Respond {
        /// The way to it.
        origin: Origin,
        /// The response, in the outbox's [bytes](Outbox::bytes).
        message: Range<usize>,
    },
    /// Send a query upstream.
    Send {
        /// The link to use, which is up or a datagram.
        link: LinkKey,
        /// The query, in the outbox's [bytes](Outbox::bytes).
        message: Range<usize>,
    },
    /// Connect to an upstream and authenticate it.
    OpenLink {
        /// What the new link is called from now on.
        link: LinkKey,
        /// Where it leads.
        to: Destination,
    },
    /// Close a link, which the proxy has forgotten by now.
    CloseLink {
        /// The link.
        link: LinkKey,
    },
}

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The upstream, which has to prove that it is this one under TLS.
    pub upstream: UpstreamIndex,
    /// How it is spoken to. A datagram is no connection: its link is up at once.
    pub scheme: Scheme,
    /// One of its addresses.
    pub address: SocketAddr,
}

/// The actions that the proxy asks for, in their order, with the bytes that they are about.
///
/// It belongs to whoever drives the proxy and is lent to it call by call; the proxy keeps nothing
/// that has yet to be delivered.
#[derive(Debug, Default)]
pub struct Outbox {
    actions: Vec<Action>,
    records: Vec<Record>,
    takes_records: bool,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Octets and actions for which there is room from turn to turn; what a burst took beyond goes
    /// back.
    const OCTETS_KEPT: usize = 16 * 1024;
    const ACTIONS_KEPT: usize = 128;
    /// Octets after which it is long: more than a turn of datagrams takes.
    const OCTETS_LONG: usize = 128 * 1024;

    /// An empty one, which takes records of queries that end, or does not.
    pub fn new(takes_records: bool) -> Self {
        Self {
            takes_records,
            ..Self::default()
        }
    }

    /// Takes records of queries that end from now on, or does not.
    pub fn set_takes_records(&mut self, takes_records: bool) {
        self.takes_records = takes_records;
    }

    /// The actions in their order.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// What there is to tell of queries that have ended.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The bytes of a message that an action names, or of the question of a record.
    pub fn bytes(&self, message: &Range<usize>) -> &[u8] {
        &self.bytes[message.clone()]
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.records.is_empty()
    }

    /// Whether it is time to do something of it before there is more.
    pub fn is_long(&self) -> bool {
        self.bytes.len() >= Self::OCTETS_LONG
    }

    /// Forgets what has been done.
    pub fn clear(&mut self) {
        self.actions.clear();
        self.actions.shrink_to(Self::ACTIONS_KEPT);
        self.records.clear();
        self.records.shrink_to(Self::ACTIONS_KEPT);
        self.bytes.clear();
        self.bytes.shrink_to(Self::OCTETS_KEPT);
    }

    /// Returns where the response stands.
    pub(super) fn respond(
        &mut self,
        origin: Origin,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Range<usize> {
        let message = self.write(write);
        self.actions.push(Action::Respond {
            origin,
            message: message.clone(),
        });
        message
    }

    pub(super) fn takes_records(&self) -> bool {
        self.takes_records
    }

    pub(super) fn record(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Keeps bytes that a record is about.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        self.write(|out| out.extend_from_slice(bytes))
    }

    pub(super) fn send(&mut self, link: LinkKey, write: impl FnOnce(&mut Vec<u8>)) {
        let message = self.write(write);
        self.actions.push(Action::Send { link, message });
    }

    pub(super) fn open(&mut self, link: LinkKey, to: Destination) {
        self.actions.push(Action::OpenLink { link, to });
    }

    pub(super) fn close(&mut self, link: LinkKey) {
        self.actions.push(Action::CloseLink { link });
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.bytes.len();
        write(&mut self.bytes);
        start..self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_leaves_no_memory_behind() {
        let mut outbox = Outbox::default();
        let origin = Origin {
            session: crate::base::arena::Key::from_usize(1),
            peer: ([127, 0, 0, 1], 53).into(),
            local: None,
        };
        for _ in 0..10_000 {
            outbox.respond(origin, |out| out.extend([7; 100]));
        }
        outbox.clear();
        assert!(outbox.bytes.capacity() <= Outbox::OCTETS_KEPT);
        assert!(outbox.actions.capacity() <= Outbox::ACTIONS_KEPT);
    }
}
