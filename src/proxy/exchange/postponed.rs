//! Answers to so many clients that some of the responses wait for room in the outbox.

use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::keys::ExchangeKey;
use crate::proxy::outcome::Provenance;
use crate::wire::Message;

/// An answer to many clients, some of whose responses wait for room in the outbox.
#[derive(Debug)]
pub(in crate::proxy) struct PostponedAnswer {
    since: Instant,
    answer: Box<[u8]>,
    provenance: Provenance,
    /// The answer is a failure of these exchanges alone.
    fails_alone: bool,
    /// The exchanges without a response.
    exchanges: Vec<ExchangeKey>,
}

impl Proxy {
    /// Postpones the responses to these exchanges until the outbox has room.
    pub(super) fn postpone(
        &mut self,
        exchanges: Vec<ExchangeKey>,
        answer: &Message<'_>,
        (provenance, fails_alone): (Provenance, bool),
        now: Instant,
    ) {
        if exchanges.is_empty() {
            return;
        }
        if self.postponed.len() >= self.config.limits.answers_postponed {
            // These exchanges find the answer in the cache or are dispatched again.
            return self.dispatch_later(exchanges);
        }
        self.postponed.push_back(PostponedAnswer {
            since: now,
            answer: answer.bytes().into(),
            provenance,
            fails_alone,
            exchanges,
        });
    }

    /// Returns the time since which responses wait for room, if there are any.
    pub(in crate::proxy) fn postponed_since(&self) -> Option<Instant> {
        self.postponed.front().map(|postponed| postponed.since)
    }

    /// Responds to postponed exchanges as long as the outbox has room.
    pub(in crate::proxy) fn answer_postponed(&mut self, cx: &mut Cx<'_>) {
        while !cx.outbox.is_long()
            && let Some(postponed) = self.postponed.pop_front()
        {
            let mut exchanges = postponed.exchanges;
            exchanges.retain(|key| self.exchanges.contains(*key));
            if exchanges.is_empty() {
                continue;
            }
            // The first exchange gets the answer, and the others follow it.
            let first = exchanges.swap_remove(0);
            let exchange = &mut self.exchanges[first];
            exchange.set_provenance(postponed.provenance);
            exchange.followers = exchanges;
            if postponed.fails_alone {
                exchange.retry.set_fails_alone();
            }
            let answer = Message::parse(&postponed.answer);
            self.deliver(first, &answer.expect("the answer was parsed before"), cx);
        }
        if self.postponed.is_empty() {
            self.postponed.shrink_to(0);
        }
    }
}
