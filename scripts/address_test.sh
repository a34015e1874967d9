#!/bin/bash
# Checks that responses have the source address of their query, with dig, which accepts no other,
# and a server that listens on all its addresses: several of IPv4 and IPv6, on the network, behind
# it, and link-local. Both hosts are network namespaces that end with this script.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/network.sh
. scripts/network.sh
need dnsperf

set -e
ip address add 192.0.2.1/24 dev server0
ip address add 192.0.2.2/24 dev server0
ip address add 198.51.100.1/32 dev lo
ip address add 2001:db8::1/64 dev server0 nodad
ip address add 2001:db8::2/64 dev server0 nodad
ip address add 2001:db8:1::1/128 dev lo nodad
on_client ip address add 192.0.2.9/24 dev client0
on_client ip address add 2001:db8::9/64 dev client0 nodad
on_client ip route add 198.51.100.1 via 192.0.2.2
on_client ip route add 2001:db8:1::1 via 2001:db8::2
set +e
link_local() { grep -oE 'fe80:[0-9a-f:]+'; }
# An address is usable only after duplicate address detection.
link_local_of_server() { ip -6 address show dev server0 scope link -tentative | link_local; }
link_local_of_client() { on_client ip -6 address show dev client0 scope link -tentative | link_local; }
await link_local_of_server
await link_local_of_client

start_unbound 853
launch "$work/dotproxy.log" "$binary" -u 127.0.0.1 --ca-file "$work/ca.pem" \
    --allow 192.0.2.0/24 --allow 2001:db8::/32 --allow fe80::/10
# This instance has the default access rules.
launch "$work/private.log" "$binary" -v -p 5300 -u 127.0.0.1 --ca-file "$work/ca.pem"

ask() { on_client dig www.example.net A +short +tries=1 +time=30 "$@"; }
await ask @192.0.2.1
await grep -q 'will be queried' "$work/private.log"

zone=$(link_local_of_server)%client0
for address in 192.0.2.1 192.0.2.2 198.51.100.1 \
    2001:db8::1 2001:db8::2 2001:db8:1::1 "$zone"; do
    check "udp to $address" '^192\.0\.2\.80$' ask "@$address" +notcp
    check "tcp to $address" '^192\.0\.2\.80$' ask "@$address" +tcp
done
check "udp to $zone from 2001:db8::9" '^192\.0\.2\.80$' ask "@$zone" -b 2001:db8::9

denied='status: REFUSED.*EDE: 18 \(Prohibited\)'
ask_private() { on_client dig www.example.net A -p 5300 +tries=1 +time=30 "$@" | tr '\n' ' '; }
check "private: 192.0.2.9 is refused" "$denied" ask_private @192.0.2.1
check "private: 2001:db8::9 is refused" "$denied" ask_private @2001:db8::1
check "private: a connection of 192.0.2.9 is closed" 'communications error|end of file' \
    ask_private @192.0.2.1 +tcp
# dig has died here after its first line, once in hundreds of runs: then the query is repeated.
ask_surely() {
    local said
    said=$(ask_private "$@")
    grep -qE 'status:|communications error' <<<"$said" || said=$(ask_private "$@")
    echo "$said"
}
check "private: a link-local client is answered" 'status: NOERROR' ask_surely "@$zone"

# An address that the host gets later, and a host whose IPv6 is disabled.
launch "$work/later.log" "$binary" -p 5301 -l 192.0.2.77 -l 2001:db8::77 -u 127.0.0.1 \
    --ca-file "$work/ca.pem" --allow 192.0.2.0/24 --allow 2001:db8::/32
check_soon "later: the log names the missing address" \
    'WARN.*no interface of this host has the address 192\.0\.2\.77 now' cat "$work/later.log"
ip address add 192.0.2.77/24 dev server0
ip address add 2001:db8::77/64 dev server0 nodad
for server in 192.0.2.77 2001:db8::77; do
    for way in +notcp +tcp; do
        check "later: $server answers with $way" '^192\.0\.2\.80$' ask "@$server" -p 5301 "$way"
    done
done

# The same on a kernel that refuses to bind such an address in advance, also after a change of the
# user, which an unprivileged user namespace does not have.
as=(--user 65534)
setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null || as=()
launch "$work/refused.log" scripts/without_freebind.py "$binary" -p 5303 -l 192.0.2.78 -l 2001:db8::78 \
    -u 127.0.0.1 --ca-file "$work/ca.pem" --allow 192.0.2.0/24 --allow 2001:db8::/32 "${as[@]}"
check_soon "no IP_FREEBIND: the program starts" 'will be queried' cat "$work/refused.log"
for address in 192.0.2.78 2001:db8::78; do
    check_soon "no IP_FREEBIND: the log names $address once" '^1$' grep -c "$address" "$work/refused.log"
done
ip address add 192.0.2.78/24 dev server0
ip address add 2001:db8::78/64 dev server0 nodad
for server in 192.0.2.78 2001:db8::78; do
    check_soon "no IP_FREEBIND: $server is served" "INFO +listening on .*$server.*:5303\$" cat "$work/refused.log"
    for way in +notcp +tcp; do
        check "no IP_FREEBIND: $server answers with $way" '^192\.0\.2\.80$' ask "@$server" -p 5303 "$way"
    done
done
# Port 53 would need a privilege that the program has dropped after the start.
sysctl -qw net.ipv4.ip_unprivileged_port_start=1024
ends() { scripts/without_freebind.py "$binary" -l 192.0.2.79 -u 192.0.2.1 "$@" 2>&1; echo "exit $?"; }
check "no IP_FREEBIND: port 53 after the start is refused with the reason" \
    'no right to port 53: start it when' ends
check "no IP_FREEBIND: that is a failure to start" '^exit 1$' ends
sysctl -qw net.ipv4.ip_unprivileged_port_start=53
launch "$work/open.log" scripts/without_freebind.py "$binary" -l 192.0.2.79 -u 192.0.2.1
check_soon "no IP_FREEBIND: port 53 is awaited where all users may bind it" 'retrying every 4 s' \
    cat "$work/open.log"

sysctl -qw net.ipv6.conf.lo.disable_ipv6=1
launch "$work/ipv4.log" "$binary" -p 5302 -l 127.0.0.1 -l ::1 -u 127.0.0.1 --ca-file "$work/ca.pem"
check_soon "IPv6 is disabled: the program starts" 'will be queried' cat "$work/ipv4.log"
check "IPv6 is disabled: IPv4 is answered" '^192\.0\.2\.80$' \
    dig @127.0.0.1 -p 5302 www.example.net A +short +tries=1 +time=30
sysctl -qw net.ipv6.conf.lo.disable_ipv6=0
check "IPv6 is enabled later: it is answered" '^192\.0\.2\.80$' \
    dig @::1 -p 5302 www.example.net A +short +tries=1 +time=30

# Responses to a client on this host are sent in batches, unless the kernel refuses to segment them.
yes 'www.example.net A' | head -n 2000 >"$work/names"
ask_much() { dnsperf -s 127.0.0.1 -p 5300 -d "$work/names" -q 100 -t 30; }
one_by_one() { grep -c 'one by one' "$work/private.log" || true; }
check "private: 2,000 queries from this host, none lost" 'lost: +0 ' ask_much
check "private: responses are sent in batches" '^0$' one_by_one
ip link set lo mtu 68
check "private: the same with packets of 68 bytes" 'lost: +0 ' ask_much
check "private: responses are then sent one by one" '^1$' one_by_one
conclude
