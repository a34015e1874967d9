//! Domain names as they stand in a message (RFC 1035, sections 3.1 and 4.1.4).
//!
//! Compression pointers are followed only towards the start of the message, each to a place before
//! the name that holds it, so that every walk ends.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::hash::Hasher;
use std::str::FromStr;

use super::Malformed;

/// Octets of the longest name, its root label included (RFC 1035, section 2.3.4).
pub const NAME_LEN_MAX: usize = 255;

/// Octets of the longest label (RFC 1035, section 2.3.4).
const LABEL_LEN_MAX: usize = 63;

const POINTER: u8 = 0xc0;

/// Puts letters in small ones, eight octets at a time; other octets stay as they are.
pub fn make_small(octets: &mut [u8]) {
    let (words, rest) = octets.as_chunks_mut();
    for word in words {
        *word = u64::to_ne_bytes(small(u64::from_ne_bytes(*word)));
    }
    rest.make_ascii_lowercase();
}

/// Hashes octets with small letters for capital ones, a block of them at a time.
pub fn hash_small(octets: &[u8], hasher: &mut impl Hasher) {
    for block in octets.chunks(8 * 8) {
        let mut copy = [[0; 8]; 8];
        let (words, rest) = block.as_chunks();
        for (word, copied) in words.iter().zip(&mut copy) {
            *copied = u64::to_ne_bytes(small(u64::from_ne_bytes(*word)));
        }
        let copy = copy.as_flattened_mut();
        for (octet, copied) in rest.iter().zip(&mut copy[8 * words.len()..]) {
            *copied = octet.to_ascii_lowercase();
        }
        hasher.write(&copy[..block.len()]);
    }
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

/// The position after the name at `start`, which may end in a pointer.
pub fn skip(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    while at - start < NAME_LEN_MAX {
        match *message.get(at).ok_or(Malformed)? {
            0 => return Ok(at + 1),
            length if usize::from(length) <= LABEL_LEN_MAX => at += 1 + usize::from(length),
            length if length >= POINTER => {
                let target = pointer_target(message, at)?;
                return if target < start {
                    Ok(at + 2)
                } else {
                    Err(Malformed)
                };
            }
            _ => return Err(Malformed),
        }
    }
    Err(Malformed)
}

/// The position after the name at `start`, which must not be compressed.
pub fn skip_uncompressed(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    while at - start < NAME_LEN_MAX {
        match *message.get(at).ok_or(Malformed)? {
            0 => return Ok(at + 1),
            length if usize::from(length) <= LABEL_LEN_MAX => at += 1 + usize::from(length),
            _ => return Err(Malformed),
        }
    }
    Err(Malformed)
}

/// Whether the names at `a` and `b` of the same message are equal, letter case aside (RFC 4343).
/// What cannot be read as a name equals nothing.
pub fn equal(message: &[u8], a: usize, b: usize) -> bool {
    let mut left = Labels::new(message, a);
    let mut right = Labels::new(message, b);
    loop {
        match (left.next(), right.next()) {
            (Ok(None), Ok(None)) => return true,
            (Ok(Some(x)), Ok(Some(y))) if x.eq_ignore_ascii_case(y) => {}
            _ => return false,
        }
    }
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
    /// A pointer must lead to a place before this one.
    floor: usize,
    /// Octets of the name so far, so that hostile pointers cannot make a walk long.
    octets: usize,
}

impl<'a> Labels<'a> {
    fn new(message: &'a [u8], start: usize) -> Self {
        Self {
            message,
            at: start,
            floor: start,
            octets: 0,
        }
    }

    /// The next label; `None` at the root.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        loop {
            match *self.message.get(self.at).ok_or(Malformed)? {
                0 => return Ok(None),
                length if usize::from(length) <= LABEL_LEN_MAX => {
                    let start = self.at + 1;
                    let end = start + usize::from(length);
                    self.at = end;
                    self.octets += 1 + usize::from(length);
                    if self.octets >= NAME_LEN_MAX {
                        return Err(Malformed);
                    }
                    return self.message.get(start..end).map(Some).ok_or(Malformed);
                }
                length if length >= POINTER => {
                    let target = pointer_target(self.message, self.at)?;
                    if target >= self.floor {
                        return Err(Malformed);
                    }
                    self.at = target;
                    self.floor = target;
                }
                _ => return Err(Malformed),
            }
        }
    }
}

fn pointer_target(message: &[u8], at: usize) -> Result<usize, Malformed> {
    let pointer = super::read_u16(message, at)?;
    Ok(usize::from(pointer & 0x3fff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_skipped_to_their_end() {
        assert_eq!(skip(b"\x03www\x07example\x00!", 0), Ok(13));
        assert_eq!(skip(b"\x00\x03www\xc0\x00!", 1), Ok(7));
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
        assert_eq!(skip(b"\xc0\x00", 0), Err(Malformed));
        assert_eq!(skip(b"\xc0\x02\x00", 0), Err(Malformed));
        assert_eq!(skip(b"\x01a\xc0\x00", 0), Err(Malformed));
        assert!(!equal(b"\xc0\x02\xc0\x00", 0, 2));
    }

    #[test]
    fn pointers_cannot_build_a_name_beyond_255_octets() {
        let mut message = vec![0];
        for _ in 0..8 {
            let previous = message.len().saturating_sub(34);
            message.push(31);
            message.extend([b'a'; 31]);
            message.extend([0xc0, u8::try_from(previous).expect("short")]);
        }
        let last = message.len() - 34;
        assert!(equal(&message, 1, 1));
        assert!(!equal(&message, last, last));
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
        let message = b"\x03www\x07example\x00\x03WWW\xc0\x04\x03web\xc0\x04";
        assert!(equal(message, 0, 13));
        assert!(!equal(message, 0, 19));
        assert!(!equal(message, 0, 4));
    }
}
