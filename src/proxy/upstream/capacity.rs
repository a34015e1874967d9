//! The number of queries that one connection to an upstream takes, learned from closes and answers.
//!
//! Some servers close each connection after a number of answers; the queries pipelined behind those
//! answers are lost and have to be sent again. Other servers read one query at a time and drop
//! queries that are pipelined meanwhile. Both kinds are common in middleboxes and small servers,
//! and neither announces its limit.

use std::time::Duration;

use crate::base::time::Instant;

/// The known limits of the connections of one endpoint.
#[derive(Debug, Default)]
pub(super) struct ConnectionCapacity {
    /// The number of answers on the last connection that was closed soon after one, and the time of
    /// the close.
    last_close: Option<(usize, Instant)>,
    /// The number of closes in a row after about the same number of answers.
    alike_closes: u8,
    limit: Option<QueryLimit>,
    /// Closes until this time were caused by queries.
    explained_until: Instant,
    pipelining: Pipelining,
    /// The number of connections that the endpoint takes at the same time, and when it was learned.
    connections: Option<(usize, Instant)>,
    /// Time for which that number is used.
    connections_pause: Duration,
    /// The number of connections that were seen to answer at the same time, and when.
    answering: Option<(usize, Instant)>,
    /// The number of requests over HTTP/2 that a connection takes at a time, learned from refusals,
    /// and the time until which it is used.
    streams: Option<(usize, Instant)>,
}

/// The number of queries that a connection takes, and the time until which that number is used.
#[derive(Debug)]
struct QueryLimit {
    queries: usize,
    until: Instant,
    /// Two closes agree on the number.
    is_agreed: bool,
}

/// A close of a connection by the upstream after answers.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ConnectionClose {
    /// The number of answers on the connection.
    pub(super) answers: usize,
    /// The time between the last answer and the close.
    pub(super) since_answer: Duration,
    /// The upstream owed other answers.
    pub(super) owes_answers: bool,
    /// The close is likely to be due to the number of queries: over HTTP/2, it was announced
    /// (GOAWAY).
    pub(super) is_telling: bool,
    /// The time at which the connection was opened.
    pub(super) opened_at: Instant,
    /// The time of the close.
    pub(super) at: Instant,
}

/// The support of an upstream for pipelined queries.
#[derive(Debug, Default)]
enum Pipelining {
    #[default]
    Unknown,
    /// The server works on several queries at a time. This is assumed until `until`.
    Concurrent { until: Instant },
    /// A pipelined query was answered, the last one at `last`. `credit` is the number of overdue
    /// pipelined queries with which pipelining is suspended.
    Works { credit: u8, last: Instant },
    /// A pipelined query was not answered: queries go one at a time until `until`.
    Suspended { until: Instant, pause: Duration },
}

impl ConnectionCapacity {
    /// Time for which a learned number of queries is used before it is tested again.
    const VALID: Duration = Duration::from_secs(600);

    /// The number of closes in a row that show a number of queries although another reason is
    /// likely for each: unbound closes HTTP/2 connections if it has too many.
    const ALIKE_MIN: u8 = 4;

    /// Time for which a number of queries is used that only one close has shown.
    const ASSUMED: Duration = Duration::from_secs(10);

    /// The maximum time between the last answer and a close that loses queries because of the
    /// number of answers.
    pub(super) const SOON: Duration = Duration::from_secs(1);

    /// The same for a close that loses no query. A server closes together with the last answer;
    /// later, the connection may be idle for too long: unbound with many connections closes one
    /// after 200 ms.
    const AT_ONCE: Duration = Duration::from_millis(50);

    /// Time for which a learned number of connections is used before more are tried. A query may
    /// have ended the connection instead, so one close is used for a short time, which doubles up
    /// to `CONNECTIONS_VALID` if further connections end in the same way.
    const CONNECTIONS_ASSUMED: Duration = Duration::from_secs(1);
    const CONNECTIONS_VALID: Duration = Duration::from_secs(60);

    /// Time for which a number of requests at a time is used before more are tried.
    const STREAMS_VALID: Duration = Duration::from_secs(60);

