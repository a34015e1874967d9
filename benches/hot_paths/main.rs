//! Benchmarks of the hot paths, which every query takes.
//!
//! `cargo bench` times them. `scripts/instructions.py` counts their instructions, which are nearly
//! equal in every run, and compares them with `benches/instructions.json`: it runs `hot_paths NAME
//! TIMES`, which executes the path NAME that many times.

mod decisions;
mod dnssec;
mod lists;
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

/// One execution of a prepared path.
type Once = Box<dyn FnMut()>;

/// A path of queries through the program.
struct HotPath {
    name: &'static str,
    /// The number of queries in one execution.
    queries: u32,
    prepare: fn() -> Once,
}

const PATHS: &[HotPath] = &[
    hot_path("scan_query", 1, parts::scan_query),
    hot_path("scan_answer", 1, parts::scan_answer),
    hot_path("decide_cached", 1, decisions::cached),
    hot_path("decide_truncated", 1, decisions::truncated),
    hot_path("decide_forwarded", decisions::BURST, decisions::forwarded),
    hot_path("decide_kept", decisions::BURST, decisions::kept),
    hot_path("decide_denied", 1, dnssec::denied),
    hot_path("search_block_list", 1, lists::search),
    hot_path("frame_and_encrypt", streams::BURST, streams::send),
    hot_path("decrypt_and_deframe", streams::BURST, streams::receive),
    hot_path("turn_cached", turns::BURST, turns::cached),
    hot_path("turn_logged", turns::BURST, turns::logged),
];

const fn hot_path(name: &'static str, queries: u32, prepare: fn() -> Once) -> HotPath {
    HotPath {
        name,
        queries,
        prepare,
    }
}

/// Maximum number of executions.
const TIMES_MAX: u32 = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [name, times] => {
            let hot_path = PATHS.iter().find(|hot_path| hot_path.name == name);
            let times = times.parse().ok().filter(|times| *times <= TIMES_MAX);
            let (Some(hot_path), Some(times)) = (hot_path, times) else {
                eprintln!("expected the name of a way and a number up to {TIMES_MAX}");
                std::process::exit(2);
            };
            let mut once = (hot_path.prepare)();
            (0..times).for_each(|_| once());
            println!("{}", hot_path.queries);
        }
        // Cargo passes `--bench`.
        _ => PATHS.iter().for_each(time),
    }
}

fn time(hot_path: &HotPath) {
    let mut once = (hot_path.prepare)();
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        (0..TIMES_MAX / 10).for_each(|_| once());
        let took = start.elapsed().as_secs_f64();
        least = least.min(took / f64::from(TIMES_MAX / 10) / f64::from(hot_path.queries));
    }
    println!("{:24} {:8.0} ns a query", hot_path.name, least * 1e9);
}
