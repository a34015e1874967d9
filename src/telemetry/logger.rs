//! Log lines to standard error, without ever waiting for whoever reads them.
//!
//! They are text for people, or JSON: a line is an object then, and what can be told of an event
//! apart from its message has members of its own.
//!
//! What a line quotes from outside cannot end the line: its control characters are escaped here, in
//! text as in JSON.
//!
//! Lines are queued and written by the loop as far as the reader takes them. When it takes none for
//! a while, or has gone away, lines are dropped and counted; the program goes on. At a terminal,
//! where a person watches, lines go straight out through `simple_logger`; it would panic if the
//! terminal had gone away, so that is asked before each line.

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

/// Starts to log what is at least as important as `level`. At most `unwritten_max` octets wait for
/// their reader. A second call changes nothing.
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

/// Logs what is at least as important as `level` from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Whether lines are JSON.
pub fn is_json() -> bool {
    let logger = LOGGER.get();
    logger.is_some_and(|logger| logger.format == LogFormat::Json)
}

/// Lines that nobody took, since the start.
pub fn dropped() -> u64 {
    LOGGER
        .get()
        .map_or(0, |logger| logger.lock().lines.dropped())
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
    format: LogFormat,
    terminal: Option<SimpleLogger>,
    queue: Mutex<Queue>,
    unwritten_max: usize,
}

#[derive(Default)]
struct Queue {
    lines: Lines,
    /// Lines that were dropped, as far as that was told.
    told: u64,
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
                visited.expect("members of ours can be written");
                object.text("message", record.args()).end_line();
            }
        }
    }

    /// Writes what the reader takes within `patience` of each piece. Returns whether something is
    /// left.
    fn write_queued(&self, patience: Duration) -> bool {
        let mut queue = self.lock();
        let Queue { lines, told } = &mut *queue;
        lines.write_gently(&mut io::stderr(), patience);
        if lines.is_empty() && lines.dropped() > *told {
            let count = lines.dropped() - *told;
            *told = lines.dropped();
            lines.push(self.unwritten_max, |out| {
                let args = format_args!("{count} log lines were dropped");
                let record = Record::builder().level(Level::Warn).args(args).build();
                self.write(&record, out);
            });
            lines.write_gently(&mut io::stderr(), patience);
        }
        !lines.is_empty()
    }
}

/// Adds what is told of an event to its object.
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
