//! Adaptive moderation of turns: decides whether the loop pauses so that one turn serves more
//! queries.
//!
//! A turn makes some system calls and wakes each client that gets a response, for one query as for
//! twenty. If queries arrive independently of the responses, or a client spends more time on a
//! response than the proxy spends on a query, a short pause before a turn saves processor time and
//! costs no throughput. If clients wait for responses before they send the next queries, the pause
//! costs throughput and latency, and responses should leave as early as possible.
//!
//! ```text
//!            busy for some windows            batching is as fast as prompt
//!   prompt -----------------------> trial ---------------------------------> batching
//!      ^                            |   ^                                        |
//!      |  batching is slower        |   |          busy for some windows         |
//!      '----------------------------'   '----------------------------------------'
//! ```
//!
//! The throughput shows which case applies. A trial alternates windows with and without pauses, and
//! the loop batches afterwards only if it performs as many actions with pauses. The interval
//! between trials grows while trials confirm the current pace. A loop that is not busy never
//! pauses.
//!
//! Answers over HTTP/2 are gathered without a trial while many queries wait for them. Servers write
//! the head and the content of an answer apart, so that each answer would take two turns of the
//! loop, with few actions each. The upstream has enough other queries during the pause, so that the
//! pause costs no throughput.

use std::time::Duration;

use crate::base::time::Instant;

/// The pace of turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// No pauses, and responses leave early.
    Prompt,
    /// A pause before a turn, and the responses of a turn leave together.
    Batching,
}

/// Chooses the pace by its effect on the throughput. See the [module](self).
#[derive(Debug)]
pub(super) struct Moderation {
    /// The result of the last trial.
    settled: Pace,
    /// The last window had enough actions to gather answers over HTTP/2.
    gathers: bool,
    window_since: Instant,
    window_actions: u32,
    trial: Option<PauseTrial>,
    /// The number of windows until the next trial.
    windows_left: u32,
    /// The number of windows between the last trial and the next.
    trial_interval: u32,
}

/// Alternating windows of both paces.
#[derive(Debug, Default)]
struct PauseTrial {
    windows: u32,
    prompt: Tally,
    batching: Tally,
}

/// Actions and time of the windows of one pace.
#[derive(Debug, Default)]
struct Tally {
    actions: u32,
    time: Duration,
}

impl Tally {
    fn actions_per_second(&self) -> f64 {
        f64::from(self.actions) / self.time.as_secs_f64()
    }
}

impl PauseTrial {
    fn pace(&self) -> Pace {
        match self.windows % 2 {
            0 => Pace::Batching,
            _ => Pace::Prompt,
        }
    }

    fn add(&mut self, actions: u32, time: Duration) {
        let tally = match self.pace() {
            Pace::Batching => &mut self.batching,
            Pace::Prompt => &mut self.prompt,
        };
        tally.actions += actions;
        tally.time += time;
        self.windows += 1;
    }

    /// Returns the better pace, once every window is over.
    fn verdict(&self) -> Option<Pace> {
        if self.windows < TRIAL_WINDOWS {
            return None;
        }
        let least = self.prompt.actions_per_second() * THROUGHPUT_MIN;
        Some(if self.batching.actions_per_second() >= least {
            Pace::Batching
        } else {
            Pace::Prompt
        })
    }
}

impl Moderation {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            settled: Pace::Prompt,
            gathers: false,
            window_since: now,
            window_actions: 0,
            trial: None,
            windows_left: INTERVAL_MIN,
            trial_interval: INTERVAL_MIN,
        }
    }

    /// Returns the pace of the next turn.
    pub(super) fn pace(&self) -> Pace {
        self.trial.as_ref().map_or(self.settled, PauseTrial::pace)
    }

    /// Counts the actions of a turn that began at `now`. `over_http2` is the number of queries that
    /// wait for answers over HTTP/2. Returns the pause before the next turn, if any.
    pub(super) fn on_turn(
        &mut self,
        actions: usize,
        over_http2: usize,
        now: Instant,
    ) -> Option<Duration> {
        let actions = u32::try_from(actions).unwrap_or(u32::MAX);
        self.window_actions = self.window_actions.saturating_add(actions);
        let time = now - self.window_since;
        if time >= WINDOW {
            self.on_window(self.window_actions, time);
            (self.window_since, self.window_actions) = (now, 0);
        }
        if actions >= ACTIONS_MIN {
            return (self.pace() == Pace::Batching).then_some(PAUSE);
        }
        (self.gathers && over_http2 >= OVER_HTTP2_MIN).then_some(GATHER_PAUSE)
    }

    fn on_window(&mut self, actions: u32, time: Duration) {
        let rate = f64::from(actions) / time.as_secs_f64();
        self.gathers = rate >= GATHER_PER_SECOND;
        if rate < BUSY_PER_SECOND {
            self.settle(Pace::Prompt, INTERVAL_MIN);
            return;
        }
        if let Some(trial) = &mut self.trial {
            trial.add(actions, time);
            if let Some(verdict) = trial.verdict() {
                let interval = if verdict == self.settled {
                    INTERVAL_MAX.min(2 * self.trial_interval)
                } else {
                    INTERVAL_MIN
                };
                self.settle(verdict, interval);
            }
            return;
        }
        self.windows_left -= 1;
        if self.windows_left == 0 {
            self.trial = Some(PauseTrial::default());
        }
    }

    fn settle(&mut self, pace: Pace, trial_interval: u32) {
        self.settled = pace;
        self.trial = None;
        self.trial_interval = trial_interval;
        self.windows_left = trial_interval;
    }
}

