//! A stream in memory, for tests of sessions.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use super::Stream;

/// Both ends of a stream: the end of a session and the end of the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipe {
    ends: Rc<RefCell<Ends>>,
}

#[derive(Debug, Default)]
struct Ends {
    incoming: VecDeque<u8>,
    is_ended: bool,
    outgoing: Vec<u8>,
    /// The number of bytes that the peer still accepts; `None` is unlimited.
    window: Option<usize>,
    acknowledged: usize,
}

impl Pipe {
    /// Makes the peer send `bytes`.
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.ends.borrow_mut().incoming.extend(bytes);
    }

    /// Makes the peer end its stream.
    pub(crate) fn end(&self) {
        self.ends.borrow_mut().is_ended = true;
    }

    /// Sets the number of bytes that the peer accepts from now on.
    pub(crate) fn set_window(&self, window: usize) {
        self.ends.borrow_mut().window = Some(window);
    }

    /// Returns the number of immediate acknowledgements.
    pub(crate) fn acknowledged(&self) -> usize {
        self.ends.borrow().acknowledged
    }

    /// Returns the bytes sent to the peer since the last call.
    pub(crate) fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.ends.borrow_mut().outgoing)
    }
}

impl Stream for Pipe {
    fn acknowledge(&mut self) {
        self.ends.borrow_mut().acknowledged += 1;
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ends = &mut *self.ends.borrow_mut();
        if ends.incoming.is_empty() && !ends.is_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        ends.incoming.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ends = &mut *self.ends.borrow_mut();
        let len = ends
            .window
            .map_or(bytes.len(), |window| window.min(bytes.len()));
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(window) = &mut ends.window {
            *window -= len;
        }
        ends.outgoing.extend(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
