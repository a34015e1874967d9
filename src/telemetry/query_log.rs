//! The query log: a line of JSON for each finished query.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::anonymize::shown;
use super::json::Object;
use super::sink::Lines;
use crate::base::file;
use crate::config::{ClientDetail, LogTarget, QueryLogSettings};
use crate::proxy::{Outcome, Record};
use crate::wire::Question;

/// The query log, in a file or on standard output.
#[derive(Debug)]
pub struct QueryLog {
    settings: QueryLogSettings,
    file: Target,
    lines: Lines,
    unwritten_max: usize,
    stamp: Stamp,
    /// Records since the last that was written (sampling).
    passed_over: u32,
}

#[derive(Debug)]
enum Target {
    /// Standard output without the buffer of the standard library, which would write more than one
    /// call allows.
    Stdout(File),
    File(File),
}

impl Target {
    fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Stdout => {
                let own = io::stdout().as_fd().try_clone_to_owned()?;
                Ok(Self::Stdout(own.into()))
            }
            LogTarget::File(path) => {
                let (file, lacks_reader) = file::append(path)?;
                if lacks_reader {
                    let warning = no_reader(path);
                    log::warn!(event = "query-log-unread"; "{warning}");
                }
                Ok(Self::File(file))
            }
        }
    }
}

impl QueryLog {
    /// Opens the log of these settings. At most `unwritten_max` bytes wait to be written.
    pub fn open(settings: &QueryLogSettings, unwritten_max: usize) -> Result<Self, String> {
        Ok(Self {
            file: Target::open(&settings.target).map_err(|error| explain(settings, &error))?,
            settings: settings.clone(),
            lines: Lines::default(),
            unwritten_max,
            stamp: Stamp::default(),
            passed_over: 0,
        })
    }

    /// Returns why a log of these settings could not be opened, or else a warning, without making
    /// or changing a file.
    pub fn check(settings: &QueryLogSettings) -> Result<Option<String>, String> {
        match &settings.target {
            LogTarget::Stdout => Ok(None),
            LogTarget::File(path) => {
                file::try_to_append(path).map_err(|error| explain(settings, &error))?;
                Ok(file::is_pipe_without_reader(path).then(|| no_reader(path)))
            }
        }
    }

    /// Switches to other settings and opens the file by its name again: log rotation may have
    /// renamed the old one.
    pub fn reopen(&mut self, settings: &QueryLogSettings) -> Result<(), String> {
        let file = Target::open(&settings.target).map_err(|error| explain(settings, &error))?;
        self.write();
        self.file = file;
        self.settings = settings.clone();
        Ok(())
    }

    /// Returns the number of dropped lines.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Adds a query with this question, unless sampling skips it. The answer came from `upstream`;
    /// `identity` is the subject of the client's certificate.
    pub fn add(
        &mut self,
        record: &Record,
        question: Option<&[u8]>,
        upstream: Option<&str>,
        identity: Option<&str>,
    ) {
        self.passed_over += 1;
        if self.passed_over < self.settings.sample {
            return;
        }
        self.passed_over = 0;
        let detail = self.settings.clients;
        let time = self.stamp.of(SystemTime::now());
        self.lines.push(self.unwritten_max, |out| {
            let mut object = Object::start(out);
            object.word("time", time);
            if let Some(client) = shown(record.origin.peer.ip(), detail) {
                object.text("client", client);
            }
            object.word("transport", record.protocol.label());
            if let Some(question) = question.and_then(|bytes| Question::parse(bytes, 0).ok()) {
                object.text("name", question.shown_name());
                object.text("type", question.rr_type());
            }
            object.word("outcome", record.outcome.label());
            if let Some(rcode) = record.rcode {
                object.text("rcode", rcode);
            }
            if let Some(security) = record.security {
                object.word("dnssec", security.label());
            }
            let took = record.took.as_micros();
            object.plain("ms", format_args!("{}.{:03}", took / 1000, took % 1000));
            if let Some(upstream) = upstream {
                object.text("upstream", upstream);
            }
            object
                .plain("bytes", record.response_len)
                .plain("cached", record.outcome == Outcome::Cached)
                .plain("stale", record.outcome == Outcome::Stale);
            if let Some(identity) = identity
                && detail != ClientDetail::None
            {
                object.text("identity", identity);
            }
            object.end_line();
        });
    }

    /// Writes as much as the target accepts now. Returns whether some lines are left.
    pub fn write(&mut self) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        match &mut self.file {
            Target::Stdout(stdout) => self.lines.write_gently(stdout, std::time::Duration::ZERO),
            Target::File(file) => self.lines.write_all(file),
        }
        !self.lines.is_empty()
    }
}

/// A formatted time, which queries of the same millisecond share: under load these are hundreds,
/// and formatting the time takes a third of the time of a line.
#[derive(Debug, Default)]
struct Stamp {
    /// Milliseconds since 1970.
    millis: u128,
    text: String,
}

impl Stamp {
    fn of(&mut self, time: SystemTime) -> &str {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || since.as_millis() != self.millis {
            self.millis = since.as_millis();
            self.text = humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string();
        }
        &self.text
    }
}

fn no_reader(path: &Path) -> String {
    format!(
        "--query-log: {:?}: this named pipe has no reader: lines are dropped while the pipe is \
         full",
        path.display()
    )
}

fn explain(settings: &QueryLogSettings, error: &io::Error) -> String {
    match &settings.target {
        LogTarget::Stdout => format!("--query-log: \"-\": {error}"),
        LogTarget::File(path) => {
            let error = file::describe_written(path, error);
            format!("--query-log: {:?}: {error}", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn folder_of_a_read_only_file_system_has_advice() {
        let settings = QueryLogSettings {
            target: LogTarget::File("/var/log/dns.json".into()),
            sample: 1,
            clients: ClientDetail::None,
        };
        let problem = explain(&settings, &io::ErrorKind::ReadOnlyFilesystem.into());
        assert!(problem.contains("/var/log/dotproxy"), "{problem}");
    }

    #[test]
    fn time_is_written_to_the_millisecond() {
        let mut stamp = Stamp::default();
        let mut at = |micros| {
            stamp
                .of(UNIX_EPOCH + Duration::from_micros(micros))
                .to_owned()
        };
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(1_700_000_000_123_999), "2023-11-14T22:13:20.123Z");
        assert_eq!(at(1_700_000_000_124_000), "2023-11-14T22:13:20.124Z");
        // The clock was set back.
        assert_eq!(at(1_700_000_000_000_000), "2023-11-14T22:13:20.000Z");
    }
}
