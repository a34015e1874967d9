#!/bin/sh
# Installs what the tests need on Debian: real resolvers, clients and load, compilers for the C of
# ring and the C++ of libFuzzer, shellcheck, and the schema of traces. What is there already is left
# alone. Run it as root, or where sudo works.
set -eu

packages="bind9-dnsutils dnsperf dnstap-ldns faketime fstrm-bin g++ iproute2 knot-dnsutils ldnsutils \
libc6-dev musl-tools openssl prometheus python3 python3-pip shellcheck stubby unbound"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=""
for package in $packages; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "Installing:$missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    # The packages start services of their own, on port 53 for one, which the tests do not need.
    if [ -d /run/systemd/system ]; then
        for service in unbound stubby prometheus; do
            case $missing in *$service*) as_root systemctl disable --now "$service" || true ;; esac
        done
    fi
fi

# Of Python only the published schema of traces, which Debian has not. It goes where builds go.
python_target=$(dirname "$0")/../target/python
if [ ! -d "$python_target/opentelemetry/proto" ]; then
    echo "Installing: opentelemetry-proto"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --target "$python_target" opentelemetry-proto==1.45.2
fi
echo "All that the tests need is installed."
