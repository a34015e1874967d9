//! Copies and comparisons of short byte strings, such as names and messages.
//!
//! The compiler turns copies and comparisons of variable length into calls into the C library. The
//! versions of musl are made for long strings: a copy takes 20 ns before it begins, and a
//! comparison goes byte by byte. The functions here handle 16 bytes at a time; the last block may
//! overlap the previous one.

/// Maximum length for which these functions are faster than a call.
const FEW_MAX: usize = 100;

/// Appends bytes.
pub fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() > FEW_MAX {
        return out.extend_from_slice(bytes);
    }
    out.reserve(bytes.len());
    // For an empty slice all of these return false.
    let _ = append_by::<16>(out, bytes)
        || append_by::<8>(out, bytes)
        || append_by::<4>(out, bytes)
        || append_by::<1>(out, bytes);
}

/// Appends bytes in blocks of `N`. Returns whether there are at least `N` bytes.
fn append_by<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<N>() else {
        return false;
    };
    let end = out.len() + bytes.len();
    for some in bytes.as_chunks::<N>().0 {
        out.extend_from_slice(some);
    }
    if out.len() < end {
        out.truncate(end - N);
        out.extend_from_slice(last);
    }
    true
}

/// Returns whether two byte strings are equal.
pub fn are_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && are_same_by::<16>(one, other)
            .or_else(|| are_same_by::<8>(one, other))
            .or_else(|| are_same_by::<4>(one, other))
            .or_else(|| are_same_by::<1>(one, other))
            .unwrap_or(true)
}

/// Compares two byte strings of the same length in blocks of `N`. Returns `None` if they are
/// shorter than `N`.
fn are_same_by<const N: usize>(one: &[u8], other: &[u8]) -> Option<bool> {
    let is_last_same = one.last_chunk::<N>()? == other.last_chunk::<N>()?;
    let (one, other) = (one.as_chunks::<N>().0, other.as_chunks::<N>().0);
    Some(is_last_same && one.iter().zip(other).all(|(one, other)| one == other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| at.to_le_bytes()[0]).collect()
    }

    #[test]
    fn bytes_of_any_length_are_appended() {
        for len in 0..600 {
            let mut out = b"before".to_vec();
            append(&mut out, &bytes(len));
            assert_eq!(out, [b"before", &*bytes(len)].concat());
        }
    }

    #[test]
    fn byte_strings_are_equal_if_each_byte_is() {
        for len in 0..80 {
            let mut other = bytes(len);
            assert!(are_same(&bytes(len), &other));
            for at in 0..len {
                other[at] ^= 0x80;
                assert!(!are_same(&bytes(len), &other));
                other[at] ^= 0x80;
            }
            other.push(0);
            assert!(!are_same(&bytes(len), &other));
        }
    }
}
