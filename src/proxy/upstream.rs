//! The resolvers: which one is asked, over which of its links, and when one that failed is tried
//! again.

use std::time::Duration;

use crate::arena::Arena;
use crate::config::{Limits, Timeouts};
use crate::failure::{Failure, FailureKind};
use crate::random::Random;
use crate::time::Instant;

use super::keys::{LinkKey, UpstreamIndex};
use super::link::{Link, Stage};

/// Some of the upstreams. Those beyond the 64th are in no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UpstreamSet(u64);

impl UpstreamSet {
    pub(super) fn insert(&mut self, upstream: UpstreamIndex) {
        self.0 |= Self::bit(upstream);
    }

    fn contains(self, upstream: UpstreamIndex) -> bool {
        self.0 & Self::bit(upstream) != 0
    }

    fn bit(upstream: UpstreamIndex) -> u64 {
        u32::try_from(upstream.0)
            .ok()
            .and_then(|place| 1_u64.checked_shl(place))
            .unwrap_or(0)
    }
}

/// What a query that has gone wrong once would rather have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    /// Other upstreams than these, which did not answer it in time.
    pub(super) not_slow: UpstreamSet,
    /// A link that came up no earlier: the one it was on was closed, and its siblings may soon be.
    pub(super) fresh_since: Option<Instant>,
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
    /// Failures since it last answered.
    failures: u32,
    /// While it is this early, no link is opened.
    retry_at: Option<Instant>,
}

/// Every resolver and every link.
#[derive(Debug)]
pub(super) struct Upstreams {
    in_order: Vec<Upstream>,
    links: Arena<Link>,
    opening: usize,
}

impl Upstreams {
    pub(super) fn new(labels: impl IntoIterator<Item = String>) -> Self {
        let upstream = |label| Upstream {
            label,
            links: Vec::new(),
            failures: 0,
            retry_at: None,
        };
        Self {
            in_order: labels.into_iter().map(upstream).collect(),
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

    /// The way for a query: the first upstream in order that can take it, wishes granted if
    /// possible.
    pub(super) fn route(&self, wishes: &Wishes, now: Instant, limits: &Limits) -> Route {
        let all = || (0..self.in_order.len()).map(UpstreamIndex);
        let quick = all().filter(|&index| !wishes.not_slow.contains(index));
        let slow = all().filter(|&index| wishes.not_slow.contains(index));
        quick
            .chain(slow)
            .find_map(|index| self.route_to(index, wishes.fresh_since, now, limits))
            .unwrap_or_else(|| Route::Later(self.next_retry().unwrap_or(now)))
    }

    fn route_to(
        &self,
        index: UpstreamIndex,
        fresh_since: Option<Instant>,
        now: Instant,
        limits: &Limits,
    ) -> Option<Route> {
        let upstream = &self.in_order[index.0];
        if let Some(link) = self.link_with_room(upstream, fresh_since, limits) {
            return Some(Route::Link(link));
        }
        let is_opening = |key: &LinkKey| self.link(*key).is_some_and(|l| l.stage == Stage::Opening);
        if upstream.links.iter().any(is_opening) {
            return Some(Route::Soon);
        }
        let may_be_tried = upstream.retry_at.is_none_or(|retry_at| retry_at <= now);
        if may_be_tried && upstream.links.len() < limits.links_per_upstream {
            let has_turn = self.opening < limits.handshakes;
            return Some(if has_turn {
                Route::Open(index)
            } else {
                Route::Soon
            });
        }
        match self.link_with_room(upstream, None, limits) {
            Some(link) => Some(Route::Link(link)),
            None if upstream.links.is_empty() => None,
            None => Some(Route::Soon),
        }
    }

    /// The oldest link with room, among those that came up no earlier than `fresh_since`: filling
    /// it first keeps queries together in few records and lets the others fall idle.
    fn link_with_room(
        &self,
        upstream: &Upstream,
        fresh_since: Option<Instant>,
        limits: &Limits,
    ) -> Option<LinkKey> {
        upstream.links.iter().copied().find(|&key| {
            let link = self
                .link(key)
                .expect("an upstream lists links that are there");
            link.stage == Stage::Up
                && link.waited_for() < limits.link_inflight
                && fresh_since.is_none_or(|since| link.up_since() >= since)
        })
    }

    /// Whether any link has room.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        let has_room = |upstream| self.link_with_room(upstream, None, limits).is_some();
        self.in_order.iter().any(has_room)
    }

    /// When the next upstream that failed may be tried again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.in_order
            .iter()
            .filter_map(|upstream| upstream.retry_at)
            .min()
    }

