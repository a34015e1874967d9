//! Records of finished queries, for the query log and the log.

use log::Level;

use crate::net::Net;
use crate::proxy::{Outbox, Proxy, Record};
use crate::reactor::{Reactor, client_at};
use crate::session::ClientStream;
use crate::telemetry::query_line;
use crate::telemetry::query_log::QueryLog;

/// Returns whether queries that end are recorded: for the query log, or for lines of level trace.
pub(in crate::reactor) fn are_taken(query_log: Option<&QueryLog>) -> bool {
    query_log.is_some() || log::log_enabled!(Level::Trace)
}

/// Returns the question of a record, and the label of the upstream that replied.
pub(super) fn names_of<'a>(
    record: &Record,
    outbox: &'a Outbox,
    proxy: &'a Proxy,
) -> (Option<&'a [u8]>, Option<&'a str>) {
    let question = record.question.as_ref().map(|range| outbox.bytes(range));
    let upstream = record.upstream.map(|index| proxy.upstream_label(index));
    (question, upstream)
}

impl<N: Net> Reactor<N> {
    /// Appends the finished queries to the logs.
    pub(in crate::reactor) fn record_all(&mut self, outbox: &Outbox) {
        if log::log_enabled!(Level::Trace) {
            self.trace_lines(outbox);
        }
        let Some(query_log) = &mut self.query_log else {
            return;
        };
        for record in outbox.records() {
            let (question, upstream) = names_of(record, outbox, &self.proxy);
            let client = client_at(&self.sessions, record.origin.session);
            let identity = client.and_then(ClientStream::identity);
            query_log.add(record, question, upstream, identity);
        }
    }

    #[cold]
    fn trace_lines(&self, outbox: &Outbox) {
        for record in outbox.records() {
            let (question, upstream) = names_of(record, outbox, &self.proxy);
            query_line::log(record, question, upstream);
        }
    }

    /// Starts or stops the recording of queries, as the current log levels require.
    pub(in crate::reactor) fn follow_log_level(&mut self) {
        let takes_records = are_taken(self.query_log.as_ref());
        self.outbox.set_takes_records(takes_records);
        self.outbox_in_work.set_takes_records(takes_records);
    }
}
