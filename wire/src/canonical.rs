//! The canonical form of names and records (RFC 4034, section 6), over which DNSSEC signs.

use std::cmp::Ordering;

use super::data;
use super::name::{self, suffixes};
use super::record::Record;
use super::{Malformed, read_u16};

/// Appends the name at `start` in canonical form: without compression and in lower case.
pub fn write_name(out: &mut Vec<u8>, message: &[u8], start: usize) -> Result<(), Malformed> {
    let from = out.len();
    name::write_uncompressed(out, message, start)?;
    name::make_lowercase(&mut out[from..]);
    Ok(())
}

/// Appends the data of a record in canonical form: names are written without compression, and those
/// in the data of the types of RFC 4034, section 6.2, in lower case. The names in the data of NSEC
/// keep their case (RFC 6840, section 5.1).
pub fn write_data(out: &mut Vec<u8>, message: &[u8], record: &Record) -> Result<(), Malformed> {
    let class = read_u16(message, record.fixed + 2)?;
    data::write_canonical(out, message, record, class)
}

/// Compares two uncompressed names in canonical order: by their labels from the last to the first,
/// without regard to case (RFC 4034, section 6.1).
pub fn compare_names(one: &[u8], other: &[u8]) -> Ordering {
    let (one, other) = (Starts::of(one), Starts::of(other));
    let pairs = one.labels().zip(other.labels());
    let mut orders = pairs.map(|(one, other)| {
        let [one, other] = [one, other].map(|label| label.iter().map(u8::to_ascii_lowercase));
        one.cmp(other)
    });
    orders
        .find(|order| order.is_ne())
        .unwrap_or_else(|| one.count.cmp(&other.count))
}

/// Returns the number of labels of an uncompressed name, without the root.
pub fn label_count(name: &[u8]) -> usize {
    suffixes(name).count().saturating_sub(1)
}

/// Returns whether an uncompressed name is `ancestor`, which is uncompressed too, or below it.
pub fn is_at_or_below(name: &[u8], ancestor: &[u8]) -> bool {
    suffixes(name).any(|suffix| suffix.eq_ignore_ascii_case(ancestor))
}

/// The positions of the labels of a name.
struct Starts<'a> {
    name: &'a [u8],
    /// A name has at most 127 labels.
    positions: [u8; 128],
    count: usize,
}

impl<'a> Starts<'a> {
    fn of(name: &'a [u8]) -> Self {
        let mut starts = Self {
            name,
            positions: [0; 128],
            count: 0,
        };
        for suffix in suffixes(name).filter(|suffix| suffix.len() > 1) {
            let at = u8::try_from(name.len() - suffix.len()).unwrap_or(u8::MAX);
            if let Some(position) = starts.positions.get_mut(starts.count) {
                *position = at;
                starts.count += 1;
            }
        }
        starts
    }

    /// Returns the labels from the last to the first.
    fn labels(&self) -> impl Iterator<Item = &'a [u8]> {
        let positions = self.positions[..self.count].iter().rev();
        positions.map(|at| {
            let label = &self.name[usize::from(*at)..];
            label.get(1..1 + usize::from(label[0])).unwrap_or(&[])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.replace('!', "\u{1}").bytes());
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn names_are_in_the_order_of_rfc_4034() {
        // RFC 4034, section 6.1.
        let names = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "Z.a.example",
            "zABC.a.EXAMPLE",
            "z.example",
            "!.z.example",
            "*.z.example",
        ];
        for (place, one) in names.iter().enumerate() {
            for (other_place, other) in names.iter().enumerate() {
                let order = compare_names(&wire(one), &wire(other));
                assert_eq!(order, place.cmp(&other_place), "{one} and {other}");
            }
        }
        assert_eq!(compare_names(&[0], &wire("example")), Ordering::Less);
        assert_eq!(compare_names(&[0], &[0]), Ordering::Equal);
    }

    #[test]
    fn labels_are_counted_without_the_root() {
        assert_eq!(label_count(&[0]), 0);
        assert_eq!(label_count(&wire("www.example")), 2);
    }

    #[test]
    fn name_is_below_its_ancestors_only() {
        for (name, ancestor, expected) in [
            ("www.example", "example", true),
            ("www.example", "EXAMPLE", true),
            ("www.example", "", true),
            ("www.example", "www.example", true),
            ("example", "www.example", false),
            ("notexample", "example", false),
        ] {
            let is_below = is_at_or_below(&wire(name), &wire(ancestor));
            assert_eq!(is_below, expected, "{name}, {ancestor}");
        }
    }

    proptest! {
        #[test]
        fn comparison_of_any_bytes_is_an_order(
            one in proptest::collection::vec(any::<u8>(), 0..300),
            other in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            prop_assert_eq!(compare_names(&one, &other), compare_names(&other, &one).reverse());
        }
    }
}
