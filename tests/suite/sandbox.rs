//! The permissions of the process after it has started.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::support::certificates::Authority;
use crate::support::faulty::{End, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, await_that, free_port, spawn};

/// The program in front of a server, with the certificate of the authority in a folder.
struct Scene {
    authority: Authority,
    folder: Folder,
    server: Faulty,
    program: Program,
}

impl Scene {
    fn new(label: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(label);
        let folder = Folder::new(label);
        let ca_file = folder.file("ca.pem");
        std::fs::copy(&authority.ca_file, &ca_file).expect("a temporary file");
        let server = Faulty::start(&authority, 0);
        let mut all = vec![
            format!("--upstream={}", server.address),
            format!("--ca-file={}", ca_file.display()),
            format!("--clock-stamp={}", folder.file("stamp").display()),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let program = Program::start(&all);
        program.await_log("sandbox: ");
        Self {
            authority,
            folder,
            server,
            program,
        }
    }

    fn is_answered(&self, id: u16) -> bool {
        let query = query(id, "www.example", 1, None);
        check_response(&query, &self.program.ask(&query).expect("a response"))
    }

    /// Returns a field of `/proc/PID/status`.
    fn status(&self, name: &str) -> String {
        let status = self.program.proc_status();
        let line = status.lines().find(|line| line.starts_with(name));
        let value = line.expect("the kernel prints this field")[name.len()..].trim();
        value.to_owned()
    }

    fn check_status(&self) {
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(self.status(name), "0000000000000000", "{name}");
        }
        if Uid::effective().is_root() {
            assert_eq!(self.status("CapBnd:"), "0000000000000000");
        }
        assert_eq!(self.status("NoNewPrivs:"), "1");
        if cfg!(feature = "seccomp") {
            assert_eq!(self.status("Seccomp:"), "2", "a seccomp filter is active");
        }
    }

    /// Checks that reconnecting, reloading and writing the clock stamp still work.
    fn check_service(&mut self) {
        assert!(self.is_answered(1));
        let stamp = self.folder.file("stamp");
        assert!(stamp.exists(), "the stamp is written at the start");
        std::fs::remove_file(&stamp).expect("the test owns the file");
        self.server.end_all(End::Reset);
        assert!(self.is_answered(2), "the program reconnects");
        let new = self.folder.file("new.pem");
        std::fs::copy(&self.authority.ca_file, &new).expect("a temporary file");
        std::fs::rename(&new, self.folder.file("ca.pem"))
            .expect("the folder of the test is writable");
        let log = self.program.reload();
        assert!(!log.contains("ERROR"), "{log}");
        self.server.end_all(End::Reset);
        assert!(self.is_answered(3));
        self.program.signal(Signal::SIGTERM);
        assert_eq!(self.program.wait(), Some(0));
        assert!(stamp.exists(), "{}", self.program.log());
    }
}

#[test]
fn process_keeps_only_the_permissions_that_it_needs() {
    let mut scene = Scene::new("confined", &[]);
    scene.check_status();
    scene.check_service();
}

#[test]
fn sandbox_denies_files_that_no_option_names() {
    let scene = Scene::new("closed", &[]);
    if scene.program.log().contains("no landlock") {
        println!("skipped: this kernel has no landlock");
        return;
    }
    // The file would be suitable, and its permissions allow reading.
    let elsewhere = &scene.authority.ca_file;
    let named = scene.folder.file("ca.pem");
    let point_elsewhere = || {
        std::fs::remove_file(&named).expect("the test owns the file");
        symlink(elsewhere, &named).expect("the folder of the test is writable");
    };
    point_elsewhere();
    let log = scene.program.reload();
    let folder = elsewhere.parent().expect("the file is in a folder");
    let expected = format!(
        "Permission denied (os error 13): the sandbox does not allow reading {}: restart the \
         program; keeping the previous configuration",
        folder.display()
    );
    assert!(log.contains(&expected), "{log}");
    assert!(scene.is_answered(1));

    let open = Scene::new("open", &["--no-sandbox"]);
    std::fs::remove_file(open.folder.file("ca.pem")).expect("the test owns the file");
    symlink(&open.authority.ca_file, open.folder.file("ca.pem"))
        .expect("the folder of the test is writable");
    let log = open.program.reload();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(open.status("NoNewPrivs:"), "0");
}

