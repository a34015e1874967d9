//! The span of names that an NSEC record denies.

use crate::dnssec::type_bitmap::TypeBitmap;

/// An NSEC record, with sort keys in place of names.
pub(super) struct NsecSpan<'a> {
    pub(super) owner: &'a [u8],
    pub(super) next: &'a [u8],
    /// The record is the last one of its zone: its next name is the apex.
    pub(super) is_last: bool,
    pub(super) types: TypeBitmap<'a>,
}

impl NsecSpan<'_> {
    /// Returns whether no record of the zone has this name, which is behind the owner.
    pub(super) fn covers(&self, name: &[u8]) -> bool {
        let hides = self.types.hides_names_below() && name.starts_with(self.owner);
        (name < self.next || self.is_last) && name != self.owner && !hides
    }

    /// Returns whether a covered name exists without records, since the next name is below it.
    pub(super) fn is_empty_non_terminal(&self, name: &[u8]) -> bool {
        self.next.starts_with(name)
    }

    /// Returns the sort key of the longest ancestor of a covered name that exists.
    pub(super) fn closest_encloser<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        let shared = |other: &[u8]| {
            let pairs = name.iter().zip(other);
            let len = pairs.take_while(|(one, other)| one == other).count();
            let end = name[..len].iter().rposition(|byte| *byte == 0);
            end.map_or(0, |end| end + 1)
        };
        &name[..shared(self.owner).max(shared(self.next))]
    }
}
