//! Follow-ups: the work that the end of an exchange or of a link leaves behind.
//!
//! An exchange that ends leaves links with abandoned queries and followers without an answer, and
//! both may end other links and exchanges. Such work is queued, and [`Proxy::settle`] performs it
//! at the end of each call, so that no function calls itself through others. The queue becomes
//! empty: each entry comes from the end of an exchange, a link or a lookup, or from a mapping
//! (DNS64), and a follow-up starts none of them except lookups, which have a pause, and the mapping
//! of an exchange, which happens once.

use std::collections::VecDeque;

use super::Proxy;
use super::actions::Cx;
use super::keys::{ExchangeKey, LinkKey, UpstreamIndex};
use super::upstream::link::Link;
use crate::base::failure::FailureKind;
use crate::wire::question::Type;

/// Work that the end of an exchange, a link or a lookup leaves behind.
#[derive(Debug)]
pub(super) enum Followup {
    /// Retire a link whose query was abandoned, if the link does not answer.
    Judge {
        link: LinkKey,
        /// The query timed out, and the link has answered nothing since.
        is_unresponsive: bool,
    },
    /// Dispatch an exchange whose leader has ended without an answer for it.
    Dispatch(ExchangeKey),
    /// Close a link and retry its queries.
    Close(LinkKey, FailureKind),
    /// Close a link if no exchange waits for its queries.
    CloseIfDone(LinkKey),
    /// Continue the validation of the parked answer of an exchange.
    Validate(ExchangeKey),
    /// Continue the validations that waited for a question of our own, which has ended.
    OwnQuestionEnded(ExchangeKey),
    /// Deliver the mapped answer of an exchange (DNS64).
    Mapped(ExchangeKey),
    /// Handle the failed lookup of an upstream's addresses of this type.
    LookupFailed(UpstreamIndex, Type),
}

/// The follow-ups of the current call, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Followups {
    queue: VecDeque<Followup>,
    /// A link may have room for waiting queries.
    has_room: bool,
}

impl Followups {
    /// The number of entries for which an empty queue keeps memory.
    const KEPT: usize = 64;

    pub(super) fn push(&mut self, followup: Followup) {
        self.queue.push_back(followup);
    }

    /// Closes a link after an answer if no exchange waits for another one on it.
    pub(super) fn on_link_answered(&mut self, key: LinkKey, link: &Link) {
        if link.is_done() {
            self.push(Followup::CloseIfDone(key));
        }
    }

    /// Records that a link may have room for waiting queries.
    pub(super) fn on_room(&mut self) {
        self.has_room = true;
    }
}

impl Proxy {
    /// Performs all follow-ups, and serves the queries that wait for room on a link or for an
    /// address of an upstream.
    #[inline]
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        if self.followups.has_room || !self.followups.queue.is_empty() {
            self.settle_all(cx);
        }
    }

    fn settle_all(&mut self, cx: &mut Cx<'_>) {
        loop {
            while let Some(followup) = self.followups.queue.pop_front() {
                self.follow_up(followup, cx);
            }
            if !std::mem::take(&mut self.followups.has_room) {
                break;
            }
            self.serve_all_waiting(cx);
            self.ask_for_addresses(None, cx);
            if !self.unconnected.is_empty() {
                self.connect_unconnected(cx);
            }
        }
        if self.followups.queue.capacity() > Followups::KEPT {
            self.followups.queue.shrink_to(Followups::KEPT);
        }
    }

    fn follow_up(&mut self, followup: Followup, cx: &mut Cx<'_>) {
        match followup {
            Followup::Judge {
                link,
                is_unresponsive,
            } => self.judge_link(link, is_unresponsive, cx),
            Followup::Mapped(key) => self.end_mapping(key, cx),
            Followup::Dispatch(key) => {
                if let Some(exchange) = self.exchanges.get_mut(key) {
                    exchange.tracer.on_wait_end(cx.now);
                    self.coalesce_or_dispatch(key, cx);
                }
            }
            Followup::Close(link, kind) => self.close(link, kind, cx),
            Followup::CloseIfDone(link) => self.close_if_done(link, cx.outbox),
            Followup::Validate(key) => self.run_validation(key, cx),
            Followup::OwnQuestionEnded(key) => self.on_own_question_ended(key, cx.now),
            Followup::LookupFailed(upstream, rr_type) => {
                self.on_addresses(upstream, rr_type, None, cx);
            }
        }
    }
}
