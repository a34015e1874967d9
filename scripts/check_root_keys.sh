#!/bin/sh
# Compares the built-in trust anchors (src/config/trust_anchor.rs) with the key signing keys of the
# root zone. A release must have all of them.
#
#   scripts/check_root_keys.sh @9.9.9.9                     those that a resolver returns
#   scripts/check_root_keys.sh /usr/share/dns/root.key      those in a file with DNSKEY records
set -eu
cd "$(dirname "$0")/.."
source=${1:?expected @RESOLVER or a file}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $source in
    @*) dig +noall +answer "$source" . DNSKEY ;;
    *) cat "$source" ;;
esac | sed -n 's/^\.[[:space:]].*DNSKEY[[:space:]]*257[[:space:]]/. 3600 IN DNSKEY 257 /p' >"$work/keys"
if [ ! -s "$work/keys" ]; then
    echo "$source: expected DNSKEY records of the root zone with flags 257" >&2
    exit 1
fi
dnssec-dsfromkey -2 -f "$work/keys" . | sort >"$work/shown"
grep -E '^\. IN DS ' src/config/trust_anchor.rs | sort >"$work/built-in"
comm -23 "$work/shown" "$work/built-in" >"$work/missing"
comm -13 "$work/shown" "$work/built-in" >"$work/removed"
sed 's/^/built in, and no longer in the root zone: /' "$work/removed"
if [ -s "$work/missing" ]; then
    sed 's/^/not built in: /' "$work/missing" >&2
    exit 1
fi
echo "all key signing keys of the root zone are built in:"
cut -d' ' -f4 "$work/shown"
