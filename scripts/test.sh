#!/bin/sh
# Installs what the tests need (Debian) and passes all of them. About a quarter of an hour on two cores,
# half of it compiling.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n==> %s\n' "$1"; }

step "what the tests need"
scripts/install_test_deps.sh

step "format, lints, documentation, scripts"
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
cargo clippy --all-targets --all-features --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked
scripts/check_dependencies.py
shellcheck --external-sources scripts/*.sh .ci/run

step "tests"
# They wait more than they work.
RUST_TEST_THREADS=4 cargo test --all-features --locked

step "real clients, real resolver"
cargo build --release --locked
scripts/dig_test.sh
scripts/routes_test.sh
scripts/tls_test.sh
scripts/cache_test.sh
scripts/metrics_test.sh
scripts/traces_test.sh
scripts/address_test.sh
scripts/restart_test.sh
scripts/units_test.sh
scripts/flood_test.sh
scripts/memory_test.py --binary target/release/dotproxy --limit 6m --seconds 5

step "static binary"
target="$(uname -m)-unknown-linux-musl"
if rustup target add "$target"; then
    cargo build --release --locked --target "$target"
    DOTPROXY="target/$target/release/dotproxy" scripts/dig_test.sh
    scripts/memory_test.py --binary "target/$target/release/dotproxy" --limit 4m --seconds 5
else
    echo "rustup has no $target here: the static binary is not checked"
    rm -f "target/$target/release/dotproxy"
fi

step "what it is shipped with"
scripts/check_deploy.sh

step "promises: instructions, processor time, memory, size"
scripts/instructions.py
cargo build --release --locked --examples
scripts/bench.py --check --rounds 2 --workloads "forwarded,cached,one socket"
scripts/cache_bench.py --check

step "upstreams that fail"
scripts/chaos.py --seconds 4 --check

step "fuzz targets"
scripts/fuzz.sh 1

printf '\nall passed\n'
