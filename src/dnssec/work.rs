//! The work for the validation of one answer to a client, with all questions of its own.

use std::cell::Cell;

use super::limits;

/// The rest of the limits of an answer to a client. The answers to the questions of its validation
/// share them, however deep they are.
#[derive(Debug)]
pub struct Work {
    questions_left: Cell<u8>,
    /// The rest of the cost, in units of an RSA-2048 verification.
    cost_left: Cell<u32>,
    /// A limit was reached.
    is_exhausted: Cell<bool>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            questions_left: Cell::new(limits::QUESTIONS_OF_ANSWER),
            cost_left: Cell::new(limits::COST_OF_ANSWER),
            is_exhausted: Cell::new(false),
        }
    }
}

impl Work {
    /// Takes a question of its own. Returns `false` if the limit is reached.
    pub fn take_question(&self) -> bool {
        let left = self.questions_left.get().checked_sub(1);
        left.map_or_else(|| self.exhaust(), |left| self.questions_left.set(left));
        left.is_some()
    }

    /// Takes the cost of a computation, in units of an RSA-2048 verification. Returns `false` if
    /// the limit is reached.
    pub(super) fn take_cost(&self, cost: u32) -> bool {
        let left = self.cost_left.get().checked_sub(cost);
        left.map_or_else(|| self.exhaust(), |left| self.cost_left.set(left));
        left.is_some()
    }

    fn exhaust(&self) {
        self.is_exhausted.set(true);
    }

    /// Returns whether a limit was reached.
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted.get()
    }
}
