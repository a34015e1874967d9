#!/bin/bash
# Checks with a rate limit that a million forged source addresses neither occupy memory nor cost an
# honest client an answer; with PROMISES in the environment, also that they do not slow the client
# down. Both hosts are network namespaces that end with this script.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/network.sh
. scripts/network.sh
need python3

set -e
ip address add 192.168.7.1/24 dev server0
on_client ip address add 192.168.7.9/24 dev client0
# The forged addresses are routed to the client, which does not have them.
ip route add 10.0.0.0/8 via 192.168.7.9
set +e

start_unbound 853
launch "$work/dotproxy.log" "$binary" -l 192.168.7.1 -u 127.0.0.1 --ca-file "$work/ca.pem" --rate-limit 100
proxy=$launched
await on_client dig @192.168.7.1 www.example.net A +tries=1 +time=30
own_kib() { awk '/^RssAnon:/ { print $2 }' "/proc/$proxy/status"; }
flood() { on_client python3 scripts/flood.py 192.168.7.1 "$1" "$proxy"; }

# The table of clients is allocated with the first queries.
check "20000 forged sources: the honest client loses nothing" 'lost 0,' flood 20000
before=$(own_kib)
check "1000000 forged sources: the honest client loses nothing" 'lost 0,' flood 1000000
# Memory is released after the pending queries have ended.
flat() {
    local after
    after=$(own_kib)
    echo "$before KiB, then $after KiB" && [ "$after" -le $((before + 128)) ]
}
is_flat() { flat >/dev/null; }
becomes is_flat
check "1000000 forged sources: memory does not grow" 'KiB' flat
kill -USR1 "$proxy"
check_soon "1000000 forged sources: most have arrived" 'queries udp=(1[0-9]|[7-9])[0-9]{5}' cat "$work/dotproxy.log"
conclude
