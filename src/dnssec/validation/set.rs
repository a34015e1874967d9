//! The check of one RRset.

use std::iter;

use crate::wire::edns::ExtendedErrorCode;
use crate::wire::name::make_lowercase;
use crate::wire::name::suffixes;
use crate::wire::question::Type;
use crate::wire::{Malformed, Message, canonical};

use super::signing_status::{SigningStatus, ZoneTrust, keys_of, signing_status_of};
use super::{
    Allowance, BOGUS, Context, DNSKEY_MISSING, Problem, Progress, RRSIGS_MISSING,
    SIGNATURE_EXPIRED, SIGNATURE_NOT_YET_VALID, SecurityStatus, ValidationStep,
};
use crate::dnssec::anchors::Anchors;
use crate::dnssec::clock::{SignatureClock, Timeliness};
use crate::dnssec::denial_cache::ProvenRecord;
use crate::dnssec::limits;
use crate::dnssec::signature::owner;
use crate::dnssec::work::Work;
use crate::dnssec::{Dnskey, RrSet, Rrsig};

/// Maximum number of keys with the same tag that are tried for one signature.
const KEYS_PER_SIGNATURE: usize = 2;

/// The state of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SetState {
    /// The set has no verdict yet.
    Unchecked {
        /// The number of pairs of a signature and a key that were wrong.
        tried: usize,
    },
    /// A signature was verified.
    Secure {
        /// The zone that signs, in lower case.
        zone: Box<[u8]>,
        /// The number of labels of the wildcard's parent, if the set is an expansion.
        expanded_from: Option<usize>,
        /// The maximum TTL that the signature allows.
        ttl_max: u32,
    },
    /// The set need not be signed.
    Insecure,
    /// The set is not signed as it should be.
    Bogus(Problem),
}

/// An RRset and its state.
#[derive(Debug)]
pub(super) struct SignedSet {
    set: RrSet,
    /// The owner in lower case.
    pub(super) owner: Box<[u8]>,
    pub(super) state: SetState,
    /// The records are of the zone above their owner, even if a zone starts there.
    is_of_parent: bool,
}

impl SignedSet {
    pub(super) fn new(message: &Message<'_>, set: RrSet, asked: Type) -> Result<Self, Malformed> {
        let first = set.records.first().or(set.signatures.first());
        let owner = owner(message, first.ok_or(Malformed)?)?;
        let rr_type = set.rr_type();
        // A zone has no alias at its apex (RFC 2181, section 10.1).
        let is_alias_for_ds = rr_type == Some(Type::CNAME) && asked == Type::DS;
        Ok(Self {
            is_of_parent: rr_type == Some(Type::DS) || is_alias_for_ds,
            set,
            owner: owner.into(),
            state: SetState::Unchecked { tried: 0 },
        })
    }

    pub(super) fn is_authority(&self) -> bool {
        self.set.is_authority
    }

    /// Returns the type of the records; `None` if there are only signatures.
    pub(super) fn rr_type(&self) -> Option<Type> {
        self.set.rr_type()
    }

    /// Returns whether the set has records of this owner, in lower case, and type.
    pub(super) fn is(&self, owner: &[u8], rr_type: Type) -> bool {
        self.rr_type() == Some(rr_type) && *self.owner == *owner
    }

    /// Returns whether the records are an expansion of a wildcard.
    pub(super) fn is_expanded(&self) -> bool {
        let SetState::Secure { expanded_from, .. } = &self.state else {
            return false;
        };
        expanded_from.is_some()
    }

