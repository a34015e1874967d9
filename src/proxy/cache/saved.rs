//! Entries as bytes, for the cache file (`--cache-file`).
//!
//! ```text
//!   length of the message │ variant │ use │ age │ lifetime │ message
//!        2 bytes               1       1     4       4
//! ```
//!
//! Numbers are in network byte order, times in seconds. The length zero marks the end. Entries are
//! in the order of insertion. An answer is a whole message, so it is parsed again and judged by the
//! cache policy again: bytes from a file are trusted no more than bytes from an upstream, and other
//! limits of TTLs apply at once. Errors are not saved.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use super::entry::{self, Head, Marks};
use super::key::{CacheLookup, Variant, is_data};
use super::policy::policy_for;
use super::{Cache, Entry, TICKS, Ttls, key_for, ticks};
use crate::base::time::Instant;
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::response::{Asked, AskedOpt};
use crate::wire::{Flags, MESSAGE_LEN_MAX, Message, Question};

/// The bytes of an entry before its message.
const SAVED_HEAD_LEN: usize = 12;

/// The number of entries that were read from a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Fresh entries.
    pub fresh: usize,
    /// Expired entries, which are kept for serve-stale.
    pub stale: usize,
}

/// The fixed part of a saved entry.
#[derive(Clone, Copy, Debug)]
struct SavedHead {
    message_len: usize,
    variant: Variant,
    /// The marks of its use.
    usage: Marks,
    /// The age in seconds, rounded up.
    age: u32,
    /// The lifetime in seconds.
    lifetime: u32,
}

impl SavedHead {
    fn to_bytes(self) -> [u8; SAVED_HEAD_LEN] {
        let len = u16::try_from(self.message_len).expect("a message fits in 16 bits");
        let mut bytes = [0; SAVED_HEAD_LEN];
        bytes[..2].copy_from_slice(&len.to_be_bytes());
        bytes[2] = self.variant.to_bits();
        bytes[3] = self.usage.0;
        bytes[4..8].copy_from_slice(&self.age.to_be_bytes());
        bytes[8..].copy_from_slice(&self.lifetime.to_be_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; SAVED_HEAD_LEN]) -> Self {
        let long = |at: usize| {
            let field = bytes[at..at + 4].try_into().expect("a range of four bytes");
            u32::from_be_bytes(field)
        };
        Self {
            message_len: usize::from(u16::from_be_bytes([bytes[0], bytes[1]])),
            variant: Variant::from_bits(bytes[2]),
            usage: Marks(bytes[3]).usage(),
            age: long(4),
            lifetime: long(8),
        }
    }
}

impl Cache {
    /// Writes all answers that are fresh or kept for serve-stale. Returns their number.
    ///
    /// # Errors
    ///
    /// Returns the error of the writer.
    pub(in crate::proxy) fn save(&self, now: Instant, out: &mut dyn Write) -> io::Result<usize> {
        let now = self.tick(now);
        let (mut saved, mut message) = (0, Vec::new());
        for position in self.store.oldest_first() {
            let head = self.store.head(position);
            let age = now.saturating_sub(head.received_at);
            if head.marks.contains(Marks::ERROR) || !self.is_kept(age, head.lifetime) {
                continue;
            }
            message.clear();
            self.write_whole(position, &head, &mut message);
            let saved_head = SavedHead {
                message_len: message.len(),
                variant: head.kind.variant(),
                usage: head.marks.usage(),
                age: age.div_ceil(TICKS),
                lifetime: head.lifetime,
            };
            out.write_all(&saved_head.to_bytes())?;
            out.write_all(&message)?;
            saved += 1;
        }
        out.write_all(&[0; SAVED_HEAD_LEN])?;
        Ok(saved)
    }

    /// Returns whether an answer of this age in ticks and lifetime in seconds is fresh or is kept
    /// for serve-stale.
    fn is_kept(&self, age: u32, lifetime: u32) -> bool {
        let lifetime = lifetime.saturating_mul(TICKS);
        age < lifetime.saturating_add(ticks(self.settings.stale_max))
    }

