//! Counters of queries, replies and failures.

use std::fmt;
use std::time::Duration;

use super::outcome::{Discard, Outcome};
use super::validator::DnssecCounters;
use crate::base::failure::FailureKind;
use crate::base::histogram::Histogram;
use crate::base::origin::ClientProtocol;
use crate::wire::Rcode;

/// The number of response codes that are counted one by one: all of IANA's "DNS RCODEs".
const RCODES: usize = 25;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// TCP connections of clients with an address that is not allowed.
    pub denied_connections: u64,
    /// Connections of clients that mutual TLS refused.
    pub refused_certificates: u64,
    /// Messages from clients that were not queries.
    pub ignored: u64,
    /// Queries sent upstream, those sent again included.
    pub sent: u64,
    /// Queries sent upstream again.
    pub retries: u64,
    /// Queries sent again before the first attempt had failed.
    pub hedges: u64,
    /// Copies of queries that test an endpoint in outage.
    pub copies: u64,
    /// Probes that test an upstream.
    pub probes: u64,
    /// Queries that the cache could have answered and did not.
    pub misses: u64,
    /// Queries that refresh an answer in the cache.
    pub refreshes: u64,
    /// Links that came up with a new TLS session.
    pub full_handshakes: u64,
    /// Links that came up with an earlier TLS session.
    pub resumed_handshakes: u64,
    /// Counts of DNSSEC validation.
    pub dnssec: DnssecCounters,
    queries: [u64; ClientProtocol::ALL.len()],
    /// The durations of queries.
    pub durations: Histogram,
    outcomes: [u64; Outcome::ALL.len()],
    /// The responses by code; the last slot is for all other codes.
    responses: [u64; RCODES],
    discards: [u64; Discard::ALL.len()],
    failures: [u64; FailureKind::ALL.len()],
}

impl Counters {
    /// Returns the number of queries over a protocol.
    pub fn queries(&self, protocol: ClientProtocol) -> u64 {
        self.queries[protocol as usize]
    }

    /// Returns the number of queries with an outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Returns the number of responses for each code that occurred.
    pub fn responses(&self) -> impl Iterator<Item = (Rcode, u64)> {
        let codes = (0..).map(Rcode::from).zip(self.responses);
        codes.filter(|(_, count)| *count > 0)
    }

    /// Returns the number of messages from upstream that were dropped for a reason.
    pub fn discard(&self, discard: Discard) -> u64 {
        self.discards[discard as usize]
    }

    /// Returns the number of upstream failures of a kind.
    pub fn failure(&self, kind: FailureKind) -> u64 {
        self.failures[kind as usize]
    }

    /// Returns the number of queries that have ended.
    pub fn ended(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    pub(super) fn count_query(&mut self, protocol: ClientProtocol) {
        self.queries[protocol as usize] += 1;
    }

    /// Counts a query that has ended.
    pub(super) fn count_end(&mut self, outcome: Outcome, rcode: Option<Rcode>, took: Duration) {
        self.outcomes[outcome as usize] += 1;
        if let Some(rcode) = rcode {
            let slot = usize::from(rcode.to_u16()).min(RCODES - 1);
            self.responses[slot] += 1;
            self.durations.observe(took);
        }
    }

    pub(super) fn count_discard(&mut self, discard: Discard) {
        self.discards[discard as usize] += 1;
    }

    pub(super) fn count_failure(&mut self, kind: FailureKind) {
        self.failures[kind as usize] += 1;
    }
}

impl fmt::Display for Counters {
    /// Writes one line. Rare counts appear only if they are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("queries")?;
        for protocol in ClientProtocol::ALL {
            let (label, count) = (protocol.label(), self.queries(protocol));
            if count > 0 || protocol != ClientProtocol::Https {
                write!(f, " {label}={count}")?;
            }
        }
        write!(f, " ignored={}", self.ignored)?;
        if self.denied_connections > 0 {
            write!(f, " tcp-clients-denied={}", self.denied_connections)?;
        }
        if self.refused_certificates > 0 {
            write!(
                f,
                " client-certificates-refused={}",
                self.refused_certificates
            )?;
        }
        let groups = [
            (
                "outcomes",
                &Outcome::ALL.map(Outcome::label)[..],
                &self.outcomes[..],
            ),
            (
                "discarded",
                &Discard::ALL.map(Discard::label),
                &self.discards,
            ),
            (
                "upstream-failures",
                &FailureKind::ALL.map(FailureKind::label),
                &self.failures,
            ),
        ];
        for (name, labels, counts) in groups {
            let mut counted = labels
                .iter()
                .zip(counts)
                .filter(|(_, count)| **count > 0)
                .peekable();
            if counted.peek().is_some() {
                write!(f, "; {name}")?;
            }
            for (label, count) in counted {
                write!(f, " {label}={count}")?;
            }
        }
        write!(
            f,
            "; upstream sent={} retries={} hedges={} copies={} probes={}; handshakes full={} \
             resumed={}; cache hits={} misses={} refreshes={}",
            self.sent,
            self.retries,
            self.hedges,
            self.copies,
            self.probes,
            self.full_handshakes,
            self.resumed_handshakes,
            self.outcome(Outcome::Cached),
            self.misses,
            self.refreshes,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_the_counts() {
        let mut counters = Counters {
            queries: [3, 0, 0, 0],
            ..Counters::default()
        };
        let took = Duration::from_millis(3);
        counters.count_end(Outcome::Answered, Some(Rcode::NOERROR), took);
        counters.count_end(Outcome::TimedOut, Some(Rcode::SERVFAIL), took);
        counters.count_failure(FailureKind::Stalled);
        assert_eq!(
            counters.to_string(),
            "queries udp=3 tcp=0 tls=0 ignored=0; outcomes answered=1 timed-out=1; \
             upstream-failures stalled=1; upstream sent=0 retries=0 hedges=0 copies=0 probes=0; \
             handshakes full=0 resumed=0; cache hits=0 misses=0 refreshes=0"
        );
        assert_eq!(counters.ended(), 2);
        counters.count_end(Outcome::RateLimited, None, Duration::ZERO);
        assert_eq!(counters.durations.count(), 2, "there was no response");
    }

    #[test]
    fn every_variant_has_its_slot() {
        let indexes = Outcome::ALL.map(|outcome| outcome as usize);
        assert!(indexes.into_iter().eq(0..Outcome::ALL.len()));
        let indexes = Discard::ALL.map(|discard| discard as usize);
        assert!(indexes.into_iter().eq(0..Discard::ALL.len()));
        let indexes = ClientProtocol::ALL.map(|protocol| protocol as usize);
        assert!(indexes.into_iter().eq(0..ClientProtocol::ALL.len()));
    }
}
