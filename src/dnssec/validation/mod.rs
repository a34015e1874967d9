//! The validation of one message, in steps (RFC 4035, section 5).
//!
//! ```text
//!   each set of the answer section, and what proves a denial in the authority section:
//!
//!     signed by a zone     --> keys of the zone known --> one signature a step --> secure or bogus
//!                          '-> else: needs DS and DNSKEY of the zone
//!     not signed           --> a delegation without DS above it --> insecure
//!                          '-> else: needs DS of each name between; bogus if all are secure
//!   then the aliases from the question to the last name, and the denial of that name
//! ```
//!
//! A validation performs no I/O. A step verifies at most one signature, so that a caller can do
//! other work in between. What a validation needs of other zones is in [`KnownZones`]; records that
//! are missing there are asked for by the caller, validated in the same way, and added. A DS record
//! is of the zone above, so that each need is nearer to a trust anchor than the one before.

mod aliases;
mod denials;
mod keys;
mod learned;
mod set;
mod signing_status;

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::canonical::is_at_or_below;
use crate::wire::edns::ExtendedErrorCode;
use crate::wire::name::{make_lowercase, suffixes};
use crate::wire::question::Type;
use crate::wire::record::Record;
use crate::wire::without_proof::filtered;
use crate::wire::{Malformed, Message, Rcode};

use super::RrSet;
use super::anchors::Anchors;
use super::clock::SignatureClock;
use super::denial_cache::ProvenRecord;
use super::limits;
use super::work::Work;
use super::zones::{KnownZones, Problem, ZoneStatus};
use denials::nearest_zone;
use set::{SetState, SignedSet};

/// The message is bogus for another reason than those with a code of their own.
const BOGUS: ExtendedErrorCode = ExtendedErrorCode(6);
/// A limit was reached.
const INDETERMINATE: ExtendedErrorCode = ExtendedErrorCode(5);
const SIGNATURE_EXPIRED: ExtendedErrorCode = ExtendedErrorCode(7);
const SIGNATURE_NOT_YET_VALID: ExtendedErrorCode = ExtendedErrorCode(8);
const DNSKEY_MISSING: ExtendedErrorCode = ExtendedErrorCode(9);
const RRSIGS_MISSING: ExtendedErrorCode = ExtendedErrorCode(10);
const NSEC_MISSING: ExtendedErrorCode = ExtendedErrorCode(12);

/// The verdict on a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityStatus {
    /// Every record is signed, up to a trust anchor.
    Secure,
    /// Some records need no signature: their zone is proven to be unsigned, or no trust anchor
    /// covers them.
    Insecure,
    /// A signature, or a proof, is missing or wrong.
    Bogus(Problem),
    /// No upstream returned the records that are needed, or a limit was reached.
    Indeterminate(Problem),
}

impl SecurityStatus {
    /// Returns the status without its problem.
    pub fn kind(&self) -> SecurityKind {
        match self {
            Self::Secure => SecurityKind::Secure,
            Self::Insecure => SecurityKind::Insecure,
            Self::Bogus(_) => SecurityKind::Bogus,
            Self::Indeterminate(_) => SecurityKind::Indeterminate,
        }
    }
}

/// A [`SecurityStatus`] without its problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityKind {
    /// See [`SecurityStatus::Secure`].
    Secure,
    /// See [`SecurityStatus::Insecure`].
    Insecure,
    /// See [`SecurityStatus::Bogus`].
    Bogus,
    /// See [`SecurityStatus::Indeterminate`].
    Indeterminate,
}

impl SecurityKind {
    /// All kinds in the order of declaration.
    pub const ALL: [Self; 4] = [
        Self::Secure,
        Self::Insecure,
        Self::Bogus,
        Self::Indeterminate,
    ];

    /// Returns the name for counters and records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Insecure => "insecure",
            Self::Bogus => "bogus",
            Self::Indeterminate => "indeterminate",
        }
    }
}

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum ValidationStep {
    /// The records of these names and types are needed in [`KnownZones`], besides those that are
    /// being asked for.
    Need(Vec<Need>),
    /// A signature was verified, and more steps follow.
    Yield {
        /// The signature was right.
        is_right: bool,
    },
    /// The verdict.
    Done(SecurityStatus),
}

/// A question whose answer is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The name, in lower case.
    pub name: Box<[u8]>,
    /// [`Type::DS`] or [`Type::DNSKEY`].
    pub rr_type: Type,
}

