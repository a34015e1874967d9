//! Reloading of the options file while the program serves.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use crate::support::certificates::Authority;
use crate::support::faulty::{Fault, Faulty};
use crate::support::folder::Folder;
use crate::support::messages::{check_response, query};
use crate::support::program::{PATIENCE, Program, await_that, free_port};

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
        std::fs::write(&file, text).expect("the folder of the test is writable");
        let program = Program::start(&["-C".to_owned(), file.display().to_string()]);
        program.await_log("sandbox: ");
        Self {
            authority,
            folder,
            first,
            second,
            program,
        }
    }

    /// Reloads a file that names the second server, with these additional lines. Returns the new
    /// log lines.
    fn reload_with(&self, lines: &str) -> String {
        let text = format!(
            "upstream {}\nca-file {}\n{lines}\n",
            self.second.address,
            self.authority.ca_file.display()
        );
        // Replaces the file by renaming, as editors and Kubernetes do.
        let new = self.folder.file("new");
        std::fs::write(&new, text).expect("the folder of the test is writable");
        std::fs::rename(&new, self.folder.file("options"))
            .expect("the folder of the test is writable");
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
fn waiting_queries_are_answered_by_the_new_upstream() {
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
                .expect("loopback accepts datagrams");
            (query, socket)
        })
        .collect();
    await_that("the queries are sent", || {
        queries(&scene.first) >= queries_before + 50
    });
    let log = scene.reload_with("");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    for (query, socket) in clients {
        let mut response = [0; 1_232];
        let len = socket.recv(&mut response).expect("a response in time");
        assert!(check_response(&query, &response[..len]));
    }
    // If a busy machine delays answers, a few queries are sent twice.
    let sent = queries(&scene.second);
    assert!((50..=60).contains(&sent), "{sent} queries");
    assert_eq!(scene.rcode(2), 0);
}

#[test]
fn new_settings_apply_after_a_reload() {
    let scene = Scene::new("reload-settings");
    assert_eq!(scene.rcode(1), 0);
    scene.reload_with("deny 127.0.0.1");
    assert_eq!(scene.rcode(2), 5);
    scene.reload_with("log-level debug");
    assert_eq!(scene.rcode(3), 0);
}

#[test]
fn changed_files_are_reloaded_without_a_signal() {
    let scene = Scene::new("reload-interval");
    scene.reload_with("reload-interval 1s");
    assert_eq!(scene.rcode(1), 0);
    let write = |lines: &str| {
        let text = format!(
            "upstream {}\nca-file {}\nreload-interval 1s\n{lines}\n",
            scene.second.address,
            scene.authority.ca_file.display()
        );
        std::fs::write(scene.folder.file("new"), text).expect("the folder is writable");
        std::fs::rename(scene.folder.file("new"), scene.folder.file("options"))
            .expect("the folder is writable");
    };
    write("deny 127.0.0.1");
    await_that("the new options apply", || scene.rcode(2) == 5);
    // An error is reported once, and the options stay.
    write("deny nonsense");
    scene.program.await_log("deny: \"nonsense\"");
    write("");
    await_that("the corrected options apply", || scene.rcode(3) == 0);
    // A change of a certificate file counts as well.
    std::fs::write(&scene.authority.ca_file, "no certificate").expect("the file is writable");
    scene.program.await_log("ERROR --ca-file: ");
    let log = scene.program.log();
    assert_eq!(log.matches("deny: \"nonsense\"").count(), 1, "{log}");
    assert_eq!(log.matches("has changed: reloading").count(), 4, "{log}");
}

