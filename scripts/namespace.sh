# shellcheck shell=bash
# Goes on in a network namespace of its own, which ends with the script. To be sourced before anything else,
# in bash, at the root of the repository.

if [ "${1:-}" != within ]; then
    for kind in --net "--net --map-root-user"; do
        # shellcheck disable=SC2086 # it may be several options
        unshare $kind true 2>/dev/null && exec unshare $kind "$0" within
    done
    echo "this needs root, or a kernel that gives namespaces to users: nothing was checked"
    exit 0
fi

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need ip unshare
ip link set lo up || exit 2
