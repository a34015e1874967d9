//! `--check-conf` finds faults of the configuration before the program serves.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc::O_NONBLOCK;
use nix::unistd::Uid;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    SanType, date_time_ymd,
};

use crate::support::certificates::Authority;
use crate::support::folder::Folder;
use crate::support::program::{Program, free_port, output_of, run_to_end};

/// Checks options. Returns the exit code and standard error.
fn check(arguments: &[&str]) -> (Option<i32>, String) {
    run_to_end(&[&["--check-conf", "-u192.0.2.1"], arguments].concat())
}

fn assert_refused(arguments: &[&str], parts: &[&str]) {
    let (code, text) = check(arguments);
    assert_eq!(code, Some(2), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(
            text.contains(part),
            "{arguments:?}: {text:?} lacks {part:?}"
        );
    }
}

fn assert_valid(arguments: &[&str]) {
    assert_eq!(check(arguments), (Some(0), String::new()), "{arguments:?}");
}

#[test]
fn file_that_cannot_be_written_is_an_error() {
    let folder = Folder::new("check-files");
    let path = |name: &str| folder.file(name).display().to_string();
    fs::create_dir(path("folder")).expect("the folder of the test is writable");
    fs::write(path("file"), "1\n").expect("the folder of the test is writable");
    let (inside, log) = (path("folder"), path("file"));
    for value in [
        inside.clone(),
        format!("{inside}/"),
        format!("{inside}/missing/log.json"),
        format!("{log}/log.json"),
        "/nonexistent/log.json,sample=10".to_owned(),
    ] {
        let argument = format!("--query-log={value}");
        let file = value.split(',').next().expect("a file");
        assert_refused(&[&argument], &["--query-log: ", file]);
    }
    for value in [
        inside.clone(),
        format!("{inside}/missing/stamp"),
        format!("{log}/stamp"),
    ] {
        let argument = format!("--clock-stamp={value}");
        assert_refused(&[&argument], &["--clock-stamp: ", &value]);
    }
    for option in ["ca-file", "conf-file"] {
        let argument = format!("--{option}={inside}");
        assert_refused(&[&argument], &[option, &inside]);
    }
    assert_refused(&[&format!("--dnstap=unix:{log}")], &["--dnstap: ", &log]);
    // Files that can be used are not changed, and no file is created.
    assert_valid(&[
        &format!("--query-log={log}"),
        &format!("--clock-stamp={inside}/stamp"),
        &format!("--dnstap=unix:{inside}/missing.sock"),
    ]);
    assert_valid(&[&format!("--query-log={inside}/new.json,sample=2")]);
    assert_valid(&["--query-log=/dev/null"]);
    assert_valid(&["--query-log=-"]);
    assert_eq!(
        fs::read_to_string(&log).expect("the test wrote the file"),
        "1\n"
    );
    assert_eq!(
        fs::read_dir(&inside)
            .expect("the folder of the test is writable")
            .count(),
        0
    );
}

#[test]
fn clock_stamp_that_is_no_regular_file_is_an_error_and_at_the_start_a_warning() {
    let folder = Folder::new("check-stamp");
    let [inside, pipe, link] = ["folder", "pipe", "link"].map(|name| folder.file(name));
    fs::create_dir(&inside).expect("the folder of the test is writable");
    let made = output_of(Command::new("mkfifo").arg(&pipe));
    assert!(made.status.success(), "{made:?}");
    symlink(folder.file("target"), &link).expect("the folder of the test is writable");
    for (path, found) in [
        (&inside, "a directory"),
        (&pipe, "a named pipe"),
        (&link, "a symbolic link"),
    ] {
        let stamp = format!("--clock-stamp={}", path.display());
        let problem = format!("expected a regular file, found {found}");
        assert_refused(&[&stamp], &["--clock-stamp: ", &problem]);
        let program = Program::start(&["-u192.0.2.1".to_owned(), stamp]);
        program.await_log("sandbox: ");
        let log = program.log();
        let warning = log.lines().find(|text| text.contains(&problem));
        assert!(warning.is_some_and(|text| text.contains("WARN")), "{log}");
    }
}

