//! Serve-stale: stale answers for lack of fresh ones (RFC 8767).
//!
//! The first client that asks for an expired answer waits for upstream for a short time, and then
//! gets the stale answer. Later clients get the stale answer at once, and upstream is asked again
//! after each pause.

use super::Purpose;
use super::coalesce::Coalescing;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::cache::{Entry, Recall};
use crate::proxy::keys::ExchangeKey;
use crate::proxy::outcome::Outcome;

impl Proxy {
    /// Schedules the stale answer to a query for the case that upstream has no answer soon.
    pub(in crate::proxy) fn schedule_stale(&mut self, key: ExchangeKey, now: Instant) {
        let at = now + self.config.timeouts.stale_delay;
        let exchanges = &self.exchanges;
        self.by_stale_deadline
            .push((at, key), exchanges.len(), |(_, key)| {
                exchanges.contains(*key)
            });
    }

    /// Returns the next query that gets its stale answer, and the time at which it does.
    pub(in crate::proxy) fn next_stale(&mut self) -> Option<(Instant, ExchangeKey)> {
        let exchanges = &self.exchanges;
        let first = self
            .by_stale_deadline
            .front(|(_, key)| exchanges.contains(*key));
        first.copied()
    }

    /// Serves the stale answers that are due. Upstream may still answer, for later queries.
    pub(in crate::proxy) fn serve_stale_due(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, key)) = self.next_stale()
            && at <= cx.now
        {
            self.by_stale_deadline.pop();
            if let Some(entry) = self.use_stale(key, cx.now) {
                self.respond_from_cache(key, entry, Outcome::Stale, cx);
                self.continue_for_cache(key, cx.now);
            }
        }
    }

    /// Returns the stale answer to a query, if there is one, and puts it in use.
    fn use_stale(&mut self, key: ExchangeKey, now: Instant) -> Option<Entry> {
        let exchange = &self.exchanges[key];
        let lookup = exchange.lookup?;
        let question = exchange.query.question();
        let (Recall::Stale(entry) | Recall::StaleInUse { entry, .. }) =
            self.cache.recall(question, lookup, now)
        else {
            return None;
        };
        if !exchange.retry.fails_alone() {
            self.cache.on_stale_served(entry, now);
        }
        Some(entry)
    }

    /// Ends an exchange with its stale answer as the response. Returns whether there was a stale
    /// answer.
    pub(in crate::proxy) fn end_with_stale(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) -> bool {
        let Some(entry) = self.use_stale(key, cx.now) else {
            return false;
        };
        self.respond_from_cache(key, entry, Outcome::Stale, cx);
        self.end(key, Outcome::Stale, cx.now);
        true
    }

    /// Continues an exchange for the cache and its followers after its client got a stale answer.
    fn continue_for_cache(&mut self, key: ExchangeKey, now: Instant) {
        let exchange = &mut self.exchanges[key];
        if let Coalescing::Leading(_) = exchange.coalescing {
            exchange.purpose = Purpose::Cache;
            self.without_client += 1;
        } else {
            self.end(key, Outcome::Stale, now);
        }
    }
}
