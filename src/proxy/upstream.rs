//! The resolvers: which one is asked, and over which of its links.

use std::time::Duration;

use crate::arena::Arena;
use crate::config::{Limits, Policy, Timeouts};
use crate::failure::{Failure, FailureKind};
use crate::random::Random;
use crate::time::Instant;

use super::health::{Change, Health};
use super::idle::Patience;
use super::keys::{LinkKey, UpstreamIndex};
use super::latency::Latency;
use super::link::{Link, Stage};
use super::wishes::Wishes;

/// How to see whether an upstream is out of trouble, while others serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Send a query on this link as well.
    Copy(LinkKey),
    /// Open a link.
    Open(UpstreamIndex),
}

/// Where a query can go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// On this link, which has room.
    Link(LinkKey),
    /// On a new link to this upstream, once it is up.
    Open(UpstreamIndex),
    /// On a link that comes up or gets room.
    Soon,
    /// Nowhere, until an upstream is tried again at this time.
    Later(Instant),
}

/// One resolver.
#[derive(Debug)]
struct Upstream {
    /// What it is called in the log.
    label: String,
    /// Its links that take queries or will: opening or up, oldest first.
    links: Vec<LinkKey>,
    health: Health,
    latency: Latency,
    patience: Patience,
    last_answer: Option<Instant>,
    /// How long it takes to connect, if that has come about.
    opening: Option<Duration>,
    /// When its latency, if it has not answered by then, should be found out anew.
    explore_at: Instant,
}

impl Upstream {
    /// Says when all is well again.
    fn tell(&self, change: Change) {
        if let Change::Recovery { failures } = change {
            let label = &self.label;
            log::warn!("upstream {label}: works again, after {failures} failures");
        }
    }
}

/// Every resolver and every link.
#[derive(Debug)]
pub(super) struct Upstreams {
    policy: Policy,
    in_order: Vec<Upstream>,
    /// Who is asked before whom.
    ranking: Vec<UpstreamIndex>,
    links: Arena<Link>,
    opening: usize,
}

impl Upstreams {
    pub(super) fn new(policy: Policy, labels: impl IntoIterator<Item = String>) -> Self {
        let upstream = |label| Upstream {
            label,
            links: Vec::new(),
            health: Health::default(),
            latency: Latency::default(),
            patience: Patience::default(),
            last_answer: None,
            opening: None,
            explore_at: Instant::default(),
        };
        let in_order: Vec<Upstream> = labels.into_iter().map(upstream).collect();
        Self {
            policy,
            ranking: (0..in_order.len()).map(UpstreamIndex).collect(),
            in_order,
            links: Arena::default(),
            opening: 0,
        }
    }

    /// What an upstream is called in the log.
    pub(super) fn label(&self, upstream: UpstreamIndex) -> &str {
        &self.in_order[upstream.0].label
    }

    pub(super) fn link(&self, key: LinkKey) -> Option<&Link> {
        self.links.get(key.0)
    }

    pub(super) fn link_mut(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.links.get_mut(key.0)
    }

    /// How many links there are.
    pub(super) fn links_len(&self) -> usize {
        self.links.len()
    }

    /// Every link, in no particular order.
    pub(super) fn links(&self) -> impl Iterator<Item = (LinkKey, &Link)> {
        self.links.iter().map(|(key, link)| (LinkKey(key), link))
    }

    /// The way for a query. Those who are well come first, and among them those who have not kept
    /// this query waiting; who is in trouble is better than nobody. Otherwise it goes by rank.
    pub(super) fn route(
        &self,
        wishes: &Wishes,
        now: Instant,
        timeouts: &Timeouts,
        limits: &Limits,
    ) -> Route {
        let all = || self.ranking.iter().copied();
        let is_well = |index: &UpstreamIndex| self.is_well(*index);
        let is_slow = |index: &UpstreamIndex| wishes.not_slow.contains(*index);
        let quick = all().filter(|index| is_well(index) && !is_slow(index));
        let slow = all().filter(|index| is_well(index) && is_slow(index));
        let route_to = |index| self.route_to(index, wishes.fresh_since, now, timeouts, limits);
        if let Some(route) = quick.chain(slow).find_map(route_to) {
            return route;
        }
        // What failed longest ago is the likeliest to work.
        let troubled = all().filter_map(|index| {
            let failed_at = self.in_order[index.0].health.failed_at();
            Some(((is_slow(&index), failed_at), route_to(index)?))
        });
        let likeliest = troubled.min_by_key(|(rank, _)| *rank);
        likeliest.map_or_else(
            || Route::Later(self.next_retry(timeouts).unwrap_or(now)),
            |(_, route)| route,
        )
    }

