//! A stream in memory, for the tests of sessions.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use super::Stream;

/// Both ends of a stream: one is a session's, the other a test's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipe {
    ends: Rc<RefCell<Ends>>,
}

#[derive(Debug, Default)]
struct Ends {
    incoming: VecDeque<u8>,
    is_ended: bool,
    outgoing: Vec<u8>,
    /// Octets that the peer still takes; `None` is any number.
    window: Option<usize>,
    acknowledged: usize,
}

impl Pipe {
    /// The peer sends this.
    pub(crate) fn push(&self, octets: &[u8]) {
        self.ends.borrow_mut().incoming.extend(octets);
    }

    /// The peer sends no more.
    pub(crate) fn end(&self) {
        self.ends.borrow_mut().is_ended = true;
    }

    /// The peer takes so many octets from now on.
    pub(crate) fn set_window(&self, window: usize) {
        self.ends.borrow_mut().window = Some(window);
    }

    /// How often the peer was told that it was heard.
    pub(crate) fn acknowledged(&self) -> usize {
        self.ends.borrow().acknowledged
    }

    /// What was sent to the peer since it was asked last.
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
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let ends = &mut *self.ends.borrow_mut();
        let len = ends
            .window
            .map_or(octets.len(), |window| window.min(octets.len()));
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(window) = &mut ends.window {
            *window -= len;
        }
        ends.outgoing.extend(&octets[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
