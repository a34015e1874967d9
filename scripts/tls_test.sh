#!/bin/bash
# Checks TLS with other implementations: kdig, unbound, openssl and dnsperf in front of the program,
# unbound behind it. Covers authentication of upstreams and clients, and certificates that are
# replaced without losing a query.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need dig kdig dnsperf

resolver_port=$(free_port)
start_unbound "$resolver_port"
trust=(--ca-file "$work/ca.pem")

# A client certificate, and a self-signed one.
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=some client" \
    -keyout "$work/client.key" -out "$work/client.csr" 2>/dev/null
openssl x509 -req -in "$work/client.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
    -days 1 -out "$work/client.pem" 2>/dev/null -extfile <(echo "extendedKeyUsage=clientAuth")
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=stranger" -days 1 \
    -keyout "$work/stranger.key" -out "$work/stranger.pem" 2>/dev/null

# start NAME ARGUMENTS...: starts the program on a new port, which is in `port` afterwards. Its log
# is NAME.log, and its process id is in `pid`.
start() {
    local name=$1
    shift
    port=$(free_port)
    launch "$work/$name.log" "$binary" -l 127.0.0.1 -p "$port" "${trust[@]}" "$@"
    pid=$launched
    await grep -q "listening on" "$work/$name.log"
}
logged() { # NAME PATTERN
    grep -E -- "$2" "$work/$1.log"
}
counters() { # NAME
    local lines
    lines=$(logged "$1" 'queries udp=' | wc -l)
    kill -USR1 "$pid"
    await logs_more "$work/$1.log" 'queries udp=' "$lines"
    logged "$1" 'queries udp=' | tail -n 1
}

cp "$work/server.pem" "$work/shown.pem"
cp "$work/server.key" "$work/shown.key"
shown=(--tls-cert "$work/shown.pem" --tls-key "$work/shown.key")
tls_port=$(free_port)
start dotproxy -u "127.0.0.1:$resolver_port" --tls-listen "127.0.0.1:$tls_port" "${shown[@]}"
server=$pid
echo "dotproxy under TLS on 127.0.0.1:$tls_port, upstream 127.0.0.1:$resolver_port"

under_tls() { # port, more options
    local at=$1
    shift
    kdig -p "$at" @127.0.0.1 +tls-ca="$work/ca.pem" +tls-hostname=dot.example +retry=0 +timeout=30 \
        "$@"
}
say_hello() { # port, more options
    local at=$1
    shift
    openssl s_client -connect "127.0.0.1:$at" -CAfile "$work/ca.pem" "$@" </dev/null
}
fails() { ! "$@"; }

check "kdig: A" '192\.0\.2\.80' under_tls "$tls_port" www.example.net A
check "kdig: several queries on one connection" '192\.0\.2\.80' \
    under_tls "$tls_port" +keepopen example.net MX www.example.net AAAA www.example.net A
check "kdig: large answer" 'part 60 of' under_tls "$tls_port" large.example.net TXT
check "kdig: padded if requested" 'Received 468 B' under_tls "$tls_port" www.example.net A +padding
check "kdig: not padded otherwise" 'Received [0-9]{2} B' \
    under_tls "$tls_port" www.example.net A +nopadding
check "kdig: TLS 1.3" 'TLS1\.3' under_tls "$tls_port" www.example.net A
check "openssl: TLS 1.2" 'Protocol *: TLSv1\.2' say_hello "$tls_port" -tls1_2 -alpn dot
check "openssl: ALPN" 'ALPN protocol: dot' say_hello "$tls_port" -alpn dot
check "openssl: another ALPN is refused" 'no application protocol' \
    fails say_hello "$tls_port" -alpn h2
check "openssl: TLS 1.1 is refused" 'alert (handshake failure|protocol version)' \
    fails say_hello "$tls_port" -tls1_1 -cipher DEFAULT@SECLEVEL=0
say_hello "$tls_port" -tls1_2 -sess_out "$work/session" >/dev/null 2>&1
check "openssl: session is resumed" 'Reused, ' say_hello "$tls_port" -tls1_2 -sess_in "$work/session"
ask_chaos() { kdig -p "$tls_port" @127.0.0.1 +tcp www.example.net A +retry=0 +timeout=1; }
check "clear text on the TLS port gets no response" '' fails ask_chaos

# unbound in front of the program.
front_port=$(free_port)
cat >"$work/front.conf" <<CONF
server:
$(unbound_defaults)
    logfile: "$work/front.log"
    interface: 127.0.0.1@$front_port
    do-not-query-localhost: no
    module-config: "iterator"
    tls-cert-bundle: "$work/ca.pem"
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-tls-upstream: yes
    forward-addr: 127.0.0.1@$tls_port#dot.example
