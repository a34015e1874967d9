//! Reads and writes of a socket, and the bytes that it has not accepted.

use std::io::{self, ErrorKind, Read, Write};

use crate::base::failure::{Failure, FailureKind};

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The number of bytes read, which may contain no payload.
    Some(usize),
    /// There is nothing to read now.
    Nothing,
    /// The peer will send no more.
    End,
}

/// Bytes that the socket has not accepted.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    /// The number of bytes that have been written.
    written: usize,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the socket accepts. Returns the number of bytes written.
    pub(super) fn flush(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        if self.len() == 0 {
            return Ok(0);
        }
        let taken = write(stream, &self.bytes[self.written..])?;
        self.written += taken;
        // Written bytes are removed once they are at least as many as the unwritten ones.
        if self.written >= self.len() {
            self.bytes.drain(..self.written);
            self.bytes.shrink_to(0);
            self.written = 0;
        }
        Ok(taken)
    }
}

/// Reads once. Returns `None` if there is nothing to read now.
pub(super) fn read(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(buffer) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes until everything is written or the stream is full. Returns the number of bytes written.
pub(super) fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => taken += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// Converts an error of the socket, for a connection that is established or not.
pub(super) fn failed(error: &io::Error, is_connected: bool) -> Failure {
    let kind = match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            FailureKind::Closed
        }
        _ if is_connected => FailureKind::Closed,
        _ => FailureKind::Connect,
    };
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::new(
            kind,
            format_args!("{error}: check the address and the port"),
        ),
        _ => Failure::new(kind, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Pipe;

    #[test]
    fn refused_connection_has_advice() {
        let failure = failed(&io::Error::from_raw_os_error(111), false);
        assert_eq!(
            failure.to_string(),
            "connection failed: Connection refused (os error 111): check the address and the port"
        );
    }

    #[test]
    fn written_bytes_are_not_kept() {
        let (pipe, message) = (Pipe::default(), vec![0; 60_000]);
        let mut unsent = Unsent::default();
        pipe.set_window(0);
        for _ in 0..64 {
            unsent.bytes.extend(&message);
            pipe.set_window(message.len() - 1);
            unsent.flush(&mut pipe.clone()).unwrap();
        }
        assert_eq!(unsent.len(), 64);
        assert!(unsent.bytes.capacity() < 2 * message.len());
    }
}
