# shellcheck shell=bash
# Shared parts of the scripts with real clients: a DNS-over-TLS resolver, the program, and a table
# of results. Source this file in bash, at the root of the repository.

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
PATH="$PATH:/usr/sbin:/sbin"

need() { # tools
    local tool
    for tool in openssl unbound "$@"; do
        command -v "$tool" >/dev/null && continue
        echo "$tool is missing: run scripts/install_test_deps.sh" >&2
        exit 2
    done
}

# shellcheck disable=SC2034 # the sourcing scripts use this
binary=${DOTPROXY:-target/release/dotproxy}
if [ -z "${DOTPROXY:-}" ]; then
    cargo build --release --quiet || exit 2
fi

# `launch LOG COMMAND...` starts a command in the background with its output in this file. The file
# is new when the function returns, so a line that a script waits for is of this command. The
# process id is in `launched`.
launched=
launch() {
    local log=$1
    shift
    rm -f "$log"
    "$@" 2>"$log" &
    launched=$!
    pids+=("$launched")
}

# Prints a port that no socket listens on, below the ephemeral range.
free_port() {
    local port
    while :; do
        port=$((RANDOM % 10000 + 20000))
        ss -Hlntu "sport = :$port" 2>/dev/null | grep -q . || break
    done
    echo "$port"
}

# Creates an authority and a server certificate: name dot.example, address 127.0.0.1.
make_certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj "/CN=dotproxy test authority" -keyout "$work/ca.key" -out "$work/ca.pem" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=dot.example" \
        -keyout "$work/server.key" -out "$work/server.csr"
    openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
        -CAcreateserial -days 1 -out "$work/server.pem" -extfile <(
            echo "subjectAltName=DNS:dot.example,IP:127.0.0.1"
            echo "extendedKeyUsage=serverAuth"
        )
}

# Prints the settings of every unbound of these scripts, for the section `server:`.
unbound_defaults() {
    printf '    %s\n' "directory: \"$work\"" 'chroot: ""' 'username: ""' 'pidfile: ""' 'use-syslog: no'
}

start_unbound() { # port
    local port=$1 part
    make_certificates 2>/dev/null || { echo "openssl could not create the certificates" >&2; exit 2; }
    {
        cat <<CONF
server:
$(unbound_defaults)
    logfile: "$work/unbound.log"
    num-threads: 1
    interface: 127.0.0.1@$port
    tls-port: $port
    tls-service-key: "$work/server.key"
    tls-service-pem: "$work/server.pem"
    access-control: 127.0.0.0/8 allow
    module-config: "iterator"
    incoming-num-tcp: 100
    local-zone: "." transparent
    local-data: ". 86400 IN NS a.root-servers.net."
    local-zone: "example.net." static
    local-data: "example.net. 300 IN SOA ns.example.net. hostmaster.example.net. 1 3600 600 86400 60"
    local-data: "www.example.net. 300 IN A 192.0.2.80"
    local-data: "www.example.net. 300 IN AAAA 2001:db8::80"
    local-data: "example.net. 300 IN MX 10 mail.example.net."
    local-data: 'txt.example.net. 300 IN TXT "plain text"'
    local-zone: "many.example.net." redirect
    local-data: "many.example.net. 300 IN A 192.0.2.1"
CONF
        for part in $(seq 1 60); do
            printf '    local-data: %s\n' \
                "'large.example.net. 300 IN TXT \"part $part of an answer too large for a datagram\"'"
        done
        echo "remote-control:"
        echo "    control-enable: no"
    } >"$work/unbound.conf"
    unbound -d -c "$work/unbound.conf" &
    pids+=($!)
    await is_connectable "$port"
}

# Returns whether a server on this host accepts a TCP connection to a port.
is_connectable() { # port
    (exec 3<>"/dev/tcp/127.0.0.1/$1")
}

# Queries the program that listens on $port.
ask() { dig -p "${port:?}" @127.0.0.1 +tries=1 +time=30 "$@"; }

# Returns whether the command succeeds within a minute. It is repeated until then, since a busy
# machine is slow.
becomes() {
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# Returns whether a log has more than this number of lines with this pattern.
logs_more() { # log, pattern, number
    [ "$(grep -cE -- "$2" "$1")" -gt "$3" ]
}

# Waits until the command succeeds, and ends the script after the timeout.
await() {
    becomes "$@" && return
    echo "timeout while waiting for: $*" >&2
    exit 2
}

failed=0
row() { # outcome, what
    printf '%-7s %s\n' "$1" "$2"
    [ "$1" = ok ] || failed=$((failed + 1))
}

# check WHAT PATTERN COMMAND...: checks that the command succeeds and prints the pattern.
check() {
    local what=$1 pattern=$2 output
    shift 2
    if output=$("$@" 2>&1) && grep -qE -- "$pattern" <<<"$output"; then
        row ok "$what"
    else
        row FAILED "$what"
        printf '        $ %s\n' "$*"
        printf '        | %s\n' "${output//$'\n'/$'\n'        | }"
    fi
}

# check_soon WHAT PATTERN COMMAND...: like `check`, but repeats the command for a while.
check_soon() {
    becomes prints "${@:2}"
    check "$@"
}
prints() { # pattern, command
    "${@:2}" 2>&1 | grep -E -- "$1"
}

# Ends the script. Prints the failures and the log of the program.
conclude() {
    if [ "$failed" -gt 0 ]; then
        echo "$failed failed; log of dotproxy:"
        sed 's/^/    /' "$work/dotproxy.log"
        exit 1
    fi
    echo "all passed"
}