#[test]
fn file_with_a_mistake_changes_nothing() {
    let scene = Scene::new("reload-mistake");
    for (lines, problem) in [
        ("deny localhost", ":3: deny: \"localhost\": expected"),
        ("tls-listen 127.0.0.1:1", "--tls-listen: this option needs"),
        ("ca-file /nonexistent", "--ca-file: "),
        (
            "upstream 127.0.0.1:1",
            "--upstream: \"127.0.0.1:1\": the sandbox does not allow TCP to port 1: restart",
        ),
        (
            "query-log /var/log/dotproxy-test.json",
            "the sandbox does not allow writing in /var/log: restart the program to use it",
        ),
    ] {
        let log = scene.reload_with(lines);
        assert!(log.contains(problem), "{lines}: {log}");
        assert!(log.contains("ERROR"), "{lines}: {log}");
        assert_eq!(scene.rcode(1), 0);
    }
    // The folder of a file that is only read is closed for writing.
    let query_log = scene.folder.file("log.json");
    let log = scene.reload_with(&format!("query-log {}", query_log.display()));
    let folder = query_log.parent().expect("a folder");
    let folder = folder.canonicalize().expect("an existing folder");
    let problem = format!(
        "the sandbox does not allow writing in {}:",
        folder.display()
    );
    assert!(log.contains(&problem), "{log}");
    assert_eq!(scene.rcode(1), 0);
    assert_eq!(queries(&scene.second), 0);
}

#[test]
fn options_that_need_a_restart_are_logged() {
    let scene = Scene::new("reload-fixed");
    let log = scene.reload_with("listen 127.0.0.2\nuser nobody");
    for option in ["--listen or --port", "--user"] {
        let line = format!("{option} has changed: restart the program to apply it");
        assert!(log.contains(&line), "{log}");
    }
    assert_eq!(scene.rcode(1), 0);
    assert_eq!(queries(&scene.second), 1, "the other options apply");
}

#[test]
fn file_in_a_shared_temporary_folder_is_reloaded() {
    let name = format!("dotproxy-reload-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let write = |lines: &str| {
        let text = format!("upstream 192.0.2.1\n{lines}\n");
        std::fs::write(&file, text).expect("a temporary file");
    };
    write("");
    let program = Program::start(&["-C".to_owned(), file.display().to_string()]);
    program.await_log("sandbox: ");
    write("deny 127.0.0.1");
    program.reload();
    std::fs::remove_file(&file).expect("the process is a child of this test");
    let query = query(1, "www.example", 1, None);
    let response = program.ask(&query).expect("a response");
    assert_eq!(response[3] & 15, 5);
}

/// The program in front of servers of two authorities. It trusts one of them or both, has answered
/// one query, and has a connection to each trusted server.
struct TrustScene {
    old: Authority,
    new: Authority,
    folder: Folder,
    server: Faulty,
    program: Program,
}

impl TrustScene {
    /// Starts the program with these settings of the upstream.
    fn new(label: &str, settings: &str) -> Self {
        let [old, new] = ["old", "new"].map(|which| Authority::new(&format!("{label}-{which}")));
        let folder = Folder::new(label);
        let server = Faulty::start(&old, 0);
        let ca_file = folder.file("ca.pem");
        std::fs::copy(&old.ca_file, &ca_file).expect("the folder of the test is writable");
        for (from, to) in old.server_files().iter().zip(["client.pem", "client.key"]) {
            std::fs::copy(from, folder.file(to)).expect("the folder of the test is writable");
        }
        let settings = settings.replace("FOLDER", &folder.file("").display().to_string());
        let program = Program::start(&[
            format!("--upstream={}{settings}", server.address),
            format!("--ca-file={}", ca_file.display()),
        ]);
        let scene = Self {
            old,
            new,
            folder,
            server,
            program,
        };
        // A query during a slow handshake would open a second connection.
        scene.program.await_log("connected in ");
        assert_eq!(scene.rcode(1), 0);
        assert_eq!(scene.connections(), 1);
        scene
    }

    fn rcode(&self, id: u16) -> u8 {
        let query = query(id, "www.example", 1, None);
        let response = self.program.ask(&query).expect("a response");
        check_response(&query, &response);
        response[3] & 15
    }

    fn connections(&self) -> u64 {
        self.server.counts().connections.load(Ordering::Relaxed)
    }

