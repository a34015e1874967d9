//! Notes when the program was built, and sets code apart that never runs.

use std::env;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    note_time();
    set_dead_code_apart();
}

/// No certificate is judged by an earlier time than that of the build (`src/clock.rs`). For builds
/// that can be repeated, `SOURCE_DATE_EPOCH` says when that was.
fn note_time() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let built_at = given
        .and_then(|text| text.parse().ok())
        .or_else(|| now().map(|now| now.as_secs()))
        .unwrap_or(0);
    println!("cargo::rustc-env=BUILT_AT={built_at}");
}

/// The standard library brings 170 KB of code that reads debug information, for the report of a
/// panic, whether or not there is any. Where it lies among the rest it comes into memory with it,
/// since the kernel maps pages in groups; behind the rest it does not. GNU ld and LLD take a script
/// that adds to their own; other linkers do without.
fn set_dead_code_apart() {
    const SCRIPT: &str = "SECTIONS { .text.dead : { *( \
        .text.*backtrace_rs* .text.*gimli* .text.*addr2line* .text.*miniz_oxide* \
        .text.*rustc_demangle*) } } INSERT AFTER .text;\n";
    let variable = |name| env::var(name).unwrap_or_default();
    let linker = variable("RUSTC_LINKER") + &variable("CARGO_ENCODED_RUSTFLAGS");
    let is_other = ["gold", "mold", "wild"].iter().any(|n| linker.contains(n));
    if variable("CARGO_CFG_TARGET_OS") != "linux" || is_other {
        return;
    }
    let path = Path::new(&variable("OUT_DIR")).join("dead-code.ld");
    std::fs::write(&path, SCRIPT).expect("cargo gives a folder to write to");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", path.display());
}
