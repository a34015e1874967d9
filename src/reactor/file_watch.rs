//! Detection of changed files (`--reload-interval`): options, certificates, keys, CA
//! files and others that options name.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::file::FileVersion;
use crate::base::time::Instant;
use crate::config::Config;

/// The files of the configuration and the time of the next check.
#[derive(Debug, Default)]
pub(super) struct FileWatch {
    /// The time between two checks; `None` disables them.
    interval: Option<Duration>,
    check_at: Option<Instant>,
    files: Vec<WatchedFile>,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    /// The last version that could be read.
    version: Option<FileVersion>,
    /// The number of checks in a row that did not find the file.
    missed: u32,
}

/// The number of checks in a row after which a missing file is reported: a program that replaces a
/// file may remove it first.
const MISSED_MAX: u32 = 2;

/// The result of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FileChanges {
    /// The first file that has changed.
    pub(super) changed: Option<PathBuf>,
    /// The files that are missing since this check or the last one. Each disappearance is reported
    /// once.
    pub(super) missing: Vec<PathBuf>,
}

impl FileChanges {
    /// Logs the changes.
    pub(super) fn log(&self) {
        for path in &self.missing {
            log::warn!(
                "--reload-interval: {:?} is missing: the current settings stay in effect, but the \
                 program cannot start without the file",
                path.display()
            );
        }
        if let Some(path) = &self.changed {
            let path = path.display();
            log::info!("--reload-interval: {path:?} has changed: reloading");
        }
    }
}

impl FileWatch {
    /// Follows the files that the configuration names. Known files keep their version, so that a
    /// change during a reload is found by the next check.
    pub(super) fn follow(&mut self, config: &Config, now: Instant) {
        self.interval = config.reload_interval;
        self.check_at = self.interval.map(|interval| now + interval);
        if self.interval.is_none() {
            self.files = Vec::new();
            return;
        }
        let mut known = std::mem::take(&mut self.files);
        let files = config.files_read().map(|path| {
            let known_at = known.iter().position(|known| known.path == *path);
            known_at.map_or_else(
                || WatchedFile {
                    path: path.clone(),
                    version: FileVersion::of(path).ok(),
                    missed: 0,
                },
                |position| known.swap_remove(position),
            )
        });
        self.files = files.collect();
    }

    /// Returns the time of the next check.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.check_at
    }

    /// Checks the files if a check is due.
    pub(super) fn check_if_due(&mut self, now: Instant) -> FileChanges {
        if self.check_at.is_none_or(|at| at > now) {
            return FileChanges::default();
        }
        self.check_at = self.interval.map(|interval| now + interval);
        self.check()
    }

    /// Records the current versions. A file that cannot be examined counts as unchanged.
    pub(super) fn check(&mut self) -> FileChanges {
        let mut changes = FileChanges::default();
        for file in &mut self.files {
            let current = match FileVersion::of(&file.path) {
                Ok(current) => Some(current),
                Err(error) if is_missing(&error) => {
                    file.missed = file.missed.saturating_add(1);
                    if file.missed == MISSED_MAX {
                        changes.missing.push(file.path.clone());
                    }
                    continue;
                }
                Err(_) => continue,
            };
            file.missed = 0;
            if current != file.version {
                file.version = current;
                changes.changed.get_or_insert_with(|| file.path.clone());
            }
        }
        changes
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with a file that is watched each second.
    struct Scene {
        folder: PathBuf,
        watch: FileWatch,
        now: Instant,
    }

    impl Scene {
        fn new(test: &str) -> Self {
            let folder = format!("dotproxy-watch-{test}-{}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("options"), "one").unwrap();
            let config = Config {
                reload_interval: Some(Duration::from_secs(1)),
                file: Some(folder.join("options")),
                ..Config::default()
            };
            let (mut watch, now) = (FileWatch::default(), Instant::default());
            watch.follow(&config, now);
            Self { folder, watch, now }
        }

        /// Returns whether a check after a second finds a change.
        fn changes(&mut self) -> bool {
            self.check().changed.is_some()
        }

        fn check(&mut self) -> FileChanges {
            self.now += Duration::from_secs(1);
            self.watch.check_if_due(self.now)
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn each_change_is_found_once() {
        let mut scene = Scene::new("once");
        assert!(!scene.changes());
        fs::write(scene.folder.join("options"), "other").unwrap();
        assert!(scene.changes());
        assert!(!scene.changes());
    }

    #[test]
    fn file_that_is_replaced_by_one_of_the_same_length_has_changed() {
        let mut scene = Scene::new("renamed");
        let (new, options) = (scene.folder.join("new"), scene.folder.join("options"));
        fs::write(&new, "two").unwrap();
        fs::rename(&new, &options).unwrap();
        assert!(scene.changes());
        assert!(!scene.changes());
    }

    #[test]
    fn missing_file_is_reported_once_and_is_a_change_when_it_exists_again() {
        let mut scene = Scene::new("missing");
        let options = scene.folder.join("options");
        for content in ["three", "four"] {
            fs::remove_file(&options).unwrap();
            let checks = [(); 4].map(|()| scene.check().missing);
            assert_eq!(checks, [vec![], vec![options.clone()], vec![], vec![]]);
            fs::write(&options, content).unwrap();
            assert!(scene.changes());
        }
    }

    #[test]
    fn file_that_is_missing_for_a_moment_is_not_reported() {
        let mut scene = Scene::new("moment");
        let options = scene.folder.join("options");
        for content in ["three", "four"] {
            fs::remove_file(&options).unwrap();
            assert_eq!(scene.check(), FileChanges::default());
            fs::write(&options, content).unwrap();
            assert!(scene.changes());
        }
    }

    #[test]
    fn change_before_a_reload_by_signal_is_not_found_again() {
        let mut scene = Scene::new("signal");
        fs::write(scene.folder.join("options"), "other").unwrap();
        assert!(scene.watch.check().changed.is_some());
        assert!(!scene.changes());
    }

    #[test]
    fn nothing_is_checked_without_an_interval() {
        let mut scene = Scene::new("none");
        scene.watch.follow(&Config::default(), scene.now);
        assert_eq!(scene.watch.next_at(), None);
        assert!(!scene.changes());
    }

    #[test]
    fn each_missing_file_is_reported_beside_a_changed_one() {
        let mut scene = Scene::new("several");
        let names = ["options", "ca.pem", "cert.pem"].map(|name| scene.folder.join(name));
        for name in &names {
            fs::write(name, "one").unwrap();
        }
        let config = Config {
            reload_interval: Some(Duration::from_secs(1)),
            file: Some(names[0].clone()),
            ca_file: Some(names[1].clone()),
            clock_stamp: None,
            ..Config::default()
        };
        scene.watch.follow(&config, scene.now);
        fs::remove_file(&names[0]).unwrap();
        fs::remove_file(&names[1]).unwrap();
        assert_eq!(scene.check().missing, [] as [PathBuf; 0]);
        let mut missing = scene.check().missing;
        missing.sort();
        assert_eq!(missing, [names[1].clone(), names[0].clone()]);
    }

    #[test]
    fn path_below_a_file_is_missing_and_a_link_to_itself_is_not() {
        let mut scene = Scene::new("kinds");
        let options = scene.folder.join("options");
        fs::remove_file(&options).unwrap();
        std::os::unix::fs::symlink(&options, &options).unwrap();
        assert_eq!([(); 3].map(|()| scene.check().missing.len()), [0, 0, 0]);
    }
}
