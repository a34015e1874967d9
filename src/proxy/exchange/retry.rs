//! The state of a query that is resent: unchanged, with reduced EDNS, or over TCP.

use super::preferences::UpstreamSet;
use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::keys::{EndpointKey, UpstreamIndex};
use crate::proxy::upstream::ConnectionClose;
use crate::wire::query::EdnsLevel;

/// An error or an unusable reply, which another upstream may not give.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct BadAnswer {
    pub(in crate::proxy) by: EndpointKey,
    /// The time at which the query was sent to the endpoint.
    pub(in crate::proxy) sent_at: Instant,
    /// The reply was malformed, so it does not count as an answer.
    pub(in crate::proxy) is_malformed: bool,
}

/// The origin of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct AnswerSource {
    pub(in crate::proxy) endpoint: EndpointKey,
    pub(in crate::proxy) upstream: UpstreamIndex,
    pub(in crate::proxy) scheme: Scheme,
    pub(in crate::proxy) edns: EdnsLevel,
    /// The time at which the query was sent.
    pub(in crate::proxy) sent_at: Instant,
}

/// The reason why a query is sent for its question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lead {
    /// The query followed no other one, or one that failed for another reason.
    #[default]
    First,
    /// The query followed one that failed because upstream did not send records to validate it.
    AfterSilence,
}

/// Results of earlier attempts on which the next attempts and the response depend.
///
/// Most exchanges are answered by their first attempt, which allocates no such state.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RetryState {
    /// The fallback response, used if no better answer comes.
    fallback: Option<Box<[u8]>>,
    /// The last error that came as an answer.
    bad_answer: Option<BadAnswer>,
    /// Upstreams that sent a malformed or truncated reply on a connection.
    unusable_from: UpstreamSet,
    /// The endpoint that rejected the EDNS of the query, and the EDNS that the query has there
    /// instead.
    reduced_edns: Option<(EndpointKey, EdnsLevel)>,
    /// The close of a connection, and its endpoint, after which the query is sent alone: an answer
    /// shows that the query was not the reason for the close.
    close: Option<(EndpointKey, ConnectionClose)>,
    /// The query was sent over TCP because its datagrams were not answered.
    is_stream_fallback: bool,
    /// A failure is due to the time or the room of this query alone.
    fails_alone: bool,
    /// The query was first sent with less time left than an attempt may take.
    is_late: bool,
    lead: Lead,
}

/// The retry state of an exchange, allocated when it is first changed.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Retry(Option<Box<RetryState>>);

impl Retry {
    fn state(&mut self) -> &mut RetryState {
        self.0.get_or_insert_default()
    }

    /// Returns whether an earlier attempt changed the state.
    pub(in crate::proxy) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the last error that came as an answer.
    pub(in crate::proxy) fn bad_answer(&self) -> Option<BadAnswer> {
        self.0.as_ref()?.bad_answer
    }

    /// Returns whether there is a fallback response.
    pub(in crate::proxy) fn has_fallback(&self) -> bool {
        let state = self.0.as_ref();
        state.is_some_and(|state| state.fallback.is_some())
    }

    /// Removes the fallback response and returns it.
    pub(in crate::proxy) fn take_fallback(&mut self) -> Option<Box<[u8]>> {
        self.0.as_mut()?.fallback.take()
    }

    /// Sets the fallback response.
    pub(in crate::proxy) fn set_fallback(&mut self, response: Box<[u8]>) {
        self.state().fallback = Some(response);
    }

    /// Records an error or a malformed reply.
    pub(in crate::proxy) fn set_bad_answer(&mut self, bad_answer: BadAnswer) {
        self.state().bad_answer = Some(bad_answer);
    }

    /// Records that an upstream sent a malformed or truncated reply on a connection. Returns
    /// whether that reply is its first one.
    pub(in crate::proxy) fn add_unusable(&mut self, upstream: UpstreamIndex) -> bool {
        let state = self.state();
        let is_first = !state.unusable_from.contains(upstream);
        state.unusable_from.insert(upstream);
        is_first
    }

    /// Returns the EDNS of the query at an endpoint that has rejected more of it.
    pub(in crate::proxy) fn reduced_edns(&self, endpoint: EndpointKey) -> Option<EdnsLevel> {
        let (refused_by, level) = self.0.as_ref()?.reduced_edns?;
        (refused_by == endpoint).then_some(level)
    }

    /// Reduces the EDNS of the query at an endpoint.
    pub(in crate::proxy) fn reduce_edns(&mut self, endpoint: EndpointKey, level: EdnsLevel) {
        self.state().reduced_edns = Some((endpoint, level));
    }

    /// Records the close of a connection after which the query is sent alone.
    pub(in crate::proxy) fn set_close(&mut self, endpoint: EndpointKey, close: ConnectionClose) {
        self.state().close = Some((endpoint, close));
    }

    /// Removes the close of a connection to this endpoint and returns it.
    pub(in crate::proxy) fn take_close(
        &mut self,
        endpoint: EndpointKey,
    ) -> Option<ConnectionClose> {
        let close = &mut self.0.as_mut()?.close;
        let (_, close) = close.take_if(|(by, _)| *by == endpoint)?;
        Some(close)
    }

    /// Returns whether a failure is due to the time or the room of this query alone, so that it is
    /// not cached.
    pub(in crate::proxy) fn fails_alone(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.fails_alone)
    }

    /// Returns whether the query was first sent with less time left than an attempt may take.
    pub(in crate::proxy) fn is_late(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.is_late)
    }

    /// Sets whether the query is first sent with less time left than an attempt may take.
    pub(in crate::proxy) fn set_late(&mut self, is_late: bool) {
        if is_late != self.is_late() {
            self.state().is_late = is_late;
        }
    }

    /// Records that a failure is due to the time or the room of this query alone.
    pub(in crate::proxy) fn set_fails_alone(&mut self) {
        self.state().fails_alone = true;
    }

    /// Returns whether the query followed one that failed because upstream did not send records to
    /// validate it.
    pub(in crate::proxy) fn has_followed_silence(&self) -> bool {
        let state = self.0.as_ref();
        state.is_some_and(|state| state.lead == Lead::AfterSilence)
    }

    /// Records that the query followed one that failed because upstream did not send records to
    /// validate it.
    pub(in crate::proxy) fn set_followed_silence(&mut self) {
        self.state().lead = Lead::AfterSilence;
    }

    /// Returns whether the query was sent over TCP because its datagrams were not answered.
    pub(in crate::proxy) fn is_stream_fallback(&self) -> bool {
        let state = self.0.as_ref();
        state.is_some_and(|state| state.is_stream_fallback)
    }

    /// Records that the query is sent over TCP because its datagrams were not answered.
    pub(in crate::proxy) fn set_stream_fallback(&mut self) {
        self.state().is_stream_fallback = true;
    }
}
