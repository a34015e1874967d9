#!/bin/sh
# Installs the dependencies of the tests (Debian) and runs all tests. This takes 10 to 15 minutes on
# two cores, a third of which is compilation. No result depends on the load of the machine:
# scripts/promises.sh checks the performance targets.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n==> %s\n' "$1"; }

# Runs a command and prints its output when it ends, in one piece.
in_one_piece() {
    said=$(mktemp)
    outcome=0
    "$@" >"$said" 2>&1 || outcome=$?
    cat "$said"
    rm -f "$said"
    return "$outcome"
}

# The static binaries: the program for this architecture, and for another one.
host="$(uname -m)-unknown-linux-musl"
arm64=aarch64-unknown-linux-musl
export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
what_tests_need() {
    scripts/install_test_deps.sh || return
    if rustup target add "$host" "$arm64"; then
        cargo build --release --locked --target "$host" --target "$arm64"
    else
        echo "rustup does not have these targets here: skipped the checks of static binaries"
        rm -f "target/$host/release/dotproxy"
    fi
}
release() { cargo build --release --locked --bins --examples && cargo bench --locked --no-run --bench hot_paths; }

step "dependencies of the tests; format, lints, documentation; compilation"
in_one_piece what_tests_need &
needs=$!
in_one_piece release &
releases=$!
trap 'kill "$needs" "$releases" 2>/dev/null || true' EXIT
cargo fmt --all --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
cargo clippy --all-targets --all-features --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked
cargo test --all-features --locked --no-run
wait "$releases"
wait "$needs"
trap - EXIT
scripts/check_dependencies.py
shellcheck --external-sources scripts/*.sh .ci/run

step "tests"
RUST_TEST_THREADS=6 cargo test --all-features --locked

step "real clients, real resolver"
scripts/side_by_side.sh scripts/dig_test.sh
if [ -e "target/$host/release/dotproxy" ]; then
    DOTPROXY="target/$host/release/dotproxy" scripts/side_by_side.sh scripts/dig_test.sh
fi
scripts/side_by_side.sh scripts/restart_test.sh scripts/cache_test.sh scripts/units_test.sh \
    scripts/metrics_test.sh scripts/traces_test.sh scripts/tls_test.sh scripts/routes_test.sh \
    scripts/address_test.sh
scripts/flood_test.sh
scripts/memory_test.py --binary target/release/dotproxy --limit 6m --seconds 5
if [ -e "target/$host/release/dotproxy" ]; then
    scripts/memory_test.py --binary "target/$host/release/dotproxy" --limit 4m --seconds 5
fi

step "packaging; compilation of fuzz targets"
in_one_piece nice -n 19 scripts/fuzz.sh build &
targets=$!
trap 'kill "$targets" 2>/dev/null || true' EXIT
scripts/check_deploy.sh

step "instructions per query"
scripts/instructions.py

step "failing upstreams"
scripts/chaos.py --seconds 3 --check
wait "$targets"
trap - EXIT

step "flooding clients"
scripts/fairness.py --seconds 3 --alone

step "fuzz targets"
scripts/fuzz.sh 1

step "memory, size"
scripts/footprint.py

printf '\nall passed\n'
