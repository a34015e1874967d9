//! Tests of the command line and of options files.

use super::*;
use crate::config::{Limits, Listen, Timeouts, Upstream};
use log::LevelFilter;
use std::time::Duration;

pub(super) fn parse_line(line: &str) -> Result<Command, String> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&arguments).map_err(|error| error.to_string())
}

pub(super) fn config(line: &str) -> Config {
    match parse_line(line) {
        Ok(Command::Run(config) | Command::Check(config)) => *config,
        other => panic!("{other:?}"),
    }
}

pub(super) fn with_file(text: &str, line: &str) -> Result<Command, String> {
    let path = std::env::temp_dir().join(format!(
        "dotproxy-options-{}-{:?}.conf",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, text).unwrap();
    let result = parse_line(&format!("-C {} {line}", path.display()));
    std::fs::remove_file(&path).unwrap();
    result.map_err(|error| error.replace(&path.display().to_string(), "FILE"))
}

/// Writes a file with this text for this thread and calls `check` with its path.
pub(super) fn with_path(text: &str, check: impl FnOnce(&str)) {
    let path = std::env::temp_dir().join(format!(
        "dotproxy-value-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, text).unwrap();
    check(path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn one_upstream_is_enough() {
    let config = config("-p 5353 -u 1.1.1.1:853");
    assert_eq!(config.listen, Listen::Everywhere { port: 5353 });
    assert_eq!(config.upstreams[0].to_string(), "1.1.1.1:853");
    assert_eq!(config.timeouts, Timeouts::for_query(Duration::from_secs(5)));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log_level, LevelFilter::Info);
}

#[test]
fn allowed_networks_replace_the_neighbours() {
    let allows = |line: &str, ip: &str| config(line).access.allows(ip.parse().unwrap());
    assert!(allows("-u 1.1.1.1", "192.168.1.1"));
    assert!(!allows("-u 1.1.1.1", "203.0.113.1"));
    let line = "-u 1.1.1.1 --allow 203.0.113.0/24 --deny 203.0.113.9";
    assert!(allows(line, "203.0.113.1"));
    assert!(!allows(line, "203.0.113.9"));
    assert!(!allows(line, "192.168.1.1"));
    let error = parse_line("-u 1.1.1.1 --deny 10.0.0.1/8").unwrap_err();
    assert!(
        error.starts_with("--deny: \"10.0.0.1/8\": expected a network whose host bits are zero")
    );
}

#[test]
fn repeated_verbose_raises_the_log_level() {
    assert_eq!(config("-v -u 1.1.1.1").log_level, LevelFilter::Debug);
    assert_eq!(config("-vv -u 1.1.1.1").log_level, LevelFilter::Trace);
    let level = |line: &str| config(line).log_level;
    assert_eq!(level("--log-level warn -u 1.1.1.1"), LevelFilter::Warn);
    assert_eq!(level("-v --log-level warn -u 1.1.1.1"), LevelFilter::Debug);
    assert_eq!(level("-v --log-level debug -u 1.1.1.1"), LevelFilter::Debug);
}

#[test]
fn errors_name_option_value_and_expectation() {
    let error = |line: &str| parse_line(line).unwrap_err();
    assert_eq!(
        error(""),
        "--upstream: expected an upstream, like -u 1.1.1.1"
    );
    assert_eq!(
        error("-p 0 -u 1.1.1.1"),
        "--port: \"0\": expected a port from 1 to 65535"
    );
    assert_eq!(
        error("--nonsense"),
        "--nonsense: unknown option (see --help)"
    );
    assert_eq!(
        error("--listen fe80::1 -u 1.1.1.1"),
        "--listen: \"fe80::1\": expected a link-local address with its interface, like \
             fe80::1%eth0"
    );
    assert_eq!(error("-u"), "-u: expected a value");
    for value in [
        "-u 1.1.1.1:0",
        "-u 1.1.1.1:65536",
        "-u [::1]:0",
        "-u ::1@0",
        "-u 1.1.1.1:0#a.example",
        "-u dns.quad9.net:0",
        "-u 1.1.1.1 -b 1.1.1.1:0",
        "-u 1.1.1.1 -l 127.0.0.1:0",
    ] {
        let problem = error(value);
        let end = "expected a port from 1 to 65535 after the address";
        assert!(problem.ends_with(end), "{value}: {problem}");
    }
    assert_eq!(
        error("-u 1.1.1.1 here"),
        "\"here\": expected an option (see --help)"
    );
    assert_eq!(error("--check-conf=1"), "--check-conf: expected no value");
    assert!(error("--listen-on ::1 -u 1.1.1.1").contains("unknown option"));
    assert!(error("--cache-size 2g -u 1.1.1.1").contains("\"2g\": expected a size up to"));
    assert_eq!(
        error("--cache-min-ttl 2h --cache-max-ttl 1h -u 1.1.1.1"),
        "--cache-min-ttl: \"2h\": must not exceed --cache-max-ttl (\"1h\")"
    );
    assert!(error("-u udp://1.1.1.1").starts_with("--upstream: \"udp://1.1.1.1\": expected dom"));
    assert!(error("--timeout 1 -u 1.1.1.1 --timeout x").contains("\"x\": expected a duration"));
    assert!(error("--max-inflight +5 -u 1.1.1.1").contains("\"+5\": expected a number"));
}

#[test]
fn memory_limit_determines_the_other_limits() {
    let small = config("-u 1.1.1.1 --memory-limit 8m");
    let all = Limits::default();
    assert!(small.limits.inflight < all.inflight);
    assert!(small.cache.size > 64 * 1024 && small.cache.size < 8 << 20);
    let given = config("-u 1.1.1.1 --memory-limit 8m --max-inflight 300 --cache-size 64k");
    assert_eq!((given.limits.inflight, given.cache.size), (300, 64 << 10));
    let error = |line: &str| parse_line(&format!("-u 1.1.1.1 {line}")).unwrap_err();
    assert!(error("--memory-limit 3m").starts_with("--memory-limit: \"3m\": expected a size"));
    let problem = error("--memory-limit 8m --cache-size 8M");
    let parts = [
        "--cache-size: \"8M\": expected at most ",
        "k with --memory-limit 8m: lower --cache-size, or raise --memory-limit",
    ];
    let has_parts = problem.starts_with(parts[0]) && problem.ends_with(parts[1]);
    assert!(has_parts, "{problem}");
    let end = format!(
        "expected a lower limit with --memory-limit 8m (the defaults are --max-inflight {} and \
         --max-tcp-clients {}), or a higher --memory-limit",
        small.limits.inflight, small.limits.tcp_clients
    );
    assert_eq!(
        error("--memory-limit 8m --max-inflight 50000"),
        format!("--max-inflight: \"50000\": {end}")
    );
    assert_eq!(
        error("--memory-limit 8m --max-inflight 50000 --max-tcp-clients 7"),
        format!("--max-inflight: \"50000\", --max-tcp-clients: \"7\": {end}")
    );
    let problem = with_file("\nmemory-limit = 8m\ncache-size = 1g", "-u 1.1.1.1").unwrap_err();
    assert!(problem.starts_with("FILE:3: --cache-size: "), "{problem}");
}

#[test]
fn host_names_of_upstreams_require_a_bootstrap_server() {
    let error = |line: &str| parse_line(line).unwrap_err();
    assert!(error("-u tls://dns.quad9.net").contains("a host name needs --bootstrap ADDR"));
    let config = config("-u tls://dns.quad9.net -b 192.168.1.1 -b [::1]:5353");
    let servers = ["192.168.1.1:53", "[::1]:5353"].map(|server| server.parse().unwrap());
    assert_eq!(config.bootstrap, servers);
    assert!(error("-u a.b -b x").starts_with("--bootstrap: \"x\": expected an IP address"));
    for line in [
        "-b 127.0.0.1",
        "-b [::1] -l ::1",
        "-b 127.0.0.1:54 -l 0.0.0.0:54",
    ] {
        let error = loop_problem(&format!("-u tls://dns.quad9.net {line}"));
        assert!(error.ends_with("queries would loop"), "{error}");
    }
}

/// Returns the problem with settings whose queries would loop.
fn loop_problem(line: &str) -> String {
    check_loops(&config(line)).unwrap_err().to_string()
}

#[test]
fn upstream_that_is_this_program_is_refused() {
    let own_tls = "--tls-cert c --tls-key k --tls-listen";
    for line in [
        format!("-u 127.0.0.1 {own_tls} 0.0.0.0"),
        format!("-u 127.0.0.1:8853 {own_tls} 127.0.0.1:8853"),
        format!("-u [::1] {own_tls} [::]"),
        format!("-u [::ffff:127.0.0.1] {own_tls} 0.0.0.0"),
        format!("-u 1.1.1.1 -u 192.0.2.7#a.example {own_tls} 192.0.2.7"),
        "-u 1.1.1.1 -u udp://127.0.0.1,domain=a.example".to_owned(),
        "-u 1.1.1.1 -u tcp://[::1]:5353,domain=a.example -p 5353".to_owned(),
        // TLS to a plain listener, and plain TCP to one under TLS.
        "-u 127.0.0.1:53".to_owned(),
        "-u [::1]:5353#a.example -l [::1] -p 5353".to_owned(),
        "-u 127.0.0.1 -p 853".to_owned(),
        format!("-u 1.1.1.1 -u tcp://127.0.0.1:853,domain=a.example {own_tls} 127.0.0.1"),
    ] {
        let error = loop_problem(&line);
        assert!(error.starts_with("--upstream: "), "{line}: {error}");
        assert!(error.ends_with("queries would loop"), "{line}: {error}");
    }
    for line in [
        // Another port, another address, or another transport protocol than the listener's.
        format!("-u 127.0.0.1:8853 {own_tls} 0.0.0.0"),
        format!("-u 127.0.0.2 {own_tls} 127.0.0.1"),
        "-u 1.1.1.1 -u udp://127.0.0.1:5353,domain=a.example".to_owned(),
        // Another address family.
        "-u 1.1.1.1 -l 0.0.0.0 -u tcp://[::1]:53,domain=a.example".to_owned(),
        "-u 1.1.1.1 -l [::] -u udp://127.0.0.1:53,domain=a.example".to_owned(),
    ] {
        check_loops(&config(&line)).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn file_and_command_line_share_the_table() {
    let text = "\u{feff}# a comment\n\nport = 5353\nupstream 1.1.1.1:853#a.example # why\n\
                    upstream=9.9.9.9\nverbose\n\ttimeout=2s\t\n";
    let Ok(Command::Run(config)) = with_file(text, "-u 8.8.8.8 --timeout 3s") else {
        panic!("the file is valid");
    };
    assert_eq!(config.listen, Listen::Everywhere { port: 5353 });
    let upstreams: Vec<_> = config.upstreams.iter().map(Upstream::to_string).collect();
    assert_eq!(
        upstreams,
        ["1.1.1.1:853#a.example", "9.9.9.9:853", "8.8.8.8:853"]
    );
    assert_eq!(config.timeouts.query, Duration::from_secs(3));
    assert_eq!(config.log_level, LevelFilter::Debug);
}

#[test]
fn errors_in_a_file_name_the_line() {
    let error = |text: &str| with_file(text, "").unwrap_err();
    assert!(error("\nnonsense=1").starts_with("FILE:2: \"nonsense\": unknown option"));
    assert!(error("upstream=\"1.1.1.1\"").ends_with("remove the quotes"));
    assert!(error("port=53\nlisten=\u{fc}").starts_with("FILE:2: listen: \"ü\""));
    assert_eq!(
        error("port=x"),
        "FILE:1: port: \"x\": expected a port from 1 to 65535"
    );
    assert_eq!(error("\ntimeout"), "FILE:2: timeout: expected a value");
    assert_eq!(
        error("verbose=1"),
        "FILE:1: verbose: \"1\": expected yes, no or no value"
    );
    assert_eq!(
        error("conf-file=x"),
        "FILE:1: conf-file: only allowed on the command line"
    );
    assert!(
        parse_line("-C /nonexistent -u 1.1.1.1")
            .unwrap_err()
            .starts_with("--conf-file: ")
    );
}

#[test]
fn process_is_sandboxed_by_default() {
    let plain = config("-u 1.1.1.1");
    assert_eq!((plain.user, plain.is_sandboxed), (None, true));
    let config = config("-u 1.1.1.1 --user nobody:nogroup --no-sandbox");
    let user = config.user.unwrap();
    assert_eq!(user.user, "nobody");
    assert_eq!(user.group.as_deref(), Some("nogroup"));
    assert!(!config.is_sandboxed);
    for user in ["", ":", "a:", ":a"] {
        let arguments = ["-u1.1.1.1".to_owned(), format!("--user={user}")];
        assert!(parse(&arguments).is_err(), "{user}");
    }
}

#[test]
fn option_is_not_the_value_of_the_option_before_it() {
    let sampled = config("-u 1.1.1.1 --query-log -,sample=3").query_log;
    assert_eq!(sampled.unwrap().sample, 3);
    for (line, option, next) in [
        ("-u --check-conf", "upstream", "--check-conf"),
        (
            "-u 1.1.1.1 --query-log --check-conf",
            "query-log",
            "--check-conf",
        ),
        ("-p -u 1.1.1.1", "port", "-u"),
        ("-u 1.1.1.1 --ca-file -v", "ca-file", "-v"),
        ("-u 1.1.1.1 -C --check-conf", "conf-file", "--check-conf"),
        ("--probe --help", "probe", "--help"),
        ("-u 1.1.1.1 --user=--no-sandbox", "user", "--no-sandbox"),
    ] {
        let problem = format!("--{option}: expected a value, not the option {next:?}");
        assert_eq!(parse_line(line), Err(problem), "{line}");
    }
    let log = config("-u 1.1.1.1 --query-log -").query_log.unwrap();
    assert_eq!(log.target, crate::config::LogTarget::Stdout);
}

#[test]
fn unknown_setting_of_the_query_log_is_an_error() {
    let error = |value: &str| parse_line(&format!("-u 1.1.1.1 --query-log {value}"));
    for (value, key) in [
        ("f,smaple=10", "smaple"),
        ("-,Sample=10", "Sample"),
        ("/var/log/dns,sample=10,size=3", "size"),
        ("f,rotate", "rotate"),
        ("f,", ""),
    ] {
        let problem = error(value).unwrap_err();
        let expected =
            format!("--query-log: {value:?}: expected only sample=N after the comma, not {key:?}");
        assert_eq!(problem, expected);
    }
    assert!(error("f,sample=0").is_err() && error(",sample=2").is_err());
    let log = config("-u 1.1.1.1 --query-log f,sample=10")
        .query_log
        .unwrap();
    assert_eq!(log.sample, 10);
}

#[test]
fn switches_in_a_file_are_on_or_off() {
    let is_on = |text: &str| match with_file(text, "-u 1.1.1.1").unwrap() {
        Command::Run(config) => (
            config.cache.prefetch,
            config.reuse_port,
            config.is_sandboxed,
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(is_on(""), (false, false, true));
    for on in [
        "prefetch",
        "prefetch = yes",
        "prefetch=true",
        "prefetch on",
        "prefetch=YES",
    ] {
        assert_eq!(is_on(on), (true, false, true), "{on}");
    }
    for off in ["no", "false", "off", "No"] {
        assert_eq!(
            is_on(&format!("prefetch\nprefetch = {off}")),
            (false, false, true)
        );
    }
    let text = "reuse-port = no\nno-sandbox = yes\nverbose = no";
    assert_eq!(is_on(text), (false, false, false));
    let problem = with_file("prefetch = maybe", "-u 1.1.1.1").unwrap_err();
    assert_eq!(
        problem,
        "FILE:1: prefetch: \"maybe\": expected yes, no or no value"
    );
}

#[test]
fn units_and_levels_ignore_letter_case() {
    let all = config("-u 1.1.1.1 --cache-size 1M --timeout 5S --log-level warning");
    assert_eq!((all.cache.size, all.timeouts.query.as_secs()), (1 << 20, 5));
    assert_eq!(all.log_level, LevelFilter::Warn);
    assert_eq!(
        config("-u 1.1.1.1 --log-level INFO").log_level,
        LevelFilter::Info
    );
}

#[test]
fn unknown_interface_is_named_in_the_error() {
    for line in [
        "-u fe80::1%nosuch0",
        "-u [fe80::1%nosuch0]:853",
        "-u 1.1.1.1 -l fe80::1%nosuch0",
        "-u 1.1.1.1 --http-listen [fe80::1%nosuch0]:80",
        "-u a.b -b fe80::1%nosuch0",
    ] {
        let problem = parse_line(line).unwrap_err();
        let end = "expected an existing interface after % (`ip link` lists them)";
        assert!(problem.ends_with(end), "{line}: {problem}");
    }
}

pub(super) fn warnings(line: &str) -> Vec<String> {
    config(line).warnings
}

#[test]
fn port_without_brackets_is_a_warning() {
    for (line, suggestion) in [
        ("-u 2606:4700:4700::1111:853", "[2606:4700:4700::1111]:853"),
        (
            "-u 1.1.1.1 -u tls://2620:fe::fe:8853#dns.quad9.net,domain=a",
            "[2620:fe::fe]:8853",
        ),
        ("-u 1.1.1.1 -l ::1:53", "[::1]:53"),
        ("-u a.b -b 2001:db8::1:53", "[2001:db8::1]:53"),
    ] {
        let warnings = warnings(line);
        assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
        assert!(
            warnings[0].contains(&format!("write {suggestion}")),
            "{warnings:?}"
        );
    }
    for line in [
        "-u [2606:4700:4700::1111:853]",
        "-u [2606:4700:4700::1111]:853",
        "-u 2620:119:53::53",
        "-u 2606:4700:4700::1111",
        "-u 1.1.1.1:853",
    ] {
        assert!(warnings(line).is_empty(), "{line}: {:?}", warnings(line));
    }
}

#[test]
fn open_resolver_is_a_warning() {
    for network in [
        "0.0.0.0/0",
        "::/0",
        "0.0.0.0/1",
        "::ffff:0.0.0.0/96",
        "2000::/3",
    ] {
        let warnings = warnings(&format!("-u 1.1.1.1 --allow {network}"));
        assert_eq!(warnings.len(), 1, "{network}: {warnings:?}");
        assert!(warnings[0].contains(network), "{warnings:?}");
        assert!(warnings[0].contains("open resolver"), "{warnings:?}");
    }
    for line in [
        "--allow fc00::/7 --allow 10.0.0.0/8 --allow fe80::/10",
        "--deny ::/0",
    ] {
        assert!(warnings(&format!("-u 1.1.1.1 {line}")).is_empty(), "{line}");
    }
}

#[test]
fn tls_upstream_on_port_53_is_a_warning() {
    let warning = &warnings("-u 1.1.1.1:53 -u udp://10.0.0.1,domain=a -u 9.9.9.9")[..];
    let expected = "--upstream: \"1.1.1.1:53\": port 53 is the port of plain DNS, and \
                    this upstream uses DNS over TLS, whose port is 853; plain DNS needs udp:// or \
                    tcp://";
    assert_eq!(warning, [expected]);
}

#[test]
fn bootstrap_server_that_is_this_program_is_refused() {
    let problem = loop_problem("-u a.b -b ::1");
    let expected = "--bootstrap: \"[::1]:53\": this program itself listens there (--listen, \
                        --port): expected another server, since queries would loop";
    assert_eq!(problem, expected);
    let problem = loop_problem("-u 1.1.1.1 -u udp://127.0.0.1,domain=a");
    assert!(
        problem.contains("itself listens there (--listen, --port)"),
        "{problem}"
    );
    let tls = "--tls-cert c --tls-key k --tls-listen 0.0.0.0";
    let problem = loop_problem(&format!("-u 127.0.0.1 {tls}"));
    assert!(
        problem.contains("itself listens there (--tls-listen)"),
        "{problem}"
    );
}

#[test]
fn option_with_an_empty_value_is_an_error() {
    for row in rows() {
        let long = row.long;
        for line in [
            format!("{long} ="),
            format!("{long}="),
            format!("{long} = # why"),
        ] {
            let problem = with_file(&line, "-u 1.1.1.1").unwrap_err();
            let start = format!("FILE:1: {long}: \"\": expected ");
            assert!(problem.starts_with(&start), "{line}: {problem}");
        }
        let line = format!("-u 1.1.1.1 --{long}=");
        assert!(parse_line(&line).is_err(), "{line}");
        if !row.value.is_empty() {
            assert!(with_file(long, "-u 1.1.1.1").is_err(), "{long}");
        }
    }
    for (_, long, ..) in COMMANDS.iter().filter(|(_, long, ..)| *long != "probe") {
        let line = format!("-u 1.1.1.1 --{long}=");
        assert!(parse_line(&line).is_err(), "{line}");
    }
    for spec in [
        "1.1.1.1,pin-only=",
        "1.1.1.1,pin-report=",
        "1.1.1.1,fallback=",
        "1.1.1.1,fallback=yes",
        "1.1.1.1,domains-file=",
        "1.1.1.1,domains-file=~/names",
        "1.1.1.1,domain=",
        "1.1.1.1#",
    ] {
        assert!(parse_line(&format!("-u {spec}")).is_err(), "{spec}");
    }
}

#[test]
fn destination_of_messages_is_one_host() {
    for address in [
        "224.0.0.1:6000",
        "255.255.255.255:6000",
        "0.0.0.0:6000",
        "[::]:6000",
        "[ff02::1%1]:6000",
        "[::ffff:239.1.2.3]:6000",
        "[::ffff:0.0.0.0]:6000",
        "[fe80::1]:6000",
        "[fe80::1%nosuch0]:6000",
        "192.0.2.1:0",
        "192.0.2.1",
        "::1",
    ] {
        for option in ["--dnstap=tcp:", "--otlp=http://"] {
            let line = format!("-u 1.1.1.1 {option}{address}");
            let problem = parse_line(&line).unwrap_err();
            let option = option.split('=').next().unwrap();
            assert!(problem.starts_with(option), "{line}: {problem}");
            assert!(problem.contains(": expected "), "{line}: {problem}");
        }
    }
    for address in ["192.0.2.1:6000", "[2001:db8::1]:6000", "[fe80::1%lo]:6000"] {
        for option in ["--dnstap=tcp:", "--otlp=http://"] {
            config(&format!("-u 1.1.1.1 {option}{address}"));
        }
    }
}

/// Returns an address of this host on a network, if there is one.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").ok()?;
    let own = socket.local_addr().unwrap().ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

#[test]
fn upstream_at_an_own_address_behind_a_wildcard_listener_is_refused() {
    let Some(own) = own_address() else {
        return println!("skipped: this host has no address on a network");
    };
    let own_tls = "--tls-cert c --tls-key k --tls-listen";
    for line in [
        format!("-u 1.1.1.1 -u udp://{own},domain=a.example"),
        format!("-u 1.1.1.1 -u tcp://{own}:5353,domain=a.example -p 5353"),
        format!("-u 1.1.1.1 -u tcp://{own}:54,domain=a.example -l 0.0.0.0:54"),
        format!("-u {own} {own_tls} 0.0.0.0"),
        format!("-u [::ffff:{own}] {own_tls} 0.0.0.0"),
        format!("-u tls://dns.quad9.net -b {own}"),
        format!("-u {own} -p 853"),
    ] {
        let problem = loop_problem(&line);
        let end = "queries would loop";
        assert!(problem.ends_with(end), "{line}: {problem}");
    }
    for line in [
        // Another port, or only other addresses of this host.
        format!("-u 1.1.1.1 -u udp://{own}:54,domain=a.example"),
        format!("-u 1.1.1.1 -l 127.0.0.1 -u udp://{own},domain=a.example"),
        format!("-u {own} {own_tls} 127.0.0.1"),
        format!("-u {own} {own_tls} [::]"),
        // The address of another host.
        format!("-u 198.51.100.1 {own_tls} 0.0.0.0"),
    ] {
        let checked = check_loops(&config(&line));
        checked.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn help_is_short() {
    let Ok(Command::Print(text)) = parse_line("--help") else {
        panic!("help is printed");
    };
    assert!(text.lines().count() <= 60, "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    for row in rows() {
        assert!(text.contains(&format!("--{}", row.long)));
    }
}
