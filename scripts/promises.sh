#!/bin/sh
# Checks what is promised of speed: processor time beside unbound and a bare echo, what an answer from the cache
# costs as the cache grows, and latency under a flood, beside a client that floods, and beside an upstream that
# fails. It takes a machine that does nothing else, so scripts/test.sh leaves it out and the scheduled workflow
# runs it.
set -eu
cd "$(dirname "$0")/.."

scripts/install_test_deps.sh
cargo build --release --locked --bins --examples
host="$(uname -m)-unknown-linux-musl"
if rustup target add "$host"; then
    cargo build --release --locked --target "$host"
else
    echo "rustup has no target $host here: the static binary is not measured"
    rm -f "target/$host/release/dotproxy"
fi
PROMISES=1 scripts/flood_test.sh
scripts/chaos.py --seconds 3 --promises
scripts/fairness.py --seconds 10 --check
scripts/bench.py --check --rounds 1 --workloads "forwarded,cached,one socket"
scripts/cache_bench.py --check
