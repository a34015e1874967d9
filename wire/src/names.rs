//! The check of the names of a message: follows compression pointers to their ends (RFC 1035,
//! section 4.1.4).

use std::ops::Range;

use super::header::HEADER_LEN;
use super::name::{
    Extent, LABEL_LEN_MAX, Labels, NAME_LEN_MAX, POINTER, POINTERS_MAX, QUESTION_NAME_AT, ROOT,
    pointer_target,
};
use super::record::Record;
use super::{Malformed, steps};

/// A check of the names of a message. It remembers the suffixes that pointers lead to, so that the
/// cost of all names together is linear in the length of the message.
///
/// The target of a pointer must be before the name with the pointer, and outside the TTL of any
/// record. A prior occurrence of a name always is (RFC 1035, section 4.1.4), and such a name does
/// not change if the message is truncated after it or if the cache changes a TTL.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    message: &'a [u8],
    /// Position of the first record.
    records_start: usize,
    /// Length in bytes of the checked name after the header; zero if there is none.
    question_name_len: usize,
    followed: Option<Followed>,
}

/// The suffixes of names that pointers led to.
#[derive(Debug)]
struct Followed {
    /// The latest suffix and its position.
    latest: (usize, Extent),
    /// The number of steps taken to follow pointers.
    steps: usize,
    /// All suffixes by position, filled after many steps.
    known: Vec<Extent>,
    ttls: Ttls,
}

/// The positions of the TTLs in the part of a message that has been read.
#[derive(Debug)]
struct Ttls {
    positions: Vec<usize>,
    /// Position of the next record.
    next_record: usize,
}

/// Length of a TTL in bytes.
const TTL_LEN: usize = size_of::<u32>();

/// The number of steps after which every suffix is remembered.
const STEPS_UNREMEMBERED: usize = 4096;

/// The number of positions that a pointer of 14 bits can have as its target.
const POINTER_TARGETS: usize = 1 << 14;

impl<'a> Names<'a> {
    /// Creates a check of `message`, with its records from `records_start` on. The name after the
    /// header has this length and is checked already.
    #[inline]
    pub(crate) fn new(message: &'a [u8], question_name_len: usize, records_start: usize) -> Self {
        Self {
            message,
            records_start,
            question_name_len,
            followed: None,
        }
    }

    /// Returns the message.
    pub(crate) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Checks the name at `start`. Returns the position after the name, or after its pointer if
    /// there is one.
    #[inline]
    pub(crate) fn check(&mut self, start: usize) -> Result<usize, Malformed> {
        // Most names are the name in the question or, for OPT, the root.
        let end = match self.message.get(start..) {
            Some([POINTER, QUESTION_NAME_AT, ..])
                if self.question_name_len > 0 && start > HEADER_LEN =>
            {
                start + 2
            }
            Some([0, ..]) => start + 1,
            _ => self.check_any(start)?,
        };
        Ok(end)
    }

    #[inline(never)]
    fn check_any(&mut self, start: usize) -> Result<usize, Malformed> {
        let mut at = start;
        while at - start < NAME_LEN_MAX {
            steps::count();
            match *self.message.get(at).ok_or(Malformed)? {
                0 => return Ok(at + 1),
                length if usize::from(length) <= LABEL_LEN_MAX => at += 1 + usize::from(length),
                length if length >= POINTER => {
                    let target = pointer_target(self.message, at, start)?;
                    let rest = self.suffix(target, start)?;
                    let is_right = at - start + usize::from(rest.bytes) <= NAME_LEN_MAX
                        && usize::from(rest.pointers) < POINTERS_MAX;
                    return is_right.then_some(at + 2).ok_or(Malformed);
                }
                _ => return Err(Malformed),
            }
        }
        Err(Malformed)
    }

    /// Returns the length of the suffix at `start`, which must end before `limit`.
    fn suffix(&mut self, start: usize, limit: usize) -> Result<Extent, Malformed> {
        if start == HEADER_LEN && self.question_name_len > 0 {
            return Ok(Extent {
                bytes: u16::try_from(self.question_name_len).map_err(|_| Malformed)?,
                pointers: 0,
            });
        }
        let records_start = self.records_start;
        let followed = self
            .followed
            .get_or_insert_with(|| Followed::new(records_start));
        if followed.latest.0 != start {
            let before = self.message.get(..limit).ok_or(Malformed)?;
            followed.ttls.read_up_to(self.message, limit)?;
            followed.latest = (start, followed.follow(before, start)?);
        }
        Ok(followed.latest.1)
    }
}

