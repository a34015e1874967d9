//! Log lines to standard error, without ever waiting for whoever reads them.
//!
//! Lines are queued and written by the loop as far as the reader takes them. When it takes none for
//! a while, or has gone away, lines are dropped and counted; the program goes on. At a terminal,
//! where a person watches, lines go straight out through `simple_logger`; it would panic if the
//! terminal had gone away, so that is asked before each line.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use simple_logger::SimpleLogger;

/// Octets that a pipe takes without blocking once it reports room (POSIX, `PIPE_BUF`).
const CHUNK_LEN: usize = 4096;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts to log what is at least as important as `level`. At most `unwritten_max` octets wait for
/// their reader. A second call changes nothing.
pub fn init(level: LevelFilter, unwritten_max: usize) {
    let logger = LOGGER.get_or_init(|| Logger {
        terminal: io::stderr().is_terminal().then(SimpleLogger::new),
        queue: Mutex::default(),
        unwritten_max,
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// Logs what is at least as important as `level` from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Lines that nobody took, since the start.
pub fn dropped() -> u64 {
    LOGGER
        .get()
        .map_or(0, |logger| logger.lock().dropped_in_all)
}

/// Writes what the reader takes now. Returns whether something is left.
pub fn write_queued() -> bool {
    LOGGER
        .get()
        .is_some_and(|logger| logger.write_queued(Duration::ZERO))
}

/// Writes what is left at the end of the program, if the reader takes it soon.
pub fn write_rest() {
    if let Some(logger) = LOGGER.get() {
        logger.write_queued(Duration::from_millis(100));
    }
}

struct Logger {
    terminal: Option<SimpleLogger>,
    queue: Mutex<Queue>,
    unwritten_max: usize,
}

#[derive(Default)]
struct Queue {
    text: Vec<u8>,
    /// Lines that were dropped since that was last told.
    dropped: u64,
    dropped_in_all: u64,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // The libraries below tell at these levels what concerns their own authors.
        let is_ours = record.target().starts_with(env!("CARGO_PKG_NAME"));
        if !self.enabled(record.metadata()) || !(is_ours || record.level() <= LevelFilter::Warn) {
            return;
        }
        match &self.terminal {
            Some(terminal) => {
                if takes_now(Duration::ZERO) && io::stderr().is_terminal() {
                    terminal.log(record);
                }
            }
            None => self.queue(record),
        }
    }

    fn flush(&self) {}
}

impl Queue {
    fn count_dropped(&mut self, lines: u64) {
        self.dropped += lines;
        self.dropped_in_all += lines;
    }
}

impl Logger {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, record: &Record<'_>) {
        let mut line = String::new();
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let level = record.level();
        writeln!(line, "{time} {level:<5} {}", record.args()).expect("strings take everything");
        let mut queue = self.lock();
        if queue.text.len() + line.len() > self.unwritten_max {
            queue.count_dropped(1);
        } else {
            queue.text.extend_from_slice(line.as_bytes());
        }
    }

    /// Writes what the reader takes within `patience` of each chunk. Returns whether something is
    /// left.
    fn write_queued(&self, patience: Duration) -> bool {
        let mut queue = self.lock();
        while !queue.text.is_empty() && takes_now(patience) {
            let chunk_len = queue.text.len().min(CHUNK_LEN);
            match io::stderr().write(&queue.text[..chunk_len]) {
                Ok(written) => drop(queue.text.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Nobody reads any more, or the disk is full.
                Err(_) => {
                    let lines = queue.text.split(|byte| *byte == b'\n').count() as u64 - 1;
                    queue.count_dropped(lines);
                    queue.text.clear();
                    break;
                }
            }
            if queue.text.is_empty() && queue.dropped > 0 {
                let line = format!(
                    "{} log lines were dropped\n",
                    std::mem::take(&mut queue.dropped)
                );
                queue.text.extend_from_slice(line.as_bytes());
            }
        }
        if queue.text.is_empty() {
            queue.text.shrink_to(CHUNK_LEN);
        }
        !queue.text.is_empty()
    }
}

/// Whether standard error takes octets within `patience`.
fn takes_now(patience: Duration) -> bool {
    let stderr = io::stderr();
    let mut descriptors = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
}
