//! What a validated message says of the zone in its question.

use super::{Context, DNSKEY_MISSING, Problem, SecurityStatus, Subject, Validation};
use crate::dnssec::work::Work;
use crate::dnssec::zones::{LIFETIME_MIN, ZoneStatus};
use crate::dnssec::{Ds, limits};
use crate::wire::name::suffixes;
use crate::wire::question::Type;
use std::time::Duration;

impl Validation {
    /// Records what the message says of the zone in its question.
    pub(super) fn learn(&mut self, verdict: &SecurityStatus, cx: &mut Context<'_>) {
        match (self.subject, verdict) {
            // The check of keys sets what it learns: an insecure verdict also follows from a zone
            // above, and then says nothing of this name.
            (Subject::Answer, _)
            | (_, SecurityStatus::Indeterminate(_))
            | (Subject::Keys, SecurityStatus::Secure | SecurityStatus::Insecure) => {}
            (_, SecurityStatus::Bogus(problem)) => {
                let status = ZoneStatus::Bogus(problem.clone());
                // What follows from a known zone does not outlive the entry of that zone.
                let is_known = suffixes(&self.name).any(|zone| cx.zone(zone) == Some(&status));
                self.learned = (!is_known).then_some((status, LIFETIME_MIN));
            }
            (Subject::Delegation, _) => self.learned = self.delegation(verdict, cx.work),
        }
    }

    /// Returns what an answer to a question for DS says of the zone.
    fn delegation(&self, verdict: &SecurityStatus, work: &Work) -> Option<(ZoneStatus, Duration)> {
        let name = &*self.name;
        let status = match verdict {
            SecurityStatus::Bogus(_) | SecurityStatus::Indeterminate(_) => return None,
            // Otherwise the verdict follows from a zone above, whose status is known.
            SecurityStatus::Insecure => {
                let denied = self.deny_delegation(name, work);
                Some(denied).filter(|status| *status == ZoneStatus::Insecure)?
            }
            SecurityStatus::Secure => {
                let mut sets = self.sets.iter().filter(|set| !set.is_authority());
                match sets.find(|set| set.is(name, Type::DS) || set.is(name, Type::CNAME)) {
                    Some(set) if set.is(name, Type::CNAME) || set.is_expanded() => {
                        ZoneStatus::NotDelegated
                    }
                    Some(set) => supported_ds(name, &set.data(&self.message)),
                    None => self.deny_delegation(name, work),
                }
            }
        };
        let lifetime = match status {
            ZoneStatus::Bogus(_) => LIFETIME_MIN,
            _ => self.lifetime(),
        };
        Some((status, lifetime))
    }
}

/// Returns the status of a zone with these DS records: insecure if none is supported (RFC 4035,
/// section 5.2), and bogus if those that are supported can name no key.
fn supported_ds(zone: &[u8], records: &[&[u8]]) -> ZoneStatus {
    let parsed = records
        .iter()
        .filter_map(|data| Some((data, Ds::parse(data).ok()?)));
    let mut supported = parsed.filter(|(_, ds)| ds.is_supported()).peekable();
    if supported.peek().is_none() {
        return ZoneStatus::Insecure;
    }
    let whole = supported.filter(|(_, ds)| ds.has_whole_digest());
    let whole = whole.take(limits::DS_OF_ZONE);
    let whole: Box<[Box<[u8]>]> = whole.map(|(data, _)| Box::from(*data)).collect();
    if whole.is_empty() {
        return ZoneStatus::Bogus(Problem {
            code: DNSKEY_MISSING,
            name: zone.into(),
            rr_type: Type::DNSKEY,
        });
    }
    ZoneStatus::Delegated(whole)
}
