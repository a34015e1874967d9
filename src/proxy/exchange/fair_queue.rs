//! The queue of the queries that wait for a link, fair among their clients (round-robin).
//!
//! Each client has a line of its own, first come, first served. After a query of a client was
//! served, its line goes behind all others, so that a client with many queries delays another
//! client by one query at a time. dotproxy's own queries count as one client.
//!
//! A query that ends while it waits stays in its queue as a lapsed entry until the entry is reached
//! or swept; the number of entries stays within twice the number of queries that wait.

use std::collections::VecDeque;

use crate::base::origin::Subscriber;
use crate::proxy::client::shares::{ByClient, ClientHash};
use crate::proxy::keys::ExchangeKey;

/// The client that a query counts against; `None` for dotproxy's own queries.
pub(in crate::proxy) type Waiter = Option<Subscriber>;

/// The queue. See the [module](self).
#[derive(Debug)]
pub(in crate::proxy) struct FairQueue {
    line_by_waiter: ByClient<Waiter, VecDeque<ExchangeKey>>,
    /// The clients with a line, the next first.
    order: VecDeque<Waiter>,
    /// Entries of all lines, lapsed ones included.
    len: usize,
}

/// A position in a queue, from the [first](Cursor::default) entry on.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Cursor {
    line: usize,
    index: usize,
}

impl Cursor {
    /// Returns the position of the first entry of the next client.
    pub(in crate::proxy) fn next_line(self) -> Self {
        Self {
            line: self.line + 1,
            index: 0,
        }
    }
}

impl FairQueue {
    /// Entries that may lapse before the first sweep.
    const SLACK: usize = 64;

    /// Creates an empty queue.
    pub(in crate::proxy) fn new(hash: ClientHash) -> Self {
        Self {
            line_by_waiter: ByClient::with_hasher(hash),
            order: VecDeque::new(),
            len: 0,
        }
    }

    /// Adds a query at the end of the line of its client. `live_max` is an upper bound of the
    /// entries that have not lapsed, this one included. `is_live` returns whether an entry has not
    /// lapsed.
    pub(in crate::proxy) fn push(
        &mut self,
        waiter: Waiter,
        query: ExchangeKey,
        live_max: usize,
        is_live: impl Fn(ExchangeKey) -> bool,
    ) {
        if self.len >= 2 * live_max + Self::SLACK {
            self.sweep(is_live);
        }
        let line = self.line_by_waiter.entry(waiter).or_default();
        if line.is_empty() {
            self.order.push_back(waiter);
        }
        line.push_back(query);
        self.len += 1;
    }

    fn sweep(&mut self, is_live: impl Fn(ExchangeKey) -> bool) {
        self.order.retain(|waiter| {
            let Some(line) = self.line_by_waiter.get_mut(waiter) else {
                return false;
            };
            line.retain(|query| is_live(*query));
            line.shrink_to(2 * line.len());
            if line.is_empty() {
                self.line_by_waiter.remove(waiter);
            }
            self.line_by_waiter.contains_key(waiter)
        });
        self.len = self.line_by_waiter.values().map(VecDeque::len).sum();
        self.shrink();
    }

    /// Returns the number of entries, lapsed ones included.
    pub(in crate::proxy) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no entry, not even a lapsed one.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns every entry, lapsed ones included, line by line.
    pub(in crate::proxy) fn iter(&self) -> impl Iterator<Item = ExchangeKey> {
        let lines = self.order.iter();
        let lines = lines.filter_map(|waiter| self.line_by_waiter.get(waiter));
        lines.flatten().copied()
    }

    /// Returns the first entry that has not lapsed. Lapsed entries before it are dropped.
    pub(in crate::proxy) fn first(
        &mut self,
        is_live: impl Fn(ExchangeKey) -> bool,
    ) -> Option<ExchangeKey> {
        while let Some(waiter) = self.order.front().copied() {
            if let Some(first) = self.first_of(waiter, &is_live) {
                return Some(first);
            }
        }
        None
    }

    /// Returns the entry of a client that has waited longest and has not lapsed. Lapsed entries
    /// before it are dropped.
    pub(in crate::proxy) fn first_of(
        &mut self,
        waiter: Waiter,
        is_live: impl Fn(ExchangeKey) -> bool,
    ) -> Option<ExchangeKey> {
        let line = self.line_by_waiter.get_mut(&waiter)?;
        while let Some(first) = line.front().copied() {
            if is_live(first) {
                return Some(first);
            }
            line.pop_front();
            self.len -= 1;
        }
        self.line_by_waiter.remove(&waiter);
        let index = self.order.iter().position(|one| *one == waiter);
        index.and_then(|index| self.order.remove(index));
        self.shrink();
        None
    }

    /// Returns the entries of a client in order, whether they have lapsed or not.
    pub(in crate::proxy) fn entries_of(&self, waiter: Waiter) -> impl Iterator<Item = ExchangeKey> {
        let line = self.line_by_waiter.get(&waiter);
        line.into_iter().flatten().copied()
    }

    /// Returns the entry at a position, whether it has lapsed or not.
    pub(in crate::proxy) fn get(&self, cursor: Cursor) -> Option<ExchangeKey> {
        let line = self.line_by_waiter.get(self.order.get(cursor.line)?)?;
        line.get(cursor.index).copied()
    }

    /// Returns the position behind this one.
    pub(in crate::proxy) fn after(&self, cursor: Cursor) -> Cursor {
        let next = Cursor {
            index: cursor.index + 1,
            ..cursor
        };
        match self.get(next) {
            Some(_) => next,
            None => cursor.next_line(),
        }
    }

