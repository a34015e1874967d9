//! Pins of public keys: SHA-256 of the DER of `SubjectPublicKeyInfo`, in base64 (RFC 7858, section
//! 4.2; RFC 7469, section 2.4).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;

/// Length of a digest in bytes.
pub const PIN_LEN: usize = 32;

/// The digest of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; PIN_LEN]);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Base64Display::new(&self.0, &STANDARD).fmt(f)
    }
}

impl FromStr for Pin {
    /// Description of the expected value.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The decoder needs room for a length that it only estimates.
        let mut bytes = [0; PIN_LEN + 1];
        let len = STANDARD.decode_slice(text, &mut bytes).ok();
        match (len, bytes) {
            (Some(PIN_LEN), [pin @ .., _]) => Ok(Self(pin)),
            _ => Err(
                "a SHA-256 digest in base64 after pin-sha256=, 44 characters as printed by \
                 scripts/pin.sh",
            ),
        }
    }
}

/// The pinned keys of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// The pins, any of which may match. Without pins, every key is accepted.
    pub pins: Vec<Pin>,
    /// The meaning of the pins.
    pub rule: PinRule,
}

/// The meaning of pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinRule {
    /// A certificate is valid if its chain and name are valid and a key of the chain is pinned.
    #[default]
    Besides,
    /// A certificate is valid if its key is pinned, regardless of its chain and name.
    Instead,
    /// A certificate is valid if its chain and name are valid; keys that are not pinned are logged.
    Report,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_is_parsed_and_written() {
        let text = "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlxk=";
        let pin: Pin = text.parse().unwrap();
        assert_eq!(pin.0[..3], [0xe2, 0xf5, 0xf2]);
        assert_eq!(pin.to_string(), text);
    }

    #[test]
    fn text_that_is_no_digest_is_refused() {
        for text in [
            "",
            "====",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlxk",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlxk==",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlxkA",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlxl=",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlw==",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlxkAAAA=",
            "4vXyBr4ekUPlPmNR9ehPwBsG3o5QFuYXoSQrvRvHlx-_",
        ] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
    }
}
