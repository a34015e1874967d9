#!/bin/sh
# Builds the static binary of a release for a target: an archive with the binary, manual page,
# completions and licences, and its digest. On Debian the script installs the C compiler for the
# target.
#
#   scripts/release.sh aarch64-unknown-linux-musl
#
# The files are in target/release-files. With SOURCE_DATE_EPOCH, by default the time of the last
# commit, the same sources and compiler yield identical bytes.
set -eu
cd "$(dirname "$0")/.."
target=$1
case $target in
    x86_64-unknown-linux-musl) compiler=musl-gcc package=musl-tools ;;
    aarch64-unknown-linux-musl) compiler=aarch64-linux-gnu-gcc package=gcc-aarch64-linux-gnu ;;
    armv7-unknown-linux-musleabihf) compiler=arm-linux-gnueabihf-gcc package=gcc-arm-linux-gnueabihf ;;
    *)
        echo "no C compiler is known for $target" >&2
        exit 2
        ;;
esac
if ! command -v "$compiler" >/dev/null; then
    as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"
fi
variable=$(echo "$target" | tr a-z- A-Z_)
if [ "$compiler" != musl-gcc ]; then
    export "CC_$(echo "$target" | tr - _)=$compiler" "CARGO_TARGET_${variable}_LINKER=$compiler"
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
rustup target add "$target"
cargo build --release --locked --target "$target" --bin dotproxy

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name="dotproxy-$version-$target"
out=target/release-files
rm -rf "${out:?}/$name"
mkdir -p "$out/$name"
cp "target/$target/release/dotproxy" man/dotproxy.1 man/dotproxy.bash man/_dotproxy man/dotproxy.fish \
    README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$out/$name"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    -C "$out" -cf - "$name" | gzip -n >"$out/$name.tar.gz"
rm -r "${out:?}/$name"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
ls -l "$out/$name.tar.gz"
