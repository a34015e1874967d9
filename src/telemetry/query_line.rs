//! A log line of level trace for each finished query.
//!
//! The line has the address of the client and the queried name. Queried names are logged at levels
//! debug and trace only (RFC 9076).

use crate::proxy::Record;
use crate::wire::Question;

/// Logs a finished query, with its question and the upstream of the answer.
pub fn log(record: &Record, question: Option<&[u8]>, upstream: Option<&str>) {
    let question = question.and_then(|bytes| Question::parse(bytes, 0).ok());
    let name = question.map_or_else(String::new, |one| one.shown_name().to_string());
    let rr_type = question.map_or_else(String::new, |one| one.rr_type().to_string());
    let asked = match question {
        Some(_) => format!("{name} {rr_type}"),
        None => "no question".to_owned(),
    };
    let rcode = match record.rcode {
        Some(rcode) => rcode.to_string(),
        None => "no response".to_owned(),
    };
    let (transport, outcome) = (record.protocol.label(), record.outcome.label());
    let upstream = upstream.unwrap_or("none");
    let micros = u32::try_from(record.took.as_micros()).unwrap_or(u32::MAX);
    let ms = f64::from(micros) / 1000.0;
    let client = record.origin.peer;
    log::trace!(
        event = "query", client:% = client, transport = transport, name:% = name, type:% = rr_type,
        outcome = outcome, rcode:% = rcode, upstream = upstream, ms = ms;
        "query of {client} over {transport}: {asked}: {rcode} ({outcome}), upstream \
         {upstream}, {ms} ms"
    );
}
