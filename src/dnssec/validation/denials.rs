//! The denials of a message: of its last name, and of names for which a wildcard was expanded.

use crate::wire::canonical::{is_at_or_below, label_count};
use crate::wire::name::suffixes;
use crate::wire::question::Type;

use super::set::{SetState, SignedSet};
use super::signing_status::{SigningStatus, signing_status_of};
use super::{
    Context, NSEC_MISSING, Problem, Progress, RRSIGS_MISSING, SecurityStatus, Validation,
    ValidationStep,
};
use crate::dnssec::denial::{Denials, Proof};
use crate::dnssec::work::Work;
use crate::dnssec::zones::ZoneStatus;

/// Returns the zones whose NSEC or NSEC3 records were verified.
fn proving_zones(sets: &[SignedSet]) -> impl Iterator<Item = &[u8]> {
    sets.iter().filter_map(|set| {
        let is_proof = matches!(set.rr_type(), Some(Type::NSEC | Type::NSEC3));
        match &set.state {
            SetState::Secure { zone, .. } if is_proof => Some(&**zone),
            _ => None,
        }
    })
}

/// Returns the verified denials of a zone.
fn denials_of<'a>(message: &'a [u8], sets: &'a [SignedSet], zone: &'a [u8]) -> Denials<'a> {
    let mut denials = Denials::of(zone);
    for set in sets {
        let SetState::Secure {
            zone: signer,
            expanded_from: None,
            ..
        } = &set.state
        else {
            // A denial that is expanded from a wildcard is not at its place in the zone.
            continue;
        };
        // A name has one NSEC record. Searches take quadratic time, so copies of it must not count.
        let is_proof = **signer == *zone && set.is_single();
        let Some(rr_type) = set.rr_type().filter(|_| is_proof) else {
            continue;
        };
        for data in set.data(message) {
            denials.add(rr_type, &set.owner, data);
        }
    }
    denials
}

/// Returns a proof, unless the hashes that it took cost more than the work that is left.
fn within(cx: &Context<'_>, denials: &Denials<'_>, proof: Proof) -> Proof {
    if cx.work.add_cost(denials.cost()) {
        proof
    } else {
        Proof::TooCostly
    }
}

/// Returns the nearest zone at or above a name that proves something. DS is of the zone above.
pub(super) fn nearest_zone<'a>(
    sets: &'a [SignedSet],
    name: &[u8],
    is_ds: bool,
) -> Option<&'a [u8]> {
    let upper = suffixes(name).nth(usize::from(is_ds)).unwrap_or(&[0]);
    let above = proving_zones(sets).filter(|zone| is_at_or_below(upper, zone));
    above.max_by_key(|zone| label_count(zone))
}

impl Validation {
    /// Checks the denials that zones above `name` sign, until they deny its DS records. One that
    /// proves nothing does not make the answer insecure.
    pub(super) fn check_proofs_from_above(
        &mut self,
        name: &[u8],
        cx: &mut Context<'_>,
    ) -> Progress<()> {
        for place in 0..self.sets.len() {
            if !self.sets[place].is_proof_from_above(&self.message, name, cx.anchors) {
                continue;
            }
            if self.sets[place].is_unchecked()
                && self.denial(name, Type::DS, cx) == Proof::Secure
                && !self.sets.iter().any(SignedSet::is_expanded)
            {
                break;
            }
            self.check(place, cx)?;
        }
        Ok(())
    }

    /// Checks that each name for which a wildcard was expanded does not exist (RFC 4035, section
    /// 5.3.4). Returns whether a proof is insecure.
    pub(super) fn check_expansions(&self, cx: &Context<'_>) -> Progress<bool> {
        let mut is_insecure = false;
        for set in &self.sets {
            let SetState::Secure {
                zone,
                expanded_from: Some(labels),
                ..
            } = &set.state
            else {
                continue;
            };
            if set.is_authority() {
                continue;
            }
            let mut denials = denials_of(&self.message, &self.sets, zone);
            let proof = denials.denies_expanded(&set.owner, *labels);
            match within(cx, &denials, proof) {
                Proof::Secure => {}
                Proof::Insecure => is_insecure = true,
                Proof::TooCostly => return Err(ValidationStep::Done(self.limit_reached())),
                Proof::Missing => {
                    return Err(ValidationStep::Done(SecurityStatus::Bogus(Problem {
                        code: NSEC_MISSING,
                        name: set.owner.clone(),
                        rr_type: set.rr_type().unwrap_or(Type::ANY),
                    })));
                }
            }
        }
        Ok(is_insecure)
    }

    /// Returns what an answer without DS says of a name: no zone starts there, or one that is not
    /// signed.
    pub(super) fn deny_delegation(&self, name: &[u8], work: &Work) -> ZoneStatus {
        let Some(zone) = nearest_zone(&self.sets, name, true) else {
            return ZoneStatus::NotDelegated;
        };
        let mut denials = denials_of(&self.message, &self.sets, zone);
        let proof = denials.denies_signed_delegation(name);
        // The verdict is known: only later answers lack what this takes.
        work.add_cost(denials.cost());
        match proof {
            Proof::Secure | Proof::Insecure => ZoneStatus::Insecure,
            Proof::Missing | Proof::TooCostly => ZoneStatus::NotDelegated,
        }
    }

    /// Returns whether the verified records deny a name, or a type if the response code says so.
    pub(super) fn denial(&self, name: &[u8], rr_type: Type, cx: &Context<'_>) -> Proof {
        let is_ds = rr_type == Type::DS;
        let upper = suffixes(name).nth(usize::from(is_ds)).unwrap_or(&[0]);
        let anchor = cx.anchors.nearest(upper);
        let is_trusted = |zone: &&[u8]| anchor.is_some_and(|anchor| is_at_or_below(zone, anchor));
        let Some(zone) = nearest_zone(&self.sets, name, is_ds).filter(is_trusted) else {
            return Proof::Missing;
        };
        let mut denials = denials_of(&self.message, &self.sets, zone);
        let proof = if !self.is_nxdomain {
            denials.denies_type(name, rr_type)
        } else if denials.has_compact_denial(name) {
            Proof::Secure
        } else {
            denials.denies_name(name)
        };
        within(cx, &denials, proof)
    }

    /// Checks that the last name of the aliases does not exist, or has no records of the type.
    /// Returns whether that is insecure.
    pub(super) fn check_denial(
        &self,
        name: &[u8],
        rr_type: Type,
        cx: &mut Context<'_>,
    ) -> Progress<bool> {
        let is_ds = rr_type == Type::DS;
        match self.denial(name, rr_type, cx) {
            Proof::Secure => Ok(false),
            Proof::Insecure => Ok(true),
            Proof::TooCostly => Err(ValidationStep::Done(self.limit_reached())),
            Proof::Missing => match signing_status_of(name, is_ds, cx)? {
                SigningStatus::Insecure => Ok(true),
                SigningStatus::Bogus(problem) => {
                    Err(ValidationStep::Done(SecurityStatus::Bogus(problem)))
                }
                SigningStatus::Signed => {
                    let is_signed = self.sets.iter().any(SignedSet::has_signatures);
                    Err(ValidationStep::Done(SecurityStatus::Bogus(Problem {
                        code: if is_signed {
                            NSEC_MISSING
                        } else {
                            RRSIGS_MISSING
                        },
                        name: name.into(),
                        rr_type,
                    })))
                }
            },
        }
    }
}
