//! The order of answers, as evidence that an upstream works on several queries of a connection at a
//! time.
//!
//! A server that drops pipelined queries answers in the order in which it reads. Such a server
//! therefore answers a query that it has certainly read before every later query. If a later one is
//! answered first, the server works on several queries at a time, and the unanswered one is slow,
//! not dropped. This distinguishes a server that drops queries from names that no server answers.

/// The evidence on a link that the server works on several queries at a time.
#[derive(Debug, Default)]
pub(super) struct AnswerOrderEvidence {
    /// The position, among the queries without an answer, of the first query sent after the last
    /// in-order answer, or of the first query on the link. A server that answers in order has read
    /// this query and answers it before every later query.
    first_since_answer: Option<usize>,
    /// True if a later query was answered before that query.
    is_concurrent: bool,
}

/// The order of an answer among the answers of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum AnswerOrder {
    /// No other answer arrived since its query was sent.
    First,
    /// Another answer arrived since its query was sent.
    Overtaken,
    /// The link has shown that the server works on several queries at a time.
    Concurrent,
}

impl AnswerOrderEvidence {
    /// Records that a query was sent, which has this position.
    pub(super) fn on_sent(&mut self, position: usize) {
        self.first_since_answer.get_or_insert(position);
    }

    /// Records that the query at this position was answered and is removed. The answer is in order
    /// unless the first query since the last in-order answer was sent before it: then the server
    /// works on several queries.
    pub(super) fn on_removed(&mut self, position: usize) {
        if self
            .first_since_answer
            .is_some_and(|first| first < position)
        {
            self.is_concurrent = true;
        } else {
            self.first_since_answer = None;
        }
    }

    /// Returns whether the server has been seen to work on several queries at a time.
    pub(super) fn is_concurrent(&self) -> bool {
        self.is_concurrent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether answers at these positions, in this order, show that a server works on
    /// several queries at a time, given the number of queries sent.
    fn is_shown(queries: usize, answers: &[usize]) -> bool {
        let mut evidence = AnswerOrderEvidence::default();
        for position in 0..queries {
            evidence.on_sent(position);
        }
        for position in answers {
            evidence.on_removed(*position);
        }
        evidence.is_concurrent()
    }

    #[test]
    fn answer_to_a_later_query_shows_it() {
        assert!(is_shown(2, &[1]));
        assert!(is_shown(5, &[3, 0]));
    }

    #[test]
    fn answers_in_order_do_not_show_it() {
        assert!(!is_shown(5, &[0, 0, 0, 0, 0]));
    }

    #[test]
    fn query_behind_one_that_is_answered_later_is_no_evidence() {
        let mut evidence = AnswerOrderEvidence::default();
        evidence.on_sent(0);
        // Sent while the server works on the first one, which drops it.
        evidence.on_sent(1);
        evidence.on_removed(0);
        // Sent when the server is idle again, and answered.
        evidence.on_sent(1);
        evidence.on_removed(1);
        assert!(!evidence.is_concurrent());
    }
}
