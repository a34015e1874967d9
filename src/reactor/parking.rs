//! TCP clients that are not read for now: the proxy has no room for their queries, or they exceeded
//! their rate limit.
//!
//! Each client address has its own queue, from which one connection per turn is released: room for
//! one query must not wake hundreds of connections of one address.

use std::collections::{BTreeMap, VecDeque};

use crate::base::arena::Key;
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::proxy::Room;

/// The parked connections. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Parking {
    line_by_client: BTreeMap<Subscriber, VecDeque<Key>>,
    /// The earliest time at which a rate-limited client is within its rate again.
    next_at: Option<Instant>,
}

impl Parking {
    /// Parks a connection of a client that has this room.
    pub(super) fn add(&mut self, client: Subscriber, key: Key, room: Room) {
        self.line_by_client
            .entry(client)
            .or_default()
            .push_back(key);
        self.note(room);
    }

    /// Removes a connection that has closed.
    pub(super) fn remove(&mut self, client: Subscriber, key: Key) {
        if let Some(line) = self.line_by_client.get_mut(&client) {
            line.retain(|parked| *parked != key);
            if line.is_empty() {
                self.line_by_client.remove(&client);
            }
        }
    }

    /// Returns the time at which the first rate-limited client is within its rate again, if any.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Removes and returns the first connection of each client that has room.
    pub(super) fn release(&mut self, mut room_for: impl FnMut(Subscriber) -> Room) -> Vec<Key> {
        let mut released = Vec::new();
        self.next_at = None;
        let mut next_at = None;
        self.line_by_client.retain(|client, line| {
            match room_for(*client) {
                Room::Free => released.extend(line.pop_front()),
                room => next_at = earlier(next_at, room),
            }
            !line.is_empty()
        });
        self.next_at = next_at;
        released
    }

    fn note(&mut self, room: Room) {
        self.next_at = earlier(self.next_at, room);
    }
}

fn earlier(next_at: Option<Instant>, room: Room) -> Option<Instant> {
    match room {
        Room::RateExceeded { until } => Some(next_at.map_or(until, |at| at.min(until))),
        Room::Free | Room::Full => next_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn client(nth: u8) -> Subscriber {
        Subscriber::of([192, 0, 2, nth].into())
    }

    #[test]
    fn connections_of_a_client_are_released_one_by_one() {
        let mut parking = Parking::default();
        for number in 0..3 {
            parking.add(client(1), Key::from_usize(number), Room::Full);
        }
        parking.add(client(2), Key::from_usize(10), Room::Full);
        parking.remove(client(1), Key::from_usize(1));
        let numbers = |keys: Vec<Key>| keys.into_iter().map(Key::index).collect::<Vec<_>>();
        let only_first = |one| {
            if one == client(1) {
                Room::Free
            } else {
                Room::Full
            }
        };
        assert_eq!(numbers(parking.release(only_first)), [0]);
        assert_eq!(numbers(parking.release(|_| Room::Free)), [2, 10]);
        assert!(parking.release(|_| Room::Free).is_empty());
        assert!(parking.line_by_client.is_empty());
    }

    #[test]
    fn next_time_is_that_of_the_first_client_within_its_rate() {
        let mut parking = Parking::default();
        let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
        let exceeded = |seconds| Room::RateExceeded { until: at(seconds) };
        parking.add(client(1), Key::from_usize(1), exceeded(9));
        parking.add(client(2), Key::from_usize(2), exceeded(5));
        parking.add(client(3), Key::from_usize(3), exceeded(7));
        parking.add(client(4), Key::from_usize(4), Room::Full);
        assert_eq!(parking.next_at(), Some(at(5)));
        let room = |one| {
            if one == client(1) {
                exceeded(8)
            } else if one == client(3) {
                exceeded(9)
            } else {
                Room::Free
            }
        };
        assert_eq!(parking.release(room).len(), 2);
        assert_eq!(parking.next_at(), Some(at(8)));
        assert_eq!(parking.release(|_| Room::Free).len(), 2);
        assert_eq!(parking.next_at(), None);
    }
}
