//! The aliases of an answer: CNAME, and DNAME from which a CNAME follows (RFC 6672).

use crate::wire::canonical::is_at_or_below;
use crate::wire::name::suffixes;
use crate::wire::question::Type;

use super::set::SignedSet;
use super::{Context, Validation};
use crate::dnssec::limits;

/// The chain of aliases that starts at the name in the question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The last name, in lower case.
    pub(super) target: Box<[u8]>,
    /// The last name has records of the type in the question.
    pub(super) is_answered: bool,
    /// The sets of the answer section on the way: the aliases, the DNAME sets from which they
    /// follow, and the records of the last name. Other sets do not answer the question.
    pub(super) places: Vec<usize>,
}

impl Validation {
    /// Follows the aliases from the name in the question. Returns `None` if there are more than
    /// [`limits::ALIASES`].
    pub(super) fn path(&self) -> Option<Path> {
        let mut target = self.name.clone();
        let mut places = Vec::new();
        for _ in 0..=limits::ALIASES {
            let answers = || {
                let sets = self.sets.iter().enumerate();
                sets.filter(|(_, set)| !set.is_authority() && *set.owner == *target)
            };
            let find = |rr_type: Type| {
                let mut answers = answers();
                answers.find_map(|(place, set)| (set.rr_type() == Some(rr_type)).then_some(place))
            };
            // Any records are the answer to these types; signatures alone only to RRSIG.
            let is_answer = |set: &SignedSet| match self.rr_type {
                Type::RRSIG => true,
                Type::ANY => set.rr_type().is_some(),
                rr_type => set.rr_type() == Some(rr_type),
            };
            let found = answers().filter(|(_, set)| is_answer(set));
            let found: Vec<usize> = found.map(|(place, _)| place).collect();
            if !found.is_empty() {
                places.extend(found.iter().filter_map(|place| self.alias_source(*place)));
                places.extend(found);
                return Some(Path {
                    target,
                    is_answered: true,
                    places,
                });
            }
            let Some(alias) = find(Type::CNAME) else {
                return Some(Path {
                    target,
                    is_answered: false,
                    places,
                });
            };
            places.extend(self.alias_source(alias));
            places.push(alias);
            target = self.sets[alias].target(&self.message)?;
        }
        None
    }

    /// Returns whether the DNAME set at `source` is at or below the nearest trust anchor of the
    /// alias at `place`.
    pub(super) fn is_at_or_below_anchor_of(
        &self,
        place: usize,
        source: usize,
        cx: &Context<'_>,
    ) -> bool {
        let anchor = cx.anchors.nearest(self.sets[place].upper_name());
        anchor.is_some_and(|anchor| is_at_or_below(&self.sets[source].owner, anchor))
    }

    /// Returns the DNAME set from which this CNAME set follows, if it does.
    pub(super) fn alias_source(&self, place: usize) -> Option<usize> {
        let alias = &self.sets[place];
        if alias.rr_type() != Some(Type::CNAME) || alias.is_authority() || !alias.is_single() {
            return None;
        }
        let target = alias.target(&self.message)?;
        self.sets.iter().position(|source| {
            source.rr_type() == Some(Type::DNAME)
                && !source.is_authority()
                && source.is_single()
                && synthesized(source, &alias.owner, &self.message).as_deref() == Some(&target)
        })
    }
}

/// Returns the target of the alias that a DNAME makes of a name below its owner.
fn synthesized(source: &SignedSet, name: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let mut below = suffixes(name).skip(1);
    below.find(|suffix| *suffix == &*source.owner)?;
    let prefix = name.strip_suffix(&*source.owner)?;
    let target = source.target(message)?;
    Some([prefix, &target].concat())
}