    /// Returns whether the set is an NSEC or NSEC3 record of the authority section that a zone
    /// above `name` signs: [`SignedSet::check`] needs the keys of that zone and nothing else.
    pub(super) fn is_proof_from_above(
        &self,
        message: &[u8],
        name: &[u8],
        anchors: &Anchors,
    ) -> bool {
        let is_proof = matches!(self.rr_type(), Some(Type::NSEC | Type::NSEC3));
        if !is_proof || !self.is_authority() {
            return false;
        }
        let is_above = |signature: &Rrsig<'_>| {
            let signer = signature.signer;
            canonical::is_at_or_below(name, signer) && !signer.eq_ignore_ascii_case(name)
        };
        let signatures = self.trusted_signatures(message, anchors);
        signatures.is_some_and(|signatures| signatures.first().is_some_and(is_above))
    }

    /// Returns whether the set has no verdict yet.
    pub(super) fn is_unchecked(&self) -> bool {
        matches!(self.state, SetState::Unchecked { .. })
    }

    /// Returns whether the set has one record.
    pub(super) fn is_single(&self) -> bool {
        self.set.records.len() == 1
    }

    pub(super) fn has_signatures(&self) -> bool {
        !self.set.signatures.is_empty()
    }

    /// Returns the positions of the records and of their signatures in the message.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> {
        let records = self.set.records.iter().chain(&self.set.signatures);
        records.map(|record| record.start)
    }

    /// Returns the data of the records.
    pub(super) fn data<'m>(&self, message: &'m [u8]) -> Vec<&'m [u8]> {
        let records = self.set.records.iter();
        records.map(|record| record.data(message)).collect()
    }

    /// Returns the name in the data of the first record, in lower case.
    pub(super) fn target(&self, message: &[u8]) -> Option<Box<[u8]>> {
        let record = self.set.records.first()?;
        let mut name = Vec::new();
        canonical::write_name(&mut name, message, record.data_start()).ok()?;
        Some(name.into())
    }

    /// Returns the lowest TTL of the records, and of what their signature allows.
    pub(super) fn ttl(&self, message: &[u8]) -> u32 {
        let ttls = self.set.records.iter().map(|record| record.ttl(message));
        let ttl = ttls.min().unwrap_or(u32::MAX);
        match &self.state {
            SetState::Secure { ttl_max, .. } => ttl.min(*ttl_max),
            _ => ttl,
        }
    }

    /// Returns the TTL that the signature allows, if the set is secure.
    pub(super) fn signed_ttl(&self) -> Option<u32> {
        match &self.state {
            SetState::Secure { ttl_max, .. } => Some(*ttl_max),
            _ => None,
        }
    }

    /// Lowers the TTLs of the records and their signatures to `ttl_max`.
    pub(super) fn lower_ttls(&self, message: &mut [u8], ttl_max: u32) {
        for record in self.set.records.iter().chain(&self.set.signatures) {
            let ttl = record.ttl(message).min(ttl_max);
            record.set_ttl(message, ttl);
        }
    }

    /// Returns the record of a verified set that a denial may need. A set has one such record.
    pub(super) fn proven_record(&self, message: &[u8]) -> Option<ProvenRecord> {
        let SetState::Secure {
            zone,
            expanded_from: None,
            ..
        } = &self.state
        else {
            return None;
        };
        let rr_type = self.rr_type()?;
        let is_wanted = matches!(rr_type, Type::SOA | Type::NSEC | Type::NSEC3);
        let [record] = &self.set.records[..] else {
            return None;
        };
        if !is_wanted || !self.is_authority() {
            return None;
        }
        let mut records = Vec::new();
        for record in iter::once(record).chain(&self.set.signatures) {
            records.extend_from_slice(&message[record.fixed..record.data_start() - 2]);
            let len_at = records.len();
            records.extend([0; 2]);
            canonical::write_data(&mut records, message, record).ok()?;
            let len = u16::try_from(records.len() - len_at - 2).ok()?;
            records[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
        }
        let mut ttl = self.ttl(message);
        if rr_type == Type::SOA {
            let minimum = record.data(message).last_chunk().copied()?;
            ttl = ttl.min(u32::from_be_bytes(minimum));
        }
        Some(ProvenRecord {
            zone: zone.clone(),
            owner: self.owner.clone(),
            rr_type,
            ttl,
            records: records.into(),
        })
    }

    /// Judges the set, or performs a step towards it.
    pub(super) fn check(
        &mut self,
        message: &[u8],
        allowance: &mut Allowance,
        cx: &mut Context<'_>,
    ) -> Progress<&SetState> {
        // Signatures alone prove nothing and harm nothing.
        let Some(rr_type) = self.rr_type().filter(|_| self.is_unchecked()) else {
            return Ok(&self.state);
        };
        let Some(signatures) = self.trusted_signatures(message, cx.anchors) else {
            self.state = SetState::Insecure;
            return Ok(&self.state);
        };
        let Some(first) = signatures.first() else {
            self.state = self.judge_unsigned(rr_type, cx)?;
            return Ok(&self.state);
        };
        let mut zone: Box<[u8]> = first.signer.into();
        make_lowercase(&mut zone);
        let (clock, work) = (cx.clock, cx.work);
        self.state = match keys_of(&zone, cx)? {
            ZoneTrust::Insecure => SetState::Insecure,
            ZoneTrust::Bogus(problem) => SetState::Bogus(problem.clone()),
            ZoneTrust::NotDelegated => self.bogus(BOGUS, rr_type),
            ZoneTrust::Secure(keys) => {
                let parsed = keys.iter().filter_map(|data| Dnskey::parse(data).ok());
                let keys: Vec<Dnskey<'_>> = parsed.collect();
                let trust = (&*zone, &keys[..]);
                let code = self.verify_next(message, trust, (allowance, work), clock)?;
                self.bogus(code, rr_type)
            }
        };
        Ok(&self.state)
    }

    /// Verifies the next signature with a key of the zone that signs, in a step. Returns why the
    /// set is bogus if no signature and key are left.
    pub(super) fn verify_next(
        &mut self,
        message: &[u8],
        (zone, keys): (&[u8], &[Dnskey<'_>]),
        allowances: (&mut Allowance, &Work),
        clock: SignatureClock,
    ) -> Progress<ExtendedErrorCode> {
        let SetState::Unchecked { tried } = self.state else {
            return Ok(BOGUS);
        };
        let mut signatures = self.usable_signatures(message);
        signatures.retain(|signature| signature.signer.eq_ignore_ascii_case(zone));
        match pairs(&signatures, keys, clock).nth(tried) {
            Some(pair) => Err(self.verify(message, &pair, zone, allowances)),
            None => Ok(reason(&signatures, clock, tried)),
        }
    }

    /// Verifies one signature with one key.
    fn verify(
        &mut self,
        message: &[u8],
        pair: &Pair<'_>,
        zone: &[u8],
        (allowance, work): (&mut Allowance, &Work),
    ) -> ValidationStep {
        let rr_type = self.rr_type().unwrap_or(Type::ANY);
        let problem = |code| Problem {
            code,
            name: self.owner.clone(),
            rr_type,
        };
        let indeterminate = || {
            let problem = problem(super::INDETERMINATE);
            ValidationStep::Done(SecurityStatus::Indeterminate(problem))
        };
        let is_too_long = self.set.records.len() > limits::RECORDS_OF_SET;
        let left = allowance.signatures.checked_sub(1);
        let Some(left) = left.filter(|_| !is_too_long) else {
            return indeterminate();
        };
        allowance.signatures = left;
        let signature = pair.signature;
        let mut signed = Vec::new();
        let written = signature.write_signed(&mut signed, message, &self.owner, &self.set.records);
        let cost_of_bytes = signed.len() / limits::BYTES_OF_COST;
        let cost = pair.key.cost() + u32::try_from(cost_of_bytes).unwrap_or(u32::MAX);
        if !work.take_cost(cost) {
            return indeterminate();
        }
        let is_right = written.is_ok() && pair.key.verify(&signed, signature.signature).is_ok();
        if is_right {
            let labels = usize::from(signature.labels);
            let mut is_expanded = signature.expanded_labels(&self.owner) != Some(0);
            if is_expanded && rr_type == Type::NSEC && self.is_authority() {
                // Some servers give the NSEC record of a wildcard the name of the expansion. In the
                // answer section, the record is the expansion itself.
                self.owner = wildcard_of(&self.owner, labels);
                is_expanded = false;
            }
            self.state = SetState::Secure {
                zone: zone.into(),
                expanded_from: is_expanded.then_some(labels),
                ttl_max: signature.original_ttl.min(pair.valid_for),
            };
        } else {
            let Some(left) = allowance.wrong_signatures.checked_sub(1) else {
                return ValidationStep::Done(SecurityStatus::Bogus(problem(BOGUS)));
            };
            allowance.wrong_signatures = left;
            if let SetState::Unchecked { tried } = &mut self.state {
                *tried += 1;
            }
        }
        ValidationStep::Yield { is_right }
    }

    /// Judges a set without a signature that counts: it is bogus unless it is in an insecure zone.
    fn judge_unsigned(&self, rr_type: Type, cx: &mut Context<'_>) -> Progress<SetState> {
        Ok(
            match signing_status_of(&self.owner, self.is_of_parent, cx)? {
                SigningStatus::Insecure => SetState::Insecure,
                SigningStatus::Bogus(problem) => SetState::Bogus(problem),
                SigningStatus::Signed => self.bogus(RRSIGS_MISSING, rr_type),
            },
        )
    }

    fn bogus(&self, code: ExtendedErrorCode, rr_type: Type) -> SetState {
        SetState::Bogus(Problem {
            code,
            name: self.owner.clone(),
            rr_type,
        })
    }

    /// Returns the name whose zone signs the set.
    pub(super) fn upper_name(&self) -> &[u8] {
        let depth = usize::from(self.is_of_parent);
        suffixes(&self.owner).nth(depth).unwrap_or(&[0])
    }

    /// Returns the usable signatures of zones at or below the nearest trust anchor, or `None` if no
    /// trust anchor covers the set. The first one decides which zone signs the set.
    fn trusted_signatures<'m>(
        &self,
        message: &'m [u8],
        anchors: &Anchors,
    ) -> Option<Vec<Rrsig<'m>>> {
        let anchor = anchors.nearest(self.upper_name());
        let mut signatures = self.usable_signatures(message);
        let is_denial = matches!(self.rr_type(), Some(Type::NSEC | Type::NSEC3));
        if is_denial && self.is_authority() {
            // A denial speaks for the whole zone that signs it. Its owner may have another anchor,
            // and so may the denied name, which is compared with its own one.
            let is_unsigned = signatures.is_empty();
            signatures.retain(|signature| anchors.covers(signature.signer));
            let counts = !signatures.is_empty() || is_unsigned && anchor.is_some();
            return counts.then_some(signatures);
        }
        let anchor = anchor?;
        signatures.retain(|signature| canonical::is_at_or_below(signature.signer, anchor));
        Some(signatures)
    }

    /// Returns the signatures that may be of this set: those of a zone at or above its owner, and
    /// above it for DS.
    fn usable_signatures<'m>(&self, message: &'m [u8]) -> Vec<Rrsig<'m>> {
        let records = self.set.signatures.iter();
        let parsed = records.filter_map(|record| Rrsig::parse(record.data(message)).ok());
        let is_usable = |signature: &Rrsig<'m>| {
            let is_above = canonical::is_at_or_below(self.upper_name(), signature.signer);
            let is_within =
                usize::from(signature.labels) >= canonical::label_count(signature.signer);
            is_above && is_within && signature.expanded_labels(&self.owner).is_some()
        };
        parsed.filter(is_usable).collect()
    }
}

