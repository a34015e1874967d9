//! Files of other types, of other users, or behind links, in place of the files that the program
//! expects.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::certificates::Authority;
use crate::support::faulty::Faulty;
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, await_that, free_port, spawn};

/// The user that root becomes in these tests.
const USER: u32 = 65_531;

/// Folders of the user and of root.
struct Scene {
    authority: Authority,
    server: Faulty,
    /// A folder that the user may write.
    own: Folder,
    /// A folder that only root may write.
    roots: Folder,
}

impl Scene {
    /// Returns `None` unless this process is root, since only root can become another user.
    fn new(label: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            println!("skipped: this test needs root");
            return None;
        }
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let own = Folder::new(&format!("{label}-own"));
        let roots = Folder::new(&format!("{label}-roots"));
        chown(own.file(""), Some(USER), Some(USER)).expect("the test runs as root");
        for folder in [&own, &roots] {
            set_mode(&folder.file(""), 0o755);
        }
        std::fs::write(roots.file("victim"), "precious\n")
            .expect("the folder of the test is writable");
        Some(Self {
            authority,
            server,
            own,
            roots,
        })
    }

    fn arguments(&self, more: &[String]) -> Vec<String> {
        let mut arguments = vec![
            format!("--upstream={}", self.server.address),
            format!("--ca-file={}", self.authority.ca_file.display()),
            format!("--user={USER}"),
        ];
        arguments.extend_from_slice(more);
        arguments
    }

    /// Starts the program and sends it one query.
    fn serve(&self, more: &[String]) -> Program {
        let program = Program::start(&self.arguments(more));
        assert!(is_answered(&program, 1));
        program
    }

    /// Checks that the program does not start. Returns its standard error.
    fn fail(&self, more: &[String]) -> String {
        run(&self.arguments(more), 2)
    }

    fn check_victim(&self) {
        let victim = self.roots.file("victim");
        let contents = std::fs::read_to_string(&victim).expect("the file still exists");
        assert_eq!(contents, "precious\n");
        assert_eq!(
            std::fs::metadata(&victim)
                .expect("the file still exists")
                .uid(),
            0
        );
    }
}

