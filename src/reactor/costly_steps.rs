//! Sessions with costly steps: TLS handshakes, with signatures that can take milliseconds, and HTTP
//! clients, with long pages.
//!
//! The loop runs costly steps last in a turn, after all other responses have left, and only a few
//! of each kind per turn. While other sessions have more to read, costly steps are deferred for a
//! bounded number of turns.

use std::collections::VecDeque;

use super::Reactor;
use super::sessions::CostlyStep;
use crate::base::arena::Key;
use crate::config::Limits;
use crate::net::Net;

/// The sessions that are ready for a costly step, by kind, in the order in which they became ready.
#[derive(Debug, Default)]
pub(super) struct CostlySteps {
    upstream_handshakes: VecDeque<Key>,
    http_requests: VecDeque<Key>,
    client_handshakes: VecDeque<Key>,
    /// The number of consecutive turns in which costly steps were deferred.
    deferred_turns: u32,
}

impl CostlySteps {
    /// Maximum number of consecutive turns without a costly step while other sessions have more to
    /// read.
    const DEFERRED_TURNS_MAX: u32 = 8;

    pub(super) fn is_empty(&self) -> bool {
        self.upstream_handshakes.is_empty()
            && self.http_requests.is_empty()
            && self.client_handshakes.is_empty()
    }

    pub(super) fn push(&mut self, costly_step: CostlyStep, key: Key) {
        match costly_step {
            CostlyStep::UpstreamHandshake => self.upstream_handshakes.push_back(key),
            CostlyStep::HttpRequest => self.http_requests.push_back(key),
            CostlyStep::ClientHandshake => self.client_handshakes.push_back(key),
        }
    }

    /// Removes and returns the sessions to step in this turn.
    fn take(&mut self, limits: &Limits) -> Vec<Key> {
        let mut taken = Vec::new();
        for (queue, most) in [
            (
                &mut self.upstream_handshakes,
                limits.handshake_steps_per_turn,
            ),
            (&mut self.http_requests, limits.http_requests_per_turn),
            (&mut self.client_handshakes, limits.handshake_steps_per_turn),
        ] {
            taken.extend(queue.drain(..most.min(queue.len())));
            if queue.is_empty() {
                queue.shrink_to(0);
            }
        }
        taken
    }
}

impl<N: Net> Reactor<N> {
    /// Takes a few costly steps, unless other sessions have more to read.
    pub(super) fn run_costly_steps(&mut self) {
        if self.costly_sessions.is_empty() {
            return;
        }
        if !self.runnable.is_empty()
            && self.costly_sessions.deferred_turns < CostlySteps::DEFERRED_TURNS_MAX
        {
            self.costly_sessions.deferred_turns += 1;
            return;
        }
        self.costly_sessions.deferred_turns = 0;
        for key in self.costly_sessions.take(&self.config.limits) {
            self.step(key);
        }
    }
}
