//! Tests of the messages about frequent mistakes.

use super::tests::{parse_line, warnings, with_file};
use super::*;

fn error_of_line(line: &str) -> String {
    parse_line(line).unwrap_err()
}

fn error_of_file(text: &str) -> String {
    with_file(text, "-u 1.1.1.1").unwrap_err()
}

fn warnings_of_file(text: &str) -> Vec<String> {
    match with_file(text, "") {
        Ok(Command::Run(config)) => config.warnings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn name_in_a_comment_behind_an_upstream_is_a_warning() {
    let warnings = warnings_of_file("port = 53\nupstream = 9.9.9.9 #dns.quad9.net");
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    let end = ":2: upstream: \"9.9.9.9\": \"#dns.quad9.net\" is a comment because of the space \
               before it: remove the space if dns.quad9.net is the name in the certificate";
    assert!(warning.ends_with(end), "{warning}");
    let warnings = warnings_of_file("upstream = 9.9.9.9 #dns.quad9.net,pin-only");
    assert!(
        warnings.len() == 1 && warnings[0].contains("\"#dns.quad9.net\" is a comment"),
        "{warnings:?}"
    );
    for line in [
        "upstream = 9.9.9.9 # dns.quad9.net",
        "upstream = 9.9.9.9 #no..name",
        "upstream = 9.9.9.9 #why",
        "upstream = 9.9.9.9#dns.quad9.net #dns.quad9.net",
        "upstream = 9.9.9.9\n#dns.quad9.net",
        "upstream = 9.9.9.9\nlisten = 127.0.0.1 #dns.example",
    ] {
        assert_eq!(warnings_of_file(line), [""; 0], "{line}");
    }
}

#[test]
fn address_or_port_in_place_of_the_name_is_reported() {
    let warnings = warnings("-u 9.9.9.9#1.1.1.1");
    assert!(
        warnings.len() == 1 && warnings[0].contains("here the address 1.1.1.1"),
        "{warnings:?}"
    );
    for given in ["9.9.9.9#dns.quad9.net:853", "9.9.9.9#dns.quad9.net@853"] {
        assert_eq!(
            error_of_line(&format!("-u {given}")),
            format!(
                "--upstream: {given:?}: expected the port before #, like 9.9.9.9:853#dns.quad9.net"
            )
        );
    }
}

#[test]
fn unknown_option_close_to_a_known_one_has_a_suggestion() {
    for (given, meant) in [
        ("ca_file", "ca-file"),
        ("upstreams", "upstream"),
        ("upstrem", "upstream"),
        ("Listen", "listen"),
        ("log-levle", "log-level"),
        ("CACHE-SIZE", "cache-size"),
        ("cache_max_negative_ttl", "cache-max-negative-ttl"),
        // It is close to cache-min-ttl, too.
        ("cache-ma-ttl", "cache-max-ttl"),
        ("check-config", "check-conf"),
        ("cache", "cache-size"),
        ("forward-addr", "upstream"),
        ("server", "upstream"),
        ("Nameserver", "upstream"),
        ("forwarder", "upstream"),
        ("interface", "listen"),
        ("listen-address", "listen"),
    ] {
        let end = format!("unknown option: did you mean {meant}?");
        let problem = error_of_file(&format!("{given} = 1"));
        assert_eq!(problem, format!("FILE:1: {given:?}: {end}"));
        let problem = error_of_line(&format!("--{given} 1"));
        let end = format!("unknown option: did you mean --{meant}?");
        assert_eq!(problem, format!("--{given}: {end}"));
    }
    for far in ["nonsense", "put", "listen-everywhere", "listen-to"] {
        let problem = error_of_line(&format!("--{far} 1"));
        assert!(
            problem.ends_with("unknown option (see --help)"),
            "{problem}"
        );
    }
}

#[test]
fn name_of_the_options_file_without_its_option_is_explained() {
    for name in ["config", "conf", "config-file", "configuration"] {
        assert_eq!(
            error_of_line(&format!("--{name} q.conf")),
            format!("--{name}: unknown option: the options file is -C FILE")
        );
    }
    assert_eq!(
        error_of_line("q.conf"),
        "\"q.conf\": expected an option: the options file is -C FILE"
    );
}

#[test]
fn list_in_place_of_one_value_is_an_error() {
    for option in [
        "listen",
        "tls-listen",
        "https-listen",
        "http-listen",
        "bootstrap",
        "allow",
        "deny",
    ] {
        for list in ["127.0.0.1, ::1", "127.0.0.1 ::1", "127.0.0.1;::1"] {
            assert_eq!(
                error_of_file(&format!("{option} = {list}")),
                format!(
                    "FILE:1: {option}: {list:?}: expected one value per line: repeat the option"
                )
            );
        }
    }
    let problem = error_of_file("timeout = 5 seconds");
    assert!(problem.contains("expected a duration"), "{problem}");
    assert_eq!(
        error_of_line("-u 1.1.1.1 -l 127.0.0.1,::1"),
        "--listen: \"127.0.0.1,::1\": expected one value: repeat the option for each"
    );
    let problem = error_of_file("upstream = 1.1.1.1, 9.9.9.9");
    let end = "expected one upstream: repeat the option for \"9.9.9.9\"";
    assert!(problem.ends_with(end), "{problem}");
}

#[test]
fn unknown_setting_of_an_upstream_is_quoted() {
    let problem = error_of_line("-u udp://10.0.0.1,domains=corp.example");
    assert!(
        problem.ends_with("after the comma, not \"domains\""),
        "{problem}"
    );
    let problem = error_of_line("-u udp://10.0.0.1,domain=*.corp.example");
    let end = "expected a domain without \"*.\", since corp.example includes all names below it";
    assert!(problem.ends_with(end), "{problem}");
}

#[test]
fn crossed_ttl_bounds_are_shown_as_written() {
    assert_eq!(
        error_of_file("port = 53\ncache-min-ttl = 2d"),
        "FILE:2: --cache-min-ttl: \"2d\": must not exceed --cache-max-ttl (1d, the default)"
    );
    assert_eq!(
        error_of_file("cache-max-ttl = 90m\ncache-min-ttl = 2h"),
        "FILE:2: --cache-min-ttl: \"2h\": must not exceed --cache-max-ttl (\"90m\")"
    );
    assert_eq!(
        error_of_line("-u 1.1.1.1 --cache-min-ttl 2d"),
        "--cache-min-ttl: \"2d\": must not exceed --cache-max-ttl (1d, the default)"
    );
    // An option of the command line replaces that of the file and has no line.
    for (text, line, location) in [
        ("cache-max-ttl = 90m", "--cache-min-ttl 2h", "FILE:1: "),
        ("cache-min-ttl = 2h", "--cache-max-ttl 90m", "FILE:1: "),
        ("port = 53", "--cache-min-ttl 2h --cache-max-ttl 90m", ""),
    ] {
        let end = "--cache-min-ttl: \"2h\": must not exceed --cache-max-ttl (\"90m\")";
        let problem = with_file(text, &format!("-u 1.1.1.1 {line}"));
        assert_eq!(problem.unwrap_err(), format!("{location}{end}"));
    }
}

#[test]
fn repeated_upstream_is_a_warning() {
    for repeated in ["tls://1.1.1.1:853", "1.1.1.1,fallback"] {
        assert_eq!(
            warnings(&format!("-u 1.1.1.1 -u 9.9.9.9 -u {repeated}")),
            ["--upstream: \"1.1.1.1:853\": given twice: remove one of the two"]
        );
    }
    let other_domain = "-u 10.0.0.53#dns.example -u 10.0.0.53#dns.example,domain=10.in-addr.arpa";
    assert_eq!(warnings(other_domain), [""; 0]);
}

#[test]
fn tilde_in_a_path_is_an_error() {
    for line in [
        "--ca-file ~/ca.pem",
        "--query-log ~/dns.json",
        "-u 9.9.9.9,client-cert=~/a,client-key=/b",
        "-u 9.9.9.9,client-cert=/a,client-key=~/b",
    ] {
        let problem = error_of_line(&format!("-u 1.1.1.1 {line}"));
        let end = "expected a path without ~, which is not expanded";
        assert!(problem.ends_with(end), "{problem}");
    }
    let problem = error_of_line("-C ~/dotproxy.conf");
    assert!(problem.ends_with(": ~ is not expanded"), "{problem}");
}

#[test]
fn missing_upstream_is_an_error_of_the_options_file() {
    let problem = with_file("port = 53", "").unwrap_err();
    assert_eq!(
        problem,
        "FILE: expected an upstream, like upstream = 1.1.1.1"
    );
    assert!(error_of_line("-p 53").ends_with("like -u 1.1.1.1"));
}

#[test]
fn host_name_without_bootstrap_has_its_line_and_is_shown_as_written() {
    let problem = with_file("port = 53\nupstream = tls://dns.quad9.net", "").unwrap_err();
    let start = "FILE:2: --upstream: \"tls://dns.quad9.net\": a host name needs --bootstrap ADDR";
    assert!(problem.starts_with(start), "{problem}");
}

#[test]
fn warning_about_a_line_of_the_options_file_has_its_number() {
    let warnings = warnings_of_file("port = 53\nupstream = 1.1.1.1:53");
    let is_placed = |warning: &String| warning.contains(".conf:2: --upstream: \"1.1.1.1:53\"");
    assert!(warnings.iter().any(is_placed), "{warnings:?}");
}

#[test]
fn upstreams_with_a_space_between_them_are_a_list() {
    let end = "expected one value per line: repeat the option";
    let problem = error_of_file("upstream = 1.1.1.1 9.9.9.9");
    assert!(problem.ends_with(end), "{problem}");
}

#[test]
fn space_after_the_comma_of_an_upstream_is_explained() {
    assert_eq!(
        error_of_line("-u udp://10.0.0.53, domain=corp.example"),
        "\"domain=corp.example\": expected an option: settings follow a comma without a space"
    );
}

#[test]
fn colon_in_place_of_the_equals_sign_is_explained() {
    for line in ["upstream: 1.1.1.1", "upstream:1.1.1.1"] {
        let problem = error_of_file(line);
        let end = "unknown option: write = in place of the colon";
        assert!(problem.ends_with(end), "{problem}");
    }
}

#[test]
fn expected_value_has_the_unit_or_the_range() {
    for (line, part) in [
        ("--cache-size 8MB", "like 500k or 4m (without B)"),
        ("--memory-limit 16MB", "without B"),
        ("--timeout 5000", "like 500ms or 5 (seconds)"),
        (
            "--allow 192.168.0.0/33",
            "a prefix length from 0 to 32 (IPv6: 0 to 128)",
        ),
    ] {
        let problem = error_of_line(&format!("-u 1.1.1.1 {line}"));
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn unknown_choice_has_the_choices() {
    for (line, expected) in [
        ("policy = first", "fastest, ordered or round-robin"),
        ("key-exchange = x25519", "hybrid or classic"),
        ("dnssec = yes", "off, log or on"),
        ("log-format = xml", "text or json"),
        ("query-log-clients = all", "full, subnet or none"),
    ] {
        let error = error_of_file(line);
        assert!(error.contains(&format!("expected {expected}")), "{error}");
    }
}

#[test]
fn few_bytes_of_cache_are_a_warning() {
    assert_eq!(
        warnings("-u 1.1.1.1 --cache-size 10000"),
        ["--cache-size: \"10000\": the value is in bytes, not entries: for example 500k or 4m"]
    );
    for size in ["0", "64k", "65536", "8k"] {
        let line = format!("-u 1.1.1.1 --cache-size {size}");
        assert_eq!(warnings(&line), [""; 0], "{size}");
    }
}

#[test]
fn command_in_the_options_file_is_refused() {
    assert_eq!(
        error_of_file("check-conf"),
        "FILE:1: check-conf: only allowed on the command line"
    );
}

#[test]
fn missing_options_file_has_its_folder_or_its_whole_path() {
    let problem = error_of_line("-C /nonexistent/dotproxy.conf");
    let end = ": there is no folder \"/nonexistent\"";
    assert!(problem.ends_with(end), "{problem}");
    let problem = error_of_line("-C nonexistent.conf");
    assert!(problem.ends_with("/nonexistent.conf\""), "{problem}");
    assert!(problem.contains(": there is no \"/"), "{problem}");
}

#[test]
fn switch_with_a_value_on_the_command_line_is_explained() {
    assert_eq!(
        error_of_line("-u 1.1.1.1 --prefetch=yes"),
        "--prefetch: expected no value: the option alone switches it on; yes and no are only for \
         the options file"
    );
}

#[test]
fn dash_in_the_options_file_is_explained() {
    for (line, written, name) in [
        ("-u 1.1.1.1", "-u", "upstream"),
        ("--cache-size = 4m", "--cache-size", "cache-size"),
        ("-v", "-v", "verbose"),
    ] {
        assert_eq!(
            error_of_file(line),
            format!("FILE:1: {written:?}: unknown option: write {name}, without a dash")
        );
    }
    for line in ["-", "--", "-x", "--caches 1"] {
        let problem = error_of_file(line);
        assert!(problem.ends_with("names have no dash here)"), "{problem}");
    }
}

#[test]
fn protocol_that_is_not_supported_is_named() {
    let expected = "expected tls://, https://, tcp:// or udp://, or no scheme, which means tls://";
    for (upstream, end) in [
        (
            "http://1.1.1.1",
            "; DNS over HTTP without TLS is not supported",
        ),
        ("H3://1.1.1.1", "; HTTP/3 is not supported"),
        ("doh://1.1.1.1", ""),
        ("quic://1.1.1.1", "; DNS over QUIC is not supported"),
        ("doq://1.1.1.1", "; DNS over QUIC is not supported"),
        ("dns://1.1.1.1", ""),
    ] {
        assert_eq!(
            error_of_line(&format!("-u {upstream}")),
            format!("--upstream: {upstream:?}: {expected}{end}")
        );
    }
    let line = "-u TLS://1.1.1.1 -u Udp://10.0.0.1,domain=a";
    assert_eq!(warnings(line), [""; 0]);
}

#[test]
fn option_without_effect_is_a_warning() {
    for (line, expected) in [
        (
            "--block-answer zero",
            "--block-answer: no effect without --block",
        ),
        (
            "--trace-sample 1",
            "--trace-sample: no effect without --otlp",
        ),
        (
            "--query-log-clients full",
            "--query-log-clients: no effect without --query-log or --otlp",
        ),
        (
            "--prefetch --cache-size 0",
            "--prefetch: no effect with --cache-size 0",
        ),
        (
            "--serve-stale 1h --cache-size 0",
            "--serve-stale: no effect with --cache-size 0",
        ),
        (
            "-b 192.168.1.1",
            "--bootstrap: no effect, since no upstream is given by its host name",
        ),
    ] {
        assert_eq!(warnings(&format!("-u 1.1.1.1 {line}")), [expected]);
    }
    for line in [
        "--trace-sample 1 --query-log-clients full --otlp http://127.0.0.1:4318",
        "--query-log-clients full --query-log -",
        "--prefetch --serve-stale 1h",
        "--serve-stale 0 --cache-size 0",
        "-u dns.quad9.net -b 192.168.1.1",
    ] {
        assert_eq!(warnings(&format!("-u 1.1.1.1 {line}")), [""; 0], "{line}");
    }
    let off = "upstream = 1.1.1.1\nprefetch = no\ncache-size = 0";
    assert_eq!(warnings_of_file(off), [""; 0]);
    let warnings = warnings_of_file("upstream = 1.1.1.1\ntrace-sample = 1");
    assert!(
        warnings[0].contains(".conf:2: --trace-sample: "),
        "{warnings:?}"
    );
}

#[test]
fn error_about_several_options_has_the_line_of_the_file() {
    for (text, start) in [
        ("listen = ::1\nlisten = ::1", "FILE:2: --listen: "),
        ("http-listen = :53", "FILE:1: --http-listen: "),
        ("\ntls-listen = ::1", "FILE:2: --tls-listen: "),
        (
            "\ntls-client-ca = ca.pem",
            "FILE:2: --tls-client-ca: expected --tls-listen",
        ),
        (
            "memory-limit = 8m\nmax-inflight = 50000",
            "FILE:2: --max-inflight: ",
        ),
        ("\nupstream = dns.quad9.net", "FILE:2: --upstream: "),
    ] {
        let problem = error_of_file(text);
        assert!(problem.starts_with(start), "{problem}");
    }
    let problem = with_file(
        "upstream = 1.1.1.1\nmemory-limit = 8m\ncache-size = 1g",
        "--cache-size 512m",
    )
    .unwrap_err();
    assert!(problem.starts_with("--cache-size: \"512m\": "), "{problem}");
}

#[test]
fn lines_of_other_syntaxes_are_explained() {
    for (line, expected) in [
        (
            "cache-size == 2m",
            "cache-size: \"= 2m\": expected one equals sign",
        ),
        (
            "; a comment",
            "\";\": unknown option: comments start with #",
        ),
        (
            "//comment",
            "\"//comment\": unknown option: comments start with #",
        ),
        (
            "domain = corp.example",
            "\"domain\": unknown option: it is a setting of an upstream, like upstream = \
             10.0.0.53,domain=...",
        ),
        (
            "client-cert=a.pem",
            "\"client-cert\": unknown option: it is a setting of an upstream, like upstream = \
             10.0.0.53,client-cert=...",
        ),
        (
            "listen-address = 127.0.0.1",
            "\"listen-address\": unknown option: did you mean listen?",
        ),
    ] {
        let error = error_of_file(line);
        assert!(error.ends_with(&format!("FILE:1: {expected}")), "{error}");
    }
}

#[test]
fn folder_in_place_of_a_file_is_an_error() {
    for option in ["--query-log", "--clock-stamp", "--ca-file", "--tls-key"] {
        let error = error_of_line(&format!("-u 1.1.1.1 {option} /var/log/"));
        let expected = "\"/var/log/\": expected a file: add its name to the folder";
        assert_eq!(error, format!("{option}: {expected}"));
    }
}
