//! What follows from how connections behave: answers come, or come late, or not at all.

use super::Proxy;
use super::counters::Outcome;
use super::exchange::Attempt;
use super::keys::{EndpointKey, LinkKey, UpstreamIndex};
use super::outbox::Outbox;
use super::upstream::link::{Link, Stage};
use crate::config::Scheme;
use crate::failure::{Failure, FailureKind};
use crate::time::Instant;

impl Proxy {
    /// Nobody waits for this answer any more, since the query had this outcome, and an answer from
    /// elsewhere if `is_answered`. A link that has let a query run out of time and answered nothing
    /// since is sent no more, nor is one from which too many answers are outstanding.
    pub(super) fn abandon(
        &mut self,
        attempt: Attempt,
        outcome: Outcome,
        is_answered: bool,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some(link) = self.upstreams.link_mut(attempt.link) else {
            return;
        };
        let silence = link.abandon(attempt.id, is_answered, now);
        // It may have been sent shortly before its end.
        let is_mute = outcome == Outcome::TimedOut && silence >= self.config.timeouts.attempt / 4;
        let is_behind = link.abandoned() > self.config.limits.link_abandoned;
        let (endpoint, scheme, since) = (link.endpoint, link.scheme, link.silent_since());
        if link.stage == Stage::Up && (is_mute || is_behind) {
            if let Some(since) = since.filter(|since| now - *since > self.config.timeouts.slow) {
                self.on_failure(endpoint, scheme, &FailureKind::Stalled.into(), since, now);
            }
            self.retire(attempt.link, now, outbox);
        }
        self.close_if_done(attempt.link, outbox);
    }

    /// What there is to do when a link has got room.
    pub(super) fn after_answer(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) {
        self.close_if_done(key, outbox);
        self.serve_all_waiting(now, outbox);
    }

    /// Closes a link that takes no query any more once nobody waits for it.
    pub(super) fn close_if_done(&mut self, key: LinkKey, outbox: &mut Outbox) {
        if self.upstreams.link(key).is_some_and(Link::is_done) {
            self.upstreams.remove(key);
            outbox.close(key);
        }
    }

    /// Closes a link that keeps us waiting.
    pub(super) fn close(
        &mut self,
        key: LinkKey,
        kind: FailureKind,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        outbox.close(key);
        self.handle_link_down(key, &kind.into(), now, outbox);
    }

    /// Lets a link take no new queries.
    pub(super) fn retire(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) {
        if let Some(one_too_many) = self.upstreams.retire(key) {
            self.close(one_too_many, FailureKind::Stalled, now, outbox);
        }
    }

    /// Takes note of an answer to the query at `place` of those that a link was sent, and whether
    /// it is of use to a client.
    pub(super) fn on_answer(&mut self, key: LinkKey, place: usize, is_useful: bool, now: Instant) {
        let link = self.upstreams.link_mut(key);
        let link = link.expect("who answers is there");
        let took = link.on_answer(place, now);
        let (endpoint, opened_at) = (link.endpoint, link.opened_at());
        let upstreams = &mut self.upstreams;
        if upstreams.on_answer(endpoint, opened_at, took, is_useful, now) {
            self.forget_failures(endpoint, now);
        }
    }

    /// An address is out of trouble: what failed because of that may not fail again.
    pub(super) fn forget_failures(&mut self, endpoint: EndpointKey, now: Instant) {
        for pool in self.upstreams.pools_with(endpoint) {
            self.memory.forget(pool, now);
        }
        self.cache.on_recovery(now);
    }

    /// A link takes long to come up: lets whoever waits for it go another way, or have the error
    /// that is there.
    pub(super) fn on_late(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        link.note_late();
        let endpoint = link.endpoint;
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        for pool in self.upstreams.pools_of(upstream) {
            self.reconsider_errors(pool, upstream, now, outbox);
        }
    }

    /// Nothing has come on a link since a query was sent then: sends it no more, and its queries by
    /// other ways, too. It is kept while they may still be answered.
    pub(super) fn on_stalled(
        &mut self,
        key: LinkKey,
        since: Instant,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let (endpoint, scheme) = (link.endpoint, link.scheme);
        let kind = FailureKind::Stalled;
        // That a datagram gets lost says little of who others are answered by.
        let address = self.upstreams.endpoint(endpoint);
        if scheme != Scheme::Udp || address.is_silent_since(since) {
            self.count_failure(address.upstream, kind);
            self.on_failure(endpoint, scheme, &kind.into(), since, now);
        }
        self.retire(key, now, outbox);
        while self.hurry(key, now, outbox) {}
        self.close_if_done(key, outbox);
    }

    /// A query takes longer than is usual: sends it by another way, too, as often as that may be
    /// done. If there was no answer since, the link may be dead, and this goes for all its queries.
    pub(super) fn hedge(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) {
        while let Some(link) = self.upstreams.link_mut(key) {
            let endpoint = link.endpoint;
            let Some((id, exchange_key)) = link.note_slow() else {
                return;
            };
            let is_silent = link.is_silent();
            let attempt = Attempt { link: key, id };
            let upstream = self.upstreams.endpoint(endpoint).upstream;
            let exchange = self.exchange_mut(exchange_key);
            exchange.wishes.rather_not.insert(upstream);
            let may_be_sent = exchange.may_be_sent() && !exchange.is_waiting;
            if exchange.has_error() && self.upstreams.is_in_trouble(endpoint) {
                // It was tried, and is still in trouble.
                self.exchange_mut(exchange_key).on_overdue(attempt);
                self.ask_elsewhere(exchange_key, upstream, now, outbox);
            } else if may_be_sent
                && self.has_other_way(exchange_key, key, now)
                && self.hedges.take()
            {
                self.counters.hedges += 1;
                self.exchange_mut(exchange_key).on_overdue(attempt);
                self.dispatch(exchange_key, now, outbox);
            }
            if !is_silent {
                return;
            }
        }
    }

    /// The oldest query of a link that has not been given up on has waited for long enough: makes
    /// another attempt. Returns whether there was one.
    pub(super) fn hurry(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) -> bool {
        let Some(link) = self.upstreams.link_mut(key) else {
            return false;
        };
        let endpoint = link.endpoint;
        let Some((id, exchange_key)) = link.note_overdue() else {
            return false;
        };
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        let exchange = self.exchange_mut(exchange_key);
        exchange.on_overdue(Attempt { link: key, id });
        exchange.last_failure = Some(FailureKind::Stalled);
        if exchange.is_relied_on() || exchange.is_waiting {
            return true;
        }
        if exchange.has_error() {
            self.ask_elsewhere(exchange_key, upstream, now, outbox);
        } else if exchange.may_be_sent() {
            self.dispatch(exchange_key, now, outbox);
        }
        true
    }

    pub(super) fn count_failure(&mut self, upstream: UpstreamIndex, kind: FailureKind) {
        self.counters.count_failure(kind);
        self.upstreams.stats_of_mut(upstream).failures[kind as usize] += 1;
    }

    /// Takes note that something has been wrong since then with links of this kind to an address.
    pub(super) fn on_failure(
        &mut self,
        endpoint: EndpointKey,
        scheme: Scheme,
        failure: &Failure,
        since: Instant,
        now: Instant,
    ) {
        self.upstreams
            .on_failure(endpoint, scheme, failure, since, now, &mut self.random);
        self.doubt_address(endpoint, failure.kind);
    }
}
