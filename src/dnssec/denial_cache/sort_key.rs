//! Sort keys of names: bytes whose order is the canonical order of names.

use crate::wire::name::{NAME_LEN_MAX, make_lowercase, suffixes};

/// Maximum length of a sort key: each byte of a label may take two.
const LEN_MAX: usize = 2 * NAME_LEN_MAX;

/// The end of a label in a sort key.
const LABEL_END: u8 = 0;

/// The sort key of a name: its labels from the last to the first in lower case, each with an end
/// that is lower than any byte. Its order is the canonical order (RFC 4034, section 6.1), and the
/// key of an ancestor is the start of the key of a name.
pub(super) struct SortKey {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl SortKey {
    /// Returns the sort key of an uncompressed name.
    pub(super) fn of(name: &[u8]) -> Self {
        let mut key = Self {
            bytes: [0; LEN_MAX],
            len: 0,
        };
        let mut starts = [0_u8; NAME_LEN_MAX / 2 + 1];
        let mut count = 0;
        for suffix in suffixes(name).filter(|suffix| suffix.len() > 1) {
            let start = u8::try_from(name.len() - suffix.len()).unwrap_or(u8::MAX);
            if let Some(place) = starts.get_mut(count) {
                *place = start;
                count += 1;
            }
        }
        for start in starts[..count].iter().rev() {
            let label = &name[usize::from(*start)..];
            key.push_label(label.get(1..=usize::from(label[0])).unwrap_or(&[]));
        }
        make_lowercase(&mut key.bytes[..key.len]);
        key
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Replaces the key by that of the wildcard directly below an ancestor, whose key is the first
    /// `encloser_len` bytes.
    pub(super) fn set_wildcard_below(&mut self, encloser_len: usize) {
        self.len = encloser_len;
        self.push_label(b"*");
    }

    fn push_label(&mut self, label: &[u8]) {
        if label.iter().all(|byte| *byte > 1) {
            self.push(label);
        } else {
            // The end of a label must be lower than any byte in one.
            for byte in label {
                match byte {
                    0 | 1 => self.push(&[1, byte + 1]),
                    _ => self.push(&[*byte]),
                }
            }
        }
        self.push(&[LABEL_END]);
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes[self.len..].get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// Returns the length of the key of the nearest common ancestor of two names with these sort keys.
pub(super) fn shared_len(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.iter().zip(other);
    let len = pairs.take_while(|(one, other)| one == other).count();
    let end = one[..len].iter().rposition(|byte| *byte == LABEL_END);
    end.map_or(0, |end| end + 1)
}
