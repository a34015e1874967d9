//! The ways that every query takes, one by one.
//!
//! `cargo bench` times them. `scripts/instructions.py` counts their instructions, which are nearly the
//! same in every run, and holds them against those of `benches/instructions.json`: for it,
//! `hot_paths NAME TIMES` goes one of these ways so many times.

mod decisions;
mod parts;
mod streams;
mod turns;

#[expect(
    dead_code,
    unreachable_pub,
    reason = "these are the tests', which need more of them than is needed here"
)]
#[path = "../../tests/suite/support/certificates.rs"]
mod certificates;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "these are the tests', which need more of them than is needed here"
)]
#[path = "../../tests/suite/support/messages.rs"]
mod messages;

use std::time::Instant;

/// A way, ready to be gone.
type Once = Box<dyn FnMut()>;

/// A way that queries take.
struct Way {
    name: &'static str,
    /// How many of them take it at a time.
    queries: u32,
    prepare: fn() -> Once,
}

const WAYS: &[Way] = &[
    way("scan_query", 1, parts::scan_query),
    way("scan_answer", 1, parts::scan_answer),
    way("decide_cached", 1, decisions::cached),
    way("decide_truncated", 1, decisions::truncated),
    way("decide_forwarded", decisions::BURST, decisions::forwarded),
    way("decide_kept", decisions::BURST, decisions::kept),
    way("frame_and_encrypt", streams::BURST, streams::send),
    way("decrypt_and_deframe", streams::BURST, streams::receive),
    way("turn_cached", turns::BURST, turns::cached),
    way("turn_logged", turns::BURST, turns::logged),
];

const fn way(name: &'static str, queries: u32, prepare: fn() -> Once) -> Way {
    Way {
        name,
        queries,
        prepare,
    }
}

/// How often a way can be gone.
const TIMES_MAX: u32 = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [name, times] => {
            let way = WAYS.iter().find(|way| way.name == name);
            let times = times.parse().ok().filter(|times| *times <= TIMES_MAX);
            let (Some(way), Some(times)) = (way, times) else {
                eprintln!("expected the name of a way and a number up to {TIMES_MAX}");
                std::process::exit(2);
            };
            let mut once = (way.prepare)();
            (0..times).for_each(|_| once());
            println!("{}", way.queries);
        }
        // Cargo says `--bench`.
        _ => WAYS.iter().for_each(time),
    }
}

fn time(way: &Way) {
    let mut once = (way.prepare)();
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        (0..TIMES_MAX / 10).for_each(|_| once());
        let took = start.elapsed().as_secs_f64();
        least = least.min(took / f64::from(TIMES_MAX / 10) / f64::from(way.queries));
    }
    println!("{:24} {:8.0} ns a query", way.name, least * 1e9);
}
