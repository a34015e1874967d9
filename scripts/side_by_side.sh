#!/bin/sh
# Runs three scripts at a time, since they mostly wait: each in its own network namespace if
# possible, and otherwise one after the other. The output of a script is printed when it ends.
set -eu

if [ "${1:-}" = --one ]; then
    said=$(mktemp)
    outcome=0
    { ip link set lo up && "$2"; } >"$said" 2>&1 || outcome=$?
    printf -- '--- %s\n' "$2"
    cat "$said"
    rm -f "$said"
    exit "$outcome"
fi
if unshare --net true 2>/dev/null; then
    printf '%s\n' "$@" | xargs -P 3 -I '{}' unshare --net "$0" --one '{}'
else
    for script; do "$script"; done
fi
