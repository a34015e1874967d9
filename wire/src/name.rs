//! Domain names as they stand in a message (RFC 1035, sections 3.1 and 4.1.4).
//!
//! A compression pointer leads to an earlier position of the message, behind the header, and a name
//! has at most [`POINTERS_MAX`] pointers, so that the cost of each name has a bound. `Names`
//! follows names to their end; the other functions take names that it has checked.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::hash::Hasher;
use std::ops::Range;
use std::str::FromStr;

use super::header::HEADER_LEN;
use super::record::Record;
use super::{Malformed, steps};

/// Octets of the longest name, its root label included (RFC 1035, section 2.3.4).
pub const NAME_LEN_MAX: usize = 255;

/// Octets of the longest label (RFC 1035, section 2.3.4).
const LABEL_LEN_MAX: usize = 63;

/// Compression pointers in a name, at most: as many as the longest name has labels.
pub const POINTERS_MAX: usize = 127;

const POINTER: u8 = 0xc0;

/// Position of the name in the question.
const QUESTION_NAME_AT: u8 = 12;
const _: () = assert!(QUESTION_NAME_AT as usize == HEADER_LEN);

/// Puts letters in small ones, eight octets at a time; other octets stay as they are.
pub fn make_small(octets: &mut [u8]) {
    let (words, rest) = octets.as_chunks_mut();
    for word in words {
        *word = u64::to_ne_bytes(small(u64::from_ne_bytes(*word)));
    }
    rest.make_ascii_lowercase();
}

/// Bytes that are hashed at once.
const BLOCK_LEN: usize = 64;

/// Hashes octets with small letters for capital ones, a block of them at a time.
pub fn hash_small(octets: &[u8], hasher: &mut impl Hasher) {
    for block in octets.chunks(BLOCK_LEN) {
        let mut copy = [0; BLOCK_LEN];
        hasher.write(copy_small(block, &mut copy));
    }
}

/// Copies a block and makes its letters small. Returns the copy. The function is not generic, so
/// that it is compiled with the optimisation level of this crate.
fn copy_small<'a>(block: &[u8], copy: &'a mut [u8; BLOCK_LEN]) -> &'a [u8] {
    let copy = &mut copy[..block.len()];
    let words = block.as_chunks().0.iter();
    for (word, copied) in words.zip(copy.as_chunks_mut().0) {
        *copied = u64::to_ne_bytes(small(u64::from_ne_bytes(*word)));
    }
    // The last word may overlap the one before.
    if let (Some(last), Some(copied)) = (block.last_chunk(), copy.last_chunk_mut()) {
        *copied = u64::to_ne_bytes(small(u64::from_ne_bytes(*last)));
    } else {
        for (octet, copied) in block.iter().zip(&mut *copy) {
            *copied = octet.to_ascii_lowercase();
        }
    }
    copy
}

/// Each octet is looked at in its lower seven bits, whose sums stay within it.
fn small(word: u64) -> u64 {
    let each = |octet: u8| u64::from_ne_bytes([octet; 8]);
    let lower = word & each(0x7f);
    let from_a = lower + each(0x80 - b'A');
    let beyond_z = lower + each(0x80 - b'Z' - 1);
    let is_capital = from_a & !beyond_z & !word & each(0x80);
    word | is_capital >> 2
}

/// A domain name that was written by a person: uncompressed and in small letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The name at which all others start.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// The octets that the name has in a message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Malformed;

    /// Reads labels of letters, digits, `-` and `_`, with dots between them and possibly one at the
    /// end. The root is no such name.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut octets = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let is_ordinary = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            let len = u8::try_from(label.len()).map_err(|_| Malformed)?;
            if label.is_empty() || label.len() > LABEL_LEN_MAX || !label.bytes().all(is_ordinary) {
                return Err(Malformed);
            }
            octets.push(len);
            octets.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        octets.push(0);
        if octets.len() > NAME_LEN_MAX {
            return Err(Malformed);
        }
        Ok(Self(octets.into()))
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(f, &self.0)
    }
}

/// The name itself, the name without its first label, and so on up to the root. `name` is
/// uncompressed.
pub fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let suffix = rest?;
        rest = match suffix {
            [] | [0] => None,
            [len, ..] => suffix.get(1 + usize::from(*len)..),
        };
        Some(suffix)
    })
}

