//! How a query of a client ends: with its response, or without one, and counted once.

use std::ops::Range;
use std::time::Duration;

use super::admission::Protocol;
use crate::base::origin::Origin;
use crate::base::time::Instant;
use crate::proxy::actions::Outbox;
use crate::proxy::counters::{Counters, Outcome};
use crate::proxy::exchange::trace::Trace;
use crate::proxy::keys::UpstreamIndex;
use crate::wire::{Header, Question, Rcode};

/// Who asked, how, and when.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Client {
    pub(in crate::proxy) origin: Origin,
    pub(in crate::proxy) protocol: Protocol,
    pub(in crate::proxy) came: Instant,
    /// What becomes of it is followed step by step.
    pub(in crate::proxy) is_traced: bool,
}

/// The end of a query of a client.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Completion<'a> {
    pub(in crate::proxy) client: Client,
    pub(in crate::proxy) question: Option<Question<'a>>,
    pub(in crate::proxy) outcome: Outcome,
    /// Who gave the answer.
    pub(in crate::proxy) upstream: Option<UpstreamIndex>,
    /// How it came about, if that was followed and took more than a moment.
    pub(in crate::proxy) trace: Option<&'a Trace>,
}

/// What is told of a query that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who asked.
    pub origin: Origin,
    /// How.
    pub protocol: Protocol,
    /// The question, in the outbox's [bytes](Outbox::bytes), if there was one that could be read.
    pub question: Option<Range<usize>>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the response said, if there was one.
    pub rcode: Option<Rcode>,
    /// Octets of the response.
    pub octets: usize,
    /// How long it took.
    pub took: Duration,
    /// Who gave the answer.
    pub upstream: Option<UpstreamIndex>,
    /// How it came about, if that was followed.
    pub trace: Option<Trace>,
}

impl Completion<'_> {
    /// Sends the response.
    pub(in crate::proxy) fn respond(
        &self,
        counters: &mut Counters,
        now: Instant,
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let message = outbox.respond(self.client.origin, write);
        let rcode = Header::parse(outbox.bytes(&message)).map(|header| header.flags.rcode());
        self.note(rcode, message.len(), counters, now, outbox);
    }

    /// Sends a response whose code does not stand in its header alone.
    pub(in crate::proxy) fn respond_with(
        &self,
        rcode: Rcode,
        counters: &mut Counters,
        now: Instant,
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let message = outbox.respond(self.client.origin, write);
        self.note(Some(rcode), message.len(), counters, now, outbox);
    }

    /// Leaves the query without a response.
    pub(in crate::proxy) fn drop(
        &self,
        counters: &mut Counters,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        self.note(None, 0, counters, now, outbox);
    }

    fn note(
        &self,
        rcode: Option<Rcode>,
        octets: usize,
        counters: &mut Counters,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let took = now - self.client.came;
        counters.count_end(self.outcome, rcode, took);
        let is_traced = self.client.is_traced;
        if !outbox.takes_records() && !is_traced {
            return;
        }
        let question = self
            .question
            .map(|question| outbox.keep(question.as_bytes()));
        outbox.record(Record {
            origin: self.client.origin,
            protocol: self.client.protocol,
            question,
            outcome: self.outcome,
            rcode,
            octets,
            took,
            upstream: self.upstream,
            trace: is_traced.then(|| self.trace.cloned().unwrap_or_default()),
        });
    }
}
