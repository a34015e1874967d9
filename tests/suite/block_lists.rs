//! Block lists (`--block`) in the program.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use dotproxy::wire::Message;
use dotproxy::wire::edns::OptionCode;

use crate::support::folder::Folder;
use crate::support::http::metrics;
use crate::support::messages::query;
use crate::support::program::{Program, await_that, free_port, run_to_end};

const A: u16 = 1;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
const ANY: u16 = 255;

const NXDOMAIN: u8 = 3;

/// SERVFAIL: the query went to the upstream, which cannot be reached.
const NOT_BLOCKED: u8 = 2;

/// The program with block lists and an upstream that cannot be reached.
struct Scene {
    folder: Folder,
    program: Program,
}

impl Scene {
    fn new(label: &str, lists: &[&str], options: &[&str]) -> Self {
        let folder = Folder::new(label);
        let mut arguments = vec!["-u127.0.0.1:1".to_owned()];
        for (nth, text) in lists.iter().enumerate() {
            let file = folder.file(&format!("list{nth}"));
            std::fs::write(&file, text).expect("the folder of the test is writable");
            arguments.push(format!("--block={}", file.display()));
        }
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let program = Program::start(&arguments);
        program.await_log("sandbox: ");
        Self { folder, program }
    }

    fn file(&self, nth: usize) -> PathBuf {
        self.folder.file(&format!("list{nth}"))
    }

    /// Returns the response code, the data of the answers, and the extended error.
    fn ask(&self, name: &str, rr_type: u16) -> (u8, Vec<Vec<u8>>, Option<Vec<u8>>) {
        let query = query(7, name, rr_type, Some(1232));
        let response = self.program.ask(&query).expect("a response");
        let message = Message::parse(&response).expect("a whole response");
        let data = message
            .answers()
            .map(|record| record.data(&response).to_vec());
        let mut options = message.opt().expect("OPT").options();
        let error = options.find(|option| option.code == OptionCode::EXTENDED_ERROR);
        let error = error.map(|option| option.data.to_vec());
        (response[3] & 15, data.collect(), error)
    }

    fn rcode(&self, name: &str) -> u8 {
        self.ask(name, A).0
    }

    /// Replaces a list, reloads, and waits until the lists are read.
    fn reload_with(&self, nth: usize, text: &str) {
        let new = self.folder.file("new");
        std::fs::write(&new, text).expect("the folder of the test is writable");
        std::fs::rename(&new, self.file(nth)).expect("the folder of the test is writable");
        let before = self.program.log().matches("INFO  block lists: ").count();
        self.program.reload();
        await_that("the lists are read", || {
            self.program.log().matches("INFO  block lists: ").count() > before
        });
    }
}

/// Returns an extended error with the code 15 (Blocked) and this text.
fn blocked_by(label: &str) -> Vec<u8> {
    [&[0, 15], label.as_bytes()].concat()
}

#[test]
fn names_of_the_lists_do_not_exist_and_follow_the_files() {
    let scene = Scene::new(
        "block-reload",
        &[
            "# a list\nads.example\n0.0.0.0 b.example localhost\n",
            "||tracker.example^\n*.wild.example\n@@good.ads.example\n",
        ],
        &["--hosts=/etc/hosts"],
    );
    for (name, list) in [
        ("ads.example", "list0"),
        ("X.Ads.Example", "list0"),
        ("b.example", "list0"),
        ("www.tracker.example", "list1"),
        ("wild.example", "list1"),
        ("a.b.wild.example", "list1"),
    ] {
        for rr_type in [A, AAAA, HTTPS, ANY] {
            let answer = scene.ask(name, rr_type);
            let expected = (NXDOMAIN, vec![], Some(blocked_by(list)));
            assert_eq!(answer, expected, "{name} {rr_type}");
        }
    }
    for name in [
        "good.ads.example",
        "a.good.ads.example",
        "xads.example",
        "example",
    ] {
        assert_eq!(scene.rcode(name), NOT_BLOCKED, "{name}");
    }
    // The name of a hosts file has precedence.
    assert_eq!(scene.rcode("localhost"), 0);

    scene.reload_with(0, "c.example\n");
    assert_eq!(scene.rcode("ads.example"), NOT_BLOCKED);
    assert_eq!(scene.rcode("c.example"), NXDOMAIN);
    assert_eq!(scene.rcode("tracker.example"), NXDOMAIN);

    std::fs::remove_file(scene.file(1)).expect("the folder of the test is writable");
    let log = scene.program.reload();
    let is_kept = log.contains("--block") && log.contains("keeping the previous");
    assert!(is_kept, "{log}");
    assert_eq!(scene.rcode("tracker.example"), NXDOMAIN);
}