    /// Time for which pipelining is suspended at first. It doubles up to `PAUSE_MAX`, since a
    /// single slow name has the same symptom.
    const PAUSE_MIN: Duration = Duration::from_secs(10);
    const PAUSE_MAX: Duration = Duration::from_secs(600);

    /// Each answer to a pipelined query adds this many overdue queries to the credit, up to
    /// `CREDIT_MAX`. The overdue query that uses up the credit suspends pipelining; those before it
    /// are excused. A server that drops pipelined queries may read one of them in time.
    const CREDIT_PER_ANSWER: u8 = 2;
    const CREDIT_MAX: u8 = 8;

    /// Time after an answer to a pipelined query within which overdue queries count as slow.
    const ANSWERING: Duration = Duration::from_millis(500);

    /// Records that the upstream closed a connection. Two closes with about the same number of
    /// answers set the limit. Until then, a close that lost queries sets the limit for a short
    /// time.
    pub(super) fn on_closed(&mut self, close: ConnectionClose, now: Instant) {
        let ConnectionClose {
            answers,
            since_answer,
            owes_answers,
            opened_at,
            at,
            is_telling,
        } = close;
        // Connections that end in one event, such as a restart, count once.
        let is_same_event = |(_, at): (usize, Instant)| opened_at < at;
        let soon = if owes_answers {
            Self::SOON
        } else {
            Self::AT_ONCE
        };
        let shows_number = answers > 0 && since_answer < soon && at > self.explained_until;
        if !shows_number || self.last_close.is_some_and(is_same_event) {
            return;
        }
        let last = self.last_close.replace((answers, at));
        let agrees = |last: &usize| *last * 4 < answers * 5 && answers * 4 < *last * 5;
        let alike = last.map(|(last, _)| last).filter(agrees);
        self.alike_closes = alike.map_or(1, |_| self.alike_closes.saturating_add(1));
        if !is_telling {
            let number = alike.filter(|_| self.alike_closes >= Self::ALIKE_MIN);
            if let Some(last) = number {
                self.limit = Some(QueryLimit {
                    queries: last.min(answers),
                    until: now + Self::ASSUMED,
                    is_agreed: false,
                });
            }
        } else if let Some(last) = alike {
            let queries = last.min(answers);
            let until = now + Self::VALID;
            self.limit = Some(QueryLimit {
                queries,
                until,
                is_agreed: true,
            });
        } else if owes_answers && self.queries_max(now) > answers {
            let until = now + Self::ASSUMED;
            self.limit = Some(QueryLimit {
                queries: answers,
                until,
                is_agreed: false,
            });
        }
    }

    /// Returns whether connections are known to end after a number of queries, on which two closes
    /// agree.
    pub(super) fn is_limited(&self, now: Instant) -> bool {
        let limit = self.limit.as_ref();
        limit.is_some_and(|limit| limit.is_agreed && now < limit.until)
    }

    /// Forgets the number of queries that a close has shown since `since`, because that close had
    /// another reason. A number of queries on which two closes agree is kept.
    pub(super) fn forget_since(&mut self, since: Instant) {
        self.last_close.take_if(|(_, at)| since <= *at);
        self.limit.take_if(|limit| !limit.is_agreed);
    }

    /// Records that a query was the reason for the closes until now.
    pub(super) fn on_explained(&mut self, now: Instant) {
        self.explained_until = now;
    }

    /// Returns how many queries a new connection takes; `usize::MAX` if no limit is known.
    pub(super) fn queries_max(&self, now: Instant) -> usize {
        let limit = self.limit.as_ref();
        let valid = limit.filter(|limit| now < limit.until);
        valid.map_or(usize::MAX, |limit| limit.queries)
    }

    /// Records an answer on a connection on which the server works on several queries at a time, so
    /// that a query without an answer is slow and was not dropped.
    pub(super) fn on_concurrent_answer(&mut self, now: Instant) {
        let until = now + Self::VALID;
        self.pipelining = Pipelining::Concurrent { until };
    }

    /// Records an answer to a query that another answer had overtaken: pipelining works.
    pub(super) fn on_pipelined_answer(&mut self, now: Instant) {
        let credit = match &self.pipelining {
            Pipelining::Concurrent { until } if now < *until => return,
            Pipelining::Works { credit, .. } => *credit,
            _ => 0,
        };
        let credit = Self::CREDIT_MAX.min(credit + Self::CREDIT_PER_ANSWER);
        self.pipelining = Pipelining::Works { credit, last: now };
    }

