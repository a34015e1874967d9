//! Hosts files (`--hosts`) in the program.

use std::path::PathBuf;

use dotproxy::wire::Message;

use crate::support::folder::Folder;
use crate::support::messages::query;
use crate::support::program::{PATIENCE, Program, read_framed, run_to_end, send_framed};

const A: u16 = 1;
const PTR: u16 = 12;
const ANY: u16 = 255;

/// The program with a hosts file and an upstream that cannot be reached.
struct Scene {
    folder: Folder,
    program: Program,
}

impl Scene {
    fn new(label: &str, text: &str) -> Self {
        let folder = Folder::new(label);
        let file = folder.file("hosts");
        std::fs::write(&file, text).expect("the folder of the test is writable");
        let program = Program::start(&[
            "-u127.0.0.1:1".to_owned(),
            "--dnssec=on".to_owned(),
            format!("--hosts={}", file.display()),
        ]);
        program.await_log("sandbox: ");
        Self { folder, program }
    }

    fn file(&self) -> PathBuf {
        self.folder.file("hosts")
    }

    /// Returns the response code and the data of the records of an answer.
    fn ask(&self, name: &str, rr_type: u16) -> (u8, Vec<Vec<u8>>) {
        let query = query(7, name, rr_type, Some(1232));
        let response = self.program.ask(&query).expect("a response");
        assert_eq!(response[..2], query[..2]);
        let message = Message::parse(&response).expect("a whole response");
        let data = message
            .answers()
            .map(|record| record.data(&response).to_vec());
        (response[3] & 15, data.collect())
    }

    /// Replaces the file and reloads. Returns the new log lines.
    fn reload_with(&self, text: &str) -> String {
        let new = self.folder.file("new");
        std::fs::write(&new, text).expect("the folder of the test is writable");
        std::fs::rename(&new, self.file()).expect("the folder of the test is writable");
        self.program.reload()
    }
}

#[test]
fn names_are_answered_before_all_others_and_follow_the_file() {
    let text = "192.168.1.1 router.lan\n192.168.1.2 www.example.com localhost\n";
    let scene = Scene::new("hosts-reload", text);
    assert_eq!(scene.ask("Router.LAN", A), (0, vec![vec![192, 168, 1, 1]]));
    assert_eq!(
        scene.ask("router.lan", ANY),
        (0, vec![vec![192, 168, 1, 1]])
    );
    assert_eq!(
        scene.ask("www.example.com", A),
        (0, vec![vec![192, 168, 1, 2]])
    );
    assert_eq!(scene.ask("localhost", A), (0, vec![vec![192, 168, 1, 2]]));
    assert_eq!(scene.ask("router.lan", 28), (0, vec![]));
    let pointer = scene.ask("2.1.168.192.in-addr.arpa", PTR);
    assert_eq!(pointer, (0, vec![b"\x03www\x07example\x03com\0".to_vec()]));
    // Not a name of the file.
    assert_eq!(scene.ask("a.router.lan", A).0, 2);

    let log = scene.reload_with("10.0.0.1 router.lan\nfe80::1%eth0 b\n");
    assert!(log.contains("line 2: \"fe80::1%eth0\" is ignored"), "{log}");
    assert_eq!(scene.ask("router.lan", A), (0, vec![vec![10, 0, 0, 1]]));
    assert_eq!(scene.ask("localhost", A), (0, vec![vec![127, 0, 0, 1]]));

    std::fs::remove_file(scene.file()).expect("the folder of the test is writable");
    let log = scene.program.reload();
    assert!(
        log.contains("--hosts") && log.contains("keeping the previous"),
        "{log}"
    );
    assert_eq!(scene.ask("router.lan", A), (0, vec![vec![10, 0, 0, 1]]));
}

#[test]
fn name_with_many_addresses_is_answered_over_tcp() {
    let line = |nth: u8| format!("10.0.0.{nth} many.lan\n");
    let scene = Scene::new("hosts-many", &(0..=99).map(line).collect::<String>());
    let query = query(7, "many.lan", A, Some(1232));
    let response = scene.program.ask(&query).expect("a response");
    assert_eq!((response[2] & 2, response[7]), (2, 0), "TC without records");
    let mut stream = scene.program.connect();
    stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
    send_framed(&mut stream, &[query]).expect("the program reads");
    let response = read_framed(&mut stream).expect("a response");
    assert_eq!((response[2] & 2, response[7]), (0, 100));
}

#[test]
fn file_that_cannot_be_used_is_an_error() {
    let folder = Folder::new("hosts-errors");
    let file = folder.file("hosts");
    let check = |text: &[u8], more: &str| {
        std::fs::write(&file, text).expect("the folder of the test is writable");
        let option = format!("--hosts={}", file.display());
        run_to_end(&["-u192.0.2.1", &option, "--check-conf", more])
    };
    let names: Vec<String> = (0..9_000)
        .map(|nth| format!("::{nth:x} n{nth}.lan\n"))
        .collect();
    for (text, more, expected) in [
        (
            &b"\xff\xfe1"[..],
            "--timeout=5s",
            "expected a text file of addresses and names",
        ),
        (&b"#".repeat(1_048_577), "--timeout=5s", "larger than 1 MiB"),
        (
            &b"::1 a\n".repeat(10_001),
            "--timeout=5s",
            "expected at most 10000 names in all files",
        ),
        (
            names.concat().as_bytes(),
            "--memory-limit=6m",
            "expected fewer names with --memory-limit 6m",
        ),
    ] {
        let (status, output) = check(text, more);
        assert_eq!(status, Some(2), "{output}");
        assert!(output.contains(expected), "{output}");
        assert!(output.contains("--hosts"), "{output}");
    }
    let (status, output) = check(b"", "--timeout=5s");
    assert_eq!(status, Some(0), "{output}");
}
