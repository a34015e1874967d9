//! The pauses between queries upstream for one question: after an error (RFC 9520), after a
//! prefetch that failed, and while a stale answer is served (RFC 8767).

use super::entry::{Head, Refresh};
use super::key::{CacheKey, CacheLookup};
use super::{Cache, Entry, Marks, Recall, TICKS, keys, seconds, ticks};
use crate::base::time::Instant;
use crate::wire::Question;

impl Cache {
    /// Returns the cached answer to a question that is better than an error. If the answer is
    /// stale, it is served instead of the error from now on.
    pub(in crate::proxy) fn better_than_error(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
    ) -> Option<Entry> {
        match self.recall(question, lookup, now) {
            Recall::Fresh { entry, .. } => {
                self.pause_refresh(entry.position, now);
                Some(entry)
            }
            Recall::Stale(entry) | Recall::StaleInUse { entry, .. } => {
                self.on_stale_served(entry, now);
                Some(entry)
            }
            Recall::Failed(_) | Recall::Nothing => None,
        }
    }

    /// Records that upstream is asked again for this answer before it expires.
    pub(in crate::proxy) fn on_prefetch(&mut self, entry: Entry) {
        self.store.update(entry.position, |head| {
            head.set_refresh(Refresh::PrefetchPending);
        });
    }

    /// Records that upstream, asked again for an answer that is not yet stale, had no answer: the
    /// next attempt has to wait for the pause of an error, which grows each time.
    pub(in crate::proxy) fn on_refresh_failed(
        &mut self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
    ) {
        for key in keys(question, lookup) {
            if let Some(position) = self.store.find(key) {
                self.pause_refresh(position, now);
            }
        }
    }

    /// Starts the pause after a prefetch that failed, if this entry was asked for again.
    pub(super) fn pause_refresh(&mut self, position: u32, now: Instant) {
        let head = self.store.head(position);
        if !head.refresh().is_prefetch() {
            return;
        }
        let lifetime = head.lifetime.saturating_mul(TICKS);
        let before = lifetime - prefetch_window(lifetime);
        let window_start = head.received_at.saturating_add(before);
        let since = self.tick(now).saturating_sub(window_start);
        let least = ticks(self.timeouts.failed_min);
        let most = ticks(self.timeouts.failed_max).max(least);
        // Half of the time since the first attempt: the pauses grow like those of an error.
        let pause = (since / 2).clamp(least, most);
        let retry_at = self.tick(now).saturating_add(pause + 1);
        self.store.update(position, |head| {
            head.set_refresh(Refresh::PrefetchFailed { retry_at });
        });
    }

    /// Records that a stale entry was served; upstream is not asked again for `stale_pause`.
    pub(in crate::proxy) fn on_stale_served(&mut self, entry: Entry, now: Instant) {
        let retry_at = self.tick(now).saturating_add(self.stale_pause());
        self.store.update(entry.position, |head| {
            head.set_refresh(Refresh::StaleServed { retry_at });
        });
        self.touch(entry.position);
    }

    /// Returns the number of ticks between queries upstream while a stale answer is served.
    pub(super) fn stale_pause(&self) -> u32 {
        ticks(self.timeouts.stale_pause)
    }

    /// Returns the number of seconds for which an error is cached: longer each time (RFC 9520,
    /// section 3.2). Errors for queries with and without DO count together, and errors that arrive
    /// at the same time count once.
    pub(super) fn pause_after_error(
        &self,
        question: Question<'_>,
        lookup: CacheLookup,
        now: Instant,
    ) -> u32 {
        let least = seconds(self.timeouts.failed_min).max(1);
        let most = seconds(self.timeouts.failed_max).max(least);
        let now = self.tick(now);
        let pause_after = |head: Head| {
            let pause = head.lifetime.saturating_mul(TICKS);
            let forgotten_at = head
                .received_at
                .saturating_add(pause)
                .saturating_add(most.saturating_mul(TICKS));
            let is_recent = head.marks.contains(Marks::ERROR) && now < forgotten_at;
            let is_same = now.saturating_sub(head.received_at) < least.saturating_mul(TICKS);
            let factor = if is_same { 1 } else { 2 };
            is_recent.then(|| head.lifetime.saturating_mul(factor).min(most))
        };
        let variant = lookup.variant();
        let variants = [variant, variant.with_other_proof()];
        let keys = variants.map(|variant| CacheKey::of(question, lookup.in_variant(variant)));
        let earlier = keys.into_iter().filter_map(|key| self.store.find(key));
        let pauses = earlier.filter_map(|position| pause_after(self.store.head(position)));
        pauses.max().unwrap_or(least)
    }
}

/// Returns the number of ticks at the end of a lifetime in which a popular answer is prefetched:
/// a tenth of the lifetime, or a second if that is more, but no more than a quarter.
pub(super) fn prefetch_window(lifetime: u32) -> u32 {
    (lifetime / 10).max(TICKS.min(lifetime / 4))
}

#[cfg(test)]
mod tests;
