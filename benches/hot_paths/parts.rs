//! What is read of every message.

use std::hint::black_box;

use dotproxy::wire::Message;

use crate::Once;
use crate::messages::{query, reply};

/// A client's query is read: header, question, OPT.
pub(crate) fn scan_query() -> Once {
    scan(query(1, "www.hot.example.net", 1, Some(1232)))
}

/// An answer is read: header, question, four records, OPT.
pub(crate) fn scan_answer() -> Once {
    scan(reply(&query(1, "www.hot.example.net", 1, Some(1232)), 4))
}

fn scan(message: Vec<u8>) -> Once {
    Box::new(move || {
        let message = Message::parse(black_box(&message)).expect("it is well formed");
        black_box(message.question());
    })
}