#[test]
fn reload_that_needs_a_new_folder_names_an_open_one() {
    let authority = Authority::new("new-folder");
    let folder = Folder::new("new-folder");
    let (options, own) = (folder.file("options"), folder.file("ca.pem"));
    std::fs::copy(&authority.ca_file, &own).expect("a temporary file");
    let name = |ca_file: &Path| {
        let text = format!("upstream = 192.0.2.1\nca-file = {}", ca_file.display());
        std::fs::write(&options, text).expect("the folder of the test is writable");
    };
    name(&own);
    let program = Program::start(&[format!("--conf-file={}", options.display())]);
    program.await_log("sandbox: ");
    if program.log().contains("no landlock") {
        println!("skipped: this kernel has no landlock");
        return;
    }
    name(&authority.ca_file);
    let log = program.reload();
    let open = options.parent().expect("the file is in a folder");
    let advice = "restart the program, or put the file into";
    let expected = format!("{advice} {};", open.display());
    assert!(log.contains(&expected), "{log}");
    // The permissions of a file in an open folder are no matter of the sandbox.
    name(&own);
    let for_none = PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(&own, for_none).expect("the test owns the file");
    let log = program.reload();
    assert!(log.contains("Permission denied"), "{log}");
    assert!(!log.contains("the sandbox does not allow"), "{log}");
    // Neither is a file that does not exist.
    name(&authority.ca_file.with_extension("missing"));
    let log = program.reload();
    assert!(log.contains("No such file"), "{log}");
    assert!(!log.contains("the sandbox does not allow"), "{log}");
}

#[test]
fn reload_does_not_name_a_folder_that_is_closed() {
    // Only the options file stays open, and not the temporary folder.
    let options = Path::new("/tmp").join(format!("dotproxy-closed-{}", std::process::id()));
    let authority = Authority::new("closed-folder");
    std::fs::write(&options, "upstream = 192.0.2.1").expect("a temporary file");
    let program = Program::start(&[format!("--conf-file={}", options.display())]);
    program.await_log("sandbox: ");
    let text = format!(
        "upstream = 192.0.2.1\nca-file = {}",
        authority.ca_file.display()
    );
    std::fs::write(&options, text).expect("a temporary file");
    let log = program.reload();
    std::fs::remove_file(&options).expect("the test owns the file");
    if program.log().contains("no landlock") {
        println!("skipped: this kernel has no landlock");
        return;
    }
    assert!(log.contains(": restart the program; keeping"), "{log}");
}

#[test]
fn sandbox_is_not_blamed_for_a_file_that_its_mode_closes() {
    if !Uid::effective().is_root() {
        println!("skipped: this test needs root");
        return;
    }
    let scene = Scene::new("closed-by-mode", &["--user=nobody"]);
    let elsewhere = Folder::new("closed-by-mode-elsewhere");
    let file = elsewhere.file("ca.pem");
    std::fs::copy(&scene.authority.ca_file, &file).expect("a temporary file");
    let for_root_alone = PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, for_root_alone).expect("the test owns the file");
    let named = scene.folder.file("ca.pem");
    std::fs::remove_file(&named).expect("the test owns the file");
    symlink(&file, &named).expect("the folder of the test is writable");
    let log = scene.program.reload();
    assert!(log.contains("--ca-file: "), "{log}");
    assert!(log.contains("Permission denied"), "{log}");
    assert!(!log.contains("the sandbox does not allow"), "{log}");
}

#[test]
fn root_becomes_another_user() {
    if !Uid::effective().is_root() {
        println!("skipped: this test needs root");
        return;
    }
    for (user, uid, gid) in [("nobody", 65_534, 65_534), ("12345:54321", 12_345, 54_321)] {
        let mut scene = Scene::new(&format!("user-{uid}"), &["--user", user]);
        let four = |id: u32| format!("{id}\t{id}\t{id}\t{id}");
        assert_eq!(scene.status("Uid:"), four(uid));
        assert_eq!(scene.status("Gid:"), four(gid));
        assert_eq!(scene.status("Groups:"), gid.to_string());
        scene.check_status();
        scene.check_service();
    }
}