#[test]
fn clock_stamp_without_a_time_is_a_warning() {
    let folder = Folder::new("check-stamp-contents");
    let path = folder.file("stamp");
    fs::write(&path, "yesterday\n").expect("the folder of the test is writable");
    let stamp = format!("--clock-stamp={}", path.display());
    assert_warned(
        &[&stamp],
        &["--clock-stamp: ", "expected seconds since 1970"],
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let late = now.expect("the clock is right").as_secs() + 2 * 365 * 86_400;
    fs::write(&path, format!("{late}\n")).expect("the folder of the test is writable");
    assert_warned(&[&stamp], &["--clock-stamp: ", "ahead of the system clock"]);
}

#[test]
fn query_log_at_a_link_into_a_missing_folder_is_an_error_at_the_check_and_at_the_start() {
    let folder = Folder::new("check-dangling");
    let link = folder.file("link");
    symlink("missing/log", &link).expect("the folder of the test is writable");
    let log = format!("--query-log={}", link.display());
    let advice = "it is a symbolic link to \"missing/log\": create the folder of its target";
    assert_refused(&[&log], &["--query-log: ", advice]);
    let (code, text) = run_to_end(&["-u192.0.2.1", "-l127.0.0.1:1", &log]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(advice), "{text}");
    fs::create_dir(folder.file("missing")).expect("the folder of the test is writable");
    assert_valid(&[&log]);
}

#[test]
fn files_are_judged_by_the_rights_of_the_runtime_user() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: only root can start as another user");
    }
    let folder = Folder::new("check-user");
    let path = |name: &str| folder.file(name).display().to_string();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.file(""), mode).expect("the folder belongs to the test");
    fs::write(path("victim"), "").expect("the folder of the test is writable");
    symlink(path("victim"), path("link")).expect("the folder of the test is writable");
    fs::write(path("linked"), "").expect("the folder of the test is writable");
    fs::hard_link(path("linked"), path("hard")).expect("the folder of the test is writable");
    fs::create_dir(path("own")).expect("the folder of the test is writable");
    chown(path("own"), Some(65_534), Some(65_534)).expect("root may do that");
    let user = "--user=65534:65534";
    for name in ["link", "hard"] {
        let log = format!("--query-log={}", path(name));
        let parts = ["--query-log", "user nobody (65534) (--user) cannot write"];
        assert_refused(&[user, &log], &parts);
        assert_refused(&["--user=nobody", &log], &parts);
    }
    let stamp = format!("--clock-stamp={}", path("stamp"));
    assert_refused(&[user, &stamp], &["--clock-stamp", "cannot write"]);
    // Root creates a log in its own folder and gives it to the user.
    assert_valid(&[user, &format!("--query-log={}", path("new"))]);
    assert_valid(&[user, &format!("--query-log={}", path("own/log"))]);
    assert_valid(&[user, &format!("--clock-stamp={}", path("own/stamp"))]);
}

#[test]
fn pipe_without_a_reader_is_a_warning_at_the_check_and_at_the_start() {
    let folder = Folder::new("check-pipe");
    let pipe = folder.file("pipe");
    let made = output_of(Command::new("mkfifo").arg(&pipe));
    assert!(made.status.success(), "{made:?}");
    let log = format!("--query-log={}", pipe.display());
    let warning = format!(
        "--query-log: {:?}: this named pipe has no reader",
        pipe.display()
    );
    assert_warned(&[&log], &[&warning]);
    let program = Program::start(&["-u192.0.2.1".to_owned(), log.clone()]);
    program.await_log(&warning);
    drop(program);
    let reader = fs::File::options()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(&pipe)
        .expect("the pipe exists");
    assert_valid(&[&log]);
    let program = Program::start(&["-u192.0.2.1".to_owned(), log]);
    program.await_log("sandbox: ");
    assert!(!program.log().contains("no reader"), "{}", program.log());
    drop(reader);
}