impl Ttls {
    /// Reads the records that start before `limit`. All of their parts before `limit` are checked.
    fn read_up_to(&mut self, message: &[u8], limit: usize) -> Result<(), Malformed> {
        while self.next_record < limit {
            let record = Record::parse_head(message, self.next_record)?;
            self.positions.push(record.ttl_at());
            self.next_record = record.end;
        }
        Ok(())
    }

    /// Returns whether any of these bytes belongs to a TTL.
    fn overlap(&self, bytes: Range<usize>) -> bool {
        let next = self
            .positions
            .partition_point(|ttl_at| ttl_at + TTL_LEN <= bytes.start);
        self.positions
            .get(next)
            .is_some_and(|ttl_at| *ttl_at < bytes.end)
    }
}

impl Followed {
    fn new(records_start: usize) -> Self {
        Self {
            latest: Default::default(),
            steps: 0,
            known: Vec::new(),
            ttls: Ttls {
                positions: Vec::new(),
                next_record: records_start,
            },
        }
    }

    /// Follows the suffix at `start` to a known suffix or to its end.
    fn follow(&mut self, message: &[u8], start: usize) -> Result<Extent, Malformed> {
        let mut labels = Labels::new(message, start);
        let rest = loop {
            if labels.at == labels.floor
                && let Some(known) = self.known.get(labels.at)
                && known.bytes > 0
            {
                break *known;
            }
            self.steps += 1;
            let at = labels.at;
            let is_pointer = labels.follow_pointer()?;
            let is_root = !is_pointer && labels.next()?.is_none();
            let len = match (is_pointer, is_root) {
                (true, _) => 2,
                (_, true) => 1,
                _ => labels.at - at,
            };
            if self.ttls.overlap(at..at + len) {
                return Err(Malformed);
            }
            if is_root {
                break ROOT;
            }
        };
        let whole = Extent {
            bytes: labels.passed.bytes + rest.bytes,
            pointers: labels.passed.pointers + rest.pointers,
        };
        if usize::from(whole.bytes) > NAME_LEN_MAX || usize::from(whole.pointers) > POINTERS_MAX {
            return Err(Malformed);
        }
        if self.steps > STEPS_UNREMEMBERED {
            self.remember(message, start, whole, labels.at)?;
        }
        Ok(whole)
    }

