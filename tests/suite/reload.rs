//! The file with options is read again while the program serves.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;

use crate::support::certificates::Authority;
use crate::support::faulty::{Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{PATIENCE, Program, await_that};

/// The program in front of one of two servers.
struct Scene {
    authority: Authority,
    folder: Folder,
    first: Faulty,
    second: Faulty,
    program: Program,
}

impl Scene {
    fn new(label: &str) -> Self {
        let authority = Authority::new(label);
        let folder = Folder::new(label);
        let (first, second) = (Faulty::start(&authority, 0), Faulty::start(&authority, 0));
        let file = folder.file("options");
        let text = format!(
            "upstream {}\nupstream {},domain=not.used.example\nca-file {}\n",
            first.address,
            second.address,
            authority.ca_file.display()
        );
        std::fs::write(&file, text).expect("a folder of ours");
        let program = Program::start(&["-C".to_owned(), file.display().to_string()]);
        program.await_log("confinement: ");
        Self {
            authority,
            folder,
            first,
            second,
            program,
        }
    }

    /// Has it read a file that names the second server, and these lines; returns what it logged.
    fn reload_with(&self, lines: &str) -> String {
        let text = format!(
            "upstream {}\nca-file {}\n{lines}\n",
            self.second.address,
            self.authority.ca_file.display()
        );
        // As an editor does, or Kubernetes.
        let new = self.folder.file("new");
        std::fs::write(&new, text).expect("a folder of ours");
        std::fs::rename(&new, self.folder.file("options")).expect("a folder of ours");
        self.program.reload()
    }

    fn rcode(&self, id: u16) -> u8 {
        let query = query(id, "www.example", 1, None);
        let response = self.program.ask(&query).expect("a response");
        check_response(&query, &response);
        response[3] & 15
    }
}

fn queries(server: &Faulty) -> u64 {
    server.counts().queries.load(Ordering::Relaxed)
}

#[test]
fn queries_that_wait_are_answered_by_the_new_upstream() {
    let scene = Scene::new("reload-upstream");
    assert_eq!(scene.rcode(1), 0);
    scene.first.plan(Fault::Silence, 1_000);
    let queries_before = queries(&scene.first);
    let clients: Vec<(Vec<u8>, UdpSocket)> = (0..50)
        .map(|id| {
            let query = query(id, &format!("n{id}.example"), 1, None);
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            socket.set_read_timeout(Some(PATIENCE)).expect("a duration");
            socket
                .send_to(&query, scene.program.address)
                .expect("loopback takes it");
            (query, socket)
        })
        .collect();
    await_that("they are sent", || {
        queries(&scene.first) >= queries_before + 50
    });
    let log = scene.reload_with("");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    for (query, socket) in clients {
        let mut response = [0; 1_232];
        let len = socket.recv(&mut response).expect("a response in time");
        assert!(check_response(&query, &response[..len]));
    }
    // Where a busy machine delays answers, a few are sent twice.
    let sent = queries(&scene.second);
    assert!((50..=60).contains(&sent), "{sent} queries");
    assert_eq!(scene.rcode(2), 0);
}

#[test]
fn new_settings_hold_from_then_on() {
    let scene = Scene::new("reload-settings");
    assert_eq!(scene.rcode(1), 0);
    scene.reload_with("deny 127.0.0.1");
    assert_eq!(scene.rcode(2), 5);
    scene.reload_with("log-level debug");
    assert_eq!(scene.rcode(3), 0);
}

#[test]
fn file_with_a_mistake_changes_nothing() {
    let scene = Scene::new("reload-mistake");
    for (lines, problem) in [
        ("deny localhost", ":3: deny: \"localhost\": expected"),
        ("tls-listen 127.0.0.1:1", "--tls-listen: expected"),
        ("ca-file /nonexistent", "--ca-file: "),
        ("upstream 127.0.0.1:1", "port 1 was given up at the start"),
    ] {
        let log = scene.reload_with(lines);
        assert!(log.contains(problem), "{lines}: {log}");
        assert!(log.contains("ERROR"), "{lines}: {log}");
        assert_eq!(scene.rcode(1), 0);
    }
    assert_eq!(queries(&scene.second), 0);
}

#[test]
fn what_takes_a_restart_is_named() {
    let scene = Scene::new("reload-fixed");
    let log = scene.reload_with("listen 127.0.0.2\nuser nobody");
    for option in ["--listen", "--user"] {
        let line = format!("{option} has changed, which takes a restart");
        assert!(log.contains(&line), "{log}");
    }
    assert_eq!(scene.rcode(1), 0);
    assert_eq!(queries(&scene.second), 1, "the rest holds");
}

#[test]
fn file_that_lies_where_everybodys_do_is_read_again() {
    let name = format!("dotproxy-reload-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let write = |lines: &str| {
        let text = format!("upstream 192.0.2.1\n{lines}\n");
        std::fs::write(&file, text).expect("a temporary file");
    };
    write("");
    let program = Program::start(&["-C".to_owned(), file.display().to_string()]);
    program.await_log("confinement: ");
    write("deny 127.0.0.1");
    program.reload();
    std::fs::remove_file(&file).expect("it is ours");
    let query = query(1, "www.example", 1, None);
    let response = program.ask(&query).expect("a response");
    assert_eq!(response[3] & 15, 5);
}
