//! The files of domains that upstreams name (`domains-file=`).
//!
//! Each file is read twice: once to check it and to count its names, and again to fill a table of
//! the right size, since its names may take several times the memory of the table.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::counted::counted;
use crate::base::file_lines::FileLines;
use crate::config::hosts::UnusedLines;
use crate::config::{Domains, DomainsFull, Upstream};
use crate::wire::name::Name;

const CHANGED: &str = "domains-file: a file was changed while it was read";

/// A file that has been read once.
pub(super) struct DomainsFile {
    path: PathBuf,
    /// The number of its names.
    names: usize,
}

impl DomainsFile {
    /// Reads a file. Returns it with a warning about its contents.
    ///
    /// A file without names is an error: it may be about to be written, and the names would be sent
    /// to the upstreams for all other names.
    pub(super) fn read(path: &Path) -> io::Result<(Self, Option<String>)> {
        let (mut names, mut unused) = (0, UnusedLines::default());
        read(path, |number, line| match line {
            Ok(_) => names += 1,
            Err(text) => unused.add(number, text),
        })?;
        if names == 0 {
            let lines = match &unused.first {
                Some(first) => format!("; line {} has another form", first.number),
                None => String::new(),
            };
            let problem = format!(
                "expected at least one NAME, .NAME or *.NAME in the file, found none{lines}"
            );
            return Err(io::Error::other(problem));
        }
        let warning = unused.first.as_ref().map(|first| {
            format!(
                "--upstream: domains-file: {:?}: {} ignored, the first is line {}: {:?}: expected \
                 NAME, .NAME or *.NAME",
                path.display(),
                counted(unused.count, "line is", "lines are"),
                first.number,
                first.text
            )
        });
        let path = path.to_owned();
        Ok((Self { path, names }, warning))
    }

    /// Returns whether this is the file with a path.
    pub(super) fn is(&self, path: &Path) -> bool {
        self.path == path
    }
}

/// Calls `action` with the number of each line that has content, and its domain or the text that
/// cannot be used.
fn read(path: &Path, mut action: impl FnMut(usize, Result<Name, &str>)) -> io::Result<()> {
    let mut lines = FileLines::open(path)?;
    while lines.read(|number, line| {
        let text = line.unwrap_or_else(|start| start);
        let content = text.split('#').next().unwrap_or_default().trim();
        if !content.is_empty() {
            let domain = line.ok().and_then(|_| domain_of(content));
            action(number, domain.ok_or(content));
        }
    })? {}
    Ok(())
}

fn domain_of(content: &str) -> Option<Name> {
    let below = content.strip_prefix('*').unwrap_or(content);
    let name = below.strip_prefix('.').filter(|_| !below.is_empty());
    name.unwrap_or(content).parse().ok()
}

/// Returns the domains of all upstreams, from the options and the files, or a description of the
/// problem.
pub(super) fn collect(upstreams: &[Upstream], files: &[DomainsFile]) -> Result<Domains, String> {
    if !upstreams.iter().any(Upstream::is_exclusive) {
        return Ok(Domains::default());
    }
    let of_options = upstreams.iter().map(|upstream| upstream.domains.len());
    let names = of_options.chain(files.iter().map(|file| file.names)).sum();
    let most = Domains::NAMES_MAX;
    if names > most {
        return Err(format!(
            "expected at most {most} domains in all files, found {names}"
        ));
    }
    let mut domains = Domains::with_capacity(names);
    let full = |full| match full {
        DomainsFull::Names => CHANGED.to_owned(),
        DomainsFull::Groups => format!(
            "expected at most {} sets of upstreams with the same domains",
            Domains::GROUPS_MAX
        ),
    };
    for domain in upstreams.iter().flat_map(|upstream| &upstream.domains) {
        let members = indexes(upstreams, |upstream| upstream.domains.contains(domain));
        domains.add(domain, &members).map_err(full)?;
    }
    for DomainsFile { path, names } in files {
        let members = indexes(upstreams, |one| one.domains_files.contains(path));
        let (mut added, mut left) = (Ok(()), *names);
        let content = read(path, |_, line| {
            if let Ok(domain) = line {
                added = added.and_then(|()| domains.add(&domain, &members));
                left = left.saturating_sub(1);
            }
        });
        content.map_err(|cause| format!("domains-file: {:?}: {cause}", path.display()))?;
        added.map_err(full)?;
        if left > 0 {
            return Err(CHANGED.to_owned());
        }
    }
    Ok(domains)
}

/// Returns the indexes of the upstreams that serve some domains.
fn indexes(upstreams: &[Upstream], serves: impl Fn(&Upstream) -> bool) -> Vec<usize> {
    let indexed = upstreams.iter().enumerate();
    let those = indexed.filter(|(_, upstream)| serves(upstream));
    those.map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use crate::config::Config;
    use crate::wire::name::Name;

    /// Returns the settings of upstreams, in which `NAME.domains` is a file with this text.
    fn config(test: &str, files: &[(&str, &str)], upstreams: &[&str]) -> Box<Config> {
        let folder = format!("dotproxy-domains-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut arguments: Vec<String> = upstreams.iter().map(|one| format!("-u{one}")).collect();
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            for argument in &mut arguments {
                let file = format!("domains-file={}", path.display());
                *argument = argument.replace(&format!("domains-file={name}"), &file);
            }
        }
        let parsed = parse(&arguments);
        std::fs::remove_dir_all(&folder).unwrap();
        match parsed {
            Ok(Command::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn upstreams<'a>(config: &'a Config, name: &str) -> &'a [usize] {
        let name: Name = name.parse().unwrap();
        let group = config.domains.group(name.as_bytes());
        group.map_or(&[], |group| &config.domains.groups()[group].upstreams)
    }

    #[test]
    fn upstreams_with_the_same_file_are_one_group() {
        let config = config(
            "same",
            &[
                ("one", "a.example\nb.example\n"),
                ("two", "b.example\nc.example\n"),
            ],
            &[
                "192.0.2.1,domains-file=one",
                "192.0.2.2",
                "192.0.2.3,domains-file=one,domain=d.example",
                "192.0.2.4,domains-file=two,domain=a.b.example",
            ],
        );
        assert_eq!(upstreams(&config, "a.example"), [0, 2]);
        assert_eq!(upstreams(&config, "x.b.example"), [0, 2, 3]);
        assert_eq!(upstreams(&config, "a.b.example"), [3]);
        assert_eq!(upstreams(&config, "c.example"), [3]);
        assert_eq!(upstreams(&config, "d.example"), [2]);
        assert_eq!(upstreams(&config, "e.example"), [0; 0]);
        assert_eq!(config.domains.groups().len(), 4);
    }
}
