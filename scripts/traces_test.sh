#!/bin/bash
# Checks traces with a collector that validates them against the published schema of OpenTelemetry.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig dnsperf python3
export PYTHONPATH=$PWD/target/python
export OTEL_SERVICE_NAME=resolver OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=a%20test
if ! python3 -c 'import opentelemetry.proto.trace.v1.trace_pb2' 2>/dev/null; then
    echo "opentelemetry-proto is missing: run scripts/install_test_deps.sh" >&2
    exit 2
fi

resolver_port=$(free_port)
start_unbound "$resolver_port"
dead_port=$(free_port)
port=0 proxy='' spans=''
upstreams() { printf 'upstream = %s\n' "$@" >"$work/options.conf"; }
# Starts a collector and the program, which samples this share of queries.
start() { # name, share, status that the collector refuses with at first
    local collector_port
    collector_port=$(free_port)
    spans="$work/$1.spans"
    STATUS=${3-} scripts/otlp_collector.py "$collector_port" "$spans" &
    pids+=("$!")
    await test -e "$spans"
    port=$(free_port)
    launch "$work/dotproxy.log" "$binary" -l 127.0.0.1 -p "$port" --ca-file "$work/ca.pem" --policy ordered \
        -C "$work/options.conf" --query-log-clients none \
        --otlp "http://127.0.0.1:$collector_port" --trace-sample "$2"
    proxy=$launched
    await grep -q 'listening on' "$work/dotproxy.log"
}
stop() { kill -TERM "$proxy" && wait "$proxy"; }
# Prints the value of the expression. In it, `values(NAME, KEY)` returns an attribute of the spans
# with this name, and `count` has the number of spans by name.
of_spans() { # expression
    python3 - "$spans" "$1" <<'PYTHON'
import collections, json, sys
spans = [json.loads(line) for line in open(sys.argv[1])]
for span in spans:
    if "error" in span:
        sys.exit(span["error"])
count = collections.Counter(span["name"] for span in spans)
def values(name, key):
    return [span["attributes"].get(key) for span in spans if span["name"] == name]
print(eval(sys.argv[2]))
PYTHON
}

# The program connects to its upstreams at the start, but not after a reload.
upstreams "udp://127.0.0.1:$dead_port,domain=a.test" "udp://127.0.0.1:$resolver_port,domain=b.test"
start steps 1
upstreams "127.0.0.1:$dead_port" "127.0.0.1:$resolver_port"
kill -HUP "$proxy"
await grep -q 'reloaded the configuration' "$work/dotproxy.log"
ask www.example.net A >/dev/null
ask www.example.net A +tcp >/dev/null
ask absent.example.net AAAA >/dev/null
stop
check "steps: three queries" '^3$' of_spans 'count["query"]'
check "steps: their questions" "^\['www.example.net', 'www.example.net', 'absent.example.net'\]$" \
    of_spans 'values("query", "dns.question.name")'
check "steps: their outcomes" "^\['answered', 'cached', 'answered'\]$" \
    of_spans 'values("query", "dotproxy.outcome")'
check "steps: no client addresses, if configured" '^\[None, None, None\]$' \
    of_spans 'values("query", "client.address")'
check "steps: the cache" "^\['miss', 'hit', 'miss'\]$" of_spans 'values("cache", "dotproxy.cache.result")'
check "steps: one wait for a connection" '^1$' of_spans 'count["connection wait"]'
check "steps: an unreachable server, then a reachable one" \
    "^\[\('connect', $dead_port\), \(None, $resolver_port\)\]$" \
    of_spans 'list(zip(values("handshake", "error.type"), values("handshake", "server.port")))'
check "steps: two queries upstream" "^\['NOERROR', 'NXDOMAIN'\]$" \
    of_spans 'values("upstream query", "dotproxy.response.code")'

printf 'www.example.net A\nwww.example.net AAAA\nexample.net MX\nnone.example.net A\n' >"$work/names"
load() { # queries, queries a second
    dnsperf -s 127.0.0.1 -p "$port" -d "$work/names" -c 4 -Q "$2" -n "$(($1 / 4))" -t 30 \
        >"$work/dnsperf.out" 2>&1
    check "$1 queries: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
}
# Queries are sent in portions, each after the collector has received the traces of the portion
# before: if more than 256 KiB wait for a slow collector, dotproxy drops traces.
has_queries() { [ "$(of_spans 'count["query"]')" -ge "$1" ]; }
start all 1
for portion in $(seq 6); do
    load 100 300
    await has_queries "$((portion * 100))"
done
stop
check "all: each query has a trace" '^600$' of_spans 'count["query"]'
start busy 1 503
load 100 100
await has_queries 100
stop
check "a collector that is busy twice: it receives all traces" '^100$' of_spans 'count["query"]'
start some 0.1
for portion in $(seq 4); do
    load 1000 2000
    await has_queries "$((portion * 50))"
done
stop
check "one in ten: about that number" '^(3[0-9][0-9]|4[0-9][0-9]|500)$' of_spans 'count["query"]'
conclude
