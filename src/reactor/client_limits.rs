//! Limits that all TCP clients share: slots, memory and idle time.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::base::arena::Key;
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::config::Config;

/// The slots, the memory and the idle timeout that TCP clients share.
#[derive(Debug)]
pub(super) struct Clients {
    len: usize,
    len_by_subscriber: HashMap<Subscriber, usize>,
    held: usize,
    bounds: Bounds,
    /// Each client with a lower bound of the time of its last activity, the earliest on top.
    /// Activity does not update an entry: the actual time is looked up when the entry expires.
    by_activity: BinaryHeap<Reverse<(Instant, Key, Subscriber)>>,
}

/// The limits of a group of clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    len_max: usize,
    held_max: usize,
    idle_max: Duration,
    idle_min: Duration,
}

impl Bounds {
    /// Returns the limits of DNS clients over TCP and TLS.
    pub(super) fn of_clients(config: &Config) -> Self {
        Self {
            len_max: config.limits.tcp_clients,
            held_max: config.limits.tcp_clients_held,
            idle_max: config.timeouts.client_idle_max,
            idle_min: config.timeouts.client_idle_min,
        }
    }

    /// Returns the limits of HTTP clients (metrics and health checks) before their first request.
    pub(super) fn of_http(config: &Config) -> Self {
        Self {
            len_max: config.limits.http_clients,
            held_max: config.limits.http_clients_held,
            idle_max: config.timeouts.client_idle_max,
            idle_min: config.timeouts.client_idle_min,
        }
    }
}

