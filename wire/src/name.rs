//! Domain names in messages (RFC 1035, sections 3.1 and 4.1.4).
//!
//! A compression pointer leads to an earlier position of the message after the header, and a name
//! has at most [`POINTERS_MAX`] pointers, so that the cost of each name is bounded. The module
//! `names` follows names to their ends; the functions here take names that `names` has checked.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::hash::Hasher;
use std::str::FromStr;

use super::header::HEADER_LEN;
use super::{Malformed, steps};

/// Maximum length of a name in bytes, including the root label (RFC 1035, section 2.3.4).
pub const NAME_LEN_MAX: usize = 255;

/// Maximum length of a label in bytes (RFC 1035, section 2.3.4).
pub(super) const LABEL_LEN_MAX: usize = 63;

/// Maximum number of compression pointers in a name: as many as the longest name has labels.
pub const POINTERS_MAX: usize = 127;

pub(super) const POINTER: u8 = 0xc0;

/// Position of the name in the question.
pub(super) const QUESTION_NAME_AT: u8 = 12;
const _: () = assert!(QUESTION_NAME_AT as usize == HEADER_LEN);

/// Converts letters to lower case, eight bytes at a time; other bytes are not changed.
pub fn make_lowercase(bytes: &mut [u8]) {
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = u64::to_ne_bytes(lowercase_word(u64::from_ne_bytes(*word)));
    }
    rest.make_ascii_lowercase();
}

/// The number of bytes that are hashed at once.
const BLOCK_LEN: usize = 64;

/// Hashes bytes with their letters in lower case, a block at a time.
pub fn hash_lowercase(bytes: &[u8], hasher: &mut impl Hasher) {
    for block in bytes.chunks(BLOCK_LEN) {
        let mut copy = [0; BLOCK_LEN];
        hasher.write(copy_lowercase(block, &mut copy));
    }
}

/// Copies a block with its letters in lower case. Returns the copy. The function is not generic, so
/// that it is compiled with the optimisation level of this crate.
fn copy_lowercase<'a>(block: &[u8], copy: &'a mut [u8; BLOCK_LEN]) -> &'a [u8] {
    let copy = &mut copy[..block.len()];
    let words = block.as_chunks().0.iter();
    for (word, copied) in words.zip(copy.as_chunks_mut().0) {
        *copied = u64::to_ne_bytes(lowercase_word(u64::from_ne_bytes(*word)));
    }
    // The last word may overlap the previous one.
    if let (Some(last), Some(copied)) = (block.last_chunk(), copy.last_chunk_mut()) {
        *copied = u64::to_ne_bytes(lowercase_word(u64::from_ne_bytes(*last)));
    } else {
        for (byte, copied) in block.iter().zip(&mut *copy) {
            *copied = byte.to_ascii_lowercase();
        }
    }
    copy
}

/// Converts the letters in a word to lower case. Sums over the lower seven bits of a byte do not
/// carry into the next byte.
fn lowercase_word(word: u64) -> u64 {
    let each = |byte: u8| u64::from_ne_bytes([byte; 8]);
    let lower = word & each(0x7f);
    let from_a = lower + each(0x80 - b'A');
    let beyond_z = lower + each(0x80 - b'Z' - 1);
    let is_capital = from_a & !beyond_z & !word & each(0x80);
    word | is_capital >> 2
}

/// A domain name from the configuration: uncompressed and in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Returns the root.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// Returns the bytes of the name in a message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Name {
    /// Returns the name `label` below `parent`, which is in wire form, or `None` if it would be too
    /// long.
    pub fn below(label: &str, parent: &[u8]) -> Option<Self> {
        let len = u8::try_from(label.len()).ok();
        let len = len.filter(|len| (1..=LABEL_LEN_MAX).contains(&usize::from(*len)))?;
        let name = [&[len], label.as_bytes(), parent].concat();
        (name.len() <= NAME_LEN_MAX).then(|| Self(name.into()))
    }
}

impl FromStr for Name {
    type Err = Malformed;

