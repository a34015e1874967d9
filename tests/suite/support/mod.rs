//! Shared parts of the tests: random numbers from a seed, and messages that can be checked.

#![allow(unreachable_pub, reason = "what is public here is public to the tests")]

pub mod certificates;
pub mod faulty;
pub mod folder;
pub mod http;
pub mod messages;
pub mod network;
pub mod peers;
pub mod program;
pub mod scripted_upstreams;
pub mod tcp_scene;

use dotproxy::config::Config;
use dotproxy::options::{self, Command};

/// Returns the settings of a command line.
pub fn configured(arguments: &[impl ToString]) -> Config {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    match options::parse(&arguments) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

/// Returns the seeds of a simulation: `SEEDS=100` sets their number, `SEED=7` selects one.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match number("SEED") {
        Some(seed) => {
            // A single seed is run with its log.
            if log::set_logger(&Printer).is_ok() {
                log::set_max_level(log::LevelFilter::Trace);
            }
            seed..seed + 1
        }
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

/// Prints the seed of a failed check, and the command that repeats it.
pub struct SeedReport {
    pub test: &'static str,
    pub seed: u64,
}

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failed with seed {}; again: SEED={} cargo test --test suite {}",
                self.seed, self.seed, self.test
            );
        }
    }
}

/// Random numbers from a seed (the generator `SplitMix64`).
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed ^ 0x5851_f42d_4c95_7f2d,
        }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Returns a number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Returns true with a probability of `percent` in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

struct Printer;

impl log::Log for Printer {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("dotproxy")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}