    /// Whether queries that wait should do so although there is no way for them now.
    pub(super) fn is_hopeful(&self, now: Instant, timeouts: &Timeouts) -> bool {
        let is_hopeful = |upstream: &Upstream| upstream.health.is_hopeful(now, timeouts);
        self.in_order.iter().any(is_hopeful)
    }

    /// Whether nothing is known to be wrong with an upstream, nor with every link to it, nor with
    /// any since it last answered.
    fn is_well(&self, index: UpstreamIndex) -> bool {
        let upstream = &self.in_order[index.0];
        let is_doubtful = |key: &LinkKey| self.link(*key).is_some_and(Link::is_doubtful);
        let are_doubtful = !upstream.links.is_empty() && upstream.links.iter().all(is_doubtful);
        let is_silent = |key: &LinkKey| {
            let link = self.link(*key).filter(|link| link.is_silent());
            let since = link.and_then(Link::silent_since);
            since.is_some_and(|since| upstream.last_answer.is_none_or(|answer| answer <= since))
        };
        upstream.health.is_well() && !are_doubtful && !upstream.links.iter().any(is_silent)
    }

    fn route_to(
        &self,
        index: UpstreamIndex,
        fresh_since: Option<Instant>,
        now: Instant,
        timeouts: &Timeouts,
        limits: &Limits,
    ) -> Option<Route> {
        let upstream = &self.in_order[index.0];
        let is_good = |link: &Link| {
            !link.is_doubtful() && fresh_since.is_none_or(|since| link.up_since() >= since)
        };
        if let Some(link) = self.link_with_room(upstream, is_good, limits) {
            return Some(Route::Link(link));
        }
        if self.is_opening(upstream) {
            return Some(Route::Soon);
        }
        // Others would have come first, so no other is left.
        let closed_until = upstream.health.closed_until(timeouts.backoff_max_asked);
        let may_be_opened = closed_until.is_none_or(|until| until <= now);
        if may_be_opened && upstream.links.len() < limits.links_per_upstream {
            let has_turn = self.opening < limits.handshakes;
            return Some(if has_turn {
                Route::Open(index)
            } else {
                Route::Soon
            });
        }
        match self.link_with_room(upstream, |_| true, limits) {
            Some(link) => Some(Route::Link(link)),
            None if upstream.links.is_empty() => None,
            None => Some(Route::Soon),
        }
    }

    /// Whether a link is being opened that does not take long.
    fn is_opening(&self, upstream: &Upstream) -> bool {
        let is_opening = |link: &Link| link.stage == Stage::Opening && !link.is_late();
        let links = upstream.links.iter().filter_map(|key| self.link(*key));
        links.into_iter().any(is_opening)
    }

    /// The oldest link with room that is good enough: filling it first keeps queries together in
    /// few records and lets the others fall idle.
    fn link_with_room(
        &self,
        upstream: &Upstream,
        is_good: impl Fn(&Link) -> bool,
        limits: &Limits,
    ) -> Option<LinkKey> {
        upstream.links.iter().copied().find(|&key| {
            let link = self
                .link(key)
                .expect("an upstream lists links that are there");
            link.stage == Stage::Up && link.waited_for() < limits.link_inflight && is_good(link)
        })
    }

