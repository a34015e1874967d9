//! Parsing of messages.

use std::hint::black_box;

use dotproxy::wire::Message;

use crate::Once;
use crate::messages::{query, reply};

/// Parses a client's query: header, question, OPT.
pub(crate) fn scan_query() -> Once {
    scan(query(1, "www.hot.example.net", 1, Some(1232)))
}

/// Parses an answer: header, question, four records, OPT.
pub(crate) fn scan_answer() -> Once {
    scan(reply(&query(1, "www.hot.example.net", 1, Some(1232)), 4))
}

fn scan(message: Vec<u8>) -> Once {
    Box::new(move || {
        let message = Message::parse(black_box(&message)).expect("the message is well formed");
        black_box(message.question());
    })
}
