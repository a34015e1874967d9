//! Short reads: the last read of a stream is recognized by its length.
//!
//! A read that returns less than it was asked for has emptied the socket, and the poller reports
//! what arrives later (`epoll(7)`, questions and answers). The next read would only fail with
//! `WouldBlock`; its system call is saved. The exceptions are the end of the stream and errors:
//! they are read in a call of their own, but the poller may have reported them with the data.

use std::io::{self, ErrorKind};

/// Which reads of a stream need a system call. See the [module](self).
#[derive(Debug, Default)]
pub struct ShortReads {
    /// Nothing is left to read until the next event.
    is_drained: bool,
    /// The poller has reported the end of the stream or an error.
    is_read_closed: bool,
}

impl ShortReads {
    /// Handles an event of the poller. `is_read_closed` is set if the event reports that the peer
    /// will send no more, or an error.
    pub fn on_event(&mut self, is_read_closed: bool) {
        self.is_drained = false;
        self.is_read_closed |= is_read_closed;
    }

    /// Calls `read` with the buffer, unless nothing is left to read.
    ///
    /// # Errors
    ///
    /// Fails with `WouldBlock` if nothing is left, and like `read`.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.is_drained {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = read(buffer)?;
        self.is_drained = (1..buffer.len()).contains(&len) && !self.is_read_closed;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads into a buffer of four bytes. Returns the result and whether `read` was called.
    fn read(reads: &mut ShortReads, len: usize) -> (io::Result<usize>, bool) {
        let mut is_called = false;
        let result = reads.read(&mut [0; 4], |_| {
            is_called = true;
            Ok(len)
        });
        (result.map_err(|error| error.kind().into()), is_called)
    }

    fn is_called(reads: &mut ShortReads, len: usize) -> bool {
        read(reads, len).1
    }

    #[test]
    fn short_read_is_the_last_one_until_the_next_event() {
        let mut reads = ShortReads::default();
        assert!(is_called(&mut reads, 4) && is_called(&mut reads, 3));
        for _ in 0..2 {
            let (result, is_called) = read(&mut reads, 3);
            let error = result.err().map(|error| error.kind());
            assert_eq!((error, is_called), (Some(ErrorKind::WouldBlock), false));
        }
        reads.on_event(false);
        assert!(is_called(&mut reads, 1) && !is_called(&mut reads, 1));
    }

    #[test]
    fn end_that_was_reported_with_the_data_is_read() {
        let mut reads = ShortReads::default();
        reads.on_event(true);
        assert!(is_called(&mut reads, 3) && is_called(&mut reads, 0));
        // A later event for writing does not say again that the peer sends no more.
        reads.on_event(false);
        assert!(is_called(&mut reads, 3) && is_called(&mut reads, 0));
    }

    #[test]
    fn end_of_stream_can_be_read_again() {
        let mut reads = ShortReads::default();
        assert!(is_called(&mut reads, 0) && is_called(&mut reads, 0));
    }
}
