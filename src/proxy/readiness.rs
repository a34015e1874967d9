//! The readiness check.
//!
//! While readiness is checked, a probe goes upstream if no answer has come for 2 seconds. It finds
//! the end of an outage, and the start of one, when no client asks. The same happens for some
//! seconds after the metrics are read, and pools with an upstream in outage are also probed, so
//! that a network without traffic does not keep showing an old state.

use std::fmt;
use std::time::Duration;

use super::Proxy;
use super::actions::{Cx, Outbox};
use super::exchange::{Exchange, Purpose};
use super::keys::{ExchangeKey, PoolIndex};
use crate::base::time::Instant;
use crate::wire::Query;
use crate::wire::question::Type;

/// The reason why queries cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// No upstream has answered yet.
    Unanswered,
    /// No upstream can be used for now.
    Down,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unanswered => "no upstream has answered yet",
            Self::Down => "no upstream is available",
        })
    }
}

/// The state of the readiness probes.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// The time until which readiness checks cause probes.
    readiness_until: Instant,
    /// The time until which reads of the metrics cause probes.
    metrics_until: Instant,
    /// The last probe of each pool, and the time at which it was sent.
    last_by_pool: Vec<Option<(ExchangeKey, Instant)>>,
}

/// Time for which probes continue after a readiness check.
const READINESS_INTEREST: Duration = Duration::from_secs(60);

/// Time for which probes continue after the metrics were read: scrapes may be minutes apart.
const METRICS_INTEREST: Duration = Duration::from_secs(5);

/// Maximum age of an answer that shows the current state.
const FRESH: Duration = Duration::from_secs(2);

/// Minimum time between two probes of a pool.
const PAUSE: Duration = Duration::from_millis(500);

impl Probes {
    /// Returns the time until which probes are sent.
    fn until(&self) -> Instant {
        self.readiness_until.max(self.metrics_until)
    }
}