    fn await_open(&self, expected: u64) {
        let open = &self.server.counts().open;
        await_that("connections are closed", || {
            open.load(Ordering::Relaxed) == expected
        });
    }

    fn replace(&self, file: &str, contents: &str) {
        std::fs::write(self.folder.file(file), contents)
            .expect("the folder of the test is writable");
    }
}

fn contents(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).expect("the test owns the file")
}

#[test]
fn upstream_of_an_authority_that_is_no_longer_trusted_gets_no_query() {
    let scene = TrustScene::new("reload-roots", "");
    let (old, new) = (contents(&scene.old.ca_file), contents(&scene.new.ca_file));
    // The same authorities in another textual form.
    scene.replace("ca.pem", &format!("# the same\n{old}"));
    scene.program.reload();
    assert_eq!((scene.rcode(2), scene.connections()), (0, 1));
    scene.replace("ca.pem", &new);
    scene.program.reload();
    assert_eq!(scene.rcode(3), 2, "SERVFAIL");
    assert_eq!(queries(&scene.server), 2);
    scene.await_open(0);
    scene.replace("ca.pem", &format!("{new}{old}"));
    scene.program.reload();
    await_that("the upstream is used again", || scene.rcode(4) == 0);
}

#[test]
fn upstream_whose_trust_is_as_before_keeps_its_connection() {
    let old = Authority::new("reload-pin-only-server");
    let server = Faulty::start(&old, 0);
    let other = Authority::new("reload-pin-only-other");
    let folder = Folder::new("reload-pin-only");
    let ca_file = folder.file("ca.pem");
    std::fs::copy(&other.ca_file, &ca_file).expect("the folder of the test is writable");
    let program = Program::start(&[
        format!(
            "--upstream={},pin-sha256={},pin-only",
            server.address,
            old.server_pin()
        ),
        format!("--ca-file={}", ca_file.display()),
    ]);
    let is_answered = |id| {
        let query = query(id, "www.example", 1, None);
        check_response(&query, &program.ask(&query).expect("a response"))
    };
    program.await_log("connected in ");
    assert!(is_answered(1));
    std::fs::copy(&old.ca_file, &ca_file).expect("the folder of the test is writable");
    program.reload();
    assert!(is_answered(2));
    assert_eq!(server.counts().connections.load(Ordering::Relaxed), 1);
}

#[test]
fn other_client_certificate_is_shown_on_a_new_connection() {
    let settings = ",client-cert=FOLDERclient.pem,client-key=FOLDERclient.key";
    let scene = TrustScene::new("reload-client-cert", settings);
    scene.program.reload();
    assert_eq!((scene.rcode(2), scene.connections()), (0, 1));
    for (from, to) in scene
        .new
        .server_files()
        .iter()
        .zip(["client.pem", "client.key"])
    {
        scene.replace(to, &contents(from));
    }
    scene.program.reload();
    assert_eq!((scene.rcode(3), scene.connections()), (0, 2));
    assert_eq!(scene.server.counts().resumed.load(Ordering::Relaxed), 0);
    scene.await_open(1);
}

#[test]
fn answers_under_way_survive_a_change_of_trust() {
    let scene = TrustScene::new("reload-under-way", "");
    scene
        .server
        .plan(Fault::AnswerLate(Duration::from_secs(1)), 1);
    let before = queries(&scene.server);
    let asked = query(2, "late.example", 1, None);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.set_read_timeout(Some(PATIENCE)).expect("a duration");
    let to = scene.program.address;
    client
        .send_to(&asked, to)
        .expect("loopback accepts datagrams");
    await_that("a query is sent", || queries(&scene.server) > before);
    let both = [&scene.new.ca_file, &scene.old.ca_file].map(|path| contents(path));
    scene.replace("ca.pem", &both.concat());
    let log = scene.program.reload();
    assert!(!log.contains("WARN"), "{log}");
    let mut response = [0; 1_232];
    let len = client.recv(&mut response).expect("a response in time");
    assert!(check_response(&asked, &response[..len]));
    assert_eq!(queries(&scene.server), before + 1, "the query is sent once");
    assert_eq!(scene.rcode(3), 0);
}

