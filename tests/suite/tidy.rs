//! Checks of the source text: the layers of modules, import cycles, the sizes of files and
//! functions, the files that may name clocks, sockets and libraries, and the wording of comments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules that each module of the crate's root may import. `lib` and `main` may import all.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &["wire"]),
    ("block", &["base", "config", "wire"]),
    ("tls", &["base", "config", "dnssec"]),
    ("config", &["base", "wire"]),
    ("dnssec", &["base", "config", "wire"]),
    ("proxy", &["base", "block", "config", "dnssec", "wire"]),
    ("session", &["base", "config", "tls", "wire"]),
    ("net", &["base", "config", "session"]),
    (
        "reactor",
        &[
            "base",
            "block",
            "config",
            "net",
            "options",
            "proxy",
            "session",
            "telemetry",
            "tls",
        ],
    ),
    ("process", &["base", "config"]),
    ("telemetry", &["base", "config", "proxy", "wire"]),
    ("allocator", &[]),
    ("options", &["base", "config", "wire"]),
    (
        "check_upstreams",
        &[
            "base",
            "config",
            "net",
            "proxy",
            "session",
            "telemetry",
            "tls",
            "wire",
        ],
    ),
    (
        "check",
        &["base", "block", "config", "process", "telemetry", "tls"],
    ),
];

/// Words, and the files and folders that may contain them.
const CONFINED: &[(&str, &[&str])] = &[
    (
        "mio::",
        &["net/mio.rs", "net/udp.rs", "net/mod.rs", "main.rs"],
    ),
    ("rustls", &["tls/", "session/transport/tls.rs"]),
    ("webpki_roots", &["tls/mod.rs"]),
    ("webpki::", &["tls/pins.rs"]),
    (
        "base64::",
        &[
            "config/pin.rs",
            "config/trust_anchor.rs",
            "session/client/https/mod.rs",
        ],
    ),
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
            "base/file/",
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
    (
        ".unwrap()",
        &[
            "dnssec/denial_cache/model_tests.rs",
            "proxy/validator/simulation_tests.rs",
        ],
    ),
    ("#[allow(", &[]),
    ("#[expect(", &["allocator.rs"]),
    ("unsafe {", &["allocator.rs"]),
];

/// The folders that [`text_is_plain_technical_english`] checks.
const CLEAN: &[&str] = &["src", "wire/src", "tests", "scripts"];

/// Words that comments, docs and strings must not contain: programs, sockets and records are "it",
/// and each sentence names the mechanism.
const UNWANTED: &[&str] = &[
    "who",
    "whoever",
    "whom",
    "somebody",
    "nobody",
    "someone",
    "takes note",
    "is told",
    "are told",
    "of late",
    "lets it be",
    "stands in",
    "all that there is",
];

/// Words that start a clause without a subject, in place of the noun phrase or the verb that a doc
/// comment starts with.
const HEADLESS: &[&str] = &["What", "Whether", "How", "Who"];

/// Type names that a crate may define more than once, each with the reason. The list is empty: a
/// type is named by its own term.
const HOMONYMS: &[(&str, &str)] = &[];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_LEN_MAX: usize = 100;

/// A source file, without its tests.
struct Source {
    /// The path below `src`; files of the wire crate have the prefix `wire/`.
    path: String,
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = sources_in(&root.join("src"), "");
    assert!(sources.len() > 100, "the folder src has few files");
    let wire_sources = sources_in(&root.join("wire/src"), "wire/");
    assert!(wire_sources.len() > 8, "the folder wire/src has few files");
    sources.extend(wire_sources);
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
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("tests.rs")
                && !path.ends_with("testing.rs")
            {
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
    /// Returns the module of the crate's root that contains the file.
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().expect("a name")
    }

    /// Returns the path of the file's module, from the crate's root.
    fn module_path(&self) -> String {
        let path = self.path.trim_end_matches(".rs");
        let path = path.trim_end_matches("/mod").trim_end_matches("/lib");
        path.replace('/', "::")
    }

