//! The entries of a cache file. Any bytes are an error or fill the cache, whose answers can then be
//! written again, and its memory limit holds.
//!
//! Input: the time since the file was written in seconds (three bytes; zero is an unknown time), and
//! the entries.

#![no_main]

mod common;

use std::time::Duration;

use dotproxy::base::time::Instant;
use dotproxy::proxy::{Proxy, Restored};
use libfuzzer_sys::fuzz_target;

const SIZE: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let [high, middle, low, entries @ ..] = input else {
        return;
    };
    let seconds = u32::from_be_bytes([0, *high, *middle, *low]);
    let elapsed = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    let config = common::configured(&["-u192.0.2.1#dot.example", "--cache-size=64k"]);
    let now = Instant::default();
    let mut proxy = Proxy::new(&config, &[7; 32]);
    let restored = proxy.restore_cache(&mut &*entries, elapsed, now);
    let usage = proxy.cache_usage();
    assert!(usage.bytes <= SIZE);
    let mut written = Vec::new();
    let saved = proxy
        .save_cache(now, &mut written)
        .expect("a buffer takes any bytes");
    let Ok(Restored { fresh, stale }) = restored else {
        return assert_eq!((saved, usage.entries), (0, 0));
    };
    assert_eq!(usage.entries, saved);
    assert!(saved <= fresh + stale);
    let mut again = Proxy::new(&config, &[8; 32]);
    let restored = again.restore_cache(&mut &*written, Some(Duration::ZERO), now);
    let restored = restored.expect("what was written can be read");
    assert_eq!(
        restored,
        Restored {
            fresh: restored.fresh,
            stale: saved - restored.fresh
        }
    );
});
