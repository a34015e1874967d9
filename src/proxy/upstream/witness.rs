//! Evidence that an upstream works on several queries of a connection at a time.
//!
//! A server that drops pipelined queries answers in the order in which it reads. So a query that it
//! has read for certain is answered before every later query. If a later one is answered first, the
//! server works on several queries at a time, and the unanswered one is slow, not dropped. This
//! distinguishes a server that drops queries from names that no server answers.

/// A query of a link that the server has read for certain, if it answers in order: no query that
/// was sent before it has been answered since it was sent.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// The position of the query among those without an answer.
    position: Option<usize>,
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

impl Witness {
    /// Records that a query was sent, which has this position.
    pub(super) fn on_sent(&mut self, position: usize) {
        self.position.get_or_insert(position);
    }

    /// Records that the query at this position was answered and is removed. If the witness was sent
    /// before it and has no answer, the server works on several queries.
    pub(super) fn on_removed(&mut self, position: usize) {
        if self.position.is_some_and(|witness| witness < position) {
            self.is_concurrent = true;
        } else {
            self.position = None;
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

    /// Returns whether answers at these positions, in this order, show that a server works on several
    /// queries at a time, of so many that were sent.
    fn is_shown(queries: usize, answers: &[usize]) -> bool {
        let mut witness = Witness::default();
        for position in 0..queries {
            witness.on_sent(position);
        }
        for position in answers {
            witness.on_removed(*position);
        }
        witness.is_concurrent()
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
    fn query_behind_one_that_is_answered_later_is_no_witness() {
        let mut witness = Witness::default();
        witness.on_sent(0);
        // Sent while the server works on the first one, which drops it.
        witness.on_sent(1);
        witness.on_removed(0);
        // Sent when the server is idle again, and answered.
        witness.on_sent(1);
        witness.on_removed(1);
        assert!(!witness.is_concurrent());
    }
}
