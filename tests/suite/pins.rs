//! Pinned upstreams: only a server with a pinned key receives a query.

use std::sync::atomic::Ordering;

use dotproxy::config::Pin;
use nix::sys::signal::Signal;

use crate::support::certificates::{Authority, Flaw};
use crate::support::faulty::{Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::Program;

/// A server, and the proxy in front of it.
struct Scene {
    program: Program,
    server: Faulty,
}

impl Scene {
    /// Starts the proxy with these settings of the upstream.
    fn new(authority: &Authority, flaw: Flaw, settings: &[&str]) -> Self {
        let server = Faulty::start(authority, 0);
        if flaw != Flaw::None {
            server.plan(Fault::Certificate(flaw), u64::MAX);
        }
        let program = Program::start(&[
            format!("--upstream={},{}", server.address, settings.join(",")),
            format!("--ca-file={}", authority.ca_file.display()),
        ]);
        Self { program, server }
    }

    /// Returns whether a query is answered. If not, checks that the server has not received it.
    fn is_trusted(&self) -> bool {
        let query = query(1, "secret.example", 1, None);
        let response = self.program.ask(&query).expect("a response");
        let is_answered = check_response(&query, &response);
        let seen = self.server.counts().queries.load(Ordering::Relaxed);
        assert_eq!(seen, u64::from(is_answered));
        if !is_answered {
            self.program.await_log("authentication failed");
        }
        is_answered
    }
}

fn pin(pin: Pin) -> String {
    format!("pin-sha256={pin}")
}

/// A pin that matches no key.
fn other() -> String {
    pin(Pin([7; 32]))
}

#[test]
fn pin_is_required_besides_chain_and_name() {
    let authority = Authority::new("pins-besides");
    let (own, its_authority) = (pin(authority.server_pin()), pin(authority.pin()));
    let none = Flaw::None;
    let is_trusted = |flaw, settings: &[&str]| Scene::new(&authority, flaw, settings).is_trusted();
    assert!(is_trusted(none, &[&own]));
    assert!(is_trusted(none, &[&its_authority]));
    assert!(is_trusted(none, &[&other(), &own]));
    for flaw in [Flaw::SelfSigned, Flaw::Expired, Flaw::WrongName] {
        assert!(!is_trusted(flaw, &[&own, &its_authority]));
    }
    let scene = Scene::new(&authority, none, &[&other()]);
    assert!(!scene.is_trusted());
    // The log names the pin of the server.
    scene.program.await_log(&format!(
        "no configured pin matches; the server's key has {own}; compare it with the operator's \
         before you change the pin"
    ));
}

#[test]
fn pin_only_accepts_an_unknown_authority() {
    let authority = Authority::new("pins-only");
    let (own, its_authority) = (pin(authority.server_pin()), pin(authority.pin()));
    let only = "pin-only";
    let is_trusted = |flaw, pin: &str| Scene::new(&authority, flaw, &[pin, only]).is_trusted();
    for flaw in [Flaw::SelfSigned, Flaw::Expired, Flaw::WrongName, Flaw::None] {
        assert!(is_trusted(flaw, &own));
        assert!(!is_trusted(flaw, &other()));
    }
    // With `pin-only`, no chain vouches for the authority's key.
    assert!(!is_trusted(Flaw::None, &its_authority));
}

#[test]
fn pin_report_logs_a_mismatch_and_accepts_the_server() {
    let authority = Authority::new("pins-report");
    let report = "pin-report";
    let scene = Scene::new(&authority, Flaw::None, &[&other(), report]);
    assert!(scene.is_trusted());
    let own = pin(authority.server_pin());
    scene.program.await_log(&format!(
        "no configured pin matches; the server's key has {own}"
    ));
    scene.program.signal(Signal::SIGUSR1);
    scene.program.await_log("pin mismatches=1");

    let scene = Scene::new(&authority, Flaw::None, &[&own, report]);
    assert!(scene.is_trusted());
    scene.program.signal(Signal::SIGUSR1);
    scene.program.await_log("pin mismatches=0");

    let scene = Scene::new(&authority, Flaw::WrongName, &[&own, report]);
    assert!(!scene.is_trusted());
}

#[test]
fn pin_of_a_cross_signing_authority_matches() {
    let [near, far] = ["near", "far"].map(|which| Authority::new(&format!("pins-{which}")));
    let folder = Folder::new("pins-cross");
    let ca_file = folder.file("ca.pem");
    let both = [&near, &far].map(|authority| {
        std::fs::read_to_string(&authority.ca_file).expect("the test owns the file")
    });
    std::fs::write(&ca_file, both.concat()).expect("the folder of the test is writable");
    for (pinned, is_right) in [
        (near.server_pin(), true),
        (near.pin(), true),
        (far.pin(), true),
        (far.server_pin(), false),
    ] {
        let server = Faulty::start_with(&near, near.server_cross_signed(&far), 0);
        let program = Program::start(&[
            format!("--upstream={},{}", server.address, pin(pinned)),
            format!("--ca-file={}", ca_file.display()),
        ]);
        assert_eq!(Scene { program, server }.is_trusted(), is_right);
    }
}
