//! The lines of a file of any length, read in bounded steps.

use std::io::{self, Read};
use std::path::Path;

use super::file::LongFile;

/// Number of bytes that a step reads.
const STEP_LEN: usize = 16 * 1024;

/// Maximum length of a line in bytes; a longer line cannot be used.
const LINE_LEN_MAX: usize = 4096;

/// The lines of a file.
#[derive(Debug)]
pub struct FileLines {
    file: LongFile,
    /// The start of a line whose end is not read yet.
    start: Vec<u8>,
    number: usize,
}

impl FileLines {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, or one for a file that is not a regular one.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: LongFile::open(path)?,
            start: Vec::new(),
            number: 0,
        })
    }

    /// Reads some lines and calls `action` with the number and the text of each, or with the start
    /// of a line that is too long. Returns whether there may be more lines.
    ///
    /// # Errors
    ///
    /// Returns the error of the system.
    pub fn read(&mut self, mut action: impl FnMut(usize, Result<&str, &str>)) -> io::Result<bool> {
        let mut bytes = std::mem::take(&mut self.start);
        let part = u64::try_from(STEP_LEN).expect("a step is short");
        let read = self.file.by_ref().take(part).read_to_end(&mut bytes)?;
        let is_end = read < STEP_LEN;
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let is_last = lines.peek().is_none();
            if is_last && !is_end {
                // One byte more than a line may have shows that the line is too long.
                self.start.extend(line.iter().take(LINE_LEN_MAX + 1));
                break;
            }
            self.number += 1;
            let is_whole = line.len() <= LINE_LEN_MAX;
            let text = String::from_utf8_lossy(&line[..line.len().min(LINE_LEN_MAX)]);
            let text = without_bom(self.number, &text);
            action(self.number, if is_whole { Ok(text) } else { Err(text) });
        }
        Ok(!is_end)
    }
}

/// Returns a line without the byte order mark that may begin a file in UTF-8.
fn without_bom(number: usize, text: &str) -> &str {
    let mark = if number == 1 { "\u{feff}" } else { "" };
    text.strip_prefix(mark).unwrap_or(text)
}