/// Checks that options are valid with one line of warning.
fn assert_warned(arguments: &[&str], parts: &[&str]) {
    let (code, text) = check(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("dotproxy: warning: "), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

/// Writes a file with the contents of these files, and returns its path.
fn joined(folder: &Folder, name: &str, files: &[&str]) -> String {
    let texts = files
        .iter()
        .map(|file| fs::read_to_string(file).expect("a file of the test"));
    let path = folder.file(name);
    fs::write(&path, texts.collect::<String>()).expect("the folder of the test is writable");
    path.display().to_string()
}

#[test]
fn expired_authority_is_a_warning_unless_no_other_is_valid() {
    let folder = Folder::new("check-authorities");
    let [old, _] = certificate(&folder, (2000, 2001));
    let [older, _] = certificate(&folder, (1998, 1999));
    let [later, _] = certificate(&folder, (2200, 2201));
    let [valid, key] = certificate(&folder, (2000, 2200));
    let tls = [
        "--tls-listen=127.0.0.1",
        "--tls-cert",
        &valid,
        "--tls-key",
        &key,
    ];
    for option in ["--ca-file", "--tls-client-ca"] {
        let both = |file: &str| -> Vec<String> {
            let file = format!("{option}={file}");
            let tls = tls.iter().map(ToString::to_string);
            tls.chain([file]).collect()
        };
        let check = |file: &str, is_error: bool, parts: &[&str]| {
            let arguments = both(file);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let quoted = format!("{option}: {file:?}: ");
            let parts = [&[quoted.as_str()], parts].concat();
            if is_error {
                assert_refused(&arguments, &parts);
            } else {
                assert_warned(&arguments, &parts);
            }
        };
        let expired = "expired at 2001-01-01T00:00:00Z";
        check(&old, true, &[expired]);
        check(&later, true, &["is not valid before 2200-01-01T00:00:00Z"]);
        check(&joined(&folder, "none", &[&old, &older]), true, &[expired]);
        let mixed = joined(&folder, "mixed", &[&valid, &old]);
        check(&mixed, false, &["certificate 2", expired]);
        let arguments = both(&valid);
        assert_valid(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // The program starts with warnings, since the clock may be wrong.
    let program = Program::start(&["-u192.0.2.1".to_owned(), format!("--ca-file={old}")]);
    program.await_log("expired at 2001-01-01T00:00:00Z");
}

#[test]
fn server_certificate_in_place_of_a_ca_is_a_warning() {
    let folder = Folder::new("check-no-authority");
    let new_key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(CertificateParams::default(), new_key());
    let mut params = CertificateParams::new(["dns.example".to_owned()]).expect("a name");
    params
        .distinguished_name
        .push(DnType::CommonName, "dns.example");
    let signed = params.signed_by(&new_key(), &authority.expect("an authority"));
    let pem = signed.expect("a certificate").pem();
    let path = folder.file("server.pem");
    fs::write(&path, pem).expect("the folder of the test is writable");
    let argument = format!("--ca-file={}", path.display());
    assert_warned(&[&argument], &["certificate 1 is not a CA certificate"]);
}

#[test]
fn query_log_in_a_missing_folder_has_advice() {
    let folder = Folder::new("check-missing-folder");
    let missing = folder.file("missing");
    let argument = format!("--query-log={}", missing.join("dns.json").display());
    let advice = format!("create the folder {:?}", missing.display());
    assert_refused(&[&argument], &["--query-log: ", &advice]);
}

#[test]
fn expired_intermediate_certificate_of_our_own_is_a_warning() {
    let folder = Folder::new("check-chain");
    let [old, _] = certificate(&folder, (2000, 2001));
    let [valid, key] = certificate(&folder, (2000, 2200));
    let chain = joined(&folder, "chain", &[&valid, &old]);
    let parts = ["certificate 2", "expired at 2001-01-01T00:00:00Z"];
    let tls = [
        "--tls-listen=127.0.0.1",
        "--tls-cert",
        &chain,
        "--tls-key",
        &key,
    ];
    assert_warned(&tls, &parts);
    assert_warned(
        &[&format!("-u192.0.2.2,client-cert={chain},client-key={key}")],
        &parts,
    );
    let mut arguments: Vec<String> = tls.iter().map(ToString::to_string).collect();
    arguments[0] = format!("--tls-listen=127.0.0.1:{}", free_port());
    arguments.push("-u192.0.2.1".to_owned());
    Program::start(&arguments).await_log("self signed cert) expired at 2001");
}

#[test]
fn values_in_errors_are_quoted() {
    assert_refused(
        &["--query-log=/nonexistent/a"],
        &["--query-log: \"/nonexistent/a\": "],
    );
    assert_refused(
        &["--clock-stamp=/nonexistent/a"],
        &["--clock-stamp: \"/nonexistent/a\": "],
    );
    assert_refused(
        &["--ca-file=/nonexistent/a"],
        &["--ca-file: \"/nonexistent/a\": "],
    );
    assert_refused(&["--dnstap=unix:/dev/null"], &["--dnstap: \"/dev/null\": "]);
    assert_refused(&["--user=no-such-user"], &["--user: \"no-such-user\": "]);
    assert_refused(
        &["--user=root:nosuch"],
        &["--user: \"root:nosuch\": this host has no group \"nosuch\": expected "],
    );
    let (code, text) = run_to_end(&["--probe=http://127.0.0.1:1/"]);
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("dotproxy: --probe: \"http://127.0.0.1:1/\": "),
        "{text}"
    );
}

#[test]
fn valid_options_are_reported_on_standard_output() {
    let output = output_of(
        Command::new(env!("CARGO_BIN_EXE_dotproxy")).args(["-u192.0.2.1", "--check-conf"]),
    );
    assert_eq!(output.stdout, b"dotproxy: options and files are valid\n");
}

#[test]
fn listen_address_that_is_not_unicast_is_an_error() {
    for address in ["224.0.0.1", "255.255.255.255", "[ff02::1]:53"] {
        assert_refused(&["-l", address], &["--listen", address, "expected"]);
    }
    // Loopback is 127.0.0.0/8. Its broadcast address cannot be the address of a host.
    let broadcast = output_of(Command::new("sh").args([
        "-c",
        "ip -4 -o address | sed -n 's/.* brd \\([0-9.]*\\) .*/\\1/p' | head -1",
    ]));
    let broadcast = String::from_utf8(broadcast.stdout).expect("an address");
    let broadcast = broadcast.trim();
    if !broadcast.is_empty() && broadcast != "0.0.0.0" {
        assert_refused(&["-l", broadcast], &["--listen", broadcast, "broadcast"]);
        for (option, value) in [
            ("--upstream", format!("{broadcast}:853")),
            ("--bootstrap", format!("{broadcast}:53")),
            ("--dnstap", format!("tcp:{broadcast}:6000")),
            ("--otlp", format!("http://{broadcast}:4318")),
        ] {
            let argument = format!("{option}={value}");
            assert_refused(&[&argument], &[option, broadcast, "broadcast"]);
        }
    }
}

#[test]
fn upstream_at_an_address_of_this_host_is_refused_at_the_check_and_at_the_start() {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let own = socket
        .connect("198.51.100.1:9")
        .and_then(|()| socket.local_addr());
    let Some(own) = own
        .ok()
        .map(|own| own.ip())
        .filter(|own| !own.is_loopback())
    else {
        return eprintln!("skipped: this host has no address on a network");
    };
    let port = free_port().to_string();
    let upstream = format!("-utcp://{own}:{port},domain=a.example");
    let parts = ["--upstream: ", "itself listens there", "would loop"];
    assert_refused(&["-p", &port, &upstream], &parts);
    let (code, text) = run_to_end(&["-p", &port, "-u192.0.2.1", &upstream]);
    assert_eq!(code, Some(2), "{text}");
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert_valid(&["-p", &port, "-l127.0.0.1", &upstream]);
}

#[test]
fn tls_upstream_at_the_plain_listener_is_refused_at_the_check_and_at_the_start() {
    let port = free_port().to_string();
    let upstream = format!("-u127.0.0.1:{port}");
    for arguments in [
        &["-l127.0.0.1", "-p", &port, &upstream][..],
        &["-p", &port, &upstream],
        &["-p853", "-u127.0.0.1"],
    ] {
        let parts = ["--upstream: ", "itself listens there", "would loop"];
        assert_refused(arguments, &parts);
        let (code, text) = run_to_end(arguments);
        assert_eq!(code, Some(2), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn invalid_option_has_the_same_exit_code_at_the_check_and_at_the_start() {
    for option in [
        "--ca-file=/nonexistent",
        "--user=no such user",
        "--timeout=1ms",
    ] {
        assert_refused(&[option], &["--"]);
        let (code, text) = run_to_end(&["-u192.0.2.1", "-l127.0.0.1", "-p1", option]);
        assert_eq!(code, Some(2), "{text}");
    }
    let (code, text) = run_to_end(&["--probe=ftp://127.0.0.1:1/"]);
    assert_eq!(code, Some(2), "{text}");
    let port = free_port();
    let (code, text) = run_to_end(&[&format!("--probe=http://127.0.0.1:{port}/")]);
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn file_that_the_runtime_user_cannot_use_is_a_warning_at_the_check_and_at_the_start() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: only root can start as another user");
    }
    let folder = Folder::new("check-runtime-user");
    let mode = |name: &str, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.file(name), mode).expect("the folder belongs to the test");
    };
    let authority = Authority::new("check-runtime-user");
    fs::copy(&authority.ca_file, folder.file("ca.pem")).expect("a temporary file");
    mode("", 0o755);
    mode("ca.pem", 0o600);
    let user = "--user=nobody";
    let ca_file = format!("--ca-file={}", folder.file("ca.pem").display());
    let warning = format!(
        "{:?}: Permission denied",
        folder.file("ca.pem").display().to_string()
    );
    let advice = "cannot be read again on SIGHUP";
    assert_warned(&[user, &ca_file], &[&warning, advice]);
    let given = |options: &[&str]| {
        let options = options.iter().map(ToString::to_string);
        options
            .chain(["-u192.0.2.1".to_owned()])
            .collect::<Vec<_>>()
    };
    let program = Program::start(&given(&[user, &ca_file]));
    program.await_log(&warning);
    program.await_log(advice);
    mode("ca.pem", 0o644);
    assert_valid(&[user, &ca_file]);
    let stamp = format!("--clock-stamp={}", folder.file("stamp").display());
    let program = Program::start(&given(&[user, &stamp]));
    program.await_log("--clock-stamp: ");
    program.await_log("user nobody (65534) (--user) cannot write");
}

/// Writes a certificate that is valid in these years, and its key. Returns the paths of both files.
fn certificate(folder: &Folder, years: (i32, i32)) -> [String; 2] {
    let mut params = CertificateParams::default();
    let name = "dot.example".try_into().expect("a host name");
    params.subject_alt_names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::DnsName(name),
    ];
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let write = |name: String, text: String| {
        let path = folder.file(&name);
        fs::write(&path, text).expect("the folder of the test is writable");
        path.display().to_string()
    };
    let name = format!("{}-{}", years.0, years.1);
    [
        write(format!("{name}.pem"), pem),
        write(format!("{name}.key"), key.serialize_pem()),
    ]
}

#[test]
fn own_certificate_that_peers_refuse_is_an_error() {
    let folder = Folder::new("check-dates");
    for (years, dates) in [
        ((2000, 2001), "expired at 2001-01-01T00:00:00Z"),
        ((2200, 2201), "is not valid before 2200-01-01T00:00:00Z"),
    ] {
        let [cert, key] = certificate(&folder, years);
        let arguments = [
            "--tls-listen=127.0.0.1",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ];
        assert_refused(
            &arguments,
            &["--tls-cert: ", &cert, dates, "system clock: 20"],
        );
        let upstream = format!("-u192.0.2.2,client-cert={cert},client-key={key}");
        assert_refused(&[&upstream], &["--upstream: client-cert: ", &cert, dates]);
    }
    let [cert, key] = certificate(&folder, (2000, 2200));
    assert_valid(&[
        "--tls-listen=127.0.0.1",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
    ]);
}

#[test]
fn warnings_are_written_and_are_no_errors() {
    let (code, text) = check(&["--allow=::/0", "-u", "2620:fe::9:853"]);
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("dotproxy: warning: --"))
    );
    assert!(
        text.contains("open resolver") && text.contains("[2620:fe::9]:853"),
        "{text}"
    );
}