/// The position after the name at `start`, which may end in a pointer. The pointer is not followed.
pub fn skip(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    while at - start < NAME_LEN_MAX {
        steps::count();
        match *message.get(at).ok_or(Malformed)? {
            0 => return Ok(at + 1),
            length if usize::from(length) <= LABEL_LEN_MAX => at += 1 + usize::from(length),
            length if length >= POINTER => {
                pointer_target(message, at, start)?;
                return Ok(at + 2);
            }
            _ => return Err(Malformed),
        }
    }
    Err(Malformed)
}

/// The position after the name at `start`, which must not be compressed.
pub fn skip_uncompressed(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let rest = message.get(start..).ok_or(Malformed)?;
    let name = &rest[..rest.len().min(NAME_LEN_MAX)];
    let mut len = 0;
    loop {
        match *name.get(len).ok_or(Malformed)? {
            0 => return Ok(start + len + 1),
            length if usize::from(length) <= LABEL_LEN_MAX => len += 1 + usize::from(length),
            _ => return Err(Malformed),
        }
    }
}

/// Returns whether the names at `a` and `b` of the same message are equal, letter case aside (RFC
/// 4343). The cost is taken from `steps_left`; names that would cost more count as equal. A name
/// that cannot be read equals only names that end in the same octets of the message.
pub fn equal(message: &[u8], a: usize, b: usize, steps_left: &mut usize) -> bool {
    let mut left = Labels::new(message, a);
    let mut right = Labels::new(message, b);
    while *steps_left > 0 {
        let (Ok(one), Ok(other)) = (left.follow_pointers(), right.follow_pointers()) else {
            return false;
        };
        *steps_left = steps_left.saturating_sub(1 + one + other);
        if left.at == right.at {
            return true;
        }
        match (left.next(), right.next()) {
            (Ok(None), Ok(None)) => return true,
            (Ok(Some(x)), Ok(Some(y))) if x.eq_ignore_ascii_case(y) => {}
            _ => return false,
        }
    }
    true
}

/// Appends the name at `start`, without compression.
pub fn write_uncompressed(
    out: &mut Vec<u8>,
    message: &[u8],
    start: usize,
) -> Result<(), Malformed> {
    let mut labels = Labels::new(message, start);
    while let Some(label) = labels.next()? {
        out.push(u8::try_from(label.len()).map_err(|_| Malformed)?);
        out.extend_from_slice(label);
    }
    out.push(0);
    Ok(())
}

/// Writes an uncompressed name with dots between its labels; what is no letter, digit or ordinary
/// sign stands as `\DDD` (RFC 1035, section 5.1).
pub fn write_presentation(f: &mut fmt::Formatter<'_>, name: &[u8]) -> fmt::Result {
    let mut labels = Labels::new(name, 0);
    if name == [0] {
        return f.write_char('.');
    }
    while let Ok(Some(label)) = labels.next() {
        for run in label.split_inclusive(|octet| !is_plain(*octet)) {
            let (last, before) = run.split_last().ok_or(fmt::Error)?;
            let plain = if is_plain(*last) { run } else { before };
            f.write_str(str::from_utf8(plain).map_err(|_| fmt::Error)?)?;
            match last {
                b'.' | b'\\' => write!(f, "\\{}", char::from(*last))?,
                last if !is_plain(*last) => write!(f, "\\{last:03}")?,
                _ => {}
            }
        }
        f.write_char('.')?;
    }
    Ok(())
}

/// Whether a presented name has an octet as it is.
fn is_plain(octet: u8) -> bool {
    matches!(octet, b'!'..=b'~') && !matches!(octet, b'.' | b'\\')
}

/// The labels of a name, pointers followed.
struct Labels<'a> {
    message: &'a [u8],
    at: usize,
    /// A pointer must lead to a position before this one.
    floor: usize,
    /// Octets and pointers of the name so far.
    passed: Extent,
}

impl<'a> Labels<'a> {
    fn new(message: &'a [u8], start: usize) -> Self {
        Self {
            message,
            at: start,
            floor: start,
            passed: Extent::default(),
        }
    }

