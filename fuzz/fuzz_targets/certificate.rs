//! A certificate. For any input, expiry and subject are parsed or refused, and a subject keeps its
//! length limit.
//!
//! Input: the certificate.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = dotproxy::tls::validity(input);
    if let Some(subject) = dotproxy::tls::subject(input) {
        assert!(subject.chars().count() <= 256);
        assert!(subject.len() <= 2 * input.len() + 64);
    }
});
