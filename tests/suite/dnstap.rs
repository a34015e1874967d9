//! dnstap readers that disconnect, reconnect or do not read.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::support::certificates::Authority;
use crate::support::faulty::Faulty;
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{PATIENCE, Program, await_that};

struct Scene {
    folder: Folder,
    _server: Faulty,
    program: Program,
}

impl Scene {
    fn new(label: &str) -> Self {
        let authority = Authority::new(label);
        let folder = Folder::new(label);
        let server = Faulty::start(&authority, 0);
        let program = Program::start(&[
            format!("--upstream={}", server.address),
            format!("--ca-file={}", authority.ca_file.display()),
            "--cache-size=1m".to_owned(),
            format!("--dnstap=unix:{}", folder.file("tap").display()),
        ]);
        program.await_log("sandbox: ");
        Self {
            folder,
            _server: server,
            program,
        }
    }

    fn ask(&self, id: u16) {
        let query = query(id, "www.example", 1, None);
        let response = self.program.ask(&query).expect("a response");
        assert!(check_response(&query, &response));
    }

    fn listen(&self) -> UnixListener {
        let path = self.folder.file("tap");
        let _ = std::fs::remove_file(&path);
        UnixListener::bind(path).expect("the folder of the test is writable")
    }
}

/// Accepts a connection of the program and answers its READY frame.
fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().expect("the program connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut ready = read(&mut stream, 42);
    assert_eq!(ready[8..12], [0, 0, 0, 4], "READY");
    // ACCEPT has the same content type.
    ready[11] = 1;
    stream.write_all(&ready).expect("the peer accepts data");
    assert_eq!(read(&mut stream, 42)[8..12], [0, 0, 0, 2], "START");
    stream
}

fn read(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream
        .read_exact(&mut bytes)
        .expect("the frame is complete");
    bytes
}

/// Reads the next frame.
fn frame(stream: &mut UnixStream) -> Vec<u8> {
    let len = read(stream, 4);
    let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]);
    read(stream, usize::try_from(len).expect("a short frame"))
}

#[test]
fn reader_can_disconnect_and_reconnect() {
    let scene = Scene::new("dnstap-again");
    scene.ask(1);
    for round in 0..3 {
        let listener = scene.listen();
        let mut stream = accept(&listener);
        scene.ask(round);
        let first = frame(&mut stream);
        let has_name = first.windows(4).any(|part| part == b"\x03www");
        assert!(has_name, "{first:?}");
        drop(stream);
        scene.ask(round);
    }
    // No reader was connected at first, nor after each disconnection.
    let reported = || scene.program.log().matches("; retrying").count();
    await_that("each disconnection is logged once", || reported() == 4);
}

#[test]
fn reader_that_does_not_read_costs_only_the_buffer() {
    let scene = Scene::new("dnstap-stuck");
    let listener = scene.listen();
    let mut stream = accept(&listener);
    let before = scene.program.own_kib();
    for id in 0..20_000 {
        scene.ask(id);
    }
    let more = scene.program.own_kib() - before;
    assert!(more < 4_000, "{more} KiB");
    // The buffered messages arrive frame by frame.
    for _ in 0..1_000 {
        frame(&mut stream);
    }
    drop(stream);
    drop(listener);
    scene.ask(1);
    await_that("the memory is released", || {
        scene.program.own_kib() < before + 600
    });
}
