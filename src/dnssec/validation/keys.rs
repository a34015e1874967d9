//! The check of the keys of a zone: a key that a DS record or a trust anchor names has to sign all
//! of them (RFC 4035, section 5.2).

use std::time::Duration;

use crate::wire::edns::ExtendedErrorCode;
use crate::wire::question::Type;

use super::signing_status::needs;
use super::{
    BOGUS, Context, DNSKEY_MISSING, INDETERMINATE, Problem, Progress, RRSIGS_MISSING,
    SecurityStatus, Validation,
};
use crate::dnssec::limits;
use crate::dnssec::work::Work;
use crate::dnssec::zones::{LIFETIME_MAX, LIFETIME_MIN, ZoneStatus};
use crate::dnssec::{Dnskey, Ds};

impl Validation {
    /// Judges the message as the keys of the zone in its question.
    pub(super) fn judge_keys(&mut self, cx: &mut Context<'_>) -> Progress<SecurityStatus> {
        let zone = self.name.clone();
        if !cx.anchors.covers(&zone) {
            return Ok(SecurityStatus::Insecure);
        }
        let ds: Vec<Box<[u8]>> = match (cx.anchors.of_zone(&zone), cx.zone(&zone)) {
            (Some(ds), _) => ds.to_vec(),
            (None, Some(ZoneStatus::Delegated(ds))) => ds.to_vec(),
            (None, Some(ZoneStatus::Bogus(problem))) => {
                return Ok(SecurityStatus::Bogus(problem.clone()));
            }
            (None, Some(ZoneStatus::Secure(_))) => return Ok(SecurityStatus::Secure),
            (None, Some(ZoneStatus::Insecure | ZoneStatus::NotDelegated)) => {
                return Ok(SecurityStatus::Insecure);
            }
            (None, None) => return Err(needs(&[(&zone, Type::DS)])),
        };
        self.find_trusted_key(&zone, &ds, cx)
    }

