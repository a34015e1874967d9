//! Lines on their way to a reader that nobody waits for.
//!
//! Whoever reads a pipe may stop, a disk may be full. Lines wait up to a limit; beyond it, and when
//! they cannot be written at all, they are dropped and counted.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Octets that a pipe takes without blocking once it reports room (POSIX, `PIPE_BUF`).
const PIPE_LEN: usize = 4096;

/// Octets of room that is kept when there is nothing to write.
const KEPT_LEN: usize = 4096;

/// Lines that have not been written.
#[derive(Debug, Default)]
pub struct Lines {
    octets: Vec<u8>,
    /// How many of them were written.
    written: usize,
    dropped: u64,
    /// The last thing that was written is no whole line.
    is_torn: bool,
}

impl Lines {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.octets.len() == self.written
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a line, which `write` appends with its end, if no more than `octets_max` wait then.
    pub fn push(&mut self, octets_max: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.octets.len();
        write(&mut self.octets);
        if self.octets.len() - self.written > octets_max {
            self.octets.truncate(before);
            self.dropped += 1;
        }
    }

    /// Writes what a file takes that was opened not to block, or that takes everything at once.
    pub fn write_all(&mut self, file: &mut impl Write) {
        while !self.is_empty() && self.write_once(file, usize::MAX) {}
        self.tidy_up();
    }

    /// Writes what is taken within `patience`, by somebody who would block who writes more.
    pub fn write_gently(&mut self, file: &mut (impl Write + AsFd), patience: Duration) {
        while !self.is_empty() && takes_now(file, patience) && self.write_once(file, PIPE_LEN) {}
        self.tidy_up();
    }

    /// Returns whether more may be taken.
    fn write_once(&mut self, file: &mut impl Write, len_max: usize) -> bool {
        if self.is_torn {
            match file.write(b"\n") {
                Ok(1) => self.is_torn = false,
                _ => return self.give_up(),
            }
        }
        let rest = &self.octets[self.written..];
        match file.write(&rest[..rest.len().min(len_max)]) {
            Ok(0) => self.give_up(),
            Ok(len) => {
                self.written += len;
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // Nobody reads any more, or there is no room.
            Err(_) => self.give_up(),
        }
    }

    /// Drops what cannot be written.
    fn give_up(&mut self) -> bool {
        let (before, rest) = self.octets.split_at(self.written);
        self.is_torn |= before.last().is_some_and(|octet| *octet != b'\n');
        self.dropped += rest.split(|octet| *octet == b'\n').count() as u64 - 1;
        self.octets.clear();
        self.written = 0;
        false
    }

    fn tidy_up(&mut self) {
        self.octets.drain(..self.written);
        self.written = 0;
        if self.octets.is_empty() {
            self.octets.shrink_to(KEPT_LEN);
        }
    }
}

/// Whether a file takes octets within `patience`.
pub fn takes_now(file: &impl AsFd, patience: Duration) -> bool {
    let mut descriptors = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A file with so much room, which then has none, or is in no hurry.
    struct Small {
        written: Vec<u8>,
        room: usize,
        when_full: ErrorKind,
    }

    impl Write for Small {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(self.when_full.into());
            }
            let len = octets.len().min(self.room);
            self.written.extend_from_slice(&octets[..len]);
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
