//! Records the build time, and passes linker options that reduce memory and the size of the binary.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    record_build_time();
    compress_status_page();
    reduce_resident_memory();
}

/// Records the build time, which is the earliest time for the verification of certificates
/// (`src/tls/clock.rs`). `SOURCE_DATE_EPOCH` sets the build time of reproducible builds.
fn record_build_time() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let built_at = given
        .and_then(|text| text.parse().ok())
        .or_else(|| now().map(|now| now.as_secs()))
        .unwrap_or(0);
    println!("cargo::rustc-env=BUILT_AT={built_at}");
}

/// Compresses the status page (`src/reactor/export/status.rs`).
fn compress_status_page() {
    const PAGE: &str = "src/reactor/export/status.html";
    println!("cargo::rerun-if-changed={PAGE}");
    let page = std::fs::read(PAGE).expect("the page is in the package");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(&page).and_then(|()| encoder.finish());
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let path = Path::new(&folder).join("status.html.gz");
    let compressed = written.expect("writing to a buffer cannot fail");
    std::fs::write(path, compressed).expect("cargo sets OUT_DIR to a writable folder");
}

/// Passes options that reduce the resident part of the binary. Linkers other than GNU ld and LLD do
/// not get them.
fn reduce_resident_memory() {
    let variable = |name| env::var(name).unwrap_or_default();
    let linker = variable("RUSTC_LINKER") + &variable("CARGO_ENCODED_RUSTFLAGS");
    let is_other = ["gold", "mold", "wild"].iter().any(|n| linker.contains(n));
    if variable("CARGO_CFG_TARGET_OS") != "linux" || is_other {
        return;
    }
    let script = Path::new(&variable("OUT_DIR")).join("cold-code.ld");
    // A profiler needs the tables to walk the stack.
    let has_debuginfo = variable("DEBUG") != "false";
    let tables = if has_debuginfo { "" } else { NO_UNWINDING };
    // On other processors, GNU ld puts code and constants into one segment. LLD, which links for
    // glibc, puts constants in front of code.
    let has_separate_code = variable("CARGO_CFG_TARGET_ARCH") == "x86_64";
    let text = if has_separate_code && variable("CARGO_CFG_TARGET_ENV") == "musl" {
        format!(
            "SECTIONS {{ .text.start : {{ {START_CODE} }} {tables} }} INSERT AFTER .text;\n\
             SECTIONS {{ .text.rare {NEXT_PAGE} : {{ {RARE_CODE} }} }} \
             INSERT AFTER .gcc_except_table;\n"
        )
    } else {
        let cold = format!(".text.cold : {{ {START_CODE} {RARE_CODE} }}");
        format!("SECTIONS {{ {cold} {tables} }} INSERT AFTER .text;\n")
    };
    std::fs::write(&script, text).expect("cargo sets OUT_DIR to a writable folder");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    // Packed relocations take one word per group instead of three words each. The C library must
    // support them: glibc of this machine, if the program is built for this machine, or the musl of
    // the compiler, which is linked into the program.
    let is_native = variable("HOST") == variable("TARGET");
    let can_read = match variable("CARGO_CFG_TARGET_ENV").as_str() {
        "gnu" => is_native && glibc() >= Some((2, 36)),
        "musl" => compiler() >= Some((1, 93)),
        _ => false,
    };
    if can_read {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Code that runs only at the start. Between other code it would become resident with that code,
/// since the kernel maps pages in groups. In front of it are the functions of vectors, which the
/// compiler names after a crate that uses them, and which [`RARE_CODE`] must not contain.
const START_CODE: &str = "\
    *( .text.*alloc7raw_vec* ) \
    *( .text.*dotproxy4main* .text.*dotproxy7options* .text.*getopts* .text.*dotproxy3tls5files* \
    .text.*dotproxy3tls6set_up* .text.*pki_types3pem* .text.*landlock* \
    .text.*dotproxy7process7sandbox* .text.*dotproxy..process..sandbox* .text.*parse_crls* \
    .text.*proxy11reconfigure8Topology* )";

/// Code that does not run while a program with the default options forwards queries over TLS 1.3:
/// features that are off by default (DNSSEC validation, block lists, domains of upstreams, DNS64, the
/// cache file, `--check-upstreams`, upstreams by host name, pins, TLS servers, HTTP/2, the HTTP
/// endpoint, traces, revocation lists, `--user`), TLS 1.2, the exchange of settings, Encrypted Client
/// Hello, the text of errors, and the parts of the standard library that read stack frames and debug
/// information for the message of a panic, which are in every binary. The static binary for x86-64
/// has this code in a segment of its own, behind the constants. The kernel maps a group of pages only
/// within a segment, so that none of this code is resident before it runs, however large the groups
/// of the page cache are.
const RARE_CODE: &str = "\
    *( .text.*dotproxy6dnssec* .text.*dotproxy..dnssec..* .text.*proxy9validator* \
    .text.*config12trust_anchor* .text.*rustls6server* .text.*rustls..server..* \
    .text.*rustls..crypto..ring..sign* .text.*ring3rsa7keypair* .text.*ecdsa7signing* \
    .text.*ed255197signing* .text.*x25519_sc_muladd* .text.*webpki3crl* .text.*webpki..crl* \
    .text.*rustls6client3ech* .text.*rustls6client5tls12* .text.*rustls..client..tls12* ) \
    *( .text.*session5http2* .text.*session..http2..* .text.*session8upstream5http2* \
    .text.*session..upstream..http2..* .text.*session6client5https* .text.*client..https..* \
    .text.*upstream12http2_events* .text.*proxy6client10designated* ) \
    *( .text.*dotproxy5block* .text.*dotproxy..block..* .text.*base10name_table* \
    .text.*proxy6client7blocked* .text.*proxy6client5hosts* .text.*base10file_lines* \
    .text.*config7domains* .text.*options13domains_files* .text.*config5dns64* \
    .text.*proxy5dns64* .text.*wire13record_writer* .text.*reactor10cache_file* \
    .text.*proxy5Proxy13restore_cache* .text.*proxy5Proxy10save_cache* \
    .text.*wire13without_proof* ) \
    *( .text.*dotproxy15check_upstreams* .text.*dotproxy..check_upstreams..* \
    .text.*dotproxy7process5probe* .text.*session8observer* .text.*reactor6export4http* \
    .text.*reactor6export7metrics* .text.*reactor6export6status* .text.*reactor6export10connection* \
    .text.*reactor6export13query_records*lines* .text.*upstream9bootstrap*12on_addresses* \
    .text.*base4file5owner* .text.*base646engine* .text.*transport3tls8describe* \
    .text.*9telemetry4json* .text.*9telemetry6dnstap* .text.*9telemetry10proc_stats* \
    .text.*9telemetry11openmetrics* .text.*httparse* .text.*httpdate* \
    .text.*proxy11reconfigure*Proxy* .text.*dotproxy3tls7explain* .text.*core..fmt..Debug* \
    .text.*flt2dec* .text.*fmt5float* .text.*core5slice4sort*quicksort* \
    .text.*core5slice4sort*drift* .text.*core5slice4sort*heapsort* .text.*small_sort_general* ) \
    *( .text.*backtrace_rs* .text.*gimli* .text.*addr2line* .text.*miniz_oxide* \
    .text.*rustc_demangle* .text.*libunwind* .text.unwind_phase* .text.*_Unwind_* .text.__unw_* )";

/// The address of a section that begins a segment: on a page of its own, with the offset within the
/// page that the section has in the file.
const NEXT_PAGE: &str = "ALIGN(CONSTANT(MAXPAGESIZE)) + (. & (CONSTANT(MAXPAGESIZE) - 1))";

/// Discards the 160 KB of unwinding tables: a panic prints its location and aborts the program. The
/// start files of the C library refer to their own tables, which are kept.
const NO_UNWINDING: &str = "/DISCARD/ : { \
    *( EXCLUDE_FILE( *crtbegin*.o *crtend*.o *crt1.o *crti.o *crtn.o ) .eh_frame ) \
    *( .gcc_except_table .gcc_except_table.* ) }";

/// Returns the version of this machine's C library, if it is glibc.
fn glibc() -> Option<(u32, u32)> {
    version(Command::new("getconf").arg("GNU_LIBC_VERSION"), "glibc ")
}

/// Returns the version of the compiler.
fn compiler() -> Option<(u32, u32)> {
    let rustc = env::var_os("RUSTC")?;
    version(Command::new(rustc).arg("--version"), "rustc ")
}

/// Returns the two numbers after `name` in the output of the command.
fn version(command: &mut Command, name: &str) -> Option<(u32, u32)> {
    let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
    let mut numbers = text.strip_prefix(name)?.trim().split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}
