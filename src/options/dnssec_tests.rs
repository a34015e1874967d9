//! Tests of the options of DNSSEC validation.

use super::tests::{config, parse_line, warnings, with_path};
use crate::config::DnssecMode;

#[test]
fn mode_is_off_log_or_on() {
    assert_eq!(config("-u 1.1.1.1").dnssec.mode, DnssecMode::Off);
    for (value, mode) in [
        ("off", DnssecMode::Off),
        ("log", DnssecMode::Log),
        ("on", DnssecMode::On),
    ] {
        let line = format!("-u 1.1.1.1 --dnssec {value}");
        assert_eq!(config(&line).dnssec.mode, mode);
    }
    let error = parse_line("-u 1.1.1.1 --dnssec yes").expect_err("no such mode");
    assert_eq!(error, "--dnssec: \"yes\": expected off, log or on");
}

#[test]
fn trust_anchors_of_several_files_are_read() {
    let text = ". IN DS 1 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";
    with_path(text, |path| {
        let line = format!("-u 1.1.1.1 --dnssec on --trust-anchor {path} --trust-anchor={path}");
        let config = config(&line);
        let dnssec = &config.dnssec;
        assert_eq!(dnssec.anchors.len(), 2);
        assert_eq!(dnssec.anchors[0].data[..4], [0, 1, 8, 2]);
        assert_eq!(dnssec.anchor_files.len(), 2);
        assert!(config.files_read().any(|read| read.ends_with(path)));
    });
}

#[test]
fn trust_anchors_without_the_root_are_a_warning() {
    let digest = "E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";
    for (zone, is_warned) in [("corp.example.", true), (".", false)] {
        with_path(&format!("{zone} IN DS 1 8 2 {digest}"), |path| {
            let line = format!("-u 1.1.1.1 --dnssec on --trust-anchor {path}");
            let warnings = warnings(&line);
            let start = "--trust-anchor: no root trust anchor";
            let found = warnings.iter().any(|warning| warning.starts_with(start));
            assert_eq!(found, is_warned, "{zone}: {warnings:?}");
        });
    }
}

#[test]
fn error_in_a_trust_anchor_names_file_and_line() {
    let mut missing = String::new();
    with_path("; the root\n. IN DS 20326 8 2 E06D\n", |path| {
        missing = format!("-u 1.1.1.1 --trust-anchor {path}");
        let error = parse_line(&missing).expect_err("the digest is too short");
        let start = format!("--trust-anchor: {path:?}: expected DS or DNSKEY");
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains("cannot use line 2"), "{error}");
    });
    let error = parse_line(&missing).expect_err("the file does not exist");
    assert!(error.contains("No such file"), "{error}");
    with_path("; no record\n\n", |path| {
        let error = parse_line(&format!("-u 1.1.1.1 --trust-anchor {path}"));
        let error = error.expect_err("the file has no record");
        assert!(error.ends_with("; the file has no records"), "{error}");
    });
    let error = parse_line("-u 1.1.1.1 --trust-anchor /nonexistent/anchors");
    let error = error.expect_err("the folder does not exist");
    assert!(
        error.ends_with("there is no folder \"/nonexistent\""),
        "{error}"
    );
    assert_eq!(
        parse_line("-u 1.1.1.1 --trust-anchor /proc").expect_err("a folder"),
        "--trust-anchor: \"/proc\": expected a regular file, found a directory"
    );
}

#[test]
fn negative_trust_anchors_are_domains() {
    let line =
        "-u 1.1.1.1 --dnssec on --negative-trust-anchor corp.example --negative-trust-anchor=lab";
    let names = config(line).dnssec.negative_anchors;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["corp.example.", "lab."]);
    let error = parse_line("-u 1.1.1.1 --negative-trust-anchor a..b").expect_err("no domain");
    assert!(error.starts_with("--negative-trust-anchor: \"a..b\": expected a domain"));
}

#[test]
fn setting_without_effect_is_a_warning() {
    for (line, start) in [
        (
            "--negative-trust-anchor a",
            Some("--negative-trust-anchor: no effect"),
        ),
        ("--negative-trust-anchor a --dnssec log", None),
        (
            "-u udp://10.0.0.1,domain=a,dnssec",
            Some("--upstream: dnssec: no effect"),
        ),
        ("-u udp://10.0.0.1,domain=a,dnssec --dnssec on", None),
    ] {
        let warnings = warnings(&format!("-u 1.1.1.1 {line}"));
        let first = warnings.first().map(String::as_str);
        let is_right = match start {
            Some(start) => first.is_some_and(|warning| warning.starts_with(start)),
            None => first.is_none(),
        };
        assert!(is_right, "{line}: {warnings:?}");
    }
}

#[test]
fn validation_of_an_upstream_needs_its_domains() {
    assert!(config("-u udp://10.0.0.1,domain=a,dnssec -u 1.1.1.1").upstreams[0].is_validated);
    let error = parse_line("-u 1.1.1.1,dnssec").expect_err("no domain");
    assert!(error.contains("expected domain= with dnssec"), "{error}");
    assert!(parse_line("-u udp://10.0.0.1,domain=a,dnssec=yes").is_err());
}
