//! Whether queries can be answered, as far as is known.
//!
//! While somebody wants to know, a query of our own goes upstream whenever no answer has come for a
//! while: who asks for nothing else learns of the end of an upstream, and of its return, all the
//! same.

use std::fmt;
use std::time::Duration;

use super::Proxy;
use super::exchange::{Asker, Exchange};
use super::keys::{ExchangeKey, PoolIndex};
use super::outbox::Outbox;
use crate::time::Instant;
use crate::wire::Query;
use crate::wire::question::Type;

/// Why queries cannot be answered.
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
            Self::Down => "no upstream can be used for now",
        })
    }
}

/// Our own queries to find out.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Until when somebody wants to know.
    wanted_until: Instant,
    /// The last one, and when it was sent.
    last: Option<(ExchangeKey, Instant)>,
}

/// How long somebody who has asked wants to know.
const INTEREST: Duration = Duration::from_secs(60);

/// How old an answer may be that says how things stand.
const FRESH: Duration = Duration::from_secs(2);

/// The shortest pause between two of our own queries.
const PAUSE: Duration = Duration::from_millis(500);

impl Proxy {
    /// Whether queries can be answered. Somebody wants to know, and will again.
    pub fn check_readiness(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Unready> {
        self.probes.wanted_until = now + INTEREST;
        self.probe_if_due(now, outbox);
        let pool = self.main_pool();
        if self.upstreams.last_answer(pool).is_none() {
            Err(Unready::Unanswered)
        } else if !self.upstreams.is_usable(pool) {
            Err(Unready::Down)
        } else {
            Ok(())
        }
    }

    /// When a query of our own is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        let is_under_way = |(key, _): &(ExchangeKey, Instant)| self.exchanges.contains(key.0);
        if self.probes.last.as_ref().is_some_and(is_under_way) {
            return None;
        }
        let after_last = self.probes.last.map(|(_, at)| at + PAUSE);
        let last_answer = self.upstreams.last_answer(self.main_pool());
        let after_answer = last_answer.map(|at| at + FRESH);
        let at = after_last.max(after_answer).unwrap_or_default();
        (at < self.probes.wanted_until).then_some(at)
    }

    pub(super) fn probe_if_due(&mut self, now: Instant, outbox: &mut Outbox) {
        if now >= self.probes.wanted_until {
            self.probes = Probes::default();
        }
        if self.next_probe().is_none_or(|at| at > now) {
            return;
        }
        let (name, pool) = self.routes.known_name();
        let query = Query::new(&name, Type::NS);
        let deadline = now + self.config.timeouts.deadline();
        let exchange = Exchange::new(Asker::Probe, pool, query, (now, deadline));
        let key = self.start(exchange, now, outbox);
        self.probes.last = Some((key, now));
        self.ask_for_addresses(Some(pool), now, outbox);
    }

    /// The pool that is asked for all names, or the first where all have their own.
    fn main_pool(&self) -> PoolIndex {
        self.routes.known_name().1
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;
    use crate::failure::FailureKind;
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
    fn it_is_found_out_without_a_client() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        assert_eq!(scene.proxy.poll_timeout(), None, "nobody wants to know");
        assert_eq!(scene.readiness(), Err(Unready::Unanswered));
        scene.bring_up();
        let link = scene.reply_to_probe();
        assert_eq!(scene.readiness(), Ok(()));
        assert!(scene.outbox.is_empty(), "that is fresh");
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
        // It comes back.
        scene.wait(Duration::from_secs(1));
        scene.bring_up();
        scene.reply_to_probe();
        assert_eq!(scene.readiness(), Ok(()));
    }

    #[test]
    fn nobody_is_asked_when_nobody_wants_to_know() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        assert!(scene.readiness().is_err());
        for _ in 0..200 {
            scene.wait(Duration::from_secs(1));
        }
        assert_eq!(scene.proxy.poll_timeout(), None);
        assert!(scene.outbox.is_empty());
    }
}