#[test]
fn valid_authority_is_no_error() {
    let authority = Authority::new("check-authority");
    let ca_file: &Path = &authority.ca_file;
    assert_valid(&["--ca-file", &ca_file.display().to_string()]);
}

/// Returns the arguments for a DoT listener with a certificate and a key.
fn served(certificate: &str, key: &str) -> Vec<String> {
    let arguments = [
        "--tls-listen=127.0.0.1",
        "--tls-cert",
        certificate,
        "--tls-key",
        key,
    ];
    arguments.map(str::to_owned).to_vec()
}

fn assert_served_refused(certificate: &str, key: &str, parts: &[&str]) {
    let arguments = served(certificate, key);
    assert_refused(
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        parts,
    );
}

fn assert_served_warned(certificate: &str, key: &str, parts: &[&str]) {
    let arguments = served(certificate, key);
    assert_warned(
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        parts,
    );
}

/// Writes the certificate of a CA, one that the CA has signed, and the keys of both.
fn signed_certificate(folder: &Folder, extension: Option<&[u8]>) -> [String; 4] {
    let new_key = || KeyPair::generate().expect("a key");
    let (own_key, authority_key) = (new_key(), new_key());
    let key_of_authority = authority_key.serialize_pem();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, authority_key).expect("an authority");
    let mut params = CertificateParams::new(["dns.example".to_owned()]).expect("a name");
    params
        .distinguished_name
        .push(DnType::CommonName, "dns.example");
    let content = extension.map(<[u8]>::to_vec);
    let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    params.custom_extensions =
        Vec::from_iter(content.map(|content| CustomExtension::from_oid_content(&oid, content)));
    let own = params
        .signed_by(&own_key, &authority)
        .expect("a certificate");
    [
        ("own.pem", own.pem()),
        ("own.key", own_key.serialize_pem()),
        ("ca.pem", authority.pem()),
        ("ca.key", key_of_authority),
    ]
    .map(|(name, text)| {
        let path = folder.file(name);
        fs::write(&path, text).expect("the folder of the test is writable");
        path.display().to_string()
    })
}

