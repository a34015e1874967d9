//! What a validated message says of the zone in its question.

use super::denials::deny_delegation;
use super::{SecurityStatus, Subject, Validation};
use crate::dnssec::zones::{LIFETIME_MIN, ZoneStatus};
use crate::dnssec::{Ds, limits};
use crate::wire::question::Type;
use std::time::Duration;

impl Validation {
    /// Records what the message says of the zone in its question.
    pub(super) fn learn(&mut self, verdict: &SecurityStatus) {
        match (self.subject, verdict) {
            // The check of keys sets what it learns: an insecure verdict also follows from a zone
            // above, and then says nothing of this name.
            (Subject::Answer, _)
            | (_, SecurityStatus::Indeterminate(_))
            | (Subject::Keys, SecurityStatus::Secure | SecurityStatus::Insecure) => {}
            (_, SecurityStatus::Bogus(problem)) => {
                self.learned = Some((ZoneStatus::Bogus(problem.clone()), LIFETIME_MIN));
            }
            (Subject::Delegation, _) => self.learned = self.delegation(verdict),
        }
    }

    /// Returns what an answer to a question for DS says of the zone.
    fn delegation(&self, verdict: &SecurityStatus) -> Option<(ZoneStatus, Duration)> {
        let (name, _) = self.question();
        let status = match verdict {
            SecurityStatus::Bogus(_) | SecurityStatus::Indeterminate(_) => return None,
            // Otherwise the verdict follows from a zone above, whose status is known.
            SecurityStatus::Insecure => {
                let denied = deny_delegation(&self.message, &self.sets, &name);
                Some(denied).filter(|status| *status == ZoneStatus::Insecure)?
            }
            SecurityStatus::Secure => {
                let mut sets = self.sets.iter().filter(|set| !set.is_authority());
                match sets.find(|set| set.is(&name, Type::DS) || set.is(&name, Type::CNAME)) {
                    Some(set) if set.is(&name, Type::CNAME) || set.is_expanded() => {
                        ZoneStatus::NotDelegated
                    }
                    Some(set) => supported_ds(&set.data(&self.message)),
                    None => deny_delegation(&self.message, &self.sets, &name),
                }
            }
        };
        Some((status, self.lifetime()))
    }
}

/// Returns the status of a zone with these DS records: insecure if none is supported (RFC 4035,
/// section 5.2).
fn supported_ds(records: &[&[u8]]) -> ZoneStatus {
    let is_supported = |data: &&&[u8]| Ds::parse(data).is_ok_and(|ds| ds.is_supported());
    let supported = records.iter().filter(is_supported).take(limits::DS_OF_ZONE);
    let supported: Box<[Box<[u8]>]> = supported.map(|data| Box::from(*data)).collect();
    if supported.is_empty() {
        ZoneStatus::Insecure
    } else {
        ZoneStatus::Delegated(supported)
    }
}