CONF
unbound -d -c "$work/front.conf" &
pids+=($!)
await dig -p "$front_port" @127.0.0.1 +tries=1 +time=5 www.example.net A
check "unbound: forwards under TLS" '192\.0\.2\.80' \
    dig -p "$front_port" @127.0.0.1 www.example.net A
check "unbound: large answer" 'part 60 of' dig -p "$front_port" @127.0.0.1 large.example.net TXT

# Pins of the resolver and of the program.
pin=$(scripts/pin.sh "127.0.0.1:$resolver_port" 2>/dev/null)
other=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
check "pin.sh: kdig finds the same" '192\.0\.2\.80' \
    kdig -p "$resolver_port" @127.0.0.1 +tls-pin="$pin" www.example.net A
start pinned -u "127.0.0.1:$resolver_port,pin-sha256=$other,pin-sha256=$pin"
check "matching pin, after a backup pin" '192\.0\.2\.80' ask www.example.net A
start mismatch -u "127.0.0.1:$resolver_port,pin-sha256=$other"
check "wrong pin" 'SERVFAIL' ask www.example.net A
check "wrong pin: the log names the right one" "the server's key has pin-sha256=${pin//+/\\+}" logged mismatch 'no configured pin'
start report -u "127.0.0.1:$resolver_port,pin-sha256=$other,pin-report"
check "wrong pin with pin-report: answered" '192\.0\.2\.80' ask www.example.net A
check "wrong pin with pin-report: counted" 'pin mismatches=1' counters report
trust=()
start only -u "127.0.0.1:$resolver_port,pin-sha256=$pin,pin-only"
check "pin-only" '192\.0\.2\.80' ask www.example.net A
start roots -u "127.0.0.1:$resolver_port,pin-sha256=$pin"
check "pin without pin-only needs a trusted authority" 'SERVFAIL' ask www.example.net A
trust=(--ca-file "$work/ca.pem")

# Client certificates.
mutual_port=$(free_port)
start mutual -u "127.0.0.1:$resolver_port" --tls-listen "127.0.0.1:$mutual_port" "${shown[@]}" \
    --tls-client-ca "$work/ca.pem" --query-log "$work/queries.json"
mutual=$pid
check "no certificate: refused" '' fails under_tls "$mutual_port" www.example.net A
check "certificate of an unknown authority: refused" 'alert' fails say_hello "$mutual_port" -tls1_2 \
    -cert "$work/stranger.pem" -key "$work/stranger.key"
check "refused before a query is read" ' tls=0 ' counters mutual
own=",client-cert=$work/client.pem,client-key=$work/client.key"
start shows -u "127.0.0.1:$mutual_port$own"
check "client certificate for the upstream" '192\.0\.2\.80' ask www.example.net A
check "its subject is in the query log" '"transport":"tls".*"identity":"CN=some client"' \
    cat "$work/queries.json"
strange=",client-cert=$work/stranger.pem,client-key=$work/stranger.key"
start stranger -u "127.0.0.1:$mutual_port$strange"
check "certificate of an unknown authority upstream: refused" 'SERVFAIL' ask www.example.net A
pid=$mutual
check "one client was served" ' tls=1 ' counters mutual
check "key of another certificate" 'the key does not match the certificate' \
    fails "$binary" --check-conf -u 192.0.2.1 --tls-listen 127.0.0.1 --tls-cert "$work/shown.pem" \
    --tls-key "$work/client.key"

# Certificates are replaced while queries flow.
printf 'www.example.net A\nwww.example.net AAAA\nexample.net MX\n' >"$work/names"
dnsperf -s 127.0.0.1 -p "$tls_port" -m dot -d "$work/names" -c 4 -Q 200 -l 6 -t 30 >"$work/dnsperf.out" 2>&1 &
load=$!
serial() { say_hello "$tls_port" 2>/dev/null | openssl x509 -noout -serial; }
before=$(serial)
sleep 1
echo "no certificate" >"$work/shown.pem"
kill -HUP "$server"
await logged dotproxy 'keeping the previous configuration'
check "invalid new certificate: the old one stays in use" "^$before$" serial
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
    -days 1 -out "$work/shown.pem" -extfile <(
        echo "subjectAltName=DNS:dot.example,IP:127.0.0.1"
    ) 2>/dev/null
kill -HUP "$server"
changed() { [ "$(serial)" != "$before" ]; }
check_soon "valid new certificate is in use" '' changed
wait "$load"
check "dnsperf under TLS meanwhile: none lost" 'Queries lost: +0 ' cat "$work/dnsperf.out"
check "dnsperf under TLS meanwhile: queries completed" 'Queries completed: +[1-9][0-9]+ ' \
    cat "$work/dnsperf.out"
conclude