    /// Parses labels of letters, digits, `-` and `_`, separated by dots, with an optional dot at
    /// the end. The root is not accepted.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let is_ordinary = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            let len = u8::try_from(label.len()).map_err(|_| Malformed)?;
            if label.is_empty() || label.len() > LABEL_LEN_MAX || !label.bytes().all(is_ordinary) {
                return Err(Malformed);
            }
            bytes.push(len);
            bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        bytes.push(0);
        if bytes.len() > NAME_LEN_MAX {
            return Err(Malformed);
        }
        Ok(Self(bytes.into()))
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

/// Returns the name, the name without its first label, and so on down to the root. `name` is
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

/// Returns the last label before the root, which is empty for the root. `name` is uncompressed.
pub fn top_label(name: &[u8]) -> &[u8] {
    let (mut top, mut rest) = (&[][..], name);
    while let [len, labels @ ..] = rest
        && let Some((label, others)) = labels.split_at_checked(usize::from(*len))
        && !label.is_empty()
    {
        (top, rest) = (label, others);
    }
    top
}

/// Returns the position after the name at `start`, which may end in a pointer. The pointer is not
/// followed.
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

/// Returns the position after the name at `start`, which must not be compressed.
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

/// Returns whether the names at `a` and `b` of the same message are equal, ignoring case (RFC
/// 4343). The cost is taken from `steps_left`; names that would cost more count as equal. A name
/// that cannot be read equals only names that end in the same bytes of the message.
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

/// Appends the name at `start` without compression.
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

/// Writes an uncompressed name with dots between its labels. Bytes other than printable ASCII are
/// written as `\DDD` (RFC 1035, section 5.1).
pub fn write_presentation(f: &mut fmt::Formatter<'_>, name: &[u8]) -> fmt::Result {
    let mut labels = Labels::new(name, 0);
    if name == [0] {
        return f.write_char('.');
    }
    while let Ok(Some(label)) = labels.next() {
        for run in label.split_inclusive(|byte| !is_plain(*byte)) {
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

/// Returns whether a byte is written without an escape.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'.' | b'\\')
}

/// The labels of a name, across pointers.
pub(super) struct Labels<'a> {
    message: &'a [u8],
    pub(super) at: usize,
    /// The position before which the target of the next pointer must be.
    pub(super) floor: usize,
    /// The bytes and pointers of the name so far.
    pub(super) passed: Extent,
}

impl<'a> Labels<'a> {
    pub(super) fn new(message: &'a [u8], start: usize) -> Self {
        Self {
            message,
            at: start,
            floor: start,
            passed: Extent::default(),
        }
    }

    /// Returns the next label, or `None` at the root.
    pub(super) fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        self.follow_pointers()?;
        steps::count();
        match *self.message.get(self.at).ok_or(Malformed)? {
            0 => Ok(None),
            length if usize::from(length) <= LABEL_LEN_MAX => {
                let start = self.at + 1;
                let end = start + usize::from(length);
                self.at = end;
                self.passed.bytes += 1 + u16::from(length);
                if usize::from(self.passed.bytes) >= NAME_LEN_MAX {
                    return Err(Malformed);
                }
                self.message.get(start..end).map(Some).ok_or(Malformed)
            }
            _ => Err(Malformed),
        }
    }

    /// Follows pointers up to the next label. Returns their number.
    fn follow_pointers(&mut self) -> Result<usize, Malformed> {
        let before = self.passed.pointers;
        while self.follow_pointer()? {}
        Ok(usize::from(self.passed.pointers - before))
    }

    /// Follows a pointer at the current position. Returns whether there is one.
    pub(super) fn follow_pointer(&mut self) -> Result<bool, Malformed> {
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

/// Returns the target of the pointer at `at`, which must be before `floor` and after the header
/// (RFC 1035, section 4.1.4: a prior occurrence of a name).
pub(super) fn pointer_target(message: &[u8], at: usize, floor: usize) -> Result<usize, Malformed> {
    let pointer = super::read_u16(message, at)?;
    let target = usize::from(pointer & 0x3fff);
    (HEADER_LEN..floor)
        .contains(&target)
        .then_some(target)
        .ok_or(Malformed)
}

/// The length of a part of a name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    /// The number of bytes without compression, at least one for each suffix.
    pub(super) bytes: u16,
    pub(super) pointers: u16,
}

/// The length of the root, the end of every name.
pub(super) const ROOT: Extent = Extent {
    bytes: 1,
    pointers: 0,
};

/// Helpers for tests of names.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Returns a message with `bytes` after its header.
    pub(crate) fn behind_header(bytes: &[u8]) -> Vec<u8> {
        [&[0; HEADER_LEN], bytes].concat()
    }

    /// Returns whether two names are equal, with enough steps for the comparison.
    pub(crate) fn are_equal(message: &[u8], a: usize, b: usize) -> bool {
        equal(message, a, b, &mut 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{are_equal, behind_header};
    use super::*;
    use proptest::prelude::*;

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
    fn name_has_at_most_255_bytes() {
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
        assert!(equal(&message, one, one, &mut 1), "the same bytes");
    }

    #[test]
    fn names_are_parsed_from_text() {
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
    fn top_label_is_the_last_one_before_the_root() {
        assert_eq!(top_label(b"\x03www\x07example\0"), b"example");
        assert_eq!(top_label(b"\x04test\0"), b"test");
        assert_eq!(top_label(b"\0"), b"");
        assert_eq!(top_label(b"\x04test\x09cut"), b"test");
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
        fn make_lowercase_changes_letters_only(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut lowercase = bytes.clone();
            make_lowercase(&mut lowercase);
            prop_assert_eq!(lowercase, bytes.to_ascii_lowercase());
        }
    }

    /// A hasher that records its input.
    #[derive(Default)]
    struct Recorder(Vec<u8>);

    impl Hasher for Recorder {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }

        fn finish(&self) -> u64 {
            unreachable!("the hash is not used")
        }
    }

    proptest! {
        #[test]
        fn hash_input_is_in_lower_case(
            bytes in proptest::collection::vec(any::<u8>(), 0..=NAME_LEN_MAX),
        ) {
            let mut recorder = Recorder::default();
            hash_lowercase(&bytes, &mut recorder);
            prop_assert_eq!(recorder.0, bytes.to_ascii_lowercase());
        }
    }

    #[test]
    fn every_byte_is_converted_to_lower_case() {
        let mut bytes: Vec<u8> = (0..=u8::MAX).collect();
        make_lowercase(&mut bytes);
        assert!(
            (0..=u8::MAX)
                .map(|byte| byte.to_ascii_lowercase())
                .eq(bytes)
        );
    }

    #[test]
    fn equality_ignores_case_and_compression() {
        let bytes = b"\x03www\x07example\x00\x03WWW\xc0\x10\x03web\xc0\x10";
        let message = behind_header(bytes);
        assert!(are_equal(&message, 12, 25));
        assert!(!are_equal(&message, 12, 31));
        assert!(!are_equal(&message, 12, 16));
    }
}
