#!/bin/bash
# Checks the cache with dig and a real resolver: TTLs that count down, no data of other clients in a
# response, and stale answers when the resolver is down.
#
#   scripts/cache_test.sh
#   DOTPROXY=path/to/dotproxy scripts/cache_test.sh    another binary than target/release/dotproxy
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig kdig

tls_port=$(free_port)
start_unbound "$tls_port"
unbound_pid=${pids[-1]}
# start OPTIONS...: starts the program on a new port.
start() {
    port=$(free_port)
    launch "$work/dotproxy.log" "$binary" -l 127.0.0.1 -p "$port" --ca-file "$work/ca.pem" \
        -u "127.0.0.1:$tls_port" "$@"
    proxy_pid=$launched
    await is_ready
}
is_ready() { ask ready.many.example.net A | grep -q NOERROR; }
# Returns the number of client queries sent upstream so far. Each query counts once, however often
# it was sent (hedges are retries).
sent() {
    local lines
    lines=$(grep -c 'upstream sent=' "$work/dotproxy.log")
    kill -USR1 "$proxy_pid"
    await logs_more "$work/dotproxy.log" 'upstream sent=' "$lines"
    # The expression contains only numbers.
    echo $(($(grep -oE 'upstream sent=.* probes=[0-9]+' "$work/dotproxy.log" | tail -n 1 |
        sed -E 's/.*sent=([0-9]+) retries=([0-9]+) .* copies=([0-9]+) probes=([0-9]+)/\1 - \2 - \3 - \4/')))
}
# asks_upstream WHAT TIMES COMMAND...: the command causes this number of queries upstream.
asks_upstream() {
    local what=$1 times=$2 before after
    shift 2
    before=$(sent)
    "$@" >/dev/null 2>&1
    after=$(sent)
    if [ $((after - before)) -eq "$times" ]; then
        row ok "$what"
    else
        row FAILED "$what: $((after - before)) queries went upstream"
    fi
}
twice() { "$@" && "$@"; }
three_types() { ask "$1" A && ask "$1" AAAA && ask "$1" MX; }

start
echo "a resolver on 127.0.0.1:$tls_port, the program in front of it on 127.0.0.1:$port"
asks_upstream "same question twice: upstream is asked once" 1 twice ask www.example.net A
asks_upstream "in other letters, over TCP: not again" 0 ask WWW.Example.Net A +tcp
check "letter case is that of the client" 'WwW\.Example\.nEt\.' ask WwW.Example.nEt A
asks_upstream "another type: asked" 1 twice ask www.example.net AAAA
asks_upstream "with DNSSEC records: asked" 1 twice ask www.example.net A +dnssec
asks_upstream "without validation: asked" 1 twice ask www.example.net A +cdflag
asks_upstream "cookie, client subnet: not asked again" 0 \
    ask www.example.net A +cookie +subnet=192.0.2.0/24
check "no option of another client comes back" '^; EDNS: version: 0, flags:; udp: 1232$' \
    ask www.example.net A
asks_upstream "an option that passes: asked each time" 2 twice ask www.example.net A +nsid
asks_upstream "name that does not exist: asked once for all types" 1 \
    three_types NO.example.net
check "name that does not exist: SOA with its TTL" 'example\.net\.\s+([1-5]?[0-9]|60)\s+IN\s+SOA' \
    ask no.example.net TXT
asks_upstream "type that does not exist: asked once" 1 twice ask txt.example.net A
asks_upstream "large answer: asked once for UDP and TCP" 1 twice ask large.example.net TXT
check "large answer over UDP: truncated" '^;; flags:.* tc ' ask large.example.net TXT +ignore
check "large answer over TCP: whole" 'part 60 of' ask large.example.net TXT +tcp
asks_upstream "ANY over TCP: asked each time" 2 twice ask example.net ANY +tcp

burst() {
    local running=()
    for _ in $(seq 50); do
        ask cold.many.example.net A &
        running+=($!)
    done
    wait "${running[@]}"
}
pipelined() {
    local names=()
    for _ in $(seq 100); do names+=(pipelined.many.example.net A); done
    kdig -p "$port" @127.0.0.1 +tcp +keepopen +timeout=30 "${names[@]}"
}
asks_upstream "fifty at once: asked once" 1 burst
asks_upstream "a hundred on one connection: asked once" 1 pipelined

# From here on, answers have a TTL of 8 s.
kill "$proxy_pid"
wait "$proxy_pid"
start --cache-max-ttl 8s
# The TTL is the rest of 8 s, plus or minus one second, however slow the machine is.
now_us() { echo "${EPOCHREALTIME//[.,]/}"; }
asked=$(now_us)
ask count.many.example.net A >/dev/null
answered=$(now_us)
ttl_counts_down() {
    local before after ttl
    before=$(now_us)
    ttl=$(ask count.many.example.net A +noall +answer | awk '{ print $2 }')
    after=$(now_us)
    echo "TTL $ttl"
    # After this time the answer is a new one.
    ((after - asked >= 8000000)) ||
        ((ttl * 1000000 >= 7000000 - (after - asked) && ttl * 1000000 <= 9000000 - (before - answered)))
}
check "TTL: at most the limit" 'TTL [1-8]$' ttl_counts_down
sleep 4
check "TTL: counts down" 'TTL [1-5]$' ttl_counts_down
sleep 5
asks_upstream "TTL: asked again when it is over" 1 ask count.many.example.net A

ask stale.many.example.net A >/dev/null
ask no.example.net A >/dev/null
kill "$unbound_pid"
wait "$unbound_pid" 2>/dev/null
sleep 8.5
check "resolver gone: stale answer, TTL 30" '^stale\S+\s+30\s' ask stale.many.example.net A
check "resolver gone: the stale answer has its extended error" 'EDE: 3 ' ask stale.many.example.net A
check "resolver gone: stale negative answer" 'EDE: 19 ' ask no.example.net A
# The first query waits for 1.8 s.
check "resolver gone: immediate from the second query on" 'Query time: [0-9]{1,3} msec' \
    ask stale.many.example.net A
check "resolver gone: not cached" 'SERVFAIL' ask unknown.many.example.net A
kill -HUP "$proxy_pid"
await grep -q 'cache cleared' "$work/dotproxy.log"
check "SIGHUP: the cache is empty" 'SERVFAIL' ask stale.many.example.net A

conclude
