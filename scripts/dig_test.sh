#!/bin/bash
# Checks dotproxy with common clients: dig, kdig and drill over UDP and TCP, and dnsperf for many
# queries at once. Prints a table of the results; the exit status is 0 if all checks passed.
#
#   scripts/dig_test.sh                                  against unbound on this machine
#   UPSTREAM=1.1.1.1:853 scripts/dig_test.sh             against a real resolver
#   DOTPROXY=path/to/dotproxy scripts/dig_test.sh        another binary than target/release/dotproxy
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig kdig drill dnsperf

port=$(free_port)
if [ -n "${UPSTREAM:-}" ]; then
    upstream=$UPSTREAM
    trust=()
    a_name=example.com a_data='[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+'
    aaaa_name=example.com aaaa_data='[0-9a-f]+:[0-9a-f:]+'
    mx_name=gmail.com mx_data='gmail-smtp-in'
    txt_name=google.com txt_data='v=spf1'
    large_name=. large_type=DNSKEY large_data='257 3'
    nothing=does-not-exist.invalid
    many='example%d.com A' many_count=100
else
    upstream_port=$(free_port)
    start_unbound "$upstream_port"
    upstream="127.0.0.1:$upstream_port#dot.example"
    trust=(--ca-file "$work/ca.pem")
    a_name=www.example.net a_data='192\.0\.2\.80'
    aaaa_name=www.example.net aaaa_data='2001:db8::80'
    mx_name=example.net mx_data='mail\.example\.net'
    txt_name=txt.example.net txt_data='plain text'
    large_name=large.example.net large_type=TXT large_data='part 60 of'
    nothing=nothing.example.net
    many='host%d.many.example.net A' many_count=5000
fi

launch "$work/dotproxy.log" "$binary" -l 127.0.0.1 -p "$port" -u "$upstream" "${trust[@]}"

# Each client has its own syntax for the same query.
ask() { # client, udp or tcp, name, type, more options
    local client=$1 transport=$2 name=$3 type=$4
    shift 4
    case $client in
        dig) dig -p "$port" @127.0.0.1 "$name" "$type" +tries=1 +time=30 \
            "$([ "$transport" = tcp ] && echo +tcp || echo +notcp)" "$@" ;;
        kdig) kdig -p "$port" @127.0.0.1 "$name" "$type" +retry=0 +timeout=30 \
            "$([ "$transport" = tcp ] && echo +tcp || echo +notcp)" "$@" ;;
        drill) drill -p "$port" "$([ "$transport" = tcp ] && echo -t || echo -u)" "$@" \
            "$name" @127.0.0.1 "$type" ;;
    esac
}

is_ready() { ask dig udp "$a_name" A | grep -q NOERROR; }
await is_ready

echo "dotproxy on 127.0.0.1:$port, upstream $upstream"
for client in dig kdig drill; do
    for transport in udp tcp; do
        with="$client, $transport:"
        check "$with A" "$a_data" ask $client $transport "$a_name" A
        check "$with AAAA" "$aaaa_data" ask $client $transport "$aaaa_name" AAAA
        check "$with MX" "$mx_data" ask $client $transport "$mx_name" MX
        check "$with TXT" "$txt_data" ask $client $transport "$txt_name" TXT
        check "$with NXDOMAIN" 'NXDOMAIN' ask $client $transport "$nothing" A
    done
done

small=(+bufsize=512 +dnssec)
check "dig: large answer is truncated over UDP" 'flags:[a-z ]* tc' \
    ask dig udp "$large_name" "$large_type" "${small[@]}" +ignore
check "dig: large answer is whole after TC" "$large_data" \
    ask dig udp "$large_name" "$large_type" "${small[@]}"
check "dig: large answer is whole over TCP" "$large_data" \
    ask dig tcp "$large_name" "$large_type" +dnssec
check "kdig: large answer is whole after TC" "$large_data" \
    kdig -p "$port" @127.0.0.1 "$large_name" "$large_type" "${small[@]}"
check "drill: large answer is whole over TCP" "$large_data" \
    ask drill tcp "$large_name" "$large_type" -D
check "dig: letter case is kept" "${a_name^^}\\." ask dig udp "${a_name^^}" A
check "drill: letter case is kept" "${a_name^^}\\." ask drill tcp "${a_name^^}" A
check "dig: answer without EDNS" "$a_data" ask dig udp "$a_name" A +noedns
check "dig: EDNS size is ours" 'udp: 1232' ask dig udp "$a_name" A +bufsize=4096
check "dig: unknown EDNS option" 'NOERROR' ask dig udp "$a_name" A +ednsopt=65001:abcd
check "dig: unknown EDNS version" 'BADVERS' ask dig udp "$a_name" A +edns=1 +noednsneg
check "dig: unknown type" 'NOERROR|NXDOMAIN' ask dig udp "$a_name" TYPE65280
check "dig: zone transfer is refused" 'Transfer failed|REFUSED' ask dig tcp "$mx_name" AXFR
check "dig: unknown opcode" 'NOTIMP' ask dig udp "$a_name" A +opcode=15
check "kdig: several queries on one connection" "$a_data" \
    kdig -p "$port" @127.0.0.1 +tcp +keepopen "$aaaa_name" AAAA "$mx_name" MX "$a_name" A
check "dig: any record over UDP" '^[^;].*HINFO.*RFC8482' ask dig udp "$mx_name" ANY +notcp
check "dig: any record over TCP" '^[^;].*IN[[:space:]]+[^H]' ask dig tcp "$mx_name" ANY
check "dig: cookie, first time and again" 'COOKIE: [0-9a-f]{48} \(good\)' \
    ask dig udp "$a_name" A +cookie
check "dig: cookie alone" ';; flags: qr rd ra; QUERY: 0, ANSWER: 0' ask dig udp "$a_name" A +cookie +header-only
check "kdig: padded query with a cookie" 'NOERROR' ask kdig udp "$a_name" A +padding=64 +cookie

# A peer that sends session tickets may wait for their acknowledgement. The delay is 40 ms each time
# if dotproxy also waits, so the quickest of many first answers shows the delay; the others may be
# slow because the machine is busy.
first_answer() {
    local first_port answer
    first_port=$(free_port)
    launch "$work/first.log" "$binary" -l 127.0.0.1 -p "$first_port" -u "$upstream" "${trust[@]}"
    await grep -q 'will be queried' "$work/first.log"
    answer=$(dig -p "$first_port" @127.0.0.1 "$a_name" A +tries=1 +time=30)
    kill "$launched"
    wait "$launched"
    grep 'Query time:' <<<"$answer"
}
quickest_first_answer() {
    for _ in $(seq 60); do
        first_answer | grep -E 'Query time: [0-3]?[0-9] msec' && return
    done
    first_answer
}
if [ -z "${UPSTREAM:-}" ]; then
    check "dig: first answer on a new connection waits for no acknowledgement" \
        'Query time: [0-3]?[0-9] msec' quickest_first_answer
fi

for number in $(seq "$many_count"); do
    # shellcheck disable=SC2059 # the name is the format
    printf "$many\n" "$number"
done >"$work/many"
for transport in udp tcp; do
    check "dnsperf, $transport: $many_count queries, 20 clients, none lost" 'lost: +0 ' \
        dnsperf -s 127.0.0.1 -p "$port" -m $transport -d "$work/many" -c 20 -q 100 -n 1 -t 30
done

conclude