impl Clients {
    /// The number of entries of closed clients that triggers a sweep.
    const GONE_MAX: usize = 64;
    /// Time after which a runnable client is checked again.
    const RECHECK_AFTER: Duration = Duration::from_millis(100);

    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            len: 0,
            len_by_subscriber: HashMap::new(),
            held: 0,
            bounds,
            by_activity: BinaryHeap::new(),
        }
    }

    /// Replaces the limits.
    pub(super) fn reconfigure(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Returns the number of clients.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the current idle timeout: the longest while half of the slots are free, and shorter
    /// as the slots run out, so that new clients find one (RFC 7766, section 6.2.3).
    pub(super) fn idle_limit(&self) -> Duration {
        let Bounds {
            len_max,
            idle_max,
            idle_min,
            ..
        } = self.bounds;
        let free = u32::try_from(len_max.saturating_sub(self.len)).unwrap_or(u32::MAX);
        let half = u32::try_from(len_max.div_ceil(2)).unwrap_or(u32::MAX);
        if free >= half {
            return idle_max;
        }
        (idle_max * free / half).max(idle_min)
    }

    /// Adds a client, which was just active. `is_there` returns whether a client is still open.
    pub(super) fn add(
        &mut self,
        key: Key,
        subscriber: Subscriber,
        now: Instant,
        is_there: impl Fn(Key) -> bool,
    ) {
        self.len += 1;
        *self.len_by_subscriber.entry(subscriber).or_default() += 1;
        if self.by_activity.len() >= 2 * self.len + Self::GONE_MAX {
            self.by_activity
                .retain(|Reverse((_, key, _))| is_there(*key));
            self.by_activity.shrink_to(2 * self.len + Self::GONE_MAX);
        }
        self.by_activity.push(Reverse((now, key, subscriber)));
    }

    /// Returns the client to close so that `newcomer`, which was just added, has a slot, if there
    /// are more clients than slots. The client with the longest inactivity is closed, of the
    /// subscriber with the most connections. Of several such subscribers, the newcomer's own comes
    /// first. `last_active` returns the time of the last activity of a client, if the client is
    /// still open.
    pub(super) fn to_close_for(
        &self,
        newcomer: Key,
        subscriber: Subscriber,
        last_active: impl Fn(Key) -> Option<Instant>,
    ) -> Option<Key> {
        if self.len <= self.bounds.len_max {
            return None;
        }
        let lens = self.len_by_subscriber.iter();
        let (most, _, heaviest) = lens
            .map(|(other, len)| (*len, *other == subscriber, *other))
            .max()?;
        let mut quietest: Option<(Instant, Key)> = None;
        for Reverse((since, key, other)) in &self.by_activity {
            let is_candidate = *key != newcomer && (most == 1 || *other == heaviest);
            // The time in an entry is a lower bound of the last activity.
            if is_candidate
                && quietest.is_none_or(|(best, _)| *since < best)
                && let Some(last_active) = last_active(*key)
                && quietest.is_none_or(|(best, _)| last_active < best)
            {
                quietest = Some((last_active, *key));
            }
        }
        quietest.map(|(_, key)| key)
    }

    /// Returns whether a subscriber may open another connection: the limit per client for TCP
    /// connections. A quarter of the slots is reserved for other subscribers.
    pub(super) fn have_room_for(&self, subscriber: Subscriber) -> bool {
        let len = self.len_by_subscriber.get(&subscriber).copied();
        let most = self.bounds.len_max;
        len.unwrap_or(0) < most - most / 4
    }

    /// Removes a client for which `held` bytes were held.
    pub(super) fn remove(&mut self, subscriber: Subscriber, held: usize) {
        self.len -= 1;
        if let Entry::Occupied(mut entry) = self.len_by_subscriber.entry(subscriber) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if self.len == 0 {
            self.len_by_subscriber.shrink_to_fit();
        }
        self.held -= held;
    }

    /// Returns the number of bytes that are held for all clients.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Updates the sum of held bytes for a client that held `before` and now holds `after` bytes.
    /// Returns `false` if the sum exceeds the limit for all clients.
    pub(super) fn update_held(&mut self, (before, after): (usize, usize)) -> bool {
        self.held = self.held + after - before;
        after <= before || self.held <= self.bounds.held_max
    }

    /// Restarts the idle timeout of a client that waits for the proxy.
    pub(super) fn restart_idle_timeout(&mut self, key: Key, subscriber: Subscriber, now: Instant) {
        self.by_activity.push(Reverse((now, key, subscriber)));
    }

    /// Lets the idle timeout of a client expire again after a short time. A runnable client may
    /// have sent a query that is not read yet, and one that sends single bytes is often runnable.
    pub(super) fn recheck_soon(&mut self, key: Key, subscriber: Subscriber, now: Instant) {
        let expiry = now + Self::RECHECK_AFTER;
        let entry = (expiry.saturating_sub(self.idle_limit()), key, subscriber);
        self.by_activity.push(Reverse(entry));
    }

    /// Returns the time at which the next entry expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let Reverse((since, ..)) = self.by_activity.peek()?;
        Some(*since + self.idle_limit())
    }

    /// Removes and returns the next client that exceeded the idle timeout, and its subscriber.
    /// `last_active` returns the time of the last activity of a client, if the client is still
    /// open.
    pub(super) fn pop_expired(
        &mut self,
        now: Instant,
        last_active: impl Fn(Key) -> Option<Instant>,
    ) -> Option<(Key, Subscriber)> {
        while self.next_expiry()? <= now {
            let Reverse((since, key, subscriber)) = self.by_activity.pop()?;
            match last_active(key) {
                None => {}
                Some(last_active) if last_active > since => {
                    let entry = (last_active, key, subscriber);
                    self.by_activity.push(Reverse(entry));
                }
                Some(_) => return Some((key, subscriber)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Arena;
    use crate::config::{Limits, Timeouts};

    fn at(milliseconds: u64) -> Instant {
        Instant::after_start(Duration::from_millis(milliseconds))
    }

    fn clients(len_max: usize) -> Clients {
        let timeouts = Timeouts::for_query(Timeouts::QUERY);
        Clients::new(Bounds {
            len_max,
            held_max: Limits::default().tcp_clients_held,
            idle_max: timeouts.client_idle_max,
            idle_min: timeouts.client_idle_min,
        })
    }

    fn subscriber() -> Subscriber {
        Subscriber::of([192, 0, 2, 1].into())
    }

    #[test]
    fn subscriber_cannot_use_every_slot() {
        let mut clients = clients(8);
        let mut keys = Arena::<Key, _>::default();
        let other = Subscriber::of([192, 0, 2, 2].into());
        for _ in 0..6 {
            assert!(clients.have_room_for(subscriber()));
            clients.add(keys.insert(()), subscriber(), at(0), |_| true);
        }
        assert!(!clients.have_room_for(subscriber()) && clients.have_room_for(other));
        clients.remove(subscriber(), 0);
        assert!(clients.have_room_for(subscriber()));
        for _ in 0..5 {
            clients.remove(subscriber(), 0);
        }
        assert!(clients.len_by_subscriber.is_empty());
    }

    #[test]
    fn idle_timeout_shrinks_as_slots_run_out() {
        let mut clients = clients(8);
        let mut keys = Arena::<Key, _>::default();
        let mut limits = Vec::new();
        for _ in 0..8 {
            clients.add(keys.insert(()), subscriber(), at(0), |_| true);
            limits.push(clients.idle_limit().as_millis());
        }
        assert_eq!(
            limits,
            [10_000, 10_000, 10_000, 10_000, 7_500, 5_000, 2_500, 200]
        );
    }

    #[test]
    fn active_client_is_not_expired() {
        let mut clients = clients(100);
        let mut keys = Arena::<Key, _>::default();
        let idle = keys.insert(at(0));
        let active = keys.insert(at(0));
        clients.add(idle, subscriber(), at(0), |_| true);
        clients.add(active, subscriber(), at(0), |_| true);
        *keys.get_mut(active).unwrap() = at(4_000);
        let mut pop = |now| clients.pop_expired(at(now), |key| keys.get(key).copied());
        assert_eq!(pop(9_999), None);
        assert_eq!(pop(10_000), Some((idle, subscriber())));
        assert_eq!(pop(13_999), None);
        assert_eq!(pop(14_000), Some((active, subscriber())));
        assert_eq!(pop(99_000), None);
    }

    /// Returns the position in `clients` (subscriber, second of the last activity) of the client
    /// that is closed for the last of them.
    fn closed_for_the_last(clients: &[(u8, u64)]) -> Option<usize> {
        let mut all = super::tests::clients(clients.len() - 1);
        let mut arena = Arena::<Key, _>::default();
        let of = |host| Subscriber::of([192, 0, 2, host].into());
        let keys: Vec<_> = clients
            .iter()
            .map(|(host, last_active)| {
                let key = arena.insert(at(1_000 * last_active));
                all.add(key, of(*host), at(0), |_| true);
                key
            })
            .collect();
        let newcomer = *keys.last()?;
        let last_active = |key| arena.get(key).copied();
        let closed = all.to_close_for(newcomer, of(clients.last()?.0), last_active)?;
        keys.iter().position(|key| *key == closed)
    }

    #[test]
    fn longest_inactive_client_of_the_largest_subscriber_is_closed() {
        let closed = closed_for_the_last;
        assert_eq!(closed(&[(1, 5), (1, 4), (2, 1), (3, 9)]), Some(1));
        assert_eq!(closed(&[(1, 5), (2, 4), (2, 8), (2, 7), (1, 9)]), Some(1));
        // The newcomer counts, and does not make room for itself.
        assert_eq!(closed(&[(1, 5), (1, 4), (2, 2), (2, 3), (2, 9)]), Some(2));
        assert_eq!(closed(&[(1, 5), (1, 4), (2, 3), (2, 9)]), Some(2));
        // Of two largest subscribers, that of the newcomer loses a connection.
        assert_eq!(closed(&[(2, 3), (2, 4), (1, 5), (1, 9)]), Some(2));
        assert_eq!(closed(&[(1, 5), (2, 4), (3, 6), (4, 1)]), Some(1));
        assert_eq!(closed(&[(1, 5), (2, 4), (1, 1)]), Some(0));
    }

    #[test]
    fn client_is_closed_only_if_there_are_more_than_slots() {
        let mut clients = clients(2);
        let mut keys = Arena::<Key, _>::default();
        for len in 1..=3 {
            let key = keys.insert(at(0));
            clients.add(key, subscriber(), at(0), |_| true);
            let last_active = |key| keys.get(key).copied();
            let closed = clients.to_close_for(key, subscriber(), last_active);
            assert_eq!(closed.is_some(), len == 3);
        }
    }

    #[test]
    fn closed_clients_leave_few_entries() {
        let mut clients = clients(100);
        let mut keys = Arena::<Key, _>::default();
        for _ in 0..10_000 {
            let key = keys.insert(());
            clients.add(key, subscriber(), at(0), |key| keys.contains(key));
            keys.remove(key);
            clients.remove(subscriber(), 0);
        }
        assert!(clients.by_activity.len() <= 2 + Clients::GONE_MAX);
    }

    #[test]
    fn held_bytes_have_one_limit_for_all_clients() {
        let mut clients = clients(100);
        let max = Limits::default().tcp_clients_held;
        assert!(clients.update_held((0, max)));
        assert!(!clients.update_held((0, 2)));
        // A client for which less is held than before may stay, although the sum is too large.
        assert!(clients.update_held((max, max - 1)));
        assert_eq!(clients.held(), max + 1);
    }
}
