//! The line on a terminal that shows how far the check is.

use std::fmt;
use std::io::{IsTerminal, Write};

use crate::telemetry::one_line::OneLine;

/// A step of the check.
#[derive(Clone, Copy, Debug)]
pub struct CheckProgress<'a> {
    /// The number of the upstream, from one.
    pub number: usize,
    /// The number of all upstreams.
    pub total: usize,
    /// The upstream as in log lines.
    pub label: &'a str,
    /// The step in a word or two.
    pub step: &'a str,
}

impl fmt::Display for CheckProgress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            total,
            label,
            step,
        } = self;
        write!(
            f,
            "checking {number} of {total}: {}: {step}",
            OneLine(label)
        )
    }
}

/// A line on a terminal that is overwritten by the next one. Without a terminal nothing is written.
#[derive(Debug)]
pub struct ProgressLine<W> {
    terminal: Option<W>,
}

/// Moves to the start of the line and clears it (ECMA-48, section 8.3.41).
const CLEAR: &str = "\r\x1b[K";

/// Maximum length of the line in characters: a line that wraps would not be cleared.
const LEN_MAX: usize = 79;

impl<W: Write + IsTerminal> ProgressLine<W> {
    /// Creates the line on `output`, if that is a terminal.
    pub fn new(output: W) -> Self {
        let terminal = Some(output).filter(IsTerminal::is_terminal);
        Self { terminal }
    }
}

impl<W: Write> ProgressLine<W> {
    /// Shows a step.
    pub fn show(&mut self, progress: &CheckProgress<'_>) {
        let line: String = progress.to_string().chars().take(LEN_MAX).collect();
        self.write(&line);
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        self.write("");
    }

    fn write(&mut self, line: &str) {
        if let Some(terminal) = &mut self.terminal {
            // The terminal may be gone.
            let _ = write!(terminal, "{CLEAR}{line}").and_then(|()| terminal.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_cleared_before_the_next_one_and_does_not_wrap() {
        let mut line = ProgressLine {
            terminal: Some(Vec::new()),
        };
        let label = "dns.example".repeat(9);
        line.show(&CheckProgress {
            number: 2,
            total: 3,
            label: &label,
            step: "connecting",
        });
        line.clear();
        let written = String::from_utf8(line.terminal.unwrap()).unwrap();
        let lines: Vec<_> = written.split(CLEAR).collect();
        let [before, shown, after] = lines[..] else {
            panic!("{written:?}");
        };
        assert_eq!((before, after), ("", ""));
        assert!(shown.starts_with("checking 2 of 3: dns.exampledns.ex"));
        assert_eq!(shown.len(), LEN_MAX);
    }
}
