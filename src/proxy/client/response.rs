//! The completion of a client's query: with a response or without one, counted once.

use crate::base::origin::{ClientProtocol, Origin};
use crate::base::time::Instant;
use crate::dnssec::validation::SecurityKind;
use crate::proxy::actions::{Cx, Record};
use crate::proxy::counters::Counters;
use crate::proxy::exchange::trace::Trace;
use crate::proxy::keys::UpstreamIndex;
use crate::proxy::outcome::Outcome;
use crate::wire::edns::ExtendedError;
use crate::wire::response::{Asked, write_error};
use crate::wire::{Header, Question, Rcode};

/// The client of a query.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Client {
    pub(in crate::proxy) origin: Origin,
    pub(in crate::proxy) protocol: ClientProtocol,
    pub(in crate::proxy) received_at: Instant,
    /// The query is traced.
    pub(in crate::proxy) is_traced: bool,
}

/// The completion of a client's query.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Completion<'a> {
    pub(in crate::proxy) client: Client,
    pub(in crate::proxy) question: Option<Question<'a>>,
    pub(in crate::proxy) outcome: Outcome,
    /// The upstream that gave the answer.
    pub(in crate::proxy) upstream: Option<UpstreamIndex>,
    /// The verdict of the validator, if the answer was validated.
    pub(in crate::proxy) security: Option<SecurityKind>,
    /// The trace, if the query is traced and was not answered at once.
    pub(in crate::proxy) trace: Option<&'a Trace>,
}

impl Completion<'_> {
    /// Writes the response and records the completion.
    pub(in crate::proxy) fn respond(
        &self,
        counters: &mut Counters,
        cx: &mut Cx<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let message = cx.outbox.respond(self.client.origin, write);
        let rcode = Header::parse(cx.outbox.bytes(&message)).map(|header| header.flags.rcode());
        self.finish(rcode, message.len(), counters, cx);
    }

    /// Writes an error as the response and records the completion. A part of an extended code is in
    /// the OPT.
    pub(in crate::proxy) fn respond_error(
        &self,
        asked: &Asked<'_>,
        (rcode, error): (Rcode, Option<ExtendedError>),
        counters: &mut Counters,
        cx: &mut Cx<'_>,
    ) {
        let origin = self.client.origin;
        let message = cx
            .outbox
            .respond(origin, |out| write_error(out, asked, rcode, error));
        self.finish(Some(rcode), message.len(), counters, cx);
    }

    /// Records the completion of a query that gets no response.
    pub(in crate::proxy) fn end_without_response(&self, counters: &mut Counters, cx: &mut Cx<'_>) {
        self.finish(None, 0, counters, cx);
    }

    fn finish(&self, rcode: Option<Rcode>, len: usize, counters: &mut Counters, cx: &mut Cx<'_>) {
        let took = cx.now - self.client.received_at;
        counters.count_end(self.outcome, rcode, took);
        let is_traced = self.client.is_traced;
        if !cx.outbox.takes_records() && !is_traced {
            return;
        }
        let question = self
            .question
            .map(|question| cx.outbox.keep(question.as_bytes()));
        cx.outbox.record(Record {
            origin: self.client.origin,
            protocol: self.client.protocol,
            question,
            outcome: self.outcome,
            rcode,
            response_len: len,
            took,
            upstream: self.upstream,
            security: self.security,
            trace: is_traced.then(|| self.trace.cloned().unwrap_or_default()),
        });
    }
}