    /// The next label; `None` at the root.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        self.follow_pointers()?;
        steps::count();
        match *self.message.get(self.at).ok_or(Malformed)? {
            0 => Ok(None),
            length if usize::from(length) <= LABEL_LEN_MAX => {
                let start = self.at + 1;
                let end = start + usize::from(length);
                self.at = end;
                self.passed.octets += 1 + u16::from(length);
                if usize::from(self.passed.octets) >= NAME_LEN_MAX {
                    return Err(Malformed);
                }
                self.message.get(start..end).map(Some).ok_or(Malformed)
            }
            _ => Err(Malformed),
        }
    }

    /// Follows pointers until a label comes. Returns how many there were.
    fn follow_pointers(&mut self) -> Result<usize, Malformed> {
        let before = self.passed.pointers;
        while self.follow_pointer()? {}
        Ok(usize::from(self.passed.pointers - before))
    }

    /// Follows the pointer that comes next, if one does.
    fn follow_pointer(&mut self) -> Result<bool, Malformed> {
        if *self.message.get(self.at).ok_or(Malformed)? < POINTER {
            return Ok(false);
        }
        steps::count();
        self.passed.pointers += 1;
        if usize::from(self.passed.pointers) > POINTERS_MAX {
            return Err(Malformed);
        }
        self.at = pointer_target(self.message, self.at, self.floor)?;
        self.floor = self.at;
        Ok(true)
    }
}

/// The position that the pointer at `at` leads to, which must be before `floor` and behind the
/// header (RFC 1035, section 4.1.4: a prior occurrence of a name).
fn pointer_target(message: &[u8], at: usize, floor: usize) -> Result<usize, Malformed> {
    let pointer = super::read_u16(message, at)?;
    let target = usize::from(pointer & 0x3fff);
    (HEADER_LEN..floor)
        .contains(&target)
        .then_some(target)
        .ok_or(Malformed)
}

/// Follows the names of a message to their ends. Suffixes that pointers lead to are remembered, so
/// that the cost of all names together is linear in the length of the message.
///
/// What a pointer leads to must stand before the name that has the pointer, and outside the TTL of
/// any record. A prior occurrence of a name always does (RFC 1035, section 4.1.4), and such a name
/// stays the same when the message is truncated behind it and when the cache changes a TTL.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    message: &'a [u8],
    /// Position of the first record.
    records_start: usize,
    /// Octets of the name behind the header, which is checked; zero if there is none.
    question_name_len: usize,
    followed: Option<Followed>,
}

/// The suffixes of names that pointers led to.
#[derive(Debug)]
struct Followed {
    /// The latest one and its position.
    latest: (usize, Extent),
    /// Steps that were taken to follow pointers.
    steps: usize,
    /// Every suffix, by position, once following them took many steps.
    known: Vec<Extent>,
    ttls: Ttls,
}

/// The positions of the TTLs of a message, as far as its records were read.
#[derive(Debug)]
struct Ttls {
    positions: Vec<usize>,
    /// Position of the next record.
    next_record: usize,
}

/// Octets of a TTL.
const TTL_LEN: usize = size_of::<u32>();

/// The length of a part of a name.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    /// Octets without compression. No suffix has zero of them.
    octets: u16,
    pointers: u16,
}

/// Steps beyond which every suffix is remembered.
const STEPS_UNREMEMBERED: usize = 4096;

/// A pointer has 14 bits for a position.
const POINTER_TARGETS: usize = 1 << 14;

impl<'a> Names<'a> {
    /// The names of `message`, whose records start at `records_start`. The name behind the header
    /// has this length and is checked.
    #[inline]
    pub(crate) fn new(message: &'a [u8], question_name_len: usize, records_start: usize) -> Self {
        Self {
            message,
            records_start,
            question_name_len,
            followed: None,
        }
    }