    /// Removes the entry at a position, because it is served or has lapsed. Returns the position
    /// of the next entry: if `is_served`, that of another client.
    pub(in crate::proxy) fn take(&mut self, cursor: Cursor, is_served: bool) -> Cursor {
        let waiter = self.order.get(cursor.line).copied();
        let line = waiter.and_then(|waiter| self.line_by_waiter.get_mut(&waiter));
        let (Some(waiter), Some(line)) = (waiter, line) else {
            return cursor;
        };
        if line.remove(cursor.index).is_none() {
            return cursor;
        }
        self.len -= 1;
        let next_line = Cursor {
            line: cursor.line,
            index: 0,
        };
        if line.is_empty() {
            self.line_by_waiter.remove(&waiter);
            self.order.remove(cursor.line);
            self.shrink();
            next_line
        } else if is_served {
            self.order.remove(cursor.line);
            self.order.push_back(waiter);
            next_line
        } else if cursor.index < line.len() {
            cursor
        } else {
            cursor.next_line()
        }
    }

    /// Releases the memory of a long queue.
    fn shrink(&mut self) {
        if self.len == 0 && self.order.capacity() > Self::SLACK {
            self.order.shrink_to(Self::SLACK);
            self.line_by_waiter.shrink_to(Self::SLACK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Key;
    use crate::base::random::{Random, SEED_LEN};

    fn queue() -> FairQueue {
        FairQueue::new(ClientHash::new(&mut Random::new(&[7; SEED_LEN])))
    }

    fn client(nth: u32) -> Subscriber {
        Subscriber::of(std::net::Ipv4Addr::from_bits(0x0a00_0000 + nth).into())
    }

    fn query(number: usize) -> ExchangeKey {
        ExchangeKey(Key::from_usize(number))
    }

    fn numbers(queries: impl Iterator<Item = ExchangeKey>) -> Vec<usize> {
        queries.map(|query| query.0.index()).collect()
    }

    /// Serves every entry in the order of the queue.
    fn served(queue: &mut FairQueue) -> Vec<usize> {
        let mut served = Vec::new();
        while let Some(first) = queue.get(Cursor::default()) {
            served.push(first);
            queue.take(Cursor::default(), true);
        }
        numbers(served.into_iter())
    }

    #[test]
    fn clients_are_served_one_query_at_a_time_each() {
        let mut queue = queue();
        for number in 0..6 {
            queue.push(Some(client(1)), query(number), 10, |_| true);
        }
        queue.push(Some(client(2)), query(10), 10, |_| true);
        queue.push(None, query(20), 10, |_| true);
        queue.push(Some(client(2)), query(11), 10, |_| true);
        assert_eq!(queue.len(), 9);
        assert_eq!(served(&mut queue), [0, 10, 20, 1, 11, 2, 3, 4, 5]);
        assert!(queue.is_empty() && queue.line_by_waiter.is_empty());
    }

    #[test]
    fn query_that_is_passed_over_keeps_its_place() {
        let mut queue = queue();
        for number in [1, 2] {
            queue.push(Some(client(1)), query(number), 10, |_| true);
            queue.push(Some(client(2)), query(10 + number), 10, |_| true);
        }
        let second = queue.after(Cursor::default());
        assert_eq!(queue.get(second), Some(query(2)));
        let next = queue.take(second, true);
        assert_eq!(queue.get(next), Some(query(11)));
        let next = queue.after(queue.after(next));
        assert_eq!(queue.get(next), Some(query(1)));
        assert_eq!(queue.get(queue.after(next)), None);
        assert_eq!(served(&mut queue), [11, 1, 12]);
    }

    #[test]
    fn lapsed_entries_are_dropped_when_they_are_reached() {
        let mut queue = queue();
        for number in 0..4 {
            queue.push(Some(client(1)), query(number), 10, |_| true);
        }
        queue.push(Some(client(2)), query(10), 10, |_| true);
        let is_live = |query: ExchangeKey| query.0.index() > 2;
        assert_eq!(queue.first_of(Some(client(1)), is_live), Some(query(3)));
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.first(|query| query.0.index() > 3), Some(query(10)));
        assert_eq!(queue.first_of(Some(client(1)), |_| true), None);
        assert_eq!(queue.first(|_| false), None);
        assert!(queue.is_empty() && queue.line_by_waiter.is_empty());
    }

    #[test]
    fn lapsed_entries_of_many_clients_are_swept() {
        let mut queue = queue();
        for number in 0..10_000 {
            let nth = u32::try_from(number).unwrap();
            queue.push(Some(client(nth)), query(number), 1, |one| {
                one == query(number)
            });
            assert!(queue.len() <= 2 + FairQueue::SLACK);
            assert!(queue.line_by_waiter.len() <= 2 + FairQueue::SLACK);
        }
        assert_eq!(queue.first(|one| one == query(9_999)), Some(query(9_999)));
    }

    #[test]
    fn empty_queue_gives_its_memory_back() {
        let mut queue = queue();
        for number in 0..10_000 {
            let nth = u32::try_from(number).unwrap();
            queue.push(Some(client(nth)), query(number), 10_000, |_| true);
        }
        assert_eq!(served(&mut queue).len(), 10_000);
        assert!(queue.order.capacity() <= 2 * FairQueue::SLACK);
        assert!(queue.line_by_waiter.capacity() <= 4 * FairQueue::SLACK);
    }
}