    /// Returns the paths that the code names, from the crate's root.
    fn used_paths(&self) -> Vec<String> {
        let code: Vec<&str> = self.code().map(|(_, line)| line.trim()).collect();
        let code = code.join(" ");
        let mut paths = Vec::new();
        for statement in code.split("use ").skip(1) {
            expand(
                statement.split(';').next().unwrap_or_default(),
                "",
                &mut paths,
            );
        }
        let is_end = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':');
        paths.extend(code.split(is_end).map(str::to_owned));
        let root = if self.module() == "wire" {
            "wire::"
        } else {
            ""
        };
        let absolute = |path: &String| {
            if let Some(path) = path.strip_prefix("crate::") {
                return Some(format!("{root}{path}"));
            }
            let mut module = self.module_path();
            let mut rest = path.strip_prefix("super::")?;
            module.truncate(module.rfind("::").unwrap_or_default());
            while let Some(further) = rest.strip_prefix("super::") {
                module.truncate(module.rfind("::").unwrap_or_default());
                rest = further;
            }
            Some(format!("{module}::{rest}"))
        };
        paths.iter().filter_map(absolute).collect()
    }

    /// Returns the numbered lines that are not comments.
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
fn modules_import_only_the_layers_below() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for source in sources() {
        let module = source.module();
        // The compiler checks the dependencies of the wire crate.
        if matches!(module, "main" | "lib" | "wire") {
            continue;
        }
        let Some(below) = layers.get(module) else {
            faults.push(format!("{module} has no layer"));
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
fn no_imports_form_a_circle() {
    let sources = sources();
    let imports = imports(&sources);
    assert!(imports.len() > 100, "few files have imports");
    let circles = circles(&imports);
    assert!(circles.is_empty(), "{circles:#?}");
}

/// Returns the files that each file imports from. The file of a folder (`mod.rs`) is below the
/// other files of the folder, which use its types; its own imports from them do not count.
fn imports(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let files: BTreeMap<String, &str> = sources
        .iter()
        .filter(|source| !matches!(source.module(), "main" | "lib"))
        .map(|source| (source.module_path(), source.path.as_str()))
        .collect();
    let mut imports = BTreeMap::new();
    for (module, file) in &files {
        let source = sources.iter().find(|source| source.path == *file);
        let used = source.expect("a listed file").used_paths();
        let mut used: BTreeSet<&str> = used
            .iter()
            .filter_map(|path| file_of(path, &files))
            .collect();
        let folder = file.strip_suffix("mod.rs");
        used.retain(|other| {
            other != file && folder.is_none_or(|folder| !other.starts_with(folder))
        });
        if module != "wire" {
            imports.insert(*file, used);
        }
    }
    imports
}

/// Returns the file of the innermost module in a path like `proxy::keys::LinkKey`.
fn file_of<'a>(path: &str, files: &BTreeMap<String, &'a str>) -> Option<&'a str> {
    let mut module = path;
    loop {
        if let Some(file) = files.get(module) {
            return Some(file);
        }
        (module, _) = module.rsplit_once("::")?;
    }
}

/// Returns the files that import from themselves, through others, and their imports on the way.
fn circles<'a>(
    imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let reached = |file: &&'a str| {
        let mut reached = BTreeSet::new();
        let mut unread = vec![*file];
        while let Some(file) = unread.pop() {
            let used = imports.get(file).into_iter().flatten();
            unread.extend(used.filter(|used| reached.insert(**used)));
        }
        reached
    };
    let is_on_circle = |file: &&'a str| reached(file).contains(file);
    let files: BTreeSet<&str> = imports.keys().copied().filter(is_on_circle).collect();
    let on_the_way = |file: &'a str| {
        let used = imports[file].intersection(&files).copied().collect();
        (file, used)
    };
    files.iter().copied().map(on_the_way).collect()
}