#[test]
fn reload_reports_the_number_of_retired_connections() {
    let scene = Scene::new("reload-retired");
    assert_eq!(scene.rcode(1), 0);
    let log = scene.program.reload();
    assert!(
        log.contains("reloaded the configuration and files; cache cleared"),
        "{log}"
    );
    assert!(!log.contains("retired"), "{log}");
    // The same upstreams, and another file of authorities, which includes the current one.
    let other = Authority::new("reload-retired-other");
    let read = |path| std::fs::read_to_string(path).expect("a file of the test");
    let both = read(&scene.authority.ca_file) + &read(&other.ca_file);
    std::fs::write(&scene.authority.ca_file, both).expect("a file of the test");
    let log = scene.program.reload();
    // The program connected to both servers at its start.
    let expected = "cache cleared; upstream connections retired: 2";
    assert!(log.contains(expected), "{log}");
    assert_eq!(scene.rcode(2), 0);
}

/// Writes a self-signed certificate of a CA that is valid in these years, and its key.
fn write_certificate(certificate: &Path, key: &Path, years: (i32, i32)) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let own_key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&own_key).expect("a certificate").pem();
    std::fs::write(certificate, pem).expect("the folder of the test is writable");
    std::fs::write(key, own_key.serialize_pem()).expect("the folder of the test is writable");
}

const VALID: (i32, i32) = (2000, 2200);
const EXPIRED: (i32, i32) = (2000, 2001);
const NOT_YET: (i32, i32) = (2200, 2201);

/// The program with a certificate in each of its files.
struct DatesScene {
    folder: Folder,
    program: Program,
}

impl DatesScene {
    /// The options, and the names of their files without extension.
    const FILES: [(&'static str, &'static str); 4] = [
        ("--tls-cert", "own"),
        ("client-cert", "client"),
        ("--tls-client-ca", "clients"),
        ("--ca-file", "ca"),
    ];

    /// Starts the program with certificates that are valid in these years.
    fn new(label: &str, years: (i32, i32)) -> Self {
        let folder = Folder::new(label);
        for (_, name) in Self::FILES {
            write_in(&folder, name, years);
        }
        let path = |name: &str| folder.file(name).display().to_string();
        let options = format!(
            "upstream 192.0.2.1,client-cert={},client-key={}\ntls-listen 127.0.0.1:{}\n\
             tls-cert {}\ntls-key {}\ntls-client-ca {}\nca-file {}\n",
            path("client.pem"),
            path("client.key"),
            free_port(),
            path("own.pem"),
            path("own.key"),
            path("clients.pem"),
            path("ca.pem"),
        );
        std::fs::write(folder.file("options"), options).expect("the folder is writable");
        let program = Program::start(&["-C".to_owned(), path("options")]);
        program.await_log("sandbox: ");
        Self { folder, program }
    }

    /// Adds a line to the options.
    fn add(&self, line: &str) {
        let path = self.folder.file("options");
        let options = contents(&path) + line;
        std::fs::write(path, options).expect("the folder is writable");
    }

    fn write(&self, name: &str, years: (i32, i32)) {
        write_in(&self.folder, name, years);
    }

    /// Reloads. Checks that the program keeps its settings because of a certificate.
    fn assert_refused(&self, parts: &[&str]) {
        let log = self.program.reload();
        assert!(!log.contains("reloaded the configuration"), "{log}");
        let error = log.lines().find(|line| line.contains("ERROR"));
        for part in parts {
            assert!(error.is_some_and(|error| error.contains(part)), "{log}");
        }
    }

