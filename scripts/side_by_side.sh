#!/bin/sh
# Runs scripts side by side, three at a time, for they wait more than they work: each in a network of its
# own where that may be, and otherwise one after the other. What one of them says is shown when it is over.
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