    /// Records that a pipelined query is slow or, if `is_overdue`, overdue although a later answer
    /// arrived on its link. Unless answers to pipelined queries excuse it, queries go one at a time
    /// for a while. Returns whether pipelining was suspended now.
    pub(super) fn on_pipelined_silence(&mut self, is_overdue: bool, now: Instant) -> bool {
        let pause = match &mut self.pipelining {
            Pipelining::Concurrent { until } if now < *until => return false,
            Pipelining::Works { last, .. } if !is_overdue || now - *last < Self::ANSWERING => {
                return false;
            }
            Pipelining::Works { credit, .. } if *credit > 1 => {
                *credit -= 1;
                return false;
            }
            Pipelining::Suspended { until, .. } if now < *until => return false,
            Pipelining::Suspended { pause, .. } => (*pause * 2).min(Self::PAUSE_MAX),
            _ => Self::PAUSE_MIN,
        };
        let until = now + pause;
        self.pipelining = Pipelining::Suspended { until, pause };
        true
    }

    /// Records that the endpoint closed a connection without an answer while it kept `others`: it
    /// limits the connections of a client.
    pub(super) fn on_turned_away(&mut self, others: usize, now: Instant) {
        let pause = match self.connections {
            Some((_, at)) if now - at < self.connections_pause => self.connections_pause,
            Some((_, at)) if now - at < Self::CONNECTIONS_VALID * 2 => self.connections_pause * 2,
            _ => Self::CONNECTIONS_ASSUMED,
        };
        self.connections_pause = pause.min(Self::CONNECTIONS_VALID);
        self.connections = Some((others, now));
    }

    /// Records that this number of connections to the endpoint have answered.
    pub(super) fn on_answering(&mut self, connections: usize, now: Instant) {
        if !self.has_answered_on(connections + 1, now) {
            self.answering = Some((connections, now));
        }
    }

    /// Returns whether this number of connections has recently answered at the same time.
    pub(super) fn has_answered_on(&self, connections: usize, now: Instant) -> bool {
        self.answering
            .is_some_and(|(known, at)| connections <= known && now - at < Self::CONNECTIONS_VALID)
    }

    /// Records that `connections` connections to the endpoint work at the same time.
    pub(super) fn on_connected(&mut self, connections: usize) {
        if let Some((known, _)) = &mut self.connections {
            *known = connections.max(*known);
        }
    }

    /// Returns the number of connections that the endpoint takes at the same time, if known.
    pub(super) fn connections_max(&self, now: Instant) -> Option<usize> {
        let valid = |(_, at): &(usize, Instant)| now - *at < self.connections_pause;
        self.connections
            .filter(valid)
            .map(|(connections, _)| connections)
    }

    /// Records that the endpoint refused a request while this number of older requests was
    /// unanswered on its connection. Returns whether that is the first refusal for some time.
    pub(super) fn on_stream_refused(&mut self, older: usize, now: Instant) -> bool {
        let known = self.streams_max(now);
        self.streams = Some((older.min(known), now + Self::STREAMS_VALID));
        known == usize::MAX
    }

    /// Returns how many requests over HTTP/2 a connection takes at a time; `usize::MAX` if no limit
    /// was learned.
    pub(super) fn streams_max(&self, now: Instant) -> usize {
        let valid = self.streams.filter(|(_, until)| now < *until);
        valid.map_or(usize::MAX, |(streams, _)| streams)
    }

    /// Returns whether queries go one at a time on each connection.
    pub(super) fn is_serial(&self, now: Instant) -> bool {
        matches!(&self.pipelining, Pipelining::Suspended { until, .. } if now < *until)
    }