    /// Remembers the suffixes from the one at `start` to the position `end`.
    fn remember(
        &mut self,
        message: &[u8],
        start: usize,
        whole: Extent,
        end: usize,
    ) -> Result<(), Malformed> {
        self.known.resize(POINTER_TARGETS, Extent::default());
        let mut labels = Labels::new(message, start);
        while labels.at != end {
            if labels.at == labels.floor
                && let Some(known) = self.known.get_mut(labels.at)
            {
                *known = Extent {
                    bytes: whole.bytes - labels.passed.bytes,
                    pointers: whole.pointers - labels.passed.pointers,
                };
            }
            if !labels.follow_pointer()? {
                labels.next()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::testing::{are_equal, behind_header};
    use super::super::name::{skip, write_uncompressed};
    use super::*;

    /// Appends a pointer to this position. Returns its own position.
    fn push_pointer(message: &mut Vec<u8>, target: usize) -> usize {
        let at = message.len();
        let target = u16::try_from(target).expect("the position has 14 bits");
        message.extend((0xc000 | target).to_be_bytes());
        at
    }

    /// Returns the position after the name at `start`, if it can be followed to its end.
    fn checked(message: &[u8], start: usize) -> Result<usize, Malformed> {
        Names::new(message, 0, message.len()).check(start)
    }

    #[test]
    fn pointers_to_themselves_or_ahead_are_malformed() {
        for bytes in [
            &b"\xc0\x0c"[..],
            b"\xc0\x0e\x00",
            b"\x01a\xc0\x0c",
            b"\xc0\xff",
        ] {
            let message = behind_header(bytes);
            assert_eq!(skip(&message, 12), Err(Malformed));
            assert_eq!(checked(&message, 12), Err(Malformed));
        }
        assert!(!are_equal(&behind_header(b"\xc0\x0e\xc0\x0c"), 12, 14));
    }

    #[test]
    fn pointers_into_the_header_are_malformed() {
        for target in 0..=HEADER_LEN {
            let mut message = behind_header(b"\0");
            let at = push_pointer(&mut message, target);
            let indirect = push_pointer(&mut message, at);
            let labels = message.len();
            message.extend(b"\x03www");
            push_pointer(&mut message, target);
            let is_right = target == HEADER_LEN;
            for start in [at, indirect, labels] {
                assert_eq!(checked(&message, start).is_ok(), is_right, "{target}");
                assert!(is_right || !are_equal(&message, start, 12));
            }
            assert_eq!(skip(&message, at).is_ok(), is_right);
        }
    }

    #[test]
    fn names_are_followed_to_their_ends() {
        // A label beyond the end of the message, a reserved label type, a name without an end.
        for bytes in [&b"\x05abc"[..], b"\x41a\0", b"\x01a\x80\0", b"\x01a"] {
            let mut message = behind_header(bytes);
            if bytes.len() > 2 && bytes[0] != 5 {
                let at = push_pointer(&mut message, HEADER_LEN);
                assert_eq!(skip(&message, at), Ok(at + 2));
                assert_eq!(checked(&message, at), Err(Malformed), "{bytes:?}");
                let indirect = push_pointer(&mut message, at);
                assert_eq!(checked(&message, indirect), Err(Malformed), "{bytes:?}");
            } else {
                assert_eq!(checked(&message, HEADER_LEN), Err(Malformed), "{bytes:?}");
            }
        }
    }

    #[test]
    fn name_has_at_most_127_pointers() {
        for is_remembered in [false, true] {
            let mut message = behind_header(b"\x01a\0");
            let mut starts = vec![HEADER_LEN];
            for _ in 0..=POINTERS_MAX {
                starts.push(push_pointer(&mut message, starts[starts.len() - 1]));
            }
            let mut names = Names::new(&message, 0, message.len());
            if is_remembered {
                names
                    .followed
                    .get_or_insert_with(|| Followed::new(message.len()))
                    .steps = STEPS_UNREMEMBERED;
            }
            for (pointers, start) in starts.iter().enumerate() {
                let end = (pointers <= POINTERS_MAX).then(|| message.len().min(start + 2));
                let end = if pointers == 0 {
                    Some(HEADER_LEN + 3)
                } else {
                    end
                };
                assert_eq!(names.check(*start).ok(), end, "{pointers} pointers");
            }
            assert_eq!(checked(&message, starts[POINTERS_MAX + 1]), Err(Malformed));
            assert_eq!(
                checked(&message, starts[POINTERS_MAX]).ok(),
                Some(message.len() - 2)
            );
        }
    }

    #[test]
    fn pointers_cannot_build_a_name_beyond_255_bytes() {
        let mut message = behind_header(b"\0");
        let mut starts = vec![HEADER_LEN];
        for _ in 0..8 {
            starts.push(message.len());
            message.push(31);
            message.extend([b'a'; 31]);
            push_pointer(&mut message, starts[starts.len() - 2]);
        }
        for (labels, start) in starts.iter().enumerate().skip(1) {
            // Each label has 32 bytes with its length, the root has one: seven fit.
            assert_eq!(
                checked(&message, *start).is_ok(),
                labels <= 7,
                "{labels} labels"
            );
            let mut out = Vec::new();
            let written = write_uncompressed(&mut out, &message, *start);
            assert_eq!(written.is_ok(), labels <= 7, "{labels} labels");
        }
    }

    /// Returns a message with the worst case of pointers: as many names as possible, each of which
    /// leads to another suffix of a long name.
    fn hostile(suffix: impl Fn(&mut Vec<u8>, usize)) -> (Vec<u8>, Vec<usize>) {
        let mut message = behind_header(b"\0");
        while message.len() < POINTER_TARGETS - 300 {
            let block = message.len();
            suffix(&mut message, block);
        }
        let mut names = Vec::new();
        while message.len() + 2 <= super::super::MESSAGE_LEN_MAX {
            let target = HEADER_LEN + names.len() * 7 % (POINTER_TARGETS - 400);
            names.push(push_pointer(&mut message, target | 1));
        }
        (message, names)
    }

    #[test]
    fn cost_of_all_names_is_linear_in_the_length_of_the_message() {
        let chains = |message: &mut Vec<u8>, block: usize| {
            push_pointer(message, HEADER_LEN);
            for link in 0..126 {
                push_pointer(message, block + 2 * link);
            }
        };
        let labels = |message: &mut Vec<u8>, _: usize| {
            message.extend(b"\x01a".repeat(126));
            message.extend(b"\0\0");
        };
        for (message, starts) in [hostile(chains), hostile(labels)] {
            steps::take();
            let mut names = Names::new(&message, 0, message.len());
            let mut right = 0;
            for start in &starts {
                right += usize::from(names.check(*start).is_ok());
            }
            assert!(right > starts.len() / 4, "{right} of {}", starts.len());
            let taken = usize::try_from(steps::take()).expect("the number of steps fits a usize");
            // Records have 12 bytes or more: six times as many names as there can be.
            assert!(taken < 16 * message.len(), "{taken} steps");
        }
    }
}
