#!/bin/sh
# Prints the pin of a DNS-over-TLS server's key, to append to an upstream: 1.1.1.1,pin-sha256=...
#
#   scripts/pin.sh HOST[:PORT] [NAME]      HOST@PORT and IPv6 addresses are accepted also
#
# NAME is the server name to request if several names share HOST. An attacker on the path can
# answer: compare the displayed certificate once with what you know of the server.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
host=$1 port=853
case $host in
    *@*) port=${host#*@} host=${host%%@*} ;;
    \[*\]:*) port=${host##*:} host=${host%:*} ;;
    *:*:*) ;;
    *:*) port=${host#*:} host=${host%%:*} ;;
esac
case $host in
    \[*) ;;
    *:*) host="[$host]" ;;
esac
set -- "$host:$port" "${2:-}"

if [ -n "${2:-}" ]; then
    certificate=$(openssl s_client -connect "$1" -servername "$2" </dev/null 2>/dev/null)
else
    certificate=$(openssl s_client -connect "$1" </dev/null 2>/dev/null)
fi || {
    echo "pin.sh: no TLS server answers at $1" >&2
    exit 1
}
printf '%s\n' "$certificate" | openssl x509 -noout -subject -issuer -enddate >&2
printf '%s\n' "$certificate" | openssl x509 -noout -pubkey | openssl pkey -pubin -outform der |
    openssl dgst -sha256 -binary | openssl base64
