#!/bin/sh
# Runs the tests, all of them or some steps, and installs their dependencies (Debian):
#
#   scripts/test.sh                all steps, 10 to 15 minutes on two cores, a third for compilation
#   scripts/test.sh STEP ...       only these; lint, unit, fuzz and msrv install no packages
#
#   lint      format, clippy, documentation, dependencies, shell scripts
#   unit      unit and property tests, simulations, the program in front of a faulty upstream
#   peers     real clients, a real resolver, failing upstreams, flooding clients, --memory-limit
#   deploy    manual page, documents, manifests, packages, workflows, ARM64
#   fuzz      each fuzz target for a second
#   limits    instructions per query, memory, size
#   msrv      compilation by the oldest supported Rust, which is installed; not among "all steps"
#
# No result depends on the load of the machine: scripts/promises.sh checks the performance targets.
set -eu
cd "$(dirname "$0")/.."
# Tools that scripts/install_test_deps.sh installs below target/.
PATH="$PATH:$PWD/target/python/bin"

# The static binaries: the program for this architecture, and for another one.
host="$(uname -m)-unknown-linux-musl"
arm64=aarch64-unknown-linux-musl
export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc

title() { printf '\n==> %s\n' "$1"; }

# Runs a command and prints its output when it ends, in one piece.
in_one_piece() {
    said=$(mktemp)
    outcome=0
    "$@" >"$said" 2>&1 || outcome=$?
    cat "$said"
    rm -f "$said"
    return "$outcome"
}

# The next functions run as `in_one_piece`, where `set -e` has no effect.
install() {
    scripts/install_test_deps.sh || return
    if rustup target add "$host" "$arm64"; then
        cargo build --release --locked --target "$host" --target "$arm64"
    else
        echo "rustup does not have these targets here: skipped the checks of static binaries"
        rm -f "target/$host/release/dotproxy"
    fi
}
build() { cargo build --release --locked --bins --examples && cargo bench --locked --no-run --bench hot_paths; }

# Installs and builds everything that the steps after `unit` need.
prepare() {
    title "dependencies of the tests; compilation"
    install
    build
}

lint() {
    lint_code
    lint_others
}

lint_code() {
    title "format, lints, documentation"
    cargo fmt --all --check
    cargo fmt --check --manifest-path fuzz/Cargo.toml
    cargo clippy --all-targets --all-features --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked
}

lint_others() {
    title "shell scripts, dependencies"
    shellcheck --external-sources scripts/*.sh .ci/run
    check_dependencies
}

# Checks the dependencies by deny.toml. Outside of CI, the database of advisories may be out of reach.
check_dependencies() {
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "skipped the dependencies: cargo-deny is not installed (scripts/install_test_deps.sh)"
        return
    fi
    cargo deny --all-features --locked check bans licenses sources
    if [ -n "${GITHUB_ACTIONS:-}" ] || in_one_piece cargo deny fetch db; then
        cargo deny --all-features --locked check advisories
    else
        echo "skipped the advisories: their database is out of reach"
    fi
}

unit() {
    title "unit tests, simulations"
    RUST_TEST_THREADS=6 cargo test --all-features --locked
}

peers() {
    title "real clients, real resolver"
    scripts/side_by_side.sh scripts/dig_test.sh
    if [ -e "target/$host/release/dotproxy" ]; then
        DOTPROXY="target/$host/release/dotproxy" scripts/side_by_side.sh scripts/dig_test.sh
    fi
    scripts/side_by_side.sh scripts/restart_test.sh scripts/cache_test.sh scripts/units_test.sh \
        scripts/metrics_test.sh scripts/traces_test.sh scripts/tls_test.sh scripts/routes_test.sh \
        scripts/address_test.sh scripts/home_test.sh
    scripts/flood_test.sh
    scripts/memory_test.py --binary target/release/dotproxy --limit 6m --seconds 5
    if [ -e "target/$host/release/dotproxy" ]; then
        scripts/memory_test.py --binary "target/$host/release/dotproxy" --limit 4m --seconds 5
    fi
    title "key exchange with OpenSSL"
    scripts/key_exchange_test.py target/release/dotproxy
    title "DNS over HTTPS"
    scripts/doh_test.py
    scripts/doh_clients_test.py
    title "status page in Chromium"
    scripts/status_page_test.py
    title "check of the upstreams"
    scripts/check_upstreams_test.py
    title "DNSSEC"
    scripts/dnssec_tree.py
    title "failing upstreams"
    scripts/chaos.py --seconds 3 --check
    title "flooding clients"
    scripts/fairness.py --seconds 3 --alone
}

deploy() {
    title "packaging"
    scripts/check_deploy.sh
}

fuzz() {
    title "fuzz targets"
    scripts/fuzz.sh 1
}

limits() {
    title "instructions per query"
    scripts/instructions.py
    title "memory, size"
    scripts/footprint.py
}

msrv() {
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    title "Rust $version"
    rustup toolchain install --profile minimal "$version"
    CARGO_TARGET_DIR=target/msrv cargo "+$version" build --all-features --locked
}

# Runs all steps. What only compiles runs beside what only waits.
all() {
    title "dependencies of the tests; compilation"
    in_one_piece install &
    installed=$!
    in_one_piece build &
    built=$!
    trap 'kill "$installed" "$built" 2>/dev/null || true' EXIT
    lint_code
    cargo test --all-features --locked --no-run
    wait "$built"
    wait "$installed"
    trap - EXIT
    lint_others
    unit
    in_one_piece nice -n 19 scripts/fuzz.sh build &
    targets=$!
    trap 'kill "$targets" 2>/dev/null || true' EXIT
    peers
    deploy
    wait "$targets"
    trap - EXIT
    limits
    fuzz
}

[ $# -gt 0 ] || set -- all
for step; do
    case $step in
    lint | unit | fuzz | msrv | all) ;;
    peers | deploy | limits) is_release=true ;;
    *)
        echo "scripts/test.sh: $step: expected lint, unit, peers, deploy, fuzz, limits or msrv" >&2
        exit 2
        ;;
    esac
done
[ -z "${is_release:-}" ] || prepare
for step; do "$step"; done
printf '\n%s passed\n' "$*"
