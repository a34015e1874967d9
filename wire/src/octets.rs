//! Few octets, as names and messages are, copied and compared where they stand.
//!
//! What the compiler makes of copies and comparisons of any length are calls into the C library,
//! and those of musl have long octets in mind: a copy is 20 ns before it begins, a comparison goes
//! octet by octet. Here they go by sixteen octets at a time, the last of which may have been gone
//! over already.

/// Octets that cost no less by a call.
const FEW_MAX: usize = 100;

/// Appends octets.
pub fn append(out: &mut Vec<u8>, octets: &[u8]) {
    if octets.len() > FEW_MAX {
        return out.extend_from_slice(octets);
    }
    out.reserve(octets.len());
    // Nothing is left to do for none.
    let _ = append_by::<16>(out, octets)
        || append_by::<8>(out, octets)
        || append_by::<4>(out, octets)
        || append_by::<1>(out, octets);
}

/// Appends octets by so many at a time, unless they are fewer.
fn append_by<const N: usize>(out: &mut Vec<u8>, octets: &[u8]) -> bool {
    let Some(last) = octets.last_chunk::<N>() else {
        return false;
    };
    let end = out.len() + octets.len();
    for some in octets.as_chunks::<N>().0 {
        out.extend(*some);
    }
    if out.len() < end {
        out.truncate(end - N);
        out.extend(*last);
    }
    true
}

/// Whether these are the same octets.
pub fn are_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && are_same_by::<16>(one, other)
            .or_else(|| are_same_by::<8>(one, other))
            .or_else(|| are_same_by::<4>(one, other))
            .or_else(|| are_same_by::<1>(one, other))
            .unwrap_or(true)
}

/// Whether octets, of which there are as many here as there, are the same by so many at a time,
/// unless they are fewer.
fn are_same_by<const N: usize>(one: &[u8], other: &[u8]) -> Option<bool> {
    let is_last_same = one.last_chunk::<N>()? == other.last_chunk::<N>()?;
    let (one, other) = (one.as_chunks::<N>().0, other.as_chunks::<N>().0);
    Some(is_last_same && one.iter().zip(other).all(|(one, other)| one == other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(len: usize) -> Vec<u8> {
        (0..len).map(|at| at.to_le_bytes()[0]).collect()
    }

    #[test]
    fn octets_are_appended_whatever_their_number() {
        for len in 0..600 {
            let mut out = b"before".to_vec();
            append(&mut out, &octets(len));
            assert_eq!(out, [b"before", &*octets(len)].concat());
        }
    }

    #[test]
    fn octets_are_the_same_if_each_of_them_is() {
        for len in 0..80 {
            let mut other = octets(len);
            assert!(are_same(&octets(len), &other));
            for at in 0..len {
                other[at] ^= 0x80;
                assert!(!are_same(&octets(len), &other));
                other[at] ^= 0x80;
            }
            other.push(0);
            assert!(!are_same(&octets(len), &other));
        }
    }
}
