//! Actions that the proxy requests from its driver.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::base::origin::{ClientProtocol, Origin};
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::dnssec::validation::SecurityKind;
use crate::wire::Rcode;

use super::exchange::trace::Trace;
use super::keys::{LinkKey, UpstreamIndex};
use super::outcome::Outcome;

/// An action that the proxy requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a response to a client.
    Respond {
        /// The client's session and address.
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
        /// The key of the new link.
        link: LinkKey,
        /// The destination of the link.
        to: Destination,
    },
    /// Close a link, which the proxy has removed already.
    CloseLink {
        /// The link.
        link: LinkKey,
    },
}

/// The destination of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The upstream. Under TLS the peer has to authenticate itself as this upstream.
    pub upstream: UpstreamIndex,
    /// The protocol. A link over UDP is up at once.
    pub scheme: Scheme,
    /// An address of the upstream.
    pub address: SocketAddr,
}

/// The record of a query that has ended, for logs and exporters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The client's address and session.
    pub origin: Origin,
    /// The protocol of the client.
    pub protocol: ClientProtocol,
    /// The question in the outbox's [bytes](Outbox::bytes), if it could be parsed.
    pub question: Option<Range<usize>>,
    /// The outcome.
    pub outcome: Outcome,
    /// The response code, if there was a response.
    pub rcode: Option<Rcode>,
    /// The length of the response in bytes.
    pub response_len: usize,
    /// The time from the arrival of the query to its completion.
    pub took: Duration,
    /// The upstream that gave the answer.
    pub upstream: Option<UpstreamIndex>,
    /// The verdict of the validator, if the answer was validated.
    pub security: Option<SecurityKind>,
    /// The trace, if the query was traced.
    pub trace: Option<Trace>,
}

/// The actions that the proxy requests, in order, with their bytes.
///
/// The driver of the proxy owns the outbox and lends it to the proxy for each call. The proxy keeps
/// no output of its own.
#[derive(Debug, Default)]
pub struct Outbox {
    actions: Vec<Action>,
    records: Vec<Record>,
    takes_records: bool,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Capacity that is kept from turn to turn, in bytes and actions. Capacity beyond it is
    /// released.
    const BYTES_KEPT: usize = 16 * 1024;
    const ACTIONS_KEPT: usize = 128;
    /// The number of bytes at which the outbox is long: more than a turn of datagrams takes.
    const BYTES_LONG: usize = 128 * 1024;

    /// Creates an empty outbox. `takes_records` states whether it takes records of
    /// queries that end.
    pub fn new(takes_records: bool) -> Self {
        Self {
            takes_records,
            ..Self::default()
        }
    }

    /// Sets whether the outbox takes records of queries that end.
    pub fn set_takes_records(&mut self, takes_records: bool) {
        self.takes_records = takes_records;
    }

    /// Returns the actions in order.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// Returns the records of queries that have ended.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Returns the bytes of a message that an action names, or of the question of a record.
    pub fn bytes(&self, message: &Range<usize>) -> &[u8] {
        &self.bytes[message.clone()]
    }

    /// Returns whether there are no actions and no records.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.records.is_empty()
    }

    /// Returns whether the actions should be performed before more are added.
    pub fn is_long(&self) -> bool {
        self.bytes.len() >= Self::BYTES_LONG
    }

    /// Removes everything and releases the capacity of a burst.
    pub fn clear(&mut self) {
        self.actions.clear();
        self.actions.shrink_to(Self::ACTIONS_KEPT);
        self.records.clear();
        self.records.shrink_to(Self::ACTIONS_KEPT);
        self.bytes.clear();
        self.bytes.shrink_to(Self::BYTES_KEPT);
    }

    /// Returns the range of the response in the outbox's bytes.
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

    /// Appends bytes that a record refers to.
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

/// The context of a call to the proxy: its time, and the outbox for its actions.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Instant,
    pub(super) outbox: &'a mut Outbox,
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
        assert!(outbox.bytes.capacity() <= Outbox::BYTES_KEPT);
        assert!(outbox.actions.capacity() <= Outbox::ACTIONS_KEPT);
    }
}
