//! Counters of DNSSEC validation.

use crate::dnssec::validation::{SecurityKind, SecurityStatus};
use crate::wire::question::Type;

/// The codes of extended errors that a failed validation has (RFC 8914, section 4).
const CODES: [(u16, &str); 7] = [
    (5, "indeterminate"),
    (6, "bogus"),
    (7, "signature-expired"),
    (8, "signature-not-yet-valid"),
    (9, "dnskey-missing"),
    (10, "rrsigs-missing"),
    (12, "nsec-missing"),
];

/// Counts of DNSSEC validation since the start.
#[derive(Clone, Debug, Default)]
pub struct DnssecCounters {
    verdicts: [u64; 4],
    failures: [u64; CODES.len()],
    /// Signatures that verified.
    pub valid_signatures: u64,
    /// Signatures that did not verify.
    pub invalid_signatures: u64,
    /// Queries answered by records in the denial cache.
    pub synthesized: u64,
    /// Questions of our own for DS records.
    pub ds_questions: u64,
    /// Questions of our own for DNSKEY records.
    pub dnskey_questions: u64,
}

impl DnssecCounters {
    /// Returns each verdict and the number of answers that got it.
    pub fn verdicts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = SecurityKind::ALL.map(SecurityKind::label);
        labels.into_iter().zip(self.verdicts)
    }

    /// Returns each reason for which a validation failed and the number of answers.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = CODES.into_iter().map(|(_, label)| label);
        labels.zip(self.failures)
    }

    pub(in crate::proxy) fn count_verdict(&mut self, verdict: &SecurityStatus) {
        self.verdicts[verdict.kind() as usize] += 1;
        let (SecurityStatus::Bogus(problem) | SecurityStatus::Indeterminate(problem)) = verdict
        else {
            return;
        };
        let mut codes = CODES.iter();
        let place = codes.position(|(code, _)| *code == problem.code.0);
        if let Some(place) = place {
            self.failures[place] += 1;
        }
    }

    pub(in crate::proxy) fn count_signature(&mut self, is_right: bool) {
        self.valid_signatures += u64::from(is_right);
        self.invalid_signatures += u64::from(!is_right);
    }

    pub(in crate::proxy) fn count_question(&mut self, rr_type: Type) {
        self.ds_questions += u64::from(rr_type == Type::DS);
        self.dnskey_questions += u64::from(rr_type == Type::DNSKEY);
    }
}
