//! Events of links over HTTP/2: limits on streams, GOAWAY, and requests that end without a message.

use super::link::Link;
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::keys::{Attempt, LinkKey};
use crate::wire::edns::{ExtendedErrorCode, append_error};
use crate::wire::header::{Flags, Header, Rcode};

/// The UDP size in the OPT record of a reply that is made here. It has no effect.
const UDP_LEN: u16 = 1232;

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
            self.lose_attempt(exchange, attempt, FailureKind::Closed, cx);
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
        self.count_failure(upstream, FailureKind::Http2);
        let label = self.upstreams.endpoint(endpoint).label().to_owned();
        self.log_throttle.on_no_message(&label, status, now);
        if let Some(reply) = self.reply_without_message(key, id, status) {
            self.handle_reply(key, &reply, now, outbox);
        }
    }

    /// Returns a SERVFAIL reply with an extended error that has the status code of a response.
    fn reply_without_message(&self, key: LinkKey, id: u16, status: u16) -> Option<Vec<u8>> {
        let link = self.upstreams.link(key)?;
        let sent = link.sent().get(link.position(id)?)?;
        let exchange = sent.exchange().and_then(|key| self.exchanges.get(key));
        let question = exchange.map(|exchange| exchange.query.question());
        let header = Header {
            id,
            flags: (Flags::QR | Flags::RA).with_rcode(Rcode::SERVFAIL),
            questions: u16::from(question.is_some()),
            answers: 0,
            authorities: 0,
            additionals: 1,
        };
        let mut reply = header.to_bytes().to_vec();
        reply.extend_from_slice(question.map_or(&[], |question| question.as_bytes()));
        let text = format!("upstream: HTTP status {status} without a DNS message");
        append_error(&mut reply, UDP_LEN, ExtendedErrorCode::NETWORK_ERROR, &text);
        Some(reply)
    }
}
