//! The file that keeps the cache over a restart.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

use crate::support::certificates::Authority;
use crate::support::faulty::{End, Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, run_to_end};

/// A server, and a folder for the cache file of the program in front of it.
struct Scene {
    authority: Authority,
    folder: Folder,
    server: Faulty,
}

impl Scene {
    fn new(label: &str) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let folder = Folder::new(label);
        Self {
            authority,
            folder,
            server,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.file("cache")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the cache file was written")
    }

    fn replace(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).expect("the folder of the test is writable");
    }

    fn arguments(&self, others: &[&str]) -> Vec<String> {
        let own = [
            format!("--upstream={}", self.server.address),
            format!("--ca-file={}", self.authority.ca_file.display()),
            format!("--cache-file={}", self.path().display()),
            "--cache-size=1m".to_owned(),
        ];
        let others = others.iter().map(|other| (*other).to_owned());
        own.into_iter().chain(others).collect()
    }

    fn start(&self, others: &[&str]) -> Program {
        Program::start(&self.arguments(others))
    }

    /// Starts the program with this shift of its clock.
    fn start_at(&self, shift: &str) -> Program {
        let script = format!(
            "export FAKETIME={shift} DONT_FAKE_MONOTONIC=1; export LD_PRELOAD=$(echo \
             /usr/lib/*/faketime/libfaketime.so.1); exec \"$@\""
        );
        Program::start_in(&script, &self.arguments(&[]))
    }

    /// Returns the number of queries that the server has got.
    fn queries(&self) -> u64 {
        self.server.counts().queries.load(Ordering::SeqCst)
    }

    /// Runs the program for these questions, so that it writes their answers.
    fn fill(&self, names: &[&str], others: &[&str]) {
        let mut program = self.start(others);
        for name in names {
            assert!(is_answered(&program, name), "{name}");
        }
        finish(&mut program);
    }

    /// Returns whether a start finds an answer in the file, and the log of that start.
    fn is_used(&self, others: &[&str]) -> (bool, String) {
        let (before, mut program) = (self.queries(), self.start(others));
        assert!(is_answered(&program, "www.example"));
        let is_used = self.queries() == before;
        // The lines about the file come before this one.
        program.await_log("will be queried");
        // The bytes in the file stay as they are.
        program.signal(Signal::SIGKILL);
        program.wait();
        (is_used, program.log())
    }
}

fn is_answered(program: &Program, name: &str) -> bool {
    let query = query(1, name, 1, None);
    let response = program.ask(&query);
    response.is_some_and(|response| check_response(&query, &response))
}

