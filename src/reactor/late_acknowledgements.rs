//! Acknowledgements of data from upstreams that are sent if no query has followed for a moment.

use std::time::Duration;

use super::{Reactor, Session, session_at};
use crate::base::arena::Key;
use crate::base::time::Instant;
use crate::net::Net;

/// The time for which an acknowledgement waits for a query that carries it.
const WAIT: Duration = Duration::from_millis(1);

/// The upstream connections that owe an acknowledgement, each with the time at which it is due, the
/// earliest first.
#[derive(Debug, Default)]
pub(super) struct LateAcknowledgements(Vec<(Key, Instant)>);

impl LateAcknowledgements {
    /// Returns the time of the next acknowledgement.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.first().map(|(_, due)| *due)
    }

    /// Records whether a session owes an acknowledgement.
    pub(super) fn set(&mut self, key: Key, is_owed: bool, now: Instant) {
        let place = self.0.iter().position(|(owing, _)| *owing == key);
        match place {
            Some(place) if !is_owed => {
                self.0.remove(place);
            }
            None if is_owed => self.0.push((key, now + WAIT)),
            _ => {}
        }
    }

    fn pop_due(&mut self, now: Instant) -> Option<Key> {
        let is_due = self.due().is_some_and(|due| due <= now);
        is_due.then(|| self.0.remove(0).0)
    }
}

impl<N: Net> Reactor<N> {
    /// Sends the acknowledgements that are due.
    pub(super) fn send_due_acknowledgements(&mut self) {
        while let Some(key) = self.acknowledgements.pop_due(self.now) {
            if let Some(Session::Upstream(_, stream)) = session_at(&mut self.sessions, key) {
                stream.acknowledge();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgement_is_due_if_no_query_follows() {
        let at = |ms| Instant::after_start(Duration::from_millis(ms));
        let [first, second] = [1, 2].map(Key::from_usize);
        let mut acknowledgements = LateAcknowledgements::default();
        acknowledgements.set(first, true, at(5));
        acknowledgements.set(second, true, at(6));
        // More data does not delay it.
        acknowledgements.set(first, true, at(6));
        assert_eq!(acknowledgements.due(), Some(at(5) + WAIT));
        acknowledgements.set(first, false, at(6));
        assert_eq!(acknowledgements.pop_due(at(6)), None);
        assert_eq!(acknowledgements.pop_due(at(6) + WAIT), Some(second));
        assert_eq!(acknowledgements.due(), None);
    }
}
