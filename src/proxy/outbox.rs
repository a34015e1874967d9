//! What the proxy wants done.

use std::ops::Range;

use crate::origin::Origin;

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
        /// The link to use, which is up.
        link: LinkKey,
        /// The query, in the outbox's [bytes](Outbox::bytes).
        message: Range<usize>,
    },
    /// Connect to an upstream and authenticate it.
    OpenLink {
        /// What the new link is called from now on.
        link: LinkKey,
        /// Where it leads.
        upstream: UpstreamIndex,
    },
    /// Close a link, which the proxy has forgotten by now.
    CloseLink {
        /// The link.
        link: LinkKey,
    },
}

/// The actions that the proxy asks for, in their order, with the bytes that they are about.
///
/// It belongs to whoever drives the proxy and is lent to it call by call; the proxy keeps nothing
/// that has yet to be delivered.
#[derive(Debug, Default)]
pub struct Outbox {
    actions: Vec<Action>,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Octets that the buffer keeps from turn to turn; what a burst took beyond goes back.
    const KEPT: usize = 64 * 1024;

    /// The actions in their order.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// The bytes of a message that an action names.
    pub fn bytes(&self, message: &Range<usize>) -> &[u8] {
        &self.bytes[message.clone()]
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Forgets what has been done.
    pub fn clear(&mut self) {
        self.actions.clear();
        self.bytes.clear();
        self.bytes.shrink_to(Self::KEPT);
    }

    pub(super) fn respond(&mut self, origin: Origin, write: impl FnOnce(&mut Vec<u8>)) {
        let message = self.write(write);
        self.actions.push(Action::Respond { origin, message });
    }

    pub(super) fn send(&mut self, link: LinkKey, write: impl FnOnce(&mut Vec<u8>)) {
        let message = self.write(write);
        self.actions.push(Action::Send { link, message });
    }

    pub(super) fn open(&mut self, link: LinkKey, upstream: UpstreamIndex) {
        self.actions.push(Action::OpenLink { link, upstream });
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
