//! The habits of this house, as far as a program can check them: the layers, the sizes of files and
//! functions, and where clocks, sockets and libraries may be named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the modules of the crate's root may use of each other. Left out: what nobody else uses.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &["wire"]),
    ("tls", &["base", "config"]),
    ("config", &["base", "wire"]),
    ("proxy", &["base", "config", "wire"]),
    ("session", &["base", "config", "tls", "wire"]),
    ("net", &["base", "config", "session"]),
    (
        "reactor",
        &[
            "base",
            "config",
            "net",
            "proxy",
            "session",
            "telemetry",
            "tls",
        ],
    ),
    ("process", &["base", "config"]),
    ("telemetry", &["base", "config", "proxy", "wire"]),
    ("allocator", &[]),
    ("code", &[]),
    ("options", &["base", "config"]),
    ("check", &["base", "config", "process", "telemetry", "tls"]),
];

/// Words, and the files and folders that may hold them.
const CONFINED: &[(&str, &[&str])] = &[
    (
        "mio::",
        &["net/mio.rs", "net/udp.rs", "net/mod.rs", "main.rs"],
    ),
    ("rustls", &["tls/", "session/transport/tls.rs"]),
    ("webpki_roots", &["tls/mod.rs"]),
    ("webpki::", &["tls/pins.rs"]),
    ("base64::", &["config/pin.rs"]),
    ("siphasher::", &["proxy/client/cookies.rs"]),
    ("getopts::", &["options/mod.rs"]),
    ("slab::", &["base/arena.rs"]),
    ("landlock::", &["process/sandbox/mod.rs"]),
    ("seccompiler::", &["process/sandbox/seccomp.rs"]),
    ("simple_logger", &["telemetry/logger.rs"]),
    ("std::time::Instant", &["net/mio.rs"]),
    (
        "SystemTime",
        &[
            "tls/clock.rs",
            "telemetry/logger.rs",
            "telemetry/proc_stats.rs",
            "telemetry/query_log.rs",
            "reactor/export/dnstap.rs",
            "session/observer/http_server.rs",
            "tls/certificate.rs",
        ],
    ),
    ("SystemRandom", &["main.rs"]),
    ("listenfd::", &["net/inherited.rs"]),
    ("TcpStream", &["net/mio.rs", "process/probe.rs"]),
    ("UdpSocket", &["net/udp.rs"]),
    ("std::thread", &[]),
    ("std::env::", &["main.rs"]),
    (
        "std::fs",
        &[
            "base/file.rs",
            "telemetry/proc_stats.rs",
            "telemetry/query_log.rs",
        ],
    ),
    (
        "httparse::",
        &[
            "session/observer/http_server.rs",
            "session/observer/http_client.rs",
            "session/observer/http_fields.rs",
        ],
    ),
    ("httpdate::", &["session/observer/http_server.rs"]),
    ("println!", &[]),
    ("todo!", &[]),
    ("unimplemented!", &[]),
    ("dbg!", &[]),
    ("TODO", &[]),
    ("FIXME", &[]),
    (".unwrap()", &[]),
    ("#[allow(", &[]),
    ("#[expect(", &["allocator.rs", "code.rs"]),
    ("unsafe {", &["allocator.rs", "code.rs"]),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_LEN_MAX: usize = 100;

/// A source file, without its tests.
struct Source {
    /// Below `src`, with the crate of the bytes as a folder there.
    path: String,
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = sources_in(&root.join("src"), "");
    assert!(sources.len() > 100, "the sources are elsewhere");
    let of_bytes = sources_in(&root.join("wire/src"), "wire/");
    assert!(of_bytes.len() > 8, "those of the bytes are elsewhere");
    sources.extend(of_bytes);
    sources
}

fn sources_in(root: &Path, place: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("tests.rs") && !path.ends_with("testing.rs") {
                sources.push(source(root, place, path));
            }
        }
    }
    sources
}

fn source(root: &Path, place: &str, path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).expect("a source is text");
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let path = path.strip_prefix(root).expect("below the root");
    Source {
        path: format!("{place}{}", path.display()),
        lines: code.lines().map(str::to_owned).collect(),
    }
}

impl Source {
    /// The module of the crate's root that it belongs to.
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().expect("a name")
    }

    /// Its lines, with their numbers, that are no comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .lines
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line.as_str()));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for source in sources() {
        let module = source.module();
        // What the crate of the bytes may use, the compiler sees to.
        if matches!(module, "main" | "lib" | "wire") {
            continue;
        }
        let Some(below) = layers.get(module) else {
            faults.push(format!("{module} stands in no layer"));
            continue;
        };
        for (number, line) in source.code() {
            for used in line.split("crate::").skip(1) {
                let name: String = used
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if name != module && !below.contains(&name.as_str()) {
                    faults.push(format!("{}:{number}: {module} uses {name}", source.path));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn words_stay_where_they_belong() {
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            for (word, places) in CONFINED {
                let is_place = |place: &&str| match place.strip_suffix('/') {
                    Some(_) => source.path.starts_with(place),
                    None => source.path == *place,
                };
                if line.contains(word) && !places.iter().any(is_place) {
                    faults.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.lines.len() > FILE_LINES_MAX {
            faults.push(format!("{}: {} lines", source.path, source.lines.len()));
        }
        let mut function: Option<(usize, usize)> = None;
        for (index, line) in source.lines.iter().enumerate() {
            if line.chars().count() > LINE_LEN_MAX {
                faults.push(format!("{}:{}: long line", source.path, index + 1));
            }
            let indent = line.len() - line.trim_start().len();
            let is_function = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(in crate::proxy) fn ",
            ]
            .iter()
            .any(|start| line.trim_start().starts_with(start));
            if is_function {
                function = Some((index, indent));
            }
            if let Some((start, of)) = function
                && indent == of
                && line.trim() == "}"
            {
                if index - start >= FUNCTION_LINES_MAX {
                    faults.push(format!(
                        "{}:{}: {} lines",
                        source.path,
                        start + 1,
                        index - start + 1
                    ));
                }
                function = None;
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_module_says_what_it_is() {
    for source in sources() {
        let first = source.lines.first().map(String::as_str).unwrap_or_default();
        assert!(
            first.starts_with("//! "),
            "{} has no module documentation",
            source.path
        );
    }
}