    /// Lets upstreams be tried again whose pause is over.
    pub(super) fn end_pauses(&mut self, now: Instant) {
        for upstream in &mut self.in_order {
            upstream.retry_at = upstream.retry_at.filter(|retry_at| *retry_at > now);
        }
    }

    /// A new link to `upstream`, to be opened.
    pub(super) fn open(&mut self, upstream: UpstreamIndex, now: Instant) -> LinkKey {
        let key = LinkKey(self.links.insert(Link::new(upstream, now)));
        self.in_order[upstream.0].links.push(key);
        self.in_order[upstream.0].retry_at = None;
        self.opening += 1;
        key
    }

    /// Notes that a link came up. Returns where it leads, unless that was known.
    pub(super) fn on_up(&mut self, key: LinkKey, now: Instant) -> Option<UpstreamIndex> {
        let link = self.links.get_mut(key.0)?;
        if link.stage != Stage::Opening {
            return None;
        }
        link.on_up(now);
        self.opening -= 1;
        Some(link.upstream)
    }

    /// Lets a link take no new queries.
    pub(super) fn retire(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key.0) else {
            return;
        };
        link.stage = Stage::Retired;
        let upstream = &mut self.in_order[link.upstream.0];
        upstream.links.retain(|listed| *listed != key);
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
        match self.in_order[link.upstream.0]
            .links
            .iter()
            .filter(is_up)
            .count()
        {
            0 | 1 => timeouts.link_idle,
            _ => timeouts.spare_link_idle,
        }
    }

    /// Notes that an upstream answered.
    pub(super) fn on_answer(&mut self, upstream: UpstreamIndex) {
        let upstream = &mut self.in_order[upstream.0];
        if upstream.failures > 0 {
            upstream.failures = 0;
            upstream.retry_at = None;
            log::info!("upstream {}: answers again", upstream.label);
        }
    }

    /// Notes that a link to an upstream failed without having answered, and decides when the next
    /// may be opened. Where nothing but the connection was lost, it is at once the first time,
    /// since the peer may have closed just as the query was on its way, and soon for two times
    /// more.
    pub(super) fn on_failure(
        &mut self,
        upstream: UpstreamIndex,
        failure: &Failure,
        now: Instant,
        timeouts: &Timeouts,
        random: &mut Random,
    ) {
        let upstream = &mut self.in_order[upstream.0];
        let label = &upstream.label;
        upstream.failures = upstream.failures.saturating_add(1);
        let is_lost_only = matches!(
            failure.kind,
            FailureKind::Closed | FailureKind::Protocol | FailureKind::Stalled
        );
        let doublings = match upstream.failures {
            1 if is_lost_only => return log::debug!("upstream {label}: {failure}; trying again"),
            failures if is_lost_only => failures.saturating_sub(3),
            failures => failures - 1,
        };
        let pause = backoff(doublings, timeouts, random);
        upstream.retry_at = Some(now + pause);
        let level = match upstream.failures {
            1 | 2 => log::Level::Warn,
            _ => log::Level::Info,
        };
        let pause_ms = pause.as_millis();
        log::log!(
            level,
            "upstream {label}: {failure}; next attempt in {pause_ms} ms"
        );
    }
}

/// The pause after so many doublings: between three and four quarters of it, by chance, so that not
/// all proxies of a place come back at the same time.
fn backoff(doublings: u32, timeouts: &Timeouts, random: &mut Random) -> Duration {
    let whole = timeouts
        .backoff_min
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    let whole = whole.min(timeouts.backoff_max);
    let quarter = whole / 4;
    whole.saturating_sub(quarter) + quarter * u32::from(random.next_u16()) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_its_limit() {
        let timeouts = Timeouts::for_query(Timeouts::QUERY);
        let mut random = Random::new(&[1; 32]);
        for (doublings, seconds) in [(0, 0.5), (1, 1.0), (2, 2.0), (6, 30.0), (40, 30.0)] {
            for _ in 0..100 {
                let pause = backoff(doublings, &timeouts, &mut random).as_secs_f64();
                assert!(
                    pause <= seconds && pause >= 0.75 * seconds,
                    "{doublings}: {pause}"
                );
            }
        }
    }

    #[test]
    fn sets_hold_the_first_64() {
        let mut set = UpstreamSet::default();
        set.insert(UpstreamIndex(3));
        set.insert(UpstreamIndex(70));
        assert!(set.contains(UpstreamIndex(3)));
        assert!(!set.contains(UpstreamIndex(4)));
        assert!(!set.contains(UpstreamIndex(70)));
    }
}
