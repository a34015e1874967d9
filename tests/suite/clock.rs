//! The time by which certificates are verified, and the file that stores it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::support::certificates::{Authority, Flaw};
use crate::support::faulty::{Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::Program;

const DAY: Duration = Duration::from_secs(86_400);

/// The program in front of a server, with a clock stamp in a folder.
struct Scene {
    authority: Authority,
    folder: Folder,
    server: Faulty,
}

impl Scene {
    fn new(label: &str, flaw: Flaw) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        if flaw != Flaw::None {
            server.plan(Fault::Certificate(flaw), u64::MAX);
        }
        let folder = Folder::new(label);
        Self {
            authority,
            folder,
            server,
        }
    }

    fn stamp(&self) -> PathBuf {
        self.folder.file("stamp")
    }

    /// Starts the program with these settings of the upstream and sends one query. Returns whether
    /// the program has answered.
    fn run(&self, settings: &str) -> (Program, bool) {
        self.run_in("exec \"$@\"", settings)
    }

    /// Does the same as [`Scene::run`], with a shell script that starts the program.
    fn run_in(&self, script: &str, settings: &str) -> (Program, bool) {
        let arguments = [
            format!("--upstream={}{settings}", self.server.address),
            format!("--ca-file={}", self.authority.ca_file.display()),
            format!("--clock-stamp={}", self.stamp().display()),
        ];
        let program = Program::start_in(script, &arguments);
        let query = query(1, "www.example", 1, None);
        let response = program.ask(&query).expect("a response");
        let is_answered = check_response(&query, &response);
        (program, is_answered)
    }
}

fn finish(program: &mut Program) {
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait(), Some(0));
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is set after 1970")
}

#[test]
fn implausible_stamp_is_ignored_and_replaced() {
    let scene = Scene::new("clock-far", Flaw::None);
    let far = (since_1970() + 500 * DAY).as_secs();
    for stamp in [u64::MAX, u64::MAX / 2, far] {
        std::fs::write(scene.stamp(), format!("{stamp}\n"))
            .expect("the folder of the test is writable");
        let (mut program, is_answered) = scene.run("");
        assert!(is_answered, "{stamp}");
        program.await_log(&format!("--clock-stamp: {:?}: ", scene.stamp().display()));
        finish(&mut program);
        let written = std::fs::read_to_string(scene.stamp()).expect("a stamp");
        let written: u64 = written.trim().parse().expect("a time");
        assert!(written.abs_diff(since_1970().as_secs()) < 600, "{written}");
    }
}

#[test]
fn stamp_is_written_only_after_a_certificate_was_verified() {
    let pin = |scene: &Scene| format!(",pin-sha256={},pin-only", scene.authority.server_pin());
    let scene = Scene::new("clock-expired", Flaw::Expired);
    // A pinned key says nothing about the time.
    for (settings, is_expected) in [(String::new(), false), (pin(&scene), true)] {
        let (mut program, is_answered) = scene.run(&settings);
        assert_eq!(is_answered, is_expected);
        finish(&mut program);
        assert!(!scene.stamp().exists());
    }
    let scene = Scene::new("clock-right", Flaw::None);
    let (_program, is_answered) = scene.run("");
    assert!(is_answered && scene.stamp().exists());
}

#[test]
fn log_names_the_stamp_by_which_a_certificate_is_refused() {
    let scene = Scene::new("clock-names", Flaw::Expired);
    let stamp = (since_1970() + 300 * DAY).as_secs();
    std::fs::write(scene.stamp(), format!("{stamp}\n"))
        .expect("the folder of the test is writable");
    let (program, is_answered) = scene.run("");
    assert!(!is_answered);
    program.await_log("authentication failed");
    let name = format!("--clock-stamp {:?}", scene.stamp().display());
    let names_file = |line: &&str| line.contains(&name);
    let log = program.log();
    let lines: Vec<&str> = log.lines().filter(names_file).collect();
    assert!(lines[0].contains("the system clock"), "{log}");
    let failure = lines.iter().find(|line| line.contains("authentication"));
    let failure = failure.expect("the failure names the file");
    for part in ["verified at", "set the clock", "system clock"] {
        assert_eq!(failure.matches(part).count(), 1, "{failure}");
    }
}

#[test]
fn start_with_a_wrong_clock_does_not_prevent_later_starts() {
    let in_two_years = "export FAKETIME=+730d DONT_FAKE_MONOTONIC=1; \
                        export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1); exec \"$@\"";
    let scene = Scene::new("clock-wrong", Flaw::None);
    // The validity period of the authority's certificates.
    let (mut program, is_answered) = scene.run_in(in_two_years, "");
    assert!(is_answered);
    finish(&mut program);
    let stamp = || {
        let stamp = std::fs::read_to_string(scene.stamp()).expect("a stamp");
        stamp.trim().parse::<u64>().expect("a time")
    };
    assert!(stamp() > (since_1970() + 700 * DAY).as_secs());
    let (program, is_answered) = scene.run("");
    assert!(is_answered);
    program.await_log(&format!("--clock-stamp: {:?}: ", scene.stamp().display()));
    assert!(stamp() < (since_1970() + DAY).as_secs());
}
