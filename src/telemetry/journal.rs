//! The systemd journal as the reader of the log.
//!
//! journald reads the priority of a line from its prefix (sd-daemon(3)) and adds the time. systemd
//! puts the device and inode of the stream to the journal into `JOURNAL_STREAM`; standard error may
//! have been redirected since (systemd.exec(5)).

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use log::Level;
use rustix::fs::fstat;

static IS_JOURNAL: AtomicBool = AtomicBool::new(false);

/// Switches to lines for the journal if `stream`, the value of `JOURNAL_STREAM`, identifies
/// standard error.
pub fn detect(stream: Option<&OsStr>) {
    let is_stderr = |stream: &OsStr| {
        let stat = fstat(io::stderr());
        stat.is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino).as_str())
    };
    IS_JOURNAL.store(stream.is_some_and(is_stderr), Ordering::Relaxed);
}

/// Returns whether the journal reads standard error.
pub(super) fn is_reader() -> bool {
    IS_JOURNAL.load(Ordering::Relaxed)
}

/// Returns the prefix of a line of this level: its priority if the journal reads the log
/// (syslog(3)).
pub fn prefix(level: Level) -> &'static str {
    match level {
        _ if !is_reader() => "",
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}
