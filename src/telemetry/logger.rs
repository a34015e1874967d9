//! Log lines on standard error, which are written without blocking.
//!
//! Lines are text or JSON objects. In JSON, the fields of an event are members beside its message.
//!
//! External text cannot end a line: its control characters are escaped here, in text and in JSON.
//!
//! Lines are queued, and the loop writes as much as the reader accepts. If the reader accepts
//! nothing for a while, or has closed the pipe, lines are dropped and counted; the program
//! continues. On a terminal lines are written directly through `simple_logger`; it would panic if
//! the terminal were gone, so the terminal is checked before each line.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use log::kv::{self, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use super::journal;
use super::json::Object;
use super::one_line::OneLine;
use super::sink::{Lines, takes_now};
use crate::config::LogFormat;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the logger with this level. At most `unwritten_max` bytes wait for the reader. A second
/// call has no effect.
pub fn init(level: LevelFilter, format: LogFormat, unwritten_max: usize) {
    let is_for_people = || format == LogFormat::Text && io::stderr().is_terminal();
    let logger = LOGGER.get_or_init(|| Logger {
        format,
        terminal: is_for_people().then(SimpleLogger::new),
        queue: Mutex::default(),
        unwritten_max,
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// Sets the log level.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Returns whether lines are JSON.
pub fn is_json() -> bool {
    let logger = LOGGER.get();
    logger.is_some_and(|logger| logger.format == LogFormat::Json)
}

/// Returns the number of dropped lines since the start.
pub fn dropped() -> u64 {
    LOGGER
        .get()
        .map_or(0, |logger| logger.lock().lines.dropped())
}

/// Writes as much as the reader accepts now. Returns whether some lines are left.
pub fn write_queued() -> bool {
    LOGGER
        .get()
        .is_some_and(|logger| logger.write_queued(Duration::ZERO))
}

/// Writes the remaining lines at the end of the program, if the reader accepts them soon.
pub fn write_rest() {
    if let Some(logger) = LOGGER.get() {
        logger.write_queued(Duration::from_millis(100));
    }
}

struct Logger {
    format: LogFormat,
    terminal: Option<SimpleLogger>,
    queue: Mutex<Queue>,
    unwritten_max: usize,
}

#[derive(Default)]
struct Queue {
    lines: Lines,
    /// The number of dropped lines that were reported.
    told: u64,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Libraries use the lower levels for their own developers.
        let is_ours = record.target().starts_with(env!("CARGO_PKG_NAME"));
        if !self.enabled(record.metadata()) || !(is_ours || record.level() <= LevelFilter::Warn) {
            return;
        }
        match &self.terminal {
            Some(terminal) => {
                if takes_now(&io::stderr(), Duration::ZERO) && io::stderr().is_terminal() {
                    let args = OneLine(record.args());
                    terminal.log(&record.to_builder().args(format_args!("{args}")).build());
                }
            }
            None => self.queue(record),
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, record: &Record<'_>) {
        let mut queue = self.lock();
        let most = self.unwritten_max;
        queue.lines.push(most, |out| self.write(record, out));
    }

    fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let time = SystemTime::now();
        let level = record.level();
        out.extend_from_slice(journal::prefix(level).as_bytes());
        match self.format {
            LogFormat::Text if journal::is_reader() => {
                let line = format!("{level:<5} {}\n", OneLine(record.args()));
                out.extend_from_slice(line.as_bytes());
            }
            LogFormat::Text => {
                let time = humantime::format_rfc3339_seconds(time);
                let line = format!("{time} {level:<5} {}\n", OneLine(record.args()));
                out.extend_from_slice(line.as_bytes());
            }
            LogFormat::Json => {
                let mut object = Object::start(out);
                object.text("time", humantime::format_rfc3339_millis(time));
                object.text("level", level.as_str().to_ascii_lowercase());
                let visited = record.key_values().visit(&mut Members(&mut object));
                visited.expect("the fields of our events can be formatted");
                object.text("message", record.args()).end_line();
            }
        }
    }

    /// Writes as much as the reader accepts within `timeout` for each piece. Returns whether some
    /// lines are left.
    fn write_queued(&self, timeout: Duration) -> bool {
        let mut queue = self.lock();
        let Queue { lines, told } = &mut *queue;
        lines.write_gently(&mut io::stderr(), timeout);
        if lines.is_empty() && lines.dropped() > *told {
            let count = lines.dropped() - *told;
            *told = lines.dropped();
            lines.push(self.unwritten_max, |out| {
                let args =
                    format_args!("{count} log lines were dropped: the reader of the log is slow");
                let record = Record::builder().level(Level::Warn).args(args).build();
                self.write(&record, out);
            });
            lines.write_gently(&mut io::stderr(), timeout);
        }
        !lines.is_empty()
    }
}

/// A visitor that adds the fields of an event to its object.
struct Members<'a, 'b>(&'a mut Object<'b>);

impl<'kvs> VisitSource<'kvs> for Members<'_, '_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        if value.to_f64().is_some() {
            self.0.plain(key.as_str(), value);
        } else {
            self.0.text(key.as_str(), value);
        }
        Ok(())
    }
}
