//! A queue with entries that may lapse while they wait.

use std::collections::VecDeque;

/// A queue, first in, first out, with entries that may lapse while they wait.
///
/// Removing an entry from the middle costs nothing: `front` checks whether an entry is live and
/// drops lapsed ones; `pop` does not check. Lapsed entries are swept when they could make up more
/// than half of the queue, so the length stays within twice the number of live entries, and the
/// cost of an entry is constant.
#[derive(Debug)]
pub struct LazyQueue<T> {
    entries: VecDeque<T>,
}

impl<T> Default for LazyQueue<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
        }
    }
}

impl<T> LazyQueue<T> {
    /// The number of entries that may lapse before the first sweep.
    const SLACK: usize = 64;

    /// Appends an entry. `holding` is an upper bound of the number of live entries, this one
    /// included, and `is_live` identifies them.
    pub fn push(&mut self, entry: T, holding: usize, is_live: impl FnMut(&T) -> bool) {
        self.sweep(holding, is_live);
        self.entries.push_back(entry);
    }

    /// Inserts an entry in order of rank: after the last entry with a rank that is not greater,
    /// which is nearly always the end. See [`LazyQueue::push`].
    pub fn push_ranked<R: Ord>(
        &mut self,
        entry: T,
        rank: impl Fn(&T) -> R,
        holding: usize,
        is_live: impl FnMut(&T) -> bool,
    ) {
        self.sweep(holding, is_live);
        let own = rank(&entry);
        let index = match self.entries.back() {
            Some(last) if rank(last) > own => self.entries.partition_point(|e| rank(e) <= own),
            _ => self.entries.len(),
        };
        self.entries.insert(index, entry);
    }

    fn sweep(&mut self, holding: usize, is_live: impl FnMut(&T) -> bool) {
        if self.entries.len() >= 2 * holding + Self::SLACK {
            self.entries.retain(is_live);
            self.entries.shrink_to(2 * holding + Self::SLACK);
        }
    }

    /// Returns the first live entry, and drops the lapsed entries before it.
    pub fn front(&mut self, mut is_live: impl FnMut(&T) -> bool) -> Option<&T> {
        while self.entries.front().is_some_and(|entry| !is_live(entry)) {
            self.pop();
        }
        self.entries.front()
    }

    /// Removes the first entry, live or lapsed. A long queue that becomes empty releases its
    /// memory.
    pub fn pop(&mut self) -> Option<T> {
        let first = self.entries.pop_front();
        if self.entries.is_empty() {
            self.entries.shrink_to(Self::SLACK);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_drops_lapsed_entries_and_stays_short() {
        let mut queue = LazyQueue::default();
        for entry in 0..10_000 {
            queue.push(entry, 1, |&e| e >= entry);
            assert!(queue.entries.len() <= 2 + LazyQueue::<u32>::SLACK);
        }
        assert_eq!(queue.front(|&e| e >= 9_999), Some(&9_999));
        assert_eq!(queue.entries.len(), 1);
    }

    #[test]
    fn empty_queue_releases_its_memory() {
        let drains: [fn(&mut LazyQueue<u64>); 2] = [
            |queue| assert!(queue.front(|_| false).is_none()),
            |queue| while queue.pop().is_some() {},
        ];
        for drain in drains {
            let mut queue = LazyQueue::default();
            (0..10_000).for_each(|entry| queue.push(entry, 10_000, |_| true));
            drain(&mut queue);
            assert!(queue.entries.capacity() <= 2 * LazyQueue::<u64>::SLACK);
        }
    }

    #[test]
    fn ranked_entries_are_sorted_and_ties_are_first_in_first_out() {
        let mut queue = LazyQueue::default();
        for entry in [(2, 'a'), (5, 'b'), (3, 'c'), (5, 'd'), (1, 'e'), (3, 'f')] {
            queue.push_ranked(entry, |entry| entry.0, 10, |_| true);
        }
        let order: String = std::iter::from_fn(|| queue.pop())
            .map(|entry| entry.1)
            .collect();
        assert_eq!(order, "eacfbd");
    }
}
