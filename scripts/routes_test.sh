#!/bin/bash
# Checks routes with dig and a real resolver: domains with their own upstreams, plain and TLS,
# upstreams configured by host name, and names that are answered locally.
#
#   scripts/routes_test.sh
#   DOTPROXY=path/to/dotproxy scripts/routes_test.sh    another binary than target/release/dotproxy
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig kdig

# One TLS resolver for all names, and a plain one that has a company's names and the address of the
# TLS resolver.
tls_port=$(free_port)
start_unbound "$tls_port"
plain_port=$(free_port)
start_plain_unbound() {
    cat >"$work/plain.conf" <<CONF
server:
$(unbound_defaults)
    logfile: "$work/plain.log"
    num-threads: 1
    interface: 127.0.0.1@$plain_port
    access-control: 127.0.0.0/8 allow
    module-config: "iterator"
    log-queries: yes
    local-zone: "corp.example.net." static
    local-data: "intra.corp.example.net. 300 IN A 10.1.2.3"
    local-zone: "10.in-addr.arpa." static
    local-data: "3.2.1.10.in-addr.arpa. 300 IN PTR intra.corp.example.net."
    local-zone: "dot.example." static
    local-data: "dot.example. 300 IN A 127.0.0.1"
CONF
    for part in $(seq 60); do
        printf '    local-data: %s\n' \
            "'large.corp.example.net. 300 IN TXT \"part $part of an answer too large for a datagram\"'"
    done >>"$work/plain.conf"
    printf 'remote-control:\n    control-enable: no\n' >>"$work/plain.conf"
    unbound -d -c "$work/plain.conf" &
    plain_pid=$!
    pids+=("$plain_pid")
}

port=
start() { # arguments
    port=$(free_port)
    "$binary" -l 127.0.0.1 -p "$port" --ca-file "$work/ca.pem" "$@" 2>>"$work/dotproxy.log" &
    pids+=($!)
}

echo "a TLS resolver on 127.0.0.1:$tls_port, a plain one on 127.0.0.1:$plain_port"
start -u tls://dot.example:"$tls_port" -b 127.0.0.1:"$plain_port"
check "host name, its server is down: SERVFAIL, with the reason" 'EDE: (22|23)' \
    ask www.example.net A
start_plain_unbound
check_soon "host name, its server is back" '192\.0\.2\.80' ask www.example.net A +retry=0

for scheme in udp tcp; do
    start -u "127.0.0.1:$tls_port" -u "$scheme://127.0.0.1:$plain_port,domain=corp.example.net" \
        -u "$scheme://127.0.0.1:$plain_port,domain=10.in-addr.arpa"
    await ask www.example.net A
    check "$scheme: name of the company" '10\.1\.2\.3' ask intra.corp.example.net A
    check "$scheme: other name" '192\.0\.2\.80' ask www.example.net A
    check "$scheme: large answer over UDP, then TCP" 'part 60 of' ask large.corp.example.net TXT
    check "$scheme: large answer over TCP" 'part 60 of' ask large.corp.example.net TXT +tcp
    check "$scheme: name that does not exist" NXDOMAIN ask nothing.corp.example.net A
    check "$scheme: letter case is kept" 'INTRA\.Corp' ask INTRA.Corp.Example.Net A
    check "$scheme: private address of the company" 'intra\.corp' ask -x 10.1.2.3
    check "kdig, $scheme: several queries at once" '10\.1\.2\.3' \
        kdig -p "$port" @127.0.0.1 +tcp +keepopen intra.corp.example.net www.example.net
done
check "private address without a route: answered locally" 'NXDOMAIN' ask -x 192.168.1.1
check "localhost" '127\.0\.0\.1' ask localhost A
check "onion" NXDOMAIN ask facebook.onion A
check "no designated resolver" 'NOERROR' ask _dns.resolver.arpa TYPE64
seen_in_the_clear() { grep -oE '[a-z.]+example\.(net|test)\.|[a-z.]*(onion|localhost)\.' "$work/plain.log"; }
check "only the company's names are sent in clear text" '^corp\.example\.net\. *$' \
    bash -c "$(declare -f seen_in_the_clear); work=$work; seen_in_the_clear | tr A-Z a-z |
        sed -E 's/^.*(corp\.example\.net\.)/\1/' | sort -u | tr '\n' ' '"

kill "$plain_pid" 2>/dev/null
wait "$plain_pid" 2>/dev/null
check "the company's resolver is gone: cached names are answered" '10\.1\.2\.3' \
    ask intra.corp.example.net A
check "the company's resolver is gone: SERVFAIL, with the reason" 'EDE: (22|23)' \
    ask other.corp.example.net A
check "the company's resolver is gone: others are answered" '192\.0\.2\.80' ask www.example.net A

conclude