#[test]
fn encrypted_key_of_either_form_is_named() {
    let folder = Folder::new("check-encrypted");
    let [cert, _] = certificate(&folder, (2000, 2200));
    let traditional = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                       DEK-Info: AES-256-CBC,C9A4\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let pkcs8 =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for text in [traditional, pkcs8] {
        let key = folder.file("encrypted.key");
        fs::write(&key, text).expect("the folder of the test is writable");
        let parts = [
            "--tls-key: ",
            "expected an unencrypted private key in PEM, found an encrypted one",
            "openssl pkey -in ",
        ];
        assert_served_refused(&cert, &key.display().to_string(), &parts);
    }
}

#[test]
fn swapped_files_of_certificate_and_key_are_named() {
    let folder = Folder::new("check-swapped");
    let [cert, key] = certificate(&folder, (2000, 2200));
    let parts = ["--tls-cert: ", "found a private key", "swapped?"];
    assert_served_refused(&key, &cert, &parts);
    let parts = ["--tls-key: ", "found a certificate", "swapped?"];
    assert_served_refused(&cert, &cert, &parts);
    let argument = format!("--ca-file={key}");
    let found = "expected a CA certificate in PEM, found a private key";
    assert_refused(&[&argument], &["--ca-file: ", found]);
    let argument = format!("--tls-client-ca={key}");
    let [own_cert, own_key] = [format!("--tls-cert={cert}"), format!("--tls-key={key}")];
    assert_refused(
        &["--tls-listen=127.0.0.1", &own_cert, &own_key, &argument],
        &["--tls-client-ca: ", found],
    );
}