    /// Reloads. Checks that the new settings apply, with a warning for these parts.
    fn assert_accepted(&self, parts: &[&str]) {
        let log = self.program.reload();
        assert!(log.contains("reloaded the configuration"), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
        for part in parts {
            assert!(log.contains(part), "{log} lacks {part}");
        }
    }
}

fn write_in(folder: &Folder, name: &str, years: (i32, i32)) {
    let file = |extension| folder.file(&format!("{name}.{extension}"));
    write_certificate(&file("pem"), &file("key"), years);
}

#[test]
fn certificate_that_is_not_valid_does_not_replace_a_valid_one() {
    let scene = DatesScene::new("reload-dates", VALID);
    for (option, name) in DatesScene::FILES {
        for (years, dates) in [
            (EXPIRED, "expired at 2001-01-01T00:00:00Z"),
            (NOT_YET, "is not valid before 2200-01-01T00:00:00Z"),
        ] {
            scene.write(name, years);
            scene.assert_refused(&[option, dates, "keeping the previous configuration"]);
            scene.write(name, VALID);
            scene.assert_accepted(&[]);
        }
    }
    // A new upstream has no certificate in use that could be worse.
    scene.write("other", EXPIRED);
    let path = |name: &str| scene.folder.file(name).display().to_string();
    let (certificate, key) = (path("other.pem"), path("other.key"));
    scene.add(&format!(
        "upstream 192.0.2.2,client-cert={certificate},client-key={key}\n"
    ));
    scene.assert_refused(&["client-cert", &certificate, "expired at 2001"]);
}

#[test]
fn expired_certificate_replaces_one_that_has_also_expired() {
    let scene = DatesScene::new("reload-all-expired", EXPIRED);
    let warning = "expired at 2001-01-01T00:00:00Z";
    let all = DatesScene::FILES.map(|(option, _)| option);
    scene.assert_accepted(&[&all[..], &[warning]].concat());
    for (option, name) in DatesScene::FILES {
        scene.write(name, NOT_YET);
        scene.assert_accepted(&[option, "is not valid before 2200"]);
    }
    for (_, name) in DatesScene::FILES {
        scene.write(name, VALID);
    }
    scene.assert_accepted(&[]);
    scene.write("own", EXPIRED);
    scene.assert_refused(&["--tls-cert", warning]);
}

#[test]
fn client_certificates_in_other_files_replace_those_that_are_no_longer_named() {
    let scene = DatesScene::new("reload-other-files", EXPIRED);
    for (name, years) in [("own", VALID), ("clients", VALID), ("ca", VALID)] {
        scene.write(name, years);
    }
    let path = |name: &str| scene.folder.file(name).display().to_string();
    scene.write("valid", VALID);
    scene.add(&format!(
        "upstream 192.0.2.2,client-cert={},client-key={}\n",
        path("valid.pem"),
        path("valid.key")
    ));
    scene.assert_accepted(&["--upstream: client-cert: ", "client.pem", "expired at 2001"]);
    scene.write("expired", EXPIRED);
    let options = contents(&scene.folder.file("options"));
    let replace = |from: &str| {
        let options = options.replace(&path(from), &path("expired."));
        std::fs::write(path("options"), options).expect("the folder is writable");
    };
    replace("valid.");
    scene.assert_refused(&[
        "--upstream: client-cert: ",
        "expired.pem",
        "expired at 2001",
    ]);
    replace("client.");
    scene.assert_accepted(&[
        "--upstream: client-cert: ",
        "expired.pem",
        "expired at 2001",
    ]);
}

#[test]
fn directory_in_place_of_a_file_is_named_at_the_reload() {
    let scene = DatesScene::new("reload-directory", VALID);
    for (option, name) in DatesScene::FILES {
        let path = scene.folder.file(&format!("{name}.pem"));
        std::fs::remove_file(&path).expect("the test owns the file");
        std::fs::create_dir(&path).expect("the folder is writable");
        scene.assert_refused(&[option, "expected a regular file, found a directory"]);
        std::fs::remove_dir(&path).expect("the test owns the folder");
        scene.write(name, VALID);
        scene.assert_accepted(&[]);
    }
}
