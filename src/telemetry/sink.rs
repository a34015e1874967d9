//! A queue of lines for a file or pipe, which is written without blocking.
//!
//! The reader of a pipe may stop, and a disk may be full. Lines wait up to a limit; beyond the
//! limit, or after a write error, they are dropped and counted.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The number of bytes that a pipe accepts without blocking once it reports room (POSIX,
/// `PIPE_BUF`).
const PIPE_LEN: usize = 4096;

/// The capacity in bytes that an empty queue keeps.
const KEPT_LEN: usize = 4096;

/// Lines that have not been written.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// The number of written bytes.
    written: usize,
    dropped: u64,
    /// The last written byte does not end a line.
    is_torn: bool,
}

impl Lines {
    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.written
    }

    /// Returns the number of dropped lines since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a line, which `write` appends with its line end, if then at most `bytes_max` wait.
    pub fn push(&mut self, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() - self.written > bytes_max {
            self.bytes.truncate(before);
            self.dropped += 1;
        }
    }

    /// Writes as much as a file accepts that is non-blocking or accepts everything at once.
    pub fn write_all(&mut self, file: &mut impl Write) {
        while !self.is_empty() && self.write_once(file, usize::MAX) {}
        self.tidy_up();
    }

    /// Writes as much as a blocking file accepts within `timeout` for each piece.
    pub fn write_gently(&mut self, file: &mut (impl Write + AsFd), timeout: Duration) {
        while !self.is_empty() && takes_now(file, timeout) && self.write_once(file, PIPE_LEN) {}
        self.tidy_up();
    }

    /// Writes once. Returns whether the file may accept more.
    fn write_once(&mut self, file: &mut impl Write, len_max: usize) -> bool {
        if self.is_torn {
            match file.write(b"\n") {
                Ok(1) => self.is_torn = false,
                _ => return self.give_up(),
            }
        }
        let rest = &self.bytes[self.written..];
        match file.write(&rest[..rest.len().min(len_max)]) {
            Ok(0) => self.give_up(),
            Ok(len) => {
                self.written += len;
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // The reader has closed the pipe, or the disk is full.
            Err(_) => self.give_up(),
        }
    }

    /// Drops the unwritten lines.
    fn give_up(&mut self) -> bool {
        let (before, rest) = self.bytes.split_at(self.written);
        self.is_torn |= before.last().is_some_and(|byte| *byte != b'\n');
        self.dropped += rest.split(|byte| *byte == b'\n').count() as u64 - 1;
        self.bytes.clear();
        self.written = 0;
        false
    }

    fn tidy_up(&mut self) {
        self.bytes.drain(..self.written);
        self.written = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT_LEN);
        }
    }
}

/// Returns whether a file is writable within `timeout`.
pub fn takes_now(file: &impl AsFd, timeout: Duration) -> bool {
    let mut descriptors = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
    poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A file with limited room, and its error without room.
    struct Small {
        written: Vec<u8>,
        room: usize,
        when_full: ErrorKind,
    }

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(self.when_full.into());
            }
            let len = bytes.len().min(self.room);
            self.written.extend_from_slice(&bytes[..len]);
            self.room -= len;
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn small(room: usize, when_full: ErrorKind) -> Small {
        Small {
            written: Vec::new(),
            room,
            when_full,
        }
    }

    fn push(lines: &mut Lines, text: &str) {
        lines.push(20, |out| out.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn lines_wait_for_a_slow_reader_up_to_a_limit() {
        let mut lines = Lines::default();
        let mut file = small(8, ErrorKind::WouldBlock);
        for _ in 0..5 {
            push(&mut lines, "a line\n");
        }
        assert_eq!(lines.dropped(), 3);
        lines.write_all(&mut file);
        assert_eq!(
            (file.written.as_slice(), lines.is_empty()),
            (&b"a line\na"[..], false)
        );
        push(&mut lines, "another\n");
        file.room = 100;
        lines.write_all(&mut file);
        assert_eq!(file.written, b"a line\na line\nanother\n");
        assert!(lines.is_empty());
        assert_eq!(lines.dropped(), 3);
    }

    #[test]
    fn line_that_did_not_fit_the_disk_does_not_spoil_the_next() {
        let mut lines = Lines::default();
        let mut file = small(10, ErrorKind::StorageFull);
        push(&mut lines, "a line\n");
        push(&mut lines, "a line\n");
        lines.write_all(&mut file);
        assert_eq!((lines.is_empty(), lines.dropped()), (true, 1));
        push(&mut lines, "lost\n");
        lines.write_all(&mut file);
        assert_eq!(lines.dropped(), 2);
        file.room = 100;
        push(&mut lines, "next\n");
        lines.write_all(&mut file);
        assert_eq!(file.written, b"a line\na l\nnext\n");
    }
}