#[test]
fn designated_name_that_is_not_in_the_certificate_is_a_warning() {
    let folder = Folder::new("check-designated");
    let [cert, key] = certificate(&folder, (2000, 2200));
    let own = [format!("--tls-cert={cert}"), format!("--tls-key={key}")];
    let check = |name: &str| {
        let designated = format!("--designated={name}");
        check(&["--https-listen=127.0.0.1", &own[0], &own[1], &designated])
    };
    let (code, text) = check("other.example");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("--designated: \"other.example\": "), "{text}");
    assert!(text.contains("is not for this name"), "{text}");
    let (_, text) = check("dot.example.");
    assert!(!text.contains("--designated"), "{text}");
    for name in ["192.0.2.1", "_dns.example", "a..b", ""] {
        let (code, text) = check(name);
        assert_eq!(code, Some(2), "{name}: {text}");
        assert!(
            text.contains("expected a host name in the server certificate"),
            "{text}"
        );
    }
}

#[test]
fn der_in_place_of_pem_has_the_command_to_convert_it() {
    let folder = Folder::new("check-der");
    let [cert, key] = certificate(&folder, (2000, 2200));
    let der = folder.file("own.der");
    let secret = KeyPair::generate().expect("a key");
    fs::write(&der, secret.serialize_der()).expect("the folder of the test is writable");
    let der = der.display().to_string();
    let parts = ["--tls-cert: ", "found DER", "openssl x509 -inform der -in "];
    assert_served_refused(&der, &key, &parts);
    let parts = ["--tls-key: ", "found DER", "openssl pkey -inform der -in "];
    assert_served_refused(&cert, &der, &parts);
    // The form of `openssl pkey` for a P-256 key is shorter than 128 bytes.
    let short = folder.file("short.der");
    let sequence = [&[0x30, 0x77][..], &[2; 0x77]].concat();
    fs::write(&short, sequence).expect("the folder of the test is writable");
    assert_served_refused(&cert, &short.display().to_string(), &parts);
}

