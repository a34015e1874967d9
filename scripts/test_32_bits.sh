#!/bin/sh
# Runs the tests as a program of 32 bits, which many routers are, on a processor of the x86 family.
set -eu
cd "$(dirname "$0")/.."
target=i686-unknown-linux-gnu

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}
if ! dpkg-query -W -f='${db:Status-Status}' gcc-multilib 2>/dev/null | grep -qx installed; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc-multilib
fi
rustup target add "$target"
# The clock of a board is set by a library that Debian has not for 32 bits beside that for 64.
RUST_TEST_THREADS=8 cargo test --locked --target "$target" -- --skip board_whose_clock_starts_in_1970
