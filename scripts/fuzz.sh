#!/bin/sh
# Runs fuzz targets, every one if none is named, for so many seconds each, 60 if not given:
# scripts/fuzz.sh [SECONDS [TARGET ...]]. Or makes them ready for that, and no more: scripts/fuzz.sh build.
# Findings stay in fuzz/artifacts, and what the fuzzer has learned in fuzz/corpus.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
    set -- fuzz_targets/*.rs
fi

# The targets want unstable compiler flags, which a stable compiler takes with this.
export RUSTC_BOOTSTRAP=1
# What cargo-fuzz passes without a sanitizer: counters at every edge, for libFuzzer to follow.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
--cfg fuzzing -Ccodegen-units=1"

host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --locked --target "$host"
[ "$seconds" != build ] || exit 0
for source; do
    target=$(basename "$source" .rs)
    [ "$target" != common ] || continue
    mkdir -p "corpus/$target" "artifacts/$target"
    printf '%s for %s s\n' "$target" "$seconds"
    log=$(mktemp)
    if ! "target/$host/release/$target" "corpus/$target" "seeds/$target" \
        -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -max_len=4096 \
        -print_final_stats=1 >"$log" 2>&1; then
        cat "$log"
        exit 1
    fi
    grep -E 'number_of_executed_units|peak_rss_mb' "$log"
    rm -f "$log"
done
