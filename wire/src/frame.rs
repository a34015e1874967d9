//! Messages on a stream: each follows its length in two bytes (RFC 1035, section 4.2.2; RFC 7766,
//! section 8).

use std::ops::ControlFlow;

use super::{MESSAGE_LEN_MAX, byte_ops, push_u16};

/// Length in bytes of the length before a message.
pub const LENGTH_LEN: usize = 2;

/// Appends `message` after its length.
///
/// # Panics
///
/// Panics if the message is longer than [`MESSAGE_LEN_MAX`], the limit for all messages.
pub fn write(out: &mut Vec<u8>, message: &[u8]) {
    let length = u16::try_from(message.len()).expect("a message has at most 65,535 bytes");
    push_u16(out, length);
    byte_ops::append(out, message);
}

/// Extracts messages from a stream that arrives in arbitrary pieces.
///
/// A message that is complete within a piece is passed on without a copy; only incomplete or
/// postponed bytes are kept. Between messages no memory is held.
#[derive(Debug, Default)]
pub struct Deframer {
    kept: Vec<u8>,
}

impl Deframer {
    /// Returns the number of bytes kept: at most one incomplete message, and the messages that
    /// [`Deframer::feed`] left.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns whether no bytes are kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns the bytes that have arrived of an incomplete message, if [`Deframer::feed`] left no
    /// complete one.
    pub fn incomplete(&self) -> &[u8] {
        self.kept.get(LENGTH_LEN..).unwrap_or_default()
    }

    /// Passes each complete message to `take`, kept ones first, until the bytes are used up or
    /// `take` breaks. The rest is kept. The message at which `take` broke counts as taken.
    pub fn feed(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut piece = piece;
        while !self.kept.is_empty() {
            let Some(missing) = missing(&self.kept) else {
                return self.feed_kept(piece, take);
            };
            if missing > piece.len() {
                self.kept.extend_from_slice(piece);
                return ControlFlow::Continue(());
            }
            let (tail, rest) = piece.split_at(missing);
            self.kept.extend_from_slice(tail);
            piece = rest;
        }
        let (flow, rest) = take_whole(piece, &mut take);
        if !rest.is_empty() {
            self.kept.extend_from_slice(rest);
        }
        flow
    }

    /// Keeps bytes that arrive while no message may be taken.
    pub fn keep(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
    }

    /// Implements [`Deframer::feed`] if the kept bytes start with a complete message.
    fn feed_kept(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let kept = std::mem::take(&mut self.kept);
        let (flow, rest) = take_whole(&kept, &mut take);
        if rest.is_empty() && flow.is_continue() {
            return self.feed(piece, take);
        }
        let mut left = Vec::with_capacity(rest.len() + piece.len());
        left.extend_from_slice(rest);
        self.kept = left;
        match flow {
            ControlFlow::Continue(()) => self.feed(piece, take),
            ControlFlow::Break(()) => {
                self.kept.extend_from_slice(piece);
                flow
            }
        }
    }
}

/// Returns how many more bytes the non-empty `bytes` need for the next step: the length, or the
/// complete message. Returns `None` if they hold a complete message.
fn missing(bytes: &[u8]) -> Option<usize> {
    let needed = match bytes.first_chunk() {
        Some(length) => LENGTH_LEN + usize::from(u16::from_be_bytes(*length)),
        None => LENGTH_LEN,
    };
    needed
        .checked_sub(bytes.len())
        .filter(|&missing| missing > 0)
}

/// Passes on the complete messages at the start of `bytes`. Returns the rest.
fn take_whole<'a>(
    mut bytes: &'a [u8],
    take: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> (ControlFlow<()>, &'a [u8]) {
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((message, after)) = rest.split_at_checked(length) else {
            break;
        };
        bytes = after;
        if take(message).is_break() {
            return (ControlFlow::Break(()), bytes);
        }
    }
    (ControlFlow::Continue(()), bytes)
}

/// Maximum length in bytes of a message with its length.
pub const FRAME_LEN_MAX: usize = LENGTH_LEN + MESSAGE_LEN_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            write(&mut bytes, message);
        }
        bytes
    }

    fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12)
    }

    #[test]
    fn complete_messages_leave_no_bytes() {
        let mut deframer = Deframer::default();
        let mut taken = Vec::new();
        let bytes = framed(&[b"one".to_vec(), Vec::new(), b"two".to_vec()]);
        let flow = deframer.feed(&bytes, |message| {
            taken.push(message.to_vec());
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        assert_eq!(taken, [&b"one"[..], b"", b"two"]);
        assert_eq!(deframer.kept.capacity(), 0);
    }

    proptest! {
        #[test]
        fn messages_are_complete_for_any_split_of_the_stream(
            messages in messages(),
            cuts in proptest::collection::vec(1..9usize, 1..200),
        ) {
            let bytes = framed(&messages);
            let mut deframer = Deframer::default();
            let mut taken = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().chain([bytes.len()]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                let _ = deframer.feed(piece, |message| {
                    taken.push(message.to_vec());
                    ControlFlow::Continue(())
                });
            }
            prop_assert_eq!(taken, messages);
            prop_assert!(deframer.is_empty());
        }

        #[test]
        fn postponed_messages_are_kept(
            messages in messages(),
            cuts in proptest::collection::vec((1..90usize, 0..4usize), 1..200),
        ) {
            let bytes = framed(&messages);
            let mut deframer = Deframer::default();
            let mut taken = Vec::new();
            let mut rest = &bytes[..];
            for (cut, most) in cuts.into_iter().chain([(bytes.len(), 1000), (0, 1000)]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                let mut room = most + 1;
                let _ = deframer.feed(piece, |message| {
                    taken.push(message.to_vec());
                    room -= 1;
                    if room == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
            }
            prop_assert_eq!(taken, messages);
            prop_assert!(deframer.is_empty());
        }
    }
}