/// Appends the paths of an import like `a::{b, c::{d, e}}`.
fn expand(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{}", tree.trim()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let mut depth = 0;
    let mut start = 0;
    for (index, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                expand(&rest[start..index], &prefix, paths);
                start = index + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
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
fn tests_start_processes_while_no_port_is_tested() {
    let mut faults = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in sources_in(&root.join("tests/suite"), "") {
        for (number, line) in source.code() {
            let starts = [".output()", ".status()", ".spawn()"];
            let is_start = starts.iter().any(|word| line.contains(word));
            let is_allowed = ["support/program.rs", "tidy.rs"].contains(&source.path.as_str());
            if is_start && !is_allowed {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
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
fn type_names_are_unique_within_a_crate() {
    let mut faults = Vec::new();
    for is_wire in [false, true] {
        let mut paths_by_name = BTreeMap::<String, Vec<String>>::new();
        for source in sources() {
            if source.path.starts_with("wire/") != is_wire {
                continue;
            }
            for name in source.code().filter_map(|(_, line)| defined_type(line)) {
                let paths = paths_by_name.entry(name.to_owned()).or_default();
                paths.push(source.path.clone());
            }
        }
        paths_by_name.retain(|name, paths| {
            paths.len() > 1 && !HOMONYMS.iter().any(|(allowed, _)| name == allowed)
        });
        faults.extend(paths_by_name);
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Returns the name of the type that a line defines. Indented lines define associated types and
/// types of functions, which belong to their owners.
fn defined_type(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let (keyword, rest) = item.split_once(' ')?;
    let is_type = matches!(keyword, "struct" | "enum" | "trait" | "type");
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    is_type.then(|| &rest[..end.unwrap_or(rest.len())])
}

#[test]
fn every_module_has_documentation() {
    for source in sources() {
        let first = source.lines.first().map(String::as_str).unwrap_or_default();
        assert!(
            first.starts_with("//! "),
            "{} has no module documentation",
            source.path
        );
    }
}

#[test]
fn crates_of_the_repository_have_one_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("wire/Cargo.toml")).expect("a manifest");
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(manifest.lines().any(|line| line == version), "{manifest}");
}

#[test]
fn text_is_plain_technical_english() {
    let mut faults = Vec::new();
    for (path, text) in CLEAN.iter().flat_map(|folder| texts_in(folder)) {
        for (number, phrase) in unwanted_phrases(&text) {
            let line = text.lines().nth(number - 1).unwrap_or_default();
            // The list itself, quotations, and the user with this name.
            let listed = format!("\"{phrase}\"");
            let is_listed = path.ends_with("tidy.rs") && line.to_lowercase().contains(&listed);
            let is_user = phrase == "nobody" && line.contains("user");
            if !is_listed && !is_user && !line.contains("RFC ") {
                faults.push(format!("{path}:{number}: {phrase}"));
            }
        }
        for number in headless_docs(&text) {
            faults.push(format!("{path}:{number}: doc without a subject"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Returns the sources and scripts below a folder of the repository, with their paths.
fn texts_in(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if matches!(extension, Some("rs" | "sh" | "py" | "cjs")) {
                let text = std::fs::read_to_string(&path).expect("a source is text");
                let path = path.strip_prefix(root).expect("below the root");
                texts.push((path.display().to_string(), text));
            }
        }
    }
    assert!(!texts.is_empty(), "no sources in {folder}");
    texts
}

/// Returns the unwanted phrases of a text, with the line of their first word. A phrase may continue
/// on the next line, and does not cross punctuation.
fn unwanted_phrases(text: &str) -> Vec<(usize, &'static str)> {
    let lines: Vec<String> = text.lines().map(plain_words).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let next = lines.get(index + 1).map_or("", String::as_str);
        let both = format!(" {} {} ", line.trim(), next.trim());
        let own_len = line.trim().len() + 1;
        for phrase in UNWANTED {
            let wanted = format!(" {phrase} ");
            if both
                .match_indices(&wanted)
                .any(|(start, _)| start < own_len)
            {
                found.push((index + 1, *phrase));
            }
        }
    }
    found
}

/// Returns the words of a line in lower case, one space apart. The marker of a comment is left out,
/// and each other punctuation mark stands for itself.
fn plain_words(line: &str) -> String {
    let line = line.trim().trim_start_matches(['/', '!', '#', '*']);
    let mut words = String::new();
    for c in line.chars() {
        match c {
            c if c.is_alphanumeric() || matches!(c, '_' | '-') => words.extend(c.to_lowercase()),
            c if c.is_whitespace() => words.push(' '),
            c => words.extend([' ', c, ' ']),
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the lines at which the doc comment of an item starts with a clause without a subject.
fn headless_docs(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut is_within = false;
    for (index, line) in text.lines().enumerate() {
        let doc = line.trim_start().strip_prefix("///");
        let word = doc.unwrap_or_default().split_whitespace().next();
        if !is_within && word.is_some_and(|word| HEADLESS.contains(&word)) {
            found.push(index + 1);
        }
        is_within = doc.is_some();
    }
    found
}

#[test]
fn unwanted_text_is_found() {
    // The phrases are assembled, so that this file does not contain them.
    let phrase = UNWANTED[9];
    let (first, second) = phrase.split_once(' ').expect("two words");
    for text in [
        format!("// A client {phrase} twice.\n"),
        format!("    // A client {first}\n    // {second} twice.\n"),
        format!("x = 1  # A client {}.\n", phrase.to_uppercase()),
    ] {
        assert_eq!(unwanted_phrases(&text), [(1, phrase)], "{text}");
    }
    for text in [
        format!("// A client {first}. {second} twice.\n"),
        format!("// A client {first}{second}.\n"),
        format!("fn {first}_{second}() {{}}\n"),
    ] {
        assert_eq!(unwanted_phrases(&text), [], "{text}");
    }
    let word = HEADLESS[0];
    let headless = format!("/// {word} is read.\nfn a() {{}}\n");
    assert_eq!(headless_docs(&headless), [1]);
    let inside = format!("/// Returns data.\n/// {word} is read.\nfn a() {{}}\n");
    assert_eq!(headless_docs(&inside), []);
}