    /// Returns how many queries a new connection takes at a time, if the number is known to be
    /// below the default.
    pub(super) fn known_inflight_max(&self, now: Instant) -> Option<usize> {
        if self.is_serial(now) {
            return Some(1);
        }
        let most = self.queries_max(now).min(self.streams_max(now));
        Some(most).filter(|most| *most < usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    fn close(
        answers: usize,
        since_answer: Duration,
        owes_answers: bool,
        opened_at: Instant,
        at: Instant,
    ) -> ConnectionClose {
        ConnectionClose {
            answers,
            since_answer,
            owes_answers,
            is_telling: true,
            opened_at,
            at,
        }
    }

    fn queries_max(closes: &[usize]) -> usize {
        let mut capacity = ConnectionCapacity::default();
        for (second, answers) in (1..).zip(closes) {
            let soon = Duration::from_millis(5);
            capacity.on_closed(
                close(*answers, soon, false, at(second), at(second)),
                at(second),
            );
        }
        capacity.queries_max(at(10))
    }

    #[test]
    fn two_closes_that_agree_set_the_limit() {
        assert_eq!(queries_max(&[]), usize::MAX);
        assert_eq!(queries_max(&[1]), usize::MAX);
        assert_eq!(queries_max(&[1, 1]), 1);
        assert_eq!(queries_max(&[1, 2]), usize::MAX);
        assert_eq!(queries_max(&[100, 7, 97, 100]), 97);
        assert_eq!(queries_max(&[0, 0, 0]), usize::MAX);
    }

    #[test]
    fn four_closes_that_agree_set_the_limit_if_another_reason_is_likely() {
        let mut capacity = ConnectionCapacity::default();
        for (second, expected) in [(1, usize::MAX), (2, usize::MAX), (3, usize::MAX), (4, 7)] {
            let mut close = close(7, Duration::ZERO, true, at(second), at(second));
            close.is_telling = false;
            capacity.on_closed(close, at(second));
            assert_eq!(capacity.queries_max(at(second)), expected, "{second}");
        }
        assert_eq!(capacity.queries_max(at(15)), usize::MAX);
        let mut capacity = ConnectionCapacity::default();
        for (second, answers) in (1..).zip([7, 8, 7, 20, 7, 8, 30]) {
            let mut close = close(answers, Duration::ZERO, true, at(second), at(second));
            close.is_telling = false;
            capacity.on_closed(close, at(second));
        }
        assert_eq!(capacity.queries_max(at(7)), usize::MAX);
    }

    #[test]
    fn close_of_an_idle_connection_sets_no_limit() {
        let mut capacity = ConnectionCapacity::default();
        // A long idle timeout, and a short one.
        for idle in [10_000, 200] {
            for second in 0..5 {
                let idle = Duration::from_millis(idle);
                let close = close(1, idle, false, at(second), at(second));
                capacity.on_closed(close, at(second));
            }
            assert_eq!(capacity.queries_max(at(5)), usize::MAX);
        }
    }

    #[test]
    fn restart_that_closes_all_connections_sets_no_limit() {
        let mut capacity = ConnectionCapacity::default();
        for _ in 0..4 {
            capacity.on_closed(close(50, Duration::ZERO, false, at(1), at(9)), at(9));
        }
        assert_eq!(capacity.queries_max(at(9)), usize::MAX);
    }

    #[test]
    fn limit_is_tested_again_after_some_time() {
        let mut capacity = ConnectionCapacity::default();
        capacity.on_closed(close(3, Duration::ZERO, false, at(0), at(1)), at(1));
        capacity.on_closed(close(3, Duration::ZERO, false, at(1), at(2)), at(2));
        assert_eq!(capacity.queries_max(at(601)), 3);
        assert_eq!(capacity.queries_max(at(602)), usize::MAX);
    }

    #[test]
    fn close_that_loses_queries_sets_the_limit_for_a_short_time() {
        let mut capacity = ConnectionCapacity::default();
        capacity.on_closed(close(6, Duration::ZERO, true, at(0), at(1)), at(1));
        assert_eq!(capacity.queries_max(at(10)), 6);
        assert_eq!(capacity.queries_max(at(11)), usize::MAX);
        // A close without an answer is no limit.
        capacity.on_closed(close(0, Duration::ZERO, true, at(1), at(2)), at(2));
        assert_eq!(capacity.queries_max(at(2)), 6);
        // A second close with the same number confirms it.
        capacity.on_closed(close(6, Duration::ZERO, true, at(2), at(3)), at(3));
        assert_eq!(capacity.queries_max(at(602)), 6);
        // Another number does not replace a limit that is lower.
        capacity.on_closed(close(50, Duration::ZERO, true, at(4), at(5)), at(5));
        assert_eq!(capacity.queries_max(at(602)), 6);
    }

    #[test]
    fn number_of_connections_is_used_for_a_while() {
        let mut capacity = ConnectionCapacity::default();
        assert_eq!(capacity.connections_max(at(1)), None);
        // One close may have had another reason.
        capacity.on_turned_away(2, at(1));
        assert_eq!(capacity.connections_max(at(1)), Some(2));
        assert_eq!(capacity.connections_max(at(2)), None);
        let mut now = 2;
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            // Several closes in one pause count once.
            capacity.on_turned_away(2, at(now));
            capacity.on_turned_away(2, at(now));
            assert_eq!(capacity.connections_max(at(now + pause - 1)), Some(2));
            assert_eq!(capacity.connections_max(at(now + pause)), None);
            now += pause;
        }
        capacity.on_turned_away(2, at(now));
        capacity.on_connected(1);
        assert_eq!(capacity.connections_max(at(now)), Some(2));
        capacity.on_connected(3);
        assert_eq!(capacity.connections_max(at(now)), Some(3));
    }

    #[test]
    fn refusals_limit_the_requests_at_a_time_for_a_while() {
        let mut capacity = ConnectionCapacity::default();
        assert_eq!(capacity.known_inflight_max(at(0)), None);
        assert!(capacity.on_stream_refused(9, at(1)));
        assert!(!capacity.on_stream_refused(8, at(1)));
        // The number does not grow when answers have made room in the meantime.
        assert!(!capacity.on_stream_refused(30, at(2)));
        assert_eq!(capacity.known_inflight_max(at(61)), Some(8));
        assert_eq!(capacity.known_inflight_max(at(62)), None);
        assert!(capacity.on_stream_refused(30, at(70)));
        assert_eq!(capacity.streams_max(at(71)), 30);
    }

    #[test]
    fn pipelining_is_suspended_for_longer_each_time() {
        let mut capacity = ConnectionCapacity::default();
        assert!(!capacity.is_serial(at(0)));
        assert!(capacity.on_pipelined_silence(true, at(0)));
        assert!(
            !capacity.on_pipelined_silence(true, at(1)),
            "pipelining is suspended already"
        );
        assert!(capacity.is_serial(at(9)) && !capacity.is_serial(at(10)));
        assert!(capacity.on_pipelined_silence(true, at(20)));
        assert!(capacity.is_serial(at(39)) && !capacity.is_serial(at(40)));
        capacity.on_pipelined_answer(at(39));
        assert!(!capacity.is_serial(at(39)), "an answer resumes pipelining");
    }

    #[test]
    fn silence_does_not_suspend_pipelining_of_a_concurrent_server_for_a_while() {
        let mut capacity = ConnectionCapacity::default();
        capacity.on_concurrent_answer(at(0));
        // Answers in another order do not end it.
        capacity.on_pipelined_answer(at(1));
        let is_suspended = (0..99).any(|_| capacity.on_pipelined_silence(true, at(599)));
        assert!(!is_suspended);
        assert!(capacity.on_pipelined_silence(true, at(600)));
    }

    /// Returns whether pipelining is suspended after `answers` answers and `silences` silent
    /// queries.
    fn is_suspended(answers: usize, silences: usize) -> bool {
        let mut capacity = ConnectionCapacity::default();
        for _ in 0..answers {
            capacity.on_pipelined_answer(at(1));
        }
        (0..silences).any(|_| capacity.on_pipelined_silence(true, at(2)))
    }

    #[test]
    fn single_answer_does_not_outweigh_many_silent_queries() {
        assert!(!is_suspended(1, 1));
        assert!(is_suspended(1, 2));
        assert!(!is_suspended(100, 7));
        assert!(is_suspended(100, 8));
        let mut capacity = ConnectionCapacity::default();
        capacity.on_pipelined_answer(at(1));
        let is_suspended = (0..99).any(|_| capacity.on_pipelined_silence(false, at(2)));
        assert!(!is_suspended, "slow queries are not overdue");
        let is_suspended = (0..99).any(|_| capacity.on_pipelined_silence(true, at(1)));
        assert!(!is_suspended, "the server answers");
    }
}
