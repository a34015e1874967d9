//! The state of a link over HTTP/2: what the peer allows, announces and refuses.

use std::time::Duration;

use super::Link;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::config::bounds::HTTP2_STREAMS_MAX;
use crate::proxy::upstream::capacity::ConnectionClose;

/// The number of requests in a row that fail before the link is replaced, and the minimum age of
/// the link if no other one works, which limits the number of new connections.
const FAILED_REQUESTS_MAX: usize = 3;
const REPLACED_AFTER: Duration = Duration::from_secs(1);

/// The state of a link that only HTTP/2 has.
#[derive(Debug)]
pub(super) struct Http2State {
    /// The number of queries that may be in flight: our own limit until the peer sends its own.
    streams_max: usize,
    /// The number of requests since the last answer that the peer refused or reset.
    failed_requests: usize,
    /// The number of requests that the peer reset and may have processed.
    resets: usize,
    /// The peer has sent GOAWAY.
    is_going_away: bool,
}

impl Http2State {
    /// Creates the state of a link with this protocol.
    pub(super) fn new(scheme: Scheme) -> Self {
        let is_http2 = scheme == Scheme::Https;
        Self {
            streams_max: if is_http2 {
                HTTP2_STREAMS_MAX
            } else {
                usize::MAX
            },
            failed_requests: 0,
            resets: 0,
            is_going_away: false,
        }
    }

    /// Records an answer.
    pub(super) fn on_answer(&mut self) {
        self.failed_requests = 0;
    }
}

impl Link {
    /// Records that the peer takes no new query (GOAWAY).
    pub(in crate::proxy) fn on_goaway(&mut self) {
        self.http2.is_going_away = true;
        self.drain();
    }

    /// Returns whether the peer has announced the end of the connection (GOAWAY).
    pub(in crate::proxy) fn is_going_away(&self) -> bool {
        self.http2.is_going_away
    }

    /// Sets the number of queries that the peer allows in flight. A peer that allows none is left.
    pub(in crate::proxy) fn set_streams_max(&mut self, streams_max: usize) {
        self.http2.streams_max = streams_max;
        if streams_max == 0 {
            self.drain();
        }
    }

    /// Returns whether the peer allows another query now, which may be a probe. Unanswered queries
    /// count even if no exchange waits for them any more.
    pub(in crate::proxy) fn has_stream(&self) -> bool {
        self.sent.len() < self.http2.streams_max && !self.is_draining()
    }

    /// Records that the peer reset a request, which it may have processed.
    pub(in crate::proxy) fn on_reset(&mut self) {
        self.http2.resets += 1;
    }

    /// Records that the peer refused or reset a request, and whether the endpoint has another link
    /// that works. Returns whether this link is to be replaced.
    pub(in crate::proxy) fn on_failed_request(&mut self, has_working: bool, now: Instant) -> bool {
        self.http2.failed_requests += 1;
        let is_old = now - self.up_since >= REPLACED_AFTER;
        let is_replaceable = is_old || has_working;
        is_replaceable && self.http2.failed_requests >= FAILED_REQUESTS_MAX
    }

    /// Returns the close of this link after a GOAWAY that refuses all queries but those that ended
    /// and the `older` ones.
    pub(in crate::proxy) fn refusal_by_goaway(
        &self,
        older: usize,
        now: Instant,
    ) -> ConnectionClose {
        ConnectionClose {
            answers: self.answers + self.http2.resets + older,
            since_answer: Duration::ZERO,
            owes_answers: true,
            is_telling: true,
            opened_at: self.opened_at,
            at: now,
        }
    }
}
