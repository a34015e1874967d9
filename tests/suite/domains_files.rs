//! Files of domains (`domains-file=`) in the program.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::folder::Folder;
use crate::support::messages::query;
use crate::support::program::{Program, run_to_end};

/// The query went to an upstream, which cannot be reached.
const HAS_UPSTREAM: u8 = 2;

/// No upstream serves the name.
const REFUSED: u8 = 5;

fn rcode(program: &Program, name: &str) -> u8 {
    let response = program.ask(&query(7, name, 1, None));
    response.expect("a response")[3] & 15
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("the folder of the test is writable");
}

/// Returns the option of an upstream, which cannot be reached, with a file of domains.
fn upstream(file: &Path) -> String {
    format!("-uudp://127.0.0.1:1,domains-file={}", file.display())
}

#[test]
fn upstream_is_asked_for_the_domains_of_its_file_and_follows_the_file() {
    let folder = Folder::new("domains-reload");
    let file = folder.file("domains");
    write(
        &file,
        "\u{feff}corp.example # ours\n\n# a comment\n*.Lab.example\n.test.example\r\nserver=/a/\n.\n",
    );
    let program = Program::start(&[upstream(&file)]);
    program.await_log("sandbox: ");
    let log = program.log();
    let warning = "2 lines are ignored, the first is line 6: \"server=/a/\": expected NAME, .NAME \
                   or *.NAME";
    assert!(log.contains(warning), "{log}");
    assert!(log.contains("names in the domains of \""), "{log}");
    for (name, expected) in [
        ("corp.example", HAS_UPSTREAM),
        ("www.CORP.example", HAS_UPSTREAM),
        ("lab.example", HAS_UPSTREAM),
        ("a.b.test.example", HAS_UPSTREAM),
        ("example", REFUSED),
        ("xcorp.example", REFUSED),
        ("other.example", REFUSED),
    ] {
        assert_eq!(rcode(&program, name), expected, "{name}");
    }

    write(&file, "other.example\n");
    let log = program.reload();
    assert!(log.contains("reloaded the configuration"), "{log}");
    assert_eq!(rcode(&program, "other.example"), HAS_UPSTREAM);
    assert_eq!(rcode(&program, "corp.example"), REFUSED);

    // A program that writes the file may have emptied it.
    for (text, problem) in [
        ("", "found none"),
        (
            "# later\n0.0.0.0 a\n",
            "found none; line 2 has another form",
        ),
    ] {
        write(&file, text);
        let log = program.reload();
        assert!(log.contains(problem), "{log}");
        assert!(log.contains("keeping the previous"), "{log}");
        assert_eq!(rcode(&program, "other.example"), HAS_UPSTREAM);
    }

    std::fs::remove_file(&file).expect("the folder of the test is writable");
    let log = program.reload();
    assert!(log.contains("keeping the previous"), "{log}");
}

#[test]
fn many_domains_take_ten_bytes_each() {
    const NAMES: usize = 100_000;
    let folder = Folder::new("domains-many");
    let (few, many) = (folder.file("few"), folder.file("many"));
    write(&few, "n0.example\n");
    let mut text = String::new();
    for nth in 0..NAMES {
        writeln!(text, "n{nth}.some-longer-name.example").expect("writing to a string");
    }
    write(&many, &text);
    let anonymous = |file: &Path, expected: u8| {
        let program = Program::start(&[upstream(file)]);
        program.await_log("sandbox: ");
        for nth in [0, NAMES - 1] {
            let name = format!("a.n{nth}.some-longer-name.example");
            assert_eq!(rcode(&program, &name), expected, "{name}");
        }
        program.own_kib()
    };
    let taken = anonymous(&many, HAS_UPSTREAM) - anonymous(&few, REFUSED);
    assert!(taken < 1_000 + 200, "{taken} KiB");
}

#[test]
fn file_that_cannot_be_used_is_an_error() {
    let folder = Folder::new("domains-errors");
    let missing = folder.file("missing");
    let (code, log) = run_to_end(&["--check-conf", &upstream(&missing)]);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("expected a file that can be read"), "{log}");
    let list = folder.file("list");
    write(&list, &"a.example\n".repeat(500_001));
    let (code, log) = run_to_end(&["--check-conf", &upstream(&list)]);
    assert_eq!(code, Some(2), "{log}");
    let problem = "expected at most 500000 domains in all files, found 500001";
    assert!(log.contains(problem), "{log}");
    write(&list, &"a.example\n".repeat(400_000));
    let (code, log) = run_to_end(&["--check-conf", "--memory-limit=8m", &upstream(&list)]);
    assert_eq!(code, Some(2), "{log}");
    assert!(
        log.contains("expected fewer names with --memory-limit 8m, or a limit that is higher by"),
        "{log}"
    );
    write(&list, "");
    let (code, log) = run_to_end(&["--check-conf", &upstream(&list)]);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("expected at least one NAME"), "{log}");
}
