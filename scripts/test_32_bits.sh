#!/bin/sh
# Runs the tests as a 32-bit program, as on many routers, on an x86 processor.
set -eu
cd "$(dirname "$0")/.."
target=i686-unknown-linux-gnu

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}
# gcc-multilib would conflict in Debian with cross compilers for other architectures.
package=gcc-$(gcc -dumpversion | cut -d. -f1)-multilib
if ! dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
    # Another process may be installing packages.
    as_root apt-get -o DPkg::Lock::Timeout=300 update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
        --no-install-recommends "$package"
fi
headers=/usr/include/$(uname -m)-linux-gnu
export CFLAGS_i686_unknown_linux_gnu="-isystem $headers"
rustup target add "$target"
# These tests need libfaketime, which Debian does not install for 32 bits and 64 bits together.
RUST_TEST_THREADS=8 cargo test --locked --target "$target" -- --skip queries_are_answered_with_a_clock_of_1970 \
    --skip start_with_a_wrong_clock_does_not_prevent_later_starts
