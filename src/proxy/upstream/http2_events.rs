//! Events of links over HTTP/2: limits on streams, GOAWAY, and requests that end without a message.

use super::link::Link;
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::keys::{Attempt, LinkKey};
use crate::wire::header::{Flags, Header, Rcode};

impl Proxy {
    /// Handles the number of streams that the upstream allows on a link.
    pub fn handle_streams_max(
        &mut self,
        key: LinkKey,
        streams_max: usize,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        if let Some(link) = self.upstreams.link_mut(key) {
            link.set_streams_max(streams_max);
            self.followups.on_room();
        }
        self.settle(&mut Cx { now, outbox });
    }

    /// Handles GOAWAY: the link takes no new query, and is closed after its last answer.
    pub fn handle_draining(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        if let Some(link) = self.upstreams.link_mut(key) {
            link.drain();
            self.close_if_done(key, cx.outbox);
            self.followups.on_room();
        }
        self.settle(cx);
    }

    /// Handles a request that the upstream ended without a response, and did not process if
    /// `is_refused`. Then a retry costs no try if it makes sense elsewhere: the link has other
    /// queries or takes no more of them.
    pub fn handle_reset(
        &mut self,
        key: LinkKey,
        id: u16,
        is_refused: bool,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let cx = &mut Cx { now, outbox };
        self.on_reset(key, id, is_refused, cx);
        self.settle(cx);
    }

    fn on_reset(&mut self, key: LinkKey, id: u16, is_refused: bool, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        let Some(position) = link.position(id) else {
            return;
        };
        let sent = link.sent()[position];
        link.remove_sent(position, cx.now);
        let others = link.sent().len();
        let is_uncounted = is_refused && (others > 0 || link.has_answered());
        if is_refused && others > 0 {
            link.set_streams_max(others);
        }
        if let Some(exchange) = sent.exchange() {
            let attempt = Attempt { link: key, id };
            if is_uncounted {
                self.exchanges[exchange].attempts.on_uncounted_end(attempt);
            }
            self.lose_attempt(exchange, attempt, FailureKind::Protocol, cx);
        }
        self.close_if_done(key, cx.outbox);
        self.followups.on_room();
    }

    /// Handles a response without a DNS message. It counts as an error of the upstream, so another
    /// upstream is asked.
    pub fn handle_no_message(
        &mut self,
        key: LinkKey,
        (id, status): (u16, u16),
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some(endpoint) = self.upstreams.link(key).map(Link::endpoint_key) else {
            return;
        };
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        self.count_failure(upstream, FailureKind::Protocol);
        let label = self.upstreams.endpoint(endpoint).label().to_owned();
        self.log_throttle.on_no_message(&label, status, now);
        let reply = Header {
            id,
            flags: (Flags::QR | Flags::RA).with_rcode(Rcode::SERVFAIL),
            questions: 0,
            answers: 0,
            authorities: 0,
            additionals: 0,
        };
        self.handle_reply(key, &reply.to_bytes(), now, outbox);
    }
}