/// The pause before a turn, which is the maximum that it adds to the latency of a query.
const PAUSE: Duration = Duration::from_micros(50);

/// The pause that gathers answers over HTTP/2.
const GATHER_PAUSE: Duration = Duration::from_micros(100);

/// Minimum number of queries that wait for answers over HTTP/2 for a pause that gathers them. With
/// fewer, the upstream would often wait for the loop.
const OVER_HTTP2_MIN: usize = 24;

/// Rate below which answers over HTTP/2 are not gathered: less than one action falls into a pause.
const GATHER_PER_SECOND: f64 = 10_000.0;

/// Minimum number of actions of a turn for a pause before the next turn, in a trial and after it.
const ACTIONS_MIN: u32 = 8;

/// The period in which actions are counted.
const WINDOW: Duration = Duration::from_millis(1);

/// The number of windows of a trial, half of them with pauses.
const TRIAL_WINDOWS: u32 = 8;

/// Minimum and maximum number of windows between two trials.
const INTERVAL_MIN: u32 = 8;
const INTERVAL_MAX: u32 = 256;

/// Rate below which the loop is not busy: fewer than two actions fall into a pause.
const BUSY_PER_SECOND: f64 = 32_000.0;

/// Minimum ratio of the throughput with pauses to the throughput without: a smaller loss is within
/// the variation of windows.
const THROUGHPUT_MIN: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs turns for two seconds. `turn` receives the pause before a turn and returns the number
    /// of actions and the duration of the turn. Returns the share of turns with a pause in the last
    /// second.
    fn paused(turn: impl FnMut(Duration) -> (usize, Duration)) -> f64 {
        paused_over_http2(0, turn)
    }

    /// As [`paused`], with a number of queries that wait for answers over HTTP/2.
    fn paused_over_http2(
        waiting: usize,
        mut turn: impl FnMut(Duration) -> (usize, Duration),
    ) -> f64 {
        let start = Instant::after_start(Duration::from_secs(1));
        let mut now = start;
        let mut moderation = Moderation::new(now);
        let mut pause = Duration::ZERO;
        let (mut turns, mut pauses) = (0, 0);
        while now - start < Duration::from_secs(2) {
            if now - start >= Duration::from_secs(1) {
                turns += 1;
                pauses += u32::from(!pause.is_zero());
            }
            let (actions, took) = turn(pause);
            now = now + pause + took;
            let next = moderation.on_turn(actions, waiting, now);
            pause = next.unwrap_or_default();
        }
        f64::from(pauses) / f64::from(turns)
    }

    const fn microseconds(number: u64) -> Duration {
        Duration::from_micros(number)
    }

    #[test]
    fn turns_are_prompt_for_clients_that_wait_for_responses() {
        for outstanding in [8, 16, 32, 64] {
            // Each response triggers the next query, and all queries have arrived when the turn
            // begins.
            let took = microseconds(10 + 3 * outstanding);
            let outstanding = usize::try_from(outstanding).unwrap();
            let part = paused(|_| (outstanding, took));
            assert!(part < 0.1, "{outstanding} outstanding: {part} of the turns");
        }
    }

    #[test]
    fn independent_queries_are_batched() {
        // One query every four microseconds, independently of the loop.
        let part = paused(|pause| {
            let took = microseconds(20);
            let queries = (pause + took).as_micros() / 4;
            (usize::try_from(queries).unwrap(), took)
        });
        // A turn without a pause has too few actions.
        assert!(part < 0.01, "{part} of the turns");
        let part = paused(|pause| {
            let took = microseconds(40);
            let queries = (pause + took).as_micros() / 4;
            (usize::try_from(queries).unwrap(), took)
        });
        assert!(part > 0.9, "{part} of the turns");
    }

    #[test]
    fn loop_that_is_not_busy_does_not_pause() {
        // A burst of sixteen every millisecond.
        let part = paused(|pause| (16, microseconds(1_000).saturating_sub(pause)));
        assert!(part < 0.01, "{part} of the turns");
    }

    #[test]
    fn answers_over_http2_are_gathered_while_many_are_awaited_and_the_loop_is_busy() {
        let every = |interval: u64| {
            move |pause: Duration| {
                let took = microseconds(interval).saturating_sub(pause);
                let took = took.max(microseconds(4));
                let actions = (pause + took).as_micros() / u128::from(interval);
                (usize::try_from(actions).unwrap(), took)
            }
        };
        assert!(paused_over_http2(OVER_HTTP2_MIN, every(20)) > 0.9);
        assert!(paused_over_http2(OVER_HTTP2_MIN - 1, every(20)) < 0.01);
        assert!(paused_over_http2(OVER_HTTP2_MIN, every(120)) < 0.01);
    }

    #[test]
    fn pace_follows_the_load() {
        let mut turns = 0;
        let part = paused(|pause| {
            turns += 1;
            if turns < 5_000 {
                // Queries arrive at the same rate with and without pauses.
                let took = microseconds(40);
                let queries = (pause + took).as_micros() / 4;
                return (usize::try_from(queries).unwrap(), took);
            }
            (16, microseconds(58))
        });
        assert!(part < 0.1, "{part} of the turns");
    }
}
