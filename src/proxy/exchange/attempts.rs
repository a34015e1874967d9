//! The attempts of an exchange: which are open, and how many were made.

use crate::config::Limits;
use crate::proxy::keys::{Attempt, LinkKey};

/// The way in which an open attempt counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// The attempt counts as a try.
    Try,
    /// The attempt was hedged, and the hedge counts in its place.
    Hedged,
    /// A copy that tests an endpoint in outage counts as neither try nor error.
    Copy,
}

/// An attempt that has not been lost.
#[derive(Clone, Copy, Debug)]
struct Open {
    link: LinkKey,
    id: u16,
    counted: Counted,
    /// No other attempt is needed as long as this one is open.
    is_relied_on: bool,
    /// The attempt was not answered within its timeout.
    is_overdue: bool,
}

impl Open {
    fn is(&self, attempt: Attempt) -> bool {
        self.attempt() == attempt
    }

    fn attempt(&self) -> Attempt {
        Attempt {
            link: self.link,
            id: self.id,
        }
    }
}

/// The links that ended while they had a query, and perhaps because of it.
#[derive(Clone, Copy, Debug, Default)]
struct LinkEnds {
    all: u8,
    /// The number of those that had no answer, or had the query as their oldest one.
    likely: u8,
}

/// The maximum number of open attempts: those of [`Limits::ATTEMPTS`], one that was hedged, and a
/// copy that tests an endpoint in outage.
const OPEN_MAX: usize = Limits::ATTEMPTS as usize + 2;

/// The attempts of an exchange.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Attempts {
    open: [Option<Open>; OPEN_MAX],
    /// The number of attempts that count as tries: all but those that ended in an error, were
    /// replaced by the first hedge, or ended uncounted.
    tries: u8,
    /// The first hedge was made.
    is_hedged: bool,
    /// The number of attempts that have ended in an error.
    errors: u8,
    /// The number of times that the query was sent.
    times_sent: u8,
    /// The number of attempts that ended uncounted, see [`Attempts::on_uncounted_end`].
    uncounted: u8,
    /// The links that ended while they had the query.
    link_ends: LinkEnds,
    /// An upstream refused a request over HTTP/2.
    is_refused: bool,
}

impl Attempts {
    /// Returns the number of times that the query was sent.
    pub(in crate::proxy) fn times_sent(&self) -> u8 {
        self.times_sent
    }

    /// Returns whether the query may be sent once more. Attempts that ended in an error are counted
    /// apart, so that an upstream that answers with errors does not get the query again and again.
    pub(in crate::proxy) fn may_be_sent(&self) -> bool {
        self.tries < Limits::ATTEMPTS && self.errors < Limits::ATTEMPTS
    }

    /// Returns whether the next try is the last one.
    pub(in crate::proxy) fn is_last_try(&self) -> bool {
        self.tries + 1 == Limits::ATTEMPTS
    }

    /// Returns whether the next hedge costs a try. The first hedge does not: the query keeps
    /// its tries, and survives a silence of its only upstream for as long as without the hedge.
    pub(in crate::proxy) fn does_hedge_cost_try(&self) -> bool {
        self.is_hedged
    }

    /// Returns whether the query may also be sent as a copy.
    pub(in crate::proxy) fn may_be_copied(&self) -> bool {
        let mut open = self.open.iter().flatten();
        !open.any(|open| open.counted == Counted::Copy)
    }

    /// Records that the query was sent.
    pub(in crate::proxy) fn on_sent(&mut self, attempt: Attempt) {
        self.tries += 1;
        self.times_sent += 1;
        self.add_open(attempt, Counted::Try);
    }

    /// Records that a copy of the query was sent.
    pub(in crate::proxy) fn on_copied(&mut self, attempt: Attempt) {
        self.add_open(attempt, Counted::Copy);
    }