#[test]
fn missing_file_of_an_upstream_is_named_with_its_setting() {
    let folder = Folder::new("check-client-files");
    let [cert, key] = certificate(&folder, (2000, 2200));
    for (cert, key, missing) in [
        ("/nonexistent/a", key.as_str(), "client-cert"),
        (&cert, "/nonexistent/a", "client-key"),
    ] {
        let upstream = format!("-u192.0.2.2,client-cert={cert},client-key={key}");
        let start = format!("--upstream: {missing}: ");
        assert_refused(&[&upstream], &[&start, "/nonexistent/a"]);
    }
}

#[test]
fn chain_that_begins_with_the_ca_is_named() {
    let folder = Folder::new("check-order");
    let [cert, key, ca, _] = signed_certificate(&folder, None);
    let reversed = joined(&folder, "reversed", &[&ca, &cert]);
    let parts = ["--tls-key: ", "belongs to a CA", "has to be the first"];
    assert_served_refused(&reversed, &key, &parts);
    let upstream = format!("-u192.0.2.2,client-cert={reversed},client-key={key}");
    assert_refused(
        &[&upstream],
        &["--upstream: client-key: ", "belongs to a CA"],
    );
}

#[test]
fn certificate_that_peers_may_refuse_is_a_warning() {
    let folder = Folder::new("check-chain-form");
    // Authority information access with the method "CA issuers" and a URL.
    let access = b"\x30\x15\x30\x13\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x07http:/a";
    let [cert, key, ca, ca_key] = signed_certificate(&folder, Some(access));
    let parts = [
        "--tls-cert: ",
        "has no intermediate certificate",
        "fullchain.pem",
    ];
    assert_served_warned(&cert, &key, &parts);
    assert_served_warned(&ca, &ca_key, &["--tls-cert: ", "is a CA certificate"]);
    let chain = joined(&folder, "chain", &[&cert, &ca]);
    let arguments = served(&chain, &key);
    assert_valid(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn expired_authority_of_a_bundle_is_named_by_its_subject() {
    let folder = Folder::new("check-subject");
    let [old, _] = certificate(&folder, (2000, 2001));
    let [valid, _] = certificate(&folder, (2000, 2200));
    let bundle = joined(&folder, "bundle", &[&valid, &old]);
    // The subject that rcgen sets without another.
    let name = "certificate 2 (CN=rcgen self signed cert) expired at 2001";
    assert_warned(&[&format!("--ca-file={bundle}")], &[name]);
}

#[test]
fn clock_stamp_in_a_missing_folder_has_advice() {
    let argument = "--clock-stamp=/nonexistent/stamp";
    assert_refused(
        &[argument],
        &["--clock-stamp: ", "create the folder \"/nonexistent\""],
    );
    let argument = "--ca-file=/nonexistent/ca.pem";
    assert_refused(
        &[argument],
        &["--ca-file: ", "there is no folder \"/nonexistent\""],
    );
}

#[test]
fn file_that_the_user_may_not_read_has_the_user_and_advice() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: only root can start as another user");
    }
    let folder = Folder::new("check-permission");
    let write = |name: &str, mode| {
        let path = folder.file(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is writable");
        fs::write(&path, "upstream = 192.0.2.1\n").expect("the folder is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("an own file");
        path.display().to_string()
    };
    let (options, key) = (
        write("options.conf", 0o600),
        write("letsencrypt/cert.pem", 0o600),
    );
    for (argument, option, advice) in [
        (
            format!("-C{options}"),
            "--conf-file: ",
            "change the group or mode",
        ),
        (
            format!("--ca-file={key}"),
            "--ca-file: ",
            "use LoadCredential= of systemd, or copy it in a deploy hook of certbot",
        ),
    ] {
        let output = output_of(
            Command::new(env!("CARGO_BIN_EXE_dotproxy"))
                .args(["--check-conf", "-u192.0.2.1", &argument])
                .uid(65_534),
        );
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in [option, "user nobody (65534) may not read it", advice] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
}

#[test]
fn query_log_that_may_not_be_written_is_an_error_at_the_check_and_at_the_start() {
    let folder = Folder::new("check-read-only");
    let set_mode = |name: &str, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.file(name), mode).expect("an own file");
    };
    fs::write(folder.file("log"), "").expect("the folder of the test is writable");
    set_mode("log", 0o444);
    set_mode("", 0o555);
    let port = free_port().to_string();
    for name in ["log", "new"] {
        let path = folder.file(name).display().to_string();
        for start in [&["--check-conf"][..], &["-l127.0.0.1", "-p", &port]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dotproxy"));
            command.args(start).arg("-u192.0.2.1");
            command.arg(format!("--query-log={path}"));
            // Modes do not bind root.
            if Uid::effective().is_root() {
                command.uid(65_534).gid(65_534);
            }
            let output = output_of(&mut command);
            let text = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(2), "{start:?}, {name}: {text}");
            let problem = format!("dotproxy: --query-log: {path:?}: Permission denied");
            assert!(text.contains(&problem), "{start:?}: {text}");
        }
    }
    set_mode("", 0o755);
}
