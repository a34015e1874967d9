//! Everything that is decided about queries, and nothing that is done about it.
//!
//! A [`Proxy`] takes what happened and the time at which it did, and asks for actions. It has no
//! socket and no clock, and its only chance is the seed that it is given: the same calls give the
//! same actions.
//!
//! Call the `handle_` methods with what happens, perform the actions in the [`Outbox`] after each,
//! and call [`Proxy::handle_timeout`] when the time that [`Proxy::poll_timeout`] names has come.
//! Every query for which [`Proxy::handle_query`] says that a response follows gets exactly one
//! [`Action::Respond`], within [`Timeouts::deadline`], and ends in exactly one [`Outcome`].
//!
//! - `admission`: which messages of clients are forwarded
//! - `exchange`: one query that is being answered
//! - `dispatch`: how it finds its way
//! - `upstream`: the resolvers, and which of their links is taken
//! - `health`, `latency`: how a resolver is doing, and how fast it is
//! - `idle`: for how long it keeps connections that nobody uses
//! - `memory`: what failed of late
//! - `hedge`: how often a query may be sent twice
//! - `link`: one connection, its ids and its timer
//! - `watch`: what follows from how connections behave

mod admission;
mod counters;
mod dispatch;
mod exchange;
mod health;
mod hedge;
mod idle;
mod keys;
mod latency;
mod link;
mod memory;
mod outbox;
mod upstream;
mod watch;
mod wishes;

pub use admission::Transport;
pub use counters::{Counters, Discard, Outcome};
pub use keys::{LinkKey, UpstreamIndex};
pub use outbox::{Action, Outbox};

use crate::arena::{Arena, Fifo};
use crate::config::{Config, Limits, Timeouts};
use crate::failure::{Failure, FailureKind};
use crate::origin::Origin;
use crate::random::{Random, SEED_LEN};
use crate::time::Instant;
use crate::wire::response::write_answer;
use crate::wire::{Flags, Header, Message, Opcode, Query};

use admission::{Admission, admit};
use exchange::{Attempt, Exchange};
use hedge::Hedges;
use keys::ExchangeKey;
use link::{Due, Stage};
use memory::Memory;
use upstream::Upstreams;

/// The decisions about queries. See the [module](self).
#[derive(Debug)]
pub struct Proxy {
    timeouts: Timeouts,
    limits: Limits,
    exchanges: Arena<Exchange>,
    /// Every exchange in the order of deadlines.
    by_deadline: Fifo<(Instant, ExchangeKey)>,
    /// Exchanges that wait for a link, in turn.
    waiting: Fifo<ExchangeKey>,
    upstreams: Upstreams,
    hedges: Hedges,
    memory: Memory,
    random: Random,
    spare_buffers: Vec<Vec<u8>>,
    counters: Counters,
}