    /// Whether any link has room.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        let has_room = |upstream| {
            let link = self.link_with_room(upstream, |_| true, limits);
            link.is_some()
        };
        self.in_order.iter().any(has_room)
    }

    /// Since when any link has been up, if one is.
    pub(super) fn up_since(&self) -> Option<Instant> {
        let up = self
            .links
            .iter()
            .filter(|(_, link)| link.stage == Stage::Up);
        up.map(|(_, link)| link.up_since()).min()
    }

    /// How to see whether an upstream other than that of the link `busy`, which serves, is out of
    /// trouble or, where that decides, how fast it is. The latter only if `may_explore` allows it.
    pub(super) fn next_trial(
        &mut self,
        busy: LinkKey,
        may_explore: impl FnOnce() -> bool,
        now: Instant,
        timeouts: &Timeouts,
        limits: &Limits,
    ) -> Option<Trial> {
        let busy = self.link(busy).map(|link| link.upstream.0);
        let others = || (0..self.in_order.len()).filter(|place| Some(*place) != busy);
        let is_any_well = self.ranking.iter().any(|index| self.is_well(*index));
        let pause_max = if is_any_well {
            timeouts.backoff_max
        } else {
            timeouts.backoff_max_asked
        };
        let is_trial_due =
            |place: &usize| self.in_order[*place].health.is_trial_due(now, pause_max);
        let is_unknown = |place: &usize| {
            let upstream = &self.in_order[*place];
            upstream.health.is_well() && upstream.explore_at <= now
        };
        let place = match others().find(is_trial_due) {
            Some(place) => place,
            None if self.policy == Policy::Fastest => {
                others().find(is_unknown).filter(|_| may_explore())?
            }
            None => return None,
        };
        let upstream = &self.in_order[place];
        let trial = match self.link_with_room(upstream, |_| true, limits) {
            Some(link) => Trial::Copy(link),
            None if !upstream.links.is_empty() || self.opening >= limits.handshakes => return None,
            None => return Some(Trial::Open(UpstreamIndex(place))),
        };
        self.in_order[place].health.on_trial(now);
        self.in_order[place].explore_at = now + timeouts.latency_known;
        Some(trial)
    }

    /// What went wrong last where something is wrong.
    pub(super) fn last_failure(&self) -> Option<FailureKind> {
        let last_failure = |upstream: &Upstream| upstream.health.last_failure();
        self.in_order.iter().find_map(last_failure)
    }

    /// When the next upstream may be connected to again that now may not, if queries wait for it.
    pub(super) fn next_retry(&self, timeouts: &Timeouts) -> Option<Instant> {
        let pause_max = timeouts.backoff_max_asked;
        let closed_until = |upstream: &Upstream| upstream.health.closed_until(pause_max);
        self.in_order.iter().filter_map(closed_until).min()
    }

    /// Lets upstreams be connected to again whose pause is over, if queries wait for that.
    pub(super) fn end_pauses(&mut self, now: Instant, timeouts: &Timeouts) {
        for upstream in &mut self.in_order {
            upstream.health.end_pause(now, timeouts.backoff_max_asked);
        }
    }

    /// A new link to `upstream`, to be opened.
    pub(super) fn open(
        &mut self,
        upstream: UpstreamIndex,
        now: Instant,
        timeouts: &Timeouts,
    ) -> LinkKey {
        let usual = self.in_order[upstream.0].opening.unwrap_or_default();
        let late_at = now + (usual * 3).clamp(timeouts.opening, timeouts.handshake);
        let key = LinkKey(self.links.insert(Link::new(upstream, now, late_at)));
        self.in_order[upstream.0].links.push(key);
        self.opening += 1;
        key
    }

    /// Notes that a link came up. Returns where it leads and whether that ends trouble, unless that
    /// was known.
    pub(super) fn on_up(&mut self, key: LinkKey, now: Instant) -> Option<(UpstreamIndex, bool)> {
        let link = self.links.get_mut(key.0)?;
        if link.stage != Stage::Opening {
            return None;
        }
        link.on_up(now);
        self.opening -= 1;
        let upstream = &mut self.in_order[link.upstream.0];
        if upstream.opening.is_none() {
            log::info!("upstream {}: connected and authenticated", upstream.label);
        }
        upstream.opening = Some(now - link.opened_at());
        let was_well = upstream.health.is_well();
        let change = upstream.health.on_up(now);
        let is_recovered = upstream.health.is_well() && !was_well;
        upstream.tell(change);
        Some((link.upstream, is_recovered))
    }

    /// Lets a link take no new queries. Returns the oldest such link where their upstream has too
    /// many.
    pub(super) fn retire(&mut self, key: LinkKey, limits: &Limits) -> Option<LinkKey> {
        let link = self.links.get_mut(key.0)?;
        link.stage = Stage::Retired;
        let index = link.upstream;
        let upstream = &mut self.in_order[index.0];
        upstream.links.retain(|listed| *listed != key);
        let is_retired = |link: &Link| link.upstream == index && link.stage == Stage::Retired;
        let retired = || self.links().filter(|(_, link)| is_retired(link));
        let too_many = retired().count() > limits.links_per_upstream;
        let oldest = retired().min_by_key(|(_, link)| link.opened_at())?;
        too_many.then_some(oldest.0)
    }

    /// Forgets a link.
    pub(super) fn remove(&mut self, key: LinkKey) -> Option<Link> {
        let link = self.links.remove(key.0)?;
        self.in_order[link.upstream.0]
            .links
            .retain(|listed| *listed != key);
        self.opening -= usize::from(link.stage == Stage::Opening);
        Some(link)
    }

    /// How long a link without queries is kept: not for long while its upstream has another.
    pub(super) fn idle_limit(&self, link: &Link, timeouts: &Timeouts) -> Duration {
        let is_up = |key: &&LinkKey| self.link(**key).is_some_and(|l| l.stage == Stage::Up);
        let upstream = &self.in_order[link.upstream.0];
        let most = match upstream.links.iter().filter(is_up).count() {
            0 | 1 => timeouts.link_idle,
            _ => timeouts.spare_link_idle,
        };
        upstream.patience.limit(most, link.idle_since())
    }

    /// Notes that an upstream closed a link without queries.
    pub(super) fn on_idle_closed(&mut self, link: &Link, now: Instant) {
        let patience = &mut self.in_order[link.upstream.0].patience;
        patience.on_closed(now - link.idle_since(), now);
    }

    /// Notes an answer that took so long, on a link that was opened then. Returns whether that ends
    /// trouble.
    pub(super) fn on_answer(
        &mut self,
        index: UpstreamIndex,
        opened_at: Instant,
        took: Duration,
        now: Instant,
        timeouts: &Timeouts,
    ) -> bool {
        let upstream = &mut self.in_order[index.0];
        let was_well = upstream.health.is_well();
        let change = upstream.health.on_answer(opened_at, now);
        let is_recovered = upstream.health.is_well() && !was_well;
        upstream.tell(change);
        upstream.latency.on_answer(took);
        upstream.last_answer = Some(now);
        upstream.explore_at = now + timeouts.latency_known;
        if self.policy == Policy::Fastest {
            self.rank(index);
        }
        is_recovered
    }

    /// Gives an upstream the rank that its latency has come to. Whoever is less than a quarter
    /// faster than another stays behind, so that ranks are no lottery.
    fn rank(&mut self, index: UpstreamIndex) {
        let usual = |index: UpstreamIndex| self.in_order[index.0].latency.usual();
        let is_faster = |one, other| match (usual(one), usual(other)) {
            (Some(one), Some(other)) => one < other * 4 / 5,
            (one, other) => one.is_some() && other.is_none(),
        };
        let Some(mut place) = self.ranking.iter().position(|ranked| *ranked == index) else {
            return;
        };
        while place > 0 && is_faster(index, self.ranking[place - 1]) {
            self.ranking.swap(place, place - 1);
            place -= 1;
        }
        while place + 1 < self.ranking.len() && is_faster(self.ranking[place + 1], index) {
            self.ranking.swap(place, place + 1);
            place += 1;
        }
    }

    /// Lets it be another's turn for the next query, where it goes by turns.
    pub(super) fn take_turn(&mut self) {
        if self.policy == Policy::RoundRobin {
            self.ranking.rotate_left(1);
        }
    }

    /// How long a query may take on a link before it is slow.
    pub(super) fn slow_after(&self, link: &Link, timeouts: &Timeouts) -> Duration {
        match self.in_order[link.upstream.0].latency.rarely_exceeded() {
            Some(rare) => (rare * 4).clamp(timeouts.slow_min, timeouts.attempt),
            None => timeouts.slow,
        }
    }

    /// Notes that something has been wrong with an upstream since then.
    pub(super) fn on_failure(
        &mut self,
        upstream: UpstreamIndex,
        failure: &Failure,
        since: Instant,
        now: Instant,
        timeouts: &Timeouts,
        random: &mut Random,
    ) {
        let Upstream { label, health, .. } = &mut self.in_order[upstream.0];
        let level = match health.on_failure(failure.kind, since, now, timeouts, random) {
            Change::Trouble => log::Level::Warn,
            _ => log::Level::Debug,
        };
        log::log!(level, "upstream {label}: {failure}; will be tried again");
    }
}
