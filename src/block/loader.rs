//! Reads the files of block lists in bounded steps, so that no query waits for a long list.
//!
//! The files are read twice: the first pass counts their names, the second one fills a table of the
//! right size. A list of a million names then takes its final memory and no more.

use std::num::NonZeroU8;
use std::path::PathBuf;

use super::line::{self, Effect};
use super::{BlockList, EXCEPTION, value_of};
use crate::base::counted::counted;
use crate::base::file;
use crate::base::file_lines::FileLines;
use crate::base::name_table::{NameTable, NameTableKey};
use crate::config::block::BlockSettings;
use crate::config::hosts::{UnusedLine, UnusedLines};

/// The lists that are being read.
#[derive(Debug)]
pub struct Loader {
    files: Vec<ListFile>,
    bytes_max: usize,
    key: NameTableKey,
    pass: Pass,
    /// The index of the file that is read.
    at: usize,
    lines: Option<FileLines>,
}

/// The result of reading the files.
#[derive(Debug)]
pub struct Loading {
    /// The names.
    pub list: BlockList,
    /// A warning for each file with lines that cannot be used.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
enum Pass {
    /// Counts the names.
    Count { names: usize },
    /// Fills the table. `left` is the number of names that are not read again yet.
    Fill { table: NameTable, left: usize },
}

/// A file of names.
#[derive(Debug)]
struct ListFile {
    option: &'static str,
    path: PathBuf,
    value: NonZeroU8,
    names: usize,
    unused: UnusedLines,
}

impl Loader {
    /// Creates a loader of these files.
    pub fn new(settings: &BlockSettings, key: NameTableKey) -> Self {
        let file = |option, path: &PathBuf, value| ListFile {
            option,
            path: path.clone(),
            value,
            names: 0,
            unused: UnusedLines::default(),
        };
        let blocking = settings.files.iter().enumerate();
        let blocking = blocking.map(|(nth, path)| file("--block", path, value_of(nth)));
        let allowing = settings.allow_files.iter();
        let allowing = allowing.map(|path| file("--allow-names", path, EXCEPTION));
        Self {
            files: blocking.chain(allowing).collect(),
            // The lists before a reload stay until the new ones are complete.
            bytes_max: settings.room.map_or(usize::MAX, |room| room / 2),
            key,
            pass: Pass::Count { names: 0 },
            at: 0,
            lines: None,
        }
    }

    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Returns a description of the problem if a file cannot be read, or if there are too many
    /// names.
    pub fn load(mut self) -> Result<Loading, String> {
        loop {
            if let Some(loading) = self.step()? {
                return Ok(loading);
            }
        }
    }

    /// Reads the next part of a file. Returns the names when all files are read.
    ///
    /// # Errors
    ///
    /// As [`Loader::load`].
    pub fn step(&mut self) -> Result<Option<Loading>, String> {
        let Some(file) = self.files.get_mut(self.at) else {
            return self.end_pass();
        };
        let fail = |file: &ListFile, error: &std::io::Error| {
            let (option, path) = (file.option, file.path.display());
            let cause = file::describe(&file.path, error);
            format!("{option}: {path:?}: {cause}")
        };
        let mut lines = match self.lines.take() {
            Some(lines) => lines,
            None => FileLines::open(&file.path).map_err(|error| fail(file, &error))?,
        };
        let mut is_full = false;
        let (pass, value) = (&mut self.pass, file.value);
        let (file_names, unused) = (&mut file.names, &mut file.unused);
        let more = lines.read(|number, text| {
            let used = match text {
                Ok(text) => line::read(text, |name, effect| match pass {
                    Pass::Count { names } => {
                        *names += 1;
                        *file_names += 1;
                    }
                    Pass::Fill { table, left } => {
                        let value = match effect {
                            Effect::Block => value,
                            Effect::Allow => EXCEPTION,
                        };
                        let highest = |known: Option<NonZeroU8>| value.max(known.unwrap_or(value));
                        is_full |= *left == 0 || table.insert(name.as_bytes(), highest).is_err();
                        *left = left.saturating_sub(1);
                    }
                }),
                Err(start) if line::is_comment(start) => Ok(()),
                Err(start) => Err(start),
            };
            if let (Err(text), Pass::Count { .. }) = (used, &pass) {
                unused.add(number, text);
            }
        });
        if more.map_err(|error| fail(file, &error))? {
            self.lines = Some(lines);
        } else {
            self.at += 1;
        }
        if is_full {
            let (option, path) = (file.option, file.path.display());
            return Err(format!("{option}: {path:?}: changed while it was read"));
        }
        Ok(None)
    }

