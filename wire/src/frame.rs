//! Messages on a stream: each behind its length in two octets (RFC 1035, section 4.2.2; RFC 7766,
//! section 8).

use std::ops::ControlFlow;

use super::{MESSAGE_LEN_MAX, octets, push_u16};

const LENGTH_LEN: usize = 2;

/// Appends `message` behind its length.
///
/// # Panics
/// When the message is longer than a stream can carry; whoever makes a message keeps to
/// [`MESSAGE_LEN_MAX`].
pub fn write(out: &mut Vec<u8>, message: &[u8]) {
    let length = u16::try_from(message.len()).expect("messages are at most 65,535 octets");
    push_u16(out, length);
    octets::append(out, message);
}

/// Takes messages out of a stream, however it comes in pieces.
///
/// Messages that are whole within a piece are handed on where they lie; only what is torn, or left
/// for later, is kept. Between messages no memory is held.
#[derive(Debug, Default)]
pub struct Deframer {
    kept: Vec<u8>,
}

impl Deframer {
    /// Octets kept for later: at most one torn message, and what [`Deframer::feed`] was told to
    /// leave.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Hands every whole message to `take`, those kept from before first, until the bytes are used
    /// up or `take` breaks. What is then left is kept. The message that `take` broke at counts as
    /// taken.
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

    /// Keeps bytes that come while nothing may be taken.
    pub fn keep(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
    }

    /// [`Deframer::feed`] when what is kept starts with a whole message.
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

/// Octets that `bytes`, which are not empty, lack until they hold what can be known next: the
/// length or the whole message. `None` when they hold a whole message.
fn missing(bytes: &[u8]) -> Option<usize> {
    let needed = match bytes.first_chunk() {
        Some(length) => LENGTH_LEN + usize::from(u16::from_be_bytes(*length)),
        None => LENGTH_LEN,
    };
    needed
        .checked_sub(bytes.len())
        .filter(|&missing| missing > 0)
}

/// Hands on the whole messages that `bytes` start with; returns what is left.
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

/// Octets of the longest message with its length.
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
    fn whole_messages_leave_nothing_behind() {
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
        fn messages_come_out_whole_however_the_stream_is_cut(
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
        fn what_is_left_for_later_comes_later(
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
