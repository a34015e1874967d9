//! The signing status of a name: whether its records must be signed, and by which keys.

use crate::wire::name::suffixes;
use crate::wire::question::Type;

use super::{Context, Need, Problem, Progress, ValidationStep};
use crate::dnssec::limits;
use crate::dnssec::zones::ZoneStatus;

/// The duty to sign the records of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SigningStatus {
    /// The name is in a signed zone.
    Signed,
    /// The name is below a delegation to a zone that is not signed.
    Insecure,
    /// The keys of a zone on the way cannot be verified.
    Bogus(Problem),
}

/// The trust in a zone that signs.
#[derive(Debug)]
pub(super) enum ZoneTrust<'a> {
    /// The data of the DNSKEY records.
    Secure(&'a [Box<[u8]>]),
    /// The zone is, or is below, an insecure one.
    Insecure,
    /// No zone starts at that name.
    NotDelegated,
    /// The keys of the zone, or of one above it, cannot be verified.
    Bogus(&'a Problem),
}

impl Context<'_> {
    /// Returns what is known of a name in lower case.
    pub(super) fn zone(&mut self, name: &[u8]) -> Option<&ZoneStatus> {
        self.zones.get(name, self.pool, self.now)
    }
}

/// Returns the keys of a zone, whose name is in lower case.
pub(super) fn keys_of<'a>(zone: &[u8], cx: &'a mut Context<'_>) -> Progress<ZoneTrust<'a>> {
    if !cx.anchors.covers(zone) {
        return Ok(ZoneTrust::Insecure);
    }
    let is_anchor = cx.anchors.of_zone(zone).is_some();
    let known = cx.zone(zone).is_some();
    if !known {
        if is_anchor {
            return Err(needs(&[(zone, Type::DNSKEY)]));
        }
        if let Some(ancestor) = decided_above(zone, cx) {
            return Ok(match cx.zone(ancestor) {
                Some(ZoneStatus::Bogus(problem)) => ZoneTrust::Bogus(problem),
                _ => ZoneTrust::Insecure,
            });
        }
        return Err(needs(&[(zone, Type::DS), (zone, Type::DNSKEY)]));
    }
    match cx.zone(zone) {
        Some(ZoneStatus::Secure(keys)) => Ok(ZoneTrust::Secure(keys)),
        Some(ZoneStatus::Insecure) => Ok(ZoneTrust::Insecure),
        Some(ZoneStatus::NotDelegated) if !is_anchor => Ok(ZoneTrust::NotDelegated),
        Some(ZoneStatus::Bogus(problem)) => Ok(ZoneTrust::Bogus(problem)),
        Some(ZoneStatus::Delegated(_) | ZoneStatus::NotDelegated) | None => {
            Err(needs(&[(zone, Type::DNSKEY)]))
        }
    }
}

/// Returns the ancestor of a zone that is known to be insecure or bogus, if no trust anchor or
/// signed zone is between.
fn decided_above<'n>(zone: &'n [u8], cx: &mut Context<'_>) -> Option<&'n [u8]> {
    for ancestor in suffixes(zone).skip(1) {
        match cx.zone(ancestor) {
            Some(ZoneStatus::Insecure | ZoneStatus::Bogus(_)) => return Some(ancestor),
            Some(ZoneStatus::Secure(_) | ZoneStatus::Delegated(_)) => return None,
            Some(ZoneStatus::NotDelegated) | None => {}
        }
        if cx.anchors.of_zone(ancestor).is_some() {
            return None;
        }
    }
    None
}

/// Returns whether the records of a name, which is in lower case, have to be signed: whether each
/// delegation on the way is signed. The DS records of a name are in the zone above it.
pub(super) fn signing_status_of(
    name: &[u8],
    is_ds: bool,
    cx: &mut Context<'_>,
) -> Progress<SigningStatus> {
    let upper = suffixes(name).nth(usize::from(is_ds)).unwrap_or(&[0]);
    if !cx.anchors.covers(upper) {
        return Ok(SigningStatus::Insecure);
    }
    let mut unknown = Vec::new();
    for suffix in suffixes(upper) {
        let is_anchor = cx.anchors.of_zone(suffix).is_some();
        match cx.zone(suffix) {
            Some(ZoneStatus::Insecure) => return Ok(SigningStatus::Insecure),
            Some(ZoneStatus::Bogus(problem)) => return Ok(SigningStatus::Bogus(problem.clone())),
            Some(ZoneStatus::Secure(_)) => break,
            // The keys verify the answers to the questions below.
            Some(ZoneStatus::Delegated(_)) => {
                unknown.push((suffix, Type::DNSKEY));
                break;
            }
            _ if is_anchor => {
                unknown.push((suffix, Type::DNSKEY));
                break;
            }
            Some(ZoneStatus::NotDelegated) => {}
            None => unknown.push((suffix, Type::DS)),
        }
    }
    if unknown.is_empty() {
        return Ok(SigningStatus::Signed);
    }
    // Those next to the trust anchor come first: if one is insecure, the others do not matter.
    unknown.reverse();
    unknown.truncate(limits::QUESTIONS_AT_ONCE);
    Err(needs(&unknown))
}

pub(super) fn needs(questions: &[(&[u8], Type)]) -> ValidationStep {
    let need = |(name, rr_type): &(&[u8], Type)| Need {
        name: Box::from(*name),
        rr_type: *rr_type,
    };
    ValidationStep::Need(questions.iter().map(need).collect())
}