#[test]
fn answers_for_blocked_names_are_configured() {
    let records = |answer: &str, rr_type: u16| {
        let option = format!("--block-answer={answer}");
        let scene = Scene::new(
            &format!("block-{answer}-{rr_type}"),
            &["ads.example"],
            &[&option],
        );
        let (rcode, records, error) = scene.ask("ads.example", rr_type);
        assert_eq!(error, Some(blocked_by("list0")));
        (rcode, records)
    };
    assert_eq!(records("nxdomain", A), (NXDOMAIN, vec![]));
    assert_eq!(records("nodata", A), (0, vec![]));
    assert_eq!(records("zero", A), (0, vec![vec![0; 4]]));
    assert_eq!(records("zero", AAAA), (0, vec![vec![0; 16]]));
    assert_eq!(records("zero", HTTPS), (0, vec![]));
    assert_eq!(records("zero", ANY), (0, vec![vec![0; 4]]));
}

#[test]
fn blocked_names_are_counted_and_logged() {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let listen = format!("--http-listen={http}");
    let options = [&listen, "--log-level=trace"];
    let scene = Scene::new("block-counts", &["ads.example\nb.example"], &options);
    for _ in 0..3 {
        assert_eq!(scene.rcode("x.ads.example"), NXDOMAIN);
    }
    let page = metrics(http);
    assert!(page.contains("\ndotproxy_blocked_total 3\n"), "{page}");
    assert!(page.contains("\ndotproxy_block_list_names 2\n"), "{page}");
    scene
        .program
        .await_log("x.ads.example. A: NXDOMAIN (blocked)");
}

#[test]
fn queries_are_answered_while_a_long_list_is_read() {
    const NAMES: usize = 300_000;
    let mut text = String::new();
    for nth in 0..NAMES {
        writeln!(text, "0.0.0.0 name-{nth}.ads.example").expect("a string takes text");
    }
    let scene = Scene::new("block-long", &["old.example"], &[]);
    let new = scene.folder.file("new");
    std::fs::write(&new, &text).expect("the folder of the test is writable");
    std::fs::rename(&new, scene.file(0)).expect("the folder of the test is writable");
    scene.program.reload();
    let loaded = format!("block lists: {NAMES} names");
    // The old list is in use until the new one is complete.
    while scene.rcode("old.example") == NXDOMAIN {}
    assert_eq!(scene.rcode("name-77.ads.example"), NXDOMAIN);
    assert_eq!(scene.rcode("old.example"), NOT_BLOCKED);
    scene.program.await_log(&loaded);
}

#[test]
fn file_that_cannot_be_used_is_an_error() {
    let folder = Folder::new("block-errors");
    let file = folder.file("list");
    let check = |text: &str, more: &str| {
        std::fs::write(&file, text).expect("the folder of the test is writable");
        let option = format!("--block={}", file.display());
        run_to_end(&["-u192.0.2.1", &option, "--check-conf", more])
    };
    let names: String = (0..200_000).fold(String::new(), |mut text, nth| {
        writeln!(text, "n{nth}.example").expect("a string takes text");
        text
    });
    let (status, output) = check(&names, "--memory-limit=6m");
    assert_eq!(status, Some(2), "{output}");
    assert!(
        output.contains("200000 names do not fit --memory-limit"),
        "{output}"
    );
    let (status, output) = check("a.example\nno/name\n", "--timeout=5s");
    assert_eq!(status, Some(0), "{output}");
    assert!(
        output.contains("1 line is ignored, the first is line 2: \"no/name\""),
        "{output}"
    );
    let (status, output) = run_to_end(&["-u192.0.2.1", "--allow-names=/etc/hosts", "--check-conf"]);
    assert_eq!(status, Some(0), "{output}");
    assert!(
        output.contains("--allow-names: no effect without --block"),
        "{output}"
    );
    let folder_as_file = format!("--block={}", std::env::temp_dir().display());
    for (option, expected) in [
        ("--block=/no/such/list", "/no/such/list"),
        ("--allow-names=/no/such/list", "/no/such/list"),
        (
            &folder_as_file,
            "expected a regular file, found a directory",
        ),
        (
            "--block-answer=refused",
            "expected nxdomain, nodata or zero",
        ),
    ] {
        let (status, output) = run_to_end(&["-u192.0.2.1", option, "--check-conf"]);
        assert_eq!(status, Some(2), "{output}");
        assert!(output.contains(expected), "{output}");
    }
}