/// A value, or a step that ends the search for it.
type Progress<T> = Result<T, ValidationStep>;

/// The purpose of a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A client's question.
    Answer,
    /// The DS records of a zone, or their absence.
    Delegation,
    /// The DNSKEY records of a zone.
    Keys,
}

/// The resources of a step.
#[derive(Debug)]
pub struct Context<'a> {
    /// The known zones.
    pub zones: &'a mut KnownZones,
    /// The index of the pool of upstreams that gave the message.
    pub pool: usize,
    /// The trust anchors.
    pub anchors: &'a Anchors,
    /// The time by which signatures are judged.
    pub clock: SignatureClock,
    /// The time by which lifetimes are judged.
    pub now: Instant,
    /// The work for the answer to a client that needs this validation.
    pub work: &'a Work,
}

/// The rest of the limits of one message.
#[derive(Debug)]
struct Allowance {
    signatures: u8,
    wrong_signatures: u8,
    questions: u8,
}

/// The validation of one message.
#[derive(Debug)]
pub struct Validation {
    message: Box<[u8]>,
    /// The name in the question, in lower case.
    name: Box<[u8]>,
    /// The type in the question.
    rr_type: Type,
    /// The response code says that the last name does not exist.
    is_nxdomain: bool,
    subject: Subject,
    sets: Vec<SignedSet>,
    allowance: Allowance,
    /// Questions that are being asked.
    pending: Vec<Need>,
    /// Questions without an answer, and why their answers are missing, if that is known.
    unanswered: Vec<(Need, Option<Problem>)>,
    /// The validation ended because one of these has no answer.
    lacks_answers: bool,
    /// The status of the zone in the question by this message, and its lifetime.
    learned: Option<(ZoneStatus, Duration)>,
}