    fn add_open(&mut self, Attempt { link, id }: Attempt, counted: Counted) {
        let free = self.open.iter_mut().find(|open| open.is_none());
        *free.expect("every try, a hedged attempt and a copy have a slot") = Some(Open {
            link,
            id,
            counted,
            is_relied_on: counted != Counted::Copy,
            is_overdue: false,
        });
    }

    /// Records that a hedge of an attempt follows. The first hedge of a query takes over the try.
    pub(in crate::proxy) fn on_hedged(&mut self, attempt: Attempt) {
        let mut open = self.open.iter_mut().flatten();
        let Some(open) = open.find(|open| open.is(attempt)) else {
            return;
        };
        open.is_relied_on = false;
        if !self.is_hedged && open.counted == Counted::Try {
            open.counted = Counted::Hedged;
            self.tries -= 1;
            self.is_hedged = true;
        }
    }

    /// Records that an attempt is overdue, so that another one may be made.
    pub(in crate::proxy) fn on_overdue(&mut self, attempt: Attempt) {
        for open in self.open.iter_mut().flatten() {
            if open.is(attempt) {
                (open.is_relied_on, open.is_overdue) = (false, true);
            }
        }
    }

    /// Records that an attempt will not be answered any more.
    pub(in crate::proxy) fn on_lost(&mut self, attempt: Attempt) {
        for open in &mut self.open {
            open.take_if(|open| open.is(attempt));
        }
    }

    /// Records that an attempt ended and does not count as a try, since the upstream works: its
    /// connection ended after answers to other queries (RFC 7766, section 6.2.4) or because the
    /// upstream takes no more connections, or its datagram answer was truncated. Beyond
    /// [`Limits::UNCOUNTED_ATTEMPTS`], the attempt counts.
    pub(in crate::proxy) fn on_uncounted_end(&mut self, attempt: Attempt) {
        let may_be_uncounted = self.uncounted < Limits::UNCOUNTED_ATTEMPTS;
        if self.counted(attempt) == Some(Counted::Try) && may_be_uncounted {
            self.tries -= 1;
            self.uncounted += 1;
        }
        self.on_lost(attempt);
    }

    /// Records that an upstream refused a request. Returns whether it is the first refusal.
    pub(in crate::proxy) fn on_refused(&mut self) -> bool {
        !std::mem::replace(&mut self.is_refused, true)
    }

    /// Records that a link ended that had the query, and whether the query was its oldest one.
    /// Returns whether the query is a suspect: two links have ended on it, the last one without any
    /// answer, or both with the query as the oldest one.
    pub(in crate::proxy) fn on_link_ended(
        &mut self,
        has_link_answered: bool,
        is_oldest: bool,
    ) -> bool {
        let is_likely = is_oldest || !has_link_answered;
        self.link_ends.all = self.link_ends.all.saturating_add(1);
        self.link_ends.likely = self.link_ends.likely.saturating_add(u8::from(is_likely));
        self.link_ends.likely >= 2 || !has_link_answered && self.link_ends.all >= 2
    }

    /// Records that an attempt, or a copy, ended in an error.
    pub(in crate::proxy) fn on_error(&mut self, attempt: Attempt) {
        match self.counted(attempt) {
            Some(Counted::Try) => {
                self.tries -= 1;
                self.errors += 1;
            }
            Some(Counted::Hedged) => self.errors += 1,
            Some(Counted::Copy) | None => {}
        }
        self.on_lost(attempt);
    }

    /// Returns how an attempt counts, if it is open.
    fn counted(&self, attempt: Attempt) -> Option<Counted> {
        let mut open = self.open.iter().flatten();
        let open = open.find(|open| open.is(attempt))?;
        Some(open.counted)
    }

    /// Returns whether an attempt, other than a copy, may still be answered within its timeout.
    pub(in crate::proxy) fn is_any_in_time(&self) -> bool {
        let mut open = self.open.iter().flatten();
        open.any(|open| !open.is_overdue && open.counted != Counted::Copy)
    }

