#!/bin/sh
# Runs fuzz targets for SECONDS each, 60 by default; without names, all of them: scripts/fuzz.sh
# [SECONDS [TARGET ...]]. `scripts/fuzz.sh build` only compiles them. Findings are in
# fuzz/artifacts, the corpora in fuzz/corpus.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
    set -- fuzz_targets/*.rs
fi

# The targets need unstable compiler flags, which this enables in a stable compiler.
export RUSTC_BOOTSTRAP=1
# The flags that cargo-fuzz passes without a sanitizer: counters at every edge for libFuzzer.
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