/// Returns the wildcard below the ancestor of a name with this number of labels.
fn wildcard_of(name: &[u8], labels: usize) -> Box<[u8]> {
    let beyond = canonical::label_count(name).saturating_sub(labels);
    let parent = suffixes(name).nth(beyond).unwrap_or(&[0]);
    [b"\x01*", parent].concat().into()
}

/// A signature, and a key that may have made it.
struct Pair<'a> {
    signature: &'a Rrsig<'a>,
    key: &'a Dnskey<'a>,
    /// The seconds for which the signature is valid.
    valid_for: u32,
}

/// Returns the pairs of a valid signature and a key that may have made it.
fn pairs<'a>(
    signatures: &'a [Rrsig<'a>],
    keys: &'a [Dnskey<'a>],
    clock: SignatureClock,
) -> impl Iterator<Item = Pair<'a>> {
    signatures.iter().flat_map(move |signature| {
        let is_right = move |key: &&Dnskey<'_>| {
            key.algorithm == signature.algorithm && key.tag == signature.key_tag && key.may_sign()
        };
        let keys = keys.iter().filter(is_right).take(KEYS_PER_SIGNATURE);
        keys.filter_map(
            move |key| match clock.judge(signature.inception, signature.expiration) {
                Timeliness::Valid(valid_for) => Some(Pair {
                    signature,
                    key,
                    valid_for,
                }),
                Timeliness::Expired | Timeliness::NotYetValid => None,
            },
        )
    })
}

/// Returns why no signature is right.
fn reason(signatures: &[Rrsig<'_>], clock: SignatureClock, tried: usize) -> ExtendedErrorCode {
    if tried > 0 {
        return BOGUS;
    }
    let of = |signature: &Rrsig<'_>| clock.judge(signature.inception, signature.expiration);
    let mut all = signatures.iter().map(of);
    match all.find(|timeliness| !matches!(timeliness, Timeliness::Valid(_))) {
        Some(Timeliness::Expired) => SIGNATURE_EXPIRED,
        Some(Timeliness::NotYetValid) => SIGNATURE_NOT_YET_VALID,
        _ => DNSKEY_MISSING,
    }
}