impl Proxy {
    /// Returns whether queries can be answered. Probes upstream for a while if no answer is recent.
    pub fn check_readiness(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Unready> {
        let cx = &mut Cx { now, outbox };
        self.probes.readiness_until = cx.now + READINESS_INTEREST;
        self.probe_if_due(cx);
        self.settle(cx);
        self.readiness()
    }

    /// Returns whether queries can be answered, without probing.
    pub fn readiness(&self) -> Result<(), Unready> {
        let pool = self.main_pool();
        if self.upstreams.last_answer(pool).is_none() {
            Err(Unready::Unanswered)
        } else if !self.upstreams.is_usable(pool) {
            Err(Unready::Down)
        } else {
            Ok(())
        }
    }

    /// Returns whether queries could be answered at some time since the start.
    pub fn was_ready(&self) -> bool {
        self.was_ready || self.upstreams.last_answer(self.main_pool()).is_some()
    }

    /// Probes the upstreams in the metrics that have not answered for a while.
    pub fn on_metrics_read(&mut self, now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        self.probes.metrics_until = cx.now + METRICS_INTEREST;
        self.probe_if_due(cx);
        self.settle(cx);
    }

    /// Returns the time at which the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        if self.probes.until() == Instant::default() {
            return None;
        }
        let pools = self.pools().filter_map(|pool| self.next_probe_of(pool));
        pools.min()
    }

    /// Returns the time at which the next probe of a pool is due, if its state is of interest.
    fn next_probe_of(&self, pool: PoolIndex) -> Option<Instant> {
        let until = if pool == self.routes.main_pool() {
            self.probes.until()
        } else if self.upstreams.has_outage_in(pool) {
            self.probes.metrics_until
        } else {
            return None;
        };
        let last = self.probes.last_by_pool.get(pool.0).copied().flatten();
        if last.is_some_and(|(key, _)| self.exchanges.contains(key)) {
            return None;
        }
        let after_last = last.map(|(_, at)| at + PAUSE);
        let last_answer = self.upstreams.last_answer(pool);
        let after_answer = last_answer.map(|at| at + FRESH);
        let at = after_last.max(after_answer).unwrap_or_default();
        (at < until).then_some(at)
    }

    pub(super) fn probe_if_due(&mut self, cx: &mut Cx<'_>) {
        if self.probes.until() <= cx.now {
            self.probes = Probes::default();
            return;
        }
        for pool in self.pools() {
            if self.next_probe_of(pool).is_some_and(|at| at <= cx.now) {
                self.probe(pool, cx);
            }
        }
    }

    fn probe(&mut self, pool: PoolIndex, cx: &mut Cx<'_>) {
        let name = self.routes.probe_name(Some(pool));
        let query = Query::new(&name, Type::NS);
        let deadline = cx.now + self.config.timeouts.deadline;
        let exchange = Exchange::new(Purpose::Probe, pool, query, (cx.now, deadline));
        let key = self.start(exchange, cx);
        let pools = self.waiting_by_pool.len();
        self.probes.last_by_pool.resize(pools, None);
        self.probes.last_by_pool[pool.0] = Some((key, cx.now));
        self.ask_for_addresses(Some(pool), cx);
    }

    /// Returns the pool for all names, or the first pool if every pool has its own names.
    fn main_pool(&self) -> PoolIndex {
        self.routes.main_pool()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;
    use crate::base::failure::FailureKind;
    use crate::proxy::LinkKey;

    impl Scene {
        fn readiness(&mut self) -> Result<(), Unready> {
            self.outbox.clear();
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            proxy.check_readiness(self.now, outbox)
        }

        fn reply_to_probe(&mut self) -> LinkKey {
            let (link, mut bytes) = self.sent().remove(0);
            (bytes[2], bytes[3]) = (0x81, 0x80);
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            outbox.clear();
            proxy.handle_reply(link, &bytes, self.now, outbox);
            link
        }

        fn wait(&mut self, duration: Duration) {
            self.now += duration;
            self.outbox.clear();
            self.proxy.handle_timeout(self.now, &mut self.outbox);
        }
    }

    #[test]
    fn readiness_is_known_without_a_client() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        assert_eq!(
            scene.proxy.poll_timeout(),
            None,
            "no timer without a readiness check"
        );
        assert_eq!(scene.readiness(), Err(Unready::Unanswered));
        scene.bring_up();
        let link = scene.reply_to_probe();
        assert_eq!(scene.readiness(), Ok(()));
        assert!(
            scene.outbox.is_empty(),
            "no probe while the last answer is recent"
        );
        scene.wait(FRESH);
        assert_eq!(scene.sent().len(), 1);
        assert_eq!(scene.readiness(), Ok(()));
        let failure = FailureKind::Closed.into();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_down(link, &failure, scene.now, outbox);
        let again = scene.opened_last();
        let failure = FailureKind::Connect.into();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_down(again, &failure, scene.now, outbox);
        assert_eq!(scene.readiness(), Err(Unready::Down));
        // The upstream comes back.
        scene.wait(Duration::from_secs(1));
        scene.bring_up();
        scene.reply_to_probe();
        assert_eq!(scene.readiness(), Ok(()));
    }

    #[test]
    fn end_of_an_outage_is_found_when_only_the_metrics_are_read() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        let read = |scene: &mut Scene| {
            scene.outbox.clear();
            let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
            proxy.on_metrics_read(scene.now, outbox);
            proxy.upstreams(scene.now).all(|upstream| upstream.is_up)
        };
        assert!(read(&mut scene), "an upstream without a failure is up");
        let link = scene.opened_last();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_down(link, &FailureKind::Connect.into(), scene.now, outbox);
        scene.wait(Duration::from_secs(60));
        // A scrape finds that the outage is over, and the next one shows it.
        assert!(!read(&mut scene));
        scene.bring_up();
        scene.reply_to_probe();
        scene.wait(Duration::from_secs(15));
        assert!(read(&mut scene));
        // A later scrape finds that the upstream is silent.
        for _ in 0..30 {
            scene.wait(Duration::from_millis(100));
        }
        assert!(!read(&mut scene));
        for _ in 0..300 {
            scene.wait(Duration::from_millis(100));
        }
        scene.outbox.clear();
        scene.wait(Duration::from_secs(1));
        assert!(
            scene.sent().is_empty(),
            "no probe long after the last scrape"
        );
    }

    #[test]
    fn probes_end_when_readiness_is_no_longer_checked() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        assert!(scene.readiness().is_err());
        for _ in 0..200 {
            scene.wait(Duration::from_secs(1));
        }
        assert_eq!(scene.proxy.poll_timeout(), None);
        assert!(scene.outbox.is_empty());
    }
}
