//! The timers of a link: opening, silence, the hedge timer of slow queries, the retry timer of
//! overdue queries, and idleness. A retired link keeps the retry timer: it may have been retired
//! because of one query, shortly after others were sent on it.

use std::time::Duration;

use super::{Link, SentState, Stage};
use crate::base::time::Instant;
use crate::config::{Scheme, Timeouts};
use crate::proxy::keys::ExchangeKey;

/// A timer of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Due {
    /// The link opens slowly: waiting queries should use another endpoint.
    Late,
    /// The link was not up within the handshake timeout.
    HandshakeTimeout,
    /// Nothing has arrived since a query was sent: a probe distinguishes a slow name from an
    /// unresponsive upstream.
    Probe {
        /// The time at which the query was sent.
        since: Instant,
    },
    /// The probe was not answered, perhaps because the upstream answers in order: another probe is
    /// sent on another link.
    ProbeBeside {
        /// The time at which the query was sent.
        since: Instant,
    },
    /// No answer has arrived since a query was sent, for too long.
    Stalled {
        /// The time at which the query was sent.
        since: Instant,
    },
    /// The hedge timer: a query has been in flight for longer than is usual and may be hedged.
    Slow,
    /// The retry timer: a query has been in flight for the timeout of an attempt and is retried.
    Overdue,
    /// The idle timeout of the link has expired.
    Idle,
}

impl Link {
    /// Returns the next timer and its time. A query is slow after `slow`; a link without queries is
    /// kept for `idle`.
    pub(in crate::proxy) fn next_due(
        &self,
        timeouts: &Timeouts,
        slow: Duration,
        idle: Duration,
    ) -> Option<(Instant, Due)> {
        match self.stage {
            Stage::Opening if !self.is_late => Some((self.late_at, Due::Late)),
            Stage::Opening => Some((self.opened_at + timeouts.handshake, Due::HandshakeTimeout)),
            Stage::Up => {
                let slow_from = self.first_sent(|state| matches!(state, SentState::InTime(_)));
                let silent = self.silent_since();
                let silent = silent.map(|since| self.due_of_silence(since, slow, timeouts.attempt));
                let slow = slow_from.map(|from| (from + slow, Due::Slow));
                let overdue = self.next_overdue(timeouts.attempt);
                // A datagram is never idle: either an answer is outstanding, or the link is done.
                let is_idle = self.waited_for == 0 && self.scheme != Scheme::Udp;
                let idle = is_idle.then_some((self.idle_since + idle, Due::Idle));
                let all = [silent, slow, overdue, idle].into_iter().flatten();
                all.min_by_key(|(at, _)| *at)
            }
            Stage::Retired => self.next_overdue(timeouts.attempt),
        }
    }

    /// Returns the time of the retry timer.
    fn next_overdue(&self, attempt: Duration) -> Option<(Instant, Due)> {
        let from =
            self.first_sent(|state| matches!(state, SentState::InTime(_) | SentState::Slow(_)));
        from.map(|from| (from + attempt, Due::Overdue))
    }

    /// Returns the time at which the oldest query in such a state was sent.
    fn first_sent(&self, is_such: impl Fn(&SentState) -> bool) -> Option<Instant> {
        let mut sent = self.sent.iter();
        sent.find(|sent| is_such(&sent.state)).map(|sent| sent.at)
    }

    /// Returns the next timer for silence since `since`.
    fn due_of_silence(&self, since: Instant, slow: Duration, attempt: Duration) -> (Instant, Due) {
        let quarter = attempt / 4;
        let recent = |at: Option<Instant>| at.filter(|at| *at >= since);
        match (recent(self.probed_at), recent(self.probed_beside_at)) {
            (None, _) => (since + slow.min(quarter), Due::Probe { since }),
            (Some(at), None) if self.scheme != Scheme::Udp => {
                (at + quarter, Due::ProbeBeside { since })
            }
            // The last probe has time for an answer even if its timer was late.
            (at, beside_at) => {
                let last = at.max(beside_at).unwrap_or(since);
                let at = (since + attempt).max(last + 2 * quarter);
                (at, Due::Stalled { since })
            }
        }
    }

    /// Returns whether a probe because of silence since `since` was sent on this link and has had
    /// `time` for an answer.
    pub(in crate::proxy) fn has_unanswered_probe(
        &self,
        since: Instant,
        time: Duration,
        now: Instant,
    ) -> bool {
        let probed_at = self.probed_at.filter(|at| *at >= since);
        probed_at.is_some_and(|at| at + time <= now)
    }

    /// Records that opening the link is slow.
    pub(in crate::proxy) fn note_late(&mut self) {
        self.is_late = true;
    }

    /// Marks the oldest query that has become slow. Returns its id and its exchange.
    pub(in crate::proxy) fn note_slow(&mut self) -> Option<(u16, ExchangeKey)> {
        let (sent, key) = self.sent.iter_mut().find_map(|sent| match sent.state {
            SentState::InTime(key) => Some((sent, key)),
            _ => None,
        })?;
        sent.state = SentState::Slow(key);
        let (id, at) = (sent.id, sent.at);
        self.is_silent |= self.last_answer.is_none_or(|answer| answer <= at);
        Some((id, key))
    }

    /// Marks the oldest query that is overdue and not marked yet. Returns its id and its exchange.
    pub(in crate::proxy) fn note_overdue(&mut self) -> Option<(u16, ExchangeKey)> {
        self.sent.iter_mut().find_map(|sent| match sent.state {
            SentState::InTime(key) | SentState::Slow(key) => {
                sent.state = SentState::Overdue(key);
                Some((sent.id, key))
            }
            _ => None,
        })
    }

    /// Records that a probe was sent on this link because of silence.
    pub(in crate::proxy) fn on_probed(&mut self, now: Instant) {
        self.probed_at = Some(now);
    }

    /// Records that a probe was sent on another link because of silence on this one.
    pub(in crate::proxy) fn on_probed_beside(&mut self, now: Instant) {
        self.probed_beside_at = Some(now);
    }
}
