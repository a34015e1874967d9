//! The check of the keys of a zone: a key that a DS record or a trust anchor names has to sign all
//! of them (RFC 4035, section 5.2).

use std::time::Duration;

use crate::wire::Message;
use crate::wire::edns::ExtendedErrorCode;
use crate::wire::question::Type;

use super::set::SetState;
use super::signing_status::needs;
use super::{
    BOGUS, Context, DNSKEY_MISSING, Problem, Progress, RRSIGS_MISSING, SecurityStatus, Validation,
};
use crate::dnssec::limits;
use crate::dnssec::zones::{LIFETIME_MAX, LIFETIME_MIN, ZoneStatus};
use crate::dnssec::{Dnskey, Ds};

impl Validation {
    /// Judges the message as the keys of the zone in its question.
    pub(super) fn judge_keys(&mut self, cx: &mut Context<'_>) -> Progress<SecurityStatus> {
        let (zone, _) = self.question();
        if !cx.anchors.covers(&zone) {
            return Ok(SecurityStatus::Insecure);
        }
        let ds: Vec<Box<[u8]>> = match (cx.anchors.of_zone(&zone), cx.zones.get(&zone, cx.now)) {
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
        let bogus = |code: ExtendedErrorCode| {
            Ok(SecurityStatus::Bogus(Problem {
                code,
                name: zone.into(),
                rr_type: Type::DNSKEY,
            }))
        };
        let mut sets = self.sets.iter();
        let place = sets.position(|set| set.is(zone, Type::DNSKEY) && !set.is_authority());
        let (Some(place), Ok(message)) = (place, Message::parse(&self.message)) else {
            return bogus(DNSKEY_MISSING);
        };
        let data = self.sets[place].data(&self.message);
        let parsed = data.iter().take(limits::KEYS_OF_ZONE);
        let keys: Vec<(&[u8], Dnskey<'_>)> = parsed
            .filter_map(|data| Some((*data, Dnskey::parse(data).ok()?)))
            .collect();
        let ds = ds.iter().filter_map(|data| Ds::parse(data).ok());
        let ds: Vec<Ds<'_>> = ds
            .filter(Ds::is_supported)
            .take(limits::DS_OF_ZONE)
            .collect();
        let named: Vec<Dnskey<'_>> = keys
            .iter()
            .filter(|(_, key)| ds.iter().any(|ds| ds.matches(zone, key)))
            .map(|(_, key)| *key)
            .collect();
        let supported: Vec<Dnskey<'_>> =
            named.iter().copied().filter(Dnskey::is_supported).collect();
        if ds.is_empty() || supported.is_empty() && !named.is_empty() {
            return Ok(SecurityStatus::Insecure);
        }
        if named.is_empty() {
            return bogus(DNSKEY_MISSING);
        }
        let set = &mut self.sets[place];
        if !set.has_signatures() {
            return bogus(RRSIGS_MISSING);
        }
        if matches!(set.state, SetState::Unchecked { .. }) {
            let code =
                set.verify_next(&message, (zone, &supported), &mut self.allowance, cx.clock)?;
            return bogus(code);
        }
        let trusted: Box<[Box<[u8]>]> = keys
            .iter()
            .filter(|(_, key)| key.may_sign() && key.is_supported())
            .map(|(data, _)| Box::from(*data))
            .collect();
        let len: usize = trusted.iter().map(|data| data.len()).sum();
        if set.is_expanded() || len > limits::KEYS_OF_ZONE_LEN {
            return bogus(BOGUS);
        }
        self.learned = Some((ZoneStatus::Secure(trusted), self.lifetime()));
        Ok(SecurityStatus::Secure)
    }

    /// Returns for how long the records of the message are valid.
    pub(super) fn lifetime(&self) -> Duration {
        let ttls = self.sets.iter().map(|set| set.ttl(&self.message));
        let shortest = ttls.min().unwrap_or_default();
        Duration::from_secs(shortest.into()).clamp(LIFETIME_MIN, LIFETIME_MAX)
    }
}
