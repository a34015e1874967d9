//! Text that stays on one line: characters that end a line, control a terminal or change the
//! direction of text are escaped.
//!
//! Logs quote external text: names in certificates, server names, errors of peers, file names,
//! values of options. Escaping keeps each log line one line (CWE-117).

use std::fmt::{self, Display, Write};

/// A text that is displayed with its control characters escaped as in Rust (`\n`, `\u{1b}`).
#[derive(Clone, Copy, Debug)]
pub struct OneLine<T>(pub T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_steering) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Returns whether a character ends a line, controls a terminal (C0, DEL and C1), or is invisible
/// and changes the display of its neighbours (bidirectional controls, joiners, tags).
pub fn is_steering(character: char) -> bool {
    let is_invisible = matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    is_invisible || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn line_ends_and_terminal_controls_are_escaped() {
        let shown = |text: &str| OneLine(text).to_string();
        assert_eq!(shown("a\nb\r\tc"), "a\\nb\\r\\tc");
        assert_eq!(
            shown("\u{1b}[2J\u{7f}\u{9b}1m"),
            "\\u{1b}[2J\\u{7f}\\u{9b}1m"
        );
        assert_eq!(
            shown("\u{202e}txt\u{2066}\u{200f}"),
            "\\u{202e}txt\\u{2066}\\u{200f}"
        );
        assert_eq!(
            shown("\u{2028}\u{2029}\u{85}\u{0}"),
            "\\u{2028}\\u{2029}\\u{85}\\u{0}"
        );
        assert_eq!(
            shown("\u{e0041}\u{feff}\u{200b}"),
            "\\u{e0041}\\u{feff}\\u{200b}"
        );
    }

    #[test]
    fn readable_text_stays_as_it_is() {
        let text = "CN=Z\u{fc}rich \u{65e5}\u{672c}, \"quoted\" \\000 \u{1f600}";
        assert_eq!(OneLine(text).to_string(), text);
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_without_steering_characters(text: String) {
            let shown = OneLine(&text).to_string();
            prop_assert!(!shown.contains(is_steering) && !shown.contains(char::is_control));
        }
    }
}
