#!/bin/bash
# Checks metrics and logs with their consumers: Prometheus, promtool, a JSON parser.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig dnsperf dnstap-ldns fstrm_capture prometheus promtool python3

resolver_port=$(free_port)
start_unbound "$resolver_port"
resolver=${pids[-1]}
port=$(free_port)
http_port=$(free_port)
page="http://127.0.0.1:$http_port"
launch "$work/dotproxy.log" "$binary" -l 127.0.0.1 -p "$port" -u "127.0.0.1:$resolver_port" \
    --ca-file "$work/ca.pem" --http-listen "127.0.0.1:$http_port" --query-log "$work/queries.json"

# Prints a page, or its status if that is not 200.
get() { # path
    python3 - "$page$1" <<'PYTHON'
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode(), end="")
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), end="")
PYTHON
}
await get /healthz

prometheus_port=$(free_port)
cat >"$work/prometheus.yaml" <<CONF
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$PWD/deploy/prometheus/rules.yaml, $PWD/deploy/prometheus/alerts.yaml]
scrape_configs:
  - job_name: dotproxy
    static_configs: [{targets: ["127.0.0.1:$http_port"]}]
CONF
prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address="127.0.0.1:$prometheus_port" >"$work/prometheus.log" 2>&1 &
pids+=("$!")
query() { promtool query instant "http://127.0.0.1:$prometheus_port" "$1"; }

check "promtool: the page is valid" '^$' eval 'get /metrics | promtool check metrics 2>&1'
check "promtool: rules" 'SUCCESS: 5 rules' promtool check rules deploy/prometheus/rules.yaml
check "promtool: alerts" 'SUCCESS: 1[0-9] rules' promtool check rules deploy/prometheus/alerts.yaml
check "promtool: tests of the alerts" 'SUCCESS' promtool test rules deploy/prometheus/alerts_test.yaml

# Under load, the counters equal the number of queries sent.
printf 'www.example.net A\nwww.example.net AAAA\nexample.net MX\nnone.example.net A\n' >"$work/names"
dnsperf -s 127.0.0.1 -p "$port" -d "$work/names" -c 4 -Q 1000 -n 1000 -t 30 >"$work/dnsperf.out" 2>&1
check "dnsperf meanwhile: no query lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
sent=$(awk '/Queries sent:/ { print $3 }' "$work/dnsperf.out")
check_soon "Prometheus: the target is up" '=> 1 @' query 'up{job="dotproxy"}'
# Prometheus returns its latest scrape.
check_soon "Prometheus: queries equal those sent" "=> $sent @" \
    query 'dotproxy_queries_total{transport="udp"}'
check_soon "Prometheus: each query has an outcome" "=> $sent @" query 'sum(dotproxy_query_outcomes_total)'
check_soon "Prometheus: each query has a response" "=> $sent @" query 'sum(dotproxy_responses_total)'
check_soon "Prometheus: each query has a duration" "=> $sent @" query 'dotproxy_query_duration_seconds_count'
check_soon "Prometheus: a quarter is NXDOMAIN" "=> $((sent / 4)) @" \
    query 'dotproxy_responses_total{rcode="NXDOMAIN"}'
complaints() { grep -cE 'level=(warn|error)' "$work/prometheus.log" || true; }
check "Prometheus: no scrape failed" '^0$' complaints
check "dashboard and alerts name existing metrics" 'are right' \
    scripts/check_dashboard.py "http://127.0.0.1:$prometheus_port" "$page"
lines() {
    python3 - "$work/queries.json" <<'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
print(len(lines), "lines,", sum(line["rcode"] == "NXDOMAIN" for line in lines), "without an answer")
PYTHON
}
check_soon "query log: a line of JSON per query" "^$sent lines, $((sent / 4)) without" lines

# Readiness.
check_soon "ready" '^ok' get /readyz
kill "$resolver" && wait "$resolver" 2>/dev/null
check_soon "upstream has ended: not ready" '^503' get /readyz
check "upstream has ended: alive" '^ok' get /healthz
unbound -d -c "$work/unbound.conf" 2>>"$work/unbound.log" &
pids+=("$!")
check_soon "upstream is back: ready" '^ok' get /readyz

# Every message, to dnstap readers: over a local socket, and over TCP.
tap_start() { # name, arguments of fstrm_capture
    local name=$1
    shift
    fstrm_capture -dddd -t protobuf:dnstap.Dnstap -w "$work/$name.tap" "$@" >"$work/$name.out" 2>&1 &
    reader=$!
    pids+=("$reader")
}
# Waits until the reader has written everything.
tap_end() { # name
    await grep -q 'closing (read' "$work/$1.out"
    kill -TERM "$reader"
    wait "$reader"
}
for kind in local tcp; do
    tap_port=$(free_port)
    tap_client_port=$(free_port)
    case $kind in
        local) target="unix:$work/tap.sock" arguments=(-u "$work/tap.sock") ;;
        tcp) target="tcp:127.0.0.1:$tap_port" arguments=(-a 127.0.0.1 -p "$tap_port") ;;
    esac
    launch "$work/tap.log" "$binary" -l 127.0.0.1 -p "$tap_client_port" -u "127.0.0.1:$resolver_port" \
        --ca-file "$work/ca.pem" --dnstap "$target"
    tapped=$launched
    # No reader is connected yet, and queries are still answered.
    await dig @127.0.0.1 -p "$tap_client_port" www.example.net A +tries=1 +time=30
    tap_start "$kind" "${arguments[@]}"
    await grep -q 'dnstap: connected to' "$work/tap.log"
    dig @127.0.0.1 -p "$tap_client_port" txt.example.net TXT +tries=1 +time=30 >/dev/null
    dig @127.0.0.1 -p "$tap_client_port" +tcp txt.example.net TXT +tries=1 +time=30 >/dev/null
    kill -TERM "$tapped" && wait "$tapped"
    tap_end "$kind"
    tap=$(dnstap-ldns -q -r "$work/$kind.tap")
    says() { grep -cE "$1" <<<"$tap"; }
    name='"txt.example.net." IN TXT'
    check "dnstap, $kind: queries of clients" '^2$' says "CQ 127.0.0.1 (UDP|TCP) .* $name"
    check "dnstap, $kind: their responses" '^2$' says "CR 127.0.0.1 (UDP|TCP) .* $name"
    check "dnstap, $kind: one query upstream" '^1$' says "FQ 127.0.0.1 .* $name"
    check "dnstap, $kind: its answer" '^1$' says "FR 127.0.0.1 .* $name"
done

# A query log on a full disk.
if unshare -m true 2>/dev/null; then
    mkdir "$work/small"
    small_port=$(free_port)
    http_port=$(free_port)
    page="http://127.0.0.1:$http_port"
    # shellcheck disable=SC2016 # it is the other shell that expands
    launch "$work/small.log" unshare -m \
        sh -c 'mount -t tmpfs -o size=64k none "$1/small" && shift && exec "$@"' sh "$work" \
        "$binary" -l 127.0.0.1 -p "$small_port" -u "127.0.0.1:$resolver_port" \
        --ca-file "$work/ca.pem" --http-listen "127.0.0.1:$http_port" \
        --query-log "$work/small/queries.json"
    await get /healthz
    dnsperf -s 127.0.0.1 -p "$small_port" -d "$work/names" -c 4 -Q 2000 -n 1000 -t 30 >"$work/dnsperf.out" 2>&1
    check "full disk: no query is lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
    check_soon "full disk: lines are dropped and counted" 'dotproxy_query_log_dropped_total [1-9]' \
        eval 'get /metrics | grep query_log_dropped'
fi
conclude