/// Runs the program, which must exit with this code. Returns its standard error.
fn run(arguments: &[String], code: i32) -> String {
    let mut child = spawn(
        Command::new(env!("CARGO_BIN_EXE_dotproxy"))
            .args(["-l127.0.0.1", "-p", &free_port().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    await_that("the program exits", || {
        child
            .try_wait()
            .expect("the process is a child of this test")
            .is_some()
    });
    let output = child.wait_with_output();
    let output = output.expect("the process has exited");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn is_answered(program: &Program, id: u16) -> bool {
    let query = query(id, "www.example", 1, None);
    check_response(&query, &program.ask(&query).expect("a response"))
}

fn set_mode(path: &Path, mode: u32) {
    let permissions = PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("the test owns the file");
}

fn make_pipe(path: &Path) {
    let mode = Mode::from_bits_truncate(0o666);
    mknodat(CWD, path, FileType::Fifo, mode, 0).expect("the folder of the test is writable");
}

fn log_to(path: &Path) -> String {
    format!("--query-log={}", path.display())
}

fn stamp_in(path: &Path) -> String {
    format!("--clock-stamp={}", path.display())
}

fn options_in(path: &Path) -> Vec<String> {
    vec!["-C".to_owned(), path.display().to_string()]
}

#[test]
fn query_log_is_not_opened_through_links_as_root() {
    let Some(scene) = Scene::new("files-log-links") else {
        return;
    };
    let victim = scene.roots.file("victim");
    let log = scene.own.file("queries.json");
    symlink(&victim, &log).expect("the folder of the test is writable");
    let said = scene.fail(&[log_to(&log)]);
    assert!(said.contains("--query-log: "), "{said}");
    scene.check_victim();
    // A new file in a folder that a link of the user leads to.
    let elsewhere = scene.own.file("sub");
    symlink(scene.roots.file(""), &elsewhere).expect("the folder of the test is writable");
    scene.fail(&[log_to(&elsewhere.join("new"))]);
    assert!(!scene.roots.file("new").exists());
    std::fs::remove_file(&log).expect("the test owns the file");
    std::fs::hard_link(&victim, &log).expect("the same file system");
    scene.fail(&[log_to(&log)]);
    scene.check_victim();
}

#[test]
fn refused_query_log_is_explained() {
    let Some(scene) = Scene::new("files-log-refused") else {
        return;
    };
    let victim = scene.roots.file("victim");
    let [link, hard, foreign, fresh] =
        ["link", "hard", "foreign", "fresh"].map(|name| scene.roots.file(name));
    symlink(&victim, &link).expect("the folder of the test is writable");
    std::fs::hard_link(&victim, &hard).expect("the same file system");
    std::fs::write(&foreign, "").expect("the folder of the test is writable");
    chown(&foreign, Some(12_345), None).expect("the test runs as root");
    set_mode(&foreign, 0o640);
    for (path, reason) in [
        (&link, "it is a symbolic link: name its target"),
        (&hard, "it has several names (hard links): use another file"),
        (&foreign, "it belongs to user 12345 and has mode 640"),
    ] {
        let named = path.display().to_string();
        let expected = format!("user {USER} (--user) cannot write {named:?}: {reason}");
        for more in [&[][..], &["--check-conf".to_owned()]] {
            let said = scene.fail(&[&[log_to(path)], more].concat());
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
    // Rotation leaves a file of another user.
    let program = scene.serve(&[log_to(&fresh)]);
    std::fs::remove_file(&fresh).expect("the test owns the folder");
    std::fs::rename(&foreign, &fresh).expect("the test owns the folder");
    let said = program.reload();
    let expected = "cannot write ";
    let reason = ": it belongs to user 12345 and has mode 640; keeping the previous";
    assert!(said.contains(expected) && said.contains(reason), "{said}");
    std::fs::remove_file(&fresh).expect("the test owns the folder");
    let said = program.reload();
    // Within the sandbox, the name of root may be unknown.
    for part in [
        expected,
        "its folder belongs to user ",
        " and has mode 755; keeping the previous",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn query_log_belongs_to_the_user() {
    let Some(scene) = Scene::new("files-log") else {
        return;
    };
    let before = scene.roots.file("before.json");
    std::fs::write(&before, "").expect("the folder of the test is writable");
    for log in [
        scene.own.file("queries.json"),
        scene.roots.file("queries.json"),
        before,
    ] {
        let program = scene.serve(&[log_to(&log)]);
        let lines = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        await_that("the query is logged", || lines() == 1);
        assert_eq!(
            std::fs::metadata(&log).expect("the query log exists").uid(),
            USER
        );
        let said = program.reload();
        assert!(!said.contains("ERROR"), "{said}");
        assert!(is_answered(&program, 2));
        await_that("the query is logged", || lines() == 2);
    }
}

#[test]
fn hard_linked_file_keeps_its_owner() {
    let Some(scene) = Scene::new("files-linked") else {
        return;
    };
    let victim = scene.roots.file("victim");
    let log = scene.roots.file("queries.json");
    std::fs::hard_link(&victim, &log).expect("the same file system");
    scene.fail(&[log_to(&log)]);
    scene.check_victim();
    let stamp = scene.own.file("stamp");
    std::fs::hard_link(&victim, &stamp).expect("the same file system");
    drop(scene.serve(&[stamp_in(&stamp)]));
    scene.check_victim();
}

#[test]
fn stamp_is_not_written_through_a_link_in_place_of_its_temporary_file() {
    let authority = Authority::new("files-stamp");
    let server = Faulty::start(&authority, 0);
    let folder = Folder::new("files-stamp");
    let [stamp, temporary, victim] = ["stamp", "stamp.new", "victim"].map(|name| folder.file(name));
    std::fs::write(&victim, "precious\n").expect("the folder of the test is writable");
    let make_link: [&dyn Fn(); 3] = [
        &|| symlink(&victim, &temporary).expect("the folder of the test is writable"),
        &|| std::fs::hard_link(&victim, &temporary).expect("the same file system"),
        &|| make_pipe(&temporary),
    ];
    for make in make_link {
        make();
        let program = Program::start(&[
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            stamp_in(&stamp),
        ]);
        assert!(is_answered(&program, 1));
        await_that("the stamp is written", || stamp.exists());
        let contents = std::fs::read_to_string(&victim).expect("the file still exists");
        assert_eq!(contents, "precious\n");
        assert!(
            std::fs::symlink_metadata(&stamp)
                .expect("a stamp")
                .is_file()
        );
        std::fs::remove_file(&stamp).expect("the test owns the file");
    }
}

#[test]
fn options_that_the_user_may_write_are_refused() {
    let Some(scene) = Scene::new("files-options") else {
        return;
    };
    let write = |path: &PathBuf| {
        std::fs::write(path, "log-level = debug\n").expect("the folder of the test is writable");
    };
    let in_own = scene.own.file("options");
    write(&in_own);
    let in_roots = scene.roots.file("options");
    write(&in_roots);
    let of_user = scene.roots.file("of-user");
    write(&of_user);
    chown(&of_user, Some(USER), None).expect("the test runs as root");
    let for_all = scene.roots.file("for-all");
    write(&for_all);
    set_mode(&for_all, 0o666);
    let of_group = scene.roots.file("of-group");
    write(&of_group);
    chown(&of_group, None, Some(USER)).expect("the test runs as root");
    set_mode(&of_group, 0o660);
    // The user may replace this link.
    let by_link = scene.own.file("link");
    symlink(&in_roots, &by_link).expect("the folder of the test is writable");
    let folder_link = scene.own.file("folder-link");
    symlink(scene.roots.file(""), &folder_link).expect("the folder of the test is writable");
    let below = scene.own.file("below");
    std::fs::create_dir(&below).expect("the folder of the test is writable");
    write(&below.join("options"));
    for (path, named) in [
        (&in_own, scene.own.file("")),
        (&of_user, of_user.clone()),
        (&for_all, for_all.clone()),
        (&of_group, of_group.clone()),
        (&by_link, scene.own.file("")),
        (&folder_link.join("options"), scene.own.file("")),
        (&below.join("options"), scene.own.file("")),
    ] {
        let arguments = scene.arguments(&options_in(path));
        let named = named.display().to_string();
        let expected = format!("can write {:?}", named.trim_end_matches('/'));
        for said in [
            run(&arguments, 2),
            run(&[&arguments[..], &["--check-conf".to_owned()]].concat(), 2),
        ] {
            assert!(said.contains("--conf-file: "), "{said}");
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
    let program = scene.serve(&options_in(&in_roots));
    assert!(!program.reload().contains("ERROR"));
    // The same file, by a link that only root may replace.
    let by_link = scene.roots.file("link");
    symlink("options", &by_link).expect("the folder of the test is writable");
    drop(scene.serve(&options_in(&by_link)));
}

#[test]
fn named_pipe_in_place_of_a_file_does_not_block() {
    let authority = Authority::new("files-pipe");
    let server = Faulty::start(&authority, 0);
    let folder = Folder::new("files-pipe");
    let [options, ca_file, certificate, key, stamp] =
        ["options", "ca.pem", "own.pem", "own.key", "stamp"].map(|name| folder.file(name));
    let [own_certificate, own_key] = authority.server_files();
    let restore = || {
        std::fs::write(&options, "log-level = debug\n")
            .expect("the folder of the test is writable");
        std::fs::copy(&authority.ca_file, &ca_file).expect("the folder of the test is writable");
        std::fs::copy(&own_certificate, &certificate).expect("the folder of the test is writable");
        std::fs::copy(&own_key, &key).expect("the folder of the test is writable");
    };
    restore();
    let arguments = [
        format!(
            "--upstream={},client-cert={},client-key={}",
            server.address,
            certificate.display(),
            key.display()
        ),
        format!("--ca-file={}", ca_file.display()),
        format!("--conf-file={}", options.display()),
        stamp_in(&stamp),
    ];
    let mut program = Program::start(&arguments);
    program.await_log("sandbox: ");
    for (id, path) in [&options, &ca_file, &certificate, &key]
        .into_iter()
        .enumerate()
    {
        std::fs::remove_file(path).expect("the test owns the file");
        make_pipe(path);
        let log = program.reload();
        let expected = "expected a regular file, found a named pipe";
        assert!(log.contains(expected), "{log}");
        assert!(log.contains(&path.display().to_string()), "{log}");
        assert!(is_answered(
            &program,
            u16::try_from(id).expect("a small number")
        ));
        // The program does not start with a pipe either.
        let said = run(&arguments, 2);
        assert!(said.contains(expected), "{said}");
        std::fs::remove_file(path).expect("the test owns the file");
        restore();
    }
    let log = program.reload();
    assert!(!log.contains("ERROR"), "{log}");
    // A pipe in place of the stamp is replaced.
    let _ = std::fs::remove_file(&stamp);
    make_pipe(&stamp);
    let with_pipe = Program::start(&arguments);
    with_pipe.await_log("expected a regular file, found a named pipe");
    std::fs::remove_file(&options).expect("the test owns the file");
    make_pipe(&options);
    program.signal(Signal::SIGHUP);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait(), Some(0));
}
