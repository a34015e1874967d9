#!/bin/sh
# Checks the performance targets: processor time against unbound and a bare echo, the cost of a hit
# as the cache grows, and latency under a flood, beside a client that floods, and beside an upstream
# that fails. The results need an otherwise idle machine, so scripts/test.sh leaves this script out
# and the scheduled workflow runs it.
set -eu
cd "$(dirname "$0")/.."

scripts/install_test_deps.sh
cargo build --release --locked --bins --examples
host="$(uname -m)-unknown-linux-musl"
if rustup target add "$host"; then
    cargo build --release --locked --target "$host"
else
    echo "rustup does not have the target $host here: skipped the static binary"
    rm -f "target/$host/release/dotproxy"
fi
PROMISES=1 scripts/flood_test.sh
scripts/chaos.py --seconds 3 --promises
scripts/fairness.py --seconds 10 --check
scripts/bench.py --check --rounds 1 --workloads "forwarded,cached,one socket"
scripts/cache_bench.py --check