#[test]
fn file_that_another_user_cannot_read_again_is_named() {
    if !Uid::effective().is_root() {
        println!("skipped: this test needs root");
        return;
    }
    let authority = Authority::new("unreadable");
    let folder = Folder::new("unreadable");
    let ca_file = folder.file("ca.pem");
    std::fs::copy(&authority.ca_file, &ca_file).expect("a temporary file");
    let for_root_alone = PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&ca_file, for_root_alone).expect("the test owns the file");
    let arguments = [
        "--upstream=192.0.2.1".to_owned(),
        format!("--ca-file={}", ca_file.display()),
        "--user=nobody".to_owned(),
    ];
    let program = Program::start(&arguments);
    let line = format!("{:?}: Permission denied", ca_file.display());
    program.await_log(&line);
    program.await_log("cannot be read again on SIGHUP");
}

#[test]
fn file_that_the_user_may_not_read_is_not_blamed_on_the_sandbox() {
    if !Uid::effective().is_root() {
        println!("skipped: this test needs root");
        return;
    }
    let authority = Authority::new("private");
    let folder = Folder::new("private");
    // As certbot does: root alone may search the folder.
    let private = folder.file("letsencrypt");
    std::fs::create_dir(&private).expect("the folder of the test is writable");
    let ca_file = private.join("ca.pem");
    std::fs::copy(&authority.ca_file, &ca_file).expect("a temporary file");
    let for_root_alone = PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&private, for_root_alone).expect("the test owns the folder");
    let program = Program::start(&[
        "--upstream=192.0.2.1".to_owned(),
        format!("--ca-file={}", ca_file.display()),
        "--user=nobody".to_owned(),
    ]);
    let start = format!("--ca-file: {:?}: Permission denied", ca_file.display());
    program.await_log(&start);
    program.await_log("on SIGHUP by user nobody (65534): use LoadCredential=");
    let log = program.reload();
    assert!(!log.contains("sandbox does not allow"), "{log}");
    let line = log.lines().find(|line| line.contains("ERROR"));
    let line = line.expect("the reload fails");
    for part in [
        &start[..],
        "user ",
        "65534",
        "may not read it",
        "deploy hook",
    ] {
        assert!(line.contains(part), "{line:?} lacks {part:?}");
    }
}

#[test]
fn unknown_user_stops_the_start() {
    for arguments in [&["--check-conf"][..], &[]] {
        let mut child = spawn(
            Command::new(env!("CARGO_BIN_EXE_dotproxy"))
                .args(["-u192.0.2.1", "-l127.0.0.1", "-p1", "--user=no such user"])
                .args(arguments),
        );
        let status = child.wait().expect("the process is a child of this test");
        assert_eq!(status.code(), Some(2));
    }
}

#[test]
fn process_is_sandboxed_at_log_level_error() {
    let port = free_port().to_string();
    let mut child = spawn(Command::new(env!("CARGO_BIN_EXE_dotproxy")).args([
        "-l127.0.0.1",
        "-u192.0.2.1",
        "--log-level=error",
        "-p",
        &port,
    ]));
    let path = format!("/proc/{}/status", child.id());
    let is_sandboxed = || {
        let status = std::fs::read_to_string(&path).expect("the process runs");
        status.contains("NoNewPrivs:\t1") && status.contains("CapEff:\t0000000000000000")
    };
    await_that("the process is confined", is_sandboxed);
    child.kill().expect("the process runs");
    child.wait().expect("the process is a child of this test");
}

#[test]
fn root_without_user_option_logs_a_warning_and_drops_its_groups() {
    if !Uid::effective().is_root() {
        println!("skipped: this test needs root");
        return;
    }
    let warning = "running as root without --user";
    for (option, groups) in [("--timeout=5s", ""), ("--no-sandbox", "4 24")] {
        let program = Program::start_in(
            "exec setpriv --groups=4,24 \"$@\"",
            &["--upstream=192.0.2.1".to_owned(), option.to_owned()],
        );
        program.await_log("sandbox: ");
        let status = program.proc_status();
        let line = status.lines().find(|line| line.starts_with("Groups:"));
        let line = line.expect("the kernel prints this field");
        assert_eq!(line["Groups:".len()..].trim(), groups);
        let log = program.log();
        let line = log.lines().find(|line| line.contains(warning));
        assert!(line.is_some_and(|line| line.contains("WARN")), "{log}");
    }
    let program = Program::start(&["--upstream=192.0.2.1".to_owned(), "--user=root".to_owned()]);
    program.await_log("running as root with --user root");
    let scene = Scene::new("warned", &["--user=12345"]);
    assert!(!scene.program.log().contains(warning));
}
