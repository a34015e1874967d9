//! What a certificate says: whatever it is, its end and its owner are read or they are not, and the
//! owner is no longer than what is told of it.
//!
//! Input: the certificate.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = dotproxy::tls::expires_at(input);
    if let Some(subject) = dotproxy::tls::subject(input) {
        assert!(subject.chars().count() <= 256);
        assert!(subject.len() <= 2 * input.len() + 64);
    }
});
