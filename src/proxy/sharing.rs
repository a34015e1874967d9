//! Queries for the same that come while one is being answered: they wait for that answer.
//!
//! Each is an exchange of its own, with its own deadline, that follows the first. If that one
//! fails, the last to come leads.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Proxy;
use super::exchange::Exchange;
use super::keys::ExchangeKey;
use super::outbox::Outbox;
use crate::time::Instant;

/// The exchanges that others may follow, by a hash of what they ask.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    by_hash: HashMap<u64, ExchangeKey, BuildHasherDefault<AsItIs>>,
}

impl Leaders {
    fn shrink(&mut self) {
        if self.by_hash.is_empty() && self.by_hash.capacity() > 64 {
            self.by_hash.shrink_to_fit();
        }
    }
}

/// Takes a hash for what it is.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
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
    /// Lets an exchange follow one that asks the same, if there is one, and others follow it if
    /// there is none. Returns whether it follows.
    pub(super) fn follow(&mut self, key: ExchangeKey) -> bool {
        let exchange = self.exchange(key);
        let Some(variant) = exchange.variant else {
            return false;
        };
        let question = exchange.query.question();
        let hash = self.cache.hash(question, variant);
        let leader = self.leaders.by_hash.get(&hash).copied();
        let asks_same = |leader: &Exchange| {
            leader.variant == Some(variant) && leader.query.question().matches(question)
        };
        match leader.filter(|leader| asks_same(self.exchange(*leader))) {
            Some(leader) => {
                self.exchange_mut(leader).followers.push(key);
                true
            }
            // Another question may have the same hash, and the place.
            None if leader.is_some() => false,
            None => {
                self.leaders.by_hash.insert(hash, key);
                self.exchange_mut(key).leads_as = Some(hash);
                false
            }
        }
    }

    /// Takes note that an exchange which has ended leads no more. Those that followed and have got
    /// nothing from it look for an answer themselves.
    pub(super) fn hand_over(&mut self, ended: &mut Exchange, now: Instant, outbox: &mut Outbox) {
        if let Some(hash) = ended.leads_as {
            self.leaders.by_hash.remove(&hash);
            self.leaders.shrink();
        }
        let mut followers = std::mem::take(&mut ended.followers);
        followers.retain(|key| self.exchanges.contains(key.0));
        // The last to come has the most time left, so that the others can follow it.
        followers.reverse();
        for key in followers {
            self.seek(key, now, outbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Key;
    use crate::options::{self, Command};
    use crate::origin::Origin;
    use crate::proxy::{Action, Transport};
    use crate::wire::Message;
    use std::time::Duration;

    struct Scene {
        proxy: Proxy,
        outbox: Outbox,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self::with(&["-u192.0.2.1"])
        }

        fn with(arguments: &[&str]) -> Self {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let Ok(Command::Run(config)) = options::parse(&arguments) else {
                panic!("the options are right");
            };
            let mut scene = Self {
                proxy: Proxy::new(&config, &[3; 32]),
                outbox: Outbox::default(),
                now: Instant::after_start(Duration::from_secs(100)),
            };
            // So that a link is up.
            scene.ask("first", true);
            scene
        }

        /// Asks for a name, and lets the upstream be reached. Returns the queries that it is sent.
        fn ask(&mut self, name: &str, is_recursive: bool) -> usize {
            let mut bytes = vec![0, 1, u8::from(is_recursive), 0, 0, 1, 0, 0, 0, 0, 0, 0];
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.extend(name.as_bytes());
            bytes.extend([0, 0, 1, 0, 1]);
            let origin = Origin {
                session: Key::from_usize(1),
                peer: ([127, 0, 0, 1], 4711).into(),
                local: None,
            };
            let (proxy, outbox, now) = (&mut self.proxy, &mut self.outbox, self.now);
            outbox.clear();
            proxy.handle_query(origin, Transport::Udp, &bytes, now, outbox);
            self.bring_up();
            self.sent().len()
        }

        fn bring_up(&mut self) {
            let actions = self.outbox.actions().iter();
            let opened = actions.filter_map(|action| match action {
                Action::OpenLink { link, .. } => Some(*link),
                _ => None,
            });
            for link in opened.collect::<Vec<_>>() {
                let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
                proxy.handle_link_up(link, false, self.now, outbox);
            }
        }

        fn sent(&self) -> Vec<(crate::proxy::LinkKey, Vec<u8>)> {
            let sent = self
                .outbox
                .actions()
                .iter()
                .filter_map(|action| match action {
                    Action::Send { link, message } => {
                        Some((*link, self.outbox.bytes(message).to_vec()))
                    }
                    _ => None,
                });
            sent.collect()
        }

        /// Lets upstream answer what it was sent last. Returns the responses.
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
    fn answers_to_those_who_want_no_recursion_are_for_them_alone() {
        let mut scene = Scene::new();
        assert_eq!((scene.ask("www", false), scene.answer()), (1, 1));
        assert_eq!((scene.ask("www", false), scene.ask("www", true)), (1, 1));
        // What others have been answered is for them, too.
        assert_eq!(scene.answer(), 1);
        assert_eq!(scene.ask("www", false), 0);
    }

    #[test]
    fn queries_for_the_same_are_one() {
        let mut scene = Scene::new();
        assert_eq!(scene.ask("www", true), 1);
        let sent = scene.sent();
        assert_eq!((scene.ask("WWW", true), scene.ask("web", true)), (0, 1));
        scene.outbox.clear();
        scene.outbox.send(sent[0].0, |out| out.extend(&sent[0].1));
        assert_eq!(scene.answer(), 2);
    }

    #[test]
    fn everybody_is_answered_before_anything_comes_of_it() {
        let mut scene = Scene::with(&["-u192.0.2.1", "-u192.0.2.2", "--policy=ordered"]);
        assert_eq!(scene.answer(), 1);
        // Whoever lets a query go unanswered is asked no more.
        scene.proxy.limits.link_abandoned = 0;
        assert_eq!((scene.ask("www", true), scene.ask("WWW", true)), (1, 0));
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
    fn hash_alone_makes_nobody_follow() {
        let mut scene = Scene::new();
        scene.ask("www", true);
        let by_hash = &mut scene.proxy.leaders.by_hash;
        let leader = *by_hash.values().last().unwrap();
        let variant = scene.proxy.exchange(leader).variant.unwrap();
        let other = b"\x05other\0\0\x01\0\x01";
        let question = crate::wire::Question::parse(other, 0).unwrap();
        let hash = scene.proxy.cache.hash(question, variant);
        scene.proxy.leaders.by_hash.insert(hash, leader);
        assert_eq!(scene.ask("other", true), 1);
    }

    #[test]
    fn many_leaders_leave_no_memory_behind() {
        let mut scene = Scene::new();
        for number in 0..2_000 {
            scene.ask(&format!("name{number}"), true);
        }
        assert!(scene.proxy.leaders.by_hash.len() > 1_000);
        scene.outbox.clear();
        let end = scene.now + Duration::from_secs(5);
        scene.proxy.handle_timeout(end, &mut scene.outbox);
        assert!(scene.proxy.leaders.by_hash.is_empty());
        assert!(scene.proxy.leaders.by_hash.capacity() <= 64);
    }
}
