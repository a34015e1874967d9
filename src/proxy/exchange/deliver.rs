//! Delivery of an answer: to the cache, to the client and to the followers of the exchange.

use std::iter;

use super::Purpose;
use super::classify::{is_error, is_truncated};
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::cache::{Entry, Kept};
use crate::proxy::client::admission::TRUNCATED;
use crate::proxy::keys::ExchangeKey;
use crate::proxy::outcome::Outcome;
use crate::wire::response::write_answer;
use crate::wire::{Message, Rcode};

impl Proxy {
    /// Delivers an answer: to the cache, to the client and to the followers of the exchange.
    pub(in crate::proxy) fn deliver(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        cx: &mut Cx<'_>,
    ) {
        if self.config.dns64.is_some() && self.begin_mapping(key, answer, cx) {
            return;
        }
        let exchange = &mut self.exchanges[key];
        let bootstrap = match exchange.purpose {
            Purpose::Bootstrap(upstream, rr_type) => Some((upstream, rr_type)),
            _ => None,
        };
        let question = exchange.query.question();
        if is_truncated(answer) {
            if exchange.has_error() && !exchange.retry.fails_alone() {
                let by = (exchange.pool, exchange.asked_at);
                self.failures.on_failure(question, by, TRUNCATED, cx.now);
            }
        } else if !is_error(answer.rcode()) {
            self.failures.on_answer(question, cx.now);
        }
        let kept = match exchange.lookup {
            _ if is_truncated(answer) => Kept::No,
            Some(lookup) if exchange.retry.fails_alone() && is_error(answer.rcode()) => {
                // Other queries may still get an answer from upstream.
                let known = self.cache.recall(question, lookup, cx.now).answer();
                known.map_or(Kept::No, Kept::Previous)
            }
            Some(lookup) => self.cache.keep(question, lookup, answer, cx.now),
            None if exchange.is_for_client() => {
                let flags = exchange.query.flags();
                self.cache
                    .on_uncacheable_reply(question, flags, answer, cx.now);
                Kept::No
            }
            None => Kept::No,
        };
        let outcome = match kept {
            Kept::Previous(entry) if entry.is_stale() => Outcome::Stale,
            _ if exchange.is_rejected(answer) => Outcome::Bogus,
            _ => Outcome::Answered,
        };
        // Every response is written before any exchange ends, since that end may change the cache.
        self.respond(key, answer, kept, outcome, cx);
        if self.exchanges[key].followers.is_empty() {
            self.end(key, outcome, cx.now);
        } else {
            self.respond_to_followers(key, answer, kept, outcome, cx);
        }
        if let Some((upstream, rr_type)) = bootstrap {
            self.on_addresses(upstream, rr_type, Some(answer), cx);
        }
    }

    /// Responds to the followers of an exchange with the answer that the exchange got, and ends all
    /// of them.
    fn respond_to_followers(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        kept: Kept,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        let exchange = &mut self.exchanges[key];
        let provenance = exchange.provenance();
        let mut followers = std::mem::take(&mut exchange.followers);
        followers.retain(|key| self.exchanges.contains(*key));
        let mut answered = 0;
        while answered < followers.len() && !cx.outbox.is_long() {
            let follower = followers[answered];
            self.exchanges[follower].set_provenance(provenance);
            self.respond(follower, answer, kept, outcome, cx);
            answered += 1;
        }
        let later = followers.split_off(answered);
        let fails_alone = self.exchanges[key].retry.fails_alone();
        for key in iter::once(key).chain(followers) {
            self.end(key, outcome, cx.now);
        }
        self.postpone(later, answer, (provenance, fails_alone), cx.now);
    }

    /// Responds to the client, if there is one, with this answer or with its entry in the cache.
    fn respond(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        kept: Kept,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        if let Purpose::Mapping(waiter) = self.exchanges[key].purpose {
            return self.map_answer(waiter, answer, self.exchanges[key].security);
        }
        if let Kept::Yes(entry) | Kept::Previous(entry) = kept {
            return self.respond_from_cache(key, entry, outcome, cx);
        }
        let exchange = &self.exchanges[key];
        let is_unusable = is_truncated(answer) && exchange.is_for_stream_client();
        let failed = is_unusable.then_some(Outcome::UpstreamFailed);
        let Some((completion, asked)) = exchange.completion(failed.unwrap_or(outcome)) else {
            return;
        };
        if is_unusable {
            let error = (Rcode::SERVFAIL, Some(TRUNCATED));
            return completion.respond_error(&asked, error, &mut self.counters, cx);
        }
        completion.respond(&mut self.counters, cx, |out| {
            write_answer(out, &asked, answer);
        });
    }

    /// Responds to the client, if there is one, from the cache.
    pub(in crate::proxy) fn respond_from_cache(
        &mut self,
        key: ExchangeKey,
        entry: Entry,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        let exchange = &self.exchanges[key];
        let (cache, counters) = (&self.cache, &mut self.counters);
        if let Some((completion, asked)) = exchange.completion(outcome) {
            completion.respond(counters, cx, |out| cache.write(entry, &asked, out));
        }
    }
}
