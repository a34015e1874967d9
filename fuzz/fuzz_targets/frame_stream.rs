//! Control frames of a dnstap reader. For any input, frames are sent only after the reader has
//! accepted, and memory stays small.
//!
//! Input: the number of pieces (one byte), their lengths, the bytes of the connection.

#![no_main]

mod common;

use dotproxy::session::observer::frame_stream::frame;
use dotproxy::session::{FrameStream, Scratch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [pieces_len, rest @ ..] = input else {
        return;
    };
    let (pieces, bytes) = common::split_pieces(*pieces_len, rest);
    let stream = common::Script::new(bytes, pieces);
    let mut scratch = Scratch::new();
    let mut stream = FrameStream::new(stream);
    for _ in 0..bytes.len() + 2 {
        if stream.ready(&mut scratch).is_err() {
            return;
        }
        let is_taken = stream.send(1_000, |out| frame(out, |out| out.push(7)));
        assert_eq!(is_taken, stream.is_accepted());
        stream
            .flush(&mut scratch)
            .expect("the script has no errors");
        assert_eq!(stream.unsent_len(), 0);
    }
});
