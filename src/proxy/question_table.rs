//! A bounded table by question, for values that expire.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::Question;

/// Values by question, with a maximum number of questions.
#[derive(Debug)]
pub(super) struct QuestionTable<T> {
    len_max: usize,
    /// Keys are questions in lower case.
    value_by_question: HashMap<Box<[u8]>, T>,
    /// The time of the next [`Self::sweep_every`].
    sweep_at: Instant,
}

impl<T> QuestionTable<T> {
    /// Creates an empty table for up to `len_max` questions.
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            len_max,
            value_by_question: HashMap::new(),
            sweep_at: Instant::default(),
        }
    }

    /// Returns whether no question is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.value_by_question.is_empty()
    }

    /// Returns the value of a question.
    #[inline]
    pub(super) fn get(&self, question: Question<'_>) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        self.value_by_question.get(&question.to_key())
    }

    /// Returns the value of a question.
    #[inline]
    pub(super) fn get_mut(&mut self, question: Question<'_>) -> Option<&mut T> {
        if self.is_empty() {
            return None;
        }
        self.value_by_question.get_mut(&question.to_key())
    }

    /// Sets the value of a question. If the question is new and the table is full, the expired
    /// values, for which `is_live` does not hold, are removed first; if there are none, the new
    /// question is ignored. Returns whether the value was set.
    pub(super) fn insert(
        &mut self,
        question: Question<'_>,
        value: T,
        is_live: impl Fn(&T) -> bool,
    ) -> bool {
        let (key, values) = (question.to_key(), &mut self.value_by_question);
        if values.len() >= self.len_max && !values.contains_key(&key) {
            values.retain(|_, value| is_live(value));
            if values.len() >= self.len_max {
                return false;
            }
        }
        values.insert(key, value);
        true
    }

    /// Removes a question if its value matches. An empty table releases its memory.
    pub(super) fn remove_if(&mut self, question: Question<'_>, is_match: impl Fn(&T) -> bool) {
        if self.get_mut(question).is_some_and(|value| is_match(value)) {
            self.value_by_question.remove(&question.to_key());
            if self.is_empty() {
                self.value_by_question = HashMap::new();
            }
        }
    }

    /// Removes the expired values, for which `is_live` does not hold, and releases their memory.
    pub(super) fn sweep(&mut self, is_live: impl Fn(&T) -> bool) {
        self.value_by_question.retain(|_, value| is_live(value));
        self.value_by_question.shrink_to_fit();
    }

    /// Removes the expired values as [`Self::sweep`] does, unless that was done less than `pause`
    /// ago.
    pub(super) fn sweep_every(
        &mut self,
        pause: Duration,
        now: Instant,
        is_live: impl Fn(&T) -> bool,
    ) {
        if self.sweep_at <= now {
            self.sweep_at = now + pause;
            self.sweep(is_live);
        }
    }

    /// Returns every value.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.value_by_question.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: u8) -> [u8; 7] {
        [1, name, 0, 0, 1, 0, 1]
    }

    fn question(bytes: &[u8]) -> Question<'_> {
        Question::parse(bytes, 0).unwrap()
    }

    #[test]
    fn full_table_makes_room_by_the_removal_of_expired_values() {
        let mut table = QuestionTable::new(2);
        let mut set = |name: u8, value, least| {
            table.insert(question(&bytes(name)), value, |value| *value >= least)
        };
        assert!(set(b'a', 1, 0) && set(b'b', 2, 0) && !set(b'c', 3, 0));
        assert!(set(b'A', 1, 0), "a question in the table needs no room");
        assert!(set(b'c', 3, 2));
        assert_eq!(table.get_mut(question(&bytes(b'a'))), None);
        assert_eq!(table.get_mut(question(&bytes(b'B'))), Some(&mut 2));
        assert_eq!(table.get_mut(question(&bytes(b'C'))), Some(&mut 3));
    }

    #[test]
    fn expired_values_are_removed_once_in_a_pause() {
        let (start, pause) = (Instant::default(), Duration::from_secs(10));
        let mut table = QuestionTable::new(2);
        let len_after = |table: &mut QuestionTable<u8>, now| {
            table.insert(question(&bytes(b'a')), 1, |_| true);
            table.sweep_every(pause, now, |_| false);
            table.value_by_question.len()
        };
        assert_eq!(len_after(&mut table, start), 0);
        assert_eq!(len_after(&mut table, start + pause / 2), 1);
        assert_eq!(len_after(&mut table, start + pause), 0);
    }

    #[test]
    fn empty_table_releases_its_memory() {
        let fill = || {
            let mut table = QuestionTable::new(100);
            for name in 0..100 {
                table.insert(question(&bytes(name)), name, |_| true);
            }
            table
        };
        let mut table = fill();
        for name in 0..100 {
            table.remove_if(question(&bytes(name)), |_| false);
            table.remove_if(question(&bytes(name)), |value| *value == name);
        }
        assert_eq!(table.value_by_question.capacity(), 0);
        let mut table = fill();
        table.sweep(|value| *value == 7);
        assert!(table.value_by_question.capacity() < 8);
        table.sweep(|_| false);
        assert_eq!(table.value_by_question.capacity(), 0);
    }
}
