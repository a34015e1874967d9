//! Notes when the program was built: no certificate is judged by an earlier time (`src/clock.rs`).
//! For builds that can be repeated, `SOURCE_DATE_EPOCH` says when that was.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let built_at = given
        .and_then(|text| text.parse().ok())
        .or_else(|| now().map(|now| now.as_secs()))
        .unwrap_or(0);
    println!("cargo::rustc-env=BUILT_AT={built_at}");
}