    /// Searches for a key that the DS records name and that signs all keys.
    fn find_trusted_key(
        &mut self,
        zone: &[u8],
        ds: &[Box<[u8]>],
        cx: &Context<'_>,
    ) -> Progress<SecurityStatus> {
        let problem = |code: ExtendedErrorCode| Problem {
            code,
            name: zone.into(),
            rr_type: Type::DNSKEY,
        };
        let bogus = |code| Ok(SecurityStatus::Bogus(problem(code)));
        let limit_reached = || Ok(SecurityStatus::Indeterminate(problem(INDETERMINATE)));
        let mut sets = self.sets.iter();
        let place = sets.position(|set| set.is(zone, Type::DNSKEY) && !set.is_authority());
        let Some(place) = place else {
            return bogus(DNSKEY_MISSING);
        };
        let data = self.sets[place].data(&self.message);
        if data.len() > limits::KEYS_OF_ZONE {
            return limit_reached();
        }
        let keys: Vec<(&[u8], Dnskey<'_>)> = data
            .into_iter()
            .filter(|data| data.len() <= limits::KEY_LEN)
            .filter_map(|data| Some((data, Dnskey::parse(data).ok()?)))
            .collect();
        let ds = ds.iter().filter_map(|data| Ds::parse(data).ok());
        let ds: Vec<Ds<'_>> = ds.filter(Ds::is_supported).collect();
        let Some(named) = named_keys(zone, &ds, &keys, cx.work) else {
            return limit_reached();
        };
        let supported: Vec<Dnskey<'_>> =
            named.iter().copied().filter(Dnskey::is_supported).collect();
        // Keys that the message leaves out may be supported.
        let is_named = |ds: &Ds<'_>| named.iter().any(|key| ds.matches(zone, key));
        if ds.is_empty() || supported.is_empty() && ds.iter().all(is_named) {
            self.learned = Some((ZoneStatus::Insecure, self.lifetime()));
            return Ok(SecurityStatus::Insecure);
        }
        if supported.is_empty() {
            return bogus(DNSKEY_MISSING);
        }
        let set = &mut self.sets[place];
        if !set.has_signatures() {
            return bogus(RRSIGS_MISSING);
        }
        if set.is_unchecked() {
            let limits = (&mut self.allowance, cx.work);
            let code = set.verify_next(&self.message, (zone, &supported), limits, cx.clock)?;
            return bogus(code);
        }
        let trusted: Box<[Box<[u8]>]> = keys
            .iter()
            .filter(|(_, key)| key.may_sign() && key.is_supported())
            .map(|(data, _)| Box::from(*data))
            .collect();
        let len: usize = trusted.iter().map(|data| data.len()).sum();
        if set.is_expanded() {
            return bogus(BOGUS);
        }
        if len > limits::KEYS_OF_ZONE_LEN {
            return limit_reached();
        }
        self.learned = Some((ZoneStatus::Secure(trusted), self.lifetime()));
        Ok(SecurityStatus::Secure)
    }

    /// Returns for how long the verified records of the message are valid.
    pub(super) fn lifetime(&self) -> Duration {
        let verified = self.sets.iter().filter(|set| set.signed_ttl().is_some());
        let ttls = verified.map(|set| set.ttl(&self.message));
        let shortest = ttls.min().unwrap_or_default();
        Duration::from_secs(shortest.into()).clamp(LIFETIME_MIN, LIFETIME_MAX)
    }
}

/// Returns the keys of a zone that its DS records name, or `None` if that takes too many digests or
/// more than the work that is left.
fn named_keys<'k>(
    zone: &[u8],
    ds: &[Ds<'_>],
    keys: &[(&[u8], Dnskey<'k>)],
    work: &Work,
) -> Option<Vec<Dnskey<'k>>> {
    let mut digests_left = limits::DIGESTS_OF_ZONE;
    let mut digested = 0;
    let mut named = Vec::new();
    for (data, key) in keys {
        for ds in ds.iter().filter(|ds| ds.may_match(key)) {
            digests_left = digests_left.checked_sub(1)?;
            digested += zone.len() + data.len();
            if ds.matches(zone, key) {
                named.push(*key);
                break;
            }
        }
    }
    let cost = u32::try_from(digested / limits::BYTES_OF_COST).unwrap_or(u32::MAX);
    work.add_cost(cost).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_digests_is_bounded() {
        // The same key in each record, and DS records with its tag and other digests.
        let data = [&[1, 1, 3, 13][..], &[7; 64]].concat();
        let key = Dnskey::parse(&data).unwrap();
        let [high, low] = key.tag.to_be_bytes();
        let wrong = [&[high, low, 13, 2][..], &[9; 32]].concat();
        for (keys, is_bounded) in [(2, true), (3, false)] {
            let ds: Vec<Ds<'_>> = (0..16).map(|_| Ds::parse(&wrong).unwrap()).collect();
            let keys: Vec<(&[u8], Dnskey<'_>)> = (0..keys).map(|_| (&data[..], key)).collect();
            let named = named_keys(&[0], &ds, &keys, &Work::default());
            assert_eq!(named.map(|named| named.len()), is_bounded.then_some(0));
        }
    }

    #[test]
    fn digests_count_as_work() {
        let data = [&[1, 1, 3, 13][..], &[7; 2_044]].concat();
        let key = Dnskey::parse(&data).unwrap();
        let [high, low] = key.tag.to_be_bytes();
        let wrong = [&[high, low, 13, 2][..], &[9; 32]].concat();
        let ds: Vec<Ds<'_>> = (0..16).map(|_| Ds::parse(&wrong).unwrap()).collect();
        let work = Work::default();
        let keys = [(&data[..], key), (&data, key)];
        named_keys(&[0], &ds, &keys, &work).unwrap();
        assert_eq!(work.cost_spent(), 16);
    }
}
