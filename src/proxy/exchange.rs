//! One query's life, from its admission to its response.
//!
//! ```text
//!              no link has room             a link has room
//!   admitted ------------------> waiting ------------------> sent <---------.
//!       |                           |                        |  | the link ends, or the
//!       '---------------------------)----------------------->'  | attempt takes too long
//!                                   |                        |  |
//!         the deadline passes, or   |                        |  '--> waiting or sent again,
//!         no way is left: SERVFAIL <'------------------------|       three times in all
//!                                                            |
//!                                        the answer comes ---'--> response
//! ```
//!
//! An attempt that takes too long stays open while another is made: the first valid answer wins.

use crate::config::Limits;
use crate::failure::FailureKind;
use crate::origin::Origin;
use crate::time::Instant;
use crate::wire::Query;
use crate::wire::response::Asked;

use super::admission::Reception;
use super::keys::LinkKey;
use super::upstream::Wishes;

/// A query that was sent and may still be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) link: LinkKey,
    pub(super) id: u16,
}

/// One query that is being answered.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Where the response goes.
    pub(super) origin: Origin,
    /// How the client wants its response.
    pub(super) reception: Reception,
    /// The query, kept until it is answered so that it can be sent again.
    pub(super) query: Query,
    /// When the client is answered at the latest.
    pub(super) deadline: Instant,
    /// Whether it stands in the queue for a link.
    pub(super) is_waiting: bool,
    /// What it would rather have after what went wrong.
    pub(super) wishes: Wishes,
    /// Why the last attempt failed, if one did.
    pub(super) last_failure: Option<FailureKind>,
    sent: usize,
    open: [Option<Attempt>; Limits::ATTEMPTS],
}

impl Exchange {
    pub(super) fn new(
        origin: Origin,
        reception: Reception,
        query: Query,
        deadline: Instant,
    ) -> Self {
        Self {
            origin,
            reception,
            query,
            deadline,
            is_waiting: false,
            wishes: Wishes::default(),
            last_failure: None,
            sent: 0,
            open: [None; Limits::ATTEMPTS],
        }
    }

    /// How often the query has been sent.
    pub(super) fn times_sent(&self) -> usize {
        self.sent
    }

    /// Whether the query may be sent once more.
    pub(super) fn may_be_sent(&self) -> bool {
        self.sent < Limits::ATTEMPTS
    }

    /// Notes that the query was sent.
    pub(super) fn on_sent(&mut self, attempt: Attempt) {
        self.open[self.sent] = Some(attempt);
        self.sent += 1;
    }

    /// Notes that an attempt will not be answered any more.
    pub(super) fn on_attempt_lost(&mut self, attempt: Attempt) {
        for place in &mut self.open {
            if *place == Some(attempt) {
                *place = None;
            }
        }
    }

    /// The attempts that may still be answered.
    pub(super) fn open_attempts(&self) -> impl Iterator<Item = Attempt> + use<> {
        self.open.into_iter().flatten()
    }

    /// What its response owes the query.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            id: self.query.id(),
            flags: self.query.flags(),
            question: Some(self.query.question()),
            opt: self.reception.opt,
            len_max: self.reception.len_max,
        }
    }
}
