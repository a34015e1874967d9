//! A JSON writer (RFC 8259): objects of strings, numbers and booleans, and lists.

use std::fmt::{self, Display, Write as _};

use super::one_line::is_steering;
use crate::wire::byte_ops;

/// An object that is being written at the end of a buffer.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    before: u8,
}

impl<'a> Object<'a> {
    /// Starts an object.
    pub fn start(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    /// Adds a string.
    pub fn text(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.name(name);
        write_text(self.out, value);
        self
    }

    /// Adds a string that needs no escapes.
    pub fn word(&mut self, name: &str, word: &str) -> &mut Self {
        self.name(name);
        self.out.push(b'"');
        byte_ops::append(self.out, word.as_bytes());
        self.out.push(b'"');
        self
    }

    /// Adds a number or a boolean.
    pub fn plain(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.name(name);
        write!(Raw(self.out), "{value}").expect("writing to a buffer cannot fail");
        self
    }

    /// Adds a value that `write` writes.
    pub fn nested(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.name(name);
        write(self.out);
        self
    }

    /// Ends the object.
    pub fn end(&mut self) {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }

    /// Ends the object and the line.
    pub fn end_line(&mut self) {
        self.end();
        self.out.push(b'\n');
    }

    /// Adds a name, which needs no escapes.
    fn name(&mut self, name: &str) {
        self.out.push(self.before);
        self.before = b',';
        self.out.push(b'"');
        byte_ops::append(self.out, name.as_bytes());
        self.out.extend(*b"\":");
    }
}

/// A list that is being written at the end of a buffer.
#[derive(Debug)]
pub struct List<'a> {
    out: &'a mut Vec<u8>,
    before: u8,
}

impl<'a> List<'a> {
    /// Starts a list.
    pub fn start(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'[' }
    }

    /// Starts an item and returns the buffer for it.
    pub fn item(&mut self) -> &mut Vec<u8> {
        self.out.push(self.before);
        self.before = b',';
        self.out
    }

    /// Adds a string.
    pub fn text(&mut self, value: impl Display) {
        write_text(self.item(), value);
    }

    /// Ends the list.
    pub fn end(&mut self) {
        if self.before == b'[' {
            self.out.push(b'[');
        }
        self.out.push(b']');
    }
}

fn write_text(out: &mut Vec<u8>, value: impl Display) {
    out.push(b'"');
    write!(Escaped(out), "{value}").expect("writing to a buffer cannot fail");
    out.push(b'"');
}

struct Raw<'a>(&'a mut Vec<u8>);

impl fmt::Write for Raw<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        byte_ops::append(self.0, text.as_bytes());
        Ok(())
    }
}

struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(is_plain) {
            byte_ops::append(self.0, text.as_bytes());
            return Ok(());
        }
        self.write_escaped(text)
    }

    /// Domain names are written character by character.
    fn write_char(&mut self, character: char) -> fmt::Result {
        match u8::try_from(character) {
            Ok(byte) if is_plain(byte) => {
                self.0.push(byte);
                Ok(())
            }
            _ => self.write_escaped(character.encode_utf8(&mut [0; 4])),
        }
    }
}

impl Escaped<'_> {
    /// Cold: few texts need escapes, and the others must not pay for them.
    #[cold]
    #[inline(never)]
    fn write_escaped(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        let is_escaped = |c: char| matches!(c, '"' | '\\') || is_steering(c);
        while let Some(at) = rest.find(is_escaped) {
            let (before, from) = rest.split_at(at);
            byte_ops::append(self.0, before.as_bytes());
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                self.escape(character)?;
            }
            rest = characters.as_str();
        }
        byte_ops::append(self.0, rest.as_bytes());
        Ok(())
    }

    fn escape(&mut self, character: char) -> fmt::Result {
        match character {
            '"' | '\\' => self.0.extend([b'\\', character as u8]),
            '\n' => self.0.extend(*b"\\n"),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(Raw(self.0), "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// Returns whether a byte certainly needs no escape.
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < plain.len() {
        plain[byte] = matches!(byte, 0x20..0x7f) && !matches!(byte, 0x22 | 0x5c);
        byte += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_follow_each_other() {
        let mut out = b"before ".to_vec();
        Object::start(&mut out)
            .text("a", "x")
            .plain("b", 1.5)
            .plain("c", true)
            .end_line();
        Object::start(&mut out).end_line();
        assert_eq!(out, b"before {\"a\":\"x\",\"b\":1.5,\"c\":true}\n{}\n");
    }

    #[test]
    fn lists_and_objects_are_nested() {
        let mut out = Vec::new();
        let mut list = List::start(&mut out);
        Object::start(list.item()).plain("a", 1).end();
        Object::start(list.item())
            .nested("b", |out| List::start(out).end())
            .end();
        list.text("x\"y");
        list.end();
        assert_eq!(out, b"[{\"a\":1},{\"b\":[]},\"x\\\"y\"]");
    }

    #[test]
    fn characters_that_end_a_string_are_escaped() {
        let mut out = Vec::new();
        let text = "\"quoted\", c:\\dir\n\t\0\u{7f} \u{e9}";
        Object::start(&mut out).text("a", text).end_line();
        let expected = "{\"a\":\"\\\"quoted\\\", c:\\\\dir\\n\\u0009\\u0000\\u007f \u{e9}\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn characters_are_escaped_one_by_one() {
        struct Characters;
        impl Display for Characters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                "a\"\n\u{9b}\u{e9}\u{202e}\u{1f600}"
                    .chars()
                    .try_for_each(|character| f.write_char(character))
            }
        }
        let mut out = Vec::new();
        Object::start(&mut out).text("a", Characters).end();
        let expected = "{\"a\":\"a\\\"\\n\\u009b\u{e9}\\u202e\u{1f600}\"}";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn characters_that_steer_a_terminal_are_escaped() {
        let mut out = Vec::new();
        let text = "\u{9b}1m \u{202e} \u{2028} \u{e0041} \u{1f600}";
        Object::start(&mut out).text("a", text).end_line();
        let expected = "{\"a\":\"\\u009b1m \\u202e \\u2028 \\udb40\\udc41 \u{1f600}\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
