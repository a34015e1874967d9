//! The query log with readers that are fast, slow or absent.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use crate::support::certificates::Authority;
use crate::support::faulty::Faulty;
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, await_that, output_of};

struct Scene {
    /// Files that the tests read again.
    _authority: Authority,
    folder: Folder,
    server: Faulty,
    program: Program,
}

impl Scene {
    /// Starts the program with a query log in a temporary folder, which arguments name by `@`.
    fn new(label: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new(label);
        Self::within(folder, label, arguments)
    }

    fn within(folder: Folder, label: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(label);
        let server = Faulty::start(&authority, 0);
        let mut all = vec![
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            "--cache-size=1m".to_owned(),
        ];
        let place = folder.file("").display().to_string();
        let arguments = arguments.iter().map(|text| text.replace('@', &place));
        all.extend(arguments);
        let program = Program::start(&all);
        program.await_log("sandbox: ");
        Self {
            _authority: authority,
            folder,
            server,
            program,
        }
    }

    fn ask(&self, id: u16, name: &str) {
        let query = query(id, name, 1, None);
        let response = self.program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }

    /// Waits until the log has this number of lines. Returns them without times and durations.
    fn lines(&self, name: &str, count: usize) -> Vec<String> {
        let path = self.folder.file(name);
        let text = || std::fs::read_to_string(&path).unwrap_or_default();
        await_that("the log has the lines", || text().lines().count() >= count);
        text().lines().map(without_times).collect()
    }
}

fn without_times(line: &str) -> String {
    let (time, rest) = line.split_once("\",").expect("a time");
    let time = time
        .strip_prefix("{\"time\":\"")
        .expect("the time is first");
    // For example 2026-01-02T03:04:05.678Z.
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let (before, rest) = rest.split_once("\"ms\":").expect("the line has a duration");
    let (milliseconds, after) = rest.split_once(',').expect("something follows");
    let took: f64 = milliseconds.parse().expect("a number");
    assert!((0.0..60_000.0).contains(&took), "{took}");
    format!("{before}{after}")
}

#[test]
fn every_query_has_a_line() {
    let log = "--query-log=@log";
    let scene = Scene::new("query-log", &[log, "--query-log-clients=full"]);
    scene.ask(1, "www.example");
    scene.ask(2, "WWW.example");
    scene.program.ask(&[0; 12]).expect("FORMERR");
    let upstream = scene.server.address;
    let client = "\"client\":\"127.0.0.1\",\"transport\":\"udp\"";
    let expected = [
        format!(
            "{client},\"name\":\"www.example.\",\"type\":\"A\",\"outcome\":\"answered\",\
             \"rcode\":\"NOERROR\",\"upstream\":\"{upstream}\",\"bytes\":45,\"cached\":false,\
             \"stale\":false}}"
        ),
        format!(
            "{client},\"name\":\"WWW.example.\",\"type\":\"A\",\"outcome\":\"cached\",\
             \"rcode\":\"NOERROR\",\"bytes\":45,\"cached\":true,\"stale\":false}}"
        ),
        format!(
            "{client},\"outcome\":\"malformed\",\"rcode\":\"FORMERR\",\"bytes\":12,\
             \"cached\":false,\"stale\":false}}"
        ),
    ];
    assert_eq!(scene.lines("log", 3), expected);
}

#[test]
fn client_address_in_a_line_follows_the_option() {
    let subnet = Scene::new("query-log-subnet", &["--query-log=@log"]);
    subnet.ask(1, "www.example");
    let line = &subnet.lines("log", 1)[0];
    assert!(
        line.starts_with("\"client\":\"127.0.0.0/24\",\"transport\""),
        "{line}"
    );
    let arguments = ["--query-log=@log", "--query-log-clients=none"];
    let none = Scene::new("query-log-none", &arguments);
    none.ask(1, "www.example");
    assert!(none.lines("log", 1)[0].starts_with("\"transport\":\"udp\""));
}

#[test]
fn one_of_n_queries_has_a_line_when_sampled() {
    let scene = Scene::new("query-log-sample", &["--query-log=@log,sample=5"]);
    for id in 0..25 {
        scene.ask(id, &format!("n{id}.example"));
    }
    let lines = scene.lines("log", 5);
    assert_eq!(lines.len(), 5);
    assert!(lines[4].contains("\"n24.example.\""), "{}", lines[4]);
}

#[test]
fn file_that_was_moved_away_is_created_again() {
    let scene = Scene::new("query-log-rotate", &["--query-log=@log"]);
    scene.ask(1, "first.example");
    assert_eq!(scene.lines("log", 1).len(), 1);
    let (log, old) = (scene.folder.file("log"), scene.folder.file("old"));
    std::fs::rename(&log, &old).expect("the folder of the test is writable");
    scene.ask(2, "second.example");
    assert_eq!(scene.lines("old", 2).len(), 2);
    scene.program.reload();
    scene.ask(3, "third.example");
    assert!(scene.lines("log", 1)[0].contains("third.example"));
    assert_eq!(scene.lines("old", 2).len(), 2);
}

#[test]
fn readers_that_do_not_read_delay_no_query() {
    let folder = Folder::new("query-log-pipe");
    let pipe = folder.file("pipe");
    let made = output_of(Command::new("mkfifo").arg(&pipe));
    assert!(made.status.success(), "{made:?}");
    let unread = Scene::within(folder, "query-log-pipe", &["--query-log=@pipe"]);
    let full = Scene::new("query-log-full", &["--query-log=/dev/full"]);
    for scene in [&unread, &full] {
        // These lines far exceed the buffer of a pipe: a program that waited for a reader would not
        // answer the later queries.
        for id in 0..6_000 {
            scene.ask(id, &format!("n{}.example", id % 100));
        }
    }
    assert!(
        read_some(&pipe).starts_with(b"{\"time\":"),
        "the pipe has the lines that fit"
    );
}

/// Returns the contents of a pipe.
fn read_some(pipe: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(pipe)
        .expect("the pipe exists");
    let len = file.read(&mut bytes).expect("the pipe has data");
    bytes.truncate(len);
    bytes
}
