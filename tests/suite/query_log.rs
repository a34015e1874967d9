//! The query log, read by those who read it well, badly or not at all.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use crate::support::certificates::Authority;
use crate::support::faulty::Faulty;
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{Program, await_that, spawn};

struct Scene {
    /// Its files are read again.
    _authority: Authority,
    folder: Folder,
    server: Faulty,
    program: Program,
}

impl Scene {
    /// With a query log in a folder of its own, to which these arguments may refer as `@`.
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
        program.await_log("confinement: ");
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

    /// The lines of a log, once there are so many, without what differs from run to run.
    fn lines(&self, name: &str, count: usize) -> Vec<String> {
        let path = self.folder.file(name);
        let text = || std::fs::read_to_string(&path).unwrap_or_default();
        await_that("the lines are there", || text().lines().count() >= count);
        text().lines().map(without_times).collect()
    }
}

fn without_times(line: &str) -> String {
    let (time, rest) = line.split_once("\",").expect("a time");
    let time = time
        .strip_prefix("{\"time\":\"")
        .expect("the time is first");
    // As in 2026-01-02T03:04:05.678Z.
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let (before, rest) = rest.split_once("\"ms\":").expect("how long it took");
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
fn line_says_of_the_client_what_is_wanted() {
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
fn one_of_so_many_has_a_line() {
    let scene = Scene::new("query-log-sample", &["--query-log=@log,sample=5"]);
    for id in 0..25 {
        scene.ask(id, &format!("n{id}.example"));
    }
    let lines = scene.lines("log", 5);
    assert_eq!(lines.len(), 5);
    assert!(lines[4].contains("\"n24.example.\""), "{}", lines[4]);
}

#[test]
fn file_that_was_put_away_is_made_anew() {
    let scene = Scene::new("query-log-rotate", &["--query-log=@log"]);
    scene.ask(1, "first.example");
    assert_eq!(scene.lines("log", 1).len(), 1);
    let (log, old) = (scene.folder.file("log"), scene.folder.file("old"));
    std::fs::rename(&log, &old).expect("a folder of ours");
    scene.ask(2, "second.example");
    assert_eq!(scene.lines("old", 2).len(), 2);
    scene.program.reload();
    scene.ask(3, "third.example");
    assert!(scene.lines("log", 1)[0].contains("third.example"));
    assert_eq!(scene.lines("old", 2).len(), 2);
}

#[test]
fn readers_that_take_nothing_slow_nobody_down() {
    let folder = Folder::new("query-log-pipe");
    let pipe = folder.file("pipe");
    let made = spawn(Command::new("mkfifo").arg(&pipe)).wait();
    assert!(made.expect("mkfifo is there").success());
    let unread = Scene::within(folder, "query-log-pipe", &["--query-log=@pipe"]);
    let full = Scene::new("query-log-full", &["--query-log=/dev/full"]);
    for scene in [&unread, &full] {
        // Far more lines than a pipe holds: a program that waited for a reader would answer none of the later ones.
        for id in 0..6_000 {
            scene.ask(id, &format!("n{}.example", id % 100));
        }
    }
    assert!(
        read_some(&pipe).starts_with(b"{\"time\":"),
        "what fits is there"
    );
}

/// What a pipe holds.
fn read_some(pipe: &Path) -> Vec<u8> {
    let mut octets = vec![0; 100];
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(pipe)
        .expect("it is there");
    let len = file.read(&mut octets).expect("it holds something");
    octets.truncate(len);
    octets
}