fn finish(program: &mut Program) {
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn answers_survive_a_restart_and_an_outage() {
    let scene = Scene::new("cache-file");
    let names = ["www.example", "Mail.Example", "a.b.c.example"];
    scene.fill(&names, &[]);
    assert_eq!(scene.queries(), 3);
    let mode = fs::metadata(scene.path()).expect("the file exists");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let mut program = scene.start(&[]);
    program.await_log("restored 3 fresh and 0 expired entries");
    assert!(names.iter().all(|name| is_answered(&program, name)));
    assert_eq!(scene.queries(), 3);
    finish(&mut program);
    program.await_log("3 entries written");
    // Nothing else is left in the folder.
    let entries = fs::read_dir(scene.path().with_file_name("")).expect("the folder exists");
    assert_eq!(entries.count(), 1);
}

#[test]
fn expired_answers_are_served_while_upstream_is_away() {
    let scene = Scene::new("cache-file-stale");
    scene.fill(&["www.example"], &[]);
    scene.server.plan(Fault::EndAtAccept(End::Fin), u64::MAX);
    for (shift, read, is_expected) in [
        ("+1h", "restored 0 fresh and 1 expired entries", true),
        ("+3d", "restored 0 fresh and 0 expired entries", false),
        // The clock was reset: the age is unknown.
        ("-20000d", "restored 0 fresh and 1 expired entries", true),
    ] {
        let mut program = scene.start_at(shift);
        program.await_log(read);
        assert_eq!(is_answered(&program, "www.example"), is_expected, "{shift}");
        program.signal(Signal::SIGKILL);
        program.wait();
    }
}

#[test]
fn damaged_file_is_ignored_with_a_warning() {
    let scene = Scene::new("cache-file-damaged");
    scene.fill(&["www.example"], &[]);
    let whole = scene.bytes();
    assert!(scene.is_used(&[]).0);
    let (damaged, cut) = ("the file is damaged", "the file is cut short");
    let foreign = "not a cache file";
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let end = whole.len();
    let settings = "or DNS64 have changed";
    for (bytes, problem) in [
        (flipped(0), foreign),
        (flipped(15), foreign),
        (flipped(20), settings),
        // The time, an age, a record, the digest.
        (flipped(55), damaged),
        (flipped(63), damaged),
        (flipped(end - 60), damaged),
        (flipped(end - 1), damaged),
        (whole[..end - 1].to_vec(), damaged),
        ([&whole[..], b"x"].concat(), damaged),
        (whole[..end / 2].to_vec(), cut),
        (Vec::new(), cut),
        (vec![b'x'; 5000], foreign),
    ] {
        scene.replace(&bytes);
        let (is_used, log) = scene.is_used(&[]);
        let is_told = log.contains("WARN") && log.contains(problem);
        assert!(is_told && !is_used, "expected {problem}: {log}");
    }
    scene.replace(&whole);
    assert!(scene.is_used(&[]).0);
}

#[test]
fn answers_of_other_settings_are_not_used() {
    let scene = Scene::new("cache-file-settings");
    let domains = scene.folder.file("domains");
    fs::write(&domains, "corp.example\n").expect("the folder of the test is writable");
    let private = format!(
        "--upstream=udp://127.0.0.1:1,domains-file={}",
        domains.display()
    );
    scene.fill(&["www.example"], &[&private]);
    for (others, is_expected) in [
        (&[&*private, "--prefetch", "--timeout=3s"][..], true),
        (&[], false),
        (&[&private, "--upstream=127.0.0.2:853"], false),
        (&[&private, "--dnssec=log"], false),
        (&[&private, "--dns64=64:ff9b::/96"], false),
        (&["--upstream=udp://127.0.0.1:1,domain=corp.example"], true),
        (&["--upstream=udp://127.0.0.1:1,domain=home.example"], false),
    ] {
        let (is_used, log) = scene.is_used(others);
        assert_eq!(is_used, is_expected, "{others:?}: {log}");
        assert_eq!(log.contains("or DNS64 have changed"), !is_expected, "{log}");
    }
    // The file of domains changes while the program runs, without a reload.
    let mut program = scene.start(&[&private]);
    assert!(is_answered(&program, "www.example"));
    fs::write(&domains, "www.example\n").expect("the folder of the test is writable");
    finish(&mut program);
    let mut program = scene.start(&[&private]);
    program.await_log("or DNS64 have changed");
    program.signal(Signal::SIGKILL);
    program.wait();
}

#[test]
fn symbolic_link_is_replaced_and_not_read() {
    let scene = Scene::new("cache-file-link");
    scene.fill(&["www.example"], &[]);
    let other = scene.folder.file("other");
    fs::rename(scene.path(), &other).expect("the folder of the test is writable");
    std::os::unix::fs::symlink(&other, scene.path()).expect("the name is free");
    let bytes = fs::read(&other).expect("the file was moved");
    let mut program = scene.start(&[]);
    program.await_log("expected a regular file, found a symbolic link");
    finish(&mut program);
    assert!(!scene.path().is_symlink());
    assert_eq!(fs::read(&other).expect("the file was moved"), bytes);
}

#[test]
fn entries_that_do_not_fit_are_told() {
    let scene = Scene::new("cache-file-smaller");
    let names: Vec<String> = (0..400)
        .map(|number| format!("n{number}.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    scene.fill(&names, &[]);
    let mut program = scene.start(&["--cache-size=20k"]);
    program.await_log("restored 400 fresh and 0 expired entries; ");
    assert!(program.log().contains(" fit into the cache"));
    program.signal(Signal::SIGKILL);
    program.wait();
}

#[test]
fn file_that_other_users_can_write_is_not_used() {
    let scene = Scene::new("cache-file-mode");
    scene.fill(&["www.example"], &[]);
    for (mode, is_expected) in [(0o666, false), (0o620, false), (0o644, true)] {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(scene.path(), permissions).expect("it is the test's own file");
        let (is_used, log) = scene.is_used(&[]);
        assert_eq!(is_used, is_expected, "{log}");
        let is_told = log.contains("other users could have written it");
        assert_eq!(is_told, !is_expected, "{log}");
    }
    // The next shutdown replaces the file.
    scene.fill(&["www.example"], &[]);
    assert!(scene.is_used(&[]).0);
}

#[test]
fn path_that_cannot_be_written_is_an_error_or_a_warning() {
    let scene = Scene::new("cache-file-path");
    let lost = "--cache-file=/nonexistent/cache";
    let (code, text) = run_to_end(&["-u", "127.0.0.1", lost, "--check-conf"]);
    assert_eq!(code, Some(2));
    let problem = "--cache-file: \"/nonexistent/cache\": ";
    let advice = "create the folder \"/nonexistent\"";
    assert!(text.contains(problem) && text.contains(advice), "{text}");
    let mut program = scene.start(&[lost]);
    assert!(is_answered(&program, "www.example"));
    finish(&mut program);
    program.await_log(&format!(
        "{problem}No such file or directory (os error 2): {advice}"
    ));
    let own = format!("--cache-file={}", scene.path().display());
    let (code, text) = run_to_end(&["-u", "127.0.0.1", &own, "--cache-size=0", "--check-conf"]);
    let warning = "--cache-file: no effect with --cache-size 0";
    assert!(code == Some(0) && text.contains(warning), "{text}");
    assert!(!scene.path().exists());
    // A run without the cache keeps the file.
    scene.fill(&["www.example"], &[]);
    let bytes = scene.bytes();
    scene.fill(&["www.example"], &["--cache-size=0"]);
    assert_eq!(scene.bytes(), bytes);
}

#[test]
fn reload_clears_the_cache_and_keeps_the_path() {
    let scene = Scene::new("cache-file-reload");
    let conf = scene.folder.file("conf");
    let line = |path: PathBuf| format!("cache-file = {}\n", path.display());
    fs::write(&conf, line(scene.path())).expect("the folder of the test is writable");
    let arguments = [
        format!("--conf-file={}", conf.display()),
        format!("--upstream={}", scene.server.address),
        format!("--ca-file={}", scene.authority.ca_file.display()),
        "--cache-size=1m".to_owned(),
    ];
    let mut program = Program::start(&arguments);
    assert!(is_answered(&program, "www.example"));
    let other = scene.folder.file("other");
    fs::write(&conf, line(other.clone())).expect("the folder of the test is writable");
    program.reload();
    program.await_log("--cache-file has changed: restart the program to apply it");
    finish(&mut program);
    program.await_log("0 entries written");
    assert!(scene.path().exists() && !other.exists());
}