    /// Returns whether any attempt may still be answered.
    pub(in crate::proxy) fn is_any_open(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Returns the attempts that may still be answered.
    pub(in crate::proxy) fn open(&self) -> impl Iterator<Item = Attempt> + use<> {
        let open = self.open.into_iter().flatten();
        open.map(|open| open.attempt())
    }

    /// Removes the open attempts and returns them.
    pub(in crate::proxy) fn take_open(&mut self) -> impl Iterator<Item = Attempt> + use<> {
        let open = self.open();
        self.open = Default::default();
        open
    }

    /// Returns whether an open attempt is likely to be answered.
    pub(in crate::proxy) fn is_relied_on(&self) -> bool {
        self.open.iter().flatten().any(|open| open.is_relied_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Key;

    fn attempt(id: u16) -> Attempt {
        let link = LinkKey(Key::from_usize(1));
        Attempt { link, id }
    }

    #[test]
    fn query_is_tried_three_times() {
        let mut attempts = Attempts::default();
        for id in 0..3 {
            assert!(attempts.may_be_sent());
            assert_eq!(attempts.is_last_try(), id == 2);
            attempts.on_sent(attempt(id));
            attempts.on_lost(attempt(id));
        }
        assert!(!attempts.may_be_sent());
        assert_eq!(attempts.times_sent(), 3);
    }

    #[test]
    fn errors_do_not_count_as_tries_and_are_limited_to_three() {
        let mut attempts = Attempts::default();
        attempts.on_sent(attempt(0));
        attempts.on_lost(attempt(0));
        for id in 1..4 {
            assert!(attempts.may_be_sent());
            attempts.on_sent(attempt(id));
            attempts.on_error(attempt(id));
        }
        assert!(!attempts.may_be_sent());
        assert_eq!(attempts.times_sent(), 4);
    }

    #[test]
    fn uncounted_end_costs_no_try_up_to_a_limit() {
        let mut attempts = Attempts::default();
        let mut sent = 0;
        while attempts.may_be_sent() {
            attempts.on_sent(attempt(sent));
            attempts.on_uncounted_end(attempt(sent));
            sent += 1;
        }
        assert_eq!(
            sent,
            u16::from(Limits::UNCOUNTED_ATTEMPTS + Limits::ATTEMPTS)
        );
        assert_eq!(u16::from(attempts.times_sent()), sent);
    }

    #[test]
    fn first_hedge_costs_no_try() {
        let mut attempts = Attempts::default();
        attempts.on_sent(attempt(0));
        attempts.on_copied(attempt(1));
        for (id, hedged) in [(2, 0), (3, 2)] {
            assert_eq!(attempts.does_hedge_cost_try(), id == 3);
            attempts.on_hedged(attempt(hedged));
            assert!(!attempts.is_relied_on());
            attempts.on_sent(attempt(id));
        }
        assert!(attempts.is_last_try());
        attempts.on_overdue(attempt(3));
        attempts.on_sent(attempt(4));
        assert!(!attempts.may_be_sent());
        assert_eq!(attempts.open().count(), OPEN_MAX);
    }

    #[test]
    fn hedged_attempt_that_ends_in_an_error_counts_as_error() {
        let mut attempts = Attempts::default();
        attempts.on_sent(attempt(0));
        attempts.on_hedged(attempt(0));
        attempts.on_sent(attempt(1));
        attempts.on_error(attempt(0));
        attempts.on_uncounted_end(attempt(1));
        assert_eq!((attempts.tries, attempts.errors), (0, 1));
    }

    #[test]
    fn copy_counts_neither_as_try_nor_as_error() {
        let mut attempts = Attempts::default();
        attempts.on_sent(attempt(0));
        assert!(attempts.may_be_copied());
        attempts.on_copied(attempt(1));
        assert!(attempts.is_relied_on() && !attempts.may_be_copied());
        attempts.on_error(attempt(1));
        assert_eq!((attempts.times_sent(), attempts.errors), (1, 0));
        attempts.on_overdue(attempt(0));
        assert!(!attempts.is_relied_on());
        assert_eq!(attempts.open().count(), 1);
    }
}