    /// The message.
    pub(crate) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Checks the name at `start`. Returns the position after it, which is after the pointer if
    /// there is one.
    #[inline]
    pub(crate) fn check(&mut self, start: usize) -> Result<usize, Malformed> {
        // Most names are the one in the question or, that of OPT, the root.
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
                    let is_right = at - start + usize::from(rest.octets) <= NAME_LEN_MAX
                        && usize::from(rest.pointers) < POINTERS_MAX;
                    return is_right.then_some(at + 2).ok_or(Malformed);
                }
                _ => return Err(Malformed),
            }
        }
        Err(Malformed)
    }

    /// The length of the suffix at `start`, which must end before `limit`.
    fn suffix(&mut self, start: usize, limit: usize) -> Result<Extent, Malformed> {
        if start == HEADER_LEN && self.question_name_len > 0 {
            return Ok(Extent {
                octets: u16::try_from(self.question_name_len).map_err(|_| Malformed)?,
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
    /// Reads the records that start before `limit`. All parts of them before `limit` are checked.
    fn read_up_to(&mut self, message: &[u8], limit: usize) -> Result<(), Malformed> {
        while self.next_record < limit {
            let record = Record::parse_head(message, self.next_record)?;
            self.positions.push(record.ttl_at());
            self.next_record = record.end;
        }
        Ok(())
    }

    /// Returns whether a TTL has any of these octets.
    fn overlap(&self, octets: Range<usize>) -> bool {
        let next = self
            .positions
            .partition_point(|ttl_at| ttl_at + TTL_LEN <= octets.start);
        self.positions
            .get(next)
            .is_some_and(|ttl_at| *ttl_at < octets.end)
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

    /// Follows the suffix at `start` to a part that is known, or to its end.
    fn follow(&mut self, message: &[u8], start: usize) -> Result<Extent, Malformed> {
        let mut labels = Labels::new(message, start);
        let rest = loop {
            if labels.at == labels.floor
                && let Some(known) = self.known.get(labels.at)
                && known.octets > 0
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
            octets: labels.passed.octets + rest.octets,
            pointers: labels.passed.pointers + rest.pointers,
        };
        if usize::from(whole.octets) > NAME_LEN_MAX || usize::from(whole.pointers) > POINTERS_MAX {
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
                    octets: whole.octets - labels.passed.octets,
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

/// The root, at which every name ends.
const ROOT: Extent = Extent {
    octets: 1,
    pointers: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Octets of a message behind its header.
    fn behind_header(octets: &[u8]) -> Vec<u8> {
        [&[0; HEADER_LEN], octets].concat()
    }

    /// The position after the name at `start`, if it can be followed to its end.
    fn checked(message: &[u8], start: usize) -> Result<usize, Malformed> {
        Names::new(message, 0, message.len()).check(start)
    }

    /// Whether two names are equal, with enough steps to tell.
    fn are_equal(message: &[u8], a: usize, b: usize) -> bool {
        equal(message, a, b, &mut 10_000)
    }

    /// Appends a pointer to this position. Returns its own position.
    fn push_pointer(message: &mut Vec<u8>, target: usize) -> usize {
        let at = message.len();
        let target = u16::try_from(target).expect("a position of 14 bits");
        message.extend((0xc000 | target).to_be_bytes());
        at
    }

    #[test]
    fn names_are_skipped_to_their_end() {
        assert_eq!(skip(b"\x03www\x07example\x00!", 0), Ok(13));
        assert_eq!(skip(&behind_header(b"\x00\x03www\xc0\x0c!"), 13), Ok(19));
        assert_eq!(skip_uncompressed(b"\x03www\x00", 0), Ok(5));
        assert_eq!(skip_uncompressed(b"\x00\x03www\xc0\x00", 1), Err(Malformed));
    }

    #[test]
    fn names_that_leave_the_message_are_malformed() {
        for bytes in [
            &b""[..],
            b"\x03",
            b"\x03ww",
            b"\x03www",
            b"\xc0",
            b"\x40a",
            b"\x80a",
        ] {
            assert_eq!(skip(bytes, 0), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn name_of_255_octets_is_the_longest() {
        let mut name = Vec::new();
        for _ in 0..3 {
            name.push(63);
            name.extend([b'a'; 63]);
        }
        let mut longest = name.clone();
        longest.push(61);
        longest.extend([b'b'; 61]);
        longest.push(0);
        assert_eq!(longest.len(), NAME_LEN_MAX);
        assert_eq!(skip_uncompressed(&longest, 0), Ok(NAME_LEN_MAX));

        name.push(62);
        name.extend([b'b'; 62]);
        name.push(0);
        assert_eq!(skip_uncompressed(&name, 0), Err(Malformed));
        assert_eq!(skip(&name, 0), Err(Malformed));
    }

    #[test]
    fn pointers_to_themselves_or_ahead_are_malformed() {
        for octets in [
            &b"\xc0\x0c"[..],
            b"\xc0\x0e\x00",
            b"\x01a\xc0\x0c",
            b"\xc0\xff",
        ] {
            let message = behind_header(octets);
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
        // A label that leaves the message, a type of label that is none, a name without end.
        for octets in [&b"\x05abc"[..], b"\x41a\0", b"\x01a\x80\0", b"\x01a"] {
            let mut message = behind_header(octets);
            if octets.len() > 2 && octets[0] != 5 {
                let at = push_pointer(&mut message, HEADER_LEN);
                assert_eq!(skip(&message, at), Ok(at + 2));
                assert_eq!(checked(&message, at), Err(Malformed), "{octets:?}");
                let indirect = push_pointer(&mut message, at);
                assert_eq!(checked(&message, indirect), Err(Malformed), "{octets:?}");
            } else {
                assert_eq!(checked(&message, HEADER_LEN), Err(Malformed), "{octets:?}");
            }
        }
    }

    #[test]
    fn name_has_127_pointers_at_most() {
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
    fn pointers_cannot_build_a_name_beyond_255_octets() {
        let mut message = behind_header(b"\0");
        let mut starts = vec![HEADER_LEN];
        for _ in 0..8 {
            starts.push(message.len());
            message.push(31);
            message.extend([b'a'; 31]);
            push_pointer(&mut message, starts[starts.len() - 2]);
        }
        for (labels, start) in starts.iter().enumerate().skip(1) {
            // Each label has 32 octets with its length, the root has one: seven fit.
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

    /// A message that is as hostile as pointers can make it: each of as many names as possible
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
            let taken = usize::try_from(steps::take()).expect("few");
            // Records have 12 octets or more: six times as many names as there can be.
            assert!(taken < 16 * message.len(), "{taken} steps");
        }
    }

    #[test]
    fn comparison_ends_when_its_steps_are_used_up() {
        let mut message = behind_header(b"\0");
        let (one, other) = (message.len(), message.len() + 201);
        for _ in 0..2 {
            message.extend(b"\x01a".repeat(100));
            message.push(0);
        }
        message[other + 198] ^= 1;
        message[other + 199] ^= 2;
        for (steps, is_equal) in [(50, true), (10_000, false)] {
            let mut steps_left = steps;
            assert_eq!(equal(&message, one, other, &mut steps_left), is_equal);
        }
        assert!(equal(&message, one, one, &mut 1), "the same octets");
    }

    #[test]
    fn written_names_are_read() {
        let read = |text: &str| text.parse::<Name>().map(|name| name.0.into_vec());
        assert_eq!(read("Corp.Example"), Ok(b"\x04corp\x07example\0".to_vec()));
        assert_eq!(read("_dns.a-1."), Ok(b"\x04_dns\x03a-1\0".to_vec()));
        for text in ["", ".", "a..b", ".a", "a b", "a*", "\u{fc}.example"] {
            assert_eq!(read(text), Err(Malformed), "{text}");
        }
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        assert_eq!(read(&longest).map(|name| name.len()), Ok(NAME_LEN_MAX));
        assert_eq!(read(&format!("{longest}a")), Err(Malformed));
        assert_eq!(read(&format!("{label}a.b")), Err(Malformed));
        assert_eq!(
            "a.B".parse::<Name>().map(|name| name.to_string()),
            Ok("a.b.".to_owned())
        );
    }

    #[test]
    fn suffixes_end_at_the_root() {
        let of = |name: &'static [u8]| suffixes(name).collect::<Vec<_>>();
        assert_eq!(
            of(b"\x01a\x02bc\0"),
            [&b"\x01a\x02bc\0"[..], b"\x02bc\0", b"\0"]
        );
        assert_eq!(of(b"\0"), [b"\0"]);
        assert_eq!(of(b"\x05a"), [b"\x05a"]);
    }

    proptest! {
        #[test]
        fn letters_become_small_and_nothing_else_changes(
            octets in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut small = octets.clone();
            make_small(&mut small);
            prop_assert_eq!(small, octets.to_ascii_lowercase());
        }
    }

    /// What it is given.
    #[derive(Default)]
    struct Recorder(Vec<u8>);

    impl Hasher for Recorder {
        fn write(&mut self, octets: &[u8]) {
            self.0.extend(octets);
        }

        fn finish(&self) -> u64 {
            unreachable!("nobody asks for it")
        }
    }

    proptest! {
        #[test]
        fn hashed_is_what_has_small_letters(
            octets in proptest::collection::vec(any::<u8>(), 0..=NAME_LEN_MAX),
        ) {
            let mut recorder = Recorder::default();
            hash_small(&octets, &mut recorder);
            prop_assert_eq!(recorder.0, octets.to_ascii_lowercase());
        }
    }

    #[test]
    fn every_octet_has_its_small_one() {
        let mut octets: Vec<u8> = (0..=u8::MAX).collect();
        make_small(&mut octets);
        assert!(
            (0..=u8::MAX)
                .map(|octet| octet.to_ascii_lowercase())
                .eq(octets)
        );
    }

    #[test]
    fn equality_ignores_case_and_compression() {
        let octets = b"\x03www\x07example\x00\x03WWW\xc0\x10\x03web\xc0\x10";
        let message = behind_header(octets);
        assert!(are_equal(&message, 12, 25));
        assert!(!are_equal(&message, 12, 31));
        assert!(!are_equal(&message, 12, 16));
    }
}