    /// Appends the answer of an entry as a message with the TTLs at the start of its lifetime.
    fn write_whole(&self, position: u32, head: &Head, out: &mut Vec<u8>) {
        let rr_type = match head.kind.rr_type() {
            // A denial of all types.
            Type(0) => Type::A,
            rr_type => rr_type,
        };
        let mut question = Vec::new();
        for part in self.store.read(position, head.name_range()) {
            question.extend_from_slice(part);
        }
        question.extend(rr_type.0.to_be_bytes());
        question.extend(CLASS_IN.to_be_bytes());
        let question = Question::parse(&question, 0).expect("the name of an entry is whole");
        // Without OPT in the saved message, the extended errors would be lost.
        let opt = AskedOpt {
            flags: 0,
            keepalive: None,
            cookie: None,
            is_padded: false,
        };
        let asked = Asked {
            id: 0,
            flags: Flags::AD,
            question: Some(question),
            opt: (head.errors_len > 0).then_some(opt),
            len_max: MESSAGE_LEN_MAX,
        };
        let ttls = Ttls::Less(0);
        self.write(Entry { position, ttls }, &asked, out);
    }

    /// Adds saved answers that were written `elapsed` ago. If that time is unknown, all of them are
    /// expired.
    ///
    /// # Errors
    ///
    /// Returns the error of the reader, or [`ErrorKind::InvalidData`] for other bytes than those of
    /// [`Cache::save`]. The entries before them stay in the cache.
    pub(in crate::proxy) fn restore(
        &mut self,
        input: &mut dyn Read,
        elapsed: Option<Duration>,
        now: Instant,
    ) -> io::Result<Restored> {
        // The answers arrived before the start, at which the clock of the cache begins.
        let past = self
            .settings
            .ttl_max
            .saturating_add(self.settings.stale_max);
        self.clock_lead = self
            .clock_lead
            .saturating_add(ticks(past).min(u32::MAX / 2));
        let (mut restored, mut message) = (Restored::default(), Vec::new());
        loop {
            let mut head = [0; SAVED_HEAD_LEN];
            input.read_exact(&mut head)?;
            let head = SavedHead::of_bytes(&head);
            if head.message_len == 0 {
                self.scratch = Vec::new();
                return Ok(restored);
            }
            message.resize(head.message_len, 0);
            input.read_exact(&mut message)?;
            let own_age = head.age.saturating_mul(TICKS);
            let age = elapsed.map(|elapsed| ticks(elapsed).saturating_add(own_age));
            let answer = Message::parse(&message).map_err(|_| ErrorKind::InvalidData)?;
            let question = answer.question().ok_or(ErrorKind::InvalidData)?;
            match self.restore_answer(question, &answer, head, age, now) {
                Some(true) => restored.fresh += 1,
                Some(false) => restored.stale += 1,
                None => {}
            }
        }
    }

    /// Adds an answer of this age in ticks, if the policy and the room allow it. Returns whether it
    /// is fresh.
    fn restore_answer(
        &mut self,
        question: Question<'_>,
        answer: &Message<'_>,
        head: SavedHead,
        age: Option<u32>,
        now: Instant,
    ) -> Option<bool> {
        if question.class() != CLASS_IN || !is_data(question.rr_type()) {
            return None;
        }
        let lookup = CacheLookup::new(question.name(), head.variant, &self.hasher);
        let mut policy = policy_for(answer, question, lookup.wants_proof(), &self.settings)?;
        policy.lifetime = policy.lifetime.min(head.lifetime);
        let lifetime = policy.lifetime.saturating_mul(TICKS);
        // An answer of unknown age has expired just now.
        let age = age.unwrap_or(lifetime);
        if policy.is_error || policy.lifetime == 0 || !self.is_kept(age, policy.lifetime) {
            return None;
        }
        let key = key_for(policy.extent, question, lookup);
        if self.store.find(key).is_some() {
            return None;
        }
        let received_at = self.tick(now).saturating_sub(age).max(1);
        let entry = entry::compose(&mut self.scratch, key, answer, &policy, received_at)?;
        if !self.store.takes(self.scratch.len()) {
            return None;
        }
        let position = self.store.add(key.hash(), entry, &mut self.scratch);
        self.store.mark(position, |marks| marks.insert(head.usage));
        Some(age < lifetime)
    }
}

#[cfg(test)]
mod tests;
