//! The query engine, without sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotproxy::base::arena::Key;
use dotproxy::base::origin::Origin;
use dotproxy::base::time::Instant;
use dotproxy::config::Config;
use dotproxy::options::{self, Command};
use dotproxy::proxy::{Action, ClientTransport, LinkKey, Outbox, Proxy};

use crate::Once;
use crate::messages::{query, reply};

/// The number of queries in flight together.
pub(crate) const BURST: u32 = 32;

/// A proxy with one upstream.
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) outbox: Outbox,
    pub(crate) now: Instant,
    /// The queries sent to the upstream that have no reply yet.
    pub(crate) sent: Vec<(LinkKey, [u8; 2])>,
}

/// Returns the settings of a command line.
pub(crate) fn config(arguments: &[&str]) -> Config {
    let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
    let Ok(Command::Run(config)) = options::parse(&arguments) else {
        panic!("{arguments:?}");
    };
    *config
}

impl Scene {
    fn new(cache_size: &str) -> Self {
        Self::with(&config(&["-u192.0.2.1", "--cache-size", cache_size]))
    }

    pub(crate) fn with(config: &Config) -> Self {
        Self {
            proxy: Proxy::new(config, &[7; 32]),
            outbox: Outbox::default(),
            now: Instant::after_start(Duration::from_secs(100)),
            sent: Vec::new(),
        }
    }

    fn ask(&mut self, query: &[u8]) {
        self.receive(query);
        self.perform_actions();
    }

    /// Hands over the query of a client.
    pub(crate) fn receive(&mut self, query: &[u8]) {
        let origin = Origin {
            session: Key::from_usize(7),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)),
            local: None,
        };
        let (now, outbox) = (self.now, &mut self.outbox);
        let is_owed = self
            .proxy
            .handle_query(origin, ClientTransport::Udp, query, now, outbox);
        assert!(is_owed);
    }

    /// Delivers replies to the sent queries in order. Only the ids of `answers` are adapted.
    fn answer(&mut self, answers: &mut [Vec<u8>]) {
        assert_eq!(self.sent.len(), answers.len());
        let sent = std::mem::take(&mut self.sent);
        for ((link, id), answer) in sent.iter().zip(answers) {
            answer[..2].copy_from_slice(id);
            let (now, outbox) = (self.now, &mut self.outbox);
            self.proxy.handle_reply(*link, answer, now, outbox);
            self.perform_actions();
        }
        self.sent = sent;
        self.sent.clear();
    }

    fn perform_actions(&mut self) {
        let mut opened = None;
        for action in self.outbox.actions() {
            match action {
                Action::OpenLink { link, .. } => opened = Some(*link),
                Action::Send { link, message } => {
                    let message = self.outbox.bytes(message);
                    self.sent.push((*link, [message[0], message[1]]));
                }
                Action::Respond { .. } | Action::CloseLink { .. } => {}
            }
        }
        self.outbox.clear();
        if let Some(link) = opened {
            let (now, outbox) = (self.now, &mut self.outbox);
            self.proxy.handle_link_up(link, false, now, outbox);
            self.perform_actions();
        }
    }
}

/// Returns queries for `count` names, and the reply to each.
fn names(count: u32) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let query = |number| query(1, &format!("name{number:05}.example.net"), 1, Some(1232));
    let queries: Vec<Vec<u8>> = (0..count).map(query).collect();
    let answers = queries.iter().map(|query| reply(query, 1)).collect();
    (queries, answers)
}

/// Benchmarks an answer from the cache.
pub(crate) fn cached() -> Once {
    let mut scene = Scene::new("1m");
    let (queries, mut answers) = names(1);
    scene.ask(&queries[0]);
    scene.answer(&mut answers);
    Box::new(move || {
        scene.ask(&queries[0]);
        assert!(scene.sent.is_empty());
    })
}

/// Benchmarks a long answer from the cache, which is truncated for the client.
pub(crate) fn truncated() -> Once {
    let mut scene = Scene::new("1m");
    let asked = query(1, "long.example.net", 1, Some(1232));
    scene.ask(&asked);
    scene.answer(&mut [reply(&asked, 4_000)]);
    Box::new(move || {
        scene.ask(&asked);
        assert!(scene.sent.is_empty());
    })
}

/// Benchmarks queries to the upstream and their replies, without a cache.
pub(crate) fn forwarded() -> Once {
    in_bursts(Scene::new("0"), 64 * BURST)
}

/// Benchmarks the same with a full cache: every answer evicts others.
pub(crate) fn kept() -> Once {
    in_bursts(Scene::new("64k"), 64 * BURST)
}

/// Queries `count` names in turn, a burst at a time.
fn in_bursts(mut scene: Scene, count: u32) -> Once {
    let (queries, mut answers) = names(count);
    let burst = BURST as usize;
    let mut start = 0;
    Box::new(move || {
        let turn = start..start + burst;
        queries[turn.clone()].iter().for_each(|one| scene.ask(one));
        scene.answer(&mut answers[turn]);
        start = (start + burst) % queries.len();
    })
}
