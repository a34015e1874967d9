//! The work for the validation of one answer to a client, with all questions of its own.

use std::cell::Cell;

use super::limits;

/// The rest of the limits of an answer to a client. The answers to the questions of its validation
/// share them, however deep they are.
#[derive(Debug)]
pub struct Work {
    questions_left: Cell<u8>,
    /// The cost of the computations until now, in units of an RSA-2048 verification.
    cost_spent: Cell<u32>,
    /// A limit was reached.
    is_exhausted: Cell<bool>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            questions_left: Cell::new(limits::QUESTIONS_OF_ANSWER),
            cost_spent: Cell::new(0),
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

    /// Takes the cost of a computation before it, in units of an RSA-2048 verification. Returns
    /// `false` if the limit is reached: then the computation is not to be done.
    pub(super) fn take_cost(&self, cost: u32) -> bool {
        let spent = self.cost_spent.get().saturating_add(cost);
        let is_within = spent <= limits::COST_OF_ANSWER;
        if is_within {
            self.cost_spent.set(spent);
        } else {
            self.exhaust();
        }
        is_within
    }

    /// Adds the cost of a computation that is done. Returns `false` if the limit is reached.
    pub(super) fn add_cost(&self, cost: u32) -> bool {
        let spent = self.cost_spent.get().saturating_add(cost);
        self.cost_spent.set(spent);
        let is_within = spent <= limits::COST_OF_ANSWER;
        if !is_within {
            self.exhaust();
        }
        is_within
    }

    /// Returns the cost of the computations until now, in units of an RSA-2048 verification.
    pub fn cost_spent(&self) -> u32 {
        self.cost_spent.get()
    }

    fn exhaust(&self) {
        self.is_exhausted.set(true);
    }

    /// Returns whether a limit was reached.
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted.get()
    }
}
