//! Notes when the program was built, and tells the linker what saves memory and octets.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    note_time();
    save_memory();
}

/// No certificate is judged by an earlier time than that of the build (`src/tls/clock.rs`). For builds
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

/// What makes less of the program resident. Other linkers than GNU ld and LLD do without.
fn save_memory() {
    let variable = |name| env::var(name).unwrap_or_default();
    let linker = variable("RUSTC_LINKER") + &variable("CARGO_ENCODED_RUSTFLAGS");
    let is_other = ["gold", "mold", "wild"].iter().any(|n| linker.contains(n));
    if variable("CARGO_CFG_TARGET_OS") != "linux" || is_other {
        return;
    }
    let script = Path::new(&variable("OUT_DIR")).join("cold-code.ld");
    // A profiler walks the stack by the tables.
    let has_debuginfo = variable("DEBUG") != "false";
    let tables = if has_debuginfo { "" } else { NO_UNWINDING };
    let text = format!("SECTIONS {{ {COLD_CODE} {tables} }} INSERT AFTER .text;\n");
    std::fs::write(&script, text).expect("cargo gives a folder to write to");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    // Relocations take a word for a group of them, not three for each, where the C library can read
    // that: glibc of this machine, if it is the one that the program is to run on, or the musl that
    // comes with the compiler and goes into the program.
    let is_for_here = variable("HOST") == variable("TARGET");
    let can_read = match variable("CARGO_CFG_TARGET_ENV").as_str() {
        "gnu" => is_for_here && glibc() >= Some((2, 36)),
        "musl" => compiler() >= Some((1, 93)),
        _ => false,
    };
    if can_read {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Code that runs at the start, or for few, or never: where it lies among the rest it comes into
/// memory with it, since the kernel maps pages in groups; behind the rest it does not. The last are
/// 170 KB of the standard library that read debug information for the report of a panic, whether or
/// not there is any.
const COLD_CODE: &str = ".text.cold : { \
    *( .text.*dotproxy4main* .text.*dotproxy7options* .text.*getopts* .text.*dotproxy3tls5files* \
    .text.*dotproxy3tls6set_up* .text.*pki_types3pem* .text.*landlock* \
    .text.*dotproxy7process7sandbox* .text.*dotproxy..process..sandbox* .text.__getgr_a .text.__getpw_a ) \
    *( .text.*rustls6server* .text.*rustls..server..* .text.*rustls..crypto..ring..sign* \
    .text.*ring3rsa7keypair* .text.*ecdsa7signing* .text.*x25519_sc_muladd* \
    .text.*webpki3crl* .text.*webpki..crl* .text.*parse_crls* ) \
    *( .text.*backtrace_rs* .text.*gimli* .text.*addr2line* .text.*miniz_oxide* \
    .text.*rustc_demangle* ) }";

/// What unwinding would need, which are 160 KB: a panic says where it is, and ends the program. Those
/// who begin and end the program refer to theirs.
const NO_UNWINDING: &str = "/DISCARD/ : { \
    *( EXCLUDE_FILE( *crtbegin*.o *crtend*.o *crt1.o *crti.o *crtn.o ) .eh_frame ) \
    *( .gcc_except_table .gcc_except_table.* ) }";

/// The version of this machine's C library, if that is glibc.
fn glibc() -> Option<(u32, u32)> {
    version(Command::new("getconf").arg("GNU_LIBC_VERSION"), "glibc ")
}

/// The version of the compiler.
fn compiler() -> Option<(u32, u32)> {
    let rustc = env::var_os("RUSTC")?;
    version(Command::new(rustc).arg("--version"), "rustc ")
}

/// The two numbers that follow `name` in what the command prints.
fn version(command: &mut Command, name: &str) -> Option<(u32, u32)> {
    let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
    let mut numbers = text.strip_prefix(name)?.trim().split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}
