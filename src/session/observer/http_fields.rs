//! Header fields of HTTP/1.1 messages, above all those that determine the end of a message (RFC
//! 9112, section 6). Ambiguous values are refused.

use httparse::Header;

/// An error: the length of the message is not clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct UnclearLength;

/// Returns the number of fields with this name.
pub(in crate::session) fn count(fields: &[Header<'_>], name: &str) -> usize {
    let fields = fields.iter();
    fields
        .filter(|field| field.name.eq_ignore_ascii_case(name))
        .count()
}

/// Returns the text of the first field with this name.
pub(in crate::session) fn text<'a>(fields: &[Header<'a>], name: &str) -> Option<&'a str> {
    let mut fields = fields.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
    str::from_utf8(field.value).ok()
}

/// Returns whether a list has this item, without its parameters (RFC 9110, section 5.6.1).
pub(in crate::session) fn has_item(list: &str, item: &str) -> bool {
    let mut items = list.split(',').map(|item| item.split(';').next());
    items.any(|own| own.is_some_and(|own| own.trim().eq_ignore_ascii_case(item)))
}

/// Returns whether an Accept-Encoding field allows gzip (RFC 9110, section 12.5.3).
pub(in crate::session) fn allows_gzip(codings: &str) -> bool {
    codings.split(',').any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, "q=1"));
        let is_gzip = ["gzip", "x-gzip", "*"]
            .iter()
            .any(|name| coding.trim().eq_ignore_ascii_case(name));
        // Weights of zero are `0`, `0.0`, `0.00` and `0.000`.
        is_gzip && weight.contains(|digit| matches!(digit, '1'..='9'))
    })
}

/// Returns the length in the Content-Length fields, if there are any: all must agree (RFC 9110,
/// section 8.6).
pub(in crate::session) fn content_length(
    fields: &[Header<'_>],
) -> Result<Option<u64>, UnclearLength> {
    let is_length = |field: &&Header<'_>| field.name.eq_ignore_ascii_case("content-length");
    let mut length = None;
    for field in fields.iter().filter(is_length) {
        for item in field.value.split(|byte| *byte == b',') {
            let number = number(item).ok_or(UnclearLength)?;
            if length.replace(number).is_some_and(|other| other != number) {
                return Err(UnclearLength);
            }
        }
    }
    Ok(length)
}

/// Parses a decimal number with optional blanks around it. Larger numbers saturate.
pub(in crate::session) fn number(text: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_blank(byte))?;
    let end = text.iter().rposition(|byte| !is_blank(byte))?;
    text[start..=end].iter().try_fold(0, |number: u64, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        Some(number.saturating_mul(10).saturating_add(digit.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(values: &[&str]) -> Result<Option<u64>, UnclearLength> {
        let field = |value: &&'static str| Header {
            name: "content-LENGTH",
            value: value.as_bytes(),
        };
        let values: Vec<&'static str> = values.iter().map(|it| &*it.to_string().leak()).collect();
        let fields: Vec<_> = values.iter().map(field).collect();
        content_length(&fields)
    }

    #[test]
    fn gzip_is_allowed_unless_its_weight_is_zero() {
        for codings in [
            "gzip",
            "br, GZIP;q=0.5",
            "x-gzip",
            "*",
            "deflate , gzip ; q=1",
        ] {
            assert!(allows_gzip(codings), "{codings}");
        }
        for codings in [
            "",
            "br",
            "gzip;q=0",
            "gzip; q=0.000, br",
            "gzipped",
            "identity",
        ] {
            assert!(!allows_gzip(codings), "{codings}");
        }
    }

    #[test]
    fn length_is_a_number_of_digits_that_all_fields_agree_on() {
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&["0"]), Ok(Some(0)));
        assert_eq!(length(&[" 12\t"]), Ok(Some(12)));
        assert_eq!(length(&["012", "12"]), Ok(Some(12)));
        assert_eq!(length(&["3, 3", "3"]), Ok(Some(3)));
        assert_eq!(length(&["99999999999999999999999"]), Ok(Some(u64::MAX)));
        for values in [
            &["3", "4"][..],
            &["3, 4"],
            &["3,"],
            &["3", ""],
            &[""],
            &["+3"],
            &["-3"],
            &["3 4"],
            &["0x3"],
            &["3.0"],
            &["٣"],
        ] {
            assert_eq!(length(values), Err(UnclearLength), "{values:?}");
        }
    }
}
