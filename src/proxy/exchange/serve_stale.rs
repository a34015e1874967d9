//! Answers that are no longer fresh, for want of better ones (RFC 8767).
//!
//! Whoever asks for such a one waits for upstream first, though not for long. From then on it is
//! what everybody gets at once, and every now and then upstream is asked whether there is a better.

use super::Purpose;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::Outbox;
use crate::proxy::cache::{Entry, Recall};
use crate::proxy::counters::Outcome;
use crate::proxy::keys::ExchangeKey;

impl Proxy {
    /// Lets a query whose answer is no longer fresh have that if there is no other soon.
    pub(in crate::proxy) fn watch_stale(&mut self, key: ExchangeKey, now: Instant) {
        let at = now + self.config.timeouts.stale;
        let exchanges = &self.exchanges;
        self.by_stale_deadline
            .push((at, key), exchanges.len(), |(_, key)| {
                exchanges.contains(key.0)
            });
    }

    /// The next query that has waited long enough for a fresh answer, and when.
    pub(in crate::proxy) fn next_stale(&mut self) -> Option<(Instant, ExchangeKey)> {
        let exchanges = &self.exchanges;
        let first = self
            .by_stale_deadline
            .front(|(_, key)| exchanges.contains(key.0));
        first.copied()
    }

    /// Answers those that have waited long enough. Upstream may still answer, for those to come.
    pub(in crate::proxy) fn serve_stale_due(&mut self, now: Instant, outbox: &mut Outbox) {
        while let Some((at, key)) = self.next_stale()
            && at <= now
        {
            self.by_stale_deadline.pop();
            if let Some(entry) = self.stand_in(key, now) {
                self.respond_from_cache(key, entry, Outcome::Stale, now, outbox);
                self.leave_to_cache(key, now, outbox);
            }
        }
    }

    /// What there is instead of an answer that upstream does not have.
    pub(in crate::proxy) fn stand_in(&mut self, key: ExchangeKey, now: Instant) -> Option<Entry> {
        let exchange = self.exchanges.get(key.0).expect("who asks is there");
        let sought = exchange.sought?;
        let question = exchange.query.question();
        let (Recall::Stale(entry) | Recall::StaleInUse { entry, .. }) =
            self.cache.recall(question, sought, now)
        else {
            return None;
        };
        self.cache.on_used_instead(entry, now);
        Some(entry)
    }

    /// A client has got what there is: the answer is for the cache alone, and for those who follow.
    fn leave_to_cache(&mut self, key: ExchangeKey, now: Instant, outbox: &mut Outbox) {
        let exchange = self.exchange_mut(key);
        if exchange.leads_as.is_none() {
            return self.end(key, Outcome::Stale, now, outbox);
        }
        exchange.asker = Purpose::Cache;
        self.ours += 1;
    }

    /// Sends the client, if one asked, a response out of the cache.
    pub(in crate::proxy) fn respond_from_cache(
        &mut self,
        key: ExchangeKey,
        entry: Entry,
        outcome: Outcome,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let exchange = self.exchanges.get(key.0).expect("who asks is there");
        let (cache, counters) = (&self.cache, &mut self.counters);
        if let Some((ending, owed)) = exchange.ending(outcome) {
            ending.respond(counters, now, outbox, |out| cache.write(entry, &owed, out));
        }
    }
}
