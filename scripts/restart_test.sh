#!/bin/bash
# Checks that the program can be replaced while clients send queries: by another instance that
# shares its port, or by another instance on the same sockets, which systemd or a similar program
# keeps open.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig dnsperf python3 systemd-socket-activate

resolver_port=$(free_port)
start_unbound "$resolver_port"
port=$(free_port)
options=(-u "127.0.0.1:$resolver_port" --ca-file "$work/ca.pem")
for number in $(seq 2000); do echo "host$number.many.example.net A"; done >"$work/names"
load() { # seconds
    dnsperf -s 127.0.0.1 -p "$port" -d "$work/names" -c 8 -Q 500 -l "$1" -t 30 >"$work/dnsperf.out" 2>&1
}
restarts=8

# By another instance that shares the port.
start() {
    launch "$work/dotproxy.log" "$binary" -l 127.0.0.1 -p "$port" --reuse-port "${options[@]}"
    proxy=$launched
    await grep -q 'will be queried' "$work/dotproxy.log"
}
start
load 20 &
running=$!
ended=0
for _ in $(seq "$restarts"); do
    sleep 2
    old=$proxy
    start
    kill -TERM "$old"
    wait "$old" && ended=$((ended + 1))
done
wait "$running"
check "shared port, $restarts restarts under 500 queries/s: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
check "shared port: all queries are answered" 'NOERROR [0-9]+ \(100' cat "$work/dnsperf.out"
check "shared port: each process ends successfully" "^$restarts\$" echo "$ended"
kill -TERM "$proxy"
wait "$proxy"
refused() { ask www.example.net A || true; }
check "shared port: it is free afterwards" 'connection refused' refused

# On sockets that outlive the process.
launch "$work/dotproxy.log" scripts/activate.py "127.0.0.1:$port" "$binary" "${options[@]}"
keeper=$launched
await ask www.example.net A
check "inherited sockets: UDP and TCP" 'listening on 127.0.0.1:[0-9]+$' cat "$work/dotproxy.log"
check "inherited sockets: TCP is served" 'NOERROR' ask www.example.net A +tcp
load 10 &
running=$!
for number in $(seq "$restarts"); do
    sleep 1
    pkill -TERM -P "$keeper"
    await logs_more "$work/dotproxy.log" 'listening on' "$number"
done
wait "$running"
check "inherited sockets, $restarts restarts: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
check "inherited sockets: all queries are answered" 'NOERROR [0-9]+ \(100' cat "$work/dnsperf.out"
check "inherited sockets: the program was restarted each time" "^$((restarts + 1))\$" \
    grep -c 'listening on' "$work/dotproxy.log"
kill "$keeper"
wait "$keeper" 2>/dev/null

# On a socket of systemd-socket-activate, which supports one protocol at a time and starts the
# program when a query arrives. It does not listen on port 53, so an upstream there is no loop.
launch "$work/dotproxy.log" systemd-socket-activate --datagram -l "127.0.0.1:$port" "$binary" "${options[@]}" \
    -u udp://127.0.0.53,domain=corp.example
await grep -q 'Listening on' "$work/dotproxy.log"
check "socket of systemd: the query that starts it is answered" '192\.0\.2\.80' ask www.example.net A
check "socket of systemd: UDP only" 'listening on 127.0.0.1:[0-9]+ \(UDP only\)' cat "$work/dotproxy.log"
conclude
