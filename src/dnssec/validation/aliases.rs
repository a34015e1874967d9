//! The aliases of an answer: CNAME, and DNAME from which a CNAME follows (RFC 6672).

use crate::wire::name::suffixes;
use crate::wire::question::Type;

use super::Validation;
use super::set::SignedSet;
use crate::dnssec::limits;

/// The chain of aliases that starts at the name in the question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The last name, in lower case.
    pub(super) target: Box<[u8]>,
    /// The last name has records of the type in the question.
    pub(super) is_answered: bool,
}

impl Path {
    /// Follows the aliases from `name`, which is in lower case. Returns `None` if there are more
    /// than [`limits::ALIASES`].
    pub(super) fn follow(
        message: &[u8],
        sets: &[SignedSet],
        name: &[u8],
        rr_type: Type,
    ) -> Option<Self> {
        let mut target: Box<[u8]> = name.into();
        for _ in 0..=limits::ALIASES {
            let find = |rr_type| {
                let mut answers = sets.iter().filter(|set| !set.is_authority());
                answers.find(|set| set.is(&target, rr_type))
            };
            // Any records are the answer to these types, signatures alone included.
            let is_any = matches!(rr_type, Type::ANY | Type::RRSIG);
            let has_any = || {
                let mut answers = sets.iter().filter(|set| !set.is_authority());
                is_any && answers.any(|set| *set.owner == *target)
            };
            if find(rr_type).is_some() || has_any() {
                return Some(Self {
                    target,
                    is_answered: true,
                });
            }
            match find(Type::CNAME).and_then(|alias| alias.target(message)) {
                Some(next) => target = next,
                None => {
                    return Some(Self {
                        target,
                        is_answered: false,
                    });
                }
            }
        }
        None
    }
}

impl Validation {
    /// Returns the DNAME set from which this CNAME set follows, if it does.
    pub(super) fn alias_source(&self, place: usize) -> Option<usize> {
        let alias = &self.sets[place];
        if alias.rr_type() != Some(Type::CNAME) || alias.is_authority() {
            return None;
        }
        let target = alias.target(&self.message)?;
        self.sets.iter().position(|source| {
            source.rr_type() == Some(Type::DNAME)
                && !source.is_authority()
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
