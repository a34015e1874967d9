//! Coalescing: a query for a question that is already being asked waits for that answer.
//!
//! Each query is an exchange of its own with its own deadline, which follows the first exchange. If
//! the first exchange fails, the follower with the most time takes its place.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Exchange;
use super::trace::StepKind;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::followups::Followup;
use crate::proxy::keys::ExchangeKey;

/// The exchanges that others may follow, by a hash of their question and variant.
#[derive(Debug, Default)]
pub(in crate::proxy) struct InFlight {
    by_hash: HashMap<u64, ExchangeKey, BuildHasherDefault<IdentityHasher>>,
}

impl InFlight {
    fn shrink(&mut self) {
        if self.by_hash.is_empty() && self.by_hash.capacity() > 64 {
            self.by_hash.shrink_to_fit();
        }
    }
}

/// The relation of an exchange to others for the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Coalescing {
    /// The exchange follows no other one, and no other one may follow it.
    Alone,
    /// The exchange may be followed by others, which find it under this hash.
    Leading(u64),
    /// The exchange waits for the answer to another one.
    Following,
}

/// A hasher that returns a hash unchanged.
#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("hashes are numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Proxy {
    /// Attaches an exchange to another one for the same question, if there is one; otherwise lets
    /// later exchanges follow it. Returns whether the exchange is attached.
    pub(in crate::proxy) fn coalesce(&mut self, key: ExchangeKey, now: Instant) -> bool {
        let exchange = &self.exchanges[key];
        let Some(lookup) = exchange.lookup else {
            return false;
        };
        let question = exchange.query.question();
        let hash = lookup.hash(question.rr_type());
        let leader = self.in_flight.by_hash.get(&hash).copied();
        let asks_same = |leader: &Exchange| {
            leader.lookup == Some(lookup) && leader.query.question().matches(question)
        };
        match leader.filter(|leader| asks_same(&self.exchanges[*leader])) {
            Some(leader) => {
                self.exchanges[leader].followers.push(key);
                let follower = &mut self.exchanges[key];
                follower.coalescing = Coalescing::Following;
                follower.tracer.on_wait(StepKind::Sharing, now);
                true
            }
            // The hash is in use by another question.
            None if leader.is_some() => {
                self.exchanges[key].coalescing = Coalescing::Alone;
                false
            }
            None => {
                self.in_flight.by_hash.insert(hash, key);
                self.exchanges[key].coalescing = Coalescing::Leading(hash);
                false
            }
        }
    }

    /// Records that no exchange may follow the one with this hash any more.
    pub(in crate::proxy) fn remove_leader(&mut self, hash: u64) {
        self.in_flight.by_hash.remove(&hash);
        self.in_flight.shrink();
    }

    /// Handles a failure that is due to the time or the room of one query: it is not cached, and
    /// the followers leave for which `may_succeed` holds.
    pub(in crate::proxy) fn fail_alone(
        &mut self,
        key: ExchangeKey,
        may_succeed: impl Fn(&Exchange) -> bool,
    ) {
        let exchange = &mut self.exchanges[key];
        exchange.retry.set_fails_alone();
        let followers = std::mem::take(&mut exchange.followers);
        let exchanges = &self.exchanges;
        let leaves = |follower: &ExchangeKey| exchanges.get(*follower).is_some_and(&may_succeed);
        let (leaving, others): (Vec<_>, Vec<_>) = followers.into_iter().partition(leaves);
        self.exchanges[key].followers = others;
        for follower in &leaving {
            let follower = &mut self.exchanges[*follower];
            follower.coalescing = Coalescing::Alone;
            // Its time may end before it is dispatched.
            follower.retry.set_late(true);
        }
        self.dispatch_later(leaving);
    }

    /// [`Proxy::fail_alone`] for lack of time: the followers leave that have more.
    pub(in crate::proxy) fn fail_alone_for_time(&mut self, key: ExchangeKey) {
        let deadline = self.exchanges[key].deadline;
        self.fail_alone(key, |follower| follower.deadline > deadline);
    }

    /// Dispatches exchanges that have followed another one, in a follow-up.
    pub(in crate::proxy) fn dispatch_later(&mut self, mut followers: Vec<ExchangeKey>) {
        // The others follow the one that has the most time.
        let exchanges = &self.exchanges;
        followers.sort_by_key(|key| exchanges.get(*key).map(|one| one.deadline));
        for key in followers.into_iter().rev() {
            self.followups.push(Followup::Dispatch(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::origin::ClientProtocol;
    use crate::proxy::client::admission::NO_ANSWER;
    use crate::proxy::testing::Scene;
    use crate::proxy::{Action, ClientTransport};
    use crate::wire::{Message, Rcode};
    use std::time::Duration;

    /// Creates a scene with a link that is up.
    fn scene(arguments: &[&str]) -> Scene {
        let mut scene = Scene::with(arguments);
        scene.ask_for("first", true);
        scene
    }

    const ONE: &[&str] = &["-u192.0.2.1"];

    impl Scene {
        /// Asks for a name and brings up links. Returns the number of queries sent upstream.
        fn ask_for(&mut self, name: &str, is_recursive: bool) -> usize {
            let mut bytes = vec![0, 1, u8::from(is_recursive), 0, 0, 1, 0, 0, 0, 0, 0, 0];
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.extend(name.as_bytes());
            bytes.extend([0, 0, 1, 0, 1]);
            self.ask(&bytes, ClientTransport::Udp);
            self.bring_up();
            self.sent().len()
        }

        /// Answers the queries that were sent last. Returns the number of responses.
        fn answer(&mut self) -> usize {
            for (link, mut bytes) in self.sent() {
                let end = Message::parse(&bytes).unwrap().records_start();
                bytes.truncate(end);
                (bytes[2], bytes[3], bytes[7], bytes[11]) = (0x81, 0x80, 1, 0);
                bytes.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
                let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
                outbox.clear();
                proxy.handle_reply(link, &bytes, self.now, outbox);
            }
            let responses = self.outbox.actions().iter();
            let is_response = |action: &&Action| matches!(action, Action::Respond { .. });
            responses.filter(is_response).count()
        }
    }

    #[test]
    fn answer_to_a_query_without_rd_is_not_shared() {
        let mut scene = scene(ONE);
        assert_eq!((scene.ask_for("www", false), scene.answer()), (1, 1));
        assert_eq!(
            (scene.ask_for("www", false), scene.ask_for("www", true)),
            (1, 1)
        );
        // An answer to a query with RD is also for queries without RD.
        assert_eq!(scene.answer(), 1);
        assert_eq!(scene.ask_for("www", false), 0);
    }

    #[test]
    fn queries_for_the_same_question_coalesce() {
        let mut scene = scene(ONE);
        assert_eq!(scene.ask_for("www", true), 1);
        let sent = scene.sent();
        assert_eq!(
            (scene.ask_for("WWW", true), scene.ask_for("web", true)),
            (0, 1)
        );
        scene.outbox.clear();
        scene.outbox.send(sent[0].0, |out| out.extend(&sent[0].1));
        assert_eq!(scene.answer(), 2);
    }

    #[test]
    fn followers_are_answered_before_the_exchange_ends() {
        let mut scene = scene(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        assert_eq!(scene.answer(), 1);
        // A link with an abandoned query gets no more queries.
        scene.proxy.config.limits.link_abandoned = 0;
        assert_eq!(
            (scene.ask_for("www", true), scene.ask_for("WWW", true)),
            (1, 0)
        );
        scene.outbox.clear();
        while scene.sent().is_empty() {
            scene.now = scene.proxy.poll_timeout().unwrap();
            scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
            scene.bring_up();
        }
        assert_eq!(scene.answer(), 2);
        let is_response = |action: &Action| matches!(action, Action::Respond { .. });
        let [first, second, third] = scene.outbox.actions() else {
            panic!("{:?}", scene.outbox.actions());
        };
        assert!(is_response(first) && is_response(second));
        assert!(matches!(third, Action::CloseLink { .. }));
    }

    #[test]
    fn hash_collision_does_not_coalesce() {
        let mut scene = scene(ONE);
        scene.ask_for("www", true);
        let by_hash = &mut scene.proxy.in_flight.by_hash;
        let leader = *by_hash.values().last().unwrap();
        let lookup = scene.proxy.exchanges[leader].lookup.unwrap();
        let other = b"\x05other\0\0\x01\0\x01";
        let question = crate::wire::Question::parse(other, 0).unwrap();
        let hash = lookup.hash(question.rr_type());
        scene.proxy.in_flight.by_hash.insert(hash, leader);
        assert_eq!(scene.ask_for("other", true), 1);
    }

    #[test]
    fn long_answer_to_many_clients_is_sent_in_parts() {
        const CLIENTS: usize = 300;
        let mut scene = scene(ONE);
        // A type with data of any length.
        let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\xff\0\0\x01";
        let transport = ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at: scene.now,
            protocol: ClientProtocol::Tcp,
        };
        let mut sent = Vec::new();
        for _ in 0..CLIENTS {
            assert!(scene.offer(query, transport));
            sent.extend(scene.sent());
        }
        let (link, mut bytes) = sent.pop().unwrap();
        assert!(sent.is_empty());
        bytes.truncate(Message::parse(&bytes).unwrap().records_start());
        (bytes[2], bytes[3], bytes[7], bytes[11]) = (0x81, 0x80, 1, 0);
        bytes.extend(b"\xc0\x0c\xff\0\0\x01\0\0\0\x3c\xea\x60");
        bytes.resize(bytes.len() + 60_000, 0);
        scene.outbox.clear();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_reply(link, &bytes, scene.now, outbox);
        let mut responses = 0;
        while responses < CLIENTS {
            let messages = outbox.actions().iter().filter_map(|action| match action {
                Action::Respond { message, .. } => Some(message.len()),
                _ => None,
            });
            let lens: Vec<usize> = messages.collect();
            assert!(lens.iter().all(|len| *len > 60_000));
            assert!((1..4).contains(&lens.len()), "{} at a time", lens.len());
            responses += lens.len();
            outbox.clear();
            let due = proxy.poll_timeout().unwrap();
            assert_eq!(due == scene.now, responses < CLIENTS);
            proxy.handle_timeout(scene.now, outbox);
        }
        // The exchange of the first query, which is unrelated, is left.
        assert_eq!((responses, proxy.inflight()), (CLIENTS, 1));
    }

    #[test]
    fn failure_of_a_follower_is_not_cached() {
        let mut scene = scene(ONE);
        assert_eq!(scene.answer(), 1);
        // The second query waits before it is read, so that its time ends first.
        let received_at = scene.now;
        let deadline = scene.proxy.config.timeouts.deadline;
        scene.now += deadline.saturating_sub(Duration::from_millis(10));
        assert_eq!(scene.ask_for("www", true), 1);
        let sent = scene.sent();
        let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01";
        let transport = ClientTransport::Stream {
            idle: Duration::from_secs(10),
            received_at,
            protocol: ClientProtocol::Tcp,
        };
        assert!(scene.offer(query, transport));
        scene.outbox.clear();
        scene.now += Duration::from_millis(11);
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        let is_response = |action: &&Action| matches!(action, Action::Respond { .. });
        let responses = scene.outbox.actions().iter().filter(is_response);
        assert_eq!(responses.count(), 1);
        scene.outbox.clear();
        // A third query follows the first one, and both get its answer.
        assert_eq!(scene.ask_for("WWW", true), 0);
        scene.outbox.clear();
        scene.outbox.send(sent[0].0, |out| out.extend(&sent[0].1));
        assert_eq!(scene.answer(), 2);
    }

    const WWW: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01";

    impl Scene {
        /// Sends a query for `www` that has little time left.
        fn offer_late(&mut self, milliseconds_left: u64) {
            let deadline = self.proxy.config.timeouts.deadline;
            let waited = deadline.saturating_sub(Duration::from_millis(milliseconds_left));
            let transport = ClientTransport::Stream {
                idle: Duration::from_secs(10),
                received_at: self.now.saturating_sub(waited),
                protocol: ClientProtocol::Tcp,
            };
            self.offer(WWW, transport);
        }

        /// [`Self::offer_late`], with links that come up at once. Returns the number of queries sent
        /// upstream.
        fn ask_late(&mut self, milliseconds_left: u64) -> usize {
            self.offer_late(milliseconds_left);
            self.bring_up();
            self.sent().len()
        }

        /// Lets time pass. Returns the response codes and the number of queries sent upstream.
        fn after(&mut self, milliseconds: u64) -> (Vec<Rcode>, usize) {
            self.outbox.clear();
            self.now += Duration::from_millis(milliseconds);
            self.proxy.handle_timeout(self.now, &mut self.outbox);
            self.bring_up();
            (self.rcodes(), self.sent().len())
        }

        /// Passes a reply without records to the first query that was sent.
        fn reply_first(&mut self, flags: [u8; 2]) {
            let (link, mut reply) = self.sent().remove(0);
            reply.truncate(Message::parse(&reply).unwrap().records_start());
            (reply[2], reply[3], reply[11]) = (flags[0], flags[1], 0);
            self.outbox.clear();
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            proxy.handle_reply(link, &reply, self.now, outbox);
            self.bring_up();
        }
    }

    const FAILED: &[Rcode] = &[Rcode::SERVFAIL];

    #[test]
    fn failure_of_a_query_that_was_read_late_is_not_cached() {
        // With a link that is up, and before a link is up.
        for is_up in [true, false] {
            let mut scene = Scene::with(ONE);
            if is_up {
                scene.ask_for("first", true);
                assert_eq!(scene.answer(), 1);
            }
            scene.offer_late(10);
            assert_eq!(scene.sent().len(), usize::from(is_up));
            let link = (!is_up).then(|| scene.opened_last());
            assert_eq!(scene.after(11).0, FAILED);
            scene.outbox.clear();
            if let Some(link) = link {
                let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
                proxy.handle_link_up(link, false, scene.now, outbox);
            }
            assert_eq!((scene.ask_for("www", true), scene.answer()), (1, 1));
        }
    }

    #[test]
    fn follower_with_the_most_time_takes_the_lead() {
        let mut scene = scene(ONE);
        assert_eq!(scene.answer(), 1);
        assert_eq!(scene.ask_late(50), 1);
        assert_eq!((scene.ask_for("www", true), scene.ask_late(80)), (0, 0));
        assert_eq!(scene.after(51), (FAILED.to_vec(), 1));
        let sent = scene.sent();
        // The query of the new leader stays when the time of its follower has passed.
        assert_eq!(scene.after(30), (FAILED.to_vec(), 0));
        scene.outbox.clear();
        assert_eq!(scene.reply_to(sent[0].0, &sent[0].1), 1);
    }

    #[test]
    fn error_is_not_shared_if_a_late_query_had_no_time_for_another_upstream() {
        let mut scene = scene(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        assert_eq!(scene.answer(), 1);
        assert_eq!(scene.ask_late(50), 1);
        let (link, query) = scene.sent().remove(0);
        assert_eq!(scene.ask_for("www", true), 0);
        scene.outbox.clear();
        scene.outbox.send(link, |out| out.extend(&query));
        scene.reply_first([0x81, 0x82]);
        assert_eq!((scene.rcodes(), scene.sent().len()), (vec![], 1));
        // The follower has more time and is sent again.
        assert_eq!(scene.after(51), (FAILED.to_vec(), 1));
        assert_eq!(scene.ask_for("www", true), 0);
    }

    /// Creates a scene in which the failure of `www` has expired.
    fn failed_scene() -> Scene {
        let mut scene = scene(ONE);
        assert_eq!(scene.answer(), 1);
        let question = Message::parse(WWW).unwrap().question().unwrap();
        let by = (scene.proxy.routes.main_pool(), scene.now);
        let failures = &mut scene.proxy.failures;
        failures.on_failure(question, by, NO_ANSWER, scene.now);
        scene.after(2_000);
        scene
    }

    #[test]
    fn query_that_is_read_late_does_not_retest_a_question() {
        let mut scene = failed_scene();
        assert_eq!((scene.ask_late(50), scene.rcodes()), (0, FAILED.to_vec()));
        // The failure was long ago.
        scene.after(100_000);
        assert_eq!((scene.ask_late(1_900), scene.rcodes()), (1, vec![]));
        scene.outbox.clear();
        assert_eq!((scene.ask_for("www", true), scene.rcodes()), (0, vec![]));
    }

    #[test]
    fn failures_of_a_late_query_and_its_follower_in_one_turn_are_not_cached() {
        let mut scene = scene(ONE);
        assert_eq!(scene.answer(), 1);
        assert_eq!((scene.ask_late(20), scene.ask_late(21)), (1, 0));
        assert_eq!(scene.after(22).0, [Rcode::SERVFAIL; 2]);
        scene.outbox.clear();
        assert_eq!((scene.ask_for("www", true), scene.rcodes()), (1, vec![]));
    }

    #[test]
    fn query_with_time_retests_a_question_beside_a_late_one() {
        let mut scene = failed_scene();
        assert_eq!(scene.ask_late(50), 0);
        scene.outbox.clear();
        assert_eq!(scene.ask_for("www", true), 1);
    }

    #[test]
    fn error_of_every_upstream_is_cached_and_shared_after_a_late_query() {
        let mut scene = scene(ONE);
        assert_eq!(scene.answer(), 1);
        assert_eq!(scene.ask_late(1_000), 1);
        let sent = scene.sent();
        assert_eq!(scene.ask_late(1_500), 0);
        scene.outbox.clear();
        scene.outbox.send(sent[0].0, |out| out.extend(&sent[0].1));
        scene.reply_first([0x81, 0x82]);
        assert_eq!(scene.rcodes(), [Rcode::SERVFAIL; 2]);
        scene.outbox.clear();
        assert_eq!(
            (scene.ask_for("www", true), scene.rcodes()),
            (0, FAILED.to_vec())
        );
    }

    #[test]
    fn truncated_answer_to_a_late_query_is_no_failure_for_all() {
        let mut scene = scene(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        assert_eq!(scene.answer(), 1);
        assert_eq!(scene.ask_late(50), 1);
        scene.reply_first([0x83, 0x80]);
        assert_eq!(scene.sent().len(), 1);
        assert_eq!(scene.after(51).0, FAILED);
        scene.outbox.clear();
        assert_eq!((scene.ask_for("www", true), scene.rcodes()), (1, vec![]));
    }

    /// Creates a scene in which the answer for `www` is stale.
    fn stale_scene(arguments: &[&str]) -> Scene {
        let mut scene = scene(arguments);
        assert_eq!(scene.answer(), 1);
        assert_eq!((scene.ask_for("www", true), scene.answer()), (1, 1));
        for _ in 0..8 {
            scene.after(10_000);
            scene.ask_for("first", true);
            scene.answer();
        }
        scene.outbox.clear();
        scene
    }

    #[test]
    fn late_query_does_not_extend_the_use_of_a_stale_answer() {
        // A query whose time has passed, one that is sent, and a follower whose time ends before or
        // together with that of the query that it follows.
        for milliseconds_left in [&[0][..], &[10], &[20, 10], &[10, 11]] {
            let mut scene = stale_scene(ONE);
            for milliseconds_left in milliseconds_left {
                scene.ask_late(*milliseconds_left);
            }
            let mut rcodes = scene.rcodes();
            while rcodes.len() < milliseconds_left.len() {
                rcodes.extend(scene.after(12).0);
            }
            assert!(rcodes.iter().all(|rcode| *rcode == Rcode::NOERROR));
            scene.after(100);
            assert_eq!(scene.ask_for("www", true), 1, "{milliseconds_left:?}");
        }
    }

    #[test]
    fn error_for_a_late_query_does_not_extend_the_use_of_a_stale_answer() {
        let mut scene = stale_scene(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        assert_eq!(scene.ask_late(50), 1);
        scene.reply_first([0x81, 0x82]);
        assert_eq!((scene.rcodes(), scene.sent().len()), (vec![], 1));
        assert_eq!(scene.after(51).0, [Rcode::NOERROR]);
        scene.after(100);
        assert_eq!((scene.ask_for("www", true), scene.rcodes()), (1, vec![]));
    }

    #[test]
    fn many_leaders_leave_no_memory_behind() {
        let mut scene = scene(ONE);
        for number in 0..2_000 {
            scene.ask_for(&format!("name{number}"), true);
        }
        assert!(scene.proxy.in_flight.by_hash.len() > 1_000);
        scene.outbox.clear();
        let end = scene.now + Duration::from_secs(5);
        scene.proxy.handle_timeout(end, &mut scene.outbox);
        assert!(scene.proxy.in_flight.by_hash.is_empty());
        assert!(scene.proxy.in_flight.by_hash.capacity() <= 64);
    }
}