impl Validation {
    /// Starts the validation of a message.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if the message has no question or too many sets.
    pub fn new(bytes: Box<[u8]>, subject: Subject) -> Result<Self, Malformed> {
        let message = Message::parse(&bytes)?;
        let question = message.question().ok_or(Malformed)?;
        let mut name: Box<[u8]> = question.name().into();
        make_lowercase(&mut name);
        let rr_type = question.rr_type();
        let is_nxdomain = message.rcode() == Rcode::NXDOMAIN;
        let sets = RrSet::of(&message)?;
        let sets = sets
            .into_iter()
            .map(|set| SignedSet::new(&message, set, rr_type));
        let sets = sets.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            message: bytes,
            name,
            rr_type,
            is_nxdomain,
            subject,
            sets,
            allowance: Allowance {
                signatures: match subject {
                    Subject::Answer => limits::SIGNATURES,
                    Subject::Delegation | Subject::Keys => limits::SIGNATURES_OF_QUESTION,
                },
                wrong_signatures: limits::WRONG_SIGNATURES,
                questions: limits::QUESTIONS,
            },
            pending: Vec::new(),
            unanswered: Vec::new(),
            lacks_answers: false,
            learned: None,
        })
    }

    /// Returns whether the message could not be validated because a question had no answer, which
    /// is no fault of the message.
    pub fn lacks_answers(&self) -> bool {
        self.lacks_answers
    }

    /// Records that there is no room for the validation, which is no fault of the message.
    pub fn lack_room(&mut self) {
        self.lacks_answers = true;
    }

    /// Returns the message.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Performs a step. Its cost is added to the work in the context.
    pub fn step(&mut self, cx: &mut Context<'_>) -> ValidationStep {
        let result = match self.subject {
            Subject::Answer => self.judge(cx),
            Subject::Delegation => self.judge_delegation(cx),
            Subject::Keys => self.judge_keys(cx),
        };
        let step = match result {
            Ok(verdict) => ValidationStep::Done(verdict),
            Err(ValidationStep::Need(needs)) => self.ask(needs),
            Err(step) => step,
        };
        if let ValidationStep::Done(verdict) = &step {
            self.learn(verdict, cx);
        }
        step
    }

    /// Returns what the message says of the zone in its question, once the verdict is known.
    pub fn take_learned(&mut self) -> Option<(ZoneStatus, Duration)> {
        self.learned.take()
    }

    /// Returns the verified records of the message that deny names or types.
    pub fn proven_records(&self) -> Vec<ProvenRecord> {
        let sets = self.sets.iter();
        sets.filter_map(|set| set.proven_record(&self.message))
            .collect()
    }

    /// Records that the answer to a question is in the known zones.
    pub fn on_answered(&mut self, need: &Need) {
        self.pending.retain(|pending| pending != need);
    }

    /// Records that a question has no answer, perhaps because of `problem`. The validation may do
    /// without it.
    pub fn on_unanswered(&mut self, need: Need, problem: Option<Problem>) {
        self.on_answered(&need);
        self.unanswered.push((need, problem));
    }

    /// Returns whether questions are being asked.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Records that the questions that are being asked have no answer in time, because of
    /// `problem`.
    pub fn give_up_questions(&mut self, problem: &Problem) {
        let pending = std::mem::take(&mut self.pending);
        let unanswered = pending
            .into_iter()
            .map(|need| (need, Some(problem.clone())));
        self.unanswered.extend(unanswered);
    }

    /// Ends the validation of a secure or insecure message: lowers the TTLs of verified records to
    /// those that their signatures allow (RFC 4035, section 5.3.3), and returns it without the
    /// records that neither answer the question nor prove anything. Returns `None` if the message
    /// becomes too long without them, because names are written in full.
    pub fn into_message(mut self, is_secure: bool) -> Option<Box<[u8]>> {
        for place in 0..self.sets.len() {
            // The TTL of an alias that follows from a DNAME is that of the DNAME (RFC 6672, section
            // 3.1).
            let signed = self.alias_source(place).unwrap_or(place);
            if let Some(ttl_max) = self.sets[signed].signed_ttl() {
                self.sets[place].lower_ttls(&mut self.message, ttl_max);
            }
        }
        match self.judged_records(is_secure) {
            Ok(None) => Some(self.message),
            Ok(reduced) => reduced,
            Err(Malformed) => None,
        }
    }

    /// Returns the message with only the sets that answer the question, the verified sets of the
    /// authority section, in an insecure message also those that need no signature, and OPT.
    /// Returns `None` if it has no other records.
    fn judged_records(&self, is_secure: bool) -> Result<Option<Box<[u8]>>, Malformed> {
        let message = Message::parse(&self.message)?;
        let path = self.path().ok_or(Malformed)?;
        let zone = nearest_zone(&self.sets, &path.target, self.rr_type == Type::DS);
        // The SOA record of another zone would set the TTL of a denial.
        let is_foreign = |set: &SignedSet| match zone {
            Some(zone) => *set.owner != *zone,
            None => !is_at_or_below(&path.target, &set.owner),
        };
        let kept = (0..self.sets.len()).filter(|place| {
            let set = &self.sets[*place];
            let is_judged = match set.state {
                SetState::Secure { .. } => true,
                SetState::Insecure => !is_secure,
                SetState::Unchecked { .. } | SetState::Bogus(_) => false,
            };
            let is_wrong_soa = set.rr_type() == Some(Type::SOA) && is_foreign(set);
            let is_proof = set.is_authority() && is_judged && !is_wrong_soa;
            is_proof || path.places.contains(place)
        });
        let mut kept: Vec<usize> = kept
            .flat_map(|place| self.sets[place].positions())
            .collect();
        kept.sort_unstable();
        let is_kept = |record: &Record| {
            record.rr_type == Type::OPT || kept.binary_search(&record.start).is_ok()
        };
        let mut records = message.records(message.records_start(), message.end());
        if records.all(|record| is_kept(&record)) {
            return Ok(None);
        }
        Ok(Some(filtered(&message, is_kept)?.into()))
    }

    /// Takes questions from the allowance. Those that are being asked count once, and those without
    /// an answer are not asked again.
    fn ask(&mut self, needs: Vec<Need>) -> ValidationStep {
        let is_own = |need: &Need| {
            self.subject != Subject::Answer
                && need.name == self.name
                && need.rr_type == self.rr_type
        };
        let is_unanswered = |need: &Need| self.unanswered.iter().any(|(one, _)| one == need);
        let (unanswered, open): (Vec<Need>, Vec<Need>) = needs
            .into_iter()
            .partition(|need| is_own(need) || is_unanswered(need));
        if open.is_empty()
            && let Some(need) = unanswered.first()
        {
            let mut problems = self.unanswered.iter().filter(|(one, _)| one == need);
            let problem = problems.find_map(|(_, problem)| problem.clone());
            let unreachable = || Problem::limit_reached(&need.name, need.rr_type);
            let problem = problem.unwrap_or_else(unreachable);
            self.lacks_answers = true;
            return ValidationStep::Done(SecurityStatus::Indeterminate(problem));
        }
        let is_new = |need: &Need| !self.pending.contains(need);
        let new: Vec<Need> = open.into_iter().filter(is_new).collect();
        let count = u8::try_from(new.len()).unwrap_or(u8::MAX);
        match self.allowance.questions.checked_sub(count) {
            Some(left) => {
                self.allowance.questions = left;
                self.pending.extend_from_slice(&new);
                ValidationStep::Need(new)
            }
            None => ValidationStep::Done(self.limit_reached()),
        }
    }

    fn limit_reached(&self) -> SecurityStatus {
        SecurityStatus::Indeterminate(Problem::limit_reached(&self.name, self.rr_type))
    }

    /// Judges the message as the answer to its question.
    fn judge(&mut self, cx: &mut Context<'_>) -> Progress<SecurityStatus> {
        let rr_type = self.rr_type;
        if !cx.anchors.covers(&self.name) {
            return Ok(SecurityStatus::Insecure);
        }
        let Some(path) = self.path() else {
            return Ok(self.limit_reached());
        };
        let mut is_insecure = false;
        for place in &path.places {
            is_insecure |= self.check(*place, cx)?;
        }
        let is_positive = path.is_answered && !self.is_nxdomain;
        let proofs = |rr_type: Type| {
            let is_proof = matches!(rr_type, Type::NSEC | Type::NSEC3);
            is_proof || rr_type == Type::SOA && !is_positive
        };
        if !is_positive || self.sets.iter().any(SignedSet::is_expanded) {
            for place in 0..self.sets.len() {
                let set = &self.sets[place];
                if set.is_authority() && set.rr_type().is_some_and(proofs) {
                    // A set that proves nothing does not make the answer insecure.
                    self.check(place, cx)?;
                }
            }
        }
        is_insecure |= self.check_expansions(cx)?;
        if !is_positive {
            is_insecure |= self.check_denial(&path.target, rr_type, cx)?;
        }
        // Nothing signs the signatures that answer a question for RRSIG.
        let is_unsigned = rr_type == Type::RRSIG && path.is_answered;
        Ok(if is_insecure || is_unsigned {
            SecurityStatus::Insecure
        } else {
            SecurityStatus::Secure
        })
    }

    /// Judges the message as the DS records of a name, or their absence. An alias at the name is
    /// not followed: no zone starts at an alias. Only records of zones above the name count, so
    /// that no question depends on its own answer.
    fn judge_delegation(&mut self, cx: &mut Context<'_>) -> Progress<SecurityStatus> {
        let name = self.name.clone();
        let upper = suffixes(&name).nth(1).unwrap_or(&[0]);
        if !cx.anchors.covers(upper) {
            return Ok(SecurityStatus::Insecure);
        }
        let is_record = |set: &SignedSet| {
            !set.is_authority() && (set.is(&name, Type::DS) || set.is(&name, Type::CNAME))
        };
        let record = self.sets.iter().position(is_record);
        let mut is_insecure = match record {
            Some(place) => self.check(place, cx)?,
            None => false,
        };
        if record.is_none() || self.sets.iter().any(SignedSet::is_expanded) {
            self.check_proofs_from_above(&name, cx)?;
        }
        is_insecure |= self.check_expansions(cx)?;
        if record.is_none() {
            is_insecure |= self.check_denial(&name, Type::DS, cx)?;
        }
        Ok(if is_insecure {
            SecurityStatus::Insecure
        } else {
            SecurityStatus::Secure
        })
    }

    /// Checks a set. Returns whether it is insecure.
    fn check(&mut self, place: usize, cx: &mut Context<'_>) -> Progress<bool> {
        if let Some(source) = self.alias_source(place)
            && self.is_at_or_below_anchor_of(place, source, cx)
        {
            // The alias follows from a DNAME, which is signed in its place.
            return self.check(source, cx);
        }
        let state = self.sets[place].check(&self.message, &mut self.allowance, cx);
        match state? {
            SetState::Bogus(problem) => {
                Err(ValidationStep::Done(SecurityStatus::Bogus(problem.clone())))
            }
            SetState::Insecure => Ok(true),
            SetState::Secure { .. } | SetState::Unchecked { .. } => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
