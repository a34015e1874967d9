//! The end of an exchange: after its response, or for lack of an answer.

use super::Purpose;
use super::classify::is_truncated;
use super::coalesce::Coalescing;
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::client::admission::NO_ANSWER;
use crate::proxy::followups::Followup;
use crate::proxy::keys::{ExchangeKey, PoolIndex};
use crate::proxy::outcome::Outcome;
use crate::proxy::upstream::link::{Abandoned, QuestionHash};
use crate::wire::query::PLAIN_QUERY_LEN_MAX;
use crate::wire::{Message, Rcode};

impl Proxy {
    /// Leaves a query to the attempts that may still be answered; the query fails if there is none.
    /// A query that has an error as its fallback response does not wait for overdue ones.
    pub(in crate::proxy) fn give_up(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) {
        let exchange = &self.exchanges[key];
        let has_response = exchange.has_error() && exchange.retry.has_fallback();
        let attempts = &exchange.attempts;
        let is_worth_waiting = if has_response {
            attempts.is_any_in_time()
        } else {
            attempts.open().next().is_some()
        };
        if !is_worth_waiting {
            self.fail(key, Outcome::UpstreamFailed, cx);
        }
    }

    /// Ends a query without a final answer. Delivers its fallback response if there is one;
    /// otherwise responds with a stale answer, or with SERVFAIL and the reason.
    pub(in crate::proxy) fn fail(&mut self, key: ExchangeKey, outcome: Outcome, cx: &mut Cx<'_>) {
        let exchange = &self.exchanges[key];
        let has_errors_of_all = outcome == Outcome::UpstreamFailed && exchange.has_error();
        if exchange.is_parked() || exchange.retry.is_late() && !has_errors_of_all {
            self.fail_alone_for_time(key);
        }
        let exchange = &mut self.exchanges[key];
        if exchange.coalescing == Coalescing::Following {
            // The exchange that it follows may still get an answer.
            exchange.retry.set_fails_alone();
        }
        let (purpose, pool, has_error) = (exchange.purpose, exchange.pool, exchange.has_error());
        if let Some(fallback) = exchange.retry.take_fallback() {
            let answer = Message::parse(&fallback).expect("a fallback was parsed before");
            let is_cut = has_error && is_truncated(&answer);
            if !is_cut || !self.end_with_stale(key, cx) {
                self.deliver_unchecked(key, &answer, cx);
            }
            return;
        }
        if self.end_with_stale(key, cx) {
            return;
        }
        let failure = self.exchanges[key].last_failure;
        let failure = failure.or_else(|| self.last_failure(pool, cx.now));
        let error = failure.map_or(NO_ANSWER, FailureKind::extended_error);
        let exchange = &self.exchanges[key];
        if exchange.is_for_answer() && !exchange.retry.fails_alone() {
            let (question, by) = (exchange.query.question(), (pool, exchange.asked_at));
            self.failures.on_failure(question, by, error, cx.now);
        }
        match purpose {
            Purpose::Client { .. } => {
                let (completion, asked) =
                    exchange.completion(outcome).expect("a client is waiting");
                let servfail = (Rcode::SERVFAIL, Some(error));
                completion.respond_error(&asked, servfail, &mut self.counters, cx);
                self.end(key, outcome, cx.now);
            }
            Purpose::Cache | Purpose::Mapping(_) | Purpose::Probe | Purpose::Validation { .. } => {
                self.end(key, outcome, cx.now);
            }
            Purpose::Bootstrap(upstream, rr_type) => {
                self.end(key, outcome, cx.now);
                let failed = Followup::LookupFailed(upstream, rr_type);
                self.followups.push(failed);
            }
        }
    }

    /// Returns the reason why a pool cannot be used, if there is one.
    fn last_failure(&self, pool: PoolIndex, now: Instant) -> Option<FailureKind> {
        let missing = self.next_address(pool, now).map(|_| FailureKind::NoAddress);
        self.upstreams.last_failure(pool).or(missing)
    }

    /// Ends an exchange that has its response: removes it, and leaves its open attempts and its
    /// followers to follow-ups.
    pub(in crate::proxy) fn end(&mut self, key: ExchangeKey, outcome: Outcome, now: Instant) {
        let exchange = &self.exchanges[key];
        if exchange.is_retest || exchange.parked.is_some() || !exchange.is_for_client() {
            self.release(key, now);
        }
        let exchange = &mut self.exchanges[key];
        let (attempts, is_answered) = (exchange.attempts.open(), exchange.is_answered);
        let (coalescing, followers) =
            (exchange.coalescing, std::mem::take(&mut exchange.followers));
        let is_any_open = exchange.attempts.is_any_open();
        let question = is_any_open.then(|| QuestionHash::of(exchange.query.question()));
        let buffer = exchange.query.take_buffer();
        let has_client = exchange.is_for_client();
        let (is_held, pool) = (exchange.holder.is_some(), exchange.pool);
        if is_held {
            self.query_shares.remove(pool, key);
        }
        self.without_client -= usize::from(!has_client);
        self.exchanges.discard(key);
        self.keep_buffer(buffer);
        if let Some(question) = question {
            for attempt in attempts {
                let abandoned = Abandoned {
                    question,
                    is_answered,
                };
                self.abandon(attempt, outcome, abandoned, now);
            }
        }
        if let Coalescing::Leading(hash) = coalescing {
            self.remove_leader(hash);
        }
        // The exchange gave no answer to these followers.
        if !followers.is_empty() {
            self.dispatch_later(followers);
        }
    }

    /// Releases what an exchange holds that is more than an ordinary query of a client: a retest, a
    /// refresh, a parked answer, or a question of our own.
    fn release(&mut self, key: ExchangeKey, now: Instant) {
        let exchange = &self.exchanges[key];
        let question = exchange.query.question();
        if exchange.is_retest {
            self.failures.end_retest(question);
        }
        match (exchange.purpose, exchange.lookup) {
            (Purpose::Cache, Some(lookup)) if !exchange.is_answered => {
                self.cache.on_refresh_failed(question, lookup, now);
            }
            (Purpose::Mapping(waiter), _) => {
                let failure = exchange.last_failure;
                if let Some(waiter) = self.exchanges.get_mut(waiter) {
                    waiter.last_failure = failure.or(waiter.last_failure);
                }
                self.followups.push(Followup::Mapped(waiter));
            }
            (Purpose::Validation { .. }, _) => {
                if exchange.is_parked() {
                    self.on_own_question_unverified(key);
                }
                self.followups.push(Followup::OwnQuestionEnded(key));
            }
            _ => {}
        }
        self.take_parked(key);
    }

    /// Abandons the attempts of an exchange whose answer has arrived.
    pub(in crate::proxy) fn abandon_attempts(&mut self, key: ExchangeKey, now: Instant) {
        let exchange = &mut self.exchanges[key];
        let abandoned = Abandoned {
            question: QuestionHash::of(exchange.query.question()),
            is_answered: true,
        };
        for attempt in exchange.attempts.take_open() {
            self.abandon(attempt, Outcome::Answered, abandoned, now);
        }
    }

    /// Keeps the buffer of a query that has ended for a later query.
    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        if self.spare_buffers.len() < self.config.limits.spare_buffers {
            buffer.clear();
            buffer.shrink_to(PLAIN_QUERY_LEN_MAX);
            self.spare_buffers.push(buffer);
        }
    }
}