    fn end_pass(&mut self) -> Result<Option<Loading>, String> {
        let names = match &self.pass {
            Pass::Count { names } => *names,
            Pass::Fill { left: 0, .. } => 0,
            Pass::Fill { .. } => {
                return Err("--block: a list was shortened while it was read".to_owned());
            }
        };
        let most = NameTable::NAMES_MAX;
        if names > most {
            return Err(format!(
                "--block, --allow-names: expected at most {most} names in all files, found {names}"
            ));
        }
        if NameTable::bytes(names) > self.bytes_max {
            return Err(format!(
                "--block, --allow-names: {names} names do not fit --memory-limit: raise the limit, \
                 or use shorter lists"
            ));
        }
        let table = NameTable::with_capacity(names, self.key);
        let fill = Pass::Fill { table, left: names };
        match std::mem::replace(&mut self.pass, fill) {
            Pass::Count { .. } => {
                self.at = 0;
                Ok(None)
            }
            Pass::Fill { table, .. } => Ok(Some(self.complete(table))),
        }
    }

    fn complete(&mut self, table: NameTable) -> Loading {
        let label = |file: &ListFile| {
            let name = file.path.file_name().unwrap_or_default();
            name.to_string_lossy().chars().take(64).collect()
        };
        let blocking = self.files.iter().filter(|file| file.value != EXCEPTION);
        Loading {
            list: BlockList {
                table,
                labels: blocking.map(label).collect(),
            },
            warnings: self.files.iter().filter_map(ListFile::warning).collect(),
        }
    }
}

impl ListFile {
    /// Returns a warning about the lines that cannot be used, or about a file without names.
    fn warning(&self) -> Option<String> {
        let (option, path) = (self.option, self.path.display());
        let Some(UnusedLine { number, text }) = &self.unused.first else {
            return (self.names == 0).then(|| format!("{option}: {path:?}: has no names"));
        };
        let lines = counted(self.unused.count, "line is", "lines are");
        Some(format!(
            "{option}: {path:?}: {lines} ignored, the first is line {number}: {text:?}: expected \
             NAME, *.NAME, 0.0.0.0 NAME or ||NAME^"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Random, SEED_LEN};
    use crate::wire::name::Name;

    /// The files of a test, in a folder of their own.
    struct Files {
        folder: PathBuf,
        settings: BlockSettings,
    }

    impl Files {
        fn new(test: &str, files: &[&str]) -> Self {
            let name = format!("dotproxy-block-{test}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let mut settings = BlockSettings::default();
            for (nth, text) in files.iter().enumerate() {
                let path = folder.join(format!("list{nth}"));
                std::fs::write(&path, text).unwrap();
                settings.files.push(path);
            }
            Self { folder, settings }
        }

        fn loader(&self) -> Loader {
            let random = &mut Random::new(&[1; SEED_LEN]);
            Loader::new(&self.settings, NameTableKey::new(random))
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    /// Returns a list of this number of names.
    fn numbered(names: usize) -> String {
        let lines: Vec<String> = (0..names).map(|nth| format!("n{nth}.example\n")).collect();
        lines.concat()
    }

    fn blocking<'a>(list: &'a BlockList, name: &str) -> Option<&'a str> {
        list.blocking(name.parse::<Name>().unwrap().as_bytes())
    }

    #[test]
    fn first_file_with_a_name_is_named_and_exceptions_win() {
        let mut files = Files::new(
            "several",
            &[
                "ads.example\n0.0.0.0 b.example c.example\n",
                "||ads.example^\n||d.example^\n@@good.ads.example\n*.b.example",
                "e.example\n",
            ],
        );
        let allowed = files.settings.files.pop();
        files.settings.allow_files.extend(allowed);
        std::fs::write(&files.settings.allow_files[0], "c.example\n@@f.example").unwrap();
        let Loading { list, warnings } = files.loader().load().unwrap();
        assert_eq!((list.names(), warnings.len()), (6, 0));
        for (name, label) in [
            ("ads.example", Some("list0")),
            ("x.ads.example", Some("list0")),
            ("good.ads.example", None),
            ("x.good.ads.example", None),
            ("x.b.example", Some("list0")),
            ("d.example", Some("list1")),
            ("c.example", None),
            ("example", None),
        ] {
            assert_eq!(blocking(&list, name), label, "{name}");
        }
    }

    #[test]
    fn lines_across_steps_are_whole() {
        let text = numbered(20_000);
        let files = Files::new("steps", &[&text]);
        let mut loader = files.loader();
        let mut steps = 0;
        let loading = loop {
            steps += 1;
            if let Some(loading) = loader.step().unwrap() {
                break loading;
            }
        };
        assert!(steps >= 2 * text.len() / (16 * 1024), "{steps}");
        assert_eq!((loading.list.names(), loading.warnings.len()), (20_000, 0));
        assert!(loading.list.bytes() < 10 * 20_000);
        for nth in 0..20_000 {
            let name = format!("n{nth}.example");
            assert_eq!(blocking(&loading.list, &name), Some("list0"), "{name}");
        }
    }

    #[test]
    fn lines_that_cannot_be_used_cause_one_warning() {
        let long = "b.example ".repeat(4096);
        let comment = "#".repeat(80 * 1024);
        let text =
            format!("{comment}\na.example\nno/name\n0.0.0.0 {long}\nc.example\n\u{fc}.example");
        let files = Files::new("unused", &[&text]);
        let Loading { list, warnings } = files.loader().load().unwrap();
        assert!(blocking(&list, "a.example").is_some() && blocking(&list, "c.example").is_some());
        assert_eq!(blocking(&list, "b.example"), None);
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}");
        };
        assert!(
            warning.contains("3 lines are ignored, the first is line 3: \"no/name\""),
            "{warning}"
        );
    }

    #[test]
    fn limits_of_names_and_memory_are_errors() {
        let text: String = numbered(2_000);
        let mut files = Files::new("limits", &[&text]);
        files.settings.room = Some(30_000);
        let error = files.loader().load().unwrap_err();
        assert!(
            error.contains("2000 names do not fit --memory-limit"),
            "{error}"
        );
        files.settings.room = Some(50_000);
        assert!(files.loader().load().is_ok());
        files.settings.files.push(files.folder.join("missing"));
        let error = files.loader().load().unwrap_err();
        assert!(
            error.starts_with("--block: ") && error.contains("missing"),
            "{error}"
        );
    }

    #[test]
    fn file_that_changes_while_it_is_read_is_an_error() {
        let files = Files::new("changes", &["a.example\n"]);
        let mut loader = files.loader();
        while matches!(loader.pass, Pass::Count { .. }) {
            assert!(loader.step().unwrap().is_none());
        }
        let text: String = numbered(2_000);
        std::fs::write(&files.settings.files[0], text).unwrap();
        let error = loader.load().unwrap_err();
        assert!(error.contains("changed while it was read"), "{error}");
        let mut loader = files.loader();
        while matches!(loader.pass, Pass::Count { .. }) {
            assert!(loader.step().unwrap().is_none());
        }
        std::fs::write(&files.settings.files[0], "n0.example").unwrap();
        let error = loader.load().unwrap_err();
        assert!(error.contains("shortened while it was read"), "{error}");
    }

    #[test]
    fn file_without_names_causes_a_warning_and_a_byte_order_mark_does_not() {
        let files = Files::new("marks", &["# only a comment\n", "\u{feff}a.example\n"]);
        let Loading { list, warnings } = files.loader().load().unwrap();
        assert!(blocking(&list, "a.example").is_some());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].ends_with("list0\": has no names"),
            "{warnings:?}"
        );
    }
}
