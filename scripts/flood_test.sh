#!/bin/bash
# Checks that a million forged source addresses take no memory, and nothing from an honest client, with a
# rate limit. Both hosts are network namespaces that end with this script.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/network.sh
. scripts/network.sh
need python3

set -e
ip address add 192.168.7.1/24 dev server0
on_client ip address add 192.168.7.9/24 dev client0
# Those whose addresses are forged are behind the client, which does not know them.
ip route add 10.0.0.0/8 via 192.168.7.9
set +e

start_unbound 853
"$binary" -l 192.168.7.1 -u 127.0.0.1 --ca-file "$work/ca.pem" --rate-limit 100 \
    2>"$work/dotproxy.log" &
proxy=$!
pids+=("$proxy")
await on_client dig @192.168.7.1 www.example.net A +tries=1 +time=2
own_kib() { awk '/^RssAnon:/ { print $2 }' "/proc/$proxy/status"; }
flood() { on_client python3 scripts/flood.py 192.168.7.1 "$1"; }

# The table of clients is there from the first queries on.
check "20000 forged sources: the honest client loses nothing" 'lost 0,' flood 20000
before=$(own_kib)
check "1000000 forged sources: the honest client loses nothing" 'lost 0,' flood 1000000
# What was in flight has gone, and what it took.
sleep 2
after=$(own_kib)
flat() { echo "$before KiB, then $after KiB" && [ "$after" -le $((before + 128)) ]; }
check "1000000 forged sources: memory is flat" 'KiB' flat
answered() { kill -USR1 "$proxy" && sleep 0.3 && grep -oE 'queries udp=[0-9]+' "$work/dotproxy.log"; }
check "1000000 forged sources: most have arrived" 'udp=(1[0-9]|[7-9])[0-9]{5}' answered
conclude