impl Proxy {
    /// A proxy that has done nothing yet.
    pub fn new(config: &Config, seed: &[u8; SEED_LEN]) -> Self {
        Self {
            timeouts: config.timeouts,
            limits: config.limits,
            exchanges: Arena::default(),
            by_deadline: Fifo::default(),
            waiting: Fifo::default(),
            upstreams: Upstreams::new(
                config.policy,
                config.upstreams.iter().map(ToString::to_string),
            ),
            hedges: Hedges::new(&config.limits),
            memory: Memory::default(),
            random: Random::new(seed),
            spare_buffers: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Whether another query can be taken. Without room it is refused at once, so whoever can wait
    /// should. Nor is there room while links are up and queries queue for them for long: each would
    /// be sent too late to be answered in time.
    pub fn has_room(&mut self, now: Instant) -> bool {
        self.exchanges.len() < self.limits.inflight && !self.is_backed_up(now)
    }

    /// Queries that wait for their answer.
    pub fn inflight(&self) -> usize {
        self.exchanges.len()
    }

    /// Connections upstream, those that are being opened included.
    pub fn links(&self) -> usize {
        self.upstreams.links_len()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What an upstream is called in the log.
    pub fn upstream_label(&self, upstream: UpstreamIndex) -> &str {
        self.upstreams.label(upstream)
    }

    /// Takes a message from a client. Returns whether a response follows: it does for every query.
    pub fn handle_query(
        &mut self,
        origin: Origin,
        transport: Transport,
        message: &[u8],
        now: Instant,
        outbox: &mut Outbox,
    ) -> bool {
        let admission = admit(message, transport);
        match (&admission, transport) {
            (Admission::Ignore, _) => self.counters.ignored += 1,
            (_, Transport::Udp) => self.counters.udp_queries += 1,
            (_, Transport::Tcp { .. }) => self.counters.tcp_queries += 1,
        }
        match admission {
            Admission::Ignore => return false,
            Admission::Reject(rejection) => self.reject(origin, &rejection, outbox),
            Admission::Forward(message, reception) => {
                let deadline = transport.came(now) + self.timeouts.deadline();
                self.forward(origin, &message, reception, deadline, now, outbox);
            }
        }
        true
    }

    /// Takes note that a link is connected and its peer authenticated, by an earlier session or
    /// anew.
    pub fn handle_link_up(
        &mut self,
        key: LinkKey,
        is_resumed: bool,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some((upstream, is_recovered)) = self.upstreams.on_up(key, now) else {
            return;
        };
        let (session, counter) = if is_resumed {
            ("resumed", &mut self.counters.resumed_handshakes)
        } else {
            ("new", &mut self.counters.full_handshakes)
        };
        *counter += 1;
        let label = self.upstreams.label(upstream);
        log::debug!("upstream {label}: connected, session {session}");
        if is_recovered {
            self.memory.forget();
        }
        self.serve_waiting(now, outbox);
    }

    /// Takes note that the host was suspended: connections are unlikely to have survived that.
    /// Those without queries are closed, and the queries of the others are sent by other ways, too.
    pub fn handle_resume(&mut self, now: Instant, outbox: &mut Outbox) {
        log::info!("the host was suspended: connecting anew");
        let up = self.upstreams.links();
        let up = up.filter(|(_, link)| link.stage == Stage::Up);
        let up: Vec<LinkKey> = up.map(|(key, _)| key).collect();
        for key in up {
            self.retire(key, now, outbox);
            while self.hurry(key, now, outbox) {}
            self.close_if_done(key, outbox);
        }
    }

    /// Takes a message from upstream.
    pub fn handle_reply(&mut self, key: LinkKey, reply: &[u8], now: Instant, outbox: &mut Outbox) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        let place = Header::parse(reply).and_then(|header| link.place(header.id));
        let Some(place) = place else {
            self.counters.count_discard(Discard::UnknownId);
            return;
        };
        let Some(exchange_key) = link.sent()[place].exchange() else {
            self.on_answer(key, place, now);
            self.counters.count_discard(Discard::Late);
            return;
        };
        let exchange = self
            .exchanges
            .get(exchange_key.0)
            .expect("a link knows who still waits");
        match Message::parse(reply) {
            Ok(message) if answers(&message, &exchange.query) => {
                outbox.respond(exchange.origin, |out| {
                    write_answer(out, &exchange.asked(), &message);
                });
                self.memory.on_answer(exchange.query.question());
                self.on_answer(key, place, now);
                self.end(exchange_key, Outcome::Answered, now, outbox);
                self.after_answer(key, now, outbox);
            }
            Ok(_) => self.counters.count_discard(Discard::Mismatch),
            Err(_) => {
                self.counters.count_discard(Discard::Malformed);
                let id = link.sent()[place].id;
                let attempt = Attempt { link: key, id };
                link.on_useless_answer(place, now);
                self.lose_attempt(exchange_key, attempt, FailureKind::Protocol, now, outbox);
                self.after_answer(key, now, outbox);
            }
        }
    }

    /// Takes note that a link ended, or could not be had, for a reason that lies with the other
    /// side.
    pub fn handle_link_down(
        &mut self,
        key: LinkKey,
        failure: &Failure,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some(link) = self.upstreams.remove(key) else {
            return;
        };
        let was_opening = link.stage == Stage::Opening;
        let was_idle = link.sent().is_empty();
        let counts = was_opening
            || failure.kind != FailureKind::Closed
            || !(was_idle || link.has_answered());
        self.counters.count_failure(failure.kind);
        if was_idle && link.stage == Stage::Up && failure.kind == FailureKind::Closed {
            self.upstreams.on_idle_closed(&link, now);
        }
        if counts {
            self.on_failure(link.upstream, failure, link.opened_at(), now);
        } else {
            log::debug!(
                "upstream {}: {failure}",
                self.upstreams.label(link.upstream)
            );
        }
        for sent in link.sent() {
            let Some(exchange_key) = sent.exchange() else {
                continue;
            };
            if let Some(exchange) = self.exchanges.get_mut(exchange_key.0) {
                exchange.wishes.fresh_since = Some(now);
            }
            let attempt = Attempt {
                link: key,
                id: sent.id,
            };
            self.lose_attempt(exchange_key, attempt, failure.kind, now, outbox);
        }
        if was_opening {
            self.fail_waiting_without_way(now, outbox);
        }
        self.serve_waiting(now, outbox);
    }

    /// When [`Proxy::handle_timeout`] has something to do.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let exchanges = &self.exchanges;
        let first = self.by_deadline.front(|(_, key)| exchanges.contains(key.0));
        let deadline = first.map(|(deadline, _)| *deadline);
        let link = self
            .upstreams
            .links()
            .filter_map(|(_, link)| Some(self.next_due(link)?.0))
            .min();
        let retry = if self.waiting.is_empty() {
            None
        } else {
            self.upstreams.next_retry(&self.timeouts)
        };
        [deadline, link, retry].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        while let Some((key, due)) = self.first_due(now) {
            match due {
                Due::Late => self.on_late(key),
                Due::HandshakeTimeout => {
                    self.close(key, FailureKind::HandshakeTimeout, now, outbox);
                }
                Due::Stalled { since } => self.on_stalled(key, since, now, outbox),
                Due::Slow => self.hedge(key, now, outbox),
                Due::Overdue => drop(self.hurry(key, now, outbox)),
                Due::Idle => {
                    self.upstreams.remove(key);
                    outbox.close(key);
                }
            }
        }
        while let Some(key) = self.first_expired(now) {
            let outcome = match self.exchange(key).times_sent() {
                0 => Outcome::UpstreamFailed,
                _ => Outcome::TimedOut,
            };
            self.fail(key, outcome, now, outbox);
        }
        self.upstreams.end_pauses(now, &self.timeouts);
        self.serve_waiting(now, outbox);
    }

    /// Whether queries have waited for room on links that are up for longer than one is worth.
    fn is_backed_up(&mut self, now: Instant) -> bool {
        let Some(first) = self.first_waiting() else {
            return false;
        };
        let waiting_since = self.exchange(first).waiting_since;
        let up_since = self.upstreams.up_since();
        up_since.is_some_and(|since| now - since.max(waiting_since) > self.timeouts.attempt)
    }

    fn next_due(&self, link: &link::Link) -> Option<(Instant, Due)> {
        link.next_due(
            &self.timeouts,
            self.upstreams.slow_after(link, &self.timeouts),
            self.upstreams.idle_limit(link, &self.timeouts),
        )
    }

    fn first_due(&self, now: Instant) -> Option<(LinkKey, Due)> {
        self.upstreams.links().find_map(|(key, link)| {
            let (at, due) = self.next_due(link)?;
            (at <= now).then_some((key, due))
        })
    }

    fn first_expired(&mut self, now: Instant) -> Option<ExchangeKey> {
        let exchanges = &self.exchanges;
        let (deadline, key) = *self
            .by_deadline
            .front(|(_, key)| exchanges.contains(key.0))?;
        (deadline <= now).then_some(key)
    }
}

/// Whether `reply` is a response to `query`, its id aside.
fn answers(reply: &Message<'_>, query: &Query) -> bool {
    let flags = reply.header().flags;
    flags.contains(Flags::QR)
        && flags.opcode() == Opcode::QUERY
        && reply
            .question()
            .is_some_and(|question| question.matches(query.question()))
}
